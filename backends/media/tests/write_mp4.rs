//! AV1 in MP4, checked box by box with a reader of its own. What decoders make of it needs one; see the crate's docs.

mod common;

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::num::NonZeroU16;

use common::{drawn, refusal};
use mote_media::{
    Av1Settings, ClipSpec, Frame, Limits, MediaError, Output, Quantity, Rational, WrittenClip,
};

const CONTAINERS: [&[u8; 4]; 6] = [b"moov", b"trak", b"mdia", b"minf", b"stbl", b"dinf"];

fn spec(width: u32, height: u32) -> ClipSpec {
    ClipSpec {
        width,
        height,
        frame_rate: Rational::new(30000, 1001).expect("a positive fraction"),
        pixel_aspect: Rational::new(4, 3).expect("a positive fraction"),
    }
}

fn settings() -> Av1Settings {
    Av1Settings {
        threads: NonZeroU16::MIN.saturating_add(1),
        tiles: 2,
        ..Av1Settings::default()
    }
}

fn write(spec: &ClipSpec, settings: Av1Settings, frames: u32) -> (Vec<u8>, WrittenClip) {
    let mut file = tempfile::tempfile().expect("a temporary file");
    let handle = file.try_clone().expect("a second handle");
    let mut writer =
        mote_media::create(handle, spec, &Output::Mp4Av1(settings), &Limits::default())
            .expect("valid settings");
    for index in 0..frames {
        writer
            .push(&drawn(spec.width, spec.height, index, 256))
            .expect("a fitting frame");
    }
    let written = writer.finish().expect("a complete clip");
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).expect("a seekable file");
    file.read_to_end(&mut bytes).expect("a readable file");
    (bytes, written)
}

/// Payloads by box name; every name occurs once in what is written.
fn boxes(bytes: &[u8]) -> HashMap<[u8; 4], &[u8]> {
    let mut found = HashMap::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let name: [u8; 4] = rest[4..8].try_into().expect("four bytes");
        let (head, size) = match u32_at(rest, 0) {
            1 => (
                16,
                u64::from_be_bytes(rest[8..16].try_into().expect("eight bytes")) as usize,
            ),
            size => (8, size as usize),
        };
        assert!(
            size >= head && size <= rest.len(),
            "box {} has {size} bytes",
            name.escape_ascii()
        );
        let payload = &rest[head..size];
        if CONTAINERS.contains(&&name) {
            found.extend(boxes(payload));
        }
        match &name {
            b"stsd" => found.extend(boxes(&payload[8..])),
            b"av01" => found.extend(boxes(&payload[78..])),
            _ => {}
        }
        assert!(
            found.insert(name, payload).is_none(),
            "two {} boxes",
            name.escape_ascii()
        );
        rest = &rest[size..];
    }
    found
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u32s(bytes: &[u8]) -> Vec<u32> {
    (0..bytes.len() / 4)
        .map(|index| u32_at(bytes, index * 4))
        .collect()
}

/// Samples as byte ranges of the file, from stsc, stco and stsz.
fn samples(found: &HashMap<[u8; 4], &[u8]>) -> Vec<(usize, usize)> {
    let sizes = &u32s(found[b"stsz"])[3..];
    let runs = &u32s(found[b"stsc"])[2..];
    let mut samples = Vec::new();
    for (chunk, &offset) in (1..).zip(&u32s(found[b"stco"])[2..]) {
        let run = runs
            .chunks_exact(3)
            .rfind(|run| run[0] <= chunk)
            .expect("a run for every chunk");
        let mut at = offset as usize;
        for _ in 0..run[1] {
            let size = sizes[samples.len()] as usize;
            samples.push((at, at + size));
            at += size;
        }
    }
    assert_eq!(samples.len(), sizes.len());
    samples
}

#[test]
fn file_is_complete_and_its_tables_agree() {
    const FRAMES: u32 = 75;
    let (bytes, written) = write(&spec(112, 64), settings(), FRAMES);
    assert_eq!(
        written,
        WrittenClip {
            bytes: bytes.len() as u64,
            frames: FRAMES.into()
        }
    );
    let found = boxes(&bytes);
    assert!(bytes[8..].windows(4).take(32).any(|brand| brand == b"av01"));
    // 75 frames of 1001 units of 1/30000 s.
    assert_eq!(u32s(found[b"stts"]), [0, 1, FRAMES, 1001]);
    assert_eq!(u32_at(found[b"mdhd"], 20), 30000);
    assert_eq!(u32s(&found[b"mdhd"][24..32]), [0, FRAMES * 1001]);
    assert_eq!(u32s(&found[b"pasp"][..8]), [4, 3]);
    assert_eq!(found[b"colr"], b"nclx\0\x01\0\x01\0\x01\0");
    assert_eq!(found[b"av01"][24..28], [0, 112, 0, 64]);
    let samples = samples(&found);
    assert_eq!(samples.len(), FRAMES as usize);
    // Back to back, and nothing else, in the media data.
    let media_data = found[b"mdat"].as_ptr() as usize - bytes.as_ptr() as usize;
    let mut end = media_data;
    for (start, sample_end) in samples {
        assert_eq!(start, end);
        end = sample_end;
    }
    assert_eq!(end, media_data + found[b"mdat"].len());
}

#[test]
fn key_frames_are_where_the_index_says() {
    let (bytes, _) = write(&spec(64, 64), settings(), 170);
    let found = boxes(&bytes);
    let keys = &u32s(found[b"stss"])[2..];
    assert_eq!(keys[0], 1);
    assert!(
        keys.len() >= 2,
        "170 frames at 30 per second need a second key frame within 5 s"
    );
    assert!(
        keys.windows(2).all(|pair| pair[1] - pair[0] <= 150),
        "{keys:?}"
    );
    let config = found[b"av1C"];
    assert_eq!(
        (config[0], config[1] >> 5, config[2] & 0x1c),
        (0x81, 0, 0x0c)
    );
    for (number, (start, end)) in (1..).zip(samples(&found)) {
        let kind = bytes[start] >> 3;
        assert_ne!(kind, 2, "sample {number} begins with a temporal delimiter");
        assert!(end > start);
        assert_eq!(
            kind == 1,
            keys.contains(&number),
            "sample {number} begins with unit {kind}"
        );
        if kind == 1 {
            assert!(
                bytes[start..end].starts_with(&config[4..]),
                "sequence header of sample {number}"
            );
        }
    }
}

#[test]
fn small_and_odd_sizes_and_single_frames_are_written() {
    for (width, height, frames) in [(16, 16, 1), (17, 19, 3), (16, 99, 2), (33, 16, 1)] {
        let (bytes, written) = write(&spec(width, height), settings(), frames);
        assert_eq!(written.frames, u64::from(frames));
        assert_eq!(samples(&boxes(&bytes)).len(), frames as usize);
    }
}

#[test]
fn low_latency_writes_every_frame_too() {
    let settings = Av1Settings {
        low_latency: true,
        ..settings()
    };
    let (bytes, written) = write(&spec(48, 32), settings, 20);
    assert_eq!((written.frames, samples(&boxes(&bytes)).len()), (20, 20));
}

#[test]
fn a_file_that_was_longer_is_emptied_first() {
    let mut file = tempfile::tempfile().expect("a temporary file");
    std::io::Write::write_all(&mut file, &vec![7; 1 << 20]).expect("space for a small file");
    let spec = spec(16, 16);
    let mut writer = mote_media::create(
        file.try_clone().expect("a second handle"),
        &spec,
        &Output::Gif,
        &Limits::default(),
    )
    .expect("valid settings");
    writer.push(&Frame::black(16, 16)).expect("a fitting frame");
    let written = writer.finish().expect("a complete clip");
    assert_eq!(file.metadata().expect("an open file").len(), written.bytes);
}

#[test]
fn wrong_frames_and_settings_are_refused() {
    let file = || tempfile::tempfile().expect("a temporary file");
    let output = Output::Mp4Av1(settings());
    let limits = Limits {
        frames_max: 2,
        ..Limits::default()
    };
    let mut writer =
        mote_media::create(file(), &spec(32, 32), &output, &limits).expect("valid settings");
    let refused = refusal(writer.push(&Frame::black(32, 16)));
    assert!(matches!(
        refused,
        MediaError::FrameSize {
            frame: 0,
            have: (32, 16),
            want: (32, 32)
        }
    ));
    let short = Frame {
        rgb: vec![0; 5],
        ..Frame::black(32, 32)
    };
    assert!(matches!(
        refusal(writer.push(&short)),
        MediaError::FrameSize { .. }
    ));
    assert!(matches!(refusal(writer.finish()), MediaError::NoFrames));

    let mut writer =
        mote_media::create(file(), &spec(32, 32), &output, &limits).expect("valid settings");
    for _ in 0..2 {
        writer.push(&Frame::black(32, 32)).expect("a fitting frame");
    }
    let refused = refusal(writer.push(&Frame::black(32, 32)));
    assert!(matches!(
        refused,
        MediaError::TooLarge {
            what: Quantity::Frames,
            have: 3,
            limit: 2
        }
    ));

    let refused = refusal(mote_media::create(file(), &spec(15, 32), &output, &limits));
    assert!(matches!(
        refused,
        MediaError::TooSmall {
            what: Quantity::Width,
            have: 15,
            least: 16
        }
    ));
    let refused = refusal(mote_media::create(
        file(),
        &spec(5000, 32),
        &output,
        &limits,
    ));
    assert!(matches!(
        refused,
        MediaError::TooLarge {
            what: Quantity::Width,
            have: 5000,
            ..
        }
    ));
}
