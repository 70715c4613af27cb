//! State: tensors of a model that stay where it computes, from run to run.

use crate::backend::{Canceller, OutputTarget, RunReport, Session};
use crate::error::RunError;
use crate::tensor::{DType, Element, Tensor, TensorError};
use std::ops::Range;

/// States of one session at most: keys and values of 512 layers.
pub const STATES_MAX: usize = 1024;

/// How what one run leaves becomes what the next one finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carry {
    /// Input and output are the same memory, as `GroupQueryAttention` wants past and present. A run
    /// that fails may have written to it.
    InPlace {
        /// Position of the output that a run leaves it at.
        output: usize,
    },
    /// A run reads one memory and writes another, and the next run the other way round. A run that
    /// fails or is cancelled leaves the state as it was before it.
    Alternating {
        /// Position of the output that a run leaves it at.
        output: usize,
    },
    /// Runs read it and leave it as it is.
    Held,
}

impl Carry {
    /// Position of the output that belongs to it.
    pub fn output(self) -> Option<usize> {
        match self {
            Self::InPlace { output } | Self::Alternating { output } => Some(output),
            Self::Held => None,
        }
    }

    /// How many tensors hold it.
    pub fn tensors(self) -> usize {
        match self {
            Self::InPlace { .. } | Self::Held => 1,
            Self::Alternating { .. } => 2,
        }
    }
}

/// A tensor that a session keeps from run to run; zero at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateSpec {
    /// Position of the input that a run finds it at.
    pub input: usize,
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// How it goes on.
    pub carry: Carry,
}

impl StateSpec {
    /// Bytes of all memory that it takes.
    ///
    /// # Errors
    /// When the shape overflows.
    pub fn bytes(&self) -> Result<u64, TensorError> {
        let one = Tensor::bytes_of(self.dtype, &self.shape)? as u64;
        Ok(one * self.carry.tensors() as u64)
    }

    /// Whether a state of one can be exchanged for that of the other.
    fn is_like(&self, other: &Self) -> bool {
        self.dtype == other.dtype
            && self.shape == other.shape
            && self.carry.tensors() == other.carry.tensors()
    }
}

/// Where a state lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatePlace {
    /// The device's memory by the name that the library has for it; `None` for the host's.
    pub device: Option<String>,
    /// Bytes of all memory that the state takes there.
    pub bytes: u64,
}

/// What a session can do with state in memory that only its device reaches. States are numbered from
/// 0 in the order in which they were kept. Use [`Stateful`], which also knows what to do when a
/// session cannot.
pub trait DeviceStates {
    /// Keeps a state on the device from now on; `None` when the model wants this tensor in memory
    /// that the host reaches too, or when the device's cannot be filled.
    ///
    /// # Errors
    /// [`RunError::DeviceMemory`] when the device has no room; [`RunError::State`] when input or
    /// output do not fit or are taken.
    fn keep(&mut self, state: &StateSpec) -> Result<Option<usize>, RunError>;

    /// Gives a state another shape, and makes it zero.
    ///
    /// # Errors
    /// As [`Self::keep`]; the state is then as it was.
    fn reshape(&mut self, state: usize, shape: &[usize]) -> Result<(), RunError>;

    /// Exchanges what the next run finds at two states of one type and shape.
    ///
    /// # Errors
    /// [`RunError::State`] when they are not alike or in different memory.
    fn exchange(&mut self, one: usize, other: usize) -> Result<(), RunError>;

    /// Where a state lies.
    ///
    /// # Errors
    /// [`RunError::NoSuchTensor`] when there is no such state.
    fn place(&self, state: usize) -> Result<StatePlace, RunError>;

    /// Makes what the next run finds zero.
    ///
    /// # Errors
    /// When the device fails, or there is no such state.
    fn clear(&mut self, state: usize) -> Result<(), RunError>;

    /// Copies what the next run finds to `into`, of the state's type and shape.
    ///
    /// # Errors
    /// As [`Self::clear`]; [`RunError::State`] when type or shape do not fit.
    fn read(&mut self, state: usize, into: &Tensor) -> Result<(), RunError>;

    /// Copies `from`, of the state's type and shape, to what the next run finds.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn write(&mut self, state: usize, from: &Tensor) -> Result<(), RunError>;
}

/// A session with state: on the device where the session can keep it there, else in host memory that
/// is bound like any other.
pub struct Stateful {
    session: Box<dyn Session>,
    states: Vec<Kept>,
}

struct Kept {
    spec: StateSpec,
    home: Home,
}

enum Home {
    /// The session's own, by its number.
    Device(usize),
    /// What the next run reads and what it writes; both the same but for alternating state.
    Host([Tensor; 2]),
}

impl Stateful {
    /// A session without state so far.
    pub fn new(session: Box<dyn Session>) -> Self {
        Self {
            session,
            states: Vec::new(),
        }
    }

    /// Keeps a state from now on, zero at first, and answers its number: they count from 0. Its input
    /// and its output, if any, are not to be bound by anybody else.
    ///
    /// # Errors
    /// When type or shape do not fit the model, there are [`STATES_MAX`] states, the device
    /// ([`RunError::DeviceMemory`]) or the host has no memory, or the library fails.
    pub fn keep(&mut self, spec: StateSpec) -> Result<usize, RunError> {
        let number = self.states.len();
        if number >= STATES_MAX {
            return Err(RunError::State {
                name: format!("number {number}"),
                why: format!("a session keeps {STATES_MAX} at most"),
            });
        }
        let on_device = match self.session.device_states() {
            Some(device) => device.keep(&spec)?,
            None => None,
        };
        let home = match on_device {
            Some(state) => Home::Device(state),
            None => Home::Host(host_memory(&spec)?),
        };
        if let Home::Host(memory) = &home {
            bind(self.session.as_mut(), &spec, memory)?;
        }
        self.states.push(Kept { spec, home });
        Ok(number)
    }

    /// Gives state `number` another shape, and makes it zero.
    ///
    /// # Errors
    /// As [`Self::keep`]; the state is then as it was.
    pub fn reshape(&mut self, number: usize, shape: &[usize]) -> Result<(), RunError> {
        let kept = self.states.get_mut(number).ok_or(no_such(number))?;
        let spec = StateSpec {
            shape: shape.to_vec(),
            ..kept.spec.clone()
        };
        match &mut kept.home {
            Home::Device(state) => device(self.session.as_mut(), number)?.reshape(*state, shape)?,
            Home::Host(memory) => {
                let new = host_memory(&spec)?;
                if let Err(error) = bind(self.session.as_mut(), &spec, &new) {
                    bind(self.session.as_mut(), &kept.spec, memory)?;
                    return Err(error);
                }
                *memory = new;
            }
        }
        kept.spec = spec;
        Ok(())
    }

    /// Exchanges what the next run finds at two states of one type and shape. Nothing is copied where
    /// both lie in the same memory.
    ///
    /// # Errors
    /// [`RunError::State`] when they are not alike.
    pub fn exchange(&mut self, one: usize, other: usize) -> Result<(), RunError> {
        let of = |number: usize| self.states.get(number).ok_or(no_such(number));
        let (first, second) = (of(one)?, of(other)?);
        if !first.spec.is_like(&second.spec) {
            return Err(RunError::State {
                name: format!("number {one}"),
                why: format!("is not like number {other}"),
            });
        }
        match (&first.home, &second.home) {
            (Home::Device(first), Home::Device(second)) => {
                device(self.session.as_mut(), one)?.exchange(*first, *second)
            }
            (Home::Host(memory), Home::Host(others)) => {
                let (memory, others) = (memory.clone(), others.clone());
                self.move_in(one, others)?;
                self.move_in(other, memory)
            }
            _ => {
                let made = || Tensor::zeroed(first.spec.dtype, &first.spec.shape);
                let (was, others) = (made()?, made()?);
                self.read(one, &was)?;
                self.read(other, &others)?;
                self.write(one, &others)?;
                self.write(other, &was)
            }
        }
    }

    fn move_in(&mut self, number: usize, memory: [Tensor; 2]) -> Result<(), RunError> {
        let kept = &mut self.states[number];
        bind(self.session.as_mut(), &kept.spec, &memory)?;
        kept.home = Home::Host(memory);
        Ok(())
    }

    /// Where state `number` lies.
    ///
    /// # Errors
    /// [`RunError::NoSuchTensor`] when there is no such state.
    pub fn place(&mut self, number: usize) -> Result<StatePlace, RunError> {
        let kept = self.states.get(number).ok_or(no_such(number))?;
        match kept.home {
            Home::Device(state) => device(self.session.as_mut(), number)?.place(state),
            Home::Host(_) => Ok(StatePlace {
                device: None,
                bytes: kept.spec.bytes()?,
            }),
        }
    }

    /// Where all states lie, each place once, with the bytes of all states there.
    ///
    /// # Errors
    /// Never for a session that keeps its word.
    pub fn places(&mut self) -> Result<Vec<StatePlace>, RunError> {
        let mut places: Vec<StatePlace> = Vec::new();
        for number in 0..self.states.len() {
            let place = self.place(number)?;
            match places.iter_mut().find(|known| known.device == place.device) {
                Some(known) => known.bytes += place.bytes,
                None => places.push(place),
            }
        }
        Ok(places)
    }

    /// Has the next runs find only some rows, `rows` of the first dimension, of state `number`. Other
    /// operations go on with the whole.
    ///
    /// # Errors
    /// [`RunError::State`] for rows that there are not, for state that alternates, and for state on a
    /// device.
    pub fn narrow(&mut self, number: usize, rows: Range<usize>) -> Result<(), RunError> {
        let kept = self.states.get(number).ok_or(no_such(number))?;
        let refuse = |why: &str| RunError::State {
            name: format!("number {number}"),
            why: why.into(),
        };
        let Home::Host([next, _]) = &kept.home else {
            return Err(refuse("is on a device, which keeps it whole"));
        };
        if matches!(kept.spec.carry, Carry::Alternating { .. }) {
            return Err(refuse("alternates, and is kept whole"));
        }
        let rows = next.rows(rows).ok_or_else(|| refuse("has no such rows"))?;
        bind(self.session.as_mut(), &kept.spec, &[rows.clone(), rows])
    }

    /// The memory of state `number` as the next run finds it; `None` when it lies on a device, or there
    /// is no such state.
    pub fn memory(&self, number: usize) -> Option<&Tensor> {
        match &self.states.get(number)?.home {
            Home::Device(_) => None,
            Home::Host([next, _]) => Some(next),
        }
    }

    /// Makes state `number` zero, as it was at the start.
    ///
    /// # Errors
    /// When there is no such state, or the device fails.
    pub fn clear(&mut self, number: usize) -> Result<(), RunError> {
        match &self.states.get(number).ok_or(no_such(number))?.home {
            Home::Device(state) => device(self.session.as_mut(), number)?.clear(*state),
            Home::Host([next, _]) => Ok(next.write_bytes(&vec![0; next.bytes()])?),
        }
    }

    /// Copies state `number`, as the next run finds it, to a host tensor of its type and shape.
    ///
    /// # Errors
    /// When there is no such state, the tensor does not fit, or the device fails.
    pub fn read(&mut self, number: usize, into: &Tensor) -> Result<(), RunError> {
        let kept = self.states.get(number).ok_or(no_such(number))?;
        check_fits(number, &kept.spec, into)?;
        match &kept.home {
            Home::Device(state) => device(self.session.as_mut(), number)?.read(*state, into),
            Home::Host([next, _]) => Ok(into.write_bytes(&next.read_bytes()?)?),
        }
    }

    /// Copies a host tensor of its type and shape to state `number`, for the next run to find.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn write(&mut self, number: usize, from: &Tensor) -> Result<(), RunError> {
        let kept = self.states.get(number).ok_or(no_such(number))?;
        check_fits(number, &kept.spec, from)?;
        match &kept.home {
            Home::Device(state) => device(self.session.as_mut(), number)?.write(*state, from),
            Home::Host([next, _]) => Ok(next.write_bytes(&from.read_bytes()?)?),
        }
    }

    /// Copies values to state `number`, for the next run to find.
    ///
    /// # Errors
    /// As [`Self::read`], and when there are more or fewer values than elements.
    pub fn write_values<T: Element>(
        &mut self,
        number: usize,
        values: &[T],
    ) -> Result<(), RunError> {
        let kept = self.states.get(number).ok_or(no_such(number))?;
        match &kept.home {
            Home::Device(_) => {
                let tensor = Tensor::from_slice(&kept.spec.shape, values)?;
                self.write(number, &tensor)
            }
            Home::Host([next, _]) => Ok(next.write(values)?),
        }
    }
}

fn no_such(index: usize) -> RunError {
    RunError::NoSuchTensor { index }
}

fn device(session: &mut dyn Session, number: usize) -> Result<&mut dyn DeviceStates, RunError> {
    session.device_states().ok_or(no_such(number))
}

fn check_fits(number: usize, spec: &StateSpec, tensor: &Tensor) -> Result<(), RunError> {
    if tensor.dtype() == spec.dtype && tensor.shape() == spec.shape {
        return Ok(());
    }
    let (dtype, shape) = (tensor.dtype(), tensor.shape());
    Err(RunError::State {
        name: format!("number {number}"),
        why: format!("is {} {:?}, not {dtype} {shape:?}", spec.dtype, spec.shape),
    })
}

fn host_memory(spec: &StateSpec) -> Result<[Tensor; 2], RunError> {
    let next = Tensor::zeroed(spec.dtype, &spec.shape)?;
    let other = match spec.carry {
        Carry::InPlace { .. } | Carry::Held => next.clone(),
        Carry::Alternating { .. } => Tensor::zeroed(spec.dtype, &spec.shape)?,
    };
    Ok([next, other])
}

fn bind(
    session: &mut dyn Session,
    spec: &StateSpec,
    [next, other]: &[Tensor; 2],
) -> Result<(), RunError> {
    session.bind_input(spec.input, next)?;
    match spec.carry.output() {
        Some(output) => session.bind_output(output, OutputTarget::Into(other.clone())),
        None => Ok(()),
    }
}

impl Session for Stateful {
    fn bind_input(&mut self, index: usize, tensor: &Tensor) -> Result<(), RunError> {
        self.session.bind_input(index, tensor)
    }

    fn bind_output(&mut self, index: usize, target: OutputTarget) -> Result<(), RunError> {
        self.session.bind_output(index, target)
    }

    fn run(&mut self) -> Result<RunReport, RunError> {
        for Kept { spec, home } in &self.states {
            if let (Carry::Alternating { .. }, Home::Host(memory)) = (spec.carry, home) {
                bind(self.session.as_mut(), spec, memory)?;
            }
        }
        let report = self.session.run()?;
        for kept in &mut self.states {
            if let Home::Host(memory) = &mut kept.home {
                memory.swap(0, 1);
            }
        }
        Ok(report)
    }

    fn output(&self, index: usize) -> Result<Tensor, RunError> {
        self.session.output(index)
    }

    fn canceller(&self) -> Canceller {
        self.session.canceller()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Cancel;

    /// Writes input 0 plus one to output 0, and fails when it is told.
    struct Counter {
        input: Option<Tensor>,
        output: Option<Tensor>,
        fails: bool,
    }

    const IN_PLACE: Carry = Carry::InPlace { output: 0 };
    const ALTERNATING: Carry = Carry::Alternating { output: 0 };

    struct NoCancel;

    impl Cancel for NoCancel {
        fn cancel(&self) {}
    }

    impl Session for Counter {
        fn bind_input(&mut self, index: usize, tensor: &Tensor) -> Result<(), RunError> {
            match index {
                0 => self.input = Some(tensor.clone()),
                _ => self.fails = tensor.read::<f32>()? != [0.],
            }
            Ok(())
        }

        fn bind_output(&mut self, _: usize, target: OutputTarget) -> Result<(), RunError> {
            if let OutputTarget::Into(tensor) = target {
                self.output = Some(tensor);
            }
            Ok(())
        }

        fn run(&mut self) -> Result<RunReport, RunError> {
            let (Some(input), Some(output)) = (&self.input, &self.output) else {
                return Err(no_such(0));
            };
            output.write(&[input.read::<f32>()?[0] + 1.])?;
            match self.fails {
                true => Err(RunError::Cancelled),
                false => Ok(RunReport::default()),
            }
        }

        fn output(&self, index: usize) -> Result<Tensor, RunError> {
            self.output.clone().ok_or(no_such(index))
        }

        fn canceller(&self) -> Canceller {
            Canceller::new(NoCancel)
        }
    }

    fn counting(carry: Carry) -> Stateful {
        let mut session = Stateful::new(Box::new(Counter {
            input: None,
            output: None,
            fails: false,
        }));
        let spec = StateSpec {
            input: 0,
            dtype: DType::F32,
            shape: vec![1],
            carry,
        };
        assert_eq!(session.keep(spec).expect("is kept"), 0);
        session
    }

    fn count(session: &mut Stateful) -> f32 {
        let into = Tensor::zeroed(DType::F32, &[1]).expect("small");
        session.read(0, &into).expect("is read");
        into.read::<f32>().expect("f32")[0]
    }

    #[test]
    fn state_on_the_host_goes_on_is_read_written_and_cleared() {
        for carry in [IN_PLACE, ALTERNATING] {
            let mut session = counting(carry);
            for round in 1..=5u8 {
                session.run().expect("runs");
                assert_eq!(count(&mut session), f32::from(round));
            }
            let forty = Tensor::from_slice(&[1], &[40f32]).expect("small");
            session.write(0, &forty).expect("fits");
            session.run().expect("runs");
            assert_eq!(count(&mut session), 41.);
            session.clear(0).expect("is there");
            session.run().expect("runs");
            assert_eq!(count(&mut session), 1.);
        }
    }

    #[test]
    fn a_run_that_fails_leaves_alternating_state_as_it_was() {
        let mut session = counting(ALTERNATING);
        let fails = |yes: f32| Tensor::from_slice(&[1], &[yes]).expect("small");
        session.run().expect("runs");
        session.bind_input(1, &fails(1.)).expect("takes all");
        for _ in 0..3 {
            assert!(matches!(session.run(), Err(RunError::Cancelled)));
            assert_eq!(count(&mut session), 1.);
        }
        session.bind_input(1, &fails(0.)).expect("takes all");
        session.run().expect("runs");
        assert_eq!(count(&mut session), 2.);
    }

    #[test]
    fn states_are_exchanged_and_reshaped() {
        let mut session = counting(ALTERNATING);
        session.run().expect("runs");
        let other = StateSpec {
            input: 1,
            dtype: DType::F32,
            shape: vec![1],
            carry: Carry::Held,
        };
        assert_eq!(session.keep(other.clone()).expect("takes all"), 1);
        assert_eq!(session.keep(other).expect("takes all"), 2);
        let refused = session
            .exchange(0, 1)
            .expect_err("of two tensors, and of one");
        assert!(matches!(refused, RunError::State { .. }), "{refused}");
        session.write_values(1, &[5f32]).expect("fits");
        session.write_values(2, &[6f32]).expect("fits");
        session.exchange(1, 2).expect("are alike");
        let read = |session: &mut Stateful, number, shape: &[usize]| {
            let into = Tensor::zeroed(DType::F32, shape).expect("small");
            session.read(number, &into).expect("is read");
            into.read::<f32>().expect("f32")
        };
        assert_eq!(read(&mut session, 1, &[1]), [6.]);
        assert_eq!(read(&mut session, 2, &[1]), [5.]);
        session.reshape(1, &[2]).expect("takes all");
        assert_eq!(read(&mut session, 1, &[2]), [0., 0.]);
        session.exchange(1, 2).expect_err("are no longer alike");
        session.write_values(1, &[1f32]).expect_err("has two");
        assert_eq!(count(&mut session), 1.);
    }

    #[test]
    fn states_are_counted_and_bounded() {
        let mut session = counting(ALTERNATING);
        let host = |bytes| StatePlace {
            device: None,
            bytes,
        };
        assert_eq!(session.place(0).expect("is there"), host(8));
        let more = StateSpec {
            input: 0,
            dtype: DType::F16,
            shape: vec![3],
            carry: IN_PLACE,
        };
        session.keep(more.clone()).expect("takes all");
        assert_eq!(session.places().expect("known"), [host(8 + 6)]);
        for number in 2..STATES_MAX {
            assert_eq!(session.keep(more.clone()).expect("takes all"), number);
        }
        let full = session.keep(more).expect_err("is full");
        assert!(matches!(full, RunError::State { .. }), "{full}");
        let wrong = Tensor::zeroed(DType::F32, &[2]).expect("small");
        let refused = session.write(0, &wrong).expect_err("fits not");
        assert!(matches!(refused, RunError::State { .. }), "{refused}");
        let missing = session.clear(STATES_MAX).expect_err("is not there");
        assert!(matches!(missing, RunError::NoSuchTensor { .. }));
    }
}
