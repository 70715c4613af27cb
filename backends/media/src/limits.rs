//! Bounds on what a clip may ask of the process that reads it.

use crate::{MediaError, Quantity};

/// Default of [`Limits::file_bytes_max`].
pub const FILE_BYTES_MAX: u64 = 4 << 30;
/// Default of [`Limits::index_bytes_max`]: about 100 bytes for each of [`FRAMES_MAX`] frames.
pub const INDEX_BYTES_MAX: u64 = 16 << 20;
/// Default of [`Limits::width_max`] and [`Limits::height_max`].
pub const SIDE_PIXELS_MAX: u32 = 4096;
/// Default of [`Limits::frame_pixels_max`]: the largest picture of H.264 level 5.2 (4096 × 2304).
pub const FRAME_PIXELS_MAX: u64 = 4096 * 2304;
/// Default of [`Limits::frames_max`]: more than 45 minutes at 60 frames per second.
pub const FRAMES_MAX: u64 = 180_000;
/// Default of [`Limits::sample_bytes_max`]: above the size of an uncompressed 4:2:0 picture of [`FRAME_PIXELS_MAX`].
pub const SAMPLE_BYTES_MAX: u32 = 16 << 20;

/// Bounds of one clip, checked before memory is taken for what they bound.
///
/// With the defaults a reader of an MP4 file holds at most about 60 MiB of index while it opens, 9 MiB after that, one
/// coded frame, and up to 17 decoded 4:2:0 frames beside those of the decoder. Sound adds 24 bytes for each packet, of at
/// most a million, and what copies it holds one of up to 4 MiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Size of a file (each file of a sequence), in bytes.
    pub file_bytes_max: u64,
    /// Size of what is read whole before the frames, in bytes: an MP4 file's `moov` box, an element of a WebM file.
    pub index_bytes_max: u64,
    /// Width of a frame, in pixels.
    pub width_max: u32,
    /// Height of a frame, in pixels.
    pub height_max: u32,
    /// Width times height of a frame, in pixels.
    pub frame_pixels_max: u64,
    /// Frames in a clip, read or written.
    pub frames_max: u64,
    /// Size of one coded frame of an MP4, WebM or WebP file, in bytes.
    pub sample_bytes_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes_max: FILE_BYTES_MAX,
            index_bytes_max: INDEX_BYTES_MAX,
            width_max: SIDE_PIXELS_MAX,
            height_max: SIDE_PIXELS_MAX,
            frame_pixels_max: FRAME_PIXELS_MAX,
            frames_max: FRAMES_MAX,
            sample_bytes_max: SAMPLE_BYTES_MAX,
        }
    }
}

impl Limits {
    /// Refuses a frame size of 0 or above the limits.
    pub(crate) fn check_size(&self, width: u32, height: u32) -> Result<(), MediaError> {
        at_least(Quantity::Width, width.into(), 1)?;
        at_least(Quantity::Height, height.into(), 1)?;
        at_most(Quantity::Width, width.into(), self.width_max.into())?;
        at_most(Quantity::Height, height.into(), self.height_max.into())?;
        let pixels = u64::from(width) * u64::from(height);
        at_most(Quantity::FramePixels, pixels, self.frame_pixels_max)
    }

    pub(crate) fn check_frames(&self, frames: u64) -> Result<(), MediaError> {
        at_most(Quantity::Frames, frames, self.frames_max)
    }
}

/// Refuses `have` above `limit`.
pub(crate) fn at_most(what: Quantity, have: u64, limit: u64) -> Result<(), MediaError> {
    if have > limit {
        Err(MediaError::TooLarge { what, have, limit })
    } else {
        Ok(())
    }
}

/// Refuses `have` below `least`.
pub(crate) fn at_least(what: Quantity, have: u64, least: u64) -> Result<(), MediaError> {
    if have < least {
        Err(MediaError::TooSmall { what, have, least })
    } else {
        Ok(())
    }
}
