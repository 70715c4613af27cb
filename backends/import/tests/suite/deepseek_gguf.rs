//! DeepSeek as GGUF: both ways to store what makes keys and values, and what is refused.

use mote_import::{
    checkpoint::{CheckpointError, open_gguf},
    gguf::{Gguf, GgufError},
};
use serde_json::{Map, Value};
use tempfile::tempdir;

use super::{
    as_gguf::{Conversion, EXPERT_COUNTS, Settings, check, converter, yarn},
    gguf_file::{Meta, Tensor},
};

const DEEPSEEK: Conversion = Conversion {
    architecture: "deepseek2",
    neighbours: false,
    settings: &[
        EXPERT_COUNTS,
        ("expert_count", "n_routed_experts", true),
        ("expert_shared_count", "n_shared_experts", true),
        ("expert_feed_forward_length", "moe_intermediate_size", true),
        ("expert_weights_scale", "routed_scaling_factor", false),
        ("leading_dense_block_count", "first_k_dense_replace", true),
        ("attention.q_lora_rank", "q_lora_rank", true),
        ("attention.kv_lora_rank", "kv_lora_rank", true),
        ("rope.dimension_count", "qk_rope_head_dim", true),
    ],
    made: |config| deepseek(config, false),
    split: false,
};

fn deepseek(config: &Map<String, Value>, newer: bool) -> Settings {
    let count = |key: &str| config[key].as_u64().expect("it is a count") as u32;
    let mut settings = yarn(&config["rope_parameters"], true);
    let (rope, rank) = (count("qk_rope_head_dim"), count("kv_lora_rank"));
    let (key, value) = (count("qk_nope_head_dim") + rope, count("v_head_dim"));
    settings.extend(match newer {
        false => vec![
            ("attention.key_length", Meta::U32(key)),
            ("attention.value_length", Meta::U32(value)),
        ],
        true => vec![
            ("attention.key_length", Meta::U32(rank + rope)),
            ("attention.value_length", Meta::U32(rank)),
            ("attention.key_length_mla", Meta::U32(key)),
            ("attention.value_length_mla", Meta::U32(value)),
        ],
    });
    let third = config["architectures"][0] == "DeepseekV3ForCausalLM";
    if third {
        settings.push(("expert_gating_func", Meta::U32(2)));
        settings.push(("expert_weights_norm", Meta::Bool(true)));
    }
    if third || config["topk_method"] == "group_limited_greedy" {
        settings.push(("expert_group_count", Meta::U32(count("n_group"))));
        settings.push(("expert_group_used_count", Meta::U32(count("topk_group"))));
    }
    settings
}

#[test]
fn deepseek_with_keys_and_values_together() {
    for name in ["deepseek_v2", "deepseek_v2-lite", "deepseek_v3"] {
        check(name, DEEPSEEK);
    }
}

#[test]
fn deepseek_with_keys_and_values_apart() {
    for name in ["deepseek_v2-lite", "deepseek_v3"] {
        let conversion = Conversion {
            made: |config| deepseek(config, true),
            split: true,
            ..DEEPSEEK
        };
        check(name, conversion);
    }
}

/// What the tiny DeepSeek-V3 is refused for with a setting and tensors changed.
fn deepseek_refusal(
    (key, value): (&str, Meta<'_>),
    change: impl Fn(&mut Vec<Tensor>),
) -> CheckpointError {
    let conversion = Conversion {
        made: |config| deepseek(config, true),
        split: true,
        ..DEEPSEEK
    };
    let mut file = converter("deepseek_v3", conversion).file();
    let key = format!("deepseek2.{key}");
    let is_key = |entry: &Vec<u8>| entry[8..].starts_with(key.as_bytes());
    file.metadata.retain(|entry| !is_key(entry));
    file = file.meta(&key, value);
    change(&mut file.tensors);
    let folder = tempdir().expect("temporary folders can be made");
    let gguf = Gguf::open(&file.write(&folder)).expect("the header is sound");
    match open_gguf(&gguf) {
        Err(error) => error,
        Ok(_) => panic!("it must be refused"),
    }
}

#[test]
fn parts_of_latent_attention_must_be_there_and_fit() {
    let neutral = || ("other", Meta::U32(1));
    let (keys, values) = ("blk.1.attn_k_b.weight", "blk.1.attn_v_b.weight");
    for name in [keys, values] {
        let refusal = deepseek_refusal(neutral(), |tensors| {
            tensors.retain(|tensor| tensor.name != name);
        });
        assert!(
            matches!(
                &refusal,
                CheckpointError::Gguf(GgufError::MissingTensor { tensor }) if tensor == name
            ),
            "{name}: {refusal}"
        );
        let refusal = deepseek_refusal(neutral(), |tensors| {
            let mut found = tensors.iter_mut();
            let tensor = found.find(|tensor| tensor.name == name);
            tensor.expect("it is there").dims.reverse();
        });
        assert!(
            matches!(
                &refusal,
                CheckpointError::WrongShape { tensor, .. } if tensor == name
            ),
            "{name}: {refusal}"
        );
    }
}

#[test]
fn settings_of_deepseek_that_are_impossible_are_refused_by_name() {
    for (key, value) in [("expert_gating_func", 3), ("nextn_predict_layers", 1)] {
        let refusal = deepseek_refusal((key, Meta::U32(value)), |_| ());
        assert!(
            matches!(
                &refusal,
                CheckpointError::UnsupportedFeature { key: found } if found.ends_with(key)
            ),
            "{key}: {refusal}"
        );
    }
    for (key, value) in [
        ("attention.kv_lora_rank", 0),
        ("attention.kv_lora_rank", u32::MAX),
        ("rope.dimension_count", 32),
        ("expert_group_count", 3),
        ("expert_group_used_count", 5),
        ("expert_shared_count", u32::MAX),
        ("leading_dense_block_count", u32::MAX),
        ("attention.head_count", u32::MAX),
    ] {
        let refusal = deepseek_refusal((key, Meta::U32(value)), |_| ());
        assert!(
            matches!(
                &refusal,
                CheckpointError::OutOfRange { key: found, .. } if found.ends_with(key)
            ),
            "{key}: {refusal}"
        );
    }
    for value in [f32::NAN, f32::INFINITY, -1.0] {
        let key = "expert_weights_scale";
        let refusal = deepseek_refusal((key, Meta::F32(value)), |_| ());
        assert!(matches!(
            refusal,
            CheckpointError::OutOfRange { key: found, .. } if found.ends_with(key)
        ));
    }
}
