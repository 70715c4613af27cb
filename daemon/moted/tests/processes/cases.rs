//! What is played.
#![allow(clippy::print_stdout, reason = "a test that cannot run here says so")]

use crate::client::{Client, Daemon, ON_DEVICE, PATIENCE, eventually, is_alive};
use crate::power;
use crate::worker::{FRAIL, PLAIN, TOKENS};
use mote_wire::codec::{frame_to_reply, request_to_frame};
use mote_wire::types::{
    Hello, OpenStream, Reply, Request, Status, StreamPush, WorkOptions, WorkerState,
};
use mote_wire::{Connection, Link};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;

type Case = fn();

pub const ALL: &[(&str, Case)] = &[
    (
        "an_answer_streams_and_its_receipt_says_where_from",
        an_answer,
    ),
    ("probes_are_remembered", probes_are_remembered),
    (
        "a_provider_that_ends_its_probe_costs_the_others_nothing",
        providers_that_end_their_probe,
    ),
    (
        "a_dead_workers_answer_goes_on",
        a_dead_workers_answer_goes_on,
    ),
    (
        "a_worker_killed_by_hand_is_replaced",
        a_worker_killed_by_hand,
    ),
    ("a_job_that_kills_every_worker_fails", a_deadly_job),
    (
        "a_client_that_leaves_takes_its_job_along",
        a_client_that_leaves,
    ),
    ("a_deaf_worker_is_killed", a_deaf_worker),
    ("a_stream_reaches_its_worker", a_stream),
    ("a_dead_workers_stream_says_why", a_dead_stream),
    (
        "a_stream_of_a_lost_device_opens_anew_elsewhere",
        a_lost_stream,
    ),
    (
        "hostile_bytes_close_their_own_connection_only",
        hostile_bytes,
    ),
    (
        "a_client_that_never_reads_is_cut_off",
        a_client_that_never_reads,
    ),
    (
        "connections_beyond_the_limit_are_refused",
        too_many_connections,
    ),
    ("sigterm_leaves_nothing_behind", sigterm),
    ("sigkill_takes_the_workers_along", sigkill),
    ("a_service_manager_hears_of_every_change", a_service_manager),
    ("what_runs_may_end_when_the_daemon_drains", draining),
    ("an_inherited_socket_is_served_and_left", inherited_socket),
    ("a_closed_stdin_ends_a_private_daemon", closed_stdin),
    ("a_second_daemon_is_refused", second_daemon),
    ("idle_means_idle", idle),
    ("heat_shows_in_receipts", power::heat_in_receipts),
    ("profile_and_supply_are_followed", power::profile_and_supply),
    (
        "sleep_waits_for_jobs_and_jobs_wait_for_its_end",
        power::sleep,
    ),
    ("services_for_power_do_not_wake_it", power::idle_on_the_bus),
    ("a_worker_has_a_control_group_of_its_own", own_control_group),
];

fn tokens(replies: &[Reply]) -> Vec<u32> {
    let ids = replies.iter().filter_map(|reply| match reply {
        Reply::Token(token) => Some(token.id),
        _ => None,
    });
    ids.collect()
}

fn whole_answer() -> Vec<u32> {
    (0..TOKENS).collect()
}

fn an_answer() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let id = client.generate("plain");
    let replies = client.all(id);
    assert_eq!(tokens(&replies), whole_answer());
    let Some(Reply::Done(done)) = replies.last() else {
        panic!("{replies:?}")
    };
    assert_eq!(
        (
            done.receipt.backend.as_str(),
            done.receipt.device.id.as_str()
        ),
        ("tract", "cpu")
    );
    assert!(done.receipt.total_us >= done.receipt.load_us && done.receipt.load_us > 0);
    let report = client.status();
    assert_eq!(report.workers.len(), 1);
    assert_eq!(report.workers[0].state, WorkerState::Ready);
    assert!(report.workers[0].rss_bytes > 0 && report.rss_bytes > 0);
    let id = client.generate("plan");
    assert!(
        matches!(client.failure(id), Status::ModelNotFound { similar, .. } if similar == ["plain"])
    );
}

fn probes_are_remembered() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let id = client.ask(Request::ListDevices { refresh: false });
    let Reply::DeviceList(devices) = client.next(id) else {
        panic!("a list")
    };
    let found: Vec<_> = devices
        .iter()
        .map(|d| (d.flavour.as_str(), d.absence.is_none()))
        .collect();
    assert_eq!(
        found,
        [
            ("tract", true),
            ("tract", true),
            ("onnxruntime-cpu", false),
            ("tflite", false)
        ]
    );
    let kept = std::fs::read_to_string(daemon.state().join("probes.json")).expect("kept");
    assert!(kept.contains("plain"), "{kept}");
}

fn providers_that_end_their_probe() {
    let daemon = Daemon::prepare();
    for name in ["torn", "early"] {
        let folder = daemon.runtimes().join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let description = format!(
            "format = 1\nname = \"{name}\"\nbackend = \"fake\"\nversion = \"1\"\n\
             library = \"lib.so\"\nlicence = \"\"\nexpects = [\"leaves\"]\n"
        );
        std::fs::write(folder.join("runtime.toml"), description).expect("a file");
    }
    let mut command = daemon.command();
    command.args(["--probe-limit-ms", "1000"]);
    let daemon = daemon.started_by(&mut command);
    let socket = daemon.socket();
    eventually("the socket is there", || {
        UnixStream::connect(&socket).is_ok()
    });
    let mut client = daemon.client();
    let id = client.ask(Request::ListDevices { refresh: false });
    let Reply::DeviceList(devices) = client.next(id) else {
        panic!("a list")
    };
    let of = |flavour: &str| -> Vec<(String, String, String, bool)> {
        let devices = devices.iter().filter(|one| one.flavour == flavour);
        devices
            .map(|one| {
                let reason = one.absence.clone().expect("none of them works");
                assert!(!reason.next_step.is_empty(), "{reason:?}");
                let told = reason.fields.into_values().collect::<Vec<_>>().join(" ");
                (one.provider.clone(), reason.code, told, one.expected)
            })
            .collect()
    };
    let found = |provider: &str, code: &str, told: &str, expected| {
        (
            provider.to_owned(),
            code.to_owned(),
            told.to_owned(),
            expected,
        )
    };
    assert_eq!(
        of("torn"),
        [
            found("crashes", "probe_crashed", "6", false),
            found("works", "no_device", "", false),
            found("leaves", "probe_failed", "exit code 3", true),
            found("hangs", "probe_timed_out", "1000", false),
        ]
    );
    assert!(
        devices
            .iter()
            .filter(|one| one.flavour == "torn")
            .all(|one| one.library_version == "7")
    );
    // It did not come so far as to say what it would try.
    assert_eq!(of("early"), [found("", "probe_crashed", "6", true)]);
}

fn a_dead_workers_answer_goes_on() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let id = client.generate("dies-once");
    let replies = client.all(id);
    assert_eq!(tokens(&replies), whole_answer());
    let Some(Reply::Done(done)) = replies.last() else {
        panic!("{replies:?}")
    };
    assert_eq!(done.receipt.retries, 1);
}

fn a_worker_killed_by_hand() {
    let daemon = Daemon::start();
    let (mut client, mut other) = (daemon.client(), daemon.client());
    let hanging = client.generate("hangs");
    client.tokens(hanging, 3);
    let pid = other.status().workers[0].pid;
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it lives");
    let fresh = || {
        other
            .status()
            .workers
            .iter()
            .any(|worker| worker.pid != pid && worker.jobs == 1)
    };
    eventually("another worker has the job", fresh);
    assert!(!is_alive(pid));
    let cancel = client.ask(Request::Cancel { target: hanging });
    let mut ended = [false; 2];
    while ended != [true; 2] {
        let frame = client
            .connection
            .recv()
            .expect("in order")
            .expect("an answer");
        match frame_to_reply(frame).expect("the daemon speaks the wire") {
            (id, Reply::Ok) if id == cancel => ended[0] = true,
            (id, Reply::Failed(Status::Cancelled)) if id == hanging => ended[1] = true,
            (id, reply) => assert!(id == hanging && !reply.closes(), "{reply:?}"),
        }
    }
}

fn a_deadly_job() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let id = client.generate("dies");
    let status = client.failure(id);
    assert_eq!(
        status,
        Status::WorkerDied {
            signal: Signal::SIGABRT as i32,
            exit_code: 0
        }
    );
    let id = client.generate("plain");
    assert_eq!(
        tokens(&client.all(id)),
        whole_answer(),
        "other models are served"
    );
}

fn a_client_that_leaves() {
    let daemon = Daemon::start();
    let mut watcher = daemon.client();
    leave_and_unload(&daemon, &mut watcher);
    let descriptors = daemon.settled_descriptors();
    for _ in 0..3 {
        leave_and_unload(&daemon, &mut watcher);
    }
    eventually("no descriptor is left", || {
        daemon.settled_descriptors() == descriptors
    });
}

fn leave_and_unload(daemon: &Daemon, watcher: &mut Client) {
    let mut client = daemon.client();
    let id = client.generate("hangs");
    client.tokens(id, 3);
    let pid = watcher.status().workers[0].pid;
    drop(client);
    eventually("the job has ended", || {
        let report = watcher.status();
        (report.jobs_running, report.jobs_queued, report.connections) == (0, 0, 1)
    });
    assert_eq!(watcher.status().workers[0].pid, pid, "its worker lives on");
    let id = watcher.ask(Request::Unload {
        model: "hangs".into(),
    });
    assert!(matches!(watcher.next(id), Reply::Ok));
    assert!(!is_alive(pid));
}

fn a_deaf_worker() {
    let daemon = Daemon::start();
    let (mut client, mut watcher) = (daemon.client(), daemon.client());
    let id = client.generate("deaf");
    client.tokens(id, 3);
    let pid = watcher.status().workers[0].pid;
    drop(client);
    eventually("the worker is dead", || !is_alive(pid));
    eventually("nothing is left of it", || {
        watcher.status().workers.is_empty()
    });
}

fn open_stream(client: &mut Client, model: &str) -> Connection {
    let open = OpenStream {
        model: model.into(),
        options: WorkOptions::default(),
    };
    let id = client.ask(Request::OpenStream(open));
    match client.all(id).pop() {
        Some(Reply::StreamOpened(opened)) => {
            Connection::new(UnixStream::from(opened.socket), Link::Client)
        }
        other => panic!("{other:?}"),
    }
}

fn push(stream: &mut Connection) {
    let push = StreamPush::default();
    stream
        .send(request_to_frame(1, Request::StreamPush(push)).expect("it fits"))
        .expect("sent");
}

fn a_stream() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let mut stream = open_stream(&mut client, "plain");
    for _ in 0..3 {
        push(&mut stream);
        let frame = stream.recv().expect("in order").expect("an answer");
        assert!(matches!(
            frame_to_reply(frame),
            Ok((1, Reply::StreamResult(_)))
        ));
    }
    assert_eq!(client.status().streams, 1);
    drop(stream);
    eventually("the stream has ended", || client.status().streams == 0);
    // When its opener leaves, a stream ends though its socket is still held.
    let mut stream = open_stream(&mut client, "plain");
    drop(client);
    let frame = stream.recv().expect("in order").expect("the reason");
    let reply = frame_to_reply(frame).expect("the wire");
    assert!(
        matches!(reply, (0, Reply::Failed(Status::Revoked { .. }))),
        "{reply:?}"
    );
    assert!(stream.recv().expect("in order").is_none());
}

fn a_dead_stream() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let mut stream = open_stream(&mut client, "dies");
    push(&mut stream);
    let frame = stream.recv().expect("in order").expect("the reason");
    let reply = frame_to_reply(frame).expect("the wire");
    assert!(
        matches!(reply, (0, Reply::Failed(Status::WorkerDied { .. }))),
        "{reply:?}"
    );
    assert!(stream.recv().expect("in order").is_none());
}

fn a_lost_stream() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let mut stream = open_stream(&mut client, ON_DEVICE);
    let pid = client.status().workers[0].pid;
    push(&mut stream);
    let frame = stream.recv().expect("in order").expect("the reason");
    let Ok((
        0,
        Reply::Failed(Status::StreamLost {
            provider,
            code,
            next,
            ..
        }),
    )) = frame_to_reply(frame)
    else {
        panic!("another answer")
    };
    assert_eq!((&*provider, &*code, &*next), (FRAIL, "device_lost", PLAIN));
    assert!(stream.recv().expect("in order").is_none());
    let mut stream = open_stream(&mut client, ON_DEVICE);
    push(&mut stream);
    let frame = stream.recv().expect("in order").expect("an answer");
    assert!(matches!(
        frame_to_reply(frame),
        Ok((1, Reply::StreamResult(_)))
    ));
    eventually("the worker of the lost device is dead", || !is_alive(pid));
}

fn hostile_bytes() {
    let daemon = Daemon::start();
    let mut good = daemon.client();
    let hanging = good.generate("hangs");
    good.tokens(hanging, 3);
    let floods: [&[u8]; 5] = [
        &[0xff; 64],
        &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80],
        &[3, 1, 2, 3],
        &[0],
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ];
    for bytes in floods {
        let mut socket = UnixStream::connect(daemon.socket()).expect("it listens");
        socket.write_all(bytes).expect("written");
        socket
            .shutdown(std::net::Shutdown::Write)
            .expect("a socket");
        let connection = Connection::new(socket, Link::Client);
        let mut client = Client::from(connection);
        assert!(client.is_closed(), "{bytes:?}");
    }
    // Anything but a hello first, and a version that is not spoken.
    let mut early = Client::silent(&daemon.socket());
    let id = early.ask(Request::ListModels);
    assert!(matches!(early.failure(id), Status::Invalid { field, .. } if field == "hello"));
    assert!(early.is_closed());
    let mut future = Client::silent(&daemon.socket());
    let hello = Hello {
        version_min: 7,
        version_max: 9,
        client_name: String::new(),
    };
    let id = future.ask(Request::Hello(hello));
    assert!(matches!(
        future.failure(id),
        Status::VersionUnsupported { .. }
    ));
    assert!(future.is_closed());

    let report = good.status();
    assert_eq!((report.connections, report.jobs_running), (1, 1));
}

fn a_client_that_never_reads() {
    let daemon = Daemon::start();
    let mut good = daemon.client();
    let mut greedy = daemon.client();
    greedy.connection.set_read_timeout(None);
    let frame = |id| request_to_frame(id, Request::ListModels).expect("it fits");
    // The daemon stops reading from it, or hangs up on it, sooner or later.
    let cut = (100..10_000_000).any(|id| greedy.connection.send(frame(id)).is_err());
    assert!(cut);
    let id = good.generate("plain");
    assert_eq!(tokens(&good.all(id)), whole_answer());
    assert_eq!(good.status().connections, 1);
}

fn too_many_connections() {
    let daemon = Daemon::start();
    let limit = moted::limits::CONNECTIONS_PER_UID_MAX;
    let mut clients: Vec<Client> = (0..limit).map(|_| daemon.client()).collect();
    let mut refused = Client::silent(&daemon.socket());
    assert!(matches!(refused.failure(0), Status::LimitExceeded { .. }));
    assert!(refused.is_closed());
    clients.pop();
    let mut last = clients.pop().expect("there are many");
    eventually("there is room again", || {
        last.status().connections as usize == limit - 1
    });
    daemon.client();
}

fn sigterm() {
    let daemon = Daemon::start();
    let (mut client, mut watcher) = (daemon.client(), daemon.client());
    let id = client.generate("hangs");
    client.tokens(id, 3);
    let deaf = watcher.generate("deaf");
    watcher.tokens(deaf, 3);
    let pids: Vec<i32> = client
        .status()
        .workers
        .iter()
        .map(|worker| worker.pid)
        .collect();
    assert_eq!(pids.len(), 2);
    let status = daemon.stop(Signal::SIGTERM);
    assert_eq!(status.code(), Some(0));
    assert!(!pids.into_iter().any(is_alive));
    assert_eq!(client.failure(id), Status::ShuttingDown);
    assert_eq!(watcher.failure(deaf), Status::ShuttingDown);
    assert!(client.is_closed());
}

fn a_service_manager() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let told = || {
        let mut message = [0; 1024];
        let length = manager.recv(&mut message).expect("a message in time");
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    let until = |wanted: &str| {
        let mut all = Vec::new();
        while !all.last().is_some_and(|one: &String| one.contains(wanted)) {
            assert!(all.len() < 100, "no {wanted} in {all:?}");
            all.push(told());
        }
        all
    };
    let mut daemon = Daemon::start_with(|command| {
        command
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "200000");
    });
    until("READY=1");
    for _ in 0..3 {
        until("WATCHDOG=1");
    }
    let mut client = daemon.client();
    let id = client.generate("plain");
    assert!(matches!(client.all(id).last(), Some(Reply::Done(_))));
    until("STATUS=Serving; 1 model loaded");
    let worker = client.status().workers[0].pid;
    let environment = std::fs::read(format!("/proc/{worker}/environ")).expect("it lives");
    let environment = String::from_utf8_lossy(&environment).into_owned();
    assert!(!environment.contains("NOTIFY_SOCKET"), "{environment}");
    daemon.signal(Signal::SIGHUP);
    let message = until("RELOADING=1").pop().unwrap_or_default();
    assert!(message.contains("MONOTONIC_USEC="), "{message}");
    until("READY=1");
    daemon.signal(Signal::SIGTERM);
    until("STOPPING=1");
    assert_eq!(daemon.wait().code(), Some(0));
}

/// Waits until nothing new is taken.
fn refuses(client: &mut Client) {
    eventually("new work is refused", || {
        let asked = client.ask(Request::ListModels);
        matches!(client.next(asked), Reply::Failed(Status::ShuttingDown))
    });
}

fn draining() {
    let mut daemon = Daemon::start_with(|command| {
        command.args(["--drain-ms", "60000"]);
    });
    let (mut client, mut other) = (daemon.client(), daemon.client());
    let id = client.generate("slow");
    client.tokens(id, 1);
    daemon.signal(Signal::SIGTERM);
    refuses(&mut other);
    assert!(matches!(client.all(id).last(), Some(Reply::Done(_))));
    assert_eq!(daemon.wait().code(), Some(0));

    // A second signal says that there is no time.
    let mut daemon = Daemon::start_with(|command| {
        command.args(["--drain-ms", "60000"]);
    });
    let (mut client, mut other) = (daemon.client(), daemon.client());
    let id = client.generate("hangs");
    client.tokens(id, 3);
    daemon.signal(Signal::SIGTERM);
    refuses(&mut other);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(client.failure(id), Status::ShuttingDown);
    assert_eq!(daemon.wait().code(), Some(0));
}

/// Where a version 2 hierarchy can be written, as by root.
fn delegated_group() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("proc");
    let mount = mounts
        .lines()
        .find(|line| line.contains(" - cgroup2 "))
        .and_then(|line| line.split(' ').nth(4))?;
    let own = std::fs::read_to_string("/proc/self/cgroup").expect("proc");
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new(mount).join(own);
    let group = root.join(format!("mote-test-{}", std::process::id()));
    std::fs::create_dir_all(group.join("broker")).ok()?;
    Some(group)
}

fn own_control_group() {
    let Some(group) = delegated_group() else {
        println!("  (skipped: control groups of version 2 cannot be written here)");
        return;
    };
    let left_over = group.join("worker-77");
    std::fs::create_dir(&left_over).expect("a group");
    let daemon = Daemon::prepare();
    let own = daemon.command();
    let mut shell = std::process::Command::new("sh");
    shell
        .args(["-c", "echo $$ > \"$0\"/broker/cgroup.procs && exec \"$@\""])
        .arg(&group)
        .arg(own.get_program())
        .args(own.get_args())
        .stdin(Stdio::piped());
    let daemon = daemon.started_by(&mut shell);
    let socket = daemon.socket();
    eventually("the socket is there", || {
        UnixStream::connect(&socket).is_ok()
    });
    eventually("what a dead broker left is gone", || !left_over.exists());
    let mut client = daemon.client();
    let id = client.generate("hangs");
    client.tokens(id, 3);
    let pid = client.status().workers[0].pid;
    let of_worker = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it lives");
    let line = of_worker
        .lines()
        .find(|line| line.starts_with("0::"))
        .expect("version 2");
    assert!(line.contains("/worker-"), "{line}");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it lives");
    let workers = || {
        let entries = std::fs::read_dir(&group).expect("a group");
        let names = entries
            .flatten()
            .map(|entry| entry.file_name().into_string());
        names
            .flatten()
            .filter(|name| name.starts_with("worker-"))
            .count()
    };
    // Its job goes on in another, which has another group.
    eventually("the next worker runs", || {
        client
            .status()
            .workers
            .iter()
            .any(|one| one.pid != pid && one.pid > 0)
    });
    eventually("its group is gone", || workers() == 1);
    drop(client);
    assert_eq!(daemon.leave().code(), Some(0));
    assert_eq!(workers(), 0);
    for folder in [group.join("broker"), group] {
        eventually("nothing is left", || std::fs::remove_dir(&folder).is_ok());
    }
}

fn inherited_socket() {
    let daemon = Daemon::prepare();
    let socket = daemon.socket();
    std::fs::create_dir_all(socket.parent().expect("a folder")).expect("folder");
    let listener = UnixListener::bind(&socket).expect("a socket");
    // A client may come before the daemon does.
    let early = UnixStream::connect(&socket).expect("somebody listens");
    let own = daemon.command();
    let mut shell = std::process::Command::new("sh");
    shell
        .args([
            "-c",
            "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\" 3<&0 </dev/null",
            "sh",
        ])
        .arg(own.get_program())
        .args(
            own.get_args()
                .filter(|argument| *argument != "--exit-on-stdin-close"),
        )
        .stdin(Stdio::from(OwnedFd::from(listener)));
    let mut daemon = daemon.started_by(&mut shell);
    let mut client = Client::over(early);
    let id = client.generate("plain");
    assert!(matches!(client.all(id).last(), Some(Reply::Done(_))));
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(socket.exists(), "it belongs to the service manager");
}

fn sigkill() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let id = client.generate("deaf");
    client.tokens(id, 3);
    let pid = client.status().workers[0].pid;
    daemon.stop(Signal::SIGKILL);
    eventually("the worker is dead", || !is_alive(pid));
}

fn closed_stdin() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    assert_eq!(daemon.leave().code(), Some(0));
    assert!(client.is_closed());
}

fn second_daemon() {
    let daemon = Daemon::start();
    let mut second = daemon
        .command()
        .stderr(Stdio::null())
        .spawn()
        .expect("moted starts");
    let status = second.wait().expect("it ends");
    assert_eq!(status.code(), Some(1));
    daemon.client().status();
}

/// Voluntary switches of the daemon's threads: each is an end of waiting.
pub fn wake_ups(pid: i32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it lives");
    let of_thread = |path: std::path::PathBuf| {
        let status = std::fs::read_to_string(path.join("status")).unwrap_or_default();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|count| count.trim().parse::<u64>().ok())
            .unwrap_or(0)
    };
    threads
        .filter_map(|thread| Some(of_thread(thread.ok()?.path())))
        .sum()
}

fn idle() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let id = client.generate("plain");
    client.all(id);
    let id = client.ask(Request::Unload {
        model: "plain".into(),
    });
    assert!(matches!(client.next(id), Reply::Ok));
    let rss = client.status().rss_bytes;
    assert!(rss <= 15 << 20, "{rss} bytes");
    let pid = daemon.pid();
    let quiet = || {
        let before = wake_ups(pid);
        std::thread::sleep(std::time::Duration::from_millis(700));
        wake_ups(pid) == before
    };
    eventually("no timer ticks", quiet);
}
