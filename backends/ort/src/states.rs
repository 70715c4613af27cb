//! State that a session keeps in memory of the device.

use crate::engine::Engine;
use crate::failure::backend_error;
use crate::mover::Mover;
use crate::session::{OrtSession, accepts};
use crate::sys::{DeviceValue, RawValue, ValueRef};
use mote_api::{DeviceStates, RunError, StatePlace, StateSpec, Tensor};
use std::sync::Arc;

/// One state, with the tensors that hold it.
pub(crate) struct State {
    spec: StateSpec,
    /// What the next run reads comes first, what it writes last; in place they are one.
    values: Vec<DeviceValue>,
    device: String,
    /// How it is copied where the library does not.
    mover: Option<Arc<Mover>>,
}

impl State {
    pub(crate) fn read_by_next_run(&self) -> ValueRef<'_> {
        self.values[0].view()
    }

    pub(crate) fn written_by_next_run(&self) -> ValueRef<'_> {
        self.values[self.values.len() - 1].view()
    }

    /// What a run wrote is what the next one reads.
    pub(crate) fn advance(&mut self) {
        self.values.rotate_left(1);
    }

    fn bytes(&self) -> u64 {
        self.spec.bytes().unwrap_or(u64::MAX)
    }

    /// Bytes of what one run finds.
    fn one_bytes(&self) -> u64 {
        self.bytes() / self.values.len() as u64
    }
}

/// Which of `states` an input or output belongs to.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) inputs: Vec<Option<usize>>,
    pub(crate) outputs: Vec<Option<usize>>,
}

impl Taken {
    pub(crate) fn none(inputs: usize, outputs: usize) -> Self {
        Self {
            inputs: vec![None; inputs],
            outputs: vec![None; outputs],
        }
    }
}

impl OrtSession {
    fn state(&self, index: usize) -> Result<&State, RunError> {
        let state = self.states.get(index);
        state.ok_or(RunError::NoSuchTensor { index })
    }

    fn check_free(&self, spec: &StateSpec) -> Result<(), RunError> {
        let is_taken = |taken: &[Option<usize>], index: usize| match taken.get(index) {
            Some(by) => Ok(by.is_some()),
            None => Err(RunError::NoSuchTensor { index }),
        };
        let output = spec.carry.output();
        let output = output.map(|output| is_taken(&self.taken.outputs, output));
        if is_taken(&self.taken.inputs, spec.input)? || output.transpose()?.unwrap_or(false) {
            return Err(self.refuse(spec, "is kept already".into()));
        }
        Ok(())
    }

    fn check_shape(&self, spec: &StateSpec) -> Result<(), RunError> {
        let interface = &self.model.interface;
        let input = &interface.signature.inputs[spec.input];
        let mut ends = vec![(input, interface.any_rank.0[spec.input])];
        if let Some(output) = spec.carry.output() {
            let made = &interface.signature.outputs[output];
            ends.push((made, interface.any_rank.1[output]));
        }
        for (of, any_rank) in ends {
            if !accepts(of, any_rank, spec.dtype, &spec.shape) {
                let (dtype, shape) = (spec.dtype, &spec.shape);
                let why = format!("does not fit {:?} as {dtype} {shape:?}", of.name);
                return Err(self.refuse(spec, why));
            }
        }
        Ok(())
    }

    fn refuse(&self, spec: &StateSpec, why: String) -> RunError {
        let name = self.model.interface.signature.inputs[spec.input]
            .name
            .clone();
        RunError::State { name, why }
    }

    /// The device memory that a state is wanted in, where both its ends are wanted in the same.
    fn device_of(&self, engine: &Engine, spec: &StateSpec) -> Option<String> {
        let places = &engine.places;
        let wanted = places.inputs.get(spec.input)?.as_ref()?;
        if let Some(output) = spec.carry.output() {
            let made = places.outputs.get(output)?.as_ref()?;
            if made != wanted || self.model.interface.passed_through[output] {
                return None;
            }
        }
        Some(wanted.name.clone())
    }

    /// A state with memory on the device, zero; `None` when nothing fills it.
    fn make(&self, spec: &StateSpec, device: String) -> Result<Option<State>, RunError> {
        self.check_shape(spec)?;
        let engine = self.model.engine();
        let value = |_| {
            let value = engine.device_value(spec.input, spec.dtype, &spec.shape);
            value.map_err(|error| RunError::DeviceMemory {
                name: self.model.interface.signature.inputs[spec.input]
                    .name
                    .clone(),
                device: device.clone(),
                bytes: Tensor::bytes_of(spec.dtype, &spec.shape).map_or(u64::MAX, |b| b as u64),
                cause: backend_error("allocate on the device", &error),
            })
        };
        let values: Result<Vec<_>, _> = (0..spec.carry.tensors()).map(value).collect();
        let mut state = State {
            spec: spec.clone(),
            values: values?,
            device,
            mover: None,
        };
        Ok(self.start(&engine, &mut state)?.then_some(state))
    }

    fn host_value(&self, tensor: &Tensor) -> Result<RawValue, RunError> {
        RawValue::over(tensor, &self.model.memory)
            .map_err(|error| RunError::Compute(backend_error("bind a tensor", &error)))
    }

    /// Zeroes a new state. Answers whether it can be filled at all.
    fn start(&self, engine: &Engine, state: &mut State) -> Result<bool, RunError> {
        let zeros = Tensor::zeroed(state.spec.dtype, &state.spec.shape)?;
        let zeros = self.host_value(&zeros)?;
        let to = state.read_by_next_run();
        let Err(refused) = engine.copy(&self.model.environment, zeros.view(), to) else {
            return Ok(true);
        };
        match self.model.mover(state.spec.dtype, &state.spec.shape) {
            Ok(mover) => {
                mover.copy(zeros.view(), to)?;
                state.mover = Some(mover);
                Ok(true)
            }
            Err(error) => {
                let device = &state.device;
                log::warn!(
                    "state stays on the host, as nothing fills {device}: {refused}: {error}"
                );
                Ok(false)
            }
        }
    }

    fn copy_state(
        &self,
        state: &State,
        from: ValueRef<'_>,
        to: ValueRef<'_>,
    ) -> Result<(), RunError> {
        if let Some(mover) = &state.mover {
            return mover.copy(from, to);
        }
        let engine = self.model.engine();
        engine
            .copy(&self.model.environment, from, to)
            .map_err(|error| RunError::Compute(backend_error("copy from or to the device", &error)))
    }

    fn check_tensor(&self, state: &State, tensor: &Tensor) -> Result<(), RunError> {
        let spec = &state.spec;
        if tensor.dtype() == spec.dtype && tensor.shape() == spec.shape {
            return Ok(());
        }
        let (dtype, shape) = (tensor.dtype(), tensor.shape());
        let why = format!("is {} {:?}, not {dtype} {shape:?}", spec.dtype, spec.shape);
        Err(self.refuse(spec, why))
    }
}

impl DeviceStates for OrtSession {
    fn keep(&mut self, spec: &StateSpec) -> Result<Option<usize>, RunError> {
        self.check_free(spec)?;
        let Some(device) = self.device_of(&self.model.engine(), spec) else {
            return Ok(None);
        };
        let Some(state) = self.make(spec, device)? else {
            return Ok(None);
        };
        self.copied_bytes += state.one_bytes();
        let number = self.states.len();
        self.let_go(spec.input, spec.carry.output());
        self.taken.inputs[spec.input] = Some(number);
        if let Some(output) = spec.carry.output() {
            self.taken.outputs[output] = Some(number);
        }
        self.states.push(state);
        Ok(Some(number))
    }

    fn reshape(&mut self, state: usize, shape: &[usize]) -> Result<(), RunError> {
        let old = self.state(state)?;
        let spec = StateSpec {
            shape: shape.to_vec(),
            ..old.spec.clone()
        };
        let made = self.make(&spec, old.device.clone())?;
        let made = made.ok_or_else(|| self.refuse(&spec, "cannot be filled".into()))?;
        self.copied_bytes += made.one_bytes();
        self.states[state] = made;
        Ok(())
    }

    fn exchange(&mut self, one: usize, other: usize) -> Result<(), RunError> {
        let (first, second) = (self.state(one)?, self.state(other)?);
        let is_like = first.device == second.device
            && first.spec.dtype == second.spec.dtype
            && first.spec.shape == second.spec.shape;
        if !is_like {
            return Err(self.refuse(&first.spec, "is not like the other".into()));
        }
        if one != other {
            let (low, high) = (one.min(other), one.max(other));
            let (lower, higher) = self.states.split_at_mut(high);
            std::mem::swap(&mut lower[low].values[0], &mut higher[0].values[0]);
        }
        Ok(())
    }

    fn place(&self, state: usize) -> Result<StatePlace, RunError> {
        let state = self.state(state)?;
        Ok(StatePlace {
            device: Some(state.device.clone()),
            bytes: state.bytes(),
        })
    }

    fn clear(&mut self, state: usize) -> Result<(), RunError> {
        let spec = &self.state(state)?.spec;
        let zeros = Tensor::zeroed(spec.dtype, &spec.shape)?;
        self.write(state, &zeros)
    }

    fn read(&mut self, state: usize, into: &Tensor) -> Result<(), RunError> {
        let state = self.state(state)?;
        self.check_tensor(state, into)?;
        let host = self.host_value(into)?;
        self.copy_state(state, state.read_by_next_run(), host.view())?;
        self.copied_bytes += into.bytes() as u64;
        Ok(())
    }

    fn write(&mut self, state: usize, from: &Tensor) -> Result<(), RunError> {
        let state = self.state(state)?;
        self.check_tensor(state, from)?;
        let host = self.host_value(from)?;
        self.copy_state(state, host.view(), state.read_by_next_run())?;
        self.copied_bytes += from.bytes() as u64;
        Ok(())
    }
}
