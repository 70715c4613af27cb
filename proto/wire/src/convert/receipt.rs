//! Receipts and what they are made of.

use crate::pb;
use crate::types::{Device, ProviderShare, Reason, Receipt, Rejected};

pub(super) fn parse_device(device: pb::Device) -> Device {
    let pb::Device {
        id,
        kind,
        name,
        simulated,
    } = device;
    Device {
        id,
        kind,
        name,
        simulated,
    }
}

pub(super) fn write_device(device: Device) -> pb::Device {
    let Device {
        id,
        kind,
        name,
        simulated,
    } = device;
    pb::Device {
        id,
        kind,
        name,
        simulated,
    }
}

pub(super) fn parse_reason(reason: pb::Reason) -> Reason {
    let pb::Reason {
        code,
        fields,
        message,
        next_step,
    } = reason;
    Reason {
        code,
        fields,
        message,
        next_step,
    }
}

pub(super) fn write_reason(reason: Reason) -> pb::Reason {
    let Reason {
        code,
        fields,
        message,
        next_step,
    } = reason;
    pb::Reason {
        code,
        fields,
        message,
        next_step,
    }
}

pub(super) fn parse_rejected(rejected: Vec<pb::Rejected>) -> Vec<Rejected> {
    let parse = |one: pb::Rejected| Rejected {
        flavour: one.flavour,
        provider: one.provider,
        variant: one.variant,
        reason: parse_reason(one.reason.unwrap_or_default()),
    };
    rejected.into_iter().map(parse).collect()
}

pub(super) fn write_rejected(rejected: Vec<Rejected>) -> Vec<pb::Rejected> {
    let write = |one: Rejected| pb::Rejected {
        flavour: one.flavour,
        provider: one.provider,
        variant: one.variant,
        reason: Some(write_reason(one.reason)),
    };
    rejected.into_iter().map(write).collect()
}

pub(super) fn parse_placement(placement: Vec<pb::ProviderShare>) -> Vec<ProviderShare> {
    let parse = |share| {
        let pb::ProviderShare {
            provider,
            nodes,
            time_us,
        } = share;
        ProviderShare {
            provider,
            nodes,
            time_us,
        }
    };
    placement.into_iter().map(parse).collect()
}

pub(super) fn write_placement(placement: Vec<ProviderShare>) -> Vec<pb::ProviderShare> {
    let write = |share| {
        let ProviderShare {
            provider,
            nodes,
            time_us,
        } = share;
        pb::ProviderShare {
            provider,
            nodes,
            time_us,
        }
    };
    placement.into_iter().map(write).collect()
}

pub(super) fn parse(receipt: pb::Receipt) -> Receipt {
    Receipt {
        model: receipt.model,
        model_digest: receipt.model_digest,
        variant: receipt.variant,
        backend: receipt.backend,
        flavour: receipt.flavour,
        library_version: receipt.library_version,
        precision: receipt.precision,
        device: parse_device(receipt.device.unwrap_or_default()),
        placement: parse_placement(receipt.placement),
        placement_read_back: receipt.placement_read_back,
        rejected: parse_rejected(receipt.rejected),
        local: receipt.local,
        queue_us: receipt.queue_us,
        load_us: receipt.load_us,
        prefill_us: receipt.prefill_us,
        decode_us: receipt.decode_us,
        compute_us: receipt.compute_us,
        total_us: receipt.total_us,
        media_decode_us: receipt.media_decode_us,
        media_encode_us: receipt.media_encode_us,
        steps: receipt.steps,
        prompt_tokens: receipt.prompt_tokens,
        cached_tokens: receipt.cached_tokens,
        generated_tokens: receipt.generated_tokens,
        reasoning_tokens: receipt.reasoning_tokens,
        shared_steps: receipt.shared_steps,
        drafted_tokens: receipt.drafted_tokens,
        accepted_tokens: receipt.accepted_tokens,
        dropped_tokens: receipt.dropped_tokens,
        texts: receipt.texts,
        step_times_us: receipt.step_times_us,
        scheduler: receipt.scheduler,
        resumed_steps: receipt.resumed_steps,
        audio_samples_out: receipt.audio_samples_out,
        audio_sample_rate: receipt.audio_sample_rate,
        audio_channels: receipt.audio_channels,
        audio_codec: receipt.audio_codec,
        frames_in: receipt.frames_in,
        frames_out: receipt.frames_out,
        bytes_copied: receipt.bytes_copied,
        bytes_converted: receipt.bytes_converted,
        seed: receipt.seed,
        experts_per_token: receipt.experts_per_token,
        experts: receipt.experts,
        threads: receipt.threads,
        spin: receipt.spin,
        thread_changes: receipt.thread_changes,
        preemptions: receipt.preemptions,
        retries: receipt.retries,
        throttle: receipt.throttle,
        verification: receipt.verification,
        measured: receipt.measured,
        measured_at_s: receipt.measured_at_s,
        host_cpu_us: receipt.host_cpu_us,
    }
}

pub(super) fn write(receipt: Receipt) -> pb::Receipt {
    pb::Receipt {
        model: receipt.model,
        model_digest: receipt.model_digest,
        variant: receipt.variant,
        backend: receipt.backend,
        flavour: receipt.flavour,
        library_version: receipt.library_version,
        precision: receipt.precision,
        device: Some(write_device(receipt.device)),
        placement: write_placement(receipt.placement),
        placement_read_back: receipt.placement_read_back,
        rejected: write_rejected(receipt.rejected),
        local: receipt.local,
        queue_us: receipt.queue_us,
        load_us: receipt.load_us,
        prefill_us: receipt.prefill_us,
        decode_us: receipt.decode_us,
        compute_us: receipt.compute_us,
        total_us: receipt.total_us,
        media_decode_us: receipt.media_decode_us,
        media_encode_us: receipt.media_encode_us,
        steps: receipt.steps,
        prompt_tokens: receipt.prompt_tokens,
        cached_tokens: receipt.cached_tokens,
        generated_tokens: receipt.generated_tokens,
        reasoning_tokens: receipt.reasoning_tokens,
        shared_steps: receipt.shared_steps,
        drafted_tokens: receipt.drafted_tokens,
        accepted_tokens: receipt.accepted_tokens,
        dropped_tokens: receipt.dropped_tokens,
        texts: receipt.texts,
        step_times_us: receipt.step_times_us,
        scheduler: receipt.scheduler,
        resumed_steps: receipt.resumed_steps,
        audio_samples_out: receipt.audio_samples_out,
        audio_sample_rate: receipt.audio_sample_rate,
        audio_channels: receipt.audio_channels,
        audio_codec: receipt.audio_codec,
        frames_in: receipt.frames_in,
        frames_out: receipt.frames_out,
        bytes_copied: receipt.bytes_copied,
        bytes_converted: receipt.bytes_converted,
        seed: receipt.seed,
        experts_per_token: receipt.experts_per_token,
        experts: receipt.experts,
        threads: receipt.threads,
        spin: receipt.spin,
        thread_changes: receipt.thread_changes,
        preemptions: receipt.preemptions,
        retries: receipt.retries,
        throttle: receipt.throttle,
        verification: receipt.verification,
        measured: receipt.measured,
        measured_at_s: receipt.measured_at_s,
        host_cpu_us: receipt.host_cpu_us,
    }
}
