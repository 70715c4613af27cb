//! A loaded model.

use crate::parse::Parsed;
use crate::plan::{Compiled, Plans};
use crate::session::TractSession;
use crate::{PROVIDER, signature};
use mote_api::{LoadError, Model, Placement, ProviderShare, Session, Signature, Threads};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tract_linalg::multithread::Executor;

/// More threads than this are not started.
const THREADS_MAX: usize = 256;

/// What all sessions of a model share.
pub(crate) struct Shared {
    pub signature: Signature,
    pub plans: Plans,
    threads: Mutex<(Threads, Executor)>,
}

impl Shared {
    pub fn executor(&self) -> Executor {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.1.clone()
    }
}

pub(crate) struct TractModel {
    shared: Arc<Shared>,
    nodes: u32,
}

impl TractModel {
    pub fn compile(parsed: Parsed, file: &Path, threads: Threads) -> Result<Self, LoadError> {
        let inputs = signature::inputs(&parsed, file)?;
        let compiled = Plans::compile(parsed.model.clone(), &inputs);
        let compiled = compiled.map_err(|cause| LoadError::Compile {
            file: file.into(),
            provider: PROVIDER.into(),
            cause,
        })?;
        let Compiled {
            plans,
            typed,
            any_shape,
            nodes,
        } = compiled;
        let signature = signature::complete(inputs, &parsed, &typed, any_shape)?;
        Ok(Self {
            shared: Arc::new(Shared {
                signature,
                plans,
                threads: Mutex::new((threads, executor(threads)?)),
            }),
            nodes,
        })
    }
}

/// Threads for tract's matrix kernels. They never spin for long: `Threads::spin` has no effect.
fn executor(threads: Threads) -> Result<Executor, LoadError> {
    match threads.count.min(THREADS_MAX) {
        0 | 1 => Ok(Executor::SingleThread),
        // The calling thread waits while the pool computes, so the pool has all of them.
        count => crate::guard::guard("start threads", || Ok(Executor::multithread(count)))
            .map_err(LoadError::Threads),
    }
}

impl Model for TractModel {
    fn signature(&self) -> &Signature {
        &self.shared.signature
    }

    fn placement(&self) -> Placement {
        Placement {
            shares: vec![ProviderShare {
                provider: PROVIDER.into(),
                nodes: self.nodes,
                groups: self.nodes,
                time_us: None,
            }],
            read_back: true,
        }
    }

    fn session(&self) -> Result<Box<dyn Session>, LoadError> {
        Ok(Box::new(TractSession::new(self.shared.clone())))
    }

    fn set_threads(&self, threads: Threads) -> Result<bool, LoadError> {
        let mut current = self
            .shared
            .threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if current.0.count == threads.count {
            return Ok(false);
        }
        *current = (threads, executor(threads)?);
        Ok(true)
    }
}
