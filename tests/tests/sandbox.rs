//! The worker's sandbox: what a worker needs works in it, and what one that was taken over would
//! try does not. Each attempt is made in a process of its own that enters the sandbox as a worker
//! does (`mote-sandbox-test`), and without it too, where it has to succeed.

use anyhow::{Context, Result};
use mote_client::{Client, ClientError, DType, Input, Status, WorkOptions};
use mote_tests::binary;
use mote_tests::daemon::{Daemon, Setup};
use mote_wire::types::{Sandbox, SandboxState};
use nix::libc::{EACCES, ENOSYS, ENOTTY, EPERM};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
/// The first of the attempts that must fail.
const FIRST_ATTACK: &str = "read secret";
/// Attempts that some machines forbid to all.
const FORBIDDEN_HERE_PERHAPS: &[&str] = &["make user namespace"];
const NOBODY: u32 = 65_534;

/// What an attempt may try its teeth on.
struct Place {
    folder: tempfile::TempDir,
    tcp: TcpListener,
    _service: UnixListener,
}

impl Place {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path();
        for sub in ["model", "compiled"] {
            std::fs::create_dir(path.join(sub))?;
        }
        for file in ["model/weights", "model/other", "secret"] {
            std::fs::write(path.join(file), "text")?;
        }
        for open in [
            ".",
            "model",
            "compiled",
            "model/weights",
            "model/other",
            "secret",
        ] {
            let mode = std::fs::Permissions::from_mode(0o777);
            std::fs::set_permissions(path.join(open), mode)?;
        }
        let service = UnixListener::bind(path.join("socket"))?;
        let mode = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(path.join("socket"), mode)?;
        Ok(Self {
            tcp: TcpListener::bind("127.0.0.1:0")?,
            _service: service,
            folder,
        })
    }

    fn command(&self, mode: &str) -> Result<Command> {
        let mut command = Command::new(binary("mote-sandbox-test")?);
        command.arg(mode).arg(self.folder.path());
        Ok(command)
    }

    /// Makes all attempts; answers what became of each, in their order.
    fn attempts(&self, mut command: Command) -> Result<Vec<(String, String)>> {
        let port = self.tcp.local_addr()?.port();
        let output = command.arg(port.to_string()).output()?;
        anyhow::ensure!(output.status.success(), "{output:?}");
        let lines = String::from_utf8(output.stdout)?;
        let parse = |line: &str| {
            let (name, outcome) = line.split_once('=').context("NAME=OUTCOME")?;
            Ok((name.to_owned(), outcome.to_owned()))
        };
        lines.lines().map(parse).collect()
    }
}

/// What holds of a sandbox here, as a worker says.
fn sandbox_here() -> Result<Sandbox> {
    let output = Command::new(binary("mote-worker-test")?)
        .arg("--report-sandbox")
        .env_remove("MOTE_SANDBOX")
        .output()?;
    anyhow::ensure!(output.status.success(), "{output:?}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Whether this kernel can do all; says what it cannot.
fn is_whole_here() -> Result<bool> {
    let parts = sandbox_here()?.parts;
    assert!(!parts.is_empty());
    let lacking: Vec<_> = parts
        .iter()
        .filter(|part| part.state != SandboxState::Active)
        .collect();
    if !lacking.is_empty() {
        eprintln!("SKIPPED: this kernel cannot do all of the sandbox: {lacking:?}");
    }
    Ok(lacking.is_empty())
}

fn check_refused(attempts: &[(String, String)]) {
    let refusals = [EPERM, EACCES, ENOSYS, ENOTTY].map(|errno| errno.to_string());
    let first = attempts.iter().position(|(name, _)| name == FIRST_ATTACK);
    let (work, attacks) = attempts.split_at(first.expect("there are attacks"));
    assert!(work.len() > 10 && attacks.len() > 50, "{attempts:?}");
    let failed: Vec<_> = work.iter().filter(|(_, outcome)| outcome != "ok").collect();
    assert!(
        failed.is_empty(),
        "work that fails in the sandbox: {failed:?}"
    );
    let passed = attacks.iter();
    let passed = passed.filter(|(_, outcome)| !refusals.contains(outcome));
    let passed: Vec<_> = passed.collect();
    assert!(
        passed.is_empty(),
        "attacks that are not refused: {passed:?}"
    );
}

#[test]
fn work_is_done_and_attacks_are_refused() -> Result<()> {
    if !is_whole_here()? {
        return Ok(());
    }
    let place = Place::new()?;
    check_refused(&place.attempts(place.command("on")?)?);
    assert_eq!(
        std::fs::read(place.folder.path().join("model/weights"))?,
        b"text"
    );
    Ok(())
}

#[test]
fn without_the_sandbox_the_attacks_succeed() -> Result<()> {
    let place = Place::new()?;
    let attempts = place.attempts(place.command("off")?)?;
    let failed: Vec<_> = attempts
        .iter()
        .filter(|(name, outcome)| {
            outcome != "ok" && !FORBIDDEN_HERE_PERHAPS.contains(&name.as_str())
        })
        .collect();
    assert!(attempts.len() > 40 && failed.is_empty(), "{failed:?}");
    Ok(())
}

/// Root loses its rights on the way in; everybody else has none to begin with.
#[test]
fn the_same_holds_for_a_user_without_rights() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can start a process of another user");
        return Ok(());
    }
    if !is_whole_here()? {
        return Ok(());
    }
    let place = Place::new()?;
    let program = place.folder.path().join("program");
    mote_tests::copy_program(&binary("mote-sandbox-test")?, &program)?;
    let mut command = Command::new(program);
    command.arg("on").arg(place.folder.path());
    command.uid(NOBODY).gid(NOBODY).current_dir("/");
    check_refused(&place.attempts(command)?);
    Ok(())
}

#[test]
fn calls_by_the_numbers_of_another_architecture_end_the_process() -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        eprintln!("SKIPPED: only x86-64 has a second set of numbers that is easy to reach");
        return Ok(());
    }
    let place = Place::new()?;
    let run = |mode: &str| -> Result<Output> { Ok(place.command(mode)?.arg("0").output()?) };
    if !run("off")?.status.success() {
        eprintln!("SKIPPED: this kernel has no 32-bit calls");
        return Ok(());
    }
    let ended = run("on")?.status;
    assert_eq!(ended.signal(), Some(nix::libc::SIGSYS), "{ended:?}");
    Ok(())
}

/// A store with one scripted model, `m`, that adds 1; its file has a digest in the manifest.
fn store() -> Result<tempfile::TempDir> {
    let store = tempfile::tempdir()?;
    let folder = store.path().join("m");
    std::fs::create_dir(&folder)?;
    let script = "compute = { add = 1.0 }\n\
        [[input]]\nname = \"x\"\ndtype = \"f32\"\nshape = [1, -1]\n\
        [[output]]\nname = \"y\"\ndtype = \"f32\"\nshape = [1, -1]\n";
    let digest = mote_api::Digest::of(script.as_bytes());
    std::fs::write(folder.join("v.fake"), script)?;
    let manifest = format!(
        "format = 1\nname = \"m\"\ntask = \"tensor\"\n\
         [[variant]]\nname = \"v\"\nbackend = \"fake\"\nfile = \"v.fake\"\nprecision = \"f32\"\n\
         providers = [\"fake-cpu\"]\nmemory_bytes = 1000000\n\
         [files]\n\"v.fake\" = \"{digest}\"\n"
    );
    std::fs::write(folder.join("mote.toml"), manifest)?;
    Ok(store)
}

fn serve(store: &Path, sandbox_off: bool) -> Result<Daemon> {
    Daemon::start(&Setup {
        stores: vec![store.into()],
        scripted: true,
        sandbox_off,
        ..Setup::default()
    })
}

fn run(client: &Client) -> Result<(), ClientError> {
    let numbers = [1.0f32, 2.0].map(f32::to_ne_bytes).concat();
    let input = Input::bytes("x", DType::F32, &[1, 2], &numbers);
    let result = client.infer("m", &[input], &[], &WorkOptions::default())?;
    let expected = [2.0f32, 3.0].map(f32::to_ne_bytes).concat();
    assert_eq!(result.outputs[0].bytes(), Some(&expected[..]));
    Ok(())
}

/// A field of `/proc/PID/status` or a thread's.
fn field(status: &str, name: &str) -> String {
    let fields = status.lines().filter_map(|line| line.split_once(':'));
    let mut named = fields.filter(|(key, _)| *key == name);
    named
        .next()
        .map_or(String::new(), |(_, value)| value.trim().to_owned())
}

#[test]
fn every_thread_of_a_worker_is_kept_in() -> Result<()> {
    if !is_whole_here()? {
        return Ok(());
    }
    let store = store()?;
    let daemon = serve(store.path(), false)?;
    let client = daemon.client()?;
    run(&client)?;
    let status = client.status()?;
    assert_eq!(status.pid, Some(daemon.pid()));
    let [worker] = status.workers.as_slice() else {
        anyhow::bail!("{} workers", status.workers.len());
    };
    let sandbox = worker.sandbox.as_ref().context("it has loaded its model")?;
    assert!(sandbox.enabled);
    let states: BTreeMap<_, _> = sandbox
        .parts
        .iter()
        .map(|part| (part.name.as_str(), part.state))
        .collect();
    for name in [
        "no_new_privileges",
        "capabilities",
        "private_memory",
        "limits",
        "oom",
        "files",
        "network",
        "system_calls",
    ] {
        assert_eq!(states.get(name), Some(&SandboxState::Active), "{name}");
    }
    let mut threads = 0;
    for task in std::fs::read_dir(format!("/proc/{}/task", worker.pid))? {
        let text = std::fs::read_to_string(task?.path().join("status"))?;
        assert_eq!(field(&text, "Seccomp"), "2");
        assert_eq!(field(&text, "NoNewPrivs"), "1");
        assert_eq!(field(&text, "CapPrm").trim_start_matches('0'), "");
        threads += 1;
    }
    // The engine and the watcher of its inbox at least.
    assert!(threads >= 2, "{threads} threads");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", worker.pid))?;
    let core = limits.lines().find(|line| line.starts_with("Max core"));
    let core: Vec<_> = core.unwrap_or_default().split_whitespace().collect();
    assert_eq!(core.get(4..6), Some(&["0", "0"][..]), "{limits}");
    let score = |pid: i32| -> Result<i32> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj"))?;
        Ok(text.trim().parse()?)
    };
    assert!(score(worker.pid)? > score(daemon.pid())?);
    Ok(())
}

/// Giving up rights must not untie a worker from its broker's life.
#[test]
fn a_worker_still_ends_with_its_broker() -> Result<()> {
    let store = store()?;
    let daemon = serve(store.path(), false)?;
    let client = daemon.client()?;
    run(&client)?;
    let worker = client.status()?.workers[0].pid;
    let broker = nix::unistd::Pid::from_raw(daemon.pid());
    nix::sys::signal::kill(broker, nix::sys::signal::Signal::SIGKILL)?;
    let begun = Instant::now();
    while Path::new(&format!("/proc/{worker}/fd/0"))
        .symlink_metadata()
        .is_ok()
    {
        anyhow::ensure!(begun.elapsed() < PATIENCE, "the worker lives on");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Swaps a model's file for a link out of the store after the catalogue was read: its contents, and
/// so its digest, are those that were promised, so that only the sandbox stands in the way.
fn load_swapped(sandbox_off: bool) -> Result<Result<(), ClientError>> {
    let store = store()?;
    let daemon = serve(store.path(), sandbox_off)?;
    let client = daemon.client()?;
    let outside = tempfile::tempdir()?;
    let (file, moved) = (store.path().join("m/v.fake"), outside.path().join("v.fake"));
    std::fs::copy(&file, &moved)?;
    std::fs::remove_file(&file)?;
    std::os::unix::fs::symlink(&moved, &file)?;
    Ok(run(&client))
}

#[test]
fn a_file_that_is_swapped_for_a_link_out_of_the_store_is_not_read() -> Result<()> {
    load_swapped(true)?.context("without the sandbox it is")?;
    if !is_whole_here()? {
        return Ok(());
    }
    match load_swapped(false)? {
        Err(ClientError::Refused(Status::ModelCorrupt { file, .. })) => assert_eq!(file, "v.fake"),
        other => anyhow::bail!("{other:?}"),
    }
    Ok(())
}

fn doctor(daemon: &Daemon, json: bool) -> Result<Output> {
    let mut command = Command::new(binary("mote")?);
    command.arg("--socket").arg(daemon.socket()).arg("doctor");
    command.args(json.then_some("--json"));
    Ok(command.env_remove("MOTE_SANDBOX").output()?)
}

#[test]
fn the_doctor_finds_what_does_not_hold() -> Result<()> {
    let store = store()?;
    let open = serve(store.path(), true)?;
    run(&open.client()?)?;
    let found = doctor(&open, true)?;
    assert_eq!(found.status.code(), Some(1), "{found:?}");
    let report: serde_json::Value = serde_json::from_slice(&found.stdout)?;
    let problems = report["problems"].as_array().context("problems")?;
    let named = problems.iter().filter_map(|problem| problem.as_str());
    assert_eq!(
        named.filter(|text| text.contains("switched off")).count(),
        1
    );
    let worker = &report["sandbox"]["workers"][0];
    assert_eq!(worker["sandbox"]["enabled"], false);
    assert_eq!(worker["process"]["kernel"]["seccomp"], "none");

    if !is_whole_here()? {
        return Ok(());
    }
    let kept = serve(store.path(), false)?;
    run(&kept.client()?)?;
    let found = doctor(&kept, true)?;
    assert!(found.status.success(), "{found:?}");
    let report: serde_json::Value = serde_json::from_slice(&found.stdout)?;
    assert_eq!(report["problems"], serde_json::json!([]));
    let worker = &report["sandbox"]["workers"][0];
    assert_eq!(worker["process"]["kernel"]["seccomp"], "filter");
    assert_eq!(report["sandbox"]["broker"]["pid"], kept.pid());
    let told = doctor(&kept, false)?;
    assert!(told.status.success());
    assert!(String::from_utf8(told.stdout)?.contains("all is well"));
    Ok(())
}
