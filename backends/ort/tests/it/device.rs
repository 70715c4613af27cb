//! State in memory of a device: on a provider whose memory the host cannot touch without dying, and
//! which counts what crosses. The CPU does the same with state on the host.

mod pipelines;

use crate::faulty::compiled;
use crate::onnx::{BFLOAT16, Dim::Is, Dim::Named, FLOAT, FLOAT16, Graph};
use crate::{ModelFile, backend};
use mote_api::{
    Backend, Carry, DType, Model, OutputTarget, RunError, Session, StatePlace, StateSpec, Stateful,
    Tensor, Threads,
};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

const APART: &str = "ApartExecutionProvider";
const CPU: &str = "";
const MEMORY: &str = "ApartNpu";
const IN_PLACE: Carry = Carry::InPlace { output: 0 };
const ALTERNATING: Carry = Carry::Alternating { output: 0 };
/// Bytes of `x`, of `y`, and of one state.
const BYTES: u64 = 24;

/// The device, for one test at a time.
struct Device {
    library: libloading::Library,
    _alone: MutexGuard<'static, ()>,
}

/// What the provider counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    to_device: u64,
    to_device_bytes: u64,
    to_host: u64,
    to_host_bytes: u64,
    /// Copies that the environment was asked for, and no session.
    by_environment: u64,
    used_bytes: u64,
}

impl Device {
    fn plug_in() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let flags = ["-DOWN_MEMORY", "-pthread"];
        let library: &Path = LIBRARY.get_or_init(|| compiled("apart_provider", &flags));
        let plugged = backend().register_plugin(APART, library);
        plugged.expect("a provider library");
        // SAFETY: the library was loaded above, and does nothing when it is loaded.
        let library = unsafe { libloading::Library::new(library) }.expect("is loaded");
        Self {
            library,
            _alone: alone,
        }
    }

    fn counts(&self) -> Counts {
        let mut counts = [0; 6];
        // SAFETY: the signature in own_memory.h; it fills six numbers.
        unsafe {
            let count = self
                .library
                .get::<unsafe extern "C" fn(*mut u64)>("mote_device_counts");
            count.expect("is there")(counts.as_mut_ptr());
        }
        let [
            to_device,
            to_device_bytes,
            to_host,
            to_host_bytes,
            by_environment,
            used_bytes,
        ] = counts;
        Counts {
            to_device,
            to_device_bytes,
            to_host,
            to_host_bytes,
            by_environment,
            used_bytes,
        }
    }

    /// What crossed while `work` was done.
    fn crossed<T>(&self, work: impl FnOnce() -> T) -> (T, Counts) {
        let before = self.counts();
        let done = work();
        let after = self.counts();
        let crossed = Counts {
            to_device: after.to_device - before.to_device,
            to_device_bytes: after.to_device_bytes - before.to_device_bytes,
            to_host: after.to_host - before.to_host,
            to_host_bytes: after.to_host_bytes - before.to_host_bytes,
            by_environment: after.by_environment - before.by_environment,
            used_bytes: 0,
        };
        (done, crossed)
    }

    /// Whether it has memory that this process cannot read.
    fn is_shut(&self) -> bool {
        // SAFETY: the signature in own_memory.h.
        unsafe {
            let is_shut = self
                .library
                .get::<unsafe extern "C" fn() -> bool>("mote_device_is_shut");
            is_shut.expect("is there")()
        }
    }

    fn limit(&self, bytes: u64) {
        // SAFETY: the signature in own_memory.h.
        unsafe {
            let limit = self
                .library
                .get::<unsafe extern "C" fn(u64)>("mote_device_limit");
            limit.expect("is there")(bytes);
        }
    }

    fn hide_copy(&self, hide: bool) {
        // SAFETY: the signature in own_memory.h.
        unsafe {
            let set = self
                .library
                .get::<unsafe extern "C" fn(bool)>("mote_device_hide_copy");
            set.expect("is there")(hide);
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.limit(u64::MAX);
        self.hide_copy(false);
    }
}

fn load(graph: &Graph, provider: &str) -> Arc<dyn Model> {
    let file = ModelFile::new(&graph.clone().encode());
    let mut request = file.request();
    request.provider = provider.into();
    request.forbid_cpu = provider == APART;
    backend().load(&request).expect("a good model")
}

/// `next` = `past` + `x`, `y` = 2 · `next`: right also when past and next are one memory.
fn sum() -> Graph {
    Graph::new()
        .input("past", FLOAT, &[Is(2), Is(3)])
        .input("x", FLOAT, &[Is(2), Is(3)])
        .output("next", FLOAT, &[Is(2), Is(3)])
        .output("y", FLOAT, &[Is(2), Is(3)])
        .node("Add", &["past", "x"], &["next"])
        .node("Mul", &["next", "two"], &["y"])
        .constant("two", &[], &[2.])
}

/// `next` = `past` + `x`, `y` = `past` + `next` · `z`: wrong when they are one memory, and failing
/// after `next` is written when `z` does not fit.
fn late() -> Graph {
    Graph::new()
        .input("past", FLOAT, &[Is(2), Is(3)])
        .input("x", FLOAT, &[Is(2), Is(3)])
        .input("z", FLOAT, &[Named("rows"), Is(3)])
        .output("next", FLOAT, &[Is(2), Is(3)])
        .output("y", FLOAT, &[Named("all"), Is(3)])
        .node("Add", &["past", "x"], &["next"])
        .node("Mul", &["next", "z"], &["t"])
        .node("Add", &["t", "past"], &["y"])
}

fn state(carry: Carry) -> StateSpec {
    StateSpec {
        input: 0,
        dtype: DType::F32,
        shape: vec![2, 3],
        carry,
    }
}

fn filled(value: f32) -> Tensor {
    Tensor::from_slice(&[2, 3], &[value; 6]).expect("small")
}

fn value_of(tensor: &Tensor) -> f32 {
    let values = tensor.read::<f32>().expect("f32");
    assert_eq!(values, [values[0]; 6]);
    values[0]
}

/// A session with `x` and `y` bound and one state; its first input and first output are the state.
fn started(model: &dyn Model, carry: Carry) -> (Stateful, Tensor, Tensor) {
    let mut session = Stateful::new(model.session().expect("a session"));
    assert_eq!(session.keep(state(carry)).expect("is kept"), 0);
    let (x, y) = (filled(0.), filled(0.));
    session.bind_input(1, &x).expect("fits");
    session
        .bind_output(1, OutputTarget::Into(y.clone()))
        .expect("fits");
    (session, x, y)
}

fn place(on: &str, bytes: u64) -> StatePlace {
    StatePlace {
        device: (on == APART).then(|| MEMORY.to_owned()),
        bytes,
    }
}

#[test]
fn state_in_place_stays_where_it_is_over_many_runs() {
    let device = Device::plug_in();
    for provider in [CPU, APART] {
        let model = load(&sum(), provider);
        let (mut session, x, y) = started(&*model, IN_PLACE);
        assert_eq!(session.place(0).expect("is kept"), place(provider, BYTES));
        let mut sum = 0.;
        session.run().expect("computes");
        for round in 1..=50u8 {
            x.write(&[f32::from(round); 6]).expect("fits");
            sum += f32::from(round);
            let (report, crossed) = device.crossed(|| session.run().expect("computes"));
            assert_eq!(value_of(&y), 2. * sum, "{provider} round {round}");
            let once = u64::from(provider == APART);
            let only_x_and_y = Counts {
                to_device: once,
                to_device_bytes: once * BYTES,
                to_host: once,
                to_host_bytes: once * BYTES,
                ..Counts::default()
            };
            assert_eq!(crossed, only_x_and_y, "{provider}");
            assert_eq!(report.bytes_copied, once * 2 * BYTES, "{provider}");
        }
        assert!(provider == CPU || device.is_shut());
        let read = filled(0.);
        session.read(0, &read).expect("is read");
        assert_eq!(value_of(&read), sum);
        session.write(0, &filled(1000.)).expect("is written");
        let report = session.run().expect("computes");
        assert_eq!(value_of(&y), 2. * (1000. + 50.));
        let copied = if provider == APART { 4 * BYTES } else { 0 };
        assert_eq!(
            report.bytes_copied, copied,
            "what was read and written, too"
        );
        session.clear(0).expect("is cleared");
        session.run().expect("computes");
        assert_eq!(value_of(&y), 2. * 50.);
    }
}

#[test]
fn alternating_state_is_as_before_after_a_run_that_fails_or_is_cancelled() {
    let device = Device::plug_in();
    for provider in [CPU, APART] {
        let model = load(&late(), provider);
        let (mut session, x, y) = started(&*model, ALTERNATING);
        let (good, bad) = (
            filled(1.),
            Tensor::zeroed(DType::F32, &[4, 3]).expect("small"),
        );
        session.bind_input(2, &good).expect("fits");
        assert_eq!(
            session.place(0).expect("is kept"),
            place(provider, 2 * BYTES)
        );
        assert_eq!(
            session.places().expect("known"),
            [place(provider, 2 * BYTES)]
        );
        let mut past = 0.;
        for round in 1..=20u8 {
            let added = f32::from(round);
            x.write(&[added; 6]).expect("fits");
            if round % 3 == 0 {
                session.bind_input(2, &bad).expect("fits");
                session.run().expect_err("shapes do not fit");
                session.bind_input(2, &good).expect("fits");
            }
            if round % 4 == 0 {
                session.canceller().cancel();
                assert!(matches!(session.run(), Err(RunError::Cancelled)));
            }
            let (_, crossed) = device.crossed(|| session.run().expect("computes"));
            assert_eq!(
                value_of(&y),
                past + past + added,
                "{provider} round {round}"
            );
            past += added;
            let apart = u64::from(provider == APART);
            let bytes = (crossed.to_device_bytes, crossed.to_host_bytes);
            assert_eq!(bytes, (apart * 2 * BYTES, apart * BYTES), "x and z, and y");
            let read = filled(0.);
            session.read(0, &read).expect("is read");
            assert_eq!(value_of(&read), past);
        }
    }
}

/// Providers that are built into the library teach their way of copying to sessions only.
#[test]
fn state_is_filled_and_read_where_only_sessions_can_copy() {
    let device = Device::plug_in();
    let model = load(&sum(), APART);
    let (_, crossed) = device.crossed(|| started(&*model, IN_PLACE));
    assert_eq!(
        crossed.by_environment, 1,
        "the library fills it where it can"
    );
    device.hide_copy(true);
    let before = device.counts();
    let (mut session, x, y) = started(&*model, IN_PLACE);
    assert_eq!(session.place(0).expect("is kept"), place(APART, BYTES));
    x.write(&[1f32; 6]).expect("fits");
    for round in 1..=5u8 {
        let (_, crossed) = device.crossed(|| session.run().expect("computes"));
        assert_eq!(value_of(&y), 2. * f32::from(round));
        assert_eq!((crossed.to_device, crossed.to_host), (1, 1));
    }
    session.write(0, &filled(70.)).expect("is written");
    session.run().expect("computes");
    let read = filled(0.);
    session.read(0, &read).expect("is read");
    assert_eq!((value_of(&y), value_of(&read)), (142., 71.));
    assert_eq!(device.counts().by_environment, before.by_environment);
}

#[test]
fn a_device_without_room_says_how_much_was_wanted() {
    let device = Device::plug_in();
    let model = load(&sum(), APART);
    let mut session = Stateful::new(model.session().expect("a session"));
    let used = device.counts().used_bytes;
    device.limit(used);
    match session.keep(state(IN_PLACE)) {
        Err(RunError::DeviceMemory {
            name,
            device,
            bytes,
            cause,
        }) => {
            assert_eq!((&*name, &*device, bytes), ("past", MEMORY, BYTES));
            assert_eq!(cause.operation, "allocate on the device");
        }
        other => panic!("{other:?}"),
    }
    device.limit(u64::MAX);
    assert_eq!(session.keep(state(IN_PLACE)).expect("is kept"), 0);
    assert!(device.counts().used_bytes > used);
    drop(session);
    assert_eq!(
        device.counts().used_bytes,
        used,
        "given back with the session"
    );
}

#[test]
fn state_outlives_the_model_and_a_change_of_threads() {
    let _device = Device::plug_in();
    let model = load(&sum(), APART);
    let (mut session, x, y) = started(&*model, IN_PLACE);
    x.write(&[1f32; 6]).expect("fits");
    session.run().expect("computes");
    let two = Threads {
        count: 2,
        spin: false,
    };
    // Its memory is the session's that the library made, which is kept therefore.
    assert!(!model.set_threads(two).expect("is no error"));
    session.run().expect("computes");
    drop(model);
    session.run().expect("computes");
    assert_eq!(value_of(&y), 6.);
}

#[test]
fn what_is_kept_is_not_bound_and_what_is_not_the_devices_stays_on_the_host() {
    let device = Device::plug_in();
    let model = load(&sum(), APART);
    let (mut session, _, _) = started(&*model, IN_PLACE);
    let is_state = |error: RunError| assert!(matches!(error, RunError::State { .. }), "{error}");
    is_state(session.bind_input(0, &filled(0.)).expect_err("is kept"));
    let target = OutputTarget::Into(filled(0.));
    is_state(session.bind_output(0, target).expect_err("is kept"));
    is_state(session.keep(state(IN_PLACE)).expect_err("is kept"));
    let mut wrong = state(IN_PLACE);
    wrong.shape = vec![3, 2];
    let mut fresh = Stateful::new(model.session().expect("a session"));
    is_state(fresh.keep(wrong).expect_err("does not fit"));
    is_state(
        session
            .read(0, &Tensor::zeroed(DType::F32, &[6]).expect("small"))
            .expect_err("fits not"),
    );
    session.run().expect("computes");
    is_state(session.output(0).expect_err("is kept"));
    let missing = session.place(1).expect_err("is not there");
    assert!(matches!(missing, RunError::NoSuchTensor { index: 1 }));

    // Neg is the CPU's, so `past` is wanted on the host; `unused` by nobody.
    let mixed = Graph::new()
        .input("past", FLOAT, &[Is(2), Is(3)])
        .input("x", FLOAT, &[Is(2), Is(3)])
        .input("unused", FLOAT, &[Is(2)])
        .output("next", FLOAT, &[Is(2), Is(3)])
        .output("y", FLOAT, &[Is(2), Is(3)])
        .node("Neg", &["past"], &["n"])
        .node("Sub", &["x", "n"], &["next"])
        .node("Mul", &["next", "two"], &["y"])
        .constant("two", &[], &[2.]);
    let file = ModelFile::new(&mixed.encode());
    let mut request = file.request();
    request.provider = APART.into();
    let model = backend().load(&request).expect("a good model");
    let (mut session, x, y) = started(&*model, ALTERNATING);
    let unused = Tensor::zeroed(DType::F32, &[2]).expect("small");
    session.bind_input(2, &unused).expect("fits");
    assert_eq!(session.place(0).expect("is kept"), place(CPU, 2 * BYTES));
    x.write(&[1f32; 6]).expect("fits");
    for round in 1..=3u8 {
        session.run().expect("computes");
        assert_eq!(value_of(&y), 2. * f32::from(round));
    }
    drop(device);
}

#[test]
fn outputs_that_nothing_computes_are_no_obstacle() {
    let _device = Device::plug_in();
    let graph = sum()
        .output("x", FLOAT, &[Is(2), Is(3)])
        .output("fixed", FLOAT, &[Is(1)])
        .constant("fixed", &[1], &[7.]);
    let model = load(&graph, APART);
    let mut session = Stateful::new(model.session().expect("a session"));
    session.keep(state(ALTERNATING)).expect("is kept");
    session.bind_input(1, &filled(3.)).expect("fits");
    for round in 1..=3u8 {
        session.run().expect("computes");
        let output = |index| session.output(index).expect("is computed");
        assert_eq!(value_of(&output(1)), 6. * f32::from(round));
        assert_eq!(value_of(&output(2)), 3.);
        assert_eq!(output(3).read::<f32>().expect("f32"), [7.]);
    }
}

#[test]
fn what_is_held_crosses_once_and_changes_places_without_crossing() {
    let device = Device::plug_in();
    for provider in [CPU, APART] {
        let model = load(&late(), provider);
        let mut session = Stateful::new(model.session().expect("a session"));
        let held = |input| StateSpec {
            input,
            carry: Carry::Held,
            ..state(IN_PLACE)
        };
        for input in 0..3 {
            let kept = session.keep(held(input)).expect("is kept");
            assert_eq!(kept, input);
            assert_eq!(session.place(kept).expect("known"), place(provider, BYTES));
        }
        session.write_values(0, &[2f32; 6]).expect("fits");
        session.write_values(1, &[3f32; 6]).expect("fits");
        session.write_values(2, &[10f32; 6]).expect("fits");
        let (outputs, crossed) = device.crossed(|| {
            let mut compute = || {
                session.run().expect("computes");
                value_of(&session.output(1).expect("is there"))
            };
            let before = [compute(), compute()];
            session.exchange(1, 2).expect("are alike");
            let mut compute = || {
                session.run().expect("computes");
                value_of(&session.output(1).expect("is there"))
            };
            (before, compute())
        });
        // (past + x) · z + past.
        assert_eq!(outputs, ([52., 52.], 38.));
        assert_eq!(crossed.to_device_bytes, 0);
        session.reshape(2, &[4, 3]).expect("any number of rows");
        session.run().expect_err("shapes do not fit");
        session.reshape(2, &[1, 3]).expect("any number of rows");
        session.write_values(2, &[0.5f32; 3]).expect("fits");
        session.run().expect("computes");
        assert_eq!(value_of(&session.output(1).expect("is there")), 8.);
        let refused = session.reshape(2, &[3, 2]).expect_err("three columns");
        match (provider, refused) {
            (APART, RunError::State { .. }) | (CPU, RunError::Input { .. }) => {}
            (_, other) => panic!("{other}"),
        }
        session.run().expect("is as it was");
        assert_eq!(value_of(&session.output(1).expect("is there")), 8.);
    }
}

/// `next` = `past`, in 16 bits.
fn half(element: u64) -> Graph {
    Graph::new()
        .input("past", element, &[Is(2), Is(3)])
        .output("next", element, &[Is(2), Is(3)])
        .node("Identity", &["past"], &["next"])
}

#[test]
fn state_in_16_bit_floats_is_filled_carried_and_read() {
    let device = Device::plug_in();
    // 1.5 in each.
    let cases = [
        (FLOAT16, DType::F16, 0x3e00u16),
        (BFLOAT16, DType::Bf16, 0x3fc0),
    ];
    for (element, dtype, bits) in cases {
        for (carry, hidden) in [(IN_PLACE, false), (ALTERNATING, false), (ALTERNATING, true)] {
            device.hide_copy(hidden);
            let file = ModelFile::new(&half(element).encode());
            let mut request = file.request();
            request.provider = APART.into();
            let model = backend().load(&request).expect("a good model");
            let mut session = Stateful::new(model.session().expect("a session"));
            let spec = StateSpec {
                dtype,
                ..state(carry)
            };
            session.keep(spec.clone()).expect("is kept");
            let bytes = spec.bytes().expect("small");
            assert_eq!(session.place(0).expect("is kept"), place(APART, bytes));
            let read = Tensor::zeroed(dtype, &[2, 3]).expect("small");
            session.run().expect("computes");
            session.read(0, &read).expect("is read");
            assert_eq!(read.read_bytes().expect("bytes"), [0; 12]);
            let written: Vec<u8> = [bits; 6].iter().flat_map(|b| b.to_le_bytes()).collect();
            let tensor = Tensor::from_bytes(dtype, &[2, 3], &written).expect("small");
            session.write(0, &tensor).expect("is written");
            let report = session.run().expect("computes");
            assert_eq!(report.bytes_copied, 12 + 12, "what was read and written");
            let (_, crossed) = device.crossed(|| session.run().expect("computes"));
            assert_eq!(crossed, Counts::default());
            session.read(0, &read).expect("is read");
            assert_eq!(read.read_bytes().expect("bytes"), written);
        }
    }
}
