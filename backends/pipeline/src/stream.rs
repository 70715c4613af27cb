//! Stateful streams: a model run again and again, with state that stays inside.

use crate::binding::{Binding, is_same, own_memory, stand_in, target, unbind};
use crate::frames::{FramePorts, check_apart};
use crate::{FrameSource, FrameTarget, NamedTarget, NamedTensor, PipelineError, TensorResult};
use half::{bf16, f16};
use mote_api::{
    Canceller, Carry, ConstantInput, DType, InputHint, Model, OutputHint, RunReport, Session,
    Signature, StatePlace, StateSpec, Stateful, StreamSpec, Tensor, TensorSpec,
};
use std::sync::Arc;

/// Prepared pushes a stream keeps at most.
pub const PREPARED_MAX: usize = 64;
/// Of these, pushes that were not prepared by the caller: as many as a ring of buffers has.
const RECENT_MAX: usize = 8;

/// A prepared push of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PushId(u64);

/// A model over the life of one stream.
///
/// State tensors start at zero, stay where the model computes, and never leave. State that the runtime
/// itself keeps lives in the session. A push that fails or is cancelled leaves state tensors as they
/// were before it.
pub struct StreamSession {
    model: Arc<dyn Model>,
    session: Stateful,
    /// What clients see, and where that lies in the model.
    signature: Signature,
    inputs: Vec<usize>,
    outputs: Vec<usize>,
    constants: Vec<(usize, Tensor)>,
    states: Vec<StateSpec>,
    prepared: Vec<Prepared>,
    prepared_count: u64,
    /// The push whose tensors are bound.
    bound: Option<PushId>,
    /// The prepared pushes that [`StreamSession::push`] uses again while their tensors stay the same, the
    /// one that was used last at the end.
    recent: Vec<PushId>,
    /// Memory of outputs that pushes gave none for.
    own: Vec<Option<Tensor>>,
    frames: FramePorts,
}

/// One step with frames.
#[derive(Clone, Copy, Debug, Default)]
pub struct FramesPush<'a> {
    /// Inputs that are tensors.
    pub inputs: &'a [NamedTensor],
    /// Outputs with memory for their tensors.
    pub outputs: &'a [NamedTarget],
    /// Inputs that are frames.
    pub frames: &'a [FrameSource],
    /// Outputs that are written as frames.
    pub frame_outputs: &'a [FrameTarget],
}

/// What a step with frames gave.
#[derive(Clone, Debug)]
pub struct FramesResult {
    /// Outputs in the model's order, but those that were written as frames.
    pub outputs: Vec<NamedTensor>,
    /// Times and copies of the run.
    pub report: RunReport,
    /// Bytes that frames became, and those of frames that outputs became; 0 for those that were bound
    /// themselves.
    pub bytes_converted: u64,
}

struct Prepared {
    id: PushId,
    binding: Binding,
    /// What the binding was made from.
    inputs: Vec<NamedTensor>,
    outputs: Vec<NamedTarget>,
}

impl StreamSession {
    /// A new stream: state tensors zero, constants in place.
    ///
    /// # Errors
    /// [`PipelineError::Graph`] when `spec` does not fit the model.
    pub fn open(model: &Arc<dyn Model>, spec: Option<&StreamSpec>) -> Result<Self, PipelineError> {
        let all = model.signature();
        let (mut states, mut constants) = (Vec::new(), Vec::new());
        for state in spec.map_or(&[][..], |spec| &spec.state) {
            let input = find(&state.input, all.input(&state.input))?;
            let output = find(&state.output, all.output(&state.output))?;
            let dtype = all.inputs[input].dtype;
            for spec in [&all.inputs[input], &all.outputs[output]] {
                check_fits(spec, dtype, &state.shape)?;
            }
            states.push(StateSpec {
                input,
                dtype,
                shape: state.shape.clone(),
                carry: Carry::Alternating { output },
            });
        }
        for constant in spec.map_or(&[][..], |spec| &spec.constant) {
            let input = find(&constant.input, all.input(&constant.input))?;
            check_fits(&all.inputs[input], constant.dtype, &constant.shape)?;
            constants.push((input, constant_tensor(constant)?));
        }
        let taken_input =
            |i: usize| states.iter().any(|s| s.input == i) || constants.iter().any(|c| c.0 == i);
        let taken_output = |i: usize| states.iter().any(|s| s.carry.output() == Some(i));
        let inputs: Vec<usize> = (0..all.inputs.len()).filter(|&i| !taken_input(i)).collect();
        let outputs: Vec<usize> = (0..all.outputs.len())
            .filter(|&i| !taken_output(i))
            .collect();
        Ok(Self {
            session: start(model, &states, &constants)?,
            signature: Signature {
                inputs: inputs.iter().map(|&i| all.inputs[i].clone()).collect(),
                outputs: outputs.iter().map(|&i| all.outputs[i].clone()).collect(),
            },
            model: Arc::clone(model),
            inputs,
            outputs,
            constants,
            states,
            prepared: Vec::new(),
            prepared_count: 0,
            bound: None,
            recent: Vec::new(),
            own: Vec::new(),
            frames: FramePorts::new(&[], &[]),
        })
    }

    /// How pictures become inputs, and outputs pictures, as the manifest says.
    pub fn with_pictures(mut self, inputs: &[InputHint], outputs: &[OutputHint]) -> Self {
        self.frames = FramePorts::new(inputs, outputs);
        self
    }

    /// Inputs and outputs of one push: those of the model without state and constants.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// One step of the stream. Nothing is checked or bound anew while the same names come with
    /// the same memory in the same order. An output without a target may be overwritten by the
    /// next push.
    ///
    /// # Errors
    /// [`PipelineError::Invalid`] with the field's path; otherwise what failed.
    pub fn push(
        &mut self,
        inputs: &[NamedTensor],
        outputs: &[NamedTarget],
    ) -> Result<TensorResult, PipelineError> {
        let id = self.prepared_as(inputs, outputs)?;
        let report = self.push_prepared(id)?;
        let all = 0..self.signature.outputs.len();
        Ok(TensorResult {
            outputs: self.named_outputs(all)?,
            report,
        })
    }

    /// One step of the stream with frames. All is checked before anything is computed; a frame whose bytes
    /// are what the input holds is bound itself.
    ///
    /// # Errors
    /// [`PipelineError::Invalid`] with the field's path (`frames[NAME].planes[1].stride`, …); otherwise what
    /// failed. When an output of open size turns out to be of another size than its frame, the step was taken
    /// and the frame is as it was.
    pub fn push_frames(&mut self, push: &FramesPush<'_>) -> Result<FramesResult, PipelineError> {
        let Self {
            frames, signature, ..
        } = self;
        let sources = push.frames.iter();
        let sources = sources.map(|source| frames.source(signature, source));
        let sources = sources.collect::<Result<Vec<_>, _>>()?;
        let targets = push.frame_outputs.iter();
        let targets = targets.map(|target| frames.target(signature, target));
        let targets = targets.collect::<Result<Vec<_>, _>>()?;
        check_apart((&sources, &targets), (push.inputs, push.outputs))?;
        let mut inputs = push.inputs.to_vec();
        inputs.extend(sources.iter().map(|source| source.input()));
        let mut outputs = push.outputs.to_vec();
        outputs.extend(targets.iter().filter_map(|target| target.output()));
        if self.frames.take_outgrown() {
            self.forget_recent();
        }
        let id = self.prepared_as(&inputs, &outputs)?;
        let mut bytes_converted = 0;
        for source in &sources {
            bytes_converted += self.frames.read(source)?;
        }
        let report = self.push_prepared(id)?;
        for target in &targets {
            let output = self.output(target.index)?;
            bytes_converted += self.frames.write(target, &output)?;
        }
        let all = 0..self.signature.outputs.len();
        let tensors = all.filter(|&index| targets.iter().all(|target| target.index != index));
        Ok(FramesResult {
            outputs: self.named_outputs(tensors)?,
            report,
            bytes_converted,
        })
    }

    fn named_outputs(
        &self,
        indices: impl Iterator<Item = usize>,
    ) -> Result<Vec<NamedTensor>, PipelineError> {
        let named = |index: usize| {
            Ok(NamedTensor {
                name: self.signature.outputs[index].name.clone(),
                tensor: self.output(index)?,
            })
        };
        indices.map(named).collect()
    }

    /// The prepared push of these tensors: a recent one, or a new one in place of the one that was not used
    /// for the longest time.
    fn prepared_as(
        &mut self,
        inputs: &[NamedTensor],
        outputs: &[NamedTarget],
    ) -> Result<PushId, PipelineError> {
        let mut recent = self.recent.iter();
        if let Some(at) = recent.rposition(|&id| self.is_prepared_as(id, inputs, outputs)) {
            let id = self.recent.remove(at);
            self.recent.push(id);
            return Ok(id);
        }
        if self.recent.len() >= RECENT_MAX {
            // What takes its place is bound next, so its memory need not be let go here.
            let oldest = self.recent.remove(0);
            self.prepared.retain(|prepared| prepared.id != oldest);
        }
        let id = self.prepare(inputs, outputs)?;
        self.recent.push(id);
        Ok(id)
    }

    fn is_prepared_as(&self, id: PushId, inputs: &[NamedTensor], outputs: &[NamedTarget]) -> bool {
        self.find_prepared(id).is_some_and(|prepared| {
            let have = &prepared.inputs;
            have.len() == inputs.len()
                && prepared.outputs.len() == outputs.len()
                && have
                    .iter()
                    .zip(inputs)
                    .all(|(a, b)| is_same(&a.tensor, &b.tensor) && a.name == b.name)
                && prepared
                    .outputs
                    .iter()
                    .zip(outputs)
                    .all(|(a, b)| is_same(&a.tensor, &b.tensor) && a.name == b.name)
        })
    }

    /// Checks and remembers the tensors of a push, so that [`Self::push_prepared`] has nothing
    /// left to check, and nothing to bind when it is called with the same id again. The memory
    /// stays referenced until [`Self::forget`].
    ///
    /// # Errors
    /// [`PipelineError::Invalid`] with the field's path, also when [`PREPARED_MAX`] are prepared.
    pub fn prepare(
        &mut self,
        inputs: &[NamedTensor],
        outputs: &[NamedTarget],
    ) -> Result<PushId, PipelineError> {
        if self.prepared.len() >= PREPARED_MAX && !self.recent.is_empty() {
            // Those that the caller asked for come first.
            let oldest = self.recent.remove(0);
            self.prepared.retain(|prepared| prepared.id != oldest);
        }
        if self.prepared.len() >= PREPARED_MAX {
            let why = format!("{PREPARED_MAX} pushes are prepared already");
            return Err(PipelineError::invalid("inputs", why));
        }
        let mut binding = Binding::new(&self.signature, inputs, outputs)?;
        for (index, _) in &mut binding.inputs {
            *index = self.inputs[*index];
        }
        for (index, memory) in &mut binding.outputs {
            if memory.is_none() {
                *memory = self.own_memory(*index)?;
            }
            *index = self.outputs[*index];
        }
        let id = PushId(self.prepared_count);
        self.prepared_count += 1;
        self.prepared.push(Prepared {
            id,
            binding,
            inputs: inputs.to_vec(),
            outputs: outputs.to_vec(),
        });
        Ok(id)
    }

    /// Memory for an output that a push gave none for: the same for all, as the next push may overwrite it.
    fn own_memory(&mut self, index: usize) -> Result<Option<Tensor>, PipelineError> {
        self.own.resize(self.signature.outputs.len(), None);
        if self.own[index].is_none() {
            self.own[index] = own_memory(&self.signature.outputs[index])?;
        }
        Ok(self.own[index].clone())
    }

    /// Forgets a prepared push and lets go of its memory.
    pub fn forget(&mut self, id: PushId) {
        self.prepared.retain(|prepared| prepared.id != id);
        self.recent.retain(|&recent| recent != id);
        if self.bound == Some(id) {
            self.unbind();
        }
    }

    /// Forgets all pushes and lets go of their memory, as when a client's buffer goes away.
    pub fn forget_all(&mut self) {
        self.prepared.clear();
        self.recent.clear();
        self.unbind();
    }

    /// Forgets pushes that were not prepared by the caller. What is bound stays until the next push.
    fn forget_recent(&mut self) {
        let recent = std::mem::take(&mut self.recent);
        self.prepared
            .retain(|prepared| !recent.contains(&prepared.id));
    }

    fn unbind(&mut self) {
        self.bound = None;
        let stand_ins: Result<Vec<_>, _> = self.signature.inputs.iter().map(stand_in).collect();
        let unbound = stand_ins.and_then(|stand_ins| {
            let inputs = self.inputs.iter().copied().zip(&stand_ins);
            unbind(&mut self.session, inputs, self.outputs.iter().copied())
        });
        if let Err(error) = unbound {
            // It stays until the next push or the stream's end.
            log::debug!("a stream keeps its memory bound: {error}");
        }
    }

    /// One step of the stream with prepared tensors.
    ///
    /// # Errors
    /// As [`Self::push`]; [`PipelineError::Invalid`] for an id that is not prepared.
    pub fn push_prepared(&mut self, id: PushId) -> Result<RunReport, PipelineError> {
        if self.bound != Some(id) {
            self.bind(id)?;
        }
        Ok(self.session.run()?)
    }

    fn bind(&mut self, id: PushId) -> Result<(), PipelineError> {
        self.bound = None;
        let Some(position) = self.prepared.iter().position(|p| p.id == id) else {
            return Err(PipelineError::invalid("push", "is not prepared"));
        };
        let binding = &self.prepared[position].binding;
        for (index, tensor) in &binding.inputs {
            self.session.bind_input(*index, tensor)?;
        }
        for (index, memory) in &binding.outputs {
            self.session.bind_output(*index, target(memory.clone()))?;
        }
        self.bound = Some(id);
        Ok(())
    }

    fn find_prepared(&self, id: PushId) -> Option<&Prepared> {
        self.prepared.iter().find(|prepared| prepared.id == id)
    }

    /// Output `index` (position in [`Self::signature`]) of the last push.
    ///
    /// # Errors
    /// Before the first push.
    pub fn output(&self, index: usize) -> Result<Tensor, PipelineError> {
        match self.outputs.get(index) {
            Some(&index) => Ok(self.session.output(index)?),
            None => Err(mote_api::RunError::NoSuchTensor { index }.into()),
        }
    }

    /// Puts the state back to its start: as if the stream were new, with its prepared pushes.
    /// Cancellers from before are without effect from then on.
    ///
    /// # Errors
    /// When the model gives no new session; the stream is then as it was.
    pub fn reset(&mut self) -> Result<(), PipelineError> {
        self.session = start(&self.model, &self.states, &self.constants)?;
        self.bound = None;
        Ok(())
    }

    /// Where state tensors and constants lie, each place once.
    ///
    /// # Errors
    /// When the session does not know.
    pub fn state_places(&mut self) -> Result<Vec<StatePlace>, PipelineError> {
        Ok(self.session.places()?)
    }

    /// Stops the push in progress, or else the next one, from another thread.
    pub fn canceller(&self) -> Canceller {
        self.session.canceller()
    }
}

/// A session with state at zero, and with constants.
fn start(
    model: &Arc<dyn Model>,
    states: &[StateSpec],
    constants: &[(usize, Tensor)],
) -> Result<Stateful, PipelineError> {
    let mut session = Stateful::new(model.session()?);
    for state in states {
        session.keep(state.clone())?;
    }
    for (input, tensor) in constants {
        let number = session.keep(StateSpec {
            input: *input,
            dtype: tensor.dtype(),
            shape: tensor.shape().to_vec(),
            carry: Carry::Held,
        })?;
        session.write(number, tensor)?;
    }
    Ok(session)
}

fn find(name: &str, position: Option<usize>) -> Result<usize, PipelineError> {
    position.ok_or_else(|| PipelineError::graph(name, "is named by the manifest and missing"))
}

fn check_fits(spec: &TensorSpec, dtype: DType, shape: &[usize]) -> Result<(), PipelineError> {
    if spec.accepts(dtype, shape) {
        return Ok(());
    }
    let why = format!(
        "is {} {:?}, not {dtype} {shape:?} as the manifest says",
        spec.dtype, spec.shape
    );
    Err(PipelineError::graph(&spec.name, why))
}

pub(crate) fn constant_tensor(constant: &ConstantInput) -> Result<Tensor, PipelineError> {
    let tensor = Tensor::zeroed(constant.dtype, &constant.shape)?;
    let values = &constant.values;
    if values.len() != tensor.elements() {
        let why = format!("has {} values for {:?}", values.len(), constant.shape);
        return Err(PipelineError::graph(&constant.input, why));
    }
    macro_rules! whole {
        ($type:ty) => {{
            let convert = |&value: &f64| {
                let converted = value as $type;
                (converted as f64 == value).then_some(converted)
            };
            let converted: Option<Vec<$type>> = values.iter().map(convert).collect();
            let why = concat!("has a value that is no ", stringify!($type));
            let refuse = || PipelineError::graph(&constant.input, why);
            tensor.write(&converted.ok_or_else(refuse)?)?
        }};
    }
    macro_rules! float {
        ($convert:expr) => {
            tensor.write(&values.iter().map(|&v| $convert(v)).collect::<Vec<_>>())?
        };
    }
    match constant.dtype {
        DType::F32 => float!(|v| v as f32),
        DType::F64 => float!(|v: f64| v),
        DType::F16 => float!(f16::from_f64),
        DType::Bf16 => float!(bf16::from_f64),
        DType::I8 => whole!(i8),
        DType::U8 => whole!(u8),
        DType::I16 => whole!(i16),
        DType::U16 => whole!(u16),
        DType::I32 => whole!(i32),
        DType::U32 => whole!(u32),
        DType::I64 => whole!(i64),
        DType::U64 => whole!(u64),
        DType::Bool => {
            let bytes: Vec<u8> = values.iter().map(|&v| u8::from(v != 0.0)).collect();
            tensor.write_bytes(&bytes)?;
        }
    }
    Ok(tensor)
}
