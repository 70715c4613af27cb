//! `mote.toml`: what a model folder says about itself beyond its ecosystem's own files.

mod embedding;
mod generation;
mod labelling;
mod picture;
mod restoration;

pub use embedding::{EmbeddingSpec, Pooling};
pub use generation::GenerationSpec;
pub use labelling::{
    Activation, BoxCoordinates, BoxFormat, CandidateLayout, ClassificationSpec, ColourOrder,
    DetectionSpec, FrameFit, LabellingKind, LabellingSpec,
};
pub use picture::{ChannelOrder, Filter, Fit, InputHint, OutputHint, PictureLayout};
pub use restoration::{
    FrameLayout, FrameState, Padding, RestorationKind, RestorationSpec, ValueRange, WindowGives,
    WindowJoin,
};

use crate::digest::Digest;
use crate::tensor::DType;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// File name of the manifest in a model's folder.
pub const MANIFEST_FILE_NAME: &str = "mote.toml";
/// Larger manifests are refused unread.
pub const MANIFEST_BYTES_MAX: u64 = 1 << 20;
const VARIANTS_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 128;
/// Bytes of a tag around reasoning.
const TAG_BYTES_MAX: usize = 64;
const DIMENSIONS_MAX: usize = 64;
const DIMENSION_MAX: usize = 1 << 24;
/// Further graphs of a variant.
const PARTS_MAX: usize = 16;

/// An inference library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it")]
pub enum BackendKind {
    OnnxRuntime,
    Tflite,
    Tract,
    /// Scripted faults; tests only.
    Fake,
}

impl std::fmt::Display for BackendKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::OnnxRuntime => "onnxruntime",
            Self::Tflite => "tflite",
            Self::Tract => "tract",
            Self::Fake => "fake",
        })
    }
}

/// Precision of a variant's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Precision {
    F32,
    F16,
    Bf16,
    Int8,
    Int4,
    /// As the file has it; nobody declared it.
    Native,
}

impl Precision {
    /// Whether numbers may be coarser with these weights than with those of `other`. What nobody
    /// declared may be anything, so that it is below all others and all others below it.
    pub fn is_below(self, other: Self) -> bool {
        self != other && self.at_least() < other.at_most()
    }

    /// Its place by fineness when the worst is assumed.
    fn at_least(self) -> u8 {
        match self {
            Self::F32 => 4,
            Self::F16 => 3,
            // 8 bits of mantissa where f16 has 11.
            Self::Bf16 => 2,
            Self::Int8 => 1,
            Self::Int4 | Self::Native => 0,
        }
    }

    /// Its place by fineness when the best is assumed.
    fn at_most(self) -> u8 {
        match self {
            Self::Native => Self::F32.at_least(),
            known => known.at_least(),
        }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
            Self::Native => "native",
        })
    }
}

/// What a model does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Tensors in, tensors out, nothing kept between runs.
    Tensor,
    /// Tensors in and out with state kept between runs of a stream.
    Stream,
    /// Text in, text out.
    TextGeneration,
    /// Texts in, a vector for each out.
    Embedding,
    /// Two neighbouring frames in, frames between them out.
    FrameInterpolation,
    /// Text, and pictures if there are any, in; a clip out.
    ClipGeneration,
    /// Frames in, better or larger ones out.
    FrameRestoration,
    /// Frames in, what is seen on them out.
    ClipLabelling,
}

impl std::fmt::Display for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tensor => "tensor",
            Self::Stream => "stream",
            Self::TextGeneration => "text-generation",
            Self::Embedding => "embedding",
            Self::FrameInterpolation => "frame-interpolation",
            Self::ClipGeneration => "clip-generation",
            Self::FrameRestoration => "frame-restoration",
            Self::ClipLabelling => "clip-labelling",
        })
    }
}

/// The manifest of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this file's format: 1.
    pub format: u32,
    /// The model's name: letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// What it does.
    pub task: Task,
    /// SPDX expression, or the package's own word.
    #[serde(default)]
    pub licence: String,
    /// Where the weights come from.
    #[serde(default)]
    pub source: String,
    /// One line for people.
    #[serde(default)]
    pub description: String,
    /// The same model for several backends and precisions, best first: the order in which they are
    /// taken as long as nothing was measured.
    #[serde(default, rename = "variant")]
    pub variants: Vec<Variant>,
    /// For [`Task::TextGeneration`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<TextSpec>,
    /// For [`Task::Embedding`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding: Option<EmbeddingSpec>,
    /// For [`Task::Stream`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamSpec>,
    /// For [`Task::FrameInterpolation`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<ClipSpec>,
    /// For [`Task::ClipGeneration`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<GenerationSpec>,
    /// For [`Task::FrameRestoration`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restoration: Option<RestorationSpec>,
    /// For [`Task::ClipLabelling`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labelling: Option<LabellingSpec>,
    /// How pictures become inputs.
    #[serde(default, rename = "input", skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<InputHint>,
    /// How outputs become pictures.
    #[serde(default, rename = "output", skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<OutputHint>,
    /// What to try the model with, where its inputs do not say enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<CheckSpec>,
    /// File with one label per line, in the order of the model's classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<PathBuf>,
    /// Sizes of the dimensions that the files leave open, by their names there, at which this model is
    /// served: many NPUs take fixed shapes only. None may be left open then. Without them the model
    /// is served at any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dimensions: BTreeMap<String, usize>,
    /// Digest of every file of the folder, by path; files that are not named are not used.
    #[serde(default)]
    pub files: BTreeMap<String, Digest>,
}

/// One file of the model for one backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// Name, unique in the manifest.
    pub name: String,
    /// The library that runs it.
    pub backend: BackendKind,
    /// The file, relative to the folder.
    pub file: PathBuf,
    /// Precision of the weights.
    pub precision: Precision,
    /// Bytes of weights; the file's size when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights_bytes: Option<u64>,
    /// Memory of a loaded model with one session; twice the weights when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Providers it may run on; all that work when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub providers: Vec<String>,
    /// Further graphs of a model that is made of several, by their names (`text_encoder`,
    /// `vae_decoder`, …), relative to the folder; `file` is the one that computes the most.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<String, PathBuf>,
}

impl Variant {
    /// All files that are graphs: the variant's own and those of its parts.
    pub fn graphs(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.file).chain(self.parts.values())
    }

    fn check(&self) -> Result<(), (String, String)> {
        if let Some(file) = self.graphs().find(|file| !stays_inside(file)) {
            let why = format!("{file:?} leaves the folder");
            return Err(("variant.file".into(), why));
        }
        let mut names = self.parts.keys();
        if self.parts.len() > PARTS_MAX || !names.all(|name| Manifest::is_name(name)) {
            let why = format!("there may be {PARTS_MAX}, named by letters, digits, - _ .");
            return Err(("variant.parts".into(), why));
        }
        Ok(())
    }
}

/// What a text model needs said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextSpec {
    /// Hugging Face `tokenizer.json`.
    pub tokenizer: PathBuf,
    /// Jinja chat template; without one, messages are refused and only plain prompts are served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<PathBuf>,
    /// Tokens of prompt and answer together.
    pub context_tokens: usize,
    /// Entries of the vocabulary.
    pub vocab: usize,
    /// Transformer layers.
    pub layers: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Elements of one head.
    pub head_dim: usize,
    /// Beginning of sequence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bos_token_id: Option<u32>,
    /// Tokens that end an answer.
    pub eos_token_ids: Vec<u32>,
    /// What the model writes its reasoning between; `<think>` and `</think>` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<ReasoningTags>,
    /// For a Mixture of Experts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moe: Option<MoeSpec>,
}

impl TextSpec {
    /// Bytes of keys and values of a conversation that fills the context, in f32: caches of narrower
    /// types take less.
    pub fn cache_bytes_max(&self) -> u64 {
        let per_token = [
            2,
            self.layers,
            self.kv_heads,
            self.head_dim,
            size_of::<f32>(),
        ];
        let factors = per_token.into_iter().chain([self.context_tokens]);
        factors.fold(1, |bytes: u64, factor| bytes.saturating_mul(factor as u64))
    }
}

/// What a model writes its reasoning between, ahead of its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReasoningTags {
    /// Begins it; the chat template may have written it already.
    pub open: String,
    /// Ends it.
    pub close: String,
}

impl Default for ReasoningTags {
    fn default() -> Self {
        Self {
            open: "<think>".into(),
            close: "</think>".into(),
        }
    }
}

impl ReasoningTags {
    fn check(&self) -> Result<(), (String, String)> {
        for (field, tag) in [("open", &self.open), ("close", &self.close)] {
            if !(1..=TAG_BYTES_MAX).contains(&tag.len()) || tag.trim() != tag {
                let why = format!("{tag:?} is not 1 to {TAG_BYTES_MAX} bytes without space around");
                return Err((format!("text.reasoning.{field}"), why));
            }
        }
        Ok(())
    }
}

/// Shape of a Mixture of Experts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoeSpec {
    /// Routed experts per layer.
    pub experts: usize,
    /// Experts the router picks per token.
    pub experts_per_token: usize,
    /// Neurons of the expert that every token uses; 0 when there is none.
    #[serde(default)]
    pub shared_neurons: usize,
    /// Neurons of one routed expert.
    pub expert_neurons: usize,
}

/// What a stateful model needs said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamSpec {
    /// Tensors that go from an output of one run to an input of the next; empty when the runtime
    /// itself keeps the state (TFLite variables).
    #[serde(default)]
    pub state: Vec<StateTensor>,
    /// Inputs that are the same in every run.
    #[serde(default)]
    pub constant: Vec<ConstantInput>,
}

/// One state tensor; zero at the start of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateTensor {
    /// Input that takes the state.
    pub input: String,
    /// Output that gives the next state.
    pub output: String,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// One constant input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConstantInput {
    /// Input's name.
    pub input: String,
    /// Element type.
    pub dtype: DType,
    /// Shape; empty for a scalar.
    #[serde(default)]
    pub shape: Vec<usize>,
    /// Values, converted to the element type.
    pub values: Vec<f64>,
}

/// What a frame interpolator needs said. Frames are f32 `[1, 3, height, width]`, RGB in 0..=1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipSpec {
    /// Input of the earlier frame.
    pub first: String,
    /// Input of the later frame.
    pub second: String,
    /// Input of the time between them, f32 `[1, 1, 1, 1]` in 0..1.
    pub timestep: String,
    /// Output frame.
    pub output: String,
    /// Height and width are padded (edge pixels repeated) to multiples of this.
    pub pad_multiple: usize,
}

/// What a model is tried with before its first use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckSpec {
    /// What to say of single inputs.
    #[serde(default, rename = "input")]
    pub inputs: Vec<CheckInput>,
}

/// What one input is tried with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckInput {
    /// Input's name.
    pub name: String,
    /// Its shape, where the model leaves dimensions open.
    #[serde(default)]
    pub shape: Vec<usize>,
    /// Least value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Largest value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
}

/// Why a manifest is refused.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum ManifestError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        cause: std::io::Error,
    },
    #[error("{} is {bytes} bytes, more than {MANIFEST_BYTES_MAX}", path.display())]
    TooLarge { path: PathBuf, bytes: u64 },
    #[error("{} is not a model manifest", path.display())]
    Parse {
        path: PathBuf,
        #[source]
        cause: Box<toml::de::Error>,
    },
    #[error("{}: {field}: {why}", path.display())]
    Invalid {
        path: PathBuf,
        field: String,
        why: String,
    },
}

impl Manifest {
    /// Reads and checks `folder/mote.toml`.
    ///
    /// # Errors
    /// Names the field that does not hold.
    pub fn read(folder: &Path) -> Result<Self, ManifestError> {
        let path = folder.join(MANIFEST_FILE_NAME);
        let read = |cause| ManifestError::Read {
            path: path.clone(),
            cause,
        };
        let bytes = std::fs::metadata(&path).map_err(read)?.len();
        if bytes > MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLarge { path, bytes });
        }
        let text = std::fs::read_to_string(&path).map_err(read)?;
        Self::parse(&text, &path)
    }

    /// Parses and checks the text of a manifest; `path` is for messages.
    ///
    /// # Errors
    /// Names the field that does not hold.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ManifestError> {
        let manifest: Self = toml::from_str(text).map_err(|cause| ManifestError::Parse {
            path: path.to_path_buf(),
            cause: Box::new(cause),
        })?;
        match manifest.check() {
            Ok(()) => Ok(manifest),
            Err((field, why)) => Err(ManifestError::Invalid {
                path: path.to_path_buf(),
                field,
                why,
            }),
        }
    }

    /// The manifest of a lone model file without one: a tensor model named after the file, with
    /// one variant per backend that reads the format. `None` for an unknown extension.
    pub fn inferred(file: &Path) -> Option<Self> {
        let stem = file.file_stem()?.to_str()?;
        let backends: &[BackendKind] = match file.extension()?.to_str()? {
            "onnx" => &[BackendKind::OnnxRuntime, BackendKind::Tract],
            "tflite" => &[BackendKind::Tflite],
            _ => return None,
        };
        let name: String = stem
            .chars()
            .map(|c| if is_name_char(c) { c } else { '-' })
            .collect();
        let variants = backends
            .iter()
            .map(|&backend| Variant {
                name: backend.to_string(),
                backend,
                file: PathBuf::from(file.file_name().unwrap_or_default()),
                precision: Precision::Native,
                weights_bytes: None,
                memory_bytes: None,
                providers: Vec::new(),
                parts: BTreeMap::new(),
            })
            .collect();
        Some(Self::plain(name, Task::Tensor, variants))
    }

    /// A manifest that says no more than what must be said.
    fn plain(name: String, task: Task, variants: Vec<Variant>) -> Self {
        Self {
            format: 1,
            name,
            task,
            licence: String::new(),
            source: String::new(),
            description: String::new(),
            variants,
            text: None,
            embedding: None,
            stream: None,
            clip: None,
            generation: None,
            restoration: None,
            labelling: None,
            inputs: Vec::new(),
            outputs: Vec::new(),
            check: None,
            labels: None,
            dimensions: BTreeMap::new(),
            files: BTreeMap::new(),
        }
    }

    fn check(&self) -> Result<(), (String, String)> {
        let refuse = |field: &str, why: String| Err((field.to_owned(), why));
        if self.format != 1 {
            return refuse("format", format!("{} is not 1", self.format));
        }
        if !Self::is_name(&self.name) {
            return refuse(
                "name",
                format!("{:?} is not letters, digits, - _ .", self.name),
            );
        }
        if self.variants.is_empty() || self.variants.len() > VARIANTS_MAX {
            return refuse("variant", format!("there must be 1 to {VARIANTS_MAX}"));
        }
        for variant in &self.variants {
            variant.check()?;
            if self
                .variants
                .iter()
                .filter(|other| other.name == variant.name)
                .count()
                > 1
            {
                return refuse("variant.name", format!("{:?} is there twice", variant.name));
            }
        }
        for path in self.files.keys() {
            if !stays_inside(Path::new(path)) {
                return refuse("files", format!("{path:?} leaves the folder"));
            }
        }
        match self.task {
            Task::TextGeneration if self.text.is_none() => refuse("text", "is missing".into()),
            Task::Embedding if self.embedding.is_none() => refuse("embedding", "is missing".into()),
            Task::FrameInterpolation if self.clip.is_none() => refuse("clip", "is missing".into()),
            Task::FrameRestoration if self.restoration.is_none() => {
                refuse("restoration", "is missing".into())
            }
            Task::ClipLabelling if self.labelling.is_none() => {
                refuse("labelling", "is missing".into())
            }
            Task::Stream if self.stream.is_none() => refuse("stream", "is missing".into()),
            Task::ClipGeneration if self.generation.is_none() => {
                refuse("generation", "is missing".into())
            }
            _ => self.check_sections(),
        }
    }

    fn check_sections(&self) -> Result<(), (String, String)> {
        if let Some(embedding) = &self.embedding {
            embedding.check()?;
        }
        if let Some(generation) = &self.generation {
            generation.check()?;
        }
        if let Some(restoration) = &self.restoration {
            restoration.check()?;
        }
        if let Some(labelling) = &self.labelling {
            labelling.check()?;
            let mut inputs = self.inputs.iter();
            inputs.try_for_each(|hint| labelling.check_input(hint))?;
        }
        self.inputs.iter().try_for_each(InputHint::check)?;
        self.outputs.iter().try_for_each(OutputHint::check)?;
        if let Some(text) = &self.text {
            let sizes = [
                text.context_tokens,
                text.vocab,
                text.layers,
                text.kv_heads,
                text.head_dim,
            ];
            if sizes.contains(&0) || sizes.iter().any(|&size| size > 1 << 24) {
                return Err(("text".into(), "a size is zero or absurd".into()));
            }
            if let Some(tags) = &text.reasoning {
                tags.check()?;
            }
            let files = std::iter::once(&text.tokenizer).chain(&text.chat_template);
            if !files.into_iter().all(|file| stays_inside(file)) {
                return Err(("text".into(), "a file leaves the folder".into()));
            }
        }
        if self
            .clip
            .as_ref()
            .is_some_and(|clip| !(1..=1024).contains(&clip.pad_multiple))
        {
            return Err(("clip.pad_multiple".into(), "is not in 1..=1024".into()));
        }
        let mut dimensions = self.dimensions.iter();
        if self.dimensions.len() > DIMENSIONS_MAX
            || dimensions.any(|(name, size)| {
                name.is_empty() || name.contains('\0') || !(1..=DIMENSION_MAX).contains(size)
            })
        {
            let why = format!("there may be {DIMENSIONS_MAX}, named, of 1 to {DIMENSION_MAX}");
            return Err(("dimensions".into(), why));
        }
        if self
            .labels
            .as_ref()
            .is_some_and(|labels| !stays_inside(labels))
        {
            return Err(("labels".into(), "leaves the folder".into()));
        }
        Ok(())
    }

    /// Whether `name` can name a model.
    pub fn is_name(name: &str) -> bool {
        !name.is_empty()
            && name.len() <= NAME_BYTES_MAX
            && !name.starts_with('.')
            && name.chars().all(is_name_char)
    }
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

fn stays_inside(path: &Path) -> bool {
    !path.as_os_str().is_empty()
        && path
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Manifest, String> {
        Manifest::parse(text, Path::new("mote.toml")).map_err(|error| error.to_string())
    }

    const GOOD: &str = "format = 1\nname = \"m\"\ntask = \"tensor\"\n[[variant]]\nname = \"a\"\n\
        backend = \"tract\"\nfile = \"m.onnx\"\nprecision = \"f32\"\n";

    #[test]
    fn refusals_name_the_field() {
        assert!(parse(GOOD).is_ok());
        for (from, to, field) in [
            ("format = 1", "format = 2", "format"),
            ("name = \"m\"", "name = \"../m\"", "name"),
            (
                "file = \"m.onnx\"",
                "file = \"/etc/passwd\"",
                "variant.file",
            ),
            ("file = \"m.onnx\"", "file = \"a/../../m\"", "variant.file"),
            ("task = \"tensor\"", "task = \"text-generation\"", "text"),
            ("task = \"tensor\"", "task = \"stream\"", "stream"),
            ("task = \"tensor\"", "task = \"embedding\"", "embedding"),
            (
                "task = \"tensor\"",
                "task = \"clip-generation\"",
                "generation",
            ),
            (
                "precision = \"f32\"",
                "precision = \"f32\"\nparts = { vae = \"../m.onnx\" }",
                "variant.file",
            ),
            (
                "precision = \"f32\"",
                "precision = \"f32\"\nparts = { \"a/b\" = \"m.onnx\" }",
                "variant.parts",
            ),
            (
                "[[variant]]",
                "[dimensions]\nn = 0\n[[variant]]",
                "dimensions",
            ),
        ] {
            let message = parse(&GOOD.replace(from, to)).expect_err("must be refused");
            assert!(
                message.contains(&format!("mote.toml: {field}: ")),
                "{message}"
            );
        }
        assert!(parse(&GOOD.replace("precision", "prescision")).is_err());
    }

    #[test]
    fn tags_around_reasoning_are_those_of_the_manifest() {
        let with = |section: &str| {
            let text = "task = \"text-generation\"\n[text]\ntokenizer = \"t.json\"\n\
                context_tokens = 8\nvocab = 8\nlayers = 1\nkv_heads = 1\nhead_dim = 1\n\
                eos_token_ids = [1]\n";
            let text = GOOD.replace("task = \"tensor\"\n", &format!("{text}{section}"));
            parse(&text).map(|manifest| manifest.text.expect("a text model").reasoning)
        };
        assert_eq!(with(""), Ok(None));
        let tags = with("[text.reasoning]\nopen = \"<r>\"\nclose = \"</r>\"\n").expect("good");
        assert_eq!(tags.expect("tags").close, "</r>");
        for (open, close) in [("", "x"), ("x", " y"), ("x", &"y".repeat(65))] {
            let section = format!("[text.reasoning]\nopen = {open:?}\nclose = {close:?}\n");
            let message = with(&section).expect_err("must be refused");
            assert!(message.contains("text.reasoning."), "{message}");
        }
    }

    #[test]
    fn a_lone_file_gets_the_backends_that_read_it() {
        let manifest = Manifest::inferred(Path::new("/x/my model.onnx")).expect("onnx is known");
        assert_eq!(manifest.name, "my-model");
        let backends: Vec<_> = manifest.variants.iter().map(|v| v.backend).collect();
        assert_eq!(backends, [BackendKind::OnnxRuntime, BackendKind::Tract]);
        assert!(manifest.check().is_ok());
        assert!(Manifest::inferred(Path::new("x.gguf")).is_none());
    }
}
