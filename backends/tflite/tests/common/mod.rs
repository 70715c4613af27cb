//! The library under test, and models loaded through the public door.
#![allow(dead_code, reason = "each file of tests uses its part")]

use mote_api::{Backend, LoadError, LoadRequest, Model, Session, Tensor, Threads};
use mote_tflite::TfliteBackend;
use std::path::PathBuf;
use std::sync::Arc;

/// Where the library lies that `tests/run` fetched.
pub fn library() -> PathBuf {
    match std::env::var_os("MOTE_TEST_TFLITE_LIBRARY") {
        Some(path) => path.into(),
        None => panic!("MOTE_TEST_TFLITE_LIBRARY is not set: start tests with tests/run"),
    }
}

pub fn backend() -> TfliteBackend {
    TfliteBackend::load(&library(), "tflite").expect("the library loads")
}

pub fn fixture(name: &str) -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
    PathBuf::from(folder).join(format!("{name}.tflite"))
}

pub fn request(file: PathBuf, provider: &str) -> LoadRequest {
    LoadRequest {
        file,
        provider: provider.into(),
        provider_options: Vec::new(),
        threads: Threads::SINGLE,
        forbid_cpu: false,
        ..LoadRequest::default()
    }
}

pub fn load(name: &str, provider: &str) -> Result<Arc<dyn Model>, LoadError> {
    backend().load(&request(fixture(name), provider))
}

/// Binds, runs once and reads output 0.
pub fn run(session: &mut dyn Session, inputs: &[Tensor]) -> Vec<f32> {
    for (index, tensor) in inputs.iter().enumerate() {
        session.bind_input(index, tensor).expect("fits");
    }
    session.run().expect("runs");
    let output = session.output(0).expect("has run");
    output.read::<f32>().expect("f32")
}
