//! Putting models into the store and taking them out. The daemon only reads it.

use crate::fetch::{put_in_place, write_manifest};
use crate::interrupt;
use crate::ui::Ui;
use anyhow::{Context, Result, bail, ensure};
use mote_api::{Digest, MANIFEST_FILE_NAME, Manifest, Paths};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Files of one model at most.
const FILES_MAX: usize = 10_000;
/// Folders inside folders at most.
const DEPTH_MAX: usize = 8;
const COPY_CHUNK_BYTES: usize = 1 << 20;

/// Copies a model into the writable store, all or nothing: staged, digests checked or written,
/// then renamed into place. Answers its name and folder.
pub fn install(
    source: &Path,
    name: Option<&str>,
    replace: bool,
    ui: &Ui,
) -> Result<(String, PathBuf)> {
    let paths = Paths::from_env();
    let store = &paths.stores[0];
    ensure!(source.exists(), "there is no {}", source.display());
    let mut manifest = manifest_of(source)?;
    if let Some(name) = name {
        ensure!(Manifest::is_name(name), "{name:?} cannot name a model");
        name.clone_into(&mut manifest.name);
    }
    let target = store.join(&manifest.name);
    if target.exists() && !replace {
        bail!(
            "there is a model {:?} already; replace it with --replace",
            manifest.name
        );
    }
    std::fs::create_dir_all(store).with_context(|| format!("cannot create {}", store.display()))?;
    let stage = tempfile::Builder::new()
        .prefix(&format!(".{}-", manifest.name))
        .tempdir_in(store)
        .with_context(|| format!("cannot create a folder in {}", store.display()))?;
    let ready = stage.path().join("ready");
    std::fs::create_dir(&ready).context("cannot create the staging folder")?;
    let mut files = files_of(source)?;
    if !manifest.files.is_empty() {
        // Files that the manifest does not name are not part of the model.
        files.retain(|file| {
            file.to_str()
                .is_some_and(|name| manifest.files.contains_key(name))
        });
    }
    manifest.files = copy(source, &files, &ready, &manifest, ui)?;
    write_manifest(&manifest, &ready)?;
    interrupt::check()?;
    put_in_place(&ready, &target)?;
    Ok((manifest.name, target))
}

/// Removes a model from the writable store and answers where it was.
pub fn remove(name: &str) -> Result<PathBuf> {
    ensure!(Manifest::is_name(name), "{name:?} cannot name a model");
    let paths = Paths::from_env();
    let folder = paths.stores[0].join(name);
    if !folder.exists() {
        let elsewhere = paths.stores[1..].iter().map(|store| store.join(name));
        if let Some(other) = elsewhere.into_iter().find(|path| path.exists()) {
            bail!(
                "{} belongs to the system; remove its package",
                other.display()
            );
        }
        bail!(
            "there is no model {name:?} in {}",
            paths.stores[0].display()
        );
    }
    // Out of sight first: a daemon that scans meanwhile sees all of it or nothing.
    let aside = paths.stores[0].join(format!(".{name}-removed-{}", std::process::id()));
    std::fs::rename(&folder, &aside)
        .with_context(|| format!("cannot move {} aside", folder.display()))?;
    std::fs::remove_dir_all(&aside)
        .with_context(|| format!("cannot remove {}", aside.display()))?;
    Ok(folder)
}

fn manifest_of(source: &Path) -> Result<Manifest> {
    if source.is_file() {
        return Manifest::inferred(source).with_context(|| {
            format!(
                "{} is neither a folder nor an .onnx or .tflite file",
                source.display()
            )
        });
    }
    if source.join(MANIFEST_FILE_NAME).exists() {
        return Ok(Manifest::read(source)?);
    }
    let mut models = Vec::new();
    for file in files_of(source)? {
        models.extend(Manifest::inferred(&source.join(file)));
    }
    match models.len() {
        1 => {
            let mut manifest = models.remove(0);
            if let Some(name) = source.file_name().and_then(|name| name.to_str())
                && Manifest::is_name(name)
            {
                name.clone_into(&mut manifest.name);
            }
            Ok(manifest)
        }
        0 => bail!(
            "{} holds no model file and no {MANIFEST_FILE_NAME}",
            source.display()
        ),
        n => bail!(
            "{} holds {n} model files: say which in a {MANIFEST_FILE_NAME}",
            source.display()
        ),
    }
}

/// Paths of all regular files, relative to the source; links are refused.
fn files_of(source: &Path) -> Result<Vec<PathBuf>> {
    if source.is_file() {
        return Ok(vec![PathBuf::from(
            source.file_name().context("a file has a name")?,
        )]);
    }
    let mut files = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        ensure!(
            folder.components().count() < DEPTH_MAX,
            "folders lie more than {DEPTH_MAX} deep"
        );
        let full = source.join(&folder);
        let entries =
            std::fs::read_dir(&full).with_context(|| format!("cannot list {}", full.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot list {}", full.display()))?;
            let (path, kind) = (folder.join(entry.file_name()), entry.file_type()?);
            match kind {
                kind if kind.is_dir() => open.push(path),
                kind if kind.is_file() => files.push(path),
                _ => bail!(
                    "{} is a link or a special file",
                    source.join(path).display()
                ),
            }
            ensure!(
                files.len() <= FILES_MAX,
                "there are more than {FILES_MAX} files"
            );
        }
    }
    files.retain(|file| file != Path::new(MANIFEST_FILE_NAME));
    files.sort();
    Ok(files)
}

/// Copies files and answers their digests; one that the manifest knows must match.
fn copy(
    source: &Path,
    files: &[PathBuf],
    ready: &Path,
    manifest: &Manifest,
    ui: &Ui,
) -> Result<BTreeMap<String, Digest>> {
    let full = |file: &Path| {
        if source.is_file() {
            source.to_path_buf()
        } else {
            source.join(file)
        }
    };
    let mut total = 0;
    for file in files {
        total += std::fs::metadata(full(file))?.len();
    }
    let bar = ui.bytes_bar("install", total);
    let mut digests = BTreeMap::new();
    for file in files {
        let target = ready.join(file);
        if let Some(folder) = target.parent() {
            std::fs::create_dir_all(folder)?;
        }
        copy_file(&full(file), &target, &bar)?;
        let name = file.to_str().context("file names are UTF-8")?.to_owned();
        let digest = Digest::of_file(&target)?;
        if let Some(wanted) = manifest.files.get(&name) {
            ensure!(
                *wanted == digest,
                "{name} is {digest}, its manifest says {wanted}"
            );
        }
        digests.insert(name, digest);
    }
    for name in manifest.files.keys() {
        ensure!(
            digests.contains_key(name),
            "{name} is named in the manifest and missing"
        );
    }
    bar.finish_and_clear();
    Ok(digests)
}

fn copy_file(source: &Path, target: &Path, bar: &indicatif::ProgressBar) -> Result<()> {
    let mut from =
        File::open(source).with_context(|| format!("cannot open {}", source.display()))?;
    let mut to =
        File::create_new(target).with_context(|| format!("cannot create {}", target.display()))?;
    let mut chunk = vec![0; COPY_CHUNK_BYTES];
    loop {
        interrupt::check()?;
        let read = from
            .read(&mut chunk)
            .with_context(|| format!("cannot read {}", source.display()))?;
        if read == 0 {
            return to
                .sync_all()
                .with_context(|| format!("cannot write {}", target.display()));
        }
        to.write_all(&chunk[..read])
            .with_context(|| format!("cannot write {}", target.display()))?;
        bar.inc(read as u64);
    }
}

/// A model that comes with Mote: installed beside it, or in the source tree it was built from.
pub fn bundled(name: &str) -> Result<PathBuf> {
    let installed = Path::new("/usr/share/mote/models").join(name);
    let tree = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/models")
        .join(name);
    [installed, tree]
        .into_iter()
        .find(|path| path.exists())
        .with_context(|| format!("model {name} did not come with this installation"))
}
