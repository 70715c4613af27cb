//! State of the drivers and vendor libraries that computing on a device depends on: with another one,
//! what was found about it has to be found out anew.
//!
//! Nothing is loaded for it: the kernel tells the versions of its modules, and of libraries name, size
//! and time of change are looked at where the loader would find them.

use crate::limits::{
    LIBRARY_FOLDER_ENTRIES_MAX, LIBRARY_FOLDERS_MAX, LOADER_CONFIG_BYTES_MAX,
    LOADER_CONFIG_FILES_MAX, SYSFS_BYTES_MAX,
};
use mote_api::driver::DELEGATE_MODULES;
use mote_api::vendor::VENDORS;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

const LIBRARY_PATH_VARIABLE: &str = "LD_LIBRARY_PATH";
const LOADER_CONFIG: &str = "/etc/ld.so.conf";
/// Where the loader looks whatever its configuration says (ld.so(8)).
const LIBRARY_FOLDERS: [&str; 4] = ["/lib", "/usr/lib", "/lib64", "/usr/lib64"];

/// As things are on this machine.
pub fn state() -> String {
    let library_path = std::env::var_os(LIBRARY_PATH_VARIABLE).unwrap_or_default();
    state_under(Path::new("/"), &library_path)
}

/// As things are under `root`, where `library_path` is what the loader is told by its variable: a line
/// for each module that is loaded and each library that is there.
pub fn state_under(root: &Path, library_path: &OsStr) -> String {
    let mut lines = modules(root);
    lines.extend(libraries(root, library_path));
    lines.into_iter().collect::<Vec<_>>().join("\n")
}

/// A path of the machine as it is found under `root`.
fn under(root: &Path, path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// The text of a file, as far as the limit.
fn text(path: &Path, bytes_max: u64) -> Option<String> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).ok()?;
    file.take(bytes_max).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Modules that are loaded, with what the kernel knows of their versions. Those that belong to the
/// kernel itself often have none: they change with it.
fn modules(root: &Path) -> BTreeSet<String> {
    let of_vendors = VENDORS.iter().flat_map(|vendor| vendor.modules);
    let names: BTreeSet<&str> = of_vendors.chain(DELEGATE_MODULES).copied().collect();
    let loaded = names.into_iter().filter_map(|name| {
        let folder = under(root, "/sys/module").join(name);
        folder.is_dir().then(|| {
            let told = ["version", "srcversion"].map(|file| {
                let told = text(&folder.join(file), SYSFS_BYTES_MAX).unwrap_or_default();
                told.trim().to_owned()
            });
            format!("{name} {}", told.join(" "))
        })
    });
    loaded.collect()
}

/// Vendors' libraries where the loader would find them.
fn libraries(root: &Path, library_path: &OsStr) -> BTreeSet<String> {
    let starts: BTreeSet<&str> = VENDORS
        .iter()
        .flat_map(|vendor| vendor.libraries)
        .map(|(start, _)| *start)
        .collect();
    let is_vendors =
        |name: &str| name.contains(".so") && starts.iter().any(|start| name.starts_with(start));
    let mut found = BTreeSet::new();
    for folder in library_folders(root, library_path) {
        let Ok(listing) = std::fs::read_dir(under(root, &folder)) else {
            continue;
        };
        for entry in listing.take(LIBRARY_FOLDER_ENTRIES_MAX).flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| is_vendors(name)) else {
                continue;
            };
            // Mostly a link to the file of a version.
            let Ok(meta) = std::fs::metadata(entry.path()) else {
                continue;
            };
            found.insert(format!(
                "{} {} {}.{}",
                folder.join(name).display(),
                meta.len(),
                meta.mtime(),
                meta.mtime_nsec()
            ));
        }
    }
    found
}

fn library_folders(root: &Path, library_path: &OsStr) -> BTreeSet<PathBuf> {
    let mut folders: BTreeSet<PathBuf> = LIBRARY_FOLDERS.iter().map(PathBuf::from).collect();
    let named = std::env::split_paths(library_path).filter(|folder| folder.is_absolute());
    folders.extend(named.take(LIBRARY_FOLDERS_MAX));
    let mut files = vec![PathBuf::from(LOADER_CONFIG)];
    let mut read = 0;
    while let Some(file) = files.pop() {
        read += 1;
        if read > LOADER_CONFIG_FILES_MAX {
            break;
        }
        let Some(text) = text(&under(root, &file), LOADER_CONFIG_BYTES_MAX) else {
            continue;
        };
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            match line.strip_prefix("include").map(str::trim_start) {
                Some(pattern) if pattern.len() < line.len() - "include".len() => {
                    files.extend(matching(root, pattern));
                }
                _ if line.starts_with('/') && folders.len() < LIBRARY_FOLDERS_MAX => {
                    folders.insert(line.into());
                }
                _ => {}
            }
        }
    }
    folders
}

/// Files of one folder that match a pattern with at most one star, in its last part, as ldconfig's
/// `include` has them; a relative one begins in `/etc`.
fn matching(root: &Path, pattern: &str) -> Vec<PathBuf> {
    let pattern = Path::new("/etc").join(pattern);
    let (Some(folder), Some(name)) = (pattern.parent(), pattern.file_name()) else {
        return Vec::new();
    };
    let name = name.to_string_lossy();
    let Some((start, end)) = name.split_once('*') else {
        return vec![pattern.clone()];
    };
    let Ok(listing) = std::fs::read_dir(under(root, folder)) else {
        return Vec::new();
    };
    let names = listing
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    let matching = names.filter(|name| {
        name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
    });
    let mut files: Vec<PathBuf> = matching.map(|name| folder.join(name)).collect();
    files.sort();
    files.truncate(LOADER_CONFIG_FILES_MAX);
    files
}
