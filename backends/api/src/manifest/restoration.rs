//! The section of a model that makes better or larger frames of frames.

use serde::{Deserialize, Serialize};

/// Frames that one run is given.
const FRAMES_PER_RUN_MAX: usize = 64;
/// By how much each side of a frame grows.
const SCALE_MAX: usize = 8;
/// Pixels that sides are padded to multiples of, and that tiles overlap by.
const PIXELS_MAX: usize = 1024;
/// State tensors.
const STATES_MAX: usize = 16;
/// Channels of a state.
const STATE_CHANNELS_MAX: usize = 4096;
/// Working memory per pixel that a manifest may claim.
const BYTES_PER_PIXEL_MAX: u64 = 1 << 24;
/// Working memory of a run per pixel of a frame that it is given, where the manifest does not say: a few
/// maps of 64 channels in f32, at four times the frame's height and width.
const BYTES_PER_PIXEL_DEFAULT: u64 = 16 << 10;
/// Channels of a picture.
const CHANNELS: u64 = 3;

/// What a model that restores or enlarges frames needs said. Frames and states are f32; frames are RGB.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestorationSpec {
    /// How the model goes through a clip.
    pub kind: RestorationKind,
    /// Input of the frames of one run.
    pub frames: String,
    /// Output of the frames of one run.
    pub output: String,
    /// How several frames lie in one tensor.
    #[serde(default)]
    pub layout: FrameLayout,
    /// By how much height and width grow; 1 when absent.
    #[serde(default = "one")]
    pub scale: usize,
    /// For [`RestorationKind::Recurrent`]: earlier frames that a run is given beside its own.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub before: usize,
    /// For [`RestorationKind::Recurrent`]: later frames that a run is given beside its own.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub after: usize,
    /// For [`RestorationKind::Windowed`]: frames that a run is given.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub window: usize,
    /// For [`RestorationKind::Windowed`]: which frames of the window a run gives.
    #[serde(default)]
    pub gives: WindowGives,
    /// For windows that are given whole: frames that each has in common with the next.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub overlap: usize,
    /// For windows that are given whole: what becomes of frames that two windows gave.
    #[serde(default)]
    pub join: WindowJoin,
    /// Tensors that go from one run to the next; zero at the start of a clip.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub state: Vec<FrameState>,
    /// Height and width are padded, on the right and below, to multiples of this; 1 when absent.
    #[serde(default = "one")]
    pub pad_multiple: usize,
    /// What is put there.
    #[serde(default)]
    pub padding: Padding,
    /// What the values of a pixel go from and to.
    #[serde(default)]
    pub range: ValueRange,
    /// Where a frame is cut into tiles: pixels at an inner edge of a tile that are computed and thrown
    /// away. Results are those of the whole frame when it is as far as the model looks (its
    /// receptive field). 32 when absent.
    #[serde(default = "halo")]
    pub tile_halo: usize,
    /// Pixels over which neighbouring tiles fade into each other, for models that look farther than
    /// the halo; 0 when absent.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tile_feather: usize,
    /// Measured working memory of one run per pixel of a frame that it is given, without inputs,
    /// outputs and states.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_pixel: Option<u64>,
}

/// How a model goes through a clip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RestorationKind {
    /// Frame by frame, each with what states carry over from those before it.
    Recurrent,
    /// A fixed number of frames at a time, nothing carried over.
    Windowed,
}

/// How several frames lie in one tensor. One frame that a run gives has the shape
/// `[1, 3, height, width]` in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FrameLayout {
    /// `[1, 3 * frames, height, width]`.
    #[default]
    Channels,
    /// `[1, frames, 3, height, width]`.
    Sequence,
}

/// Which frames of a window a run gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WindowGives {
    /// All, in the layout of the input.
    #[default]
    All,
    /// The one in the middle, as `[1, 3, height, width]`; there is a run for each frame, and at the
    /// ends of a clip its first and last frame stand in for those that are missing.
    Middle,
}

/// What becomes of frames that two windows gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WindowJoin {
    /// The first half of them, and the odd one, is taken from the earlier window, the rest from the
    /// later.
    #[default]
    Discard,
    /// The earlier window fades into the later.
    Blend,
}

/// What is put beside a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Padding {
    /// Its last pixel, again and again.
    #[default]
    Edge,
    /// Its mirror image, the last pixel not repeated.
    Reflect,
}

/// What the values of a pixel go from and to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ValueRange {
    /// 0 to 1.
    #[default]
    Unit,
    /// −1 to 1.
    Signed,
    /// 0 to 255.
    Byte,
}

/// A state of the size of a frame: f32 `[1, channels, height * scale / divisor, width * scale / divisor]`
/// with the padded height and width.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrameState {
    /// Input that takes the state.
    pub input: String,
    /// Output that gives the next state; may be [`RestorationSpec::output`].
    pub output: String,
    /// Channels.
    pub channels: usize,
    /// Times the frame's sides; 1 when absent.
    #[serde(default = "one")]
    pub scale: usize,
    /// Part of the frame's sides; 1 when absent. It divides [`RestorationSpec::pad_multiple`].
    #[serde(default = "one")]
    pub divisor: usize,
}

impl FrameState {
    /// Its shape beside frames of a padded size.
    pub fn shape(&self, width: usize, height: usize) -> [usize; 4] {
        let side = |pixels: usize| pixels.saturating_mul(self.scale) / self.divisor.max(1);
        [1, self.channels, side(height), side(width)]
    }
}

fn one() -> usize {
    1
}

fn halo() -> usize {
    32
}

fn is_zero(value: &usize) -> bool {
    *value == 0
}

impl RestorationSpec {
    /// Frames that a run is given.
    pub fn frames_in(&self) -> usize {
        match self.kind {
            RestorationKind::Recurrent => self.before + 1 + self.after,
            RestorationKind::Windowed => self.window,
        }
    }

    /// Frames that a run gives.
    pub fn frames_out(&self) -> usize {
        match (self.kind, self.gives) {
            (RestorationKind::Windowed, WindowGives::All) => self.window,
            _ => 1,
        }
    }

    /// Bytes that one run takes for frames or tiles of a padded size: working memory, input and output (each
    /// is there twice, as numbers and as the tensor that holds them for the model), without states.
    pub fn run_bytes(&self, width: usize, height: usize) -> u64 {
        let pixels = (width as u64).saturating_mul(height as u64);
        let values = CHANNELS * size_of::<f32>() as u64;
        let given = values * self.frames_in() as u64;
        let made = values * self.frames_out() as u64 * (self.scale * self.scale) as u64;
        let working = self.bytes_per_pixel.unwrap_or(BYTES_PER_PIXEL_DEFAULT);
        pixels.saturating_mul(working + 2 * (given + made))
    }

    /// Bytes of all states beside frames or tiles of a padded size: each is there twice, as what a run
    /// finds and what it leaves.
    pub fn state_bytes(&self, width: usize, height: usize) -> u64 {
        let bytes = |state: &FrameState| {
            let shape = state.shape(width, height);
            let elements = shape
                .iter()
                .fold(1, |n: u64, &d| n.saturating_mul(d as u64));
            elements.saturating_mul(2 * size_of::<f32>() as u64)
        };
        let sum = |sum: u64, state: &FrameState| sum.saturating_add(bytes(state));
        self.state.iter().fold(0, sum)
    }

    /// Bytes of the frames that are kept beside the runs: those given, in 8 bits, and those being
    /// put together, in f32 and then 8 bits; with windows that blend, also what the window before left.
    pub fn frame_bytes(&self, width: usize, height: usize) -> u64 {
        let pixels = (width as u64).saturating_mul(height as u64);
        // A window and what the last one may reach back to.
        let given = 2 * self.frames_in() as u64 * CHANNELS;
        let made = self.frames_out() as u64 * CHANNELS * (self.scale * self.scale) as u64;
        let kept = self.overlap as u64 * CHANNELS * (self.scale * self.scale) as u64;
        let of_value = size_of::<f32>() as u64;
        pixels.saturating_mul(given + made * (of_value + 1) + kept * of_value)
    }

    /// Checks sizes and what belongs to which kind; else the field and why.
    pub(super) fn check(&self) -> Result<(), (String, String)> {
        let refuse = |field: &str, why: String| Err((format!("restoration.{field}"), why));
        let of_other_kind = match self.kind {
            RestorationKind::Recurrent => [
                ("window", self.window != 0),
                ("gives", self.gives != WindowGives::All),
                ("overlap", self.overlap != 0),
                ("join", self.join != WindowJoin::Discard),
            ],
            RestorationKind::Windowed => [
                ("before", self.before != 0),
                ("after", self.after != 0),
                ("state", !self.state.is_empty()),
                ("join", false),
            ],
        };
        if let Some((field, _)) = of_other_kind.iter().find(|(_, is_said)| *is_said) {
            return refuse(field, "belongs to the other kind".into());
        }
        for (field, size, least, most) in [
            ("scale", self.scale, 1, SCALE_MAX),
            ("pad_multiple", self.pad_multiple, 1, PIXELS_MAX),
            ("tile_halo", self.tile_halo, 0, PIXELS_MAX),
            ("tile_feather", self.tile_feather, 0, PIXELS_MAX),
            ("before", self.before, 0, FRAMES_PER_RUN_MAX - 1),
            ("after", self.after, 0, FRAMES_PER_RUN_MAX - 1),
        ] {
            if !(least..=most).contains(&size) {
                return refuse(field, format!("{size} is not in {least}..={most}"));
            }
        }
        if !(1..=FRAMES_PER_RUN_MAX).contains(&self.frames_in()) {
            let why = format!("a run takes 1 to {FRAMES_PER_RUN_MAX} frames");
            return refuse("window", why);
        }
        if self.overlap >= self.frames_in() {
            return refuse("overlap", "is not less than the window".into());
        }
        if self.gives == WindowGives::Middle && (self.overlap != 0 || self.window.is_multiple_of(2))
        {
            let why = "takes an odd window, and has no overlap".into();
            return refuse("gives", why);
        }
        if self
            .bytes_per_pixel
            .is_some_and(|bytes| bytes > BYTES_PER_PIXEL_MAX)
        {
            return refuse("bytes_per_pixel", format!("is over {BYTES_PER_PIXEL_MAX}"));
        }
        self.check_states()
    }

    fn check_states(&self) -> Result<(), (String, String)> {
        let refuse = |why: String| Err(("restoration.state".to_owned(), why));
        if self.state.len() > STATES_MAX {
            return refuse(format!("there may be {STATES_MAX}"));
        }
        for state in &self.state {
            let sizes = (1..=STATE_CHANNELS_MAX).contains(&state.channels)
                && (1..=SCALE_MAX).contains(&state.scale)
                && state.divisor > 0
                && self.pad_multiple.is_multiple_of(state.divisor);
            if !sizes {
                let why = "has sizes that are zero, absurd, or no part of pad_multiple";
                return refuse(format!("{:?} {why}", state.input));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Manifest;
    use std::path::Path;

    const HEAD: &str = "format = 1\nname = \"m\"\ntask = \"frame-restoration\"\n[[variant]]\n\
        name = \"a\"\nbackend = \"onnxruntime\"\nfile = \"m.onnx\"\nprecision = \"f32\"\n";
    const RECURRENT: &str = "[restoration]\nkind = \"recurrent\"\nframes = \"x\"\noutput = \"y\"\n\
        scale = 4\nbefore = 1\nafter = 1\npad_multiple = 4\nbytes_per_pixel = 100\n\
        [[restoration.state]]\ninput = \"s\"\noutput = \"sn\"\nchannels = 64\ndivisor = 2\n";
    const WINDOWED: &str = "[restoration]\nkind = \"windowed\"\nframes = \"x\"\noutput = \"y\"\n\
        layout = \"sequence\"\nscale = 4\nwindow = 5\noverlap = 2\n";

    fn parse(section: &str) -> Result<RestorationSpec, String> {
        let text = format!("{HEAD}{section}");
        let manifest = Manifest::parse(&text, Path::new("mote.toml"));
        let manifest = manifest.map_err(|error| error.to_string())?;
        Ok(manifest.restoration.expect("a section"))
    }

    #[test]
    fn a_restorer_says_how_it_goes_through_a_clip() {
        let recurrent = parse(RECURRENT).expect("good");
        assert_eq!((recurrent.frames_in(), recurrent.frames_out()), (3, 1));
        assert_eq!(recurrent.state[0].shape(8, 4), [1, 64, 2, 4]);
        let windowed = parse(WINDOWED).expect("good");
        assert_eq!((windowed.frames_in(), windowed.frames_out()), (5, 5));
        for (base, from, to, field) in [
            (RECURRENT, "scale = 4", "scale = 0", "restoration.scale"),
            (RECURRENT, "scale = 4", "scale = 99", "restoration.scale"),
            (RECURRENT, "before = 1", "before = 64", "restoration.before"),
            (RECURRENT, "before = 1", "window = 3", "restoration.window"),
            (
                RECURRENT,
                "before = 1",
                "join = \"blend\"",
                "restoration.join",
            ),
            (RECURRENT, "divisor = 2", "divisor = 3", "restoration.state"),
            (
                RECURRENT,
                "channels = 64",
                "channels = 0",
                "restoration.state",
            ),
            (
                RECURRENT,
                "bytes_per_pixel = 100",
                "bytes_per_pixel = 99999999",
                "restoration.bytes_per_pixel",
            ),
            (WINDOWED, "window = 5", "window = 65", "restoration.window"),
            (WINDOWED, "window = 5", "", "restoration.window"),
            (
                WINDOWED,
                "overlap = 2",
                "overlap = 5",
                "restoration.overlap",
            ),
            (WINDOWED, "overlap = 2", "before = 1", "restoration.before"),
            (
                WINDOWED,
                "overlap = 2",
                "overlap = 2\ngives = \"middle\"",
                "restoration.gives",
            ),
            (WINDOWED, "[restoration]", "[other]", "not a model manifest"),
            (
                WINDOWED,
                "overlap = 2",
                "overlap = 2\npad = 3",
                "not a model manifest",
            ),
        ] {
            let message = parse(&base.replace(from, to)).expect_err(to);
            assert!(message.contains(field), "{to}: {message}");
        }
        let missing = parse("").expect_err("has no section");
        assert!(missing.contains("restoration: is missing"), "{missing}");
    }

    #[test]
    fn memory_is_estimated_from_what_the_manifest_says() {
        let spec = parse(RECURRENT).expect("good");
        // 100 of the manifest's, and twice: 3 frames of 12 bytes, and one of 12 at 4 x 4 the pixels.
        assert_eq!(spec.run_bytes(8, 4), 32 * (100 + 2 * (3 * 12 + 16 * 12)));
        assert_eq!(spec.state_bytes(8, 4), 64 * 2 * 4 * 4 * 2);
        assert_eq!(spec.frame_bytes(8, 4), 32 * (2 * 3 * 3 + 16 * 3 * 5));
        // It does not overflow.
        assert_eq!(spec.run_bytes(usize::MAX, usize::MAX), u64::MAX);
        assert_eq!(spec.state_bytes(usize::MAX, usize::MAX), u64::MAX);
        let unsaid = parse(WINDOWED).expect("good");
        assert!(unsaid.run_bytes(1, 1) > BYTES_PER_PIXEL_DEFAULT);
    }
}
