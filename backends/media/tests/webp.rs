//! WebP, there and back, and as others write it.

mod common;

use common::{drawn, file_of, rate, read_clip, read_frames, refusal, spec, written};
use image_webp::{ColorType, WebPEncoder};
use mote_media::{ClipFormat, Frame, Limits, MediaError, Output, Quantity, Rational};

#[test]
fn clips_come_back_unchanged() {
    let mut frames: Vec<Frame> = (0..9).map(|index| drawn(51, 33, index, 256)).collect();
    frames.insert(4, frames[3].clone());
    let bytes = written(&Output::WebP, &spec(51, 33, rate(24, 1)), &frames);
    let clip = mote_media::open(file_of(&bytes), &Limits::default()).expect("a readable clip");
    let info = clip.info();
    assert_eq!((info.width, info.height), (51, 33));
    assert_eq!(
        (info.frame_count, info.format),
        (Some(10), ClipFormat::WebP)
    );
    assert_eq!(
        (info.frame_rate, info.frame_rate_varies),
        (rate(24, 1), false)
    );
    assert_eq!(read_frames(clip).expect("readable frames"), frames);
}

/// 60 frames of 200 × 200 pixels of which 16 × 16 move; the background is stored once.
#[test]
fn what_stays_is_stored_once() {
    let background = drawn(200, 200, 0, 256);
    let frames: Vec<Frame> = (0..60)
        .map(|index| {
            let mut frame = background.clone();
            for y in 90..106 {
                let at = (y * 200 + index * 3) * 3;
                frame.rgb[at..at + 48].fill(200);
            }
            frame
        })
        .collect();
    let spec = spec(200, 200, rate(10, 1));
    let first = written(&Output::WebP, &spec, &frames[..1]).len();
    let all = written(&Output::WebP, &spec, &frames);
    assert!(all.len() < first + 59 * 2000, "{} after {first}", all.len());
    assert_eq!(read_clip(&all).expect("a readable clip"), frames);
}

#[test]
fn rates_and_sizes_that_viewers_do_not_show_are_refused() {
    let create = |spec| {
        let file = tempfile::tempfile().expect("a temporary file");
        let limits = Limits {
            width_max: 20_000,
            ..Limits::default()
        };
        mote_media::create(file, &spec, &Output::WebP, &limits)
    };
    assert!(create(spec(8, 8, rate(90, 1))).is_ok());
    assert!(matches!(
        refusal(create(spec(8, 8, rate(91, 1)))),
        MediaError::TooLarge {
            what: Quantity::FrameRate,
            have: 91,
            ..
        }
    ));
    assert!(matches!(
        refusal(create(spec(16_385, 8, rate(1, 1)))),
        MediaError::TooLarge {
            what: Quantity::Width,
            have: 16_385,
            limit: 16_384
        }
    ));
    assert!(matches!(
        refusal(
            create(spec(8, 8, rate(10, 1)))
                .map(|writer| writer.finish())
                .and_then(|r| r)
        ),
        MediaError::NoFrames
    ));
}

fn chunk(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let mut chunk = name.to_vec();
    chunk.extend((content.len() as u32).to_le_bytes());
    chunk.extend_from_slice(content);
    chunk.resize(chunk.len().next_multiple_of(2), 0);
    chunk
}

fn riff(chunks: &[Vec<u8>]) -> Vec<u8> {
    let content = [b"WEBP".to_vec(), chunks.concat()].concat();
    chunk(b"RIFF", &content)
}

/// The `VP8L` chunk of pixels of one colour.
fn picture(width: u32, height: u32, rgba: [u8; 4]) -> Vec<u8> {
    let pixels = rgba.repeat((width * height) as usize);
    let mut file = Vec::new();
    WebPEncoder::new(&mut file)
        .encode(&pixels, width, height, ColorType::Rgba8)
        .expect("a valid picture");
    file.split_off(12)
}

/// A frame at `left`, 0.
fn frame(left: u8, width: u8, ms: u8, flags: u8, rgba: [u8; 4]) -> Vec<u8> {
    let mut content = vec![
        left / 2,
        0,
        0,
        0,
        0,
        0,
        width - 1,
        0,
        0,
        0,
        0,
        0,
        ms,
        0,
        0,
        flags,
    ];
    content.extend(picture(width.into(), 1, rgba));
    chunk(b"ANMF", &content)
}

/// A canvas of 4 × 1 pixels.
fn animation(frames: &[Vec<u8>]) -> Vec<u8> {
    let head = chunk(b"VP8X", &[0x12, 0, 0, 0, 3, 0, 0, 0, 0, 0]);
    let anim = chunk(b"ANIM", &[9, 9, 9, 9, 0, 0]);
    riff(&[vec![head, anim], frames.to_vec()].concat())
}

#[test]
fn frames_are_composited() {
    const KEEP: u8 = 0;
    const DISPOSE: u8 = 1;
    const REPLACE: u8 = 2;
    let clip = animation(&[
        frame(0, 4, 100, KEEP, [200, 0, 0, 255]),
        frame(0, 2, 100, KEEP, [0, 100, 0, 51]),
        frame(2, 2, 100, DISPOSE | REPLACE, [0, 0, 250, 51]),
        frame(0, 1, 100, KEEP, [7, 7, 7, 0]),
        frame(0, 1, 100, REPLACE, [7, 7, 7, 0]),
    ]);
    let frames: Vec<Vec<u8>> = read_clip(&clip)
        .expect("a readable clip")
        .into_iter()
        .map(|frame| frame.rgb)
        .collect();
    let (red, blend, blue, black) = ([200, 0, 0], [160, 20, 0], [0, 0, 50], [0, 0, 0]);
    let want = [
        [red, red, red, red],
        [blend, blend, red, red],
        [blend, blend, blue, blue],
        [blend, blend, black, black],
        [black, blend, black, black],
    ];
    assert_eq!(frames, want.map(|row| row.concat()));
}

#[test]
fn times_that_browsers_ignore_count_as_a_tenth_of_a_second() {
    let of = |ms: [u8; 3]| {
        let frames = ms.map(|ms| frame(0, 4, ms, 0, [1, 2, 3, 255]));
        let clip = mote_media::open(file_of(&animation(&frames)), &Limits::default())
            .expect("a readable clip");
        (clip.info().frame_rate, clip.info().frame_rate_varies)
    };
    assert_eq!(of([0, 10, 5]), (rate(10, 1), false));
    assert_eq!(of([40, 40, 40]), (rate(25, 1), false));
    assert!(of([40, 120, 40]).1);
}

#[test]
fn still_pictures_are_clips_of_one_frame() {
    let simple = riff(&[picture(5, 3, [10, 20, 30, 255])]);
    let head = chunk(b"VP8X", &[0x10, 0, 0, 0, 4, 0, 0, 2, 0, 0]);
    let extended = riff(&[
        head,
        chunk(b"ICCP", b"abc"),
        picture(5, 3, [100, 200, 50, 51]),
    ]);
    for (bytes, pixel) in [(simple, [10, 20, 30]), (extended, [20, 40, 10])] {
        let clip = mote_media::open(file_of(&bytes), &Limits::default()).expect("a readable clip");
        let info = clip.info();
        assert_eq!((info.width, info.height, info.frame_count), (5, 3, Some(1)));
        assert_eq!(info.frame_rate, Rational::ONE);
        let frames = read_frames(clip).expect("readable frames");
        assert_eq!(frames[0].rgb, pixel.repeat(15));
    }
}

#[test]
fn frames_and_pictures_that_do_not_fit_are_refused() {
    let fine = frame(2, 2, 40, 0, [1, 2, 3, 255]);
    let mut outside = fine.clone();
    outside[8] = 2;
    // The frame says one pixel less than its picture has.
    let mut lying = fine.clone();
    lying[14] = 0;
    for (bad, what) in [(outside, "ANMF"), (lying, "a picture")] {
        let refused = refusal(read_clip(&animation(&[fine.clone(), bad])));
        assert!(
            matches!(refused, MediaError::Corrupt { what: have, .. } if have == what),
            "{refused:?}"
        );
    }
    let refused = refusal(read_clip(&animation(&[])));
    assert!(matches!(refused, MediaError::NoFrames));
    let refused = refusal(read_clip(&riff(&[chunk(b"ANMF", &[0; 40])])));
    assert!(matches!(refused, MediaError::Corrupt { .. }));
}
