//! What a worker takes from itself before it reads anything of a vendor or a model: a library or a
//! file that takes it over then holds one model's weights and the work in hand, and nothing else.
//!
//! | part | by | what is out of reach |
//! | --- | --- | --- |
//! | `no_new_privileges` | prctl | set-user-id programs |
//! | `capabilities` | capset | what root may, if the daemon runs as root |
//! | `private_memory` | not dumpable, no core | prompts, for other programs of the same user |
//! | `limits` | rlimits ([`limits`]) | the machine's descriptors and disk |
//! | `oom` | oom_score_adj | the broker, when memory runs out |
//! | `files` | Landlock ([`files`], [`scope`]) | files of the user and of other models; running programs |
//! | `network` | seccomp, Landlock | network, services of this machine |
//! | `system_calls` | seccomp ([`calls`], [`filter`]) | most of the kernel; other processes |
//!
//! Everything is done as far as the kernel can, then read back; what is told is what was read back.
//! The process has one thread at that time: Landlock binds the threads made afterwards.

pub mod calls;
mod files;
mod filter;
mod limits;
mod scope;
mod sys;

pub use scope::{Access, Scope};

use mote_wire::types::{Sandbox, SandboxPart, SandboxState};
use nix::sys::prctl;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::path::Path;
use std::sync::OnceLock;

/// Whether workers are kept in their sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// As far as the kernel can.
    #[default]
    On,
    /// Not at all: for debuggers and tracers.
    Off,
}

/// Environment variable that sets the [`Mode`]; workers have the broker's environment.
pub const MODE_VARIABLE: &str = "MOTE_SANDBOX";

/// As it was entered, once per process.
static ENTERED: OnceLock<Sandbox> = OnceLock::new();

/// The sandbox of this process, if it has entered one.
pub fn state() -> Option<Sandbox> {
    ENTERED.get().cloned()
}

/// Enters the sandbox for good. Call it once, on the only thread.
pub fn enter(mode: Mode, scope: &Scope) -> Sandbox {
    ENTERED.get_or_init(|| build(mode, scope)).clone()
}

fn build(mode: Mode, scope: &Scope) -> Sandbox {
    if mode == Mode::Off {
        log::warn!("the sandbox is off: this process may do whatever its user may");
        return Sandbox::default();
    }
    // Each step before the one that would refuse it.
    let oom = limits::volunteer();
    let limits = limits::limit();
    let hides = proc_hides_processes();
    let dumpable = if hides {
        Ok(())
    } else {
        prctl::set_dumpable(false)
    };
    let privileges = prctl::set_no_new_privs();
    // A service manager that filters calls itself may refuse this one where nothing is left to drop.
    let capabilities = match Held::read().capabilities {
        Some(0) => Ok(()),
        _ => sys::drop_capabilities(),
    };
    let single = threads() == Some(1);
    let files = files::restrict(scope);
    let calls = filter_calls(scope.drivers);
    let held = Held::read();

    let parts = vec![
        set_part("no_new_privileges", held.no_new_privileges, &privileges),
        set_part("capabilities", held.capabilities == Some(0), &capabilities),
        memory_part(hides, held.private, &dumpable),
        limits_part(&limits, limits::gap()),
        match &oom {
            Ok(score) => part("oom", true, score.clone()),
            Err(error) => part("oom", false, error.to_string()),
        },
        files_part(files, single),
        network_part(),
        part(
            "system_calls",
            held.filtered,
            calls.unwrap_or_else(|why| why),
        ),
    ];
    for part in parts
        .iter()
        .filter(|part| part.state == SandboxState::Inactive)
    {
        log::warn!("the sandbox has a gap, {}: {}", part.name, part.detail);
    }
    Sandbox {
        enabled: true,
        parts,
    }
}

/// Installs the filter of system calls; answers what it is, or why there is none.
fn filter_calls(drivers: bool) -> Result<String, String> {
    let Some(architecture) = calls::ARCHITECTURE else {
        return Err(format!("there is no table for {}", std::env::consts::ARCH));
    };
    let rows = || calls::rows_for(drivers);
    let program = filter::compile(architecture, rows(), std::process::id());
    let program = program.map_err(|error| error.to_string())?;
    sys::install_filter(&program).map_err(|errno| errno.desc().to_owned())?;
    let allowed = rows().filter(|row| {
        !matches!(
            row.verdict,
            calls::Verdict::Refuse(_) | calls::Verdict::Pretend
        )
    });
    let devices = if drivers { ", devices" } else { "" };
    Ok(format!(
        "{} calls of {}{devices}",
        allowed.count(),
        architecture.name
    ))
}

fn part(name: &str, holds: bool, detail: String) -> SandboxPart {
    let state = if holds {
        SandboxState::Active
    } else {
        SandboxState::Inactive
    };
    let name = name.to_owned();
    SandboxPart {
        name,
        state,
        detail,
    }
}

/// A part that one call sets, of which the kernel says whether it holds.
fn set_part<T>(name: &str, holds: bool, set: &nix::Result<T>) -> SandboxPart {
    let detail = match set {
        Err(errno) => errno.desc().to_owned(),
        Ok(_) if !holds => "set, but does not read so".to_owned(),
        Ok(_) => String::new(),
    };
    part(name, holds, detail)
}

fn limits_part(set: &nix::Result<()>, gap: Option<String>) -> SandboxPart {
    let holds = gap.is_none();
    let whys = [gap, set.err().map(|errno| errno.desc().to_owned())];
    let whys: Vec<_> = whys.into_iter().flatten().collect();
    part("limits", holds, whys.join("; "))
}

/// A process that is not dumpable is not seen where `/proc` hides what its reader may not trace, and
/// the broker has to see what its workers use. Such a `/proc` is that of a service with a user of its
/// own, so that there is nobody to keep the memory from.
fn memory_part(hides: bool, private: bool, dumpable: &nix::Result<()>) -> SandboxPart {
    if !hides {
        return set_part("private_memory", private, dumpable);
    }
    SandboxPart {
        name: "private_memory".to_owned(),
        state: SandboxState::Partial,
        detail: "no core dumps; open to its own user, for /proc would hide it from the broker"
            .to_owned(),
    }
}

/// Whether `/proc` is mounted with `hidepid` (proc(5)).
fn proc_hides_processes() -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // Of several mounts on one place, the last is seen.
    let of_proc = mounts
        .lines()
        .rfind(|line| line.split(' ').nth(4) == Some("/proc"));
    let options = of_proc.and_then(|line| line.rsplit(' ').next());
    options.is_some_and(|options| {
        let mut options = options.split(',');
        options
            .any(|one| one.starts_with("hidepid=") && !matches!(one, "hidepid=0" | "hidepid=off"))
    })
}

/// Landlock tells nothing about itself afterwards: the root folder, which no rule allows, does.
fn files_part((state, detail): (SandboxState, String), single: bool) -> SandboxPart {
    let refused = std::fs::read_dir("/").is_err_and(|error| is_refused(&error));
    let (state, detail) = match state {
        SandboxState::Inactive => (state, detail),
        _ if !refused => (SandboxState::Inactive, format!("{detail} does not hold")),
        _ if !single => {
            let why = "threads from before are free";
            (SandboxState::Partial, format!("{detail}; {why}"))
        }
        state => (state, detail),
    };
    let name = "files".to_owned();
    SandboxPart {
        name,
        state,
        detail,
    }
}

fn network_part() -> SandboxPart {
    match UdpSocket::bind("127.0.0.1:0") {
        Err(error) if is_refused(&error) => part("network", true, "no sockets".into()),
        Err(error) => part("network", false, error.to_string()),
        Ok(_) => part("network", false, "a socket could be opened".into()),
    }
}

fn is_refused(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::PermissionDenied
}

fn threads() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/task").ok()?.count())
}

/// What the kernel says of this process.
#[derive(Debug, Default)]
struct Held {
    no_new_privileges: bool,
    capabilities: Option<u64>,
    filtered: bool,
    private: bool,
}

impl Held {
    fn read() -> Self {
        let status = std::fs::read_to_string(Path::new("/proc/self/status")).unwrap_or_default();
        let field = |name: &str| {
            let mut fields = status.lines().filter_map(|line| line.split_once(':'));
            fields
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.trim())
        };
        Self {
            no_new_privileges: field("NoNewPrivs") == Some("1"),
            capabilities: field("CapPrm").and_then(|set| u64::from_str_radix(set, 16).ok()),
            // 2 is a filter.
            filtered: field("Seccomp") == Some("2"),
            private: prctl::get_dumpable().is_ok_and(|dumpable| !dumpable),
        }
    }
}
