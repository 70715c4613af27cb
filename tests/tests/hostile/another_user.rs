//! A hostile program of another user beside one that works: it neither sees nor disturbs it, and
//! gets no more than its share.

use crate::common::{FOR_EVER, adds_one, eventually, question, serve, tensor, text};
use crate::raw::{Raw, Said};
use anyhow::{Context, Result, bail, ensure};
use mote_client::{Client, ClientError, GenerationEvent, Status, WorkOptions};
use mote_wire::Memfd;
use mote_wire::types::{
    BufferRange, DType, EventKind, Infer, RegisterBuffer, Reply, Request, Tensor, TensorData,
};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The user that nobody is.
const NOBODY: u32 = 65_534;
/// Where the attacker finds the daemon.
const SOCKET: &str = "MOTE_TEST_ATTACKED_SOCKET";
/// Connections the attacker tries to get, and what it may have.
const CONNECTIONS: usize = 200;
const CONNECTIONS_MAX: usize = 128;
/// Numbers it guesses: of requests, buffers.
const GUESSES: u64 = 64;
const JOBS_EACH: u64 = 12;
const TOKENS: u32 = 400;

#[test]
#[allow(clippy::print_stderr, reason = "a test that cannot run here says so")]
fn another_user_neither_sees_nor_disturbs() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can start a program as another user");
        return Ok(());
    }
    let (daemon, _store) = serve(&[
        text("chat", "step_ms = 10\n"),
        tensor("add", "compute = { add = 1.0 }\n"),
        tensor("slow", FOR_EVER),
    ])?;
    // As the socket of a system service is for its group.
    let folder = daemon.socket();
    let folder = folder.parent().context("a folder")?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
    std::fs::set_permissions(daemon.socket(), std::fs::Permissions::from_mode(0o666))?;

    let client = daemon.client()?;
    client.pin("add")?;
    adds_one(&client, "add")?;
    let mut secret = client.buffer(1 << 20)?;
    secret.with_slice_mut(|bytes| bytes.fill(0x5e));
    let mut answer = client.generate(question("chat", TOKENS, WorkOptions::default()))?;
    let mut ids = Vec::new();
    while ids.len() < 3 {
        if let GenerationEvent::Token(token) = answer.next().context("it ended")?? {
            ids.push(token.id);
        }
    }

    let mut attacker = attacker(&daemon.socket())?;
    let output = BufReader::new(attacker.stdout.take().context("an output")?);
    let mut lines = output.lines().map_while(Result::ok);
    let ready = lines.any(|line| line == "under attack");
    // While the attacker's jobs, connections and buffers are all there, work goes on.
    if ready {
        let status = client.status()?;
        let flood = (status.connections, status.jobs_queued, status.buffers);
        assert!(flood.0 > 100 && flood.1 > 200 && flood.2 > 200, "{flood:?}");
        for _ in 0..5 {
            adds_one(&client, "add").context("under attack")?;
        }
        adds_one(&daemon.client().context("a new connection")?, "add")?;
    }
    for event in answer.by_ref() {
        match event? {
            GenerationEvent::Token(token) => ids.push(token.id),
            GenerationEvent::Done(done) => assert_eq!(done.receipt.retries, 0),
            _ => {}
        }
    }
    drop(attacker.stdin.take());
    let status = attacker.wait()?;
    let mut said = String::new();
    attacker
        .stderr
        .take()
        .context("errors")?
        .read_to_string(&mut said)?;
    ensure!(ready && status.success(), "the attacker: {said}");
    assert_eq!(ids.len(), TOKENS as usize);
    secret.with_slice(|bytes| assert!(bytes.iter().all(|byte| *byte == 0x5e)));
    eventually("nothing is left of the attack", || {
        let status = client.status()?;
        let left = (status.connections, status.streams, status.buffers);
        Ok(left == (1, 0, 1) && status.jobs_running + status.jobs_queued == 0)
    })?;
    adds_one(&client, "add")?;
    Ok(())
}

/// Starts [`the_attacker`] as another user, who may not be able to read where this program lies.
fn attacker(socket: &Path) -> Result<std::process::Child> {
    let folder = socket.parent().context("a folder")?;
    let program: PathBuf = folder.join("attacker");
    mote_tests::copy_program(&std::env::current_exe()?, &program)?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    Command::new(program)
        .args([
            "--exact",
            "another_user::the_attacker",
            "--ignored",
            "--nocapture",
        ])
        .env(SOCKET, socket)
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start the attacker")
}

#[test]
#[ignore = "a process of another test"]
#[allow(clippy::print_stdout, reason = "the other test waits for the word")]
fn the_attacker() -> Result<()> {
    let socket = std::env::var_os(SOCKET).context("it is run by another test")?;
    let socket = Path::new(&socket);
    ensure!(
        nix::unistd::geteuid().as_raw() == NOBODY,
        "it must be another user"
    );
    guess(socket).context("guessing numbers")?;
    command_others(socket).context("commands that are not for it")?;
    let watcher = Client::connect(socket, "attacker")?;
    let mut flood = flood(socket).context("flooding")?;
    println!("\nunder attack");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    // What others did meanwhile was theirs alone to hear of.
    for event in watch_for(&watcher, Duration::from_millis(200))? {
        if let EventKind::JobStarted { model, .. } | EventKind::JobEnded { model, .. } = event {
            ensure!(model == "slow", "it heard of a job on {model}");
        }
    }
    flood.clear();
    Ok(())
}

/// Numbers of requests and buffers that are another's.
fn guess(socket: &Path) -> Result<()> {
    let mut raw = Raw::greeted_at(socket)?;
    let mut id = 10;
    let mut ask = |request: Request| -> Result<Reply> {
        id += 1;
        raw.ask(id, request)?;
        loop {
            match raw.next()? {
                Said::Answer(of, reply) if of == id && reply.closes() => return Ok(reply),
                Said::Answer(..) => {}
                Said::Closed => bail!("the connection was closed"),
            }
        }
    };
    for number in 1..GUESSES {
        // Told in good order and without effect: the numbers are this connection's own.
        raw_ok(ask(Request::Cancel { target: number })?)?;
        let unregistered = ask(Request::UnregisterBuffer { buffer: number })?;
        ensure!(is_invalid(&unregistered), "{unregistered:?}");
        let range = BufferRange {
            buffer: number,
            offset: 0,
            bytes: 16,
        };
        let stolen = ask(Request::Infer(Infer {
            model: "add".into(),
            inputs: vec![Tensor {
                name: "x".into(),
                dtype: DType::F32,
                shape: vec![1, 4],
                data: TensorData::Range(range),
            }],
            outputs: Vec::new(),
            options: WorkOptions::default(),
        }))?;
        ensure!(is_invalid(&stolen), "{stolen:?}");
    }
    Ok(())
}

fn raw_ok(reply: Reply) -> Result<()> {
    ensure!(matches!(reply, Reply::Ok), "{reply:?}");
    Ok(())
}

fn is_invalid(reply: &Reply) -> bool {
    matches!(reply, Reply::Failed(Status::Invalid { .. }))
}

/// Unloading what others use.
fn command_others(socket: &Path) -> Result<()> {
    let client = Client::connect(socket, "attacker")?;
    for model in ["chat", "add"] {
        match client.unload(model) {
            Err(ClientError::Refused(Status::Busy { .. } | Status::Invalid { .. })) => {}
            other => bail!("unloading {model}: {other:?}"),
        }
    }
    Ok(())
}

/// As many connections, buffers and jobs as it can get; it never reads what they say.
fn flood(socket: &Path) -> Result<Vec<Raw>> {
    let mut held = Vec::new();
    let mut refused = 0;
    for _ in 0..CONNECTIONS {
        match Raw::greeted_at(socket) {
            Ok(raw) => held.push(raw),
            Err(_) => refused += 1,
        }
    }
    ensure!(
        held.len() <= CONNECTIONS_MAX && refused >= CONNECTIONS - CONNECTIONS_MAX,
        "{} connections were served, {refused} refused",
        held.len()
    );
    for raw in &mut held {
        raw.send_for_at_most(Duration::from_secs(5))?;
        for buffer in 0..4 {
            let memory = Memfd::create("flood", 1 << 20)?;
            let register = Request::RegisterBuffer(RegisterBuffer {
                buffer,
                bytes: 1 << 20,
                writable: false,
                fd: memory.try_clone_fd()?,
            });
            raw.ask(100 + buffer, register)?;
        }
        for job in 0..JOBS_EACH {
            let slow = Request::Infer(Infer {
                model: "slow".into(),
                inputs: vec![Tensor {
                    name: "x".into(),
                    dtype: DType::F32,
                    shape: vec![1, 4],
                    data: TensorData::Inline(vec![0; 16]),
                }],
                outputs: Vec::new(),
                options: WorkOptions::default(),
            });
            raw.ask(1_000 + job, slow)?;
        }
    }
    Ok(held)
}

/// Events that come within a time.
fn watch_for(client: &Client, time: Duration) -> Result<Vec<EventKind>> {
    let watch = client.watch()?;
    let canceller = watch.canceller();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(time);
            // Its end is what is waited for below.
            let _ = canceller.cancel();
        });
        let mut kinds = Vec::new();
        for event in watch {
            match event {
                Ok(event) => kinds.push(event.kind),
                Err(ClientError::Refused(Status::Cancelled)) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(kinds)
    })
}
