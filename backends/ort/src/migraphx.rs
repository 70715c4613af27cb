//! MIGraphX takes its options as a struct of an older kind, not as keys and values.

use crate::options::MIGRAPHX;
use crate::providers::Options;
use ort::ep::{ArenaExtendStrategy, ExecutionProviderDispatch, MIGraphX};

/// The provider with options by the names that it has for them elsewhere. What the struct has no field
/// for is refused.
pub(crate) fn configured(options: &Options) -> Result<ExecutionProviderDispatch, String> {
    let is_known = |key: &str| MIGRAPHX.iter().any(|known| known.name == key);
    if let Some((key, _)) = options.iter().find(|(key, _)| !is_known(key)) {
        return Err(format!("the library takes no option {key:?}"));
    }
    let value = |key: &str| {
        let mut pairs = options.iter();
        pairs
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    };
    let mut provider = MIGraphX::default()
        .with_fp16(switch(
            "migraphx_fp16_enable",
            value("migraphx_fp16_enable"),
        )?)
        .with_fp8(switch("migraphx_fp8_enable", value("migraphx_fp8_enable"))?)
        .with_int8(switch(
            "migraphx_int8_enable",
            value("migraphx_int8_enable"),
        )?)
        .with_exhaustive_tune(switch(
            "migraphx_exhaustive_tune",
            value("migraphx_exhaustive_tune"),
        )?);
    if let Some(number) = value("device_id") {
        provider = provider.with_device_id(parsed("device_id", number)?);
    }
    if let Some(table) = value("migraphx_int8_calibration_table_name") {
        let key = "migraphx_int8_use_native_calibration_table";
        provider = provider.with_int8_calibration_table(table, switch(key, value(key))?);
    }
    if let Some(bytes) = value("migraphx_mem_limit") {
        provider = provider.with_mem_limit(parsed("migraphx_mem_limit", bytes)?);
    }
    if let Some(strategy) = value("migraphx_arena_extend_strategy") {
        provider = provider.with_arena_extend_strategy(match strategy {
            "kNextPowerOfTwo" => ArenaExtendStrategy::NextPowerOfTwo,
            "kSameAsRequested" => ArenaExtendStrategy::SameAsRequested,
            other => return Err(wrong("migraphx_arena_extend_strategy", other)),
        });
    }
    Ok(provider.build())
}

fn switch(key: &str, value: Option<&str>) -> Result<bool, String> {
    match value {
        None | Some("0") => Ok(false),
        Some("1") => Ok(true),
        Some(other) => Err(wrong(key, other)),
    }
}

fn parsed<T: std::str::FromStr>(key: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| wrong(key, value))
}

fn wrong(key: &str, value: &str) -> String {
    format!("{value:?} is no value of {key}")
}
