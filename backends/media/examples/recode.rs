//! Reads a clip and writes it as another, with a contact sheet on request.
//!
//! `recode [--tone[=RATE] | --sound[=FRAMES]] IN OUT.mp4|webm|gif|webp|png|y4m|rgb|yuv [SHEET.png]`: the ending says the format; `rgb` and
//! `yuv` are raw frames. `--tone` gives an MP4 or WebM a sound: RATE (or 48,000) samples per second in stereo, 440 Hz left
//! and 660 Hz right, and 123 samples longer than the frames. `--sound` keeps that of the input, of the first FRAMES frames
//! or of all, and says what became of it.

use std::error::Error;
use std::f64::consts::TAU;
use std::fs::File;
use std::io::Write;
use std::num::NonZeroU16;
use std::ops::Range;
use std::time::Instant;

use mote_media::{
    AudioSpec, Av1Settings, ClipSpec, Frame, FrameWriter, Limits, Output, RawLayout, SheetLayout,
    contact_sheet, encode_png,
};

/// Pictures on the contact sheet.
const SHEET_FRAMES: u64 = 12;
/// Samples per second of the sound where nothing is said.
const TONE_RATE: u32 = 48_000;
/// Samples of sound behind the last frame, so that it ends inside of what a codec codes at once.
const TONE_TAIL: u64 = 123;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let tone = args.first().and_then(|arg| arg.strip_prefix("--tone"));
    let tone = match tone {
        Some(rate) => Some(AudioSpec {
            sample_rate: match rate.strip_prefix('=') {
                Some(rate) => rate.parse()?,
                None => TONE_RATE,
            },
            channels: 2,
        }),
        None => None,
    };
    let keep = args.first().and_then(|arg| arg.strip_prefix("--sound"));
    let frames_max: Option<u64> = match keep.and_then(|keep| keep.strip_prefix('=')) {
        Some(frames) => Some(frames.parse()?),
        None => None,
    };
    let keeps = keep.is_some();
    let rest = args.split_off(usize::from(tone.is_some() || keeps));
    let [input, path, sheet @ ..] = rest.as_slice() else {
        return Err("usage: recode [--tone[=RATE] | --sound[=FRAMES]] IN OUT [SHEET.png]".into());
    };
    let limits = Limits::default();
    let mut clip = mote_media::open(File::open(input)?, &limits)?;
    let spec = ClipSpec::like(clip.info());
    let output = output_of(path)?;
    let file = File::create(path)?;
    let sound = clip.sound().filter(|_| keeps).cloned();
    let sound = match frames_max {
        Some(frames) => sound.and_then(|sound| sound.cut(frames, spec.frame_rate)),
        None => sound,
    };
    if keeps {
        let mut err = std::io::stderr();
        match &sound {
            Some(sound) => writeln!(
                err,
                "sound: {:?}, {} Hz, {} channels, {} samples, {}",
                sound.codec(),
                sound.sample_rate(),
                sound.channels(),
                sound.samples(),
                if output.keeps_sound(sound) {
                    "kept"
                } else {
                    "lost"
                },
            )?,
            None => writeln!(err, "sound: none")?,
        }
    }
    let sound = sound.filter(|sound| output.keeps_sound(sound));
    let mut writer = match (&tone, &sound) {
        (Some(tone), _) => mote_media::create_with_audio(file, &spec, &output, tone, &limits)?,
        (_, Some(sound)) => mote_media::create_with_sound(file, &spec, &output, sound, &limits)?,
        _ => mote_media::create(file, &spec, &output, &limits)?,
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
        if frames_max == Some(frames) {
            break;
        }
        writer.push(&frame)?;
        if let Some(tone) = tone {
            let starts_at = |index| sample_of_frame(tone, &spec, index);
            push_tone(
                writer.as_mut(),
                tone,
                starts_at(frames)..starts_at(frames + 1),
            )?;
        }
        if frames.is_multiple_of(step) {
            picked.push(frame);
        }
        frames += 1;
    }
    if let Some(tone) = tone {
        let ends_at = sample_of_frame(tone, &spec, frames);
        push_tone(writer.as_mut(), tone, ends_at..ends_at + TONE_TAIL)?;
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

/// The first sample that is heard with frame `index`.
fn sample_of_frame(tone: AudioSpec, spec: &ClipSpec, index: u64) -> u64 {
    let rate = f64::from(tone.sample_rate);
    (index as f64 * rate / spec.frame_rate.as_f64()).round() as u64
}

fn push_tone(
    writer: &mut dyn FrameWriter,
    tone: AudioSpec,
    samples: Range<u64>,
) -> Result<(), mote_media::MediaError> {
    let samples: Vec<f32> = samples
        .flat_map(|at| {
            let seconds = at as f64 / f64::from(tone.sample_rate);
            [440.0, 660.0].map(|hertz| (0.4 * (TAU * hertz * seconds).sin()) as f32)
        })
        .collect();
    writer.push_audio(&samples)
}
