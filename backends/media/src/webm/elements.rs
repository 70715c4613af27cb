//! Elements (RFC 8794): numbers, identifiers, and masters in memory.

use crate::MediaError;

// Identifiers with their length marker (RFC 9559, 5.1).
pub(super) const EBML: u32 = 0x1a45_dfa3;
pub(super) const EBML_VERSION: u32 = 0x4286;
pub(super) const EBML_READ_VERSION: u32 = 0x42f7;
pub(super) const EBML_MAX_ID_LENGTH: u32 = 0x42f2;
pub(super) const EBML_MAX_SIZE_LENGTH: u32 = 0x42f3;
pub(super) const DOC_TYPE: u32 = 0x4282;
pub(super) const DOC_TYPE_VERSION: u32 = 0x4287;
pub(super) const DOC_TYPE_READ_VERSION: u32 = 0x4285;
pub(super) const SEGMENT: u32 = 0x1853_8067;
pub(super) const SEEK_HEAD: u32 = 0x114d_9b74;
pub(super) const SEEK: u32 = 0x4dbb;
pub(super) const SEEK_ID: u32 = 0x53ab;
pub(super) const SEEK_POSITION: u32 = 0x53ac;
pub(super) const INFO: u32 = 0x1549_a966;
pub(super) const TIMESTAMP_SCALE: u32 = 0x2a_d7b1;
pub(super) const DURATION: u32 = 0x4489;
pub(super) const MUXING_APP: u32 = 0x4d80;
pub(super) const WRITING_APP: u32 = 0x5741;
pub(super) const TRACKS: u32 = 0x1654_ae6b;
pub(super) const TRACK_ENTRY: u32 = 0xae;
pub(super) const TRACK_NUMBER: u32 = 0xd7;
pub(super) const TRACK_UID: u32 = 0x73c5;
pub(super) const TRACK_TYPE: u32 = 0x83;
pub(super) const FLAG_LACING: u32 = 0x9c;
pub(super) const LANGUAGE: u32 = 0x22_b59c;
pub(super) const CODEC_ID: u32 = 0x86;
pub(super) const CODEC_PRIVATE: u32 = 0x63a2;
pub(super) const DEFAULT_DURATION: u32 = 0x23_e383;
pub(super) const CONTENT_ENCODINGS: u32 = 0x6d80;
pub(super) const VIDEO: u32 = 0xe0;
pub(super) const FLAG_INTERLACED: u32 = 0x9a;
pub(super) const PIXEL_WIDTH: u32 = 0xb0;
pub(super) const PIXEL_HEIGHT: u32 = 0xba;
pub(super) const DISPLAY_WIDTH: u32 = 0x54b0;
pub(super) const DISPLAY_HEIGHT: u32 = 0x54ba;
pub(super) const DISPLAY_UNIT: u32 = 0x54b2;
pub(super) const COLOUR: u32 = 0x55b0;
pub(super) const MATRIX_COEFFICIENTS: u32 = 0x55b1;
pub(super) const BITS_PER_CHANNEL: u32 = 0x55b2;
pub(super) const CHROMA_SUBSAMPLING_HORZ: u32 = 0x55b3;
pub(super) const CHROMA_SUBSAMPLING_VERT: u32 = 0x55b4;
pub(super) const RANGE: u32 = 0x55b9;
pub(super) const TRANSFER_CHARACTERISTICS: u32 = 0x55ba;
pub(super) const PRIMARIES: u32 = 0x55bb;
pub(super) const CODEC_DELAY: u32 = 0x56aa;
pub(super) const SEEK_PRE_ROLL: u32 = 0x56bb;
pub(super) const AUDIO: u32 = 0xe1;
pub(super) const SAMPLING_FREQUENCY: u32 = 0xb5;
pub(super) const OUTPUT_SAMPLING_FREQUENCY: u32 = 0x78b5;
pub(super) const CHANNELS: u32 = 0x9f;
pub(super) const CLUSTER: u32 = 0x1f43_b675;
pub(super) const TIMESTAMP: u32 = 0xe7;
pub(super) const SIMPLE_BLOCK: u32 = 0xa3;
pub(super) const BLOCK_GROUP: u32 = 0xa0;
pub(super) const BLOCK: u32 = 0xa1;
pub(super) const DISCARD_PADDING: u32 = 0x75a2;
pub(super) const CUES: u32 = 0x1c53_bb6b;
pub(super) const CUE_POINT: u32 = 0xbb;
pub(super) const CUE_TIME: u32 = 0xb3;
pub(super) const CUE_TRACK_POSITIONS: u32 = 0xb7;
pub(super) const CUE_TRACK: u32 = 0xf7;
pub(super) const CUE_CLUSTER_POSITION: u32 = 0xf1;
const VOID: u32 = 0xec;
const CHAPTERS: u32 = 0x1043_a770;
const TAGS: u32 = 0x1254_c367;
const ATTACHMENTS: u32 = 0x1941_a469;

/// Bytes of the longest identifier and size.
pub(super) const HEADER_BYTES_MAX: usize = ID_BYTES_MAX + SIZE_BYTES_MAX;
const ID_BYTES_MAX: usize = 4;
const SIZE_BYTES_MAX: usize = 8;

/// Whether an element of this name lies directly in the segment, and so ends a cluster of unknown size.
pub(super) fn is_top_level(id: u32) -> bool {
    const TOP_LEVEL: [u32; 8] = [
        SEEK_HEAD,
        INFO,
        TRACKS,
        CLUSTER,
        CUES,
        CHAPTERS,
        TAGS,
        ATTACHMENTS,
    ];
    TOP_LEVEL.contains(&id)
}

/// Identifier, size of the content (None: unknown, it goes on to the end of what is around it), and size of both
/// fields, in bytes. None where `head` is no start of an element, or too short.
pub(super) fn header(head: &[u8]) -> Option<(u32, Option<u64>, usize)> {
    let id_bytes = head.first()?.leading_zeros() as usize + 1;
    if id_bytes > ID_BYTES_MAX {
        return None;
    }
    let id = head
        .get(..id_bytes)?
        .iter()
        .fold(0, |id, &byte| id << 8 | u32::from(byte));
    let (size, size_bytes) = number(&head[id_bytes..])?;
    Some((id, size, id_bytes + size_bytes))
}

/// A number with a length marker, and its bytes; None for the value whose bits are all ones.
pub(super) fn number(bytes: &[u8]) -> Option<(Option<u64>, usize)> {
    let first = *bytes.first()?;
    let length = first.leading_zeros() as usize + 1;
    if length > SIZE_BYTES_MAX {
        return None;
    }
    let ones = (1_u64 << (7 * length)) - 1;
    let value = bytes
        .get(..length)?
        .iter()
        .fold(0, |value, &byte| value << 8 | u64::from(byte))
        & ones;
    Some(((value != ones).then_some(value), length))
}

/// The elements inside a master in memory, in order; all of known size.
pub(super) struct Elements<'a> {
    rest: &'a [u8],
}

impl<'a> Elements<'a> {
    pub(super) fn inside(content: &'a [u8]) -> Self {
        Self { rest: content }
    }

    /// The content of the first element called `id`.
    pub(super) fn find(content: &'a [u8], id: u32) -> Result<Option<&'a [u8]>, MediaError> {
        for inner in Self::inside(content) {
            let (found, body) = inner?;
            if found == id {
                return Ok(Some(body));
            }
        }
        Ok(None)
    }

    /// The first number called `id`.
    pub(super) fn unsigned(content: &'a [u8], id: u32) -> Result<Option<u64>, MediaError> {
        match Self::find(content, id)? {
            Some(body) if body.len() > 8 => Err(MediaError::corrupt(
                "a WebM element",
                "has a number of more than 64 bits",
            )),
            Some(body) => Ok(Some(
                body.iter()
                    .fold(0, |value, &byte| value << 8 | u64::from(byte)),
            )),
            None => Ok(None),
        }
    }

    fn split_first(&mut self) -> Option<(u32, &'a [u8])> {
        let (id, size, header_bytes) = header(self.rest)?;
        let end = header_bytes.checked_add(usize::try_from(size?).ok()?)?;
        let (this, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        Some((id, &this[header_bytes..]))
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<(u32, &'a [u8]), MediaError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let item = self.split_first().ok_or(MediaError::corrupt(
            "a WebM element",
            "does not fit the one around it",
        ));
        if item.is_err() {
            self.rest = &[];
        }
        Some(item)
    }
}

/// Elements in memory.
#[derive(Default)]
pub(super) struct ElementWriter {
    pub(super) buffer: Vec<u8>,
}

impl ElementWriter {
    /// Identifier and size of an element whose content follows.
    pub(super) fn head(&mut self, id: u32, bytes: u64) {
        let id = id.to_be_bytes();
        let first = id.iter().position(|&byte| byte != 0).unwrap_or(0);
        self.buffer.extend_from_slice(&id[first..]);
        // One value less than the bits hold: all ones means unknown.
        let length = (1..=SIZE_BYTES_MAX)
            .find(|length| bytes < (1 << (7 * length)) - 1)
            .unwrap_or(SIZE_BYTES_MAX);
        let marked = bytes | 1 << (7 * length);
        self.buffer
            .extend_from_slice(&marked.to_be_bytes()[SIZE_BYTES_MAX - length..]);
    }

    pub(super) fn bytes(&mut self, id: u32, content: &[u8]) {
        self.head(id, content.len() as u64);
        self.buffer.extend_from_slice(content);
    }

    pub(super) fn unsigned(&mut self, id: u32, value: u64) {
        let bytes = value.to_be_bytes();
        let first = bytes.iter().position(|&byte| byte != 0).unwrap_or(7);
        self.bytes(id, &bytes[first..]);
    }

    /// A number of the type that may be negative.
    pub(super) fn signed(&mut self, id: u32, value: i64) {
        self.bytes(id, &value.to_be_bytes());
    }

    pub(super) fn float(&mut self, id: u32, value: f64) {
        self.bytes(id, &value.to_be_bytes());
    }

    pub(super) fn master(&mut self, id: u32, content: impl FnOnce(&mut Self)) {
        let mut inside = Self::default();
        content(&mut inside);
        self.bytes(id, &inside.buffer);
    }
}

/// A size in eight bytes, to be written over one that was not known yet.
pub(super) fn long_size(bytes: u64) -> [u8; SIZE_BYTES_MAX] {
    (bytes | 1 << 56).to_be_bytes()
}

/// An element of `bytes`, 9 or more, that readers pass over.
pub(super) fn void(bytes: usize) -> Vec<u8> {
    let content = bytes.saturating_sub(1 + SIZE_BYTES_MAX);
    let mut element = vec![VOID as u8];
    element.extend_from_slice(&long_size(content as u64));
    element.resize(element.len() + content, 0);
    element
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_they_are_written() {
        for (id, bytes) in [
            (BLOCK, 0),
            (TIMESTAMP, 126),
            (TIMESTAMP, 127),
            (SEEK_ID, 16_382),
            (TIMESTAMP_SCALE, 16_383),
            (CLUSTER, (1 << 28) - 2),
            (CLUSTER, (1 << 28) - 1),
            (SEGMENT, 1 << 50),
        ] {
            let mut writer = ElementWriter::default();
            writer.head(id, bytes);
            let length = writer.buffer.len();
            assert_eq!(header(&writer.buffer), Some((id, Some(bytes), length)));
            for cut in 0..length {
                assert_eq!(header(&writer.buffer[..cut]), None);
            }
        }
        assert_eq!(number(&long_size(5)), Some((Some(5), 8)));
    }

    #[test]
    fn sizes_of_all_ones_are_unknown() {
        assert_eq!(number(&[0xff]), Some((None, 1)));
        assert_eq!(number(&[0x7f, 0xff]), Some((None, 2)));
        assert_eq!(
            number(&[1, 255, 255, 255, 255, 255, 255, 255]),
            Some((None, 8))
        );
        assert_eq!(number(&[0, 255, 255, 255, 255, 255, 255, 255, 255]), None);
        assert_eq!(header(&[0x0f, 255, 255, 255, 255, 0x80]), None);
    }

    #[test]
    fn elements_beyond_their_master_are_corrupt() {
        let mut master = ElementWriter::default();
        master.unsigned(TRACK_NUMBER, 300);
        master.bytes(CODEC_ID, b"V_AV1");
        let whole = master.buffer;
        assert_eq!(
            Elements::unsigned(&whole, TRACK_NUMBER).expect("a number"),
            Some(300)
        );
        assert_eq!(Elements::find(&whole, VIDEO).expect("well formed"), None);
        for cut in 5..whole.len() {
            let found = Elements::find(&whole[..cut], CODEC_ID);
            assert!(matches!(found, Err(MediaError::Corrupt { .. })), "{cut}");
        }
        let long = [&[0xd7, 0x89][..], &[1; 9]].concat();
        assert!(Elements::unsigned(&long, TRACK_NUMBER).is_err());
    }
}
