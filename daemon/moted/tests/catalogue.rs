//! Stores as they lie on disk.

use mote_wire::types::Status;
use moted::catalogue::{Catalogue, Stamp, scan};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

const MANIFEST: &str = "format = 1\nname = \"NAME\"\ntask = \"tensor\"\n[[variant]]\n\
    name = \"a\"\nbackend = \"tract\"\nfile = \"m.onnx\"\nprecision = \"f32\"\n";

fn write(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
    let path = path.as_ref();
    fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
    fs::write(path, bytes).expect("file");
}

fn store() -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().expect("folder");
    let store = root.path().join("store");
    fs::create_dir(&store).expect("folder");
    (root, store)
}

fn names(catalogue: &Catalogue) -> Vec<String> {
    catalogue.infos().map(|info| info.name).collect()
}

fn corrupt_file(catalogue: &Catalogue, name: &str) -> String {
    match catalogue.find(name) {
        Err(Status::ModelCorrupt { file, .. }) => file,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn folders_and_lone_files_become_models() {
    let (_root, store) = store();
    write(
        store.join("with/mote.toml"),
        MANIFEST.replace("NAME", "declared"),
    );
    write(store.join("with/m.onnx"), [0; 1000]);
    write(store.join("alone.tflite"), [0; 7]);
    write(store.join("folder/model.onnx"), [0; 9]);
    write(store.join("folder/README.md"), "hello");
    write(
        store.join(".staging/mote.toml"),
        MANIFEST.replace("NAME", "half"),
    );
    write(store.join("notes.txt"), "no model");
    write(store.join("empty/readme"), "no model");
    let catalogue = scan(&[store, "/nowhere".into()]);
    assert_eq!(names(&catalogue), ["alone", "declared", "folder"]);

    let declared = catalogue.find("declared").expect("in order");
    assert!(!declared.inferred);
    assert_eq!(declared.bytes, 1000);
    assert_eq!(declared.weights_bytes["a"], 1000);
    let variant = &declared.manifest.variants[0];
    assert_eq!(declared.need_bytes(variant), 2 * 1000 + (48 << 20));
    let folder = catalogue.find("folder").expect("in order");
    assert!(folder.inferred);
    assert_eq!(folder.manifest.variants.len(), 2);
    assert_eq!(folder.manifest.variants[0].file, Path::new("model.onnx"));
    assert!(
        folder.manifest_toml.contains("name = \"folder\""),
        "{}",
        folder.manifest_toml
    );
    assert_ne!(folder.digest, declared.digest);
}

#[test]
fn the_manifests_own_figures_count() {
    let (_root, store) = store();
    let figures = "weights_bytes = 5\nmemory_bytes = 77\n";
    write(
        store.join("m/mote.toml"),
        MANIFEST.replace("NAME", "m") + figures,
    );
    write(store.join("m/m.onnx"), [0; 1000]);
    let model = scan(&[store]).find("m").expect("in order");
    assert_eq!(model.weights_bytes["a"], 5);
    assert_eq!(model.need_bytes_of("a"), 77);
}

#[test]
fn what_is_not_in_order_is_named_with_its_file() {
    let (root, store) = store();
    write(root.path().join("secret.onnx"), "outside");
    write(store.join("torn/mote.toml"), "format = ");
    write(
        store.join("missing/mote.toml"),
        MANIFEST.replace("NAME", "missing"),
    );
    write(
        store.join("leading-out/mote.toml"),
        MANIFEST.replace("NAME", "leading-out"),
    );
    symlink(
        root.path().join("secret.onnx"),
        store.join("leading-out/m.onnx"),
    )
    .expect("link");
    let files = "[files]\n\"gone.bin\" = \"sha256:".to_owned() + &"0".repeat(64) + "\"\n";
    write(
        store.join("unlisted/mote.toml"),
        MANIFEST.replace("NAME", "unlisted") + &files,
    );
    write(store.join("unlisted/m.onnx"), "there");
    write(
        store.join("folder-as-file/mote.toml"),
        MANIFEST.replace("NAME", "folder-as-file"),
    );
    fs::create_dir(store.join("folder-as-file/m.onnx")).expect("folder");
    write(store.join("two/a.onnx"), "1");
    write(store.join("two/b.onnx"), "2");
    let catalogue = scan(&[store]);
    for (name, file) in [
        ("torn", "mote.toml"),
        ("missing", "m.onnx"),
        ("leading-out", "m.onnx"),
        ("unlisted", "gone.bin"),
        ("folder-as-file", "m.onnx"),
        ("two", "mote.toml"),
    ] {
        assert_eq!(corrupt_file(&catalogue, name), file, "{name}");
    }
    let problems = catalogue
        .infos()
        .filter(|info| info.problem.is_some())
        .count();
    assert_eq!(problems, 6);
}

#[test]
fn links_inside_the_store_are_followed_and_others_are_not() {
    let (root, store) = store();
    write(
        root.path().join("outside/mote.toml"),
        MANIFEST.replace("NAME", "outside"),
    );
    write(root.path().join("outside/m.onnx"), "1");
    write(root.path().join("lone.onnx"), "1");
    symlink(root.path().join("outside"), store.join("outside")).expect("link");
    symlink(root.path().join("lone.onnx"), store.join("lone.onnx")).expect("link");
    write(store.join("m/mote.toml"), MANIFEST.replace("NAME", "m"));
    write(store.join("blobs/1234"), "weights");
    symlink("../blobs/1234", store.join("m/m.onnx")).expect("link");
    let catalogue = scan(&[store]);
    assert_eq!(names(&catalogue), ["m"]);
    assert_eq!(catalogue.find("m").expect("in order").bytes, 7);
}

#[test]
fn the_earlier_store_counts_and_unknown_names_get_close_ones() {
    let (_root, first) = store();
    let (_root, second) = store();
    write(first.join("speech.onnx"), [0; 1]);
    write(second.join("speech.onnx"), [0; 2]);
    write(second.join("vision.onnx"), [0; 2]);
    let catalogue = scan(&[first, second]);
    assert_eq!(catalogue.find("speech").expect("there").bytes, 1);
    match catalogue.find("spech") {
        Err(Status::ModelNotFound { model, similar }) => {
            assert_eq!(
                (model.as_str(), similar),
                ("spech", vec!["speech".to_owned()])
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stamp_changes_with_the_bytes_even_when_size_and_mtime_do_not() {
    let (_root, store) = store();
    let digest = mote_api::Digest::of(b"weights");
    let files = format!("[files]\n\"m.onnx\" = \"{digest}\"\n");
    write(
        store.join("m/mote.toml"),
        MANIFEST.replace("NAME", "m") + &files,
    );
    let file = store.join("m/m.onnx");
    write(&file, "weights");
    let entry = scan(&[store]).find("m").expect("in order");
    let before = Stamp::of(&entry).expect("all files are there");
    assert_eq!(Stamp::of(&entry).as_ref(), Some(&before));

    let mtime = fs::metadata(&file)
        .expect("there")
        .modified()
        .expect("a time");
    // Coarse clocks of file systems: wait until the change cannot fall into the same tick.
    std::thread::sleep(std::time::Duration::from_millis(20));
    fs::write(&file, "altered").expect("file");
    fs::File::options()
        .write(true)
        .open(&file)
        .expect("file")
        .set_modified(mtime)
        .expect("time");
    assert_ne!(Stamp::of(&entry), Some(before));
    fs::remove_file(&file).expect("there");
    assert_eq!(Stamp::of(&entry), None);
}

#[test]
fn a_folder_in_diffusers_layout_needs_no_manifest() {
    let (_root, store) = store();
    let folder = store.join("tiny-clips");
    for (file, bytes) in [
        ("model_index.json", 2),
        ("transformer/model.onnx", 100),
        ("transformer/model.onnx_data", 1000),
        ("vae_decoder/model.onnx", 10),
    ] {
        write(folder.join(file), vec![b' '; bytes]);
    }
    let found = || scan(std::slice::from_ref(&store)).find("tiny-clips");
    let entry = found().expect("in order");
    assert!(entry.inferred);
    assert_eq!(entry.info().task, "clip-generation");
    assert_eq!(entry.bytes, 1110);
    assert_eq!(entry.weights_bytes["onnxruntime"], 1110);
    write(folder.join("vae_decoder/model.onnx"), [0; 11]);
    assert_ne!(found().expect("in order").digest, entry.digest);
    fs::remove_file(folder.join("vae_decoder/model.onnx")).expect("removed");
    symlink("/etc/hostname", folder.join("vae_decoder/model.onnx")).expect("made");
    assert!(found().is_err(), "it leads out of the store");
}
