//! Finds out which inputs and outputs of a model play which part in embedding.

use crate::PipelineError;
use mote_api::{DType, EmbeddingSpec, Pooling, Signature, TensorSpec};

const INPUT_IDS: &str = "input_ids";
const ATTENTION_MASK: &str = "attention_mask";
const TOKEN_TYPE_IDS: &str = "token_type_ids";
const POSITION_IDS: &str = "position_ids";
const SEQLENS_K: &str = "seqlens_k";
const TOTAL: &str = "total_sequence_length";
/// Names of the output with a vector for each token.
const OF_TOKENS: [&str; 2] = ["last_hidden_state", "token_embeddings"];
/// Name of the output with a vector for each text.
const OF_TEXTS: &str = "sentence_embedding";

/// Texts of one run at most, when neither the manifest nor the graph says.
const ROWS_DEFAULT: usize = 16;

/// What an input holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Tokens, `[b, s]`.
    Ids,
    /// 1 for tokens and 0 for padding, `[b, s]`.
    Mask,
    /// Zeros, `[b, s]`.
    Types,
    /// From 0, `[b, s]`.
    Positions,
    /// Place of each row's last token, `[b]`.
    LastPlaces,
    /// The number of tokens, `[1]`.
    Total,
}

/// An input: i32 or i64.
#[derive(Clone, Copy, Debug)]
pub(super) struct Port {
    pub index: usize,
    pub dtype: DType,
    pub part: Part,
}

/// Inputs and outputs of an embedding model, by position in the model's signature. `b` is the number
/// of texts and `s` that of tokens, padding included.
///
/// Inputs: `input_ids`, and any of `attention_mask`, `token_type_ids`, `position_ids`, all `[b, s]`,
/// `seqlens_k` `[b]` (`s - 1`) and `total_sequence_length` `[1]` (`s`); each is i32 or i64. Output:
/// `last_hidden_state` or `token_embeddings` `[b, s, d]`, or `sentence_embedding` `[b, d]` where the
/// graph pools, f32, f16 or bf16. Further outputs are not read.
#[derive(Debug)]
pub(crate) struct EmbeddingGraph {
    pub(super) inputs: Vec<Port>,
    pub(super) output: usize,
    pub(super) has_mask: bool,
    /// Texts of a run at most, where the graph takes any number.
    pub(super) rows_max: usize,
    /// The number of texts in a run, where the graph fixes it.
    pub(super) rows: Option<usize>,
    /// The number of tokens, likewise.
    pub(super) columns: Option<usize>,
}

impl EmbeddingGraph {
    /// Matches `signature` with what `spec` says of the model.
    ///
    /// # Errors
    /// [`PipelineError::Graph`] names the tensor that does not fit.
    pub fn new(signature: &Signature, spec: &EmbeddingSpec) -> Result<Self, PipelineError> {
        let inputs = signature.inputs.iter().enumerate().map(port);
        let inputs: Vec<Port> = inputs.collect::<Result<_, _>>()?;
        let find = |part| inputs.iter().find(|port| port.part == part);
        let ids = find(Part::Ids).ok_or_else(|| PipelineError::graph(INPUT_IDS, "is missing"))?;
        let shape = &signature.inputs[ids.index].shape;
        let graph = Self {
            output: output(signature, spec)?,
            has_mask: find(Part::Mask).is_some(),
            rows_max: spec.texts_per_run.unwrap_or(ROWS_DEFAULT),
            rows: shape[0],
            columns: shape[1],
            inputs,
        };
        graph.check_fixed(spec)?;
        Ok(graph)
    }

    fn check_fixed(&self, spec: &EmbeddingSpec) -> Result<(), PipelineError> {
        let pads = self.columns.is_some() || self.rows.is_some_and(|rows| rows > 1);
        if pads && !self.has_mask {
            let why = "is missing, and the shape is fixed: texts cannot be padded";
            return Err(PipelineError::graph(ATTENTION_MASK, why));
        }
        match self.columns {
            Some(columns) if columns < spec.context_tokens => {
                let why = format!(
                    "takes {columns} tokens, not the {} of embedding.context_tokens",
                    spec.context_tokens
                );
                Err(PipelineError::graph(INPUT_IDS, why))
            }
            _ => Ok(()),
        }
    }
}

fn port((index, spec): (usize, &TensorSpec)) -> Result<Port, PipelineError> {
    let (part, rank) = match spec.name.as_str() {
        INPUT_IDS => (Part::Ids, 2),
        ATTENTION_MASK => (Part::Mask, 2),
        TOKEN_TYPE_IDS => (Part::Types, 2),
        POSITION_IDS => (Part::Positions, 2),
        SEQLENS_K => (Part::LastPlaces, 1),
        TOTAL => (Part::Total, 1),
        name => {
            let why = "is an input that embedding does not know";
            return Err(PipelineError::graph(name, why));
        }
    };
    if spec.shape.len() != rank || !matches!(spec.dtype, DType::I32 | DType::I64) {
        let why = format!("is {} of rank {}", spec.dtype, spec.shape.len());
        return Err(PipelineError::graph(&spec.name, why));
    }
    Ok(Port {
        index,
        dtype: spec.dtype,
        part,
    })
}

fn output(signature: &Signature, spec: &EmbeddingSpec) -> Result<usize, PipelineError> {
    let (names, rank) = match spec.pooling {
        Pooling::Graph => (&[OF_TEXTS][..], 2),
        Pooling::Mean | Pooling::Last | Pooling::Cls => (&OF_TOKENS[..], 3),
    };
    let found = names.iter().find_map(|name| signature.output(name));
    let index = found.ok_or_else(|| {
        let why = "is missing, which embedding.pooling calls for";
        PipelineError::graph(names[0], why)
    })?;
    let have = &signature.outputs[index];
    let float = matches!(have.dtype, DType::F32 | DType::F16 | DType::Bf16);
    let width = have.shape.last().copied().flatten();
    if !float || have.shape.len() != rank || width.is_some_and(|width| width != spec.dimensions) {
        let why = format!(
            "is {} {:?}, not of rank {rank} with the {} of embedding.dimensions",
            have.dtype, have.shape, spec.dimensions
        );
        return Err(PipelineError::graph(&have.name, why));
    }
    Ok(index)
}
