//! Too little room: for jobs, for models.

use crate::common::{ADD, FOR_EVER, adds_one, eventually, serve, serve_within, tensor};
use crate::{ends, refusal, worker_of};
use anyhow::Result;
use mote_client::{Client, Status, WorkOptions};
use mote_wire::codec::{frame_to_reply, request_to_frame};
use mote_wire::limits::OPEN_REQUESTS_MAX;
use mote_wire::types::{Hello, Infer, Reply, Request, Tensor, TensorData};
use mote_wire::{Connection, Link};
use std::os::unix::net::UnixStream;
use std::path::Path;

const BUDGET_BYTES: u64 = 100_000_000;
/// More than half of the budget.
const LARGE: &str = "providers = [\"fake-cpu\"]\nmemory_bytes = 60000000\n";
const TOO_LARGE: &str = "providers = [\"fake-cpu\"]\nmemory_bytes = 200000000\n";
/// The first id that is not the greeting's.
const FIRST_JOB: u64 = 2;

/// A connection that has sent as many jobs as it may.
fn crowd(socket: &Path) -> Result<Connection> {
    let mut connection = Connection::new(UnixStream::connect(socket)?, Link::Client);
    let hello = Request::Hello(Hello {
        version_min: 1,
        version_max: 1,
        client_name: "crowd".into(),
    });
    connection.send(request_to_frame(1, hello)?)?;
    for id in (FIRST_JOB..).take(OPEN_REQUESTS_MAX) {
        let input = Tensor {
            name: "x".into(),
            dtype: mote_client::DType::F32,
            shape: vec![1, 1],
            data: TensorData::Inline(vec![0; 4]),
        };
        let infer = Infer {
            model: "slow".into(),
            inputs: vec![input],
            outputs: Vec::new(),
            options: WorkOptions {
                credit: 1,
                ..WorkOptions::default()
            },
        };
        connection.send(request_to_frame(id, Request::Infer(infer))?)?;
    }
    Ok(connection)
}

/// All these connections are one user's, whose share is full before the queues are.
fn is_full(status: &Status) -> bool {
    matches!(status, Status::LimitExceeded { what, .. } if what == "open jobs of one user")
}

#[test]
fn full_queues_are_told_and_drain() -> Result<()> {
    let (daemon, _store) = serve(&[tensor("slow", FOR_EVER), tensor("quick", ADD)])?;
    let client = daemon.client()?;
    client.load("slow", &WorkOptions::default())?;
    client.load("quick", &WorkOptions::default())?;
    // More than queues take; each connection stays below its own limit.
    let mut crowds = (0..20)
        .map(|_| crowd(&daemon.socket()))
        .collect::<Result<Vec<_>>>()?;
    let mut refused = 0;
    let last = crowds.last_mut().expect("there are many");
    while refused < OPEN_REQUESTS_MAX {
        let frame = last.recv()?.expect("the connection stays open");
        match frame_to_reply(frame)? {
            (_, Reply::Failed(status)) => {
                assert!(is_full(&status), "{status:?}");
                refused += 1;
            }
            (_, Reply::Welcome(_)) => {}
            (id, reply) => anyhow::bail!("{id}: {reply:?}"),
        }
    }
    let status = refusal(adds_one(&client, "quick"))?;
    assert!(is_full(&status), "{status:?}");
    drop(crowds);
    eventually("the queues are empty", || {
        let status = client.status()?;
        Ok(status.jobs_running + status.jobs_queued == 0)
    })?;
    adds_one(&client, "quick")?;
    Ok(())
}

fn loaded(client: &Client) -> Result<Vec<String>> {
    let models = client.models()?;
    let loaded = models.into_iter().filter(|model| model.loaded);
    Ok(loaded.map(|model| model.name).collect())
}

#[test]
fn a_model_beyond_the_budget_is_refused() -> Result<()> {
    let mut model = tensor("large", ADD);
    model.variant = TOO_LARGE;
    let (daemon, _store) = serve_within(&[model], Some(BUDGET_BYTES))?;
    let client = daemon.client()?;
    let status = refusal(adds_one(&client, "large"))?;
    let Status::OverBudget {
        need_bytes,
        have_bytes,
        ..
    } = status
    else {
        anyhow::bail!("{status:?}")
    };
    assert_eq!((need_bytes, have_bytes), (200_000_000, BUDGET_BYTES));
    assert_eq!(client.status()?.reserved_bytes, 0);
    Ok(())
}

#[test]
fn an_idle_model_makes_room_unless_it_is_pinned() -> Result<()> {
    let [mut one, mut other] = ["one", "other"].map(|name| tensor(name, ADD));
    (one.variant, other.variant) = (LARGE, LARGE);
    let (daemon, _store) = serve_within(&[one, other], Some(BUDGET_BYTES))?;
    let (client, holder) = (daemon.client()?, daemon.client()?);
    adds_one(&client, "one")?;
    let pid = worker_of(&client, "one")?;
    adds_one(&client, "other")?;
    ends(pid)?;
    assert_eq!(loaded(&client)?, ["other"]);
    holder.pin("other")?;
    let status = refusal(adds_one(&client, "one"))?;
    assert!(matches!(status, Status::OverBudget { .. }), "{status:?}");
    assert_eq!(loaded(&client)?, ["other"]);
    adds_one(&client, "other")?;
    // A pin lasts as long as the connection that holds it.
    drop(holder);
    eventually("the pin is gone", || {
        Ok(client.models()?.iter().all(|model| !model.pinned))
    })?;
    adds_one(&client, "one")?;
    assert_eq!(loaded(&client)?, ["one"]);
    // A stream holds its model, too.
    let stream = client.open_stream("one", &WorkOptions::default())?;
    let status = refusal(adds_one(&client, "other"))?;
    assert!(matches!(status, Status::OverBudget { .. }), "{status:?}");
    drop(stream);
    eventually("the stream has ended", || Ok(client.status()?.streams == 0))?;
    adds_one(&client, "other")?;
    Ok(())
}
