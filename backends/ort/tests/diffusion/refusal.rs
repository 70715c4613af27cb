//! Requests that a model cannot serve, and parts that do not fit each other.

use crate::support::{Folder, picture, request};
use mote_pipeline::{
    GenerationJob, GenerationRequest, GenerationSegment, GenerationStep, PipelineError, Rgb,
    SchedulerKind,
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
                source: Some([picture(8, 8, 0)].into()),
                ..request("a")
            },
        ),
        (
            "source",
            GenerationRequest {
                source: Some([].into()),
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
        source: Some([picture(8, 8, 0)].into()),
        frames: Some(9),
        height: Some(16),
        ..request("a")
    };
    assert_eq!(
        field(GenerationJob::start(&model, frames, None).err()),
        "frames"
    );
    // Models that look at pictures take as many as they were made for.
    let looking = |over: &str| {
        let wan = Folder::of("wan");
        wan.overlay(over).with_class("WanImageToVideoPipeline");
        wan.remove("transformer_2");
        wan.edit("model_index.json", |it| it["boundary_ratio"] = json!(null));
        wan.open()
    };
    let (one, pair) = (looking("wan-clip"), looking("wan-clip-pair"));
    let last = GenerationRequest {
        last_image: Some(picture(32, 16, 1)),
        ..with_picture()
    };
    let shots = GenerationRequest {
        segments: vec![GenerationSegment::new("a"); 2],
        ..last.clone()
    };
    for (model, asked, wanted) in [
        (&one, &last, "last_image"),
        (&pair, &with_picture(), "last_image"),
        (&pair, &shots, "segments"),
    ] {
        let error = GenerationJob::start(model, asked.clone(), None).err();
        assert_eq!(field(error), wanted);
    }
    assert!(GenerationJob::start(&pair, last, None).is_ok());
    // Sound cannot be made anew with a clip, nor go on where no picture can be held.
    let sounding = Folder::of("ltx2");
    let anew = GenerationRequest {
        source: Some(vec![picture(32, 32, 0); 9].into()),
        ..request("a")
    };
    let error = GenerationJob::start(&sounding.open(), anew, None).err();
    assert_eq!(field(error), "source");
    let vace = Folder::of("wan");
    vace.overlay("wan-vace").with_class("WanVACEPipeline");
    vace.remove("transformer_2");
    vace.edit("model_index.json", |it| it["boundary_ratio"] = json!(null));
    let anew = GenerationRequest {
        source: Some(vec![picture(32, 16, 0); 5].into()),
        height: Some(16),
        frames: Some(5),
        ..request("a")
    };
    let error = GenerationJob::start(&vace.open(), anew, None).err();
    assert_eq!(field(error), "source");
    // A vocoder of another rate than its config says would be heard as another pitch.
    let faster = Folder::of("ltx2");
    faster.edit("vocoder/config.json", |config| {
        config["output_sampling_rate"] = json!(16_000)
    });
    let mut job = GenerationJob::start(&faster.open(), request("a"), None).expect("it starts");
    let error = loop {
        match job.step() {
            Ok(GenerationStep::Ended) => panic!("it was made"),
            Ok(_) => {}
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("waveform"), "{error}");
    let fine = Folder::of("ltx2");
    fine.edit("audio_vae_decoder/config.json", |config| {
        config["sample_rate"] = json!(192_000);
        config["mel_hop_length"] = json!(1);
        config["temporal_compression_ratio"] = json!(1);
    });
    let long = GenerationRequest {
        frames: Some(1025),
        frame_rate: Some(1),
        ..request("a")
    };
    let error = GenerationJob::start(&fine.open(), long, None).err();
    assert_eq!(
        field(error),
        "frames",
        "two hundred million latents of sound"
    );
    let shots = GenerationRequest {
        segments: vec![GenerationSegment::new("a"); 2],
        ..request("")
    };
    let error = GenerationJob::start(&sounding.remove("vae_encoder").open(), shots, None).err();
    assert_eq!(field(error), "segments");
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
        config["latents_mean"] = json!(vec![0.0; 16]);
        config["latents_std"] = json!(vec![1.0; 16]);
    };
    let message = refusal(folder().edit("vae_decoder/config.json", channels));
    assert!(message.contains("latent_sample"), "{message}");
    // diffusers keeps them elsewhere, and without them all would be computed, and wrong.
    let nothing = |config: &mut serde_json::Value| config["latents_std"] = json!(null);
    for (model, file) in [
        ("ltx", "vae_decoder/config.json"),
        ("ltx2", "vae_decoder/config.json"),
        ("ltx2", "audio_vae_decoder/config.json"),
    ] {
        let message = refusal(Folder::of(model).edit(file, nothing));
        assert!(
            message.contains("latents_std") && message.contains("export"),
            "{message}"
        );
    }
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
    for part in ["connectors", "audio_vae_decoder", "vocoder"] {
        let message = refusal(Folder::of("ltx2").remove(part));
        assert!(message.contains(part), "{message}");
    }
    let folder = || Folder::of("ltx2");
    for (file, key, value, said) in [
        (
            "audio_vae_decoder/config.json",
            "mel_bins",
            json!(0),
            "malformed",
        ),
        (
            "audio_vae_decoder/config.json",
            "mel_bins",
            json!(64),
            "latents_mean",
        ),
        (
            "audio_vae_decoder/config.json",
            "sample_rate",
            json!(0),
            "malformed",
        ),
        (
            "audio_vae_decoder/config.json",
            "mel_hop_length",
            json!(1u64 << 40),
            "malformed",
        ),
        (
            "vocoder/config.json",
            "output_sampling_rate",
            json!(1 << 30),
            "malformed",
        ),
        ("vocoder/config.json", "out_channels", json!(1), "waveform"),
        (
            "vocoder/config.json",
            "out_channels",
            json!(60_000),
            "malformed",
        ),
    ] {
        let message = refusal(folder().edit(file, |config| config[key] = value.clone()));
        assert!(message.contains(said), "{file} {key}: {message}");
    }
    let error = folder()
        .open_with(|spec| spec.prompt_tokens = Some(13))
        .err();
    let message = error.expect("its connectors take 12").to_string();
    assert!(message.contains("generation.prompt_tokens"), "{message}");
    let looking = |over: &str| {
        let wan = Folder::of("wan");
        wan.overlay(over).with_class("WanImageToVideoPipeline");
        wan.remove("transformer_2");
        wan.edit("model_index.json", |it| it["boundary_ratio"] = json!(null));
        wan
    };
    let message = refusal(looking("wan-clip").remove("image_encoder"));
    assert!(message.contains("image_encoder"), "{message}");
    let crop = |config: &mut serde_json::Value| {
        config["size"] = json!({"shortest_edge": 16});
        config["crop_size"] = json!({"height": 16, "width": 16});
    };
    let cropped = looking("wan-clip");
    let message = refusal(cropped.edit("image_processor/preprocessor_config.json", crop));
    assert!(message.contains("pixel_values"), "{message}");
    let two = |config: &mut serde_json::Value| config["pos_embed_seq_len"] = json!(10);
    let message = refusal(looking("wan-clip").edit("transformer/config.json", two));
    assert!(message.contains("encoder_hidden_states_image"), "{message}");
    // An encoder of pictures, and a denoiser that does not look at any.
    let idle = looking("wan-clip");
    idle.overlay("wan-vace").with_class("WanVACEPipeline");
    let message = refusal(&idle);
    assert!(message.contains("image_encoder"), "{message}");
    let vace = looking("wan-vace");
    assert!(refusal(&vace).contains("WanVACEPipeline"));
    let message = refusal(vace.with_class("WanVACEPipeline").remove("vae_encoder"));
    assert!(message.contains("vae_encoder"), "{message}");
    let message = refusal(looking("wan-image").with_class("WanVACEPipeline"));
    assert!(message.contains("control_hidden_states"), "{message}");
    let wan = Folder::of("wan");
    let held = wan.edit("model_index.json", |it| {
        it["expand_timesteps"] = json!(true)
    });
    assert!(refusal(held).contains("timestep"));
}
