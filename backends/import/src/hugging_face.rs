//! The same weights as a Hugging Face folder: `LlamaForCausalLM`, or
//! `GraniteMoeSharedForCausalLM` for a carved model.

mod safetensors_file;

use half::{bf16, f16};

use crate::{
    ImportError,
    checkpoint::{Alternating, CheckpointError, LayerRole, LayerSource, Role, Rows, SourceRows},
    feed_forward::{FeedForward, Shared, feed_forward},
    folder::StagedFile,
    progress::{Monitor, Stage},
    recipe::Recipe,
};
use safetensors_file::SafetensorsFile;

pub(crate) const WEIGHTS_FILE: &str = "model.safetensors";

/// Element type of exported weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Element {
    /// IEEE single: exactly the dequantised weights.
    #[default]
    F32,
    /// IEEE half, rounded to nearest.
    F16,
    /// bfloat16, rounded to nearest.
    Bf16,
}

impl Element {
    /// Bytes per element.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The name in safetensors headers.
    fn tag(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
        }
    }

    /// The name in `config.json`.
    pub(crate) fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }

    fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
            Self::F16 => values
                .iter()
                .flat_map(|&value| f16::from_f32(value).to_le_bytes())
                .collect(),
            Self::Bf16 => values
                .iter()
                .flat_map(|&value| bf16::from_f32(value).to_le_bytes())
                .collect(),
        }
    }
}

/// A tensor to be written: name, shape and rows.
struct Planned<'a> {
    name: String,
    dims: Vec<usize>,
    rows: Box<dyn Rows + 'a>,
}

impl<'a> Planned<'a> {
    fn new(name: String, dims: &[usize], rows: Box<dyn Rows + 'a>) -> Self {
        Self {
            name,
            dims: dims.to_vec(),
            rows,
        }
    }

    fn matrix(name: String, rows: Box<dyn Rows + 'a>) -> Self {
        let dims = [rows.rows(), rows.columns()];
        Self::new(name, &dims, rows)
    }
}

/// Streams all weights to `file`.
pub(crate) fn write(
    source: &dyn LayerSource,
    recipe: Option<&Recipe>,
    (file, element): (StagedFile, Element),
    monitor: &mut Monitor<'_>,
) -> Result<StagedFile, ImportError> {
    let layers = source.config().layers;
    let mut index = Vec::new();
    let mut note = |planned: Vec<Planned<'_>>| {
        index.extend(planned.into_iter().map(|tensor| (tensor.name, tensor.dims)));
    };
    note(outer(source)?);
    for layer in 0..layers {
        note(decoder_layer(source, recipe, layer)?);
    }
    let mut file = SafetensorsFile::begin(file, element, &index)?;
    monitor.enter(Stage::Outer);
    file.append(outer(source)?, monitor)?;
    for layer in 0..layers {
        monitor.enter(Stage::Layer {
            index: layer,
            count: layers,
        });
        file.append(decoder_layer(source, recipe, layer)?, monitor)?;
    }
    Ok(file.finish())
}

fn outer(source: &dyn LayerSource) -> Result<Vec<Planned<'_>>, CheckpointError> {
    let config = source.config();
    let rows = |role| SourceRows::new(source, role).map(Box::new);
    let mut planned = vec![
        Planned::matrix(
            "model.embed_tokens.weight".to_owned(),
            rows(Role::Embedding)?,
        ),
        Planned::new(
            "model.norm.weight".to_owned(),
            &[config.hidden],
            rows(Role::FinalNorm)?,
        ),
    ];
    if !config.tied_head {
        planned.push(Planned::matrix(
            "lm_head.weight".to_owned(),
            rows(Role::Head)?,
        ));
    }
    Ok(planned)
}

fn decoder_layer<'a>(
    source: &'a dyn LayerSource,
    recipe: Option<&'a Recipe>,
    layer: usize,
) -> Result<Vec<Planned<'a>>, CheckpointError> {
    let hidden = source.config().hidden;
    let prefix = format!("model.layers.{layer}");
    let rows = |role| SourceRows::new(source, Role::Layer(layer, role)).map(Box::new);
    let mut planned = Vec::new();
    for (role, name) in [
        (LayerRole::AttentionNorm, "input_layernorm"),
        (LayerRole::FeedForwardNorm, "post_attention_layernorm"),
    ] {
        planned.push(Planned::new(
            format!("{prefix}.{name}.weight"),
            &[hidden],
            rows(role)?,
        ));
    }
    for (role, name) in [
        (LayerRole::Query, "q_proj"),
        (LayerRole::Key, "k_proj"),
        (LayerRole::Value, "v_proj"),
        (LayerRole::AttentionOutput, "o_proj"),
    ] {
        planned.push(Planned::matrix(
            format!("{prefix}.self_attn.{name}.weight"),
            rows(role)?,
        ));
    }
    planned.extend(block(&prefix, feed_forward(source, recipe, layer)?));
    Ok(planned)
}

fn block<'a>(prefix: &str, feed_forward: FeedForward<'a>) -> Vec<Planned<'a>> {
    let moe = match feed_forward {
        FeedForward::Dense(dense) => {
            return vec![
                Planned::matrix(format!("{prefix}.mlp.gate_proj.weight"), dense.gate),
                Planned::matrix(format!("{prefix}.mlp.up_proj.weight"), dense.up),
                Planned::matrix(format!("{prefix}.mlp.down_proj.weight"), dense.down),
            ];
        }
        FeedForward::Moe(moe) => moe,
    };
    let shape = moe.shape;
    let hidden = moe.router.columns();
    let input = Alternating::new(moe.expert_gate, moe.expert_up, shape.expert_neurons);
    let sparse = format!("{prefix}.block_sparse_moe");
    let mut planned = vec![
        Planned::matrix(format!("{sparse}.router.layer.weight"), moe.router),
        Planned::new(
            format!("{sparse}.input_linear.weight"),
            &[shape.experts, 2 * shape.expert_neurons, hidden],
            Box::new(input),
        ),
        Planned::new(
            format!("{sparse}.output_linear.weight"),
            &[shape.experts, hidden, shape.expert_neurons],
            moe.expert_down,
        ),
    ];
    if let Some(Shared { block, .. }) = moe.shared {
        let shared = Alternating::new(block.gate, block.up, shape.shared_neurons);
        planned.extend([
            Planned::matrix(
                format!("{prefix}.shared_mlp.input_linear.weight"),
                Box::new(shared),
            ),
            Planned::matrix(
                format!("{prefix}.shared_mlp.output_linear.weight"),
                block.down,
            ),
        ]);
    }
    planned
}
