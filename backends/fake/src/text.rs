//! What text models compute: next tokens that follow a rule, through a real KV cache.

use crate::script::{Logits, Next, Text};
use crate::session::Outputs;
use mote_api::{BackendError, DType, RunError, Signature, Tensor, TensorSpec};

const INPUT_IDS: usize = 0;
const SEQLENS_K: usize = 1;
const TOTAL: usize = 2;
const FIRST_PAST: usize = 3;
const FIRST_PRESENT: usize = 1;
/// Logit of the next token; all others are 0, which leaves them a chance of 1e-13 in sampling.
const PEAK_LOGIT: f32 = 30.0;

pub(crate) fn signature(text: &Text) -> Signature {
    let spec = |name: String, dtype, shape: &[Option<usize>]| TensorSpec {
        name,
        dtype,
        shape: shape.to_vec(),
    };
    let cache = [None, Some(text.kv_heads), None, Some(text.head_dim)];
    let caches = |stem: &str| -> Vec<TensorSpec> {
        (0..text.layers)
            .flat_map(|layer| ["key", "value"].map(|part| format!("{stem}.{layer}.{part}")))
            .map(|name| spec(name, DType::F32, &cache))
            .collect()
    };
    let positions = match text.logits {
        Logits::Last => Some(1),
        Logits::All => None,
    };
    let mut inputs = vec![
        spec("input_ids".into(), DType::I64, &[None, None]),
        spec("seqlens_k".into(), DType::I32, &[None]),
        spec("total_sequence_length".into(), DType::I32, &[Some(1)]),
    ];
    inputs.extend(caches("past_key_values"));
    let logits = [None, positions, Some(text.vocab)];
    let mut outputs = vec![spec("logits".into(), DType::F32, &logits)];
    outputs.extend(caches("present"));
    Signature { inputs, outputs }
}

/// One row of the batch: tokens before this run, and tokens of this run.
struct Row {
    past: usize,
    new: usize,
}

fn refuse(why: impl std::fmt::Display) -> RunError {
    RunError::Compute(BackendError::new("run text model", why))
}

/// Fills logits and present; `wrong` puts every next token off by one.
pub(crate) fn compute(
    text: &Text,
    wrong: bool,
    inputs: &[Tensor],
    outputs: &mut Outputs,
) -> Result<(), RunError> {
    let ids = inputs[INPUT_IDS].read::<i64>()?;
    let [batch, sequence] = *inputs[INPUT_IDS].shape() else {
        return Err(refuse("input_ids is not [batch, sequence]"));
    };
    if ids.iter().any(|&id| id < 0 || id >= text.vocab as i64) {
        return Err(refuse("a token is outside the vocabulary"));
    }
    let rows = rows(inputs, batch, sequence)?;
    let tokens = extend_caches(text, &ids, &rows, inputs, outputs)?;
    let positions = match text.logits {
        Logits::Last => 1,
        Logits::All => sequence,
    };
    let mut logits = vec![0f32; batch * positions * text.vocab];
    for (row_index, (row, tokens)) in rows.iter().zip(&tokens).enumerate() {
        for position in 0..positions {
            let seen = match text.logits {
                Logits::Last => row.past + row.new,
                Logits::All => (row.past + position + 1).min(tokens.len()),
            };
            let basis = match text.next {
                Next::Increment => tokens[..seen].last().copied().unwrap_or(0),
                Next::Sum => tokens[..seen].iter().sum(),
            };
            let next = (basis + 1 + usize::from(wrong)) % text.vocab;
            logits[(row_index * positions + position) * text.vocab + next] = PEAK_LOGIT;
        }
    }
    let target = outputs.prepare(0, &[batch, positions, text.vocab])?;
    Ok(target.write(&logits)?)
}

fn rows(inputs: &[Tensor], batch: usize, sequence: usize) -> Result<Vec<Row>, RunError> {
    let total = inputs[TOTAL].read::<i32>()?[0];
    let total = usize::try_from(total).map_err(|_| refuse("total_sequence_length < 0"))?;
    let seqlens = inputs[SEQLENS_K].read::<i32>()?;
    if seqlens.len() != batch {
        return Err(refuse("seqlens_k and input_ids differ in batch"));
    }
    let row = |seqlen: i32| {
        let seen = usize::try_from(i64::from(seqlen) + 1).ok()?;
        // The first run holds a whole prompt per row, padded on the right; later runs hold the
        // same number of new tokens for each.
        let past = if sequence == total {
            0
        } else {
            seen.checked_sub(sequence)?
        };
        let new = seen.checked_sub(past)?;
        (1..=sequence).contains(&new).then_some(())?;
        (seen <= total).then_some(Row { past, new })
    };
    let rows: Option<Vec<Row>> = seqlens.into_iter().map(row).collect();
    rows.ok_or_else(|| refuse("seqlens_k, total_sequence_length and input_ids contradict"))
}

/// Writes the new tokens behind the past ones and gives all tokens of each row back.
fn extend_caches(
    text: &Text,
    ids: &[i64],
    rows: &[Row],
    inputs: &[Tensor],
    outputs: &mut Outputs,
) -> Result<Vec<Vec<usize>>, RunError> {
    let sequence = ids.len() / rows.len().max(1);
    let need = rows.iter().map(|row| row.past + row.new).max().unwrap_or(0);
    let mut tokens = Vec::new();
    for cache in 0..2 * text.layers {
        let past = &inputs[FIRST_PAST + cache];
        let [batch, heads, have, dim] = *past.shape() else {
            return Err(refuse("past_key_values is not of rank 4"));
        };
        if batch != rows.len() || rows.iter().any(|row| row.past > have) {
            return Err(refuse("past_key_values is too small"));
        }
        let output = FIRST_PRESENT + cache;
        let bound = outputs.bound(output).map(|tensor| tensor.shape()[2]);
        let room = bound.unwrap_or(need.max(have));
        if room < need {
            return Err(refuse("present is too small"));
        }
        let old = past.read::<f32>()?;
        let present = outputs.prepare(output, &[batch, heads, room, dim])?;
        let mut new = vec![0f32; present.elements()];
        for (row_index, row) in rows.iter().enumerate() {
            for head in 0..heads {
                let plane = row_index * heads + head;
                let (from, to) = (plane * have * dim, plane * room * dim);
                let keep = have.min(room) * dim;
                new[to..to + keep].copy_from_slice(&old[from..from + keep]);
                for position in 0..row.new {
                    let token = ids[row_index * sequence + position] as f32;
                    let start = to + (row.past + position) * dim;
                    new[start..start + dim].fill(token);
                }
            }
            if cache == 0 {
                let start = row_index * heads * room * dim;
                let seen = row.past + row.new;
                let keys = (0..seen).map(|position| new[start + position * dim]);
                tokens.push(keys.map(|key| key as usize).collect());
            }
        }
        present.write(&new)?;
    }
    Ok(tokens)
}
