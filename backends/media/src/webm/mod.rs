//! WebM (RFC 9559, Matroska, with the codecs that WebM allows) as far as one video track and its sound need it.

mod clusters;
mod elements;
mod head;
mod mux;
mod reader;
mod sound;
mod track;

pub(crate) use mux::WebmMuxer;
pub(crate) use reader::open;

/// Whether the first bytes of a file are those of an EBML document (RFC 8794).
pub(crate) fn is_webm(head: &[u8]) -> bool {
    head.starts_with(&elements::EBML.to_be_bytes())
}
