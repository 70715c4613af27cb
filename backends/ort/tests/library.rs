//! Loading the library itself. One test, in a process of its own: the first library that loads
//! stays for good.

use mote_api::Absence;
use mote_ort::OrtBackend;
use std::path::{Path, PathBuf};

fn refusal(library: &Path) -> Absence {
    OrtBackend::load(library, "test")
        .err()
        .expect("must be refused")
        .absence
}

/// The C library, as this very process has it mapped.
fn c_library() -> PathBuf {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("readable");
    let path = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .find(|path| path.contains("libc.so") || path.contains("libc-"));
    PathBuf::from(path.expect("tests are linked with it"))
}

#[test]
fn what_is_no_onnx_runtime_is_refused_and_the_right_one_still_loads() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("libonnxruntime.so");
    let name = missing.display().to_string();
    assert_eq!(refusal(&missing), Absence::LibraryMissing { name });

    let text = folder.path().join("text.so");
    std::fs::write(&text, "not a library").expect("written");
    assert!(matches!(refusal(&text), Absence::LibraryRejected { .. }));
    assert!(matches!(
        refusal(folder.path()),
        Absence::LibraryRejected { .. }
    ));
    let symbol = "OrtGetApiBase".to_owned();
    assert_eq!(refusal(&c_library()), Absence::SymbolMissing { symbol });

    let library = std::env::var_os("MOTE_TEST_ORT_LIBRARY").unwrap_or_else(|| {
        panic!("MOTE_TEST_ORT_LIBRARY is not set; run the tests with tests/run, which fetches it")
    });
    let backend = OrtBackend::load(Path::new(&library), "test").expect("the library under test");
    OrtBackend::load(Path::new(&library), "test").expect("again, the same one");
    assert!(matches!(
        refusal(&c_library()),
        Absence::LibraryRejected { why, .. } if why.contains("already uses")
    ));

    let plugin = |path: &Path| {
        let refused = backend.register_plugin("QNNExecutionProvider", path);
        refused.expect_err("no plug-in").absence
    };
    let name = missing.display().to_string();
    assert_eq!(plugin(&missing), Absence::LibraryMissing { name });
    assert!(matches!(plugin(&text), Absence::LibraryRejected { .. }));
}
