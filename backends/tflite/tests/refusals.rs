//! What is refused, and how.

mod common;

use common::{backend, fixture, load, request};
use mote_api::{Absence, Backend, LoadError};
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
