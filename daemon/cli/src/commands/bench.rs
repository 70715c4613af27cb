//! `mote bench`: this machine, the daemon, and the floor beside them, in one run.

mod clip;

use crate::args::{Bench, BenchWhat};
use crate::bench::floor::{self, BusyLoop};
use crate::bench::placement;
use crate::bench::process;
use crate::bench::stats::{Samples, Summary};
use crate::bench::{REDUCE_BYTES, REDUCE_MODEL, REDUCE_SHAPE};
use crate::commands::import::MOE_RECIPE;
use crate::daemon::Daemon;
use crate::interrupt;
use crate::ui::{Ui, bytes_text};
use anyhow::{Context, Result};
use mote_client::{Client, Input};
use mote_wire::types::{DType, Prompt, Receipt, Sampling, WorkOptions};
use serde::Serialize;
use std::time::{Duration, Instant};

const WARM_UP: u32 = 20;
/// Turns that paths and floors take.
const IPC_TURNS: u32 = 10;
const IDLE_WATCH: Duration = Duration::from_secs(5);
const SETTLE: Duration = Duration::from_secs(2);
const STARTS: u32 = 11;
const TEXT_ROUNDS: u32 = 3;
const PROMPT_TOKENS: usize = 512;
const ANSWER_TOKENS: u32 = 128;
/// The daemon notices a change of the machine's load within this time.
const LOAD_NOTICED: Duration = Duration::from_secs(4);

#[derive(Default, Serialize)]
struct Report {
    cores: usize,
    /// All processes on one processor, floor and daemon alike.
    ipc_one_processor: Option<Ipc>,
    /// Processes wherever the kernel puts them.
    ipc: Option<Ipc>,
    daemon: Option<Broker>,
    text: Option<Text>,
    clip: Option<clip::Clip>,
}

#[derive(Serialize)]
struct Ipc {
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

#[derive(Default, Serialize)]
struct Broker {
    start: Summary,
    idle_resident_bytes: u64,
    idle_wake_ups_per_s: f64,
}

#[derive(Default, Serialize)]
struct Text {
    model: String,
    idle: Rates,
    beside_busy_loop: Rates,
}

#[derive(Default, Serialize)]
struct Rates {
    prefill_tokens_per_s: f64,
    decode_tokens_per_s: f64,
    threads: u32,
    spin: bool,
    thread_changes: u32,
}

/// Measures and prints.
pub fn bench(args: &Bench, ui: &Ui) -> Result<()> {
    let wanted = |what| args.what.is_empty() || args.what.contains(&what);
    let mut report = Report {
        cores: std::thread::available_parallelism()?.get(),
        ..Report::default()
    };
    if wanted(BenchWhat::Daemon) {
        report.daemon = Some(broker(ui)?);
    }
    if wanted(BenchWhat::Ipc) {
        let pinned = placement::pin_to_one()?;
        report.ipc_one_processor = Some(ipc(args.repetitions, ui)?);
        drop(pinned);
        report.ipc = Some(ipc(args.repetitions, ui)?);
    }
    if wanted(BenchWhat::Text) {
        report.text = text(ui)?;
    }
    if wanted(BenchWhat::Clip) {
        report.clip = clip::measure(ui)?;
    }
    ui.result(&report, report_text(&report))
}

fn broker(ui: &Ui) -> Result<Broker> {
    let bar = ui.count_bar("start the broker", u64::from(STARTS));
    let mut starts = Samples::default();
    for _ in 0..STARTS {
        interrupt::check()?;
        let daemon = Daemon::private()?;
        starts.push(daemon.private_start().context("the daemon is private")?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let spinner = ui.spinner("watch the broker idle");
    let daemon = Daemon::private()?;
    let pid = daemon.private_pid().context("the daemon is private")?;
    interrupt::sleep(SETTLE)?;
    let before = process::wake_ups(pid)?;
    interrupt::sleep(IDLE_WATCH)?;
    let woken = process::wake_ups(pid)? - before;
    spinner.finish_and_clear();
    Ok(Broker {
        start: starts.summary(),
        idle_resident_bytes: process::resident_bytes(pid)?,
        idle_wake_ups_per_s: woken as f64 / IDLE_WATCH.as_secs_f64(),
    })
}

/// In turns, with new processes each time: where the kernel puts two processes that talk decides more
/// than anything else, and it leaves them there. It does not put the floor's where it puts the daemon's,
/// so that only figures from one processor compare the programs themselves.
fn ipc(repetitions: u32, ui: &Ui) -> Result<Ipc> {
    let store = tempfile::tempdir().context("cannot create a folder")?;
    std::fs::write(store.path().join("reduce.onnx"), REDUCE_MODEL)?;
    let each = repetitions.div_ceil(IPC_TURNS);
    let (mut one_hop, mut two_hops) = (Samples::default(), Samples::default());
    let (mut stream, mut job) = (Measured::default(), Measured::default());
    let bar = ui.count_bar("streams, jobs and bare sockets", u64::from(IPC_TURNS));
    for _ in 0..IPC_TURNS {
        let (one, two) = floor::measure(REDUCE_BYTES, each)?;
        one_hop.extend(one);
        two_hops.extend(two);
        let daemon = Daemon::private_with_store(store.path())?;
        stream.extend(stream_path(&daemon.client, each)?);
        job.extend(job_path(&daemon.client, each)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let (floor_one_hop, floor_two_hops) = (one_hop.summary(), two_hops.summary());
    let (mut stream, mut job) = (stream.path(), job.path());
    stream.ratio_to_floor = stream.overhead.p50_us / floor_one_hop.p50_us;
    job.ratio_to_floor = job.overhead.p50_us / floor_two_hops.p50_us;
    Ok(Ipc {
        input_bytes: REDUCE_BYTES,
        floor_one_hop,
        floor_two_hops,
        stream,
        job,
    })
}

fn shape() -> [u64; 4] {
    REDUCE_SHAPE.map(|dim| dim as u64)
}

fn stream_path(client: &Client, repetitions: u32) -> Result<Measured> {
    let mut stream = client.open_stream("reduce", &WorkOptions::default())?;
    let mut buffer = stream.buffer(REDUCE_BYTES as u64)?;
    buffer.with_slice_mut(|bytes| bytes.fill(0x3f));
    let mut measured = Measured::default();
    for round in 0..repetitions + WARM_UP {
        interrupt::check()?;
        let shape = shape();
        let input = Input::buffer("x", DType::F32, &shape, &buffer);
        let started = Instant::now();
        let result = stream.push(&[input], &[])?;
        measured.push(
            round,
            started.elapsed(),
            result.compute_us,
            result.bytes_copied,
        );
    }
    measured.backend = stream.close()?.backend;
    Ok(measured)
}

fn job_path(client: &Client, repetitions: u32) -> Result<Measured> {
    let mut buffer = client.buffer(REDUCE_BYTES as u64)?;
    buffer.with_slice_mut(|bytes| bytes.fill(0x3f));
    let mut measured = Measured::default();
    for round in 0..repetitions + WARM_UP {
        interrupt::check()?;
        let shape = shape();
        let input = Input::buffer("x", DType::F32, &shape, &buffer);
        let started = Instant::now();
        let result = client.infer("reduce", &[input], &[], &WorkOptions::default())?;
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

    fn path(&self) -> Path {
        Path {
            backend: self.backend.clone(),
            round_trip: self.round_trip.summary(),
            in_library: self.in_library.summary(),
            overhead: self.overhead.summary(),
            ratio_to_floor: 0.0,
            bytes_copied: self.bytes_copied,
        }
    }
}

fn text(ui: &Ui) -> Result<Option<Text>> {
    let daemon = Daemon::private()?;
    if !daemon
        .client
        .models()?
        .iter()
        .any(|model| model.name == MOE_RECIPE)
    {
        ui.note(format!(
            "{MOE_RECIPE} is not installed: text is not measured (see `mote import`)"
        ));
        return Ok(None);
    }
    let spinner = ui.spinner("text, idle");
    let idle = rates(&daemon.client)?;
    spinner.set_message("text, beside a busy loop");
    let busy = BusyLoop::start()?;
    // Long enough for the daemon to see the load while it works, and to follow it.
    let since = Instant::now();
    while since.elapsed() < LOAD_NOTICED {
        round(&daemon.client, 0)?;
    }
    let beside_busy_loop = rates(&daemon.client)?;
    drop(busy);
    spinner.finish_and_clear();
    Ok(Some(Text {
        model: MOE_RECIPE.into(),
        idle,
        beside_busy_loop,
    }))
}

fn rates(client: &Client) -> Result<Rates> {
    let (mut prefill, mut decode) = (Samples::default(), Samples::default());
    let mut last = Receipt::default();
    for number in 0..=TEXT_ROUNDS {
        interrupt::check()?;
        last = round(client, number)?;
        if number > 0 {
            let computed = (last.prompt_tokens - last.cached_tokens) as f64;
            prefill.push_us(computed * 1e6 / last.prefill_us.max(1) as f64);
            decode.push_us(last.generated_tokens as f64 * 1e6 / last.decode_us.max(1) as f64);
        }
    }
    Ok(Rates {
        prefill_tokens_per_s: prefill.quantile(0.5),
        decode_tokens_per_s: decode.quantile(0.5),
        threads: last.threads,
        spin: last.spin,
        thread_changes: last.thread_changes,
    })
}

/// One answer to a prompt of about [`PROMPT_TOKENS`] tokens whose first word differs by number, so
/// that no prefix of it is in a cache.
fn round(client: &Client, number: u32) -> Result<Receipt> {
    let words = [
        "river", "stone", "lamp", "music", "cloud", "paper", "green", "seven",
    ];
    let prompt: Vec<_> = (0..PROMPT_TOKENS)
        .map(|i| words[(i * 5 + i / 8) % words.len()])
        .collect();
    let request = mote_wire::types::Generate {
        model: MOE_RECIPE.to_owned(),
        prompt: Prompt::Plain(format!(
            "{} {}",
            words[number as usize % 8],
            prompt.join(" ")
        )),
        tokens_max: Some(ANSWER_TOKENS),
        sampling: Sampling::default(),
        stop: Vec::new(),
        options: WorkOptions::default(),
    };
    let quiet = Ui {
        json: true,
        quiet: true,
    };
    Ok(crate::commands::generate::stream(client, request, &quiet)?
        .done
        .receipt)
}

fn report_text(report: &Report) -> String {
    let mut lines = vec![format!("{} cores; medians of one run", report.cores)];
    if let Some(broker) = &report.daemon {
        lines.push(format!(
            "broker: listens after {:.1} ms (p99 {:.1} ms), {} resident, {:.1} wake-ups/s when idle",
            broker.start.p50_us / 1e3,
            broker.start.p99_us / 1e3,
            bytes_text(broker.idle_resident_bytes),
            broker.idle_wake_ups_per_s
        ));
    }
    for (ipc, place) in [
        (&report.ipc_one_processor, "all on one processor"),
        (&report.ipc, "wherever the kernel puts them"),
    ] {
        let Some(ipc) = ipc else { continue };
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
        lines.push(format!(
            "{} bytes in a registered buffer, processes {place}, µs:",
            ipc.input_bytes
        ));
        lines.push(format!("{:27}p50      p99", ""));
        lines.push(floor("one hop", &ipc.floor_one_hop));
        lines.push(path("stream", &ipc.stream));
        lines.push(floor("two hops", &ipc.floor_two_hops));
        lines.push(path("job", &ipc.job));
    }
    if let Some(text) = &report.text {
        for (name, rates) in [
            ("idle", &text.idle),
            ("beside a busy loop", &text.beside_busy_loop),
        ] {
            lines.push(format!(
                "{}, {name}: prefill {:.0} tokens/s, decode {:.1} tokens/s, {} threads{}",
                text.model,
                rates.prefill_tokens_per_s,
                rates.decode_tokens_per_s,
                rates.threads,
                if rates.spin { " spinning" } else { "" }
            ));
        }
    }
    lines.extend(report.clip.as_ref().map(clip::text));
    lines.join("\n")
}
