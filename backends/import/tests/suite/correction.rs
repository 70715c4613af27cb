//! What a recipe adds to a checkpoint's weights arrives, and nothing else is taken for it.

use std::fs;

use mote_import::{
    CORRECTION_RANK_MAX, Carve, Element, ImportError, ImportOptions, Recipe, RecipeError, Target,
    checkpoint::{LayerRole, Role},
    import,
};
use safetensors::SafeTensors;
use tempfile::tempdir;

use super::tiny::{
    Checkpoint, EXPERT, EXPERTS, HEAD_DIM, HEADS, HIDDEN, KV_HEADS, NEURONS, RecipeParts, SEED,
    SHARED,
};

const RANK: usize = 3;
const KEYS: usize = KV_HEADS * HEAD_DIM;
/// Name, rows and columns of every matrix that can be corrected.
const MATRICES: [(&str, usize, usize); 7] = [
    ("attn_q", HEADS * HEAD_DIM, HIDDEN),
    ("attn_k", KEYS, HIDDEN),
    ("attn_v", KEYS, HIDDEN),
    ("attn_output", HIDDEN, HEADS * HEAD_DIM),
    ("ffn_gate", NEURONS, HIDDEN),
    ("ffn_up", NEURONS, HIDDEN),
    ("ffn_down", HIDDEN, NEURONS),
];

fn parts(checkpoint: &Checkpoint) -> RecipeParts {
    eprintln!("seed {SEED}");
    RecipeParts::new(&checkpoint.file.bytes())
}

/// A recipe that changes everything in layer 1, and the final norm.
fn corrected(checkpoint: &Checkpoint) -> RecipeParts {
    let mut parts = parts(checkpoint)
        .with("output_norm", &[HIDDEN])
        .with("layers.1.attn_norm", &[HIDDEN])
        .with("layers.1.ffn_norm", &[HIDDEN]);
    for (name, rows, columns) in MATRICES {
        parts = parts
            .with(&format!("layers.1.{name}.down"), &[RANK, columns])
            .with(&format!("layers.1.{name}.up"), &[rows, RANK]);
    }
    parts
}

/// Row `row` of a matrix of layer 1 as the recipe has it, rows in the file's order.
fn expected(
    (checkpoint, parts): (&Checkpoint, &RecipeParts),
    name: &str,
    (row, stored): (usize, usize),
) -> Vec<f32> {
    let down = parts.values(&format!("layers.1.{name}.down"));
    let up = parts.values(&format!("layers.1.{name}.up"));
    let dense = checkpoint.row(&format!("blk.1.{name}.weight"), stored);
    let added = |column: usize| -> f32 {
        let parts = (0..RANK).map(|r| up[row * RANK + r] * down[r * dense.len() + column]);
        parts.sum()
    };
    let sum = |(column, weight): (usize, &f32)| weight + added(column);
    dense.iter().enumerate().map(sum).collect()
}

/// A model folder in single precision, all experts at work, and its tensors by name.
struct Carved(Vec<u8>);

impl Carved {
    fn new(checkpoint: &Checkpoint, parts: &RecipeParts) -> Self {
        let folder = tempdir().expect("temporary folders can be made");
        let target = folder.path().join("tiny");
        import(&options(checkpoint, parts, &folder), &mut |_| ()).expect("the import succeeds");
        Self(fs::read(target.join("model.safetensors")).expect("it exists"))
    }

    fn tensor(&self, name: &str) -> Vec<f32> {
        let tensors = SafeTensors::deserialize(&self.0).expect("it parses");
        let tensor = tensors.tensor(&format!("model.{name}.weight"));
        let singles = tensor.expect("it exists").data().chunks_exact(4);
        singles
            .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            .collect()
    }
}

fn options(
    checkpoint: &Checkpoint,
    parts: &RecipeParts,
    folder: &tempfile::TempDir,
) -> ImportOptions {
    let path = checkpoint.file.write(folder);
    let mut options = ImportOptions::new(path, folder.path().join("tiny"), "tiny");
    options.target = Target::HuggingFace(Element::F32);
    options.carve = Some(Carve {
        recipe: parts.bytes().into(),
        experts_per_token: Some(EXPERTS),
    });
    options
}

fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            (found - expected).abs() < 1e-5,
            "{what}: {found} is not {expected}"
        );
    }
}

#[test]
fn attention_and_norms_are_the_corrected_ones() {
    let checkpoint = Checkpoint::new();
    let parts = corrected(&checkpoint);
    let carved = Carved::new(&checkpoint, &parts);
    for (name, target) in [
        ("attn_q", "q_proj"),
        ("attn_k", "k_proj"),
        ("attn_v", "v_proj"),
        ("attn_output", "o_proj"),
    ] {
        let found = carved.tensor(&format!("layers.1.self_attn.{target}"));
        for (row, found) in found.chunks_exact(HIDDEN).enumerate() {
            let (head, half, pair) = (
                row / HEAD_DIM,
                row % HEAD_DIM / (HEAD_DIM / 2),
                row % (HEAD_DIM / 2),
            );
            let stored = match name {
                "attn_q" | "attn_k" => head * HEAD_DIM + 2 * pair + half,
                _ => row,
            };
            let expected = expected((&checkpoint, &parts), name, (row, stored));
            assert_close(found, &expected, name);
        }
    }
    for (name, target) in [
        ("output_norm", "norm"),
        ("layers.1.attn_norm", "layers.1.input_layernorm"),
        ("layers.1.ffn_norm", "layers.1.post_attention_layernorm"),
    ] {
        assert_eq!(carved.tensor(target), parts.values(name), "{name}");
    }
    let untouched = carved.tensor("layers.0.self_attn.v_proj");
    for (row, found) in untouched.chunks_exact(HIDDEN).enumerate() {
        assert_eq!(found, checkpoint.row("blk.0.attn_v.weight", row));
    }
}

#[test]
fn neurons_are_corrected_before_they_are_sorted() {
    let checkpoint = Checkpoint::new();
    let parts = corrected(&checkpoint);
    let carved = Carved::new(&checkpoint, &parts);
    let row = |name: &str, row: usize| expected((&checkpoint, &parts), name, (row, row));
    let down: Vec<Vec<f32>> = (0..HIDDEN).map(|hidden| row("ffn_down", hidden)).collect();
    let shared = carved.tensor("layers.1.shared_mlp.input_linear");
    let shared_down = carved.tensor("layers.1.shared_mlp.output_linear");
    let routed = carved.tensor("layers.1.block_sparse_moe.input_linear");
    let routed_down = carved.tensor("layers.1.block_sparse_moe.output_linear");
    for (position, &neuron) in parts.permutations[1].iter().enumerate() {
        let neuron = usize::from(neuron);
        let (input, output, first, width, scale) = match position.checked_sub(SHARED) {
            None => (&shared, &shared_down, 0, SHARED, 1.0),
            Some(routed_position) => {
                let expert = routed_position / EXPERT;
                (&routed, &routed_down, expert, EXPERT, EXPERTS as f32)
            }
        };
        let within = (position % SHARED) % width;
        for (name, part) in [("ffn_gate", 0), ("ffn_up", 1)] {
            let at = first * 2 * width + part * width + within;
            let found = &input[at * HIDDEN..][..HIDDEN];
            assert_close(found, &row(name, neuron), name);
        }
        for (hidden, down) in down.iter().enumerate() {
            let found = output[(first * HIDDEN + hidden) * width + within];
            assert_close(&[found], &[down[neuron] * scale], "ffn_down");
        }
    }
}

#[test]
fn tensors_without_a_meaning_are_refused() {
    let checkpoint = Checkpoint::new();
    for name in [
        "surplus",
        "layers.0.attn_norm.up",
        "layers.0.ffn_gate",
        "layers.0.ffn_gate.sideways",
        "layers.0.token_embd.up",
        "layers.00.attn_norm",
        "layers.2.attn_norm",
        "layers.-1.attn_norm",
        "layers.attn_norm",
        "layers.1.",
    ] {
        let parts = parts(&checkpoint).with(name, &[HIDDEN]);
        match Recipe::parse(&parts.bytes()) {
            Err(RecipeError::UnknownTensor { tensor }) => assert_eq!(tensor, name),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn halves_of_a_correction_must_fit_each_other() {
    let checkpoint = Checkpoint::new();
    let (down, up) = ("layers.0.ffn_down.down", "layers.0.ffn_down.up");
    let pair = |down_shape: &[usize], up_shape: &[usize]| {
        let parts = parts(&checkpoint).with(down, down_shape).with(up, up_shape);
        Recipe::parse(&parts.bytes()).expect_err("the recipe must be refused")
    };
    for rank in [0, CORRECTION_RANK_MAX + 1] {
        assert!(matches!(
            pair(&[rank, NEURONS], &[HIDDEN, rank]),
            RecipeError::Rank { tensor, rank: found } if tensor == down && found == rank
        ));
    }
    assert!(matches!(
        pair(&[2, NEURONS], &[HIDDEN, 3]),
        RecipeError::TensorShape { tensor, .. } if tensor == up
    ));
    assert!(matches!(
        pair(&[2], &[HIDDEN, 2]),
        RecipeError::TensorShape { tensor, .. } if tensor == down
    ));
    for (alone, missing) in [(down, up), (up, down)] {
        let parts = parts(&checkpoint).with(alone, &[1, NEURONS]);
        assert!(matches!(
            Recipe::parse(&parts.bytes()),
            Err(RecipeError::MissingTensor { tensor }) if tensor == missing
        ));
    }
}

#[test]
fn changes_must_be_finite() {
    let checkpoint = Checkpoint::new();
    for spoilt in ["output_norm", "layers.1.attn_k.up", "layers.1.attn_k.down"] {
        for value in [f32::NAN, f32::INFINITY] {
            let mut parts = corrected(&checkpoint);
            let mut more = parts.more.iter_mut();
            let (_, _, values) = more.find(|(name, ..)| name == spoilt).expect("it is there");
            values[1] = value;
            assert!(matches!(
                Recipe::parse(&parts.bytes()),
                Err(RecipeError::NotFinite { tensor }) if tensor == spoilt
            ));
        }
    }
}

#[test]
fn changes_of_another_shape_than_the_checkpoint_stop_the_import() {
    let checkpoint = Checkpoint::new();
    let norm = parts(&checkpoint).with("layers.1.ffn_norm", &[HIDDEN - 1]);
    let tall = parts(&checkpoint)
        .with("layers.1.attn_k.down", &[1, HIDDEN])
        .with("layers.1.attn_k.up", &[KEYS + 1, 1]);
    let wide = parts(&checkpoint)
        .with("layers.1.attn_k.down", &[1, HIDDEN + 1])
        .with("layers.1.attn_k.up", &[KEYS, 1]);
    for (parts, role, recipe, expected) in [
        (
            norm,
            LayerRole::FeedForwardNorm,
            (1, HIDDEN - 1),
            (1, HIDDEN),
        ),
        (tall, LayerRole::Key, (KEYS + 1, HIDDEN), (KEYS, HIDDEN)),
        (wide, LayerRole::Key, (KEYS, HIDDEN + 1), (KEYS, HIDDEN)),
    ] {
        let folder = tempdir().expect("temporary folders can be made");
        let error = import(&options(&checkpoint, &parts, &folder), &mut |_| ());
        match error.expect_err("the import must be refused") {
            ImportError::Recipe(RecipeError::Correction {
                role: found,
                recipe: has,
                checkpoint: needs,
            }) => {
                assert_eq!(found, Role::Layer(1, role));
                assert_eq!((has, needs), (recipe, expected));
            }
            other => panic!("{role:?}: {other}"),
        }
        assert!(!folder.path().join("tiny").exists(), "nothing is left");
    }
}
