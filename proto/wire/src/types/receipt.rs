//! What a result was computed by, on, and how.

use serde::Serialize;
use std::collections::BTreeMap;

/// A device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Device {
    /// Stable name on this machine.
    pub id: String,
    /// `cpu`, `gpu` or `npu`.
    pub kind: String,
    /// What the vendor calls it.
    pub name: String,
    /// No device, but a program that computes as it would, on the processor.
    pub simulated: bool,
}

/// One provider's share of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProviderShare {
    /// The runtime's own name of the provider.
    pub provider: String,
    /// Nodes it runs.
    pub nodes: u32,
    /// Time in its nodes: in receipts as [`ProviderShare::divide`] has it, elsewhere of one run of the
    /// model's check input. `None` where there is no profile of that.
    pub time_us: Option<u64>,
}

impl ProviderShare {
    /// Divides the time that a result took in the library among its providers: as their times of one
    /// run of the check input, which `shares` hold, are to each other. One alone took all of it.
    pub fn divide(shares: &mut [Self], compute_us: u64) {
        if let [only] = shares {
            only.time_us = Some(compute_us);
            return;
        }
        let times = shares.iter().map(|share| share.time_us.map(u128::from));
        let Some(total_us) = times.sum::<Option<u128>>().filter(|&total| total > 0) else {
            shares.iter_mut().for_each(|share| share.time_us = None);
            return;
        };
        for share in shares {
            let part = u128::from(share.time_us.unwrap_or(0)) * u128::from(compute_us);
            share.time_us = u64::try_from(part / total_us).ok();
        }
    }
}

/// A machine-readable reason: a stable code with fields, and the same for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// Stable name.
    pub code: String,
    /// Its fields.
    pub fields: BTreeMap<String, String>,
    /// For people.
    pub message: String,
    /// What a user can do about it; empty where there is nothing.
    pub next_step: String,
}

/// A way to run that was not taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// Runtime flavour.
    pub flavour: String,
    /// Provider; empty when the whole flavour is meant.
    pub provider: String,
    /// Variant; empty when none is meant.
    pub variant: String,
    /// Why.
    pub reason: Reason,
}

/// What a result was computed by, on, and how. Times are microseconds of wall time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// Model.
    pub model: String,
    /// Digest over its files.
    pub model_digest: String,
    /// Variant of the manifest.
    pub variant: String,
    /// Inference library.
    pub backend: String,
    /// Runtime flavour.
    pub flavour: String,
    /// The library's own version.
    pub library_version: String,
    /// Precision of the weights.
    pub precision: String,
    /// Device.
    pub device: Device,
    /// Nodes and time per provider.
    pub placement: Vec<ProviderShare>,
    /// Whether the shares were read back from the runtime after the load.
    pub placement_read_back: bool,
    /// Set-backs on the way to what was taken: a device or provider that is here or was asked for and
    /// could not be used, with the reason. Empty when the best candidate was taken; what was never
    /// open, or comes second, is told by [`Explanation`](super::Explanation).
    pub rejected: Vec<Rejected>,
    /// False when another machine computed it.
    pub local: bool,
    /// Waiting for its turn.
    pub queue_us: u64,
    /// Loading the model; 0 when it was loaded already.
    pub load_us: u64,
    /// Text: reading the prompt.
    pub prefill_us: u64,
    /// Text: writing the answer.
    pub decode_us: u64,
    /// Inside the inference library.
    pub compute_us: u64,
    /// From receipt to the end.
    pub total_us: u64,
    /// Clip: reading frames.
    pub media_decode_us: u64,
    /// Clip: writing frames.
    pub media_encode_us: u64,
    /// Runs of the model.
    pub steps: u64,
    /// Text: tokens of the prompt.
    pub prompt_tokens: u64,
    /// Text: tokens of the prompt that were in the cache.
    pub cached_tokens: u64,
    /// Text: tokens of the answer.
    pub generated_tokens: u64,
    /// Text: those of them that are reasoning which was asked for apart.
    pub reasoning_tokens: u64,
    /// Text: of the steps, those that served other answers, too.
    pub shared_steps: u64,
    /// Text: tokens drafted to be verified.
    pub drafted_tokens: u64,
    /// Text: those of them that the model chose, too.
    pub accepted_tokens: u64,
    /// Text: tokens left out because the context was full.
    pub dropped_tokens: u64,
    /// Embedding: texts; their tokens are those of the prompt.
    pub texts: u64,
    /// Generated clip: time of each denoising step, in order.
    pub step_times_us: Vec<u64>,
    /// Generated clip: the scheduler.
    pub scheduler: String,
    /// Generated clip: steps that were taken over from a checkpoint.
    pub resumed_steps: u64,
    /// Clip: samples of each channel of its sound, which were made for a generated one, and which the input
    /// has beside the frames that were read for a transformed one; 0 where there is none.
    pub audio_samples_out: u64,
    /// Clip: samples per second of its sound; 0 where the input does not tell.
    pub audio_sample_rate: u32,
    /// Clip: channels of its sound; 0 where the input does not tell.
    pub audio_channels: u32,
    /// Clip: codec of the sound in the output file, such as `flac`, `opus` or `pcm`, or what was copied from the
    /// input, such as `aac`; empty where there is no sound, and where the file's format does not take it: then
    /// there are samples, which are not in the file.
    pub audio_codec: String,
    /// Clip: frames read.
    pub frames_in: u64,
    /// Clip: frames written.
    pub frames_out: u64,
    /// Bytes of tensors copied between the client's memory and the library's.
    pub bytes_copied: u64,
    /// Stream: bytes written by the passes between frames and tensors.
    pub bytes_converted: u64,
    /// Seed of the sampler, when it drew.
    pub seed: Option<u64>,
    /// Mixture of Experts: routed experts used per token.
    pub experts_per_token: Option<u32>,
    /// Mixture of Experts: routed experts per layer.
    pub experts: Option<u32>,
    /// Threads at the end.
    pub threads: u32,
    /// Whether they spun at the end.
    pub spin: bool,
    /// How often threads or spinning followed the machine's load.
    pub thread_changes: u32,
    /// How often it was paused for more urgent work.
    pub preemptions: u32,
    /// How often it began anew because its worker died.
    pub retries: u32,
    /// `none`, `unknown`, or what slowed the device down.
    pub throttle: String,
    /// What is known of the numbers of this way to run: `reference`, `matched` or `unchecked`; empty
    /// when it was not tried.
    pub verification: String,
    /// Whether it was chosen because it was measured to be the best.
    pub measured: bool,
    /// When, in seconds since 1970; 0 when it was not tried.
    pub measured_at_s: u64,
    /// Processor time of the worker while it ran.
    pub host_cpu_us: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divided(times_us: &[Option<u64>], compute_us: u64) -> Vec<Option<u64>> {
        let shares = times_us.iter().map(|&time_us| ProviderShare {
            time_us,
            ..ProviderShare::default()
        });
        let mut shares: Vec<_> = shares.collect();
        ProviderShare::divide(&mut shares, compute_us);
        shares.iter().map(|share| share.time_us).collect()
    }

    #[test]
    fn time_is_divided_as_it_was_measured_and_not_at_all_without_that() {
        assert_eq!(divided(&[Some(7)], 100), [Some(100)]);
        assert_eq!(divided(&[None], 100), [Some(100)]);
        assert_eq!(
            divided(&[Some(30), Some(10)], 1_000),
            [Some(750), Some(250)]
        );
        assert_eq!(divided(&[Some(u64::MAX), Some(0)], 9), [Some(9), Some(0)]);
        assert_eq!(divided(&[Some(30), None], 1_000), [None, None]);
        assert_eq!(divided(&[Some(0), Some(0)], 1_000), [None, None]);
        assert!(divided(&[], 1).is_empty());
    }
}
