//! One session of a text model with its cache: computes tokens where the cache ends.

use super::graph::{Port, TextGraph};
use crate::PipelineError;
use crate::cancel::CancelFlag;
use half::{bf16, f16};
use mote_api::{
    Carry, DType, Model, OutputTarget, RunError, RunReport, Session, StatePlace, StateSpec,
    Stateful, Tensor,
};
use std::sync::Arc;

/// Prompt tokens computed in one step at most.
pub const PREFILL_CHUNK_TOKENS: usize = 128;

/// A session with everything bound: key and value caches once and for all, where the model computes;
/// the rest anew only when the number of tokens per run changes. Between tokens only values change.
pub(crate) struct Lane {
    session: Stateful,
    graph: Arc<TextGraph>,
    vocab: usize,
    /// Memory for the tokens and positions of a chunk.
    ids: Tensor,
    positions: Tensor,
    /// As many ones as the context has tokens.
    mask: Option<Tensor>,
    seqlens_k: Option<Tensor>,
    total: Option<Tensor>,
    logits: Tensor,
    bound: Option<Bound>,
}

/// Views that are bound for runs of `ids.elements()` tokens.
struct Bound {
    ids: Tensor,
    positions: Option<Tensor>,
    /// Whether logits go to [`Lane::logits`]; otherwise the library allocates them.
    logits_in_place: bool,
}

impl Lane {
    /// A session with an empty cache. In host memory its pages appear as tokens fill it; a device's is
    /// taken whole.
    pub fn new(
        model: &dyn Model,
        graph: &Arc<TextGraph>,
        vocab: usize,
    ) -> Result<Self, PipelineError> {
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
        let one = |port: Port| Tensor::zeroed(port.dtype, &[1usize; 1][..port.rank]);
        let seqlens_k = graph.seqlens_k.map(one).transpose()?;
        let total = graph.total_sequence_length.map(one).transpose()?;
        for (port, tensor) in [
            (graph.seqlens_k, &seqlens_k),
            (graph.total_sequence_length, &total),
        ] {
            if let (Some(port), Some(tensor)) = (port, tensor) {
                session.bind_input(port.index, tensor)?;
            }
        }
        if let Some(port) = graph.num_logits_to_keep {
            let kept = one(port)?;
            write_counts(&kept, [1])?;
            session.bind_input(port.index, &kept)?;
        }
        let chunk = [1, PREFILL_CHUNK_TOKENS];
        let positions_dtype = graph.position_ids.map_or(DType::I64, |port| port.dtype);
        Ok(Self {
            session,
            vocab,
            ids: Tensor::zeroed(graph.input_ids.dtype, &chunk)?,
            positions: Tensor::zeroed(positions_dtype, &chunk)?,
            mask: graph
                .attention_mask
                .map(|port| ones(port.dtype, graph.cache_shape[2]))
                .transpose()?,
            seqlens_k,
            total,
            logits: Tensor::zeroed(graph.logits_dtype, &[1, 1, vocab])?,
            bound: None,
            graph: Arc::clone(graph),
        })
    }

    /// The session, to be cancelled.
    pub fn session(&self) -> &dyn Session {
        &self.session
    }

    /// Where the caches lie, each place once.
    pub fn cache_places(&mut self) -> Result<Vec<StatePlace>, PipelineError> {
        Ok(self.session.places()?)
    }

    /// Computes `ids` behind the `past` tokens in the cache. After an error the cache holds those
    /// `past` tokens still, since new ones are only ever written behind them.
    pub fn compute(
        &mut self,
        cancel: &CancelFlag,
        past: usize,
        ids: &[u32],
    ) -> Result<RunReport, PipelineError> {
        let total = past + ids.len();
        self.bind(ids.len())?;
        if let (Some(port), Some(mask)) = (self.graph.attention_mask, &self.mask) {
            let view = mask.reshaped(&[1, total])?;
            self.session.bind_input(port.index, &view)?;
        }
        if let Some(bound) = &self.bound {
            write_counts(&bound.ids, ids.iter().map(|&id| i64::from(id)))?;
            if let Some(positions) = &bound.positions {
                write_counts(positions, past as i64..total as i64)?;
            }
        }
        if let Some(seqlens_k) = &self.seqlens_k {
            write_counts(seqlens_k, [total as i64 - 1])?;
        }
        if let Some(tensor) = &self.total {
            write_counts(tensor, [total as i64])?;
        }
        cancel.run(&mut self.session)
    }

    fn bind(&mut self, length: usize) -> Result<(), PipelineError> {
        let same = |bound: &Bound| bound.ids.elements() == length;
        if self.bound.as_ref().is_some_and(same) {
            return Ok(());
        }
        self.bound = None;
        let ids = self.ids.reshaped(&[1, length])?;
        self.session.bind_input(self.graph.input_ids.index, &ids)?;
        let mut positions = None;
        if let Some(port) = self.graph.position_ids {
            let view = self.positions.reshaped(&[1, length])?;
            self.session.bind_input(port.index, &view)?;
            positions = Some(view);
        }
        let logits_in_place = length == 1 || self.graph.logits_last_only;
        let target = if logits_in_place {
            OutputTarget::Into(self.logits.clone())
        } else {
            OutputTarget::Allocate
        };
        self.session.bind_output(self.graph.logits, target)?;
        self.bound = Some(Bound {
            ids,
            positions,
            logits_in_place,
        });
        Ok(())
    }

    /// Copies the logits of the last token computed.
    pub fn logits(&self, values: &mut Vec<f32>) -> Result<(), PipelineError> {
        let in_place = self.bound.as_ref().is_some_and(|b| b.logits_in_place);
        let all = if in_place {
            self.logits.clone()
        } else {
            self.session.output(self.graph.logits)?
        };
        let row_bytes = self.vocab * all.dtype().bytes();
        let rows = match *all.shape() {
            [1, rows, vocab] if rows > 0 && vocab == self.vocab => rows,
            _ => {
                let why = format!("came out as {:?}", all.shape());
                return Err(PipelineError::graph("logits", why));
            }
        };
        let offset = all.offset() + (rows - 1) * row_bytes;
        let last = Tensor::new(all.dtype(), &[self.vocab], all.buffer().clone(), offset)?;
        values.resize(self.vocab, 0.0);
        match last.dtype() {
            DType::F16 => widen(&last.read::<f16>()?, f16::to_f32, values),
            DType::Bf16 => widen(&last.read::<bf16>()?, bf16::to_f32, values),
            _ => last.read_into(values)?,
        }
        Ok(())
    }
}

fn widen<T: Copy>(from: &[T], widen: fn(T) -> f32, to: &mut [f32]) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = widen(from);
    }
}

fn ones(dtype: DType, count: usize) -> Result<Tensor, RunError> {
    let tensor = Tensor::zeroed(dtype, &[1, count])?;
    write_counts(&tensor, std::iter::repeat_n(1, count))?;
    Ok(tensor)
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
