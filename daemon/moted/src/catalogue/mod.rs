//! The models that can be served.

mod scan;
mod similar;
mod stamp;
mod verified;

pub use scan::scan;
pub use stamp::Stamp;
pub use verified::{Verified, VerifiedStore};

use crate::limits::{
    CACHE_BUDGET_PERCENT, CACHE_CONVERSATIONS, CLIPS_AT_ONCE, CLIPS_BUDGET_PERCENT,
    CLIPS_BYTES_MAX, CLIPS_BYTES_MIN, MODEL_OVERHEAD_BYTES, RESTORATION_BYTES_MAX, SIMILAR_MAX,
};
use mote_api::{BackendKind, Manifest, Variant};
use mote_wire::types::{ModelDetails, ModelInfo, Status, VariantInfo};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

/// One model as its folder describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The folder its files are relative to.
    pub folder: PathBuf,
    /// The manifest, read or inferred.
    pub manifest: Manifest,
    /// The manifest as text.
    pub manifest_toml: String,
    /// Whether the manifest follows from the files.
    pub inferred: bool,
    /// Digest of the manifest, which names the digests of the files; of an inferred one, digest of
    /// name and size of the file.
    pub digest: String,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes of weights by variant.
    pub weights_bytes: BTreeMap<String, u64>,
}

impl Entry {
    /// Memory beside the model, where models may take `budget_bytes`: of key and value caches, of frames that
    /// are restored, or of clips that are made; 0 for other models.
    pub fn cache_bytes(&self, budget_bytes: u64) -> u64 {
        let manifest = &self.manifest;
        let (some, percent) = match (&manifest.text, &manifest.restoration, &manifest.generation) {
            (Some(text), ..) => {
                let conversation = text.cache_bytes_max();
                let all = CACHE_CONVERSATIONS.saturating_mul(conversation);
                (all, CACHE_BUDGET_PERCENT)
            }
            (None, Some(_), _) => (RESTORATION_BYTES_MAX, CACHE_BUDGET_PERCENT),
            (None, None, Some(generation)) => {
                let clip = generation.clip_bytes().unwrap_or(u64::MAX);
                let all = CLIPS_AT_ONCE.saturating_mul(clip);
                let all = all.clamp(CLIPS_BYTES_MIN, CLIPS_BYTES_MAX);
                (all, CLIPS_BUDGET_PERCENT)
            }
            (None, None, None) => return 0,
        };
        some.min(budget_bytes / 100 * percent)
    }

    /// Memory of one loaded copy of a variant, without caches.
    pub fn need_bytes(&self, variant: &Variant) -> u64 {
        let weights = self.weights_bytes.get(&variant.name).copied().unwrap_or(0);
        let guess = weights
            .saturating_mul(2)
            .saturating_add(MODEL_OVERHEAD_BYTES);
        variant.memory_bytes.unwrap_or(guess)
    }

    /// As above, by the variant's name.
    pub fn need_bytes_of(&self, variant: &str) -> u64 {
        let variants = &self.manifest.variants;
        variants
            .iter()
            .find(|one| one.name == variant)
            .map_or(0, |one| self.need_bytes(one))
    }

    /// The backends that could run it.
    pub fn backends(&self) -> BTreeSet<BackendKind> {
        self.manifest
            .variants
            .iter()
            .map(|variant| variant.backend)
            .collect()
    }

    /// As it is told to clients; whether it is loaded or pinned is for others to say.
    pub fn info(&self) -> ModelInfo {
        let manifest = &self.manifest;
        let variants = manifest.variants.iter().map(|variant| VariantInfo {
            name: variant.name.clone(),
            backend: variant.backend.to_string(),
            precision: variant.precision.to_string(),
            weights_bytes: self.weights_bytes.get(&variant.name).copied().unwrap_or(0),
        });
        ModelInfo {
            name: manifest.name.clone(),
            task: manifest.task.to_string(),
            description: manifest.description.clone(),
            licence: manifest.licence.clone(),
            source: manifest.source.clone(),
            digest: self.digest.clone(),
            bytes: self.bytes,
            variants: variants.collect(),
            loaded: false,
            pinned: false,
            problem: None,
        }
    }

    /// All about it; inputs and outputs are for others to say.
    pub fn details(&self) -> ModelDetails {
        ModelDetails {
            model: self.info(),
            folder: self.folder.display().to_string(),
            manifest_toml: self.manifest_toml.clone(),
            inferred: self.inferred,
            inputs: Vec::new(),
            outputs: Vec::new(),
        }
    }
}

/// A model, or why what lies there is none.
#[derive(Clone, Debug)]
pub enum Item {
    /// In order.
    Model(Arc<Entry>),
    /// Not in order.
    Broken {
        /// Where it lies.
        folder: PathBuf,
        /// What is wrong.
        problem: Status,
    },
}

/// All models by name.
#[derive(Clone, Debug, Default)]
pub struct Catalogue(BTreeMap<String, Item>);

impl Catalogue {
    /// From what a scan found; of two with one name the first stays.
    pub fn new(found: impl IntoIterator<Item = (String, Found)>) -> Self {
        let mut items = BTreeMap::new();
        for (name, found) in found {
            items.entry(name).or_insert_with(|| match found {
                Found::Model(entry) => Item::Model(Arc::new(*entry)),
                Found::Broken { folder, problem } => Item::Broken { folder, problem },
            });
        }
        Self(items)
    }

    /// The model of this name.
    ///
    /// # Errors
    /// [`Status::ModelNotFound`] with names that are close, or what is wrong with its files.
    pub fn find(&self, name: &str) -> Result<Arc<Entry>, Status> {
        match self.0.get(name) {
            Some(Item::Model(entry)) => Ok(Arc::clone(entry)),
            Some(Item::Broken { problem, .. }) => Err(problem.clone()),
            None => {
                let names = self.0.keys().map(String::as_str);
                let similar = similar::similar(name, names, SIMILAR_MAX);
                Err(Status::ModelNotFound {
                    model: name.to_owned(),
                    similar,
                })
            }
        }
    }

    /// Whether a model with this digest is there.
    pub fn has_digest(&self, digest: &str) -> bool {
        self.0
            .values()
            .any(|item| matches!(item, Item::Model(entry) if entry.digest == digest))
    }

    /// All models as they are told to clients.
    pub fn infos(&self) -> impl Iterator<Item = ModelInfo> {
        self.0.iter().map(|(name, item)| match item {
            Item::Model(entry) => entry.info(),
            Item::Broken { problem, .. } => ModelInfo {
                name: name.clone(),
                problem: Some(problem.clone()),
                ..ModelInfo::default()
            },
        })
    }

    /// Number of models, broken ones included.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no model.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What a scan found under one name.
#[derive(Clone, Debug)]
pub enum Found {
    /// A model.
    Model(Box<Entry>),
    /// What should have been one.
    Broken {
        /// Where it lies.
        folder: PathBuf,
        /// What is wrong.
        problem: Status,
    },
}
