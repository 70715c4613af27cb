//! Every case of `golden.json`.

use crate::support::{Folder, frames, models, picture, request};
use mote_pipeline::{GenerationModel, GenerationRequest, Rgb};
use serde_json::{Value, json};
use std::fs;
use std::sync::Arc;

/// Difference allowed between a value of ours and one of diffusers', both in 0..1.
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
    let guidance = ["guidance", "guidance_low"].map(|key| case[key].as_f64().map(|it| it as f32));
    let opened = folder.open_with(|spec| [spec.guidance, spec.guidance_low] = guidance);
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

#[test]
fn clips_equal_those_of_diffusers() {
    let text = fs::read(models().join("golden.json")).expect("it is in git");
    let cases: Vec<Value> = serde_json::from_slice(&text).expect("JSON");
    assert!(cases.len() >= 13);
    for case in &cases {
        let made = frames(&model(case), request_of(case));
        let error = difference(&made, case);
        eprintln!("{}: {error:.6} beyond rounding", case["name"]);
        assert!(error <= ERROR_MAX, "{}: {error}", case["name"]);
    }
}
