//! `mote doctor`: what protects this machine from the models and drivers it runs, what its runtimes
//! can do, and what of both is not as it should be.
//!
//! What a worker says of its sandbox it has read back from the kernel; here it is compared with what
//! the kernel says of the same process from outside, where this user may see that.

use crate::args::Cli;
use crate::commands::devices;
use crate::daemon::{Daemon, sibling};
use crate::ui::Ui;
use anyhow::{Context, Result};
use mote_client::ClientError;
use mote_wire::types::{Capability, Sandbox, SandboxState, WorkerInfo};
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

/// Something that should hold does not: the report has said what.
#[derive(Debug, thiserror::Error)]
#[error("not everything is as it should be")]
pub struct Unwell;

/// All that was looked at.
#[derive(Serialize)]
struct Report {
    sandbox: Sandboxes,
    /// What was probed; empty when no daemon answers.
    devices: Vec<Capability>,
    /// For people; empty when all is well.
    problems: Vec<String>,
}

#[derive(Serialize)]
struct Sandboxes {
    /// What a worker without a model gets here.
    here: Sandbox,
    /// Absent when no daemon answers.
    broker: Option<Process>,
    workers: Vec<Worker>,
}

#[derive(Serialize)]
struct Worker {
    model: String,
    flavour: String,
    /// As the worker told it; absent until its model is loaded.
    sandbox: Option<Sandbox>,
    process: Process,
}

#[derive(Serialize)]
struct Process {
    pid: i32,
    /// Absent when this user may not see it, or it runs where processes are numbered otherwise.
    kernel: Option<Kernel>,
}

/// What the kernel says of a process (proc(5)).
#[derive(Serialize)]
struct Kernel {
    no_new_privileges: bool,
    /// none, strict, filter
    seccomp: &'static str,
    /// Effective capabilities, in hexadecimal.
    capabilities: String,
    oom_score_adjustment: String,
    control_group: String,
}

impl Process {
    fn look(pid: i32, program: &str) -> Self {
        let folder = format!("/proc/{pid}");
        Self {
            pid,
            kernel: Kernel::read(Path::new(&folder), program),
        }
    }

    fn control_group(&self) -> Option<&str> {
        Some(&self.kernel.as_ref()?.control_group)
    }
}

impl Kernel {
    fn read(folder: &Path, program: &str) -> Option<Self> {
        let text = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
        let status = text("status")?;
        let field = |name: &str| {
            let mut fields = status.lines().filter_map(|line| line.split_once(':'));
            let (_, value) = fields.find(|(key, _)| *key == name)?;
            Some(value.trim())
        };
        // The kernel keeps 15 bytes of a name.
        let name =
            field("Name").filter(|name| program.starts_with(name) || name.starts_with(program));
        name?;
        Some(Self {
            no_new_privileges: field("NoNewPrivs")? == "1",
            seccomp: match field("Seccomp")? {
                "0" => "none",
                "1" => "strict",
                _ => "filter",
            },
            capabilities: field("CapEff")?.trim_start_matches('0').to_owned(),
            oom_score_adjustment: text("oom_score_adj")?.trim().to_owned(),
            control_group: text("cgroup").as_deref().and_then(unified_group)?,
        })
    }

    fn text(&self) -> String {
        let privileges = if self.no_new_privileges {
            "no new privileges"
        } else {
            "may gain privileges"
        };
        let capabilities = match self.capabilities.as_str() {
            "" => "no capabilities".to_owned(),
            set => format!("capabilities {set}"),
        };
        format!(
            "{privileges}, {capabilities}, system calls: {}, memory score {}, group {}",
            self.seccomp, self.oom_score_adjustment, self.control_group
        )
    }
}

/// A process's group of version 2, or else the first that is named.
fn unified_group(cgroup: &str) -> Option<String> {
    let unified = cgroup.lines().find_map(|line| line.strip_prefix("0::"));
    let first = || cgroup.lines().next()?.splitn(3, ':').nth(2);
    unified.or_else(first).map(str::to_owned)
}

/// Looks at everything and says what does not hold.
pub fn doctor(cli: &Cli, ui: &Ui) -> Result<()> {
    let report = examine(cli, ui)?;
    ui.result(&report, text(&report))?;
    if report.problems.is_empty() {
        Ok(())
    } else {
        Err(Unwell.into())
    }
}

fn examine(cli: &Cli, ui: &Ui) -> Result<Report> {
    let here = sandbox_here()?;
    let (broker, workers, devices) = match reach(cli)? {
        None => (None, Vec::new(), Vec::new()),
        Some(daemon) => {
            let status = daemon.client.status()?;
            let broker = status.pid.map(|pid| Process::look(pid, "moted"));
            let workers = status.workers.into_iter().map(worker).collect();
            (broker, workers, devices::ask(&daemon.client, false, ui)?)
        }
    };
    let mut problems = Vec::new();
    problems.extend(gaps("a worker here", &here));
    for worker in &workers {
        problems.extend(worker_problems(worker));
    }
    problems.extend(devices::problems(&devices));
    Ok(Report {
        sandbox: Sandboxes {
            here,
            broker,
            workers,
        },
        devices,
        problems,
    })
}

/// Starts a worker that enters its sandbox, tells what holds of it, and leaves.
fn sandbox_here() -> Result<Sandbox> {
    let program = sibling("mote-worker")?;
    let output = Command::new(&program).arg("--report-sandbox").output();
    let output = output.with_context(|| format!("cannot start {}", program.display()))?;
    anyhow::ensure!(
        output.status.success(),
        "{} ended with {}: {}",
        program.display(),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("cannot read what {} printed", program.display()))
}

/// `None` when no daemon answers: there is nothing to look at then.
fn reach(cli: &Cli) -> Result<Option<Daemon>> {
    match Daemon::reach(cli) {
        Ok(daemon) => Ok(Some(daemon)),
        Err(error) => match error.downcast_ref::<ClientError>() {
            Some(ClientError::Connect { .. }) => Ok(None),
            _ => Err(error),
        },
    }
}

fn worker(info: WorkerInfo) -> Worker {
    Worker {
        process: Process::look(info.pid, "mote-worker"),
        model: info.model,
        flavour: info.flavour,
        sandbox: info.sandbox,
    }
}

/// What does not hold of a sandbox.
fn gaps(whose: &str, sandbox: &Sandbox) -> Vec<String> {
    if !sandbox.enabled {
        return vec![format!(
            "{whose} runs without a sandbox: it was switched off"
        )];
    }
    let inactive = sandbox.parts.iter();
    let inactive = inactive.filter(|part| part.state == SandboxState::Inactive);
    inactive
        .map(|part| format!("{whose} lacks {}: {}", part.name, part.detail))
        .collect()
}

fn worker_problems(worker: &Worker) -> Vec<String> {
    let whose = format!("worker {} ({})", worker.process.pid, worker.model);
    let Some(sandbox) = &worker.sandbox else {
        // It has not loaded its model yet.
        return Vec::new();
    };
    let mut problems = gaps(&whose, sandbox);
    if let Some(kernel) = &worker.process.kernel {
        let facts = [
            ("no_new_privileges", kernel.no_new_privileges),
            ("capabilities", kernel.capabilities.is_empty()),
            ("system_calls", kernel.seccomp == "filter"),
        ];
        for (name, holds) in facts {
            let mut parts = sandbox.parts.iter();
            let said = parts.any(|part| part.name == name && part.state == SandboxState::Active);
            if said && !holds {
                problems.push(format!(
                    "{whose} says {name} holds, and the kernel says it does not"
                ));
            }
        }
    }
    problems
}

fn text(report: &Report) -> String {
    let mut text = String::from("sandbox of workers here\n");
    let sandboxes = &report.sandbox;
    text += &sandbox_text(&sandboxes.here);
    match &sandboxes.broker {
        None => text += "broker  none answers\n",
        Some(broker) => text += &format!("broker  {}\n{}", broker.pid, kernel_text(broker)),
    }
    for worker in &sandboxes.workers {
        let Worker {
            model,
            flavour,
            process,
            ..
        } = worker;
        let _ = writeln!(text, "worker  {} {model} on {flavour}", process.pid);
        text += &kernel_text(process);
        match &worker.sandbox {
            None => text += "  loads its model\n",
            Some(sandbox) => text += &sandbox_text(sandbox),
        }
        let broker_group = sandboxes.broker.as_ref().and_then(Process::control_group);
        if broker_group.is_some() && process.control_group() == broker_group {
            text += "  shares the broker's control group\n";
        }
    }
    if !report.devices.is_empty() {
        text += "runtimes and devices\n";
        for line in devices::table(&report.devices) {
            let _ = writeln!(text, "  {line}");
        }
    }
    match report.problems.as_slice() {
        [] => text += "all is well",
        problems => {
            let lines = problems.iter().map(|problem| format!("problem: {problem}"));
            text += &lines.collect::<Vec<_>>().join("\n");
        }
    }
    text
}

fn kernel_text(process: &Process) -> String {
    match &process.kernel {
        Some(kernel) => format!("  {}\n", kernel.text()),
        None => "  its process cannot be seen from here\n".to_owned(),
    }
}

fn sandbox_text(sandbox: &Sandbox) -> String {
    if !sandbox.enabled {
        return "  off\n".to_owned();
    }
    let line = |part: &mote_wire::types::SandboxPart| {
        let state = match part.state {
            SandboxState::Active => "active",
            SandboxState::Partial => "partial",
            SandboxState::Inactive => "NOT ACTIVE",
        };
        let line = format!("  {state:10} {:18} {}", part.name, part.detail);
        format!("{}\n", line.trim_end())
    };
    sandbox.parts.iter().map(line).collect()
}
