//! Work on clips: what the manager is asked for, and what a caller may tell such a job.

use super::{Caller, Reaction};
use crate::bus::{Answer, Call};
use crate::failure::Failure;
use crate::limits::CLIP_CREDIT;
use crate::names::Kind;
use crate::options::{Options, invalid};
use mote_wire::limits::PROMPT_BYTES_MAX;
use mote_wire::types::{
    ClipFormat, ClipSegment, GenerateClip, LabelClip, Request, Status, TransformClip,
};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use zbus::OwnedVariant;

type Given = BTreeMap<String, OwnedVariant>;

/// What a caller tells a job that goes on.
#[derive(Debug)]
pub enum Told {
    /// Halt at the next step, or go on.
    Pause(bool),
    /// Another prompt from the next shot on.
    Steer(String),
}

/// How a clip is written, by the name the option has.
const FORMATS: [(&str, ClipFormat); 7] = [
    ("mp4-av1", ClipFormat::Mp4Av1),
    ("webm-av1", ClipFormat::WebmAv1),
    ("gif", ClipFormat::Gif),
    ("webp", ClipFormat::Webp),
    ("png-stream", ClipFormat::PngStream),
    ("raw-rgb8", ClipFormat::RawRgb8),
    ("y4m", ClipFormat::Y4m),
];

fn format(options: &mut Options) -> Result<ClipFormat, Failure> {
    let Some(name) = options.text("format")? else {
        return Ok(ClipFormat::default());
    };
    let known = FORMATS.iter().find(|(known, _)| *known == name);
    let names = FORMATS.map(|(name, _)| name).join(", ");
    let unknown = || Failure::from(invalid("format", format!("it is one of {names}")));
    known.map(|(_, format)| *format).ok_or_else(unknown)
}

impl Caller {
    pub(super) fn transform_clip(&mut self, call: &Call) -> Result<Reaction, Failure> {
        let (model, input, output, options): (String, zbus::OwnedFd, zbus::OwnedFd, Given) =
            call.arguments()?;
        let mut options = Options::new(options)?;
        let token = self.token(Kind::Job, &mut options)?;
        let model = self.resolve(model)?;
        let clip = TransformClip {
            model: model.clone(),
            factor: options.count("factor")?.unwrap_or(2),
            output_format: format(&mut options)?,
            frames_max: options.count("frames_max")?,
            width_max: options.count("width_max")?,
            height_max: options.count("height_max")?,
            frame_rate: options.count("frame_rate")?,
            encoder_speed: options.count("encoder_speed")?,
            preview_every: options.count("preview_every")?,
            tile_side_max: options.count("tile_side_max")?,
            contact_sheet: options.descriptor("contact_sheet")?,
            options: options.work(CLIP_CREDIT)?,
            input: OwnedFd::from(input),
            output: OwnedFd::from(output),
        };
        options.finish()?;
        let request = Request::TransformClip(clip);
        self.start_job(call, token, (model, request), (false, false, CLIP_CREDIT))
    }

    pub(super) fn generate_clip(&mut self, call: &Call) -> Result<Reaction, Failure> {
        let (model, segments, output, options): (String, Vec<(String, u32)>, zbus::OwnedFd, Given) =
            call.arguments()?;
        let mut options = Options::new(options)?;
        let token = self.token(Kind::Job, &mut options)?;
        let model = self.resolve(model)?;
        let segment = |(prompt, frames)| ClipSegment {
            prompt,
            frames: Some(frames).filter(|frames| *frames > 0),
        };
        let clip = GenerateClip {
            segments: segments.into_iter().map(segment).collect(),
            negative_prompt: options.text("negative_prompt")?.unwrap_or_default(),
            guidance: options.number("guidance")?,
            seed: options.count("seed")?,
            steps: options.count("steps")?,
            width: options.count("width")?,
            height: options.count("height")?,
            frame_rate: options.count("frame_rate")?,
            scheduler: options.text("scheduler")?,
            strength: options.number("strength")?,
            output_format: format(&mut options)?,
            encoder_speed: options.count("encoder_speed")?,
            preview_every: options.count("preview_every")?,
            contact_sheet: options.descriptor("contact_sheet")?,
            first_image: options.descriptor("first_image")?,
            last_image: options.descriptor("last_image")?,
            reference_image: options.descriptor("reference_image")?,
            source: options.descriptor("source")?,
            checkpoint: options.descriptor("checkpoint")?,
            options: options.work(CLIP_CREDIT)?,
            ..GenerateClip::new(&model, "", OwnedFd::from(output))
        };
        options.finish()?;
        let request = Request::GenerateClip(Box::new(clip));
        self.start_job(call, token, (model, request), (false, false, CLIP_CREDIT))
    }

    pub(super) fn label_clip(&mut self, call: &Call) -> Result<Reaction, Failure> {
        let (model, input, options): (String, zbus::OwnedFd, Given) = call.arguments()?;
        let mut options = Options::new(options)?;
        let token = self.token(Kind::Job, &mut options)?;
        let model = self.resolve(model)?;
        let clip = LabelClip {
            model: model.clone(),
            frames_max: options.count("frames_max")?,
            every: options.count("every")?,
            frame_rate: options.count("frame_rate")?,
            labels_max: options.count("labels_max")?,
            score_min: options.number("score_min")?,
            options: options.work(CLIP_CREDIT)?,
            input: OwnedFd::from(input),
        };
        options.finish()?;
        let request = Request::LabelClip(clip);
        self.start_job(call, token, (model, request), (false, false, CLIP_CREDIT))
    }

    /// `Job.Pause(options)` and `Job.Resume(options)`.
    pub(super) fn pause_job(&mut self, call: &Call, token: &str, paused: bool) -> Answer {
        Options::new(call.arguments()?)?.finish()?;
        self.tell_job(token, Told::Pause(paused))?;
        call.answer(&())
    }

    /// `Job.Steer(prompt, options)`.
    pub(super) fn steer_job(&mut self, call: &Call, token: &str) -> Answer {
        let (prompt, options): (String, Given) = call.arguments()?;
        Options::new(options)?.finish()?;
        // Nobody waits for what the daemon says to it: a signal tells what becomes of the prompt.
        let steers = self.steers(token);
        let steers = steers.ok_or_else(|| Status::invalid("job", "it makes no clip of words"))?;
        if prompt.len() > PROMPT_BYTES_MAX {
            return Err(Failure::over(
                "bytes of prompt",
                prompt.len(),
                PROMPT_BYTES_MAX,
            ));
        }
        if prompt.contains('\0') {
            return Err(Status::invalid("prompt", "it holds a NUL").into());
        }
        steers.begin()?;
        self.tell_job(token, Told::Steer(prompt))
            .inspect_err(|_| steers.told())?;
        call.answer(&())
    }
}
