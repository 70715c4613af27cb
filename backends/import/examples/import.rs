//! Imports a checkpoint from the command line and prints what it took:
//! `import SOURCE.gguf FOLDER dense|moe[:K] int8|int4|f32|hf-f32|hf-f16|hf-bf16|gguf`

#![allow(
    clippy::print_stdout,
    reason = "printing the report is what the example is for"
)]

use std::{error::Error, time::Instant};

use mote_import::{
    Carve, Element, ImportOptions, Licence, Precision, SMOLLM2_135M_MOE_RECIPE, Storage, Target,
    import,
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
    options.target = match target.as_str() {
        "int8" => Target::Mote(Precision::default()),
        "int4" => Target::Mote(Precision {
            head: Storage::Int8,
            ..Precision::uniform(Storage::Int4)
        }),
        "f32" => Target::Mote(Precision::uniform(Storage::F32)),
        "hf-f32" => Target::HuggingFace(Element::F32),
        "hf-f16" => Target::HuggingFace(Element::F16),
        "hf-bf16" => Target::HuggingFace(Element::Bf16),
        "gguf" => Target::Gguf,
        other => return Err(format!("unknown target {other}").into()),
    };
    let start = Instant::now();
    let mut calls = 0;
    let report = import(&options, &mut |_| calls += 1)?;
    println!("{report:#?}");
    println!("{:.2?}, {calls} progress calls", start.elapsed());
    Ok(())
}
