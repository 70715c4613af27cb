//! [`Tiling`]: how a frame is cut into pieces that a model, or memory, has room for.

use crate::manifest::RestorationSpec;

/// Tiles of one frame at most: each has a session and states of its own.
pub const TILES_MAX: usize = 1024;
/// Pixels of one frame, given or made, at most (8K).
pub const FRAME_PIXELS_MAX: usize = 1 << 25;

/// Why a frame cannot be cut.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum TilingError {
    #[error(
        "a frame of {width}x{height}, {scale} times as large, is empty or over {FRAME_PIXELS_MAX} pixels"
    )]
    Frame {
        width: usize,
        height: usize,
        scale: usize,
    },
    #[error("tiles of {side} pixels are not more than what they overlap by, {overlap}")]
    Overlap { side: usize, overlap: usize },
    #[error("a frame of {width}x{height} takes {tiles} tiles, more than {TILES_MAX}")]
    TooMany {
        width: usize,
        height: usize,
        tiles: usize,
    },
    #[error(
        "a frame of {width}x{height} takes {need_bytes} bytes in the smallest tiles, {have_bytes} may be used"
    )]
    OverBudget {
        width: usize,
        height: usize,
        need_bytes: u64,
        have_bytes: u64,
    },
}

/// What tiles may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TileLimits {
    /// Height and width that the model is fixed to.
    pub fixed: [Option<usize>; 2],
    /// Height and width that somebody asks for at most, before padding.
    pub side_max: Option<usize>,
    /// Memory for everything that frames of this size take beside the model's weights.
    pub memory_bytes_max: Option<u64>,
}

/// Tiles of one size, in rows and columns, that cover a padded frame. A frame that is not cut is one
/// tile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tiling {
    /// The frame before padding.
    pub frame: [usize; 2],
    /// Height and width of each tile.
    pub tile: [usize; 2],
    /// Top edges of the rows of tiles; the last row ends where the padded frame does.
    pub tops: Vec<usize>,
    /// Left edges of the columns.
    pub lefts: Vec<usize>,
}

impl Tiling {
    /// The largest tiles within `limits`; the whole frame where it fits.
    ///
    /// # Errors
    /// Says what there is no room for.
    pub fn plan(
        spec: &RestorationSpec,
        [height, width]: [usize; 2],
        limits: &TileLimits,
    ) -> Result<Self, TilingError> {
        check_frame(spec, [height, width])?;
        let lines = [0, 1].map(|axis| Line::new(spec, [height, width][axis]));
        let first = [0, 1].map(|axis| lines[axis].largest(limits.fixed[axis], limits.side_max));
        let mut tile = first;
        loop {
            let tiling = Self::of(spec, [height, width], tile)?;
            let Some(have_bytes) = limits.memory_bytes_max else {
                return Ok(tiling);
            };
            let need_bytes = tiling.memory_bytes(spec);
            if need_bytes <= have_bytes {
                return Ok(tiling);
            }
            // The longer side that can give way does.
            let smaller = [0, 1].map(|axis| match limits.fixed[axis] {
                Some(_) => None,
                None => lines[axis].one_more_than(tile[axis]),
            });
            let longer = usize::from(tile[1] > tile[0]);
            match (smaller[longer], smaller[1 - longer]) {
                (Some(side), _) => tile[longer] = side,
                (None, Some(side)) => tile[1 - longer] = side,
                (None, None) => {
                    return Err(TilingError::OverBudget {
                        width,
                        height,
                        need_bytes,
                        have_bytes,
                    });
                }
            }
        }
    }

    fn of(
        spec: &RestorationSpec,
        frame: [usize; 2],
        tile: [usize; 2],
    ) -> Result<Self, TilingError> {
        let edges = |axis: usize| Line::new(spec, frame[axis]).edges(tile[axis]);
        let (tops, lefts) = (edges(0)?, edges(1)?);
        let tiles = tops.len().saturating_mul(lefts.len());
        if tiles > TILES_MAX {
            let [height, width] = frame;
            return Err(TilingError::TooMany {
                width,
                height,
                tiles,
            });
        }
        Ok(Self {
            frame,
            tile,
            tops,
            lefts,
        })
    }

    /// Tiles.
    pub fn tiles(&self) -> usize {
        self.tops.len() * self.lefts.len()
    }

    /// Height and width of the frame with its padding.
    pub fn padded(&self) -> [usize; 2] {
        let end = |edges: &[usize], side: usize| edges.last().map_or(0, |edge| edge + side);
        [
            end(&self.tops, self.tile[0]),
            end(&self.lefts, self.tile[1]),
        ]
    }

    /// Bytes that frames of this size take beside the model's weights: one run, the states of all tiles,
    /// and the frames themselves.
    pub fn memory_bytes(&self, spec: &RestorationSpec) -> u64 {
        let [height, width] = self.tile;
        let states = spec.state_bytes(width, height);
        let states = states.saturating_mul(self.tiles() as u64);
        let frames = spec.frame_bytes(self.frame[1], self.frame[0]);
        let run = spec.run_bytes(width, height);
        run.saturating_add(states).saturating_add(frames)
    }
}

fn check_frame(spec: &RestorationSpec, [height, width]: [usize; 2]) -> Result<(), TilingError> {
    let scale = spec.scale;
    let made = [height, width, scale, scale]
        .into_iter()
        .try_fold(1, usize::checked_mul);
    if made.is_some_and(|pixels| (1..=FRAME_PIXELS_MAX).contains(&pixels)) {
        return Ok(());
    }
    Err(TilingError::Frame {
        width,
        height,
        scale,
    })
}

/// One axis of a frame.
struct Line {
    /// Pixels, padded to the multiple.
    padded: usize,
    multiple: usize,
    overlap: usize,
}

impl Line {
    fn new(spec: &RestorationSpec, pixels: usize) -> Self {
        Self {
            padded: pixels.next_multiple_of(spec.pad_multiple),
            multiple: spec.pad_multiple,
            overlap: 2 * spec.tile_halo + spec.tile_feather,
        }
    }

    /// The side of a tile before memory is looked at.
    fn largest(&self, fixed: Option<usize>, side_max: Option<usize>) -> usize {
        let asked = side_max.map(|side| side - side % self.multiple);
        fixed.unwrap_or_else(|| asked.map_or(self.padded, |side| side.min(self.padded)))
    }

    /// The side of tiles of which there is one more than of tiles with this side; `None` when they
    /// would be hardly more than what they overlap by.
    fn one_more_than(&self, side: usize) -> Option<usize> {
        let count = self.count(side)? + 1;
        let all = self.padded + (count - 1) * self.overlap;
        let smaller = all.div_ceil(count).next_multiple_of(self.multiple);
        // At least half of a tile is to be of use.
        (smaller < side && smaller > 2 * self.overlap).then_some(smaller)
    }

    /// Tiles of this side that it takes; `None` when no number of them would do.
    fn count(&self, side: usize) -> Option<usize> {
        if side >= self.padded {
            return Some(1);
        }
        let step = side.checked_sub(self.overlap)? / self.multiple * self.multiple;
        (step > 0).then(|| (self.padded - side).div_ceil(step) + 1)
    }

    /// Where tiles of this side begin: spread evenly, each at a multiple.
    fn edges(&self, side: usize) -> Result<Vec<usize>, TilingError> {
        let overlap = self.overlap;
        let count = self.count(side).filter(|_| side > 0);
        let count = count.ok_or(TilingError::Overlap { side, overlap })?;
        // What there is no room for in memory is refused by the caller; this bounds the list.
        let count = count.min(TILES_MAX + 1);
        let last = self.padded.saturating_sub(side) / self.multiple;
        let edge = |at: usize| last * at / (count - 1).max(1) * self.multiple;
        Ok((0..count).map(edge).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Manifest;

    fn spec(more: &str) -> RestorationSpec {
        let text = format!(
            "format = 1\nname = \"m\"\ntask = \"frame-restoration\"\n[[variant]]\nname = \"a\"\n\
             backend = \"onnxruntime\"\nfile = \"m.onnx\"\nprecision = \"f32\"\n[restoration]\n\
             kind = \"recurrent\"\nframes = \"x\"\noutput = \"y\"\n{more}"
        );
        let manifest = Manifest::parse(&text, std::path::Path::new("mote.toml"));
        manifest.expect("good").restoration.expect("a section")
    }

    /// Neighbours overlap by enough, all begin at multiples, and the last ends with the frame.
    fn assert_sound(tiling: &Tiling, spec: &RestorationSpec) {
        let overlap = 2 * spec.tile_halo + spec.tile_feather;
        for (axis, edges) in [&tiling.tops, &tiling.lefts].into_iter().enumerate() {
            let side = tiling.tile[axis];
            assert_eq!(edges[0], 0, "{tiling:?}");
            for pair in edges.windows(2) {
                let shared = (pair[0] + side).checked_sub(pair[1]).expect("no gap");
                assert!(shared >= overlap && pair[1] > pair[0], "{tiling:?}");
            }
            assert!(edges.iter().all(|edge| edge % spec.pad_multiple == 0));
            assert!(tiling.padded()[axis] >= tiling.frame[axis]);
        }
    }

    #[test]
    fn every_size_is_covered_with_overlap() {
        for more in [
            "tile_halo = 0",
            "tile_halo = 5\npad_multiple = 4",
            "tile_halo = 8\ntile_feather = 7\npad_multiple = 32",
        ] {
            let spec = spec(more);
            for width in (1..400).step_by(13) {
                for side_max in [None, Some(64), Some(96), Some(100)] {
                    let limits = TileLimits {
                        side_max,
                        ..TileLimits::default()
                    };
                    let tiling = Tiling::plan(&spec, [70, width], &limits).expect("can be cut");
                    assert_sound(&tiling, &spec);
                    let whole = width.next_multiple_of(spec.pad_multiple);
                    assert!(tiling.tile[1] <= side_max.unwrap_or(whole), "{tiling:?}");
                }
            }
            // A model of a fixed size takes that, however small the frame is.
            let limits = TileLimits {
                fixed: [Some(64), Some(96)],
                ..TileLimits::default()
            };
            for size in [[3, 5], [64, 96], [65, 97], [200, 300]] {
                let tiling = Tiling::plan(&spec, size, &limits).expect("can be cut");
                assert_eq!(tiling.tile, [64, 96]);
                assert_sound(&tiling, &spec);
            }
        }
    }

    #[test]
    fn a_budget_decides_how_many_tiles_there_are() {
        let spec = spec(
            "scale = 4\npad_multiple = 4\ntile_halo = 8\nbytes_per_pixel = 10000\n\
             [[restoration.state]]\ninput = \"s\"\noutput = \"t\"\nchannels = 8\n",
        );
        let size = [360, 640];
        let plan = |memory_bytes_max| {
            let limits = TileLimits {
                memory_bytes_max,
                ..TileLimits::default()
            };
            Tiling::plan(&spec, size, &limits)
        };
        let whole = plan(None).expect("no limit");
        assert_eq!((whole.tiles(), whole.tile), (1, size));
        let all = whole.memory_bytes(&spec);
        assert_eq!(plan(Some(all)).expect("fits"), whole);
        let mut tiles = 1;
        for part in [2, 4, 8, 16] {
            let budget = all / part;
            let tiling = plan(Some(budget)).expect("fits");
            assert!(tiling.memory_bytes(&spec) <= budget, "{tiling:?}");
            assert!(tiling.tiles() > tiles, "{tiling:?}");
            assert_sound(&tiling, &spec);
            tiles = tiling.tiles();
        }
        let refused = plan(Some(1 << 20)).expect_err("frames alone take more");
        assert!(
            matches!(refused, TilingError::OverBudget { have_bytes, .. } if have_bytes == 1 << 20)
        );
    }

    #[test]
    fn what_cannot_be_cut_is_refused() {
        let narrow = spec("tile_halo = 64");
        let plan = |spec: &RestorationSpec, size, side_max| {
            let limits = TileLimits {
                side_max: Some(side_max),
                ..TileLimits::default()
            };
            Tiling::plan(spec, size, &limits)
        };
        let refused = plan(&narrow, [256, 256], 128);
        let (side, overlap) = (128, 128);
        assert_eq!(refused, Err(TilingError::Overlap { side, overlap }));
        let bare = spec("tile_halo = 0");
        let refused = plan(&bare, [4000, 4000], 8);
        assert!(matches!(refused, Err(TilingError::TooMany { .. })));
        assert!(plan(&bare, [4000, 4000], 0).is_err());
        for size in [[0, 8], [8, 0], [usize::MAX, 2], [1 << 20, 1 << 20]] {
            let refused = plan(&bare, size, 8);
            assert!(
                matches!(refused, Err(TilingError::Frame { .. })),
                "{size:?}"
            );
        }
    }
}
