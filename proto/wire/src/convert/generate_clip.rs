//! Clips of words and pictures, and what is seen in clips.

use super::clip::{parse_format, write_format};
use super::{FdSource, Parsed, check_length, invalid, limited, name, options, unless_zero};
use crate::fds::check_file;
use crate::limits::{
    CLIP_SEGMENTS_MAX, CLIP_SIDE_PIXELS_MAX, CLIP_STEPS_MAX, ENCODER_SPEED_MAX, FRAME_RATE_MAX,
    FRAMES_GENERATED_MAX, GUIDANCE_MAX, LABELS_MAX, PROMPT_BYTES_MAX, STEERED_WHY_BYTES_MAX,
};
use crate::pb;
use crate::types::{ClipSegment, FrameLabels, GenerateClip, Label, LabelBox, LabelClip, Steered};
use std::os::fd::OwnedFd;

fn at_most(field: &'static str, value: u32, limit: u32) -> Parsed<Option<u32>> {
    limited(field, value as usize, limit as usize).map(|()| unless_zero(value))
}

/// A number within limits; `None` stays.
fn number(field: &str, value: Option<f32>, holds: impl Fn(f32) -> bool) -> Parsed<Option<f32>> {
    match value {
        Some(number) if !holds(number) => Err(invalid(field, format!("{number} is out of range"))),
        other => Ok(other),
    }
}

pub(super) fn parse(clip: pb::GenerateClip, fds: &mut FdSource) -> Parsed<GenerateClip> {
    let segments = parse_segments(clip.segments)?;
    check_prompt("negative_prompt", &clip.negative_prompt)?;
    check_length("scheduler", &clip.scheduler)?;
    if let Some(speed) = clip.encoder_speed {
        at_most("encoder_speed", speed, ENCODER_SPEED_MAX)?;
    }
    let guidance = number("guidance", clip.guidance, |guidance| {
        (0.0..=GUIDANCE_MAX).contains(&guidance)
    })?;
    let strength = number("strength", clip.strength, |strength| {
        strength > 0.0 && strength <= 1.0
    })?;
    if strength.is_some() && !clip.source {
        return Err(invalid(
            "strength",
            "there is no source that it could be of",
        ));
    }
    let mut file = |field: &str, writable| {
        let fd = fds.take(field)?;
        check_file(&fd, field, writable).map(|()| fd)
    };
    let mut asked =
        |is_asked: bool, field: &str, writable| is_asked.then(|| file(field, writable)).transpose();
    let Some(output) = asked(true, "output", true)? else {
        return Err(invalid("output", "its descriptor is missing"));
    };
    Ok(GenerateClip {
        model: name("model", clip.model)?,
        segments,
        negative_prompt: clip.negative_prompt,
        guidance,
        seed: clip.seed,
        steps: at_most("steps", clip.steps, CLIP_STEPS_MAX)?,
        width: at_most("width", clip.width, CLIP_SIDE_PIXELS_MAX)?,
        height: at_most("height", clip.height, CLIP_SIDE_PIXELS_MAX)?,
        frame_rate: at_most("frame_rate", clip.frame_rate, FRAME_RATE_MAX)?,
        scheduler: Some(clip.scheduler).filter(|name| !name.is_empty()),
        strength,
        output_format: parse_format(clip.output_format)?,
        encoder_speed: clip.encoder_speed,
        preview_every: unless_zero(clip.preview_every),
        send_frames: clip.send_frames,
        send_audio: clip.send_audio,
        options: options::parse(clip.options)?,
        output,
        contact_sheet: asked(clip.contact_sheet, "contact_sheet", true)?,
        first_image: asked(clip.first_image, "first_image", false)?,
        last_image: asked(clip.last_image, "last_image", false)?,
        reference_image: asked(clip.reference_image, "reference_image", false)?,
        source: asked(clip.source, "source", false)?,
        checkpoint: asked(clip.checkpoint, "checkpoint", true)?,
    })
}

fn parse_segments(segments: Vec<pb::ClipSegment>) -> Parsed<Vec<ClipSegment>> {
    if segments.is_empty() {
        return Err(invalid("segments", "there are none"));
    }
    limited("segments", segments.len(), CLIP_SEGMENTS_MAX)?;
    let bytes = segments.iter().map(|segment| segment.prompt.len()).sum();
    limited("bytes of segments", bytes, PROMPT_BYTES_MAX)?;
    let parse = |(index, segment): (usize, pb::ClipSegment)| {
        check_prompt(&format!("segments[{index}].prompt"), &segment.prompt)?;
        Ok(ClipSegment {
            prompt: segment.prompt,
            frames: at_most("frames", segment.frames, FRAMES_GENERATED_MAX)?,
        })
    };
    segments.into_iter().enumerate().map(parse).collect()
}

/// A prompt may be empty, which is how a model is asked to do as it likes.
pub(crate) fn check_prompt(field: &str, prompt: &str) -> Parsed<()> {
    limited(
        format_args!("bytes of {field}"),
        prompt.len(),
        PROMPT_BYTES_MAX,
    )?;
    if prompt.contains('\0') {
        return Err(invalid(field, "it holds a NUL"));
    }
    Ok(())
}

pub(super) fn write(clip: GenerateClip, fds: &mut Vec<OwnedFd>) -> pb::GenerateClip {
    fds.push(clip.output);
    let mut pass = |fd: Option<OwnedFd>| {
        let is_there = fd.is_some();
        fds.extend(fd);
        is_there
    };
    let segment = |segment: ClipSegment| pb::ClipSegment {
        prompt: segment.prompt,
        frames: segment.frames.unwrap_or_default(),
    };
    pb::GenerateClip {
        contact_sheet: pass(clip.contact_sheet),
        first_image: pass(clip.first_image),
        last_image: pass(clip.last_image),
        reference_image: pass(clip.reference_image),
        source: pass(clip.source),
        checkpoint: pass(clip.checkpoint),
        model: clip.model,
        segments: clip.segments.into_iter().map(segment).collect(),
        negative_prompt: clip.negative_prompt,
        guidance: clip.guidance,
        seed: clip.seed,
        steps: clip.steps.unwrap_or_default(),
        width: clip.width.unwrap_or_default(),
        height: clip.height.unwrap_or_default(),
        frame_rate: clip.frame_rate.unwrap_or_default(),
        scheduler: clip.scheduler.unwrap_or_default(),
        strength: clip.strength,
        output_format: write_format(clip.output_format).into(),
        encoder_speed: clip.encoder_speed,
        preview_every: clip.preview_every.unwrap_or_default(),
        send_frames: clip.send_frames,
        send_audio: clip.send_audio,
        options: options::write(clip.options),
    }
}

pub(super) fn parse_label(clip: pb::LabelClip, fds: &mut FdSource) -> Parsed<LabelClip> {
    let score_min = number("score_min", clip.score_min, f32::is_finite)?;
    let input = fds.take("input")?;
    check_file(&input, "input", false)?;
    Ok(LabelClip {
        model: name("model", clip.model)?,
        frames_max: unless_zero(clip.frames_max),
        every: unless_zero(clip.every),
        frame_rate: at_most("frame_rate", clip.frame_rate, FRAME_RATE_MAX)?,
        labels_max: at_most("labels_max", clip.labels_max, LABELS_MAX as u32)?,
        score_min,
        options: options::parse(clip.options)?,
        input,
    })
}

pub(super) fn write_label(clip: LabelClip, fds: &mut Vec<OwnedFd>) -> pb::LabelClip {
    fds.push(clip.input);
    pb::LabelClip {
        model: clip.model,
        frames_max: clip.frames_max.unwrap_or_default(),
        every: clip.every.unwrap_or_default(),
        frame_rate: clip.frame_rate.unwrap_or_default(),
        labels_max: clip.labels_max.unwrap_or_default(),
        score_min: clip.score_min,
        options: options::write(clip.options),
    }
}

pub(super) fn parse_labels(labels: pb::FrameLabels) -> Parsed<FrameLabels> {
    limited("labels", labels.labels.len(), LABELS_MAX)?;
    limited("boxes", labels.boxes.len(), LABELS_MAX)?;
    let label = |pb::Label {
                     class,
                     label,
                     score,
                 }| Label {
        class,
        label,
        score,
    };
    let place = |one: pb::LabelBox| LabelBox {
        label: label(one.label.unwrap_or_default()),
        x0: one.x0,
        y0: one.y0,
        x1: one.x1,
        y1: one.y1,
    };
    Ok(FrameLabels {
        frame_index: labels.frame_index,
        frame_count: labels.frame_count,
        time_us: labels.time_us,
        labels: labels.labels.into_iter().map(label).collect(),
        boxes: labels.boxes.into_iter().map(place).collect(),
    })
}

pub(super) fn write_labels(labels: FrameLabels) -> pb::FrameLabels {
    let label = |Label {
                     class,
                     label,
                     score,
                 }| pb::Label {
        class,
        label,
        score,
    };
    let place = |one: LabelBox| pb::LabelBox {
        label: Some(label(one.label)),
        x0: one.x0,
        y0: one.y0,
        x1: one.x1,
        y1: one.y1,
    };
    pb::FrameLabels {
        frame_index: labels.frame_index,
        frame_count: labels.frame_count,
        time_us: labels.time_us,
        labels: labels.labels.into_iter().map(label).collect(),
        boxes: labels.boxes.into_iter().map(place).collect(),
    }
}

pub(super) fn parse_steered(steered: pb::Steered) -> Parsed<Steered> {
    let pb::Steered { from_segment, why } = steered;
    limited("bytes of why", why.len(), STEERED_WHY_BYTES_MAX)?;
    match from_segment {
        Some(_) if !why.is_empty() => Err(invalid("why", "the prompt is taken")),
        Some(segment) => {
            limited("from_segment", segment as usize, CLIP_SEGMENTS_MAX - 1)?;
            Ok(Steered::From { segment })
        }
        None if why.is_empty() => Err(invalid("why", "it is missing")),
        None => Ok(Steered::NotTaken { why }),
    }
}

pub(super) fn write_steered(steered: Steered) -> pb::Steered {
    let (from_segment, why) = match steered {
        Steered::From { segment } => (Some(segment), String::new()),
        Steered::NotTaken { why } => (None, why),
    };
    pb::Steered { from_segment, why }
}
