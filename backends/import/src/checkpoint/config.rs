//! Dimensions and constants of a decoder: what distinguishes the architectures.

use super::{LayerRole, Role, Rope};
use crate::recipe::MoeShape;
use mote_kernels::{Groups, Score};

/// The dimensions and constants of a decoder with rotary attention, RMS norms and SwiGLU
/// feed-forward blocks, dense or Mixtures of Experts.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Decoder layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Neurons of a dense feed-forward block; 0 where no layer has one.
    pub neurons: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads of the cache; divides `heads`.
    pub kv_heads: usize,
    /// Elements per head of the cache.
    pub head_dim: usize,
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// Longest context the model was trained for, in tokens.
    pub context_tokens: usize,
    /// Rotary positions.
    pub rope: Rope,
    /// Added to the mean square in RMS norms.
    pub norm_epsilon: f32,
    /// Whether the output head is the embedding matrix.
    pub tied_head: bool,
    /// How attention differs from the plain one.
    pub attention: Attention,
    /// Constant factors.
    pub multipliers: Multipliers,
    /// The Mixture of Experts, where there is one.
    pub experts: Option<Experts>,
}

/// How attention differs from the plain one.
#[derive(Debug, Clone, PartialEq)]
pub struct Attention {
    /// Factor on products of queries and keys.
    pub scale: f32,
    /// Whether query, key and value projections have biases.
    pub input_bias: bool,
    /// Whether the output projection has a bias.
    pub output_bias: bool,
    /// RMS norms of queries and keys before they are rotated.
    pub norm: QueryKeyNorm,
    /// Keys and values come from a narrow latent.
    pub latent: Option<Latent>,
    /// Some layers see the last tokens only.
    pub window: Option<SlidingWindow>,
}

impl Default for Attention {
    fn default() -> Self {
        Self {
            scale: 1.0,
            input_bias: false,
            output_bias: false,
            norm: QueryKeyNorm::None,
            latent: None,
            window: None,
        }
    }
}

/// A window over the last tokens, which is all that some layers see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlidingWindow {
    /// Tokens that a token sees, itself among them.
    pub tokens: usize,
    /// For each layer whether it has the window.
    pub in_layer: Vec<bool>,
}

/// RMS norms of queries and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryKeyNorm {
    /// None.
    None,
    /// Each head on its own, with weights `[head_dim]`.
    PerHead,
    /// All heads together, with weights as wide as the projection.
    Whole,
}

/// Multi-head latent attention. A head has `nope_dim` elements without position, then
/// `rope_dim` rotated ones; the latter are the same for the keys of all heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latent {
    /// Width of the latent that queries come from; `None` when they come from the stream.
    pub query_rank: Option<usize>,
    /// Width of the latent that keys and values come from.
    pub kv_rank: usize,
    /// Elements per head without position.
    pub nope_dim: usize,
    /// Rotated elements per head.
    pub rope_dim: usize,
    /// Elements per head of values; at most `nope_dim + rope_dim`.
    pub value_dim: usize,
}

/// Constant factors; neutral ones are 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Multipliers {
    /// On embeddings.
    pub embedding: f32,
    /// On what a block adds to the residual stream.
    pub residual: f32,
    /// On logits.
    pub logits: f32,
}

impl Default for Multipliers {
    fn default() -> Self {
        Self {
            embedding: 1.0,
            residual: 1.0,
            logits: 1.0,
        }
    }
}

/// A Mixture of Experts.
#[derive(Debug, Clone, PartialEq)]
pub struct Experts {
    /// Routed experts.
    pub count: usize,
    /// Routed experts that work on each token.
    pub per_token: usize,
    /// Neurons of a routed expert.
    pub neurons: usize,
    /// Neurons of the expert that works on every token; 0 where there is none.
    pub shared_neurons: usize,
    /// Whether the shared expert's output is weighted by a sigmoid of its own.
    pub shared_switch: bool,
    /// How experts are chosen and weighted.
    pub routing: Routing,
    /// For each layer whether it is a Mixture of Experts; dense otherwise.
    pub in_layer: Vec<bool>,
}

impl Experts {
    /// Sizes of a layer's block.
    pub fn shape(&self) -> MoeShape {
        MoeShape {
            experts: self.count,
            experts_per_token: self.per_token,
            shared_neurons: self.shared_neurons,
            expert_neurons: self.neurons,
        }
    }
}

/// How experts are chosen and weighted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Routing {
    /// What makes scores of the router's logits.
    pub score: Score,
    /// Whether a bias is added to scores for the choice, and only for it.
    pub bias: bool,
    /// Experts are chosen from the best groups only.
    pub groups: Option<Groups>,
    /// Whether the scores of the chosen are divided by their sum.
    pub normalised: bool,
    /// Factor on weights.
    pub scale: f32,
}

impl Routing {
    /// Softmax over the chosen experts' logits.
    pub const SOFTMAX: Self = Self {
        score: Score::Softmax,
        bias: false,
        groups: None,
        normalised: true,
        scale: 1.0,
    };

    /// Whether a softmax over all experts and a choice of the best are all there is to it.
    pub fn is_plain(&self) -> bool {
        self.score == Score::Softmax && !self.bias && self.groups.is_none()
    }
}

impl ModelConfig {
    /// Rows of the query projection.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Rows of the key projection, and of the value projection.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Columns of the output projection.
    pub fn attended_width(&self) -> usize {
        self.heads * self.value_dim()
    }

    /// Elements per head of values.
    pub fn value_dim(&self) -> usize {
        let latent = self.attention.latent;
        latent.map_or(self.head_dim, |latent| latent.value_dim)
    }

    /// Rotated elements per head.
    pub fn rotary_dim(&self) -> usize {
        let latent = self.attention.latent;
        latent.map_or(self.head_dim, |latent| latent.rope_dim)
    }

    /// The Mixture of Experts of `layer`, when that layer is one.
    pub fn experts_of(&self, layer: usize) -> Option<&Experts> {
        let experts = self.experts.as_ref()?;
        experts.in_layer[layer].then_some(experts)
    }

    /// Tokens that a token sees in `layer`, when that is not all before it.
    pub fn window_of(&self, layer: usize) -> Option<usize> {
        let window = self.attention.window.as_ref()?;
        window.in_layer[layer].then_some(window.tokens)
    }

    /// Whether this is what `LlamaForCausalLM` computes without any extras.
    pub fn is_plain_llama(&self) -> bool {
        let attention = Attention {
            scale: (self.head_dim as f32).sqrt().recip(),
            ..Attention::default()
        };
        self.attention == attention
            && self.rope.is_plain()
            && self.multipliers == Multipliers::default()
            && self.experts.is_none()
    }

    /// Every tensor there must be.
    pub fn roles(&self) -> Vec<Role> {
        let mut roles = vec![Role::Embedding, Role::FinalNorm];
        if !self.tied_head {
            roles.push(Role::Head);
        }
        for layer in 0..self.layers {
            roles.extend(self.layer_roles(layer).map(|role| Role::Layer(layer, role)));
        }
        roles
    }

    fn layer_roles(&self, layer: usize) -> impl Iterator<Item = LayerRole> {
        use LayerRole as R;
        let attention = &self.attention;
        let when = |condition: bool, roles: &[LayerRole]| match condition {
            true => roles.to_vec(),
            false => Vec::new(),
        };
        let (latent, experts) = (attention.latent, self.experts_of(layer));
        let query_latent = latent.is_some_and(|latent| latent.query_rank.is_some());
        [
            when(
                true,
                &[
                    R::AttentionNorm,
                    R::FeedForwardNorm,
                    R::Query,
                    R::AttentionOutput,
                ],
            ),
            when(latent.is_none(), &[R::Key, R::Value]),
            when(latent.is_some(), &[R::KvDown, R::KvDownNorm, R::KvUp]),
            when(query_latent, &[R::QueryDown, R::QueryDownNorm]),
            when(
                attention.input_bias,
                &[R::QueryBias, R::KeyBias, R::ValueBias],
            ),
            when(attention.output_bias, &[R::OutputBias]),
            when(
                attention.norm != QueryKeyNorm::None,
                &[R::QueryNorm, R::KeyNorm],
            ),
            when(experts.is_none(), &[R::Gate, R::Up, R::Down]),
            when(
                experts.is_some(),
                &[R::Router, R::ExpertGate, R::ExpertUp, R::ExpertDown],
            ),
            when(
                experts.is_some_and(|experts| experts.routing.bias),
                &[R::RouterBias],
            ),
            when(
                experts.is_some_and(|experts| experts.shared_neurons > 0),
                &[R::SharedGate, R::SharedUp, R::SharedDown],
            ),
            when(
                experts.is_some_and(|experts| experts.shared_switch),
                &[R::SharedSwitch],
            ),
        ]
        .into_iter()
        .flatten()
    }

    /// Rows and columns of the tensor in `role`.
    pub fn shape(&self, role: Role) -> (usize, usize) {
        match role {
            Role::Embedding | Role::Head => (self.vocab, self.hidden),
            Role::FinalNorm => (1, self.hidden),
            Role::Layer(_, role) => self.layer_shape(role),
        }
    }

    fn layer_shape(&self, role: LayerRole) -> (usize, usize) {
        let experts = self.experts.as_ref();
        let (count, expert, shared) = experts.map_or((0, 0, 0), |experts| {
            (experts.count, experts.neurons, experts.shared_neurons)
        });
        let latent = self.attention.latent.unwrap_or(Latent {
            query_rank: None,
            kv_rank: 0,
            nope_dim: 0,
            rope_dim: 0,
            value_dim: 0,
        });
        let query_rank = latent.query_rank.unwrap_or(self.hidden);
        let per_head = self.attention.norm == QueryKeyNorm::PerHead;
        let normed = |width| if per_head { self.head_dim } else { width };
        match role {
            LayerRole::AttentionNorm | LayerRole::FeedForwardNorm => (1, self.hidden),
            LayerRole::Query => (self.query_width(), query_rank),
            LayerRole::Key | LayerRole::Value => (self.kv_width(), self.hidden),
            LayerRole::QueryBias => (1, self.query_width()),
            LayerRole::KeyBias | LayerRole::ValueBias => (1, self.kv_width()),
            LayerRole::QueryNorm => (1, normed(self.query_width())),
            LayerRole::KeyNorm => (1, normed(self.kv_width())),
            LayerRole::QueryDown => (query_rank, self.hidden),
            LayerRole::QueryDownNorm => (1, query_rank),
            LayerRole::KvDown => (latent.kv_rank + latent.rope_dim, self.hidden),
            LayerRole::KvDownNorm => (1, latent.kv_rank),
            LayerRole::KvUp => {
                let per_head = latent.nope_dim + latent.value_dim;
                (self.heads * per_head, latent.kv_rank)
            }
            LayerRole::AttentionOutput => (self.hidden, self.attended_width()),
            LayerRole::OutputBias => (1, self.hidden),
            LayerRole::Gate | LayerRole::Up => (self.neurons, self.hidden),
            LayerRole::Down => (self.hidden, self.neurons),
            LayerRole::Router => (count, self.hidden),
            LayerRole::RouterBias => (1, count),
            LayerRole::ExpertGate | LayerRole::ExpertUp => (count * expert, self.hidden),
            LayerRole::ExpertDown => (count * self.hidden, expert),
            LayerRole::SharedGate | LayerRole::SharedUp => (shared, self.hidden),
            LayerRole::SharedDown => (self.hidden, shared),
            LayerRole::SharedSwitch => (1, self.hidden),
        }
    }
}
