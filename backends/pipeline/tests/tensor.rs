//! Single runs of stateless models.

mod support;

use mote_api::{Buffer, DType, Model, Signature, Tensor};
use mote_pipeline::{
    NamedTarget, NamedTensor, PipelineError, SESSIONS_MAX, SessionPool, TensorJob, TensorResult,
};
use std::sync::Arc;
use support::{Log, closure_model, spec};

/// `sum` = `a` + `b` (f32 `[2, n]`), `count` = elements of `a` (i64 `[1]`).
fn adder() -> (Arc<dyn Model>, Arc<Log>) {
    let signature = Signature {
        inputs: vec![
            spec("a", DType::F32, &[2, -1]),
            spec("b", DType::F32, &[2, -1]),
        ],
        outputs: vec![
            spec("sum", DType::F32, &[2, -1]),
            spec("count", DType::I64, &[1]),
        ],
    };
    closure_model(signature, |run| {
        let [a, b] = [0, 1].map(|i| run.inputs[i].read::<f32>().expect("f32"));
        let sum: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
        Ok(vec![
            Some(Tensor::from_slice(run.inputs[0].shape(), &sum)?),
            Some(Tensor::from_slice(&[1], &[a.len() as i64])?),
        ])
    })
}

fn input(name: &str, values: &[f32]) -> NamedTensor {
    NamedTensor {
        name: name.into(),
        tensor: Tensor::from_slice(&[2, values.len() / 2], values).expect("fits"),
    }
}

fn target(name: &str, tensor: &Tensor) -> NamedTarget {
    NamedTarget {
        name: name.into(),
        tensor: tensor.clone(),
    }
}

fn run(
    model: &Arc<dyn Model>,
    pool: &mut SessionPool,
    inputs: &[NamedTensor],
    outputs: &[NamedTarget],
) -> Result<TensorResult, PipelineError> {
    let mut job = TensorJob::new(model, pool, inputs.to_vec(), outputs.to_vec())?;
    let result = job.run();
    job.finish(pool);
    result
}

#[test]
fn all_outputs_come_back_in_order_and_targets_are_filled_in_place() {
    let (model, _) = adder();
    let mut pool = SessionPool::new();
    let inputs = [
        input("b", &[10., 20., 30., 40.]),
        input("a", &[1., 2., 3., 4.]),
    ];
    let memory = Tensor::zeroed(DType::F32, &[2, 2]).expect("small");
    let result = run(&model, &mut pool, &inputs, &[target("sum", &memory)]).expect("runs");
    let names: Vec<&str> = result.outputs.iter().map(|o| o.name.as_str()).collect();
    assert_eq!(names, ["sum", "count"]);
    assert_eq!(memory.read::<f32>().expect("f32"), [11., 22., 33., 44.]);
    assert_eq!(result.outputs[0].tensor.as_ptr(), memory.as_ptr());
    assert_eq!(result.outputs[1].tensor.read::<i64>().expect("i64"), [4]);

    // A later job leaves results alone that are still held.
    let inputs = [input("a", &[0.; 6]), input("b", &[0.; 6])];
    let later = run(&model, &mut pool, &inputs, &[]).expect("runs");
    assert_eq!(later.outputs[1].tensor.read::<i64>().expect("i64"), [6]);
    assert_eq!(result.outputs[1].tensor.read::<i64>().expect("i64"), [4]);
    assert_eq!(later.outputs[0].tensor.shape(), [2, 3]);
}

#[test]
fn what_does_not_fit_is_refused_with_its_field_before_anything_is_bound() {
    let (model, log) = adder();
    let ab = || vec![input("a", &[1.; 4]), input("b", &[1.; 4])];
    let [four, six] = [2, 3].map(|n| Tensor::zeroed(DType::F32, &[2, n]).expect("small"));
    let count = Tensor::zeroed(DType::I64, &[1]).expect("small");
    let half = Tensor::zeroed(DType::F16, &[2, 2]).expect("small");
    let flat = Tensor::zeroed(DType::F32, &[4]).expect("small");
    let shared = Buffer::private(64).expect("small");
    let at = |offset| Tensor::new(DType::F32, &[2, 2], shared.clone(), offset).expect("fits");
    let with = |name: &str, tensor: &Tensor| NamedTensor {
        name: name.into(),
        tensor: tensor.clone(),
    };
    let cases: Vec<(&str, Vec<NamedTensor>, Vec<NamedTarget>)> = vec![
        ("inputs[b]", vec![input("a", &[1.; 4])], vec![]),
        (
            "inputs[c].name",
            [ab(), vec![with("c", &four)]].concat(),
            vec![],
        ),
        (
            "inputs[a].name",
            [ab(), vec![with("a", &four)]].concat(),
            vec![],
        ),
        (
            "inputs[b].dtype",
            vec![with("a", &four), with("b", &half)],
            vec![],
        ),
        (
            "inputs[a].shape",
            vec![with("a", &flat), with("b", &four)],
            vec![],
        ),
        (
            "outputs[difference].name",
            ab(),
            vec![target("difference", &four)],
        ),
        (
            "outputs[sum].name",
            ab(),
            vec![target("sum", &four), target("sum", &six)],
        ),
        ("outputs[count].dtype", ab(), vec![target("count", &four)]),
        (
            "outputs[sum].shape",
            ab(),
            vec![target("count", &count), target("sum", &flat)],
        ),
        (
            "outputs[sum].range",
            vec![with("a", &at(0)), with("b", &at(16))],
            vec![target("sum", &at(12))],
        ),
    ];
    for (want, inputs, outputs) in cases {
        let error = TensorJob::new(&model, &mut SessionPool::new(), inputs, outputs).err();
        match error {
            Some(PipelineError::Invalid { field, .. }) => assert_eq!(field, want),
            other => panic!("{want}: {other:?}"),
        }
    }
    assert_eq!((log.binds(), log.sessions()), (0, 0));
    let inputs = [with("a", &at(0)), with("b", &at(16))];
    let beside = [target("sum", &at(32))];
    assert!(run(&model, &mut SessionPool::new(), &inputs, &beside).is_ok());
}

#[test]
fn sessions_are_used_again_up_to_the_limit_and_per_model() {
    let (model, log) = adder();
    let (other, other_log) = adder();
    let mut pool = SessionPool::new();
    let inputs = [input("a", &[1.; 4]), input("b", &[1.; 4])];
    for _ in 0..3 {
        run(&model, &mut pool, &inputs, &[]).expect("runs");
    }
    assert_eq!(log.sessions(), 1);
    run(&other, &mut pool, &inputs, &[]).expect("runs");
    assert_eq!((log.sessions(), other_log.sessions()), (1, 1));

    let start = |pool: &mut SessionPool| TensorJob::new(&model, pool, inputs.to_vec(), vec![]);
    let many = SESSIONS_MAX + 2;
    let jobs: Vec<TensorJob> = (0..many)
        .map(|_| start(&mut pool).expect("binds"))
        .collect();
    assert_eq!(log.sessions(), many);
    jobs.into_iter().for_each(|job| job.finish(&mut pool));
    let again: Vec<TensorJob> = (0..many)
        .map(|_| start(&mut pool).expect("binds"))
        .collect();
    assert_eq!(log.sessions(), many + many - SESSIONS_MAX);
    drop(again);
}

#[test]
fn a_cancel_ends_its_own_job_only() {
    let (model, log) = adder();
    let mut pool = SessionPool::new();
    let inputs = [input("a", &[1.; 4]), input("b", &[1.; 4])];
    let mut job = TensorJob::new(&model, &mut pool, inputs.to_vec(), vec![]).expect("binds");
    let canceller = job.canceller();
    let inside = canceller.clone();
    log.on_run(move |number| {
        if number == 1 {
            inside.cancel();
        }
    });
    assert!(matches!(job.run(), Err(PipelineError::Cancelled)));
    job.finish(&mut pool);
    // Too late: the session belongs to the next job.
    canceller.cancel();
    assert!(run(&model, &mut pool, &inputs, &[]).is_ok());
    assert_eq!(log.sessions(), 1);
}
