//! Tensors in, tensors out.

use crate::{ONNXRUNTIME, Place, TFLITE_CPU, TRACT, XNNPACK, check_outputs, inputs};
use crate::{client, output, values};
use anyhow::Result;
use mote_client::{Input, Output};
use mote_tests::npy::{Array, max_difference};
use mote_tests::prepared;
use mote_tests::reference::Case;
use std::collections::BTreeMap;

/// Probabilities of a network of few layers, in float32: two libraries differ by rounding alone.
const PROBABILITY_TOLERANCE: f64 = 1e-5;
/// The same behind many layers of convolution.
const TEXT_TOLERANCE: f64 = 1e-4;
/// Regressors of face detection reach 210, where a float32 has steps of 1.5e-5, and the fetched
/// library is of another version than the reference, with other kernels and other sums.
const FACE_TOLERANCE: f64 = 5e-4;
/// XNNPACK's kernels of two versions, in values of 0..1.
const MASK_TOLERANCE: f64 = 1e-4;
/// Warped pixels: optical flow amplifies rounding where the picture has edges.
const FRAME_TOLERANCE: f64 = 1e-4;

/// Runs a case's inputs on a model at a place, and compares.
fn check(model: &str, case: &Case, place: Place, tolerance: f64) -> Result<()> {
    let client = client()?;
    let result = client.infer(model, &inputs(&case.inputs), &[], &place.required())?;
    check_outputs(&result.outputs, &case.outputs, tolerance)?;
    let receipt = &result.done.receipt;
    place.check(model, receipt);
    assert!(!receipt.model_digest.is_empty() && !receipt.library_version.is_empty());
    assert_eq!(receipt.steps, 1);
    Ok(())
}

#[test]
fn magika_is_the_reference_on_both_backends() -> Result<()> {
    let (case, client) = (Case::read("magika")?, client()?);
    let mut answers = Vec::new();
    for place in [ONNXRUNTIME, TRACT] {
        check("magika", &case, place, PROBABILITY_TOLERANCE)?;
        let options = place.required();
        let result = client.infer("magika", &inputs(&case.inputs), &[], &options)?;
        answers.push(values(output(&result.outputs, "target_label")?)?);
    }
    let difference = max_difference(&answers[0], &answers[1]);
    assert!(difference <= PROBABILITY_TOLERANCE, "{difference}");
    Ok(())
}

#[test]
fn text_is_detected_in_pictures_of_two_sizes_in_turn() -> Result<()> {
    for place in [ONNXRUNTIME, TRACT] {
        for size in ["small", "large", "small"] {
            let case = Case::read(&format!("text_detection_{size}"))?;
            check("rapidocr-det", &case, place, TEXT_TOLERANCE)?;
        }
    }
    Ok(())
}

#[test]
fn faces_are_detected_with_and_without_xnnpack() -> Result<()> {
    let mut case = Case::read("face_detection")?;
    check("face-detection", &case, XNNPACK, FACE_TOLERANCE)?;
    let folder = prepared("MOTE_TEST_REFERENCE")?.join("face_detection");
    let files = case.about["plain_outputs"].as_object().cloned();
    let read = |(name, file): (String, serde_json::Value)| -> Result<(String, Array)> {
        let file = file.as_str().unwrap_or_default().to_owned();
        Ok((name, Array::read(&folder.join(file))?))
    };
    let files = files.into_iter().flatten().map(read);
    case.outputs = files.collect::<Result<BTreeMap<_, _>>>()?;
    check("face-detection", &case, TFLITE_CPU, FACE_TOLERANCE)
}

#[test]
fn a_person_is_cut_out_by_a_model_only_xnnpack_can_run() -> Result<()> {
    let case = Case::read("selfie_segmentation")?;
    check("selfie-segmentation", &case, XNNPACK, MASK_TOLERANCE)
}

#[test]
fn the_frame_between_two_frames_is_the_reference() -> Result<()> {
    check("rife", &Case::read("rife")?, ONNXRUNTIME, FRAME_TOLERANCE)
}

#[test]
fn tensors_in_shared_memory_give_the_same_without_a_copy() -> Result<()> {
    let (case, client) = (Case::read("text_detection_small")?, client()?);
    let (picture, wanted) = (&case.inputs["x"], &case.outputs["sigmoid_0.tmp_0"]);
    let mut x = client.buffer(picture.bytes.len() as u64)?;
    x.copy_in(0, &picture.bytes)?;
    let mut y = client.buffer(wanted.bytes.len() as u64)?;
    let input = Input::buffer("x", picture.dtype, &picture.shape, &x);
    let target = Output::buffer("sigmoid_0.tmp_0", &y, 0, y.bytes()).shape(&wanted.shape);
    let options = ONNXRUNTIME.required();
    let result = client.infer("rapidocr-det", &[input], &[target], &options)?;
    assert_eq!(result.done.receipt.bytes_copied, 0);
    let length = wanted.bytes.len();
    let got = y.with_slice(|bytes| mote_tests::npy::numbers(wanted.dtype, &bytes[..length]));
    let difference = max_difference(&got, &wanted.numbers());
    assert!(difference <= PROBABILITY_TOLERANCE, "{difference}");
    Ok(())
}
