//! `mote status`, `mote explain`.

use crate::args::Work;
use crate::receipt::explanation_text;
use crate::ui::{Ui, bytes_text};
use crate::work::options;
use anyhow::Result;
use mote_client::Client;
use mote_wire::types::{PowerReport, Sandbox, SandboxState, StatusReport, WorkerInfo};

/// What the daemon is doing.
pub fn status(client: &Client, ui: &Ui) -> Result<()> {
    let report = client.status()?;
    ui.result(&report, status_text(&report))
}

fn status_text(report: &StatusReport) -> String {
    let mut lines = vec![
        format!(
            "moted {} up {} s",
            report.server_version,
            report.uptime_ms / 1000
        ),
        format!(
            "  memory  {} of {} reserved; the broker itself takes {}",
            bytes_text(report.reserved_bytes),
            bytes_text(report.budget_bytes),
            bytes_text(report.rss_bytes)
        ),
        format!(
            "  work    {} running, {} queued, {} streams, {} connections; the machine is {}",
            report.jobs_running,
            report.jobs_queued,
            report.streams,
            report.connections,
            report.machine_load
        ),
    ];
    lines.extend(report.power.as_ref().map(power_text));
    for worker in &report.workers {
        lines.push(format!(
            "  worker  {:>7} {} on {}: {:?}, {} resident, {} jobs, {} streams{}",
            worker.pid,
            worker.model,
            worker.flavour,
            worker.state,
            bytes_text(worker.rss_bytes),
            worker.jobs,
            worker.streams,
            sandbox_note(worker)
        ));
    }
    lines.join("\n")
}

fn power_text(power: &PowerReport) -> String {
    let mut text = format!("  power   {}: {}", power.policy, power.why);
    match power.throttle.as_str() {
        "none" => {}
        "unknown" => text += "; whether heat slows it down is unknown",
        throttle => text += &format!("; slowed down: {throttle}"),
    }
    if power.background_paused {
        text += "; background work is paused";
    }
    if power.sleep_delayed {
        text += "; what runs delays sleep";
    }
    text
}

/// Nothing as long as the worker is kept in its sandbox, or has not loaded its model yet.
fn sandbox_note(worker: &WorkerInfo) -> &'static str {
    let whole = |sandbox: &Sandbox| {
        let mut parts = sandbox.parts.iter();
        parts.all(|part| part.state != SandboxState::Inactive)
    };
    match &worker.sandbox {
        Some(sandbox) if !sandbox.enabled => "; WITHOUT A SANDBOX",
        Some(sandbox) if !whole(sandbox) => "; its sandbox has gaps, see `mote doctor`",
        _ => "",
    }
}

/// Where a model would run.
pub fn explain(client: &Client, model: &str, measure: bool, work: &Work, ui: &Ui) -> Result<()> {
    let options = options(work);
    let explanation = if measure {
        let spinner = ui.spinner("trying all ways to run it");
        let measured = client.measure(model, &options);
        spinner.finish_and_clear();
        measured?
    } else {
        client.explain(model, &options)?
    };
    ui.result(&explanation, explanation_text(&explanation))
}
