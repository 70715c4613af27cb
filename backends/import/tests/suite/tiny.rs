//! A complete two-layer Llama checkpoint and a recipe that carves it.

use half::f16;
use mote_import::Digest;
use safetensors::{Dtype, tensor::TensorView};

use super::gguf_file::{GgufFile, Meta, Q8_0, Tensor};

pub const LAYERS: usize = 2;
pub const HIDDEN: usize = 64;
pub const HEADS: usize = 2;
pub const KV_HEADS: usize = 1;
pub const HEAD_DIM: usize = 32;
pub const NEURONS: usize = 128;
pub const SHARED: usize = 64;
pub const EXPERTS: usize = 2;
pub const EXPERT: usize = 32;
pub const SEED: u64 = 20_240_607;

/// A small deterministic generator (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn weight(&mut self) -> f32 {
        (self.next() % 2001) as f32 / 1000.0 - 1.0
    }

    pub fn weights(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.weight()).collect()
    }
}

pub fn tokens() -> Vec<String> {
    let special = ["<|end|>", "<|im_start|>", "<|im_end|>"].map(str::to_owned);
    let digits = ('0'..='9').chain('a'..='z').map(String::from);
    let merged = ["Ġ", "ab", "abc", "12"].map(str::to_owned);
    special.into_iter().chain(digits).chain(merged).collect()
}

pub const MERGES: [&str; 3] = ["a b", "ab c", "1 2"];

/// The metadata of the checkpoint, without any entry for which `skip` says so.
pub fn metadata(mut file: GgufFile, skip: &[&str]) -> GgufFile {
    let tokens = tokens();
    let merges = MERGES.map(str::to_owned);
    let kinds: Vec<i32> = (0..tokens.len())
        .map(|id| if id < 3 { 3 } else { 1 })
        .collect();
    let template = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}";
    let entries = [
        ("general.architecture", Meta::Text("llama")),
        ("llama.block_count", Meta::U32(LAYERS as u32)),
        ("llama.context_length", Meta::U32(4096)),
        ("llama.embedding_length", Meta::U32(HIDDEN as u32)),
        ("llama.feed_forward_length", Meta::U32(NEURONS as u32)),
        ("llama.attention.head_count", Meta::U32(HEADS as u32)),
        ("llama.attention.head_count_kv", Meta::U32(KV_HEADS as u32)),
        ("llama.attention.layer_norm_rms_epsilon", Meta::F32(1e-5)),
        ("llama.rope.freq_base", Meta::F32(100_000.0)),
        ("llama.vocab_size", Meta::U32(tokens.len() as u32)),
        ("tokenizer.ggml.model", Meta::Text("gpt2")),
        ("tokenizer.ggml.pre", Meta::Text("smollm")),
        ("tokenizer.ggml.tokens", Meta::Texts(&tokens)),
        ("tokenizer.ggml.token_type", Meta::I32s(&kinds)),
        ("tokenizer.ggml.merges", Meta::Texts(&merges)),
        ("tokenizer.ggml.bos_token_id", Meta::U32(1)),
        ("tokenizer.ggml.eos_token_id", Meta::U32(2)),
        ("tokenizer.ggml.add_bos_token", Meta::Bool(false)),
        ("tokenizer.chat_template", Meta::Text(template)),
    ];
    for (key, value) in entries {
        if !skip.contains(&key) {
            file = file.meta(key, value);
        }
    }
    file
}

/// Names and dimensions (fastest first) of all tensors.
fn shapes() -> Vec<(String, Vec<usize>)> {
    let mut shapes = vec![
        ("token_embd.weight".to_owned(), vec![HIDDEN, tokens().len()]),
        ("output_norm.weight".to_owned(), vec![HIDDEN]),
    ];
    for layer in 0..LAYERS {
        let tensors = [
            ("attn_norm", vec![HIDDEN]),
            ("attn_q", vec![HIDDEN, HEADS * HEAD_DIM]),
            ("attn_k", vec![HIDDEN, KV_HEADS * HEAD_DIM]),
            ("attn_v", vec![HIDDEN, KV_HEADS * HEAD_DIM]),
            ("attn_output", vec![HEADS * HEAD_DIM, HIDDEN]),
            ("ffn_norm", vec![HIDDEN]),
            ("ffn_gate", vec![HIDDEN, NEURONS]),
            ("ffn_up", vec![HIDDEN, NEURONS]),
            ("ffn_down", vec![NEURONS, HIDDEN]),
        ];
        shapes.extend(tensors.map(|(name, dims)| (format!("blk.{layer}.{name}.weight"), dims)));
    }
    shapes
}

/// The checkpoint. The embedding is Q8_0, everything else F32.
pub struct Checkpoint {
    pub file: GgufFile,
    weights: Vec<(String, usize, Vec<f32>)>,
}

impl Checkpoint {
    pub fn new() -> Self {
        let mut random = Random(SEED);
        let mut file = metadata(GgufFile::default(), &[]);
        let mut weights = Vec::new();
        for (name, dims) in shapes() {
            let wide: Vec<u64> = dims.iter().map(|&dim| dim as u64).collect();
            let count = dims.iter().product();
            let (tensor, values) = if name == "token_embd.weight" {
                q8_0(&name, wide, &mut random)
            } else {
                let values = random.weights(count);
                (Tensor::f32(&name, &wide, &values), values)
            };
            file = file.tensor(tensor);
            weights.push((name, dims[0], values));
        }
        Self { file, weights }
    }

    /// Row `row` of tensor `name` as the file has it.
    pub fn row(&self, name: &str, row: usize) -> &[f32] {
        let (_, columns, values) = self
            .weights
            .iter()
            .find(|(known, ..)| known == name)
            .expect("tests ask for tensors that exist");
        &values[row * columns..][..*columns]
    }
}

fn q8_0(name: &str, dims: Vec<u64>, random: &mut Random) -> (Tensor, Vec<f32>) {
    let (mut data, mut values) = (Vec::new(), Vec::new());
    for _ in 0..dims.iter().product::<u64>() / 32 {
        data.extend(f16::from_f32(0.0625).to_le_bytes());
        for _ in 0..32 {
            let code = random.next() as i8;
            data.push(code as u8);
            values.push(f32::from(code) * 0.0625);
        }
    }
    let tensor = Tensor {
        name: name.to_owned(),
        dims,
        kind: Q8_0,
        data,
        offset: None,
    };
    (tensor, values)
}

/// Parts of a recipe, to be spoilt one at a time.
#[derive(Clone)]
pub struct RecipeParts {
    pub metadata: Vec<(String, String)>,
    pub permutations: Vec<Vec<u16>>,
    pub routers: Vec<Vec<f32>>,
    pub router_width: usize,
    /// More f16 tensors: name, shape, values.
    pub more: Vec<(String, Vec<usize>, Vec<f32>)>,
}

impl RecipeParts {
    /// A random but valid recipe for the checkpoint whose file is `gguf`.
    pub fn new(gguf: &[u8]) -> Self {
        let mut random = Random(SEED + 1);
        let entries = [
            ("format", "mote-carve-2".to_owned()),
            (
                "source_sha256",
                Digest::of(gguf).to_string()[7..].to_owned(),
            ),
            ("shared_neurons", SHARED.to_string()),
            ("experts", EXPERTS.to_string()),
            ("expert_neurons", EXPERT.to_string()),
            ("experts_per_token", "1".to_owned()),
            ("router_temperature", "0.5".to_owned()),
        ];
        let permutation = |random: &mut Random| {
            let mut order: Vec<u16> = (0..NEURONS as u16).collect();
            order.sort_by_cached_key(|_| random.next());
            order
        };
        Self {
            metadata: entries.map(|(key, value)| (key.to_owned(), value)).to_vec(),
            permutations: (0..LAYERS).map(|_| permutation(&mut random)).collect(),
            routers: (0..LAYERS)
                .map(|_| {
                    (0..EXPERTS * HIDDEN)
                        .map(|_| f16::from_f32(random.weight()).to_f32())
                        .collect()
                })
                .collect(),
            router_width: HIDDEN,
            more: Vec::new(),
        }
    }

    pub fn set(mut self, key: &str, value: &str) -> Self {
        for entry in self.metadata.iter_mut().filter(|entry| entry.0 == key) {
            value.clone_into(&mut entry.1);
        }
        self
    }

    pub fn without(mut self, key: &str) -> Self {
        self.metadata.retain(|entry| entry.0 != key);
        self
    }

    /// With a random f16 tensor besides; its values are multiples of 1/32 up to 1.
    pub fn with(mut self, name: &str, shape: &[usize]) -> Self {
        let mut random = Random(SEED + 2 + self.more.len() as u64);
        let values = (0..shape.iter().product())
            .map(|_| (random.next() % 65) as f32 / 32.0 - 1.0)
            .collect();
        self.more.push((name.to_owned(), shape.to_vec(), values));
        self
    }

    /// The values of a tensor that [`with`](Self::with) made.
    pub fn values(&self, name: &str) -> &[f32] {
        let mut more = self.more.iter();
        let (_, _, values) = more
            .find(|(known, ..)| known == name)
            .expect("tests ask for tensors that exist");
        values
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut buffers = Vec::new();
        for (layer, (order, router)) in self.permutations.iter().zip(&self.routers).enumerate() {
            let order_bytes: Vec<u8> = order.iter().flat_map(|index| index.to_le_bytes()).collect();
            buffers.push((
                format!("layers.{layer}.permutation"),
                (Dtype::U16, vec![order.len()], order_bytes),
            ));
            let router_bytes: Vec<u8> = router
                .iter()
                .flat_map(|&weight| f16::from_f32(weight).to_le_bytes())
                .collect();
            let shape = vec![router.len() / self.router_width, self.router_width];
            buffers.push((
                format!("layers.{layer}.router"),
                (Dtype::F16, shape, router_bytes),
            ));
        }
        for (name, shape, values) in &self.more {
            let bytes = values
                .iter()
                .flat_map(|&value| f16::from_f32(value).to_le_bytes())
                .collect();
            buffers.push((name.clone(), (Dtype::F16, shape.clone(), bytes)));
        }
        let views = buffers.iter().map(|(name, (dtype, shape, bytes))| {
            let view = TensorView::new(*dtype, shape.clone(), bytes);
            (name, view.expect("shapes are computed from the data"))
        });
        safetensors::serialize(views, Some(self.metadata.iter().cloned().collect()))
            .expect("recipes of tests serialise")
    }
}
