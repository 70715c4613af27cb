//! Frames from a client's buffers into models and back, with nothing copied.

use crate::{ONNXRUNTIME, TRACT, output, values};
use anyhow::{Context, Result};
use mote_client::{
    Buffer, Client, ClientError, ColorMatrix, ColorRange, DType, FrameFormat, FramePlane,
    FramesPush, Input, Output, Status, Stream, StreamResult, VideoFrame,
};
use mote_tests::daemon::{Daemon, Setup};
use mote_tests::npy::{max_difference, numbers};
use mote_tests::prepared;
use std::path::Path;

const WIDTH: usize = 1280;
const HEIGHT: usize = 720;
const SIZE: (u32, u32) = (WIDTH as u32, HEIGHT as u32);
const PIXELS: usize = WIDTH * HEIGHT;
const FLOATS_BYTES: u64 = 3 * 4 * PIXELS as u64;
const MEANS_BYTES: u64 = 3 * 4 * 45 * 80;
/// Colours in 32 bits here, in 64 bits there.
const COLOUR_TOLERANCE: f64 = 1e-5;
/// Frames of a test's camera loop.
const FRAMES: usize = 6;

/// A daemon with the model of `tests/models/frames` and those that were prepared.
fn daemon() -> Result<(Daemon, Client)> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/frames");
    let daemon = Daemon::start(&Setup {
        stores: vec![own, prepared("MOTE_TEST_MODELS")?],
        runtimes: vec![prepared("MOTE_RUNTIMES")?],
        choose: Some("ranked"),
        ..Setup::default()
    })?;
    let client = daemon.client()?;
    Ok((daemon, client))
}

/// A camera's picture: ramps of luma and chroma that move.
fn draw(number: usize, bytes: &mut [u8]) {
    let (luma, chroma) = bytes.split_at_mut(PIXELS);
    for (at, byte) in luma.iter_mut().enumerate() {
        *byte = (16 + (at % WIDTH / 6 + at / WIDTH + 20 * number) % 220) as u8;
    }
    for (at, byte) in chroma[..PIXELS / 2].iter_mut().enumerate() {
        *byte = (16 + (at % 7 * 30 + at / WIDTH * (1 + at % 2) + number) % 225) as u8;
    }
}

/// That picture as red, green and blue in 0..=1, a plane each, by BT.709 in the limited range.
fn colours(bytes: &[u8]) -> Vec<f64> {
    let (luma, chroma) = bytes.split_at(PIXELS);
    let mut planes = vec![0.0; 3 * PIXELS];
    for at in 0..PIXELS {
        let (x, y) = (at % WIDTH, at / WIDTH);
        let pair = y / 2 * WIDTH + x / 2 * 2;
        let of = |byte: u8| (f64::from(byte) - 128.0) / 224.0;
        let (cb, cr) = (of(chroma[pair]), of(chroma[pair + 1]));
        let luma = (f64::from(luma[at]) - 16.0) / 219.0;
        let pixel = [
            luma + 1.5748 * cr,
            luma - 0.2126 * 1.5748 / 0.7152 * cr - 0.0722 * 1.8556 / 0.7152 * cb,
            luma + 1.8556 * cb,
        ];
        for (channel, value) in pixel.into_iter().enumerate() {
            planes[channel * PIXELS + at] = value.clamp(0.0, 1.0);
        }
    }
    planes
}

fn camera(buffer: &Buffer) -> VideoFrame {
    VideoFrame {
        matrix: ColorMatrix::Bt709,
        ..buffer.frame("x", FrameFormat::Nv12, SIZE)
    }
}

fn little_endian(values: &[f64]) -> Vec<u8> {
    let bytes = values.iter().map(|&value| (value as f32).to_le_bytes());
    bytes.flatten().collect()
}

fn means_of(memory: &mut Buffer) -> Vec<f64> {
    let bytes = MEANS_BYTES as usize;
    memory.with_slice(|content| numbers(DType::F32, &content[..bytes]))
}

/// Pushes one frame; the means go to `memory` and the halves to `half`.
fn push(
    stream: &mut Stream,
    frame: VideoFrame,
    (memory, half): (&Buffer, &VideoFrame),
) -> Result<StreamResult, ClientError> {
    stream.push_frames(&FramesPush {
        frames: &[frame],
        outputs: &[Output::buffer("means", memory, 0, MEANS_BYTES)],
        frame_outputs: std::slice::from_ref(half),
        ..FramesPush::default()
    })
}

#[test]
fn a_camera_loop_at_1280_by_720_copies_nothing() -> Result<()> {
    let (_daemon, client) = daemon()?;
    for place in [ONNXRUNTIME, TRACT] {
        let options = place.required();
        let mut stream = client.open_stream("halve", &options)?;
        let mut memory = stream.buffer(MEANS_BYTES)?;
        let half = stream.buffer(FLOATS_BYTES)?;
        let half = half.frame("half", FrameFormat::F32Nchw, SIZE);
        let mut ring = Vec::new();
        for _ in 0..3 {
            ring.push(stream.buffer(PIXELS as u64 * 3 / 2)?);
        }
        for number in 0..FRAMES {
            let buffer = &mut ring[number % 3];
            buffer.with_slice_mut(|bytes| draw(number, bytes));
            let result = push(&mut stream, camera(buffer), (&memory, &half))?;
            // tract keeps its tensors to itself, and says so.
            let copied = result.bytes_copied;
            assert_eq!(
                copied > 0,
                place.backend == TRACT.backend,
                "{number}: {copied}"
            );
            assert_eq!(result.bytes_converted, FLOATS_BYTES, "frame {number}");
            // The same model fed with the tensor that the frame should have become.
            let wanted = buffer.with_slice(colours);
            let bytes = little_endian(&wanted);
            let input = Input::bytes("x", DType::F32, &[1, 3, 720, 1280], &bytes);
            let plain = client.infer("halve", &[input], &[], &options)?;
            let means = values(output(&plain.outputs, "means")?)?;
            let difference = max_difference(&means_of(&mut memory), &means);
            assert!(difference <= COLOUR_TOLERANCE, "{number}: {difference}");
        }
        let receipt = stream.close()?;
        place.check("halve", &receipt);
        assert_eq!(receipt.bytes_copied > 0, place.backend == TRACT.backend);
        assert_eq!(receipt.bytes_converted, FRAMES as u64 * FLOATS_BYTES);
    }
    Ok(())
}

#[test]
fn frames_that_are_tensors_already_are_bound_and_neither_copied_nor_converted() -> Result<()> {
    let (_daemon, client) = daemon()?;
    let options = ONNXRUNTIME.required();
    let mut stream = client.open_stream("halve", &options)?;
    let mut memory = stream.buffer(MEANS_BYTES)?;
    let mut floats = stream.buffer(FLOATS_BYTES)?;
    let mut halves = stream.buffer(FLOATS_BYTES)?;
    for number in 0..FRAMES {
        let mut picture = vec![0; PIXELS * 3 / 2];
        draw(number, &mut picture);
        let wanted = colours(&picture);
        floats.copy_in(0, &little_endian(&wanted))?;
        let frame = floats.frame("x", FrameFormat::F32Nchw, SIZE);
        let half = halves.frame("half", FrameFormat::F32Nchw, SIZE);
        let result = push(&mut stream, frame, (&memory, &half))?;
        assert_eq!((result.bytes_copied, result.bytes_converted), (0, 0));
        let have = halves.with_slice(|content| numbers(DType::F32, content));
        let half: Vec<f64> = wanted.iter().map(|value| value / 2.0).collect();
        let difference = max_difference(&have, &half);
        assert!(difference <= COLOUR_TOLERANCE, "{number}: {difference}");
        // Of the same tensor, sent as one.
        let bytes = little_endian(&wanted);
        let input = Input::bytes("x", DType::F32, &[1, 3, 720, 1280], &bytes);
        let plain = client.infer("halve", &[input], &[], &options)?;
        let means = values(output(&plain.outputs, "means")?)?;
        assert_eq!(means_of(&mut memory), means, "{number}");
    }
    let receipt = stream.close()?;
    assert_eq!((receipt.bytes_copied, receipt.bytes_converted), (0, 0));
    Ok(())
}

#[test]
fn an_output_is_written_as_a_frame_where_the_client_wants_it() -> Result<()> {
    let (_daemon, client) = daemon()?;
    let mut stream = client.open_stream("halve", &ONNXRUNTIME.required())?;
    let memory = stream.buffer(MEANS_BYTES)?;
    let mut buffer = stream.buffer(PIXELS as u64 * 3)?;
    buffer.with_slice_mut(|bytes| bytes.fill(200));
    // Rows with gaps, and RGBA in, I420 out.
    let gap = 64;
    let stride = 4 * WIDTH as u64 + gap;
    let mut rgba = stream.buffer(stride * HEIGHT as u64)?;
    rgba.with_slice_mut(|bytes| {
        for row in bytes.chunks_exact_mut(stride as usize) {
            row[..4 * WIDTH]
                .as_chunks_mut::<4>()
                .0
                .fill([200, 200, 200, 9]);
        }
    });
    let from = VideoFrame {
        planes: vec![FramePlane { offset: 0, stride }],
        ..rgba.frame("x", FrameFormat::Rgba8, SIZE)
    };
    let to = VideoFrame {
        range: Some(ColorRange::Full),
        ..buffer.frame("half", FrameFormat::I420, SIZE)
    };
    let result = push(&mut stream, from.clone(), (&memory, &to))?;
    assert!(result.outputs.iter().all(|output| output.name == "means"));
    assert_eq!(result.bytes_copied, 0);
    assert_eq!(result.bytes_converted, FLOATS_BYTES + PIXELS as u64 * 3 / 2);
    buffer.with_slice(|bytes| {
        assert!(bytes[..PIXELS].iter().all(|&luma| luma == 100));
        let chroma = &bytes[PIXELS..PIXELS * 3 / 2];
        assert!(chroma.iter().all(|&chroma| chroma == 128));
        assert!(bytes[PIXELS * 3 / 2..].iter().all(|&byte| byte == 200));
    });
    let packed = buffer.frame("half", FrameFormat::Bgr8, SIZE);
    push(&mut stream, from, (&memory, &packed))?;
    assert!(buffer.with_slice(|bytes| bytes.iter().all(|&byte| byte == 100)));
    Ok(())
}

#[test]
fn frames_that_do_not_hold_are_refused_by_field_and_the_stream_goes_on() -> Result<()> {
    let (_daemon, client) = daemon()?;
    let mut stream = client.open_stream("halve", &ONNXRUNTIME.required())?;
    let memory = stream.buffer(MEANS_BYTES)?;
    let buffer = stream.buffer(PIXELS as u64 * 3 / 2)?;
    let target = stream.buffer(FLOATS_BYTES)?;
    let half = target.frame("half", FrameFormat::F32Nchw, SIZE);
    let good = camera(&buffer);
    let with = |change: &dyn Fn(&mut VideoFrame)| {
        let mut frame = good.clone();
        change(&mut frame);
        frame
    };
    for (frame, wanted) in [
        (with(&|it| it.name = "y".into()), "frames[y].name"),
        (with(&|it| it.buffer += 1000), "frames[x].buffer"),
        (with(&|it| it.width = 0), "frames[0].width"),
        (with(&|it| it.height = 16_385), "frames[0].height"),
        (with(&|it| it.height = 721), "frames[x].height"),
        (
            with(&|it| (it.width, it.height) = (16_384, 16_384)),
            "frames[x].height",
        ),
        (with(&|it| it.height = 1000), "frames[x].planes[1].stride"),
        (
            with(&|it| it.tensor_size = Some((640, 360))),
            "frames[x].tensor_width",
        ),
        (
            with(&|it| {
                it.planes = vec![
                    FramePlane {
                        offset: u64::MAX,
                        stride: 1280,
                    };
                    2
                ];
            }),
            "frames[x].planes[0].offset",
        ),
    ] {
        let refused = push(&mut stream, frame, (&memory, &half));
        match refused.expect_err("it must be refused") {
            ClientError::Refused(Status::Invalid { field, .. }) => assert_eq!(field, wanted),
            other => panic!("{wanted}: {other:?}"),
        }
    }
    let twice = FramesPush {
        frames: &[good.clone(), good.clone()],
        ..FramesPush::default()
    };
    let refused = stream.push_frames(&twice).expect_err("it is there twice");
    assert!(refused.to_string().contains("frames[1].name"), "{refused}");
    push(&mut stream, good, (&memory, &half))?;
    assert_eq!(stream.close()?.steps, 1);
    Ok(())
}

#[test]
fn a_person_is_cut_out_of_camera_frames_with_nothing_copied() -> Result<()> {
    let (_daemon, client) = daemon()?;
    let options = crate::XNNPACK.required();
    let mut stream = client.open_stream("selfie-segmentation", &options)?;
    let mut buffer = stream.buffer(PIXELS as u64 * 3 / 2)?;
    let shape = [1, 256, 256, 1];
    let mut mask = stream.buffer(4 * 256 * 256)?;
    for number in 0..FRAMES {
        buffer.with_slice_mut(|bytes| draw(number, bytes));
        let result = stream.push_frames(&FramesPush {
            frames: &[buffer.frame("input_1", FrameFormat::Nv12, SIZE)],
            outputs: &[Output::buffer("activation_10", &mask, 0, mask.bytes()).shape(&shape)],
            ..FramesPush::default()
        })?;
        assert_eq!(result.bytes_copied, 0, "frame {number}");
        assert_eq!(result.bytes_converted, 3 * 4 * 256 * 256);
        let chances = mask.with_slice(|content| numbers(DType::F32, content));
        assert!(chances.iter().all(|chance| (0.0..=1.0).contains(chance)));
        // A drawn gradient holds nobody; what was there before is not a mask of it either.
        assert!(chances.iter().any(|chance| *chance > 0.0), "frame {number}");
        mask.with_slice_mut(|content| content.fill(0));
    }
    let receipt = stream.close()?;
    assert_eq!(receipt.steps, FRAMES as u64);
    assert_eq!(receipt.bytes_copied, 0);
    Ok(())
}

#[test]
fn an_interpolator_takes_frames_as_well() -> Result<()> {
    let (_daemon, client) = daemon()?;
    let mut stream = client.open_stream("rife", &ONNXRUNTIME.required())?;
    let mut buffer = stream.buffer(64 * 48 * 3)?;
    let size = (64, 48);
    for (number, count) in [(0u8, 1), (1, 2)] {
        buffer.with_slice_mut(|bytes| bytes.fill(100 + number));
        let frame = buffer.frame("frame", FrameFormat::Rgb8, size);
        let result = stream.push_frames(&FramesPush {
            frames: &[frame],
            ..FramesPush::default()
        })?;
        let frames = output(&result.outputs, "frames")?;
        assert_eq!(frames.shape, [count, 48, 64, 3]);
        let bytes = frames.bytes().context("told, not written")?;
        let last = &bytes[bytes.len() - 64 * 48 * 3..];
        assert!(last.iter().all(|&byte| byte == 100 + number));
        assert_eq!(result.bytes_converted, 64 * 48 * 3);
    }
    Ok(())
}
