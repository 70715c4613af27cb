//! The ISO base media file format (ISO/IEC 14496-12) as far as a clip needs it, and its QuickTime ancestor.

mod boxes;
mod edit;
mod movie;
mod mux;
mod reader;
mod samples;
mod sound;
mod sound_entry;
mod table;
mod track;
mod write;

pub(crate) use mux::Mp4Muxer;
pub(crate) use reader::open;

/// Whether the first bytes of a file are those of an MP4 or QuickTime file.
pub(crate) fn is_mp4(head: &[u8]) -> bool {
    const FIRST_BOXES: [&[u8; 4]; 7] = [
        b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot",
    ];
    head.get(4..8)
        .is_some_and(|name| FIRST_BOXES.iter().any(|first| name == first.as_slice()))
}
