//! The library under test, and models loaded through the public door.
#![allow(dead_code, reason = "each file of tests uses its part")]

pub mod engines;

use mote_api::{Backend, LoadError, LoadRequest, Model, Session, Tensor, Threads};
use mote_tflite::TfliteBackend;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

/// Tells children of these tests where the external delegate lies.
pub const PLUGIN_VARIABLE: &str = "MOTE_TEST_DELEGATE";

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

/// Compiles the external delegate, once per test process, and not again in its children.
pub fn plugin() -> PathBuf {
    static PLUGIN: OnceLock<PathBuf> = OnceLock::new();
    let compile = || match std::env::var_os(PLUGIN_VARIABLE) {
        Some(plugin) => plugin.into(),
        None => compiled("add_delegate.c", Path::new("libadd_delegate.so")),
    };
    PLUGIN.get_or_init(compile).clone()
}

/// A shared object made of a fixture, at a path below the tests' own folder.
pub fn compiled(source: &str, target: &Path) -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join(target);
    std::fs::create_dir_all(target.parent().expect("a folder")).expect("created");
    // Tests of other files may compile the same at this moment.
    let mine = target.with_extension(std::process::id().to_string());
    let mut compiler = Command::new("cc");
    compiler.args(["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror"]);
    compiler.args(["-shared", "-fPIC", &format!("{folder}/{source}"), "-o"]);
    let status = compiler.arg(&mine).arg("-ldl").status();
    assert!(status.expect("a C compiler").success());
    std::fs::rename(mine, &target).expect("renamed");
    target
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
