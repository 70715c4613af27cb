//! Where a model may run: a pure function of manifest, capabilities, requirements, room, record and
//! measurements.
//!
//! Each pair of a variant and a capability of its backend becomes exactly one candidate or exactly
//! one rejection. A capability of a backend the model has no variant for is rejected once, and so
//! is a variant whose backend no capability is known of.

use mote_api::{
    Absence, BackendKind, Candidate, Capability, DeviceKind, Manifest, Precision, Rejected,
    Rejection, Variant,
};
use mote_wire::types::WorkOptions;

use crate::limits::{LOWER_PRECISION_PERCENT, SPLIT_SHARE_PERCENT_MIN};

/// What a request insists on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requirements {
    /// This backend and no other.
    pub backend: Option<String>,
    /// This flavour and no other.
    pub flavour: Option<String>,
    /// This provider and no other.
    pub provider: Option<String>,
    /// This variant and no other.
    pub variant: Option<String>,
    /// No node on the CPU.
    pub forbid_cpu: bool,
}

impl From<&WorkOptions> for Requirements {
    fn from(options: &WorkOptions) -> Self {
        Self {
            backend: options.require_backend.clone(),
            flavour: options.require_flavour.clone(),
            provider: options.require_provider.clone(),
            variant: options.require_variant.clone(),
            forbid_cpu: options.forbid_cpu,
        }
    }
}

impl Requirements {
    /// Whether `candidate` is what the request insists on.
    pub fn allow(&self, candidate: &Candidate) -> bool {
        let is = |want: &Option<String>, have: &str| want.as_deref().is_none_or(|w| w == have);
        is(&self.backend, &candidate.backend.to_string())
            && is(&self.flavour, &candidate.flavour)
            && is(&self.provider, &candidate.provider)
            && is(&self.variant, &candidate.variant)
            && !(self.forbid_cpu && candidate.device.kind == DeviceKind::Cpu)
    }

    fn allow_capability(&self, variant: &str, capability: &Capability) -> bool {
        let is = |want: &Option<String>, have: &str| want.as_deref().is_none_or(|w| w == have);
        // A library that is absent has no providers to compare with.
        let provider = capability.provider.is_empty() || is(&self.provider, &capability.provider);
        is(&self.backend, &capability.backend.to_string())
            && is(&self.flavour, &capability.flavour)
            && is(&self.variant, variant)
            && provider
    }
}

/// What is wanted of the best candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Goal {
    /// That it is fast.
    #[default]
    Speed,
    /// That it leaves the processor alone.
    Thrift,
}

/// What trials told of a candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Time and processor time of one run of the check input, when they were measured.
    pub measured: Option<Cost>,
    /// Nodes of the compiled model, as far as the runtime told.
    pub nodes: u32,
    /// Those of them that are on the candidate's own provider.
    pub own_nodes: u32,
    /// Share of its time that is processor time, for a provider that claims a device of its own and
    /// has the processor compute.
    pub host_percent: Option<u32>,
    /// Precision of the first variant that may be used, where this one's is below it. The planner's
    /// own note.
    pub lower_than: Option<Precision>,
}

/// What one run costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Time.
    pub run_us: u64,
    /// Processor time.
    pub host_cpu_us: u64,
}

impl Cost {
    /// What counts first, and what counts among equals.
    fn by(self, goal: Goal) -> (u64, u64) {
        match goal {
            Goal::Speed => (self.run_us, self.host_cpu_us),
            Goal::Thrift => (self.host_cpu_us, self.run_us),
        }
    }
}

impl Standing {
    /// What it costs when it is compared, in hundredths: without rounding, the order stays one of
    /// numbers.
    fn compared(&self, goal: Goal) -> (u64, u64) {
        let percent = match self.lower_than {
            Some(_) => LOWER_PRECISION_PERCENT,
            None => 100,
        };
        let (first, second) = self.measured.unwrap_or_default().by(goal);
        (
            first.saturating_mul(percent),
            second.saturating_mul(percent),
        )
    }

    fn share_percent(&self) -> u32 {
        let share = u64::from(self.own_nodes) * 100 / u64::from(self.nodes.max(1));
        share.try_into().unwrap_or(100)
    }

    fn run_us(&self) -> Option<u64> {
        Some(self.measured?.run_us)
    }
}

/// What is to be planned.
pub struct Question<'a> {
    /// The model.
    pub manifest: &'a Manifest,
    /// Memory a candidate needs beyond what it has already.
    pub need_bytes: &'a dyn Fn(&Variant, &Candidate) -> u64,
    /// What was probed.
    pub capabilities: &'a [Capability],
    /// What the request insists on.
    pub require: &'a Requirements,
    /// Memory that is free or can be freed.
    pub room_bytes: &'a dyn Fn(&Candidate) -> u64,
    /// What is on record against a candidate.
    pub verdict: &'a dyn Fn(&Candidate) -> Option<Rejection>,
    /// What trials told of a candidate that may be used.
    pub standing: &'a dyn Fn(&Candidate) -> Standing,
    /// What is wanted of the best one.
    pub goal: Goal,
}

/// The ways to run a model, best first, and why not the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What may be tried.
    pub candidates: Vec<Candidate>,
    /// What trials told of them, in the same order.
    pub standings: Vec<Standing>,
    /// What may not.
    pub rejected: Vec<Rejected>,
    /// What was wanted of the best.
    pub goal: Goal,
}

impl Plan {
    /// All that is not the best candidate, with its reason.
    pub fn not_taken(&self) -> Vec<Rejected> {
        let best = self.standings.first().copied().unwrap_or_default();
        let others = std::iter::zip(&self.candidates, &self.standings).skip(1);
        let others = others.map(|(candidate, standing)| {
            reject_candidate(candidate, self.not_best(candidate, standing, &best))
        });
        self.rejected.iter().cloned().chain(others).collect()
    }

    /// Why a candidate that may be used is not the best.
    fn not_best(&self, candidate: &Candidate, standing: &Standing, best: &Standing) -> Rejection {
        if let Some(host_percent) = standing.host_percent {
            return Rejection::ComputesOnHost { host_percent };
        }
        let (Some(cost), Some(of_best)) = (standing.measured, best.measured) else {
            return Rejection::Outranked;
        };
        let (run_us, best_us) = (cost.run_us, of_best.run_us);
        match standing.lower_than {
            Some(first) if cost.by(self.goal) < of_best.by(self.goal) => {
                Rejection::LowerPrecision {
                    precision: candidate.precision,
                    first,
                    run_us,
                    best_us,
                }
            }
            _ if run_us >= best_us => Rejection::Slower { run_us, best_us },
            _ => Rejection::Outranked,
        }
    }

    /// Whether the best candidate was found by measuring.
    pub fn is_measured(&self) -> bool {
        let measured = self.standings.iter().filter(|one| one.measured.is_some());
        self.standings
            .first()
            .is_some_and(|best| best.measured.is_some())
            && measured.count() > 1
    }

    /// What went wrong on the way to the best candidate, as far as somebody may have counted on it.
    pub fn set_backs(&self) -> Vec<Rejected> {
        let rejected = self.rejected.iter();
        let set_backs = rejected
            .filter(|one| !one.rejection.is_by_design())
            .cloned();
        let ranked = std::iter::zip(&self.candidates, &self.standings);
        let on_host = ranked.filter_map(|(candidate, standing)| {
            let host_percent = standing.host_percent?;
            let rejection = Rejection::ComputesOnHost { host_percent };
            Some(reject_candidate(candidate, rejection))
        });
        set_backs.chain(on_host).collect()
    }

    /// Whether the same question has the same best answer until probes, models or what is on record
    /// of them change: nothing was rejected for the room there is, or for a time.
    pub fn is_lasting(&self) -> bool {
        let mut rejected = self.rejected.iter();
        rejected.all(|one| !one.rejection.may_pass())
    }

    /// The smallest memory need among what was rejected for want of room alone.
    pub fn over_budget(&self) -> Option<(u64, u64)> {
        let needs = self.rejected.iter().filter_map(|one| match one.rejection {
            Rejection::OverBudget {
                need_bytes,
                have_bytes,
            } => Some((need_bytes, have_bytes)),
            _ => None,
        });
        needs.min()
    }
}

/// Answers the question; the same question always gets the same answer.
pub fn plan(question: &Question<'_>) -> Plan {
    let mut judged: Vec<(Place, Candidate, Standing)> = Vec::new();
    let mut rejected = Vec::new();
    for (variant_index, variant) in question.manifest.variants.iter().enumerate() {
        let mut known = false;
        for (capability_index, capability) in question.capabilities.iter().enumerate() {
            if capability.backend != variant.backend {
                continue;
            }
            known = true;
            match judge(question, variant, capability) {
                Ok((candidate, standing)) => {
                    judged.push(((variant_index, capability_index), candidate, standing));
                }
                Err(rejection) => rejected.push(reject(capability, &variant.name, rejection)),
            }
        }
        if !known {
            let name = variant.backend.to_string();
            rejected.push(Rejected {
                flavour: name.clone(),
                provider: String::new(),
                variant: variant.name.clone(),
                rejection: Rejection::Absent {
                    absence: Absence::NotFetched { flavour: name },
                },
            });
        }
    }
    for capability in question.capabilities {
        let backend = capability.backend;
        if !question
            .manifest
            .variants
            .iter()
            .any(|variant| variant.backend == backend)
        {
            rejected.push(reject(capability, "", Rejection::NoVariant { backend }));
        }
    }
    let mut plan = Plan {
        rejected,
        goal: question.goal,
        ..Plan::default()
    };
    let ranked = in_order(question, judged);
    for (candidate, standing) in &ranked {
        match loses_as_split(candidate, standing, &ranked) {
            Some(rejection) => plan.rejected.push(reject_candidate(candidate, rejection)),
            None => {
                plan.candidates.push(candidate.clone());
                plan.standings.push(*standing);
            }
        }
    }
    plan
}

/// What may be tried, best first.
fn in_order(
    question: &Question<'_>,
    judged: Vec<(Place, Candidate, Standing)>,
) -> Vec<(Candidate, Standing)> {
    // Variants were judged in their order.
    let first = judged.first().map(|(_, candidate, _)| candidate.precision);
    let ranked = judged.into_iter().map(|(place, candidate, mut standing)| {
        standing.lower_than = first.filter(|first| candidate.precision.is_below(*first));
        let rank = rank(question, place, &candidate, &standing);
        (rank, candidate, standing)
    });
    let mut ranked: Vec<(Rank, Candidate, Standing)> = ranked.collect();
    ranked.sort_by_key(|(rank, ..)| *rank);
    let unranked = |(_, candidate, standing)| (candidate, standing);
    ranked.into_iter().map(unranked).collect()
}

/// A device that takes few of a model's nodes and makes it slower than the processor does with the same
/// precision is of no use.
fn loses_as_split(
    candidate: &Candidate,
    standing: &Standing,
    all: &[(Candidate, Standing)],
) -> Option<Rejection> {
    let on_cpu = all.iter().filter(|(other, _)| {
        other.device.kind == DeviceKind::Cpu && other.precision == candidate.precision
    });
    let best_us = on_cpu.filter_map(|(_, other)| other.run_us()).min()?;
    let run_us = standing.run_us()?;
    let share_percent = standing.share_percent();
    let loses = candidate.device.kind != DeviceKind::Cpu
        && standing.nodes > 0
        && share_percent < SPLIT_SHARE_PERCENT_MIN
        && run_us > best_us;
    loses.then_some(Rejection::SplitLoses {
        share_percent,
        run_us,
        best_us,
    })
}

fn reject_candidate(candidate: &Candidate, rejection: Rejection) -> Rejected {
    Rejected {
        flavour: candidate.flavour.clone(),
        provider: candidate.provider.clone(),
        variant: candidate.variant.clone(),
        rejection,
    }
}

fn reject(capability: &Capability, variant: &str, rejection: Rejection) -> Rejected {
    Rejected {
        flavour: capability.flavour.clone(),
        provider: capability.provider.clone(),
        variant: variant.to_owned(),
        rejection,
    }
}

fn judge(
    question: &Question<'_>,
    variant: &Variant,
    capability: &Capability,
) -> Result<(Candidate, Standing), Rejection> {
    if !question.require.allow_capability(&variant.name, capability) {
        return Err(Rejection::NotRequired);
    }
    let device = match (&capability.absence, &capability.device) {
        (None, Some(device)) => device.clone(),
        (None, None) => {
            return Err(Rejection::Absent {
                absence: Absence::NoDevice,
            });
        }
        (Some(absence), _) => {
            return Err(Rejection::Absent {
                absence: absence.clone(),
            });
        }
    };
    let candidate = Candidate {
        variant: variant.name.clone(),
        backend: capability.backend,
        flavour: capability.flavour.clone(),
        provider: capability.provider.clone(),
        device,
        precision: variant.precision,
    };
    if !question.require.allow(&candidate) {
        return Err(Rejection::NotRequired);
    }
    if !variant.providers.is_empty() && !variant.providers.contains(&candidate.provider) {
        return Err(Rejection::NoVariant {
            backend: variant.backend,
        });
    }
    if let Some(rejection) = (question.verdict)(&candidate) {
        return Err(rejection);
    }
    let (need_bytes, have_bytes) = (
        (question.need_bytes)(variant, &candidate),
        (question.room_bytes)(&candidate),
    );
    if need_bytes > have_bytes {
        return Err(Rejection::OverBudget {
            need_bytes,
            have_bytes,
        });
    }
    let standing = (question.standing)(&candidate);
    if question.require.forbid_cpu {
        let cpu_nodes = standing.nodes - standing.own_nodes;
        match standing.host_percent {
            Some(host_percent) => return Err(Rejection::ComputesOnHost { host_percent }),
            None if cpu_nodes > 0 => {
                let nodes = standing.nodes;
                return Err(Rejection::FellBackToCpu { nodes, cpu_nodes });
            }
            None => {}
        }
    }
    Ok((candidate, standing))
}

/// Place of the variant in the manifest, and of the capability among all.
type Place = (usize, usize);

/// Not measured; what it costs when it is compared; then what is true of it anyway.
type Rank = (bool, (u64, u64), StaticRank);

/// Not on an accelerator; place of the file in the manifest; place of the backend among those that
/// run this same file, and of the variant; place of the capability.
type StaticRank = (bool, usize, (u8, usize), usize);

fn rank(
    question: &Question<'_>,
    (variant_index, capability_index): Place,
    candidate: &Candidate,
    standing: &Standing,
) -> Rank {
    let variants = &question.manifest.variants;
    let file = &variants[variant_index].file;
    let file_index = variants.iter().position(|variant| variant.file == *file);
    let on_cpu = candidate.device.kind == DeviceKind::Cpu || standing.host_percent.is_some();
    (
        standing.measured.is_none(),
        standing.compared(question.goal),
        (
            on_cpu,
            file_index.unwrap_or(variant_index),
            (backend_rank(candidate.backend), variant_index),
            capability_index,
        ),
    )
}

/// Measured order of speed on the same file.
fn backend_rank(backend: BackendKind) -> u8 {
    match backend {
        BackendKind::OnnxRuntime => 0,
        BackendKind::Tflite => 1,
        BackendKind::Tract => 2,
        BackendKind::Fake => 3,
    }
}
