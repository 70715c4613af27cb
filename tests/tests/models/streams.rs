//! Streams: state that stays in the worker, from push to push.

use crate::{ONNXRUNTIME, Place, XNNPACK, check_outputs, client, inputs, output, values};
use anyhow::{Context, Result};
use mote_client::{DType, Input, Stream};
use mote_tests::npy::Array;
use mote_tests::reference::Case;
use std::collections::BTreeMap;

/// Speech chances, by the reference's own library: state carries rounding through 50 steps.
const SPEECH_TOLERANCE: f64 = 1e-5;
/// Steps of an 8-bit chance. Kernels of two versions of the library may round a value in the middle
/// between two steps either way, and state carries it on.
const WAKE_WORD_TOLERANCE: f64 = 1.0;
/// Steps of an 8-bit colour: the same computation, rounded to bytes in the daemon.
const COLOUR_TOLERANCE: f64 = 1.0;

/// The arrays of call `step` that a client gives or gets.
fn part(
    arrays: &BTreeMap<String, Array>,
    step: usize,
    inside: &[String],
) -> BTreeMap<String, Array> {
    let seen = arrays.iter().filter(|(name, _)| !inside.contains(name));
    seen.map(|(name, array)| (name.clone(), array.part(step)))
        .collect()
}

/// What the model keeps to itself: constants, and state at both its ends.
fn inside(case: &Case) -> Vec<String> {
    let constants = case.about["constant"].as_array().into_iter().flatten();
    let mut names: Vec<String> = constants
        .filter_map(|name| Some(name.as_str()?.to_owned()))
        .collect();
    for (input, output) in case.about["state"].as_object().into_iter().flatten() {
        names.push(input.clone());
        names.extend(output.as_str().map(str::to_owned));
    }
    names
}

fn play(stream: &mut Stream, case: &Case, tolerance: f64) -> Result<u64> {
    let steps = case.about["steps"].as_u64().context("steps")?;
    let inside = inside(case);
    for step in 0..steps as usize {
        let given = part(&case.inputs, step, &inside);
        let result = stream.push(&inputs(&given), &[])?;
        check_outputs(
            &result.outputs,
            &part(&case.outputs, step, &inside),
            tolerance,
        )
        .with_context(|| format!("step {step}"))?;
    }
    Ok(steps)
}

/// The stream tells what a push takes and gives, and nothing that stays inside.
fn check_specs(stream: &Stream, case: &Case) {
    let inside = inside(case);
    for (specs, arrays) in [
        (stream.inputs(), &case.inputs),
        (stream.outputs(), &case.outputs),
    ] {
        let mut told: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        told.sort_unstable();
        let seen = arrays.keys().filter(|name| !inside.contains(name));
        assert_eq!(told, seen.map(String::as_str).collect::<Vec<_>>());
    }
}

fn check(model: &str, case: &str, place: Place, tolerance: f64) -> Result<()> {
    let (case, client) = (Case::read(case)?, client()?);
    // The second stream must not see the state that the first one left.
    for _ in 0..2 {
        let mut stream = client.open_stream(model, &place.required())?;
        check_specs(&stream, &case);
        let steps = play(&mut stream, &case, tolerance)?;
        let receipt = stream.close()?;
        place.check(model, &receipt);
        assert!(!receipt.model_digest.is_empty() && !receipt.library_version.is_empty());
        assert_eq!(receipt.steps, steps);
    }
    Ok(())
}

#[test]
fn speech_is_heard_over_many_steps() -> Result<()> {
    check("silero-vad", "silero_vad", ONNXRUNTIME, SPEECH_TOLERANCE)
}

#[test]
fn a_wake_word_is_heard_by_a_model_that_keeps_state_in_the_runtime() -> Result<()> {
    check("okay-nabu", "wake_word", XNNPACK, WAKE_WORD_TOLERANCE)
}

#[test]
fn two_streams_of_one_model_do_not_hear_each_other() -> Result<()> {
    let (case, client) = (Case::read("silero_vad")?, client()?);
    let inside = inside(&case);
    let options = ONNXRUNTIME.required();
    let mut early = client.open_stream("silero-vad", &options)?;
    let mut late = client.open_stream("silero-vad", &options)?;
    for step in 0..20 {
        for (stream, delay) in [(&mut early, 0), (&mut late, 7)] {
            let Some(step) = usize::checked_sub(step, delay) else {
                continue;
            };
            let result = stream.push(&inputs(&part(&case.inputs, step, &inside)), &[])?;
            let wanted = part(&case.outputs, step, &inside);
            check_outputs(&result.outputs, &wanted, SPEECH_TOLERANCE)?;
        }
    }
    Ok(())
}

/// A picture f32 `[1, 3, h, w]` of 0..1 as bytes `[h, w, 3]`.
fn bytes_of(picture: &Array) -> Vec<u8> {
    let values = picture.numbers();
    let plane = values.len() / 3;
    let pixel = |at: usize| [0, 1, 2].map(|c| (values[c * plane + at] * 255.0).round() as u8);
    (0..plane).flat_map(pixel).collect()
}

/// Bytes `[h, w, 3]` as the picture f32 `[1, 3, h, w]` that a model takes.
fn picture_of(bytes: &[u8]) -> Vec<u8> {
    let channel = |c: usize| bytes.iter().skip(c).step_by(3);
    let value = |&byte: &u8| (f32::from(byte) / 255.0).to_le_bytes();
    (0..3).flat_map(|c| channel(c).flat_map(value)).collect()
}

#[test]
fn frames_come_out_of_a_stream_with_new_ones_between() -> Result<()> {
    let (case, client) = (Case::read("rife")?, client()?);
    let place = ONNXRUNTIME;
    let shape = &case.inputs["img0"].shape;
    let (height, width) = (shape[2], shape[3]);
    let frames = ["img0", "img1"].map(|name| bytes_of(&case.inputs[name]));
    let pictures = frames.each_ref().map(|frame| picture_of(frame));
    let half = 0.5f32.to_le_bytes();
    let given = [
        Input::bytes("img0", DType::F32, shape, &pictures[0]),
        Input::bytes("img1", DType::F32, shape, &pictures[1]),
        Input::bytes("timestep", DType::F32, &[1, 1, 1, 1], &half),
    ];
    let result = client.infer("rife", &given, &[], &place.required())?;
    let middle = output(&result.outputs, "mid")?;
    let middle = bytes_of(&Array {
        dtype: middle.dtype,
        shape: middle.shape.clone(),
        bytes: middle.bytes().context("no target was named")?.to_vec(),
    });

    let mut stream = client.open_stream("rife", &place.required())?;
    assert_eq!(stream.inputs()[0].shape, [None, None, Some(3)]);
    assert_eq!(stream.outputs()[0].name, "frames");
    let (mut shown, size) = (Vec::new(), [height, width, 3]);
    for (frame, count) in frames.iter().zip([1, 2]) {
        let input = Input::bytes("frame", DType::U8, &size, frame);
        let result = stream.push(&[input], &[])?;
        let out = output(&result.outputs, "frames")?;
        assert_eq!(
            (out.dtype, out.shape.as_slice()),
            (DType::U8, [count, height, width, 3].as_slice())
        );
        shown.push(values(out)?);
    }
    let bytes = |frame: &[u8]| -> Vec<f64> { frame.iter().map(|&b| f64::from(b)).collect() };
    assert_eq!(shown[0], bytes(&frames[0]));
    let (between, last) = shown[1].split_at(frames[1].len());
    assert_eq!(last, bytes(&frames[1]));
    let difference = mote_tests::npy::max_difference(between, &bytes(&middle));
    assert!(difference <= COLOUR_TOLERANCE, "{difference}");
    let receipt = stream.close()?;
    place.check("rife", &receipt);
    Ok(())
}
