//! Trying one way to run a model, in a process of its own.

mod store;

pub use store::TrialStore;

use crate::BUILD_ID;
use crate::core::{Attempt, Exit, Finding, Outcome};
use crate::limits::{HANDSHAKE_MS, LAST_WORDS_MS};
use crate::logging::{brief, brief_end};
use crate::workers::{LaunchError, Launched, exit_of, follow};
use mote_api::Rejection;
use mote_wire::codec::{command_to_frame, frame_to_event};
use mote_wire::types::{Command, Loaded, WorkerEvent};
use mote_wire::{AsyncReceiver, Link, async_connection};
use std::time::Duration;
use tokio::process::Child;
use tokio::time::timeout;

/// Takes a process that was started through a trial. It has ended when this has.
pub async fn attempt(launched: Result<Launched, LaunchError>, attempt: Attempt) -> Finding {
    match launched {
        Ok(launched) => within(launched, attempt).await,
        Err(error) => Finding {
            loaded: None,
            outcome: Outcome::Broken(failed(with_cause(&error))),
        },
    }
}

fn failed(why: String) -> Rejection {
    Rejection::TrialFailed { why }
}

fn with_cause(error: &dyn std::error::Error) -> String {
    error
        .source()
        .map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

async fn within(launched: Launched, attempt: Attempt) -> Finding {
    let Launched {
        mut child,
        socket,
        output,
        group: _group,
    } = launched;
    let output = tokio::spawn(follow(output, "trial".to_owned()));
    let mut loaded = None;
    let ended = match async_connection(socket, Link::Worker) {
        Err(error) => Err(failed(with_cause(&error))),
        Ok((mut sender, receiver)) => {
            let mut process = Process {
                receiver,
                child: &mut child,
            };
            let told = async {
                let terms_json = serde_json::to_vec(&attempt.terms).map_err(|e| e.to_string())?;
                let load = Box::new(attempt.load);
                let frame = command_to_frame(Command::TryModel { load, terms_json });
                let frame = frame.map_err(|error| error.to_string())?;
                sender.send(frame).await.map_err(|error| with_cause(&error))
            };
            match process.greet().await {
                Ok(()) => match told.await {
                    Ok(()) => {
                        let (load_ms, run_ms) = (attempt.limits.load_ms, attempt.limits.run_ms);
                        process.listen(load_ms, run_ms, &mut loaded).await
                    }
                    Err(why) => Err(failed(why)),
                },
                Err(rejection) => Err(rejection),
            }
        }
    };
    // Vendor libraries may hang or crash on the way out; the answer counts.
    let _ = child.kill().await;
    let said = timeout(Duration::from_millis(LAST_WORDS_MS), output).await;
    let outcome = ended.unwrap_or_else(|rejection| {
        if let Ok(Ok(said)) = said
            && !said.is_empty()
        {
            log::warn!("last words of the trial: {}", brief_end(&said));
        }
        Outcome::Broken(rejection)
    });
    Finding { loaded, outcome }
}

struct Process<'a> {
    receiver: AsyncReceiver,
    child: &'a mut Child,
}

impl Process<'_> {
    async fn greet(&mut self) -> Result<(), Rejection> {
        match self.next(HANDSHAKE_MS).await? {
            WorkerEvent::Hello { build_id, .. } if build_id == BUILD_ID => Ok(()),
            WorkerEvent::Hello { build_id, .. } => Err(failed(format!(
                "the worker is of build {build_id}, not {BUILD_ID}"
            ))),
            _ => Err(failed("it said something out of turn".into())),
        }
    }

    async fn listen(
        &mut self,
        load_ms: u64,
        run_ms: u64,
        loaded: &mut Option<Box<Loaded>>,
    ) -> Result<Outcome, Rejection> {
        loop {
            let limit_ms = if loaded.is_some() { run_ms } else { load_ms };
            match self.next(limit_ms).await? {
                WorkerEvent::LoadProgress(_) => {}
                WorkerEvent::Loaded(what) => *loaded = Some(what),
                WorkerEvent::LoadFailed {
                    status,
                    rejection_json,
                } => {
                    log::info!("a model was not loaded for a trial: {}", brief(&status));
                    let rejection = (!rejection_json.is_empty()).then(|| {
                        serde_json::from_slice(&rejection_json)
                            .unwrap_or_else(|_| failed(status.to_string()))
                    });
                    return Ok(Outcome::Unloadable(rejection));
                }
                WorkerEvent::Tried {
                    verdict_json,
                    samples_json,
                } => {
                    let unreadable = |error: serde_json::Error| failed(error.to_string());
                    let verdict = serde_json::from_slice(&verdict_json).map_err(unreadable)?;
                    let samples = match samples_json.as_slice() {
                        [] => None,
                        json => Some(serde_json::from_slice(json).map_err(unreadable)?),
                    };
                    return Ok(Outcome::Tried { verdict, samples });
                }
                _ => return Err(failed("it said something out of turn".into())),
            }
        }
    }

    async fn next(&mut self, limit_ms: u64) -> Result<WorkerEvent, Rejection> {
        let limit = Duration::from_millis(limit_ms);
        match timeout(limit, self.receiver.recv()).await {
            Ok(Ok(Some(frame))) => {
                frame_to_event(frame).map_err(|refusal| failed(refusal.to_string()))
            }
            // A process that dies resets the socket or closes it, as chance has it.
            Ok(Ok(None) | Err(_)) => Err(self.end().await),
            Err(_) => Err(Rejection::TrialTimedOut { limit_ms }),
        }
    }

    async fn end(&mut self) -> Rejection {
        match self.child.wait().await.map(exit_of) {
            Ok(Exit {
                signal: 0,
                exit_code,
            }) => failed(format!("exit code {exit_code}")),
            Ok(Exit { signal, .. }) => Rejection::TrialCrashed { signal },
            Err(error) => failed(error.to_string()),
        }
    }
}
