//! Frames in registered buffers: what they are made of, and where it lies.

use serde::Serialize;

/// What a frame's bytes mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FrameFormat {
    /// Red, green, blue; one plane.
    Rgb8,
    /// Blue, green, red; one plane.
    Bgr8,
    /// Red, green, blue and an opacity, which is skipped in inputs and 255 in outputs; one plane.
    Rgba8,
    /// Luma; then a plane of half the width and height with Cb and Cr side by side.
    Nv12,
    /// Luma; then a plane each of Cb and Cr, of half the width and height.
    I420,
    /// Luma alone.
    Gray8,
    /// A tensor's own numbers, a plane per channel.
    F32Nchw,
    /// A tensor's own numbers, the channels of a pixel side by side; one plane.
    F32Nhwc,
    /// As [`FrameFormat::F32Nchw`], in 16 bits.
    F16Nchw,
    /// As [`FrameFormat::F32Nhwc`], in 16 bits.
    F16Nhwc,
}

impl FrameFormat {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Rgb8,
        Self::Bgr8,
        Self::Rgba8,
        Self::Nv12,
        Self::I420,
        Self::Gray8,
        Self::F32Nchw,
        Self::F32Nhwc,
        Self::F16Nchw,
        Self::F16Nhwc,
    ];

    /// Its name: `nv12`, `f32_nchw`, …
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rgb8 => "rgb8",
            Self::Bgr8 => "bgr8",
            Self::Rgba8 => "rgba8",
            Self::Nv12 => "nv12",
            Self::I420 => "i420",
            Self::Gray8 => "gray8",
            Self::F32Nchw => "f32_nchw",
            Self::F32Nhwc => "f32_nhwc",
            Self::F16Nchw => "f16_nchw",
            Self::F16Nhwc => "f16_nhwc",
        }
    }

    /// Bytes of a frame of such a size whose planes follow each other without gaps. `channels`, 1 or 3, is of
    /// interest to floats.
    pub const fn dense_bytes(self, width: u32, height: u32, channels: u32) -> u64 {
        let pixels = width as u64 * height as u64;
        match self {
            Self::Rgb8 | Self::Bgr8 => 3 * pixels,
            Self::Rgba8 => 4 * pixels,
            Self::Gray8 => pixels,
            Self::Nv12 | Self::I420 => pixels + pixels / 2,
            Self::F32Nchw | Self::F32Nhwc => 4 * pixels * channels as u64,
            Self::F16Nchw | Self::F16Nhwc => 2 * pixels * channels as u64,
        }
    }
}

/// The matrix between red, green, blue and luma, chroma.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ColorMatrix {
    /// ITU-R BT.601.
    #[default]
    Bt601,
    /// ITU-R BT.709.
    Bt709,
    /// ITU-R BT.2020, with non-constant luminance.
    Bt2020,
}

/// Which bytes mean black and white.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ColorRange {
    /// 16 and 235; chroma from 16 to 240.
    Limited,
    /// 0 and 255.
    Full,
}

/// One plane of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FramePlane {
    /// Its first byte, in the buffer.
    pub offset: u64,
    /// Bytes from the beginning of a row to that of the next.
    pub stride: u64,
}

/// A frame in a registered buffer, and the input that it becomes or the output that it is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoFrame {
    /// Name in the model.
    pub name: String,
    /// What its bytes mean.
    pub format: FrameFormat,
    /// Pixels of a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Id of the buffer.
    pub buffer: u64,
    /// Its planes; when there are none, they follow each other without gaps from the buffer's start.
    pub planes: Vec<FramePlane>,
    /// For luma and chroma.
    pub matrix: ColorMatrix,
    /// `None` is limited where there is chroma, and else full.
    pub range: Option<ColorRange>,
    /// Width and height of the input, where the model leaves them open; `None` takes those of the frame. Not
    /// for outputs.
    pub tensor_size: Option<(u32, u32)>,
}

impl VideoFrame {
    /// A frame without gaps that begins with its buffer, in BT.601 and the range that is usual for its format.
    pub fn dense(
        name: impl Into<String>,
        format: FrameFormat,
        (width, height): (u32, u32),
        buffer: u64,
    ) -> Self {
        Self {
            name: name.into(),
            format,
            width,
            height,
            buffer,
            planes: Vec::new(),
            matrix: ColorMatrix::default(),
            range: None,
            tensor_size: None,
        }
    }
}
