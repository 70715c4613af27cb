//! State that a session keeps in memory of the device.

use crate::engine::Engine;
use crate::failure::backend_error;
use crate::mover::Mover;
use crate::session::{OrtSession, accepts};
use crate::sys::{DeviceValue, RawValue, ValueRef};
use mote_api::{Carry, DeviceStates, RunError, StatePlace, StateSpec, Tensor};
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

    fn check_state(&self, spec: &StateSpec) -> Result<(), RunError> {
        let interface = &self.model.interface;
        let (inputs, outputs) = (&interface.signature.inputs, &interface.signature.outputs);
        let (input, output) = (spec.input, spec.output);
        let index = input;
        let wanted = inputs.get(input).ok_or(RunError::NoSuchTensor { index })?;
        let index = output;
        let made = outputs
            .get(output)
            .ok_or(RunError::NoSuchTensor { index })?;
        let refuse = |why: String| {
            let name = wanted.name.clone();
            Err(RunError::State { name, why })
        };
        if self.taken.inputs[input].is_some() || self.taken.outputs[output].is_some() {
            return refuse("is kept already".into());
        }
        for (of, any_rank) in [
            (wanted, interface.any_rank.0[input]),
            (made, interface.any_rank.1[output]),
        ] {
            if !accepts(of, any_rank, spec.dtype, &spec.shape) {
                let (dtype, shape) = (spec.dtype, &spec.shape);
                return refuse(format!("does not fit {:?} as {dtype} {shape:?}", of.name));
            }
        }
        Ok(())
    }

    /// Memory on the device for a state, where that is what the model wants on both sides.
    fn device_values(
        &self,
        engine: &Engine,
        spec: &StateSpec,
    ) -> Result<Option<(String, Vec<DeviceValue>)>, RunError> {
        let place = |places: &[Option<_>], at: usize| places.get(at).cloned().flatten();
        let wanted = place(&engine.places.inputs, spec.input);
        let made = place(&engine.places.outputs, spec.output);
        let passed_through = self.model.interface.passed_through[spec.output];
        let Some(wanted) = wanted.filter(|wanted| made.as_ref() == Some(wanted) && !passed_through)
        else {
            return Ok(None);
        };
        let count = match spec.carry {
            Carry::InPlace => 1,
            Carry::Alternating => 2,
        };
        let make = |_| {
            let value = engine.device_value(spec.input, spec.dtype, &spec.shape);
            value.map_err(|error| RunError::DeviceMemory {
                name: self.model.interface.signature.inputs[spec.input]
                    .name
                    .clone(),
                device: wanted.name.clone(),
                bytes: Tensor::bytes_of(spec.dtype, &spec.shape).map_or(u64::MAX, |b| b as u64),
                cause: backend_error("allocate on the device", &error),
            })
        };
        let values: Result<Vec<_>, _> = (0..count).map(make).collect();
        Ok(Some((wanted.name.clone(), values?)))
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
        Err(RunError::State {
            name: self.model.interface.signature.inputs[spec.input]
                .name
                .clone(),
            why: format!("is {} {:?}, not {dtype} {shape:?}", spec.dtype, spec.shape),
        })
    }
}

impl DeviceStates for OrtSession {
    fn keep(&mut self, spec: &StateSpec) -> Result<Option<usize>, RunError> {
        self.check_state(spec)?;
        let engine = self.model.engine();
        let Some((device, values)) = self.device_values(&engine, spec)? else {
            return Ok(None);
        };
        let mut state = State {
            spec: spec.clone(),
            values,
            device,
            mover: None,
        };
        if !self.start(&engine, &mut state)? {
            return Ok(None);
        }
        self.copied_bytes += Tensor::bytes_of(spec.dtype, &spec.shape)? as u64;
        let number = self.states.len();
        self.let_go(spec.input, spec.output);
        self.taken.inputs[spec.input] = Some(number);
        self.taken.outputs[spec.output] = Some(number);
        self.states.push(state);
        Ok(Some(number))
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
