//! `mote_receipt_t`: what a result was computed by, on, and how.

use crate::call::{Out, call, quiet};
use crate::door::Filled;
use crate::error::MoteError;
use crate::failure::Failure;
use crate::json::{c_text, json_text};
use crate::structs::ReceiptInfo;
use mote_client::Receipt;
use std::ffi::{CString, c_char};
use std::ptr;
use std::sync::OnceLock;

/// A receipt, and its texts for C, which are made when they are asked for.
pub struct MoteReceipt {
    receipt: Receipt,
    texts: OnceLock<Texts>,
    json: OnceLock<CString>,
}

struct Texts {
    model: CString,
    model_digest: CString,
    variant: CString,
    backend: CString,
    flavour: CString,
    library_version: CString,
    precision: CString,
    device_id: CString,
    device_kind: CString,
    device_name: CString,
    throttle: CString,
    verification: CString,
    scheduler: CString,
    audio_codec: CString,
}

impl MoteReceipt {
    pub(crate) fn new(receipt: Receipt) -> Self {
        Self {
            receipt,
            texts: OnceLock::new(),
            json: OnceLock::new(),
        }
    }

    pub(crate) fn receipt(&self) -> &Receipt {
        &self.receipt
    }

    fn texts(&self) -> &Texts {
        self.texts.get_or_init(|| {
            let receipt = &self.receipt;
            Texts {
                model: c_text(&receipt.model),
                model_digest: c_text(&receipt.model_digest),
                variant: c_text(&receipt.variant),
                backend: c_text(&receipt.backend),
                flavour: c_text(&receipt.flavour),
                library_version: c_text(&receipt.library_version),
                precision: c_text(&receipt.precision),
                device_id: c_text(&receipt.device.id),
                device_kind: c_text(&receipt.device.kind),
                device_name: c_text(&receipt.device.name),
                throttle: c_text(&receipt.throttle),
                verification: c_text(&receipt.verification),
                scheduler: c_text(&receipt.scheduler),
                audio_codec: c_text(&receipt.audio_codec),
            }
        })
    }

    fn info(&self) -> ReceiptInfo {
        let (receipt, texts) = (&self.receipt, self.texts());
        ReceiptInfo {
            size: size_of::<ReceiptInfo>(),
            model: texts.model.as_ptr(),
            model_digest: texts.model_digest.as_ptr(),
            variant: texts.variant.as_ptr(),
            backend: texts.backend.as_ptr(),
            flavour: texts.flavour.as_ptr(),
            library_version: texts.library_version.as_ptr(),
            precision: texts.precision.as_ptr(),
            device_id: texts.device_id.as_ptr(),
            device_kind: texts.device_kind.as_ptr(),
            device_name: texts.device_name.as_ptr(),
            throttle: texts.throttle.as_ptr(),
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
            frames_in: receipt.frames_in,
            frames_out: receipt.frames_out,
            bytes_copied: receipt.bytes_copied,
            seed: receipt.seed.unwrap_or_default(),
            has_seed: receipt.seed.is_some().into(),
            local: receipt.local.into(),
            placement_read_back: receipt.placement_read_back.into(),
            spin: receipt.spin.into(),
            threads: receipt.threads,
            thread_changes: receipt.thread_changes,
            preemptions: receipt.preemptions,
            retries: receipt.retries,
            experts: receipt.experts.unwrap_or_default(),
            experts_per_token: receipt.experts_per_token.unwrap_or_default(),
            verification: texts.verification.as_ptr(),
            measured_at_s: receipt.measured_at_s,
            host_cpu_us: receipt.host_cpu_us,
            measured: receipt.measured.into(),
            reasoning_tokens: receipt.reasoning_tokens,
            shared_steps: receipt.shared_steps,
            drafted_tokens: receipt.drafted_tokens,
            accepted_tokens: receipt.accepted_tokens,
            dropped_tokens: receipt.dropped_tokens,
            texts: receipt.texts,
            bytes_converted: receipt.bytes_converted,
            scheduler: texts.scheduler.as_ptr(),
            step_times_us: match receipt.step_times_us.as_slice() {
                [] => ptr::null(),
                times => times.as_ptr(),
            },
            step_time_count: receipt.step_times_us.len(),
            resumed_steps: receipt.resumed_steps,
            audio_codec: texts.audio_codec.as_ptr(),
            audio_samples_out: receipt.audio_samples_out,
            audio_sample_rate: receipt.audio_sample_rate,
            audio_channels: receipt.audio_channels,
        }
    }
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_receipt_info(
    receipt: Option<&MoteReceipt>,
    info: Filled<'_, ReceiptInfo>,
    error: Out<'_, MoteError>,
) -> i32 {
    call(error, || {
        let receipt = receipt.ok_or_else(|| Failure::null("receipt"))?;
        info.fill("info", receipt.info())
    })
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_receipt_json(receipt: Option<&MoteReceipt>) -> *const c_char {
    quiet(ptr::null(), || {
        let receipt = receipt?;
        let text = || json_text(&receipt.receipt).unwrap_or_default();
        Some(receipt.json.get_or_init(text).as_ptr())
    })
}
