//! The scripted backend does what its script says.

use mote_api::{
    Backend, DType, LoadError, LoadRequest, Model, OutputTarget, RunError, Tensor, Threads,
};
use mote_fake::FakeBackend;
use std::sync::Arc;

fn load_on(provider: &str, script: &str) -> Result<Arc<dyn Model>, LoadError> {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("m.fake");
    std::fs::write(&file, script).expect("write script");
    FakeBackend::new().load(&LoadRequest {
        file,
        provider: provider.into(),
        provider_options: Vec::new(),
        threads: Threads::SINGLE,
        forbid_cpu: false,
        ..LoadRequest::default()
    })
}

const ONE: &str = "[[input]]\nname = \"x\"\ndtype = \"f32\"\nshape = [-1]\n\
    [[output]]\nname = \"y\"\ndtype = \"f32\"\nshape = [-1]\n";

fn x() -> Tensor {
    Tensor::from_slice(&[3], &[1f32, 2., 3.]).expect("small")
}

#[test]
fn adds_at_two_sizes_and_into_bound_memory() {
    let model = load_on("", &format!("compute = {{ add = 1.5 }}\n{ONE}")).expect("loads");
    let mut session = model.session().expect("session");
    assert!(matches!(
        session.run(),
        Err(RunError::InputMissing { name }) if name == "x"
    ));
    session.bind_input(0, &x()).expect("fits");
    session.run().expect("runs");
    let y = session.output(0).expect("has run");
    assert_eq!(y.read::<f32>().expect("f32"), [2.5, 3.5, 4.5]);
    let target = Tensor::zeroed(DType::F32, &[1]).expect("small");
    session
        .bind_output(0, OutputTarget::Into(target.clone()))
        .expect("fits");
    assert!(matches!(session.run(), Err(RunError::Output { .. })));
    let one = Tensor::from_slice(&[1], &[7f32]).expect("small");
    session.bind_input(0, &one).expect("fits");
    session.run().expect("runs");
    assert_eq!(target.read::<f32>().expect("f32"), [8.5]);
    let wrong = Tensor::zeroed(DType::I32, &[1]).expect("small");
    assert!(matches!(
        session.bind_input(0, &wrong),
        Err(RunError::Input { .. })
    ));
}

#[test]
fn a_cancel_ends_a_hang_once_and_the_session_stays_usable() {
    let model = load_on("", &format!("hang_at_run = 1\n{ONE}")).expect("loads");
    let mut session = model.session().expect("session");
    session.bind_input(0, &x()).expect("fits");
    let canceller = session.canceller();
    let thread = std::thread::spawn(move || canceller.cancel());
    assert!(matches!(session.run(), Err(RunError::Cancelled)));
    thread.join().expect("cancels");
    session.run().expect("the cancel is used up");
    session.canceller().cancel();
    assert!(matches!(session.run(), Err(RunError::Cancelled)));
    session.run().expect("one call stops one run");
}

#[test]
fn faults_strike_their_run_and_provider_and_once_with_a_marker() {
    let script = format!("fail_at_run = 2\nfault_provider = \"fake-npu\"\n{ONE}");
    for (provider, second_fails) in [("fake-npu", true), ("fake-cpu", false)] {
        let model = load_on(provider, &script).expect("loads");
        let mut session = model.session().expect("session");
        session.bind_input(0, &x()).expect("fits");
        session.run().expect("first run");
        let failed = matches!(session.run(), Err(RunError::Compute(_)));
        assert_eq!(failed, second_fails, "{provider}");
        session.run().expect("third run");
    }
    let folder = tempfile::tempdir().expect("temporary folder");
    let marker = folder.path().join("struck");
    let script = format!("fail_load = \"no\"\nfault_marker = {marker:?}\n{ONE}");
    assert!(matches!(
        load_on("", &script),
        Err(LoadError::Compile { .. })
    ));
    assert!(load_on("", &script).is_ok());
}

#[test]
fn placement_says_what_fell_back() {
    let script = format!("nodes = 5\nfall_back_nodes = 2\n{ONE}");
    let placement = load_on("fake-npu", &script).expect("loads").placement();
    assert_eq!(placement.nodes_on("fake-npu"), 3);
    assert_eq!(placement.nodes_on("fake-cpu"), 2);
    for bad in ["nodes = 1\nfall_back_nodes = 2\n", "typo = 1\n", "["] {
        let error = load_on("", &format!("{bad}{ONE}")).err();
        assert!(
            matches!(error, Some(LoadError::Malformed { .. })),
            "{bad:?}"
        );
    }
    assert!(matches!(
        load_on("gpu", ONE).err(),
        Some(LoadError::ProviderAbsent { .. })
    ));
}

/// Generates `count` tokens after `prompt`, cut into `chunks`, in a bound cache of 16 positions.
fn generate(next: &str, prompt: &[&[i64]], count: usize) -> Vec<i64> {
    let script = format!("[text]\nvocab = 50\nnext = \"{next}\"\nkv_heads = 2\nhead_dim = 3\n");
    let model = load_on("", &script).expect("loads");
    let signature = model.signature().clone();
    let mut session = model.session().expect("session");
    for name in ["0.key", "0.value"] {
        let cache = Tensor::zeroed(DType::F32, &[1, 2, 16, 3]).expect("small");
        let past = signature.input(&format!("past_key_values.{name}"));
        let present = signature.output(&format!("present.{name}"));
        session
            .bind_input(past.expect("named"), &cache)
            .expect("fits");
        session
            .bind_output(present.expect("named"), OutputTarget::Into(cache))
            .expect("fits");
    }
    let mut total = 0;
    let mut step = |ids: &[i64]| {
        total += ids.len();
        let total = i32::try_from(total).expect("small");
        let ids = Tensor::from_slice(&[1, ids.len()], ids).expect("small");
        session.bind_input(0, &ids).expect("fits");
        for (index, value) in [(1, total - 1), (2, total)] {
            let value = Tensor::from_slice(&[1], &[value]).expect("small");
            session.bind_input(index, &value).expect("fits");
        }
        session.run().expect("runs");
        let logits = session.output(0).expect("ran").read::<f32>().expect("f32");
        let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
        best.expect("not empty") as i64
    };
    let mut token = 0;
    for chunk in prompt {
        token = step(chunk);
    }
    let mut tokens = vec![token];
    while tokens.len() < count {
        tokens.push(step(&[tokens[tokens.len() - 1]]));
    }
    tokens
}

#[test]
fn text_follows_its_rule_through_the_cache() {
    assert_eq!(generate("increment", &[&[3, 48]], 4), [49, 0, 1, 2]);
    let want = [11, 22, 44, 38];
    assert_eq!(generate("sum", &[&[1, 2, 3, 4]], 4), want);
    assert_eq!(generate("sum", &[&[1], &[2, 3], &[4]], 4), want);
}
