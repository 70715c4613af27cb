//! H.264 (ITU-T H.264) samples of an MP4 track to 4:2:0 pictures.

mod bits;
mod decoder;
mod nal;
mod parameters;
mod slice;

pub(crate) use decoder::H264Decoder;
