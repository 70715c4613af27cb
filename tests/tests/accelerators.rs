//! Runtimes for accelerators: what of them runs here, and that the rest says why not.
//!
//! Two of them compute on any x86-64 processor: OpenVINO, and the simulator that comes with QNN.
//! `tests/run` fetches their runtimes, the models and the reference.
#![cfg(target_arch = "x86_64")]

use anyhow::{Context, Result, ensure};
use mote_client::{Capability, Client, ClientError, DType, Input, Receipt, Status, WorkOptions};
use mote_tests::daemon::{Daemon, Setup};
use mote_tests::npy::{max_difference, numbers};
use mote_tests::reference::Case;
use mote_tests::{binary, prepared};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

const OPENVINO: (&str, &str) = ("onnxruntime-openvino", "OpenVINOExecutionProvider");
const QNN: (&str, &str) = ("onnxruntime-qnn", "QNNExecutionProvider");
/// OpenVINO's kernels add up in another order than the reference's.
const F32_TOLERANCE: f64 = 1e-4;
/// Text detection at one size of pictures, for devices that take no others.
const FIXED: &str = "text-detection-64";
const SIDE: usize = 64;
const DESCRIPTION: &str =
    "format = 1\nbackend = \"onnxruntime\"\nversion = \"1\"\nlicence = \"MIT\"\n";

fn daemon(runtimes: &Path) -> Result<Daemon> {
    Daemon::start(&Setup {
        stores: vec![prepared("MOTE_TEST_MODELS")?],
        runtimes: vec![runtimes.into()],
        ..Setup::default()
    })
}

/// All that is known of a provider of a flavour.
fn of<'a>(devices: &'a [Capability], (flavour, provider): (&str, &str)) -> Vec<&'a Capability> {
    let devices = devices.iter();
    let found = devices.filter(|one| one.flavour == flavour && one.provider == provider);
    found.collect()
}

fn code(capability: &Capability) -> &str {
    capability
        .absence
        .as_ref()
        .map_or("works", |reason| &reason.code)
}

fn doctor(daemon: &Daemon) -> Result<(bool, String)> {
    let mut command = Command::new(binary("mote")?);
    command.arg("--socket").arg(daemon.socket()).arg("doctor");
    let output = command.output()?;
    Ok((output.status.success(), String::from_utf8(output.stdout)?))
}

fn at((flavour, provider): (&str, &str)) -> WorkOptions {
    WorkOptions {
        require_flavour: Some(flavour.into()),
        require_provider: Some(provider.into()),
        ..WorkOptions::default()
    }
}

fn infer(client: &Client, model: &str, place: (&str, &str), case: &Case) -> Result<()> {
    let inputs: Vec<_> = case
        .inputs
        .iter()
        .map(|(name, array)| Input::bytes(name, array.dtype, &array.shape, &array.bytes))
        .collect();
    let result = client.infer(model, &inputs, &[], &at(place))?;
    let receipt = &result.done.receipt;
    ensure!(receipt.placement_read_back, "{receipt:?}");
    let mut shares = receipt.placement.iter();
    let share = shares.find(|share| share.provider == place.1);
    ensure!(share.is_some_and(|share| share.nodes > 0), "{receipt:?}");
    for output in &result.outputs {
        let wanted = case
            .outputs
            .get(&output.name)
            .context("an output of the reference")?;
        let bytes = output.bytes().context("an output without a target")?;
        let got = numbers(output.dtype, bytes);
        let difference = max_difference(&got, &wanted.numbers());
        ensure!(difference <= F32_TOLERANCE, "{model}: off by {difference}");
    }
    Ok(())
}

#[test]
fn what_computes_on_the_processor_works_and_says_so() -> Result<()> {
    let daemon = daemon(&prepared("MOTE_RUNTIMES")?)?;
    let client = daemon.client()?;
    let devices = client.devices()?;
    let openvino = of(&devices, OPENVINO);
    assert_eq!(
        openvino.len(),
        3,
        "a row for each kind of device: {openvino:?}"
    );
    let kinds: Vec<_> = openvino.iter().map(|one| code(one)).collect();
    assert!(kinds.contains(&"works"), "{openvino:?}");
    let works = openvino.iter().find(|one| one.absence.is_none());
    let device = works.and_then(|one| one.device.as_ref());
    assert_eq!(device.context("a device")?.kind, "cpu");
    let [qnn] = of(&devices, QNN)[..] else {
        panic!("{devices:?}")
    };
    let device = qnn.device.as_ref().with_context(|| format!("{qnn:?}"))?;
    assert!(device.simulated && device.kind == "cpu", "{device:?}");
    for one in &devices {
        if let Some(reason) = &one.absence {
            let told = !reason.message.is_empty() && !reason.next_step.is_empty();
            assert!(told && !reason.code.is_empty(), "{one:?}");
        }
    }
    let (well, told) = doctor(&daemon)?;
    assert!(well, "{told}");
    Ok(())
}

#[test]
fn a_model_on_openvino_gives_what_the_reference_gives() -> Result<()> {
    let daemon = daemon(&prepared("MOTE_RUNTIMES")?)?;
    let client = daemon.client()?;
    infer(&client, "magika", OPENVINO, &Case::read("magika")?)
}

#[test]
fn a_model_on_the_simulated_npu_is_placed_there_and_computes() -> Result<()> {
    let store = tempfile::tempdir()?;
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../backends/ort/src/selftest.onnx");
    std::fs::copy(model, store.path().join("selftest.onnx"))?;
    let daemon = Daemon::start(&Setup {
        stores: vec![store.path().into(), prepared("MOTE_TEST_MODELS")?],
        runtimes: vec![prepared("MOTE_RUNTIMES")?],
        ..Setup::default()
    })?;
    let client = daemon.client()?;
    let x: Vec<u8> = [1f32, 2., 3., 4.]
        .into_iter()
        .flat_map(f32::to_ne_bytes)
        .collect();
    let result = client.infer(
        "selftest",
        &[Input::bytes("x", DType::F32, &[1, 4], &x)],
        &[],
        &at(QNN),
    )?;
    let receipt = &result.done.receipt;
    assert!(receipt.placement_read_back, "{receipt:?}");
    let shares: Vec<_> = receipt
        .placement
        .iter()
        .map(|one| (one.provider.as_str(), one.nodes))
        .collect();
    assert_eq!(shares, [(QNN.1, 4)]);
    assert!(receipt.device.simulated, "{receipt:?}");
    let bytes = result.outputs[0]
        .bytes()
        .context("an output without a target")?;
    // It rounds as the hardware does that it simulates.
    let computed = numbers(DType::F32, bytes);
    let wanted = [19., 18., -3., 6.];
    let close = |(have, want): (&f64, f64)| (have - want).abs() <= F32_TOLERANCE * want.abs();
    assert!(computed.iter().zip(wanted).all(close), "{computed:?}");

    // Its shapes are open, which this provider does not take: refused, not computed elsewhere.
    let case = Case::read("text_detection_small")?;
    let refused = infer(&client, "rapidocr-det", QNN, &case);
    let error = refused.expect_err("the provider takes none of its nodes");
    let status = error.downcast_ref::<ClientError>();
    assert!(
        matches!(status, Some(ClientError::Refused(Status::NoBackend { .. }))),
        "{error:?}"
    );
    Ok(())
}

/// A store with text detection at one size, its folder and its name.
fn fixed_text_detection() -> Result<tempfile::TempDir> {
    let store = tempfile::tempdir()?;
    let folder = store.path().join(FIXED);
    std::fs::create_dir(&folder)?;
    let source = prepared("MOTE_TEST_MODELS")?.join("rapidocr-det");
    let file = "ch_PP-OCRv4_det_infer.onnx";
    std::fs::copy(source.join(file), folder.join(file))?;
    let manifest = format!(
        "format = 1\nname = \"{FIXED}\"\ntask = \"tensor\"\n\
         [dimensions]\n\"p2o.DynamicDimension.0\" = 1\n\"p2o.DynamicDimension.1\" = {SIDE}\n\
         \"p2o.DynamicDimension.2\" = {SIDE}\n\
         [[variant]]\nname = \"onnxruntime\"\nbackend = \"onnxruntime\"\nfile = \"{file}\"\n\
         precision = \"f32\"\n\
         [[variant]]\nname = \"tract\"\nbackend = \"tract\"\nfile = \"{file}\"\n\
         precision = \"f32\"\n"
    );
    std::fs::write(folder.join("mote.toml"), manifest)?;
    Ok(store)
}

/// What runs where.
fn nodes(receipt: &Receipt) -> Vec<(&str, u32)> {
    let shares = receipt.placement.iter();
    shares
        .map(|share| (share.provider.as_str(), share.nodes))
        .collect()
}

/// Files of what was compiled, with their times of writing.
fn compiled_files(cache: &Path) -> Result<Vec<(PathBuf, SystemTime)>> {
    let mut files = Vec::new();
    for folder in std::fs::read_dir(cache.join("compiled"))? {
        for file in std::fs::read_dir(folder?.path())? {
            let file = file?;
            files.push((file.path(), file.metadata()?.modified()?));
        }
    }
    files.sort();
    Ok(files)
}

#[test]
fn a_model_at_fixed_sizes_is_tried_on_the_simulated_npu_and_compiled_once() -> Result<()> {
    let (store, kept) = (fixed_text_detection()?, tempfile::tempdir()?);
    let start = || {
        Daemon::start(&Setup {
            stores: vec![store.path().into()],
            runtimes: vec![prepared("MOTE_RUNTIMES")?],
            choose: Some("measured"),
            state: Some(kept.path().join("state")),
            cache: Some(kept.path().join("cache")),
            ..Setup::default()
        })
    };
    let picture = vec![0u8; 3 * SIDE * SIDE * 4];
    let shape = [1, 3, SIDE as u64, SIDE as u64];
    let input = || [Input::bytes("x", DType::F32, &shape, &picture)];
    let daemon = start()?;
    let client = daemon.client()?;
    let receipt = client.infer(FIXED, &input(), &[], &at(QNN))?.done.receipt;
    assert_eq!(receipt.verification, "matched", "{receipt:?}");
    assert!(receipt.placement_read_back);
    let [share] = &receipt.placement[..] else {
        panic!("{receipt:?}")
    };
    assert!(share.provider == QNN.1 && share.nodes > 300, "{share:?}");
    // The library's own profile of the check input knows this provider alone, too.
    let explanation = client.explain(FIXED, &WorkOptions::default())?;
    let mut trials = explanation.trials.iter();
    let tried = trials.find(|trial| trial.candidate.provider == QNN.1);
    let [profiled] = &tried.context("a trial")?.placement[..] else {
        panic!("{explanation:?}")
    };
    assert!(profiled.time_us.is_some_and(|us| us > 0), "{profiled:?}");
    let wrong = client.infer(
        FIXED,
        &[Input::bytes(
            "x",
            DType::F32,
            &[1, 3, 32, 32],
            &picture[..3 * 32 * 32 * 4],
        )],
        &[],
        &at(QNN),
    );
    assert!(
        matches!(&wrong, Err(ClientError::Refused(Status::Invalid { .. }))),
        "{wrong:?}"
    );
    drop(daemon);

    let before = compiled_files(&kept.path().join("cache"))?;
    assert!(
        before
            .iter()
            .any(|(path, _)| path.ends_with("compiled.json"))
    );
    let daemon = start()?;
    let client = daemon.client()?;
    let again = client.infer(FIXED, &input(), &[], &at(QNN))?.done.receipt;
    // It no longer lies in the model's nodes how many there were, but nothing is told otherwise.
    assert_eq!(nodes(&again), nodes(&receipt));
    assert_eq!(compiled_files(&kept.path().join("cache"))?, before);
    drop(daemon);

    // What is damaged is compiled anew.
    let program = before
        .iter()
        .find(|(path, _)| path.extension() == Some("bin".as_ref()));
    let (program, written) = program.context("the device's program")?;
    let mut bytes = std::fs::read(program)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(program, bytes)?;
    let daemon = start()?;
    let third = daemon.client()?.infer(FIXED, &input(), &[], &at(QNN))?;
    assert_eq!(nodes(&third.done.receipt), nodes(&receipt));
    assert!(std::fs::metadata(program)?.modified()? > *written);
    Ok(())
}

#[test]
fn a_runtime_that_does_not_load_is_a_problem_with_its_reason() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let of_vendor = folder.path().join("vendor");
    std::fs::create_dir(&of_vendor)?;
    let described =
        format!("{DESCRIPTION}name = \"vendor\"\nlibrary = \"/nowhere/libonnxruntime.so\"\n");
    std::fs::write(of_vendor.join("runtime.toml"), described)?;
    let daemon = daemon(folder.path())?;
    let devices = daemon.client()?.devices()?;
    let [vendor] = of(&devices, ("vendor", ""))[..] else {
        panic!("{devices:?}")
    };
    assert_eq!((code(vendor), vendor.expected), ("library_missing", true));
    let (well, told) = doctor(&daemon)?;
    assert!(
        !well && told.contains("problem: vendor does not work"),
        "{told}"
    );
    Ok(())
}

#[test]
fn a_build_at_a_path_of_its_own_is_used_in_the_sandbox_with_its_options() -> Result<()> {
    let fetched = prepared("MOTE_RUNTIMES")?.join(OPENVINO.0);
    let folder = tempfile::tempdir()?;
    let library = fetched.join("libonnxruntime.so.1.24.1");
    for (name, options) in [
        (
            "vendor-cpu",
            "device_type = \"CPU\"\nnum_of_threads = \"1\"\n",
        ),
        ("vendor-wrong", "no_such_option = \"1\"\n"),
    ] {
        let of_vendor = folder.path().join(name);
        std::fs::create_dir(&of_vendor)?;
        let described = format!(
            "{DESCRIPTION}name = \"{name}\"\nlibrary = \"{}\"\nexpects = [\"{1}\"]\n[options.{1}]\n{options}",
            library.display(),
            OPENVINO.1
        );
        std::fs::write(of_vendor.join("runtime.toml"), described)?;
    }
    // A folder that is a link is a runtime like any other.
    symlink(
        prepared("MOTE_RUNTIMES")?.join("onnxruntime-cpu"),
        folder.path().join("cpu"),
    )?;
    let daemon = daemon(folder.path())?;
    let client = daemon.client()?;
    let devices = client.devices()?;
    let [one] = of(&devices, ("vendor-cpu", OPENVINO.1))[..] else {
        panic!("it is probed where its options say alone: {devices:?}")
    };
    assert_eq!((code(one), one.expected), ("works", true), "{one:?}");
    for one in of(&devices, ("vendor-wrong", OPENVINO.1)) {
        assert_ne!(code(one), "works", "{one:?}");
    }
    assert_eq!(
        code(of(&devices, ("onnxruntime-cpu", "CPUExecutionProvider"))[0]),
        "works"
    );
    infer(
        &client,
        "magika",
        ("vendor-cpu", OPENVINO.1),
        &Case::read("magika")?,
    )
}
