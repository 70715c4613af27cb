//! Changing threads under living sessions.

use crate::onnx::{Dim::Is, FLOAT, Graph};
use crate::{ModelFile, backend};
use mote_api::{Backend, LoadError, OutputTarget, Tensor, Threads};

const TWO: Threads = Threads {
    count: 2,
    spin: true,
};

fn accumulate(add: f32) -> Vec<u8> {
    Graph::new()
        .node("Add", &["past", "one"], &["present"])
        .constant("one", &[1], &[add])
        .input("past", FLOAT, &[Is(1)])
        .output("present", FLOAT, &[Is(1)])
        .encode()
}

#[test]
fn bindings_and_state_outlive_a_change() {
    let file = ModelFile::new(&accumulate(1.));
    let model = backend().load(&file.request()).expect("a good model");
    let mut session = model.session().expect("a session");
    let state = Tensor::from_slice(&[1], &[0f32]).expect("small");
    session.bind_input(0, &state).expect("fits");
    session
        .bind_output(0, OutputTarget::Into(state.clone()))
        .expect("fits");
    session.run().expect("runs");
    assert!(model.set_threads(TWO).expect("loads again"));
    assert!(!model.set_threads(TWO).expect("nothing to do"));
    session.run().expect("runs");
    let two_asleep = Threads { spin: false, ..TWO };
    // Spinning for a limited time, as the pinned library does, is not worth another load.
    assert!(!model.set_threads(two_asleep).expect("nothing to do"));
    assert!(model.set_threads(Threads::SINGLE).expect("loads again"));
    let spinning_alone = Threads {
        count: 1,
        spin: true,
    };
    assert!(!model.set_threads(spinning_alone).expect("the same thing"));
    session.run().expect("runs");
    assert_eq!(state.read::<f32>().expect("f32"), [3.]);
    assert!(model.placement().read_back);
}

#[test]
fn a_change_that_fails_leaves_the_old_threads_in_use() {
    let file = ModelFile::new(&accumulate(1.));
    let model = backend().load(&file.request()).expect("a good model");
    let mut session = model.session().expect("a session");
    let past = Tensor::from_slice(&[1], &[41f32]).expect("small");
    session.bind_input(0, &past).expect("fits");

    std::fs::write(&file.path, b"altered").expect("written");
    let error = model.set_threads(TWO).expect_err("no model any more");
    assert!(matches!(error, LoadError::Threads(_)), "{error:?}");
    let other = Graph::new()
        .node("Neg", &["past"], &["present"])
        .input("past", FLOAT, &[Is(2)])
        .output("present", FLOAT, &[Is(2)]);
    std::fs::write(&file.path, other.encode()).expect("written");
    let error = model.set_threads(TWO).expect_err("another model");
    assert!(matches!(error, LoadError::Threads(_)), "{error:?}");

    session.run().expect("the old one runs");
    let present = session.output(0).expect("computed");
    assert_eq!(present.read::<f32>().expect("f32"), [42.]);
}

#[test]
fn changes_and_runs_at_once_lose_nothing() {
    const RUNS: usize = 200;
    let file = ModelFile::new(&accumulate(1.));
    let model = backend().load(&file.request()).expect("a good model");
    let mut session = model.session().expect("a session");
    let state = Tensor::from_slice(&[1], &[0f32]).expect("small");
    session.bind_input(0, &state).expect("fits");
    session
        .bind_output(0, OutputTarget::Into(state.clone()))
        .expect("fits");
    std::thread::scope(|scope| {
        let runner = scope.spawn(move || {
            for _ in 0..RUNS {
                session.run().expect("runs");
            }
        });
        while !runner.is_finished() {
            model.set_threads(TWO).expect("loads again");
            model.set_threads(Threads::SINGLE).expect("loads again");
        }
        runner.join().expect("no panic");
    });
    assert_eq!(state.read::<f32>().expect("f32"), [RUNS as f32]);
}
