//! Reports about models, devices and the daemon itself.

use super::{Parsed, Place, invalid, receipt, required, status, tensor, unless_zero};
use crate::pb;
use crate::types::{
    CandidateInfo, Capability, Explanation, ModelDetails, ModelInfo, PowerReport, Sandbox,
    SandboxPart, SandboxState, StatusReport, TrialInfo, VariantInfo, WorkerInfo, WorkerState,
};

pub(super) fn parse_models(models: pb::ModelList) -> Vec<ModelInfo> {
    models.models.into_iter().map(parse_model).collect()
}

pub(super) fn write_models(models: Vec<ModelInfo>) -> pb::ModelList {
    pb::ModelList {
        models: models.into_iter().map(write_model).collect(),
    }
}

fn parse_model(model: pb::ModelInfo) -> ModelInfo {
    ModelInfo {
        name: model.name,
        task: model.task,
        description: model.description,
        licence: model.licence,
        source: model.source,
        digest: model.digest,
        bytes: model.bytes,
        variants: model.variants.into_iter().map(parse_variant).collect(),
        loaded: model.loaded,
        pinned: model.pinned,
        problem: model.problem.map(status::parse),
    }
}

fn write_model(model: ModelInfo) -> pb::ModelInfo {
    pb::ModelInfo {
        name: model.name,
        task: model.task,
        description: model.description,
        licence: model.licence,
        source: model.source,
        digest: model.digest,
        bytes: model.bytes,
        variants: model.variants.into_iter().map(write_variant).collect(),
        loaded: model.loaded,
        pinned: model.pinned,
        problem: model.problem.map(status::write),
    }
}

fn parse_variant(variant: pb::VariantInfo) -> VariantInfo {
    VariantInfo {
        name: variant.name,
        backend: variant.backend,
        precision: variant.precision,
        weights_bytes: variant.weights_bytes,
    }
}

fn write_variant(variant: VariantInfo) -> pb::VariantInfo {
    pb::VariantInfo {
        name: variant.name,
        backend: variant.backend,
        precision: variant.precision,
        weights_bytes: variant.weights_bytes,
    }
}

pub(super) fn parse_details(details: pb::ModelDetails) -> Parsed<ModelDetails> {
    Ok(ModelDetails {
        model: parse_model(required("model", details.model)?),
        folder: details.folder,
        manifest_toml: details.manifest_toml,
        inferred: details.inferred,
        inputs: tensor::parse_specs(details.inputs, "inputs")?,
        outputs: tensor::parse_specs(details.outputs, "outputs")?,
    })
}

pub(super) fn write_details(details: ModelDetails) -> pb::ModelDetails {
    pb::ModelDetails {
        model: Some(write_model(details.model)),
        folder: details.folder,
        manifest_toml: details.manifest_toml,
        inferred: details.inferred,
        inputs: tensor::write_specs(details.inputs),
        outputs: tensor::write_specs(details.outputs),
    }
}

/// `works` and `absence` say the same twice on the wire; here a missing absence means that it works.
pub(super) fn parse_devices(devices: pb::DeviceList) -> Vec<Capability> {
    let parse = |capability: pb::Capability| Capability {
        flavour: capability.flavour,
        backend: capability.backend,
        library_version: capability.library_version,
        provider: capability.provider,
        device: capability.device.map(receipt::parse_device),
        absence: match capability.works {
            true => None,
            false => Some(receipt::parse_reason(
                capability.absence.unwrap_or_default(),
            )),
        },
        expected: capability.expected,
    };
    devices.capabilities.into_iter().map(parse).collect()
}

pub(super) fn write_devices(devices: Vec<Capability>) -> pb::DeviceList {
    let write = |capability: Capability| pb::Capability {
        flavour: capability.flavour,
        backend: capability.backend,
        library_version: capability.library_version,
        provider: capability.provider,
        device: capability.device.map(receipt::write_device),
        works: capability.absence.is_none(),
        absence: capability.absence.map(receipt::write_reason),
        expected: capability.expected,
    };
    pb::DeviceList {
        capabilities: devices.into_iter().map(write).collect(),
    }
}

pub(super) fn parse_explanation(explanation: pb::Explanation) -> Explanation {
    Explanation {
        model: explanation.model,
        model_digest: explanation.model_digest,
        chosen: explanation.chosen.map(parse_candidate),
        rejected: receipt::parse_rejected(explanation.rejected),
        placement: receipt::parse_placement(explanation.placement),
        placement_read_back: explanation.placement_read_back,
        need_bytes: explanation.need_bytes,
        budget_bytes: explanation.budget_bytes,
        notes: explanation.notes,
        trials: explanation.trials.into_iter().map(parse_trial).collect(),
    }
}

pub(super) fn write_explanation(explanation: Explanation) -> pb::Explanation {
    pb::Explanation {
        model: explanation.model,
        model_digest: explanation.model_digest,
        chosen: explanation.chosen.map(write_candidate),
        rejected: receipt::write_rejected(explanation.rejected),
        placement: receipt::write_placement(explanation.placement),
        placement_read_back: explanation.placement_read_back,
        need_bytes: explanation.need_bytes,
        budget_bytes: explanation.budget_bytes,
        notes: explanation.notes,
        trials: explanation.trials.into_iter().map(write_trial).collect(),
    }
}

fn parse_candidate(candidate: pb::CandidateInfo) -> CandidateInfo {
    CandidateInfo {
        variant: candidate.variant,
        backend: candidate.backend,
        flavour: candidate.flavour,
        library_version: candidate.library_version,
        provider: candidate.provider,
        device: receipt::parse_device(candidate.device.unwrap_or_default()),
        precision: candidate.precision,
    }
}

fn write_candidate(candidate: CandidateInfo) -> pb::CandidateInfo {
    pb::CandidateInfo {
        variant: candidate.variant,
        backend: candidate.backend,
        flavour: candidate.flavour,
        library_version: candidate.library_version,
        provider: candidate.provider,
        device: Some(receipt::write_device(candidate.device)),
        precision: candidate.precision,
    }
}

fn parse_trial(trial: pb::TrialInfo) -> TrialInfo {
    TrialInfo {
        candidate: parse_candidate(trial.candidate.unwrap_or_default()),
        verification: trial.verification,
        detail: trial.detail,
        run_us: trial.run_us,
        runs: trial.runs,
        load_us: trial.load_us,
        host_cpu_us: trial.host_cpu_us,
        grown_bytes: trial.grown_bytes,
        placement: receipt::parse_placement(trial.placement),
        tried_at_s: trial.tried_at_s,
    }
}

fn write_trial(trial: TrialInfo) -> pb::TrialInfo {
    pb::TrialInfo {
        candidate: Some(write_candidate(trial.candidate)),
        verification: trial.verification,
        detail: trial.detail,
        run_us: trial.run_us,
        runs: trial.runs,
        load_us: trial.load_us,
        host_cpu_us: trial.host_cpu_us,
        grown_bytes: trial.grown_bytes,
        placement: receipt::write_placement(trial.placement),
        tried_at_s: trial.tried_at_s,
    }
}

pub(super) fn parse_status(report: pb::StatusReport) -> Parsed<StatusReport> {
    let workers = report.workers.into_iter().enumerate();
    Ok(StatusReport {
        server_version: report.server_version,
        uptime_ms: report.uptime_ms,
        rss_bytes: report.rss_bytes,
        connections: report.connections,
        jobs_running: report.jobs_running,
        jobs_queued: report.jobs_queued,
        streams: report.streams,
        buffers: report.buffers,
        budget_bytes: report.budget_bytes,
        reserved_bytes: report.reserved_bytes,
        machine_load: report.machine_load,
        workers: workers.map(parse_worker).collect::<Parsed<_>>()?,
        pid: unless_zero(report.pid),
        power: report.power.map(parse_power),
    })
}

pub(super) fn write_status(report: StatusReport) -> pb::StatusReport {
    pb::StatusReport {
        server_version: report.server_version,
        uptime_ms: report.uptime_ms,
        rss_bytes: report.rss_bytes,
        connections: report.connections,
        jobs_running: report.jobs_running,
        jobs_queued: report.jobs_queued,
        streams: report.streams,
        buffers: report.buffers,
        budget_bytes: report.budget_bytes,
        reserved_bytes: report.reserved_bytes,
        machine_load: report.machine_load,
        workers: report.workers.into_iter().map(write_worker).collect(),
        pid: report.pid.unwrap_or_default(),
        power: report.power.map(write_power),
    }
}

fn parse_power(power: pb::Power) -> PowerReport {
    PowerReport {
        policy: power.policy,
        why: power.why,
        throttle: power.throttle,
        background_paused: power.background_paused,
        sleep_delayed: power.sleep_delayed,
    }
}

fn write_power(power: PowerReport) -> pb::Power {
    pb::Power {
        policy: power.policy,
        why: power.why,
        throttle: power.throttle,
        background_paused: power.background_paused,
        sleep_delayed: power.sleep_delayed,
    }
}

fn parse_worker((index, worker): (usize, pb::WorkerInfo)) -> Parsed<WorkerInfo> {
    let at = Place {
        list: "workers",
        index,
    };
    let state = match &*worker.state {
        "starting" => WorkerState::Starting,
        "loading" => WorkerState::Loading,
        "ready" => WorkerState::Ready,
        "stopping" => WorkerState::Stopping,
        _ => return Err(invalid(at.field("state"), "it is unknown")),
    };
    Ok(WorkerInfo {
        pid: worker.pid,
        model: worker.model,
        flavour: worker.flavour,
        state,
        reserved_bytes: worker.reserved_bytes,
        rss_bytes: worker.rss_bytes,
        jobs: worker.jobs,
        streams: worker.streams,
        sandbox: worker.sandbox.map(parse_sandbox).transpose()?,
    })
}

fn write_worker(worker: WorkerInfo) -> pb::WorkerInfo {
    let state = match worker.state {
        WorkerState::Starting => "starting",
        WorkerState::Loading => "loading",
        WorkerState::Ready => "ready",
        WorkerState::Stopping => "stopping",
    };
    pb::WorkerInfo {
        pid: worker.pid,
        model: worker.model,
        flavour: worker.flavour,
        state: state.into(),
        reserved_bytes: worker.reserved_bytes,
        rss_bytes: worker.rss_bytes,
        jobs: worker.jobs,
        streams: worker.streams,
        sandbox: worker.sandbox.map(write_sandbox),
    }
}

pub(super) fn parse_sandbox(sandbox: pb::Sandbox) -> Parsed<Sandbox> {
    let parse = |(index, part): (usize, pb::SandboxPart)| {
        let at = Place {
            list: "parts",
            index,
        };
        let state = match &*part.state {
            "active" => SandboxState::Active,
            "partial" => SandboxState::Partial,
            "inactive" => SandboxState::Inactive,
            _ => return Err(invalid(at.field("state"), "it is unknown")),
        };
        Ok(SandboxPart {
            name: part.name,
            state,
            detail: part.detail,
        })
    };
    let parts = sandbox.parts.into_iter().enumerate();
    Ok(Sandbox {
        enabled: sandbox.enabled,
        parts: parts.map(parse).collect::<Parsed<_>>()?,
    })
}

pub(super) fn write_sandbox(sandbox: Sandbox) -> pb::Sandbox {
    let write = |part: SandboxPart| pb::SandboxPart {
        name: part.name,
        state: match part.state {
            SandboxState::Active => "active",
            SandboxState::Partial => "partial",
            SandboxState::Inactive => "inactive",
        }
        .into(),
        detail: part.detail,
    };
    pb::Sandbox {
        enabled: sandbox.enabled,
        parts: sandbox.parts.into_iter().map(write).collect(),
    }
}
