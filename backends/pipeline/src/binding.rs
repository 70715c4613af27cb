//! Matches named tensors with a model's inputs and outputs.

use crate::{NamedTarget, NamedTensor, PipelineError};
use mote_api::{Access, DType, OutputTarget, Session, Signature, Tensor, TensorSpec};

/// Names listed in a message at most.
const NAMES_LISTED_MAX: usize = 16;

/// Checked tensors of one run.
#[derive(Clone, Debug)]
pub(crate) struct Binding {
    /// Input positions with their tensors.
    pub inputs: Vec<(usize, Tensor)>,
    /// Output positions with their targets, one for each output of the signature; `None` where the
    /// job gave none.
    pub outputs: Vec<(usize, Option<Tensor>)>,
}

/// Whether two handles mean the same bytes, read the same way.
pub(crate) fn is_same(a: &Tensor, b: &Tensor) -> bool {
    a.as_ptr() == b.as_ptr() && a.dtype() == b.dtype() && a.shape() == b.shape()
}

impl Binding {
    /// Checks names, element types, shapes and memory.
    pub fn new(
        signature: &Signature,
        inputs: &[NamedTensor],
        outputs: &[NamedTarget],
    ) -> Result<Self, PipelineError> {
        let mut bound: Vec<Option<Tensor>> = vec![None; signature.inputs.len()];
        for input in inputs {
            let field = input_field(&input.name);
            let position = place(&field, "input", &signature.inputs, &input.name)?;
            let spec = &signature.inputs[position];
            check_type(&field, spec, input.tensor.dtype(), input.tensor.shape())?;
            if bound[position].replace(input.tensor.clone()).is_some() {
                return Err(twice(&field));
            }
        }
        if let Some(position) = bound.iter().position(Option::is_none) {
            let field = input_field(&signature.inputs[position].name);
            return Err(PipelineError::invalid(field, "is missing"));
        }
        let targets = check_targets(signature, inputs, outputs)?;
        Ok(Self {
            inputs: bound.into_iter().flatten().enumerate().collect(),
            outputs: targets.into_iter().enumerate().collect(),
        })
    }
}

/// An untouched private tensor in an input's shape, to be bound instead of memory that may be a
/// client's, so that a session which lives on keeps nothing of it mapped.
pub(crate) fn stand_in(spec: &TensorSpec) -> Result<Tensor, PipelineError> {
    let shape: Vec<usize> = spec.shape.iter().map(|dim| dim.unwrap_or(1)).collect();
    Ok(Tensor::zeroed(spec.dtype, &shape)?)
}

/// Memory for an output that the job gave none for: none when the library is to find out how much.
pub(crate) fn own_memory(spec: &TensorSpec) -> Result<Option<Tensor>, PipelineError> {
    let fixed: Option<Vec<usize>> = spec.shape.iter().copied().collect();
    let tensor = fixed.map(|shape| Tensor::zeroed(spec.dtype, &shape));
    Ok(tensor.transpose()?)
}

/// Where an output goes: into memory, or else wherever the library puts it.
pub(crate) fn target(memory: Option<Tensor>) -> OutputTarget {
    memory.map_or(OutputTarget::Allocate, OutputTarget::Into)
}

/// Binds stand-ins to all inputs, and lets go of the memory of outputs.
pub(crate) fn unbind<'a>(
    session: &mut dyn Session,
    inputs: impl Iterator<Item = (usize, &'a Tensor)>,
    outputs: impl Iterator<Item = usize>,
) -> Result<(), PipelineError> {
    for (index, stand_in) in inputs {
        session.bind_input(index, stand_in)?;
    }
    for index in outputs {
        session.bind_output(index, OutputTarget::Allocate)?;
    }
    Ok(())
}

fn check_targets(
    signature: &Signature,
    inputs: &[NamedTensor],
    outputs: &[NamedTarget],
) -> Result<Vec<Option<Tensor>>, PipelineError> {
    let mut targets: Vec<Option<Tensor>> = vec![None; signature.outputs.len()];
    for (index, target) in outputs.iter().enumerate() {
        let field = output_field(&target.name);
        let position = place(&field, "output", &signature.outputs, &target.name)?;
        let (spec, tensor) = (&signature.outputs[position], &target.tensor);
        check_type(&field, spec, tensor.dtype(), tensor.shape())?;
        if tensor.buffer().access() == Access::ReadOnly {
            let why = "lies in read-only memory";
            return Err(PipelineError::invalid(format!("{field}.range"), why));
        }
        let input = inputs.iter().find(|i| overlap(tensor, &i.tensor));
        if let Some(input) = input {
            let why = format!("overlaps {}", input_field(&input.name));
            return Err(PipelineError::invalid(format!("{field}.range"), why));
        }
        if targets[position].replace(tensor.clone()).is_some() {
            return Err(twice(&field));
        }
        let mut before = outputs[..index].iter();
        if let Some(other) = before.find(|o| overlap(tensor, &o.tensor)) {
            let why = format!("overlaps {}", output_field(&other.name));
            return Err(PipelineError::invalid(format!("{field}.range"), why));
        }
    }
    Ok(targets)
}

fn place(
    field: &str,
    kind: &str,
    specs: &[TensorSpec],
    name: &str,
) -> Result<usize, PipelineError> {
    if let Some(position) = specs.iter().position(|spec| spec.name == name) {
        return Ok(position);
    }
    let listed = specs.iter().take(NAMES_LISTED_MAX);
    let names: Vec<&str> = listed.map(|spec| spec.name.as_str()).collect();
    let more = if specs.len() > names.len() {
        ", …"
    } else {
        ""
    };
    let why = format!(
        "is no {kind} of the model, which has {}{more}",
        names.join(", ")
    );
    Err(PipelineError::invalid(format!("{field}.name"), why))
}

fn check_type(
    field: &str,
    spec: &TensorSpec,
    dtype: DType,
    shape: &[usize],
) -> Result<(), PipelineError> {
    if dtype != spec.dtype {
        let why = format!("is {dtype}, not {}", spec.dtype);
        return Err(PipelineError::invalid(format!("{field}.dtype"), why));
    }
    if !spec.accepts(dtype, shape) {
        let want: Vec<String> = spec
            .shape
            .iter()
            .map(|dim| dim.map_or("?".to_owned(), |d| d.to_string()))
            .collect();
        let why = format!("is {shape:?}, not [{}]", want.join(", "));
        return Err(PipelineError::invalid(format!("{field}.shape"), why));
    }
    Ok(())
}

fn twice(field: &str) -> PipelineError {
    PipelineError::invalid(format!("{field}.name"), "is there twice")
}

fn input_field(name: &str) -> String {
    format!("inputs[{name}]")
}

fn output_field(name: &str) -> String {
    format!("outputs[{name}]")
}

fn overlap(a: &Tensor, b: &Tensor) -> bool {
    let range = |tensor: &Tensor| {
        let start = tensor.as_ptr().addr();
        (start, start + tensor.bytes())
    };
    let ((a_start, a_end), (b_start, b_end)) = (range(a), range(b));
    a_start.max(b_start) < a_end.min(b_end)
}
