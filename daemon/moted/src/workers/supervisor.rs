//! One task per worker: carries its events to the core until it has ended.

use super::launch::Launched;
use super::output;
use crate::core::{Event, Exit};
use crate::ids::WorkerId;
use crate::limits::{LAST_WORDS_MS, WORKER_QUEUE_BYTES_MAX, WORKER_QUEUE_MAX};
use crate::way::{Bounds, WayOut};
use mote_wire::codec::frame_to_event;
use mote_wire::{AsyncReceiver, Frame, Link, WireError, async_connection};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Child;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until, timeout};

const LAST_WORDS: Duration = Duration::from_millis(LAST_WORDS_MS);
const BOUNDS: Bounds = Bounds {
    frames_max: WORKER_QUEUE_MAX,
    bytes_max: WORKER_QUEUE_BYTES_MAX,
};

/// A running worker, as the daemon holds it.
#[derive(Debug)]
pub struct Handle {
    commands: WayOut,
    kill: Arc<Notify>,
}

impl Handle {
    /// Queues a command for the next flush of [`Handle::way`]; a worker that lets too many pile up
    /// is killed.
    pub fn push(&self, frame: Frame) {
        if self.commands.push(frame).is_err() {
            log::warn!("a worker does not read its commands");
            self.kill();
        }
    }

    /// What commands go out by.
    pub fn way(&self) -> &WayOut {
        &self.commands
    }

    /// Kills the worker.
    pub fn kill(&self) {
        self.kill.notify_one();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.commands.close();
    }
}

/// How a process ended.
pub fn exit_of(status: ExitStatus) -> Exit {
    Exit {
        signal: status.signal().unwrap_or(0),
        exit_code: status.code().unwrap_or(0),
    }
}

/// Takes charge of a process that was started. [`Event::WorkerEnded`] is the last event of it.
///
/// # Errors
/// When its socket cannot be set up; the process is killed then.
pub fn supervise(
    launched: Launched,
    worker: WorkerId,
    events: mpsc::Sender<Event>,
) -> Result<Handle, WireError> {
    let Launched {
        child,
        socket,
        output,
        group,
    } = launched;
    let (sender, receiver) = async_connection(socket, Link::Worker)?;
    let (commands, _) = WayOut::open(sender, BOUNDS);
    let kill = Arc::new(Notify::new());
    let output = tokio::spawn(output::follow(output, format!("worker {worker}")));
    let watched = Watched {
        child,
        receiver,
        worker,
        events,
        kill: Arc::clone(&kill),
    };
    tokio::spawn(async move {
        let mut watched = watched;
        let exit = watched.watch().await;
        drop(group);
        let said = timeout(LAST_WORDS, output).await;
        if exit != Exit::default()
            && let Ok(Ok(said)) = said
            && !said.is_empty()
        {
            log::warn!(worker = worker.0; "last words of the worker:\n{said}");
        }
        // The core outlives every worker; without it nobody needs to know.
        let _ = watched
            .events
            .send(Event::WorkerEnded { worker, exit })
            .await;
    });
    Ok(Handle { commands, kill })
}

struct Watched {
    child: Child,
    receiver: AsyncReceiver,
    worker: WorkerId,
    events: mpsc::Sender<Event>,
    kill: Arc<Notify>,
}

impl Watched {
    /// Reads events until the process has ended and its socket is empty.
    async fn watch(&mut self) -> Exit {
        let mut listening = true;
        let mut patience = Instant::now();
        let status = loop {
            tokio::select! {
                frame = self.receiver.recv(), if listening => {
                    listening = self.pass_on(frame).await;
                    patience = Instant::now() + LAST_WORDS;
                }
                status = self.child.wait() => break status,
                () = self.kill.notified() => self.kill_now(),
                // A process that has closed its socket has nothing left to live for.
                () = sleep_until(patience), if !listening => {
                    self.kill_now();
                    patience += Duration::from_secs(1);
                }
            }
        };
        let last_words = async {
            while listening {
                let frame = self.receiver.recv().await;
                listening = self.pass_on(frame).await;
            }
        };
        // Whoever else holds its socket open is not waited for.
        let _ = timeout(LAST_WORDS, last_words).await;
        status.map(exit_of).unwrap_or_default()
    }

    /// Passes an event on; answers whether there may be more.
    async fn pass_on(&mut self, frame: Result<Option<Frame>, WireError>) -> bool {
        let event = match frame {
            Ok(Some(frame)) => frame_to_event(frame),
            Ok(None) => return false,
            Err(error) => {
                log::warn!(worker = self.worker.0; "cannot read from a worker: {error}");
                return false;
            }
        };
        match event {
            Ok(event) => {
                let event = Event::Worker {
                    worker: self.worker,
                    event,
                };
                self.events.send(event).await.is_ok()
            }
            Err(refusal) => {
                log::error!(worker = self.worker.0; "a worker does not speak the wire: {refusal}");
                false
            }
        }
    }

    fn kill_now(&mut self) {
        // Not reaped yet, so the number is still its own; its group is what it may have started.
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
        // Only fails when it has ended already.
        let _ = self.child.start_kill();
    }
}
