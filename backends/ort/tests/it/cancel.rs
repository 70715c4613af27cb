//! One cancel stops one run: the one in progress, or else the next one.

use crate::onnx::{Dim::Is, FLOAT, Graph};
use crate::session;
use mote_api::{OutputTarget, RunError, Tensor};

const SIZE: usize = 512;
/// Long enough that no machine finishes the chain before it is cancelled.
const PRODUCTS: usize = 4000;
const POISON: f32 = -1.;

fn small() -> Graph {
    Graph::new()
        .node("Add", &["x", "x"], &["y"])
        .input("x", FLOAT, &[Is(1)])
        .output("y", FLOAT, &[Is(1)])
}

/// A long chain of matrix products, whose first and last are outputs.
fn long() -> Graph {
    let side = Is(SIZE as u64);
    let mut graph = Graph::new().input("p0", FLOAT, &[side, side]);
    for step in 0..PRODUCTS {
        let (from, to) = (format!("p{step}"), format!("p{}", step + 1));
        graph = graph.node("MatMul", &[&from, "p0"], &[&to]);
    }
    graph
        .output("p1", FLOAT, &[side, side])
        .output(&format!("p{PRODUCTS}"), FLOAT, &[side, side])
}

fn first(tensor: &Tensor) -> f32 {
    tensor.read::<f32>().expect("f32")[0]
}

#[test]
fn a_cancel_before_the_run_stops_the_next_one_and_no_more() {
    let mut session = session(small());
    let x = Tensor::from_slice(&[1], &[3f32]).expect("small");
    session.bind_input(0, &x).expect("fits");
    let canceller = session.canceller();
    canceller.cancel();
    canceller.cancel();
    assert!(matches!(session.run(), Err(RunError::Cancelled)));
    assert!(matches!(session.output(0), Err(RunError::Output { .. })));
    session.run().expect("both calls are spent");
    assert_eq!(first(&session.output(0).expect("computed")), 6.);
    canceller.cancel();
    assert!(matches!(session.run(), Err(RunError::Cancelled)));
    session.run().expect("runs again");
}

#[test]
fn a_run_in_progress_stops_between_nodes_and_the_session_lives() {
    let mut session = session(long());
    // The identity, so that every product is the input itself.
    let identity: Vec<f32> = (0..SIZE * SIZE)
        .map(|at| f32::from(u8::from(at % (SIZE + 1) == 0)))
        .collect();
    let input = Tensor::from_slice(&[SIZE, SIZE], &identity).expect("fits memory");
    let poison = || Tensor::from_slice(&[SIZE, SIZE], &vec![POISON; SIZE * SIZE]).expect("fits");
    let (early, last) = (poison(), poison());
    session.bind_input(0, &input).expect("fits");
    for (index, tensor) in [&early, &last].into_iter().enumerate() {
        session
            .bind_output(index, OutputTarget::Into(tensor.clone()))
            .expect("fits");
    }
    let canceller = session.canceller();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| session.run());
        // The first product is there, so the run has begun; the last is not, so it has not ended.
        while first(&early) == POISON {
            assert!(!run.is_finished(), "the run failed before its first node");
            std::thread::yield_now();
        }
        canceller.cancel();
        let result = run.join().expect("no panic");
        assert!(matches!(result, Err(RunError::Cancelled)), "{result:?}");
    });
    assert_eq!(first(&early), 1.);
    assert_eq!(first(&last), POISON);
    assert!(matches!(session.output(0), Err(RunError::Output { .. })));

    // A second cancel works like the first, and nothing of either is left over.
    early.write(&vec![POISON; SIZE * SIZE]).expect("writable");
    std::thread::scope(|scope| {
        let run = scope.spawn(|| session.run());
        while first(&early) == POISON && !run.is_finished() {
            std::thread::yield_now();
        }
        canceller.cancel();
        assert!(matches!(
            run.join().expect("no panic"),
            Err(RunError::Cancelled)
        ));
    });
}
