//! A reader of WebM files, of every element that this crate writes.

const MASTERS: [u32; 15] = [
    0x1a45_dfa3, // EBML
    0x1853_8067, // Segment
    0x114d_9b74, // SeekHead
    0x4dbb,      // Seek
    0x1549_a966, // Info
    0x1654_ae6b, // Tracks
    0xae,        // TrackEntry
    0xe0,        // Video
    0x55b0,      // Colour
    0xe1,        // Audio
    0x1f43_b675, // Cluster
    0xa0,        // BlockGroup
    0x1c53_bb6b, // Cues
    0xbb,        // CuePoint
    0xb7,        // CueTrackPositions
];

/// An element: identifier, where it begins, and its content.
pub struct Element {
    pub id: u32,
    pub at: usize,
    pub content: std::ops::Range<usize>,
}

fn number(bytes: &[u8]) -> (u64, usize) {
    let length = bytes[0].leading_zeros() as usize + 1;
    let value = bytes[..length]
        .iter()
        .fold(0, |value, &byte| value << 8 | u64::from(byte));
    (value, length)
}

/// All elements between `start` and `end`, masters before what is in them.
pub fn elements(bytes: &[u8], start: usize, end: usize) -> Vec<Element> {
    let mut found = Vec::new();
    let mut at = start;
    while at < end {
        let (id, id_bytes) = number(&bytes[at..]);
        let (size, size_bytes) = number(&bytes[at + id_bytes..]);
        let size = size & ((1 << (7 * size_bytes)) - 1);
        let from = at + id_bytes + size_bytes;
        let content = from..from + size as usize;
        assert!(
            content.end <= end,
            "{id:x} goes on behind what is around it"
        );
        let next = content.end;
        let is_master = MASTERS.contains(&(id as u32));
        found.push(Element {
            id: id as u32,
            at,
            content: content.clone(),
        });
        if is_master {
            found.extend(elements(bytes, content.start, content.end));
        }
        at = next;
    }
    found
}

pub struct File {
    pub bytes: Vec<u8>,
    pub elements: Vec<Element>,
}

impl File {
    pub fn of(bytes: Vec<u8>) -> Self {
        let elements = elements(&bytes, 0, bytes.len());
        Self { bytes, elements }
    }

    pub fn all(&self, id: u32) -> impl Iterator<Item = &[u8]> {
        let elements = self.elements.iter().filter(move |element| element.id == id);
        elements.map(|element| &self.bytes[element.content.clone()])
    }

    pub fn numbers(&self, id: u32) -> Vec<u64> {
        self.all(id)
            .map(|content| {
                content
                    .iter()
                    .fold(0, |value, &byte| value << 8 | u64::from(byte))
            })
            .collect()
    }

    pub fn segment(&self) -> usize {
        let segment = self.elements.iter().find(|e| e.id == 0x1853_8067);
        segment.expect("a segment").content.start
    }

    /// Time of every cluster, with its blocks in order.
    pub fn clusters(&self) -> Vec<(u64, Vec<Block<'_>>)> {
        let clusters = self.elements.iter().filter(|e| e.id == 0x1f43_b675);
        clusters.map(|cluster| self.cluster(cluster)).collect()
    }

    fn cluster(&self, cluster: &Element) -> (u64, Vec<Block<'_>>) {
        let inside = elements(&self.bytes, cluster.content.start, cluster.content.end);
        let (mut starts_ms, mut blocks) = (0, Vec::new());
        for element in &inside {
            let content = &self.bytes[element.content.clone()];
            match element.id {
                0xe7 => starts_ms = big_endian(content),
                0xa3 | 0xa1 => {
                    let offset_ms = i16::from_be_bytes([content[1], content[2]]);
                    blocks.push(Block {
                        track: content[0] & 0x7f,
                        time_ms: starts_ms
                            .checked_add_signed(offset_ms.into())
                            .expect("a time after the start"),
                        is_key: element.id == 0xa1 || content[3] == 0x80,
                        padding_ns: 0,
                        content: &content[4..],
                    });
                }
                0x75a2 => {
                    blocks.last_mut().expect("a block before").padding_ns = big_endian(content);
                }
                _ => {}
            }
        }
        (starts_ms, blocks)
    }

    /// All blocks of a track, in the order of the file.
    pub fn blocks(&self, track: u8) -> Vec<Block<'_>> {
        let blocks = self.clusters().into_iter().flat_map(|(_, blocks)| blocks);
        blocks.filter(|block| block.track == track).collect()
    }

    /// What the file says of its duration.
    pub fn duration_ms(&self) -> f64 {
        let content = self.all(0x4489).next().expect("a duration");
        f64::from_be_bytes(content.try_into().expect("eight bytes"))
    }
}

/// A coded frame or packet.
pub struct Block<'a> {
    pub track: u8,
    pub time_ms: u64,
    pub is_key: bool,
    pub padding_ns: u64,
    pub content: &'a [u8],
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |value, &byte| value << 8 | u64::from(byte))
}
