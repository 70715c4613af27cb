//! Clip in, clip out.

use super::{FdSource, Parsed, invalid, limited, name, options, unless_zero};
use crate::fds::check_file;
use crate::limits::{CLIP_SIDE_PIXELS_MAX, ENCODER_SPEED_MAX, FRAME_RATE_MAX};
use crate::pb;
use crate::types::{ClipFormat, TransformClip};
use std::os::fd::OwnedFd;

pub(super) fn parse(clip: pb::TransformClip, fds: &mut FdSource) -> Parsed<TransformClip> {
    if !matches!(clip.factor, 2 | 4) {
        return Err(invalid("factor", "it is neither 2 nor 4"));
    }
    let at_most = |field: &'static str, value: u32, limit: u32| {
        limited(field, value as usize, limit as usize).map(|()| unless_zero(value))
    };
    let width_max = at_most("width_max", clip.width_max, CLIP_SIDE_PIXELS_MAX)?;
    let height_max = at_most("height_max", clip.height_max, CLIP_SIDE_PIXELS_MAX)?;
    let frame_rate = at_most("frame_rate", clip.frame_rate, FRAME_RATE_MAX)?;
    if let Some(speed) = clip.encoder_speed {
        at_most("encoder_speed", speed, ENCODER_SPEED_MAX)?;
    }
    let mut file = |field: &str, writable| {
        let fd = fds.take(field)?;
        check_file(&fd, field, writable).map(|()| fd)
    };
    Ok(TransformClip {
        model: name("model", clip.model)?,
        factor: clip.factor,
        output_format: parse_format(clip.output_format)?,
        frames_max: unless_zero(clip.frames_max),
        width_max,
        height_max,
        frame_rate,
        encoder_speed: clip.encoder_speed,
        preview_every: unless_zero(clip.preview_every),
        options: options::parse(clip.options)?,
        input: file("input", false)?,
        output: file("output", true)?,
        contact_sheet: match clip.contact_sheet {
            true => Some(file("contact_sheet", true)?),
            false => None,
        },
    })
}

pub(super) fn write(clip: TransformClip, fds: &mut Vec<OwnedFd>) -> pb::TransformClip {
    let contact_sheet = clip.contact_sheet.is_some();
    fds.extend([clip.input, clip.output]);
    fds.extend(clip.contact_sheet);
    let output_format = match clip.output_format {
        ClipFormat::Mp4Av1 => pb::ClipFormat::Mp4Av1,
        ClipFormat::Gif => pb::ClipFormat::Gif,
        ClipFormat::PngStream => pb::ClipFormat::PngStream,
    };
    pb::TransformClip {
        model: clip.model,
        factor: clip.factor,
        output_format: output_format.into(),
        contact_sheet,
        frames_max: clip.frames_max.unwrap_or_default(),
        width_max: clip.width_max.unwrap_or_default(),
        height_max: clip.height_max.unwrap_or_default(),
        frame_rate: clip.frame_rate.unwrap_or_default(),
        encoder_speed: clip.encoder_speed,
        preview_every: clip.preview_every.unwrap_or_default(),
        options: options::write(clip.options),
    }
}

fn parse_format(format: i32) -> Parsed<ClipFormat> {
    match pb::ClipFormat::try_from(format) {
        Ok(pb::ClipFormat::Unspecified | pb::ClipFormat::Mp4Av1) => Ok(ClipFormat::Mp4Av1),
        Ok(pb::ClipFormat::Gif) => Ok(ClipFormat::Gif),
        Ok(pb::ClipFormat::PngStream) => Ok(ClipFormat::PngStream),
        Err(_) => Err(invalid("output_format", "it is unknown")),
    }
}
