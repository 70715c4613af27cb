//! Caches of keys and values with fewer bits.

use mote_api::DType;
use mote_import::{CacheStorage, Precision, Storage};

use super::architectures::{Golden, Loaded, checkpoint, differences};

fn with_cache(cache: CacheStorage) -> Precision {
    Precision {
        cache: Some(cache),
        ..Precision::uniform(Storage::F32)
    }
}

/// The part of the logits' size that they differ by, and whether the pipeline gives the golden
/// answer.
fn check(name: &str, cache: CacheStorage) -> (f32, bool) {
    let golden = Golden::read(name);
    let loaded = Loaded::new(&checkpoint(name), with_cache(cache));
    let (_, relative) = differences(&loaded.logits(&golden), &golden);
    eprintln!("{name}: {cache:?} logits differ by {relative:.4}");
    (relative, loaded.answer(&golden) == golden.tokens)
}

#[test]
fn halves_change_next_to_nothing() {
    for name in ["llama", "qwen2-window", "qwen3", "deepseek_v3", "qwen3_moe"] {
        let (relative, same) = check(name, CacheStorage::F16);
        assert!(relative < 0.01, "{name}: {relative}");
        assert!(same, "{name}: another answer");
    }
}

/// With and without biases and norms of keys, heads' halves as pairs, a window, stretched
/// positions, a latent. Random weights make attention far more uneven than trained ones.
#[test]
fn eight_bits_change_little() {
    for name in [
        "llama",
        "llama-3",
        "qwen2",
        "qwen3-window",
        "olmoe",
        "qwen3_moe",
        "deepseek_v2",
        "deepseek_v2-lite",
        "deepseek_v3",
    ] {
        let (relative, _) = check(name, CacheStorage::Int8);
        assert!(relative < 0.2, "{name}: {relative}");
    }
}

#[test]
fn a_cache_takes_the_bytes_it_should() {
    for (precision, kind) in [
        (with_cache(CacheStorage::F32), DType::F32),
        (with_cache(CacheStorage::F16), DType::F16),
        (with_cache(CacheStorage::Int8), DType::I8),
        (Precision::uniform(Storage::F32), DType::F32),
        (Precision::uniform(Storage::Int4), DType::F16),
    ] {
        let loaded = Loaded::new(&checkpoint("llama"), precision);
        let caches: Vec<DType> = loaded
            .model
            .signature()
            .inputs
            .iter()
            .filter(|input| input.name.starts_with("past_key_values."))
            .map(|input| input.dtype)
            .collect();
        assert_eq!(caches, [kind; 4]);
    }
}
