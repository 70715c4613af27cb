//! `mote bench`: this machine, the daemon, and the floor beside them, in one run.

mod choice;
mod clip;
mod ipc;

use crate::args::{Bench, BenchWhat};
use crate::bench::floor::BusyLoop;
use crate::bench::process;
use crate::bench::stats::{Samples, Summary};
use crate::commands::import::MOE_RECIPE;
use crate::daemon::Daemon;
use crate::interrupt;
use crate::ui::{Ui, bytes_text};
use anyhow::{Context, Result};
use mote_client::Client;
use mote_wire::types::{Prompt, Receipt};
use serde::Serialize;
use std::time::{Duration, Instant};

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
    /// For each way to seat the processes, floor's and daemon's alike.
    ipc: Vec<ipc::Ipc>,
    daemon: Option<Broker>,
    text: Option<Text>,
    clip: Option<clip::Clip>,
    choice: Vec<choice::Choice>,
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
        report.ipc = ipc::measure(args.repetitions, ui)?;
    }
    if wanted(BenchWhat::Text) {
        report.text = text(ui)?;
    }
    if wanted(BenchWhat::Clip) {
        report.clip = clip::measure(ui)?;
    }
    if wanted(BenchWhat::Choice) {
        report.choice = choice::measure(ui)?;
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
    let text = format!("{} {}", words[number as usize % 8], prompt.join(" "));
    let request = mote_wire::types::Generate {
        tokens_max: Some(ANSWER_TOKENS),
        ..mote_wire::types::Generate::new(MOE_RECIPE, Prompt::Plain(text))
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
    lines.extend(report.ipc.iter().map(ipc::text));
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
    if !report.choice.is_empty() {
        lines.push(choice::text(&report.choice));
    }
    lines.join("\n")
}
