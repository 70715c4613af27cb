//! How much each tile of a frame has to say about each pixel.

use mote_api::{RestorationSpec, Tiling};
use std::ops::Range;

/// What the tiles of one row, or one column, have to say along their axis of what is made.
pub(super) struct Share {
    /// Pixels of the whole that the tile says anything about.
    pub pixels: Range<usize>,
    /// Where the first of them lies in the tile.
    pub offset: usize,
    /// How much it says about each.
    pub weights: Vec<f32>,
}

/// Shares of all rows and of all columns of tiles. They add up to 1 for each pixel: neighbours hand over in
/// the middle of what they have in common, over `tile_feather` pixels or at once.
pub(super) fn shares(tiling: &Tiling, spec: &RestorationSpec) -> [Vec<Share>; 2] {
    [
        (&tiling.tops, tiling.tile[0], tiling.frame[0]),
        (&tiling.lefts, tiling.tile[1], tiling.frame[1]),
    ]
    .map(|(edges, side, length)| along(edges, side, length, spec))
}

fn along(edges: &[usize], side: usize, length: usize, spec: &RestorationSpec) -> Vec<Share> {
    let scale = spec.scale;
    let fade = (spec.tile_feather * scale) as f64;
    let middles: Vec<f64> = edges
        .windows(2)
        .map(|pair| ((pair[0] + side + pair[1]) * scale) as f64 / 2.0)
        .collect();
    // How much tile `at` and those after it say about a pixel.
    let from = |at: usize, pixel: usize| match at.checked_sub(1).map(|before| middles.get(before)) {
        None => 1.0,
        Some(None) => 0.0,
        Some(Some(middle)) => {
            let beyond = pixel as f64 + 0.5 - middle;
            match fade > 0.0 {
                true => (beyond / fade + 0.5).clamp(0.0, 1.0),
                false => f64::from(u8::from(beyond >= 0.0)),
            }
        }
    };
    let of_tile = |(at, &edge): (usize, &usize)| {
        let weight = |pixel| (from(at, pixel) - from(at + 1, pixel)) as f32;
        let all = edge * scale..((edge + side).min(length) * scale);
        let first = all.clone().find(|&pixel| weight(pixel) > 0.0);
        let last = all.clone().rev().find(|&pixel| weight(pixel) > 0.0);
        let pixels = first.map_or(0..0, |first| first..last.map_or(first, |last| last + 1));
        Share {
            offset: pixels.start.saturating_sub(edge * scale),
            weights: pixels.clone().map(weight).collect(),
            pixels,
        }
    };
    edges.iter().enumerate().map(of_tile).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_api::{Manifest, TileLimits};

    #[test]
    fn what_tiles_say_adds_up_to_one_and_halos_say_nothing() {
        for (halo, feather, multiple) in [(0, 0, 1), (3, 0, 4), (2, 5, 1), (4, 6, 8)] {
            let text = format!(
                "format = 1\nname = \"m\"\ntask = \"frame-restoration\"\n[[variant]]\nname = \"a\"\n\
                 backend = \"onnxruntime\"\nfile = \"m.onnx\"\nprecision = \"f32\"\n[restoration]\n\
                 kind = \"recurrent\"\nframes = \"x\"\noutput = \"y\"\nscale = 2\n\
                 tile_halo = {halo}\ntile_feather = {feather}\npad_multiple = {multiple}\n"
            );
            let manifest = Manifest::parse(&text, std::path::Path::new("mote.toml"));
            let spec = manifest.expect("good").restoration.expect("a section");
            let limits = TileLimits {
                side_max: Some(32),
                ..TileLimits::default()
            };
            for width in [5, 32, 33, 61, 100, 127] {
                let tiling = Tiling::plan(&spec, [9, width], &limits).expect("can be cut");
                let [rows, columns] = shares(&tiling, &spec);
                assert_eq!(rows.len(), 1);
                let mut sum = vec![0.0; width * 2];
                for (at, share) in columns.iter().enumerate() {
                    let reach = share.offset..share.offset + share.weights.len();
                    let is_first = at == 0;
                    let is_last = at + 1 == columns.len();
                    assert!(
                        is_first || reach.start >= 2 * halo,
                        "{halo} {feather} {width}"
                    );
                    assert!(is_last || reach.end <= 2 * (tiling.tile[1] - halo));
                    for (pixel, weight) in share.pixels.clone().zip(&share.weights) {
                        assert!(*weight >= 0.0);
                        sum[pixel] += weight;
                    }
                }
                assert!(sum.iter().all(|sum| (sum - 1.0).abs() < 1e-6), "{sum:?}");
            }
        }
    }
}
