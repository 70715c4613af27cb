//! Runtime flavours: what is installed, what is known and could be, and what is not in order.

use crate::drivers;
use crate::limits::FLAVOURS_MAX;
use mote_api::{
    Absence, BackendKind, Capability, Digest, Flavour, FlavourError, Manifest, RUNTIME_FILE_NAME,
    TRACT_FLAVOUR,
};
use std::cell::LazyCell;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Flavours that are of use on any machine; `mote fetch` can get them. Those for accelerators are
/// named as the next step of a provider that no installed flavour has.
const GENERAL: [(&str, BackendKind); 2] = [
    ("onnxruntime-cpu", BackendKind::OnnxRuntime),
    ("tflite", BackendKind::Tflite),
];

/// A flavour that can be probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Its description.
    pub flavour: Flavour,
    /// Where its libraries lie; empty for the built-in one.
    pub folder: PathBuf,
    /// State of the drivers and vendor libraries it may use; empty for the built-in one, which uses
    /// none.
    pub drivers: Arc<str>,
}

impl Installed {
    /// Changes whenever one of the flavour's files does, by name, size and time of change, or a driver
    /// or library of a vendor.
    pub fn stamp(&self) -> Digest {
        let mut text = serde_json::to_string(&self.flavour).unwrap_or_default();
        let flavour = &self.flavour;
        let files = flavour.files.iter().map(|file| file.name.as_path());
        let plugins = flavour.plugins.iter().map(|one| one.library.as_path());
        let loaded = plugins.chain([flavour.library.as_path()]);
        for name in files.chain(loaded) {
            let meta = std::fs::metadata(self.folder.join(name));
            let state = meta.map_or((0, 0, 0), |m| (m.len(), m.mtime(), m.mtime_nsec()));
            text.push_str(&format!("\n{} {state:?}", name.display()));
        }
        text.push_str(&format!("\n{}", self.drivers));
        Digest::of(text.as_bytes())
    }
}

/// What the runtime folders hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flavours {
    /// What can be probed: general flavours, those for accelerators, the built-in one.
    pub installed: Vec<Installed>,
    /// What cannot: not installed, or not in order.
    pub absent: Vec<Capability>,
}

/// Reads the descriptions of all flavours; of two with one name, the one in the earlier folder
/// counts.
pub fn scan(folders: &[PathBuf]) -> Flavours {
    // Where nothing but the built-in runtime is installed, nobody asks.
    let drivers: LazyCell<Arc<str>> = LazyCell::new(|| drivers::state().into());
    let mut flavours = Flavours::default();
    let mut names = BTreeSet::new();
    for path in folders.iter().flat_map(|folder| subfolders(folder)) {
        if flavours.installed.len() >= FLAVOURS_MAX {
            log::warn!(limit = FLAVOURS_MAX; "runtime flavours beyond the limit are not used");
            break;
        }
        let folder_name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        match Flavour::read(&path) {
            Ok(flavour) if !Manifest::is_name(&flavour.name) || flavour.name == TRACT_FLAVOUR => {
                log::warn!(folder = path.display().to_string(); "a runtime has no usable name");
            }
            Ok(flavour) => {
                if names.insert(flavour.name.clone()) {
                    flavours.installed.push(Installed {
                        flavour,
                        folder: path,
                        drivers: Arc::clone(&drivers),
                    });
                }
            }
            Err(error) => {
                log::warn!(folder = path.display().to_string(); "a runtime is not in order: {error}");
                if Manifest::is_name(&folder_name) && names.insert(folder_name.clone()) {
                    flavours.absent.push(broken(&folder_name, &path, &error));
                }
            }
        }
    }
    // Each of them can do the CPU too: what was made for it comes first.
    flavours
        .installed
        .sort_by_key(|one| !one.flavour.is_general());
    for (name, backend) in GENERAL {
        if !names.contains(name) {
            let absence = Absence::NotFetched {
                flavour: name.into(),
            };
            flavours.absent.push(absent(name, backend, absence));
        }
    }
    let tract = Installed {
        flavour: Flavour::tract(""),
        folder: PathBuf::new(),
        drivers: Arc::default(),
    };
    flavours.installed.push(tract);
    flavours
}

fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let Ok(listing) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let paths = listing.filter_map(|entry| Some(entry.ok()?.path()));
    let mut paths: Vec<_> = paths
        .filter(|path| path.join(RUNTIME_FILE_NAME).is_file())
        .take(FLAVOURS_MAX)
        .collect();
    paths.sort();
    paths
}

/// Which backend it would have been, its name says or what there is of its description; without
/// either it is taken for what most are.
fn broken(name: &str, folder: &Path, error: &FlavourError) -> Capability {
    let known = GENERAL.into_iter().find(|(known, _)| *known == name);
    let backend = known.map(|(_, backend)| backend);
    let backend = backend.or_else(|| Flavour::backend_of(folder));
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    let why = format!("{error}{}", cause.unwrap_or_default());
    let absence = Absence::LibraryRejected {
        name: RUNTIME_FILE_NAME.into(),
        why: why.trim_end().to_owned(),
    };
    absent(name, backend.unwrap_or(BackendKind::OnnxRuntime), absence)
}

/// A whole flavour that is absent.
pub fn absent(flavour: &str, backend: BackendKind, absence: Absence) -> Capability {
    Capability {
        flavour: flavour.into(),
        backend,
        library_version: String::new(),
        provider: String::new(),
        device: None,
        absence: Some(absence),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESCRIPTION: &str = "format = 1\nname = \"NAME\"\nbackend = \"onnxruntime\"\n\
        version = \"1\"\nlibrary = \"lib.so\"\nlicence = \"MIT\"\n";

    fn install(root: &Path, folder: &str, text: &str) {
        std::fs::create_dir_all(root.join(folder)).expect("folder");
        std::fs::write(root.join(folder).join(RUNTIME_FILE_NAME), text).expect("file");
    }

    #[test]
    fn what_is_missing_or_broken_is_absent_with_its_reason() {
        let root = tempfile::tempdir().expect("folder");
        let folders = [root.path().to_path_buf(), "/nowhere".into()];
        let names = |flavours: &Flavours| -> Vec<String> {
            flavours
                .installed
                .iter()
                .map(|one| one.flavour.name.clone())
                .collect()
        };
        let empty = scan(&folders);
        assert_eq!(names(&empty), ["tract"]);
        let not_fetched = |c: &Capability| matches!(c.absence, Some(Absence::NotFetched { .. }));
        assert_eq!(empty.absent.len(), 2);
        assert!(empty.absent.iter().all(not_fetched));

        let good = DESCRIPTION.replace("NAME", "onnxruntime-cpu");
        install(root.path(), "ort", &good);
        install(root.path(), "tflite", "nonsense");
        let torn = "backend = \"tflite\"\nname = 1\n";
        install(root.path(), "vendor", torn);
        install(root.path(), "evil", &DESCRIPTION.replace("NAME", "../x"));
        install(root.path(), "tract", &DESCRIPTION.replace("NAME", "tract"));
        let found = scan(&folders);
        assert_eq!(names(&found), ["onnxruntime-cpu", "tract"]);
        let rejected = |c: &Capability| matches!(c.absence, Some(Absence::LibraryRejected { .. }));
        assert!(found.absent.iter().all(rejected));
        let broken = found.absent.iter().map(|c| (c.flavour.as_str(), c.backend));
        assert_eq!(
            broken.collect::<Vec<_>>(),
            [
                ("tflite", BackendKind::Tflite),
                ("vendor", BackendKind::Tflite)
            ]
        );
    }

    #[test]
    fn the_stamp_follows_the_files() {
        let root = tempfile::tempdir().expect("folder");
        install(root.path(), "x", &DESCRIPTION.replace("NAME", "x"));
        let [installed, _] = &scan(&[root.path().to_path_buf()]).installed[..] else {
            panic!("one and tract")
        };
        let missing = installed.stamp();
        assert_eq!(missing, installed.stamp());
        std::fs::write(installed.folder.join("lib.so"), "now it is there").expect("file");
        assert_ne!(missing, installed.stamp());
    }
}
