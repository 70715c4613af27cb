//! `config.json` as Hugging Face libraries read it.

use serde::Serialize;

use crate::{
    ImportError, Obstacle, checkpoint::ModelConfig, recipe::MoeShape, tokenizer::SpecialTokens,
};

#[derive(Serialize)]
struct HuggingFaceConfig {
    architectures: [&'static str; 1],
    model_type: &'static str,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
    hidden_act: &'static str,
    max_position_embeddings: usize,
    rms_norm_eps: f32,
    rope_theta: f32,
    attention_bias: bool,
    attention_dropout: f32,
    tie_word_embeddings: bool,
    bos_token_id: Option<u32>,
    eos_token_id: Option<u32>,
    pad_token_id: Option<u32>,
    use_cache: bool,
    torch_dtype: &'static str,
    #[serde(flatten)]
    moe: Option<GraniteMoeShared>,
}

/// What `GraniteMoeSharedForCausalLM` has beyond Llama. Its multipliers are neutral, so
/// that the carved model computes what the dense one does.
#[derive(Serialize)]
struct GraniteMoeShared {
    num_local_experts: usize,
    num_experts_per_tok: usize,
    shared_intermediate_size: usize,
    embedding_multiplier: f32,
    attention_multiplier: f32,
    residual_multiplier: f32,
    logits_scaling: f32,
    output_router_logits: bool,
}

/// Serialises the configuration. `element` is the name of the weights' element type.
pub(crate) fn hugging_face_json(
    config: &ModelConfig,
    moe: Option<MoeShape>,
    special: &SpecialTokens,
    element: &'static str,
) -> Result<Vec<u8>, ImportError> {
    if moe.is_some() && config.query_width() != config.hidden {
        return Err(ImportError::Inexpressible {
            obstacle: Obstacle::HeadDim,
        });
    }
    let (architecture, model_type) = match moe {
        Some(_) => ("GraniteMoeSharedForCausalLM", "granitemoeshared"),
        None => ("LlamaForCausalLM", "llama"),
    };
    let json = HuggingFaceConfig {
        architectures: [architecture],
        model_type,
        vocab_size: config.vocab,
        hidden_size: config.hidden,
        intermediate_size: moe.map_or(config.neurons, |moe| moe.expert_neurons),
        num_hidden_layers: config.layers,
        num_attention_heads: config.heads,
        num_key_value_heads: config.kv_heads,
        head_dim: config.head_dim,
        hidden_act: "silu",
        max_position_embeddings: config.context_tokens,
        rms_norm_eps: config.norm_epsilon,
        rope_theta: config.rope.base,
        attention_bias: false,
        attention_dropout: 0.0,
        tie_word_embeddings: config.tied_head,
        bos_token_id: special.bos,
        eos_token_id: special.eos.first().copied(),
        pad_token_id: special.padding,
        use_cache: true,
        torch_dtype: element,
        moe: moe.map(|moe| GraniteMoeShared {
            num_local_experts: moe.experts,
            num_experts_per_tok: moe.experts_per_token,
            shared_intermediate_size: moe.shared_neurons,
            embedding_multiplier: 1.0,
            attention_multiplier: (config.head_dim as f32).sqrt().recip(),
            residual_multiplier: 1.0,
            logits_scaling: 1.0,
            output_router_logits: false,
        }),
    };
    serde_json::to_vec_pretty(&json).map_err(|source| ImportError::Serialise {
        file: "config.json",
        source: source.into(),
    })
}
