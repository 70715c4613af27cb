//! [`Bank`]: conversations side by side in the cache of one session.
//!
//! Each cache tensor is `[rows, kv_heads, context_tokens, head_dim]`, and a conversation has one row
//! of all of them. A prompt's chunk is a run over one row; the next tokens of several conversations are
//! a run over a range of rows, each as long as it is. Nothing is copied for that: a run binds the rows
//! it is about. Rows within the range that nobody asks for compute, too, and write behind the tokens
//! that they hold.
//!
//! In host memory the address space of all rows is taken at once, and pages appear as tokens fill them,
//! as in vAttention (Prabhu et al. 2024); so the cache is in pages without a table that kernels would
//! have to read. A device's memory is taken whole, so a bank there has a single row.

use super::graph::{Port, TextGraph};
use super::request::DRAFT_TOKENS_MAX;
use crate::PipelineError;
use crate::cancel::CancelFlag;
use half::{bf16, f16};
use mote_api::{
    Canceller, Carry, DType, Model, OutputTarget, RunError, RunReport, Session, StatePlace,
    StateSpec, Stateful, Tensor, TensorError,
};
use std::ops::Range;
use std::sync::Arc;

/// Tokens of a prompt computed in one step at most. Chunks end at multiples of it.
///
/// On ONNX Runtime's CPU provider prompts are computed as fast with it as with any larger number, and
/// who waits for a token waits for one chunk of somebody else's prompt at most.
pub const PREFILL_CHUNK_TOKENS: usize = 64;

/// Bytes of address space that the rows of one bank take at most, but for a single one.
#[cfg(target_pointer_width = "64")]
const ADDRESSES_MAX: u64 = 1 << 40;
#[cfg(not(target_pointer_width = "64"))]
const ADDRESSES_MAX: u64 = 256 << 20;

/// Conversations that one run can go on with at most.
pub const ROWS_MAX: usize = 8;

/// A session with its cache bound, and what each row holds. Views are bound anew only when the rows or
/// the number of tokens change; from token to token only values do.
pub(crate) struct Bank {
    pub graph: Arc<TextGraph>,
    /// What each row holds.
    pub rows: Vec<Row>,
    session: Stateful,
    vocab: usize,
    memory: Memory,
    bound: Option<Bound>,
    is_lost: bool,
}

/// A conversation's place.
#[derive(Default)]
pub(crate) struct Row {
    /// Whether a job has it.
    pub is_taken: bool,
    /// Tokens that the job may come to need room for.
    pub reserved_tokens: usize,
    /// Tokens that the cache holds.
    pub tokens: Vec<u32>,
    /// How many of them, from the first on, were computed in just the runs in which any prompt that
    /// begins with them is computed.
    pub exact_tokens: usize,
    /// Whether the last run computed tokens right behind those.
    pub last_run_is_exact: bool,
    /// Whether the last job's prompt was computed in just the runs in which it always is.
    pub prompt_is_exact: bool,
    /// How many of them were the last job's prompt.
    pub prompt_tokens: usize,
    /// Logits after that prompt; empty when they were not computed.
    pub prompt_logits: Vec<f32>,
    /// When a job had it last.
    pub used: u64,
}

/// Memory for what changes from run to run, with room for the largest.
struct Memory {
    ids: Tensor,
    positions: Tensor,
    mask: Option<Tensor>,
    seqlens_k: Option<Tensor>,
    total: Option<Tensor>,
    num_logits: Option<Tensor>,
    logits: Tensor,
}

/// Views that are bound.
struct Bound {
    rows: Range<usize>,
    /// Tokens of each row.
    length: usize,
    ids: Tensor,
    positions: Option<Tensor>,
    seqlens_k: Option<Tensor>,
    /// Tokens whose logits are wanted.
    kept: usize,
    /// Where those go; otherwise the library allocates memory for all.
    logits: Option<Tensor>,
}

impl Bank {
    /// A bank of empty rows: `rows_max` where the model takes several and the cache lies in host memory,
    /// else one.
    pub fn new(
        model: &dyn Model,
        graph: &Arc<TextGraph>,
        vocab: usize,
        rows_max: usize,
    ) -> Result<Self, PipelineError> {
        let graph = Arc::clone(graph);
        let mut session = Stateful::new(model.session()?);
        for ports in &graph.caches {
            session.keep(StateSpec {
                input: ports.past,
                dtype: graph.cache_dtype,
                shape: graph.cache_shape.to_vec(),
                carry: Carry::InPlace {
                    output: ports.present,
                },
            })?;
        }
        let on_host = (0..graph.caches.len()).all(|number| session.memory(number).is_some());
        let fit = ADDRESSES_MAX / graph.cache_bytes().max(1);
        let rows_max = rows_max.clamp(1, ROWS_MAX).min((fit as usize).max(1));
        let rows = if on_host && graph.takes_rows {
            rows_max
        } else {
            1
        };
        if rows > 1 {
            let [_, heads, context, width] = graph.cache_shape;
            for number in 0..graph.caches.len() {
                session.reshape(number, &[rows, heads, context, width])?;
            }
        }
        let memory = Memory::new(&graph, rows, vocab)?;
        for (port, tensor) in [
            (graph.total_sequence_length, &memory.total),
            (graph.num_logits_to_keep, &memory.num_logits),
        ] {
            if let (Some(port), Some(tensor)) = (port, tensor) {
                session.bind_input(port.index, tensor)?;
            }
        }
        Ok(Self {
            rows: (0..rows).map(|_| Row::default()).collect(),
            session,
            vocab,
            memory,
            bound: None,
            is_lost: false,
            graph,
        })
    }

    /// What stops `cancel`'s job.
    pub fn canceller(&self, cancel: &CancelFlag) -> Canceller {
        cancel.canceller(&self.session)
    }

    /// Where the caches lie, each place once.
    pub fn places(&mut self) -> Result<Vec<StatePlace>, PipelineError> {
        Ok(self.session.places()?)
    }

    /// Whether the device was lost, and the cache with it.
    pub fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Computes `ids` behind the tokens that `row` holds, and the logits after the last `kept` of them:
    /// more than one only of graphs that [tell several](TextGraph::tells_several). After an error it holds those still, since new
    /// ones are only ever written behind them.
    pub fn compute(
        &mut self,
        cancel: &CancelFlag,
        row: usize,
        ids: &[u32],
        kept: usize,
    ) -> Result<RunReport, PipelineError> {
        self.bind(row..row + 1, ids.len(), kept)?;
        self.write(ids)?;
        let report = cancel.run(&mut self.session);
        let report = self.watch(report)?;
        let held = &mut self.rows[row];
        held.last_run_is_exact = held.exact_tokens == held.tokens.len();
        if held.last_run_is_exact && ids.len() == PREFILL_CHUNK_TOKENS {
            held.exact_tokens += ids.len();
        }
        held.tokens.extend_from_slice(ids);
        Ok(report)
    }

    /// Computes one token each behind those that some rows hold, in one run. `next` gives row and token,
    /// by row. After an error the rows hold what they held.
    pub fn compute_next(
        &mut self,
        cancels: &[&CancelFlag],
        next: &[(usize, u32)],
    ) -> Result<RunReport, PipelineError> {
        let (Some(&(first, _)), Some(&(last, _))) = (next.first(), next.last()) else {
            return Ok(RunReport::default());
        };
        let context = self.graph.cache_shape[2];
        for row in &mut self.rows[first..=last] {
            // One that nobody asks for needs a place to write to.
            row.cut(context - 1);
        }
        let mut ids = vec![0; last + 1 - first];
        for &(row, id) in next {
            ids[row - first] = id;
        }
        self.bind(first..last + 1, 1, 1)?;
        self.write(&ids)?;
        let report = CancelFlag::run_for(cancels, &mut self.session);
        let report = self.watch(report)?;
        for &(row, id) in next {
            self.rows[row].tokens.push(id);
        }
        Ok(report)
    }

    fn watch<T>(&mut self, result: Result<T, PipelineError>) -> Result<T, PipelineError> {
        self.is_lost |= matches!(result, Err(PipelineError::Run(RunError::DeviceLost { .. })));
        result
    }

    fn bind(
        &mut self,
        rows: Range<usize>,
        length: usize,
        kept: usize,
    ) -> Result<(), PipelineError> {
        let is_same =
            |bound: &Bound| bound.rows == rows && bound.length == length && bound.kept == kept;
        if self.bound.as_ref().is_some_and(is_same) {
            return Ok(());
        }
        let before = self.bound.take().map(|bound| bound.rows);
        if self.rows.len() > 1 && before.as_ref() != Some(&rows) {
            for number in 0..self.graph.caches.len() {
                self.session.narrow(number, rows.clone())?;
            }
        }
        let (session, memory) = (&mut self.session, &self.memory);
        let count = rows.len();
        let ids = memory.ids.reshaped(&[count, length])?;
        session.bind_input(self.graph.input_ids.index, &ids)?;
        let mut positions = None;
        if let Some(port) = self.graph.position_ids {
            let view = memory.positions.reshaped(&[count, length])?;
            session.bind_input(port.index, &view)?;
            positions = Some(view);
        }
        let mut seqlens_k = None;
        if let (Some(port), Some(tensor)) = (self.graph.seqlens_k, &memory.seqlens_k) {
            let view = tensor.reshaped(&[count][..port.rank])?;
            session.bind_input(port.index, &view)?;
            seqlens_k = Some(view);
        }
        if let Some(tensor) = &memory.num_logits {
            write_counts(tensor, [kept as i64])?;
        }
        let is_asked = memory.num_logits.is_some();
        let logits = match is_asked || length == 1 || self.graph.logits_last_only {
            true => Some(memory.logits.reshaped(&[count, kept, self.vocab])?),
            false => None,
        };
        let target = match &logits {
            Some(logits) => OutputTarget::Into(logits.clone()),
            None => OutputTarget::Allocate,
        };
        session.bind_output(self.graph.logits, target)?;
        self.bound = Some(Bound {
            rows,
            length,
            ids,
            positions,
            seqlens_k,
            kept,
            logits,
        });
        Ok(())
    }

    /// Writes what the run over the bound rows is to compute: `ids`, row by row.
    fn write(&mut self, ids: &[u32]) -> Result<(), PipelineError> {
        let Some(bound) = &self.bound else {
            return Ok(());
        };
        let past = self.rows[bound.rows.clone()]
            .iter()
            .map(|row| row.tokens.len());
        let length = bound.length;
        write_counts(&bound.ids, ids.iter().map(|&id| i64::from(id)))?;
        if let Some(positions) = &bound.positions {
            let positions_of = |past: usize| past as i64..(past + length) as i64;
            write_counts(positions, past.clone().flat_map(positions_of))?;
        }
        if let Some(seqlens_k) = &bound.seqlens_k {
            write_counts(
                seqlens_k,
                past.clone().map(|past| (past + length) as i64 - 1),
            )?;
        }
        let total = past.clone().max().unwrap_or(0) + length;
        if let Some(tensor) = &self.memory.total {
            write_counts(tensor, [total as i64])?;
        }
        if let (Some(port), Some(mask)) = (self.graph.attention_mask, &self.memory.mask) {
            let view = mask.reshaped(&[bound.rows.len(), total])?;
            let ones = |past: usize| (0..total).map(move |at| i64::from(at < past + length));
            write_counts(&view, past.flat_map(ones))?;
            self.session.bind_input(port.index, &view)?;
        }
        Ok(())
    }

    /// Copies the logits after one of the tokens computed for `row`: `back` ones before the last.
    pub fn logits(
        &self,
        row: usize,
        back: usize,
        values: &mut Vec<f32>,
    ) -> Result<(), PipelineError> {
        let Some(bound) = &self.bound else {
            return Err(PipelineError::graph("logits", "come from no run"));
        };
        let all = match &bound.logits {
            Some(logits) => logits.clone(),
            None => self.session.output(self.graph.logits)?,
        };
        let positions = match *all.shape() {
            [rows, positions, vocab]
                if rows == bound.rows.len() && positions > back && vocab == self.vocab =>
            {
                positions
            }
            _ => {
                let why = format!("came out as {:?}", all.shape());
                return Err(PipelineError::graph("logits", why));
            }
        };
        let at = (row - bound.rows.start) * positions + positions - 1 - back;
        let offset = all.offset() + at * self.vocab * all.dtype().bytes();
        let last = Tensor::new(all.dtype(), &[self.vocab], all.buffer().clone(), offset)?;
        values.resize(self.vocab, 0.0);
        match last.dtype() {
            DType::F16 => widen(&last.read::<f16>()?, f16::to_f32, values),
            DType::Bf16 => widen(&last.read::<bf16>()?, bf16::to_f32, values),
            _ => last.read_into(values)?,
        }
        Ok(())
    }

    /// Has row `to` hold the first `count` tokens of row `from`. Both are in host memory, as all rows
    /// are of a bank that has several.
    pub fn copy(&mut self, from: usize, to: usize, count: usize) -> Result<(), PipelineError> {
        for number in 0..self.graph.caches.len() {
            for (source, target) in self.parts(number, from).zip(self.parts(number, to)) {
                let Some(memory) = self.session.memory(number) else {
                    continue;
                };
                let bytes = count * self.token_bytes_in_head();
                let copied = memory
                    .buffer()
                    .copy_within(source.start, target.start, bytes);
                copied.map_err(TensorError::from)?;
            }
        }
        let held = &self.rows[from];
        let (tokens, exact) = (held.tokens[..count].to_vec(), held.exact_tokens.min(count));
        let row = &mut self.rows[to];
        row.tokens = tokens;
        row.exact_tokens = exact;
        row.prompt_logits.clear();
        Ok(())
    }

    /// Empties a row and gives its memory back to the system.
    pub fn clear(&mut self, row: usize) {
        self.let_go(row, 0);
        self.rows[row] = Row::default();
    }

    /// Forgets what comes after the first `count` tokens of a row, and gives their memory back to the
    /// system.
    pub fn let_go(&mut self, row: usize, count: usize) {
        if self.rows[row].tokens.len() <= count {
            return;
        }
        self.rows[row].cut(count);
        let kept_bytes = count * self.token_bytes_in_head();
        for number in 0..self.graph.caches.len() {
            let Some(memory) = self.session.memory(number) else {
                continue;
            };
            for part in self.parts(number, row) {
                let discarded = memory
                    .buffer()
                    .discard(part.start + kept_bytes, part.len() - kept_bytes);
                if let Err(error) = discarded {
                    log::warn!("memory of a cache stays: {error}");
                }
            }
        }
    }

    /// Where each head's part of a row lies in its buffer, in bytes.
    fn parts(&self, number: usize, row: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let [_, heads, context, _] = self.graph.cache_shape;
        let part_bytes = context * self.token_bytes_in_head();
        let base = self.session.memory(number).map_or(0, Tensor::offset);
        (0..heads).map(move |head| {
            let start = base + (row * heads + head) * part_bytes;
            start..start + part_bytes
        })
    }

    fn token_bytes_in_head(&self) -> usize {
        self.graph.cache_shape[3] * self.graph.cache_dtype.bytes()
    }
}

impl Row {
    /// Forgets what comes after the first `count` tokens.
    pub fn cut(&mut self, count: usize) {
        self.tokens.truncate(count);
        self.exact_tokens = self.exact_tokens.min(count);
        if self.prompt_tokens > count {
            self.prompt_logits.clear();
        }
    }
}

impl Memory {
    fn new(graph: &TextGraph, rows: usize, vocab: usize) -> Result<Self, PipelineError> {
        let tokens = rows.max(PREFILL_CHUNK_TOKENS);
        let logits = match graph.num_logits_to_keep {
            Some(_) => rows.max(1 + DRAFT_TOKENS_MAX),
            None => rows,
        };
        let of = |port: Option<Port>, elements: usize| {
            let tensor = port.map(|port| match port.rank {
                0 => Tensor::zeroed(port.dtype, &[]),
                _ => Tensor::zeroed(port.dtype, &[elements]),
            });
            tensor.transpose()
        };
        let positions_dtype = graph.position_ids.map_or(DType::I64, |port| port.dtype);
        Ok(Self {
            ids: Tensor::zeroed(graph.input_ids.dtype, &[tokens])?,
            positions: Tensor::zeroed(positions_dtype, &[tokens])?,
            mask: of(graph.attention_mask, rows * graph.cache_shape[2])?,
            seqlens_k: of(graph.seqlens_k, rows)?,
            total: of(graph.total_sequence_length, 1)?,
            num_logits: of(graph.num_logits_to_keep, 1)?,
            logits: Tensor::zeroed(graph.logits_dtype, &[logits, vocab])?,
        })
    }
}

fn widen<T: Copy>(from: &[T], widen: fn(T) -> f32, to: &mut [f32]) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = widen(from);
    }
}

/// Writes counts to an i32 or i64 tensor. None of them exceeds a context's length or a
/// vocabulary's, so none is cut.
fn write_counts(tensor: &Tensor, counts: impl IntoIterator<Item = i64>) -> Result<(), RunError> {
    let counts = counts.into_iter();
    if tensor.dtype() == DType::I32 {
        tensor.write(&counts.map(|count| count as i32).collect::<Vec<i32>>())?;
    } else {
        tensor.write(&counts.collect::<Vec<i64>>())?;
    }
    Ok(())
}
