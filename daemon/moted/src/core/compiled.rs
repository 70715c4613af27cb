//! Where what providers compile is kept: a folder for each model, way to run it, and state of what it
//! depends on. Whatever changes makes it another folder; those that nobody uses any more are tidied
//! away in time.

use super::{Core, Effect};
use crate::catalogue::Entry;
use mote_api::{Candidate, Digest};
use std::path::PathBuf;

/// Where the folders lie.
#[derive(Clone, Debug)]
pub struct CompiledRoot {
    /// The folder of all.
    pub folder: PathBuf,
    /// Digest over broker, worker, kernel and devices.
    pub machine: String,
}

/// A name for the folder; 128 bits are not met twice.
const NAME_DIGITS: usize = 32;

impl Core {
    /// The folder of a way to run a model; the plain CPU path compiles nothing.
    pub(super) fn compiled_folder(&self, entry: &Entry, candidate: &Candidate) -> Option<PathBuf> {
        let root = self.settings.compiled.as_ref()?;
        if candidate.reference_rank().is_some() {
            return None;
        }
        let stamp = self.probes.stamp(&candidate.flavour)?.to_string();
        let what = serde_json::to_string(&(
            &entry.digest,
            &entry.manifest.dimensions,
            candidate,
            stamp,
            &root.machine,
        ));
        let name = Digest::of(what.ok()?.as_bytes()).to_string();
        let digits = name.strip_prefix("sha256:").unwrap_or(&name);
        Some(root.folder.join(digits.get(..NAME_DIGITS)?))
    }

    /// Has old folders removed where they take more room than they may.
    pub(super) fn tidy_compiled(&mut self) {
        if self.settings.compiled.is_none() {
            return;
        }
        let workers = self.instances.values();
        let mut in_use: Vec<_> = workers
            .filter_map(|one| self.compiled_folder(&one.entry, &one.candidate))
            .collect();
        in_use.extend(self.trial_folder());
        self.effects.push(Effect::TidyCompiled { in_use });
    }
}
