//! What is refused, and how; and what a cancel does.

mod common;

use common::{Graph, floats, load, node, request, run, value};
use mote_api::{Absence, Backend, DType, LoadError, OutputTarget, RunError, RunReport, Tensor};
use mote_tract::TractBackend;
use tract_onnx::pb;
use tract_onnx::pb::tensor_proto::DataType::Float;

fn doubled() -> Graph {
    Graph {
        nodes: vec![node("Mul", &["x", "two"], &["y"])],
        weights: vec![floats("two", &[1], &[2.0])],
        inputs: vec![value("x", Float, &[-1, 3])],
        outputs: vec![value("y", Float, &[-1, 3])],
    }
}

fn x(rows: usize) -> Tensor {
    Tensor::from_slice(&[rows, 3], &vec![1.5f32; rows * 3]).expect("small")
}

#[test]
fn unknown_operators_are_named_with_their_domain_and_inside_branches() {
    let mut graph = doubled();
    let mut far = node("Telepathy", &["y"], &["z"]);
    far.domain = "org.example".into();
    let mut branch = node("If", &["x"], &["v"]);
    branch.attribute.push(pb::AttributeProto {
        name: "then_branch".into(),
        g: Some(pb::GraphProto {
            node: vec![node("Clairvoyance", &["y"], &["w"])],
            ..Default::default()
        }),
        ..Default::default()
    });
    graph.nodes.extend([far, branch]);
    match graph.load().err() {
        Some(LoadError::UnsupportedOperators {
            operators,
            provider,
            ..
        }) => {
            assert_eq!(operators, ["Clairvoyance", "org.example.Telepathy"]);
            assert_eq!(provider, "tract-cpu");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_that_are_no_models_are_refused() {
    let missing = TractBackend::new().load(&request("/does/not/exist.onnx".into()));
    assert!(matches!(missing.err(), Some(LoadError::Read { .. })));
    for bytes in [&b""[..], b"hello", &[0xff; 64]] {
        let error = load(bytes).err();
        assert!(
            matches!(error, Some(LoadError::Malformed { .. })),
            "{error:?}"
        );
    }
    let mut strings = doubled();
    strings.inputs = vec![value("x", pb::tensor_proto::DataType::String, &[1])];
    let error = strings.load().err();
    assert!(
        matches!(&error, Some(LoadError::UnservedType { name, .. }) if name == "x"),
        "{error:?}"
    );
    let mut dangling = doubled();
    dangling.nodes[0].input[1] = "nobody".into();
    assert!(matches!(
        dangling.load().err(),
        Some(LoadError::Malformed { .. })
    ));
}

#[test]
fn altered_files_never_panic_through() {
    let whole = doubled().bytes();
    for end in 0..whole.len() {
        // A prefix that ends between two fields is a smaller model; whatever comes, it is typed.
        let _ = load(&whole[..end]).map(|model| model.session().map(|_| ()));
    }
    let seed = std::env::var("MOTE_TEST_SEED").ok();
    let mut state: u64 = seed.and_then(|s| s.parse().ok()).unwrap_or(7);
    eprintln!("MOTE_TEST_SEED={state}");
    for _ in 0..300 {
        let mut bytes = whole.clone();
        for _ in 0..3 {
            // Knuth's multiplier for a 64-bit linear congruential generator.
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let at = (state >> 33) as usize % bytes.len();
            bytes[at] = (state >> 24) as u8;
        }
        if let Ok(model) = load(&bytes) {
            let mut session = model.session().expect("session");
            let _ = session.bind_input(0, &x(1)).and_then(|()| session.run());
        }
    }
}

#[test]
fn providers_and_cpu_are_as_asked() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("m.onnx");
    std::fs::write(&file, doubled().bytes()).expect("write model");
    let mut asked = request(file);
    asked.provider = "CUDAExecutionProvider".into();
    assert!(matches!(
        TractBackend::new().load(&asked).err(),
        Some(LoadError::ProviderAbsent {
            absence: Absence::NotCompiledIn,
            ..
        })
    ));
    asked.provider = mote_tract::PROVIDER.into();
    assert!(TractBackend::new().load(&asked).is_ok());
    asked.forbid_cpu = true;
    assert!(matches!(
        TractBackend::new().load(&asked).err(),
        Some(LoadError::CpuForbidden { nodes, cpu_nodes, .. }) if nodes == cpu_nodes && nodes > 0
    ));
}

#[test]
fn bindings_are_checked_and_copies_are_counted() {
    let model = doubled().load().expect("loads");
    let mut session = model.session().expect("session");
    assert!(matches!(
        session.run(),
        Err(RunError::InputMissing { name }) if name == "x"
    ));
    assert!(matches!(session.output(0), Err(RunError::Output { .. })));
    let flat = Tensor::zeroed(DType::F32, &[3]).expect("small");
    let narrow = Tensor::zeroed(DType::F32, &[1, 2]).expect("small");
    let whole = Tensor::zeroed(DType::I32, &[1, 3]).expect("small");
    for wrong in [&flat, &narrow, &whole] {
        let error = session.bind_input(0, wrong);
        assert!(matches!(error, Err(RunError::Input { .. })), "{error:?}");
        let error = session.bind_output(0, OutputTarget::Into(wrong.clone()));
        assert!(matches!(error, Err(RunError::Output { .. })), "{error:?}");
    }
    assert!(matches!(
        session.bind_input(1, &flat),
        Err(RunError::NoSuchTensor { index: 1 })
    ));
    let target = Tensor::zeroed(DType::F32, &[2, 3]).expect("small");
    session.bind_input(0, &x(1)).expect("fits");
    session
        .bind_output(0, OutputTarget::Into(target.clone()))
        .expect("fits");
    assert!(matches!(session.run(), Err(RunError::Output { .. })));
    let input = x(2);
    session.bind_input(0, &input).expect("fits");
    let report: RunReport = session.run().expect("runs");
    assert_eq!(report.bytes_copied, 2 * 24);
    assert_eq!(target.read::<f32>().expect("f32"), [3.; 6]);
    input.write(&[10f32; 6]).expect("writable");
    session.run().expect("reads the memory anew");
    assert_eq!(target.read::<f32>().expect("f32"), [20.; 6]);
}

/// Enough products that another thread can get between two of them.
fn long() -> Graph {
    let size = 96i64;
    let names: Vec<String> = (0..=60).map(|i| format!("t{i}")).collect();
    let products = names.windows(2);
    Graph {
        nodes: products
            .map(|pair| node("MatMul", &[&pair[0], "w"], &[&pair[1]]))
            .collect(),
        weights: vec![floats("w", &[size, size], &vec![0.01; 96 * 96])],
        inputs: vec![value("t0", Float, &[size, size])],
        outputs: vec![value("t60", Float, &[size, size])],
    }
}

#[test]
fn one_cancel_stops_one_run() {
    let model = long().load().expect("loads");
    let mut session = model.session().expect("session");
    let input = Tensor::from_slice(&[96, 96], &vec![1f32; 96 * 96]).expect("small");
    let want = run(&mut *session, &[input]);

    session.canceller().cancel();
    assert!(matches!(session.run(), Err(RunError::Cancelled)));
    session.run().expect("the cancel is used up");

    let canceller = session.canceller();
    let thread = std::thread::spawn(move || canceller.cancel());
    // Whether it comes before, in or after the first run, it stops exactly one.
    let first = session.run();
    thread.join().expect("cancels");
    let second = session.run();
    let cancelled = |result: &Result<_, RunError>| matches!(result, Err(RunError::Cancelled));
    assert!(
        cancelled(&first) != cancelled(&second),
        "{first:?} {second:?}"
    );
    session.run().expect("usable");
    let output = session.output(0).expect("has run");
    assert_eq!(output.read::<f32>().expect("f32"), want);
}
