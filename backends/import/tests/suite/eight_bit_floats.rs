//! Checkpoints of eight-bit floats with a factor per block: what is refused, by name.

use mote_import::{
    ImportError,
    checkpoint::{CheckpointError, LayerRole, LayerSource, Role, open_hugging_face, read_config},
    safetensors::SafetensorsError,
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::json;

use super::folder::Copy;

const WEIGHT: &str = "model.layers.0.self_attn.o_proj.weight";
const FACTORS: &str = "model.layers.0.self_attn.o_proj.weight_scale_inv";

type Stored = (String, Dtype, Vec<usize>, Vec<u8>);

/// The tiny checkpoint with its tensors changed.
fn changed(change: impl Fn(&mut Vec<Stored>)) -> Copy {
    let copy = Copy::new("deepseek_v3-fp8");
    let bytes = copy.read("model.safetensors");
    let file = SafeTensors::deserialize(&bytes).expect("it parses");
    let mut tensors: Vec<Stored> = file
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let (dtype, shape) = (view.dtype(), view.shape().to_vec());
            (name, dtype, shape, view.data().to_vec())
        })
        .collect();
    change(&mut tensors);
    let views = tensors.iter().map(|(name, dtype, shape, data)| {
        let view = TensorView::new(*dtype, shape.clone(), data);
        (name, view.expect("shapes fit the data"))
    });
    let whole = safetensors::serialize(views, None).expect("it serialises");
    copy.write("model.safetensors", whole);
    copy
}

fn find<'a>(tensors: &'a mut [Stored], name: &str) -> &'a mut Stored {
    let mut found = tensors.iter_mut();
    found.find(|tensor| tensor.0 == name).expect("it is there")
}

#[test]
fn factors_must_be_there_and_fit_the_blocks() {
    let missing = changed(|tensors| tensors.retain(|tensor| tensor.0 != FACTORS));
    assert!(matches!(
        missing.refusal(),
        CheckpointError::Safetensors(SafetensorsError::MissingTensor { tensor }) if tensor == FACTORS
    ));
    // 64 × 64 in blocks of 24 × 40 are 3 × 2.
    let other = changed(|tensors| find(tensors, FACTORS).2 = vec![2, 3]);
    assert!(matches!(
        other.refusal(),
        CheckpointError::WrongShape { tensor, expected: (3, 2), found: (2, 3) } if tensor == FACTORS
    ));
    let surplus = changed(|tensors| {
        tensors.push((
            "model.norm.weight_scale_inv".into(),
            Dtype::F32,
            vec![1],
            vec![0; 4],
        ));
    });
    assert!(matches!(
        surplus.refusal(),
        CheckpointError::UnknownTensor { tensor, .. } if tensor == "model.norm.weight_scale_inv"
    ));
    let unscaled = Copy::new("deepseek_v3-fp8").set("quantization_config", json!(null));
    assert!(matches!(
        unscaled.refusal(),
        CheckpointError::UnknownTensor { tensor, .. } if tensor.ends_with("_scale_inv")
    ));
}

#[test]
fn other_ways_to_quantise_are_refused_by_name() {
    let with = |config| {
        Copy::new("deepseek_v3-fp8")
            .set("quantization_config", config)
            .refusal()
    };
    for (key, value) in [("quant_method", "awq"), ("fmt", "e5m2")] {
        let mut config = json!({"quant_method": "fp8", "weight_block_size": [24, 40]});
        config[key] = json!(value);
        assert!(matches!(
            with(config),
            CheckpointError::UnsupportedValue { key: found, value: other }
                if found == key && other == value
        ));
    }
    for sizes in [
        json!(null),
        json!([128]),
        json!([0, 128]),
        json!([128, -1]),
        json!([128, 1u64 << 40]),
        json!("128"),
    ] {
        let refusal = with(json!({"quant_method": "fp8", "weight_block_size": sizes}));
        assert!(
            matches!(
                &refusal,
                CheckpointError::UnsupportedFeature { key } if key == "weight_block_size"
            ),
            "{sizes}: {refusal}"
        );
    }
}

#[test]
fn weights_and_factors_that_are_no_numbers_are_refused() {
    let not_finite = |copy: &Copy, name: &str| {
        let refusal = copy.import_refusal();
        assert!(
            matches!(
                &refusal,
                ImportError::Checkpoint(CheckpointError::Safetensors(
                    SafetensorsError::NotFinite { tensor }
                )) if tensor == name
            ),
            "{name}: {refusal:?}"
        );
    };
    not_finite(
        &changed(|tensors| find(tensors, WEIGHT).3[5] = 0x7f),
        WEIGHT,
    );
    let factor = |bytes: [u8; 4]| {
        changed(move |tensors| find(tensors, FACTORS).3[..4].copy_from_slice(&bytes))
    };
    not_finite(&factor(f32::NAN.to_le_bytes()), FACTORS);
    not_finite(&factor(f32::MAX.to_le_bytes()), WEIGHT);
}

#[test]
fn each_row_has_the_factors_of_its_block() {
    let copy = changed(|tensors| {
        find(tensors, WEIGHT).3.fill(0x38);
        let factors = (1..=6).flat_map(|factor| (factor as f32).to_le_bytes());
        find(tensors, FACTORS).3 = factors.collect();
    });
    let weights = copy.open().expect("the weights are sound");
    let config = read_config(copy.folder()).expect("the settings are sound");
    let checkpoint = open_hugging_face(&weights, &config).expect("it is sound");
    let role = Role::Layer(0, LayerRole::AttentionOutput);
    let mut rows = vec![0.0; 64 * 64];
    checkpoint.read_rows(role, 0, &mut rows).expect("it reads");
    for (index, value) in rows.iter().enumerate() {
        let (row, column) = (index / 64, index % 64);
        let expected = (row / 24 * 2 + column / 40 + 1) as f32;
        assert_eq!(*value, expected, "{row} {column}");
    }
    // Rows that begin within a block.
    let mut some = vec![0.0; 3 * 64];
    checkpoint.read_rows(role, 23, &mut some).expect("it reads");
    assert_eq!(some, rows[23 * 64..26 * 64]);
}
