//! What can go wrong with a clip, as values a caller can match on.

use std::fmt;

/// A decoder's or encoder's own account of a failure.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a clip could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MediaError {
    /// A quantity of the clip is above its limit in [`Limits`](crate::Limits) or above what the format allows.
    #[error("{what} is {have}, the limit is {limit}")]
    TooLarge {
        /// What was measured.
        what: Quantity,
        /// The clip's value.
        have: u64,
        /// The highest accepted value.
        limit: u64,
    },
    /// A quantity of the clip is below what the format can hold.
    #[error("{what} is {have}, the least is {least}")]
    TooSmall {
        /// What was measured.
        what: Quantity,
        /// The clip's value.
        have: u64,
        /// The lowest accepted value.
        least: u64,
    },
    /// The file ends before its content does.
    #[error("the file ends inside {inside}")]
    Truncated {
        /// The structure that was being read.
        inside: &'static str,
    },
    /// The content is well formed but outside what this crate decodes or encodes correctly.
    #[error("{0} is not supported")]
    NotSupported(Unsupported),
    /// The content contradicts its format.
    #[error("{what} {why}")]
    Corrupt {
        /// The structure at fault: a box, a parameter set, a sample.
        what: &'static str,
        /// How it contradicts its format.
        why: &'static str,
    },
    /// A decoder refused a frame.
    #[error("cannot decode frame {frame} as {codec}")]
    Decode {
        /// The codec whose decoder refused.
        codec: Codec,
        /// Position of the frame in the file, from 0, in the order in which it is stored.
        frame: u64,
        /// The decoder's account.
        #[source]
        cause: Cause,
    },
    /// A pushed frame does not have the clip's size, or its buffer not the frame's.
    #[error("frame {frame} of {have:?} pixels does not fit a clip of {want:?} pixels")]
    FrameSize {
        /// Position of the frame, from 0, in the order of pushing.
        frame: u64,
        /// Width and height of the frame.
        have: (u32, u32),
        /// Width and height of the clip.
        want: (u32, u32),
    },
    /// An encoder refused its settings or a frame.
    #[error("cannot encode {codec}")]
    Encode {
        /// The codec whose encoder refused.
        codec: Codec,
        /// The encoder's account.
        #[source]
        cause: Cause,
    },
    /// A clip without any frame cannot be written.
    #[error("the clip has no frames")]
    NoFrames,
    /// Reading the file failed for a reason outside its content.
    #[error("cannot read the clip")]
    Read(#[source] std::io::Error),
    /// Writing the file failed.
    #[error("cannot write the clip")]
    Write(#[source] std::io::Error),
}

impl MediaError {
    /// Whether the clip is to blame. The other failures lie with the machine, the disk or the caller's program.
    pub fn is_clip_fault(&self) -> bool {
        !matches!(self, Self::Encode { .. } | Self::Read(_) | Self::Write(_))
    }

    /// The property of the clip at fault, as the `field` of an `invalid{field, why}` status whose `why` is this error's
    /// text. None where the clip is not to blame.
    pub fn field(&self) -> Option<&'static str> {
        match self {
            Self::TooLarge { what, .. } | Self::TooSmall { what, .. } => Some(what.field()),
            Self::NotSupported(Unsupported::OpusSampleRate(_)) => Some("clip.audio"),
            Self::NotSupported(_) => Some("clip.format"),
            Self::Truncated { .. } | Self::Corrupt { .. } | Self::Decode { .. } => {
                Some("clip.content")
            }
            Self::FrameSize { .. } => Some("clip.size"),
            Self::NoFrames => Some("clip.frames"),
            Self::Encode { .. } | Self::Read(_) | Self::Write(_) => None,
        }
    }

    pub(crate) fn corrupt(what: &'static str, why: &'static str) -> Self {
        Self::Corrupt { what, why }
    }
}

/// A measured property of a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Quantity {
    /// Size of the file, in bytes.
    FileBytes,
    /// Size of an MP4 file's index (`moov`), or of an element of a WebM file that is read whole, in bytes.
    IndexBytes,
    /// Boxes at the top level of an MP4 file.
    Boxes,
    /// Tracks of an MP4 or WebM file.
    Tracks,
    /// Size of one coded frame, in bytes.
    SampleBytes,
    /// Width of a frame, in pixels.
    Width,
    /// Height of a frame, in pixels.
    Height,
    /// Width times height of a frame, in pixels.
    FramePixels,
    /// Frames of the clip.
    Frames,
    /// Frames that wait for an earlier one to be decoded.
    ReorderedFrames,
    /// Frames per second, rounded up.
    FrameRate,
    /// Elements of a WebM file, or chunks of a WebP file.
    Elements,
    /// Size of a text header, in bytes.
    HeaderBytes,
    /// Size of the file to be written, in bytes.
    WrittenBytes,
    /// Channels of the audio track.
    AudioChannels,
    /// Samples per second of the audio track.
    AudioSampleRate,
    /// Samples of the audio track, per channel.
    AudioSamples,
    /// Packets of the audio track.
    AudioPackets,
    /// Size of a packet of the audio track, in bytes.
    AudioPacketBytes,
    /// How far the sound of a WebM file is ahead of its frames, in milliseconds.
    AudioAheadMs,
}

impl Quantity {
    fn field(self) -> &'static str {
        match self {
            Self::FileBytes | Self::WrittenBytes => "clip.bytes",
            Self::AudioChannels
            | Self::AudioSampleRate
            | Self::AudioSamples
            | Self::AudioPackets
            | Self::AudioPacketBytes
            | Self::AudioAheadMs => "clip.audio",
            Self::IndexBytes
            | Self::Elements
            | Self::HeaderBytes
            | Self::Boxes
            | Self::Tracks
            | Self::SampleBytes
            | Self::ReorderedFrames => "clip.content",
            Self::Width => "clip.width",
            Self::Height => "clip.height",
            Self::FramePixels => "clip.size",
            Self::Frames => "clip.frames",
            Self::FrameRate => "clip.frame_rate",
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FileBytes => "file size in bytes",
            Self::IndexBytes => "size of the index in bytes",
            Self::Boxes => "number of MP4 boxes",
            Self::Tracks => "number of tracks",
            Self::SampleBytes => "size of a coded frame in bytes",
            Self::Width => "width in pixels",
            Self::Height => "height in pixels",
            Self::FramePixels => "number of pixels in a frame",
            Self::Frames => "number of frames",
            Self::ReorderedFrames => "number of frames stored before an earlier one",
            Self::FrameRate => "frame rate",
            Self::Elements => "number of elements in the file",
            Self::HeaderBytes => "size of a header in bytes",
            Self::WrittenBytes => "size of the written file in bytes",
            Self::AudioChannels => "number of audio channels",
            Self::AudioSampleRate => "audio sample rate",
            Self::AudioSamples => "number of audio samples",
            Self::AudioPackets => "number of audio packets",
            Self::AudioPacketBytes => "size of an audio packet in bytes",
            Self::AudioAheadMs => "lead of the sound over the frames in milliseconds",
        })
    }
}

/// A codec this crate reads or writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Codec {
    /// ITU-T H.264, read only.
    H264,
    /// AV1.
    Av1,
    /// GIF89a.
    Gif,
    /// PNG.
    Png,
    /// WebP: VP8L and, read only, VP8.
    WebP,
    /// FLAC, written or copied.
    Flac,
    /// Opus, written or copied.
    Opus,
    /// AAC of any profile, copied only.
    Aac,
    /// MPEG audio, layer 3, copied only.
    Mp3,
    /// Apple Lossless, copied only.
    Alac,
    /// Dolby Digital, copied only.
    Ac3,
    /// Dolby Digital Plus, copied only.
    Eac3,
    /// Vorbis, copied only.
    Vorbis,
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::H264 => "H.264",
            Self::Av1 => "AV1",
            Self::Gif => "GIF",
            Self::Png => "PNG",
            Self::WebP => "WebP",
            Self::Flac => "FLAC",
            Self::Opus => "Opus",
            Self::Aac => "AAC",
            Self::Mp3 => "MP3",
            Self::Alac => "ALAC",
            Self::Ac3 => "AC-3",
            Self::Eac3 => "E-AC-3",
            Self::Vorbis => "Vorbis",
        })
    }
}

/// A four-character code: the name of an MP4 box, brand or codec.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FourCc(pub [u8; 4]);

impl fmt::Display for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FourCc(\"{self}\")")
    }
}

/// A feature that is refused, because it cannot be decoded correctly or expressed in the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unsupported {
    /// The first bytes are of no format this crate reads.
    Container,
    /// Pipes, sockets and devices: a clip must be a regular file.
    IrregularFile,
    /// The video track uses another codec than H.264 or AV1, or the audio track one that is not copied.
    Codec(FourCc),
    /// A track of the WebM file uses a codec that has no four-character code.
    WebmCodec,
    /// The file has no video track.
    NoVideoTrack,
    /// The MP4 file keeps its samples in movie fragments.
    Fragments,
    /// The video track switches between several sample descriptions.
    SampleDescriptions,
    /// The video track's media lies in another file.
    ExternalData,
    /// The edit list cuts the track into several pieces or changes its speed.
    EditList,
    /// The display matrix is not a rotation by a multiple of 90 degrees.
    DisplayMatrix,
    /// An H.264 profile outside Baseline, Main and High, by its `profile_idc`.
    H264Profile(u8),
    /// An H.264 chroma format other than 4:2:0, by its `chroma_format_idc`.
    H264ChromaFormat(u8),
    /// More than 8 bits per sample.
    H264BitDepth(u8),
    /// Interlaced (field or MBAFF) coding.
    H264Interlaced,
    /// Flexible macroblock ordering.
    H264SliceGroups,
    /// Data partitioning.
    H264DataPartitions,
    /// B slices together with picture order count type 1.
    H264PictureOrder,
    /// Constrained intra prediction.
    H264ConstrainedIntra,
    /// Slices that begin inside a row of macroblocks.
    H264SliceInsideRow,
    /// AV1 of which a sample yields several pictures, as scalable streams do.
    Av1Layers,
    /// A WebM track whose blocks are compressed or encrypted.
    WebmEncoding,
    /// Several frames in one block of a WebM file.
    WebmLacing,
    /// A Y4M colour space, or samples of more than 8 bits.
    Y4mColourSpace,
    /// Interlaced Y4M.
    Y4mInterlaced,
    /// An audio track in this output: only MP4 and WebM take one, and not of every codec.
    AudioTrack,
    /// A sample rate that is none of [`OPUS_SAMPLE_RATES`](crate::OPUS_SAMPLE_RATES), in samples per second.
    OpusSampleRate(u32),
    /// A frame size that changes within the clip.
    SizeChange,
    /// A YUV to RGB matrix, by its H.273 `MatrixCoefficients` code.
    ColourMatrix(u16),
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Container => {
                f.write_str("a file that is not MP4, MOV, WebM, GIF, WebP, Y4M or PNG")
            }
            Self::IrregularFile => f.write_str("a clip that is not a regular file"),
            Self::Codec(code) => write!(f, "codec {code}"),
            Self::WebmCodec => f.write_str("the codec of the WebM file"),
            Self::NoVideoTrack => f.write_str("a file without a video track"),
            Self::Fragments => f.write_str("fragmented MP4"),
            Self::SampleDescriptions => f.write_str("a track with several sample descriptions"),
            Self::ExternalData => f.write_str("media data in another file"),
            Self::EditList => f.write_str("an edit list with several pieces or speeds"),
            Self::DisplayMatrix => {
                f.write_str("a display matrix other than a rotation by 90 degrees")
            }
            Self::H264Profile(idc) => write!(f, "H.264 profile {idc}"),
            Self::H264ChromaFormat(idc) => write!(f, "H.264 chroma format {idc}"),
            Self::H264BitDepth(bits) => write!(f, "H.264 with {bits} bits per sample"),
            Self::H264Interlaced => f.write_str("interlaced H.264"),
            Self::H264SliceGroups => f.write_str("H.264 with slice groups"),
            Self::H264DataPartitions => f.write_str("H.264 with data partitions"),
            Self::H264PictureOrder => {
                f.write_str("H.264 with B slices and picture order count type 1")
            }
            Self::H264ConstrainedIntra => f.write_str("H.264 with constrained intra prediction"),
            Self::H264SliceInsideRow => {
                f.write_str("H.264 with slices that begin inside a row of macroblocks")
            }
            Self::Av1Layers => f.write_str("AV1 with several pictures in a sample"),
            Self::WebmEncoding => f.write_str("WebM with compressed or encrypted blocks"),
            Self::WebmLacing => f.write_str("WebM with several frames in a block"),
            Self::Y4mColourSpace => f.write_str("this colour space or bit depth of Y4M"),
            Self::Y4mInterlaced => f.write_str("interlaced Y4M"),
            Self::AudioTrack => f.write_str("an audio track of this kind in this file"),
            Self::OpusSampleRate(rate) => write!(
                f,
                "Opus of {rate} samples per second instead of 8000, 12000, 16000, 24000 or 48000"
            ),
            Self::SizeChange => f.write_str("a frame size that changes within the clip"),
            Self::ColourMatrix(code) => write!(f, "colour matrix {code}"),
        }
    }
}
