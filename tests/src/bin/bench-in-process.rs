//! The same tiny graph as `mote bench ipc`, in this process: what a run costs without any daemon.
//!
//! The input lies in a memfd like a client's; one line per runtime that is there.

use anyhow::{Context, Result};
use mote_api::{
    Access, Buffer, DType, Flavour, LoadRequest, OutputTarget, Paths, TRACT_FLAVOUR, Tensor,
    Threads,
};
use mote_wire::Memfd;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

const SHAPE: [usize; 4] = [1, 3, 224, 224];
const BYTES: usize = 602_112;
const WARM_UP: usize = 20;
const REPETITIONS: usize = 1000;

fn main() -> Result<()> {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../daemon/cli/src/bench/reduce.onnx");
    let tract = (Flavour::tract("built in"), PathBuf::new());
    let mut flavours = vec![tract];
    for runtimes in Paths::from_env().runtimes {
        let folder = runtimes.join("onnxruntime-cpu");
        if let Ok(flavour) = Flavour::read(&folder) {
            flavours.push((flavour, folder));
        }
    }
    for (flavour, folder) in flavours {
        let (p50_us, p99_us) = measure(&flavour, &folder, &model)?;
        eprintln!(
            "in process, {:16} p50 {p50_us:6.1} µs, p99 {p99_us:6.1} µs",
            flavour.name
        );
    }
    Ok(())
}

fn measure(flavour: &Flavour, folder: &Path, model: &Path) -> Result<(f64, f64)> {
    let backend = mote_worker::registry::open(flavour, folder)?;
    let request = LoadRequest {
        file: model.to_path_buf(),
        provider: if flavour.name == TRACT_FLAVOUR {
            "tract-cpu"
        } else {
            ""
        }
        .into(),
        provider_options: Vec::new(),
        threads: Threads::SINGLE,
        forbid_cpu: false,
        ..LoadRequest::default()
    };
    let model = backend.load(&request)?;
    let mut session = model.session()?;
    let memfd = Memfd::create("bench", BYTES as u64).context("no shared memory")?;
    let memory = Buffer::shared(memfd.as_fd(), BYTES, Access::ReadWrite)?;
    let input = Tensor::new(DType::F32, &SHAPE, memory, 0)?;
    input.write(&vec![0.5f32; BYTES / 4])?;
    session.bind_input(0, &input)?;
    let output = Tensor::zeroed(DType::F32, &[1, 1, 1, 1])?;
    session.bind_output(0, OutputTarget::Into(output))?;
    let mut samples = Vec::with_capacity(REPETITIONS);
    for round in 0..REPETITIONS + WARM_UP {
        let started = Instant::now();
        session.run()?;
        if round >= WARM_UP {
            samples.push(started.elapsed().as_secs_f64() * 1e6);
        }
    }
    samples.sort_by(f64::total_cmp);
    Ok((samples[REPETITIONS / 2], samples[REPETITIONS * 99 / 100]))
}
