//! What tensors are called in Hugging Face checkpoints.

use super::Family;
use crate::checkpoint::{
    LayerRole, ModelConfig, Role,
    place::{PartName, Place, Window},
};

/// Names of a family's tensors.
pub(super) struct Names {
    family: Family,
    root: &'static str,
    has_query_latent: bool,
    experts: usize,
    expert_neurons: usize,
    shared_neurons: usize,
}

impl Names {
    pub fn new(family: Family, config: &ModelConfig, root: &'static str) -> Self {
        let experts = config.experts.as_ref();
        Self {
            family,
            root,
            has_query_latent: config
                .attention
                .latent
                .is_some_and(|latent| latent.query_rank.is_some()),
            experts: experts.map_or(0, |experts| experts.count),
            expert_neurons: experts.map_or(0, |experts| experts.neurons),
            shared_neurons: experts.map_or(0, |experts| experts.shared_neurons),
        }
    }

    pub fn place(&self, role: Role) -> Place {
        let root = self.root;
        match role {
            Role::Embedding => Place::whole(format!("{root}embed_tokens.weight")),
            Role::Head => Place::whole("lm_head.weight".to_owned()),
            Role::FinalNorm => Place::whole(format!("{root}norm.weight")),
            Role::Layer(layer, role) => self.in_layer(&format!("{root}layers.{layer}"), role),
        }
    }

    fn in_layer(&self, layer: &str, role: LayerRole) -> Place {
        use LayerRole as R;
        let attention = |name: &str| Place::whole(format!("{layer}.self_attn.{name}"));
        match role {
            R::AttentionNorm => Place::whole(format!("{layer}.input_layernorm.weight")),
            R::FeedForwardNorm => Place::whole(format!("{layer}.post_attention_layernorm.weight")),
            R::Query if self.has_query_latent => attention("q_b_proj.weight"),
            R::Query => attention("q_proj.weight"),
            R::Key => attention("k_proj.weight"),
            R::Value => attention("v_proj.weight"),
            R::QueryBias => attention("q_proj.bias"),
            R::KeyBias => attention("k_proj.bias"),
            R::ValueBias => attention("v_proj.bias"),
            R::QueryNorm => attention("q_norm.weight"),
            R::KeyNorm => attention("k_norm.weight"),
            R::QueryDown => attention("q_a_proj.weight"),
            R::QueryDownNorm => attention("q_a_layernorm.weight"),
            R::KvDown => attention("kv_a_proj_with_mqa.weight"),
            R::KvDownNorm => attention("kv_a_layernorm.weight"),
            R::KvUp => attention("kv_b_proj.weight"),
            R::AttentionOutput => attention("o_proj.weight"),
            R::OutputBias => attention("o_proj.bias"),
            R::Gate => Place::whole(format!("{layer}.mlp.gate_proj.weight")),
            R::Up => Place::whole(format!("{layer}.mlp.up_proj.weight")),
            R::Down => Place::whole(format!("{layer}.mlp.down_proj.weight")),
            _ if self.family.is_granite() => self.granite(layer, role),
            _ => self.expert(layer, role),
        }
    }

    /// Gate and up of an expert are one matrix, experts lie in one tensor.
    fn granite(&self, layer: &str, role: LayerRole) -> Place {
        use LayerRole as R;
        let sparse = |name: &str| Place::whole(format!("{layer}.block_sparse_moe.{name}.weight"));
        let shared = |name: &str| Place::whole(format!("{layer}.shared_mlp.{name}.weight"));
        let half = |place: Place, parts: usize, neurons: usize, is_up: bool| Place {
            parts,
            window: Some(Window {
                stride: 2 * neurons,
                skip: if is_up { neurons } else { 0 },
            }),
            ..place
        };
        let is_up = matches!(role, R::ExpertUp | R::SharedUp);
        match role {
            R::ExpertGate | R::ExpertUp => {
                let place = sparse("input_linear");
                half(place, self.experts, self.expert_neurons, is_up)
            }
            R::ExpertDown => sparse("output_linear"),
            R::SharedGate | R::SharedUp => {
                half(shared("input_linear"), 1, self.shared_neurons, is_up)
            }
            R::SharedDown => shared("output_linear"),
            _ => sparse("router.layer"),
        }
    }

    /// Each expert has tensors of its own.
    fn expert(&self, layer: &str, role: LayerRole) -> Place {
        use LayerRole as R;
        let (block, [gate, up, down]) = match self.family {
            Family::Mixtral => (
                "block_sparse_moe",
                [".w1.weight", ".w3.weight", ".w2.weight"],
            ),
            _ => (
                "mlp",
                [".gate_proj.weight", ".up_proj.weight", ".down_proj.weight"],
            ),
        };
        let shared_name = match self.family {
            Family::Qwen2Moe => "shared_expert",
            _ => "shared_experts",
        };
        let routed = |name| Place {
            name: PartName::Numbered(format!("{layer}.{block}.experts."), name),
            parts: self.experts,
            window: None,
            neighbours: None,
        };
        let shared = |name: &str| Place::whole(format!("{layer}.{block}.{shared_name}{name}"));
        match role {
            R::ExpertGate => routed(gate),
            R::ExpertUp => routed(up),
            R::ExpertDown => routed(down),
            R::SharedGate => shared(gate),
            R::SharedUp => shared(up),
            R::SharedDown => shared(down),
            R::SharedSwitch => Place::whole(format!("{layer}.mlp.shared_expert_gate.weight")),
            R::RouterBias => Place::whole(format!("{layer}.mlp.gate.e_score_correction_bias")),
            _ => Place::whole(format!("{layer}.{block}.gate.weight")),
        }
    }
}

/// What all names but the head's begin with: nothing where the model was saved without its head, as
/// embedding models are.
pub(super) fn root<'a>(mut names: impl Iterator<Item = &'a str>) -> &'static str {
    match names.any(|name| name == "embed_tokens.weight") {
        true => "",
        false => "model.",
    }
}

/// Whether transformers too leaves the tensor `name` unread: a copy of a tied head, tables
/// that are computed anew, and layers that guess further tokens.
pub(super) fn is_surplus(name: &str, (family, tied, layers): (Family, bool, usize)) -> bool {
    let further = format!("model.layers.{layers}.");
    (tied && name == "lm_head.weight")
        || name.ends_with(".rotary_emb.inv_freq")
        || (family == Family::DeepseekV3
            && [&further, further.trim_start_matches("model.")]
                .iter()
                .any(|root| name.starts_with(*root)))
}
