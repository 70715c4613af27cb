//! Requests about clips and answers to them, as they were first written.

use super::sealed;
use mote_wire::types::*;

/// With what every kind of work may ask for.
pub fn clip_requests(options: &dyn Fn() -> WorkOptions) -> Vec<(&'static str, Request)> {
    vec![
        (
            "request_transform_clip",
            Request::TransformClip(TransformClip {
                model: "rife".into(),
                factor: 4,
                output_format: ClipFormat::PngStream,
                frames_max: Some(100),
                width_max: Some(640),
                height_max: Some(360),
                frame_rate: Some(25),
                encoder_speed: Some(0),
                preview_every: Some(8),
                tile_side_max: None,
                options: options(),
                input: sealed(1),
                output: sealed(1),
                contact_sheet: Some(sealed(1)),
            }),
        ),
        (
            "request_restore_clip",
            Request::TransformClip(TransformClip {
                model: "animesr".into(),
                factor: 0,
                output_format: ClipFormat::Webp,
                frames_max: None,
                width_max: None,
                height_max: None,
                frame_rate: None,
                encoder_speed: None,
                preview_every: None,
                tile_side_max: Some(256),
                options: options(),
                input: sealed(1),
                output: sealed(1),
                contact_sheet: None,
            }),
        ),
        (
            "request_generate_clip",
            Request::GenerateClip(Box::new(GenerateClip {
                segments: vec![
                    ClipSegment {
                        prompt: "a red square moves left".into(),
                        frames: Some(17),
                    },
                    ClipSegment {
                        prompt: "円が回る".into(),
                        frames: None,
                    },
                ],
                negative_prompt: "blur".into(),
                guidance: Some(3.5),
                seed: Some(7),
                steps: Some(4),
                width: Some(64),
                height: Some(48),
                frame_rate: Some(8),
                scheduler: Some("euler".into()),
                strength: Some(0.75),
                output_format: ClipFormat::WebmAv1,
                encoder_speed: Some(8),
                preview_every: Some(1),
                send_frames: true,
                options: options(),
                contact_sheet: Some(sealed(1)),
                first_image: Some(sealed(1)),
                source: Some(sealed(1)),
                checkpoint: Some(sealed(1)),
                ..GenerateClip::new("shapes", "", sealed(1))
            })),
        ),
        (
            "request_generate_clip_audio",
            Request::GenerateClip(Box::new(GenerateClip {
                send_audio: true,
                options: options(),
                ..GenerateClip::new("waves", "rain on a roof", sealed(1))
            })),
        ),
        (
            "request_label_clip",
            Request::LabelClip(LabelClip {
                model: "detector".into(),
                frames_max: Some(250),
                every: Some(5),
                frame_rate: Some(25),
                labels_max: Some(3),
                score_min: Some(0.25),
                options: options(),
                input: sealed(1),
            }),
        ),
        (
            "request_pause",
            Request::Pause {
                target: 7,
                paused: true,
            },
        ),
        (
            "request_steer_clip",
            Request::SteerClip(SteerClip {
                target: 7,
                prompt: "a blue circle grows".into(),
            }),
        ),
    ]
}

pub fn clip_replies() -> Vec<(&'static str, Reply)> {
    vec![
        (
            "reply_steered",
            Reply::Steered(Steered::From { segment: 3 }),
        ),
        // The first shot is told from none.
        (
            "reply_steered_first",
            Reply::Steered(Steered::From { segment: 0 }),
        ),
        (
            "reply_steered_not_taken",
            Reply::Steered(Steered::not_taken("prompt: no segment follows")),
        ),
    ]
}
