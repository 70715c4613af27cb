//! MP4 files with a track of sound made up box by box, and a reader of such tracks.

use super::payload_at;

/// A box of this content.
pub fn boxed(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let bytes = (content.len() + 8) as u32;
    [&bytes.to_be_bytes()[..], name, content].concat()
}

/// Fields of 32 bits, behind version and flags of 0.
fn full(name: &[u8; 4], fields: &[u32]) -> Vec<u8> {
    let fields: Vec<u8> = fields
        .iter()
        .flat_map(|field| field.to_be_bytes())
        .collect();
    boxed(name, &[&[0; 4], &fields[..]].concat())
}

/// A sample entry of version 0 that says 2 channels, 16 bits and 48,000 samples per second.
pub fn entry(name: &[u8; 4], boxes: &[u8]) -> Vec<u8> {
    let mut fields = [0; 28];
    fields[7] = 1;
    fields[17] = 2;
    fields[19] = 16;
    fields[24..26].copy_from_slice(&48_000_u16.to_be_bytes());
    boxed(name, &[&fields[..], boxes].concat())
}

/// `esds` with a description of the decoder, or none.
pub fn esds(object_type: u8, specific: &[u8]) -> Vec<u8> {
    let mut decoder = vec![object_type, 0x15, 0, 6, 0, 0, 1, 0xf4, 0, 0, 1, 0xf4, 0];
    if !specific.is_empty() {
        decoder.extend_from_slice(&[5, 0x80, 0x80, specific.len() as u8]);
        decoder.extend_from_slice(specific);
    }
    let mut stream = vec![0, 0, 0, 4, 0x80, 0x80, 0x80, decoder.len() as u8];
    stream.extend_from_slice(&decoder);
    stream.extend_from_slice(&[6, 1, 2]);
    let head = [0, 0, 0, 0, 3, stream.len() as u8];
    boxed(b"esds", &[&head[..], &stream].concat())
}

/// AAC, Low Complexity, 48 kHz, stereo.
pub fn aac() -> Vec<u8> {
    entry(b"mp4a", &esds(0x40, &[0x11, 0x90]))
}

/// A track of sound.
#[derive(Clone, Debug)]
pub struct Track {
    pub entry: Vec<u8>,
    pub timescale: u32,
    pub packets: Vec<Vec<u8>>,
    pub durations: Vec<u32>,
    /// Duration in the movie's units, and place in the track's, or -1.
    pub edits: Vec<(u32, i32)>,
}

impl Track {
    /// Packets of all the same duration.
    pub fn of(entry: Vec<u8>, timescale: u32, packets: usize, duration: u32) -> Self {
        Self {
            entry,
            timescale,
            packets: (0..packets).map(|at| vec![at as u8; at % 7 + 1]).collect(),
            durations: vec![duration; packets],
            edits: vec![],
        }
    }

    fn boxes(&self, packets_at: usize) -> Vec<u8> {
        let count = self.packets.len() as u32;
        let mut times = vec![count];
        times.extend(self.durations.iter().flat_map(|&duration| [1, duration]));
        let mut sizes = vec![0, count];
        sizes.extend(self.packets.iter().map(|packet| packet.len() as u32));
        let stsd = [&[0, 0, 0, 0, 0, 0, 0, 1], &self.entry[..]].concat();
        let table = [
            boxed(b"stsd", &stsd),
            full(b"stts", &times),
            full(b"stsc", &[1, 1, count, 1]),
            full(b"stsz", &sizes),
            full(b"stco", &[1, packets_at as u32]),
        ]
        .concat();
        let total: u64 = self.durations.iter().map(|&units| u64::from(units)).sum();
        let media = [
            full(b"mdhd", &[0, 0, self.timescale, total as u32, 0]),
            full(b"hdlr", &[0, u32::from_be_bytes(*b"soun"), 0, 0, 0]),
            boxed(b"minf", &boxed(b"stbl", &table)),
        ]
        .concat();
        let mut edits = vec![self.edits.len() as u32];
        for &(duration, at) in &self.edits {
            edits.extend_from_slice(&[duration, at as u32, 0x1_0000]);
        }
        let edits = boxed(b"edts", &full(b"elst", &edits));
        let edits = if self.edits.is_empty() { vec![] } else { edits };
        boxed(b"trak", &[edits, boxed(b"mdia", &media)].concat())
    }

    /// A copy of `mp4`, whose index is last, with this track and its packets behind that.
    pub fn added_to(&self, mp4: &[u8]) -> Vec<u8> {
        let index = payload_at(mp4, b"moov");
        let bytes = self.boxes(0).len();
        let track = self.boxes(mp4.len() + bytes + 8);
        let mut file = [mp4, &track].concat();
        let index_bytes = (file.len() - index + 8) as u32;
        file[index - 8..index - 4].copy_from_slice(&index_bytes.to_be_bytes());
        file.extend_from_slice(&boxed(b"mdat", &self.packets.concat()));
        file
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// What is inside the first box of each name, one in the other.
pub fn inside<'a>(bytes: &'a [u8], path: &[&[u8; 4]]) -> Option<&'a [u8]> {
    let Some((name, rest)) = path.split_first() else {
        return Some(bytes);
    };
    let mut at = 0;
    while at + 8 <= bytes.len() {
        let size = match u32_at(bytes, at) {
            1 => {
                u64::from_be_bytes(bytes[at + 8..at + 16].try_into().expect("eight bytes")) as usize
            }
            size => size as usize,
        };
        if bytes[at + 4..at + 8] == name[..] {
            return inside(&bytes[at + 8..at + size], rest);
        }
        at += size;
    }
    None
}

/// What was written of a track of sound.
#[derive(Debug, PartialEq)]
pub struct Written {
    pub entry: Vec<u8>,
    pub timescale: u32,
    pub packets: Vec<Vec<u8>>,
    pub durations: Vec<u32>,
    /// In the movie's units, of which there are so many per second.
    pub edits: Vec<(u64, i64)>,
    pub movie_timescale: u32,
}

/// The second track of a file that this crate wrote.
pub fn written(mp4: &[u8]) -> Option<Written> {
    let movie = inside(mp4, &[b"moov"])?;
    let mut at = movie
        .windows(4)
        .enumerate()
        .filter(|(_, name)| name == b"trak");
    let (at, _) = at.nth(1)?;
    let track = inside(&movie[at - 4..], &[b"trak"])?;
    let table = |name| inside(track, &[b"mdia", b"minf", b"stbl", name]).expect("a table");
    let u32s =
        |bytes: &[u8]| -> Vec<u32> { bytes.chunks_exact(4).map(|four| u32_at(four, 0)).collect() };
    let runs = u32s(&table(b"stts")[8..]);
    let runs = runs.chunks_exact(2);
    let durations = runs.flat_map(|run| vec![run[1]; run[0] as usize]).collect();
    let sizes = u32s(&table(b"stsz")[12..]);
    let chunks = u32s(&table(b"stco")[8..]);
    let of_chunks = u32s(&table(b"stsc")[8..]);
    let mut packets = Vec::new();
    for (number, &chunk) in (1..).zip(&chunks) {
        let run = of_chunks.chunks_exact(3).rfind(|run| run[0] <= number);
        let mut at = chunk as usize;
        for _ in 0..run.expect("a run")[1] {
            let bytes = sizes[packets.len()] as usize;
            packets.push(mp4[at..at + bytes].to_vec());
            at += bytes;
        }
    }
    let edits = inside(track, &[b"edts", b"elst"]).expect("edits");
    let edits = edits[8..].chunks_exact(20).map(|edit| {
        let (duration, at) = (edit[..8].try_into(), edit[8..16].try_into());
        (
            u64::from_be_bytes(duration.expect("eight bytes")),
            i64::from_be_bytes(at.expect("eight bytes")),
        )
    });
    Some(Written {
        entry: table(b"stsd")[8..].to_vec(),
        timescale: u32_at(inside(track, &[b"mdia", b"mdhd"])?, 20),
        packets,
        durations,
        edits: edits.collect(),
        movie_timescale: u32_at(inside(movie, &[b"mvhd"])?, 20),
    })
}
