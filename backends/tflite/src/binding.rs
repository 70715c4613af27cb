//! What is bound to a session, and where it may lie: the same for all engines.

use mote_api::{
    Access, BufferOrigin, DType, OutputTarget, RunError, Signature, Tensor, TensorSpec,
};

/// Bound inputs, targets of outputs, and the results of the last run.
pub(crate) struct Bindings {
    inputs: Vec<Option<Tensor>>,
    pub targets: Vec<OutputTarget>,
    pub results: Vec<Option<Tensor>>,
}

impl Bindings {
    /// Nothing bound.
    pub fn new(signature: &Signature) -> Self {
        let outputs = signature.outputs.len();
        Self {
            inputs: vec![None; signature.inputs.len()],
            targets: vec![OutputTarget::Allocate; outputs],
            results: vec![None; outputs],
        }
    }

    /// Binds an input that fits.
    pub fn bind_input(
        &mut self,
        signature: &Signature,
        index: usize,
        tensor: &Tensor,
    ) -> Result<(), RunError> {
        let spec = signature.inputs.get(index);
        let spec = spec.ok_or(RunError::NoSuchTensor { index })?;
        if !spec.accepts(tensor.dtype(), tensor.shape()) {
            return Err(RunError::input(spec, tensor.dtype(), tensor.shape()));
        }
        self.inputs[index] = Some(tensor.clone());
        Ok(())
    }

    /// Binds an output to writable memory that fits, or to none.
    pub fn bind_output(
        &mut self,
        signature: &Signature,
        index: usize,
        target: OutputTarget,
    ) -> Result<(), RunError> {
        let spec = signature.outputs.get(index);
        let spec = spec.ok_or(RunError::NoSuchTensor { index })?;
        if let OutputTarget::Into(tensor) = &target {
            let refuse = |why: String| {
                let name = spec.name.clone();
                Err(RunError::Output { name, why })
            };
            if !spec.accepts(tensor.dtype(), tensor.shape()) {
                let (dtype, shape) = (tensor.dtype(), tensor.shape());
                return refuse(format!("cannot go into {dtype} {shape:?}"));
            }
            if tensor.buffer().access() == Access::ReadOnly {
                return refuse("is bound to read-only memory".into());
            }
        }
        self.targets[index] = target;
        self.results[index] = None;
        Ok(())
    }

    /// All inputs; an error names the first that is not bound.
    pub fn all_inputs(&self, signature: &Signature) -> Result<Vec<Tensor>, RunError> {
        let specs = signature.inputs.iter();
        self.inputs
            .iter()
            .zip(specs)
            .map(|(bound, spec)| {
                bound.clone().ok_or_else(|| RunError::InputMissing {
                    name: spec.name.clone(),
                })
            })
            .collect()
    }

    /// Where output `index` of this shape goes: memory that is bound, or new one.
    pub fn target(
        &self,
        index: usize,
        spec: &TensorSpec,
        shape: &[usize],
    ) -> Result<Tensor, RunError> {
        match &self.targets[index] {
            OutputTarget::Into(tensor) if tensor.shape() == shape => Ok(tensor.clone()),
            OutputTarget::Into(tensor) => Err(RunError::Output {
                name: spec.name.clone(),
                why: format!("is {shape:?}, bound to {:?}", tensor.shape()),
            }),
            OutputTarget::Allocate => Ok(Tensor::zeroed(spec.dtype, shape)?),
        }
    }

    /// The result of the last run.
    pub fn output(&self, signature: &Signature, index: usize) -> Result<Tensor, RunError> {
        let result = self.results.get(index);
        let result = result.ok_or(RunError::NoSuchTensor { index })?;
        result.clone().ok_or_else(|| RunError::Output {
            name: signature.outputs[index].name.clone(),
            why: "nothing has run yet".into(),
        })
    }
}

/// Whether kernels may read this input where it lies; `foreign` ones are a vendor's.
pub(crate) fn may_lie_in(input: &Tensor, foreign: bool) -> bool {
    let buffer = input.buffer();
    let shared = buffer.origin() == BufferOrigin::Shared;
    let trusted = match input.dtype() {
        // Only 0 and 1 are truth values; copying makes them so.
        DType::Bool => false,
        dtype => !(shared && dtype.may_index()),
    };
    // The library's own kernels never write inputs; a vendor's may.
    trusted && (buffer.access() == Access::ReadWrite || !foreign)
}

pub(crate) fn overlap(a: &Tensor, b: &Tensor) -> bool {
    let range = |tensor: &Tensor| {
        let start = tensor.as_ptr().addr();
        (start, start + tensor.bytes())
    };
    let ((a_start, a_end), (b_start, b_end)) = (range(a), range(b));
    a_start < b_end && b_start < a_end
}

pub(crate) fn same_memory(a: &Tensor, b: &Tensor) -> bool {
    a.as_ptr() == b.as_ptr() && a.bytes() == b.bytes()
}
