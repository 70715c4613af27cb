//! What models compute on tract, against numbers worked out by hand or by ONNX Runtime.

mod common;

use common::{Graph, floats, load, node, request, run, value};
use mote_api::{Backend, DType, Tensor, Threads};
use mote_tract::{PLANS_MAX, TRACT_VERSION, TractBackend};
use tract_onnx::pb::tensor_proto::DataType::{Bool, Float};

/// A 3×3 box filter without padding: `[1, 1, h, w]` to `[1, 1, h-2, w-2]`, both free.
fn box_filter() -> Graph {
    Graph {
        nodes: vec![node("Conv", &["x", "w"], &["y"])],
        weights: vec![floats("w", &[1, 1, 3, 3], &[1.0; 9])],
        inputs: vec![value("x", Float, &[1, 1, -1, -1])],
        outputs: vec![value("y", Float, &[1, 1, -1, -1])],
    }
}

#[test]
fn the_self_test_passes_and_the_version_is_the_locked_one() {
    let backend = TractBackend::new();
    let capabilities = backend.probe();
    assert_eq!(capabilities.len(), 1);
    assert_eq!(capabilities[0].absence, None);
    let lock = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock");
    let lock = std::fs::read_to_string(lock).expect("the workspace has a lock file");
    let locked = format!("name = \"tract-onnx\"\nversion = \"{TRACT_VERSION}\"");
    assert!(lock.contains(&locked), "{locked}");
}

#[test]
fn free_dimensions_run_at_more_sizes_than_there_are_plans() {
    let model = box_filter().load().expect("loads");
    let signature = model.signature();
    assert_eq!(signature.inputs[0].shape, [Some(1), Some(1), None, None]);
    assert_eq!(signature.outputs[0].shape, [Some(1), Some(1), None, None]);
    let mut session = model.session().expect("session");
    for round in 0..2 {
        for height in 3..=3 + PLANS_MAX {
            let ones = vec![1f32; height * 5];
            let x = Tensor::from_slice(&[1, 1, height, 5], &ones).expect("small");
            let y = run(&mut *session, &[x]);
            let want = vec![9f32; (height - 2) * 3];
            assert_eq!(y, want, "round {round}, height {height}");
            let shape = session.output(0).expect("has run").shape().to_vec();
            assert_eq!(shape, [1, 1, height - 2, 3]);
        }
    }
    assert!(model.placement().nodes_on("tract-cpu") > 0);
}

/// Elman's network: `h = tanh(x·W + h·R)` over three steps (ONNX operator RNN).
fn recurrent() -> Graph {
    let mut rnn = node("RNN", &["x", "W", "R", "", "", "h0"], &["", "hn"]);
    rnn.attribute.push(tract_onnx::pb::AttributeProto {
        name: "hidden_size".into(),
        r#type: tract_onnx::pb::attribute_proto::AttributeType::Int as i32,
        i: 2,
        ..Default::default()
    });
    Graph {
        nodes: vec![rnn],
        weights: vec![
            floats("W", &[1, 2, 1], &[0.5, -1.0]),
            floats("R", &[1, 2, 2], &[0.25, 0.5, 1.0, -0.5]),
        ],
        inputs: vec![
            value("x", Float, &[3, 1, 1]),
            value("h0", Float, &[1, 1, 2]),
        ],
        outputs: vec![value("hn", Float, &[1, 1, 2])],
    }
}

#[test]
fn every_run_starts_from_the_state_it_is_given() {
    let mut want = [0f32; 2];
    for x in [1f32, 2., -1.] {
        let [a, b] = want;
        want = [0.5 * x + 0.25 * a + 0.5 * b, -x + a - 0.5 * b].map(f32::tanh);
    }
    let model = recurrent().load().expect("loads");
    let mut session = model.session().expect("session");
    let x = Tensor::from_slice(&[3, 1, 1], &[1f32, 2., -1.]).expect("small");
    let zero = Tensor::zeroed(DType::F32, &[1, 1, 2]).expect("small");
    for round in 0..3 {
        let got = run(&mut *session, &[x.clone(), zero.clone()]);
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < 1e-5, "round {round}: {got} for {want}");
        }
    }
}

#[test]
fn a_truth_value_is_any_byte_but_zero() {
    let graph = Graph {
        nodes: vec![node("Where", &["c", "a", "b"], &["y"])],
        weights: vec![floats("a", &[1], &[1.0]), floats("b", &[1], &[-1.0])],
        inputs: vec![value("c", Bool, &[4])],
        outputs: vec![value("y", Float, &[4])],
    };
    let model = graph.load().expect("loads");
    let mut session = model.session().expect("session");
    let truths = Tensor::from_bytes(DType::Bool, &[4], &[0, 1, 2, 255]).expect("small");
    assert_eq!(run(&mut *session, &[truths]), [-1., 1., 1., 1.]);
}

#[test]
fn more_threads_change_no_number_and_no_binding() {
    let size = 192i64;
    let weights: Vec<f32> = (0..size * size).map(|i| (i % 17) as f32 - 8.0).collect();
    let graph = Graph {
        nodes: vec![node("MatMul", &["x", "w"], &["y"])],
        weights: vec![floats("w", &[size, size], &weights)],
        inputs: vec![value("x", Float, &[size, size])],
        outputs: vec![value("y", Float, &[size, size])],
    };
    let model = graph.load().expect("loads");
    let mut session = model.session().expect("session");
    let x = Tensor::from_slice(&[192, 192], &weights).expect("small");
    let single = run(&mut *session, &[x]);
    assert!(!model.set_threads(Threads::SINGLE).expect("no change"));
    let two = Threads {
        count: 2,
        spin: false,
    };
    assert!(model.set_threads(two).expect("starts threads"));
    session.run().expect("still bound");
    let output = session.output(0).expect("has run");
    assert_eq!(output.read::<f32>().expect("f32"), single);
}

#[test]
fn magika_agrees_with_onnx_runtime() {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/models/magika/model.onnx"
    );
    let model = TractBackend::new().load(&request(file.into()));
    let model = model.expect("loads");
    let mut session = model.session().expect("session");
    let bytes: Vec<i32> = (0..2048).map(|i| i * 7 % 257).collect();
    let x = Tensor::from_slice(&[1, 2048], &bytes).expect("small");
    let y = run(&mut *session, &[x]);
    // onnxruntime 1.31.1, CPUExecutionProvider, one thread.
    for (label, want) in [(148, 0.989_863_9), (202, 0.004_203_8), (213, 0.002_533_06)] {
        let got = y[label];
        assert!((got - want).abs() < 1e-5, "label {label}: {got} for {want}");
    }
}

#[test]
fn half_precision_runs() {
    let mut graph = box_filter();
    graph.nodes = ["Cast", "Conv", "Cast"]
        .iter()
        .zip([["x", "h"], ["h", "g"], ["g", "y"]])
        .map(|(op, [from, to])| {
            let mut node = node(op, &[from], &[to]);
            match *op {
                "Conv" => node.input.push("w16".into()),
                _ => node.attribute.push(tract_onnx::pb::AttributeProto {
                    name: "to".into(),
                    r#type: tract_onnx::pb::attribute_proto::AttributeType::Int as i32,
                    i: if to == "h" { 10 } else { 1 },
                    ..Default::default()
                }),
            }
            node
        })
        .collect();
    let mut weights = floats("w16", &[1, 1, 3, 3], &[]);
    weights.data_type = tract_onnx::pb::tensor_proto::DataType::Float16 as i32;
    weights.raw_data = [0x00, 0x3c].repeat(9);
    graph.weights = vec![weights];
    let model = load(&graph.bytes()).expect("loads");
    let mut session = model.session().expect("session");
    let x = Tensor::from_slice(&[1, 1, 3, 4], &[2f32; 12]).expect("small");
    assert_eq!(run(&mut *session, &[x]), [18., 18.]);
}
