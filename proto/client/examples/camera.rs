//! A camera loop: a model sees frames where the camera put them, at its own pace.
//!
//!     cargo run --release -p mote-client --example camera -- [MODEL [FRAMES]]
//!
//! A synthetic camera draws NV12 frames of 1280×720 into a ring of buffers that the daemon maps. Each is
//! named to the model (selfie-segmentation, unless another is named), which reads it there; its outputs are
//! written to a buffer as well. The program prints frames per second, how long a frame took, and what was
//! copied: nothing.
#![allow(clippy::print_stdout, reason = "a program that tells")]

use mote_client::{
    Buffer, Client, ClientError, FrameFormat, FramesPush, Output, Stream, TensorSpec, WorkOptions,
};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

const WIDTH: usize = 1280;
const HEIGHT: usize = 720;
/// Frames that the camera may be ahead.
const RING: usize = 3;
/// Tensors in a buffer begin at multiples of this.
const ALIGNMENT_BYTES: u64 = 64;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let model = args.next().unwrap_or_else(|| "selfie-segmentation".into());
    let frames: usize = args.next().map_or(Ok(200), |count| count.parse())?;
    let client = Client::connect_default("camera")?;
    let mut stream = client.open_stream(&model, &WorkOptions::default())?;
    let input = stream.inputs().first().ok_or("the model takes nothing")?;
    let input = input.name.clone();
    let results = Results::new(&mut stream)?;

    let (to_camera, empty) = channel();
    let (filled, from_camera) = channel();
    let bytes = FrameFormat::Nv12.dense_bytes(WIDTH as u32, HEIGHT as u32, 3);
    for _ in 0..RING {
        to_camera.send(stream.buffer(bytes)?)?;
    }
    let camera = std::thread::spawn(move || film(&empty, &filled, frames));

    let mut measured = Measured::default();
    let began = Instant::now();
    for buffer in from_camera {
        let frame = buffer.frame(&input, FrameFormat::Nv12, (WIDTH as u32, HEIGHT as u32));
        let pushed = Instant::now();
        let result = stream.push_frames(&FramesPush {
            frames: &[frame],
            outputs: &results.targets(),
            ..FramesPush::default()
        })?;
        measured.took.push(pushed.elapsed());
        measured.compute += Duration::from_micros(result.compute_us);
        measured.bytes_copied += result.bytes_copied;
        measured.bytes_converted += result.bytes_converted;
        // The camera has gone when it has drawn its last frame.
        let _ = to_camera.send(buffer);
    }
    let elapsed = began.elapsed();
    camera.join().map_err(|_| "the camera broke")?;
    measured.print(elapsed);
    let receipt = stream.close()?;
    println!("{} on {}", receipt.backend, receipt.device.name);
    Ok(())
}

/// Where outputs of a known size go.
struct Results {
    buffer: Buffer,
    places: Vec<(TensorSpec, u64, u64)>,
}

impl Results {
    fn new(stream: &mut Stream) -> Result<Self, ClientError> {
        let mut end = 0;
        let mut places = Vec::new();
        for spec in stream.outputs() {
            let shape: Option<Vec<u64>> = spec.shape.iter().copied().collect();
            let bytes = shape.and_then(|shape| spec.dtype.tensor_bytes(&shape));
            if let Some(bytes) = bytes.filter(|&bytes| bytes > 0) {
                places.push((spec.clone(), end, bytes));
                end = (end + bytes).next_multiple_of(ALIGNMENT_BYTES);
            }
        }
        Ok(Self {
            buffer: stream.buffer(end.max(1))?,
            places,
        })
    }

    fn targets(&self) -> Vec<Output<'_>> {
        let places = self.places.iter();
        let targets =
            places.map(|(spec, at, bytes)| Output::buffer(&spec.name, &self.buffer, *at, *bytes));
        targets.collect()
    }
}

/// Draws frames into buffers as they come back.
fn film(empty: &Receiver<Buffer>, filled: &Sender<Buffer>, frames: usize) {
    for number in 0..frames {
        let Ok(mut buffer) = empty.recv() else { return };
        buffer.with_slice_mut(|bytes| draw(number, bytes));
        if filled.send(buffer).is_err() {
            return;
        }
    }
}

/// A light square that goes its way over a darker ramp.
fn draw(number: usize, bytes: &mut [u8]) {
    let (luma, rest) = bytes.split_at_mut(WIDTH * HEIGHT);
    for (y, row) in luma.chunks_exact_mut(WIDTH).enumerate() {
        row.fill(40 + (y * 100 / HEIGHT) as u8);
    }
    let left = number * 8 % (WIDTH - 200);
    for row in luma.chunks_exact_mut(WIDTH).skip(260).take(200) {
        row[left..left + 200].fill(220);
    }
    let chroma = &mut rest[..WIDTH * HEIGHT / 2];
    let (pairs, _) = chroma.as_chunks_mut::<2>();
    pairs.fill([120, 140]);
}

#[derive(Default)]
struct Measured {
    took: Vec<Duration>,
    compute: Duration,
    bytes_copied: u64,
    bytes_converted: u64,
}

impl Measured {
    fn print(mut self, elapsed: Duration) {
        let frames = self.took.len().max(1);
        self.took.sort();
        let at = |part: usize| self.took.get((frames - 1) * part / 100).copied();
        let milliseconds = |time: Option<Duration>| time.unwrap_or_default().as_secs_f64() * 1e3;
        println!(
            "{frames} frames, {:.1} frames/s, {:.2} ms p50, {:.2} ms p99 ({:.2} ms in the library)",
            frames as f64 / elapsed.as_secs_f64(),
            milliseconds(at(50)),
            milliseconds(at(99)),
            milliseconds(Some(self.compute / frames as u32)),
        );
        println!(
            "bytes per frame: {} copied, {} converted",
            self.bytes_copied / frames as u64,
            self.bytes_converted / frames as u64
        );
    }
}
