//! AV1: encoded through rav1e, decoded through oxideav-av1.

mod decoder;
mod encoder;
mod level;
mod obu;
mod sequence;

pub(crate) use decoder::Av1Decoder;
pub(crate) use encoder::{Av1Container, Av1Writer};
pub(crate) use obu::find_sequence_header;

use crate::ClipSpec;

/// What a container says of a stream.
pub(crate) struct Av1Stream<'a> {
    pub(crate) spec: &'a ClipSpec,
    /// Content of `av1C` in MP4 and of `CodecPrivate` in WebM.
    pub(crate) config: &'a [u8],
}
