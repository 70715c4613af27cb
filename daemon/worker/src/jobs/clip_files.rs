//! Clip files of a job: what is read, and where results go.
//!
//! Media files are untrusted: they are decoded and encoded here, in the worker, never in the
//! broker.

use crate::load::LoadedModel;
use crate::status::chain;
use mote_media::{
    AudioSpec, Av1Settings, ClipSpec, Codec, Frame, FrameReader, FrameWriter, Limits, MediaError,
    Output, Rational, RawLayout, SheetLayout, SoundTrack,
};
use mote_pipeline::Rgb;
use mote_wire::types::{ClipFormat, Preview, Status};
use std::fs::File;
use std::io::{Seek, Write};
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Frames per second of an input that does not say.
const FRAME_RATE_DEFAULT: u64 = 24;
/// Width of previews.
const PREVIEW_WIDTH: u32 = 320;
/// The encoder's fastest speed.
const SPEED_MAX: u8 = 10;
/// Pictures on a contact sheet.
const SHEET_FRAMES_MAX: usize = 12;

/// What a client is told of a media file.
pub fn of_media(error: &MediaError) -> Status {
    match error.field() {
        Some(field) => Status::invalid(field, chain(error)),
        None => Status::ComputeFailed {
            operation: "clip file".into(),
            cause: chain(error),
        },
    }
}

/// A clip that is read.
pub struct Input {
    reader: Box<dyn FrameReader>,
    /// Width and height of frames as they are given.
    pub size: (u32, u32),
    /// Frames per second.
    pub frame_rate: Rational,
    /// Frames that will be given, where that is known.
    pub frames: Option<u64>,
    frames_max: u64,
    /// Frames that were given.
    pub read: u64,
    /// Time it took.
    pub took: Duration,
}

impl Input {
    /// Opens a clip of which at most `frames_max` frames are read. `frame_rate` counts where the file
    /// does not say.
    pub fn open(
        file: OwnedFd,
        frames_max: Option<u64>,
        frame_rate: Option<u32>,
    ) -> Result<Self, Status> {
        let reader = mote_media::open(File::from(file), &Limits::default())
            .map_err(|error| of_media(&error))?;
        let info = reader.info();
        let rate = match info.format {
            mote_media::ClipFormat::Png | mote_media::ClipFormat::PngSequence => {
                let rate = frame_rate.map_or(FRAME_RATE_DEFAULT, u64::from);
                Rational::new(rate, 1).unwrap_or(Rational::ONE)
            }
            _ => info.frame_rate,
        };
        let frames_max = frames_max.unwrap_or(u64::MAX);
        Ok(Self {
            size: (info.width, info.height),
            frame_rate: rate,
            frames: info.frame_count.map(|count| count.min(frames_max)),
            reader,
            frames_max,
            read: 0,
            took: Duration::ZERO,
        })
    }

    /// Scales frames down to fit, keeping their proportions.
    pub fn fit(&mut self, width_max: Option<u32>, height_max: Option<u32>) {
        self.size = fit(self.size, width_max, height_max);
    }

    /// Proportions of a pixel.
    pub fn spec(&self) -> ClipSpec {
        let mut spec = ClipSpec::like(self.reader.info());
        (spec.width, spec.height) = self.size;
        spec.frame_rate = self.frame_rate;
        spec
    }

    /// The sound of the frames that are given; None where there is none.
    pub fn sound(&self) -> Option<SoundTrack> {
        let sound = self.reader.sound()?.clone();
        let frames = self.reader.info().frame_count.unwrap_or(u64::MAX);
        match self.frames_max < frames {
            true => sound.cut(self.frames_max, self.frame_rate),
            false => Some(sound),
        }
    }

    /// The next frame.
    pub fn next(&mut self) -> Result<Option<Rgb>, Status> {
        if self.read >= self.frames_max {
            return Ok(None);
        }
        let started = Instant::now();
        let frame = self.reader.next_frame().map_err(|error| of_media(&error))?;
        let frame = frame.map(|frame| {
            let (width, height) = self.size;
            match (frame.width, frame.height) == self.size {
                true => frame,
                false => mote_media::scaled(&frame, width, height),
            }
        });
        self.took += started.elapsed();
        self.read += u64::from(frame.is_some());
        Ok(frame.map(|frame| Rgb {
            width: frame.width as usize,
            height: frame.height as usize,
            rgb8: frame.rgb,
        }))
    }
}

/// The one picture of a file.
pub fn picture(file: OwnedFd, field: &str) -> Result<Rgb, Status> {
    let refused = |status| match status {
        Status::Invalid { why, .. } => Status::invalid(field, why),
        Status::ComputeFailed { cause, .. } => Status::invalid(field, cause),
        other => other,
    };
    let mut input = Input::open(file, Some(1), None).map_err(refused)?;
    let picture = input.next().map_err(refused)?;
    picture.ok_or_else(|| Status::invalid(field, "it holds no picture"))
}

/// What sound a result has.
pub enum ResultSound<'a> {
    None,
    /// Samples that are pushed.
    Made(AudioSpec),
    /// That of the input.
    Kept(&'a SoundTrack),
}

/// Where the frames of a result go.
pub struct Results {
    writer: Option<Box<dyn FrameWriter>>,
    sheet: Option<Sheet>,
    /// What the file's sound is coded in.
    audio_codec: Option<Codec>,
    /// Frames that were written.
    pub written: u64,
    /// Time it took.
    pub took: Duration,
}

struct Sheet {
    file: File,
    every: u64,
    frames: Vec<Frame>,
}

impl Results {
    /// Begins the result in `file`, with the sound that its format takes, and a contact sheet of about `frames` frames.
    pub fn create(
        file: OwnedFd,
        (spec, sound): (&ClipSpec, ResultSound<'_>),
        output: &Output,
        sheet: Option<OwnedFd>,
        frames: Option<u64>,
    ) -> Result<Self, Status> {
        let (file, limits) = (File::from(file), Limits::default());
        let (writer, audio_codec) = match sound {
            // A format without sound is told of in the receipt; one with another kind of sound is a mistake.
            ResultSound::Made(audio) if output.takes_audio() => (
                mote_media::create_with_audio(file, spec, output, &audio, &limits),
                output.audio_codec(),
            ),
            ResultSound::Kept(track) if output.keeps_sound(track) => (
                mote_media::create_with_sound(file, spec, output, track, &limits),
                track.codec(),
            ),
            _ => (mote_media::create(file, spec, output, &limits), None),
        };
        let writer = writer.map_err(|error| of_media(&error))?;
        let every = frames.unwrap_or(0).div_ceil(SHEET_FRAMES_MAX as u64).max(1);
        let sheet = sheet.map(|fd| Sheet {
            file: fd.into(),
            every,
            frames: vec![],
        });
        Ok(Self {
            writer: Some(writer),
            sheet,
            audio_codec,
            written: 0,
            took: Duration::ZERO,
        })
    }

    /// Writes the next frame and gives it back.
    pub fn push(&mut self, rgb: Rgb) -> Result<Frame, Status> {
        let started = Instant::now();
        let frame = frame_of(rgb);
        if let Some(writer) = &mut self.writer {
            writer.push(&frame).map_err(|error| of_media(&error))?;
        }
        if let Some(sheet) = &mut self.sheet
            && self.written.is_multiple_of(sheet.every)
            && sheet.frames.len() < SHEET_FRAMES_MAX
        {
            sheet.frames.push(frame.clone());
        }
        self.written += 1;
        self.took += started.elapsed();
        Ok(frame)
    }

    /// Writes sound, all channels side by side, where the file takes any.
    pub fn push_audio(&mut self, samples: &[f32]) -> Result<(), Status> {
        let started = Instant::now();
        if let Some(writer) = self.writer.as_mut().filter(|_| self.audio_codec.is_some()) {
            let pushed = writer.push_audio(samples);
            pushed.map_err(|error| of_media(&error))?;
        }
        self.took += started.elapsed();
        Ok(())
    }

    /// The name of what the file's sound is coded in; empty where it has none.
    pub fn audio_codec(&self) -> String {
        let codec = self.audio_codec.map(|codec| codec.to_string());
        codec.unwrap_or_default().to_lowercase()
    }

    /// Completes the files.
    pub fn finish(&mut self) -> Result<(), Status> {
        let started = Instant::now();
        if let Some(writer) = self.writer.take() {
            writer.finish().map_err(|error| of_media(&error))?;
        }
        if let Some(sheet) = self.sheet.take() {
            write_sheet(sheet)?;
        }
        self.took += started.elapsed();
        Ok(())
    }
}

/// Expected time to the end of work that began at `began` and has done so much since.
pub fn remaining_ms(began: Instant, done: u64, left: u64) -> u64 {
    let each_ms = began.elapsed().as_millis() as u64 / done.max(1);
    each_ms.saturating_mul(left)
}

/// A picture as a frame of a file.
pub fn frame_of(rgb: Rgb) -> Frame {
    Frame {
        width: u32::try_from(rgb.width).unwrap_or(u32::MAX),
        height: u32::try_from(rgb.height).unwrap_or(u32::MAX),
        rgb: rgb.rgb8,
    }
}

/// How the result is written.
pub fn output_of(format: ClipFormat, speed: Option<u32>, loaded: &LoadedModel) -> Output {
    let av1 = || {
        let threads = u16::try_from(loaded.governor.threads().count).unwrap_or(u16::MAX);
        let threads = NonZeroU16::new(threads).unwrap_or(NonZeroU16::MIN);
        let speed = speed.map_or(SPEED_MAX, |speed| speed.min(u32::from(SPEED_MAX)) as u8);
        Av1Settings {
            speed,
            threads,
            tiles: threads.get(),
            // Measured at 640x272: almost twice the frames per second for a third more bytes,
            // which is what somebody wants who asks for the fastest speed.
            low_latency: speed == SPEED_MAX,
            ..Av1Settings::default()
        }
    };
    match format {
        ClipFormat::Gif => Output::Gif,
        ClipFormat::PngStream => Output::PngStream,
        ClipFormat::Webp => Output::WebP,
        ClipFormat::RawRgb8 => Output::Raw(RawLayout::Rgb8),
        ClipFormat::Y4m => Output::Y4m,
        ClipFormat::Mp4Av1 => Output::Mp4Av1(av1()),
        ClipFormat::WebmAv1 => Output::WebmAv1(av1()),
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

/// A small picture of a frame.
pub fn preview(frame: &Frame, frame_index: u64) -> Result<Preview, Status> {
    let width = frame.width.min(PREVIEW_WIDTH);
    let height =
        (u64::from(frame.height) * u64::from(width) / u64::from(frame.width.max(1))).max(1) as u32;
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
