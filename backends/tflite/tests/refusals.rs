//! What is refused, and how.

mod common;

use common::{backend, fixture, load, request};
use mote_api::{Absence, Backend, DType, LoadError, OutputTarget, RunError, Tensor};
use mote_tflite::{CPU, TfliteBackend, XNNPACK};
use std::path::Path;

fn absence(library: &Path) -> Absence {
    let refused = TfliteBackend::load(library, "tflite");
    refused.expect_err("must be refused").absence
}

#[test]
fn what_is_no_library_of_this_kind_is_refused_with_the_reason() {
    let missing = absence(Path::new("/does/not/exist.so"));
    assert!(matches!(missing, Absence::LibraryMissing { name } if name.contains("exist.so")));
    let folder = tempfile::tempdir().expect("temporary folder");
    let text = folder.path().join("libtext.so");
    std::fs::write(&text, "not a library").expect("write file");
    assert!(matches!(absence(&text), Absence::LibraryRejected { .. }));
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    let libc = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .find(|path| path.contains("/libc.so"))
        .expect("this process has a C library");
    let other = absence(Path::new(libc));
    assert!(
        matches!(&other, Absence::SymbolMissing { symbol } if symbol == "TfLiteVersion"),
        "{other:?}"
    );
}

#[test]
fn files_that_are_no_models_are_refused() {
    let backend = backend();
    let missing = backend.load(&request("/does/not/exist.tflite".into(), CPU));
    assert!(matches!(missing.err(), Some(LoadError::Read { .. })));
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("m.tflite");
    for bytes in [
        &b""[..],
        b"hello",
        &[0; 64],
        b"\xff\xff\xff\x7fTFL3\0\0\0\0",
    ] {
        std::fs::write(&file, bytes).expect("write file");
        let error = backend.load(&request(file.clone(), CPU)).err();
        assert!(
            matches!(error, Some(LoadError::Malformed { .. })),
            "{bytes:?}: {error:?}"
        );
    }
}

#[test]
fn truncated_models_are_refused() {
    let backend = backend();
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("m.tflite");
    let whole = std::fs::read(fixture("add_mul")).expect("fixture");
    for end in (0..whole.len()).step_by(3) {
        std::fs::write(&file, &whole[..end]).expect("write file");
        let error = backend.load(&request(file.clone(), CPU)).err();
        assert!(
            matches!(error, Some(LoadError::Malformed { .. })),
            "{end} bytes: {error:?}"
        );
    }
}

#[test]
fn unknown_operators_are_named() {
    match load("unknown", CPU).err() {
        Some(LoadError::UnsupportedOperators { operators, .. }) => {
            assert_eq!(operators, ["Telepathy"]);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn providers_and_cpu_are_as_asked() {
    assert!(matches!(
        load("add_mul", "NPU").err(),
        Some(LoadError::ProviderAbsent {
            absence: Absence::NotCompiledIn,
            ..
        })
    ));
    assert!(load("add_mul", "").is_ok());
    let mut asked = request(fixture("add_mul"), CPU);
    asked.forbid_cpu = true;
    assert!(matches!(
        backend().load(&asked).err(),
        Some(LoadError::CpuForbidden {
            nodes: 2,
            cpu_nodes: 2,
            ..
        })
    ));
    asked.provider = XNNPACK.into();
    assert!(backend().load(&asked).is_ok());
}

#[test]
fn bindings_are_checked() {
    let model = load("add_mul", CPU).expect("loads");
    let mut session = model.session().expect("session");
    assert!(matches!(
        session.run(),
        Err(RunError::InputMissing { name }) if name == "x"
    ));
    assert!(matches!(session.output(0), Err(RunError::Output { .. })));
    let flat = Tensor::zeroed(DType::F32, &[4]).expect("small");
    let narrow = Tensor::zeroed(DType::F32, &[1, 3]).expect("small");
    let whole = Tensor::zeroed(DType::I32, &[1, 4]).expect("small");
    for wrong in [&flat, &narrow, &whole] {
        let error = session.bind_input(0, wrong);
        assert!(matches!(error, Err(RunError::Input { .. })), "{error:?}");
        let error = session.bind_output(0, OutputTarget::Into(wrong.clone()));
        assert!(matches!(error, Err(RunError::Output { .. })), "{error:?}");
    }
    assert!(matches!(
        session.bind_output(1, OutputTarget::Allocate),
        Err(RunError::NoSuchTensor { index: 1 })
    ));
    let x = Tensor::zeroed(DType::F32, &[2, 4]).expect("small");
    session.bind_input(0, &x).expect("fits");
    let one = Tensor::zeroed(DType::F32, &[1, 4]).expect("small");
    let target = OutputTarget::Into(one);
    session.bind_output(0, target).expect("may fit");
    assert!(matches!(session.run(), Err(RunError::Output { .. })));
}
