//! Where a model may run: a pure function of manifest, capabilities, requirements, room and record.
//!
//! Each pair of a variant and a capability of its backend becomes exactly one candidate or exactly
//! one rejection. A capability of a backend the model has no variant for is rejected once, and so
//! is a variant whose backend no capability is known of.

use mote_api::{
    Absence, BackendKind, Candidate, Capability, DeviceKind, Manifest, Rejected, Rejection, Variant,
};
use mote_wire::types::WorkOptions;

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
    pub room_bytes: u64,
    /// What is on record against a candidate.
    pub verdict: &'a dyn Fn(&Candidate) -> Option<Rejection>,
}

/// The ways to run a model, best first, and why not the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What may be tried.
    pub candidates: Vec<Candidate>,
    /// What may not.
    pub rejected: Vec<Rejected>,
}

impl Plan {
    /// All that is not the best candidate, with its reason.
    pub fn not_taken(&self) -> Vec<Rejected> {
        let outranked = self.candidates.iter().skip(1).map(|candidate| Rejected {
            flavour: candidate.flavour.clone(),
            provider: candidate.provider.clone(),
            variant: candidate.variant.clone(),
            rejection: Rejection::Outranked,
        });
        self.rejected.iter().cloned().chain(outranked).collect()
    }

    /// What went wrong on the way to the best candidate, as far as somebody may have counted on it.
    pub fn set_backs(&self) -> Vec<Rejected> {
        let rejected = self.rejected.iter();
        let set_backs = rejected.filter(|one| !one.rejection.is_by_design());
        set_backs.cloned().collect()
    }

    /// Whether the same question has the same best answer until probes, models or what is on record
    /// of them change: nothing was rejected for the room there is, or for a time.
    pub fn is_lasting(&self) -> bool {
        let lasts = |rejection: &Rejection| {
            rejection.is_by_design() || matches!(rejection, Rejection::Absent { .. })
        };
        self.rejected.iter().all(|one| lasts(&one.rejection))
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
    let mut ranked: Vec<(Rank, Candidate)> = Vec::new();
    let mut rejected = Vec::new();
    for (variant_index, variant) in question.manifest.variants.iter().enumerate() {
        let mut known = false;
        for (capability_index, capability) in question.capabilities.iter().enumerate() {
            if capability.backend != variant.backend {
                continue;
            }
            known = true;
            match judge(question, variant, capability) {
                Ok(candidate) => {
                    let rank = rank(question.manifest, variant_index, &candidate);
                    ranked.push(((rank.0, rank.1, rank.2, capability_index), candidate));
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
    ranked.sort_by_key(|(rank, _)| *rank);
    Plan {
        candidates: ranked.into_iter().map(|(_, candidate)| candidate).collect(),
        rejected,
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
) -> Result<Candidate, Rejection> {
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
        question.room_bytes,
    );
    if need_bytes > have_bytes {
        return Err(Rejection::OverBudget {
            need_bytes,
            have_bytes,
        });
    }
    Ok(candidate)
}

/// Not on an accelerator; place of the file in the manifest; place of the backend among those that
/// run this same file, and of the variant; place of the capability.
type Rank = (bool, usize, (u8, usize), usize);

fn rank(
    manifest: &Manifest,
    variant_index: usize,
    candidate: &Candidate,
) -> (bool, usize, (u8, usize)) {
    let file = &manifest.variants[variant_index].file;
    let file_index = manifest
        .variants
        .iter()
        .position(|variant| variant.file == *file);
    (
        candidate.device.kind == DeviceKind::Cpu,
        file_index.unwrap_or(variant_index),
        (backend_rank(candidate.backend), variant_index),
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
