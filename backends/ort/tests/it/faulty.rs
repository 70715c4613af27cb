//! A plug-in provider that Mote has not heard of, and that lies, fails and dies as it is told.

use crate::onnx::{Attribute, Dim::Is, Dim::Named, FLOAT, Graph};
use crate::{ModelFile, backend, session};
use mote_api::{
    Absence, Backend, Capability, DeviceInfo, DeviceKind, LoadError, Model, RunError, Session,
    Tensor,
};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::Signal;
use nix::sys::time::{TimeVal, TimeValLike};
use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

pub const NAME: &str = "FaultyExecutionProvider";
pub const CPU: &str = "CPUExecutionProvider";
/// The provider's own: what is to go wrong when no option says so.
const FAULT_VARIABLE: &str = "MOTE_FAULTY_PROVIDER";
/// Tells a child of these tests what to ask for by option.
const CHILD_VARIABLE: &str = "MOTE_TEST_FAULTY_CHILD";
/// Tells it where the provider lies.
const LIBRARY_VARIABLE: &str = "MOTE_TEST_FAULTY_LIBRARY";
const CHILD_RUNS: usize = 4;
const CHILD_MARK: &str = "child: ";
/// By how much a fault of its name delays each computation.
const DELAY_MS: u64 = 50;
const LEAK_MIB: u64 = 16;
/// How long a child must do nothing to be thought hung.
const HUNG: Duration = Duration::from_millis(500);

/// The provider's library, compiled once per process, and not again by its children.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| match std::env::var_os(LIBRARY_VARIABLE) {
        Some(library) => library.into(),
        None => compiled("faulty_provider", &[]),
    })
}

/// Compiled under a name of its own, then moved: another process may have the old file mapped.
pub fn compiled(name: &str, more: &[&str]) -> PathBuf {
    let source = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/faulty_provider.c"
    );
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let fresh = folder.join(format!("{name}.{}", std::process::id()));
    let flags = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror"];
    let mut compiler = Command::new("cc");
    compiler
        .args(flags)
        .args(more)
        .args(["-shared", "-fPIC", source, "-o"]);
    let status = compiler.arg(&fresh).arg("-lm").status();
    assert!(status.expect("a C compiler").success());
    let library = folder.join(format!("lib{name}.so"));
    std::fs::rename(&fresh, &library).expect("renamed");
    library
}

/// Plugs the provider in; again is the same as once.
pub fn plug_in() {
    let plugged = backend().register_plugin(NAME, library());
    plugged.expect("a provider library");
}

fn load(graph: &Graph, fault: Option<&str>, forbid_cpu: bool) -> Result<Arc<dyn Model>, LoadError> {
    plug_in();
    let file = ModelFile::new(&graph.clone().encode());
    let mut request = file.request();
    request.provider = NAME.into();
    request.forbid_cpu = forbid_cpu;
    let options = fault.map(|fault| ("fault".to_owned(), fault.to_owned()));
    request.provider_options = options.into_iter().collect();
    backend().load(&request)
}

fn loaded(graph: &Graph, fault: &str) -> Arc<dyn Model> {
    load(graph, Some(fault), false).expect("a good model")
}

pub fn x() -> Tensor {
    let values: Vec<f32> = (0..12u8).map(|at| f32::from(at) * 0.25 - 1.).collect();
    Tensor::from_slice(&[2, 2, 3], &values).expect("small")
}

fn run(session: &mut dyn Session) -> Result<Vec<f32>, RunError> {
    session.bind_input(0, &x())?;
    session.run()?;
    Ok(session.output(0)?.read()?)
}

/// How far the numbers on the provider are from those on the CPU, at most and at least.
fn errors(graph: &Graph, model: &dyn Model) -> (f32, f32) {
    let mut on_cpu = session(graph.clone());
    let want = run(&mut *on_cpu).expect("the CPU computes");
    let mut session = model.session().expect("a session");
    let have = run(&mut *session).expect("computes");
    assert_eq!(have.len(), want.len());
    let errors = std::iter::zip(have, want).map(|(have, want)| (have - want).abs());
    errors.fold((0., f32::MAX), |(most, least), error| {
        (error.max(most), error.min(least))
    })
}

/// From x[2,k,3] to y.
fn graph() -> Graph {
    Graph::new()
        .input("x", FLOAT, &[Is(2), Named("k"), Is(3)])
        .output_of_any_rank("y", FLOAT)
}

/// Six nodes, of which the provider knows all but `Neg`.
pub fn mixed() -> Graph {
    graph()
        .node("MatMul", &["x", "w"], &["m"])
        .node("Relu", &["m"], &["r"])
        .node("Neg", &["r"], &["n"])
        .node("Sigmoid", &["n"], &["s"])
        .node("Mul", &["s", "m"], &["t"])
        .node("Sub", &["t", "c"], &["y"])
        .constant("w", &[3, 2], &[1., -2., 3., -4., 5., -6.])
        .constant("c", &[2, 1], &[0.5, -0.5])
}

/// Two nodes that become one computation, exact in f32.
pub fn exact() -> Graph {
    graph()
        .node("Mul", &["x", "two"], &["t"])
        .node("Add", &["t", "x"], &["y"])
        .constant("two", &[], &[2.])
}

#[test]
fn it_computes_what_the_cpu_computes() {
    let keep = ("keepdims", Attribute::Int(0));
    let gemm = [
        ("alpha", Attribute::Float(0.5)),
        ("beta", Attribute::Float(2.)),
        ("transA", Attribute::Int(1)),
        ("transB", Attribute::Int(1)),
    ];
    let rows = |graph: Graph| {
        graph
            .node("Reshape", &["x", "rows"], &["f"])
            .integers("rows", &[-1, 4])
    };
    let graphs = [
        exact(),
        graph()
            .node("Identity", &["x"], &["t"])
            .node("Add", &["t", "t"], &["y"]),
        rows(graph())
            .node_with("Gemm", &["f", "b", "c"], &["y"], &gemm)
            .constant("b", &[2, 3], &[1., 2., 3., 4., 5., 6.])
            .constant("c", &[2], &[10., 20.]),
        graph().node_with(
            "ReduceMean",
            &["x"],
            &["y"],
            &[("axes", Attribute::Ints(&[0, -1])), keep],
        ),
        graph()
            .node_with("ReduceSum", &["x", "axes"], &["y"], &[keep])
            .integers("axes", &[1]),
        graph().node("ReduceSum", &["x"], &["y"]),
        // Each is the other's size along one dimension.
        graph().node("Mul", &["x", "c"], &["y"]).constant(
            "c",
            &[4, 1, 2, 1],
            &[1., 2., 3., 4., 5., 6., 7., 8.],
        ),
    ];
    for (at, graph) in graphs.iter().enumerate() {
        let model = load(graph, Some("none"), true).expect("all of it is known");
        let placement = model.placement();
        assert!(placement.read_back);
        assert!(placement.nodes() > 0, "graph {at}");
        assert_eq!(placement.nodes_on(NAME), placement.nodes(), "graph {at}");
        assert!(errors(graph, &*model).0 < 1e-5, "graph {at}");
    }
}

#[test]
fn nodes_it_does_not_know_stay_on_the_cpu() {
    let model = loaded(&mixed(), "none");
    // As many as were claimed, although they became two computations.
    assert_eq!(model.placement().nodes_on(NAME), 5);
    assert_eq!(model.placement().nodes_on(CPU), 1);
    assert!(errors(&mixed(), &*model).0 < 1e-5);
    assert!(matches!(
        load(&mixed(), Some("none"), true),
        Err(LoadError::CpuForbidden {
            nodes: 6,
            cpu_nodes: 1,
            ..
        })
    ));
}

#[test]
fn it_claims_less_than_it_could() {
    let model = loaded(&mixed(), "half");
    assert_eq!(model.placement().nodes_on(NAME), 3);
    assert_eq!(model.placement().nodes(), 6);
    assert!(errors(&mixed(), &*model).0 < 1e-5);
    // One that claims nothing would be the CPU by stealth.
    match load(&mixed(), Some("cpu"), false) {
        Err(LoadError::CpuForbidden {
            nodes, cpu_nodes, ..
        }) => assert_eq!((nodes, cpu_nodes), (6, 6)),
        other => panic!("{:?}", other.err()),
    }
}

#[test]
fn it_computes_wrong_numbers() {
    let model = loaded(&exact(), "wrong");
    assert_eq!(model.placement().nodes_on(NAME), 2);
    assert_eq!(errors(&exact(), &*model), (0.5, 0.5));
}

#[test]
fn it_fails_with_typed_errors() {
    match load(&exact(), Some("fail_compile"), false) {
        Err(LoadError::Compile {
            provider, cause, ..
        }) => {
            assert_eq!(provider, NAME);
            assert!(
                cause.message.contains("cannot compile the graph"),
                "{cause}"
            );
        }
        other => panic!("{:?}", other.err()),
    }
    let model = loaded(&exact(), "lost");
    let mut session = model.session().expect("a session");
    match run(&mut *session) {
        Err(RunError::DeviceLost { device, cause }) => {
            assert_eq!(device, NAME);
            assert!(cause.message.contains("the device went away"), "{cause}");
        }
        other => panic!("{other:?}"),
    }
    for fault in [
        "no_such_fault",
        "wrong_after=",
        "wrong_after=1x",
        "cpu_after=1",
    ] {
        let error = load(&exact(), Some(fault), false).err();
        assert!(
            matches!(error, Some(LoadError::Compile { .. })),
            "{error:?}"
        );
    }
}

fn probed() -> Capability {
    plug_in();
    let mut found = backend().probe();
    found.retain(|capability| capability.provider == NAME);
    assert_eq!(found.len(), 1);
    found.remove(0)
}

#[test]
fn the_probe_knows_a_provider_that_was_plugged_in() {
    let found = probed();
    let device = DeviceInfo {
        id: "npu0".into(),
        kind: DeviceKind::Npu,
        name: "Mote tests NPU".into(),
        simulated: false,
    };
    assert_eq!((found.absence, found.device), (None, Some(device)));
}

#[test]
fn a_library_that_brings_another_provider_is_refused() {
    let library = library();
    for name in ["", "no\0name", &"x".repeat(128)] {
        let refused = backend().register_plugin(name, library);
        let absence = refused.expect_err("no name").absence;
        assert!(
            matches!(absence, Absence::LibraryRejected { .. }),
            "{absence:?}"
        );
    }
    let refused = backend().register_plugin("OtherExecutionProvider", library);
    assert_eq!(refused.expect_err("another's").absence, Absence::NoDevice);
    let known = backend().probe();
    let other = |known: &&Capability| known.provider == "OtherExecutionProvider";
    assert!(known.iter().find(other).is_none());
}

#[test]
fn it_dies_of_a_crash() {
    for (variable, fault, last_words) in [
        (CHILD_VARIABLE, "crash_compile", &["loads"][..]),
        (CHILD_VARIABLE, "crash", &["loads", "runs"]),
        (
            CHILD_VARIABLE,
            "crash_after=1",
            &["loads", "runs", "off by 0", "runs"],
        ),
        (FAULT_VARIABLE, "crash", &[]),
        // The probe is the first computation.
        (
            FAULT_VARIABLE,
            "crash_after=1",
            &["probed None", "loads", "runs"],
        ),
    ] {
        let mut child = Doomed::start(variable, fault);
        assert_eq!(child.says(usize::MAX), last_words, "{fault}");
        assert_eq!(child.signal(), Some(Signal::SIGSEGV as i32), "{fault}");
    }
}

#[test]
fn it_hangs_for_good() {
    for (fault, last_words) in [
        ("hang_compile", &["loads"][..]),
        ("hang", &["loads", "runs"]),
        ("hang_after=1", &["loads", "runs", "off by 0", "runs"]),
    ] {
        let mut child = Doomed::start(CHILD_VARIABLE, fault);
        assert_eq!(child.says(last_words.len()), last_words, "{fault}");
        std::thread::sleep(HUNG);
        assert!(child.process.try_wait().expect("it is ours").is_none());
        child.process.kill().expect("it is ours");
        assert_eq!(child.says(usize::MAX), [""; 0], "{fault}");
    }
}

#[test]
fn it_turns_bad_after_some_time() {
    for (fault, before, after) in [
        ("wrong_after=2", "off by 0", "off by 0.5"),
        ("lost_after=2", "off by 0", "lost"),
    ] {
        let mut child = Doomed::start(CHILD_VARIABLE, fault);
        let said = child.says(usize::MAX);
        let results = [&said[2], &said[4], &said[6], &said[8]];
        assert_eq!(results, [before, before, after, after], "{said:?}");
    }
}

#[test]
fn the_environment_says_what_goes_wrong_when_no_option_does() {
    for (fault, probed) in [
        ("none", "None"),
        ("slow", "None"),
        ("half", "FellBackToCpu"),
        ("wrong", "WrongNumbers"),
        ("cpu", "FellBackToCpu"),
        ("fail_compile", "cannot compile the graph"),
        ("lost", "the device went away"),
    ] {
        let first = Doomed::start(FAULT_VARIABLE, fault).says(1);
        assert!(first[0].contains(probed), "{fault}: {first:?}");
    }
    let mut child = Doomed::start(CHILD_VARIABLE, "none");
    assert_eq!(child.says(3)[2], "off by 0");
}

#[test]
fn it_costs_what_it_should_not() {
    let costs = |fault| {
        let said = Doomed::start(CHILD_VARIABLE, fault).says(usize::MAX);
        let costs = said.last().expect("it ends with its costs").split(' ');
        let costs: Vec<u64> = costs.map(|cost| cost.parse().expect("a number")).collect();
        [costs[0], costs[1], costs[2]]
    };
    let runs = CHILD_RUNS as u64;
    let [_, processor_ms, grown_mib] = costs("none");
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

/// This program again, as a process that may die; it runs [`child`] and nothing else.
struct Doomed {
    process: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Doomed {
    fn start(variable: &str, fault: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command
            .args(["--exact", "faulty::child", "--ignored", "--nocapture"])
            .env(LIBRARY_VARIABLE, library())
            .env(CHILD_VARIABLE, "")
            .env(variable, fault)
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

    fn signal(&mut self) -> Option<i32> {
        self.process.wait().expect("ends").signal()
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
    let ms = |time: TimeVal| time.num_milliseconds();
    ms(usage.user_time()) + ms(usage.system_time())
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
    let Some(fault) = std::env::var(CHILD_VARIABLE).ok() else {
        return;
    };
    let by_option = Some(fault.as_str()).filter(|fault| !fault.is_empty());
    if by_option.is_none() {
        say(&format!("probed {:?}", probed().absence));
    }
    say("loads");
    let model = load(&exact(), by_option, false).expect("a good model");
    let mut session = model.session().expect("a session");
    let want = run(&mut *crate::session(exact())).expect("the CPU computes")[0];
    let (wall, processor, resident) = (Instant::now(), processor_ms(), resident_mib());
    for _ in 0..CHILD_RUNS {
        say("runs");
        match run(&mut *session) {
            Ok(numbers) => say(&format!("off by {}", numbers[0] - want)),
            Err(RunError::DeviceLost { .. }) => say("lost"),
            Err(other) => say(&other.to_string()),
        }
    }
    let costs = [
        i64::try_from(wall.elapsed().as_millis()).expect("short"),
        processor_ms() - processor,
        // Pages may have been given back, too.
        (resident_mib() - resident).max(0),
    ];
    say(&format!("{} {} {}", costs[0], costs[1], costs[2]));
}
