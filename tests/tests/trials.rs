//! Ways to run a model are tried before its first use: what is wrong with one is found out on the
//! first request, the answer is right all the same, and receipt and explanation name it.

#[path = "../../backends/ort/tests/it/onnx.rs"]
#[allow(dead_code, reason = "these tests write one graph")]
mod onnx;

use anyhow::{Context, Result};
use mote_client::{
    Client, ClientError, DType, Explanation, Input, Receipt, Status, Stream, WorkOptions,
};
use mote_tests::daemon::{Daemon, Setup};
use mote_tests::faulty::{self, PROVIDER};
use onnx::{Dim::Is, Dim::Named, FLOAT, Graph};
use std::path::Path;

const MODEL: &str = "m";
const NUMBERS: usize = 12;
/// What hangs is given up after this.
const LIMIT_MS: u64 = 1_500;
const TOLERANCE: f32 = 1e-5;

/// Five nodes in a row, all of which the faulty provider knows.
fn write_model(store: &Path) -> Result<()> {
    let graph = Graph::new()
        .input("x", FLOAT, &[Is(2), Named("k"), Is(3)])
        .output_of_any_rank("y", FLOAT)
        .node("MatMul", &["x", "w"], &["m"])
        .node("Relu", &["m"], &["r"])
        .node("Sigmoid", &["r"], &["s"])
        .node("Mul", &["s", "m"], &["t"])
        .node("Sub", &["t", "c"], &["y"])
        .constant("w", &[3, 2], &[1., -2., 3., -4., 5., -6.])
        // Its two rows meet those of `x`.
        .constant("c", &[2, 1], &[0.5, -0.5]);
    let folder = store.join(MODEL);
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("m.onnx"), graph.encode())?;
    let manifest = "format = 1\nname = \"m\"\ntask = \"tensor\"\n\
        [[check.input]]\nname = \"x\"\nshape = [2, 2, 3]\n\
        [[variant]]\nname = \"ort\"\nbackend = \"onnxruntime\"\nfile = \"m.onnx\"\n\
        precision = \"f32\"\n\
        [[variant]]\nname = \"tract\"\nbackend = \"tract\"\nfile = \"m.onnx\"\n\
        precision = \"f32\"\n";
    Ok(std::fs::write(folder.join("mote.toml"), manifest)?)
}

/// A machine of a test's own with the faulty provider.
struct Machine {
    daemon: Daemon,
    folder: tempfile::TempDir,
}

impl Machine {
    fn new(fault: &str, choose: &'static str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        write_model(&folder.path().join("store"))?;
        faulty::runtimes(folder.path(), fault)?;
        let daemon = Self::start(folder.path(), choose)?;
        Ok(Self { daemon, folder })
    }

    fn start(folder: &Path, choose: &'static str) -> Result<Daemon> {
        Daemon::start(&Setup {
            stores: vec![folder.join("store")],
            runtimes: vec![folder.join("faulty-runtimes")],
            scripted: true,
            choose: Some(choose),
            trial_limit_ms: Some(LIMIT_MS),
            state: Some(folder.join("state")),
            ..Setup::default()
        })
    }
}

fn x() -> Vec<f32> {
    (0..NUMBERS).map(|at| at as f32 * 0.25 - 1.).collect()
}

/// What the model computes, by hand.
fn y() -> Vec<f32> {
    let (w, c) = ([[1., -2.], [3., -4.], [5., -6.]], [0.5f32, -0.5]);
    let x = x();
    let rows = x.chunks(3).enumerate();
    rows.flat_map(|(row, x)| {
        (0..2).map(move |column| {
            let m: f32 = (0..3).map(|at| x[at] * w[at][column]).sum();
            m / (1. + (-m.max(0.)).exp()) - c[row % 2]
        })
    })
    .collect()
}

fn run(client: &Client, options: &WorkOptions) -> Result<Receipt> {
    let bytes: Vec<u8> = x().iter().flat_map(|number| number.to_ne_bytes()).collect();
    let input = Input::bytes("x", DType::F32, &[2, 2, 3], &bytes);
    let result = client.infer(MODEL, &[input], &[], options)?;
    let have = result.outputs[0].bytes().context("an output")?;
    let have = have
        .chunks_exact(4)
        .map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
    let have: Vec<f32> = have.collect();
    let want = y();
    assert_eq!(have.len(), want.len());
    for (have, want) in std::iter::zip(&have, &want) {
        assert!((have - want).abs() <= TOLERANCE, "{have} is not {want}");
    }
    Ok(result.done.receipt)
}

fn plain(client: &Client) -> Result<Receipt> {
    run(client, &WorkOptions::default())
}

fn codes(rejected: &[mote_client::Rejected]) -> Vec<&str> {
    let of_provider = rejected.iter().filter(|one| one.provider == PROVIDER);
    of_provider.map(|one| one.reason.code.as_str()).collect()
}

fn explained(client: &Client) -> Result<Explanation> {
    Ok(client.explain(MODEL, &WorkOptions::default())?)
}

/// A fault is found on the first request, which is answered right.
fn is_caught(fault: &str, code: &str) -> Result<()> {
    let machine = Machine::new(fault, "measured")?;
    let client = machine.daemon.client()?;
    let receipt = plain(&client)?;
    let placement = &receipt.placement;
    assert!(
        placement.iter().all(|share| share.provider != PROVIDER),
        "{fault}: {placement:?}"
    );
    assert_eq!(receipt.retries, 0, "{fault}");
    assert_eq!(codes(&receipt.rejected), [code], "{fault}");
    let explanation = explained(&client)?;
    assert_eq!(codes(&explanation.rejected), [code], "{fault}");
    Ok(())
}

#[test]
fn wrong_numbers_are_caught() -> Result<()> {
    is_caught("wrong", "wrong_numbers")
}

#[test]
fn numbers_that_become_wrong_are_caught() -> Result<()> {
    is_caught("wrong_after=3", "wrong_numbers")
}

#[test]
fn a_device_that_has_the_processor_compute_is_caught() -> Result<()> {
    is_caught("spin", "computes_on_host")
}

#[test]
fn a_device_that_claims_nothing_is_caught() -> Result<()> {
    is_caught("cpu", "fell_back_to_cpu")
}

#[test]
fn a_leak_is_caught() -> Result<()> {
    is_caught("leak", "leaks")
}

#[test]
fn a_crash_is_caught() -> Result<()> {
    is_caught("crash", "trial_crashed")?;
    is_caught("crash_compile", "trial_crashed")
}

#[test]
fn a_hang_is_caught() -> Result<()> {
    is_caught("hang", "trial_timed_out")?;
    is_caught("hang_compile", "trial_timed_out")
}

#[test]
fn a_lost_device_is_caught() -> Result<()> {
    is_caught("lost", "device_lost")?;
    is_caught("lost_after=3", "device_lost")
}

#[test]
fn a_model_that_does_not_compile_is_caught() -> Result<()> {
    is_caught("fail_compile", "load_failed")
}

#[test]
fn half_a_model_on_a_device_must_pay() -> Result<()> {
    let machine = Machine::new("half", "measured")?;
    let client = machine.daemon.client()?;
    let receipt = plain(&client)?;
    let explanation = explained(&client)?;
    let here = receipt
        .placement
        .iter()
        .any(|share| share.provider == PROVIDER);
    let trials = explanation.trials.iter();
    let halves = trials.filter(|one| one.candidate.provider == PROVIDER);
    let placement = halves.map(|one| one.placement.len()).next();
    assert_eq!(placement, Some(2), "{:?}", explanation.trials);
    match codes(&explanation.rejected).as_slice() {
        [] => assert!(here, "{receipt:?}"),
        [code] => assert!(
            ["split_loses", "slower"].contains(code) && !here,
            "{code}: {receipt:?}"
        ),
        more => panic!("{more:?}"),
    }
    // Where it is insisted on, the receipt divides the time as the library's profile does.
    let insisting = WorkOptions {
        require_provider: Some(PROVIDER.into()),
        ..WorkOptions::default()
    };
    let receipt = run(&client, &insisting)?;
    let nodes: Vec<_> = receipt.placement.iter().map(|share| share.nodes).collect();
    assert_eq!((nodes.len(), nodes.iter().sum()), (2, 5), "{receipt:?}");
    let times_us = receipt.placement.iter().map(|share| share.time_us);
    let total_us: u64 = times_us.sum::<Option<u64>>().context("times")?;
    let rounding_us = nodes.len() as u64;
    assert!(
        total_us <= receipt.compute_us && total_us + rounding_us >= receipt.compute_us,
        "{receipt:?}"
    );
    Ok(())
}

#[test]
fn a_good_device_is_measured_and_a_second_start_tries_nothing() -> Result<()> {
    let mut machine = Machine::new("none", "measured")?;
    let first = {
        let client = machine.daemon.client()?;
        let receipt = plain(&client)?;
        assert!(receipt.measured && receipt.measured_at_s > 0, "{receipt:?}");
        assert!(["matched", "reference"].contains(&receipt.verification.as_str()));
        let explanation = explained(&client)?;
        assert_eq!(explanation.trials.len(), 3, "{:?}", explanation.trials);
        let best = &explanation.trials[0];
        let chosen = explanation.chosen.context("one is chosen")?;
        assert_eq!(best.candidate.provider, chosen.provider);
        for one in &explanation.trials {
            assert!(one.run_us >= best.run_us && one.runs >= 2, "{one:?}");
        }
        receipt
    };
    assert!(machine.daemon.terminate()?.success());
    let path = machine.folder.path().join("state/trials.json");
    let written = std::fs::metadata(&path)?.modified()?;
    let again = Machine::start(machine.folder.path(), "measured")?;
    let client = again.client()?;
    let receipt = plain(&client)?;
    assert_eq!(receipt.measured_at_s, first.measured_at_s);
    assert_eq!(receipt.flavour, first.flavour);
    assert_eq!(receipt.placement[0].provider, first.placement[0].provider);
    assert_eq!(
        std::fs::metadata(&path)?.modified()?,
        written,
        "something was tried again"
    );
    let measured = client.measure(MODEL, &WorkOptions::default())?;
    assert_eq!(measured.trials.len(), 3);
    assert_ne!(
        std::fs::metadata(&path)?.modified()?,
        written,
        "nothing was tried"
    );
    Ok(())
}

#[test]
fn a_device_that_is_lost_later_costs_a_retry() -> Result<()> {
    let machine = Machine::new("lost_after=2", "ranked")?;
    let client = machine.daemon.client()?;
    for _ in 0..2 {
        assert_eq!(plain(&client)?.device.kind, "npu");
    }
    let receipt = plain(&client)?;
    assert_eq!((receipt.device.kind.as_str(), receipt.retries), ("cpu", 1));
    assert_eq!(codes(&receipt.rejected), ["device_lost"]);
    assert_eq!(codes(&explained(&client)?.rejected), ["device_lost"]);
    let receipt = plain(&client)?;
    assert_eq!((receipt.device.kind.as_str(), receipt.retries), ("cpu", 0));
    Ok(())
}

#[test]
fn a_device_that_hangs_or_crashes_later_costs_a_retry() -> Result<()> {
    for (fault, code) in [
        ("hang_after=1", "step_timed_out"),
        ("crash_after=1", "run_failed"),
    ] {
        let machine = Machine::new(fault, "ranked")?;
        let client = machine.daemon.client()?;
        assert_eq!(plain(&client)?.device.kind, "npu");
        let receipt = plain(&client)?;
        assert_eq!(
            (receipt.device.kind.as_str(), receipt.retries),
            ("cpu", 1),
            "{fault}"
        );
        assert!(
            codes(&receipt.rejected).contains(&code),
            "{fault}: {:?}",
            receipt.rejected
        );
    }
    Ok(())
}

fn push(stream: &mut Stream) -> Result<(), ClientError> {
    let bytes: Vec<u8> = x().iter().flat_map(|number| number.to_ne_bytes()).collect();
    let input = Input::bytes("x", DType::F32, &[2, 2, 3], &bytes);
    stream.push(&[input], &[]).map(drop)
}

#[test]
fn a_stream_whose_device_fails_ends_and_opens_anew_elsewhere() -> Result<()> {
    for (fault, wanted) in [
        ("lost_after=1", "device_lost"),
        ("hang_after=1", "step_timed_out"),
        ("crash_after=1", "run_failed"),
    ] {
        let machine = Machine::new(fault, "ranked")?;
        let client = machine.daemon.client()?;
        let mut stream = client.open_stream(MODEL, &WorkOptions::default())?;
        push(&mut stream).with_context(|| format!("{fault}: the first push"))?;
        match push(&mut stream) {
            Err(ClientError::Refused(Status::StreamLost {
                provider,
                code,
                next,
                ..
            })) => {
                assert_eq!((&*provider, &*code), (PROVIDER, wanted), "{fault}");
                assert_eq!(next, "CPUExecutionProvider", "{fault}");
            }
            other => panic!("{fault}: {other:?}"),
        }
        let mut stream = client.open_stream(MODEL, &WorkOptions::default())?;
        push(&mut stream).with_context(|| format!("{fault}: opened anew"))?;
        let receipt = stream.close()?;
        assert_eq!(receipt.device.kind, "cpu", "{fault}");
        assert_eq!(codes(&receipt.rejected), [wanted], "{fault}");
        assert_eq!(receipt.steps, 1, "{fault}");
        assert!(receipt.placement_read_back && receipt.local, "{receipt:?}");
    }
    Ok(())
}

#[test]
fn whoever_insists_on_a_device_hears_that_it_is_lost() -> Result<()> {
    let machine = Machine::new("lost_after=1", "ranked")?;
    let client = machine.daemon.client()?;
    let options = WorkOptions {
        require_provider: Some(PROVIDER.into()),
        ..WorkOptions::default()
    };
    assert_eq!(run(&client, &options)?.device.kind, "npu");
    let refused = run(&client, &options).expect_err("the device is lost");
    assert!(format!("{refused:#}").contains("device"), "{refused:#}");
    // A new process has it back.
    assert_eq!(run(&client, &options)?.device.kind, "npu");
    Ok(())
}
