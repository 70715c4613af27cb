//! Finding out what a runtime flavour can do here, in a process of its own.

mod cache;

pub use cache::{ProbeCache, machine_stamp};

use crate::BUILD_ID;
use crate::core::Exit;
use crate::flavours::{Installed, absent};
use crate::limits::{LAST_WORDS_MS, PROBE_LIMIT_MS};
use crate::workers::{Launched, Launcher, exit_of, follow};
use mote_api::{Absence, Capability};
use mote_wire::codec::frame_to_event;
use mote_wire::types::WorkerEvent;
use mote_wire::{AsyncReceiver, Link, async_connection};
use std::ffi::OsString;
use std::time::Duration;
use tokio::process::Child;
use tokio::time::timeout;

/// The arguments that have a worker probe a flavour.
pub fn arguments(installed: &Installed) -> Vec<OsString> {
    let mut arguments = vec![OsString::from("--probe")];
    if !installed.folder.as_os_str().is_empty() {
        arguments.push("--flavour-folder".into());
        arguments.push(installed.folder.clone().into());
    }
    arguments
}

/// Starts a process that probes `installed`, and answers a future of what it finds.
pub fn probe(
    launcher: &Launcher,
    installed: &Installed,
) -> impl Future<Output = Vec<Capability>> + Send + 'static {
    let launched = launcher.launch(&arguments(installed));
    let flavour = installed.flavour.clone();
    async move {
        let name = flavour.name.clone();
        let found = match launched {
            Ok(launched) => ask(launched, &name).await,
            Err(error) => Err(Absence::ProbeFailed {
                why: with_cause(&error),
            }),
        };
        found.unwrap_or_else(|absence| {
            log::warn!(flavour = name; "a runtime cannot be probed: {absence}");
            vec![absent(&flavour.name, flavour.backend, absence)]
        })
    }
}

fn with_cause(error: &dyn std::error::Error) -> String {
    error
        .source()
        .map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

async fn ask(launched: Launched, flavour: &str) -> Result<Vec<Capability>, Absence> {
    let Launched {
        mut child,
        socket,
        output,
        group: _group,
    } = launched;
    let output = tokio::spawn(follow(output, format!("probe of {flavour}")));
    let limit = Duration::from_millis(PROBE_LIMIT_MS);
    let answer = match async_connection(socket, Link::Worker) {
        Ok((_sender, receiver)) => timeout(limit, listen(receiver, &mut child)).await,
        Err(error) => Ok(Err(Absence::ProbeFailed {
            why: with_cause(&error),
        })),
    };
    // Vendor libraries may hang or crash on the way out; the answer counts.
    let _ = child.kill().await;
    let said = timeout(Duration::from_millis(LAST_WORDS_MS), output).await;
    match answer {
        Ok(Err(absence)) => {
            if let Ok(Ok(said)) = said
                && !said.is_empty()
            {
                log::warn!(flavour = flavour; "last words of the probe:\n{said}");
            }
            Err(absence)
        }
        Ok(Ok(found)) => Ok(found),
        Err(_) => Err(Absence::ProbeTimedOut {
            limit_ms: PROBE_LIMIT_MS,
        }),
    }
}

async fn listen(
    mut receiver: AsyncReceiver,
    child: &mut Child,
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
                return Err(match exit_of(status) {
                    Exit {
                        signal: 0,
                        exit_code,
                    } => failed(format!("exit code {exit_code}")),
                    Exit { signal, .. } => Absence::ProbeCrashed { signal },
                });
            }
        };
        match frame_to_event(frame).map_err(|refusal| failed(refusal.to_string()))? {
            WorkerEvent::Hello { build_id, .. } if build_id == BUILD_ID => {}
            WorkerEvent::Hello { build_id, .. } => {
                return Err(failed(format!(
                    "the worker is of build {build_id}, not {BUILD_ID}"
                )));
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
