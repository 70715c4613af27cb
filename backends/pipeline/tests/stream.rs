//! Stateful streams.

mod support;

use mote_api::{
    Access, Buffer, ConstantInput, DType, Model, Signature, StateTensor, StreamSpec, Tensor,
};
use mote_pipeline::{
    NamedTarget, NamedTensor, PREPARED_MAX, PipelineError, SessionPool, StreamSession, TensorJob,
    TensorResult,
};
use proptest::prelude::*;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use support::{Changes, Log, closure_model, refuse, spec};

const RATE: i64 = 16_000;

/// `y` = `x` + 3 · old state, new state = `x`, as long as `rate` is [`RATE`].
fn delay() -> (Arc<dyn Model>, Arc<Log>) {
    let signature = Signature {
        inputs: vec![
            spec("state", DType::F32, &[-1, 2]),
            spec("x", DType::F32, &[2]),
            spec("rate", DType::I64, &[]),
        ],
        outputs: vec![
            spec("y", DType::F32, &[2]),
            spec("next", DType::F32, &[-1, -1]),
        ],
    };
    closure_model(signature, |run| {
        let state = run.inputs[0].read::<f32>()?;
        let x = run.inputs[1].read::<f32>()?;
        if run.inputs[2].read::<i64>()? != [RATE] {
            return Err(refuse("rate is wrong"));
        }
        if run.targets[1]
            .as_ref()
            .is_some_and(|t| t.as_ptr() == run.inputs[0].as_ptr())
        {
            return Err(refuse("state would be overwritten while it is read"));
        }
        let y: Vec<f32> = x.iter().zip(&state).map(|(x, s)| x + 3.0 * s).collect();
        let next = if run.cancelled { vec![99.0; 2] } else { x };
        if let (true, Some(target)) = (run.cancelled, &run.targets[1]) {
            target.write(&next)?;
        }
        Ok(vec![
            Some(Tensor::from_slice(&[2], &y)?),
            Some(Tensor::from_slice(&[1, 2], &next)?),
        ])
    })
}

fn stream_spec() -> StreamSpec {
    StreamSpec {
        state: vec![StateTensor {
            input: "state".into(),
            output: "next".into(),
            shape: vec![1, 2],
        }],
        constant: vec![ConstantInput {
            input: "rate".into(),
            dtype: DType::I64,
            shape: vec![],
            values: vec![RATE as f64],
        }],
    }
}

fn open(model: &Arc<dyn Model>) -> StreamSession {
    StreamSession::open(model, Some(&stream_spec())).expect("opens")
}

fn x(values: [f32; 2]) -> [NamedTensor; 1] {
    [NamedTensor {
        name: "x".into(),
        tensor: Tensor::from_slice(&[2], &values).expect("fits"),
    }]
}

fn y_of(result: &TensorResult) -> Vec<f32> {
    assert_eq!(result.outputs.len(), 1, "state never leaves");
    assert_eq!(result.outputs[0].name, "y");
    result.outputs[0].tensor.read().expect("f32")
}

#[test]
fn state_and_constants_are_not_part_of_what_a_client_sees() {
    let (model, _) = delay();
    let stream = open(&model);
    let names = |specs: &[mote_api::TensorSpec]| -> Vec<String> {
        specs.iter().map(|spec| spec.name.clone()).collect()
    };
    assert_eq!(names(&stream.signature().inputs), ["x"]);
    assert_eq!(names(&stream.signature().outputs), ["y"]);
    let mut stream = stream;
    for name in ["state", "rate"] {
        let mut inputs = x([1., 1.]).to_vec();
        inputs.push(NamedTensor {
            name: name.into(),
            tensor: Tensor::zeroed(DType::F32, &[1, 2]).expect("small"),
        });
        let error = stream.push(&inputs, &[]).expect_err("is not an input");
        assert!(matches!(
            error,
            PipelineError::Invalid { field, .. } if field == format!("inputs[{name}].name")
        ));
    }
}

proptest! {
    /// Two streams of one model, pushed in any order, know nothing of each other.
    #[test]
    fn state_stays_in_its_stream(order in prop::collection::vec((0usize..2, -9i8..9), 1..40)) {
        let (model, _) = delay();
        let mut streams = [open(&model), open(&model)];
        let mut last = [0f32; 2];
        for (which, value) in order {
            let value = f32::from(value);
            let result = streams[which].push(&x([value, -value]), &[]).expect("runs");
            let want = value + 3.0 * last[which];
            prop_assert_eq!(y_of(&result), [want, -want]);
            last[which] = value;
        }
    }
}

#[test]
fn it_says_where_its_state_lies() {
    let (model, _) = delay();
    let places = open(&model).state_places().expect("known");
    let [place] = &places[..] else {
        panic!("{places:?}")
    };
    // Two of [1, 2] in f32, which take turns, and an i64.
    assert_eq!((&place.device, place.bytes), (&None, 16 + 8));
}

#[test]
fn reset_starts_anew() {
    let (model, _) = delay();
    for pushes in 1..4 {
        let mut stream = open(&model);
        for _ in 0..pushes {
            stream.push(&x([5., 6.]), &[]).expect("runs");
        }
        stream.reset().expect("resets");
        let result = stream.push(&x([1., 2.]), &[]).expect("runs");
        assert_eq!(y_of(&result), [1., 2.]);
    }
}

#[test]
fn a_cancelled_push_leaves_the_state_as_it_was() {
    let (model, log) = delay();
    let mut stream = open(&model);
    stream.push(&x([1., 2.]), &[]).expect("runs");
    let canceller = stream.canceller();
    log.on_run(move |number| {
        if number == 2 {
            canceller.cancel();
        }
    });
    let error = stream.push(&x([7., 7.]), &[]).expect_err("is cancelled");
    assert!(matches!(error, PipelineError::Cancelled));
    let result = stream.push(&x([10., 10.]), &[]).expect("runs");
    assert_eq!(y_of(&result), [13., 16.]);
}

#[test]
fn the_same_tensors_are_bound_once() {
    let signature = Signature {
        inputs: vec![spec("x", DType::F32, &[2])],
        outputs: vec![spec("y", DType::F32, &[2])],
    };
    let (model, log) = closure_model(signature, |run| Ok(vec![Some(run.inputs[0].clone())]));
    let mut stream = StreamSession::open(&model, None).expect("opens");
    let [first, second] = [x([1., 2.]), x([3., 4.])];
    let memory = Tensor::zeroed(DType::F32, &[2]).expect("small");
    let targets = [NamedTarget {
        name: "y".into(),
        tensor: memory.clone(),
    }];
    for round in 0..5u8 {
        let value = f32::from(round);
        first[0].tensor.write(&[value, value]).expect("fits");
        stream.push(&first, &targets).expect("runs");
        assert_eq!(memory.read::<f32>().expect("f32"), [value, value]);
    }
    assert_eq!(log.binds(), 2);

    let ids = [&first, &second].map(|inputs| stream.prepare(inputs, &targets).expect("fits"));
    stream.push_prepared(ids[0]).expect("runs");
    let binds = log.binds();
    stream.push_prepared(ids[0]).expect("runs");
    assert_eq!(log.binds(), binds);
    stream.push_prepared(ids[1]).expect("runs");
    assert_eq!(memory.read::<f32>().expect("f32"), [3., 4.]);
    let output = stream.output(0).expect("after a run");
    assert_eq!(output.as_ptr(), memory.as_ptr());

    stream.forget(ids[1]);
    let gone = stream.push_prepared(ids[1]).expect_err("is forgotten");
    assert!(matches!(gone, PipelineError::Invalid { .. }));
    stream.push_prepared(ids[0]).expect("is still there");
}

#[test]
fn changing_buffers_by_push_is_seen_and_prepared_pushes_are_limited() {
    let (model, _) = delay();
    let mut stream = open(&model);
    // More pushes with other memory than may be prepared.
    for round in 0..=2 * PREPARED_MAX {
        stream.reset().expect("resets");
        let value = round as f32;
        let result = stream.push(&x([value, 0.]), &[]).expect("runs");
        assert_eq!(y_of(&result), [value, 0.]);
    }
    let inputs = x([0., 0.]);
    let prepared = (0..PREPARED_MAX + 1).map_while(|_| stream.prepare(&inputs, &[]).ok());
    let prepared: Vec<_> = prepared.collect();
    assert_eq!(prepared.len(), PREPARED_MAX);
    let value = stream.output(0).expect("of the last push").read::<f32>();
    assert_eq!(value.expect("f32"), [2.0 * PREPARED_MAX as f32, 0.]);
    let full = stream.push(&inputs, &[]).expect_err("no room is left");
    assert!(matches!(full, PipelineError::Invalid { .. }), "{full}");
    stream.push_prepared(prepared[0]).expect("is still there");
    // One place is enough for pushes that are not prepared.
    stream.forget(prepared[0]);
    for value in [3., 4.] {
        stream.reset().expect("resets");
        let result = stream.push(&x([value, 0.]), &[]).expect("runs");
        assert_eq!(y_of(&result), [value, 0.]);
    }
    stream.prepare(&inputs, &[]).expect("comes first");
}

#[test]
fn manifests_that_do_not_fit_are_refused_by_tensor() {
    let (model, _) = delay();
    let cases: Changes<StreamSpec> = vec![
        ("h", |s| s.state[0].input = "h".into()),
        ("hn", |s| s.state[0].output = "hn".into()),
        ("state", |s| s.state[0].shape = vec![1, 3]),
        ("sr", |s| s.constant[0].input = "sr".into()),
        ("rate", |s| s.constant[0].dtype = DType::I32),
        ("rate", |s| s.constant[0].values = vec![1.0, 2.0]),
        ("rate", |s| s.constant[0].values = vec![0.5]),
    ];
    for (want, change) in cases {
        let mut spec = stream_spec();
        change(&mut spec);
        match StreamSession::open(&model, Some(&spec)).err() {
            Some(PipelineError::Graph { tensor, .. }) => assert_eq!(tensor, want),
            other => panic!("{want}: {other:?}"),
        }
    }
}

#[test]
fn forgetting_lets_go_of_a_clients_memory() {
    let (model, _) = delay();
    let mut stream = open(&model);
    let fd = tempfile::tempfile().expect("a file");
    fd.set_len(4096).expect("sized");
    let inputs = || {
        let buffer = Buffer::shared(&fd, 4096, Access::ReadWrite).expect("maps");
        [NamedTensor {
            name: "x".into(),
            tensor: Tensor::new(DType::F32, &[2], buffer, 0).expect("fits"),
        }]
    };
    let mapped = || {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("procfs");
        let path = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        let path = path.expect("procfs").to_string_lossy().into_owned();
        maps.lines().filter(|line| line.ends_with(&path)).count()
    };
    stream.push(&inputs(), &[]).expect("runs");
    assert_eq!(mapped(), 1);
    stream.forget_all();
    assert_eq!(mapped(), 0);
    let id = stream.prepare(&inputs(), &[]).expect("fits");
    stream.push_prepared(id).expect("runs");
    assert_eq!(mapped(), 1);
    stream.forget(id);
    assert_eq!(mapped(), 0);

    let mut pool = SessionPool::new();
    let (stateless, _) = closure_model(
        Signature {
            inputs: vec![spec("x", DType::F32, &[2])],
            outputs: vec![spec("y", DType::F32, &[2])],
        },
        |run| Ok(vec![Some(run.inputs[0].clone())]),
    );
    let mut job = TensorJob::new(&stateless, &mut pool, inputs().to_vec(), vec![]).expect("fits");
    job.run().expect("runs");
    assert_eq!(mapped(), 1);
    job.finish(&mut pool);
    assert_eq!(mapped(), 0);
}
