//! Requests that a model cannot serve, and parts that do not fit each other.

use crate::support::{Folder, picture, request};
use mote_pipeline::{
    GenerationJob, GenerationRequest, GenerationSegment, PipelineError, Rgb, SchedulerKind,
};
use serde_json::json;

#[test]
fn requests_are_refused_by_field_before_anything_is_computed() {
    let model = Folder::of("ltx").open();
    let lying = Rgb {
        width: 1 << 20,
        ..picture(8, 8, 0)
    };
    let segments = |count: usize| vec![GenerationSegment::new("a red square"); count];
    let cases: Vec<(&str, GenerationRequest)> = vec![
        (
            "segments",
            GenerationRequest {
                segments: Vec::new(),
                ..request("")
            },
        ),
        (
            "segments",
            GenerationRequest {
                segments: segments(17),
                ..request("")
            },
        ),
        ("segments[0].prompt", request(&"red ".repeat(12))),
        ("segments[0].prompt", request(&"x".repeat(1 << 20))),
        (
            "width",
            GenerationRequest {
                width: Some(33),
                ..request("a")
            },
        ),
        (
            "width",
            GenerationRequest {
                width: Some(u32::MAX),
                ..request("a")
            },
        ),
        (
            "height",
            GenerationRequest {
                height: Some(0),
                ..request("a")
            },
        ),
        (
            "frames",
            GenerationRequest {
                frames: Some(16_000),
                width: Some(16_384),
                ..request("a")
            },
        ),
        (
            "segments[0].frames",
            GenerationRequest {
                frames: Some(u32::MAX),
                ..request("a")
            },
        ),
        (
            "steps",
            GenerationRequest {
                steps: Some(1001),
                ..request("a")
            },
        ),
        (
            "steps",
            GenerationRequest {
                steps: Some(0),
                ..request("a")
            },
        ),
        (
            "frame_rate",
            GenerationRequest {
                frame_rate: Some(0),
                ..request("a")
            },
        ),
        (
            "guidance",
            GenerationRequest {
                guidance: Some(f32::NAN),
                ..request("a")
            },
        ),
        (
            "negative_prompt",
            GenerationRequest {
                negative_prompt: Some("b".into()),
                ..request("a")
            },
        ),
        (
            "first_image",
            GenerationRequest {
                first_image: Some(lying),
                ..request("a")
            },
        ),
        (
            "reference_image",
            GenerationRequest {
                reference: Some(picture(8, 8, 0)),
                ..request("a")
            },
        ),
        (
            "strength",
            GenerationRequest {
                strength: Some(0.5),
                ..request("a")
            },
        ),
        (
            "strength",
            GenerationRequest {
                strength: Some(0.01),
                source: Some(vec![picture(8, 8, 0)]),
                ..request("a")
            },
        ),
        (
            "source",
            GenerationRequest {
                source: Some(Vec::new()),
                ..request("a")
            },
        ),
        (
            "frames",
            GenerationRequest {
                frames: Some(8),
                last_image: Some(picture(8, 8, 0)),
                ..request("a")
            },
        ),
        (
            "scheduler",
            GenerationRequest {
                scheduler: Some(SchedulerKind::Ddim),
                ..request("a")
            },
        ),
    ];
    for (want, request) in cases {
        match GenerationJob::start(&model, request, None).err() {
            Some(PipelineError::Invalid { field, .. }) => assert_eq!(field, want),
            other => panic!("{want}: {other:?}"),
        }
    }
    let off = GenerationRequest {
        width: Some(63),
        ..request("a")
    };
    let error = GenerationJob::start(&model, off, None)
        .err()
        .expect("63 is no multiple of 8");
    assert!(error.to_string().ends_with("the nearest is 64"), "{error}");
}

#[test]
fn pictures_need_a_model_that_takes_them() {
    let with_picture = || GenerationRequest {
        first_image: Some(picture(32, 16, 0)),
        height: Some(16),
        frames: Some(5),
        ..request("a")
    };
    let folder = Folder::of("wan");
    let field = |error: Option<PipelineError>| match error {
        Some(PipelineError::Invalid { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    let model = folder.open();
    let error = GenerationJob::start(&model, with_picture(), None).err();
    assert_eq!(field(error), "first_image");
    let frames = GenerationRequest {
        source: Some(vec![picture(8, 8, 0)]),
        frames: Some(9),
        height: Some(16),
        ..request("a")
    };
    assert_eq!(
        field(GenerationJob::start(&model, frames, None).err()),
        "frames"
    );
    folder.remove("vae_encoder");
    let two = GenerationRequest {
        segments: vec![GenerationSegment::new("a"); 2],
        height: Some(16),
        frames: Some(4),
        ..request("")
    };
    assert_eq!(
        field(GenerationJob::start(&folder.open(), two, None).err()),
        "segments"
    );
}

#[test]
fn parts_that_do_not_fit_are_refused_by_name() {
    let refusal = |folder: &Folder| {
        let error = folder.open_with(|_| {}).err().expect("must be refused");
        let cause = std::error::Error::source(&error);
        format!(
            "{error}: {}",
            cause.map_or_else(String::new, ToString::to_string)
        )
    };
    let folder = || Folder::of("ltx");
    let message = refusal(folder().with_class("HunyuanVideoPipeline"));
    assert!(
        message.contains("HunyuanVideoPipeline") && message.contains("WanPipeline"),
        "{message}"
    );
    let message = refusal(folder().with_class("WanPipeline"));
    assert!(
        message.contains("hidden_states") || message.contains("video_coords"),
        "{message}"
    );
    for part in ["text_encoder", "vae_decoder"] {
        let message = refusal(folder().remove(part));
        assert!(message.contains(part), "{message}");
    }
    let channels = |config: &mut serde_json::Value| config["latent_channels"] = json!(16);
    let message = refusal(folder().edit("vae_decoder/config.json", channels));
    assert!(message.contains("latents_mean"), "{message}");
    let channels = |config: &mut serde_json::Value| {
        config["latent_channels"] = json!(16);
        config["latents_mean"] = json!(null);
        config["latents_std"] = json!(null);
    };
    let message = refusal(folder().edit("vae_decoder/config.json", channels));
    assert!(message.contains("latent_sample"), "{message}");
    let zero = |config: &mut serde_json::Value| config["spatial_compression_ratio"] = json!(0);
    assert!(refusal(folder().edit("vae_decoder/config.json", zero)).contains("malformed"));
    let unknown = |config: &mut serde_json::Value| config["no_such_option"] = json!(1);
    assert!(
        refusal(folder().edit("scheduler/scheduler_config.json", unknown)).contains("malformed")
    );
    let wan = Folder::of("wan");
    let message = refusal(wan.edit("model_index.json", |it| it["boundary_ratio"] = json!(null)));
    assert!(message.contains("transformer_2"), "{message}");
    let wan = Folder::of("wan");
    assert!(refusal(wan.remove("transformer_2")).contains("transformer_2"));
    let wan = Folder::of("wan");
    let held = wan.edit("model_index.json", |it| {
        it["expand_timesteps"] = json!(true)
    });
    assert!(refusal(held).contains("timestep"));
}
