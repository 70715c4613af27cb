//! External delegates: a small one in C takes every ADD, or fails as it is told.

mod common;

use common::{backend, fixture, library, load, request, run};
use mote_api::{
    Absence, Backend, DeviceInfo, DeviceKind, LoadError, LoadRequest, RunError, Tensor,
};
use mote_tflite::{CPU, EXTERNAL, XNNPACK};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

const Y: [f32; 4] = [3., 4., 5., 6.];

fn x() -> Tensor {
    Tensor::from_slice(&[1, 4], &[1f32; 4]).expect("small")
}

/// Compiles the delegate, once per test process.
fn plugin() -> PathBuf {
    static PLUGIN: OnceLock<PathBuf> = OnceLock::new();
    let compile = || {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/add_delegate.c");
        let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("libadd_delegate.so");
        let mut compiler = Command::new("cc");
        compiler.args(["-O1", "-Wall", "-Werror", "-shared", "-fPIC", source, "-o"]);
        let status = compiler.arg(&target).arg("-ldl").status();
        assert!(status.expect("a C compiler").success());
        target
    };
    PLUGIN.get_or_init(compile).clone()
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
    let npu = DeviceInfo {
        id: "npu0".into(),
        kind: DeviceKind::Npu,
        name: "adder".into(),
    };
    let options = asked("ok").provider_options;
    let absence = backend.probe_external(&options, npu).absence;
    assert_eq!(
        absence,
        Some(Absence::FellBackToCpu {
            nodes: 2,
            cpu_nodes: 1
        })
    );

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
