//! Models and runtimes that are not what they seem.

use crate::inputs;
use anyhow::{Context, Result};
use mote_client::{Client, ClientError, Status, WorkOptions};
use mote_tests::daemon::{Daemon, Setup};
use mote_tests::prepared;
use mote_tests::reference::Case;
use std::path::Path;

/// A daemon over the prepared runtimes and a store of the test's own.
fn daemon_over(store: &Path) -> Result<Daemon> {
    Daemon::start(&Setup {
        stores: vec![store.into()],
        runtimes: vec![prepared("MOTE_RUNTIMES")?],
        ..Setup::default()
    })
}

fn copy_model(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn classify(client: &Client, model: &str) -> Result<(), ClientError> {
    let case = Case::read("magika").expect("a reference case");
    let options = WorkOptions::default();
    let given = inputs(&case.inputs);
    client.infer(model, &given, &[], &options).map(drop)
}

#[test]
fn an_altered_model_file_is_named_and_its_neighbour_is_served() -> Result<()> {
    let store = tempfile::tempdir()?;
    let magika = prepared("MOTE_TEST_MODELS")?.join("magika");
    copy_model(&magika, &store.path().join("magika"))?;
    let altered = store.path().join("altered");
    copy_model(&magika, &altered)?;
    let manifest = std::fs::read_to_string(altered.join("mote.toml"))?;
    let manifest = manifest.replace("name = \"magika\"", "name = \"altered\"");
    std::fs::write(altered.join("mote.toml"), manifest)?;
    let mut weights = std::fs::read(altered.join("model.onnx"))?;
    let middle = weights.len() / 2;
    weights[middle] ^= 1;
    std::fs::write(altered.join("model.onnx"), weights)?;

    let daemon = daemon_over(store.path())?;
    let client = daemon.client()?;
    for _ in 0..2 {
        match classify(&client, "altered") {
            Err(ClientError::Refused(Status::ModelCorrupt { file, .. })) => {
                assert_eq!(file, "model.onnx");
            }
            other => panic!("{other:?}"),
        }
        classify(&client, "magika")?;
    }
    Ok(())
}

/// A field of bytes, in the encoding of protocol buffers.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).expect("short messages only");
    assert!(length < 0x80);
    [&[number << 3 | 2, length], content].concat()
}

/// A field that is a small number.
fn small(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
}

/// An ONNX model of one node, f32 `[1]` to f32 `[1]` (field numbers of onnx.proto).
fn model_of(operator: &str) -> Vec<u8> {
    let dim = field(1, &small(1, 1));
    let tensor = [small(1, 1), field(2, &dim)].concat();
    let value = |name: &str| {
        let kind = field(1, &tensor);
        [field(1, name.as_bytes()), field(2, &kind)].concat()
    };
    let node = [
        field(1, b"x"),
        field(2, b"y"),
        field(4, operator.as_bytes()),
    ]
    .concat();
    let graph = [
        field(1, &node),
        field(2, b"graph"),
        field(11, &value("x")),
        field(12, &value("y")),
    ]
    .concat();
    [small(1, 8), field(7, &graph), field(8, &small(2, 17))].concat()
}

#[test]
fn an_operator_that_no_backend_has_is_refused_with_a_reason_from_each() -> Result<()> {
    let store = tempfile::tempdir()?;
    for operator in ["Neg", "Frobnicate"] {
        let folder = store.path().join(operator.to_lowercase());
        std::fs::create_dir(&folder)?;
        std::fs::write(folder.join("model.onnx"), model_of(operator))?;
    }
    let daemon = daemon_over(store.path())?;
    let client = daemon.client()?;
    let run = |model: &str| {
        let x = 2f32.to_le_bytes();
        let input = mote_client::Input::bytes("x", mote_client::DType::F32, &[1], &x);
        client.infer(model, &[input], &[], &WorkOptions::default())
    };
    match run("frobnicate") {
        Err(ClientError::Refused(Status::NoBackend { rejected })) => {
            for backend in ["onnxruntime", "tract"] {
                let of = |one: &&mote_client::Rejected| {
                    one.flavour.starts_with(backend) && one.reason.code == "unsupported_operators"
                };
                let reason = rejected.iter().find(of);
                let reason = &reason
                    .with_context(|| format!("{backend}: {rejected:#?}"))?
                    .reason;
                assert!(reason.message.contains("Frobnicate"), "{reason:?}");
            }
        }
        other => panic!("{other:?}"),
    }
    // The same file but for the operator is served.
    let result = run("neg")?;
    assert_eq!(
        result.outputs[0].bytes(),
        Some((-2f32).to_le_bytes().as_slice())
    );
    Ok(())
}

#[test]
fn files_that_are_no_models_are_refused_as_such() -> Result<()> {
    let store = tempfile::tempdir()?;
    for (name, content) in [
        ("empty", Vec::new()),
        ("text", b"this is not a model\n".repeat(100)),
        ("cut", model_of("Neg")[..20].to_vec()),
    ] {
        let folder = store.path().join(name);
        std::fs::create_dir(&folder)?;
        std::fs::write(folder.join("model.onnx"), content)?;
    }
    let daemon = daemon_over(store.path())?;
    let client = daemon.client()?;
    for name in ["empty", "text", "cut"] {
        match classify(&client, name) {
            Err(ClientError::Refused(Status::ModelCorrupt { file, .. })) => {
                assert_eq!(file, "model.onnx", "{name}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    assert_eq!(client.models()?.len(), 3);
    Ok(())
}

#[test]
fn a_runtime_whose_library_is_none_is_absent_for_that_reason() -> Result<()> {
    let runtimes = tempfile::tempdir()?;
    for (flavour, backend) in [("no-library", "onnxruntime"), ("no-tflite", "tflite")] {
        let folder = runtimes.path().join(flavour);
        std::fs::create_dir(&folder)?;
        std::fs::write(folder.join("lib.so"), "a text, not a library\n")?;
        let manifest = format!(
            "format = 1\nname = \"{flavour}\"\nbackend = \"{backend}\"\nversion = \"1\"\n\
             library = \"lib.so\"\nlicence = \"MIT\"\n"
        );
        std::fs::write(folder.join("runtime.toml"), manifest)?;
    }
    let daemon = Daemon::start(&Setup {
        stores: vec![prepared("MOTE_TEST_MODELS")?],
        runtimes: vec![runtimes.path().into()],
        ..Setup::default()
    })?;
    let client = daemon.client()?;
    let devices = client.devices()?;
    for flavour in ["no-library", "no-tflite"] {
        let found = devices.iter().find(|one| one.flavour == flavour);
        let found = found.with_context(|| format!("{flavour}: {devices:#?}"))?;
        let absence = found.absence.as_ref().context("it cannot work")?;
        assert_eq!(absence.code, "library_rejected", "{absence:?}");
        let name = absence.fields.get("name").context("it is named")?;
        assert!(name.ends_with("lib.so"), "{name}");
    }
    // What needs no library is there all the same.
    classify(&client, "magika")?;
    Ok(())
}
