//! Workers that die, hang or run out of room, clients that die or do not read, a daemon that is
//! told to leave: what clients see of it, and what is left behind.

#[path = "faults/common.rs"]
mod common;
#[path = "faults/processes.rs"]
mod processes;
#[path = "faults/room.rs"]
mod room;

use anyhow::{Context, Result, bail, ensure};
use common::{ADD, FOR_EVER, VOCAB, adds_one, eventually, question, serve, tensor, text};
use mote_client::{
    Buffer, Client, ClientError, DType, Done, Generation, GenerationEvent, Input, Priority, Status,
    Stream, WorkOptions,
};
use processes::{client_mappings, ends, is_alive, kill_at_once, worker_of};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

/// Names the daemon's socket to the process that plays a client.
const CLIENT_SOCKET: &str = "MOTE_TEST_CLIENT_SOCKET";
const BUFFER_BYTES: u64 = 1 << 20;

/// What the text models say after `t1`: with all tokens so far adding up to 2^n - 1, the next one
/// is 2^n.
fn answer(tokens: usize) -> Vec<u32> {
    let powers = std::iter::successors(Some(2), |power| Some(power * 2 % VOCAB));
    powers.take(tokens).collect()
}

/// Reads up to `count` tokens and not more.
fn read_tokens(generation: &mut Generation, count: usize) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    while ids.len() < count {
        match generation.next().context("the answer ended")?? {
            GenerationEvent::Token(token) => ids.push(token.id),
            GenerationEvent::Done(_) => bail!("the answer ended"),
            GenerationEvent::Accepted { .. } | GenerationEvent::Progress(_) => {}
        }
    }
    Ok(ids)
}

fn read_all(generation: Generation) -> Result<(Vec<u32>, Box<Done>)> {
    let mut ids = Vec::new();
    for event in generation {
        match event? {
            GenerationEvent::Token(token) => ids.push(token.id),
            GenerationEvent::Done(done) => return Ok((ids, done)),
            GenerationEvent::Accepted { .. } | GenerationEvent::Progress(_) => {}
        }
    }
    bail!("the answer has no end")
}

/// How a call that must not succeed was refused.
fn refusal<T>(result: Result<T>) -> Result<Status> {
    match result {
        Ok(_) => bail!("it went well"),
        Err(error) => match error.downcast::<ClientError>()? {
            ClientError::Refused(status) => Ok(status),
            other => Err(other.into()),
        },
    }
}

fn credit(credit: u32) -> WorkOptions {
    WorkOptions {
        credit,
        ..WorkOptions::default()
    }
}

#[test]
fn the_answer_of_a_killed_worker_goes_on() -> Result<()> {
    let (daemon, _store) = serve(&[
        text("one", "step_ms = 20\n"),
        text("other", "step_ms = 20\n"),
    ])?;
    let (client, watcher) = (daemon.client()?, daemon.client()?);
    // Little credit keeps either from being over before the worker is killed.
    let mut one = client.generate(question("one", 40, credit(8)))?;
    let mut other = client.generate(question("other", 40, credit(8)))?;
    let mut ids = read_tokens(&mut one, 5)?;
    let mut other_ids = read_tokens(&mut other, 5)?;
    let pid = worker_of(&watcher, "one")?;
    let other_pid = worker_of(&watcher, "other")?;
    kill_at_once(pid)?;
    let (rest, done) = read_all(one)?;
    ids.extend(rest);
    assert_eq!(ids, answer(40));
    assert_eq!(done.receipt.retries, 1);
    assert_eq!(done.receipt.generated_tokens, 40);
    let (rest, done) = read_all(other)?;
    other_ids.extend(rest);
    assert_eq!(other_ids, answer(40));
    assert_eq!(done.receipt.retries, 0);
    assert_ne!(worker_of(&watcher, "one")?, pid);
    assert_eq!(worker_of(&watcher, "other")?, other_pid);
    Ok(())
}

#[test]
fn a_job_whose_worker_crashed_once_is_done_by_another() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let marker = folder.path().join("crashed");
    let script = format!("{ADD}crash_at_run = 1\nfault_marker = {marker:?}\n");
    let (daemon, _store) = serve(&[tensor("model", &script)])?;
    let client = daemon.client()?;
    assert_eq!(adds_one(&client, "model")?.retries, 1);
    assert_eq!(adds_one(&client, "model")?.retries, 0);
    Ok(())
}

#[test]
fn a_job_that_crashes_one_provider_is_done_on_the_next() -> Result<()> {
    let script = format!("{ADD}crash_at_run = 1\nfault_provider = \"fake-npu\"\n");
    let mut model = tensor("model", &script);
    model.variant = "memory_bytes = 1000000\n";
    let (daemon, _store) = serve(&[model])?;
    let receipt = adds_one(&daemon.client()?, "model")?;
    assert!(receipt.retries >= 1);
    assert_eq!(receipt.device.id, "cpu");
    assert_eq!(receipt.placement[0].provider, "fake-cpu");
    let npu = receipt
        .rejected
        .iter()
        .find(|one| one.provider == "fake-npu");
    let npu = npu.context("the receipt does not say what became of the NPU")?;
    assert_eq!(npu.reason.code, "quarantined");
    Ok(())
}

#[test]
fn a_model_that_keeps_crashing_is_put_aside() -> Result<()> {
    let script = format!("{ADD}crash_at_run = 1\n");
    let (daemon, _store) = serve(&[tensor("deadly", &script), tensor("sound", ADD)])?;
    let client = daemon.client()?;
    let sigabrt = Status::WorkerDied {
        signal: 6,
        exit_code: 0,
    };
    assert_eq!(refusal(adds_one(&client, "deadly"))?, sigabrt);
    let status = refusal(adds_one(&client, "deadly"))?;
    let Status::NoBackend { rejected } = &status else {
        bail!("{status:?}")
    };
    assert!(
        rejected.iter().any(|one| one.reason.code == "quarantined"),
        "{rejected:?}"
    );
    let explanation = client.explain("deadly", &WorkOptions::default())?;
    assert_eq!(explanation.chosen, None);
    let of_cpu = explanation
        .rejected
        .iter()
        .find(|one| one.provider == "fake-cpu");
    assert_eq!(
        of_cpu.context("the CPU is not explained")?.reason.code,
        "quarantined"
    );
    assert!(!explanation.notes.is_empty());
    adds_one(&client, "sound")?;
    // Looking at everything anew is a fresh start.
    client.probe_devices()?;
    let explanation = client.explain("deadly", &WorkOptions::default())?;
    assert!(explanation.chosen.is_some());
    Ok(())
}

#[test]
fn a_model_that_ends_its_worker_at_load_is_refused() -> Result<()> {
    let (daemon, _store) = serve(&[tensor("deadly", "exit_at_load = 3\n"), tensor("sound", ADD)])?;
    let client = daemon.client()?;
    let status = refusal(adds_one(&client, "deadly"))?;
    let is_told = match &status {
        Status::WorkerDied { exit_code, .. } => *exit_code == 3,
        Status::NoBackend { rejected } => {
            rejected.iter().any(|one| one.reason.code == "quarantined")
        }
        _ => false,
    };
    assert!(is_told, "{status:?}");
    adds_one(&client, "sound")?;
    Ok(())
}

#[test]
fn a_run_that_fails_costs_neither_worker_nor_model() -> Result<()> {
    let script = format!("{ADD}fail_at_run = 2\n");
    let (daemon, _store) = serve(&[tensor("model", &script)])?;
    let client = daemon.client()?;
    adds_one(&client, "model")?;
    let pid = worker_of(&client, "model")?;
    let status = refusal(adds_one(&client, "model"))?;
    assert!(matches!(status, Status::ComputeFailed { .. }), "{status:?}");
    assert_eq!(adds_one(&client, "model")?.retries, 0);
    assert_eq!(worker_of(&client, "model")?, pid);
    Ok(())
}

#[test]
fn a_worker_that_ignores_a_cancel_is_killed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let marker = folder.path().join("hung");
    let deaf = format!("hang_at_run = 4\nignore_cancel = true\nfault_marker = {marker:?}\n");
    let (daemon, _store) = serve(&[text("deaf", &deaf), text("other", "step_ms = 5\n")])?;
    let client = daemon.client()?;
    let mut hung = client.generate(question("deaf", 20, credit(8)))?;
    let mut other = client.generate(question("other", 40, credit(8)))?;
    let mut other_ids = read_tokens(&mut other, 3)?;
    assert_eq!(read_tokens(&mut hung, 3)?, answer(3));
    eventually("it hangs", || Ok(marker.exists()))?;
    let (pid, other_pid) = (worker_of(&client, "deaf")?, worker_of(&client, "other")?);
    hung.canceller().cancel()?;
    assert_eq!(refusal(read_all(hung))?, Status::Cancelled);
    ends(pid)?;
    let (rest, done) = read_all(other)?;
    other_ids.extend(rest);
    assert_eq!((other_ids, done.receipt.retries), (answer(40), 0));
    assert_eq!(worker_of(&client, "other")?, other_pid);
    let again = client.generate(question("deaf", 20, WorkOptions::default()))?;
    assert_eq!(read_all(again)?.0, answer(20));
    Ok(())
}

fn push(stream: &mut Stream, buffer: &Buffer) -> Result<(), ClientError> {
    stream
        .push(&[Input::buffer("x", DType::F32, &[1, 1024], buffer)], &[])
        .map(drop)
}

/// The client that `a_killed_client_leaves_nothing_behind` kills.
#[test]
#[ignore = "a process of another test"]
#[allow(clippy::print_stdout, reason = "the other test waits for the word")]
fn a_client_process() -> Result<()> {
    let socket = std::env::var_os(CLIENT_SOCKET).context("it is run by another test")?;
    let client = Client::connect(socket, "to be killed")?;
    let mut stream = client.open_stream("stream", &WorkOptions::default())?;
    let buffer = stream.buffer(BUFFER_BYTES)?;
    push(&mut stream, &buffer)?;
    let job_buffer = client.buffer(BUFFER_BYTES)?;
    std::thread::scope(|scope| {
        let job = scope.spawn(|| {
            let input = Input::buffer("x", DType::F32, &[1, 1024], &job_buffer);
            client.infer("slow", &[input], &[], &WorkOptions::default())
        });
        eventually("the job runs", || Ok(client.status()?.jobs_running == 1))?;
        println!("\nready");
        while !job.is_finished() {
            push(&mut stream, &buffer)?;
        }
        bail!("the job has ended")
    })
}

#[test]
fn a_killed_client_leaves_nothing_behind() -> Result<()> {
    let (daemon, _store) = serve(&[tensor("stream", ADD), tensor("slow", FOR_EVER)])?;
    let watcher = daemon.client()?;
    for model in ["stream", "slow"] {
        watcher.load(model, &WorkOptions::default())?;
    }
    // The first time is for what is made once and kept.
    let mut before = None;
    for _ in 0..4 {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--exact", "a_client_process", "--ignored", "--nocapture"]);
        command.env(CLIENT_SOCKET, daemon.socket());
        let mut client = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let output = BufReader::new(client.stdout.take().context("it has an output")?);
        let is_ready = output
            .lines()
            .map_while(Result::ok)
            .any(|line| line == "ready");
        let pids = [
            daemon.pid(),
            worker_of(&watcher, "stream")?,
            worker_of(&watcher, "slow")?,
        ];
        let mapped = client_mappings(pids[1])? + client_mappings(pids[2])?;
        client.kill()?;
        client.wait()?;
        ensure!(is_ready, "the client did not get far enough to be killed");
        assert_eq!(mapped, 2, "a buffer of the stream and one of the job");
        eventually("nothing is left of it", || {
            let status = watcher.status()?;
            let jobs = status.jobs_running + status.jobs_queued;
            Ok((jobs, status.streams, status.buffers, status.connections) == (0, 0, 0, 1))
        })?;
        for pid in pids {
            eventually("its memory is unmapped", || Ok(client_mappings(pid)? == 0))?;
        }
        match before {
            None => {
                before = Some([
                    common::settled_descriptors(pids[0])?,
                    common::settled_descriptors(pids[1])?,
                    common::settled_descriptors(pids[2])?,
                ]);
            }
            Some(before) => {
                for (pid, before) in pids.into_iter().zip(before) {
                    common::settles_at(pid, before)?;
                }
            }
        }
    }
    Ok(())
}

/// A daemon in the middle of a job, an answer and a stream.
fn leaves(
    kill: impl FnOnce(&mut mote_tests::daemon::Daemon) -> Result<()>,
) -> Result<Vec<ClientError>> {
    let (mut daemon, _store) = serve(&[
        text("hangs", "hang_at_run = 4\nignore_cancel = true\n"),
        text("answers", "step_ms = 50\n"),
        tensor("stream", ADD),
    ])?;
    let client = daemon.client()?;
    let mut hangs = client.generate(question("hangs", 40, WorkOptions::default()))?;
    let mut answers = client.generate(question("answers", 1000, WorkOptions::default()))?;
    let mut stream = client.open_stream("stream", &WorkOptions::default())?;
    let buffer = stream.buffer(BUFFER_BYTES)?;
    push(&mut stream, &buffer)?;
    read_tokens(&mut hangs, 3)?;
    read_tokens(&mut answers, 3)?;
    let pids: Vec<i32> = client
        .status()?
        .workers
        .iter()
        .map(|worker| worker.pid)
        .collect();
    assert_eq!(pids.len(), 3);
    kill(&mut daemon)?;
    let mut errors = Vec::new();
    for generation in [hangs, answers] {
        let error = generation.filter_map(Result::err).next();
        errors.push(error.context("an answer ended as if nothing had happened")?);
    }
    let pushed = (0..1000).find_map(|_| push(&mut stream, &buffer).err());
    errors.push(pushed.context("the stream goes on")?);
    for pid in pids {
        ends(pid)?;
    }
    Ok(errors)
}

#[test]
fn sigterm_ends_everything_in_good_order() -> Result<()> {
    let errors = leaves(|daemon| {
        let status = daemon.terminate()?;
        assert_eq!(status.code(), Some(0));
        assert!(!daemon.socket().exists());
        Ok(())
    })?;
    for error in &errors[..2] {
        assert_eq!(error.status(), Some(&Status::ShuttingDown), "{error:?}");
    }
    let of_stream = &errors[2];
    let is_told = matches!(
        of_stream,
        ClientError::Closed | ClientError::Refused(Status::ShuttingDown | Status::Revoked { .. })
    );
    assert!(is_told, "{of_stream:?}");
    Ok(())
}

#[test]
fn workers_leave_with_a_killed_daemon() -> Result<()> {
    let errors = leaves(|daemon| {
        let pid = daemon.pid();
        kill_at_once(pid)?;
        ends(pid)
    })?;
    for error in errors {
        assert!(matches!(error, ClientError::Closed), "{error:?}");
    }
    Ok(())
}

#[test]
fn the_urgent_goes_before_what_is_in_the_background() -> Result<()> {
    const TOKENS: u32 = 500;
    let (daemon, _store) = serve(&[text("text", "step_ms = 10\n"), tensor("tensor", ADD)])?;
    let client = daemon.client()?;
    adds_one(&client, "tensor")?;
    let of = |priority| WorkOptions {
        priority,
        credit: 256,
        ..WorkOptions::default()
    };
    let mut background = client.generate(question("text", TOKENS, of(Priority::Background)))?;
    let begun = read_tokens(&mut background, 1)?;
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let reader = scope.spawn(|| {
            let result = read_all(background);
            is_over.store(true, Ordering::SeqCst);
            result
        });
        let interactive = client.generate(question("text", 5, of(Priority::Interactive)))?;
        let (ids, done) = read_all(interactive)?;
        let was_over = is_over.load(Ordering::SeqCst);
        assert_eq!((ids, done.receipt.preemptions), (answer(5), 0));
        assert!(!was_over, "the urgent job waited for the other");
        let (rest, done) = reader.join().expect("the reader does not panic")?;
        assert_eq!([begun, rest].concat(), answer(TOKENS as usize));
        assert!(done.receipt.preemptions >= 1);
        assert_eq!(done.receipt.retries, 0);
        Ok(())
    })
}

#[test]
fn clients_that_do_not_read_halt_their_own_jobs_only() -> Result<()> {
    let (daemon, _store) = serve(&[text("text", ""), tensor("tensor", ADD)])?;
    let (lazy, busy) = (daemon.client()?, daemon.client()?);
    let unread: Vec<_> = (0..4)
        .map(|_| lazy.generate(question("text", 40, credit(2))))
        .collect::<Result<_, _>>()?;
    for client in [&busy, &lazy] {
        let answered = client.generate(question("text", 100, WorkOptions::default()))?;
        assert_eq!(read_all(answered)?.0, answer(100));
        adds_one(client, "tensor")?;
    }
    assert_eq!(
        busy.status()?.jobs_running,
        4,
        "those that are not read have not ended"
    );
    for generation in unread {
        assert_eq!(read_all(generation)?.0, answer(40));
    }
    Ok(())
}

#[test]
fn a_deadline_ends_what_takes_too_long() -> Result<()> {
    let (daemon, _store) = serve(&[tensor("slow", FOR_EVER)])?;
    let client = daemon.client()?;
    client.load("slow", &WorkOptions::default())?;
    let pid = worker_of(&client, "slow")?;
    let options = WorkOptions {
        deadline_ms: Some(200),
        ..WorkOptions::default()
    };
    let input = Input::bytes("x", DType::F32, &[1, 1], &[0; 4]);
    let result = client.infer("slow", &[input], &[], &options);
    let status = refusal(result.map_err(Into::into))?;
    assert_eq!(status, Status::DeadlineExceeded { deadline_ms: 200 });
    assert_eq!(client.status()?.jobs_running, 0);
    assert!(is_alive(pid), "a worker that heeds the cancel is kept");
    Ok(())
}

#[test]
fn an_unload_revokes_open_streams() -> Result<()> {
    let (daemon, _store) = serve(&[tensor("stream", ADD)])?;
    let client = daemon.client()?;
    let mut stream = client.open_stream("stream", &WorkOptions::default())?;
    let buffer = stream.buffer(BUFFER_BYTES)?;
    push(&mut stream, &buffer)?;
    let pid = worker_of(&client, "stream")?;
    client.unload("stream")?;
    ends(pid)?;
    let status = refusal(push(&mut stream, &buffer).map_err(Into::into))?;
    assert!(matches!(status, Status::Revoked { .. }), "{status:?}");
    let status = client.status()?;
    assert_eq!((status.streams, status.workers.len()), (0, 0));
    let mut stream = client.open_stream("stream", &WorkOptions::default())?;
    stream.register(&buffer)?;
    push(&mut stream, &buffer)?;
    Ok(())
}

#[test]
fn a_receipt_tells_which_variant_was_passed_over() -> Result<()> {
    let mut model = tensor("model", ADD);
    let broken = format!("{ADD}fail_load = \"as scripted\"\n");
    model.scripts.insert(0, broken);
    let (daemon, _store) = serve(&[model])?;
    let client = daemon.client()?;
    let receipt = adds_one(&client, "model")?;
    assert_eq!((receipt.variant.as_str(), receipt.retries), ("v1", 0));
    let of_cpu = |one: &&mote_client::Rejected| one.provider == "fake-cpu" && one.variant == "v0";
    let passed_over = receipt.rejected.iter().find(of_cpu);
    let reason = &passed_over
        .context("the receipt keeps it to itself")?
        .reason;
    assert_eq!(reason.code, "load_failed");
    assert!(reason.message.contains("as scripted"), "{reason:?}");
    let explanation = client.explain("model", &WorkOptions::default())?;
    assert_eq!(explanation.chosen.context("it can run")?.variant, "v1");
    assert!(explanation.rejected.iter().any(|one| of_cpu(&one)));
    Ok(())
}
