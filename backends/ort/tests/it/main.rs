//! The ONNX Runtime backend through its public door, on a real library and tiny models.

mod attention;
mod cancel;
mod device;
mod faulty;
mod labelling;
mod load;
mod onnx;
mod operators;
mod probe;
mod profile;
mod restoration;
mod run;
mod threads;

use mote_api::{Backend, LoadError, LoadRequest, Model, Session, Threads};
use mote_ort::OrtBackend;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Names the library under test.
const LIBRARY_VARIABLE: &str = "MOTE_TEST_ORT_LIBRARY";

fn backend() -> OrtBackend {
    let library = std::env::var_os(LIBRARY_VARIABLE).unwrap_or_else(|| {
        panic!("{LIBRARY_VARIABLE} is not set; run the tests with tests/run, which fetches it")
    });
    OrtBackend::load(Path::new(&library), "onnxruntime-test").expect("the library under test")
}

/// A folder with one model in it.
struct ModelFile {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl ModelFile {
    fn new(bytes: &[u8]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.onnx");
        std::fs::write(&path, bytes).expect("written");
        Self { folder, path }
    }

    fn request(&self) -> LoadRequest {
        LoadRequest {
            file: self.path.clone(),
            provider: String::new(),
            provider_options: Vec::new(),
            threads: Threads::SINGLE,
            forbid_cpu: false,
            ..LoadRequest::default()
        }
    }
}

fn load(graph: onnx::Graph) -> Arc<dyn Model> {
    load_bytes(&graph.encode()).expect("a good model")
}

fn load_bytes(bytes: &[u8]) -> Result<Arc<dyn Model>, LoadError> {
    backend().load(&ModelFile::new(bytes).request())
}

fn session(graph: onnx::Graph) -> Box<dyn Session> {
    load(graph).session().expect("a session")
}
