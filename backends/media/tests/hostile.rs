//! Clips made to harm: cut short, damaged, and lying about their sizes. Each must end in a typed error (or in frames),
//! without a panic and without taking memory for what is not there.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::{
    AV1_MP4, AV1_WEBM, PATTERN, Random, content_of, crc32, drawn, file_of, patched, payload_at,
    rate, read_clip, read_frames, refusal, spec, written,
};
use mote_media::{
    AudioSpec, Av1Settings, Frame, Limits, MediaError, Output, Quantity, Unsupported, encode_png,
};

/// The fixtures are of a few kilobytes and their frames of a few more; the largest honest request is a fixed buffer.
const REQUEST_BYTES_MAX: usize = 4 << 20;

/// Notes the largest request for memory of each thread, and so of each test.
struct Watching;

thread_local! {
    static LARGEST_REQUEST_BYTES: Cell<usize> = const { Cell::new(0) };
}

fn note_request(bytes: usize) {
    LARGEST_REQUEST_BYTES.with(|largest| largest.set(largest.get().max(bytes)));
}

// SAFETY: every call is passed on to the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note_request(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        note_request(bytes);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

fn assert_small_requests() {
    let largest = LARGEST_REQUEST_BYTES.with(Cell::get);
    assert!(
        largest <= REQUEST_BYTES_MAX,
        "a request for {largest} bytes"
    );
}

fn drawn_clip(output: &Output) -> Vec<u8> {
    let frames: Vec<Frame> = (0..6).map(|index| drawn(60, 40, index, 8)).collect();
    written(output, &spec(60, 40, rate(10, 1)), &frames)
}

fn gif() -> Vec<u8> {
    drawn_clip(&Output::Gif)
}

fn webp() -> Vec<u8> {
    drawn_clip(&Output::WebP)
}

fn y4m() -> Vec<u8> {
    drawn_clip(&Output::Y4m)
}

/// One of each format that is read.
fn clips() -> Vec<Vec<u8>> {
    vec![
        PATTERN.to_vec(),
        index_first(),
        AV1_MP4.to_vec(),
        AV1_WEBM.to_vec(),
        gif(),
        webp(),
        y4m(),
        png(),
        sounding(&Output::Mp4Av1(Av1Settings::default())),
        sounding(&Output::WebmAv1(Av1Settings::default())),
    ]
}

/// With a second of sound.
fn sounding(output: &Output) -> Vec<u8> {
    let file = tempfile::tempfile().expect("a temporary file");
    let audio = AudioSpec {
        sample_rate: 8000,
        channels: 1,
    };
    let mut writer = mote_media::create_with_audio(
        file.try_clone().expect("a second handle"),
        &spec(60, 40, rate(10, 1)),
        output,
        &audio,
        &Limits::default(),
    )
    .expect("valid settings");
    for index in 0..6 {
        let frame = drawn(60, 40, index, 8);
        writer.push(&frame).expect("a fitting frame");
    }
    let tone: Vec<f32> = (0..8000).map(|at| (at as f32 * 0.2).sin()).collect();
    writer.push_audio(&tone).expect("room for samples");
    writer.finish().expect("a complete clip");
    content_of(file)
}

fn png() -> Vec<u8> {
    encode_png(&drawn(60, 40, 1, 256)).expect("a consistent frame")
}

/// The fixture with its index first, so that cutting it leaves the index whole.
fn index_first() -> Vec<u8> {
    let (index, data) = (
        payload_at(PATTERN, b"moov") - 8,
        payload_at(PATTERN, b"mdat") - 8,
    );
    let shift = (PATTERN.len() - index) as u32;
    let mut bytes = [&PATTERN[..data], &PATTERN[index..], &PATTERN[data..index]].concat();
    let table = payload_at(&bytes, b"stco") + 4;
    let count =
        u32::from_be_bytes(bytes[table..table + 4].try_into().expect("four bytes")) as usize;
    for entry in 1..=count {
        let at = table + entry * 4;
        let offset = u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes")) + shift;
        bytes[at..at + 4].copy_from_slice(&offset.to_be_bytes());
    }
    bytes
}

#[test]
fn cut_clips_are_refused() {
    assert_eq!(
        read_clip(&index_first()).expect("a readable clip").len(),
        40
    );
    for clip in clips() {
        for twentieth in 0..20 {
            let bytes = &clip[..clip.len() * twentieth / 20];
            let refused = refusal(read_clip(bytes));
            assert!(refused.is_clip_fault(), "{refused:?}");
            assert!(
                matches!(
                    refused,
                    MediaError::Truncated { .. } | MediaError::Decode { .. }
                ),
                "{twentieth}/20 is refused with {refused:?}"
            );
        }
    }
    assert_small_requests();
}

#[test]
fn damaged_clips_end_in_frames_or_typed_errors() {
    const ROUNDS: usize = 500;
    let mut random = Random::seeded();
    let clips = clips();
    let mut refused = 0;
    for _ in 0..ROUNDS {
        let mut bytes = clips[random.below(clips.len())].clone();
        // The index is a tenth of an MP4 file; damage it as often as the rest.
        let from = if random.below(2) == 0 {
            bytes.len() * 8 / 9
        } else {
            0
        };
        for _ in 0..=random.below(8) {
            let at = from + random.below(bytes.len() - from);
            bytes[at] ^= 1 << random.below(8);
        }
        match read_clip(&bytes) {
            Ok(frames) => assert!(frames.len() <= 40),
            Err(cause) => {
                assert!(cause.is_clip_fault(), "{cause:?}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0, "no damage was noticed");
    assert_small_requests();
}

/// Where nothing is decoded before the cut is noticed, every place can be tried. A WebP whose size was made to fit is
/// decoded up to there.
#[test]
fn clips_cut_anywhere_are_refused() {
    for clip in [AV1_MP4, AV1_WEBM, &webp()] {
        for bytes in 0..clip.len() {
            let refused = refusal(read_clip(&clip[..bytes]));
            assert!(
                matches!(refused, MediaError::Truncated { .. }),
                "{bytes} of {} is refused with {refused:?}",
                clip.len()
            );
        }
    }
    let webp = webp();
    for bytes in (12..webp.len()).step_by(7) {
        let fitting = patched(&webp[..bytes], 4, &(bytes as u32 - 8).to_le_bytes());
        match read_clip(&fitting) {
            Ok(frames) => assert!(frames.len() < 6),
            Err(cause) => assert!(cause.is_clip_fault(), "{bytes}: {cause:?}"),
        }
    }
    assert_small_requests();
}

/// Bytes of the small AV1 files and of a WebP one after another; each is decoded as far as it goes.
#[test]
fn any_single_byte_may_be_wrong() {
    for (clip, step) in [(AV1_MP4, 7), (AV1_WEBM, 23), (&webp(), 11)] {
        for at in (0..clip.len()).step_by(step) {
            let value = clip[at] ^ [0xff, 0x01, 0x80, 0x10][at % 4];
            match read_clip(&patched(clip, at, &[value])) {
                Ok(frames) => assert!(frames.len() <= 24),
                Err(cause) => assert!(cause.is_clip_fault(), "byte {at}: {cause:?}"),
            }
        }
    }
    assert_small_requests();
}

/// Where a field of the fixture lies, what is written there, and whether the refusal is the right one.
type Lie = (&'static str, usize, Vec<u8>, fn(&MediaError) -> bool);

fn lies() -> Vec<Lie> {
    let at = |name| payload_at(PATTERN, name);
    let u32 = |value: u32| value.to_be_bytes().to_vec();
    let moov_end = PATTERN.len();
    vec![
        (
            "moov larger than the limit",
            at(b"moov") - 8,
            u32(u32::MAX),
            |e| {
                matches!(
                    e,
                    MediaError::TooLarge {
                        what: Quantity::IndexBytes,
                        ..
                    }
                )
            },
        ),
        (
            "moov larger than the file",
            at(b"moov") - 8,
            u32((moov_end + 1) as u32),
            |e| matches!(e, MediaError::Truncated { .. }),
        ),
        (
            "mdat larger than the file",
            at(b"mdat") - 8,
            u32(u32::MAX),
            |e| matches!(e, MediaError::Truncated { .. }),
        ),
        (
            "a box smaller than its header",
            at(b"mdat") - 8,
            u32(7),
            |e| matches!(e, MediaError::Corrupt { .. }),
        ),
        (
            "a 64-bit size that overflows",
            at(b"free") - 8,
            [u32(1), b"free".to_vec(), vec![255; 8]].concat(),
            |e| matches!(e, MediaError::Corrupt { .. }),
        ),
        (
            "trak larger than moov",
            at(b"trak") - 8,
            u32(u32::MAX),
            |e| matches!(e, MediaError::Corrupt { .. }),
        ),
        (
            "stbl larger than minf",
            at(b"stbl") - 8,
            u32(1 << 20),
            |e| matches!(e, MediaError::Corrupt { .. }),
        ),
        (
            "four billion samples",
            at(b"stsz") + 8,
            u32(u32::MAX),
            |e| {
                matches!(
                    e,
                    MediaError::TooLarge {
                        what: Quantity::Frames,
                        have: 0xffff_ffff,
                        ..
                    }
                )
            },
        ),
        (
            "four billion samples of one size",
            at(b"stsz") + 4,
            [u32(1), u32(u32::MAX)].concat(),
            |e| {
                matches!(
                    e,
                    MediaError::TooLarge {
                        what: Quantity::Frames,
                        ..
                    }
                )
            },
        ),
        (
            "more samples than entries",
            at(b"stsz") + 8,
            u32(170_000),
            |e| matches!(e, MediaError::Corrupt { what: "stsz", .. }),
        ),
        (
            "a sample of two gigabytes",
            at(b"stsz") + 12,
            u32(1 << 31),
            |e| {
                matches!(
                    e,
                    MediaError::TooLarge {
                        what: Quantity::SampleBytes,
                        ..
                    }
                )
            },
        ),
        (
            "a sample larger than the file",
            at(b"stsz") + 12,
            u32(15 << 20),
            |e| matches!(e, MediaError::Truncated { .. }),
        ),
        (
            "a chunk behind the file",
            at(b"stco") + 8,
            u32(u32::MAX),
            |e| matches!(e, MediaError::Truncated { .. }),
        ),
        (
            "more chunks than entries",
            at(b"stco") + 4,
            u32(u32::MAX),
            |e| matches!(e, MediaError::Corrupt { what: "stco", .. }),
        ),
        ("no samples in a chunk", at(b"stsc") + 12, u32(0), |e| {
            matches!(e, MediaError::Corrupt { what: "stsc", .. })
        }),
        ("too few durations", at(b"stts") + 8, u32(3), |e| {
            matches!(e, MediaError::Corrupt { what: "stts", .. })
        }),
        ("a timescale of 0", at(b"mdhd") + 12, u32(0), |e| {
            matches!(e, MediaError::Corrupt { what: "mdhd", .. })
        }),
        (
            "a parameter set longer than avcC",
            at(b"avcC") + 6,
            vec![255; 2],
            |e| matches!(e, MediaError::Corrupt { what: "avcC", .. }),
        ),
        ("no parameter sets", at(b"avcC") + 5, vec![0xe0], |e| {
            matches!(e, MediaError::Corrupt { what: "avcC", .. })
        }),
        (
            "a NAL unit longer than its sample",
            at(b"mdat"),
            u32(u32::MAX),
            |e| {
                matches!(
                    e,
                    MediaError::Corrupt {
                        what: "a sample",
                        ..
                    }
                )
            },
        ),
    ]
}

#[test]
fn lying_sizes_are_refused() {
    for (lie, position, patch, is_right) in lies() {
        let refused = refusal(read_clip(&patched(PATTERN, position, &patch)));
        assert!(is_right(&refused), "{lie} is refused with {refused:?}");
    }
    assert_small_requests();
}

/// The last frame is shown first, so that all others wait for it; without the edit list, which would hide it.
#[test]
fn endless_reordering_is_refused() {
    let bytes = patched(PATTERN, payload_at(PATTERN, b"edts") - 4, b"free");
    let offsets = payload_at(&bytes, b"ctts");
    let box_bytes = u32::from_be_bytes(
        bytes[offsets - 8..offsets - 4]
            .try_into()
            .expect("four bytes"),
    );
    let last_offset = offsets - 8 + box_bytes as usize - 4;
    let refused = refusal(read_clip(&patched(
        &bytes,
        last_offset,
        &(-1_000_000_i32).to_be_bytes(),
    )));
    assert!(
        matches!(
            refused,
            MediaError::TooLarge {
                what: Quantity::ReorderedFrames,
                ..
            }
        ),
        "{refused:?}"
    );
}

/// Elements of no meaning, of two bytes each.
#[test]
fn endless_webm_elements_are_refused() {
    let head = &AV1_WEBM[..element_at(&[0x18, 0x53, 0x80, 0x67])];
    let voids = [0xec, 0x80].repeat(1 << 17);
    let unknown = [0x18, 0x53, 0x80, 0x67, 0xff];
    let limits = Limits {
        frames_max: 1000,
        ..Limits::default()
    };
    let file = file_of(&[head, &unknown, &voids].concat());
    let refused = refusal(mote_media::open(file, &limits));
    assert!(
        matches!(
            refused,
            MediaError::TooLarge {
                what: Quantity::Elements,
                ..
            }
        ),
        "{refused:?}"
    );
}

/// Position of the last element of this name; the seek head names some before.
fn element_at(id: &[u8]) -> usize {
    AV1_WEBM
        .windows(id.len())
        .rposition(|window| window == id)
        .expect("the element is there")
}

#[test]
fn webm_that_lies_is_refused() {
    let tracks = element_at(&[0x16, 0x54, 0xae, 0x6b]);
    let cluster = element_at(&[0x1f, 0x43, 0xb6, 0x75]);
    let block = cluster
        + AV1_WEBM[cluster..]
            .windows(2)
            .position(|window| window[0] == 0xa3)
            .expect("a block");
    let size_bytes = AV1_WEBM[block + 1].leading_zeros() as usize + 1;
    let flags = block + 1 + size_bytes + 3;
    let doc_type = element_at(b"webm");
    let lies: [Lie; 6] = [
        ("another document", doc_type, b"mebw".to_vec(), |e| {
            matches!(e, MediaError::NotSupported(Unsupported::Container))
        }),
        (
            "tracks larger than the file",
            tracks + 4,
            vec![0x10, 255, 255, 255],
            |e| matches!(e, MediaError::Truncated { .. }),
        ),
        (
            "tracks that are something else",
            tracks,
            vec![0x16, 0x54, 0xae, 0x6c],
            |e| matches!(e, MediaError::Corrupt { .. }),
        ),
        (
            "an element without a valid name",
            cluster,
            vec![0, 0, 0, 0],
            |e| matches!(e, MediaError::Corrupt { .. }),
        ),
        ("several frames in a block", flags, vec![0x86], |e| {
            matches!(e, MediaError::NotSupported(Unsupported::WebmLacing))
        }),
        (
            "a block larger than its cluster",
            block + 1,
            vec![0x40, 0x01],
            |e| e.is_clip_fault(),
        ),
    ];
    for (lie, position, patch, is_right) in lies {
        let refused = refusal(read_clip(&patched(AV1_WEBM, position, &patch)));
        assert!(is_right(&refused), "{lie} is refused with {refused:?}");
    }
    assert_small_requests();
}

/// A container that says another size than its stream: its pictures are refused, not fitted.
#[test]
fn av1_of_another_size_than_announced_is_refused() {
    let limits = Limits {
        width_max: 4096,
        ..Limits::default()
    };
    for clip in [AV1_MP4, AV1_WEBM] {
        let mut refusals = 0;
        for at in 0..clip.len() {
            let file = file_of(&patched(clip, at, &[clip[at] ^ 0x04]));
            if let Ok(clip) = mote_media::open(file, &limits)
                && (clip.info().width, clip.info().height) != (106, 74)
            {
                let refused = refusal(read_frames(clip));
                assert!(refused.is_clip_fault(), "{refused:?}");
                refusals += 1;
            }
        }
        assert!(refusals > 0, "no byte changed the size");
    }
}

/// Units of three bytes that each show a whole picture again: the second ends the clip, before what follows is looked
/// at.
#[test]
fn av1_that_shows_a_frame_a_thousand_times_is_refused() {
    let sizes = payload_at(AV1_MP4, b"stsz") + 12;
    let number = |at: usize| u32::from_be_bytes(AV1_MP4[at..at + 4].try_into().expect("four"));
    let (data, bytes) = (payload_at(AV1_MP4, b"mdat"), number(sizes));
    let shown_again = [0x1a, 1, 0x88].repeat(1000);
    // A unit of a kind that the decoder refuses.
    for last in [&[][..], &[0x4a, 0]] {
        let added = [&shown_again[..], last].concat();
        let grown = |at: usize| (number(at) + added.len() as u32).to_be_bytes();
        let clip = patched(AV1_MP4, sizes, &grown(sizes));
        let mut clip = patched(&clip, data - 8, &grown(data - 8));
        let end = data + bytes as usize;
        clip.splice(end..end, added.iter().copied());
        let refused = refusal(read_clip(&clip));
        assert!(
            matches!(refused, MediaError::NotSupported(Unsupported::Av1Layers)),
            "{refused:?}"
        );
    }
    assert_small_requests();
}

#[test]
fn a_million_boxes_are_refused() {
    let boxes = b"\0\0\0\x08free".repeat(1 << 17);
    let refused = refusal(read_clip(&boxes));
    assert!(
        matches!(
            refused,
            MediaError::TooLarge {
                what: Quantity::Boxes,
                ..
            }
        ),
        "{refused:?}"
    );
}

#[test]
fn pictures_of_millions_of_pixels_a_side_are_refused() {
    let png = png();
    let mut header = png[12..29].to_vec();
    header[4..12].copy_from_slice(&[0, 0x3d, 0x09, 0, 0, 0x3d, 0x09, 0]);
    let sum = crc32(&header).to_be_bytes();
    let lying = patched(&patched(&png, 12, &header), 29, &sum);
    let refused = refusal(read_clip(&lying));
    assert!(
        matches!(
            refused,
            MediaError::TooLarge {
                what: Quantity::Width,
                have: 4_000_000,
                ..
            }
        ),
        "{refused:?}"
    );

    let gif = gif();
    let refused = refusal(read_clip(&patched(&gif, 6, &[255; 4])));
    assert!(
        matches!(
            refused,
            MediaError::TooLarge {
                what: Quantity::Width,
                have: 65535,
                ..
            }
        ),
        "{refused:?}"
    );
    let image_at = gif
        .windows(9)
        .position(|w| w == [0x2c, 0, 0, 0, 0, 60, 0, 40, 0])
        .expect("an image block");
    let refused = refusal(read_clip(&patched(&gif, image_at + 5, &[255; 4])));
    assert!(
        matches!(
            refused,
            MediaError::TooLarge {
                what: Quantity::Width,
                have: 65535,
                ..
            }
        ),
        "{refused:?}"
    );
    assert_small_requests();
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_refused() {
    let file = file_of(&index_first());
    let handle = file.try_clone().expect("a second handle");
    let mut clip = mote_media::open(file, &Limits::default()).expect("a readable clip");
    assert!(matches!(
        clip.next_frame(),
        Ok(Some(Frame { width: 106, .. }))
    ));
    handle.set_len(2000).expect("a writable file");
    let refused = std::iter::from_fn(|| clip.next_frame().transpose()).find_map(Result::err);
    assert!(
        matches!(refused, Some(MediaError::Truncated { .. })),
        "{refused:?}"
    );
}
