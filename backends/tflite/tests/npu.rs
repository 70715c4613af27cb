//! LiteRT's way to an NPU, on a scripted one: a dispatch library in C that computes one model, or
//! fails as it is told.

mod common;

use common::engines::{dispatch_library, npu_dispatch};
use common::{backend, fixture, library, request, run};
use mote_api::{Absence, Backend, LoadError, LoadRequest, RunError, Tensor};
use mote_tflite::{Delegate, LITERT_CPU, LITERT_NPU, TfliteBackend};
use std::path::{Path, PathBuf};

/// Bytes of the scripted NPU's code, at the end of a model's file.
const CODE_BYTES: usize = 16;
const Y: [f32; 4] = [3., 4., 5., 6.];

fn with(dispatch: Delegate) -> TfliteBackend {
    backend().with_delegates(vec![dispatch])
}

/// The model that was compiled for the NPU, with other code, in a folder.
fn scripted(folder: &Path, mode: &str) -> PathBuf {
    let mut bytes = std::fs::read(fixture("npu")).expect("fixture");
    let start = bytes.len() - CODE_BYTES;
    bytes[start..].fill(0);
    bytes[start..][..mode.len()].copy_from_slice(mode.as_bytes());
    let file = folder.join(format!("{mode}.tflite"));
    std::fs::write(&file, bytes).expect("written");
    file
}

fn asked(file: PathBuf) -> LoadRequest {
    let mut request = request(file, LITERT_NPU);
    request.forbid_cpu = true;
    request
}

/// Why the probe of an NPU says that there is none.
fn absence(backend: &TfliteBackend) -> Option<Absence> {
    let [npu] = &backend.probe_provider(LITERT_NPU)[..] else {
        panic!("one device")
    };
    assert_eq!(npu.device.is_none(), npu.absence.is_some());
    npu.absence.clone()
}

/// What a machine without NPUs makes of a missing library, or of a failure.
fn told(absence: Option<Absence>) -> String {
    match absence {
        Some(absence) => {
            assert!(absence.next_step(LITERT_NPU).ends_with('.'));
            absence.to_string()
        }
        None => "works".into(),
    }
}

#[test]
fn an_npu_is_asked_for_alone_and_what_it_runs_is_read_back() {
    let backend = with(npu_dispatch());
    assert_eq!(absence(&backend), None);
    let [npu] = &backend.probe_provider(LITERT_NPU)[..] else {
        panic!("one device")
    };
    assert_eq!(npu.device.as_ref().expect("a device").name, "Scripted NPU");
    let model = backend.load(&asked(fixture("npu"))).expect("loads");
    let placement = model.placement();
    assert!(placement.read_back, "{placement:?}");
    assert_eq!(placement.nodes_on(LITERT_NPU), 1);
    assert_eq!(placement.nodes(), 1);
    let x = Tensor::from_slice(&[1, 4], &[1f32; 4]).expect("small");
    let mut sessions = [(); 2].map(|()| model.session().expect("session"));
    for session in &mut sessions {
        assert_eq!(run(&mut **session, std::slice::from_ref(&x)), Y);
    }

    let error = backend.load(&asked(fixture("add_mul"))).err();
    match error {
        Some(LoadError::Compile { cause, .. }) => {
            assert!(cause.message.contains("compiler_dir"), "{cause}");
        }
        other => panic!("a model that nobody compiled for it gave {other:?}"),
    }
    // The same file is no model for a CPU, and is not passed on to it.
    let mut on_cpu = request(fixture("npu"), LITERT_CPU);
    on_cpu.forbid_cpu = false;
    assert!(backend.load(&on_cpu).is_err());
}

#[test]
fn failures_of_an_npu_are_typed() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let scripted = |mode| scripted(folder.path(), mode);
    let proven_by = |file: PathBuf| Delegate {
        options: vec![("self_test".into(), file.display().to_string())],
        ..npu_dispatch()
    };
    match absence(&with(proven_by(scripted("wrong")))) {
        Some(Absence::WrongNumbers { error, .. }) => assert_eq!(error, "0.5"),
        other => panic!("{other:?}"),
    }
    let why = told(absence(&with(proven_by(scripted("fail_invoke")))));
    assert!(why.contains("invoke"), "{why}");
    let backend = with(npu_dispatch());
    match backend.load(&asked(scripted("no_context"))).err() {
        Some(LoadError::Compile { provider, .. }) => assert_eq!(provider, LITERT_NPU),
        other => panic!("{other:?}"),
    }
    let model = backend.load(&asked(scripted("fail_invoke")));
    let mut session = model.expect("loads").session().expect("session");
    let x = Tensor::from_slice(&[1, 4], &[1f32; 4]).expect("small");
    session.bind_input(0, &x).expect("fits");
    let failed = session.run();
    assert!(matches!(failed, Err(RunError::Compute(_))), "{failed:?}");
}

#[test]
fn without_a_dispatch_library_there_is_no_npu() {
    let plain = backend();
    assert!(plain.providers().contains(&LITERT_NPU.to_owned()));
    assert!(!plain.providers().contains(&LITERT_CPU.to_owned()));
    let why = told(absence(&plain));
    assert!(why.contains("libLiteRtDispatch"), "{why}");
    match plain.load(&asked(fixture("npu"))).err() {
        Some(LoadError::ProviderAbsent { provider, absence }) => {
            assert_eq!(provider, LITERT_NPU);
            let next = absence.next_step(LITERT_NPU);
            assert!(next.contains("[[plugin]] LITERT-NPU"), "{next}");
        }
        other => panic!("{other:?}"),
    }
    let unproven = with(Delegate {
        options: Vec::new(),
        ..npu_dispatch()
    });
    let why = told(absence(&unproven));
    assert!(why.contains("libLiteRtCompilerPlugin"), "{why}");
}

#[test]
fn a_dispatch_library_beside_the_librarys_own_is_found() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let beside = folder.path().join("liblitert-lm.so");
    std::os::unix::fs::symlink(library(), &beside).expect("linked");
    assert!(!mote_tflite::has_dispatch_beside(&beside));
    // By its name it is the one that other tests have loaded: a process has one.
    let dispatch = folder.path().join("libLiteRtDispatch_Mote.so");
    std::os::unix::fs::symlink(dispatch_library(), dispatch).expect("linked");
    assert!(mote_tflite::has_dispatch_beside(&beside));
    let backend = TfliteBackend::load(&beside, "tflite").expect("the library loads");
    let backend = backend.with_npu_options(npu_dispatch().options);
    assert_eq!(absence(&backend), None);
    assert!(backend.load(&asked(fixture("npu"))).is_ok());
}

#[test]
fn what_is_no_dispatch_library_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let named = |library: PathBuf| Delegate {
        library,
        ..npu_dispatch()
    };
    let refused = |library: PathBuf| {
        let error = with(named(library)).load(&asked(fixture("npu"))).err();
        match error {
            Some(LoadError::ProviderAbsent { absence, .. }) => absence,
            other => panic!("{other:?}"),
        }
    };
    let missing = folder.path().join("libLiteRtDispatch_Gone.so");
    let absence = refused(missing);
    assert!(
        matches!(absence, Absence::LibraryMissing { .. }),
        "{absence:?}"
    );
    // LiteRT would not find it by this name.
    let absence = refused(library());
    assert!(
        matches!(absence, Absence::LibraryRejected { .. }),
        "{absence:?}"
    );
    let other = folder.path().join("libLiteRtDispatch_Other.so");
    std::os::unix::fs::symlink(library(), &other).expect("linked");
    let absence = refused(other);
    assert!(
        matches!(&absence, Absence::SymbolMissing { symbol } if symbol == "LiteRtDispatchGetApi"),
        "{absence:?}"
    );
    // It would take either.
    let copy = folder.path().join("libLiteRtDispatch_Mote.so");
    std::fs::copy(dispatch_library(), &copy).expect("copied");
    let absence = refused(copy);
    assert!(
        matches!(absence, Absence::LibraryRejected { .. }),
        "{absence:?}"
    );

    let mut request = asked(fixture("npu"));
    request.provider_options = vec![("dispatch_dir".into(), "/opt".into())];
    match with(npu_dispatch()).load(&request).err() {
        Some(LoadError::ProviderAbsent {
            absence: Absence::OptionUnknown { key, known },
            ..
        }) => {
            assert_eq!(key, "dispatch_dir");
            assert_eq!(known.len(), 4, "{known:?}");
        }
        other => panic!("{other:?}"),
    }
}

/// Intel's own libraries compile the model as it is loaded, and compute: with OpenVINO's plug-in for
/// the CPU, as there is no NPU here. `MOTE_TEST_LITERT_INTEL` names a folder that `pip install
/// --target` has put ai-edge-litert 2.3.0 and openvino 2026.3.1 into.
#[test]
#[ignore = "takes Intel's libraries, which are not fetched"]
fn a_vendors_libraries_compile_a_model_and_compute() {
    let site = std::env::var_os("MOTE_TEST_LITERT_INTEL").expect("a folder");
    let site = PathBuf::from(site).join("ai_edge_litert");
    let of_vendor = site.join("vendors/intel_openvino");
    let compiler = of_vendor.join("compiler").display().to_string();
    let on = |graph: &str| Delegate {
        library: of_vendor.join("dispatch/libLiteRtDispatch_IntelOpenvino.so"),
        options: vec![
            ("compiler_dir".into(), compiler.clone()),
            ("vendor.intel_openvino".into(), format!("{graph}\n")),
        ],
        ..npu_dispatch()
    };
    let library = site.join("libLiteRt.so");
    let load = || TfliteBackend::load(&library, "litert").expect("the library loads");
    let backend = load().with_delegates(vec![on("graph.0.graph_backend = 0")]);
    assert_eq!(absence(&backend), None);
    let mut request = asked(fixture("add_mul"));
    request.provider_options = on("graph.0.graph_backend = 0").options;
    let model = backend.load(&request).expect("loads");
    assert_eq!(model.placement().nodes_on(LITERT_NPU), 2);
    let mut session = model.session().expect("session");
    let x = Tensor::from_slice(&[1, 4], &[1f32; 4]).expect("small");
    assert_eq!(run(&mut *session, &[x]), Y);

    let without = load().with_delegates(vec![on("graph.0.graph_backend = 2")]);
    let why = told(absence(&without));
    assert!(why.contains("operators are left"), "{why}");
}
