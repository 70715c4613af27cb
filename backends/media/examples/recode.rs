//! Reads a clip and writes it as another, with a contact sheet on request.
//!
//! `recode [--tone] IN OUT.mp4|webm|gif|webp|png|y4m|rgb|yuv [SHEET.png]`: the ending says the format; `rgb` and `yuv`
//! are raw frames. `--tone` gives an MP4 a sound: 48,000 samples per second in stereo, 440 Hz left and 660 Hz right.

use std::error::Error;
use std::f32::consts::TAU;
use std::fs::File;
use std::io::Write;
use std::num::NonZeroU16;
use std::time::Instant;

use mote_media::{
    AudioSpec, Av1Settings, ClipSpec, Frame, FrameWriter, Limits, Output, RawLayout, SheetLayout,
    contact_sheet, encode_png,
};

/// Pictures on the contact sheet.
const SHEET_FRAMES: u64 = 12;
const TONE: AudioSpec = AudioSpec {
    sample_rate: 48_000,
    channels: 2,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let has_tone = args.first().is_some_and(|arg| arg == "--tone");
    let rest = args.split_off(usize::from(has_tone));
    let [input, path, sheet @ ..] = rest.as_slice() else {
        return Err("usage: recode [--tone] IN OUT [SHEET.png]".into());
    };
    let limits = Limits::default();
    let mut clip = mote_media::open(File::open(input)?, &limits)?;
    let spec = ClipSpec::like(clip.info());
    let output = output_of(path)?;
    let file = File::create(path)?;
    let mut writer = if has_tone {
        mote_media::create_with_audio(file, &spec, &output, &TONE, &limits)?
    } else {
        mote_media::create(file, &spec, &output, &limits)?
    };
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
        if has_tone {
            push_tone(writer.as_mut(), frames, &spec)?;
        }
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

fn output_of(path: &str) -> Result<Output, Box<dyn Error>> {
    let threads = std::thread::available_parallelism()?.get() as u16;
    let threads = NonZeroU16::new(threads).unwrap_or(NonZeroU16::MIN);
    let settings = Av1Settings {
        threads,
        tiles: threads.get(),
        ..Av1Settings::default()
    };
    Ok(match path.rsplit('.').next() {
        Some("mp4") => Output::Mp4Av1(settings),
        Some("webm") => Output::WebmAv1(settings),
        Some("gif") => Output::Gif,
        Some("webp") => Output::WebP,
        Some("png") => Output::PngStream,
        Some("y4m") => Output::Y4m,
        Some("rgb") => Output::Raw(RawLayout::Rgb8),
        Some("yuv") => Output::Raw(RawLayout::I420),
        _ => return Err(format!("no format is called as {path} ends").into()),
    })
}

/// The sound that belongs to frame `index`.
fn push_tone(
    writer: &mut dyn FrameWriter,
    index: u64,
    spec: &ClipSpec,
) -> Result<(), mote_media::MediaError> {
    let rate = f64::from(TONE.sample_rate);
    let starts_at = |index: u64| (index as f64 * rate / spec.frame_rate.as_f64()).round() as u64;
    let samples: Vec<f32> = (starts_at(index)..starts_at(index + 1))
        .flat_map(|at| {
            let seconds = at as f32 / TONE.sample_rate as f32;
            [440.0, 660.0].map(|hertz| 0.4 * (TAU * hertz * seconds).sin())
        })
        .collect();
    writer.push_audio(&samples)
}
