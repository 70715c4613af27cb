//! Numbers, shapes, and whose memory they lie in.

use crate::onnx::{BOOL, Dim::Is, Dim::Named, FLOAT, Graph, INT64};
use crate::session;
use mote_api::{Access, Buffer, DType, OutputTarget, RunError, Tensor};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::os::fd::OwnedFd;

fn memfd(bytes: usize) -> OwnedFd {
    let fd = memfd_create(c"tensor", MFdFlags::MFD_CLOEXEC).expect("memfd");
    nix::unistd::ftruncate(&fd, bytes.try_into().expect("small")).expect("ftruncate");
    fd
}

fn mapped(fd: &OwnedFd, bytes: usize) -> Buffer {
    Buffer::shared(fd, bytes, Access::ReadWrite).expect("mapped")
}

fn f32s(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::from_slice(shape, values).expect("small")
}

/// y[n,2] = x[n,3] · w + b.
fn affine() -> Graph {
    Graph::new()
        .node("MatMul", &["x", "w"], &["m"])
        .node("Add", &["m", "b"], &["y"])
        .constant("w", &[3, 2], &[1., 2., 3., 4., 5., 6.])
        .constant("b", &[2], &[0.5, -0.5])
        .input("x", FLOAT, &[Named("n"), Is(3)])
        .output("y", FLOAT, &[Named("n"), Is(2)])
}

/// y[k] = t[i[k]] with t = 0, 10, 20, 30.
fn gather() -> Graph {
    Graph::new()
        .node("Gather", &["t", "i"], &["y"])
        .constant("t", &[4], &[0., 10., 20., 30.])
        .input("i", INT64, &[Named("k")])
        .output("y", FLOAT, &[Named("k")])
}

#[test]
fn numbers_are_those_computed_by_hand_at_every_batch() {
    let mut session = session(affine());
    for batch in [1, 3, 0, 2] {
        let x = f32s(&[batch, 3], &[1., 0., 2.].repeat(batch));
        session.bind_input(0, &x).expect("fits");
        let report = session.run().expect("runs");
        let y = session.output(0).expect("computed");
        assert_eq!(y.shape(), [batch, 2]);
        assert_eq!(y.read::<f32>().expect("f32"), [11.5, 13.5].repeat(batch));
        assert_eq!(report.bytes_copied, 8 * batch as u64);
    }
}

#[test]
fn shared_memory_is_read_and_written_in_place() {
    let (bytes_in, bytes_out) = (2 * 3 * 4, 2 * 2 * 4);
    let (fd_in, fd_out) = (memfd(bytes_in + 64), memfd(bytes_out));
    let at = |bytes| mapped(&fd_in, bytes_in + 64).len() - bytes;
    let x = Tensor::new(
        DType::F32,
        &[2, 3],
        mapped(&fd_in, bytes_in + 64),
        at(bytes_in),
    )
    .expect("in range");
    let y = Tensor::new(DType::F32, &[2, 2], mapped(&fd_out, bytes_out), 0).expect("in range");
    let mut session = session(affine());
    session.bind_input(0, &x).expect("fits");
    session
        .bind_output(0, OutputTarget::Into(y.clone()))
        .expect("fits");

    // The client's own mappings of the same memory.
    let client_in = Tensor::new(
        DType::F32,
        &[2, 3],
        mapped(&fd_in, bytes_in + 64),
        at(bytes_in),
    )
    .expect("in range");
    let client_out = mapped(&fd_out, bytes_out);
    let mut seen = [0f32; 4];
    for (values, want) in [
        ([1f32, 0., 0., 0., 1., 0.], [1.5, 1.5, 3.5, 3.5]),
        ([0., 0., 1., 1., 1., 1.], [5.5, 5.5, 9.5, 11.5]),
    ] {
        client_in.write(&values).expect("writable");
        let report = session.run().expect("runs");
        assert_eq!(report.bytes_copied, 0);
        client_out.copy_out(0, &mut seen).expect("in range");
        assert_eq!(seen, want);
        let output = session.output(0).expect("computed");
        assert_eq!(output.as_ptr(), y.as_ptr());
    }
}

#[test]
fn indices_are_taken_out_of_memory_that_others_can_write() {
    let fd = memfd(16);
    let shared = Tensor::new(DType::I64, &[2], mapped(&fd, 16), 0).expect("in range");
    shared.write(&[3i64, 1]).expect("writable");
    let mut session = session(gather());
    session.bind_input(0, &shared).expect("fits");
    let y = f32s(&[2], &[0., 0.]);
    session
        .bind_output(0, OutputTarget::Into(y.clone()))
        .expect("fits");
    assert_eq!(session.run().expect("runs").bytes_copied, 16);
    assert_eq!(y.read::<f32>().expect("f32"), [30., 10.]);
    shared.write(&[0i64, 2]).expect("writable");
    session.run().expect("runs");
    assert_eq!(y.read::<f32>().expect("f32"), [0., 20.]);

    let private = Tensor::from_slice(&[2], &[1i64, 1]).expect("small");
    session.bind_input(0, &private).expect("fits");
    assert_eq!(session.run().expect("runs").bytes_copied, 0);
    assert_eq!(y.read::<f32>().expect("f32"), [10., 10.]);
}

#[test]
fn indices_computed_on_the_way_never_lie_in_shared_memory() {
    let graph = Graph::new()
        .node("ArgMax", &["x"], &["i"])
        .node("Gather", &["t", "i"], &["y"])
        .constant("t", &[3], &[5., 6., 7.])
        .input("x", FLOAT, &[Is(3), Is(1)])
        .output("i", INT64, &[Is(1), Is(1)])
        .output("y", FLOAT, &[Is(1), Is(1)]);
    let fd = memfd(8);
    let index = Tensor::new(DType::I64, &[1, 1], mapped(&fd, 8), 0).expect("in range");
    let mut session = session(graph);
    session
        .bind_input(0, &f32s(&[3, 1], &[0., 1., 9.]))
        .expect("fits");
    session
        .bind_output(0, OutputTarget::Into(index.clone()))
        .expect("fits");
    let copied = session.run().expect("runs").bytes_copied;
    assert_eq!(copied, 8 + 4, "the index, and the output without a target");
    assert_eq!(index.read::<i64>().expect("i64"), [2]);
    let y = session.output(1).expect("computed");
    assert_eq!(y.read::<f32>().expect("f32"), [7.]);
}

#[test]
fn state_goes_round_in_one_buffer() {
    let graph = Graph::new()
        .node("Add", &["past", "x"], &["present"])
        .input("past", FLOAT, &[Is(2)])
        .input("x", FLOAT, &[Is(2)])
        .output("present", FLOAT, &[Is(2)]);
    let mut session = session(graph);
    let state = f32s(&[2], &[0., 100.]);
    session.bind_input(0, &state).expect("fits");
    session.bind_input(1, &f32s(&[2], &[1., 2.])).expect("fits");
    session
        .bind_output(0, OutputTarget::Into(state.clone()))
        .expect("fits");
    for _ in 0..3 {
        assert_eq!(session.run().expect("runs").bytes_copied, 0);
    }
    assert_eq!(state.read::<f32>().expect("f32"), [3., 106.]);
}

#[test]
fn an_output_that_is_an_input_reaches_its_target() {
    let graph = || {
        Graph::new()
            .node("Add", &["x", "x"], &["y"])
            .input("x", FLOAT, &[Is(2)])
            .output("y", FLOAT, &[Is(2)])
            .output("x", FLOAT, &[Is(2)])
    };
    let mut session = session(graph());
    let target = f32s(&[2], &[9., 9.]);
    session.bind_input(0, &f32s(&[2], &[1., 2.])).expect("fits");
    session
        .bind_output(1, OutputTarget::Into(target.clone()))
        .expect("fits");
    session.run().expect("runs");
    assert_eq!(target.read::<f32>().expect("f32"), [1., 2.]);
    session
        .bind_output(1, OutputTarget::Allocate)
        .expect("fits");
    session.run().expect("runs");
    let x = session.output(1).expect("computed");
    assert_eq!(x.read::<f32>().expect("f32"), [1., 2.]);
    let y = session.output(0).expect("computed");
    assert_eq!(y.read::<f32>().expect("f32"), [2., 4.]);
}

#[test]
fn a_fetched_output_is_not_overwritten_by_the_next_run() {
    let mut session = session(affine());
    session
        .bind_input(0, &f32s(&[1, 3], &[1., 0., 0.]))
        .expect("fits");
    session.run().expect("runs");
    let first = session.output(0).expect("computed");
    session
        .bind_input(0, &f32s(&[1, 3], &[0., 1., 0.]))
        .expect("fits");
    session.run().expect("runs");
    let second = session.output(0).expect("computed");
    assert_eq!(first.read::<f32>().expect("f32"), [1.5, 1.5]);
    assert_eq!(second.read::<f32>().expect("f32"), [3.5, 3.5]);
}

#[test]
fn outputs_of_unknown_rank_are_served() {
    let graph = Graph::new()
        .node("NonZero", &["x"], &["n"])
        .node_of("com.microsoft", "Gelu", &["x"], &["y"])
        .input("x", FLOAT, &[Is(2), Is(2)])
        .output_of_any_rank("n", INT64);
    let mut session = session(graph);
    session
        .bind_input(0, &f32s(&[2, 2], &[0., 1., 1., 0.]))
        .expect("fits");
    session.run().expect("runs");
    let n = session.output(0).expect("computed");
    assert_eq!(n.shape(), [2, 2]);
    assert_eq!(n.read::<i64>().expect("i64"), [0, 1, 1, 0]);
}

#[test]
fn every_element_type_arrives_as_it_left() {
    // Codes of `TensorProto.DataType` in onnx.proto.
    for (dtype, code) in [
        (DType::F32, 1),
        (DType::U8, 2),
        (DType::I8, 3),
        (DType::U16, 4),
        (DType::I16, 5),
        (DType::I32, 6),
        (DType::I64, 7),
        (DType::Bool, 9),
        (DType::F16, 10),
        (DType::F64, 11),
        (DType::U32, 12),
        (DType::U64, 13),
        (DType::Bf16, 16),
    ] {
        let graph = Graph::new()
            .node("Identity", &["x"], &["y"])
            .input("x", code, &[Is(3)])
            .output("y", code, &[Is(3)]);
        let mut session = session(graph);
        let bytes: Vec<u8> = (0..3 * dtype.bytes()).map(|at| (at % 2) as u8).collect();
        let x = Tensor::from_bytes(dtype, &[3], &bytes).expect("small");
        session.bind_input(0, &x).expect("fits");
        session.run().expect("runs");
        let y = session.output(0).expect("computed");
        assert_eq!(y.dtype(), dtype);
        assert_eq!(y.read_bytes().expect("readable"), bytes, "{dtype}");
    }
}

#[test]
fn masks_are_staged_like_indices() {
    let graph = Graph::new()
        .node("Compress", &["x", "mask"], &["y"])
        .input("x", FLOAT, &[Is(4)])
        .input("mask", BOOL, &[Is(4)])
        .output("y", FLOAT, &[Named("kept")]);
    let fd = memfd(4);
    let mask = Tensor::new(DType::Bool, &[4], mapped(&fd, 4), 0).expect("in range");
    mask.write_bytes(&[1, 0, 0, 1]).expect("writable");
    let mut session = session(graph);
    session
        .bind_input(0, &f32s(&[4], &[1., 2., 3., 4.]))
        .expect("fits");
    session.bind_input(1, &mask).expect("fits");
    assert_eq!(session.run().expect("runs").bytes_copied, 4 + 8);
    let y = session.output(0).expect("computed");
    assert_eq!(y.read::<f32>().expect("f32"), [1., 4.]);
}

#[test]
fn what_does_not_fit_is_refused_with_the_name() {
    let mut session = session(affine());
    let wrong_dtype = Tensor::from_slice(&[1, 3], &[1i32, 2, 3]).expect("small");
    for wrong in [
        wrong_dtype,
        f32s(&[1, 2], &[0.; 2]),
        f32s(&[3], &[0.; 3]),
        f32s(&[1, 1, 3], &[0.; 3]),
    ] {
        match session.bind_input(0, &wrong).expect_err("does not fit") {
            RunError::Input { name, .. } => assert_eq!(name, "x"),
            other => panic!("{other:?}"),
        }
    }
    for wrong in [
        Tensor::from_slice(&[1, 2], &[1i32, 2]).expect("small"),
        f32s(&[1, 3], &[0.; 3]),
        f32s(&[2], &[0.; 2]),
    ] {
        let error = session
            .bind_output(0, OutputTarget::Into(wrong))
            .expect_err("does not fit");
        assert!(matches!(error, RunError::Output { name, .. } if name == "y"));
    }
    let x = f32s(&[1, 3], &[0.; 3]);
    assert!(matches!(
        session.bind_input(1, &x),
        Err(RunError::NoSuchTensor { index: 1 })
    ));
    assert!(matches!(
        session.bind_output(1, OutputTarget::Allocate),
        Err(RunError::NoSuchTensor { index: 1 })
    ));
    assert!(matches!(session.run(), Err(RunError::InputMissing { name }) if name == "x"));
    assert!(matches!(session.output(0), Err(RunError::Output { .. })));
}

#[test]
fn a_bound_output_of_the_wrong_shape_is_an_error_and_the_session_lives() {
    let mut session = session(affine());
    session
        .bind_input(0, &f32s(&[4, 3], &[0.; 12]))
        .expect("fits");
    session
        .bind_output(0, OutputTarget::Into(f32s(&[3, 2], &[0.; 6])))
        .expect("the batch is decided at run time");
    match session.run().expect_err("four rows, room for three") {
        RunError::Output { name, why } => {
            assert_eq!(name, "y");
            assert!(why.contains("{3,2}") && why.contains("{4,2}"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(session.output(0), Err(RunError::Output { .. })));
    session
        .bind_output(0, OutputTarget::Allocate)
        .expect("allowed");
    session.run().expect("runs");
}

#[test]
fn memory_that_cannot_be_written_takes_no_output() {
    let fd = memfd(8);
    let buffer = Buffer::shared(&fd, 8, Access::ReadOnly).expect("mapped");
    let read_only = Tensor::new(DType::F32, &[1, 2], buffer, 0).expect("in range");
    let mut session = session(affine());
    let error = session
        .bind_output(0, OutputTarget::Into(read_only))
        .expect_err("read-only");
    assert!(matches!(error, RunError::Output { why, .. } if why.contains("read-only")));
}

#[test]
fn a_failing_kernel_fails_the_run_only() {
    let mut session = session(gather());
    let bad = Tensor::from_slice(&[1], &[77i64]).expect("small");
    session.bind_input(0, &bad).expect("fits");
    assert!(matches!(session.run(), Err(RunError::Compute(_))));
    bad.write(&[2i64]).expect("writable");
    session.run().expect("runs");
    let y = session.output(0).expect("computed");
    assert_eq!(y.read::<f32>().expect("f32"), [20.]);
}

#[test]
fn the_session_keeps_bound_memory_alive() {
    let mut session = session(affine());
    let y = f32s(&[1, 2], &[0.; 2]);
    {
        let x = f32s(&[1, 3], &[1., 1., 1.]);
        session.bind_input(0, &x).expect("fits");
        session
            .bind_output(0, OutputTarget::Into(y.clone()))
            .expect("fits");
    }
    session.run().expect("runs");
    assert_eq!(y.read::<f32>().expect("f32"), [9.5, 11.5]);
}

#[test]
fn sessions_of_one_model_run_from_many_threads() {
    const THREADS: usize = 4;
    const RUNS: usize = 50;
    let model = crate::load(affine());
    let totals: Vec<f32> = std::thread::scope(|scope| {
        let work = |thread: usize| {
            let model = &model;
            scope.spawn(move || {
                let mut session = model.session().expect("a session");
                let x = f32s(&[1, 3], &[thread as f32, 0., 0.]);
                session.bind_input(0, &x).expect("fits");
                (0..RUNS)
                    .map(|_| {
                        session.run().expect("runs");
                        let y = session.output(0).expect("computed");
                        y.read::<f32>().expect("f32")[0]
                    })
                    .sum()
            })
        };
        let started: Vec<_> = (0..THREADS).map(work).collect();
        let join =
            |handle: std::thread::ScopedJoinHandle<'_, f32>| handle.join().expect("no panic");
        started.into_iter().map(join).collect()
    });
    let want = |thread: usize| (thread as f32 + 0.5) * RUNS as f32;
    assert_eq!(totals, (0..THREADS).map(want).collect::<Vec<_>>());
}
