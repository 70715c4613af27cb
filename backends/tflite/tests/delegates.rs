//! External delegates: a small one in C takes every ADD, or fails as it is told.

mod common;

use common::{PLUGIN_VARIABLE, backend, fixture, library, load, plugin, request, run};
use mote_api::{
    Absence, Backend, DeviceInfo, DeviceKind, LoadError, LoadRequest, RunError, Tensor,
};
use mote_tflite::{CPU, Delegate, EXTERNAL, LITERT_NPU, XNNPACK};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::Signal;
use nix::sys::time::TimeValLike;
use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

const Y: [f32; 4] = [3., 4., 5., 6.];
/// Tells a child of these tests which mode to ask for.
const CHILD_VARIABLE: &str = "MOTE_TEST_DELEGATE_MODE";
const CHILD_MARK: &str = "child: ";
const CHILD_RUNS: usize = 4;
/// By how much the delegate delays each computation, or what it keeps of it.
const DELAY_MS: u64 = 50;
const LEAK_MIB: u64 = 16;
/// How long a child must do nothing to be thought hung.
const HUNG: Duration = Duration::from_millis(500);

fn x() -> Tensor {
    Tensor::from_slice(&[1, 4], &[1f32; 4]).expect("small")
}

fn asked(mode: &str) -> LoadRequest {
    let mut request = request(fixture("add_mul"), EXTERNAL);
    let text = |path: PathBuf| path.to_str().expect("plain path").to_owned();
    request.provider_options = vec![
        ("path".into(), text(plugin())),
        ("library".into(), text(library())),
        ("mode".into(), mode.into()),
    ];
    request
}

/// As above, but nothing is left to the CPU.
fn asked_to_take_all(mode: &str) -> LoadRequest {
    let mut request = asked(mode);
    let options = &mut request.provider_options;
    options.push(("take".into(), "all".into()));
    request
}

#[test]
fn a_delegate_that_a_flavour_names_is_a_provider_of_that_name() {
    let device = DeviceInfo {
        id: "npu0".into(),
        kind: DeviceKind::Npu,
        name: "Adder".into(),
        simulated: false,
    };
    let options = |mode| asked_to_take_all(mode).provider_options;
    let delegate = |name: &str, mode, library: PathBuf| Delegate {
        name: name.into(),
        library,
        options: options(mode)
            .into_iter()
            .filter(|(key, _)| key != "path")
            .collect(),
        device: device.clone(),
    };
    let backend = backend().with_delegates(vec![
        delegate("adder", "ok", plugin()),
        delegate("gone", "ok", "/nowhere/libgone.so".into()),
    ]);
    let names = [XNNPACK, CPU, LITERT_NPU, "adder", "gone"];
    assert_eq!(backend.providers(), names);
    let [adder] = &backend.probe_provider("adder")[..] else {
        panic!("one")
    };
    assert!(
        adder.works() && adder.device.as_ref() == Some(&device),
        "{adder:?}"
    );
    let [gone] = &backend.probe_provider("gone")[..] else {
        panic!("one")
    };
    assert!(
        matches!(gone.absence, Some(Absence::LibraryMissing { .. })),
        "{gone:?}"
    );

    let request = LoadRequest {
        provider: "adder".into(),
        provider_options: options("ok"),
        ..asked("ok")
    };
    let model = backend.load(&request).expect("it loads");
    assert!(
        model.placement().nodes_on("adder") > 0,
        "{:?}",
        model.placement()
    );
}

#[test]
fn a_delegate_takes_its_nodes_and_failures_are_typed() {
    // One test: the delegate keeps its mode in a global.
    let backend = backend();
    let model = backend.load(&asked("ok")).expect("loads");
    let placement = model.placement();
    assert!(placement.read_back);
    assert_eq!(placement.nodes_on(EXTERNAL), 1);
    assert_eq!(placement.nodes_on(CPU), 1);
    let mut session = model.session().expect("session");
    assert_eq!(run(&mut *session, &[x()]), Y);
    drop(session);

    let mut in_order = asked("ok");
    in_order
        .provider_options
        .push(("then".into(), XNNPACK.into()));
    let model = backend.load(&in_order).expect("loads");
    let placement = model.placement();
    assert!(placement.read_back);
    assert_eq!(placement.nodes_on(EXTERNAL), 1, "{placement:?}");
    assert_eq!(placement.nodes_on(XNNPACK), 1, "{placement:?}");
    assert_eq!(placement.nodes(), 2, "{placement:?}");
    let mut session = model.session().expect("session");
    assert_eq!(run(&mut *session, &[x()]), Y);
    let x_of_two = Tensor::from_slice(&[2, 4], &[1f32; 8]).expect("small");
    assert_eq!(run(&mut *session, &[x_of_two]), Y.repeat(2));
    drop(session);
    in_order.forbid_cpu = true;
    let refused = backend.load(&in_order).err();
    assert!(
        matches!(refused, Some(LoadError::CpuForbidden { cpu_nodes: 1, .. })),
        "{refused:?}"
    );
    in_order.provider_options.retain(|(key, _)| key != "then");
    in_order
        .provider_options
        .push(("then".into(), "GPU".into()));
    match backend.load(&in_order).err() {
        Some(LoadError::ProviderAbsent {
            absence: Absence::OptionUnknown { key, .. },
            ..
        }) => assert_eq!(key, "then = GPU"),
        other => panic!("{other:?}"),
    }

    let mut forbidden = asked("ok");
    forbidden.forbid_cpu = true;
    assert!(matches!(
        backend.load(&forbidden).err(),
        Some(LoadError::CpuForbidden {
            nodes: 2,
            cpu_nodes: 1,
            ..
        })
    ));
    assert!(matches!(
        backend.load(&asked("none")).err(),
        Some(LoadError::CpuForbidden {
            nodes: 2,
            cpu_nodes: 2,
            ..
        })
    ));
    match backend.load(&asked("null")).err() {
        Some(LoadError::ProviderAbsent {
            provider,
            absence: Absence::ProbeFailed { why },
        }) => {
            assert_eq!(provider, EXTERNAL);
            assert_eq!(why, "add_delegate: no such device");
        }
        other => panic!("{other:?}"),
    }
    match backend.load(&asked("fail_prepare")).err() {
        Some(LoadError::Compile { cause, .. }) => {
            assert!(
                cause.message.contains("cannot compile the graph"),
                "{cause}"
            );
        }
        other => panic!("{other:?}"),
    }
    let model = backend.load(&asked("fail_invoke")).expect("loads");
    let mut session = model.session().expect("session");
    session.bind_input(0, &x()).expect("fits");
    match session.run() {
        Err(RunError::Compute(cause)) => {
            assert!(cause.message.contains("the device went away"), "{cause}");
        }
        other => panic!("{other:?}"),
    }
    let absence = |request: LoadRequest| {
        let npu = DeviceInfo {
            id: "npu0".into(),
            kind: DeviceKind::Npu,
            name: "adder".into(),
            simulated: false,
        };
        let proven = backend.probe_external(&request.provider_options, npu);
        proven.absence
    };
    assert_eq!(
        absence(asked("ok")),
        Some(Absence::FellBackToCpu {
            nodes: 2,
            cpu_nodes: 1
        })
    );
    assert_eq!(absence(asked_to_take_all("ok")), None);
    match absence(asked_to_take_all("wrong")) {
        Some(Absence::WrongNumbers { error, .. }) => assert_eq!(error, "0.5"),
        other => panic!("{other:?}"),
    }
    let model = backend.load(&asked("wrong")).expect("loads");
    let mut session = model.session().expect("session");
    // Doubled after the sum, on the CPU.
    assert_eq!(run(&mut *session, &[x()]), Y.map(|y| y + 1.));

    for provider in [CPU, XNNPACK] {
        let model = load("add_mul", provider).expect("loads");
        let mut session = model.session().expect("session");
        assert_eq!(run(&mut *session, &[x()]), Y, "{provider}");
    }
}

#[test]
fn plugins_that_are_none_are_refused() {
    let backend = backend();
    let mut asked = request(fixture("add_mul"), EXTERNAL);
    let mut absence = |options: &[(&str, PathBuf)]| {
        let options = options.iter();
        asked.provider_options = options
            .map(|(key, path)| ((*key).to_owned(), path.to_str().expect("plain").to_owned()))
            .collect();
        match backend.load(&asked).err() {
            Some(LoadError::ProviderAbsent { absence, .. }) => absence,
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(absence(&[]), Absence::LibraryMissing { .. }));
    assert!(matches!(
        absence(&[("path", "/does/not/exist.so".into())]),
        Absence::LibraryMissing { .. }
    ));
    assert!(matches!(
        absence(&[("path", library())]),
        Absence::SymbolMissing { symbol } if symbol == "tflite_plugin_create_delegate"
    ));
}

/// This program again, as a process that may die; it runs [`child`] and nothing else.
struct Doomed {
    process: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Doomed {
    fn start(mode: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command
            .args(["--exact", "child", "--ignored", "--nocapture"])
            .env(PLUGIN_VARIABLE, plugin())
            .env(CHILD_VARIABLE, mode)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut process = command.spawn().expect("starts");
        let said = BufReader::new(process.stdout.take().expect("piped")).lines();
        Self { process, said }
    }

    /// What it says next, up to so many lines, or to its end.
    fn says(&mut self, lines: usize) -> Vec<String> {
        let said = self.said.by_ref().map_while(Result::ok);
        // The test harness may have begun the line.
        let own = said.filter_map(|line| Some(line.split_once(CHILD_MARK)?.1.to_owned()));
        own.take(lines).collect()
    }
}

impl Drop for Doomed {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn say(what: &str) {
    writeln!(std::io::stdout(), "{CHILD_MARK}{what}").expect("the parent listens");
}

fn processor_ms() -> i64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("always works");
    usage.user_time().num_milliseconds() + usage.system_time().num_milliseconds()
}

/// As it is now: the peak of a process begins with that of its parent.
fn resident_mib() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("readable");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse::<i64>().ok()).expect("a size") / 1024
}

#[test]
#[ignore = "runs in processes that other tests start"]
fn child() {
    let Ok(mode) = std::env::var(CHILD_VARIABLE) else {
        return;
    };
    say("loads");
    let model = backend().load(&asked_to_take_all(&mode)).expect("loads");
    let mut session = model.session().expect("session");
    let (wall, processor, resident) = (Instant::now(), processor_ms(), resident_mib());
    for _ in 0..CHILD_RUNS {
        say("runs");
        assert_eq!(run(&mut *session, &[x()]), Y);
    }
    let costs = [
        i64::try_from(wall.elapsed().as_millis()).expect("short"),
        processor_ms() - processor,
        // Pages may have been given back, too.
        (resident_mib() - resident).max(0),
    ];
    say(&format!("{} {} {}", costs[0], costs[1], costs[2]));
}

#[test]
fn a_delegate_dies_or_hangs_as_it_is_told() {
    for (mode, last_words) in [
        ("crash_prepare", &["loads"][..]),
        ("crash", &["loads", "runs"]),
    ] {
        let mut child = Doomed::start(mode);
        assert_eq!(child.says(usize::MAX), last_words, "{mode}");
        let status = child.process.wait().expect("ends");
        assert_eq!(status.signal(), Some(Signal::SIGSEGV as i32), "{mode}");
    }
    for (mode, last_words) in [
        ("hang_prepare", &["loads"][..]),
        ("hang", &["loads", "runs"]),
    ] {
        let mut child = Doomed::start(mode);
        assert_eq!(child.says(last_words.len()), last_words, "{mode}");
        std::thread::sleep(HUNG);
        assert!(child.process.try_wait().expect("it is ours").is_none());
        child.process.kill().expect("it is ours");
        assert_eq!(child.says(usize::MAX), [""; 0], "{mode}");
    }
}

#[test]
fn a_delegate_costs_what_it_should_not() {
    let costs = |mode| {
        let said = Doomed::start(mode).says(usize::MAX);
        let costs = said.last().expect("it ends with its costs").split(' ');
        let costs: Vec<u64> = costs.map(|cost| cost.parse().expect("a number")).collect();
        [costs[0], costs[1], costs[2]]
    };
    let runs = CHILD_RUNS as u64;
    let [_, processor_ms, grown_mib] = costs("ok");
    assert!(processor_ms < DELAY_MS, "{processor_ms} ms of processor");
    assert!(grown_mib < LEAK_MIB, "{grown_mib} MiB more");

    let [wall_ms, processor_ms, _] = costs("slow");
    assert!(wall_ms >= runs * DELAY_MS, "{wall_ms} ms");
    assert!(processor_ms < DELAY_MS, "{processor_ms} ms of processor");

    let [wall_ms, processor_ms, _] = costs("spin");
    assert!(wall_ms >= runs * DELAY_MS, "{wall_ms} ms");
    assert!(
        processor_ms >= runs * DELAY_MS,
        "{processor_ms} ms of processor"
    );

    let [_, _, grown_mib] = costs("leak");
    assert!(grown_mib + 1 >= runs * LEAK_MIB, "{grown_mib} MiB more");
}
