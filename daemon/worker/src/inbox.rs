//! Commands of the broker, read by whichever thread is free.
//!
//! While the engine is idle it reads the socket itself: a command that wakes it is obeyed without a
//! second thread in between, which halves what a small job costs. While it computes, a watcher reads
//! instead, so that a cancel reaches into the run in progress; runs that are over within
//! [`WATCH_AFTER`] are not worth waking the watcher's processor for.

use crate::engine::Running;
use crate::status::chain;
use crate::stream::Gates;
use mote_wire::types::Command;
use mote_wire::{RecvHalf, Refusal, frame_to_command};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long the engine computes before the watcher begins to read.
const WATCH_AFTER: Duration = Duration::from_millis(2);
/// Commands read ahead of the engine; the watcher stops reading there.
const COMMANDS_MAX: usize = 256;

/// The broker is gone, or does not speak the protocol.
#[derive(Debug, PartialEq, Eq)]
pub struct Gone;

/// Where commands come from.
pub struct Inbox {
    /// Held by whoever reads.
    receiver: Mutex<RecvHalf>,
    state: Mutex<State>,
    changed: Condvar,
    running: Running,
    gates: Gates,
}

#[derive(Default)]
struct State {
    /// Read by the watcher, not yet obeyed.
    ahead: VecDeque<Command>,
    /// Whether the engine computes.
    busy: bool,
    /// How often it began to.
    turns: u64,
    /// Whether the watcher waits for a change.
    is_watched: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inbox {
    /// Over the socket's receiving half; starts the watcher.
    pub fn start(receiver: RecvHalf, running: Running, gates: Gates) -> Arc<Self> {
        let inbox = Arc::new(Self {
            receiver: Mutex::new(receiver),
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
            running,
            gates,
        });
        let watcher = Arc::clone(&inbox);
        std::thread::spawn(move || watcher.watch());
        inbox
    }

    /// The next command if one was read already; the engine goes on computing meanwhile.
    pub fn try_next(&self) -> Option<Command> {
        let mut state = lock(&self.state);
        let begins = !state.busy;
        state.busy = true;
        state.turns += u64::from(begins);
        let command = state.ahead.pop_front();
        if begins || command.is_some() {
            self.notify(&state);
        }
        command
    }

    /// Wakes the watcher if it waits: telling nobody is a system call, too.
    fn notify(&self, state: &State) {
        if state.is_watched {
            self.changed.notify_one();
        }
    }

    /// Waits for the next command; the engine has nothing to compute.
    pub fn next(&self) -> Result<Command, Gone> {
        if let Some(command) = self.read_ahead() {
            return Ok(command);
        }
        // Waits here while the watcher still reads: it lets go after the next command.
        let mut receiver = lock(&self.receiver);
        match self.read_ahead() {
            Some(command) => Ok(command),
            None => self.read(&mut receiver),
        }
    }

    fn read_ahead(&self) -> Option<Command> {
        let mut state = lock(&self.state);
        state.busy = false;
        let command = state.ahead.pop_front();
        self.notify(&state);
        command
    }

    fn read(&self, receiver: &mut RecvHalf) -> Result<Command, Gone> {
        let frame = match receiver.recv() {
            Ok(Some(frame)) => frame,
            Ok(None) => return Err(Gone),
            Err(error) => {
                log::error!("cannot read from the broker: {}", chain(&error));
                return Err(Gone);
            }
        };
        match frame_to_command(frame) {
            Ok(command) => {
                match &command {
                    Command::StartJob(start) => self.running.expect(start.job),
                    Command::CancelJob { job } => self.running.cancel(*job),
                    // A run that lasts must not keep a stream going, or waiting.
                    Command::AttachStream { stream, .. } => self.gates.expect(*stream),
                    Command::HoldStream { stream, held } => self.gates.hold(*stream, *held),
                    _ => {}
                }
                Ok(command)
            }
            Err(Refusal { status, .. }) => {
                log::error!("the broker sent a command that does not hold: {status}");
                Err(Gone)
            }
        }
    }

    /// The watcher's only way to wait.
    fn wait_while<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        condition: impl FnMut(&mut State) -> bool,
    ) -> MutexGuard<'a, State> {
        state.is_watched = true;
        let waited = self.changed.wait_while(state, condition);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.is_watched = false;
        state
    }

    fn watch(&self) {
        loop {
            let turn = self
                .wait_while(lock(&self.state), |state| !state.busy)
                .turns;
            std::thread::sleep(WATCH_AFTER);
            if lock(&self.state).turns != turn {
                continue;
            }
            // Whoever holds it reads: the engine is idle again.
            let Ok(mut receiver) = self.receiver.try_lock() else {
                continue;
            };
            while lock(&self.state).busy {
                let Ok(command) = self.read(&mut receiver) else {
                    // Whatever the engine is doing, nobody is left to hear of it.
                    std::process::exit(0);
                };
                let mut state = lock(&self.state);
                state.ahead.push_back(command);
                let is_full = |state: &mut State| state.busy && state.ahead.len() >= COMMANDS_MAX;
                drop(self.wait_while(state, is_full));
            }
        }
    }
}
