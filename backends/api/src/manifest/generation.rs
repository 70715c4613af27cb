//! The section of a model that makes clips, and what a folder in diffusers' layout is without one.

use super::{BackendKind, Manifest, Precision, Task, Variant};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Names the classes of a pipeline's parts, in diffusers' layout.
const MODEL_INDEX: &str = "model_index.json";
/// A part's graph in its own folder.
const GRAPH: &str = "model.onnx";
/// Folders of the graph that takes noise away.
const DENOISERS: [&str; 2] = ["transformer", "unet"];
/// Folders of further graphs.
const PARTS: [&str; 9] = [
    "transformer_2",
    "text_encoder",
    "text_encoder_2",
    "image_encoder",
    "vae_decoder",
    "vae_encoder",
    "connectors",
    "audio_vae_decoder",
    "vocoder",
];

/// Pixels along a side.
const SIDE_MAX: u32 = 1 << 14;
/// Frames of a clip.
const FRAMES_MAX: u32 = 1 << 14;
/// Frames per second.
const FRAME_RATE_MAX: u32 = 240;
/// Steps of the denoiser.
const STEPS_MAX: u32 = 1000;
/// Tokens of a prompt.
const PROMPT_TOKENS_MAX: u32 = 4096;
const GUIDANCE_MAX: f32 = 100.0;

/// What a model that makes clips needs said beyond diffusers' own files, which lie in its folder:
/// `model_index.json` names the kind of pipeline, `scheduler/` and the `config.json` of each part say
/// the rest. Everything is optional; what is absent is as diffusers has it for this kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerationSpec {
    /// Width of a clip in pixels, when the request does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Height, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// Frames, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frames: Option<u32>,
    /// Frames per second, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame_rate: Option<u32>,
    /// Steps, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u32>,
    /// How far the prompt is followed, likewise; 1 for models that were distilled to need none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance: Option<f32>,
    /// The same for the expert of low noise; as `guidance` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance_low: Option<f32>,
    /// The same for sound; as `guidance` when absent, and 7 when that is absent, too. Of LTX-2's guidance there is
    /// the classifier-free kind alone: what diffusers adds for models that were not distilled, by perturbed blocks
    /// and isolated modalities, is not served, so that these follow their prompts less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance_audio: Option<f32>,
    /// How far the spread of what guidance gives is brought back: not at all at 0, wholly at 1; 0.7 for LTX-2 and
    /// 0 for others when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance_rescale: Option<f32>,
    /// What the clip shall not be like, when the request does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_prompt: Option<String>,
    /// Tokens that a prompt is padded to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_tokens: Option<u32>,
    /// Noise levels that a distilled model was made for, falling, 1 for nothing but noise; the last
    /// step goes from the last of them to 0. Requests that ask for another number of steps are
    /// given the scheduler's own levels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sigmas: Vec<f64>,
    /// What a decoder is told that takes a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode_timestep: Option<f32>,
    /// Share of noise that is mixed in before such a decoder; as `decode_timestep` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode_noise: Option<f32>,
}

impl GenerationSpec {
    /// Bytes of the frames of a clip of the sizes that are said, as f32; `None` where one is not.
    pub fn clip_bytes(&self) -> Option<u64> {
        let sizes = [
            self.width?,
            self.height?,
            self.frames?,
            3,
            size_of::<f32>() as u32,
        ];
        let product = |bytes: u64, size: u32| bytes.saturating_mul(size.into());
        Some(sizes.into_iter().fold(1, product))
    }

    /// Checks sizes and levels; else the field and why.
    pub(super) fn check(&self) -> Result<(), (String, String)> {
        let refuse = |field: &str, why: String| Err((format!("generation.{field}"), why));
        for (field, value, value_max) in [
            ("width", self.width, SIDE_MAX),
            ("height", self.height, SIDE_MAX),
            ("frames", self.frames, FRAMES_MAX),
            ("frame_rate", self.frame_rate, FRAME_RATE_MAX),
            ("steps", self.steps, STEPS_MAX),
            ("prompt_tokens", self.prompt_tokens, PROMPT_TOKENS_MAX),
        ] {
            if value.is_some_and(|value| !(1..=value_max).contains(&value)) {
                return refuse(field, format!("is not in 1..={value_max}"));
            }
        }
        for (field, value, value_max) in [
            ("guidance", self.guidance, GUIDANCE_MAX),
            ("guidance_low", self.guidance_low, GUIDANCE_MAX),
            ("guidance_audio", self.guidance_audio, GUIDANCE_MAX),
            ("guidance_rescale", self.guidance_rescale, 1.0),
            ("decode_timestep", self.decode_timestep, 1.0),
            ("decode_noise", self.decode_noise, 1.0),
        ] {
            if value.is_some_and(|value| !(0.0..=value_max).contains(&value)) {
                return refuse(field, format!("is not from 0 to {value_max}"));
            }
        }
        let is_falling = self.sigmas.windows(2).all(|pair| pair[0] > pair[1]);
        let mut sigmas = self.sigmas.iter();
        if self.sigmas.len() > STEPS_MAX as usize
            || !is_falling
            || !sigmas.all(|&sigma| sigma > 0.0 && sigma <= 1.0)
        {
            return refuse(
                "sigmas",
                format!("are not up to {STEPS_MAX} falling levels above 0 and up to 1"),
            );
        }
        Ok(())
    }
}

impl Manifest {
    /// The manifest of a folder in diffusers' layout that has none: a model that makes clips, named
    /// after the folder, of the graphs that are there. `None` when there is no `model_index.json`
    /// or no denoiser. No file is read.
    pub fn inferred_pipeline(folder: &Path) -> Option<Self> {
        let name = folder.file_name()?.to_str()?;
        let graph = |part: &str| {
            let file = Path::new(part).join(GRAPH);
            folder.join(&file).is_file().then_some(file)
        };
        if !folder.join(MODEL_INDEX).is_file() || !Self::is_name(name) {
            return None;
        }
        let denoiser = DENOISERS.into_iter().find_map(graph)?;
        let parts = PARTS
            .into_iter()
            .filter_map(|part| Some((part.to_owned(), graph(part)?)));
        let parts: BTreeMap<String, PathBuf> = parts.collect();
        let variant = Variant {
            name: BackendKind::OnnxRuntime.to_string(),
            backend: BackendKind::OnnxRuntime,
            file: denoiser,
            precision: Precision::Native,
            weights_bytes: None,
            memory_bytes: None,
            providers: Vec::new(),
            parts,
        };
        let mut manifest = Self::plain(name.to_owned(), Task::ClipGeneration, vec![variant]);
        manifest.generation = Some(GenerationSpec::default());
        Some(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(section: &str) -> Result<Manifest, String> {
        let text = format!(
            "format = 1\nname = \"m\"\ntask = \"clip-generation\"\n[generation]\n{section}\n\
             [[variant]]\nname = \"a\"\nbackend = \"onnxruntime\"\nfile = \"transformer/model.onnx\"\n\
             precision = \"f32\"\n[variant.parts]\nvae_decoder = \"vae_decoder/model.onnx\"\n"
        );
        Manifest::parse(&text, Path::new("mote.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_said_of_clips_is_checked() {
        let good = parse("width = 64\nsigmas = [1.0, 0.5]\nguidance = 1.0").expect("good");
        assert_eq!(good.variants[0].graphs().count(), 2);
        let again = toml::to_string(&good).expect("it can be written");
        let again = Manifest::parse(&again, Path::new("mote.toml")).expect("and read");
        assert_eq!(again, good);
        for (section, field) in [
            ("width = 0", "generation.width"),
            ("frames = 100000", "generation.frames"),
            ("steps = 1001", "generation.steps"),
            ("guidance = nan", "generation.guidance"),
            ("decode_noise = 1.5", "generation.decode_noise"),
            ("sigmas = [0.5, 1.0]", "generation.sigmas"),
            ("sigmas = [1.0, 0.0]", "generation.sigmas"),
            ("wdith = 1", "not a model manifest"),
        ] {
            let message = parse(section).expect_err("must be refused");
            assert!(message.contains(field), "{message}");
        }
    }

    #[test]
    fn a_folder_of_graphs_is_a_model_that_makes_clips() {
        let store = tempfile::tempdir().expect("a folder");
        let folder = store.path().join("tiny-ltx");
        for part in ["transformer", "text_encoder", "vae_decoder", "safety"] {
            std::fs::create_dir_all(folder.join(part)).expect("made");
            std::fs::write(folder.join(part).join(GRAPH), b"").expect("written");
        }
        assert_eq!(Manifest::inferred_pipeline(&folder), None);
        std::fs::write(folder.join(MODEL_INDEX), b"{}").expect("written");
        let manifest = Manifest::inferred_pipeline(&folder).expect("a pipeline");
        assert!(manifest.check().is_ok());
        assert_eq!(
            (manifest.name.as_str(), manifest.task),
            ("tiny-ltx", Task::ClipGeneration)
        );
        let parts: Vec<_> = manifest.variants[0].parts.keys().collect();
        assert_eq!(parts, ["text_encoder", "vae_decoder"]);
    }
}
