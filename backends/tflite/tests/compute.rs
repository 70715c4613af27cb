//! What models compute, and where their tensors lie.

mod common;

use common::{backend, load, run};
use mote_api::{Access, Backend, Buffer, DType, OutputTarget, RunError, Session, Tensor, Threads};
use mote_tflite::{CPU, XNNPACK};
use nix::sys::memfd::{MFdFlags, memfd_create};

const PAGE_BYTES: usize = 4096;

fn rows(count: usize, value: f32) -> Tensor {
    Tensor::from_slice(&[count, 4], &vec![value; count * 4]).expect("small")
}

/// `(x + b) * 2` of the model `add_mul`.
fn want(count: usize, value: f32) -> Vec<f32> {
    let row = [0.5, 1., 1.5, 2.].map(|b| (value + b) * 2.);
    row.repeat(count)
}

/// Memory of whole pages that another process could write, filled from `values`.
fn shared(values: &[f32], access: Access) -> Tensor {
    let bytes = size_of_val(values);
    assert_eq!(bytes % PAGE_BYTES, 0, "ends with a page");
    let fd = memfd_create(c"test", MFdFlags::MFD_CLOEXEC).expect("memfd");
    nix::unistd::ftruncate(&fd, bytes as i64).expect("ftruncate");
    let writer = Buffer::shared(&fd, bytes, Access::ReadWrite).expect("map");
    writer.copy_in(0, values).expect("fits");
    let buffer = Buffer::shared(&fd, bytes, access).expect("map");
    Tensor::new(DType::F32, &[values.len() / 4, 4], buffer, 0).expect("fits")
}

#[test]
fn both_providers_of_the_library_are_proven() {
    let capabilities = backend().probe();
    let providers: Vec<_> = capabilities.iter().map(|c| c.provider.as_str()).collect();
    assert_eq!(providers, [XNNPACK, CPU]);
    for capability in &capabilities {
        assert_eq!(capability.absence, None, "{}", capability.provider);
        assert!(!capability.library_version.is_empty());
    }
}

#[test]
fn free_dimensions_follow_the_input() {
    for provider in [CPU, XNNPACK] {
        let model = load("add_mul", provider).expect("loads");
        assert_eq!(model.signature().inputs[0].shape, [None, Some(4)]);
        assert_eq!(model.signature().outputs[0].shape, [None, Some(4)]);
        let mut session = model.session().expect("session");
        for count in [1, 3, 2, 3] {
            let got = run(&mut *session, &[rows(count, 1.)]);
            assert_eq!(got, want(count, 1.), "{provider}, {count} rows");
            assert_eq!(session.output(0).expect("ran").shape(), [count, 4]);
        }
        assert_eq!(model.placement().nodes_on(provider), 2, "{provider}");
        assert!(model.placement().read_back);
    }
}

#[test]
fn aligned_memory_is_bound_in_place_and_other_memory_is_copied() {
    let bytes = 2 * 16;
    for provider in [CPU, XNNPACK] {
        let model = load("add_mul", provider).expect("loads");
        let mut session = model.session().expect("session");
        let memory = |offset| {
            let buffer = Buffer::private(PAGE_BYTES).expect("a page");
            Tensor::new(DType::F32, &[2, 4], buffer, offset).expect("fits")
        };
        // Offsets of input and output, and the bytes that must be copied; each turn rebinds.
        for (turn, (x, y, copied)) in [
            (0, 0, 0),
            (64, 128, 0),
            (4, 0, bytes),
            (0, 4, bytes),
            (4, 4, 2 * bytes),
            (0, 64, 0),
        ]
        .into_iter()
        .enumerate()
        {
            let (x, y) = (memory(x), memory(y));
            let value = turn as f32;
            x.write(&[value; 8]).expect("writable");
            session.bind_input(0, &x).expect("fits");
            let target = OutputTarget::Into(y.clone());
            session.bind_output(0, target).expect("fits");
            let report = session.run().expect("runs");
            assert_eq!(
                report.bytes_copied, copied as u64,
                "{provider}, turn {turn}"
            );
            assert_eq!(y.read::<f32>().expect("f32"), want(2, value));
            x.write(&[value + 10.; 8]).expect("writable");
            session.run().expect("reads the memory anew");
            assert_eq!(y.read::<f32>().expect("f32"), want(2, value + 10.));
        }
        let target = OutputTarget::Allocate;
        session.bind_output(0, target).expect("always");
        let report = session.run().expect("runs");
        assert_eq!(report.bytes_copied, bytes as u64);
        let kept = session.output(0).expect("ran");
        assert_eq!(kept.read::<f32>().expect("f32"), want(2, 15.));
        run(&mut *session, &[rows(2, 1.)]);
        let unchanged = kept.read::<f32>().expect("f32");
        assert_eq!(unchanged, want(2, 15.), "results outlive the next run");
    }
}

#[test]
fn memory_of_another_process_is_read_in_place_up_to_its_last_byte() {
    let values: Vec<f32> = (0..PAGE_BYTES / 4).map(|i| i as f32).collect();
    for provider in [CPU, XNNPACK] {
        let model = load("add_mul", provider).expect("loads");
        let mut session = model.session().expect("session");
        for access in [Access::ReadOnly, Access::ReadWrite] {
            let x = shared(&values, access);
            let y = shared(&vec![0.; values.len()], Access::ReadWrite);
            session.bind_input(0, &x).expect("fits");
            let target = OutputTarget::Into(y.clone());
            session.bind_output(0, target).expect("fits");
            let report = session.run().expect("runs");
            assert_eq!(report.bytes_copied, 0, "{provider}");
            let b = [0.5, 1., 1.5, 2.];
            let rows = values.chunks(4);
            let want: Vec<f32> = rows
                .flat_map(|row| row.iter().zip(b).map(|(x, b)| (x + b) * 2.))
                .collect();
            assert_eq!(y.read::<f32>().expect("f32"), want, "{provider}");
        }
        let y = shared(&values, Access::ReadOnly);
        let refused = session.bind_output(0, OutputTarget::Into(y));
        assert!(matches!(refused, Err(RunError::Output { .. })));
    }
}

#[test]
fn one_memory_for_input_and_output_still_computes() {
    for provider in [CPU, XNNPACK] {
        let model = load("add_mul", provider).expect("loads");
        let mut session = model.session().expect("session");
        let both = rows(2, 3.);
        session.bind_input(0, &both).expect("fits");
        let target = OutputTarget::Into(both.clone());
        session.bind_output(0, target).expect("fits");
        session.run().expect("runs");
        assert_eq!(both.read::<f32>().expect("f32"), want(2, 3.));
    }
}

#[test]
fn a_tensor_that_stands_in_several_places_reaches_all_of_them() {
    let model = load("echo", CPU).expect("loads");
    let mut session = model.session().expect("session");
    let x = Tensor::from_slice(&[16], &[3f32; 16]).expect("small");
    session.bind_input(0, &x).expect("fits");
    let outputs = [(); 3].map(|()| Tensor::zeroed(DType::F32, &[16]).expect("small"));
    for (index, output) in outputs.iter().enumerate() {
        let target = OutputTarget::Into(output.clone());
        session.bind_output(index, target).expect("fits");
    }
    for value in [3f32, 4.] {
        x.write(&[value; 16]).expect("writable");
        session.run().expect("runs");
        for (output, factor) in outputs.iter().zip([1., 2., 2.]) {
            let got = output.read::<f32>().expect("f32");
            assert_eq!(got, [value * factor; 16]);
        }
    }
}

#[test]
fn state_in_variables_belongs_to_the_session() {
    for provider in [CPU, XNNPACK] {
        let model = load("counter", provider).expect("loads");
        let step = |session: &mut dyn Session| {
            let x = Tensor::from_slice(&[1, 2], &[1f32, 10.]).expect("small");
            run(session, &[x])
        };
        let mut first = model.session().expect("session");
        assert_eq!(step(&mut *first), [1., 10.]);
        assert_eq!(step(&mut *first), [2., 20.]);
        let mut second = model.session().expect("session");
        assert_eq!(step(&mut *second), [1., 10.], "{provider}");
        assert_eq!(step(&mut *first), [3., 30.], "{provider}");
        drop(first);
        let mut third = model.session().expect("session");
        assert_eq!(step(&mut *third), [1., 10.], "{provider}");
    }
}

#[test]
fn indices_are_copied_from_memory_that_others_can_write() {
    let model = load("lookup", CPU).expect("loads");
    let mut session = model.session().expect("session");
    let private = Tensor::from_slice(&[3], &[3i32, 0, 1]).expect("small");
    assert_eq!(
        run(&mut *session, std::slice::from_ref(&private)),
        [40., 10., 20.]
    );
    let y = Tensor::zeroed(DType::F32, &[3]).expect("small");
    session
        .bind_output(0, OutputTarget::Into(y.clone()))
        .expect("fits");
    assert_eq!(session.run().expect("runs").bytes_copied, 0);
    let fd = memfd_create(c"test", MFdFlags::MFD_CLOEXEC).expect("memfd");
    nix::unistd::ftruncate(&fd, 64).expect("ftruncate");
    let buffer = Buffer::shared(&fd, 64, Access::ReadWrite).expect("map");
    let shared = Tensor::new(DType::I32, &[3], buffer, 0).expect("fits");
    shared.write(&[0i32, 1, 2]).expect("writable");
    session.bind_input(0, &shared).expect("fits");
    assert_eq!(session.run().expect("runs").bytes_copied, 12);
    assert_eq!(y.read::<f32>().expect("f32"), [10., 20., 30.]);

    shared.write(&[0i32, 1 << 30, 2]).expect("writable");
    match session.run() {
        Err(RunError::Compute(cause)) => assert!(cause.message.contains("gather"), "{cause}"),
        other => panic!("an index outside the table gave {other:?}"),
    }
    session.bind_input(0, &private).expect("fits");
    session.run().expect("usable");
    assert_eq!(y.read::<f32>().expect("f32"), [40., 10., 20.]);
}

#[test]
fn a_truth_value_is_any_byte_but_zero() {
    let model = load("choose", CPU).expect("loads");
    let mut session = model.session().expect("session");
    let truths = Tensor::from_bytes(DType::Bool, &[4], &[0, 1, 2, 255]).expect("small");
    assert_eq!(run(&mut *session, &[truths]), [-1., 1., 1., 1.]);
}

#[test]
fn one_cancel_stops_one_run() {
    for provider in [CPU, XNNPACK] {
        let model = load("long", provider).expect("loads");
        let mut session = model.session().expect("session");
        let ones: Vec<f32> = (0..192 * 192)
            .map(|i| if i % 193 == 0 { 1. } else { 0. })
            .collect();
        let x = Tensor::from_slice(&[192, 192], &ones).expect("small");
        assert_eq!(run(&mut *session, &[x]), ones);

        session.canceller().cancel();
        assert!(matches!(session.run(), Err(RunError::Cancelled)));
        session.run().expect("the cancel is used up");

        let canceller = session.canceller();
        let thread = std::thread::spawn(move || canceller.cancel());
        // Whether it comes before, in or after the first run, it stops exactly one.
        let first = session.run();
        thread.join().expect("cancels");
        let second = session.run();
        let cancelled = |run: &Result<_, RunError>| matches!(run, Err(RunError::Cancelled));
        assert!(
            cancelled(&first) != cancelled(&second),
            "{first:?} {second:?}"
        );
        session.run().expect("usable");
        let y = session.output(0).expect("ran").read::<f32>();
        assert_eq!(y.expect("f32"), ones);
        let canceller = session.canceller();
        drop(session);
        canceller.cancel();
    }
}

#[test]
fn threads_stay_as_they_were_loaded() {
    let two = Threads {
        count: 2,
        spin: false,
    };
    let mut request = common::request(common::fixture("long"), XNNPACK);
    request.threads = two;
    let model = backend().load(&request).expect("loads");
    assert!(!model.set_threads(Threads::SINGLE).expect("no failure"));
    let mut session = model.session().expect("session");
    let x = Tensor::zeroed(DType::F32, &[192, 192]).expect("small");
    assert_eq!(run(&mut *session, &[x]), vec![0.; 192 * 192]);
}
