//! A clip file in, a clip file with more frames out, one frame a step.
//!
//! Media files are untrusted: they are decoded and encoded here, in the worker, never in the
//! broker.

use super::{Job, Pools, Progressed, micros};
use crate::load::LoadedModel;
use crate::status::{self, Failure, chain};
use mote_api::Canceller;
use mote_media::{
    Av1Settings, ClipSpec, Frame, FrameReader, FrameWriter, Limits, MediaError, Output, Rational,
    SheetLayout,
};
use mote_pipeline::{FrameWindow, Interpolator, Rgb, WindowStep};
use mote_wire::types::{
    ClipFormat, Done, JobReply, Preview, Progress, Receipt, Stage, Status, TransformClip,
};
use std::fs::File;
use std::io::{Seek, Write};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

/// Frames per second of an input that does not say.
const FRAME_RATE_DEFAULT: u64 = 24;
/// Width of previews.
const PREVIEW_WIDTH: u32 = 320;
/// The encoder's fastest speed.
const SPEED_MAX: u8 = 10;
/// Pictures on a contact sheet.
const SHEET_FRAMES_MAX: usize = 12;

/// One clip on its way.
pub struct ClipJob {
    reader: Box<dyn FrameReader>,
    window: FrameWindow,
    writer: Option<Box<dyn FrameWriter>>,
    sheet: Option<Sheet>,
    size: (u32, u32),
    frames_max: u64,
    frames_out_expected: Option<u64>,
    preview_every: Option<u32>,
    read: u64,
    written: u64,
    decode: Duration,
    encode: Duration,
    started: Instant,
}

struct Sheet {
    file: File,
    every: u64,
    frames: Vec<Frame>,
}

fn of_media(error: &MediaError) -> Status {
    match error.field() {
        Some(field) => Status::invalid(field, chain(error)),
        None => Status::ComputeFailed {
            operation: "clip file".into(),
            cause: chain(error),
        },
    }
}

impl ClipJob {
    /// Opens the clip and its result.
    pub fn new(clip: TransformClip, loaded: &LoadedModel) -> Result<Self, Status> {
        let Some(spec) = &loaded.manifest.clip else {
            let why = format!("{:?} does not interpolate frames", loaded.manifest.name);
            return Err(Status::invalid("model", why));
        };
        let limits = Limits::default();
        let input = File::from(clip.input);
        let reader = mote_media::open(input, &limits).map_err(|error| of_media(&error))?;
        let info = reader.info().clone();
        let size = fit((info.width, info.height), clip.width_max, clip.height_max);
        let mut out = ClipSpec::like(&info);
        (out.width, out.height) = size;
        let rate = match (info.format, clip.frame_rate) {
            (mote_media::ClipFormat::Png | mote_media::ClipFormat::PngSequence, asked) => {
                let rate = asked.map_or(FRAME_RATE_DEFAULT, u64::from);
                Rational::new(rate, 1).unwrap_or(Rational::ONE)
            }
            _ => info.frame_rate,
        };
        let factor = u64::from(clip.factor);
        let faster = Rational::new(u64::from(rate.num()) * factor, u64::from(rate.den()));
        out.frame_rate = faster.ok_or_else(|| Status::invalid("factor", "the rate overflows"))?;
        let output = output_of(&clip.output_format, clip.encoder_speed, loaded);
        let writer = mote_media::create(File::from(clip.output), &out, &output, &limits)
            .map_err(|error| of_media(&error))?;
        let interpolator =
            Interpolator::open(&loaded.model, spec).map_err(|error| status::of_pipeline(&error))?;
        let window = FrameWindow::new(interpolator, clip.factor)
            .map_err(|error| status::of_pipeline(&error))?;
        let frames_max = clip.frames_max.unwrap_or(u64::MAX);
        let frames_in = info.frame_count.map(|count| count.min(frames_max));
        let frames_out_expected = frames_in.map(|n| n.saturating_sub(1) * factor + 1);
        let every = frames_out_expected
            .unwrap_or(0)
            .div_ceil(SHEET_FRAMES_MAX as u64)
            .max(1);
        let sheet = clip.contact_sheet.map(|fd| Sheet {
            file: fd.into(),
            every,
            frames: vec![],
        });
        Ok(Self {
            reader,
            window,
            writer: Some(writer),
            sheet,
            size,
            frames_max,
            frames_out_expected,
            preview_every: clip.preview_every,
            read: 0,
            written: 0,
            decode: Duration::ZERO,
            encode: Duration::ZERO,
            started: Instant::now(),
        })
    }

    /// Gives the window its next frame, or tells it that there is none.
    fn feed(&mut self) -> Result<(), Status> {
        let started = Instant::now();
        let frame = if self.read < self.frames_max {
            self.reader.next_frame().map_err(|error| of_media(&error))?
        } else {
            None
        };
        let Some(frame) = frame else {
            self.decode += started.elapsed();
            self.window.end();
            return Ok(());
        };
        let (width, height) = self.size;
        let frame = if (frame.width, frame.height) == self.size {
            frame
        } else {
            mote_media::scaled(&frame, width, height)
        };
        self.decode += started.elapsed();
        self.read += 1;
        let rgb = Rgb {
            width: width as usize,
            height: height as usize,
            rgb8: frame.rgb,
        };
        self.window
            .push(rgb)
            .map_err(|error| status::of_pipeline(&error))
    }

    fn write(&mut self, rgb: Rgb, said: &mut Vec<JobReply>) -> Result<(), Status> {
        let started = Instant::now();
        let (width, height) = self.size;
        let frame = Frame {
            width,
            height,
            rgb: rgb.rgb8,
        };
        if let Some(writer) = &mut self.writer {
            writer.push(&frame).map_err(|error| of_media(&error))?;
        }
        let index = self.written;
        self.written += 1;
        if let Some(every) = self.preview_every
            && index.is_multiple_of(u64::from(every))
        {
            said.push(JobReply::Preview(preview(&frame, index)?));
        }
        if let Some(sheet) = &mut self.sheet
            && index.is_multiple_of(sheet.every)
            && sheet.frames.len() < SHEET_FRAMES_MAX
        {
            sheet.frames.push(frame);
        }
        self.encode += started.elapsed();
        said.push(JobReply::Progress(self.progress()));
        Ok(())
    }

    fn progress(&self) -> Progress {
        let remaining_ms = self.frames_out_expected.map(|total| {
            let per_frame_ms = self.started.elapsed().as_millis() as u64 / self.written.max(1);
            per_frame_ms.saturating_mul(total.saturating_sub(self.written))
        });
        let (done, total) = (self.written, self.frames_out_expected);
        Progress {
            stage: Stage::Transform,
            done,
            total,
            remaining_ms,
        }
    }

    fn finish(&mut self) -> Result<Progressed, Status> {
        let started = Instant::now();
        if let Some(writer) = self.writer.take() {
            writer.finish().map_err(|error| of_media(&error))?;
        }
        if let Some(sheet) = self.sheet.take() {
            write_sheet(sheet)?;
        }
        self.encode += started.elapsed();
        let interpolator = self.window.interpolator();
        let report = interpolator.report();
        let receipt = Receipt {
            compute_us: report.compute_us,
            bytes_copied: report.bytes_copied,
            steps: interpolator.steps(),
            frames_in: self.read,
            frames_out: self.written,
            media_decode_us: micros(self.decode),
            media_encode_us: micros(self.encode),
            ..Receipt::default()
        };
        Ok(Progressed::Done(Box::new(Done {
            receipt,
            ..Done::default()
        })))
    }
}

impl Job for ClipJob {
    fn step(&mut self, said: &mut Vec<JobReply>) -> Result<Progressed, Failure> {
        match self
            .window
            .step()
            .map_err(|error| status::of_step(&error))?
        {
            WindowStep::NeedsFrame => self.feed()?,
            WindowStep::Original(rgb) | WindowStep::Between(rgb) => self.write(rgb, said)?,
            WindowStep::Ended => return Ok(self.finish()?),
        }
        Ok(Progressed::More)
    }

    fn canceller(&self) -> Option<Canceller> {
        Some(self.window.interpolator().canceller())
    }

    fn give_back(self: Box<Self>, _: &mut Pools<'_>) {}
}

fn output_of(format: &ClipFormat, speed: Option<u32>, loaded: &LoadedModel) -> Output {
    match format {
        ClipFormat::Gif => Output::Gif,
        ClipFormat::PngStream => Output::PngStream,
        ClipFormat::Mp4Av1 => {
            let threads = u16::try_from(loaded.governor.threads().count).unwrap_or(u16::MAX);
            let threads = NonZeroU16::new(threads).unwrap_or(NonZeroU16::MIN);
            let speed = speed.map_or(SPEED_MAX, |speed| speed.min(u32::from(SPEED_MAX)) as u8);
            Output::Mp4Av1(Av1Settings {
                speed,
                threads,
                tiles: threads.get(),
                // Measured at 640x272: almost twice the frames per second for a third more bytes,
                // which is what somebody wants who asks for the fastest speed.
                low_latency: speed == SPEED_MAX,
                ..Av1Settings::default()
            })
        }
    }
}

/// The largest size of the same proportions within the limits, with even sides as 4:2:0 wants
/// them; the original size where it fits.
fn fit(size: (u32, u32), width_max: Option<u32>, height_max: Option<u32>) -> (u32, u32) {
    let (width, height) = (f64::from(size.0), f64::from(size.1));
    let by = |limit: Option<u32>, have: f64| limit.map_or(1.0, |limit| f64::from(limit) / have);
    let scale = by(width_max, width).min(by(height_max, height)).min(1.0);
    if scale >= 1.0 {
        return size;
    }
    let even = |side: f64| (((side * scale) as u32) & !1).max(16);
    (even(width), even(height))
}

fn preview(frame: &Frame, frame_index: u64) -> Result<Preview, Status> {
    let width = frame.width.min(PREVIEW_WIDTH);
    let height =
        (u64::from(frame.height) * u64::from(width) / u64::from(frame.width)).max(1) as u32;
    let small = mote_media::scaled(frame, width, height);
    let png = mote_media::encode_png(&small).map_err(|error| of_media(&error))?;
    Ok(Preview {
        frame_index,
        width,
        height,
        png,
    })
}

fn write_sheet(mut sheet: Sheet) -> Result<(), Status> {
    let picture = mote_media::contact_sheet(&sheet.frames, &SheetLayout::default())
        .map_err(|error| of_media(&error))?;
    let png = mote_media::encode_png(&picture).map_err(|error| of_media(&error))?;
    let failed = |error: std::io::Error| Status::ComputeFailed {
        operation: "write contact sheet".into(),
        cause: error.to_string(),
    };
    sheet
        .file
        .set_len(0)
        .and_then(|()| sheet.file.rewind())
        .map_err(failed)?;
    sheet.file.write_all(&png).map_err(failed)
}
