//! What the tests of clips share.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fs::File;
use std::io::Write;

use mote_media::{Frame, FrameReader, Limits, MediaError};

/// 40 frames of 106 × 74 pixels, 25 per second; see data/make_pattern.py.
pub const PATTERN: &[u8] = include_bytes!("../data/pattern.mp4");

/// CRC-32 of each frame of [`PATTERN`] as libavcodec decodes it.
pub fn pattern_sums() -> Vec<u32> {
    let lines = include_str!("../data/pattern.crc").lines();
    lines
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
