//! What is seen in clips.

use crate::call::{Out, call, give};
use crate::client::{MoteClient, client};
use crate::clip::MoteClip;
use crate::door::{Given, duplicate};
use crate::error::MoteError;
use crate::failure::Failure;
use crate::options::{options, unless_zero};
use crate::structs::LabelClipArgs;
use mote_client::LabelClip;

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_label_clip(
    given: Option<&MoteClient>,
    args: Given<'_, LabelClipArgs<'_>>,
    clip: Out<'_, MoteClip>,
    error: Out<'_, MoteError>,
) -> i32 {
    call(error, || {
        give(clip, "clip", || {
            let client = client(given)?;
            let request = request(args.required("args")?)?;
            Ok(MoteClip::new(client.label_clip(request)?))
        })
    })
}

fn request(args: LabelClipArgs<'_>) -> Result<LabelClip, Failure> {
    Ok(LabelClip {
        model: args.model.required("model")?.into(),
        frames_max: unless_zero(args.frames_max),
        every: unless_zero(args.every),
        frame_rate: unless_zero(args.frame_rate),
        labels_max: unless_zero(args.labels_max),
        score_min: (args.has_score_min != 0).then_some(args.score_min),
        options: options(args.options)?,
        input: duplicate(args.input_fd, "input_fd")?,
    })
}
