//! What a worker may open: known before anything of a model or a vendor is read.

use crate::registry;
use mote_api::{
    BackendKind, Candidate, DriverPath, DriverPathKind, Flavour, MANIFEST_FILE_NAME, Manifest,
    Variant, driver,
};
use mote_wire::types::LoadModel;
use std::path::{Path, PathBuf};

/// What may be done with a path and all beneath it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read.
    Read,
    /// Read, write, and requests of its own.
    Device,
    /// Read, write, make, remove.
    Write,
}

/// What the system libraries read, seen with strace under ONNX Runtime, TFLite and tract.
const SYSTEM: &[(&str, Access, &str)] = &[
    ("/etc/ld.so.cache", Access::Read, "where libraries are"),
    ("/lib", Access::Read, "system libraries"),
    ("/lib64", Access::Read, "system libraries"),
    ("/usr/lib", Access::Read, "system libraries"),
    ("/usr/lib64", Access::Read, "system libraries"),
    ("/usr/local/lib", Access::Read, "system libraries"),
    ("/etc/localtime", Access::Read, "times in messages"),
    ("/usr/share/zoneinfo", Access::Read, "times in messages"),
    ("/dev/null", Access::Device, "libraries discard there"),
    ("/dev/urandom", Access::Read, "seeds, before getrandom"),
    ("/proc/self", Access::Read, "memory, maps, control group"),
    ("/proc/cpuinfo", Access::Read, "features of the processor"),
    ("/proc/meminfo", Access::Read, "memory of the machine"),
    (
        "/proc/stat",
        Access::Read,
        "processors, in older C libraries",
    ),
    ("/proc/sys/kernel/osrelease", Access::Read, "kernel version"),
    ("/proc/sys/vm/overcommit_memory", Access::Read, "allocators"),
    ("/proc/sys/vm/max_map_count", Access::Read, "allocators"),
    (
        "/sys/devices/system/cpu",
        Access::Read,
        "caches and cores: how many threads",
    ),
    (
        "/sys/devices/system/node",
        Access::Read,
        "which memory is near",
    ),
    ("/sys/fs/cgroup", Access::Read, "processors allowed"),
    (
        "/sys/kernel/mm/transparent_hugepage",
        Access::Read,
        "allocators",
    ),
];
/// Folders of libraries that the administrator named.
const LIBRARY_PATH_VARIABLE: &str = "LD_LIBRARY_PATH";

/// What a worker may open beside what every worker may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    paths: Vec<(PathBuf, Access)>,
    /// Whether a provider talks to a driver of its own.
    pub drivers: bool,
}

impl Scope {
    /// For a model that is to be loaded. What cannot be read of the command is left out: loading
    /// refuses it.
    pub fn of_load(command: &LoadModel) -> Self {
        let mut scope = Self::default();
        let flavour = serde_json::from_slice::<Flavour>(&command.flavour_json);
        if let Ok(flavour) = &flavour {
            scope.runtime(flavour, Path::new(&command.flavour_folder));
        }
        let candidate = serde_json::from_slice::<Candidate>(&command.candidate_json);
        if let Ok(candidate) = &candidate {
            scope.driver(registry::driver_paths(
                candidate.backend,
                Some(&candidate.provider),
            ));
        }
        if let Ok(manifest) = serde_json::from_slice(&command.manifest_json) {
            scope.model(&manifest, Path::new(&command.folder));
        }
        if !command.compiled_folder.is_empty() {
            scope.add(&command.compiled_folder, Access::Write);
        }
        scope
    }

    /// For a probe of one provider of a flavour, or of all: any of them may turn out to work.
    pub fn of_probe(flavour: &Flavour, folder: &Path, provider: Option<&str>) -> Self {
        let mut scope = Self::default();
        scope.runtime(flavour, folder);
        scope.driver(registry::driver_paths(flavour.backend, provider));
        if provider.is_none() {
            for plugin in &flavour.plugins {
                let provider = Some(plugin.provider.as_str());
                scope.driver(registry::driver_paths(flavour.backend, provider));
            }
            if let Some(provider) = registry::found_beside(flavour, folder) {
                scope.driver(registry::driver_paths(flavour.backend, Some(provider)));
            }
        }
        scope
    }

    /// Allows more.
    pub fn add(&mut self, path: impl Into<PathBuf>, access: Access) {
        self.paths.push((path.into(), access));
    }

    /// Everything that may be opened, what every worker may included.
    pub fn paths(&self) -> impl Iterator<Item = (&Path, Access)> {
        let system = SYSTEM
            .iter()
            .map(|(path, access, _)| (Path::new(path), *access));
        let own = self
            .paths
            .iter()
            .map(|(path, access)| (path.as_path(), *access));
        system.chain(own)
    }

    fn runtime(&mut self, flavour: &Flavour, folder: &Path) {
        if flavour.backend == BackendKind::Tract {
            return;
        }
        self.add(folder, Access::Read);
        let plugins = flavour.plugins.iter();
        let plugins = plugins.map(|plugin| flavour.plugin_path(plugin, folder));
        for library in plugins.chain([flavour.library_path(folder)]) {
            if let Some(folder) = library.parent() {
                self.add(folder, Access::Read);
            }
        }
        for path in &flavour.reads {
            self.add(path, Access::Read);
        }
        let named = std::env::var_os(LIBRARY_PATH_VARIABLE).unwrap_or_default();
        let absolute = std::env::split_paths(&named).filter(|path| path.is_absolute());
        for path in absolute.collect::<Vec<_>>() {
            self.add(path, Access::Read);
        }
    }

    /// A described model's folder, and where its links lead within the store, the folder around it;
    /// of a folder with several lone files, this model's alone. Links out of there are not followed,
    /// whatever the catalogue saw before.
    fn model(&mut self, manifest: &Manifest, folder: &Path) {
        let is_described = folder.join(MANIFEST_FILE_NAME).exists()
            || Manifest::inferred_pipeline(folder).is_some();
        let around = match folder.parent() {
            Some(store) if is_described => store,
            _ => folder,
        };
        let inside = |path: &Path| {
            let real = path.canonicalize().ok();
            real.filter(|real| real.starts_with(around))
        };
        if (is_described || has_one_model(folder))
            && let Some(real) = inside(folder)
        {
            self.add(real, Access::Read);
        }
        let variants = manifest.variants.iter().flat_map(Variant::graphs).cloned();
        let listed = manifest.files.keys().map(PathBuf::from);
        for file in variants.chain(listed) {
            if let Some(real) = inside(&folder.join(file)) {
                self.add(real, Access::Read);
            }
        }
    }

    fn driver(&mut self, paths: Vec<&DriverPath>) {
        let mut kinds = paths.iter().map(|path| path.kind);
        self.drivers |= kinds.any(|kind| kind == DriverPathKind::Device);
        let buses = if self.drivers { driver::BUSES } else { &[] };
        for path in paths.into_iter().chain(buses) {
            let access = match path.kind {
                DriverPathKind::Device => Access::Device,
                DriverPathKind::Read => Access::Read,
                DriverPathKind::Write => Access::Write,
            };
            for found in expand(path.path) {
                self.add(found, access);
            }
        }
    }
}

/// Weights may lie beside a lone model file in a folder made for it.
fn has_one_model(folder: &Path) -> bool {
    let Ok(listing) = std::fs::read_dir(folder) else {
        return false;
    };
    let paths = listing.filter_map(|entry| Some(entry.ok()?.path()));
    paths
        .filter(|path| Manifest::inferred(path).is_some())
        .count()
        == 1
}

/// The paths that a row of the table of drivers stands for: a star at the end is any rest of a name.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some(start) = pattern.strip_suffix('*') else {
        return vec![pattern.into()];
    };
    let Some((folder, start)) = start.rsplit_once('/') else {
        return Vec::new();
    };
    let Ok(listing) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let entries = listing.filter_map(Result::ok);
    let matching = entries.filter(|entry| {
        let name = entry.file_name();
        name.as_encoded_bytes().starts_with(start.as_bytes())
    });
    matching.map(|entry| entry.path()).collect()
}
