//! Reads a clip and writes it as AV1, GIF or raw RGB, with a contact sheet on request.
//!
//! `recode IN OUT.mp4|OUT.gif|OUT.rgb [SHEET.png]`

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::num::NonZeroU16;
use std::time::Instant;

use mote_media::{
    Av1Settings, ClipSpec, Frame, FrameWriter, Limits, Output, SheetLayout, contact_sheet,
    encode_png,
};

/// Pictures on the contact sheet.
const SHEET_FRAMES: u64 = 12;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [input, output, sheet @ ..] = args.as_slice() else {
        return Err("usage: recode IN OUT.mp4|OUT.gif|OUT.rgb [SHEET.png]".into());
    };
    let limits = Limits::default();
    let mut clip = mote_media::open(File::open(input)?, &limits)?;
    let spec = ClipSpec::like(clip.info());
    let mut writer = writer(output, &spec, &limits)?;
    let step = clip
        .info()
        .frame_count
        .unwrap_or(SHEET_FRAMES)
        .div_ceil(SHEET_FRAMES)
        .max(1);
    let mut picked: Vec<Frame> = Vec::new();
    let (mut frames, start) = (0_u64, Instant::now());
    while let Some(frame) = clip.next_frame()? {
        writer.push(&frame)?;
        if frames.is_multiple_of(step) {
            picked.push(frame);
        }
        frames += 1;
    }
    let written = writer.finish()?;
    let seconds = start.elapsed().as_secs_f64();
    let mut err = std::io::stderr();
    writeln!(err, "{:?}", clip.info())?;
    writeln!(
        err,
        "{written:?} in {seconds:.2} s: {:.1} frames/s",
        frames as f64 / seconds
    )?;
    if let [path, ..] = sheet {
        std::fs::write(
            path,
            encode_png(&contact_sheet(&picked, &SheetLayout::default())?)?,
        )?;
    }
    Ok(())
}

fn writer(
    path: &str,
    spec: &ClipSpec,
    limits: &Limits,
) -> Result<Box<dyn FrameWriter>, Box<dyn Error>> {
    let file = File::create(path)?;
    let threads = std::thread::available_parallelism()?.get() as u16;
    let threads = NonZeroU16::new(threads).unwrap_or(NonZeroU16::MIN);
    let settings = Av1Settings {
        threads,
        tiles: threads.get(),
        ..Av1Settings::default()
    };
    Ok(match path.rsplit('.').next() {
        Some("rgb") => Box::new(Raw {
            file,
            frames: 0,
            bytes: 0,
        }),
        Some("gif") => mote_media::create(file, spec, &Output::Gif, limits)?,
        _ => mote_media::create(file, spec, &Output::Mp4Av1(settings), limits)?,
    })
}

/// Frames back to back, without a header.
struct Raw {
    file: File,
    frames: u64,
    bytes: u64,
}

impl FrameWriter for Raw {
    fn push(&mut self, frame: &Frame) -> Result<(), mote_media::MediaError> {
        self.file
            .write_all(&frame.rgb)
            .map_err(mote_media::MediaError::Write)?;
        self.frames += 1;
        self.bytes += frame.rgb.len() as u64;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<mote_media::WrittenClip, mote_media::MediaError> {
        Ok(mote_media::WrittenClip {
            bytes: self.bytes,
            frames: self.frames,
        })
    }
}
