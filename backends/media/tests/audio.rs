//! Sound beside pictures: the track, its tables, and every sample. FLAC is decoded by a crate of its own.

mod common;

use std::io::Cursor;

use common::{content_of, drawn, payload_at, rate, read_clip, refusal, spec};
use mote_media::{AudioSpec, Av1Settings, Limits, MediaError, Output, Quantity};

const FRAMES: u32 = 10;

fn tone(samples: usize, channels: usize) -> Vec<f32> {
    (0..samples * channels)
        .map(|at| {
            let (time, channel) = ((at / channels) as f32, (at % channels) as f32);
            (time * (0.03 + 0.01 * channel)).sin() * 0.7
        })
        .collect()
}

fn quantised(samples: &[f32]) -> Vec<i32> {
    samples
        .iter()
        .map(|&sample| {
            (f64::from(sample) * 32768.0)
                .round()
                .clamp(-32768.0, 32767.0) as i32
        })
        .collect()
}

/// Writes a clip of [`FRAMES`] frames whose samples come in pieces after each of them, and the rest at the end.
fn clip(audio: AudioSpec, samples: &[f32], piece: usize) -> Vec<u8> {
    let file = tempfile::tempfile().expect("a temporary file");
    let mut writer = mote_media::create_with_audio(
        file.try_clone().expect("a second handle"),
        &spec(32, 32, rate(25, 1)),
        &Output::Mp4Av1(Av1Settings::default()),
        &audio,
        &Limits::default(),
    )
    .expect("valid settings");
    let mut left = samples;
    for index in 0..FRAMES {
        writer
            .push(&drawn(32, 32, index, 256))
            .expect("a fitting frame");
        let (now, later) = left.split_at(left.len().min(piece));
        writer.push_audio(now).expect("room for samples");
        left = later;
    }
    writer.push_audio(left).expect("room for samples");
    writer.finish().expect("a complete clip");
    content_of(file)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// The part of the file behind the sound's handler: its sample tables.
fn sound(mp4: &[u8]) -> &[u8] {
    &mp4[payload_at(mp4, b"smhd")..]
}

/// The blocks of the audio track behind `fLaC` and `STREAMINFO`, which is a FLAC file.
fn flac(mp4: &[u8]) -> Vec<u8> {
    let tables = sound(mp4);
    let info = payload_at(tables, b"dfLa") + 4;
    let mut file = b"fLaC".to_vec();
    file.extend_from_slice(&tables[info..info + 4 + 34]);
    let (sizes, runs, chunks) = (
        payload_at(tables, b"stsz") + 8,
        payload_at(tables, b"stsc") + 4,
        payload_at(tables, b"stco") + 4,
    );
    let mut sample = 0;
    for chunk in 1..=u32_at(tables, chunks) {
        let run = (0..u32_at(tables, runs) as usize)
            .rfind(|&run| u32_at(tables, runs + 4 + run * 12) <= chunk)
            .expect("a run for every chunk");
        let mut at = u32_at(tables, chunks + 4 * chunk as usize) as usize;
        for _ in 0..u32_at(tables, runs + 4 + run * 12 + 4) {
            sample += 1;
            let bytes = u32_at(tables, sizes + 4 * sample) as usize;
            file.extend_from_slice(&mp4[at..at + bytes]);
            at += bytes;
        }
    }
    assert_eq!(sample, u32_at(tables, sizes) as usize);
    file
}

#[test]
fn every_sample_comes_back_whenever_it_was_pushed() {
    for (channels, rate, samples, piece) in [
        (1, 16_000, 6400, 640),
        (2, 48_000, 19_200, 1_000_000),
        (2, 44_100, 17_640, 0),
        (1, 8000, 1, 100),
        (2, 48_000, 4096 * 2 + 3, 999),
        (6, 96_000, 5000, 6000),
    ] {
        let audio = AudioSpec {
            sample_rate: rate,
            channels,
        };
        let samples = tone(samples, channels.into());
        let mp4 = clip(audio, &samples, piece);
        let mut flac = claxon::FlacReader::new(Cursor::new(flac(&mp4))).expect("a FLAC file");
        let info = flac.streaminfo();
        assert_eq!(
            (info.sample_rate, info.channels, info.bits_per_sample),
            (rate, channels.into(), 16)
        );
        assert_eq!(
            info.samples,
            Some(samples.len() as u64 / u64::from(channels))
        );
        let have: Vec<i32> = flac
            .samples()
            .collect::<Result<_, _>>()
            .expect("valid blocks");
        assert!(
            have == quantised(&samples),
            "{audio:?} in pieces of {piece}"
        );
        assert_eq!(
            read_clip(&mp4).expect("a readable clip").len(),
            FRAMES as usize
        );
    }
}

/// 0.4 s of pictures in units of 1/25 s, and 1 s of sound.
#[test]
fn durations_are_in_the_units_of_each() {
    let audio = AudioSpec {
        sample_rate: 16_000,
        channels: 1,
    };
    let mp4 = clip(audio, &tone(16_000, 1), 1600);
    let movie = payload_at(&mp4, b"mvhd");
    assert_eq!(
        (u32_at(&mp4, movie + 20), u32_at(&mp4, movie + 28)),
        (25, 25)
    );
    let edits: Vec<u32> = mp4
        .windows(4)
        .enumerate()
        .filter(|(_, name)| name == b"elst")
        .map(|(at, _)| u32_at(&mp4, at + 4 + 8 + 4))
        .collect();
    assert_eq!(edits, [10, 25]);
    let tables = sound(&mp4);
    let times = payload_at(tables, b"stts") + 4;
    let runs: Vec<u32> = (0..5).map(|at| u32_at(tables, times + at * 4)).collect();
    assert_eq!(runs, [2, 3, 4096, 1, 16_000 - 3 * 4096]);
}

#[test]
fn a_track_without_samples_is_left_out() {
    let audio = AudioSpec {
        sample_rate: 48_000,
        channels: 2,
    };
    let mp4 = clip(audio, &[], 0);
    assert!(!mp4.windows(4).any(|name| name == b"soun"));
    assert!(read_clip(&mp4).is_ok());
}

#[test]
fn sound_that_does_not_hold_is_refused() {
    let create = |sample_rate, channels| {
        mote_media::create_with_audio(
            tempfile::tempfile().expect("a temporary file"),
            &spec(32, 32, rate(25, 1)),
            &Output::Mp4Av1(Av1Settings::default()),
            &AudioSpec {
                sample_rate,
                channels,
            },
            &Limits::default(),
        )
    };
    for (sample_rate, channels, quantity) in [
        (0, 1, Quantity::AudioSampleRate),
        (192_001, 1, Quantity::AudioSampleRate),
        (48_000, 0, Quantity::AudioChannels),
        (48_000, 9, Quantity::AudioChannels),
    ] {
        match refusal(create(sample_rate, channels)) {
            MediaError::TooLarge { what, .. } | MediaError::TooSmall { what, .. } => {
                assert_eq!(what, quantity);
            }
            other => panic!("refused with {other:?}"),
        }
    }
    let mut writer = create(1, 1).expect("valid settings");
    let day = vec![0.0; 24 * 3600];
    writer.push_audio(&day).expect("room for a day");
    assert!(matches!(
        refusal(writer.push_audio(&[0.0])),
        MediaError::TooLarge {
            what: Quantity::AudioSamples,
            ..
        }
    ));
    let mut writer = create(48_000, 2).expect("valid settings");
    writer
        .push(&drawn(32, 32, 0, 256))
        .expect("a fitting frame");
    writer.push_audio(&[0.0; 3]).expect("room for samples");
    assert!(matches!(
        refusal(writer.finish()),
        MediaError::Corrupt { .. }
    ));
}
