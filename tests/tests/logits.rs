//! The imported language models against a forward pass of all layers in NumPy over the same
//! dequantised weights: the last position's logits, as a plain tensor run through the daemon.

use anyhow::{Context, Result};
use mote_client::{DType, Input, WorkOptions};
use mote_tests::daemon::{Daemon, Setup};
use mote_tests::npy::numbers;
use mote_tests::prepared;
use mote_tests::reference::Case;

const LAYERS: usize = 30;
/// `[batch, kv_heads, positions, head_dim]` of one layer's keys or values, f16; more positions than the
/// prompt has.
const CACHE_SHAPE: [u64; 4] = [1, 3, 64, 64];

/// Root mean square of the difference over that of the logits themselves.
///
/// The weights are the same, the activations are not: ONNX Runtime's 8-bit kernels round them to
/// 8 bits too. Rounding alone moves the dense model's logits by about a hundredth; in the Mixture of
/// Experts it may also change which experts are chosen.
fn check(model: &str, case: &str, relative_rms_max: f64) -> Result<()> {
    let case = Case::read(case)?;
    let ids = case.inputs.get("input_ids").context("input_ids")?;
    let want = case
        .outputs
        .get("last_logits")
        .context("last_logits")?
        .numbers();
    let setup = Setup {
        stores: vec![prepared("MOTE_TEST_MODELS")?],
        runtimes: vec![prepared("MOTE_RUNTIMES")?],
        ..Setup::default()
    };
    let daemon = Daemon::start(&setup)?;
    let client = daemon.client()?;
    let tokens = i32::try_from(ids.shape[1])?;
    let (past, total) = ((tokens - 1).to_le_bytes(), tokens.to_le_bytes());
    let cache = vec![0u8; CACHE_SHAPE.iter().product::<u64>() as usize * 2];
    let names: Vec<String> = (0..LAYERS)
        .flat_map(|layer| ["key", "value"].map(|kind| format!("past_key_values.{layer}.{kind}")))
        .collect();
    let kept = 1i64.to_le_bytes();
    let mut inputs = vec![
        Input::bytes("input_ids", DType::I64, &ids.shape, &ids.bytes),
        Input::bytes("seqlens_k", DType::I32, &[1], &past),
        Input::bytes("total_sequence_length", DType::I32, &[1], &total),
        Input::bytes("num_logits_to_keep", DType::I64, &[1], &kept),
    ];
    inputs.extend(
        names
            .iter()
            .map(|name| Input::bytes(name, DType::F16, &CACHE_SHAPE, &cache)),
    );
    let result = client.infer(model, &inputs, &[], &WorkOptions::default())?;
    let logits = result.outputs.iter().find(|output| output.name == "logits");
    let logits = logits
        .and_then(|output| output.bytes())
        .context("no logits")?;
    let have = numbers(DType::F32, logits);
    assert_eq!(have.len(), want.len());
    let rms = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = rms(&mut have.iter().zip(&want).map(|(a, b)| a - b));
    let relative = difference / rms(&mut want.iter().copied());
    let best = |values: &[f64]| (0..values.len()).max_by(|&a, &b| values[a].total_cmp(&values[b]));
    eprintln!("{model}: logits differ by {relative:.4} of their size");
    assert!(
        relative < relative_rms_max,
        "{model}: {relative} is over {relative_rms_max}"
    );
    let margin = case
        .outputs
        .get("greedy_margins")
        .context("margins")?
        .numbers()[0];
    if margin > 1.0 {
        assert_eq!(
            best(&have),
            best(&want),
            "{model}: another token is the likeliest"
        );
    }
    Ok(())
}

#[test]
fn the_dense_model_computes_what_its_weights_say() -> Result<()> {
    check("smollm2-135m", "language_model_dense", 0.05)
}

#[test]
fn the_mixture_of_experts_computes_what_its_weights_say() -> Result<()> {
    check("smollm2-135m-moe", "language_model_moe", 0.1)
}
