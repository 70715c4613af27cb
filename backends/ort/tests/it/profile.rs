//! What the library's own profile says is what is read back after a load; dimensions that are fixed.

use crate::faulty::{self, CPU, NAME};
use crate::onnx::{Dim::Named, FLOAT, Graph};
use crate::{ModelFile, backend};
use mote_api::{Backend, LoadRequest, Model, Profile, RunError, Tensor};
use std::sync::Arc;

const RUNS: usize = 3;

/// Loads with a profile, runs, and reads it; the folder is empty afterwards.
fn profiled(graph: &Graph, provider: &str, fault: &str) -> (Arc<dyn Model>, Profile) {
    faulty::plug_in();
    let (file, folder) = (
        ModelFile::new(&graph.clone().encode()),
        tempfile::tempdir().expect("a folder"),
    );
    let options = [("fault".to_owned(), fault.to_owned())];
    let model = backend()
        .load(&LoadRequest {
            provider: provider.into(),
            provider_options: options.into_iter().filter(|_| provider == NAME).collect(),
            profile: Some(folder.path().into()),
            ..file.request()
        })
        .expect("it loads");
    let mut session = model.session().expect("a session");
    session.bind_input(0, &faulty::x()).expect("bound");
    for _ in 0..RUNS {
        session.run().expect("computes");
    }
    let profile = model.end_profile().expect("readable").expect("a profile");
    assert_eq!(folder.path().read_dir().expect("a folder").count(), 0);
    (model, profile)
}

#[test]
fn the_profile_has_each_group_of_nodes_on_the_provider_that_was_read_back() {
    for fault in ["none", "half"] {
        let (model, profile) = profiled(&faulty::mixed(), NAME, fault);
        let placement = model.placement();
        assert_eq!(placement.shares.len(), profile.shares.len(), "{profile:?}");
        for share in &placement.shares {
            let run = profile.of(&share.provider).expect("its kernels ran");
            assert_eq!(run.kernels, share.groups, "{fault}: {profile:?}");
            assert!(share.groups <= share.nodes && share.groups > 0);
        }
        let groups = if fault == "none" { 2 } else { 3 };
        assert_eq!(profile.of(NAME).map(|share| share.kernels), Some(groups));
    }
    let (model, profile) = profiled(&faulty::mixed(), CPU, "");
    assert_eq!(model.placement().nodes_on(CPU), model.placement().nodes());
    assert_eq!(profile.shares.len(), 1, "{profile:?}");
    assert!(profile.of(CPU).is_some());
}

#[test]
fn the_profile_tells_where_the_time_goes() {
    // 50 ms longer per computation, of which there are two.
    let (_model, profile) = profiled(&faulty::mixed(), NAME, "slow");
    let [first, second] = &profile.shares[..] else {
        panic!("{profile:?}")
    };
    assert_eq!(
        (first.provider.as_str(), second.provider.as_str()),
        (NAME, CPU)
    );
    assert!(first.time_us >= RUNS as u64 * 2 * 50_000, "{profile:?}");
}

#[test]
fn without_being_asked_for_there_is_none() {
    let model = crate::load(faulty::exact());
    assert_eq!(model.end_profile().expect("nothing fails"), None);
}

#[test]
fn open_dimensions_are_fixed_by_name() {
    let graph = Graph::new()
        .input("x", FLOAT, &[Named("rows"), Named("columns")])
        .output("y", FLOAT, &[Named("rows"), Named("columns")])
        .node("Relu", &["x"], &["y"]);
    let file = ModelFile::new(&graph.encode());
    let fixed = |pairs: &[(&str, usize)]| {
        let pairs = pairs.iter().map(|&(name, size)| (name.to_owned(), size));
        let model = backend().load(&LoadRequest {
            dimensions: pairs.collect(),
            ..file.request()
        });
        model.expect("it loads")
    };
    let model = fixed(&[("rows", 2), ("columns", 3)]);
    let signature = model.signature();
    assert_eq!(signature.inputs[0].shape, [Some(2), Some(3)]);
    assert_eq!(signature.outputs[0].shape, [Some(2), Some(3)]);
    let mut session = model.session().expect("a session");
    let wrong = Tensor::from_slice(&[1, 3], &[0f32; 3]).expect("small");
    let refused = session.bind_input(0, &wrong);
    assert!(
        matches!(refused, Err(RunError::Input { .. })),
        "{refused:?}"
    );
    assert_eq!(
        fixed(&[("rows", 2)]).signature().inputs[0].shape,
        [Some(2), None]
    );
}
