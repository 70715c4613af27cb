//! Clips in, smoother clips out.

use crate::{ONNXRUNTIME, client};
use anyhow::{Context, Result};
use mote_client::{ClipEvent, ClipFormat, Receipt, TransformClip};
use mote_media::{AudioSpec, Av1Settings, ClipSpec, Frame, Limits, Output, Rational};
use mote_tests::prepared;
use std::fs::File;
use std::path::Path;

const FRAMES_IN: u64 = 16;
const FRAMES_OUT: u64 = 31;
const PREVIEW_EVERY: u32 = 10;
const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

fn written(path: &Path) -> Result<File> {
    let mut options = File::options();
    let options = options.read(true).write(true).create(true).truncate(true);
    Ok(options.open(path)?)
}

#[test]
fn a_clip_gets_a_frame_between_each_two() -> Result<()> {
    let client = client()?;
    let bikes = prepared("MOTE_CACHE")?.join("files/sample-clips/bikes.mp4");
    let folder = tempfile::tempdir()?;
    let (clip, sheet) = (folder.path().join("out.mp4"), folder.path().join("out.png"));
    let request = TransformClip {
        model: "rife".into(),
        factor: 2,
        output_format: ClipFormat::Mp4Av1,
        frames_max: Some(FRAMES_IN),
        width_max: Some(320),
        height_max: None,
        frame_rate: None,
        encoder_speed: None,
        preview_every: Some(PREVIEW_EVERY),
        tile_side_max: None,
        options: ONNXRUNTIME.required(),
        input: File::open(bikes)?.into(),
        output: written(&clip)?.into(),
        contact_sheet: Some(written(&sheet)?.into()),
    };
    let (mut previews, mut end) = (0, None);
    for event in client.transform_clip(request)? {
        match event? {
            ClipEvent::Preview(preview) => {
                assert!(preview.png.starts_with(PNG_SIGNATURE));
                assert_eq!(preview.width, 320);
                previews += 1;
            }
            ClipEvent::Done(done) => end = Some(done),
            _ => {}
        }
    }
    assert!(previews > 0);
    let receipt = end.context("a clip ends with its receipt")?.receipt;
    ONNXRUNTIME.check("rife", &receipt);
    assert_eq!(
        (receipt.frames_in, receipt.frames_out),
        (FRAMES_IN, FRAMES_OUT)
    );
    assert_eq!(receipt.steps, FRAMES_OUT - FRAMES_IN);
    let clip = std::fs::read(clip)?;
    assert_eq!(clip.get(4..8), Some(b"ftyp".as_slice()));
    let sheet = std::fs::read(sheet)?;
    assert!(sheet.starts_with(PNG_SIGNATURE));
    Ok(())
}

const SOUNDING_FRAMES: u32 = 10;
const SAMPLE_RATE: u32 = 24_000;

/// A clip of 25 frames per second with a tone, which goes on for a tenth of a second behind them.
fn sounding(output: &Output) -> Result<File> {
    let file = tempfile::tempfile()?;
    let (width, height) = (64, 64);
    let one = |num| Rational::new(num, 1).context("a positive rate");
    let spec = ClipSpec {
        width,
        height,
        frame_rate: one(25)?,
        pixel_aspect: one(1)?,
    };
    let audio = AudioSpec {
        sample_rate: SAMPLE_RATE,
        channels: 2,
    };
    let limits = Limits::default();
    let mut writer =
        mote_media::create_with_audio(file.try_clone()?, &spec, output, &audio, &limits)?;
    for index in 0..SOUNDING_FRAMES {
        let mut frame = Frame::black(width, height);
        frame.rgb.fill(10 * index as u8);
        writer.push(&frame)?;
    }
    let samples = SAMPLE_RATE * SOUNDING_FRAMES / 25 + SAMPLE_RATE / 10;
    let tone: Vec<f32> = (0..2 * samples)
        .map(|at| (at as f32 * 0.03).sin())
        .collect();
    writer.push_audio(&tone)?;
    writer.finish()?;
    Ok(file)
}

/// The receipt and the result of a clip that is made smoother.
fn smoothed(input: &File, format: ClipFormat, frames_max: Option<u64>) -> Result<(Receipt, File)> {
    let client = client()?;
    let output = tempfile::tempfile()?;
    let request = TransformClip {
        model: "rife".into(),
        factor: 2,
        output_format: format,
        frames_max,
        width_max: None,
        height_max: None,
        frame_rate: None,
        encoder_speed: None,
        preview_every: None,
        tile_side_max: None,
        options: ONNXRUNTIME.required(),
        input: input.try_clone()?.into(),
        output: output.try_clone()?.into(),
        contact_sheet: None,
    };
    for event in client.transform_clip(request)? {
        if let ClipEvent::Done(done) = event? {
            return Ok((done.receipt, output));
        }
    }
    anyhow::bail!("a clip ends with its receipt")
}

/// Codec, samples, their rate and channels of a clip's sound, as the receipt tells.
fn told(receipt: &Receipt) -> (&str, u64, u32, u32) {
    (
        &receipt.audio_codec,
        receipt.audio_samples_out,
        receipt.audio_sample_rate,
        receipt.audio_channels,
    )
}

#[test]
fn sound_stays_with_a_clip_where_it_can_and_is_told_of() -> Result<()> {
    let av1 = Av1Settings::default();
    let (flac, opus) = (
        sounding(&Output::Mp4Av1(av1))?,
        sounding(&Output::WebmAv1(av1))?,
    );
    // All of it is half a second; six frames have 0.24 s. Opus is counted at 48 kHz.
    for (input, format, frames_max, expected) in [
        (&flac, ClipFormat::Mp4Av1, None, ("flac", 12_000, 24_000, 2)),
        (
            &flac,
            ClipFormat::Mp4Av1,
            Some(6),
            ("flac", 5760, 24_000, 2),
        ),
        (&flac, ClipFormat::WebmAv1, None, ("", 12_000, 24_000, 2)),
        (
            &opus,
            ClipFormat::WebmAv1,
            None,
            ("opus", 24_000, 48_000, 2),
        ),
        (
            &opus,
            ClipFormat::WebmAv1,
            Some(6),
            ("opus", 11_520, 48_000, 2),
        ),
        (&opus, ClipFormat::Mp4Av1, None, ("opus", 24_000, 48_000, 2)),
        (&opus, ClipFormat::Gif, Some(6), ("", 11_520, 48_000, 2)),
    ] {
        let (receipt, output) = smoothed(input, format, frames_max)?;
        assert_eq!(told(&receipt), expected, "{format:?}, {frames_max:?}");
        let clip = mote_media::open(output, &Limits::default())?;
        let frames = 2 * frames_max.unwrap_or(SOUNDING_FRAMES.into()) - 1;
        assert_eq!(clip.info().frame_count.unwrap_or(frames), frames);
        let in_file = clip
            .sound()
            .map(|sound| (sound.samples(), sound.sample_rate()));
        let kept = (!expected.0.is_empty()).then_some((expected.1, expected.2));
        assert_eq!(in_file, kept, "{format:?}, {frames_max:?}");
    }
    // What comes without sound has none.
    let silent = tempfile::tempfile()?;
    let mut copy = silent.try_clone()?;
    let bikes = prepared("MOTE_CACHE")?.join("files/sample-clips/bikes.mp4");
    std::io::copy(&mut File::open(bikes)?, &mut copy)?;
    let (receipt, _) = smoothed(&silent, ClipFormat::Mp4Av1, Some(2))?;
    assert_eq!(told(&receipt), ("", 0, 0, 0));
    Ok(())
}

/// Frames of the test clip made four times as wide and high, as raw pixels.
fn enlarged(frames: u64, tile_side_max: Option<u32>) -> Result<(Vec<u8>, mote_client::Receipt)> {
    let client = client()?;
    let bikes = prepared("MOTE_CACHE")?.join("files/sample-clips/bikes.mp4");
    let folder = tempfile::tempdir()?;
    let clip = folder.path().join("out.rgb");
    let request = TransformClip {
        model: "animesr".into(),
        factor: 0,
        output_format: ClipFormat::RawRgb8,
        frames_max: Some(frames),
        width_max: Some(160),
        height_max: None,
        frame_rate: None,
        encoder_speed: None,
        preview_every: None,
        tile_side_max,
        options: ONNXRUNTIME.required(),
        input: File::open(bikes)?.into(),
        output: written(&clip)?.into(),
        contact_sheet: None,
    };
    for event in client.transform_clip(request)? {
        if let ClipEvent::Done(done) = event? {
            return Ok((std::fs::read(clip)?, done.receipt));
        }
    }
    anyhow::bail!("a clip ends with its receipt")
}

#[test]
fn frames_are_enlarged_and_tiles_leave_no_seam() -> Result<()> {
    const FRAMES: u64 = 3;
    let (whole, receipt) = enlarged(FRAMES, None)?;
    ONNXRUNTIME.check("animesr", &receipt);
    assert_eq!((receipt.frames_in, receipt.frames_out), (FRAMES, FRAMES));
    assert_eq!(receipt.steps, FRAMES);
    // 160 x 68 pixels, four times as wide and high.
    assert_eq!(whole.len() as u64, FRAMES * 640 * 272 * 3);
    let (tiled, receipt) = enlarged(FRAMES, Some(112))?;
    assert!(receipt.steps > FRAMES, "it was cut: {}", receipt.steps);
    let most = whole.iter().zip(&tiled).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(most.is_some_and(|most| most <= 2), "{most:?}");
    Ok(())
}

#[test]
fn a_model_is_asked_for_what_it_can_do() -> Result<()> {
    let client = client()?;
    let refused = |model: &str, factor| -> Result<mote_client::Status> {
        let request = TransformClip {
            model: model.into(),
            factor,
            output_format: ClipFormat::Gif,
            frames_max: Some(2),
            width_max: None,
            height_max: None,
            frame_rate: None,
            encoder_speed: None,
            preview_every: None,
            tile_side_max: None,
            options: ONNXRUNTIME.required(),
            input: File::open(prepared("MOTE_CACHE")?.join("files/sample-clips/bikes.mp4"))?.into(),
            output: tempfile::tempfile()?.into(),
            contact_sheet: None,
        };
        for event in client.transform_clip(request)? {
            match event {
                Err(mote_client::ClientError::Refused(status)) => return Ok(status),
                other => drop(other?),
            }
        }
        anyhow::bail!("it was done")
    };
    let output = tempfile::tempfile()?;
    let asked = mote_client::GenerateClip::new("rife", "a boat", output.into());
    let refusal = client.generate_clip(asked)?.find_map(Result::err);
    let refusal = refusal.context("frames between frames are no clip of words")?;
    assert!(
        refusal.to_string().contains("not for clip-generation"),
        "{refusal}"
    );
    for (model, factor, field) in [
        ("rife", 0, "factor"),
        ("animesr", 2, "factor"),
        ("magika", 2, "model"),
    ] {
        let status = refused(model, factor)?;
        let is_named =
            matches!(&status, mote_client::Status::Invalid { field: named, .. } if named == field);
        assert!(is_named, "{model}: {status:?}");
    }
    Ok(())
}
