//! Reads model stores: manifests and sizes, never contents.

use super::{Catalogue, Entry, Found};
use crate::limits::{FOLDER_ENTRIES_MAX, MODELS_MAX, STORE_ENTRIES_MAX};
use mote_api::{Digest, MANIFEST_FILE_NAME, Manifest, ManifestError, Variant};
use mote_wire::types::Status;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Reads all stores; of two models with one name, the one in the earlier store counts.
///
/// A model is a folder with a `mote.toml`, a folder of graphs in diffusers' layout, a folder with one
/// model file, or a model file in the store itself. Links that lead out of their store are not followed. What is not in order is kept
/// under its name with the reason.
pub fn scan(stores: &[PathBuf]) -> Catalogue {
    let mut found = Vec::new();
    for store in stores {
        let Ok(root) = store.canonicalize() else {
            continue;
        };
        for path in entries(&root, STORE_ENTRIES_MAX) {
            if found.len() >= MODELS_MAX {
                log::warn!(limit = MODELS_MAX; "models beyond the limit are not served");
                break;
            }
            found.extend(item(&root, &path));
        }
    }
    Catalogue::new(found)
}

/// Names in a folder, sorted, without hidden ones (an installer stages under such names).
fn entries(folder: &Path, max: usize) -> Vec<PathBuf> {
    let Ok(listing) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let names = listing
        .take(max)
        .filter_map(|entry| Some(entry.ok()?.path()));
    let mut paths: Vec<_> = names.filter(|path| !is_hidden(path)).collect();
    paths.sort();
    paths
}

fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn item(root: &Path, path: &Path) -> Option<(String, Found)> {
    let real = inside(root, path)?;
    if real.is_file() {
        return lone_file(root, path, None);
    }
    let folder_name = path.file_name()?.to_str()?.to_owned();
    if path.join(MANIFEST_FILE_NAME).symlink_metadata().is_ok() {
        return Some(match described(root, path) {
            Ok(entry) => (entry.manifest.name.clone(), Found::Model(Box::new(entry))),
            Err(Fault { name, problem }) => {
                let folder = path.to_path_buf();
                (
                    name.unwrap_or(folder_name),
                    Found::Broken { folder, problem },
                )
            }
        });
    }
    if let Some(manifest) = Manifest::inferred_pipeline(path) {
        let found = match pipeline(root, path, manifest) {
            Ok(entry) => Found::Model(Box::new(entry)),
            Err(problem) => {
                let folder = path.to_path_buf();
                Found::Broken { folder, problem }
            }
        };
        return Some((folder_name, found));
    }
    let files = entries(path, FOLDER_ENTRIES_MAX);
    let mut models = files
        .iter()
        .filter(|file| Manifest::inferred(file).is_some());
    match (models.next(), models.next()) {
        (None, _) => None,
        (Some(file), None) => lone_file(root, file, Some(folder_name)),
        (Some(_), Some(_)) => {
            let why = "there are several model files, and which is which is not said";
            let problem = corrupt(MANIFEST_FILE_NAME, why);
            Some((
                folder_name,
                Found::Broken {
                    folder: path.to_path_buf(),
                    problem,
                },
            ))
        }
    }
}

/// The path with links resolved, if it stays inside the store.
fn inside(root: &Path, path: &Path) -> Option<PathBuf> {
    path.canonicalize()
        .ok()
        .filter(|real| real.starts_with(root))
}

fn corrupt(file: impl AsRef<Path>, why: impl std::fmt::Display) -> Status {
    let file = file.as_ref().display().to_string();
    Status::ModelCorrupt {
        file,
        why: why.to_string(),
    }
}

struct Fault {
    /// The model's name, when that much could be read.
    name: Option<String>,
    problem: Status,
}

fn described(root: &Path, folder: &Path) -> Result<Entry, Fault> {
    let refuse = |problem| Fault {
        name: None,
        problem,
    };
    if inside(root, &folder.join(MANIFEST_FILE_NAME)).is_none() {
        return Err(refuse(corrupt(
            MANIFEST_FILE_NAME,
            "it leads out of the store",
        )));
    }
    let manifest = Manifest::read(folder)
        .map_err(|error| refuse(corrupt(MANIFEST_FILE_NAME, manifest_why(&error))))?;
    let text = std::fs::read_to_string(folder.join(MANIFEST_FILE_NAME))
        .map_err(|error| refuse(corrupt(MANIFEST_FILE_NAME, error)))?;
    let variant_files = manifest.variants.iter().flat_map(Variant::graphs).cloned();
    let files: BTreeSet<PathBuf> = manifest
        .files
        .keys()
        .map(PathBuf::from)
        .chain(variant_files)
        .collect();
    let mut sizes = BTreeMap::new();
    for file in files {
        let bytes = size(root, folder, &file).map_err(|problem| Fault {
            name: Some(manifest.name.clone()),
            problem,
        })?;
        sizes.insert(file, bytes);
    }
    let weights_bytes = manifest.variants.iter().map(|variant| {
        let graphs = || variant.graphs().filter_map(|file| sizes.get(file)).sum();
        let bytes = variant.weights_bytes.unwrap_or_else(graphs);
        (variant.name.clone(), bytes)
    });
    Ok(Entry {
        folder: folder.to_path_buf(),
        digest: Digest::of(text.as_bytes()).to_string(),
        bytes: sizes.values().sum(),
        weights_bytes: weights_bytes.collect(),
        manifest_toml: text,
        inferred: false,
        manifest,
    })
}

/// The whole of an error's reasons after its first line, which names the file once more.
fn manifest_why(error: &ManifestError) -> String {
    match error {
        ManifestError::Parse { cause, .. } => cause.message().to_owned(),
        ManifestError::Read { cause, .. } => cause.to_string(),
        ManifestError::Invalid { field, why, .. } => format!("{field}: {why}"),
        ManifestError::TooLarge { .. } => error.to_string(),
    }
}

fn size(root: &Path, folder: &Path, file: &Path) -> Result<u64, Status> {
    let path = folder.join(file);
    let real = path.canonicalize().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => corrupt(file, "it is missing"),
        _ => corrupt(file, error),
    })?;
    if !real.starts_with(root) {
        return Err(corrupt(file, "it leads out of the store"));
    }
    let meta = real.metadata().map_err(|error| corrupt(file, error))?;
    if !meta.is_file() {
        return Err(corrupt(file, "it is not a file"));
    }
    Ok(meta.len())
}

/// A folder of graphs without a manifest. What lies beside a graph (weights in a file of their own,
/// what a part is made like) is counted with it.
fn pipeline(root: &Path, folder: &Path, manifest: Manifest) -> Result<Entry, Status> {
    let mut identity = format!("{}\n", manifest.name);
    let mut bytes = 0;
    let mut weights_bytes = BTreeMap::new();
    for variant in &manifest.variants {
        let mut of_variant = 0;
        for graph in variant.graphs() {
            let beside = folder.join(graph.parent().unwrap_or(Path::new("")));
            for path in entries(&beside, FOLDER_ENTRIES_MAX) {
                let file = path.strip_prefix(folder).unwrap_or(&path);
                if path.is_dir() {
                    continue;
                }
                let file_bytes = size(root, folder, file)?;
                of_variant += file_bytes;
                identity += &format!("{}\n{file_bytes}\n", file.display());
            }
        }
        bytes += of_variant;
        weights_bytes.insert(variant.name.clone(), of_variant);
    }
    Ok(Entry {
        folder: folder.to_path_buf(),
        digest: Digest::of(identity.as_bytes()).to_string(),
        bytes,
        weights_bytes,
        manifest_toml: toml::to_string(&manifest).unwrap_or_default(),
        inferred: true,
        manifest,
    })
}

/// A model file without a manifest, named after itself or after the folder made for it.
fn lone_file(root: &Path, path: &Path, folder_name: Option<String>) -> Option<(String, Found)> {
    let mut manifest = Manifest::inferred(path)?;
    if let Some(name) = folder_name.filter(|name| Manifest::is_name(name)) {
        manifest.name = name;
    }
    if !Manifest::is_name(&manifest.name) {
        return None;
    }
    let folder = path.parent()?;
    let name = manifest.name.clone();
    let bytes = match size(root, folder, Path::new(path.file_name()?)) {
        Ok(bytes) => bytes,
        Err(problem) => {
            return Some((
                name,
                Found::Broken {
                    folder: folder.to_path_buf(),
                    problem,
                },
            ));
        }
    };
    let identity = format!(
        "{}\n{}\n{bytes}\n",
        manifest.name,
        path.file_name()?.display()
    );
    let variants = manifest
        .variants
        .iter()
        .map(|variant| (variant.name.clone(), bytes));
    let entry = Entry {
        folder: folder.to_path_buf(),
        digest: Digest::of(identity.as_bytes()).to_string(),
        bytes,
        weights_bytes: variants.collect(),
        manifest_toml: toml::to_string(&manifest).unwrap_or_default(),
        inferred: true,
        manifest,
    };
    Some((name, Found::Model(Box::new(entry))))
}
