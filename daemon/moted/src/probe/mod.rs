//! Finding out what a runtime flavour can do here, in a process of its own.

mod cache;

pub use cache::{ProbeCache, machine_stamp};

use crate::BUILD_ID;
use crate::core::Exit;
use crate::flavours::{Installed, absent};
use crate::limits::{LAST_WORDS_MS, PROVIDERS_MAX};
use crate::workers::{Launched, Launcher, exit_of, follow};
use mote_api::{Absence, Capability, processor};
use mote_wire::codec::frame_to_event;
use mote_wire::types::WorkerEvent;
use mote_wire::{AsyncReceiver, Link, async_connection};
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Child;
use tokio::time::timeout;

/// The arguments that have a worker probe a flavour, or one of its providers.
pub fn arguments(installed: &Installed, provider: Option<&str>) -> Vec<OsString> {
    let mut arguments = vec![OsString::from("--probe")];
    if !installed.folder.as_os_str().is_empty() {
        arguments.push("--flavour-folder".into());
        arguments.push(installed.folder.clone().into());
    }
    if let Some(provider) = provider {
        arguments.push("--provider".into());
        arguments.push(provider.into());
    }
    arguments
}

/// A process that gave no answer.
struct Lost {
    absence: Absence,
    /// What it was about to try; empty when it did not come so far.
    providers: Vec<String>,
}

impl Lost {
    fn failed(why: String) -> Self {
        Self {
            absence: Absence::ProbeFailed { why },
            providers: Vec::new(),
        }
    }
}

/// Whoever probes.
pub struct Prober {
    /// Starts the processes.
    pub launcher: Arc<Launcher>,
    /// What each of them is given.
    pub limit: Duration,
}

impl Prober {
    /// Probes `installed` in a process of its own. When that gives no answer, each of its providers
    /// gets a process: what one of them did to the first is not held against the others.
    pub async fn probe(self, installed: Arc<Installed>) -> Vec<Capability> {
        let flavour = &installed.flavour;
        let name = &flavour.name;
        let lost = match self.ask(&installed, None).await {
            Ok(found) => return found,
            Err(lost) => lost,
        };
        log::warn!(flavour = name; "a probe gave no answer: {}", lost.absence);
        if lost.providers.is_empty() {
            return vec![absent(name, flavour.backend, lost.absence)];
        }
        let mut found = Vec::new();
        for provider in lost.providers {
            match self.ask(&installed, Some(&provider)).await {
                Ok(told) => found.extend(told),
                Err(Lost { absence, .. }) => {
                    log::warn!(flavour = name, provider = provider; "it cannot be probed: {absence}");
                    let absent = absent(name, flavour.backend, absence);
                    found.push(Capability { provider, ..absent });
                }
            }
        }
        // The version is the library's, whichever process could tell it.
        let mut versions = found.iter().map(|one| one.library_version.clone());
        if let Some(version) = versions.find(|version| !version.is_empty()) {
            for one in &mut found {
                one.library_version.clone_from(&version);
            }
        }
        found
    }

    async fn ask(
        &self,
        installed: &Installed,
        provider: Option<&str>,
    ) -> Result<Vec<Capability>, Lost> {
        let flavour = &installed.flavour.name;
        let launched = self.launcher.launch(&arguments(installed, provider));
        let Launched {
            mut child,
            socket,
            output,
            group: _group,
        } = launched.map_err(|error| Lost::failed(with_cause(&error)))?;
        let output = tokio::spawn(follow(output, format!("probe of {flavour}")));
        let (_sender, receiver) = async_connection(socket, Link::Worker)
            .map_err(|error| Lost::failed(with_cause(&error)))?;
        let mut providers = Vec::new();
        let heard = timeout(self.limit, listen(receiver, &mut child, &mut providers)).await;
        // Vendor libraries may hang or crash on the way out; the answer counts.
        let _ = child.kill().await;
        let said = timeout(Duration::from_millis(LAST_WORDS_MS), output).await;
        let absence = match heard {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(absence)) => absence,
            Err(_) => Absence::ProbeTimedOut {
                limit_ms: u64::try_from(self.limit.as_millis()).unwrap_or(u64::MAX),
            },
        };
        if let Ok(Ok(said)) = said
            && !said.is_empty()
        {
            log::warn!(flavour = flavour; "last words of the probe:\n{said}");
        }
        Err(Lost { absence, providers })
    }
}

fn with_cause(error: &dyn std::error::Error) -> String {
    error
        .source()
        .map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

async fn listen(
    mut receiver: AsyncReceiver,
    child: &mut Child,
    providers: &mut Vec<String>,
) -> Result<Vec<Capability>, Absence> {
    let failed = |why: String| Absence::ProbeFailed { why };
    loop {
        let frame = match receiver.recv().await {
            Ok(Some(frame)) => frame,
            // A process that dies resets the socket or closes it, as chance has it.
            Ok(None) | Err(_) => {
                let status = child
                    .wait()
                    .await
                    .map_err(|error| failed(error.to_string()))?;
                return Err(absence_of(exit_of(status)));
            }
        };
        match frame_to_event(frame).map_err(|refusal| failed(refusal.to_string()))? {
            WorkerEvent::Hello { build_id, .. } if build_id == BUILD_ID => {}
            WorkerEvent::Hello { build_id, .. } => {
                return Err(failed(format!(
                    "the worker is of build {build_id}, not {BUILD_ID}"
                )));
            }
            WorkerEvent::Probing { providers: named } => {
                *providers = named;
                providers.truncate(PROVIDERS_MAX);
            }
            WorkerEvent::Probed { capabilities_json } => {
                let found: Vec<Capability> = serde_json::from_slice(&capabilities_json)
                    .map_err(|error| failed(error.to_string()))?;
                if found.is_empty() {
                    return Err(failed("it found nothing to tell".into()));
                }
                return Ok(found);
            }
            _ => return Err(failed("it said something out of turn".into())),
        }
    }
}

fn absence_of(exit: Exit) -> Absence {
    let illegal = Signal::SIGILL as i32;
    match (exit, processor::lacking()) {
        (
            Exit {
                signal: 0,
                exit_code,
            },
            _,
        ) => Absence::ProbeFailed {
            why: format!("exit code {exit_code}"),
        },
        (Exit { signal, .. }, Some(feature)) if signal == illegal => Absence::IllegalInstruction {
            feature: feature.into(),
        },
        (Exit { signal, .. }, _) => Absence::ProbeCrashed { signal },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_is_told_by_its_kind() {
        let exit = |signal, exit_code| absence_of(Exit { signal, exit_code });
        let died = exit(Signal::SIGSEGV as i32, 0);
        assert_eq!(died, Absence::ProbeCrashed { signal: 11 });
        let said = exit(0, 3).to_string();
        assert!(said.contains("exit code 3"), "{said}");
        let illegal = exit(Signal::SIGILL as i32, 0);
        match processor::lacking() {
            Some(feature) => assert!(illegal.to_string().contains(feature)),
            None => assert_eq!(illegal, Absence::ProbeCrashed { signal: 4 }),
        }
    }
}
