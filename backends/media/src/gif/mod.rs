//! Animated GIF (GIF89a).

mod read;
mod write;

pub(crate) use read::GifReader;
pub(crate) use write::GifWriter;

use crate::{Codec, MediaError};

/// Time units of a GIF per second.
const UNITS_PER_SECOND: u64 = 100;

/// Whether the first bytes of a file are those of a GIF.
pub(crate) fn is_gif(head: &[u8]) -> bool {
    head.starts_with(b"GIF87a") || head.starts_with(b"GIF89a")
}

fn encode_error(cause: gif::EncodingError) -> MediaError {
    match cause {
        gif::EncodingError::Io(cause) => MediaError::Write(cause),
        cause => MediaError::Encode {
            codec: Codec::Gif,
            cause: Box::new(cause),
        },
    }
}
