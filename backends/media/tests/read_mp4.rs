//! Reading H.264 in MP4: the right frames, in the right order, all of them.

mod common;

use common::{
    PATTERN, crc32, file_of, patched, pattern_sums, payload_at, read_clip, read_frames, refusal,
};
use mote_media::{ClipFormat, FourCc, Frame, Limits, MediaError, Quantity, Rational, Unsupported};

fn sums(frames: &[Frame]) -> Vec<u32> {
    frames.iter().map(|frame| crc32(&frame.rgb)).collect()
}

#[test]
fn high_profile_with_b_frames_matches_the_reference_decoder() {
    let frames = read_clip(PATTERN).expect("a readable clip");
    assert_eq!(sums(&frames), pattern_sums());
}

#[test]
fn info_is_known_before_decoding() {
    let clip = mote_media::open(file_of(PATTERN), &Limits::default()).expect("a readable clip");
    let info = clip.info();
    assert_eq!((info.width, info.height), (106, 74));
    assert_eq!(info.frame_count, Some(40));
    assert_eq!(
        info.frame_rate,
        Rational::new(25, 1).expect("a positive fraction")
    );
    assert!(!info.frame_rate_varies);
    assert_eq!(info.pixel_aspect, Rational::ONE);
    assert_eq!(info.format, ClipFormat::Mp4H264 { profile_idc: 100 });
}

#[test]
fn frames_come_from_the_whole_file_whatever_its_offset() {
    use std::io::Seek;
    let mut file = file_of(PATTERN);
    file.seek(std::io::SeekFrom::Start(100))
        .expect("a seekable file");
    let clip = mote_media::open(file, &Limits::default()).expect("a readable clip");
    assert_eq!(
        sums(&read_frames(clip).expect("readable frames")),
        pattern_sums()
    );
}

#[test]
fn quarter_turns_of_the_display_matrix_are_applied() {
    let upright = read_clip(PATTERN).expect("a readable clip");
    let (one, minus_one, zero) = (
        0x1_0000_i32.to_be_bytes(),
        (-0x1_0000_i32).to_be_bytes(),
        [0; 4],
    );
    let matrix_at = payload_at(PATTERN, b"tkhd") + 40;
    let matrix = |a, b, c, d| [a, b, zero, c, d].concat();
    let clockwise = patched(PATTERN, matrix_at, &matrix(zero, one, minus_one, zero));
    for (upright, turned) in upright
        .iter()
        .zip(read_clip(&clockwise).expect("a readable clip"))
    {
        assert_eq!((turned.width, turned.height), (74, 106));
        // The top left corner becomes the top right one.
        assert_eq!(turned.rgb[73 * 3..74 * 3], upright.rgb[..3]);
        assert_eq!(
            turned.rgb[..3],
            upright.rgb[73 * 106 * 3..(73 * 106 + 1) * 3]
        );
    }
    let half = patched(
        PATTERN,
        matrix_at,
        &matrix(minus_one, zero, zero, minus_one),
    );
    let half = read_clip(&half).expect("a readable clip");
    let reversed: Vec<u8> = upright[0]
        .rgb
        .chunks_exact(3)
        .rev()
        .flatten()
        .copied()
        .collect();
    assert_eq!(half[0].rgb, reversed);
    let mirrored = patched(PATTERN, matrix_at, &matrix(minus_one, zero, zero, one));
    assert!(matches!(
        refusal(read_clip(&mirrored)),
        MediaError::NotSupported(Unsupported::DisplayMatrix)
    ));
}

/// The fixture's edit shows 1.6 s from 1024 units of 1/12800 s on, which is all of it; a frame lasts 512 units.
#[test]
fn edit_list_cuts_both_ends() {
    let edit_at = payload_at(PATTERN, b"elst") + 8;
    let edit = |milliseconds: u32, from: i32| {
        let edit = [milliseconds.to_be_bytes(), from.to_be_bytes()].concat();
        let frames = read_clip(&patched(PATTERN, edit_at, &edit)).expect("a readable clip");
        sums(&frames)
    };
    assert_eq!(edit(1600, 1024), pattern_sums());
    assert_eq!(edit(1600, 1024 + 10 * 512), pattern_sums()[10..]);
    assert_eq!(edit(400, 1024), pattern_sums()[..10]);
    assert_eq!(edit(120, 1024 + 5 * 512), pattern_sums()[5..8]);
}

#[test]
fn limits_are_the_callers() {
    let refused = |limits: Limits| refusal(mote_media::open(file_of(PATTERN), &limits));
    let quantity = |limits| match refused(limits) {
        MediaError::TooLarge { what, have, limit } => (what, have, limit),
        other => panic!("refused with {other:?}"),
    };
    let limits = Limits::default;
    assert_eq!(
        quantity(Limits {
            frames_max: 39,
            ..limits()
        }),
        (Quantity::Frames, 40, 39)
    );
    assert_eq!(
        quantity(Limits {
            width_max: 105,
            ..limits()
        }),
        (Quantity::Width, 106, 105)
    );
    assert_eq!(
        quantity(Limits {
            height_max: 73,
            ..limits()
        }),
        (Quantity::Height, 74, 73)
    );
    let pixels = 106 * 74;
    let area = Limits {
        frame_pixels_max: pixels - 1,
        ..limits()
    };
    assert_eq!(quantity(area), (Quantity::FramePixels, pixels, pixels - 1));
    let bytes = PATTERN.len() as u64;
    let size = Limits {
        file_bytes_max: bytes - 1,
        ..limits()
    };
    assert_eq!(quantity(size), (Quantity::FileBytes, bytes, bytes - 1));
    assert_eq!(
        quantity(Limits {
            index_bytes_max: 99,
            ..limits()
        })
        .0,
        Quantity::IndexBytes
    );
    assert_eq!(
        quantity(Limits {
            sample_bytes_max: 99,
            ..limits()
        })
        .0,
        Quantity::SampleBytes
    );
    let exact = Limits {
        frames_max: 40,
        width_max: 106,
        height_max: 74,
        frame_pixels_max: pixels,
        ..limits()
    };
    assert!(mote_media::open(file_of(PATTERN), &exact).is_ok());
}

#[test]
fn what_is_not_h264_in_mp4_is_named() {
    let sample_entry = payload_at(PATTERN, b"stsd") + 12;
    let at = |name| payload_at(PATTERN, name) - 4;
    let cases = [
        (sample_entry, b"hvc1", Unsupported::Codec(FourCc(*b"hvc1"))),
        (sample_entry, b"encv", Unsupported::Codec(FourCc(*b"encv"))),
        (
            payload_at(PATTERN, b"hdlr") + 8,
            b"soun",
            Unsupported::NoVideoTrack,
        ),
        (at(b"free"), b"moof", Unsupported::Fragments),
    ];
    for (position, name, want) in cases {
        match refusal(read_clip(&patched(PATTERN, position, name))) {
            MediaError::NotSupported(have) => assert_eq!(have, want),
            other => panic!("{want} is refused with {other:?}"),
        }
    }
}

#[test]
fn profiles_that_would_decode_wrongly_are_named() {
    let profile_at = payload_at(PATTERN, b"avcC") + 9;
    for profile_idc in [88, 110, 122, 244, 44] {
        let bytes = patched(PATTERN, profile_at, &[profile_idc]);
        let refused = refusal(read_clip(&bytes));
        assert!(
            matches!(refused, MediaError::NotSupported(Unsupported::H264Profile(have)) if have == profile_idc),
            "{refused:?}"
        );
        assert_eq!(refused.field(), Some("clip.format"));
        assert!(refused.is_clip_fault());
    }
}

#[test]
fn files_that_are_no_clip_are_refused() {
    let text = b"This is no clip at all, but long enough to be one.";
    assert!(matches!(
        refusal(read_clip(text)),
        MediaError::NotSupported(Unsupported::Container)
    ));
    assert!(matches!(
        refusal(read_clip(b"")),
        MediaError::Truncated { .. }
    ));
    assert!(matches!(
        refusal(read_clip(b"GIF")),
        MediaError::Truncated { .. }
    ));
    let folder = std::fs::File::open("/").expect("a folder");
    let refused = refusal(mote_media::open(folder, &Limits::default()));
    assert!(matches!(
        refused,
        MediaError::NotSupported(Unsupported::IrregularFile)
    ));
    let device = std::fs::File::open("/dev/zero").expect("a device");
    let refused = refusal(mote_media::open(device, &Limits::default()));
    assert!(matches!(
        refused,
        MediaError::NotSupported(Unsupported::IrregularFile)
    ));
}
