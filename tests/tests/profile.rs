//! What receipts say of real models is what the runtime's own profile says.
//!
//! The runtime is OpenVINO's ONNX Runtime, which has two providers that compute on any x86-64
//! processor. `tests/run` fetches it, the models and their inputs.
#![cfg(target_arch = "x86_64")]

use anyhow::{Context, Result, ensure};
use mote_api::{
    Buffer, DeviceKind, Flavour, LoadRequest, Manifest, Model, Placement, Profile, Tensor, Threads,
};
use mote_client::{Input, WorkOptions};
use mote_tests::daemon::{Daemon, Setup};
use mote_tests::prepared;
use mote_tests::reference::Case;
use std::path::Path;
use std::sync::Arc;

const FLAVOUR: &str = "onnxruntime-openvino";
const CPU: &str = "CPUExecutionProvider";
const PROVIDERS: [&str; 2] = [CPU, "OpenVINOExecutionProvider"];
/// Models with an input of theirs.
const MODELS: [(&str, &str); 3] = [
    ("magika", "magika"),
    ("rapidocr-det", "text_detection_small"),
    ("rife", "rife"),
];
const RUNS: usize = 2;

/// Loads a model as a worker does, with the profile on, and runs it.
fn profiled(
    (flavour, folder): (&Flavour, &Path),
    manifest: &Manifest,
    store: &Path,
    provider: &str,
    case: &Case,
) -> Result<(Placement, Profile)> {
    let backend = mote_worker::registry::open(flavour, folder)?;
    let scratch = tempfile::tempdir()?;
    let model = backend.load(&LoadRequest {
        file: store.join(&manifest.name).join(&manifest.variants[0].file),
        provider: provider.into(),
        provider_options: mote_worker::registry::options(flavour, provider, DeviceKind::Cpu),
        threads: Threads::SINGLE,
        profile: Some(scratch.path().into()),
        ..LoadRequest::default()
    })?;
    run(&model, case)?;
    let profile = model.end_profile()?.context("a profile")?;
    let placement = model.placement();
    // Libraries of vendors need not survive being unloaded.
    std::mem::forget((model, backend));
    Ok((placement, profile))
}

fn run(model: &Arc<dyn Model>, case: &Case) -> Result<()> {
    let mut session = model.session()?;
    for (index, spec) in model.signature().inputs.iter().enumerate() {
        let array = case.inputs.get(&spec.name).context("an input")?;
        let memory = Buffer::private(array.bytes.len())?;
        memory.copy_in(0, &array.bytes)?;
        let shape: Result<Vec<usize>, _> =
            array.shape.iter().map(|&d| usize::try_from(d)).collect();
        session.bind_input(index, &Tensor::new(spec.dtype, &shape?, memory, 0)?)?;
    }
    for _ in 0..RUNS {
        session.run()?;
    }
    Ok(())
}

#[test]
fn the_profile_of_real_models_knows_the_same_providers_as_their_receipts() -> Result<()> {
    let (runtimes, store) = (prepared("MOTE_RUNTIMES")?, prepared("MOTE_TEST_MODELS")?);
    let daemon = Daemon::start(&Setup {
        stores: vec![store.clone()],
        runtimes: vec![runtimes.clone()],
        ..Setup::default()
    })?;
    let client = daemon.client()?;
    let folder = runtimes.join(FLAVOUR);
    let flavour = Flavour::read(&folder)?;
    for (name, case) in MODELS {
        let (case, manifest) = (Case::read(case)?, Manifest::read(&store.join(name))?);
        for provider in PROVIDERS {
            let at = format!("{name} on {provider}");
            let place = (&flavour, folder.as_path());
            let (placement, profile) = profiled(place, &manifest, &store, provider, &case)?;
            for share in &placement.shares {
                let run = profile.of(&share.provider).with_context(|| at.clone())?;
                // The CPU's own are fused, and reordered in between, after they were given to it.
                let fits = share.provider == CPU || run.kernels == share.groups;
                ensure!(fits, "{at}: {placement:?} is not {profile:?}");
            }
            ensure!(
                placement.shares.len() == profile.shares.len(),
                "{at}: {profile:?}"
            );

            let inputs: Vec<_> = case
                .inputs
                .iter()
                .map(|(name, array)| Input::bytes(name, array.dtype, &array.shape, &array.bytes))
                .collect();
            let options = WorkOptions {
                require_flavour: Some(FLAVOUR.into()),
                require_provider: Some(provider.into()),
                ..WorkOptions::default()
            };
            let receipt = client.infer(name, &inputs, &[], &options)?.done.receipt;
            ensure!(receipt.placement_read_back, "{at}: {receipt:?}");
            let told = receipt.placement.iter();
            let told: Vec<_> = told.map(|one| (one.provider.as_str(), one.nodes)).collect();
            let known = placement.shares.iter();
            let known: Vec<_> = known
                .map(|one| (one.provider.as_str(), one.nodes))
                .collect();
            ensure!(told == known, "{at}: {told:?} is not {known:?}");
        }
    }
    Ok(())
}
