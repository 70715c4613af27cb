//! One graph of a pipeline, running: typed inputs from plain numbers, and a cancel that holds for
//! whichever graph computes.

use crate::PipelineError;
use half::{bf16, f16};
use mote_api::{
    Cancel, Canceller, DType, Model, OutputTarget, RunError, RunReport, Session, Tensor,
    TensorError, TensorSpec,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How often a run is begun anew because a cancel that came late for another graph hit it.
const STALE_CANCELS_MAX: usize = 8;

/// Element types that numbers are converted to and from.
pub(super) const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::Bf16];
/// Element types that counts are converted to.
pub(super) const INTEGERS: [DType; 3] = [DType::I64, DType::I32, DType::Bool];

/// Whether the run in progress, or else the next step, is to end early. Taken by the step that ends.
#[derive(Clone, Default)]
pub(super) struct Flag(Arc<AtomicBool>);

impl Flag {
    /// Whether it was set; it is not any more.
    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}

/// Sets the flag, and stops all graphs: only one computes, and the others begin anew.
struct FlagAndSessions {
    flag: Flag,
    sessions: Vec<Canceller>,
}

impl Cancel for FlagAndSessions {
    fn cancel(&self) {
        self.flag.0.store(true, Ordering::Release);
        self.sessions.iter().for_each(Canceller::cancel);
    }
}

/// What stops a job of these graphs.
pub(super) fn canceller<'a>(flag: &Flag, runners: impl Iterator<Item = &'a Runner>) -> Canceller {
    Canceller::new(FlagAndSessions {
        flag: flag.clone(),
        sessions: runners.map(|runner| runner.session.canceller()).collect(),
    })
}

/// A session on one graph.
pub(super) struct Runner {
    model: Arc<dyn Model>,
    session: Box<dyn Session>,
    /// What inputs are bound to.
    inputs: Vec<Option<Tensor>>,
    /// Shapes of the memory that outputs are bound to.
    outputs: Vec<Option<Vec<usize>>>,
}

impl Runner {
    pub fn new(model: &Arc<dyn Model>) -> Result<Self, PipelineError> {
        Ok(Self {
            model: Arc::clone(model),
            session: model.session()?,
            inputs: vec![None; model.signature().inputs.len()],
            outputs: vec![None; model.signature().outputs.len()],
        })
    }

    /// Gives an input numbers, converted to its element type.
    ///
    /// # Errors
    /// When the model fixes another shape.
    pub fn set(
        &mut self,
        index: usize,
        shape: &[usize],
        values: &[f32],
    ) -> Result<(), PipelineError> {
        let tensor = self.tensor(index, shape)?;
        match tensor.dtype() {
            DType::F32 => tensor.write(values)?,
            DType::F16 => tensor.write(&converted(values, f16::from_f32))?,
            DType::Bf16 => tensor.write(&converted(values, bf16::from_f32))?,
            DType::I32 => tensor.write(&converted(values, |v| v.round() as i32))?,
            _ => tensor.write(&converted(values, |v| v.round() as i64))?,
        }
        Ok(())
    }

    /// Gives an input counts, likewise.
    ///
    /// # Errors
    /// When the model fixes another shape.
    pub fn set_integers(
        &mut self,
        index: usize,
        shape: &[usize],
        values: &[i64],
    ) -> Result<(), PipelineError> {
        let tensor = self.tensor(index, shape)?;
        match tensor.dtype() {
            DType::I64 => tensor.write(values)?,
            DType::Bool => {
                let bytes: Vec<u8> = values.iter().map(|&value| u8::from(value != 0)).collect();
                tensor.write_bytes(&bytes)?;
            }
            // Tokens and masks are below 2^31.
            DType::I32 => tensor.write(&converted(values, |v| v as i32))?,
            _ => {
                let values = converted(values, |v| v as f32);
                return self.set(index, shape, &values);
            }
        }
        Ok(())
    }

    /// Gives an input what another graph made, where it lies; converted, where the element type differs.
    ///
    /// # Errors
    /// When the model fixes another shape.
    pub fn pass(&mut self, index: usize, made: &Tensor) -> Result<(), PipelineError> {
        if made.dtype() != self.model.signature().inputs[index].dtype {
            return self.set(index, made.shape(), &floats(made)?);
        }
        self.session.bind_input(index, made)?;
        // It is another's memory: nothing is to be written there.
        self.inputs[index] = None;
        Ok(())
    }

    /// Memory of this shape that the input is bound to.
    fn tensor(&mut self, index: usize, shape: &[usize]) -> Result<Tensor, PipelineError> {
        let bound = self.inputs[index].as_ref();
        if let Some(tensor) = bound.filter(|tensor| tensor.shape() == shape) {
            return Ok(tensor.clone());
        }
        let dtype = self.model.signature().inputs[index].dtype;
        let tensor = Tensor::zeroed(dtype, shape)?;
        self.session.bind_input(index, &tensor)?;
        self.inputs[index] = Some(tensor.clone());
        Ok(tensor)
    }

    /// Computes.
    ///
    /// # Errors
    /// [`PipelineError::Cancelled`] when `flag` was set, or what failed.
    pub fn run(&mut self, flag: &Flag) -> Result<RunReport, PipelineError> {
        for _ in 0..STALE_CANCELS_MAX {
            if flag.take() {
                return Err(PipelineError::Cancelled);
            }
            match self.session.run() {
                Err(RunError::Cancelled) => {}
                other => return Ok(other?),
            }
        }
        Err(PipelineError::Cancelled)
    }

    /// Has runs write output `index` to memory of this shape, so that it need not be copied there. They
    /// write to the same memory until another shape is expected.
    ///
    /// # Errors
    /// When the model fixes another shape.
    pub fn expect(&mut self, index: usize, shape: &[usize]) -> Result<(), PipelineError> {
        if self.outputs[index].as_deref() == Some(shape) {
            return Ok(());
        }
        let tensor = Tensor::zeroed(self.model.signature().outputs[index].dtype, shape)?;
        self.session
            .bind_output(index, OutputTarget::Into(tensor))?;
        self.outputs[index] = Some(shape.to_vec());
        Ok(())
    }

    /// Likewise, to memory of its own: what the last run wrote may be read further.
    ///
    /// # Errors
    /// When the model fixes another shape.
    pub fn expect_anew(&mut self, index: usize, shape: &[usize]) -> Result<(), PipelineError> {
        self.outputs[index] = None;
        self.expect(index, shape)
    }

    /// The numbers of output `index` of the last run, and its shape.
    ///
    /// # Errors
    /// When its shape is not `shape`, where that is given.
    pub fn output(
        &self,
        index: usize,
        shape: &[Option<usize>],
    ) -> Result<(Vec<f32>, Vec<usize>), PipelineError> {
        let tensor = self.output_tensor(index, shape)?;
        Ok((floats(&tensor)?, tensor.shape().to_vec()))
    }

    /// Output `index` of the last run, as [`Self::output`], where it lies.
    ///
    /// # Errors
    /// Likewise.
    pub fn output_tensor(
        &self,
        index: usize,
        shape: &[Option<usize>],
    ) -> Result<Tensor, PipelineError> {
        let tensor = self.session.output(index)?;
        let have = tensor.shape();
        let fits = have.len() == shape.len()
            && have
                .iter()
                .zip(shape)
                .all(|(have, want)| want.is_none_or(|want| want == *have));
        if !fits {
            let name = &self.model.signature().outputs[index].name;
            let why = format!("came out as {have:?}, not {}", shape_text(shape));
            return Err(PipelineError::graph(name, why));
        }
        Ok(tensor)
    }
}

/// The numbers of a tensor of one of [`FLOATS`] or [`INTEGERS`].
pub(super) fn floats(tensor: &Tensor) -> Result<Vec<f32>, TensorError> {
    Ok(match tensor.dtype() {
        // Masks.
        DType::I64 => converted(&tensor.read::<i64>()?, |v| v as f32),
        DType::I32 => converted(&tensor.read::<i32>()?, |v| v as f32),
        DType::F16 => converted(&tensor.read()?, f16::to_f32),
        DType::Bf16 => converted(&tensor.read()?, bf16::to_f32),
        _ => tensor.read()?,
    })
}

fn converted<From: Copy, To>(values: &[From], convert: impl Fn(From) -> To) -> Vec<To> {
    values.iter().map(|&value| convert(value)).collect()
}

/// A shape as a person reads it, `?` for what is open.
pub(super) fn shape_text(shape: &[Option<usize>]) -> String {
    let dims: Vec<String> = shape
        .iter()
        .map(|dim| dim.map_or("?".into(), |dim| dim.to_string()))
        .collect();
    format!("[{}]", dims.join(", "))
}

/// That a tensor's type and rank are among these.
///
/// # Errors
/// Names the tensor.
pub(super) fn expect(
    part: &str,
    spec: &TensorSpec,
    dtypes: &[&[DType]],
    ranks: &[usize],
) -> Result<(), PipelineError> {
    let dtype_fits = dtypes.iter().any(|some| some.contains(&spec.dtype));
    if dtype_fits && ranks.contains(&spec.shape.len()) {
        return Ok(());
    }
    let why = format!(
        "of {part} is {} {}, not numbers of rank {ranks:?} that can be fed",
        spec.dtype,
        shape_text(&spec.shape)
    );
    Err(PipelineError::graph(&spec.name, why))
}
