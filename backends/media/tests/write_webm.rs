//! AV1 in WebM, checked element by element with a reader of its own.

mod common;

use common::{content_of, drawn, rate, read_clip, refusal, spec, sums, written};
use mote_media::{
    AudioSpec, Av1Settings, ClipSpec, Frame, Limits, MediaError, Output, Unsupported,
};

const MASTERS: [u32; 13] = [
    0x1a45_dfa3, // EBML
    0x1853_8067, // Segment
    0x114d_9b74, // SeekHead
    0x4dbb,      // Seek
    0x1549_a966, // Info
    0x1654_ae6b, // Tracks
    0xae,        // TrackEntry
    0xe0,        // Video
    0x55b0,      // Colour
    0x1f43_b675, // Cluster
    0x1c53_bb6b, // Cues
    0xbb,        // CuePoint
    0xb7,        // CueTrackPositions
];

/// An element: identifier, where it begins, and its content.
struct Element {
    id: u32,
    at: usize,
    content: std::ops::Range<usize>,
}

fn number(bytes: &[u8]) -> (u64, usize) {
    let length = bytes[0].leading_zeros() as usize + 1;
    let value = bytes[..length]
        .iter()
        .fold(0, |value, &byte| value << 8 | u64::from(byte));
    (value, length)
}

/// All elements between `start` and `end`, masters before what is in them.
fn elements(bytes: &[u8], start: usize, end: usize) -> Vec<Element> {
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

struct File {
    bytes: Vec<u8>,
    elements: Vec<Element>,
}

impl File {
    fn of(bytes: Vec<u8>) -> Self {
        let elements = elements(&bytes, 0, bytes.len());
        Self { bytes, elements }
    }

    fn all(&self, id: u32) -> impl Iterator<Item = &[u8]> {
        let elements = self.elements.iter().filter(move |element| element.id == id);
        elements.map(|element| &self.bytes[element.content.clone()])
    }

    fn numbers(&self, id: u32) -> Vec<u64> {
        self.all(id)
            .map(|content| {
                content
                    .iter()
                    .fold(0, |value, &byte| value << 8 | u64::from(byte))
            })
            .collect()
    }

    fn segment(&self) -> usize {
        let segment = self.elements.iter().find(|e| e.id == 0x1853_8067);
        segment.expect("a segment").content.start
    }
}

fn clip(frames: u32, spec: &ClipSpec) -> File {
    let frames: Vec<Frame> = (0..frames)
        .map(|index| drawn(spec.width, spec.height, index, 256))
        .collect();
    File::of(written(
        &Output::WebmAv1(Av1Settings::default()),
        spec,
        &frames,
    ))
}

#[test]
fn masters_are_where_the_seek_head_says() {
    let file = clip(12, &spec(48, 32, rate(30_000, 1001)));
    let ids = file.numbers(0x53ab);
    assert_eq!(ids, [0x1549_a966, 0x1654_ae6b, 0x1c53_bb6b]);
    for (id, position) in ids.into_iter().zip(file.numbers(0x53ac)) {
        let at = file.segment() + position as usize;
        assert!(
            file.elements
                .iter()
                .any(|e| (u64::from(e.id), e.at) == (id, at))
        );
    }
    let duration: [u8; 8] = file
        .all(0x4489)
        .next()
        .and_then(|content| content.try_into().ok())
        .expect("eight bytes");
    assert!((f64::from_be_bytes(duration) - 12.0 * 1001.0 / 30.0).abs() < 1e-9);
    assert_eq!(file.numbers(0x2a_d7b1), [1_000_000]);
    assert_eq!(file.numbers(0x23_e383), [33_366_667]);
    assert_eq!(file.all(0x4282).next(), Some(&b"webm"[..]));
    assert_eq!(file.all(0x86).next(), Some(&b"V_AV1"[..]));
    // Matrix, range, transfer and primaries: BT.709, limited.
    let colour: Vec<u64> = [0x55b1, 0x55b9, 0x55ba, 0x55bb]
        .into_iter()
        .flat_map(|id| file.numbers(id))
        .collect();
    assert_eq!(colour, [1, 1, 1, 1]);
    let config = file.all(0x63a2).next().expect("a codec's configuration");
    assert_eq!((config[0], config[4] >> 3), (0x81, 1));
}

/// 170 frames at 30 per second have a second key frame within 5 s; each begins a cluster, and the cues name both.
#[test]
fn cues_name_the_clusters_of_key_frames() {
    let file = clip(170, &spec(32, 32, rate(30, 1)));
    let clusters: Vec<&Element> = file
        .elements
        .iter()
        .filter(|e| e.id == 0x1f43_b675)
        .collect();
    assert!(clusters.len() >= 2);
    let cues = file.numbers(0xf1);
    let starts: Vec<u64> = clusters
        .iter()
        .map(|cluster| (cluster.at - file.segment()) as u64)
        .collect();
    assert_eq!(cues, starts);
    assert_eq!(file.numbers(0xb3), file.numbers(0xe7));
    let mut index = 0;
    for cluster in clusters {
        let inside = elements(&file.bytes, cluster.content.start, cluster.content.end);
        let starts_ms = file.bytes[inside[0].content.clone()]
            .iter()
            .fold(0, |value, &byte| value << 8 | i64::from(byte));
        for (position, block) in inside[1..].iter().enumerate() {
            let block = &file.bytes[block.content.clone()];
            assert_eq!(block[0], 0x81);
            assert_eq!(block[3], if position == 0 { 0x80 } else { 0 });
            assert_eq!(block[4] >> 3 == 1, position == 0, "frame {index}");
            let time_ms = starts_ms + i64::from(i16::from_be_bytes([block[1], block[2]]));
            assert_eq!(time_ms, (index * 1000 + 15) / 30, "frame {index}");
            index += 1;
        }
    }
    assert_eq!(index, 170);
}

/// Recorders that cannot go back leave sizes unknown.
#[test]
fn sizes_may_be_unknown() {
    let file = clip(170, &spec(32, 32, rate(30, 1)));
    let want = sums(&read_clip(&file.bytes).expect("a readable clip"));
    let mut bytes = file.bytes.clone();
    for element in &file.elements {
        if matches!(element.id, 0x1853_8067 | 0x1f43_b675) {
            bytes[element.content.start - 8..element.content.start]
                .copy_from_slice(&[1, 255, 255, 255, 255, 255, 255, 255]);
        }
    }
    assert_eq!(sums(&read_clip(&bytes).expect("a readable clip")), want);
    // Cut behind a block, as when the recorder was killed, all before it is there.
    let blocks: Vec<&Element> = file.elements.iter().filter(|e| e.id == 0xa3).collect();
    let cut = &bytes[..blocks[99].content.end];
    assert_eq!(sums(&read_clip(cut).expect("a readable clip")), want[..100]);
    let refused = refusal(read_clip(&bytes[..blocks[99].content.end - 1]));
    assert!(matches!(refused, MediaError::Truncated { .. }));
}

#[test]
fn slow_clips_have_a_cluster_for_each_distant_frame() {
    let file = clip(3, &spec(32, 32, rate(1, 40)));
    assert_eq!(file.numbers(0xe7), [0, 40_000, 80_000]);
}

#[test]
fn sound_is_refused() {
    let file = tempfile::tempfile().expect("a temporary file");
    let output = Output::WebmAv1(Av1Settings::default());
    let (spec, limits) = (spec(32, 32, rate(30, 1)), Limits::default());
    let audio = AudioSpec {
        sample_rate: 48_000,
        channels: 2,
    };
    let refused = refusal(mote_media::create_with_audio(
        file.try_clone().expect("a second handle"),
        &spec,
        &output,
        &audio,
        &limits,
    ));
    let is_right =
        |refused: &MediaError| matches!(refused, MediaError::NotSupported(Unsupported::AudioTrack));
    assert!(is_right(&refused) && !output.takes_audio());
    assert!(content_of(file.try_clone().expect("a second handle")).is_empty());
    let mut writer = mote_media::create(file, &spec, &output, &limits).expect("valid settings");
    assert!(is_right(&refusal(writer.push_audio(&[0.0]))));
    assert!(matches!(refusal(writer.finish()), MediaError::NoFrames));
}
