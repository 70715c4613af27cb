//! How fast and how small AV1 gets: a drawn clip at speeds 10, 8 and 6, with one thread.
//!
//! `speed [WIDTH HEIGHT FRAMES]`; without, 17 frames of 64 × 64 and 48 frames of 448 × 256.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::time::Instant;

use mote_media::{Av1Settings, ClipSpec, Frame, Limits, Output, Rational};

const SPEEDS: [u8; 3] = [10, 8, 6];

fn main() -> Result<(), Box<dyn Error>> {
    let numbers = std::env::args()
        .skip(1)
        .map(|arg| arg.parse())
        .collect::<Result<Vec<u32>, _>>()?;
    match numbers.as_slice() {
        [] => {
            measure(64, 64, 17)?;
            measure(448, 256, 48)
        }
        &[width, height, frames] => measure(width, height, frames),
        _ => Err("usage: speed [WIDTH HEIGHT FRAMES]".into()),
    }
}

fn measure(width: u32, height: u32, frames: u32) -> Result<(), Box<dyn Error>> {
    let frames: Vec<Frame> = (0..frames)
        .map(|index| draw(width, height, index))
        .collect();
    let spec = ClipSpec {
        width,
        height,
        frame_rate: Rational::new(24, 1).unwrap_or(Rational::ONE),
        pixel_aspect: Rational::ONE,
    };
    let path = std::env::temp_dir().join(format!("mote-media-speed-{}.mp4", std::process::id()));
    for (speed, low_latency) in SPEEDS.into_iter().flat_map(|s| [(s, false), (s, true)]) {
        let settings = Av1Settings {
            speed,
            low_latency,
            ..Av1Settings::default()
        };
        let limits = Limits::default();
        let start = Instant::now();
        let output = Output::Mp4Av1(settings);
        let mut writer = mote_media::create(File::create(&path)?, &spec, &output, &limits)?;
        for frame in &frames {
            writer.push(frame)?;
        }
        let bytes = writer.finish()?.bytes;
        let seconds = start.elapsed().as_secs_f64();
        let mut clip = mote_media::open(File::open(&path)?, &limits)?;
        let (mut squares, mut samples, start) = (0.0, 0, Instant::now());
        for frame in &frames {
            let back = clip.next_frame()?.ok_or("the clip is short")?;
            let pairs = frame.rgb.iter().zip(&back.rgb);
            squares += pairs
                .map(|(&a, &b)| f64::from(a.abs_diff(b)).powi(2))
                .sum::<f64>();
            samples += frame.rgb.len();
        }
        writeln!(
            std::io::stderr(),
            "{width}x{height}, {} frames, speed {speed}, low latency {low_latency}: {seconds:.2} s, {:.1} frames/s, \
             {bytes} bytes, {:.1} dB, read in {:.2} s",
            frames.len(),
            frames.len() as f64 / seconds,
            10.0 * (255.0 * 255.0 * samples as f64 / squares).log10(),
            start.elapsed().as_secs_f64()
        )?;
    }
    std::fs::remove_file(&path)?;
    Ok(())
}

/// Smooth shades that drift, and a bright square that crosses them.
fn draw(width: u32, height: u32, index: u32) -> Frame {
    let mut frame = Frame::black(width, height);
    let wave = |at: u32, length: f32| (127.0 + 100.0 * (at as f32 / length).sin()) as u8;
    for (at, pixel) in (0..).zip(frame.rgb.chunks_exact_mut(3)) {
        let (x, y) = (at % width, at / width);
        let is_square =
            x.abs_diff(index * 3 % width) < width / 8 && y.abs_diff(height / 2) < height / 8;
        pixel.copy_from_slice(&if is_square {
            [250, 220, 30]
        } else {
            [
                wave(x + index, 17.0),
                wave(y + x / 2, 23.0),
                wave(x + y + 2 * index, 31.0),
            ]
        });
    }
    frame
}
