//! Imports a checkpoint from the command line and prints what it took:
//! `import SOURCE FOLDER dense|moe[:K] int8|int4|int4-all|f32[:f32|:f16|:i8][:stock]|hf-f32|hf-f16|hf-bf16|gguf`,
//! where what follows the colon is how the first four keep keys and values, and `:stock` makes them lay
//! experts out for ONNX Runtime's own operators.

#![allow(
    clippy::print_stdout,
    reason = "printing the report is what the example is for"
)]

use std::{error::Error, time::Instant};

use mote_import::{
    CacheStorage, Carve, Element, ImportOptions, Layout, Licence, Precision,
    SMOLLM2_135M_MOE_RECIPE, Storage, Target, import,
};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [source, folder, kind, target] = arguments.as_slice() else {
        return Err("arguments: SOURCE FOLDER dense|moe[:K] TARGET".into());
    };
    let mut options = ImportOptions::new(source, folder, format!("smollm2-135m-{}", &kind[..3]));
    options.source_name = "SmolLM2-135M-Instruct".to_owned();
    options.licence = Licence {
        id: "Apache-2.0".to_owned(),
        text: "Weights: SmolLM2-135M-Instruct, Apache-2.0.\n".to_owned(),
    };
    if let Some(count) = kind.strip_prefix("moe") {
        options.carve = Some(Carve {
            recipe: SMOLLM2_135M_MOE_RECIPE.into(),
            experts_per_token: count.strip_prefix(':').map(str::parse).transpose()?,
        });
    }
    let (target, layout) = match target.strip_suffix(":stock") {
        Some(target) => (target, Layout::Stock),
        None => (target.as_str(), Layout::Kernels),
    };
    let (target, cache) = target.split_once(':').unwrap_or((target, ""));
    let own = |weights, head| {
        Target::Mote(Precision {
            head,
            layout,
            cache: match cache {
                "f16" => Some(CacheStorage::F16),
                "i8" => Some(CacheStorage::Int8),
                "f32" => Some(CacheStorage::F32),
                _ => None,
            },
            ..Precision::uniform(weights)
        })
    };
    options.target = match target {
        "int8" => own(Storage::Int8, Storage::Int8),
        "int4" => own(Storage::Int4, Storage::Int8),
        "int4-all" => own(Storage::Int4, Storage::Int4),
        "f32" => own(Storage::F32, Storage::F32),
        "hf-f32" => Target::HuggingFace(Element::F32),
        "hf-f16" => Target::HuggingFace(Element::F16),
        "hf-bf16" => Target::HuggingFace(Element::Bf16),
        "gguf" => Target::Gguf(Precision::default()),
        other => return Err(format!("unknown target {other}").into()),
    };
    let start = Instant::now();
    let mut calls = 0;
    let report = import(&options, &mut |_| calls += 1)?;
    println!("{report:#?}");
    println!("{:.2?}, {calls} progress calls", start.elapsed());
    Ok(())
}
