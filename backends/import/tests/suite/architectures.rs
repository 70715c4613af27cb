//! Every architecture on a tiny random checkpoint: imported, run by ONNX Runtime, and compared
//! with what Hugging Face transformers computes (`tests/models/architectures/make.py`).

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use mote_api::{
    Backend, LoadRequest, Manifest, Model, OutputTarget, Session, Tensor, TextSpec, Threads,
};
use mote_import::{ImportOptions, Layout, Precision, Storage, Target, import};
use mote_ort::OrtBackend;
use mote_pipeline::{KvPool, TextJob, TextModel, TextPrompt, TextRequest, TextStep};
use safetensors::SafeTensors;
use tempfile::{TempDir, tempdir};

/// Names the library under test.
const LIBRARY_VARIABLE: &str = "MOTE_TEST_ORT_LIBRARY";
/// Difference allowed between 32-bit logits, which are between about 3 and 20 in size.
const ERROR_MAX: f32 = 1e-3;
/// Longest context of the checkpoints, in tokens, which is taken when nobody says otherwise.
const CONTEXT_TOKENS: usize = 256;

pub fn checkpoint(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/models/architectures")
        .join(name)
}

/// What transformers computes.
pub struct Golden {
    prompt: Vec<i64>,
    pub tokens: Vec<i64>,
    /// One row for each of `tokens`.
    logits: Vec<Vec<f32>>,
}

impl Golden {
    pub fn read(name: &str) -> Self {
        let bytes = fs::read(checkpoint(name).join("golden.safetensors")).expect("it is in git");
        let file = SafeTensors::deserialize(&bytes).expect("it parses");
        let tensor = |name| file.tensor(name).expect("it is there");
        let integers = |name| {
            let words = tensor(name).data().chunks_exact(8);
            words
                .map(|word| i64::from_le_bytes(word.try_into().expect("eight bytes")))
                .collect()
        };
        let logits: Vec<f32> = tensor("logits")
            .data()
            .chunks_exact(4)
            .map(|word| f32::from_le_bytes(word.try_into().expect("four bytes")))
            .collect();
        let vocab = tensor("logits").shape()[1];
        Self {
            prompt: integers("prompt"),
            tokens: integers("tokens"),
            logits: logits.chunks_exact(vocab).map(<[f32]>::to_vec).collect(),
        }
    }
}

/// An imported checkpoint, loaded.
pub struct Loaded {
    pub model: Arc<dyn Model>,
    spec: TextSpec,
    folder: PathBuf,
    _parent: TempDir,
}

impl Loaded {
    pub fn new(source: &Path, precision: Precision) -> Self {
        let parent = tempdir().expect("temporary folders can be made");
        let folder = parent.path().join("tiny");
        let mut options = ImportOptions::new(source, &folder, "tiny");
        options.target = Target::Mote(precision);
        import(&options, &mut |_| ()).expect("the import succeeds");
        let text = fs::read_to_string(folder.join("mote.toml")).expect("there is a manifest");
        let manifest = Manifest::parse(&text, &folder.join("mote.toml")).expect("it parses");
        let spec = manifest.text.expect("it is a language model");
        assert_eq!(spec.context_tokens, CONTEXT_TOKENS);
        let library = std::env::var_os(LIBRARY_VARIABLE).unwrap_or_else(|| {
            panic!("{LIBRARY_VARIABLE} is not set; run the tests with tests/run, which fetches it")
        });
        let backend = OrtBackend::load(Path::new(&library), "onnxruntime-test");
        let request = LoadRequest {
            file: folder.join("model.onnx"),
            threads: Threads::SINGLE,
            ..LoadRequest::default()
        };
        let model = backend.expect("the library under test").load(&request);
        Self {
            model: model.expect("the model loads"),
            spec,
            folder,
            _parent: parent,
        }
    }

    /// Logits before each of the golden tokens: the prompt in one run, then token by token over
    /// the cache.
    pub fn logits(&self, golden: &Golden) -> Vec<Vec<f32>> {
        let mut decoder = Decoder::new(self);
        let mut logits = vec![decoder.run(&golden.prompt)];
        for token in &golden.tokens[..golden.tokens.len() - 1] {
            logits.push(decoder.run(&[*token]));
        }
        logits
    }

    /// What the text pipeline answers to the golden prompt.
    pub fn answer(&self, golden: &Golden) -> Vec<i64> {
        // The pipeline ends at end tokens, which the golden answer goes on after.
        let spec = TextSpec {
            eos_token_ids: Vec::new(),
            ..self.spec.clone()
        };
        let model = TextModel::open(&self.folder, &spec, Arc::clone(&self.model));
        let model = Arc::new(model.expect("the graph is a decoder"));
        let word = |id: &i64| match id {
            0 => "<pad>".to_owned(),
            1 => "<s>".to_owned(),
            2 => "</s>".to_owned(),
            id => format!("w{id}"),
        };
        let words: Vec<String> = golden.prompt.iter().map(word).collect();
        let mut request = TextRequest::new(TextPrompt::Plain(words.join(" ")));
        request.tokens_max = Some(golden.tokens.len());
        let mut job = TextJob::start(&model, &mut KvPool::new(1), request).expect("it starts");
        let mut tokens = Vec::new();
        loop {
            match job.step().expect("it computes") {
                TextStep::Prefill { .. } => {}
                TextStep::Token { id, .. } => tokens.push(i64::from(id)),
                TextStep::Finished { .. } => return tokens,
            }
        }
    }
}

/// A session with its caches bound in place.
struct Decoder {
    session: Box<dyn Session>,
    model: Arc<dyn Model>,
    past: usize,
}

impl Decoder {
    fn new(loaded: &Loaded) -> Self {
        let model = Arc::clone(&loaded.model);
        let mut session = model.session().expect("a session");
        let spec = &loaded.spec;
        let shape = [1, spec.kv_heads, spec.context_tokens, spec.head_dim];
        for layer in 0..spec.layers {
            for part in ["key", "value"] {
                let (past, present) = (
                    format!("past_key_values.{layer}.{part}"),
                    format!("present.{layer}.{part}"),
                );
                let input = model.signature().input(&past).expect("there is a cache");
                let kind = model.signature().inputs[input].dtype;
                let cache = Tensor::zeroed(kind, &shape).expect("small");
                session.bind_input(input, &cache).expect("it fits");
                let output = model.signature().output(&present).expect("it goes on");
                session
                    .bind_output(output, OutputTarget::Into(cache))
                    .expect("it fits");
            }
        }
        Self {
            session,
            model,
            past: 0,
        }
    }

    fn run(&mut self, tokens: &[i64]) -> Vec<f32> {
        self.run_keeping(1, tokens)
    }

    /// Logits of the last `kept` of `tokens`, one row after the other.
    fn run_keeping(&mut self, kept: usize, tokens: &[i64]) -> Vec<f32> {
        let total = (self.past + tokens.len()) as i32;
        let inputs = [
            ("input_ids", Tensor::from_slice(&[1, tokens.len()], tokens)),
            ("seqlens_k", Tensor::from_slice(&[1], &[total - 1])),
            ("total_sequence_length", Tensor::from_slice(&[1], &[total])),
            (
                "num_logits_to_keep",
                Tensor::from_slice(&[1], &[kept as i64]),
            ),
        ];
        for (name, tensor) in inputs {
            let input = self.model.signature().input(name).expect("it is declared");
            let tensor = tensor.expect("small");
            self.session.bind_input(input, &tensor).expect("it fits");
        }
        self.session.run().expect("it computes");
        self.past += tokens.len();
        let output = self.model.signature().output("logits").expect("declared");
        let logits = self.session.output(output).expect("computed");
        logits.read::<f32>().expect("they are floats")
    }
}

fn best(logits: &[f32]) -> i64 {
    let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
    best.expect("there are logits") as i64
}

/// Largest difference, and root mean square of the difference over that of the logits.
pub fn differences(found: &[Vec<f32>], golden: &Golden) -> (f32, f32) {
    let pairs = || found.iter().flatten().zip(golden.logits.iter().flatten());
    let largest = pairs().fold(0f32, |max, (a, b)| max.max((a - b).abs()));
    let squares: f32 = pairs().map(|(a, b)| (a - b).powi(2)).sum();
    let size: f32 = pairs().map(|(_, b)| b.powi(2)).sum();
    (largest, (squares / size).sqrt())
}

/// Whether the logits of `loaded` are those of transformers, and the likeliest tokens too.
pub fn check_logits(name: &str, loaded: &Loaded, golden: &Golden) {
    let logits = loaded.logits(golden);
    let (largest, _) = differences(&logits, golden);
    eprintln!("{name}: logits differ by {largest:.2e} at most");
    assert!(
        largest <= ERROR_MAX,
        "{name}: {largest} is over {ERROR_MAX}"
    );
    let greedy: Vec<i64> = logits.iter().map(|logits| best(logits)).collect();
    assert_eq!(greedy, golden.tokens, "{name}: other tokens are likeliest");
}

fn check_singles(name: &str) {
    let golden = Golden::read(name);
    let loaded = Loaded::new(&checkpoint(name), Precision::uniform(Storage::F32));
    check_logits(name, &loaded, &golden);
    assert_eq!(
        loaded.answer(&golden),
        golden.tokens,
        "{name}: another answer"
    );
}

/// The same weights with fewer bits. Logits of another model would differ by 1.4 of their size;
/// random weights take rounding badly, most of all where it makes other experts be chosen.
fn check_fewer_bits(name: &str) {
    let golden = Golden::read(name);
    for (storage, relative_max) in [
        (Storage::F16, 0.01),
        (Storage::Int8, 0.3),
        (Storage::Int4, 0.9),
    ] {
        let loaded = Loaded::new(&checkpoint(name), Precision::uniform(storage));
        let logits = loaded.logits(&golden);
        let (_, relative) = differences(&logits, &golden);
        eprintln!("{name}: {} logits differ by {relative:.4}", storage.name());
        assert!(logits.iter().flatten().all(|logit| logit.is_finite()));
        assert!(
            relative <= relative_max,
            "{name}: {relative} is over {relative_max} with {}",
            storage.name()
        );
    }
}

/// What checks a draft: one run over the first golden tokens gives the logits of each.
#[test]
fn logits_of_several_positions_are_those_of_each_alone() {
    const DRAFT: usize = 6;
    let names = ["llama-3", "granitemoeshared", "deepseek_v3"];
    for (name, storage) in names
        .into_iter()
        .zip([Storage::F32, Storage::Int8, Storage::F32])
    {
        let golden = Golden::read(name);
        let loaded = Loaded::new(&checkpoint(name), Precision::uniform(storage));
        let vocab = golden.logits[0].len();
        let mut alone = Decoder::new(&loaded);
        alone.run(&golden.prompt);
        let drafted = &golden.tokens[..DRAFT];
        let one_by_one: Vec<f32> = drafted.iter().flat_map(|id| alone.run(&[*id])).collect();
        for kept in 1..=DRAFT + 1 {
            let mut decoder = Decoder::new(&loaded);
            decoder.run(&golden.prompt);
            let found = decoder.run_keeping(kept, drafted);
            // More than there are gives all.
            let rows = kept.min(DRAFT);
            assert_eq!(found.len(), rows * vocab, "{name}");
            let expected = &one_by_one[(DRAFT - rows) * vocab..];
            let largest = found.iter().zip(expected);
            let largest = largest.fold(0f32, |max, (a, b)| max.max((a - b).abs()));
            assert!(largest <= ERROR_MAX, "{name}, {kept}: {largest}");
        }
    }
}

/// Weights as our own operators read them are the same numbers as for ONNX Runtime's: what is
/// computed differs by the order of sums, and where that makes another expert be chosen.
#[test]
fn weights_give_the_same_in_either_layout() {
    let names = [
        "llama-3",
        "qwen3",
        "granitemoe",
        "granitemoeshared",
        "mixtral",
        "olmoe",
        "qwen2_moe",
        "qwen3_moe",
        "deepseek_v2",
        "deepseek_v3",
    ];
    for (name, storage) in names
        .into_iter()
        .flat_map(|name| [(name, Storage::Int8), (name, Storage::Int4)])
    {
        let golden = Golden::read(name);
        let [ours, stock] = [Layout::Kernels, Layout::Stock].map(|layout| {
            let precision = Precision {
                layout,
                ..Precision::uniform(storage)
            };
            Loaded::new(&checkpoint(name), precision).logits(&golden)
        });
        let pairs = || ours.iter().flatten().zip(stock.iter().flatten());
        let squares: f32 = pairs().map(|(a, b)| (a - b).powi(2)).sum();
        let size: f32 = pairs().map(|(_, b)| b.powi(2)).sum();
        let relative = (squares / size).sqrt();
        eprintln!(
            "{name}, {}: layouts differ by {relative:.5}",
            storage.name()
        );
        assert!(relative <= 0.1, "{name}, {}: {relative}", storage.name());
    }
}

#[test]
fn halves_are_made_singles_once_and_not_in_every_step() {
    let nodes = |storage| {
        let loaded = Loaded::new(&checkpoint("mixtral"), Precision::uniform(storage));
        loaded.model.placement().nodes()
    };
    // The one node more is for the rows of the embedding that a step looks up.
    assert_eq!(nodes(Storage::F16), nodes(Storage::F32) + 1);
}

macro_rules! architectures {
    ($($test:ident: $name:literal,)*) => {
        /// Imported with 32 bits, logits and answers are those of transformers.
        mod with_32_bits {
            $(#[test]
            fn $test() {
                super::check_singles($name);
            })*
        }

        /// Imported with fewer bits, logits are near those of transformers.
        mod with_fewer_bits {
            $(#[test]
            fn $test() {
                super::check_fewer_bits($name);
            })*
        }

        #[test]
        fn every_checkpoint_is_tested() {
            let mut names: Vec<String> = fs::read_dir(checkpoint(""))
                .expect("it is in git")
                .map(|entry| entry.expect("readable").path())
                .filter(|path| path.is_dir())
                .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
                .collect();
            names.sort();
            let mut tested = vec![$($name),*];
            tested.sort_unstable();
            assert_eq!(names, tested);
        }
    };
}

architectures! {
    llama: "llama",
    llama_3_tied_with_biases: "llama-3",
    llama_linear_with_wide_heads: "llama-linear",
    mistral_with_a_window: "mistral",
    qwen2: "qwen2",
    qwen2_with_a_window_in_later_layers: "qwen2-window",
    qwen3_with_a_window_in_listed_layers: "qwen3-window",
    qwen3_sharded: "qwen3",
    granite_moe: "granitemoe",
    granite_moe_shared: "granitemoeshared",
    mixtral_sharded: "mixtral",
    olmoe: "olmoe",
    qwen2_moe: "qwen2_moe",
    qwen3_moe_with_yarn_and_dense_layers: "qwen3_moe",
    qwen3_moe_without_dense_layers: "qwen3_moe-sparse",
    deepseek_v2_with_groups: "deepseek_v2",
    deepseek_v2_lite_with_yarn: "deepseek_v2-lite",
    deepseek_v3: "deepseek_v3",
    deepseek_v3_with_eight_bit_floats: "deepseek_v3-fp8",
}
