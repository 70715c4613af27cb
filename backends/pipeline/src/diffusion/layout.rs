//! What diffusers' own files in a folder say: the kind of pipeline, and what its parts are made like.

use super::audio::AudioLayout;
use crate::PipelineError;
use crate::text::read_bounded;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

/// Bytes of a `model_index.json` or `config.json` at most.
const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Channels of latents at most.
const CHANNELS_MAX: usize = 4096;
/// Pixels or frames that one latent stands for at most, along an axis.
const COMPRESSION_MAX: usize = 256;
/// Latents along an axis that become one token at most.
const PATCH_MAX: usize = 16;

/// A kind of pipeline, by the name of its class in diffusers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Ltx,
    LtxImageToVideo,
    LtxCondition,
    Ltx2,
    Ltx2ImageToVideo,
    Wan,
    WanImageToVideo,
    WanVace,
}

impl Class {
    const ALL: [Self; 8] = [
        Self::Ltx,
        Self::LtxImageToVideo,
        Self::LtxCondition,
        Self::Ltx2,
        Self::Ltx2ImageToVideo,
        Self::Wan,
        Self::WanImageToVideo,
        Self::WanVace,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Ltx => "LTXPipeline",
            Self::LtxImageToVideo => "LTXImageToVideoPipeline",
            Self::LtxCondition => "LTXConditionPipeline",
            Self::Ltx2 => "LTX2Pipeline",
            Self::Ltx2ImageToVideo => "LTX2ImageToVideoPipeline",
            Self::Wan => "WanPipeline",
            Self::WanImageToVideo => "WanImageToVideoPipeline",
            Self::WanVace => "WanVACEPipeline",
        }
    }

    fn parse(name: &str) -> Result<Self, PipelineError> {
        let found = Self::ALL.into_iter().find(|class| class.name() == name);
        found.ok_or_else(|| PipelineError::PipelineClass {
            class: name.to_owned(),
            served: Self::ALL.map(Self::name).join(", "),
        })
    }

    /// Whether latents are rows of tokens, as opposed to `[c, f, h, w]`.
    pub fn is_ltx(self) -> bool {
        let first = matches!(self, Self::Ltx | Self::LtxImageToVideo | Self::LtxCondition);
        first || self.is_ltx2()
    }

    /// Whether sound is made beside the clip, and connectors stand behind the text encoder.
    pub fn is_ltx2(self) -> bool {
        matches!(self, Self::Ltx2 | Self::Ltx2ImageToVideo)
    }
}

/// Sizes and rules of a pipeline, whatever the graphs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Layout {
    pub class: Class,
    /// Noise level, as a share of the training's timesteps, below which the second denoiser computes.
    pub boundary: Option<f64>,
    /// Whether each token has a timestep of its own (Wan 2.2 TI2V).
    pub expand_timesteps: bool,
    /// Channels of a latent.
    pub channels: usize,
    /// Frames that one latent frame stands for; the first stands for one.
    pub frames_per_latent: usize,
    /// Pixels along a side that one latent stands for.
    pub pixels_per_latent: usize,
    /// Latents along time, height and width that become one token.
    pub patch: [usize; 3],
    /// Channels that the denoiser takes, if its config says.
    pub denoiser_channels: Option<usize>,
    /// Whether a denoiser that looks at pictures takes two of them, first and last.
    pub looks_at_two: bool,
    /// Of the latents, by channel.
    pub mean: Vec<f32>,
    /// Likewise.
    pub std: Vec<f32>,
    /// Latents are multiplied with it on their way to the denoiser, where diffusers does so.
    pub scaling: f32,
    /// Of pipelines that make sound.
    pub audio: Option<AudioLayout>,
}

/// `model_index.json`; the classes of parts are not read.
#[derive(Deserialize)]
struct Index {
    #[serde(rename = "_class_name")]
    class: String,
    boundary_ratio: Option<f64>,
    #[serde(default)]
    expand_timesteps: bool,
}

/// `config.json` of an autoencoder: LTX's and Wan's names.
#[derive(Deserialize)]
struct VaeConfig {
    latent_channels: Option<usize>,
    z_dim: Option<usize>,
    spatial_compression_ratio: Option<usize>,
    temporal_compression_ratio: Option<usize>,
    scale_factor_spatial: Option<usize>,
    scale_factor_temporal: Option<usize>,
    patch_size: Option<usize>,
    patch_size_t: Option<usize>,
    spatio_temporal_scaling: Option<Vec<bool>>,
    latents_mean: Option<Vec<f32>>,
    latents_std: Option<Vec<f32>>,
    scaling_factor: Option<f32>,
}

/// `config.json` of a denoiser.
#[derive(Default, Deserialize)]
struct DenoiserConfig {
    in_channels: Option<usize>,
    patch_size: Option<Patch>,
    patch_size_t: Option<usize>,
    pos_embed_seq_len: Option<usize>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Patch {
    Side(usize),
    Sides([usize; 3]),
}

impl Layout {
    /// Reads `model_index.json` and the configs of the autoencoder and the denoiser.
    ///
    /// # Errors
    /// Names the class that is not served, or the file that is missing, too large or malformed.
    pub fn read(folder: &Path) -> Result<Self, PipelineError> {
        let index: Index = read_json(&folder.join("model_index.json"))?;
        let class = Class::parse(&index.class)?;
        let vae_file = first_of(folder, ["vae_decoder", "vae"]);
        let vae: VaeConfig = read_json(&vae_file)?;
        let denoiser_file = first_of(folder, ["transformer", "unet"]);
        let denoiser: DenoiserConfig = read_json(&denoiser_file)?;
        let layout = Self {
            class,
            boundary: index.boundary_ratio,
            expand_timesteps: index.expand_timesteps,
            channels: vae.channels(),
            frames_per_latent: vae.frames_per_latent(class),
            pixels_per_latent: vae.pixels_per_latent(class),
            patch: denoiser.patch(class),
            denoiser_channels: denoiser.in_channels,
            looks_at_two: denoiser.pos_embed_seq_len.is_some(),
            mean: Vec::new(),
            std: Vec::new(),
            scaling: vae.scaling_factor.unwrap_or(1.0),
            audio: class
                .is_ltx2()
                .then(|| AudioLayout::read(folder))
                .transpose()?,
        };
        layout.completed([vae.latents_mean, vae.latents_std], &vae_file)
    }

    /// With means and deviations for each channel, if the sizes make sense.
    fn completed(
        mut self,
        mut said: [Option<Vec<f32>>; 2],
        vae_file: &Path,
    ) -> Result<Self, PipelineError> {
        let channels = self.channels;
        if !(1..=CHANNELS_MAX).contains(&channels) {
            let why = format!("{channels} latent channels are not 1 to {CHANNELS_MAX}");
            return Err(malformed(vae_file, why));
        }
        if !self.class.is_ltx() {
            // Wan's have none where the latents are as they come.
            let neutral = [0.0, 1.0].map(|value| vec![value; channels]);
            for (said, neutral) in said.iter_mut().zip(neutral) {
                said.get_or_insert(neutral);
            }
        }
        [self.mean, self.std] = statistics(said, channels, vae_file)?;
        let sizes = [self.frames_per_latent, self.pixels_per_latent];
        let sizes_fit = sizes
            .iter()
            .all(|size| (1..=COMPRESSION_MAX).contains(size));
        let patch_fits = self.patch.iter().all(|size| (1..=PATCH_MAX).contains(size));
        if !sizes_fit || !patch_fits || !self.scaling.is_normal() {
            return Err(malformed(
                vae_file,
                "a ratio, patch or factor is zero or absurd",
            ));
        }
        match self.boundary {
            Some(boundary) if !(0.0..=1.0).contains(&boundary) => {
                let index = vae_file.with_file_name("model_index.json");
                Err(malformed(&index, "boundary_ratio is not from 0 to 1"))
            }
            _ => Ok(self),
        }
    }

    /// Channels of a control: latents of what is given and of what is not, and a mask for each pixel that a latent
    /// stands for.
    pub fn control_channels(&self) -> usize {
        2 * self.channels + self.mask_channels()
    }

    /// Pixels that one latent stands for.
    pub fn mask_channels(&self) -> usize {
        self.pixels_per_latent * self.pixels_per_latent
    }

    /// Width and height must be multiples of this.
    pub fn side_multiple(&self) -> [usize; 2] {
        [2, 1].map(|axis| self.pixels_per_latent * self.patch[axis])
    }

    /// The least number of frames, of those that the model can make, that is at least `frames`.
    pub fn frames_for(&self, frames: usize) -> usize {
        let per_token = self.frames_per_latent * self.patch[0];
        let after_first = frames.saturating_sub(1 + (self.patch[0] - 1) * self.frames_per_latent);
        let latents = self.patch[0] + after_first.div_ceil(per_token) * self.patch[0];
        (latents - 1) * self.frames_per_latent + 1
    }

    /// What a clip of so many frames and pixels is in latents. `frames` as of
    /// [`Self::frames_for`], sides multiples of [`Self::side_multiple`].
    pub fn geometry(&self, frames: usize, height: usize, width: usize) -> Geometry {
        let latent = [
            (frames - 1) / self.frames_per_latent + 1,
            height / self.pixels_per_latent,
            width / self.pixels_per_latent,
        ];
        Geometry {
            frames,
            height,
            width,
            channels: self.channels,
            latent,
            patch: self.patch,
        }
    }
}

/// Sizes of one clip in pixels and in latents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    pub frames: usize,
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    /// Latents along time, height and width.
    pub latent: [usize; 3],
    pub patch: [usize; 3],
}

impl Geometry {
    /// Latents of one frame, over all channels.
    pub fn per_frame(&self) -> usize {
        self.channels * self.latent[1] * self.latent[2]
    }

    /// Latents of the clip.
    pub fn elements(&self) -> usize {
        self.per_frame() * self.latent[0]
    }

    /// Tokens along time, height and width.
    pub fn grid(&self) -> [usize; 3] {
        [0, 1, 2].map(|axis| self.latent[axis] / self.patch[axis])
    }

    /// Tokens of the clip.
    pub fn tokens(&self) -> usize {
        self.grid().iter().product()
    }

    /// Elements of a token.
    pub fn token_width(&self) -> usize {
        self.channels * self.patch.iter().product::<usize>()
    }

    /// The same picture size with so many latent frames.
    pub fn with_latent_frames(&self, latent_frames: usize) -> Self {
        Self {
            latent: [latent_frames, self.latent[1], self.latent[2]],
            ..*self
        }
    }
}

impl VaeConfig {
    fn channels(&self) -> usize {
        // 128 and 16 are what the classes have where nothing is said.
        self.latent_channels.or(self.z_dim).unwrap_or(0)
    }

    fn halvings(&self) -> Option<usize> {
        let scaling = self.spatio_temporal_scaling.as_ref()?;
        let halvings = scaling.iter().filter(|&&halves| halves).count();
        1usize.checked_shl(u32::try_from(halvings).ok()?)
    }

    fn frames_per_latent(&self, class: Class) -> usize {
        if !class.is_ltx() {
            return self.scale_factor_temporal.unwrap_or(4);
        }
        let own = || {
            Some(
                self.patch_size_t
                    .unwrap_or(1)
                    .saturating_mul(self.halvings()?),
            )
        };
        self.temporal_compression_ratio.or_else(own).unwrap_or(8)
    }

    fn pixels_per_latent(&self, class: Class) -> usize {
        if !class.is_ltx() {
            return self.scale_factor_spatial.unwrap_or(8);
        }
        let own = || {
            Some(
                self.patch_size
                    .unwrap_or(4)
                    .saturating_mul(self.halvings()?),
            )
        };
        self.spatial_compression_ratio.or_else(own).unwrap_or(32)
    }
}

impl DenoiserConfig {
    fn patch(&self, class: Class) -> [usize; 3] {
        match (&self.patch_size, class.is_ltx()) {
            (Some(Patch::Sides(sides)), _) => *sides,
            (Some(Patch::Side(side)), _) => [self.patch_size_t.unwrap_or(1), *side, *side],
            (None, true) => [1, 1, 1],
            (None, false) => [1, 2, 2],
        }
    }
}

/// Means and deviations of latents.
///
/// # Errors
/// When there are not `count` of each, or a deviation is 0. diffusers keeps those of LTX with the weights, not in
/// `config.json`: without them everything would be computed, and wrong.
pub(super) fn statistics(
    said: [Option<Vec<f32>>; 2],
    count: usize,
    file: &Path,
) -> Result<[Vec<f32>; 2], PipelineError> {
    let [Some(mean), Some(std)] = said else {
        let why = "has no latents_mean and latents_std; diffusers keeps them with the weights, from where an export has \
                   to write them here (as tests/models/diffusion/export.py does)";
        return Err(malformed(file, why));
    };
    let fits = |values: &[f32]| values.len() == count && values.iter().all(|v| v.is_finite());
    if !fits(&mean) || !fits(&std) || std.contains(&0.0) {
        let why = format!("latents_mean and latents_std are not {count} numbers each");
        return Err(malformed(file, why));
    }
    Ok([mean, std])
}

/// `config.json` in the first of these folders that has one; in the first, if none has.
pub(super) fn first_of(folder: &Path, parts: [&str; 2]) -> PathBuf {
    let files = parts.map(|part| folder.join(part).join("config.json"));
    let [first, second] = files;
    if !first.exists() && second.exists() {
        second
    } else {
        first
    }
}

/// Reads a JSON file of the folder.
///
/// # Errors
/// When it cannot be read, is too large or malformed.
pub(super) fn read_json<T: DeserializeOwned>(file: &Path) -> Result<T, PipelineError> {
    let bytes = read_bounded(file, CONFIG_BYTES_MAX)?;
    serde_json::from_slice(&bytes).map_err(|cause| malformed(file, cause))
}

/// That `file` is not what it should be.
pub(super) fn malformed(
    file: &Path,
    cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> PipelineError {
    PipelineError::MalformedFile {
        file: file.to_owned(),
        cause: cause.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(patch: [usize; 3], frames_per_latent: usize) -> Layout {
        Layout {
            class: Class::Ltx,
            boundary: None,
            expand_timesteps: false,
            channels: 4,
            frames_per_latent,
            pixels_per_latent: 8,
            patch,
            denoiser_channels: None,
            looks_at_two: false,
            audio: None,
            mean: vec![0.0; 4],
            std: vec![1.0; 4],
            scaling: 1.0,
        }
    }

    #[test]
    fn frames_are_rounded_up_to_what_latents_stand_for() {
        let plain = layout([1, 1, 1], 8);
        for (asked, made) in [(1, 1), (2, 9), (9, 9), (10, 17), (121, 121)] {
            assert_eq!(plain.frames_for(asked), made, "{asked}");
            let geometry = plain.geometry(made, 64, 32);
            assert_eq!(geometry.latent, [(made - 1) / 8 + 1, 8, 4]);
        }
        let pairs = layout([2, 2, 2], 4);
        for (asked, made) in [(1, 5), (5, 5), (6, 13), (13, 13)] {
            assert_eq!(pairs.frames_for(asked), made, "{asked}");
            assert_eq!(pairs.geometry(made, 32, 32).latent[0] % 2, 0);
        }
        assert_eq!(pairs.side_multiple(), [16, 16]);
    }

    #[test]
    fn only_named_classes_are_served() {
        assert_eq!(Class::parse("WanPipeline").expect("served"), Class::Wan);
        let message = Class::parse("HunyuanVideoPipeline")
            .expect_err("not")
            .to_string();
        assert!(message.contains("HunyuanVideoPipeline"), "{message}");
        assert!(message.contains("LTXConditionPipeline"), "{message}");
    }
}
