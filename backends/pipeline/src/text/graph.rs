//! Finds out which inputs and outputs of a model play which part in text generation.

use crate::PipelineError;
use mote_api::{DType, Signature, TensorSpec, TextSpec};

/// Inputs and outputs of a decoder, by position in the model's signature.
///
/// `b` is the number of rows, each a conversation of its own; `s` is the number of new tokens of each,
/// `past` the number of tokens before them. Inputs that count:
/// `input_ids` `[b, s]`, `position_ids` `[b, s]`, `attention_mask` `[b, past + s]` (ones, and zeros
/// behind those of shorter rows), `seqlens_k` `[b]` (`past + s - 1`), `total_sequence_length` `[1]` or
/// `[]` (`past + s` of the longest), `num_logits_to_keep` `[1]` or `[]` (`n`, of how many of the last
/// tokens logits are wanted); only the
/// first must be there, each is i32 or i64. Cache: `past_key_values.{layer}.key` and `.value` in,
/// `present.{layer}.key` and `.value` out, `[b, kv_heads, context_tokens, head_dim]`, in and out in
/// the same memory. Output: `logits` `[b, n, vocab]` where `n` is an input,
/// else `[b, 1, vocab]` or `[b, s, vocab]`.
///
/// Several rows are only given to graphs whose every `b` is open, and with one new token each.
#[derive(Debug)]
pub(crate) struct TextGraph {
    pub input_ids: Port,
    pub position_ids: Option<Port>,
    pub attention_mask: Option<Port>,
    pub seqlens_k: Option<Port>,
    pub total_sequence_length: Option<Port>,
    pub num_logits_to_keep: Option<Port>,
    /// Key and value of each layer.
    pub caches: Vec<CachePorts>,
    pub cache_dtype: DType,
    /// Of one row.
    pub cache_shape: [usize; 4],
    /// Whether a run may have several rows.
    pub takes_rows: bool,
    pub logits: usize,
    pub logits_dtype: DType,
    /// Whether the model declares logits of the last position only.
    pub logits_last_only: bool,
}

/// An input that holds counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Port {
    pub index: usize,
    pub dtype: DType,
    pub rank: usize,
}

/// One cache tensor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CachePorts {
    pub past: usize,
    pub present: usize,
}

const INPUT_IDS: &str = "input_ids";
const POSITION_IDS: &str = "position_ids";
const ATTENTION_MASK: &str = "attention_mask";
const SEQLENS_K: &str = "seqlens_k";
const TOTAL: &str = "total_sequence_length";
const NUM_LOGITS: &str = "num_logits_to_keep";
const LOGITS: &str = "logits";

impl TextGraph {
    /// Matches `signature` with what `spec` says of the model.
    pub fn new(signature: &Signature, spec: &TextSpec) -> Result<Self, PipelineError> {
        let missing = |name: &str| PipelineError::graph(name, "is missing");
        let cache_shape = [1, spec.kv_heads, spec.context_tokens, spec.head_dim];
        let names = cache_names(spec.layers);
        let mut caches = Vec::with_capacity(names.len());
        for [past, present] in &names {
            caches.push(CachePorts {
                past: signature.input(past).ok_or_else(|| missing(past))?,
                present: signature.output(present).ok_or_else(|| missing(present))?,
            });
        }
        let logits = signature.output(LOGITS).ok_or_else(|| missing(LOGITS))?;
        let first_cache = caches.first().map(|ports| &signature.inputs[ports.past]);
        let graph = Self {
            input_ids: port(signature, INPUT_IDS, 2)?.ok_or_else(|| missing(INPUT_IDS))?,
            position_ids: port(signature, POSITION_IDS, 2)?,
            attention_mask: port(signature, ATTENTION_MASK, 2)?,
            seqlens_k: port(signature, SEQLENS_K, 1)?,
            total_sequence_length: port(signature, TOTAL, 1)?,
            num_logits_to_keep: port(signature, NUM_LOGITS, 1)?,
            cache_dtype: first_cache.map_or(DType::F32, |spec| spec.dtype),
            cache_shape,
            takes_rows: takes_rows(signature),
            logits,
            logits_dtype: signature.outputs[logits].dtype,
            logits_last_only: signature.outputs[logits].shape.get(1) == Some(&Some(1)),
            caches,
        };
        graph.refuse_unknown(signature)?;
        graph.check_caches(signature)?;
        check_logits(&signature.outputs[logits], spec.vocab)?;
        Ok(graph)
    }

    fn refuse_unknown(&self, signature: &Signature) -> Result<(), PipelineError> {
        let counts = [
            Some(self.input_ids),
            self.position_ids,
            self.attention_mask,
            self.seqlens_k,
            self.total_sequence_length,
            self.num_logits_to_keep,
        ];
        let known = |index: usize| {
            counts.iter().flatten().any(|port| port.index == index)
                || self.caches.iter().any(|ports| ports.past == index)
        };
        match (0..signature.inputs.len()).find(|&index| !known(index)) {
            Some(index) => Err(PipelineError::graph(
                &signature.inputs[index].name,
                "is an input that text generation does not know",
            )),
            None => Ok(()),
        }
    }

    fn check_caches(&self, signature: &Signature) -> Result<(), PipelineError> {
        for ports in &self.caches {
            let (past, present) = (
                &signature.inputs[ports.past],
                &signature.outputs[ports.present],
            );
            for spec in [past, present] {
                // What codes of 8 bits stand for is the model's own affair.
                let known = matches!(
                    spec.dtype,
                    DType::F32 | DType::F16 | DType::Bf16 | DType::I8
                );
                if !known || !spec.accepts(self.cache_dtype, &self.cache_shape) {
                    let why = format!(
                        "is {} {:?}, which does not take a cache of {} {:?}",
                        spec.dtype, spec.shape, self.cache_dtype, self.cache_shape
                    );
                    return Err(PipelineError::graph(&spec.name, why));
                }
            }
        }
        Ok(())
    }

    /// Whether a run can give the logits of several tokens of one row.
    pub fn tells_several(&self) -> bool {
        self.num_logits_to_keep.is_some() || !self.logits_last_only
    }

    /// Bytes of the key and value cache of one token.
    pub fn token_bytes(&self) -> u64 {
        let [_, heads, _, width] = self.cache_shape;
        (heads * width * self.cache_dtype.bytes() * self.caches.len()) as u64
    }

    /// Bytes of all caches of one row together.
    pub fn cache_bytes(&self) -> u64 {
        let elements: usize = self.cache_shape.iter().product();
        (elements * self.cache_dtype.bytes() * self.caches.len()) as u64
    }
}

/// Whether the first dimension of all that belongs to a row is open, and each row's length is told.
fn takes_rows(signature: &Signature) -> bool {
    let tells_lengths = |name: &str| signature.input(name).is_some();
    let of_all = |spec: &&TensorSpec| spec.name != TOTAL && spec.name != NUM_LOGITS;
    let is_open = |spec: &TensorSpec| spec.shape.first() == Some(&None);
    (tells_lengths(SEQLENS_K) || tells_lengths(ATTENTION_MASK))
        && signature.inputs.iter().filter(of_all).all(is_open)
        && signature.outputs.iter().all(is_open)
}

/// Names of past and present of each cache tensor.
fn cache_names(layers: usize) -> Vec<[String; 2]> {
    (0..layers)
        .flat_map(|layer| {
            ["key", "value"].map(|part| {
                ["past_key_values", "present"].map(|stem| format!("{stem}.{layer}.{part}"))
            })
        })
        .collect()
}

fn port(signature: &Signature, name: &str, rank_max: usize) -> Result<Option<Port>, PipelineError> {
    let Some(index) = signature.input(name) else {
        return Ok(None);
    };
    let spec = &signature.inputs[index];
    let rank = spec.shape.len();
    let rank_fits = rank == rank_max || (rank == 0 && rank_max == 1);
    if !rank_fits || !matches!(spec.dtype, DType::I32 | DType::I64) {
        let why = format!("is {} of rank {rank}", spec.dtype);
        return Err(PipelineError::graph(name, why));
    }
    Ok(Some(Port {
        index,
        dtype: spec.dtype,
        rank,
    }))
}

fn check_logits(spec: &TensorSpec, vocab: usize) -> Result<(), PipelineError> {
    let float = matches!(spec.dtype, DType::F32 | DType::F16 | DType::Bf16);
    let fits = spec.shape.len() == 3 && spec.shape[2].is_none_or(|have| have == vocab);
    if float && fits {
        return Ok(());
    }
    let why = format!(
        "is {} {:?}, not [1, 1, {vocab}] or [1, s, {vocab}]",
        spec.dtype, spec.shape
    );
    Err(PipelineError::graph(LOGITS, why))
}
