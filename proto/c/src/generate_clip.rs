//! Clips that are made of words, pictures or other clips.

use crate::call::{Out, call, give};
use crate::client::{MoteClient, client};
use crate::clip::{MoteClip, descriptor, encoder_speed, format};
use crate::door::{Given, duplicate};
use crate::error::MoteError;
use crate::failure::Failure;
use crate::options::{no_flags, options, unless_zero};
use crate::structs::{ClipSegment, GenerateClipArgs};
use mote_client::GenerateClip;

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_generate_clip(
    given: Option<&MoteClient>,
    args: Given<'_, GenerateClipArgs<'_>>,
    clip: Out<'_, MoteClip>,
    error: Out<'_, MoteError>,
) -> i32 {
    call(error, || {
        give(clip, "clip", || {
            let client = client(given)?;
            let request = request(args.required("args")?)?;
            Ok(MoteClip::new(client.generate_clip(request)?))
        })
    })
}

fn request(args: GenerateClipArgs<'_>) -> Result<GenerateClip, Failure> {
    no_flags(args.flags, "flags")?;
    let model = args.model.required("model")?;
    let given = args.segments.take(args.segment_count, "segments")?;
    if given.is_empty() {
        return Err(Failure::invalid("segments", "there are none"));
    }
    let segments: Result<_, Failure> = given.iter().enumerate().map(segment).collect();
    let output = duplicate(args.output_fd, "output_fd")?;
    Ok(GenerateClip {
        segments: segments?,
        negative_prompt: args
            .negative_prompt
            .optional("negative_prompt")?
            .unwrap_or_default()
            .into(),
        guidance: (args.has_guidance != 0).then_some(args.guidance),
        seed: (args.has_seed != 0).then_some(args.seed),
        steps: unless_zero(args.steps),
        width: unless_zero(args.width),
        height: unless_zero(args.height),
        frame_rate: unless_zero(args.frame_rate),
        scheduler: args.scheduler.optional("scheduler")?.map(str::to_owned),
        strength: unless_zero(args.strength),
        output_format: format(args.output_format)?,
        encoder_speed: encoder_speed(args.encoder_speed)?,
        preview_every: unless_zero(args.preview_every),
        send_frames: args.send_frames != 0,
        send_audio: args.send_audio != 0,
        options: options(args.options)?,
        contact_sheet: descriptor(args.contact_sheet_fd, "contact_sheet_fd")?,
        first_image: descriptor(args.first_image_fd, "first_image_fd")?,
        last_image: descriptor(args.last_image_fd, "last_image_fd")?,
        reference_image: descriptor(args.reference_image_fd, "reference_image_fd")?,
        source: descriptor(args.source_fd, "source_fd")?,
        checkpoint: descriptor(args.checkpoint_fd, "checkpoint_fd")?,
        ..GenerateClip::new(model, "", output)
    })
}

fn segment((index, given): (usize, &ClipSegment<'_>)) -> Result<mote_client::ClipSegment, Failure> {
    let field = |name: &str| format!("segments[{index}].{name}");
    no_flags(given.flags, field("flags"))?;
    Ok(mote_client::ClipSegment {
        prompt: given.prompt.required(field("prompt"))?.into(),
        frames: unless_zero(given.frames),
    })
}
