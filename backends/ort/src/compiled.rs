//! What providers compile, kept between loads.
//!
//! A provider that is told so writes what it compiled as a model of its own: nodes of the kind
//! `EPContext` that hold the device's program or name a file with it, between the nodes that it left
//! to others ("EP Context Design" in ONNX Runtime's documentation). That model is loaded in place of
//! the original from then on. It no longer tells how many nodes went where, so this is kept beside it,
//! with the digest of each file; a file that does not match has all of it compiled anew.
//!
//! The folder belongs to one file on one device with one set of options: whoever names it sees to that.

use mote_api::{Digest, Placement};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// A record of another format is not used.
const FORMAT: u32 = 1;
const RECORD_NAME: &str = "compiled.json";
const RECORD_BYTES_MAX: u64 = 1 << 20;
const MODEL_NAME: &str = "model.onnx";
const WEIGHTS_NAME: &str = "model.data";
/// Files of one compiled model at most: one per group of nodes, for some providers.
const FILES_MAX: usize = 4_096;

/// How a provider keeps what it compiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeps {
    /// Not at all, or nothing that takes long.
    Nothing,
    /// As a model with context nodes.
    Context,
    /// By itself, in a folder that this option names, once those others are set.
    Folder {
        option: &'static str,
        others: &'static [(&'static str, &'static str)],
    },
}

/// Written last, so that what is there without it is not whole.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    format: u32,
    /// Version of the library that wrote it.
    library: String,
    placement: Placement,
    files: BTreeMap<String, Digest>,
}

/// A model that was compiled before.
pub(crate) struct Found {
    pub(crate) model: PathBuf,
    /// Of the original.
    pub(crate) placement: Placement,
}

/// Session options that have the providers of a session write what they compile to `folder`.
pub(crate) fn entries(folder: &Path) -> Option<[(&'static str, String); 4]> {
    let path = folder.join(MODEL_NAME).to_str()?.to_owned();
    Some([
        ("ep.context_enable", "1".into()),
        ("ep.context_file_path", path),
        // Files beside the model can be mapped; within it they would be read and copied.
        ("ep.context_embed_mode", "0".into()),
        (
            "ep.context_model_external_initializers_file_name",
            WEIGHTS_NAME.into(),
        ),
    ])
}

/// What `folder` holds, if it is whole and of this library.
///
/// # Errors
/// When something is there that cannot be used.
pub(crate) fn find(folder: &Path, library: &str) -> io::Result<Option<Found>> {
    let text = match fs::File::open(folder.join(RECORD_NAME)) {
        Ok(file) => {
            let mut text = Vec::new();
            file.take(RECORD_BYTES_MAX).read_to_end(&mut text)?;
            text
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let record: Record = serde_json::from_slice(&text)?;
    if record.format != FORMAT || record.library != library {
        return Ok(None);
    }
    for (name, digest) in &record.files {
        if Digest::of_file(&folder.join(name))? != *digest {
            return Err(io::Error::other(format!("{name} has changed")));
        }
    }
    Ok(record.files.contains_key(MODEL_NAME).then(|| Found {
        model: folder.join(MODEL_NAME),
        placement: record.placement,
    }))
}

/// Makes what a provider has just written to `folder` good for the next load. Without a model in it
/// the provider keeps nothing.
pub(crate) fn keep(folder: &Path, library: &str, placement: &Placement) -> io::Result<bool> {
    if !folder.join(MODEL_NAME).is_file() {
        return Ok(false);
    }
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder)?.take(FILES_MAX + 1) {
        let entry = entry?;
        let is_kept = entry.file_type()?.is_file() && !is_other(&entry.path());
        if let Some(name) = entry.file_name().to_str().filter(|_| is_kept) {
            files.insert(name.to_owned(), Digest::of_file(&entry.path())?);
        }
    }
    if files.len() > FILES_MAX {
        return Err(io::Error::other(format!("more than {FILES_MAX} files")));
    }
    let record = serde_json::to_vec(&Record {
        format: FORMAT,
        library: library.to_owned(),
        placement: placement.clone(),
        files,
    })?;
    let beside = folder.join(format!("{RECORD_NAME}.new"));
    let mut file = fs::File::create(&beside)?;
    file.write_all(&record)?;
    file.sync_all()?;
    fs::rename(&beside, folder.join(RECORD_NAME))?;
    Ok(true)
}

/// Removes all files of the folder, the record first.
pub(crate) fn clear(folder: &Path) -> io::Result<()> {
    match fs::remove_file(folder.join(RECORD_NAME)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() && !is_other(&entry.path()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// A profile of runs may lie in the same folder.
fn is_other(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_none_or(|name| name.starts_with(crate::profile::PREFIX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_api::ProviderShare;

    #[test]
    fn what_is_not_whole_or_was_changed_is_not_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        let placement = Placement {
            shares: vec![ProviderShare {
                provider: "P".into(),
                nodes: 7,
                groups: 1,
                time_us: None,
            }],
            read_back: true,
        };
        let found = |library: &str| find(folder, library).map(|found| found.is_some());
        assert!(!keep(folder, "1.2", &placement).expect("nothing to keep"));
        fs::write(folder.join(MODEL_NAME), "model").expect("written");
        fs::write(folder.join("program.bin"), "program").expect("written");
        assert!(!found("1.2").expect("not whole"));

        assert!(keep(folder, "1.2", &placement).expect("kept"));
        let kept = find(folder, "1.2").expect("readable").expect("whole");
        assert_eq!(kept.placement, placement);
        assert!(!found("1.3").expect("of another library"));

        fs::write(folder.join("program.bin"), "pr0gram").expect("written");
        assert!(found("1.2").is_err());
        fs::remove_file(folder.join("program.bin")).expect("removed");
        assert!(found("1.2").is_err());
        clear(folder).expect("cleared");
        assert!(!found("1.2").expect("nothing"));
        assert_eq!(fs::read_dir(folder).expect("a folder").count(), 0);
    }
}
