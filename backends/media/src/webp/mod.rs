//! WebP ("WebP Container Specification"), animated or still. Pictures are coded and decoded by image-webp, one frame at
//! a time; the container and the canvas are read and written here, as image-webp writes no animations and its reader
//! takes memory by what a file says of itself.

mod chunks;
mod read;
mod write;

pub(crate) use read::WebPReader;
pub(crate) use write::WebPWriter;

/// Whether the first bytes of a file are those of a WebP.
pub(crate) fn is_webp(head: &[u8]) -> bool {
    head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WEBP")
}
