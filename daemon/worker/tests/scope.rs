//! What a worker may open for a model: its own folder, and not what lies around it.

use mote_api::{BackendKind, Candidate, DeviceInfo, DeviceKind, Flavour, Manifest};
use mote_wire::types::LoadModel;
use mote_worker::sandbox::{Access, Scope};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

const DESCRIBED: &str = "format = 1\nname = \"m\"\ntask = \"tensor\"\n\
    [[variant]]\nname = \"v\"\nbackend = \"onnxruntime\"\nfile = \"v.onnx\"\nprecision = \"f32\"\n";

fn load(manifest: &Manifest, folder: &Path, provider: &str) -> LoadModel {
    let variant = &manifest.variants[0];
    let candidate = Candidate {
        variant: variant.name.clone(),
        backend: BackendKind::OnnxRuntime,
        flavour: "f".into(),
        provider: provider.into(),
        device: DeviceInfo {
            id: "cpu".into(),
            kind: DeviceKind::Cpu,
            name: String::new(),
            simulated: false,
        },
        precision: variant.precision,
    };
    let flavour = Flavour {
        backend: BackendKind::OnnxRuntime,
        library: PathBuf::from("/opt/vendor/lib/libonnxruntime.so"),
        ..Flavour::tract("1")
    };
    LoadModel {
        folder: folder.to_str().expect("plain").into(),
        manifest_json: serde_json::to_vec(manifest).expect("plain"),
        candidate_json: serde_json::to_vec(&candidate).expect("plain"),
        flavour_json: serde_json::to_vec(&flavour).expect("plain"),
        flavour_folder: "/runtimes/f".into(),
        ..LoadModel::default()
    }
}

/// Whether a scope lets a file be read.
fn reads(scope: &Scope, file: &Path) -> bool {
    scope
        .paths()
        .any(|(path, access)| access == Access::Read && file.starts_with(path))
}

fn store() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().canonicalize().expect("it is there");
    (folder, root)
}

fn described(root: &Path, name: &str) -> (Manifest, PathBuf) {
    let folder = root.join(name);
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("mote.toml"), DESCRIBED).expect("a file");
    fs::write(folder.join("v.onnx"), "").expect("a file");
    (Manifest::read(&folder).expect("it holds"), folder)
}

#[test]
fn a_described_model_is_read_and_its_neighbours_are_not() {
    let (_folder, root) = store();
    let (manifest, folder) = described(&root, "m");
    described(&root, "other");
    let scope = Scope::of_load(&load(&manifest, &folder, "CPUExecutionProvider"));
    assert!(reads(&scope, &folder.join("v.onnx")));
    assert!(reads(&scope, &folder.join("weights.data")));
    assert!(!reads(&scope, &root.join("other/v.onnx")));
    assert!(!reads(&scope, &root));
    assert!(reads(&scope, Path::new("/runtimes/f/libprovider.so")));
    assert!(reads(&scope, Path::new("/opt/vendor/lib/libother.so")));
    assert!(!reads(&scope, Path::new("/etc/passwd")));
    assert!(!reads(&scope, Path::new("/proc/1/environ")));
}

#[test]
fn links_are_followed_within_the_store_and_no_further() {
    let (_folder, root) = store();
    let (_outside, elsewhere) = store();
    let (manifest, folder) = described(&root, "m");
    let (file, inside, outside) = (
        folder.join("v.onnx"),
        root.join("blob"),
        elsewhere.join("v"),
    );
    for (target, is_read) in [(&inside, true), (&outside, false)] {
        fs::write(target, "").expect("a file");
        fs::remove_file(&file).expect("it is there");
        symlink(target, &file).expect("a link");
        let scope = Scope::of_load(&load(&manifest, &folder, ""));
        assert_eq!(reads(&scope, target), is_read, "{}", target.display());
        assert!(!reads(&scope, &root.join("other")));
        assert!(!reads(&scope, &elsewhere.join("other")));
    }
    // The folder itself may be a link of the same kinds.
    for (store, is_read) in [(&root, true), (&elsewhere, false)] {
        let (manifest, target) = described(store, "real");
        let link = root.join("link");
        let _ = fs::remove_file(&link);
        symlink(&target, &link).expect("a link");
        let scope = Scope::of_load(&load(&manifest, &link, ""));
        assert_eq!(reads(&scope, &target.join("v.onnx")), is_read);
    }
}

#[test]
fn of_lone_files_only_the_models_own_is_read() {
    let (_folder, root) = store();
    for name in ["a.onnx", "b.onnx", "a.onnx.data"] {
        fs::write(root.join(name), "").expect("a file");
    }
    let manifest = Manifest::inferred(&root.join("a.onnx")).expect("it is a model");
    let scope = Scope::of_load(&load(&manifest, &root, ""));
    assert!(reads(&scope, &root.join("a.onnx")));
    assert!(!reads(&scope, &root.join("b.onnx")));
    // In a folder of its own, weights may lie beside it.
    fs::remove_file(root.join("b.onnx")).expect("it is there");
    let scope = Scope::of_load(&load(&manifest, &root, ""));
    assert!(reads(&scope, &root.join("a.onnx.data")));
}

#[test]
fn devices_are_for_those_who_compute_on_them() {
    let (_folder, root) = store();
    let (manifest, folder) = described(&root, "m");
    let devices = |provider: &str| {
        let scope = Scope::of_load(&load(&manifest, &folder, provider));
        let open = scope.paths();
        let named = open.filter(|(_, access)| *access == Access::Device);
        let named: Vec<_> = named.map(|(path, _)| path.to_path_buf()).collect();
        (scope.drivers, named)
    };
    let null = vec![PathBuf::from("/dev/null")];
    assert_eq!(devices("CPUExecutionProvider"), (false, null.clone()));
    assert_eq!(devices("XnnpackExecutionProvider"), (false, null));
    let (drivers, named) = devices("CUDAExecutionProvider");
    assert!(drivers && named.contains(&"/dev/nvmap".into()), "{named:?}");
    assert!(
        !named
            .iter()
            .any(|path| path.starts_with("/dev/davinci_manager"))
    );
    let (drivers, named) = devices("CANNExecutionProvider");
    assert!(
        drivers && named.contains(&"/dev/devmm_svm".into()),
        "{named:?}"
    );
}

#[test]
fn a_command_that_cannot_be_read_opens_nothing_of_a_model() {
    let bare = Scope::default();
    let mut command = LoadModel {
        folder: "/".into(),
        flavour_folder: "/".into(),
        ..LoadModel::default()
    };
    command.manifest_json = b"{".to_vec();
    let scope = Scope::of_load(&command);
    let own = scope.paths().filter(|(_, access)| *access != Access::Write);
    assert_eq!(own.count(), bare.paths().count());
    assert!(!scope.drivers);
}
