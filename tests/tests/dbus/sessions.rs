//! Connections of the wire that are opened on the bus.

use crate::common::{ADD, adds_one, eventually, tensor};
use crate::harness::{Caller, MANAGER, Options, Stage, error, with};
use anyhow::{Context, Result};
use mote_client::Client;
use std::io::Read;
use std::os::unix::net::UnixStream;

/// The session's path, and its socket.
async fn open(caller: &mut Caller) -> Result<(String, UnixStream)> {
    let reply = caller
        .manager("OpenSession", &("add", Options::new()))
        .await??;
    let body = reply.body();
    let (path, socket): (zbus::ObjectPath<'_>, zbus::OwnedFd) = body.deserialize()?;
    let socket = UnixStream::from(std::os::fd::OwnedFd::from(socket));
    Ok((path.to_string(), socket))
}

/// Whether the other end has closed a socket on which nothing was said.
fn has_ended(mut socket: UnixStream) -> Result<()> {
    socket.set_read_timeout(Some(crate::harness::PATIENCE))?;
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).context("it does not end")?;
    Ok(())
}

#[test]
fn a_session_speaks_the_wire_and_loads_nothing_before() -> Result<()> {
    let stage = Stage::scripted(&[tensor("add", ADD)])?;
    with(async {
        let mut caller = stage.caller().await?;
        let (path, socket) = open(&mut caller).await?;
        assert!(stage.daemon.client()?.status()?.workers.is_empty());
        let client = Client::from_socket(socket, "through the bus")?;
        adds_one(&client, "add")?;
        assert!(
            caller
                .properties(&path, "Session")
                .await?
                .contains_key("Model")
        );
        // The session goes with the socket.
        drop(client);
        let gone = caller.signal(MANAGER, "InterfacesRemoved").await?;
        let body = gone.body();
        let (removed, _): (zbus::ObjectPath<'_>, Vec<String>) = body.deserialize()?;
        assert_eq!(removed.as_str(), path);
        let closed = caller
            .object((&path, "Session"), "Close", &Options::new())
            .await?;
        assert_eq!(
            error(closed)?.name,
            "org.freedesktop.DBus.Error.UnknownObject"
        );
        Ok(())
    })
}

#[test]
fn a_session_ends_when_it_is_closed_and_when_its_caller_leaves() -> Result<()> {
    let stage = Stage::scripted(&[tensor("add", ADD)])?;
    let client = stage.daemon.client()?;
    with(async {
        let mut caller = stage.caller().await?;
        let (path, socket) = open(&mut caller).await?;
        caller
            .object((&path, "Session"), "Close", &Options::new())
            .await??;
        has_ended(socket)?;
        let (_, one) = open(&mut caller).await?;
        let (_, other) = open(&mut caller).await?;
        caller.leave().await?;
        has_ended(one)?;
        has_ended(other)?;
        // The gateway has one of its own.
        eventually("the connections are gone", || {
            Ok(client.status()?.connections == 2)
        })
    })
}

#[test]
fn a_session_for_a_model_that_is_not_there_is_refused() -> Result<()> {
    let stage = Stage::scripted(&[tensor("add", ADD)])?;
    with(async {
        let mut caller = stage.caller().await?;
        let refused = caller
            .manager("OpenSession", &("nothing", Options::new()))
            .await?;
        assert_eq!(error(refused)?.name, "org.moted.Error.ModelNotFound");
        Ok(())
    })
}
