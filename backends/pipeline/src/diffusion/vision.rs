//! Pictures as an encoder of its own takes them (CLIP): how they are scaled, cut and normed.

use super::layout::{malformed, read_json};
use super::pixels::{Axis, Kernel, resample};
use crate::PipelineError;
use crate::clip::Rgb;
use serde::Deserialize;
use std::path::Path;

/// Folder and file of transformers' own description.
const PROCESSOR: &str = "image_processor/preprocessor_config.json";
/// Pixels along a side at most.
const SIDE_MAX: usize = 4096;
const CHANNELS: usize = 3;

/// What `CLIPImageProcessor` of transformers does, by its config; CLIP's own numbers where there is none
/// (Radford et al. 2021).
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ImageProcessor {
    scaled: Scaled,
    /// What the encoder is given: height and width.
    pub crop: [usize; 2],
    kernel: Kernel,
    rescale: f32,
    mean: [f32; CHANNELS],
    std: [f32; CHANNELS],
}

/// What a picture is scaled to before its middle is cut out.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Scaled {
    ShortestEdge(usize),
    /// Height and width, whatever its proportions.
    Exactly([usize; 2]),
}

#[derive(Deserialize)]
#[serde(default)]
struct Config {
    do_resize: bool,
    do_center_crop: bool,
    do_rescale: bool,
    do_normalize: bool,
    size: Size,
    crop_size: Size,
    resample: u32,
    rescale_factor: f32,
    image_mean: [f32; CHANNELS],
    image_std: [f32; CHANNELS],
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct Size {
    shortest_edge: Option<usize>,
    height: Option<usize>,
    width: Option<usize>,
}

impl Default for Config {
    fn default() -> Self {
        let side = Some(224);
        Self {
            do_resize: true,
            do_center_crop: true,
            do_rescale: true,
            do_normalize: true,
            size: Size {
                shortest_edge: side,
                ..Size::default()
            },
            crop_size: Size {
                height: side,
                width: side,
                ..Size::default()
            },
            resample: 3,
            rescale_factor: 1.0 / 255.0,
            image_mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            image_std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
        }
    }
}

impl ImageProcessor {
    /// Reads `image_processor/preprocessor_config.json` of the folder, if it is there.
    ///
    /// # Errors
    /// When it is malformed, or asks for what is not served: each names the field.
    pub fn read(folder: &Path) -> Result<Self, PipelineError> {
        let file = folder.join(PROCESSOR);
        let config = match file.exists() {
            true => read_json(&file)?,
            false => Config::default(),
        };
        Self::of(config).map_err(|why| malformed(&file, why))
    }

    fn of(config: Config) -> Result<Self, String> {
        let is_side = |side: &usize| (1..=SIDE_MAX).contains(side);
        let both = |size: Size| match (size.height, size.width) {
            (Some(height), Some(width)) => Some([height, width]),
            _ => None,
        };
        if !config.do_resize {
            return Err("do_resize is false, and pictures have many sizes".into());
        }
        let scaled = match (config.size.shortest_edge, both(config.size)) {
            (Some(edge), _) => Scaled::ShortestEdge(edge),
            (None, Some(size)) => Scaled::Exactly(size),
            (None, None) => return Err("size has no shortest_edge, nor height and width".into()),
        };
        let crop = match (config.do_center_crop, scaled) {
            (true, _) => both(config.crop_size)
                .or(config.crop_size.shortest_edge.map(|edge| [edge; 2]))
                .ok_or("crop_size has no height and width")?,
            (false, Scaled::Exactly(size)) => size,
            (false, Scaled::ShortestEdge(_)) => {
                return Err("do_center_crop is false, and size leaves the other edge open".into());
            }
        };
        let fits = match scaled {
            Scaled::ShortestEdge(edge) => is_side(&edge) && crop.iter().all(|&it| it <= edge),
            Scaled::Exactly(size) => {
                size.iter().all(is_side) && crop.iter().zip(size).all(|(&crop, size)| crop <= size)
            }
        };
        if !fits || !crop.iter().all(is_side) {
            return Err(format!(
                "size and crop_size are not 1 to {SIDE_MAX}, the crop within"
            ));
        }
        let kernel = match config.resample {
            2 => Kernel::Triangle,
            3 => Kernel::CatmullRom,
            other => {
                return Err(format!(
                    "resample {other} is not 2 (bilinear) or 3 (bicubic)"
                ));
            }
        };
        let (mean, std) = match config.do_normalize {
            true => (config.image_mean, config.image_std),
            false => ([0.0; CHANNELS], [1.0; CHANNELS]),
        };
        let rescale = if config.do_rescale {
            config.rescale_factor
        } else {
            1.0
        };
        let finite = mean.iter().chain(&std).chain([&rescale]);
        if !finite.into_iter().all(|value| value.is_finite()) || std.contains(&0.0) {
            return Err("image_mean, image_std or rescale_factor is no number to norm with".into());
        }
        Ok(Self {
            scaled,
            crop,
            kernel,
            rescale,
            mean,
            std,
        })
    }

    /// `[3, height, width]` of a picture, as the encoder takes it.
    pub fn pixels(&self, picture: &Rgb) -> Vec<f32> {
        let from = [picture.height, picture.width];
        let shortest = from[0].min(from[1]);
        let scaled = match self.scaled {
            // Rounded down, as transformers does.
            Scaled::ShortestEdge(edge) => {
                from.map(|side| (edge as f64 * side as f64 / shortest as f64).floor())
            }
            Scaled::Exactly(size) => size.map(|side| side as f64),
        };
        let axes = [0, 1].map(|axis| Axis::middle(self.crop[axis], scaled[axis], from[axis]));
        let bytes = resample(picture, axes, self.kernel);
        let mut planes = Vec::with_capacity(bytes.len());
        for c in 0..CHANNELS {
            let values = bytes.iter().skip(c).step_by(CHANNELS);
            let norm = |&byte: &u8| (f32::from(byte) * self.rescale - self.mean[c]) / self.std[c];
            planes.extend(values.map(norm));
        }
        planes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Result<ImageProcessor, String> {
        ImageProcessor::of(serde_json::from_str(json).expect("JSON"))
    }

    #[test]
    fn configs_are_read_or_refused_by_field() {
        let clip = of("{}").expect("CLIP's own");
        assert_eq!((clip.crop, clip.kernel), ([224, 224], Kernel::CatmullRom));
        let other =
            r#"{"size": {"height": 8, "width": 6}, "do_center_crop": false, "resample": 2}"#;
        assert_eq!(of(other).expect("it is served").crop, [8, 6]);
        for (json, field) in [
            (r#"{"do_resize": false}"#, "do_resize"),
            (r#"{"size": {}}"#, "size"),
            (r#"{"size": {"shortest_edge": 8}}"#, "crop"),
            (r#"{"size": {"shortest_edge": 1000000}}"#, "size"),
            (r#"{"do_center_crop": false}"#, "do_center_crop"),
            (r#"{"crop_size": {"shortest_edge": null}}"#, "crop_size"),
            (r#"{"resample": 1}"#, "resample"),
            (r#"{"image_std": [1.0, 0.0, 1.0]}"#, "image_std"),
        ] {
            let why = of(json).expect_err(json);
            assert!(why.contains(field), "{json}: {why}");
        }
    }

    const CUT: [f32; 27] = [
        90.0, 182.0, 141.0, 141.0, 209.0, 105.0, 192.0, 86.0, 69.0, 195.0, 178.0, 72.0, 159.0,
        55.0, 123.0, 123.0, 82.0, 182.0, 96.0, 81.0, 177.0, 55.0, 147.0, 167.0, 114.0, 203.0,
        148.0,
    ];

    /// What `CLIPImageProcessor` of transformers 5.24 gives with Pillow, of a picture of 7x4.
    #[test]
    fn pictures_are_cut_as_clip_cuts_them() {
        let json = r#"{"size": {"shortest_edge": 3}, "crop_size": {"height": 3, "width": 3},
            "do_normalize": false, "do_rescale": false}"#;
        let rgb8 =
            (0..28).flat_map(|at| [0, 1, 2].map(|c| (at % 7 * 53 + at / 7 * 37 + c * 91) as u8));
        let picture = Rgb {
            width: 7,
            height: 4,
            rgb8: rgb8.collect(),
        };
        let have = of(json).expect("it is served").pixels(&picture);
        assert_eq!(have, CUT);
    }

    #[test]
    fn pictures_are_normed_by_channel() {
        let json = r#"{"size": {"shortest_edge": 2}, "crop_size": {"height": 2, "width": 2},
            "image_mean": [0.0, 0.5, 1.0], "image_std": [1.0, 0.5, 2.0]}"#;
        let processor = of(json).expect("it is served");
        for (width, height) in [(2, 2), (8, 4), (3, 1000), (1 << 20, 1)] {
            let picture = Rgb {
                width,
                height,
                rgb8: [0, 255, 255].repeat(width * height),
            };
            let want = [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0];
            assert_eq!(processor.pixels(&picture), want, "{width}x{height}");
        }
    }
}
