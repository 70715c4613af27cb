//! Raw frames and Y4M.

mod common;

use std::io::Write;
use std::os::fd::OwnedFd;

use common::{
    crc32, drawn, file_of, psnr_db, rate, read_clip, read_frames, refusal, spec, written,
};
use mote_media::{
    ClipFormat, ClipSpec, Frame, Limits, MediaError, Output, Quantity, RawLayout, Unsupported,
};

#[test]
fn rgb_is_the_frames_alone() {
    let frames: Vec<Frame> = (0..3).map(|index| drawn(7, 5, index, 256)).collect();
    let bytes = written(
        &Output::Raw(RawLayout::Rgb8),
        &spec(7, 5, rate(1, 1)),
        &frames,
    );
    let want: Vec<u8> = frames.into_iter().flat_map(|frame| frame.rgb).collect();
    assert_eq!(bytes, want);
}

/// The code values of 100 % green as printed in BT.601-7 and BT.709-6 (8 bits).
#[test]
fn planes_lie_one_after_another_in_the_matrix_of_their_height() {
    for (height, yuv) in [(3, [145, 54, 34]), (577, [173, 42, 26])] {
        let green = Frame {
            width: 3,
            height,
            rgb: [0, 255, 0].repeat(3 * height as usize),
        };
        let bytes = written(
            &Output::Raw(RawLayout::I420),
            &spec(3, height, rate(1, 1)),
            &[green],
        );
        let (luma, chroma) = (3 * height as usize, 2 * height.div_ceil(2) as usize);
        assert_eq!(bytes.len(), luma + 2 * chroma);
        assert!(bytes[..luma].iter().all(|&y| y == yuv[0]));
        assert!(bytes[luma..luma + chroma].iter().all(|&u| u == yuv[1]));
        assert!(bytes[luma + chroma..].iter().all(|&v| v == yuv[2]));
    }
}

#[test]
fn y4m_comes_back_but_for_its_chroma() {
    for height in [34, 578] {
        let spec = ClipSpec {
            pixel_aspect: rate(4, 3),
            ..spec(52, height, rate(30_000, 1001))
        };
        let frames: Vec<Frame> = (0..3).map(|index| drawn(52, height, index, 256)).collect();
        let bytes = written(&Output::Y4m, &spec, &frames);
        let head = format!(
            "YUV4MPEG2 W52 H{height} F30000:1001 Ip A4:3 C420jpeg XCOLORRANGE=LIMITED\nFRAME\n"
        );
        assert!(bytes.starts_with(head.as_bytes()));
        let clip = mote_media::open(file_of(&bytes), &Limits::default()).expect("a readable clip");
        let info = clip.info();
        assert_eq!(
            (info.width, info.height, info.frame_count),
            (52, height, Some(3))
        );
        assert_eq!(
            (info.frame_rate, info.pixel_aspect, info.format),
            (spec.frame_rate, spec.pixel_aspect, ClipFormat::Y4m)
        );
        let back = read_frames(clip).expect("readable frames");
        let psnr_db = psnr_db(&frames, &back);
        assert!(psnr_db > 27.0, "{psnr_db} dB at height {height}");
        // What has lost its chroma once loses next to nothing more.
        let again = read_clip(&written(&Output::Y4m, &spec, &back)).expect("a readable clip");
        let psnr_db = common::psnr_db(&back, &again);
        assert!(psnr_db > 40.0, "{psnr_db} dB the second time");
    }
}

fn y4m(header: &str, frame: &str, samples: &[u8], frames: usize) -> Vec<u8> {
    let frame = [frame.as_bytes(), samples].concat();
    [header.as_bytes(), &frame.repeat(frames)].concat()
}

#[test]
fn y4m_of_every_sampling_and_range_is_read() {
    let grey = |samples: usize, luma: usize, y: u8| {
        let mut planes = vec![128; samples];
        planes[..luma].fill(y);
        planes
    };
    for (fields, samples) in [
        ("C444", 45),
        ("C422", 33),
        ("C420mpeg2", 27),
        ("", 27),
        ("Cmono", 15),
    ] {
        for (range, y) in [(" XCOLORRANGE=FULL", 100), ("", 102)] {
            let header = format!("YUV4MPEG2 W5 H3 F24:1 {fields}{range}\n");
            let clip = y4m(&header, "FRAME Ip\n", &grey(samples, 15, y), 2);
            let frames = read_clip(&clip).expect("a readable clip");
            assert_eq!(frames.len(), 2);
            assert!(
                frames.iter().all(|frame| frame.rgb == [100; 45]),
                "{fields}{range}"
            );
        }
    }
}

#[test]
fn y4m_that_lies_is_refused() {
    let refused = |clip: &[u8]| refusal(read_clip(clip));
    let fine = y4m("YUV4MPEG2 W4 H2 F1:1\n", "FRAME\n", &[9; 12], 2);
    assert_eq!(crc32(&read_clip(&fine).expect("a readable clip")[1].rgb), {
        crc32(&read_clip(&fine).expect("a readable clip")[0].rgb)
    });
    for cut in 12..fine.len() {
        match refusal_or_none(&fine[..cut]) {
            // Behind the first frame it is a clip of one.
            None => assert_eq!(cut, 21 + 18),
            Some(MediaError::Truncated { .. } | MediaError::NoFrames) => {}
            Some(MediaError::Corrupt { .. }) => {}
            Some(other) => panic!("cut at {cut}: {other:?}"),
        }
    }
    assert!(matches!(
        refused(b"YUV4MPEG2 W99999 H99999 F1:1\nFRAME\n"),
        MediaError::TooLarge {
            what: Quantity::Width,
            have: 99_999,
            ..
        }
    ));
    let endless = [b"YUV4MPEG2 W4 H2 X".to_vec(), vec![b'a'; 5000]].concat();
    assert!(matches!(
        refused(&endless),
        MediaError::TooLarge {
            what: Quantity::HeaderBytes,
            ..
        }
    ));
    let odd = y4m("YUV4MPEG2 W4 H2 F1:1\n", "FRAMES\n", &[9; 12], 1);
    assert!(matches!(refused(&odd), MediaError::Corrupt { .. }));
}

fn refusal_or_none(clip: &[u8]) -> Option<MediaError> {
    read_clip(clip).err()
}

#[test]
fn pipes_are_refused() {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    writer
        .write_all(b"YUV4MPEG2 W4 H2\n")
        .expect("room for a line");
    let irregular = |refused: MediaError| {
        matches!(
            refused,
            MediaError::NotSupported(Unsupported::IrregularFile)
        )
    };
    let file = std::fs::File::from(OwnedFd::from(reader));
    assert!(irregular(refusal(mote_media::open(
        file,
        &Limits::default()
    ))));
    let file = std::fs::File::from(OwnedFd::from(writer));
    let spec = spec(16, 16, rate(1, 1));
    let created = mote_media::create(file, &spec, &Output::Y4m, &Limits::default());
    assert!(irregular(refusal(created)));
}
