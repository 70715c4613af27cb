//! Every case of `golden.json`.

use crate::support::{Folder, models, picture, request, whole};
use mote_pipeline::{GenerationModel, GenerationRequest, Rgb};
use serde_json::{Value, json};
use std::fs;
use std::sync::Arc;

/// Difference allowed between a value of ours and one of diffusers', colours in 0..1 and sound in -1..1.
const ERROR_MAX: f64 = 1e-3;

fn model(case: &Value) -> Arc<GenerationModel> {
    let folder = Folder::of(case["folder"].as_str().expect("a folder"));
    let class = case["class"].as_str().expect("a class");
    folder.with_class(class);
    if class == "LTXConditionPipeline" {
        // Which takes no shift that depends on the clip's size.
        folder.edit("scheduler/scheduler_config.json", |config| {
            config["use_dynamic_shifting"] = json!(false);
            config["shift_terminal"] = Value::Null;
        });
    }
    if let Some(over) = case["over"].as_str() {
        folder.overlay(over);
    }
    if case["experts"] == 1 {
        folder
            .remove("transformer_2")
            .edit("model_index.json", |index| {
                index["boundary_ratio"] = Value::Null;
            });
    }
    if case["expand_timesteps"] == true {
        folder.edit("model_index.json", |index| {
            index["expand_timesteps"] = json!(true)
        });
    }
    let real = |key: &str| case[key].as_f64().map(|it| it as f32);
    let opened = folder.open_with(|spec| {
        spec.guidance = real("guidance");
        spec.guidance_low = real("guidance_low");
        spec.guidance_audio = real("guidance_audio");
        spec.guidance_rescale = real("guidance_rescale");
        if let Some(tokens) = case["prompt_tokens"].as_u64() {
            spec.prompt_tokens = Some(tokens as u32);
        }
    });
    opened.expect("the parts fit")
}

fn request_of(case: &Value) -> GenerationRequest {
    let number = |key: &str| case[key].as_u64().map(|value| value as u32);
    let real = |key: &str| case[key].as_f64().map(|value| value as f32);
    let (width, height) = (number("width"), number("height"));
    let [w, h] = [width, height].map(|side| side.expect("a size") as usize);
    let image = |key: &str| case[key].as_u64().map(|it| picture(w, h, it as usize));
    let source = case["source"].as_u64();
    GenerationRequest {
        width,
        height,
        frames: number("frames"),
        frame_rate: number("frame_rate"),
        steps: number("steps"),
        seed: case["seed"].as_u64().expect("a seed"),
        // By the manifest, which can say it for two experts.
        guidance: None,
        negative_prompt: case["negative_prompt"].as_str().map(str::to_owned),
        first_image: image("first_image"),
        last_image: image("last_image"),
        reference: image("reference"),
        source: source.map(|count| (0..count as usize).map(|it| picture(w, h, it)).collect()),
        strength: real("strength"),
        ..request(case["prompt"].as_str().expect("a prompt"))
    }
}

/// The largest difference, less what rounding to 8 bits may add, in 0..1.
fn difference(have: &[Rgb], case: &Value) -> f64 {
    let name = case["name"].as_str().expect("a name");
    let bytes = fs::read(models().join(format!("golden/{name}.u16"))).expect("it is in git");
    let want = bytes.as_chunks().0.iter();
    let want: Vec<f64> = want
        .map(|&it| f64::from(u16::from_le_bytes(it)) / 65535.0)
        .collect();
    let have: Vec<u8> = have.iter().flat_map(|frame| &frame.rgb8).copied().collect();
    assert_eq!(have.len(), want.len(), "{name}");
    let pairs = have.iter().zip(&want);
    let of_one = |(&have, want): (&u8, &f64)| (f64::from(have) - want * 255.0).abs();
    (pairs.map(of_one).fold(0.0, f64::max) - 0.5) / 255.0
}

/// The largest difference of sound, and that samples after the last of diffusers' are silence: the clip goes on
/// a little longer.
fn sound_difference(have: &[f32], case: &Value) -> f64 {
    let name = case["name"].as_str().expect("a name");
    let bytes = fs::read(models().join(format!("golden/{name}.f32"))).expect("it is in git");
    let want: Vec<f32> = bytes
        .as_chunks()
        .0
        .iter()
        .map(|&it| f32::from_le_bytes(it))
        .collect();
    let shape = (&case["sound"][0], &case["sound"][1]);
    assert_eq!(shape, (&json!(want.len() / 2), &json!(2)), "{name}");
    assert!(
        have.len() >= want.len(),
        "{name}: {} samples",
        have.len() / 2
    );
    assert!(have[want.len()..].iter().all(|&it| it == 0.0), "{name}");
    let pairs = have.iter().zip(&want);
    pairs
        .map(|(have, want)| f64::from((have - want).abs()))
        .fold(0.0, f64::max)
}

#[test]
fn clips_equal_those_of_diffusers() {
    let text = fs::read(models().join("golden.json")).expect("it is in git");
    let cases: Vec<Value> = serde_json::from_slice(&text).expect("JSON");
    assert!(cases.len() >= 22);
    for case in &cases {
        let (made, sound) = whole(&model(case), request_of(case));
        let error = difference(&made, case);
        eprintln!("{}: {error:.6} beyond rounding", case["name"]);
        assert!(error <= ERROR_MAX, "{}: {error}", case["name"]);
        match case["sound"].is_null() {
            true => assert!(sound.is_empty(), "{}", case["name"]),
            false => {
                let error = sound_difference(&sound, case);
                eprintln!("{}: {error:.6} of sound", case["name"]);
                assert!(error <= ERROR_MAX, "{}: {error}", case["name"]);
            }
        }
    }
}
