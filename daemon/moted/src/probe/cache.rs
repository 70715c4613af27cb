//! What probes found before, kept in a file as long as nothing they depend on has changed.

use crate::BUILD_ID;
use crate::flavours::Installed;
use crate::limits::PROBE_CACHE_BYTES_MAX;
use mote_api::{Absence, Capability, Digest};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const FORMAT: u32 = 1;
const FILE_NAME: &str = "probes.json";
/// Beginnings of names in `/dev` of accelerators.
const DEVICE_PREFIXES: [&str; 15] = [
    "accel", "adsprpc", "apex", "davinci", "dri", "ethosu", "fastrpc", "galcore", "hailo", "kfd",
    "mali", "neutron", "nvhost", "nvidia", "rknpu",
];

#[derive(Debug, Default, Serialize, Deserialize)]
struct File {
    format: u32,
    /// Of broker, worker, kernel and devices.
    machine: String,
    flavours: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    stamp: Digest,
    capabilities: Vec<Capability>,
}

/// The file of probe results.
#[derive(Debug)]
pub struct ProbeCache {
    path: PathBuf,
    worker: PathBuf,
    /// Read when it is needed first.
    file: Option<File>,
}

impl ProbeCache {
    /// In the state folder, for probes made by the program `worker`.
    pub fn new(state: &Path, worker: PathBuf) -> Self {
        Self {
            path: state.join(FILE_NAME),
            worker,
            file: None,
        }
    }

    /// What was found about a flavour, if all is as it was then.
    pub fn find(&mut self, installed: &Installed) -> Option<Vec<Capability>> {
        let entry = self.open().flavours.get(&installed.flavour.name)?.clone();
        (entry.stamp == installed.stamp()).then_some(entry.capabilities)
    }

    /// Keeps what was found, unless it may be an accident.
    pub fn keep(&mut self, installed: &Installed, capabilities: &[Capability]) {
        let name = installed.flavour.name.clone();
        let file = self.open();
        if capabilities.iter().any(is_accident) {
            file.flavours.remove(&name);
        } else {
            let capabilities = capabilities.to_vec();
            file.flavours.insert(
                name,
                Entry {
                    stamp: installed.stamp(),
                    capabilities,
                },
            );
        }
        if let Err(error) = self.save() {
            let path = self.path.display().to_string();
            log::warn!(path = path; "cannot keep the results of probes: {error}");
        }
    }

    fn open(&mut self) -> &mut File {
        let Self { path, worker, file } = self;
        file.get_or_insert_with(|| {
            let machine = machine_stamp(worker);
            let kept = read(path).filter(|file| file.format == FORMAT && file.machine == machine);
            kept.unwrap_or_else(|| File {
                format: FORMAT,
                machine,
                flavours: BTreeMap::new(),
            })
        })
    }

    /// Writes beside and renames, so that a reader sees the old file or the new one.
    fn save(&self) -> std::io::Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(folder)?;
        let beside = self
            .path
            .with_extension(format!("json.{}", std::process::id()));
        let mut new = std::fs::File::create(&beside)?;
        new.write_all(&serde_json::to_vec(file)?)?;
        new.sync_all()?;
        std::fs::rename(&beside, &self.path)
    }
}

fn read(path: &Path) -> Option<File> {
    let bytes = std::fs::metadata(path).ok()?.len();
    if bytes > PROBE_CACHE_BYTES_MAX {
        return None;
    }
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Whether another try might find something else though nothing has changed.
fn is_accident(capability: &Capability) -> bool {
    matches!(
        capability.absence,
        Some(
            Absence::ProbeCrashed { .. }
                | Absence::IllegalInstruction { .. }
                | Absence::ProbeTimedOut { .. }
                | Absence::ProbeFailed { .. }
        )
    )
}

/// Changes with the broker and its groups, the worker, the kernel and the accelerators' device files.
pub fn machine_stamp(worker: &Path) -> String {
    let worker = std::fs::metadata(worker);
    let worker = worker.map_or((0, 0, 0), |meta| {
        (meta.len(), meta.mtime(), meta.mtime_nsec())
    });
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut devices: Vec<String> = ["/dev", "/dev/accel", "/dev/dri"]
        .into_iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            let is_ours = |p: &&str| name.starts_with(*p);
            let wanted = name.starts_with("render") || DEVICE_PREFIXES.iter().any(is_ours);
            // A change of permissions may open a device to the daemon.
            let access = wanted.then(|| entry.metadata().ok())??;
            Some(format!(
                "{name} {:o} {}:{}",
                access.mode(),
                access.uid(),
                access.gid()
            ))
        })
        .collect();
    devices.sort();
    let groups = nix::unistd::getgroups().unwrap_or_default();
    Digest::of(format!("{BUILD_ID}\n{worker:?}\n{kernel}\n{devices:?}\n{groups:?}").as_bytes())
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flavours;
    use mote_api::BackendKind;

    #[test]
    fn results_are_found_again_until_something_changes_and_accidents_never() {
        let state = tempfile::tempdir().expect("folder");
        let worker = state.path().join("worker");
        std::fs::write(&worker, "one").expect("file");
        let installed = flavours::scan(&[])
            .installed
            .pop()
            .expect("tract is always there");
        let absence = |absence| {
            vec![flavours::absent(
                &installed.flavour.name,
                BackendKind::Tract,
                absence,
            )]
        };
        let cache = || ProbeCache::new(state.path(), worker.clone());

        assert_eq!(cache().find(&installed), None);
        cache().keep(&installed, &absence(Absence::NoDevice));
        assert_eq!(cache().find(&installed), Some(absence(Absence::NoDevice)));

        let mut other = installed.clone();
        other.flavour.version = "2".into();
        assert_eq!(cache().find(&other), None);

        std::fs::write(&worker, "another worker").expect("file");
        assert_eq!(cache().find(&installed), None);

        cache().keep(&installed, &absence(Absence::NoDevice));
        cache().keep(&installed, &absence(Absence::ProbeCrashed { signal: 11 }));
        assert_eq!(cache().find(&installed), None);

        std::fs::write(state.path().join(FILE_NAME), "{ torn").expect("file");
        assert_eq!(cache().find(&installed), None);
    }
}
