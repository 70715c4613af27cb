//! The ONNX graph of a decoder, in the form that ONNX Runtime's CPU kernels run fastest.
//!
//! Inputs: `input_ids` i64 `[batch, sequence]`; `seqlens_k` i32 `[batch]`, the index of each
//! row's last token; `total_sequence_length` i32 `[1]`, past and new tokens together;
//! `num_logits_to_keep` i64 `[1]`, `n`, from 1 to `sequence`; and per layer
//! `past_key_values.{l}.key` and `.value`, f32, f16 or i8 `[batch, kv_heads, past, head_dim]`.
//! Outputs: `logits` f32 `[batch, n, vocab]` of the last `n` positions (a larger `n` gives
//! those of all), and per layer `present.{l}.key` and `.value`, which may be bound to the
//! buffers of the past. Only the positions that are kept reach the last norm and the head.
//!
//! Where vectors are wanted and no tokens, there are no past and no head: the one output is
//! `last_hidden_state` f32 `[batch, sequence, hidden]`, what the final norm gives for each position.

mod attention;
mod cache;
mod latent;
mod linear;
mod mlp;
mod moe;
mod moe_own;
mod outer;
mod routing;

pub use cache::CacheStorage;
pub use linear::Layout;

use crate::{
    ImportError,
    checkpoint::{LayerRole, LayerSource, Role, Scaled, SourceRows},
    feed_forward::{FeedForward, feed_forward},
    onnx::{GraphWriter, Node, Shape, proto::DataType},
    progress::Stage,
    quantise::Storage,
    recipe::Recipe,
};

/// How the weight matrices of a model are stored. Norms, routers and rotary tables are f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Precision {
    /// Attention projections, dense and shared feed-forward blocks.
    pub weights: Storage,
    /// Embedding and output head.
    pub head: Storage,
    /// Routed experts.
    pub experts: Storage,
    /// How quantised matrices lie in the file.
    pub layout: Layout,
    /// Keys and values between runs; not part of the weights. `None`: halves where Mote's own attention reads
    /// them, singles elsewhere.
    pub cache: Option<CacheStorage>,
}

impl Precision {
    /// The same storage everywhere.
    pub fn uniform(storage: Storage) -> Self {
        Self {
            weights: storage,
            head: storage,
            experts: storage,
            layout: Layout::default(),
            cache: None,
        }
    }

    /// Whether every matrix is stored in the same way.
    pub fn is_uniform(&self) -> bool {
        [self.head, self.experts] == [self.weights; 2]
    }
}

/// What the graph gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gives {
    /// Logits of the last positions, as many as are asked for, over a cache.
    Logits,
    /// The final norm's output of every position.
    States,
}

/// What the graph is made from.
pub(crate) struct Blueprint<'a> {
    pub gives: Gives,
    pub source: &'a dyn LayerSource,
    pub recipe: Option<&'a Recipe>,
    pub precision: Precision,
    pub context_tokens: usize,
}

/// Adds the whole decoder to `graph`.
pub(crate) fn emit(
    blueprint: &Blueprint<'_>,
    graph: &mut GraphWriter<'_, '_>,
) -> Result<(), ImportError> {
    let config = blueprint.source.config();
    graph.layout = blueprint.precision.layout;
    declare_io(blueprint, graph);
    graph.monitor.enter(Stage::Outer);
    let embedding = outer::embedding(blueprint, graph)?;
    attention::rotary_tables(blueprint, graph)?;
    let mut stream = first_norm(blueprint, graph, embedding)?;
    for layer in 0..config.layers {
        graph.monitor.enter(Stage::Layer {
            index: layer,
            count: config.layers,
        });
        stream = decoder_layer(blueprint, graph, layer, stream)?;
    }
    graph.monitor.enter(Stage::Outer);
    match blueprint.gives {
        Gives::Logits => outer::head(blueprint, graph, &stream.normed)?,
        Gives::States => outer::states(graph, &stream.normed),
    }
    Ok(())
}

/// The residual stream between two blocks.
struct Stream {
    /// The sum of all blocks so far.
    residual: String,
    /// The same, normed for the next block.
    normed: String,
}

fn declare_io(blueprint: &Blueprint<'_>, graph: &mut GraphWriter<'_, '_>) {
    let config = blueprint.source.config();
    let batch = || Shape::Named("batch");
    graph.input(
        "input_ids",
        DataType::Int64,
        &[batch(), Shape::Named("sequence")],
    );
    graph.input("seqlens_k", DataType::Int32, &[batch()]);
    graph.input("total_sequence_length", DataType::Int32, &[Shape::Fixed(1)]);
    if blueprint.gives == Gives::States {
        let shape = [
            batch(),
            Shape::Named("sequence"),
            Shape::Fixed(config.hidden),
        ];
        return graph.output(outer::STATES, DataType::Float, &shape);
    }
    graph.input(outer::LOGITS_KEPT, DataType::Int64, &[Shape::Fixed(1)]);
    graph.output(
        "logits",
        DataType::Float,
        &[
            batch(),
            Shape::Named("num_logits"),
            Shape::Fixed(config.vocab),
        ],
    );
    for layer in 0..config.layers {
        for part in ["key", "value"] {
            let shape = |tokens| {
                [
                    batch(),
                    Shape::Fixed(config.kv_heads),
                    Shape::Named(tokens),
                    Shape::Fixed(config.head_dim),
                ]
            };
            graph.input(
                &format!("past_key_values.{layer}.{part}"),
                blueprint.cache().data_type(),
                &shape("past_sequence"),
            );
            graph.output(
                &format!("present.{layer}.{part}"),
                blueprint.cache().data_type(),
                &shape("total_sequence"),
            );
        }
    }
}

fn first_norm(
    blueprint: &Blueprint<'_>,
    graph: &mut GraphWriter<'_, '_>,
    embedding: String,
) -> Result<Stream, ImportError> {
    let weight = norm_weight(blueprint, graph, Role::Layer(0, LayerRole::AttentionNorm))?;
    let node = Node::standard("SimplifiedLayerNormalization", "layers.0.attention_norm")
        .inputs(&[&embedding, &weight])
        .signed("axis", -1)
        .float("epsilon", blueprint.source.config().norm_epsilon)
        .int("stash_type", 1);
    Ok(Stream {
        normed: graph.node(node),
        residual: embedding,
    })
}

fn decoder_layer(
    blueprint: &Blueprint<'_>,
    graph: &mut GraphWriter<'_, '_>,
    layer: usize,
    stream: Stream,
) -> Result<Stream, ImportError> {
    let config = blueprint.source.config();
    let attended = match config.attention.latent {
        None => attention::attention(blueprint, graph, layer, &stream.normed)?,
        Some(latent) => latent::attention(blueprint, graph, (layer, latent), &stream.normed)?,
    };
    let role = Role::Layer(layer, LayerRole::FeedForwardNorm);
    let stream = skip_norm(blueprint, graph, role, [&stream.residual, &attended])?;
    let prefix = format!("layers.{layer}");
    let precision = blueprint.precision;
    let mixed = match feed_forward(blueprint.source, blueprint.recipe, layer)? {
        FeedForward::Dense(block) => mlp::swiglu(
            graph,
            &format!("{prefix}.mlp"),
            &stream.normed,
            (block, precision.weights),
        )?,
        FeedForward::Moe(block) => moe::block(
            graph,
            &format!("{prefix}.moe"),
            &stream.normed,
            (block, precision),
        )?,
    };
    if layer + 1 < config.layers {
        let role = Role::Layer(layer + 1, LayerRole::AttentionNorm);
        return skip_norm(blueprint, graph, role, [&stream.residual, &mixed]);
    }
    if blueprint.gives == Gives::States {
        return skip_norm(
            blueprint,
            graph,
            Role::FinalNorm,
            [&stream.residual, &mixed],
        );
    }
    let [residual, mixed] = outer::last_positions(graph, [&stream.residual, &mixed]);
    skip_norm(blueprint, graph, Role::FinalNorm, [&residual, &mixed])
}

/// Adds the two `summands` and norms the sum with the weight in `role`.
fn skip_norm(
    blueprint: &Blueprint<'_>,
    graph: &mut GraphWriter<'_, '_>,
    role: Role,
    [residual, update]: [&str; 2],
) -> Result<Stream, ImportError> {
    let weight = norm_weight(blueprint, graph, role)?;
    let name = weight.trim_end_matches(".weight");
    let (normed, sum) = (format!("{name}.out"), format!("{name}.sum"));
    let node = Node::contrib("SkipSimplifiedLayerNormalization", name)
        .inputs(&[residual, update, &weight])
        .float("epsilon", blueprint.source.config().norm_epsilon);
    graph.node(if role == Role::FinalNorm {
        node.outputs(&[&normed])
    } else {
        node.outputs(&[&normed, "", "", &sum])
    });
    Ok(Stream {
        residual: sum,
        normed,
    })
}

fn norm_weight(
    blueprint: &Blueprint<'_>,
    graph: &mut GraphWriter<'_, '_>,
    role: Role,
) -> Result<String, ImportError> {
    let name = match role {
        Role::Layer(layer, LayerRole::AttentionNorm) => {
            format!("layers.{layer}.attention_norm.weight")
        }
        Role::Layer(layer, _) => format!("layers.{layer}.mlp_norm.weight"),
        Role::Embedding | Role::Head | Role::FinalNorm => "final_norm.weight".to_owned(),
    };
    let rows = Box::new(SourceRows::new(blueprint.source, role)?);
    // The norm before the head has the logits' multiplier too: a head that is tied cannot.
    let factor = match role {
        Role::FinalNorm if blueprint.gives == Gives::Logits => {
            blueprint.source.config().multipliers.logits
        }
        _ => 1.0,
    };
    graph.vector(&name, Scaled::boxed(rows, factor).as_ref())?;
    Ok(name)
}
