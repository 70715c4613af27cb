//! `mote_transform_t`: a clip while it is transformed.

use crate::call::{Out, call, free, give};
use crate::client::{MoteClient, client};
use crate::codes::*;
use crate::door::{Filled, Given, duplicate};
use crate::error::MoteError;
use crate::failure::Failure;
use crate::job::{self, Job, JobEvent};
use crate::options::{options, unknown, unless_zero};
use crate::structs::{Event, TransformArgs};
use mote_client::{ClipEvent, ClipFormat, ClipWork, TransformClip};

/// Stands for a descriptor or a speed that is not given.
const NONE: i32 = -1;

/// A clip while it is transformed.
pub struct MoteTransform(Job<ClipWork>);

impl From<ClipEvent> for JobEvent {
    fn from(event: ClipEvent) -> Self {
        match event {
            ClipEvent::Accepted { queue_position } => Self::Accepted { queue_position },
            ClipEvent::Progress(progress) => Self::Progress(progress),
            ClipEvent::Preview(preview) => Self::Preview(preview),
            ClipEvent::Done(done) => Self::Done(done),
        }
    }
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_transform_clip(
    given: Option<&MoteClient>,
    args: Given<'_, TransformArgs<'_>>,
    transform: Out<'_, MoteTransform>,
    error: Out<'_, MoteError>,
) -> i32 {
    call(error, || {
        give(transform, "transform", || {
            let client = client(given)?;
            let transform = client.transform_clip(request(args.required("args")?)?)?;
            let canceller = transform.canceller();
            Ok(MoteTransform(Job::new(transform, canceller)))
        })
    })
}

fn request(args: TransformArgs<'_>) -> Result<TransformClip, Failure> {
    Ok(TransformClip {
        model: args.model.required("model")?.into(),
        factor: args.factor,
        output_format: match args.output_format {
            MOTE_CLIP_MP4_AV1 => ClipFormat::Mp4Av1,
            MOTE_CLIP_GIF => ClipFormat::Gif,
            MOTE_CLIP_PNG_STREAM => ClipFormat::PngStream,
            other => return Err(Failure::invalid("output_format", unknown(other))),
        },
        frames_max: unless_zero(args.frames_max),
        width_max: unless_zero(args.width_max),
        height_max: unless_zero(args.height_max),
        frame_rate: unless_zero(args.frame_rate),
        encoder_speed: match args.encoder_speed {
            NONE => None,
            speed => Some(
                u32::try_from(speed)
                    .map_err(|_| Failure::invalid("encoder_speed", "is negative"))?,
            ),
        },
        preview_every: unless_zero(args.preview_every),
        options: options(args.options)?,
        input: duplicate(args.input_fd, "input_fd")?,
        output: duplicate(args.output_fd, "output_fd")?,
        contact_sheet: match args.contact_sheet_fd {
            NONE => None,
            fd => Some(duplicate(fd, "contact_sheet_fd")?),
        },
    })
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_transform_next(
    transform: Option<&MoteTransform>,
    event: Filled<'_, Event>,
    error: Out<'_, MoteError>,
) -> i32 {
    job::next(transform.map(|it| &it.0), "transform", event, error)
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_transform_cancel(
    transform: Option<&MoteTransform>,
    error: Out<'_, MoteError>,
) -> i32 {
    job::cancel(transform.map(|it| &it.0), "transform", error)
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_transform_free(transform: Option<Box<MoteTransform>>) {
    free(transform);
}
