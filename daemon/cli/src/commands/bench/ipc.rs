//! What crossing process borders costs: streams and jobs through the daemon beside bare sockets.

use crate::bench::floor;
use crate::bench::placement::{Arrangement, Seats};
use crate::bench::stats::{Samples, Summary};
use crate::bench::{REDUCE_BYTES, REDUCE_MODEL, REDUCE_SHAPE};
use crate::daemon::Daemon;
use crate::interrupt;
use crate::ui::Ui;
use anyhow::{Context, Result};
use mote_client::{Client, Input};
use mote_wire::types::{DType, WorkOptions};
use serde::Serialize;
use std::path::Path as File;
use std::time::{Duration, Instant};

const WARM_UP: u32 = 20;
/// Turns that paths and floors take.
const TURNS: u32 = 10;
const MODEL: &str = "reduce";

/// Figures of one arrangement of processes.
#[derive(Serialize)]
pub struct Ipc {
    arrangement: Arrangement,
    input_bytes: usize,
    floor_one_hop: Summary,
    floor_two_hops: Summary,
    stream: Path,
    job: Path,
}

#[derive(Default, Serialize)]
struct Path {
    backend: String,
    round_trip: Summary,
    in_library: Summary,
    /// Round trip less time in the library, request by request.
    overhead: Summary,
    /// Overhead over the floor of as many hops, medians.
    ratio_to_floor: f64,
    bytes_copied: u64,
}

/// Measures every arrangement that this machine has processors for.
pub fn measure(repetitions: u32, ui: &Ui) -> Result<Vec<Ipc>> {
    let store = tempfile::tempdir().context("cannot create a folder")?;
    std::fs::write(store.path().join(format!("{MODEL}.onnx")), REDUCE_MODEL)?;
    let mut found = Vec::new();
    for arrangement in [Arrangement::Together, Arrangement::Apart, Arrangement::Free] {
        match Seats::of(arrangement)? {
            Some(seats) => found.push(arranged(
                arrangement,
                &seats,
                store.path(),
                repetitions,
                ui,
            )?),
            None => ui.note("one processor: no processes sit apart".to_owned()),
        }
    }
    Ok(found)
}

/// In turns, with new processes each time, as the kernel leaves processes where they began.
fn arranged(
    arrangement: Arrangement,
    seats: &Seats,
    store: &File,
    repetitions: u32,
    ui: &Ui,
) -> Result<Ipc> {
    let each = repetitions.div_ceil(TURNS);
    let (mut one_hop, mut two_hops) = (Samples::default(), Samples::default());
    let (mut stream, mut job) = (Measured::default(), Measured::default());
    let bar = ui.count_bar("streams, jobs and bare sockets", u64::from(TURNS));
    for _ in 0..TURNS {
        let (one, two) = floor::measure(REDUCE_BYTES, each, seats)?;
        one_hop.extend(one);
        two_hops.extend(two);
        let daemon = Daemon::private_with_store(store)?;
        stream.extend(stream_path(&daemon, each, seats)?);
        job.extend(job_path(&daemon, each, seats)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let (floor_one_hop, floor_two_hops) = (one_hop.summary(), two_hops.summary());
    Ok(Ipc {
        arrangement,
        input_bytes: REDUCE_BYTES,
        stream: stream.path(&floor_one_hop),
        job: job.path(&floor_two_hops),
        floor_one_hop,
        floor_two_hops,
    })
}

fn shape() -> [u64; 4] {
    REDUCE_SHAPE.map(|dim| dim as u64)
}

/// One thread, as the graph is too small to be shared: a second one would have to be woken within the
/// run, on a processor that another process of the chain may sit on.
fn options() -> WorkOptions {
    WorkOptions {
        threads_max: None,
        ..WorkOptions::default()
    }
}

/// Seats the workers of a daemon `link` links behind this thread.
fn seat_workers(client: &Client, seats: &Seats, link: usize) -> Result<()> {
    for worker in client.status()?.workers {
        seats.assign(u32::try_from(worker.pid)?, link)?;
    }
    Ok(())
}

fn stream_path(daemon: &Daemon, repetitions: u32, seats: &Seats) -> Result<Measured> {
    let mut stream = daemon.client.open_stream(MODEL, &options())?;
    let mut buffer = stream.buffer(REDUCE_BYTES as u64)?;
    buffer.with_slice_mut(|bytes| bytes.fill(0x3f));
    let mut measured = Measured::default();
    let seated = seats.take()?;
    seat_workers(&daemon.client, seats, 1)?;
    for round in 0..repetitions + WARM_UP {
        interrupt::check()?;
        let shape = shape();
        let input = Input::buffer("x", DType::F32, &shape, &buffer);
        let started = Instant::now();
        let result = stream.push(&[input], &[])?;
        let elapsed = started.elapsed();
        measured.push(round, elapsed, result.compute_us, result.bytes_copied);
    }
    drop(seated);
    measured.backend = stream.close()?.backend;
    Ok(measured)
}

fn job_path(daemon: &Daemon, repetitions: u32, seats: &Seats) -> Result<Measured> {
    let client = &daemon.client;
    let mut buffer = client.buffer(REDUCE_BYTES as u64)?;
    buffer.with_slice_mut(|bytes| bytes.fill(0x3f));
    let mut measured = Measured::default();
    let broker = daemon.private_pid().context("the daemon is private")?;
    let _seated = seats.take()?;
    seats.assign(broker, 1)?;
    seat_workers(client, seats, 2)?;
    let options = options();
    for round in 0..repetitions + WARM_UP {
        interrupt::check()?;
        let shape = shape();
        let input = Input::buffer("x", DType::F32, &shape, &buffer);
        let started = Instant::now();
        let result = client.infer(MODEL, &[input], &[], &options)?;
        let elapsed = started.elapsed();
        let receipt = result.done.receipt;
        measured.push(round, elapsed, receipt.compute_us, receipt.bytes_copied);
        measured.backend = receipt.backend;
    }
    Ok(measured)
}

#[derive(Default)]
struct Measured {
    backend: String,
    round_trip: Samples,
    in_library: Samples,
    overhead: Samples,
    bytes_copied: u64,
}

impl Measured {
    fn push(&mut self, round: u32, elapsed: Duration, compute_us: u64, bytes_copied: u64) {
        if round < WARM_UP {
            return;
        }
        let compute_us = compute_us as f64;
        self.round_trip.push(elapsed);
        self.in_library.push_us(compute_us);
        self.overhead
            .push_us(elapsed.as_secs_f64() * 1e6 - compute_us);
        self.bytes_copied = bytes_copied;
    }

    fn extend(&mut self, other: Self) {
        self.backend = other.backend;
        self.round_trip.extend(other.round_trip);
        self.in_library.extend(other.in_library);
        self.overhead.extend(other.overhead);
        self.bytes_copied = other.bytes_copied;
    }

    fn path(&self, floor: &Summary) -> Path {
        let overhead = self.overhead.summary();
        Path {
            backend: self.backend.clone(),
            round_trip: self.round_trip.summary(),
            in_library: self.in_library.summary(),
            overhead,
            ratio_to_floor: overhead.p50_us / floor.p50_us,
            bytes_copied: self.bytes_copied,
        }
    }
}

/// For people.
pub fn text(ipc: &Ipc) -> String {
    let place = match ipc.arrangement {
        Arrangement::Together => "all on one processor",
        Arrangement::Apart => "neighbours on different processors",
        Arrangement::Free => "wherever the kernel puts them",
    };
    let floor = |name: &str, floor: &Summary| {
        format!(
            "  floor, {name:9} {:8.0} {:8.0}",
            floor.p50_us, floor.p99_us
        )
    };
    let path = |name: &str, path: &Path| {
        format!(
            "  {name:16} {:8.0} {:8.0}   library {:.0}, overhead {:.0} = {:.2} × floor, {} bytes copied ({})",
            path.round_trip.p50_us,
            path.round_trip.p99_us,
            path.in_library.p50_us,
            path.overhead.p50_us,
            path.ratio_to_floor,
            path.bytes_copied,
            path.backend
        )
    };
    let lines = [
        format!(
            "{} bytes in a registered buffer, processes {place}, µs:",
            ipc.input_bytes
        ),
        format!("{:27}p50      p99", ""),
        floor("one hop", &ipc.floor_one_hop),
        path("stream", &ipc.stream),
        floor("two hops", &ipc.floor_two_hops),
        path("job", &ipc.job),
    ];
    lines.join("\n")
}
