//! `mote_clip_t`: work on a clip, whichever it is.

use crate::call::{Out, call, free, give};
use crate::client::{MoteClient, client};
use crate::codes::*;
use crate::door::{Filled, Given, Text, duplicate};
use crate::error::MoteError;
use crate::failure::Failure;
use crate::job::{self, Job, JobEvent};
use crate::options::{options, unknown, unless_zero};
use crate::structs::{Event, TransformArgs};
use mote_client::{ClientError, ClipEvent, ClipFormat, ClipSteering, ClipWork, TransformClip};
use std::os::fd::OwnedFd;

/// Stands for a descriptor or a speed that is not given.
const NONE: i32 = -1;

/// A clip while it is transformed, made or labelled.
pub struct MoteClip {
    job: Job<ClipWork>,
    steering: ClipSteering,
}

impl MoteClip {
    pub(crate) fn new(work: ClipWork) -> Self {
        let (canceller, steering) = (work.canceller(), work.steering());
        Self {
            job: Job::new(work, canceller),
            steering,
        }
    }
}

impl From<ClipEvent> for JobEvent {
    fn from(event: ClipEvent) -> Self {
        match event {
            ClipEvent::Accepted { queue_position } => Self::Accepted { queue_position },
            ClipEvent::Progress(progress) => Self::Progress(progress),
            ClipEvent::Preview(preview) => Self::Preview(preview),
            ClipEvent::Frame(frame) => Self::Frame(frame),
            ClipEvent::Audio(sound) => Self::Audio(sound),
            ClipEvent::Labels(labels) => Self::Labels(labels),
            ClipEvent::Steered(steered) => Self::Steered(steered),
            ClipEvent::Done(done) => Self::Done(done),
        }
    }
}

/// How a clip is written.
pub(crate) fn format(number: i32) -> Result<ClipFormat, Failure> {
    Ok(match number {
        MOTE_CLIP_MP4_AV1 => ClipFormat::Mp4Av1,
        MOTE_CLIP_GIF => ClipFormat::Gif,
        MOTE_CLIP_PNG_STREAM => ClipFormat::PngStream,
        MOTE_CLIP_WEBM_AV1 => ClipFormat::WebmAv1,
        MOTE_CLIP_WEBP => ClipFormat::Webp,
        MOTE_CLIP_RAW_RGB8 => ClipFormat::RawRgb8,
        MOTE_CLIP_Y4M => ClipFormat::Y4m,
        other => return Err(Failure::invalid("output_format", unknown(other))),
    })
}

/// How fast it is written.
pub(crate) fn encoder_speed(number: i32) -> Result<Option<u32>, Failure> {
    match number {
        NONE => Ok(None),
        speed => u32::try_from(speed)
            .map(Some)
            .map_err(|_| Failure::invalid("encoder_speed", "is negative")),
    }
}

/// A duplicate of a descriptor that need not be given.
pub(crate) fn descriptor(number: i32, name: &str) -> Result<Option<OwnedFd>, Failure> {
    match number {
        NONE => Ok(None),
        number => duplicate(number, name).map(Some),
    }
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_transform_clip(
    given: Option<&MoteClient>,
    args: Given<'_, TransformArgs<'_>>,
    transform: Out<'_, MoteClip>,
    error: Out<'_, MoteError>,
) -> i32 {
    call(error, || {
        give(transform, "transform", || {
            let client = client(given)?;
            let request = request(args.required("args")?)?;
            Ok(MoteClip::new(client.transform_clip(request)?))
        })
    })
}

fn request(args: TransformArgs<'_>) -> Result<TransformClip, Failure> {
    let tile_side_max = u32::try_from(args.tile_side_max)
        .map_err(|_| Failure::invalid("tile_side_max", "is more than any side"))?;
    Ok(TransformClip {
        model: args.model.required("model")?.into(),
        factor: args.factor,
        output_format: format(args.output_format)?,
        frames_max: unless_zero(args.frames_max),
        width_max: unless_zero(args.width_max),
        height_max: unless_zero(args.height_max),
        frame_rate: unless_zero(args.frame_rate),
        encoder_speed: encoder_speed(args.encoder_speed)?,
        preview_every: unless_zero(args.preview_every),
        tile_side_max: unless_zero(tile_side_max),
        options: options(args.options)?,
        input: duplicate(args.input_fd, "input_fd")?,
        output: duplicate(args.output_fd, "output_fd")?,
        contact_sheet: descriptor(args.contact_sheet_fd, "contact_sheet_fd")?,
    })
}

fn next(
    clip: Option<&MoteClip>,
    name: &str,
    event: Filled<'_, Event>,
    error: Out<'_, MoteError>,
) -> i32 {
    job::next(clip.map(|it| &it.job), name, event, error)
}

/// Says something to the work while it goes on.
fn tell(
    clip: Option<&MoteClip>,
    error: Out<'_, MoteError>,
    say: impl FnOnce(&ClipSteering) -> Result<(), ClientError>,
) -> i32 {
    call(error, || {
        let clip = clip.ok_or_else(|| Failure::null("clip"))?;
        Ok(say(&clip.steering)?)
    })
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_clip_next(
    clip: Option<&MoteClip>,
    event: Filled<'_, Event>,
    error: Out<'_, MoteError>,
) -> i32 {
    next(clip, "clip", event, error)
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_clip_cancel(clip: Option<&MoteClip>, error: Out<'_, MoteError>) -> i32 {
    job::cancel(clip.map(|it| &it.job), "clip", error)
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_clip_pause(clip: Option<&MoteClip>, error: Out<'_, MoteError>) -> i32 {
    tell(clip, error, ClipSteering::pause)
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_clip_resume(clip: Option<&MoteClip>, error: Out<'_, MoteError>) -> i32 {
    tell(clip, error, ClipSteering::resume)
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_clip_steer(
    clip: Option<&MoteClip>,
    prompt: Text<'_>,
    error: Out<'_, MoteError>,
) -> i32 {
    call(error, || {
        let clip = clip.ok_or_else(|| Failure::null("clip"))?;
        Ok(clip.steering.set_prompt(prompt.required("prompt")?)?)
    })
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_clip_free(clip: Option<Box<MoteClip>>) {
    free(clip);
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_transform_next(
    transform: Option<&MoteClip>,
    event: Filled<'_, Event>,
    error: Out<'_, MoteError>,
) -> i32 {
    next(transform, "transform", event, error)
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_transform_cancel(
    transform: Option<&MoteClip>,
    error: Out<'_, MoteError>,
) -> i32 {
    job::cancel(transform.map(|it| &it.job), "transform", error)
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_transform_free(transform: Option<Box<MoteClip>>) {
    free(transform);
}
