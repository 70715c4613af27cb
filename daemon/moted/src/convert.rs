//! Plain types of the backends as plain types of the wire.

use crate::policy::trials::Record;
use mote_api::{
    Absence, Candidate, Capability, DeviceInfo, Placement, ProviderShare, Rejected, Rejection,
    Verdict,
};
use mote_wire::types::{self as wire, CandidateInfo, Device, Reason, TrialInfo};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// A typed reason as code, fields and text.
///
/// The types of reasons are serialised with their kind in `reason`; a reason inside a reason
/// (a rejection because of an absence) is the one that counts.
fn reason(reason: &(impl Serialize + std::fmt::Display), next_step: Option<String>) -> Reason {
    let message = reason.to_string();
    let mut code = String::new();
    let mut fields = BTreeMap::new();
    if let Ok(Value::Object(object)) = serde_json::to_value(reason) {
        take_fields(object, &mut code, &mut fields);
    }
    Reason {
        code,
        fields,
        message,
        next_step: next_step.unwrap_or_default(),
    }
}

/// The stable name of a rejection, as in [`wire::Rejected`].
pub fn code(rejection: &Rejection) -> String {
    reason(rejection, None).code
}

fn take_fields(
    object: serde_json::Map<String, Value>,
    code: &mut String,
    fields: &mut BTreeMap<String, String>,
) {
    if let Some(Value::String(kind)) = object.get("reason") {
        code.clone_from(kind);
    }
    for (name, value) in object {
        match value {
            _ if name == "reason" => {}
            Value::Object(inner) => take_fields(inner, code, fields),
            Value::String(text) => drop(fields.insert(name, text)),
            Value::Array(items) => {
                let texts = items
                    .iter()
                    .map(|item| item.as_str().map_or(item.to_string(), str::to_owned));
                fields.insert(name, texts.collect::<Vec<_>>().join(", "));
            }
            other => drop(fields.insert(name, other.to_string())),
        }
    }
}

/// A device.
pub fn device(device: &DeviceInfo) -> Device {
    Device {
        id: device.id.clone(),
        kind: device.kind.to_string(),
        name: device.name.clone(),
        simulated: device.simulated,
    }
}

/// A capability; `expected` when its runtime was installed for it.
pub fn capability(capability: &Capability, expected: bool) -> wire::Capability {
    let told = |absence: &Absence| reason(absence, Some(absence.next_step(&capability.provider)));
    wire::Capability {
        flavour: capability.flavour.clone(),
        backend: capability.backend.to_string(),
        library_version: capability.library_version.clone(),
        provider: capability.provider.clone(),
        device: capability.device.as_ref().map(device),
        absence: capability.absence.as_ref().map(told),
        expected,
    }
}

/// Rejections.
pub fn rejected(rejected: &[Rejected]) -> Vec<wire::Rejected> {
    let convert = |one: &Rejected| wire::Rejected {
        flavour: one.flavour.clone(),
        provider: one.provider.clone(),
        variant: one.variant.clone(),
        reason: reason(&one.rejection, one.rejection.next_step(&one.provider)),
    };
    rejected.iter().map(convert).collect()
}

/// A candidate; `library_version` as it was probed.
pub fn candidate(candidate: &Candidate, library_version: String) -> CandidateInfo {
    CandidateInfo {
        variant: candidate.variant.clone(),
        backend: candidate.backend.to_string(),
        flavour: candidate.flavour.clone(),
        library_version,
        provider: candidate.provider.clone(),
        device: device(&candidate.device),
        precision: candidate.precision.to_string(),
    }
}

/// What a trial found.
pub fn trial(record: &Record, library_version: String) -> TrialInfo {
    let mut info = TrialInfo {
        candidate: candidate(&record.candidate, library_version),
        tried_at_s: record.tried_at_s,
        ..TrialInfo::default()
    };
    match &record.verdict {
        Verdict::Rejected(rejection) => {
            info.verification = "rejected".into();
            info.detail = rejection.to_string();
        }
        Verdict::Passed(trial) => {
            trial.verification.name().clone_into(&mut info.verification);
            info.detail = trial.verification.to_string();
            info.run_us = trial.run_us;
            info.runs = trial.runs;
            info.load_us = trial.load_us;
            info.host_cpu_us = trial.host_cpu_us;
            info.grown_bytes = trial.grown_bytes;
            info.placement = shares(&trial.placement);
        }
    }
    info
}

/// Shares of a placement.
pub fn shares(placement: &Placement) -> Vec<wire::ProviderShare> {
    let convert = |share: &ProviderShare| wire::ProviderShare {
        provider: share.provider.clone(),
        nodes: share.nodes,
        time_us: share.time_us,
    };
    placement.shares.iter().map(convert).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_reason_counts_and_keeps_its_fields() {
        let absence = Absence::DriverMissing {
            name: "libcuda.so.1".into(),
        };
        let told = |rejection: Rejection| {
            let rejected = Rejected {
                flavour: "gpu".into(),
                provider: "CUDAExecutionProvider".into(),
                variant: String::new(),
                rejection,
            };
            super::rejected(&[rejected]).remove(0).reason
        };
        let absent = told(Rejection::Absent { absence });
        assert_eq!(absent.code, "driver_missing");
        assert_eq!(absent.fields["name"], "libcuda.so.1");
        let message = "a vendor library is missing: libcuda.so.1";
        assert_eq!(absent.message, message);
        assert!(absent.next_step.contains("NVIDIA's driver"), "{absent:?}");
        let over = told(Rejection::OverBudget {
            need_bytes: 5,
            have_bytes: 3,
        });
        assert_eq!(
            (over.code.as_str(), over.fields["need_bytes"].as_str()),
            ("over_budget", "5")
        );
        assert_eq!(over.next_step, "");
        let unsupported = told(Rejection::UnsupportedOperators {
            operators: vec!["QMoE".into(), "Foo".into()],
        });
        assert_eq!(unsupported.fields["operators"], "QMoE, Foo");
        assert_eq!(told(Rejection::Outranked).code, "outranked");
    }
}
