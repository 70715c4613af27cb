//! Real restorers over clips, beside what onnxruntime computes in a plain loop in Python
//! (`tests/models/restore/streams.py`).

use crate::backend;
use mote_api::{Backend, LoadRequest, Manifest, Model, RestorationSpec, Threads};
use mote_pipeline::{FrameFilter, Planes, PlanesStep, RestorationOptions, Restorer, Rgb};
use safetensors::SafeTensors;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Difference allowed between values in 0..=1.
const ERROR_MAX: f32 = 1e-3;
/// Says that this process is there for one test alone.
const CHILD_VARIABLE: &str = "MOTE_TEST_RESTORATION_CHILD";
/// Goldens hold every third pixel of rows and columns, from the second on.
const SAMPLED: usize = 3;

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models/restore")
}

/// A model's folder: checked in, or made by `fetch.py`.
fn open(folder: &Path) -> (Arc<dyn Model>, RestorationSpec) {
    let manifest = Manifest::read(folder).expect("a good manifest; run the tests with tests/run");
    let request = LoadRequest {
        file: folder.join(&manifest.variants[0].file),
        threads: Threads::SINGLE,
        ..LoadRequest::default()
    };
    let model = backend().load(&request).expect("the model loads");
    (model, manifest.restoration.expect("a restorer"))
}

fn animesr() -> (Arc<dyn Model>, RestorationSpec) {
    open(&here().join("animesr"))
}

fn basicvsr() -> (Arc<dyn Model>, RestorationSpec) {
    let store = std::env::var_os("MOTE_TEST_MODELS").expect("run the tests with tests/run");
    open(&Path::new(&store).join("basicvsr"))
}

struct Golden {
    frames: Vec<Rgb>,
    /// `[frames, 3, rows, columns]`.
    sampled: Vec<f32>,
}

impl Golden {
    fn read(name: &str) -> Self {
        let bytes = std::fs::read(here().join(name)).expect("it is in git");
        let file = SafeTensors::deserialize(&bytes).expect("it parses");
        let frames = file.tensor("frames").expect("it is there");
        let (height, width) = (frames.shape()[1], frames.shape()[2]);
        let of_frame = |rgb8: &[u8]| Rgb {
            width,
            height,
            rgb8: rgb8.to_vec(),
        };
        let sampled = file.tensor("sampled").expect("it is there");
        let values = sampled.data().chunks_exact(4);
        Self {
            frames: frames
                .data()
                .chunks_exact(width * height * 3)
                .map(of_frame)
                .collect(),
            sampled: values
                .map(|word| f32::from_le_bytes(word.try_into().expect("four bytes")))
                .collect(),
        }
    }
}

fn all(restorer: &mut Restorer, frames: &[Rgb]) -> Vec<Planes> {
    let (mut next, mut out) = (frames.iter(), Vec::new());
    loop {
        match restorer.step_planes().expect("runs") {
            PlanesStep::NeedsFrame => match next.next() {
                Some(frame) => restorer.push(frame.clone()).expect("fits"),
                None => restorer.end(),
            },
            PlanesStep::Working { .. } => {}
            PlanesStep::Frame(planes) => out.push(planes),
            PlanesStep::Ended => return out,
        }
    }
}

fn sampled(planes: &Planes) -> Vec<f32> {
    let rows = planes.values.chunks_exact(planes.width).enumerate();
    let rows = rows.filter(|(row, _)| row % planes.height % SAMPLED == 1);
    rows.flat_map(|(_, row)| row.iter().copied().skip(1).step_by(SAMPLED))
        .collect()
}

fn assert_equal(made: &[Planes], golden: &Golden) {
    assert_eq!(made.len(), golden.frames.len());
    let have: Vec<f32> = made.iter().flat_map(sampled).collect();
    assert_eq!(have.len(), golden.sampled.len());
    let differences = have.iter().zip(&golden.sampled).map(|(a, b)| (a - b).abs());
    let worst = differences.fold(0.0, f32::max);
    eprintln!("{} frames, largest difference {worst:.1e}", made.len());
    assert!(worst <= ERROR_MAX, "{worst}");
}

#[test]
fn animesr_over_a_stream_gives_what_a_plain_loop_gives() {
    let (model, spec) = animesr();
    let golden = Golden::read("animesr.safetensors");
    let mut restorer =
        Restorer::open(&model, &spec, &RestorationOptions::default()).expect("opens");
    let made = all(&mut restorer, &golden.frames);
    assert_equal(&made, &golden);
    assert_eq!(restorer.steps(), golden.frames.len() as u64);
}

#[test]
fn basicvsr_over_windows_gives_what_a_plain_loop_gives() {
    let (model, spec) = basicvsr();
    let golden = Golden::read("basicvsr.safetensors");
    let mut restorer =
        Restorer::open(&model, &spec, &RestorationOptions::default()).expect("opens");
    let made = all(&mut restorer, &golden.frames);
    assert_equal(&made, &golden);
    // 12 frames in windows of 5 that have 2 in common: 0, 3, 6, and 7 for the last.
    assert_eq!(restorer.steps(), 4);
}

/// A wave that moves, too large for one tile of 96.
fn waves(count: usize, width: usize, height: usize) -> Vec<Rgb> {
    let frame = |t: usize| Rgb {
        width,
        height,
        rgb8: (0..width * height * 3)
            .map(|at| {
                let (x, y, c) = (at / 3 % width, at / 3 / width, at % 3);
                let phase = (x as f32 + 1.3 * t as f32) / (5.0 + c as f32) + y as f32 / 9.0;
                (127.0 + 100.0 * phase.sin()).round() as u8
            })
            .collect(),
    };
    (0..count).map(frame).collect()
}

#[test]
fn animesr_in_tiles_shows_no_seams() {
    let (model, spec) = animesr();
    let frames = waves(4, 136, 40);
    let with = |tile_side_max| {
        let options = RestorationOptions {
            tile_side_max,
            ..RestorationOptions::default()
        };
        let mut restorer = Restorer::open(&model, &spec, &options).expect("opens");
        let out = all(&mut restorer, &frames);
        (out, restorer.tiling().expect("frames").tiles())
    };
    let ((whole, one), (tiled, more)) = (with(None), with(Some(112)));
    assert_eq!((one, more), (1, 2));
    for (at, (whole, tiled)) in whole.iter().zip(&tiled).enumerate() {
        let pairs = whole.values.iter().zip(&tiled.values);
        let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        eprintln!("frame {at}: largest difference {worst:.1e}");
        // Half of what 8 bits can tell.
        assert!(worst <= 0.5 / 255.0, "frame {at}: {worst}");
    }
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .expect("a line");
    let kib: u64 = line
        .split_whitespace()
        .nth(1)
        .expect("a number")
        .parse()
        .expect("a number");
    kib << 10
}

#[test]
fn a_stream_of_a_hundred_frames_takes_no_more_memory_than_one_of_twenty() {
    const GROWTH_MAX: u64 = 2 << 20;
    // In a process of its own: other tests take memory, too.
    if std::env::var_os(CHILD_VARIABLE).is_none() {
        let name =
            "restoration::a_stream_of_a_hundred_frames_takes_no_more_memory_than_one_of_twenty";
        let program = std::env::current_exe().expect("this program");
        let mut child = std::process::Command::new(program);
        let status = child
            .args(["--exact", name, "--nocapture"])
            .env(CHILD_VARIABLE, "1")
            .status();
        assert!(status.expect("starts").success());
        return;
    }
    let (model, spec) = animesr();
    let mut restorer =
        Restorer::open(&model, &spec, &RestorationOptions::default()).expect("opens");
    let frames = waves(10, 32, 24);
    let (mut pushed, mut given, mut early) = (0, 0, 0);
    loop {
        match restorer.step_planes().expect("runs") {
            PlanesStep::NeedsFrame if pushed == 100 => restorer.end(),
            PlanesStep::NeedsFrame => {
                restorer.push(frames[pushed % 10].clone()).expect("fits");
                pushed += 1;
            }
            PlanesStep::Working { .. } => {}
            PlanesStep::Frame(_) => {
                given += 1;
                if given == 20 {
                    early = resident_bytes();
                }
            }
            PlanesStep::Ended => break,
        }
    }
    let late = resident_bytes();
    eprintln!("{early} bytes after 20 frames, {late} after {given}");
    assert_eq!(given, 100);
    // A frame takes 39 kB as it goes in and out, 80 of them 3 MB.
    assert!(late < early + GROWTH_MAX, "{early} to {late}");
}
