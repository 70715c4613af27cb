//! What frames cost: `cargo run --release -p mote-pipeline --example frames`.
//!
//! Medians over pushes of a model that computes nothing, in milliseconds, on one thread.
#![allow(clippy::print_stdout, reason = "a program that tells")]

#[path = "../tests/support/mod.rs"]
mod support;

use mote_api::{
    Buffer, DType, Filter, Fit, InputHint, Model, OutputHint, PictureLayout, Signature, Tensor,
    TensorError,
};
use mote_pipeline::{
    ColorMatrix, ColorRange, FrameFormat, FrameLayout, FrameSource, FrameTarget, FramesPush,
    NamedTensor, PipelineError, StreamSession, dense_bytes,
};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::{closure_model, spec};

const WIDTH: usize = 1280;
const HEIGHT: usize = 720;
/// How long one figure is measured.
const MEASURED_FOR: Duration = Duration::from_millis(700);
const FORMATS: [(&str, FrameFormat); 3] = [
    ("NV12", FrameFormat::Nv12),
    ("I420", FrameFormat::I420),
    ("RGB8", FrameFormat::Rgb8),
];

/// A model that takes `x` and gives nothing, or leaves `y`, of the same shape, as it is.
fn model(shape: [i64; 4], gives: bool) -> Arc<dyn Model> {
    let count = usize::from(gives);
    let signature = Signature {
        inputs: vec![spec("x", DType::F32, &shape)],
        outputs: vec![spec("y", DType::F32, &shape); count],
    };
    closure_model(signature, move |_| Ok(vec![None; count])).0
}

fn layout(format: FrameFormat) -> FrameLayout {
    FrameLayout {
        format,
        width: WIDTH,
        height: HEIGHT,
        planes: Vec::new(),
        matrix: ColorMatrix::Bt709,
        range: ColorRange::Limited,
    }
}

fn memory(format: FrameFormat) -> Result<Buffer, PipelineError> {
    let bytes = dense_bytes(format, WIDTH, HEIGHT, 3);
    let noise: Vec<u8> = (0..bytes).map(|at| (at * 7919 / 13) as u8).collect();
    let buffer = Buffer::private(bytes).map_err(TensorError::from)?;
    buffer.copy_in(0, &noise).map_err(TensorError::from)?;
    Ok(buffer)
}

fn median_ms(stream: &mut StreamSession, push: &FramesPush<'_>) -> Result<f64, PipelineError> {
    let mut took = Vec::new();
    let began = Instant::now();
    while began.elapsed() < MEASURED_FOR {
        let start = Instant::now();
        stream.push_frames(push)?;
        took.push(start.elapsed());
    }
    took.sort();
    Ok(took[took.len() / 2].as_secs_f64() * 1e3)
}

/// A frame into f32, of so many pixels each way or of its own size.
fn input(format: FrameFormat, side: Option<i64>, hint: &InputHint) -> Result<f64, PipelineError> {
    let (width, height) = side.map_or((WIDTH as i64, HEIGHT as i64), |side| (side, side));
    let shape = match hint.layout.is_planar() {
        true => [1, 3, height, width],
        false => [1, height, width, 3],
    };
    let stream = StreamSession::open(&model(shape, false), None)?;
    let mut stream = stream.with_pictures(std::slice::from_ref(hint), &[]);
    let frame = FrameSource {
        name: "x".into(),
        buffer: memory(format)?,
        layout: layout(format),
        size: None,
    };
    let push = FramesPush {
        frames: &[frame],
        ..FramesPush::default()
    };
    median_ms(&mut stream, &push)
}

/// f32 NCHW into a frame.
fn output(format: FrameFormat) -> Result<f64, PipelineError> {
    let shape = [1, 3, HEIGHT as i64, WIDTH as i64];
    let stream = StreamSession::open(&model(shape, true), None)?;
    let hint = OutputHint::plain("y", PictureLayout::Nchw);
    let mut stream = stream.with_pictures(&[], &[hint]);
    let tensor = NamedTensor {
        name: "x".into(),
        tensor: Tensor::zeroed(DType::F32, &[1, 3, HEIGHT, WIDTH])?,
    };
    let target = FrameTarget {
        name: "y".into(),
        buffer: memory(format)?,
        layout: layout(format),
    };
    let push = FramesPush {
        inputs: &[tensor],
        frame_outputs: &[target],
        ..FramesPush::default()
    };
    median_ms(&mut stream, &push)
}

fn main() -> Result<(), PipelineError> {
    let nchw = InputHint::plain("x", PictureLayout::Nchw);
    let nhwc = InputHint::plain("x", PictureLayout::Nhwc);
    let area = InputHint {
        filter: Filter::Area,
        ..nchw.clone()
    };
    let letterbox = InputHint {
        fit: Fit::Letterbox,
        ..nchw.clone()
    };
    println!("f32 of 1280×720   NCHW 256×256  area   letterbox  NHWC 256×256  same size");
    for (name, format) in FORMATS {
        println!(
            "{name:<17} {:<13.2} {:<6.2} {:<10.2} {:<13.2} {:.2}",
            input(format, Some(256), &nchw)?,
            input(format, Some(256), &area)?,
            input(format, Some(256), &letterbox)?,
            input(format, Some(256), &nhwc)?,
            input(format, None, &nchw)?,
        );
    }
    for (name, format) in FORMATS {
        println!("f32 NCHW 1280×720 to {name}: {:.2}", output(format)?);
    }
    Ok(())
}
