//! What an import is asked to do, and what it did.

use std::{
    borrow::Cow,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
};

use crate::{
    digest::Digest, embedding::Pooling, emit::Precision, folder::FileReport, hugging_face::Element,
    recipe::MoeShape,
};

/// Longest model name, in bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// Context of an imported model when the caller does not say and the checkpoint allows it, in
/// tokens.
pub const CONTEXT_TOKENS_DEFAULT: usize = 2048;

/// What an import is asked to do.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// The checkpoint: a GGUF file, or a folder as Hugging Face libraries write them.
    pub source: PathBuf,
    /// The checkpoint's name for people, for the manifest.
    pub source_name: String,
    /// The model folder to make. It must not exist.
    pub folder: PathBuf,
    /// The model's name: letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// The licence of the weights. Where its text is empty, a folder's own is taken; where its
    /// identifier is, what the model card or the metadata name.
    pub licence: Licence,
    /// Turns the dense checkpoint into a Mixture of Experts.
    pub carve: Option<Carve>,
    /// Makes a model that gives vectors, not text.
    pub embedding: Option<Embedding>,
    /// Longest context to prepare for, in tokens; at most what the checkpoint allows. When the
    /// caller does not say, [`CONTEXT_TOKENS_DEFAULT`] or what the checkpoint allows.
    pub context_tokens: Option<usize>,
    /// What to write.
    pub target: Target,
    /// Set to make the import stop within one tensor.
    pub cancel: Arc<AtomicBool>,
}

/// A licence.
#[derive(Debug, Clone, Default)]
pub struct Licence {
    /// SPDX identifier.
    pub id: String,
    /// Content of the folder's `LICENSE` file.
    pub text: String,
}

/// How to carve experts out of dense feed-forward blocks.
#[derive(Debug, Clone)]
pub struct Carve {
    /// A recipe file; see [`Recipe`](crate::Recipe).
    pub recipe: Cow<'static, [u8]>,
    /// Experts per token, when not the recipe's own number.
    pub experts_per_token: Option<usize>,
}

/// How vectors are made of a decoder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Embedding {
    /// How tokens' vectors become a text's. When the caller does not say, what sentence-transformers
    /// wrote beside the checkpoint, or else the last token's.
    pub pooling: Option<Pooling>,
}

/// What an import writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A model folder of this project: ONNX, tokenizer and manifest.
    Mote(Precision),
    /// A Hugging Face folder with safetensors weights. Only for plain Llama models, as they
    /// are or carved.
    HuggingFace(Element),
    /// A GGUF file `model.gguf` of architecture `llama`, or of `granitemoe` where it is carved, whose
    /// weights are the very same codes: Q8_0, Q4_0, or floats. Only for plain Llama models from GGUF.
    Gguf(Precision),
}

impl ImportOptions {
    /// An int8 model folder `folder` called `name` from the checkpoint `source`.
    pub fn new(
        source: impl Into<PathBuf>,
        folder: impl Into<PathBuf>,
        name: impl Into<String>,
    ) -> Self {
        let name = name.into();
        Self {
            source: source.into(),
            source_name: name.clone(),
            folder: folder.into(),
            name,
            licence: Licence::default(),
            carve: None,
            embedding: None,
            context_tokens: None,
            target: Target::Mote(Precision::default()),
            cancel: Arc::default(),
        }
    }
}

/// What an import did.
#[derive(Debug, Clone)]
pub struct ImportReport {
    /// The folder made.
    pub folder: PathBuf,
    /// The model's name.
    pub name: String,
    /// Digest of the checkpoint.
    pub source: Digest,
    /// Digest of the carving recipe.
    pub recipe: Option<Digest>,
    /// Sizes of the Mixture of Experts.
    pub moe: Option<MoeShape>,
    /// Decoder layers.
    pub layers: usize,
    /// Weights of the checkpoint.
    pub parameters: u64,
    /// Size of the file that holds the weights, in bytes.
    pub weights_bytes: u64,
    /// Every file made, the manifest included.
    pub files: Vec<FileReport>,
    /// Largest resident memory of this process so far, in bytes, where the system tells.
    pub peak_resident_bytes: Option<u64>,
}
