//! What the tests of clips share.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod mp4;
pub mod webm;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

use mote_media::{ClipSpec, Frame, FrameReader, Limits, MediaError, Output, Rational};

/// 40 frames of 106 × 74 pixels, 25 per second; see data/make_pattern.py.
pub const PATTERN: &[u8] = include_bytes!("../data/pattern.mp4");

/// 24 frames of AV1 of the same size and rate; see data/make_av1.py.
pub const AV1_WEBM: &[u8] = include_bytes!("../data/av1.webm");

/// 8 frames of AV1: 4:4:4, 10 bits, BT.601, full range.
pub const AV1_MP4: &[u8] = include_bytes!("../data/av1.mp4");

/// CRC-32 of each frame of [`PATTERN`] as libavcodec decodes it.
pub fn pattern_sums() -> Vec<u32> {
    sums_of(include_str!("../data/pattern.crc"))
}

/// CRC-32 of each frame of [`AV1_WEBM`] as libdav1d decodes it.
pub fn av1_webm_sums() -> Vec<u32> {
    sums_of(include_str!("../data/av1.webm.crc"))
}

/// CRC-32 of each frame of [`AV1_MP4`] as libdav1d decodes it.
pub fn av1_mp4_sums() -> Vec<u32> {
    sums_of(include_str!("../data/av1.mp4.crc"))
}

fn sums_of(text: &str) -> Vec<u32> {
    text.lines()
        .map(|line| u32::from_str_radix(line, 16).expect("a hexadecimal number"))
        .collect()
}

/// A file with these bytes, gone when closed.
pub fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(bytes).expect("space for a small file");
    file
}

/// Opens `bytes` with default limits and reads every frame.
pub fn read_clip(bytes: &[u8]) -> Result<Vec<Frame>, MediaError> {
    read_frames(mote_media::open(file_of(bytes), &Limits::default())?)
}

pub fn read_frames(mut clip: Box<dyn FrameReader>) -> Result<Vec<Frame>, MediaError> {
    let mut frames = Vec::new();
    while let Some(frame) = clip.next_frame()? {
        assert!(frame.is_consistent());
        assert_eq!(
            (frame.width, frame.height),
            (clip.info().width, clip.info().height)
        );
        frames.push(frame);
    }
    Ok(frames)
}

/// CRC-32 of each frame.
pub fn sums(frames: &[Frame]) -> Vec<u32> {
    frames.iter().map(|frame| crc32(&frame.rgb)).collect()
}

pub fn rate(num: u64, den: u64) -> Rational {
    Rational::new(num, den).expect("a positive fraction")
}

/// A clip of this size with square pixels.
pub fn spec(width: u32, height: u32, frame_rate: Rational) -> ClipSpec {
    ClipSpec {
        width,
        height,
        frame_rate,
        pixel_aspect: Rational::ONE,
    }
}

/// The file that these frames become.
pub fn written(output: &Output, spec: &ClipSpec, frames: &[Frame]) -> Vec<u8> {
    let file = tempfile::tempfile().expect("a temporary file");
    let handle = file.try_clone().expect("a second handle");
    let mut writer =
        mote_media::create(handle, spec, output, &Limits::default()).expect("valid settings");
    for frame in frames {
        writer.push(frame).expect("a fitting frame");
    }
    let written = writer.finish().expect("a complete clip");
    let bytes = content_of(file);
    let want = (bytes.len() as u64, frames.len() as u64);
    assert_eq!((written.bytes, written.frames), want);
    bytes
}

/// All of a file.
pub fn content_of(mut file: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).expect("a seekable file");
    file.read_to_end(&mut bytes).expect("a readable file");
    bytes
}

/// Peak signal to noise ratio of two clips, in dB; infinite where they are equal.
pub fn psnr_db(a: &[Frame], b: &[Frame]) -> f64 {
    assert_eq!(a.len(), b.len());
    let bytes = |frames: &[Frame]| -> Vec<u8> {
        frames
            .iter()
            .flat_map(|frame| frame.rgb.iter().copied())
            .collect()
    };
    let (a, b) = (bytes(a), bytes(b));
    assert_eq!(a.len(), b.len());
    let squares: f64 = a
        .iter()
        .zip(&b)
        .map(|(&a, &b)| f64::from(a.abs_diff(b)).powi(2))
        .sum();
    10.0 * (255.0 * 255.0 * a.len() as f64 / squares).log10()
}

/// The error of a result that must be one.
pub fn refusal<T>(result: Result<T, MediaError>) -> MediaError {
    result.err().expect("the clip must be refused")
}

/// CRC-32 as in PNG and zlib.
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg())
        })
    })
}

/// A frame with gradients, edges and a moving square; `colours` limits the shades per channel.
pub fn drawn(width: u32, height: u32, index: u32, colours: u32) -> Frame {
    let mut frame = Frame::black(width, height);
    let step = 256 / colours;
    for (at, pixel) in (0..).zip(frame.rgb.chunks_exact_mut(3)) {
        let (x, y) = (at % width, at / width);
        let square = x.abs_diff(index * 2 % width) < 8 && y.abs_diff(height / 2) < 8;
        let shades = if square {
            [255, 255, 0]
        } else {
            [x * 3 + index * 4, y * 3, x + y]
        };
        for (channel, shade) in pixel.iter_mut().zip(shades) {
            *channel = (shade % 256 / step * step) as u8;
        }
    }
    frame
}

/// Random numbers that a seed repeats (xorshift64*).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    /// Of the seed in `MOTE_TEST_SEED`, or of the time; it is printed.
    pub fn seeded() -> Self {
        let said = std::env::var("MOTE_TEST_SEED").ok();
        let seed = said.and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(1, |now| now.as_nanos() as u64)
        });
        eprintln!("MOTE_TEST_SEED={seed}");
        Self::new(seed)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }
}

/// Position of the payload of the first box called `name`.
pub fn payload_at(mp4: &[u8], name: &[u8; 4]) -> usize {
    mp4.windows(4)
        .position(|four| four == name)
        .expect("the box is there")
        + 4
}

/// A copy of `bytes` with `patch` at `position`.
pub fn patched(bytes: &[u8], position: usize, patch: &[u8]) -> Vec<u8> {
    let mut copy = bytes.to_vec();
    copy[position..position + patch.len()].copy_from_slice(patch);
    copy
}
