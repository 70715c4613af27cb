//! GIF and PNG, there and back, and contact sheets.

mod common;

use std::io::{Read, Seek, SeekFrom};
use std::sync::{Arc, Mutex};

use common::{drawn, file_of, read_clip, read_frames, refusal};
use mote_media::{
    ClipFormat, ClipSpec, Frame, Limits, MediaError, Output, Quantity, Rational, SheetLayout,
    Unsupported, contact_sheet, encode_png,
};

fn rate(num: u64, den: u64) -> Rational {
    Rational::new(num, den).expect("a positive fraction")
}

fn spec(width: u32, height: u32, frame_rate: Rational) -> ClipSpec {
    ClipSpec {
        width,
        height,
        frame_rate,
        pixel_aspect: Rational::ONE,
    }
}

fn write_gif(frames: &[Frame], frame_rate: Rational) -> Vec<u8> {
    let mut file = tempfile::tempfile().expect("a temporary file");
    let spec = spec(frames[0].width, frames[0].height, frame_rate);
    let handle = file.try_clone().expect("a second handle");
    let mut writer = mote_media::create(handle, &spec, &Output::Gif, &Limits::default())
        .expect("valid settings");
    for frame in frames {
        writer.push(frame).expect("a fitting frame");
    }
    let written = writer.finish().expect("a complete clip");
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).expect("a seekable file");
    file.read_to_end(&mut bytes).expect("a readable file");
    assert_eq!(
        (written.bytes, written.frames),
        (bytes.len() as u64, frames.len() as u64)
    );
    bytes
}

#[test]
fn gif_of_few_colours_comes_back_unchanged() {
    let frames: Vec<Frame> = (0..7).map(|index| drawn(50, 31, index, 4)).collect();
    let bytes = write_gif(&frames, rate(20, 1));
    let clip = mote_media::open(file_of(&bytes), &Limits::default()).expect("a readable clip");
    let info = clip.info();
    assert_eq!(
        (info.width, info.height, info.frame_count),
        (50, 31, Some(7))
    );
    assert_eq!(
        (info.frame_rate, info.frame_rate_varies),
        (rate(20, 1), false)
    );
    assert_eq!(info.format, ClipFormat::Gif);
    assert_eq!(read_frames(clip).expect("readable frames"), frames);
}

#[test]
fn gif_of_many_colours_stays_close() {
    let frame = drawn(96, 64, 3, 256);
    let bytes = write_gif(std::slice::from_ref(&frame), rate(10, 1));
    let back = read_clip(&bytes).expect("a readable clip");
    let error: u64 = frame
        .rgb
        .iter()
        .zip(&back[0].rgb)
        .map(|(a, b)| u64::from(a.abs_diff(*b)))
        .sum();
    assert!(
        error / (frame.rgb.len() as u64) < 12,
        "mean error {}",
        error / frame.rgb.len() as u64
    );
}

/// 30 frames per second are delays of 3, 4 and 3 hundredths, which add up.
#[test]
fn gif_delays_keep_the_average_rate() {
    let frames: Vec<Frame> = (0..30).map(|index| drawn(8, 8, index, 2)).collect();
    let bytes = write_gif(&frames, rate(30, 1));
    let clip = mote_media::open(file_of(&bytes), &Limits::default()).expect("a readable clip");
    assert_eq!(
        (clip.info().frame_rate, clip.info().frame_rate_varies),
        (rate(30, 1), true)
    );
}

#[test]
fn gif_rates_above_what_viewers_show_are_refused() {
    let create = |rate| {
        let file = tempfile::tempfile().expect("a temporary file");
        mote_media::create(file, &spec(8, 8, rate), &Output::Gif, &Limits::default())
    };
    let refused = refusal(create(rate(60, 1)));
    assert!(matches!(
        refused,
        MediaError::TooLarge {
            what: Quantity::FrameRate,
            have: 60,
            limit: 50
        }
    ));
    assert!(create(rate(50, 1)).is_ok());
}

/// One 1-colour image block of the GIF below: position, size, disposal and palette index.
fn gif_block(position: (u8, u8), size: (u8, u8), disposal: u8, index: u8) -> Vec<u8> {
    let transparent = 3;
    let mut block = vec![0x21, 0xf9, 4, disposal << 2 | 1, 5, 0, transparent, 0];
    block.extend([0x2c, position.0, 0, position.1, 0, size.0, 0, size.1, 0, 0]);
    // 2-bit pixels as uncompressed 3-bit codes: a clear code (4) before each, an end code (5) at the end.
    let pixels = usize::from(size.0) * usize::from(size.1);
    let codes = std::iter::repeat_n([4, u32::from(index)], pixels)
        .flatten()
        .chain([5]);
    let bits: Vec<u32> = codes
        .flat_map(|code| [code & 1, code >> 1 & 1, code >> 2])
        .collect();
    let data: Vec<u8> = bits
        .chunks(8)
        .map(|bits| {
            bits.iter()
                .rev()
                .fold(0, |byte, bit| byte << 1 | *bit as u8)
        })
        .collect();
    block.extend([2, data.len() as u8]);
    block.extend(data);
    block.push(0);
    block
}

/// A 3 × 1 canvas with palette red, green, blue, and index 3 transparent.
fn gif_of(blocks: &[Vec<u8>]) -> Vec<u8> {
    let mut gif = b"GIF89a\x03\0\x01\0\x81\0\0".to_vec();
    gif.extend([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9]);
    gif.extend(blocks.concat());
    gif.push(0x3b);
    gif
}

#[test]
fn gif_frames_are_composited() {
    const RED: [u8; 3] = [255, 0, 0];
    const GREEN: [u8; 3] = [0, 255, 0];
    const BLUE: [u8; 3] = [0, 0, 255];
    const BLACK: [u8; 3] = [0, 0, 0];
    let (keep, background, previous) = (1, 2, 3);
    let gif = gif_of(&[
        gif_block((0, 0), (2, 1), keep, 0),
        gif_block((1, 0), (1, 1), previous, 1),
        gif_block((2, 0), (1, 1), background, 2),
        gif_block((0, 0), (1, 1), keep, 3),
        gif_block((2, 0), (9, 4), keep, 1),
    ]);
    let frames: Vec<Vec<u8>> = read_clip(&gif)
        .expect("a readable clip")
        .into_iter()
        .map(|frame| frame.rgb)
        .collect();
    let want = [
        [RED, RED, BLACK],
        [RED, GREEN, BLACK],
        [RED, RED, BLUE],
        [RED, RED, BLACK],
        [RED, RED, GREEN],
    ];
    assert_eq!(frames, want.map(|row| row.concat()));
}

#[test]
fn png_comes_back_unchanged() {
    let frame = drawn(37, 23, 5, 256);
    let png = encode_png(&frame).expect("a consistent frame");
    let clip = mote_media::open(file_of(&png), &Limits::default()).expect("a readable clip");
    assert_eq!(
        (clip.info().format, clip.info().frame_count),
        (ClipFormat::Png, Some(1))
    );
    assert_eq!(read_frames(clip).expect("readable frames"), [frame]);
}

#[test]
fn png_sequence_comes_back_unchanged() {
    let frames: Vec<Frame> = (0..4).map(|index| drawn(20, 12, index, 256)).collect();
    let files = Arc::new(Mutex::new(Vec::new()));
    let opened = Arc::clone(&files);
    let next_file = move |index| {
        let file = tempfile::tempfile()?;
        let mut files = opened.lock().expect("no test panics with the lock");
        assert_eq!(index, files.len() as u64);
        files.push(file.try_clone()?);
        Ok(file)
    };
    let spec = spec(20, 12, rate(24, 1));
    let mut writer = mote_media::create_png_sequence(next_file, &spec, &Limits::default())
        .expect("a valid size");
    for frame in &frames {
        writer.push(frame).expect("a fitting frame");
    }
    assert_eq!(writer.finish().expect("a complete clip").frames, 4);
    let files = std::mem::take(&mut *files.lock().expect("no test panics with the lock"));
    let clip = mote_media::open_png_sequence(files, rate(24, 1), &Limits::default())
        .expect("a readable clip");
    assert_eq!(
        (clip.info().frame_rate, clip.info().frame_count),
        (rate(24, 1), Some(4))
    );
    assert_eq!(read_frames(clip).expect("readable frames"), frames);
}

#[test]
fn png_sequence_must_be_of_one_size() {
    let png = |width| file_of(&encode_png(&Frame::black(width, 8)).expect("a consistent frame"));
    let open = |files| mote_media::open_png_sequence(files, rate(24, 1), &Limits::default());
    let clip = open(vec![png(8), png(9)]).expect("a readable first frame");
    assert!(matches!(
        refusal(read_frames(clip)),
        MediaError::NotSupported(Unsupported::SizeChange)
    ));
    assert!(matches!(refusal(open(Vec::new())), MediaError::NoFrames));
    let gif = file_of(&gif_of(&[gif_block((0, 0), (1, 1), 1, 0)]));
    assert!(matches!(
        refusal(open(vec![gif])),
        MediaError::NotSupported(Unsupported::Container)
    ));
}

#[test]
fn contact_sheet_places_frames_in_rows() {
    let colours = [
        [200, 0, 0],
        [0, 200, 0],
        [0, 0, 200],
        [50, 60, 70],
        [90, 80, 70],
    ];
    let frames = colours.map(|colour: [u8; 3]| Frame {
        width: 40,
        height: 20,
        rgb: colour.repeat(800),
    });
    let layout = SheetLayout {
        columns: 2,
        cell_width: 10,
        gap: 3,
    };
    let sheet = contact_sheet(&frames, &layout).expect("a sheet within the limits");
    assert_eq!((sheet.width, sheet.height), (3 + 13 * 2, 3 + 8 * 3));
    let pixel = |x: u32, y: u32| {
        let at = (y * sheet.width + x) as usize * 3;
        sheet.rgb[at..at + 3].to_vec()
    };
    for (index, colour) in (0..).zip(colours) {
        let (left, top) = (3 + index % 2 * 13, 3 + index / 2 * 8);
        assert_eq!(pixel(left, top), colour);
        assert_eq!(pixel(left + 9, top + 4), colour);
        assert_eq!(pixel(left - 1, top), [0, 0, 0]);
        assert_eq!(pixel(left + 10, top + 4), [0, 0, 0]);
    }
    assert_eq!(pixel(3 + 13, 3 + 16), [0, 0, 0]);
}

#[test]
fn contact_sheet_averages_what_it_shrinks_and_repeats_what_it_grows() {
    let chessboard = Frame {
        width: 2,
        height: 2,
        rgb: [[0; 3], [200; 3], [200; 3], [0; 3]].concat(),
    };
    let sheet = |cell_width| {
        let layout = SheetLayout {
            columns: 1,
            cell_width,
            gap: 0,
        };
        contact_sheet(std::slice::from_ref(&chessboard), &layout)
            .expect("a sheet within the limits")
    };
    assert_eq!(sheet(1).rgb, [100; 3]);
    assert_eq!(
        sheet(4).rgb[..12],
        [[0; 3], [0; 3], [200; 3], [200; 3]].concat()
    );
}

#[test]
fn contact_sheets_are_bounded() {
    let frames = [Frame::black(4, 4), Frame::black(4, 4)];
    let huge = SheetLayout {
        columns: 2,
        cell_width: u32::MAX,
        gap: u32::MAX,
    };
    assert!(matches!(
        refusal(contact_sheet(&frames, &huge)),
        MediaError::TooLarge { .. }
    ));
    assert!(matches!(
        refusal(contact_sheet(&[], &SheetLayout::default())),
        MediaError::NoFrames
    ));
    assert!(
        contact_sheet(
            &frames,
            &SheetLayout {
                columns: 0,
                cell_width: 0,
                gap: 0
            }
        )
        .is_ok()
    );
    let broken = Frame {
        rgb: Vec::new(),
        ..Frame::black(4, 4)
    };
    assert!(matches!(
        refusal(contact_sheet(&[broken], &SheetLayout::default())),
        MediaError::FrameSize { .. }
    ));
}
