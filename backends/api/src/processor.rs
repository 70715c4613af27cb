//! What builds of vendors' libraries take for granted of a processor.

/// The first feature, in the order in which builds come to need them, that this processor lacks:
/// the likely cause when a library dies of an illegal instruction.
#[cfg(target_arch = "x86_64")]
pub fn lacking() -> Option<&'static str> {
    let features = [
        ("SSE4.2", std::arch::is_x86_feature_detected!("sse4.2")),
        ("AVX", std::arch::is_x86_feature_detected!("avx")),
        ("AES", std::arch::is_x86_feature_detected!("aes")),
        ("F16C", std::arch::is_x86_feature_detected!("f16c")),
        ("FMA", std::arch::is_x86_feature_detected!("fma")),
        ("AVX2", std::arch::is_x86_feature_detected!("avx2")),
        ("BMI2", std::arch::is_x86_feature_detected!("bmi2")),
        ("AVX-512", std::arch::is_x86_feature_detected!("avx512f")),
    ];
    first_absent(&features)
}

/// The first feature, in the order in which builds come to need them, that this processor lacks:
/// the likely cause when a library dies of an illegal instruction.
#[cfg(target_arch = "aarch64")]
pub fn lacking() -> Option<&'static str> {
    let features = [
        ("AES", std::arch::is_aarch64_feature_detected!("aes")),
        (
            "LSE atomics",
            std::arch::is_aarch64_feature_detected!("lse"),
        ),
        ("fp16", std::arch::is_aarch64_feature_detected!("fp16")),
        (
            "dot products",
            std::arch::is_aarch64_feature_detected!("dotprod"),
        ),
        ("i8mm", std::arch::is_aarch64_feature_detected!("i8mm")),
        ("SVE", std::arch::is_aarch64_feature_detected!("sve")),
    ];
    first_absent(&features)
}

/// What this processor lacks is not known.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub fn lacking() -> Option<&'static str> {
    None
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn first_absent(features: &[(&'static str, bool)]) -> Option<&'static str> {
    let absent = features.iter().find(|(_, is_there)| !is_there);
    absent.map(|(name, _)| *name)
}
