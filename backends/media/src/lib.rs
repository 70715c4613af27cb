//! Clips as frames: reading and writing the video files that people have and can play.
//!
//! | format | read | written |
//! | --- | --- | --- |
//! | MP4, QuickTime | H.264, AV1 | AV1, FLAC sound or a copy |
//! | WebM, Matroska | AV1 | AV1, Opus sound or a copy (WebM) |
//! | GIF, animated | yes | yes |
//! | WebP, animated | lossy, lossless | lossless |
//! | PNG, one or many | yes | yes |
//! | Y4M | 8 bits | 4:2:0 |
//! | raw frames | | RGB, I420 |
//!
//! Files come as descriptors, are told apart by content, and are trusted in nothing: every size they announce is
//! checked against [`Limits`] before memory is taken, every failure is a [`MediaError`], and a feature that would not
//! decode correctly is refused by name instead of decoded wrongly.
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
//! - AV1 is written by rav1e and read by `oxideav-av1`, in safe Rust throughout. It refuses pictures above a size it is
//!   given before it takes memory, its panics can be caught, and it builds for 32-bit Arm; its pictures equalled
//!   dav1d's bit for bit for streams of libaom, SVT-AV1 and rav1e. The alternatives were `rav1d` and `re_rav1d`, a port
//!   of dav1d whose functions are `extern "C"`, so that a panic ends the process (a damaged stream finds one where
//!   frames are decoded one at a time) and which needs a nightly compiler for 32-bit Arm; and `rav1d-safe`, whose
//!   licence is not permissive. What it costs is speed: some 55 frames of 640 × 360 per second on one core.
//! - GIF: `gif`. PNG: `image`. Pictures of WebP: `image-webp`, its container `webp/`. FLAC: `flacenc`.
//! - Opus: `ropus`, a port of the reference's fixed-point encoder that its author compares with it bit for bit. Tones,
//!   music and noise at 8 to 48 kHz came back from it as close to the source as from libopus at the same bit rates, and
//!   a hundred thousand packets of hostile sound met no panic, no overflow and no access out of bounds with all checks
//!   on. It needs no C compiler, and of crates only `wide`. Its transforms and filters skip bounds checks (`unsafe`) in
//!   loops whose lengths the format fixes. The alternatives were `mousiki`, safe but for NEON, whose noise at 16 and
//!   24 kHz came back displaced by 5 ms and whose music there had a signal to noise below 0 dB, where `ropus` and libopus
//!   had 17 to 20; `opus-rs`, not tried, as its `unsafe` goes through raw pointers and intrinsics; and `unsafe-libopus`,
//!   the reference translated from C as it stands.
//! - MP4 boxes and WebM elements: own code, `mp4/` and `webm/`. One track needs a dozen boxes of a few fields each.
//!   Reading them in place, from an index of bounded size, bounds memory by construction and lets odd boxes elsewhere in
//!   a file be odd; parsers of the whole tree refuse a clip for them, keep every table in memory several times over, or
//!   index tables by what other tables say.
//!
//! # Sound
//!
//! [`create_with_audio`] adds an audio track. In MP4 it is FLAC, which is lossless, needs no delay to be cut off, and is
//! played by browsers and FFmpeg. WebM allows only Opus and Vorbis: there it is Opus, lossy, of which players cut the
//! encoder's delay and what fills the last packet, so that exactly the samples given are heard.
//! [`Output::audio_codec`] and [`Output::takes_audio_spec`] tell beforehand.
//!
//! [`create_with_sound`] copies the sound of a clip that is read ([`FrameReader::sound`]) without decoding it, packet by
//! packet from its file. Of several tracks it is the first that can be copied. What decoders are told beforehand is parsed,
//! checked and written anew, nothing else of the file's description is taken over.
//!
//! | from | to MP4 | to WebM |
//! | --- | --- | --- |
//! | MP4, QuickTime | AAC, MP3, Opus, FLAC, ALAC, AC-3, E-AC-3 | Opus |
//! | WebM, Matroska | Opus, FLAC, AAC, without gaps | Opus, Vorbis |
//!
//! Sound that is not copied (other codecs, uncompressed sound, several packets in a block, damage) does not stand in the way
//! of the frames: [`Output::keeps_sound`] says so and [`SoundTrack::refusal`] why. The copy begins with the first frame,
//! which is where edit lists and timestamps of the input have it, and [`SoundTrack::cut`] ends it with the last one; both
//! are exact to the sample by the edit list of MP4 and by the delay and padding of Opus in WebM, and to the packet for
//! Vorbis.
#![forbid(unsafe_code)]

mod audio;
mod av1;
mod bits;
mod colour;
mod error;
mod file;
mod flac;
mod frame;
mod gif;
mod h264;
mod limits;
mod mp4;
mod opus;
mod output;
mod png;
mod raw;
mod sheet;
mod sound;
mod timing;
mod video;
mod webm;
mod webp;
mod y4m;

pub use audio::{
    AUDIO_CHANNELS_MAX, AUDIO_SAMPLE_RATE_MAX, AudioSpec, OPUS_CHANNELS_MAX, OPUS_SAMPLE_RATES,
};
pub use error::{Cause, Codec, FourCc, MediaError, Quantity, Unsupported};
pub use frame::{ClipFormat, ClipInfo, Frame, FrameReader, FrameWriter, Rational, WrittenClip};
pub use limits::{
    FILE_BYTES_MAX, FRAME_PIXELS_MAX, FRAMES_MAX, INDEX_BYTES_MAX, Limits, SAMPLE_BYTES_MAX,
    SIDE_PIXELS_MAX,
};
pub use output::{
    Av1Settings, ClipSpec, Output, create, create_png_sequence, create_with_audio,
    create_with_sound,
};
pub use png::encode_png;
pub use raw::RawLayout;
pub use sheet::{SheetLayout, contact_sheet, scaled};
pub use sound::SoundTrack;

use std::fs::File;

use file::Source;

/// First bytes of a file, enough to tell the formats apart.
const HEAD_BYTES: u64 = 12;

/// Opens a clip for reading: MP4 or QuickTime with H.264 or AV1, WebM with AV1, GIF, WebP, Y4M, a PNG, or several PNG
/// files one after another.
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
        Ok(Box::new(mp4::open(source, limits)?))
    } else if webm::is_webm(&head) {
        Ok(Box::new(webm::open(source, limits)?))
    } else if webp::is_webp(&head) {
        Ok(Box::new(webp::WebPReader::open(source, limits)?))
    } else if y4m::is_y4m(&head) {
        Ok(Box::new(y4m::Y4mReader::open(source, limits)?))
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
