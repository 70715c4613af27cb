//! Trials: which ways to run a model are tried before it is used, one after the other.

use super::ending::Ending;
use super::event::{Attempt, Finding, Outcome};
use super::seek::Parked;
use super::{Core, Effect};
use crate::catalogue::{Entry, Stamp};
use crate::ids::{WantId, WorkerId};
use crate::limits::{
    HOPELESS_FACTOR, PATIENCE_FACTOR, REFERENCE_PATIENCE_FACTOR, TRIAL_LOAD_LIMIT_MS,
    TRIAL_MEASURE_MS, TRIAL_RUN_LIMIT_MS, TRIAL_RUNS_MAX,
};
use crate::logging::brief;
use crate::policy::history::Key;
use crate::policy::ledger::{Pool, victims};
use crate::policy::planner::{Plan, Requirements, Standing};
use crate::policy::trials::{self, Record, Trials};
use mote_api::{
    Candidate, Compare, DeviceKind, ProviderShare, Rejection, Samples, Trial, TrialTerms, Verdict,
    Verification,
};
use mote_wire::types::{LoadModel, Progress, Reply, Stage, TrialInfo};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Whether ways to run a model are tried, or trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choose {
    /// They are compared with the reference and measured before their first use.
    #[default]
    Measured,
    /// They are taken in the order of what they are.
    Ranked,
}

/// How long trials may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrialLimits {
    /// To load and compile.
    pub load_ms: u64,
    /// To run, beyond what the reference took.
    pub run_ms: u64,
}

impl Default for TrialLimits {
    fn default() -> Self {
        Self {
            load_ms: TRIAL_LOAD_LIMIT_MS,
            run_ms: TRIAL_RUN_LIMIT_MS,
        }
    }
}

/// The trial in progress.
#[derive(Debug)]
struct Running {
    worker: WorkerId,
    entry: Arc<Entry>,
    candidate: Candidate,
    terms: TrialTerms,
    progress: Progress,
    need_bytes: u64,
    /// Whose memory that is.
    pool: Pool,
    /// Not begun: it waits for memory.
    awaits_memory: bool,
    /// Files that are being verified by its load.
    verifying: Option<Stamp>,
}

/// What the reference of a file computed.
#[derive(Debug)]
struct Reference {
    key: Key,
    compare: Compare,
}

/// What is known from trials, and the one in progress.
#[derive(Debug, Default)]
pub struct Trialling {
    book: Trials,
    running: Option<Running>,
    /// Of the model whose candidates are being tried.
    reference: Option<Reference>,
    /// Something has ended that requests wait for.
    unanswered: bool,
}

/// What a trial told about a candidate, for receipts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrialNote {
    /// What is known of its numbers.
    pub verification: &'static str,
    /// Whether it was chosen for being measured to be the best.
    pub measured: bool,
    /// When it was tried, in seconds since 1970.
    pub tried_at_s: u64,
    /// Time it took to load and compile.
    pub load_us: u64,
    /// Time of one run of the check input.
    pub run_us: u64,
    /// Where that time went.
    pub shares: Vec<ProviderShare>,
}

fn file_of<'a>(entry: &'a Entry, candidate: &Candidate) -> Option<&'a Path> {
    let mut variants = entry.manifest.variants.iter();
    let variant = variants.find(|variant| variant.name == candidate.variant)?;
    Some(&variant.file)
}

fn key_of(entry: &Entry, candidate: &Candidate) -> Key {
    Key {
        digest: entry.digest.clone(),
        candidate: candidate.clone(),
    }
}

impl Core {
    /// Takes in what trials found before this broker was started.
    pub fn recall_trials(&mut self, records: Vec<Record>) {
        self.trials.book.recall(records);
    }

    pub(super) fn now_s(&self) -> u64 {
        let since = self.now.saturating_duration_since(self.settings.started);
        self.settings.started_unix_s + since.as_secs()
    }

    /// What is on record of a candidate as its libraries are now.
    pub(super) fn trial_record(&self, key: &Key) -> Option<&Record> {
        let stamp = self.probes.stamp(&key.candidate.flavour)?;
        self.trials.book.find(key, stamp, self.now_s())
    }

    /// What a trial holds against a candidate.
    pub(super) fn trial_rejection(&self, key: &Key) -> Option<Rejection> {
        match &self.trial_record(key)?.verdict {
            Verdict::Passed(_) => None,
            Verdict::Rejected(rejection) => Some(rejection.clone()),
        }
    }

    /// What trials say of a candidate that may be used.
    pub(super) fn standing(&self, entry: &Entry, candidate: &Candidate) -> Standing {
        if self.settings.choose == Choose::Ranked {
            return Standing::default();
        }
        let record = self.trial_record(&key_of(entry, candidate));
        let Some(trial) = record.and_then(Record::trial) else {
            return Standing::default();
        };
        let reference = self.reference_trial(entry, candidate);
        trials::standing(candidate, trial, reference)
    }

    /// What is on record of the reference that a candidate was compared with.
    fn reference_trial(&self, entry: &Entry, candidate: &Candidate) -> Option<&Trial> {
        let file = file_of(entry, candidate)?;
        let all = self.probes.capabilities().iter();
        let known = all.flat_map(|capability| {
            let variants = entry.manifest.variants.iter();
            let of_file =
                variants.filter(move |one| one.file == file && one.backend == capability.backend);
            of_file.filter_map(|variant| {
                let key = key_of(
                    entry,
                    &Candidate {
                        variant: variant.name.clone(),
                        backend: capability.backend,
                        flavour: capability.flavour.clone(),
                        provider: capability.provider.clone(),
                        device: capability.device.clone()?,
                        precision: variant.precision,
                    },
                );
                let rank = key.candidate.reference_rank()?;
                let trial = self.trial_record(&key)?.trial()?;
                Some((rank, trial))
            })
        });
        known.min_by_key(|(rank, _)| *rank).map(|(_, trial)| trial)
    }

    /// What receipts say of a candidate.
    pub(super) fn trial_note(
        &self,
        entry: &Entry,
        candidate: &Candidate,
        plan: &Plan,
    ) -> TrialNote {
        let is_best = plan.candidates.first() == Some(candidate);
        match self.trial_record(&key_of(entry, candidate)) {
            Some(record) => TrialNote {
                verification: record
                    .trial()
                    .map_or("rejected", |it| it.verification.name()),
                measured: is_best && plan.is_measured(),
                tried_at_s: record.tried_at_s,
                run_us: record.trial().map_or(0, |trial| trial.run_us),
                load_us: record.trial().map_or(0, |trial| trial.load_us),
                shares: match record.trial() {
                    Some(trial) => trial.placement.shares.clone(),
                    None => Vec::new(),
                },
            },
            None => TrialNote {
                verification: match candidate.reference_rank() {
                    Some(_) => "reference",
                    None => "unchecked",
                },
                ..TrialNote::default()
            },
        }
    }

    /// Whether a plan may be acted on: all that is to be tried before was. Otherwise a trial is in
    /// progress, and the plan is to be made anew when it has ended.
    ///
    /// The reference alone needs no trial, unless somebody wants it measured.
    pub(super) fn is_tried(&mut self, entry: &Arc<Entry>, plan: &Plan, measure: bool) -> bool {
        if self.settings.choose == Choose::Ranked || self.ending != Ending::No {
            return true;
        }
        let references = self.plan(entry, &Requirements::default(), None).candidates;
        let is_reference =
            |candidate: &Candidate| reference_of(entry, candidate, &references) == Some(candidate);
        let lone = plan
            .candidates
            .first()
            .filter(|_| plan.candidates.len() == 1);
        if !measure && lone.is_some_and(is_reference) {
            return true;
        }
        let fastest = plan.standings.iter().filter_map(|one| one.measured);
        let fastest_us = fastest.map(|cost| cost.run_us).min();
        loop {
            let untried = plan
                .candidates
                .iter()
                .filter(|one| !self.is_settled(entry, one));
            let mut untried: Vec<&Candidate> = untried.collect();
            // What others are compared with goes first, then what is thought best.
            untried.sort_by_key(|candidate| !is_reference(candidate));
            let Some(next) = untried.first().copied() else {
                return true;
            };
            if self.trials.running.is_some() {
                return false;
            }
            let total = plan.candidates.len() as u64;
            let progress = Progress {
                stage: Stage::Trying,
                done: total - untried.len() as u64 + 1,
                total: Some(total),
                remaining_ms: None,
            };
            let (candidate, compare) = self.pair(entry, next, &references);
            self.begin_trial(entry, candidate, compare, fastest_us, progress);
        }
    }

    fn is_settled(&self, entry: &Entry, candidate: &Candidate) -> bool {
        let key = key_of(entry, candidate);
        let stamp = self.probes.stamp(&candidate.flavour);
        stamp.is_none_or(|stamp| self.trials.book.is_settled(&key, stamp, self.now_s()))
    }

    /// What is to be tried for `wanted`, and what to compare it with: its reference goes first where
    /// that has not computed lately.
    fn pair(
        &self,
        entry: &Entry,
        wanted: &Candidate,
        references: &[Candidate],
    ) -> (Candidate, Option<Compare>) {
        let nothing = |why: &str| {
            let why = why.to_owned();
            (wanted.clone(), Some(Compare::Nothing { why }))
        };
        let Some(reference) = reference_of(entry, wanted, references) else {
            return nothing("nothing here runs the same file on the plain CPU");
        };
        if reference == wanted {
            return (wanted.clone(), None);
        }
        let key = key_of(entry, reference);
        match &self.trials.reference {
            Some(known) if known.key == key => (wanted.clone(), Some(known.compare.clone())),
            _ if self.trials.book.is_skipped(&key) => nothing("the reference could not be tried"),
            _ => (reference.clone(), None),
        }
    }

    fn begin_trial(
        &mut self,
        entry: &Arc<Entry>,
        candidate: Candidate,
        compare: Option<Compare>,
        fastest_us: Option<u64>,
        progress: Progress,
    ) {
        let worker = WorkerId(self.ids.workers.draw());
        let hopeless_us = fastest_us.map(|us| us.saturating_mul(HOPELESS_FACTOR));
        let is_reference = compare.is_none();
        self.trials.running = Some(Running {
            worker,
            need_bytes: entry.need_bytes_of(&candidate.variant),
            pool: self.ledgers.pool_of(&candidate.device),
            entry: Arc::clone(entry),
            candidate,
            terms: TrialTerms {
                compare,
                runs_max: TRIAL_RUNS_MAX,
                measure_ms: TRIAL_MEASURE_MS,
                // The others need its numbers, however slow it is.
                hopeless_us: hopeless_us.filter(|_| !is_reference),
            },
            progress,
            awaits_memory: true,
            verifying: None,
        });
        self.tell_trial(None);
        self.claim_for_trial();
    }

    /// Tells those that wait for the trial in progress how far it is: all of them, or one.
    pub(super) fn tell_trial(&mut self, only: Option<WantId>) {
        let Some(running) = &self.trials.running else {
            return;
        };
        let (model, progress) = (running.entry.manifest.name.clone(), running.progress);
        let parked = self.parked.iter().filter_map(|parked| match parked {
            Parked::Want(want) => Some(*want),
            _ => None,
        });
        let waiting: Vec<WantId> = match only {
            Some(want) => vec![want],
            None => parked.collect(),
        };
        for want in waiting {
            let is_for_it = self
                .wants
                .get(&want)
                .is_some_and(|want| want.model == model);
            if let Some(key) = self.key_of_want(want).filter(|_| is_for_it) {
                self.reply(key, Reply::Progress(progress));
            }
        }
    }

    /// Memory of a pool that the trial waits for, and memory that it gives back soon.
    pub(super) fn trial_bytes(&self, pool: &Pool) -> (u64, u64) {
        let running = self.trials.running.as_ref();
        match running.filter(|running| running.pool == *pool) {
            Some(running) if running.awaits_memory => (running.need_bytes, 0),
            Some(running) => (0, running.need_bytes),
            None => (0, 0),
        }
    }

    /// Begins the trial that waits for memory, if there is enough; evicts idle models where that
    /// helps, and gives up where it does not.
    pub(super) fn claim_for_trial(&mut self) {
        let Some(running) = self.trials.running.as_mut().filter(|one| one.awaits_memory) else {
            return;
        };
        let (worker, need_bytes) = (running.worker, running.need_bytes);
        let pool = running.pool.clone();
        let ledger = self.ledgers.at_mut(&pool);
        if ledger.reserve(worker, need_bytes).is_ok() {
            running.awaits_memory = false;
            return self.launch_trial();
        }
        let coming = self.ledgers.at(&pool).free_bytes() + self.leaving_bytes(&pool);
        let missing = need_bytes.saturating_sub(coming);
        if missing == 0 {
            return;
        }
        match victims(missing, &self.evictable(&pool)) {
            Some(victims) => {
                for victim in victims {
                    self.stop(victim, "its memory is needed to try a model");
                }
            }
            None => self.give_up_trial("there is no memory for it"),
        }
    }

    fn launch_trial(&mut self) {
        let Some(attempt) = self.attempt() else {
            return self.give_up_trial("its runtime is gone");
        };
        if let Some(running) = &mut self.trials.running {
            running.verifying = Stamp::of(&running.entry);
            log::info!(
                worker = running.worker.0, model = running.entry.manifest.name,
                variant = running.candidate.variant, flavour = running.candidate.flavour,
                provider = running.candidate.provider; "trying"
            );
            self.effects.push(Effect::Try {
                worker: running.worker,
                attempt: Box::new(attempt),
            });
        }
    }

    fn attempt(&self) -> Option<Attempt> {
        let running = self.trials.running.as_ref()?;
        let candidate = &running.candidate;
        let load = self.load_model(
            &running.entry,
            candidate,
            &super::supervise::Conditions {
                pace: self.pace(),
                threads_max: None,
                forbid_cpu: false,
            },
        )?;
        let TrialLimits { load_ms, run_ms } = self.settings.trial_limits;
        let reference = self.reference_trial(&running.entry, candidate);
        let reference_ms = reference.map_or(0, |trial| trial.run_us / 1_000);
        let run_ms = match running.terms.compare {
            None => run_ms.saturating_mul(REFERENCE_PATIENCE_FACTOR),
            Some(_) => run_ms.saturating_add(reference_ms.saturating_mul(PATIENCE_FACTOR)),
        };
        Some(Attempt {
            // Threads that spin would pass for a provider that computes on the processor.
            load: LoadModel {
                spin: load.spin && candidate.device.kind == DeviceKind::Cpu,
                ..load
            },
            terms: running.terms.clone(),
            limits: TrialLimits { load_ms, run_ms },
        })
    }

    fn give_up_trial(&mut self, why: &str) {
        let Some(running) = self.trials.running.take() else {
            return;
        };
        log::warn!(
            model = running.entry.manifest.name, provider = running.candidate.provider;
            "a way to run a model cannot be tried: {why}"
        );
        self.ledgers.release(running.worker);
        let key = key_of(&running.entry, &running.candidate);
        self.trials.book.skip(key);
        // Whoever waits asks again in a moment, not from within the question.
        self.trials.unanswered = true;
    }

    /// A trial has ended.
    pub(super) fn trial_ended(&mut self, worker: WorkerId, finding: Finding) {
        let Some(running) = self.trials.running.take_if(|one| one.worker == worker) else {
            return;
        };
        self.ledgers.release(worker);
        // What it has used was not others' use of the machine.
        self.load.interrupt();
        let key = key_of(&running.entry, &running.candidate);
        if finding.loaded.is_some()
            && let Some(stamp) = running.verifying
            && Stamp::of(&running.entry).as_ref() == Some(&stamp)
        {
            self.note_verified(key.digest.clone(), stamp);
        }
        match finding.outcome {
            Outcome::Tried { verdict, samples } => {
                let verdict = verdict.bounded();
                if running.terms.compare.is_none() {
                    let compare = comparison(&verdict, samples);
                    self.trials.reference = Some(Reference {
                        key: key.clone(),
                        compare,
                    });
                }
                self.record_trial(key, verdict);
            }
            Outcome::Unloadable(None) => self.trials.book.skip(key),
            Outcome::Unloadable(Some(rejection)) | Outcome::Broken(rejection) => {
                self.record_trial(key, Verdict::Rejected(rejection));
            }
        }
        self.trials.unanswered = true;
        self.tidy_compiled();
        self.claim_memory();
    }

    /// Puts on record what was found about a candidate, for good.
    pub(super) fn record_trial(&mut self, key: Key, verdict: Verdict) {
        let Some(stamp) = self.probes.stamp(&key.candidate.flavour).cloned() else {
            return;
        };
        let verdict = verdict.bounded();
        match &verdict {
            Verdict::Passed(trial) => log::info!(
                provider = key.candidate.provider, flavour = key.candidate.flavour,
                variant = key.candidate.variant, run_us = trial.run_us;
                "tried: {}", brief(&trial.verification)
            ),
            Verdict::Rejected(rejection) => log::warn!(
                provider = key.candidate.provider, flavour = key.candidate.flavour,
                variant = key.candidate.variant; "not to be used: {}", brief(rejection)
            ),
        }
        let Key { digest, candidate } = key;
        self.trials.book.keep(Record {
            digest,
            candidate,
            stamp,
            verdict,
            tried_at_s: self.now_s(),
        });
        self.effects
            .push(Effect::KeepTrials(self.trials.book.all()));
    }

    /// Lets those go on that waited for a trial.
    pub(super) fn answer_trial(&mut self) {
        while std::mem::take(&mut self.trials.unanswered) {
            self.unpark();
        }
    }

    /// Has everything about a model tried anew.
    pub(super) fn forget_trials(&mut self, digest: &str) {
        self.trials.book.forget(digest);
        self.trials.reference = None;
    }

    /// Models or runtimes have changed.
    pub(super) fn forgive_trials(&mut self) {
        self.trials.book.forgive();
        self.trials.reference = None;
    }

    /// Folder of what is compiled by the trial in progress.
    pub(super) fn trial_folder(&self) -> Option<PathBuf> {
        let running = self.trials.running.as_ref()?;
        self.compiled_folder(&running.entry, &running.candidate)
    }

    /// Ends the trial in progress.
    pub(super) fn stop_trial(&mut self) {
        if let Some(running) = self.trials.running.take() {
            self.ledgers.release(running.worker);
            if !running.awaits_memory {
                self.effects.push(Effect::StopTrial {
                    worker: running.worker,
                });
            }
        }
    }

    /// What trials found about a model, in the order of the plan.
    pub(super) fn trial_infos(&self, entry: &Entry, plan: &Plan) -> Vec<TrialInfo> {
        let all = self.trials.book.all();
        let of_model = all.iter().filter(|record| {
            let stamp = self.probes.stamp(&record.candidate.flavour);
            record.digest == entry.digest
                && stamp.is_some_and(|stamp| {
                    let found = self.trials.book.find(&record.key(), stamp, self.now_s());
                    found.is_some()
                })
        });
        let place = |record: &&Record| {
            let mut candidates = plan.candidates.iter();
            candidates
                .position(|one| *one == record.candidate)
                .unwrap_or(usize::MAX)
        };
        let mut records: Vec<&Record> = of_model.collect();
        records.sort_by_key(place);
        let version = |candidate: &Candidate| {
            self.probes
                .library_version(&candidate.flavour, &candidate.provider)
        };
        let tell = |record: &Record| crate::convert::trial(record, version(&record.candidate));
        records.into_iter().map(tell).collect()
    }
}

/// The candidate that others of the same file are compared with.
fn reference_of<'a>(
    entry: &Entry,
    candidate: &Candidate,
    candidates: &'a [Candidate],
) -> Option<&'a Candidate> {
    let file = file_of(entry, candidate)?;
    let of_file = candidates
        .iter()
        .filter(|one| file_of(entry, one) == Some(file));
    let ranked = of_file.filter_map(|one| Some((one.reference_rank()?, one)));
    // Measuring must not make another one the reference.
    let best = ranked.min_by(|(a, one), (b, other)| {
        let by_name = || (&one.flavour, &one.variant).cmp(&(&other.flavour, &other.variant));
        a.cmp(b).then_with(by_name)
    });
    best.map(|(_, one)| one)
}

/// What the others are compared with once the reference has ended so.
fn comparison(verdict: &Verdict, samples: Option<Samples>) -> Compare {
    match (verdict, samples) {
        (_, Some(samples)) => Compare::With(samples),
        (Verdict::Passed(trial), None) => Compare::Nothing {
            why: match &trial.verification {
                Verification::Unchecked { why } => why.clone(),
                _ => "the reference gave no numbers".into(),
            },
        },
        (Verdict::Rejected(rejection), None) => Compare::Nothing {
            why: format!("the reference failed: {rejection}"),
        },
    }
}
