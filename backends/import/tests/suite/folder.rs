//! Hugging Face folders: what is kept of them, and what is refused, by name.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use mote_import::{
    Carve, Element, ImportError, ImportOptions, Obstacle, Target, TokenizerError,
    checkpoint::{CheckpointError, open_hugging_face, read_config},
    import,
    safetensors::{SafetensorsError, SafetensorsFolder, limits},
};
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use super::tiny::{Random, SEED};

/// A copy of a tiny checkpoint, to be spoilt.
pub struct Copy(TempDir);

impl Copy {
    pub fn new(name: &str) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/models/architectures")
            .join(name);
        let copy = tempdir().expect("temporary folders can be made");
        for entry in fs::read_dir(source).expect("it is in git") {
            let path = entry.expect("readable").path();
            let name = path.file_name().expect("files have names");
            if name != "golden.safetensors" {
                fs::copy(&path, copy.path().join(name)).expect("it can be copied");
            }
        }
        Self(copy)
    }

    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).expect("it is there")
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).expect("temporary folders are writable");
    }

    /// With `key` of `config.json` set to `value`.
    pub fn set(self, key: &str, value: Value) -> Self {
        let mut config: Value = serde_json::from_slice(&self.read("config.json")).expect("JSON");
        config[key] = value;
        self.write("config.json", config.to_string());
        self
    }

    pub fn open(&self) -> Result<SafetensorsFolder, SafetensorsError> {
        SafetensorsFolder::open(self.0.path())
    }

    /// What the folder is refused for, as a checkpoint.
    pub fn refusal(&self) -> CheckpointError {
        let weights = self.open().expect("the weights are sound");
        let config = read_config(self.0.path()).expect("the settings are sound");
        match open_hugging_face(&weights, &config) {
            Err(error) => error,
            Ok(_) => panic!("the checkpoint must be refused"),
        }
    }

    fn options(&self) -> ImportOptions {
        let mut options = ImportOptions::new(self.0.path(), self.path("out"), "tiny");
        options.context_tokens = Some(64);
        options
    }

    pub fn import_refusal(&self) -> ImportError {
        let refusal = import(&self.options(), &mut |_| ()).expect_err("it must be refused");
        assert!(!self.path("out").exists(), "nothing is left behind");
        refusal
    }
}

/// A file of weights with this header and so many bytes of data.
fn weights(header: &str, data_bytes: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + data_bytes, 0);
    file
}

fn header_refusal(header: &str, data_bytes: usize) -> SafetensorsError {
    let folder = tempdir().expect("temporary folders can be made");
    let path = folder.path().join("model.safetensors");
    fs::write(path, weights(header, data_bytes)).expect("temporary folders are writable");
    SafetensorsFolder::open(folder.path()).expect_err("the header must be refused")
}

fn tensor(name: &str, shape: &str, offsets: [u64; 2]) -> String {
    let [begin, end] = offsets;
    format!(r#""{name}": {{"dtype": "F32", "shape": {shape}, "data_offsets": [{begin}, {end}]}}"#)
}

#[test]
fn a_folders_own_files_are_kept_as_they_are() {
    let copy = Copy::new("qwen3");
    copy.write("LICENSE", "a licence");
    copy.write("generation_config.json", r#"{"eos_token_id": [2, 5]}"#);
    import(&copy.options(), &mut |_| ()).expect("the import succeeds");
    let kept = |name: &str| copy.read(&format!("out/{name}"));
    for name in [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "LICENSE",
    ] {
        assert!(kept(name) == copy.read(name), "{name}");
    }
    let config: Value = serde_json::from_slice(&kept("tokenizer_config.json")).expect("JSON");
    assert_eq!(
        Some(kept("chat_template.jinja").as_slice()),
        config["chat_template"].as_str().map(str::as_bytes)
    );
    let manifest = String::from_utf8(kept("mote.toml")).expect("text");
    for line in [
        "eos_token_ids = [2, 5]",
        "bos_token_id = 1",
        "head_dim = 32",
    ] {
        assert!(manifest.contains(line), "{line} is not in\n{manifest}");
    }
}

#[test]
fn the_licence_is_the_one_that_the_model_card_names() {
    let copy = Copy::new("llama");
    // Longer than what is read of it.
    let rest = "\u{e9}".repeat(limits::CARD_BYTES_MAX as usize);
    copy.write(
        "README.md",
        format!("---\nlicense: apache-2.0\n---\n{rest}"),
    );
    import(&copy.options(), &mut |_| ()).expect("the import succeeds");
    let manifest = String::from_utf8(copy.read("out/mote.toml")).expect("text");
    assert!(
        manifest.contains("licence = \"Apache-2.0\"\n"),
        "{manifest}"
    );
    let mut options = copy.options();
    options.folder = copy.path("other");
    options.licence.id = "MIT".to_owned();
    import(&options, &mut |_| ()).expect("the import succeeds");
    let manifest = String::from_utf8(copy.read("other/mote.toml")).expect("text");
    assert!(manifest.contains("licence = \"MIT\"\n"), "{manifest}");
}

#[test]
fn the_reports_sizes_are_the_checkpoints() {
    let copy = Copy::new("qwen2_moe");
    let report = import(&copy.options(), &mut |_| ()).expect("the import succeeds");
    let moe = report.moe.expect("it is a Mixture of Experts");
    assert_eq!((moe.experts, moe.experts_per_token), (4, 2));
    assert_eq!((moe.shared_neurons, moe.expert_neurons), (64, 32));
    let bytes = copy.read("model.safetensors").len() as u64;
    // All weights are two bytes; the rest of the file is its header.
    assert!((report.parameters * 2..report.parameters * 2 + 8192).contains(&bytes));
}

#[test]
fn files_cut_anywhere_are_refused() {
    let copy = Copy::new("llama");
    let whole = copy.read("model.safetensors");
    assert!(copy.open().is_ok());
    let header = usize::from(whole[0]) + 256 * usize::from(whole[1]) + 8;
    for length in (0..header).step_by(29).chain([header, whole.len() - 1]) {
        copy.write("model.safetensors", &whole[..length]);
        let error = copy.open().expect_err("it must be refused");
        assert!(
            matches!(
                error,
                SafetensorsError::Truncated { .. } | SafetensorsError::Length { .. }
            ),
            "cut at {length}: {error}"
        );
    }
}

#[test]
fn flipped_bytes_never_panic() {
    eprintln!("seed {SEED}");
    let mut random = Random(SEED);
    for (name, flips_in) in [("model.safetensors", 2000), ("config.json", 700)] {
        let copy = Copy::new("llama");
        let whole = copy.read(name);
        let mut refused = 0;
        for _ in 0..300 {
            let mut bytes = whole.clone();
            for _ in 0..1 + random.next() % 3 {
                let at = random.next() as usize % flips_in.min(bytes.len());
                bytes[at] ^= 1 << (random.next() % 8);
            }
            copy.write(name, bytes);
            let opened = copy.open().map(|weights| {
                let config = read_config(copy.0.path());
                config.map(|config| open_hugging_face(&weights, &config).is_ok())
            });
            refused += usize::from(!matches!(opened, Ok(Ok(true))));
        }
        assert!(refused > 150, "{name}: only {refused} of 300 were refused");
    }
}

#[test]
fn headers_that_claim_too_much_are_refused() {
    let folder = tempdir().expect("temporary folders can be made");
    let path = folder.path().join("model.safetensors");
    fs::write(&path, u64::MAX.to_le_bytes()).expect("temporary folders are writable");
    assert!(matches!(
        SafetensorsFolder::open(folder.path()),
        Err(SafetensorsError::TooLarge { bytes: u64::MAX, max, .. })
            if max == limits::HEADER_BYTES_MAX
    ));
    let json = |header: &str| match header_refusal(header, 4) {
        SafetensorsError::Json { source, .. } => source.to_string(),
        other => panic!("{other}"),
    };
    let deep = format!("{{\"a\": {}", "[".repeat(100_000));
    assert!(json(&deep).contains("invalid type"), "{}", json(&deep));
    let dims = tensor("a", "[1, 1, 1, 1, 1]", [0, 4]);
    assert!(json(&format!("{{{dims}}}")).contains("too many dimensions"));
    let twice = tensor("a", "[1]", [0, 4]);
    assert!(json(&format!("{{{twice}, {twice}}}")).contains("\"a\" occurs twice"));
    let long = tensor(&"a".repeat(513), "[1]", [0, 4]);
    assert!(json(&format!("{{{long}}}")).contains("too long"));
    let negative = tensor("a", "[-1]", [0, 4]);
    assert!(json(&format!("{{{negative}}}")).contains("invalid"));
}

#[test]
fn tensors_that_do_not_fill_their_bytes_are_refused() {
    for (shape, bytes) in [
        ("[3]", 8),
        ("[0]", 0),
        ("[9223372036854775807, 4]", 16),
        ("[4294967296, 4294967296]", 16),
        ("[18446744073709551615]", 4),
    ] {
        let header = format!("{{{}}}", tensor("a", shape, [0, bytes]));
        assert!(
            matches!(
                header_refusal(&header, bytes as usize),
                SafetensorsError::Dimensions { tensor, .. } if tensor == "a"
            ),
            "{shape}"
        );
    }
    for (first, second) in [([0, 8], [4, 12]), ([0, 8], [12, 20]), ([4, 12], [12, 20])] {
        let two = [tensor("a", "[2]", first), tensor("b", "[2]", second)].join(", ");
        assert!(
            matches!(
                header_refusal(&format!("{{{two}}}"), 20),
                SafetensorsError::Offset { .. }
            ),
            "{first:?} {second:?}"
        );
    }
    let past_the_end = format!("{{{}}}", tensor("a", "[2]", [0, 8]));
    for bytes in [4, 12] {
        assert!(matches!(
            header_refusal(&past_the_end, bytes),
            SafetensorsError::Length { bytes: 8, .. }
        ));
    }
    let backwards = format!(
        "{{{}}}",
        tensor("a", "[1]", [0, 4]).replace("[0, 4]", "[0, -4]")
    );
    assert!(matches!(
        header_refusal(&backwards, 4),
        SafetensorsError::Json { .. }
    ));
}

#[test]
fn an_index_stays_within_its_folder_and_tells_the_truth() {
    let spoilt = |change: &dyn Fn(&mut Value)| {
        let copy = Copy::new("mixtral");
        let name = "model.safetensors.index.json";
        let mut index: Value = serde_json::from_slice(&copy.read(name)).expect("JSON");
        change(&mut index["weight_map"]);
        copy.write(name, index.to_string());
        copy.open().expect_err("the index must be refused")
    };
    for outside in [
        "../model.safetensors",
        "/etc/passwd",
        "a/b.safetensors",
        ".safetensors",
        "x",
    ] {
        let error = spoilt(&|map| map["lm_head.weight"] = json!(outside));
        assert!(
            matches!(&error, SafetensorsError::ShardName { name } if name == outside),
            "{outside}: {error}"
        );
    }
    let missing = spoilt(&|map| map["lm_head.weight"] = json!("none.safetensors"));
    assert!(
        matches!(missing, SafetensorsError::Open { path, .. } if path.ends_with("none.safetensors"))
    );
    for (tensor, file) in [("nothing", 1), ("lm_head.weight", 0)] {
        let error = spoilt(&|map| {
            let other = [
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
            ];
            let now = map["lm_head.weight"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            let other = other.into_iter().find(|name| (*name == now) == (file == 1));
            map[tensor] = json!(other);
        });
        assert!(matches!(error, SafetensorsError::Misplaced { tensor: found } if found == tensor));
    }
    let many = spoilt(&|map| {
        for file in 0..=limits::SHARD_COUNT_MAX {
            map[format!("tensor {file}")] = json!(format!("{file}.safetensors"));
        }
    });
    assert!(
        matches!(many, SafetensorsError::TooMany { max, .. } if max == limits::SHARD_COUNT_MAX)
    );
}

#[test]
fn a_tensor_in_two_files_is_refused() {
    let copy = Copy::new("mixtral");
    let name = "model.safetensors.index.json";
    let mut index: Value = serde_json::from_slice(&copy.read(name)).expect("JSON");
    copy.write(
        "other.safetensors",
        copy.read("model-00001-of-00002.safetensors"),
    );
    index["weight_map"]["surplus"] = json!("other.safetensors");
    copy.write(name, index.to_string());
    assert!(matches!(
        copy.open(),
        Err(SafetensorsError::DuplicateTensor { .. })
    ));
}

#[test]
fn settings_that_would_compute_something_else_are_refused_by_name() {
    let architecture = Copy::new("llama").set("architectures", json!(["MambaForCausalLM"]));
    assert!(matches!(
        architecture.refusal(),
        CheckpointError::UnsupportedArchitecture { name } if name == "MambaForCausalLM"
    ));
    for (model, key, value) in [
        ("llama", "quantization_config", json!("fp8")),
        ("llama", "quantization_config", json!({"bits": 4})),
        ("llama", "mlp_bias", json!(true)),
        ("llama", "partial_rotary_factor", json!(0.5)),
        ("olmoe", "clip_qkv", json!(8.0)),
        ("llama", "sliding_window", json!(100)),
        ("deepseek_v3", "attention_bias", json!(true)),
        ("deepseek_v3", "moe_layer_freq", json!(2)),
        ("deepseek_v2", "norm_topk_prob", json!(true)),
    ] {
        assert!(
            matches!(
                Copy::new(model).set(key, value).refusal(),
                CheckpointError::UnsupportedFeature { key: found } if found == key
            ),
            "{model} {key}"
        );
    }
    for (model, key, value, named) in [
        ("llama", "hidden_act", json!("gelu"), "gelu"),
        ("deepseek_v2", "topk_method", json!("other"), "other"),
        ("deepseek_v2", "scoring_func", json!("sigmoid"), "sigmoid"),
        (
            "qwen2",
            "layer_types",
            json!(["full_attention", "sliding_attention"]),
            "\"sliding_attention\"",
        ),
        (
            "qwen2",
            "layer_types",
            json!(["full_attention", "chunked_attention"]),
            "\"chunked_attention\"",
        ),
    ] {
        assert!(
            matches!(
                Copy::new(model).set(key, value).refusal(),
                CheckpointError::UnsupportedValue { key: found, value } if found == key && value == named
            ),
            "{model} {key}"
        );
    }
    let rope = json!({"rope_type": "longrope", "factor": 2.0});
    assert!(matches!(
        Copy::new("llama").set("rope_parameters", rope).refusal(),
        CheckpointError::UnsupportedValue { key, value } if key == "rope_type" && value == "longrope"
    ));
}

#[test]
fn settings_that_are_impossible_are_refused_by_name() {
    for (model, key, value) in [
        ("llama", "num_hidden_layers", json!(0)),
        ("llama", "num_hidden_layers", json!(1_000_000_000)),
        ("llama", "num_key_value_heads", json!(3)),
        ("llama", "rms_norm_eps", json!(-1.0)),
        ("llama", "head_dim", json!(131_072)),
        ("mixtral", "num_local_experts", json!(1u64 << 40)),
        ("mixtral", "num_experts_per_tok", json!(5)),
        ("deepseek_v3", "n_group", json!(3)),
        ("deepseek_v3", "v_head_dim", json!(64)),
    ] {
        let refusal = Copy::new(model).set(key, value).refusal();
        let known = [key, "num_attention_heads"];
        assert!(
            matches!(
                &refusal,
                CheckpointError::OutOfRange { key: found, .. } if known.contains(&found.as_str())
            ),
            "{model} {key}: {refusal}"
        );
    }
    assert!(matches!(
        Copy::new("llama").set("hidden_size", json!("wide")).refusal(),
        CheckpointError::WrongType { key, .. } if key == "hidden_size"
    ));
    for kinds in [json!(["full_attention"]), json!("full_attention"), json!(2)] {
        assert!(matches!(
            Copy::new("qwen2").set("layer_types", kinds).refusal(),
            CheckpointError::WrongType { key, .. } if key == "layer_types"
        ));
    }
    for window in [json!(-1), json!("wide"), json!(0.5)] {
        assert!(matches!(
            Copy::new("mistral").set("sliding_window", window).refusal(),
            CheckpointError::WrongType { key, .. } if key == "sliding_window"
        ));
    }
    let many = json!(1u64 << 40);
    assert!(matches!(
        Copy::new("qwen2-window").set("max_window_layers", many).refusal(),
        CheckpointError::OutOfRange { key, .. } if key == "max_window_layers"
    ));
    assert!(matches!(
        Copy::new("llama").set("hidden_size", Value::Null).refusal(),
        CheckpointError::MissingKey { key } if key == "hidden_size"
    ));
    assert!(matches!(
        Copy::new("llama").set("intermediate_size", json!(128)).refusal(),
        CheckpointError::WrongShape { tensor, .. } if tensor == "model.layers.0.mlp.gate_proj.weight"
    ));
}

#[test]
fn missing_surplus_and_unreadable_tensors_are_named() {
    let copy = Copy::new("llama").set("num_hidden_layers", json!(3));
    assert!(matches!(
        copy.refusal(),
        CheckpointError::Safetensors(SafetensorsError::MissingTensor { tensor })
            if tensor.starts_with("model.layers.2.")
    ));
    let copy = Copy::new("qwen2").set("architectures", json!(["LlamaForCausalLM"]));
    assert!(matches!(
        copy.refusal(),
        CheckpointError::UnknownTensor { tensor, .. }
            if tensor == "model.layers.0.self_attn.k_proj.bias"
    ));
    let copy = Copy::new("qwen2");
    let mut bytes = copy.read("model.safetensors");
    let at = bytes.windows(6).position(|word| word == b"\"BF16\"");
    let at = at.expect("the first tensor is bfloat16");
    bytes[at..at + 6].copy_from_slice(b"\"F8_Y\"");
    copy.write("model.safetensors", bytes);
    let refusal = copy.import_refusal();
    assert!(
        matches!(
            &refusal,
            ImportError::Checkpoint(CheckpointError::Safetensors(
                SafetensorsError::UnsupportedType { dtype, .. }
            )) if dtype == "F8_Y"
        ),
        "{refusal}"
    );
}

#[test]
fn weights_that_are_no_numbers_are_refused() {
    let copy = Copy::new("llama");
    let mut bytes = copy.read("model.safetensors");
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    copy.write("model.safetensors", bytes);
    assert!(matches!(
        copy.import_refusal(),
        ImportError::Checkpoint(CheckpointError::Safetensors(
            SafetensorsError::NotFinite { .. }
        ))
    ));
}

#[test]
fn a_pipe_in_place_of_a_file_is_not_waited_for() {
    for name in ["model.safetensors", "config.json", "tokenizer.json"] {
        let copy = Copy::new("llama");
        fs::remove_file(copy.path(name)).expect("it is there");
        let made = Command::new("mkfifo").arg(copy.path(name)).status();
        assert!(made.expect("coreutils are there").success());
        let refusal = copy.import_refusal();
        let cause = refusal.source().expect("there is a cause").to_string();
        assert!(cause.contains(name), "{cause}");
    }
}

#[test]
fn a_folder_without_its_tokenizer_is_refused() {
    let copy = Copy::new("llama");
    fs::remove_file(copy.path("tokenizer.json")).expect("it is there");
    let refusal = copy.import_refusal();
    let cause = refusal.source().expect("there is a cause").to_string();
    assert!(cause.contains("tokenizer.json"), "{cause}");
    copy.write("tokenizer.json", "{}");
    assert!(matches!(
        copy.import_refusal(),
        ImportError::Tokenizer(TokenizerError::Parse(_))
    ));
    let copy = Copy::new("llama");
    let text = String::from_utf8(copy.read("tokenizer.json")).expect("text");
    copy.write("tokenizer.json", text.replace("\"w9\":9,", "\"w9\":99,"));
    assert!(matches!(
        copy.import_refusal(),
        ImportError::Tokenizer(TokenizerError::OutsideVocabulary { id: 99, vocab: 64 })
    ));
    let copy = Copy::new("llama").set("eos_token_id", json!([2, 64]));
    assert!(matches!(
        copy.import_refusal(),
        ImportError::Tokenizer(TokenizerError::TokenId { id: 64, .. })
    ));
}

#[test]
fn other_formats_and_carving_are_for_plain_llamas() {
    let copy = Copy::new("llama");
    let mut options = copy.options();
    options.target = Target::HuggingFace(Element::F32);
    import(&options, &mut |_| ()).expect("a plain Llama can be written again");
    // Names and values are the same; their order need not be.
    let written = fs::read(copy.path("out/model.safetensors")).expect("it is there");
    assert_eq!(
        written.len() / 4096,
        copy.read("model.safetensors").len() / 4096
    );
    for carve in [false, true] {
        let copy = Copy::new("qwen2");
        let mut options = copy.options();
        if carve {
            options.carve = Some(Carve {
                recipe: Vec::new().into(),
                experts_per_token: None,
            });
        } else {
            options.target = Target::HuggingFace(Element::F32);
        }
        assert!(matches!(
            import(&options, &mut |_| ()),
            Err(ImportError::Inexpressible {
                obstacle: Obstacle::Architecture
            })
        ));
    }
}
