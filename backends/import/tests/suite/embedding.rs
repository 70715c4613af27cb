//! Embedding models: decoders whose final norm is compared with what Hugging Face transformers
//! computes (`tests/models/embedding/make.py`), and an encoder that was exported, beside them.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::architectures::checkpoint;
use mote_api::{Backend, LoadRequest, Manifest, Pooling as Wanted, Threads};
use mote_import::{
    Element, Embedding, ImportError, ImportOption, ImportOptions, Obstacle, Pooling, Precision,
    Storage, Target, import,
};
use mote_ort::OrtBackend;
use mote_pipeline::{
    Check, EmbeddingJob, EmbeddingModel, EmbeddingRequest, EmbeddingStep, SessionPool,
};
use safetensors::{SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

/// Difference allowed between 32-bit vectors of length 1.
const ERROR_MAX: f32 = 1e-5;

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models/embedding")
}

fn golden(file: &str) -> Value {
    let text = fs::read_to_string(models().join(file)).expect("it is in git");
    serde_json::from_str(&text).expect("JSON")
}

/// Texts, and the vectors that transformers pooled, given the length 1.
fn expected(golden: &Value, pooling: &str) -> Vec<(String, Vec<f32>)> {
    let of_text = |text: &Value| {
        let numbers = text[pooling].as_array().expect("a list");
        let vector: Vec<f64> = numbers
            .iter()
            .map(|it| it.as_f64().expect("a number"))
            .collect();
        let length = vector.iter().map(|it| it * it).sum::<f64>().sqrt();
        let vector = vector.iter().map(|it| (it / length) as f32).collect();
        (text["text"].as_str().expect("a text").to_owned(), vector)
    };
    let texts = golden["texts"].as_array().expect("texts");
    texts.iter().map(of_text).collect()
}

/// A model folder, loaded.
fn open(folder: &Path, change: impl FnOnce(&mut Manifest)) -> Arc<EmbeddingModel> {
    let mut manifest = Manifest::read(folder).expect("a good manifest");
    change(&mut manifest);
    let library = std::env::var_os("MOTE_TEST_ORT_LIBRARY").expect("run the tests with tests/run");
    let backend = OrtBackend::load(Path::new(&library), "onnxruntime-test");
    let request = LoadRequest {
        file: folder.join("model.onnx"),
        threads: Threads::SINGLE,
        ..LoadRequest::default()
    };
    let model = backend.expect("the library under test").load(&request);
    let model = model.expect("the model loads");
    let mut check = Check::prepare(&manifest, &model).expect("a check input");
    check.run().expect("it computes");
    let spec = manifest.embedding.expect("an embedding model");
    Arc::new(EmbeddingModel::open(folder, &spec, model).expect("the graph fits"))
}

/// The vectors, and the number of runs they took.
fn embed(model: &Arc<EmbeddingModel>, texts: Vec<String>) -> (Vec<Vec<f32>>, u64) {
    let request = EmbeddingRequest::new(texts);
    let job = EmbeddingJob::start(model, &mut SessionPool::new(), &request);
    let mut job = job.expect("it starts");
    loop {
        if let EmbeddingStep::Finished(made) = job.step().expect("it computes") {
            let width = made.vectors.shape()[1];
            let values: Vec<f32> = made.vectors.read().expect("f32");
            let vectors = values.chunks(width).map(<[f32]>::to_vec).collect();
            return (vectors, job.stats().steps);
        }
    }
}

fn compare(model: &Arc<EmbeddingModel>, wanted: &[(String, Vec<f32>)]) -> f32 {
    let (vectors, _) = embed(model, wanted.iter().map(|(text, _)| text.clone()).collect());
    let mut worst = 0f32;
    for (vector, (_, wanted)) in vectors.iter().zip(wanted) {
        assert_eq!(vector.len(), wanted.len());
        let errors = vector.iter().zip(wanted).map(|(a, b)| (a - b).abs());
        worst = errors.fold(worst, f32::max);
    }
    assert!(worst <= ERROR_MAX, "{worst}");
    worst
}

fn imported(
    source: &Path,
    pooling: Option<Pooling>,
    storage: Storage,
) -> (TempDir, PathBuf, Arc<EmbeddingModel>) {
    let parent = tempdir().expect("temporary folders can be made");
    let folder = parent.path().join("tiny");
    let mut options = ImportOptions::new(source, &folder, "tiny");
    options.target = Target::Mote(Precision::uniform(storage));
    options.embedding = Some(Embedding { pooling });
    import(&options, &mut |_| ()).expect("the import succeeds");
    let model = open(&folder, |_| ());
    (parent, folder, model)
}

#[test]
fn decoders_give_the_states_of_transformers() {
    let golden = golden("decoders.json");
    for (name, golden) in golden.as_object().expect("by name") {
        for (pooling, word) in [(Pooling::Last, "last"), (Pooling::Mean, "mean")] {
            let (_kept, _, model) = imported(&checkpoint(name), Some(pooling), Storage::F32);
            let error = compare(&model, &expected(golden, word));
            eprintln!("{name}, {word}: largest error {error:e}");
        }
    }
}

#[test]
fn no_head_and_no_cache_is_kept() {
    let (_kept, folder, model) = imported(&checkpoint("llama"), None, Storage::F32);
    assert_eq!(model.spec().pooling, Wanted::Last);
    let bytes = |path: &Path| fs::metadata(path).expect("a file").len();
    let parent = tempdir().expect("temporary folders can be made");
    let whole = parent.path().join("whole");
    let mut options = ImportOptions::new(checkpoint("llama"), &whole, "whole");
    options.target = Target::Mote(Precision::uniform(Storage::F32));
    import(&options, &mut |_| ()).expect("the import succeeds");
    // The head is of 64 tokens with 32 numbers each, and is not tied.
    let saved = bytes(&whole.join("model.onnx.data")) - bytes(&folder.join("model.onnx.data"));
    assert!(saved >= 64 * 32 * 4, "{saved}");
}

fn is_weights(name: &std::ffi::OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("model") && name.ends_with(".safetensors")
}

/// Published embedding models are saved without a head, with names that lack its root, and with
/// files of sentence-transformers beside.
#[test]
fn a_checkpoint_without_a_head_says_how_it_is_pooled_and_prompted() {
    let from = checkpoint("qwen3");
    let parent = tempdir().expect("temporary folders can be made");
    let source = parent.path().join("headless");
    fs::create_dir_all(source.join("1_Pooling")).expect("writable");
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        if from.join(name).exists() {
            fs::copy(from.join(name), source.join(name)).expect("copied");
        }
    }
    let config = fs::read_to_string(from.join("config.json")).expect("readable");
    let mut config: Value = serde_json::from_str(&config).expect("JSON");
    config["tie_word_embeddings"] = false.into();
    fs::write(source.join("config.json"), config.to_string()).expect("writable");
    let shards: Vec<Vec<u8>> = fs::read_dir(&from)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.file_name().is_some_and(is_weights))
        .map(|path| fs::read(path).expect("readable"))
        .collect();
    let mut tensors: Vec<(String, TensorView<'_>)> = Vec::new();
    for shard in &shards {
        let weights = SafeTensors::deserialize(shard).expect("it parses");
        for (name, tensor) in weights.tensors() {
            if let Some(name) = name.strip_prefix("model.") {
                tensors.push((name.to_owned(), tensor));
            }
        }
    }
    safetensors::serialize_to_file(tensors, None, &source.join("model.safetensors"))
        .expect("writable");
    let pooling = r#"{"word_embedding_dimension": 64, "pooling_mode_cls_token": false,
        "pooling_mode_mean_tokens": true, "pooling_mode_lasttoken": false, "include_prompt": true}"#;
    fs::write(source.join("1_Pooling/config.json"), pooling).expect("writable");
    let prompts =
        r#"{"prompts": {"query": "w7 w8 ", "document": ""}, "default_prompt_name": null}"#;
    fs::write(source.join("config_sentence_transformers.json"), prompts).expect("writable");

    let (_kept, _, model) = imported(&source, None, Storage::F32);
    assert_eq!(model.spec().pooling, Wanted::Mean);
    assert_eq!(model.spec().query_prefix, "w7 w8 ");
    assert_eq!(model.spec().document_prefix, "");
    compare(&model, &expected(&golden("decoders.json")["qwen3"], "mean"));

    // What is not pooled as we can is refused, unless the caller says how; so is what comes behind.
    let other = pooling.replace(
        "\"pooling_mode_cls_token\": false",
        "\"pooling_mode_cls_token\": true",
    );
    fs::write(source.join("1_Pooling/config.json"), other).expect("writable");
    let refusal = |pooling| {
        let mut options = ImportOptions::new(&source, parent.path().join("refused"), "refused");
        options.embedding = Some(Embedding { pooling });
        match import(&options, &mut |_| ()) {
            Err(ImportError::Inexpressible { obstacle }) => obstacle,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refusal(None), Obstacle::Pooling);
    let (_kept, _, model) = imported(&source, Some(Pooling::Last), Storage::F32);
    assert_eq!(model.spec().pooling, Wanted::Last);
    let modules = |last: &str| {
        let known = ["Transformer", "Pooling", last];
        let entry = |name: &str| json!({"type": format!("sentence_transformers.models.{name}")});
        let list = Value::Array(known.into_iter().map(entry).collect());
        fs::write(source.join("modules.json"), list.to_string()).expect("writable");
    };
    modules("Dense");
    assert_eq!(refusal(Some(Pooling::Last)), Obstacle::Modules);
    modules("Normalize");
    imported(&source, Some(Pooling::Last), Storage::F32);

    // It is no language model.
    let folder = parent.path().join("text");
    let refused = import(&ImportOptions::new(&source, &folder, "text"), &mut |_| ());
    assert!(refused.is_err() && !folder.exists());
}

#[test]
fn narrow_weights_give_nearly_the_same_vectors() {
    let golden = golden("decoders.json");
    let wanted = expected(&golden["qwen3"], "last");
    let (_kept, _, model) = imported(&checkpoint("qwen3"), None, Storage::Int8);
    let (vectors, _) = embed(
        &model,
        wanted.iter().map(|(text, _)| text.clone()).collect(),
    );
    for (vector, (_, wanted)) in vectors.iter().zip(&wanted) {
        let cosine: f32 = vector.iter().zip(wanted).map(|(a, b)| a * b).sum();
        assert!(cosine > 0.99, "{cosine}");
    }
}

#[test]
fn other_formats_hold_no_embedding_models() {
    let parent = tempdir().expect("temporary folders can be made");
    let mut options = ImportOptions::new(checkpoint("llama"), parent.path().join("tiny"), "tiny");
    options.target = Target::HuggingFace(Element::F32);
    options.embedding = Some(Embedding::default());
    match import(&options, &mut |_| ()) {
        Err(ImportError::Option { option }) => assert_eq!(option, ImportOption::Embedding),
        other => panic!("{other:?}"),
    }
}

/// No import, but here because a library under test is: an exported encoder, its texts in batches.
#[test]
fn an_exported_encoder_gives_the_vectors_of_transformers_whatever_is_beside_a_text() {
    let golden = golden("bert/golden.json");
    for (pooling, word) in [(Wanted::Mean, "mean"), (Wanted::Cls, "cls")] {
        let model = open(&models().join("bert"), |manifest| {
            manifest.embedding.as_mut().expect("a section").pooling = pooling;
        });
        let wanted = expected(&golden, word);
        let error = compare(&model, &wanted);
        eprintln!("bert, {word}: largest error {error:e}");
        let texts: Vec<String> = wanted.iter().map(|(text, _)| text.clone()).collect();
        let (together, runs) = embed(&model, texts.clone());
        assert!((runs as usize) < texts.len(), "{runs} runs");
        for (text, vector) in texts.into_iter().zip(&together) {
            let (alone, _) = embed(&model, vec![text]);
            let errors = alone[0].iter().zip(vector).map(|(a, b)| (a - b).abs());
            assert!(errors.fold(0f32, f32::max) <= ERROR_MAX);
        }
    }
}
