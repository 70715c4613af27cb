//! Rules of the tree, run as tests: who may depend on whom, what must not be in a file.

use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Everything that loads or contains an inference library.
const INFERENCE: &[&str] = &[
    "ort",
    "ort-sys",
    "tract-onnx",
    "tract-core",
    "tract-linalg",
    "tflitec",
    "libloading",
];
/// Backends, and what drives them.
const BACKENDS: &[&str] = &[
    "mote-ort",
    "mote-tract",
    "mote-tflite",
    "mote-pipeline",
    "mote-media",
    "mote-fake",
    "mote-kernels",
];
const TOP_LEVEL: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "daemon",
    "backends",
    "proto",
    "systemd",
    "cross",
    "tests",
    "README.md",
    "LICENSE-MIT",
    "LICENSE-APACHE",
    "rust-toolchain.toml",
    "clippy.toml",
];
const LINES_MAX: usize = 900;
const LINES_USUAL: usize = 500;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Normal dependencies (not those of builds or tests) of every package.
fn dependencies() -> Result<BTreeMap<String, BTreeSet<String>>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        .current_dir(root())
        .output()
        .context("cannot run cargo metadata")?;
    anyhow::ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let mut names = BTreeMap::new();
    for package in metadata["packages"].as_array().context("packages")? {
        names.insert(
            package["id"].as_str().context("id")?,
            package["name"].as_str().context("name")?,
        );
    }
    let mut edges = BTreeMap::new();
    for node in metadata["resolve"]["nodes"].as_array().context("nodes")? {
        let from = names[node["id"].as_str().context("id")?].to_owned();
        let targets: &mut BTreeSet<String> = edges.entry(from).or_default();
        for dep in node["deps"].as_array().context("deps")? {
            let kinds = dep["dep_kinds"].as_array().context("dep_kinds")?;
            if kinds.iter().any(|kind| kind["kind"].is_null()) {
                targets.insert(names[dep["pkg"].as_str().context("pkg")?].to_owned());
            }
        }
    }
    Ok(edges)
}

fn closure(edges: &BTreeMap<String, BTreeSet<String>>, from: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut open = vec![from.to_owned()];
    while let Some(name) = open.pop() {
        for next in edges.get(&name).into_iter().flatten() {
            if seen.insert(next.clone()) {
                open.push(next.clone());
            }
        }
    }
    seen
}

#[test]
fn dependencies_point_one_way() -> Result<()> {
    let edges = dependencies()?;
    let forbid = |from: &str, never: &[&str]| {
        let reached = closure(&edges, from);
        assert!(
            !reached.is_empty() || edges.contains_key(from),
            "{from} is no package"
        );
        for name in never {
            assert!(!reached.contains(*name), "{from} reaches {name}");
        }
    };
    // The broker never links or loads an inference library, nor a decoder of media or models.
    forbid("moted", INFERENCE);
    forbid("moted", BACKENDS);
    forbid(
        "moted",
        &[
            "mote-import",
            "mote-client",
            "openh264",
            "rav1e",
            "image",
            "tokenizers",
        ],
    );
    // The C client is the Rust client in other clothes.
    forbid("mote-c", BACKENDS);
    forbid("mote-c", &["zbus"]);
    let direct = edges.get("mote-c").context("mote-c is no package")?;
    let may = ["mote-client", "mote-wire", "serde", "serde_json"];
    for name in direct {
        assert!(may.contains(&name.as_str()), "mote-c depends on {name}");
    }
    // The contract knows nobody; the backends' contract knows no backend and no wire.
    for package in ["mote-wire", "mote-client", "mote-c"] {
        forbid(package, &["mote-api"]);
        forbid(package, INFERENCE);
    }
    forbid("mote-api", INFERENCE);
    for package in BACKENDS.iter().chain(&["mote-api", "mote-import"]) {
        forbid(package, &["mote-wire", "mote-client", "moted", "tokio"]);
    }
    // Kernels know nobody, and need no library that infers.
    forbid("mote-kernels", &["mote-api"]);
    forbid("mote-kernels", INFERENCE);
    // A pipeline runs on any backend, so it knows none.
    forbid("mote-pipeline", INFERENCE);
    // The command line talks to the daemon like everybody else.
    forbid("mote-cli", INFERENCE);
    forbid(
        "mote-cli",
        &["mote-worker", "moted", "mote-pipeline", "mote-media"],
    );
    // Scripted faults are never in a release build.
    for package in ["moted", "mote-worker", "mote-cli"] {
        forbid(package, &["mote-fake"]);
    }
    for (from, targets) in &edges {
        let may = matches!(from.as_str(), "moted" | "mote-dbus") || !from.starts_with("mote");
        assert!(may || !targets.contains("zbus"), "{from} speaks D-Bus");
    }
    Ok(())
}

#[test]
fn the_brokers_binary_has_no_door_to_a_library() -> Result<()> {
    let path = mote_tests::binary("moted")?;
    let binary = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let contains = |needle: &[u8]| binary.windows(needle.len()).any(|window| window == needle);
    assert!(contains(b"mote-worker"), "this is not the broker");
    for needle in [
        "dlopen\0",
        "OrtGetApiBase",
        "TfLiteModelCreate",
        "tract_core",
    ] {
        assert!(
            !contains(needle.as_bytes()),
            "the broker's binary holds {needle:?}"
        );
    }
    Ok(())
}

fn tracked_files() -> Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "-z",
        ])
        .current_dir(root())
        .output()
        .context("cannot run git")?;
    anyhow::ensure!(output.status.success(), "git ls-files failed");
    let text = String::from_utf8(output.stdout).context("file names are UTF-8")?;
    Ok(text
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(PathBuf::from)
        .collect())
}

#[test]
fn the_top_level_is_the_owners() -> Result<()> {
    for file in tracked_files()? {
        let first = file.components().next().context("a file has a path")?;
        let name = first.as_os_str().to_str().context("UTF-8")?;
        let known = TOP_LEVEL.contains(&name) || name.starts_with('.');
        assert!(known, "{name} has no place at the top level");
    }
    Ok(())
}

#[test]
fn sources_keep_the_rules() -> Result<()> {
    let mut lines = Vec::new();
    for file in tracked_files()? {
        if file.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(root().join(&file)) else {
            continue;
        };
        let count = text.lines().count();
        lines.push(count);
        assert!(
            count <= LINES_MAX,
            "{}: {count} lines hold more than one owner",
            file.display()
        );
        if file == Path::new("tests/tests/tidy.rs") {
            continue;
        }
        for word in ["todo!(", "unimplemented!(", "dbg!("] {
            assert!(!text.contains(word), "{}: {word}", file.display());
        }
        let unsafe_code = text.contains("unsafe {") || text.contains("unsafe fn");
        let safety = text.contains("SAFETY") || text.contains("# Safety");
        assert!(
            !unsafe_code || safety,
            "{}: unsafe without a SAFETY note",
            file.display()
        );
        // ONNX files are protobuf too, and nothing of the wire.
        let in_proto = file.starts_with("proto") || file.starts_with("backends");
        assert!(
            in_proto || !text.contains("prost::"),
            "{}: protobuf outside proto/",
            file.display()
        )
    }
    lines.sort_unstable();
    let (median, long) = (lines[lines.len() / 2], lines[lines.len() * 9 / 10]);
    eprintln!(
        "{} files, {median} lines at the median, {long} at the 90th percentile",
        lines.len()
    );
    if long > LINES_USUAL {
        eprintln!("warning: files grow; {LINES_USUAL} lines at the 90th percentile were meant");
    }
    Ok(())
}
