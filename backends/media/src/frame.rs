//! Frames, clips and the two traits that move them.

use crate::{MediaError, SoundTrack, Unsupported};

/// One picture: 8-bit RGB, row-major, no padding.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// `width * height * 3` bytes.
    pub rgb: Vec<u8>,
}

impl Frame {
    /// A black frame.
    pub fn black(width: u32, height: u32) -> Self {
        Self {
            width,
            height,
            rgb: vec![0; rgb_bytes(width, height)],
        }
    }

    /// Whether the buffer has the length that width and height ask for.
    pub fn is_consistent(&self) -> bool {
        self.rgb.len() == rgb_bytes(self.width, self.height)
    }

    /// The frame turned clockwise by `quarter_turns` times 90 degrees.
    pub(crate) fn rotated(self, quarter_turns: u8) -> Self {
        let (w, h) = (self.width as usize, self.height as usize);
        if quarter_turns.is_multiple_of(4) {
            return self;
        }
        let (width, height) = if quarter_turns % 2 == 1 {
            (h, w)
        } else {
            (w, h)
        };
        let mut rgb = Vec::with_capacity(self.rgb.len());
        for y in 0..height {
            for x in 0..width {
                let (from_x, from_y) = match quarter_turns % 4 {
                    1 => (y, h - 1 - x),
                    2 => (w - 1 - x, h - 1 - y),
                    _ => (w - 1 - y, x),
                };
                let at = (from_y * w + from_x) * 3;
                rgb.extend_from_slice(&self.rgb[at..at + 3]);
            }
        }
        Self {
            width: width as u32,
            height: height as u32,
            rgb,
        }
    }
}

impl std::fmt::Debug for Frame {
    /// Leaves the pixels out: they are the user's, and many.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frame({}x{})", self.width, self.height)
    }
}

/// Bytes of an RGB frame of this size.
pub(crate) fn rgb_bytes(width: u32, height: u32) -> usize {
    width as usize * height as usize * 3
}

/// A positive fraction in lowest terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rational {
    num: u32,
    den: u32,
}

impl Rational {
    /// 1/1.
    pub const ONE: Self = Self { num: 1, den: 1 };

    /// The fraction `num / den`, rounded where the terms do not fit 32 bits. None when a term is 0 or the value is too
    /// far from 1 to be held.
    pub fn new(num: u64, den: u64) -> Option<Self> {
        let divisor = greatest_common_divisor(num, den);
        if num == 0 || den == 0 {
            return None;
        }
        let (mut num, mut den) = (num / divisor, den / divisor);
        while num > u64::from(u32::MAX) || den > u64::from(u32::MAX) {
            num >>= 1;
            den >>= 1;
        }
        let divisor = greatest_common_divisor(num, den).max(1);
        let (num, den) = ((num / divisor) as u32, (den / divisor) as u32);
        (num > 0 && den > 0).then_some(Self { num, den })
    }

    /// Numerator, at least 1.
    pub fn num(self) -> u32 {
        self.num
    }

    /// Denominator, at least 1.
    pub fn den(self) -> u32 {
        self.den
    }

    /// The fraction as a floating-point number.
    pub fn as_f64(self) -> f64 {
        f64::from(self.num) / f64::from(self.den)
    }

    /// 1 divided by the fraction.
    pub fn inverse(self) -> Self {
        Self {
            num: self.den,
            den: self.num,
        }
    }
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// What a clip is stored as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClipFormat {
    /// H.264 in an MP4 or QuickTime file.
    Mp4H264 {
        /// `profile_idc` of the stream: 66 Baseline, 77 Main, 100 High.
        profile_idc: u8,
    },
    /// AV1 in an MP4 or QuickTime file.
    Mp4Av1,
    /// AV1 in a WebM or Matroska file.
    WebmAv1,
    /// An animated (or still) GIF.
    Gif,
    /// An animated (or still) WebP, lossy or lossless.
    WebP,
    /// Uncompressed frames behind a text header (YUV4MPEG2).
    Y4m,
    /// A single PNG picture.
    Png,
    /// One PNG file per frame.
    PngSequence,
}

/// What is known of a clip once it is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClipInfo {
    /// Width of every frame, in pixels.
    pub width: u32,
    /// Height of every frame, in pixels.
    pub height: u32,
    /// How many frames will come. None when only reading to the end would tell.
    pub frame_count: Option<u64>,
    /// Frames per second; the average where [`frame_rate_varies`](Self::frame_rate_varies). 1 for a single picture.
    pub frame_rate: Rational,
    /// Whether frames are shown for different times. The last frame's time does not count.
    pub frame_rate_varies: bool,
    /// Width of a pixel divided by its height, as displayed.
    pub pixel_aspect: Rational,
    /// Container and codec.
    pub format: ClipFormat,
}

/// A source of frames in display order. Dropping it early is fine.
pub trait FrameReader: Send {
    /// What is known of the clip; constant.
    fn info(&self) -> &ClipInfo;

    /// The sound of the clip, whether or not it can be copied; None where it has none. Of several tracks it is the first
    /// one that can be copied.
    fn sound(&self) -> Option<&SoundTrack> {
        None
    }

    /// The next frame, or None after the last. After an error the clip cannot be read on.
    fn next_frame(&mut self) -> Result<Option<Frame>, MediaError>;
}

/// What a finished clip came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrittenClip {
    /// Bytes written; of all files together for a sequence.
    pub bytes: u64,
    /// Frames written.
    pub frames: u64,
}

/// A sink of frames in display order. Dropping it before `finish` leaves an unusable file behind.
pub trait FrameWriter: Send {
    /// Adds a frame of the clip's size.
    fn push(&mut self, frame: &Frame) -> Result<(), MediaError>;

    /// Adds samples to the audio track of a clip made by [`create_with_audio`](crate::create_with_audio): channels
    /// interleaved, −1 to 1, what lies outside is clipped. They may come before, between and behind frames
    /// ([`Output::WebmAv1`](crate::Output::WebmAv1) bounds by how much); the first one is heard with the first frame.
    /// Pieces may end inside a sample of all channels, the track may not.
    fn push_audio(&mut self, _samples: &[f32]) -> Result<(), MediaError> {
        Err(MediaError::NotSupported(Unsupported::AudioTrack))
    }

    /// Encodes what is still buffered and completes the file.
    fn finish(self: Box<Self>) -> Result<WrittenClip, MediaError>;
}
