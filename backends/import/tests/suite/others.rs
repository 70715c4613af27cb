//! The same weights for other engines.

use std::{fs, path::PathBuf};

use half::f16;
use mote_import::{
    Carve, Element, ImportOptions, Precision, Storage, Target,
    gguf::{Gguf, Value},
    import,
};
use safetensors::{Dtype, SafeTensors};
use tempfile::{TempDir, tempdir};

use super::tiny::{
    Checkpoint, EXPERT, EXPERTS, HIDDEN, LAYERS, NEURONS, RecipeParts, SEED, SHARED, tokens,
};

struct Scene {
    checkpoint: Checkpoint,
    recipe: RecipeParts,
    options: ImportOptions,
    target: PathBuf,
    _folder: TempDir,
}

fn scene(target: Target, carved: bool) -> Scene {
    eprintln!("seed {SEED}");
    let folder = tempdir().expect("temporary folders can be made");
    let checkpoint = Checkpoint::new();
    let recipe = RecipeParts::new(&checkpoint.file.bytes());
    let path = folder.path().join("tiny");
    let mut options = ImportOptions::new(checkpoint.file.write(&folder), &path, "tiny");
    options.target = target;
    options.carve = carved.then(|| Carve {
        recipe: recipe.bytes().into(),
        experts_per_token: Some(2),
    });
    Scene {
        checkpoint,
        recipe,
        options,
        target: path,
        _folder: folder,
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        .collect()
}

#[test]
fn hugging_face_weights_are_the_carved_ones() {
    let scene = scene(Target::HuggingFace(Element::F32), true);
    import(&scene.options, &mut |_| ()).expect("the import succeeds");
    let bytes = fs::read(scene.target.join("model.safetensors")).expect("it exists");
    let tensors = SafeTensors::deserialize(&bytes).expect("it parses");
    assert_eq!(tensors.len(), 2 + LAYERS * 11);
    let block = "model.layers.0.block_sparse_moe";
    let input = tensors
        .tensor(&format!("{block}.input_linear.weight"))
        .expect("it exists");
    assert_eq!(input.shape(), [EXPERTS, 2 * EXPERT, HIDDEN]);
    let input = floats(input.data());
    let output = tensors
        .tensor(&format!("{block}.output_linear.weight"))
        .expect("it exists");
    assert_eq!(output.shape(), [EXPERTS, HIDDEN, EXPERT]);
    let output = floats(output.data());
    for (routed, &neuron) in scene.recipe.permutations[0][SHARED..].iter().enumerate() {
        let (expert, within) = (routed / EXPERT, routed % EXPERT);
        let neuron = usize::from(neuron);
        for (name, offset) in [("ffn_gate", 0), ("ffn_up", EXPERT)] {
            let row = expert * 2 * EXPERT + offset + within;
            let expected = scene
                .checkpoint
                .row(&format!("blk.0.{name}.weight"), neuron);
            assert_eq!(&input[row * HIDDEN..][..HIDDEN], expected);
        }
        for row in 0..HIDDEN {
            let dense = scene.checkpoint.row("blk.0.ffn_down.weight", row)[neuron];
            assert_eq!(
                output[(expert * HIDDEN + row) * EXPERT + within],
                dense * 2.0
            );
        }
    }
    let config = fs::read(scene.target.join("config.json")).expect("it exists");
    let config: serde_json::Value = serde_json::from_slice(&config).expect("it parses");
    assert_eq!(config["architectures"][0], "GraniteMoeSharedForCausalLM");
    assert_eq!(config["num_experts_per_tok"], 2);
    assert_eq!(config["intermediate_size"], EXPERT);
    assert_eq!(config["logits_scaling"], 1.0);
    assert!(!scene.target.join("mote.toml").exists());
}

#[test]
fn half_precision_weights_are_rounded() {
    let scene = scene(Target::HuggingFace(Element::F16), false);
    import(&scene.options, &mut |_| ()).expect("the import succeeds");
    let bytes = fs::read(scene.target.join("model.safetensors")).expect("it exists");
    let tensors = SafeTensors::deserialize(&bytes).expect("it parses");
    let down = tensors
        .tensor("model.layers.1.mlp.down_proj.weight")
        .expect("it exists");
    assert_eq!(
        (down.dtype(), down.shape()),
        (Dtype::F16, &[HIDDEN, NEURONS][..])
    );
    let expected: Vec<u8> = scene
        .checkpoint
        .row("blk.1.ffn_down.weight", 0)
        .iter()
        .flat_map(|&weight| f16::from_f32(weight).to_le_bytes())
        .collect();
    assert_eq!(&down.data()[..2 * NEURONS], expected);
}

#[test]
fn the_gguf_reads_back_with_the_same_weights() {
    let scene = scene(Target::Gguf(Precision::default()), true);
    import(&scene.options, &mut |_| ()).expect("the import succeeds");
    let gguf = Gguf::open(&scene.target.join("model.gguf")).expect("it is sound");
    let metadata = gguf.metadata();
    assert_eq!(
        metadata.get("general.architecture"),
        Some(&Value::Text("granitemoe".to_owned()))
    );
    assert_eq!(
        metadata.get("granitemoe.expert_used_count"),
        Some(&Value::Unsigned(2))
    );
    assert_eq!(
        metadata.texts("tokenizer.ggml.tokens").expect("it is text"),
        Some(tokens().as_slice())
    );
    let close = |name: &str, row: usize, expected: &[f32]| {
        let tensor = gguf.tensor(name).expect("it exists");
        let mut found = vec![0.0; tensor.columns];
        gguf.read_rows(tensor, row, &mut found).expect("it reads");
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                (found - expected).abs() < 0.01,
                "{name}: {found} is not {expected}"
            );
        }
    };
    for row in 0..64 {
        let expected = scene.checkpoint.row("blk.0.attn_q.weight", row);
        close("blk.0.attn_q.weight", row, expected);
    }
    let neuron = usize::from(scene.recipe.permutations[1][SHARED + EXPERT]);
    let expected = scene.checkpoint.row("blk.1.ffn_gate.weight", neuron);
    close("blk.1.ffn_gate_exps.weight", EXPERT, expected);
    let router: Vec<f32> = scene.recipe.routers[1][..HIDDEN]
        .iter()
        .map(|weight| weight * 0.5)
        .collect();
    close("blk.1.ffn_gate_inp.weight", 0, &router);
}

/// What is read of a tensor and what the source has differ by half a step of the codes at most.
#[test]
fn a_dense_gguf_reads_back_at_every_precision() {
    for (storage, step) in [
        (Storage::F32, 0.0),
        (Storage::F16, 1e-3),
        (Storage::Int8, 1.0 / 127.0),
        (Storage::Int4, 1.0 / 7.0),
    ] {
        let scene = scene(Target::Gguf(Precision::uniform(storage)), false);
        import(&scene.options, &mut |_| ()).expect("the import succeeds");
        let gguf = Gguf::open(&scene.target.join("model.gguf")).expect("it is sound");
        assert_eq!(
            gguf.metadata().get("general.architecture"),
            Some(&Value::Text("llama".to_owned()))
        );
        let neurons = Some(&Value::Unsigned(NEURONS as u64));
        assert_eq!(gguf.metadata().get("llama.feed_forward_length"), neurons);
        for name in [
            "blk.1.attn_k.weight",
            "blk.0.ffn_down.weight",
            "token_embd.weight",
        ] {
            let tensor = gguf.tensor(name).expect("it exists");
            let mut found = vec![0.0; tensor.columns];
            for row in 0..8 {
                gguf.read_rows(tensor, row, &mut found).expect("it reads");
                let expected = scene.checkpoint.row(name, row);
                let largest = expected
                    .iter()
                    .fold(0f32, |max, value| max.max(value.abs()));
                for (found, expected) in found.iter().zip(expected) {
                    assert!(
                        (found - expected).abs() <= largest * step,
                        "{storage:?} {name}: {found} is not {expected}"
                    );
                }
            }
        }
        // What is written can be imported again.
        mote_import::checkpoint::open_gguf(&gguf).expect("every tensor is known");
    }
}
