//! What known libraries demand of the processor. Their initialisers use these instructions, so a
//! processor without them kills the process inside `dlopen`.

use mote_api::Absence;
use std::path::Path;

/// Libraries of this name are built for AVX and AES, or for LSE, without a check of their own.
const LITERT_LM: &str = "liblitert-lm";

/// Refuses a library that this processor cannot run.
pub(crate) fn check(library: &Path) -> Result<(), Absence> {
    let name = library.file_name().unwrap_or_default().to_string_lossy();
    if !name.starts_with(LITERT_LM) {
        return Ok(());
    }
    match missing() {
        None => Ok(()),
        Some(feature) => Err(Absence::ProcessorFeature {
            feature: feature.into(),
        }),
    }
}

#[cfg(target_arch = "x86_64")]
fn missing() -> Option<&'static str> {
    if !std::arch::is_x86_feature_detected!("avx") {
        Some("AVX")
    } else if !std::arch::is_x86_feature_detected!("aes") {
        Some("AES")
    } else {
        None
    }
}

#[cfg(target_arch = "aarch64")]
fn missing() -> Option<&'static str> {
    (!std::arch::is_aarch64_feature_detected!("lse")).then_some("LSE atomics")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn missing() -> Option<&'static str> {
    None
}
