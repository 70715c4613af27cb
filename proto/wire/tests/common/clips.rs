//! Requests about clips, what they become, and what is seen in them.

use super::generate::{name, options, some, tensor, text};
use super::sealed;
use mote_wire::limits::CLIP_SEGMENTS_MAX;
use mote_wire::types::*;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

pub fn transform_clip() -> impl Strategy<Value = TransformClip> {
    let format = prop::sample::select(vec![
        ClipFormat::Mp4Av1,
        ClipFormat::Gif,
        ClipFormat::PngStream,
        ClipFormat::WebmAv1,
        ClipFormat::Webp,
        ClipFormat::RawRgb8,
        ClipFormat::Y4m,
    ]);
    let sizes = (some(1..=16_384u32), some(1..=16_384u32), some(1..=1000u32));
    let rest = (
        some(1..=u64::MAX),
        some(0..=10u32),
        some(1..=u32::MAX),
        some(1..=u32::MAX),
    );
    let factor = prop::sample::select(vec![0u32, 2, 4]);
    (
        name(),
        factor,
        format,
        sizes,
        rest,
        any::<bool>(),
        options(),
    )
        .prop_map(
            |(model, factor, output_format, sizes, rest, sheet, options)| TransformClip {
                model,
                factor,
                output_format,
                width_max: sizes.0,
                height_max: sizes.1,
                frame_rate: sizes.2,
                frames_max: rest.0,
                encoder_speed: rest.1,
                preview_every: rest.2,
                tile_side_max: rest.3,
                options,
                input: sealed(1),
                output: sealed(1),
                contact_sheet: sheet.then(|| sealed(1)),
            },
        )
}

pub fn generate_clip() -> impl Strategy<Value = GenerateClip> {
    let segments = vec(("[^\u{0}]{0,9}", some(1..=4096u32)), 1..4);
    let numbers = (
        some(0..=100u8),
        any::<Option<u64>>(),
        some(1..=1000u32),
        some(1..=16_384u32),
        some(1..=16_384u32),
        some(1..=1000u32),
    );
    let scheduler = of("[a-z]{1,9}");
    let files = any::<[bool; 6]>();
    let rest = (some(0..=10u32), some(1..=u32::MAX), any::<[bool; 2]>());
    (
        name(),
        segments,
        "[^\u{0}]{0,9}",
        numbers,
        scheduler,
        files,
        rest,
        options(),
    )
        .prop_map(
            |(model, segments, negative_prompt, numbers, scheduler, files, rest, options)| {
                let segment = |(prompt, frames)| ClipSegment { prompt, frames };
                let file = |index: usize| files[index].then(|| sealed(1));
                GenerateClip {
                    segments: segments.into_iter().map(segment).collect(),
                    negative_prompt,
                    guidance: numbers.0.map(f32::from),
                    seed: numbers.1,
                    steps: numbers.2,
                    width: numbers.3,
                    height: numbers.4,
                    frame_rate: numbers.5,
                    scheduler,
                    strength: files[4].then_some(0.5),
                    output_format: ClipFormat::WebmAv1,
                    encoder_speed: rest.0,
                    preview_every: rest.1,
                    send_frames: rest.2[0],
                    send_audio: rest.2[1],
                    options,
                    contact_sheet: file(0),
                    first_image: file(1),
                    last_image: file(2),
                    reference_image: file(3),
                    source: file(4),
                    checkpoint: file(5),
                    ..GenerateClip::new(model, "", sealed(1))
                }
            },
        )
}

pub fn label_clip() -> impl Strategy<Value = LabelClip> {
    let numbers = (
        some(1..=u64::MAX),
        some(1..=u32::MAX),
        some(1..=1000u32),
        some(1..=1024u32),
        some(0..=9u8),
    );
    (name(), numbers, options()).prop_map(|(model, numbers, options)| LabelClip {
        model,
        frames_max: numbers.0,
        every: numbers.1,
        frame_rate: numbers.2,
        labels_max: numbers.3,
        score_min: numbers.4.map(f32::from),
        options,
        input: sealed(1),
    })
}

pub fn preview() -> impl Strategy<Value = Preview> {
    let png = vec(any::<u8>(), 0..64);
    (any::<u64>(), any::<u32>(), any::<u32>(), png).prop_map(|(frame_index, width, height, png)| {
        Preview {
            frame_index,
            width,
            height,
            png,
        }
    })
}

pub fn frame_out() -> impl Strategy<Value = FrameOut> {
    (any::<u64>(), tensor(true)).prop_map(|(frame_index, frame)| FrameOut { frame_index, frame })
}

pub fn audio_out() -> impl Strategy<Value = AudioOut> {
    let size = (1..5u64, 1..=8u64);
    let place = (0..=u64::MAX - 5, 1..=192_000u32);
    (size, place, text(), any::<bool>()).prop_map(
        |((samples, channels), (sample_index, sample_rate), name, is_passed)| {
            let bytes = 4 * samples * channels;
            let data = match is_passed {
                true => TensorData::Passed {
                    fd: sealed(bytes),
                    bytes,
                },
                false => TensorData::Inline(vec![63; bytes as usize]),
            };
            AudioOut {
                sample_index,
                sample_rate,
                audio: Tensor {
                    name,
                    dtype: DType::F32,
                    shape: vec![samples, channels],
                    data,
                },
            }
        },
    )
}

pub fn steered() -> impl Strategy<Value = Steered> {
    prop_oneof![
        (0..CLIP_SEGMENTS_MAX as u32).prop_map(|segment| Steered::From { segment }),
        text().prop_map(|why| Steered::not_taken(format_args!("!{why}"))),
    ]
}

pub fn frame_labels() -> impl Strategy<Value = FrameLabels> {
    let label = || {
        (any::<u32>(), text(), any::<u8>()).prop_map(|(class, label, score)| Label {
            class,
            label,
            score: f32::from(score),
        })
    };
    let place = (label(), any::<[u8; 4]>()).prop_map(|(label, at)| {
        let [x0, y0, x1, y1] = at.map(f32::from);
        LabelBox {
            label,
            x0,
            y0,
            x1,
            y1,
        }
    });
    (
        any::<(u64, u64, u64)>(),
        vec(label(), 0..4),
        vec(place, 0..4),
    )
        .prop_map(
            |((frame_index, time_us, frame_count), labels, boxes)| FrameLabels {
                frame_index,
                frame_count,
                time_us,
                labels,
                boxes,
            },
        )
}
