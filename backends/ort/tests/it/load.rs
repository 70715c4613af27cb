//! What loading refuses, and how it says so.

use crate::onnx::{BOOL, DOUBLE, Dim::Is, Dim::Named, FLOAT, Graph, INT64, STRING};
use crate::{ModelFile, backend, load, load_bytes};
use mote_api::{Absence, Backend, DType, LoadError};
use std::error::Error;

fn add() -> Graph {
    Graph::new()
        .node("Add", &["x", "x"], &["y"])
        .input("x", FLOAT, &[Is(2)])
        .output("y", FLOAT, &[Is(2)])
}

fn refused(bytes: &[u8]) -> LoadError {
    load_bytes(bytes).err().expect("must be refused")
}

#[test]
fn signature_and_placement_are_the_models_own() {
    let model = load(
        Graph::new()
            .node("MatMul", &["x", "w"], &["m"])
            .node("Relu", &["m"], &["r"])
            .node("ArgMax", &["r"], &["i"])
            .node("Identity", &["mask"], &["kept"])
            .constant("w", &[3, 2], &[1.; 6])
            .input("x", FLOAT, &[Named("n"), Is(3)])
            .input("mask", BOOL, &[])
            .output("r", FLOAT, &[Named("n"), Is(2)])
            .output("i", INT64, &[Is(1), Is(2)])
            .output("kept", BOOL, &[]),
    );
    let signature = model.signature();
    let shapes: Vec<_> = signature
        .inputs
        .iter()
        .chain(&signature.outputs)
        .map(|spec| (spec.name.as_str(), spec.dtype, spec.shape.clone()))
        .collect();
    assert_eq!(
        shapes,
        [
            ("x", DType::F32, vec![None, Some(3)]),
            ("mask", DType::Bool, vec![]),
            ("r", DType::F32, vec![None, Some(2)]),
            ("i", DType::I64, vec![Some(1), Some(2)]),
            ("kept", DType::Bool, vec![]),
        ]
    );
    let placement = model.placement();
    assert!(placement.read_back);
    assert_eq!(placement.nodes(), 4);
    assert_eq!(placement.nodes_on("CPUExecutionProvider"), 4);
    assert_eq!(placement.shares.len(), 1);
}

#[test]
fn a_missing_file_is_not_a_malformed_one() {
    let file = ModelFile::new(b"");
    let mut request = file.request();
    request.file = file.folder.path().join("absent.onnx");
    let error = backend().load(&request).err().expect("absent");
    assert!(
        matches!(&error, LoadError::Read { cause, .. } if cause.kind() == std::io::ErrorKind::NotFound),
        "{error:?}"
    );
    request.file = file.folder.path().to_path_buf();
    let error = backend().load(&request).err().expect("a folder");
    assert!(matches!(error, LoadError::Read { .. }), "{error:?}");
}

#[test]
fn malformed_files_are_refused_with_the_librarys_words() {
    let good = add().encode();
    let dangling = Graph::new()
        .node("Add", &["x", "nowhere"], &["y"])
        .input("x", FLOAT, &[Is(2)])
        .output("y", FLOAT, &[Is(2)]);
    let mistyped = Graph::new()
        .node("And", &["x", "x"], &["y"])
        .input("x", FLOAT, &[Is(2)])
        .output("y", BOOL, &[Is(2)]);
    for bytes in [
        b"".to_vec(),
        b"this is no protobuf".to_vec(),
        good[..good.len() / 2].to_vec(),
        dangling.encode(),
        mistyped.encode(),
    ] {
        let error = refused(&bytes);
        let malformed = matches!(error, LoadError::Malformed { .. });
        assert!(malformed && error.source().is_some(), "{error:?}");
    }
}

#[test]
fn unknown_operators_are_named() {
    let unknown = Graph::new()
        .node("Frobnicate", &["x"], &["y"])
        .input("x", FLOAT, &[Is(2)])
        .output("y", FLOAT, &[Is(2)]);
    let foreign = Graph::new()
        .node_of("com.microsoft", "Frobnicate", &["x"], &["y"])
        .input("x", FLOAT, &[Is(2)])
        .output("y", FLOAT, &[Is(2)]);
    // A known operator for a type that no kernel computes.
    let kernelless = Graph::new()
        .node("Conv", &["x", "x"], &["y"])
        .input("x", DOUBLE, &[Is(1), Is(1), Is(2), Is(2)])
        .output("y", DOUBLE, &[Is(1), Is(1), Is(1), Is(1)]);
    for (graph, name) in [
        (unknown, "Frobnicate"),
        (foreign, "com.microsoft:Frobnicate"),
        (kernelless, "Conv"),
    ] {
        match refused(&graph.encode()) {
            LoadError::UnsupportedOperators {
                operators,
                provider,
                ..
            } => {
                assert_eq!(operators, [name]);
                assert_eq!(provider, "CPUExecutionProvider");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn external_data_is_read_missed_or_refused() {
    let graph = |location: &str| {
        Graph::new()
            .node("Add", &["x", "w"], &["y"])
            .external("w", &[2], location)
            .input("x", FLOAT, &[Is(2)])
            .output("y", FLOAT, &[Is(2)])
            .encode()
    };
    let file = ModelFile::new(&graph("weights.bin"));
    let weights = file.folder.path().join("weights.bin");
    let missing = backend().load(&file.request()).err().expect("no weights");
    match missing {
        LoadError::Read { file, cause } => {
            assert_eq!(file.file_name(), weights.file_name());
            assert_eq!(cause.kind(), std::io::ErrorKind::NotFound);
        }
        other => panic!("{other:?}"),
    }
    std::fs::write(&weights, [0; 3]).expect("written");
    let torn = backend().load(&file.request()).err().expect("torn");
    assert!(matches!(torn, LoadError::Malformed { .. }), "{torn:?}");
    std::fs::write(&weights, [0; 8]).expect("written");
    assert!(backend().load(&file.request()).is_ok());
    let outside = refused(&graph("../../../../../../etc/hostname"));
    assert!(
        matches!(outside, LoadError::Malformed { .. }),
        "{outside:?}"
    );
}

#[test]
fn what_is_no_plain_tensor_is_refused_by_name() {
    let strings = Graph::new()
        .node("Identity", &["words"], &["y"])
        .input("words", STRING, &[Is(1)])
        .output("y", STRING, &[Is(1)]);
    match refused(&strings.encode()) {
        LoadError::UnservedType { name, dtype } => {
            assert_eq!((name.as_str(), dtype.as_str()), ("words", "string"));
        }
        other => panic!("{other:?}"),
    }
    let deep = [Is(1); 9];
    let deep = Graph::new()
        .node("Relu", &["x"], &["y"])
        .input("x", FLOAT, &deep)
        .output("y", FLOAT, &deep);
    let error = refused(&deep.encode());
    assert!(matches!(error, LoadError::Malformed { .. }), "{error:?}");
}

#[test]
fn providers_that_are_not_there_say_so() {
    let file = ModelFile::new(&add().encode());
    for provider in ["RknpuExecutionProvider", "NoSuchProvider"] {
        let mut request = file.request();
        request.provider = provider.into();
        match backend().load(&request).err().expect("absent") {
            LoadError::ProviderAbsent {
                provider: named,
                absence,
            } => {
                assert_eq!(named, provider);
                assert_eq!(absence, Absence::NotCompiledIn);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn forbidding_the_cpu_refuses_a_placement_on_it() {
    let file = ModelFile::new(&add().encode());
    let mut request = file.request();
    request.forbid_cpu = true;
    match backend().load(&request).err().expect("all on the CPU") {
        LoadError::CpuForbidden {
            nodes, cpu_nodes, ..
        } => assert_eq!((nodes, cpu_nodes), (1, 1)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn options_reach_the_library_and_bad_ones_do_not_panic() {
    let file = ModelFile::new(&add().encode());
    let mut request = file.request();
    // This switch makes the library refuse whatever lands on the CPU, so its effect can be seen.
    request.provider_options = vec![("session.disable_cpu_ep_fallback".into(), "1".into())];
    assert!(backend().load(&request).is_err());
    request.provider_options = vec![("session.x".into(), "a\0b".into())];
    assert!(backend().load(&request).is_err());
    request.provider_options = vec![("session.disable_prepacking".into(), "1".into())];
    assert!(backend().load(&request).is_ok());
}
