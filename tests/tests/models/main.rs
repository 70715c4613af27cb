//! Real models through the daemon, against what the reference runtimes computed.
//!
//! `tests/run` fetches the models and runtimes and writes the reference cases.

mod architectures;
mod bad_files;
mod bad_input;
mod clips;
mod embedding;
mod frames;
mod generated_clips;
mod language;
mod sharing;
mod streams;
mod tensors;

use anyhow::{Context, Result};
use mote_client::{Client, Input, OwnedTensor, Receipt, WorkOptions};
use mote_tests::daemon::{Daemon, Setup};
use mote_tests::npy::{Array, max_difference, numbers};
use mote_tests::prepared;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

const ONNXRUNTIME: Place = Place {
    backend: "onnxruntime",
    provider: "CPUExecutionProvider",
};
const TRACT: Place = Place {
    backend: "tract",
    provider: "tract-cpu",
};
const XNNPACK: Place = Place {
    backend: "tflite",
    provider: "XNNPACK",
};
const TFLITE_CPU: Place = Place {
    backend: "tflite",
    provider: "TFLITE-CPU",
};

/// Where a test wants its model to run, and what the receipt must say of it.
#[derive(Clone, Copy, Debug)]
struct Place {
    backend: &'static str,
    provider: &'static str,
}

impl Place {
    fn required(&self) -> WorkOptions {
        WorkOptions {
            require_backend: Some(self.backend.into()),
            require_provider: Some(self.provider.into()),
            ..WorkOptions::default()
        }
    }

    /// The receipt of work on `model` that was done there.
    fn check(&self, model: &str, receipt: &Receipt) {
        assert_eq!(receipt.model, model);
        assert_eq!(receipt.backend, self.backend, "{model}");
        let share = receipt
            .placement
            .iter()
            .find(|share| share.provider == self.provider);
        let nodes = share.map_or(0, |share| share.nodes);
        let placement = &receipt.placement;
        assert!(nodes > 0, "{model} on {self:?}: {placement:?}");
        assert!(receipt.placement_read_back, "{model}: {placement:?}");
        assert_eq!(receipt.device.kind, "cpu", "{model}");
        assert!(receipt.local && receipt.steps > 0 && receipt.compute_us > 0);
        assert!(!receipt.flavour.is_empty() && !receipt.variant.is_empty());
    }
}

/// A connection to the daemon that the tests here share, over all that was prepared.
struct Session {
    client: Client,
    // Ends with its last session, so that it leaves nothing behind; after the connection.
    _daemon: Arc<Daemon>,
}

impl std::ops::Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

fn client() -> Result<Session> {
    static DAEMON: Mutex<Weak<Daemon>> = Mutex::new(Weak::new());
    let mut shared = DAEMON.lock().unwrap_or_else(PoisonError::into_inner);
    let daemon = match shared.upgrade() {
        Some(daemon) => daemon,
        None => Arc::new(own_daemon()?),
    };
    *shared = Arc::downgrade(&daemon);
    Ok(Session {
        client: daemon.client()?,
        _daemon: daemon,
    })
}

/// A daemon over all that was prepared, for a test that shares it with nobody.
fn own_daemon() -> Result<Daemon> {
    Daemon::start(&Setup {
        stores: vec![prepared("MOTE_TEST_MODELS")?],
        runtimes: vec![prepared("MOTE_RUNTIMES")?],
        // Which way is fastest here is not what these tests are about.
        choose: Some("ranked"),
        ..Setup::default()
    })
}

/// Arrays as inputs of a request.
fn inputs(arrays: &BTreeMap<String, Array>) -> Vec<Input<'_>> {
    arrays
        .iter()
        .map(|(name, array)| Input::bytes(name, array.dtype, &array.shape, &array.bytes))
        .collect()
}

/// An output by name.
fn output<'a>(outputs: &'a [OwnedTensor], name: &str) -> Result<&'a OwnedTensor> {
    let found = outputs.iter().find(|output| output.name == name);
    found.with_context(|| format!("there is no output {name}"))
}

/// The elements of an output as numbers.
fn values(output: &OwnedTensor) -> Result<Vec<f64>> {
    let bytes = output.bytes().context("an output without a target")?;
    Ok(numbers(output.dtype, bytes))
}

/// Each wanted array is there, in type, shape and value.
fn check_outputs(
    outputs: &[OwnedTensor],
    wanted: &BTreeMap<String, Array>,
    tolerance: f64,
) -> Result<()> {
    assert!(!wanted.is_empty());
    for (name, array) in wanted {
        let output = output(outputs, name)?;
        assert_eq!((output.dtype, &output.shape), (array.dtype, &array.shape));
        let difference = max_difference(&values(output)?, &array.numbers());
        // A NaN is no difference that `<=` lets pass, but `max` drops it.
        assert!(values(output)?.iter().all(|value| value.is_finite()));
        assert!(difference <= tolerance, "{name} is off by {difference}");
    }
    Ok(())
}
