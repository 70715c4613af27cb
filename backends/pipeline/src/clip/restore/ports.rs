//! Where a restorer's tensors lie in its model.

use crate::PipelineError;
use mote_api::{Carry, DType, FrameLayout, RestorationSpec, Signature, StateSpec, TensorSpec};

const CHANNELS: usize = 3;

/// Positions in the model's signature, and what it is fixed to.
pub(super) struct Ports {
    pub frames: usize,
    pub output: usize,
    /// Input and output of each state.
    pub states: Vec<(usize, usize)>,
    /// Which state is the output, too.
    pub output_state: Option<usize>,
    /// Height and width that the model is fixed to.
    pub fixed: [Option<usize>; 2],
}

impl Ports {
    pub fn find(signature: &Signature, spec: &RestorationSpec) -> Result<Self, PipelineError> {
        let found = |name: &String, position: Option<usize>| {
            position
                .ok_or_else(|| PipelineError::graph(name, "is named by the manifest and missing"))
        };
        let frames = found(&spec.frames, signature.input(&spec.frames))?;
        let output = found(&spec.output, signature.output(&spec.output))?;
        let states: Vec<(usize, usize)> = spec
            .state
            .iter()
            .map(|state| {
                let input = found(&state.input, signature.input(&state.input))?;
                Ok((
                    input,
                    found(&state.output, signature.output(&state.output))?,
                ))
            })
            .collect::<Result<_, PipelineError>>()?;
        for (index, input) in signature.inputs.iter().enumerate() {
            let feeds = states.iter().filter(|state| state.0 == index).count();
            if feeds + usize::from(index == frames) != 1 {
                let why = "is an input that the manifest names not at all, or twice";
                return Err(PipelineError::graph(&input.name, why));
            }
        }
        let shape = &signature.inputs[frames].shape;
        let ports = Self {
            frames,
            output,
            output_state: states.iter().position(|state| state.1 == output),
            states,
            fixed: [2, 1].map(|back| shape.len().checked_sub(back).and_then(|at| shape[at])),
        };
        ports.check(signature, spec)?;
        Ok(ports)
    }

    fn check(&self, signature: &Signature, spec: &RestorationSpec) -> Result<(), PipelineError> {
        if let Some(side) = self
            .fixed
            .iter()
            .flatten()
            .find(|&side| side % spec.pad_multiple != 0)
        {
            let why = format!("has a side of {side}, no multiple of {}", spec.pad_multiple);
            return Err(PipelineError::graph(&spec.frames, why));
        }
        // What is open takes any size; this one shows what does not fit at all.
        let [height, width] = self.fixed.map(|side| side.unwrap_or(spec.pad_multiple));
        let given = input_shape(spec, height, width);
        check_fits(&signature.inputs[self.frames], &given)?;
        check_fits(
            &signature.outputs[self.output],
            &output_shape(spec, height, width),
        )?;
        for (state, &(input, output)) in spec.state.iter().zip(&self.states) {
            let shape = state.shape(width, height);
            check_fits(&signature.inputs[input], &shape)?;
            check_fits(&signature.outputs[output], &shape)?;
        }
        Ok(())
    }

    /// The states of one tile.
    pub fn state_specs(
        &self,
        spec: &RestorationSpec,
        [height, width]: [usize; 2],
    ) -> Vec<StateSpec> {
        let states = spec.state.iter().zip(&self.states);
        states
            .map(|(state, &(input, output))| StateSpec {
                input,
                dtype: DType::F32,
                shape: state.shape(width, height).to_vec(),
                carry: Carry::Alternating { output },
            })
            .collect()
    }
}

/// Shape of the input for tiles of this size.
pub(crate) fn input_shape(spec: &RestorationSpec, height: usize, width: usize) -> Vec<usize> {
    match spec.layout {
        FrameLayout::Channels => vec![1, CHANNELS * spec.frames_in(), height, width],
        FrameLayout::Sequence => vec![1, spec.frames_in(), CHANNELS, height, width],
    }
}

/// Shape of the output for tiles of this size.
pub(super) fn output_shape(spec: &RestorationSpec, height: usize, width: usize) -> Vec<usize> {
    let [height, width] = [height, width].map(|side| side * spec.scale);
    match (spec.layout, spec.frames_out()) {
        (FrameLayout::Sequence, frames) if frames > 1 => {
            vec![1, frames, CHANNELS, height, width]
        }
        (_, frames) => vec![1, CHANNELS * frames, height, width],
    }
}

fn check_fits(spec: &TensorSpec, shape: &[usize]) -> Result<(), PipelineError> {
    if spec.accepts(DType::F32, shape) {
        return Ok(());
    }
    let (dtype, have) = (spec.dtype, &spec.shape);
    let why = format!("is {dtype} {have:?}, not f32 like {shape:?} as the manifest says");
    Err(PipelineError::graph(&spec.name, why))
}
