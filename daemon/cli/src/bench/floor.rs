//! The floor: what bare sockets and processes cost on this machine, without any daemon.
//!
//! A request is 64 bytes over a Unix stream socket to another process, which reads every byte of a
//! shared buffer that it mapped once, and answers 64 bytes. With two hops a third process hands both
//! on. Nobody can be faster who crosses as many process borders and reads its input.

use super::placement::Seats;
use super::stats::Samples;
use anyhow::{Context, Result};
use mote_api::{Access, Buffer};
use mote_wire::Memfd;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

const MESSAGE_BYTES: usize = 64;
const WARM_UP: u32 = 20;

/// Round trips over one and two hops.
pub fn measure(bytes: usize, repetitions: u32, seats: &Seats) -> Result<(Samples, Samples)> {
    Ok((
        round_trips(bytes, repetitions, 1, seats)?,
        round_trips(bytes, repetitions, 2, seats)?,
    ))
}

fn round_trips(bytes: usize, repetitions: u32, hops: usize, seats: &Seats) -> Result<Samples> {
    let memfd = Memfd::create("mote-floor", bytes as u64).context("cannot make shared memory")?;
    let memory = Buffer::shared(memfd.as_fd(), bytes, Access::ReadWrite)?;
    memory.copy_in(0, &vec![1u8; bytes])?;
    let (mut own, other) = UnixStream::pair().context("cannot make a socket pair")?;
    let mut peers = Vec::new();
    if hops == 2 {
        let (near, far) = UnixStream::pair().context("cannot make a socket pair")?;
        peers.push(peer("forward", other.into(), near.into())?);
        peers.push(peer("read", far.into(), memfd.try_clone_fd()?)?);
    } else {
        peers.push(peer("read", other.into(), memfd.try_clone_fd()?)?);
    }
    let _seated = seats.take()?;
    for (index, peer) in peers.iter().enumerate() {
        seats.assign(peer.id(), index + 1)?;
    }
    let mut samples = Samples::default();
    let mut message = [0; MESSAGE_BYTES];
    for round in 0..repetitions + WARM_UP {
        let started = Instant::now();
        own.write_all(&message).context("cannot ask the peer")?;
        own.read_exact(&mut message)
            .context("the peer does not answer")?;
        if round >= WARM_UP {
            samples.push(started.elapsed());
        }
    }
    drop(own);
    for mut peer in peers {
        peer.wait().context("cannot wait for a peer")?;
    }
    Ok(samples)
}

/// Starts this program as a peer: its socket is standard input, what it works on standard output.
fn peer(role: &str, socket: OwnedFd, object: OwnedFd) -> Result<Child> {
    let program = std::env::current_exe().context("cannot tell where this program lies")?;
    Command::new(program)
        .args(["bench-peer", role])
        .stdin(Stdio::from(socket))
        .stdout(Stdio::from(object))
        .spawn()
        .context("cannot start a peer")
}

/// The other side; ends when its socket closes.
pub fn serve(role: &str) -> Result<()> {
    let socket = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .context("no socket")?;
    let object = std::io::stdout()
        .as_fd()
        .try_clone_to_owned()
        .context("no object")?;
    let mut socket = UnixStream::from(socket);
    match role {
        "spin" => spin(),
        "forward" => forward(&mut socket, &mut UnixStream::from(object)),
        _ => {
            let bytes =
                usize::try_from(std::fs::File::from(object.try_clone()?).metadata()?.len())?;
            let memory = Buffer::shared(&object, bytes, Access::ReadOnly)?;
            answer(&mut socket, |message| {
                message[..8].copy_from_slice(&memory.checksum().to_le_bytes());
                Ok(())
            })
        }
    }
}

fn forward(near: &mut UnixStream, far: &mut UnixStream) -> Result<()> {
    answer(near, |message| {
        far.write_all(message)?;
        far.read_exact(message)
    })
}

fn answer(
    socket: &mut UnixStream,
    mut with: impl FnMut(&mut [u8; MESSAGE_BYTES]) -> std::io::Result<()>,
) -> Result<()> {
    let mut message = [0; MESSAGE_BYTES];
    loop {
        match socket.read_exact(&mut message) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            read => read.context("cannot read a request")?,
        }
        with(&mut message).context("cannot work on a request")?;
        socket.write_all(&message).context("cannot answer")?;
    }
}

/// Burns one core until standard input closes or the parent dies.
fn spin() -> Result<()> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)
        .context("cannot tie this process to its parent")?;
    let mut value = 1u64;
    loop {
        for _ in 0..1 << 20 {
            value = std::hint::black_box(value.wrapping_mul(6_364_136_223_846_793_005) + 1);
        }
    }
}

/// A process that burns one core while this value lives.
pub struct BusyLoop(Child);

impl BusyLoop {
    /// Starts it.
    pub fn start() -> Result<Self> {
        let program = std::env::current_exe().context("cannot tell where this program lies")?;
        let child = Command::new(program)
            .args(["bench-peer", "spin"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start a busy loop")?;
        Ok(Self(child))
    }
}

impl Drop for BusyLoop {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait().map(drop)) {
            log::warn!("cannot end a busy loop: {error}");
        }
    }
}
