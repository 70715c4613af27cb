//! How pictures become inputs, and outputs pictures: `[[input]]` and `[[output]]`.

use serde::{Deserialize, Serialize};

/// How a picture becomes an input: `(pixel * scale - mean) / std` per channel, pixels 0..=255.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputHint {
    /// Input's name.
    pub name: String,
    /// Where the channels are.
    pub layout: PictureLayout,
    /// Multiplied first.
    pub scale: f32,
    /// Subtracted, per channel.
    pub mean: [f32; 3],
    /// Divided by, per channel.
    pub std: [f32; 3],
    /// What the first channel is; red when absent.
    #[serde(default, skip_serializing_if = "is_default")]
    pub order: ChannelOrder,
    /// What becomes of a picture with other proportions; it is stretched when absent.
    #[serde(default, skip_serializing_if = "is_default")]
    pub fit: Fit,
    /// How pictures are scaled; bilinearly when absent.
    #[serde(default, skip_serializing_if = "is_default")]
    pub filter: Filter,
    /// The pixel beside a letterboxed picture, in red, green and blue; black when absent.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pad: [u8; 3],
}

/// How an output becomes a picture: `(value * std + mean) / scale` per channel is a pixel 0..=255, as an
/// [`InputHint`] says it the other way round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputHint {
    /// Output's name.
    pub name: String,
    /// Where the channels are.
    pub layout: PictureLayout,
    /// Divided by last.
    pub scale: f32,
    /// Added, per channel.
    pub mean: [f32; 3],
    /// Multiplied first, per channel.
    pub std: [f32; 3],
    /// What the first channel is; red when absent.
    #[serde(default, skip_serializing_if = "is_default")]
    pub order: ChannelOrder,
}

/// Where the channels of a picture are in a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PictureLayout {
    /// `[1, channels, height, width]`: a plane per channel.
    Nchw,
    /// `[1, height, width, channels]`: the channels of a pixel side by side.
    Nhwc,
    /// `[1, frames, channels, height, width]`, for models that are given several frames.
    Ntchw,
    /// `[1, channels, frames, height, width]`, likewise.
    Ncthw,
    /// `[1, frames, height, width, channels]`, likewise.
    Nthwc,
}

impl std::fmt::Display for PictureLayout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nchw => "nchw",
            Self::Nhwc => "nhwc",
            Self::Ntchw => "ntchw",
            Self::Ncthw => "ncthw",
            Self::Nthwc => "nthwc",
        })
    }
}

impl PictureLayout {
    /// Whether each channel has a plane of its own.
    pub fn is_planar(self) -> bool {
        matches!(self, Self::Nchw | Self::Ntchw | Self::Ncthw)
    }
}

/// The order of three channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelOrder {
    /// Red, green, blue.
    #[default]
    Rgb,
    /// Blue, green, red.
    Bgr,
}

/// What becomes of a picture whose proportions are not those of the input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// It fills the input.
    #[default]
    Stretch,
    /// It keeps its proportions, in the middle of the input, with [`InputHint::pad`] beside it.
    Letterbox,
}

/// How a picture is scaled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// Between the two nearest pixels each way, whose centres are half a pixel from their edges.
    #[default]
    Bilinear,
    /// The mean over what a pixel covers where the picture shrinks; bilinear where it grows.
    Area,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl InputHint {
    /// Values 0..=1 in red, green and blue; pictures are stretched.
    pub fn plain(name: &str, layout: PictureLayout) -> Self {
        Self {
            name: name.to_owned(),
            layout,
            scale: 1.0 / 255.0,
            mean: [0.0; 3],
            std: [1.0; 3],
            order: ChannelOrder::Rgb,
            fit: Fit::Stretch,
            filter: Filter::Bilinear,
            pad: [0; 3],
        }
    }

    pub(super) fn check(&self) -> Result<(), (String, String)> {
        check(("input", &self.name), self.scale, &self.mean, &self.std)
    }
}

impl OutputHint {
    /// Values 0..=1 in red, green and blue.
    pub fn plain(name: &str, layout: PictureLayout) -> Self {
        Self {
            name: name.to_owned(),
            layout,
            scale: 1.0 / 255.0,
            mean: [0.0; 3],
            std: [1.0; 3],
            order: ChannelOrder::Rgb,
        }
    }

    pub(super) fn check(&self) -> Result<(), (String, String)> {
        check(("output", &self.name), self.scale, &self.mean, &self.std)
    }
}

fn check(
    (list, name): (&str, &str),
    scale: f32,
    mean: &[f32; 3],
    std: &[f32; 3],
) -> Result<(), (String, String)> {
    let refuse = |field, why: &str| Err((format!("{list}[{name}].{field}"), why.to_owned()));
    if !scale.is_normal() {
        return refuse("scale", "is not a number other than 0");
    }
    if !mean.iter().all(|mean| mean.is_finite()) {
        return refuse("mean", "is not three numbers");
    }
    if !std.iter().all(|std| std.is_normal()) {
        return refuse("std", "is not three numbers other than 0");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Manifest;
    use super::*;
    use std::path::Path;

    const GOOD: &str = "format = 1\nname = \"m\"\ntask = \"tensor\"\n[[variant]]\nname = \"a\"\n\
        backend = \"tract\"\nfile = \"m.onnx\"\nprecision = \"f32\"\n";
    const INPUT: &str = "[[input]]\nname = \"x\"\nlayout = \"nhwc\"\nscale = 0.5\n\
        mean = [0.0, 1.0, 2.0]\nstd = [1.0, 1.0, 2.0]\n";
    const MORE: &str = "order = \"bgr\"\nfit = \"letterbox\"\nfilter = \"area\"\npad = [1, 2, 3]\n";

    fn parse(more: &str) -> Result<Manifest, String> {
        let text = format!("{GOOD}{more}");
        Manifest::parse(&text, Path::new("mote.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn hints_say_how_pictures_become_inputs_and_outputs_pictures() {
        let manifest = parse(INPUT).expect("holds");
        let usual = InputHint::plain("x", PictureLayout::Nhwc);
        let said = InputHint {
            scale: 0.5,
            mean: [0.0, 1.0, 2.0],
            std: [1.0, 1.0, 2.0],
            ..usual
        };
        assert_eq!(manifest.inputs, std::slice::from_ref(&said));
        let manifest = parse(&format!("{INPUT}{MORE}")).expect("holds");
        let all = InputHint {
            order: ChannelOrder::Bgr,
            fit: Fit::Letterbox,
            filter: Filter::Area,
            pad: [1, 2, 3],
            ..said
        };
        assert_eq!(manifest.inputs, [all]);
        let text = toml::to_string(&manifest).expect("plain");
        let again = Manifest::parse(&text, Path::new("mote.toml")).expect("holds");
        assert_eq!(again, manifest);
        let output = INPUT.replace("[[input]]", "[[output]]");
        let manifest = parse(&format!("{output}order = \"bgr\"\n")).expect("holds");
        assert_eq!(manifest.outputs[0].order, ChannelOrder::Bgr);
        parse(&format!("{output}fit = \"letterbox\"\n")).expect_err("outputs are not fitted");
    }

    #[test]
    fn hints_that_do_not_hold_are_refused_by_field() {
        for (from, to, field) in [
            ("scale = 0.5", "scale = 0.0", "input[x].scale"),
            ("scale = 0.5", "scale = nan", "input[x].scale"),
            ("[0.0, 1.0, 2.0]", "[0.0, inf, 2.0]", "input[x].mean"),
            ("[1.0, 1.0, 2.0]", "[1.0, 0.0, 2.0]", "input[x].std"),
        ] {
            let error = parse(&INPUT.replace(from, to)).expect_err(field);
            assert!(error.contains(field), "{error}");
            let output = INPUT.replace(from, to).replace("[[input]]", "[[output]]");
            let error = parse(&output).expect_err(field);
            assert!(error.contains(&field.replace("input", "output")), "{error}");
        }
        parse(&INPUT.replace("nhwc", "chwn")).expect_err("no such layout");
    }
}
