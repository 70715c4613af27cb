//! Clip in, clip out.

use super::{FdSource, Parsed, invalid, limited, name, options, unless_zero};
use crate::fds::check_file;
use crate::limits::{CLIP_SIDE_PIXELS_MAX, ENCODER_SPEED_MAX, FRAME_RATE_MAX};
use crate::pb;
use crate::types::{ClipFormat, TransformClip};
use std::os::fd::OwnedFd;

pub(super) fn parse(clip: pb::TransformClip, fds: &mut FdSource) -> Parsed<TransformClip> {
    if !matches!(clip.factor, 0 | 2 | 4) {
        return Err(invalid("factor", "it is not 0, 2 or 4"));
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
        tile_side_max: unless_zero(clip.tile_side_max),
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
    pb::TransformClip {
        model: clip.model,
        factor: clip.factor,
        output_format: write_format(clip.output_format).into(),
        contact_sheet,
        frames_max: clip.frames_max.unwrap_or_default(),
        width_max: clip.width_max.unwrap_or_default(),
        height_max: clip.height_max.unwrap_or_default(),
        frame_rate: clip.frame_rate.unwrap_or_default(),
        encoder_speed: clip.encoder_speed,
        preview_every: clip.preview_every.unwrap_or_default(),
        tile_side_max: clip.tile_side_max.unwrap_or_default(),
        options: options::write(clip.options),
    }
}

pub(super) fn write_format(format: ClipFormat) -> pb::ClipFormat {
    match format {
        ClipFormat::Mp4Av1 => pb::ClipFormat::Mp4Av1,
        ClipFormat::Gif => pb::ClipFormat::Gif,
        ClipFormat::PngStream => pb::ClipFormat::PngStream,
        ClipFormat::WebmAv1 => pb::ClipFormat::WebmAv1,
        ClipFormat::Webp => pb::ClipFormat::Webp,
        ClipFormat::RawRgb8 => pb::ClipFormat::RawRgb8,
        ClipFormat::Y4m => pb::ClipFormat::Y4m,
    }
}

pub(super) fn parse_format(format: i32) -> Parsed<ClipFormat> {
    match pb::ClipFormat::try_from(format) {
        Ok(pb::ClipFormat::Unspecified | pb::ClipFormat::Mp4Av1) => Ok(ClipFormat::Mp4Av1),
        Ok(pb::ClipFormat::Gif) => Ok(ClipFormat::Gif),
        Ok(pb::ClipFormat::PngStream) => Ok(ClipFormat::PngStream),
        Ok(pb::ClipFormat::WebmAv1) => Ok(ClipFormat::WebmAv1),
        Ok(pb::ClipFormat::Webp) => Ok(ClipFormat::Webp),
        Ok(pb::ClipFormat::RawRgb8) => Ok(ClipFormat::RawRgb8),
        Ok(pb::ClipFormat::Y4m) => Ok(ClipFormat::Y4m),
        Err(_) => Err(invalid("output_format", "it is unknown")),
    }
}
