//! Clips as frames: reading and writing the video files that people have and can play.
//!
//! Read: H.264 in MP4 and QuickTime files, animated GIF, PNG and sequences of PNG files. Written: AV1 in MP4, animated
//! GIF, sequences of PNG files. Files come as descriptors, are told apart by content, and are trusted in nothing: every
//! size they announce is checked against [`Limits`] before memory is taken, every failure is a [`MediaError`], and a
//! feature that would not decode correctly is refused by name instead of decoded wrongly.
//!
//! Frames are streamed. A reader holds one coded frame and the few decoded ones that wait for their turn, a writer what
//! its encoder looks ahead.
//!
//! ```no_run
//! use mote_media::{Av1Settings, ClipSpec, Limits, Output};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let limits = Limits::default();
//! let mut clip = mote_media::open(std::fs::File::open("in.mp4")?, &limits)?;
//! let spec = ClipSpec::like(clip.info());
//! let out = std::fs::File::create("out.mp4")?;
//! let mut writer = mote_media::create(out, &spec, &Output::Mp4Av1(Av1Settings::default()), &limits)?;
//! while let Some(frame) = clip.next_frame()? {
//!     writer.push(&frame)?;
//! }
//! writer.finish()?;
//! # Ok(())
//! # }
//! ```
//!
//! # What does the work, and why
//!
//! - H.264 pictures: `rusty_h264-decoder`, in safe Rust without its SIMD kernels. It decodes progressive 4:2:0 8-bit
//!   Baseline, Main and High bit-exactly, B pictures included, and hands out each picture with its sample, so that the
//!   container alone decides the order. The few tools it gets wrong are refused by name before it sees them. OpenH264
//!   was the alternative; it decodes some B pictures off by a few levels and guesses the order.
//! - AV1: rav1e. GIF: `gif`. PNG: `image`.
//! - MP4 boxes: own code, `mp4/`. One track needs a dozen boxes of a few fields each. Reading them in place, from an
//!   index of bounded size, bounds memory by construction and lets odd boxes elsewhere in a file be odd; parsers of the
//!   whole box tree refuse a clip for them, keep every table in memory several times over, or index tables by what other
//!   tables say.
#![forbid(unsafe_code)]

mod av1;
mod colour;
mod error;
mod file;
mod frame;
mod gif;
mod h264;
mod limits;
mod mp4;
mod output;
mod png;
mod sheet;

pub use error::{Cause, Codec, FourCc, MediaError, Quantity, Unsupported};
pub use frame::{ClipFormat, ClipInfo, Frame, FrameReader, FrameWriter, Rational, WrittenClip};
pub use limits::{
    FILE_BYTES_MAX, FRAME_PIXELS_MAX, FRAMES_MAX, INDEX_BYTES_MAX, Limits, SAMPLE_BYTES_MAX,
    SIDE_PIXELS_MAX,
};
pub use output::{Av1Settings, ClipSpec, Output, create, create_png_sequence};
pub use png::encode_png;
pub use sheet::{SheetLayout, contact_sheet, scaled};

use std::fs::File;

use file::Source;

/// First bytes of a file, enough to tell the formats apart.
const HEAD_BYTES: u64 = 8;

/// Opens a clip for reading: MP4 or QuickTime with H.264, GIF, a PNG, or several PNG files one after another.
///
/// The whole of `file` is the clip, whatever its offset; the offset is neither used nor moved.
pub fn open(file: File, limits: &Limits) -> Result<Box<dyn FrameReader>, MediaError> {
    let source = Source::new(file, limits)?;
    let mut head = [0; HEAD_BYTES as usize];
    source.read_at(&mut head, 0, "the first bytes")?;
    if gif::is_gif(&head) {
        Ok(Box::new(gif::GifReader::open(&source, limits)?))
    } else if png::is_png(&head) {
        Ok(Box::new(png::PngReader::open_stream(&source, limits)?))
    } else if mp4::is_mp4(&head) {
        Ok(Box::new(mp4::Mp4Reader::open(source, limits)?))
    } else {
        Err(MediaError::NotSupported(Unsupported::Container))
    }
}

/// Opens PNG files of one size as the frames of a clip, in the order given.
pub fn open_png_sequence(
    files: Vec<File>,
    frame_rate: Rational,
    limits: &Limits,
) -> Result<Box<dyn FrameReader>, MediaError> {
    Ok(Box::new(png::PngReader::open_sequence(
        files, frame_rate, limits,
    )?))
}
