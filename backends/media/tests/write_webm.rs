//! AV1 in WebM, checked element by element with a reader of its own.

mod common;

use common::webm::{Element, File, elements};
use common::{drawn, rate, read_clip, refusal, spec, sums, written};
use mote_media::{Av1Settings, ClipSpec, Frame, Limits, MediaError, Output, Unsupported};

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

/// A clip without an audio track has none to push to.
#[test]
fn sound_without_a_track_is_refused() {
    let file = tempfile::tempfile().expect("a temporary file");
    let output = Output::WebmAv1(Av1Settings::default());
    let (spec, limits) = (spec(32, 32, rate(30, 1)), Limits::default());
    let mut writer = mote_media::create(file, &spec, &output, &limits).expect("valid settings");
    assert!(matches!(
        refusal(writer.push_audio(&[0.0])),
        MediaError::NotSupported(Unsupported::AudioTrack)
    ));
    assert!(matches!(refusal(writer.finish()), MediaError::NoFrames));
}
