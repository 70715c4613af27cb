//! A daemon for programs in C: their tests need no model.

use crate::common::{Language, Workshop, crate_folder, done};
use anyhow::{Context, Result, bail};
use mote_wire::limits::Limits;
use mote_wire::types::{GenerateClip, Reply, Request, Welcome};
use mote_wire::{Connection, Link, frame_to_request, reply_to_frame};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

/// Builds a program of `tests/c` and runs it, with a socket and the path of a clip, beside a daemon that plays its part.
pub fn run(source: &str, play: fn(&mut Daemon) -> Result<()>) -> Result<()> {
    let workshop = Workshop::new()?;
    let source = crate_folder().join("tests/c").join(source);
    let program = workshop.build(Language::C, &source, &[])?;
    let socket = workshop.path().join("mote.sock");
    let listener = UnixListener::bind(&socket)?;
    let script = thread::spawn(move || play(&mut Daemon::greet(listener.accept()?.0)?));
    let mut command = workshop.command(&program);
    done(command.arg(&socket).arg(workshop.path().join("clip.mp4")))?;
    script.join().expect("no panic")
}

/// A daemon that keeps to a script.
pub struct Daemon(Connection);

impl Daemon {
    /// Answers a client's greeting.
    pub fn greet(socket: UnixStream) -> Result<Self> {
        let mut daemon = Self(Connection::new(socket, Link::Client));
        let (id, _) = daemon.next()?;
        let welcome = Welcome {
            version: 1,
            server_version: "9.9.9".into(),
            limits: Limits::CURRENT,
        };
        daemon.say(id, Reply::Welcome(welcome))?;
        Ok(daemon)
    }

    /// The next request.
    pub fn next(&mut self) -> Result<(u64, Request)> {
        let frame = self.0.recv()?.context("the client has gone")?;
        Ok(frame_to_request(frame)?)
    }

    /// The next request, which must be for a clip.
    pub fn clip(&mut self) -> Result<(u64, GenerateClip)> {
        match self.next()? {
            (id, Request::GenerateClip(clip)) => Ok((id, *clip)),
            (_, other) => bail!("{other:?}"),
        }
    }

    /// Answers a request.
    pub fn say(&mut self, id: u64, reply: Reply) -> Result<()> {
        Ok(self.0.send(reply_to_frame(id, reply)?)?)
    }
}
