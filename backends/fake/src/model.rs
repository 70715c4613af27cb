//! A loaded script.

use crate::fault::Faults;
use crate::script::Script;
use crate::session::FakeSession;
use crate::{CPU_PROVIDER, text};
use mote_api::{
    BackendError, Buffer, LoadError, LoadRequest, Model, Placement, ProviderShare, Session,
    Signature, Threads,
};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const PAGE_BYTES: usize = 4096;

/// What all sessions of a loaded script share.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub script: Script,
    pub provider: &'static str,
    pub signature: Signature,
    pub runs: AtomicU64,
    /// Held for its size only.
    _weights: Buffer,
}

pub(crate) struct FakeModel {
    loaded: Arc<Loaded>,
    threads: Mutex<Threads>,
}

impl FakeModel {
    pub fn load(request: &LoadRequest, provider: &'static str) -> Result<Self, LoadError> {
        let script = Script::read(&request.file)?;
        if let Some(line) = &script.stderr {
            eprintln!("{line}");
        }
        std::thread::sleep(Duration::from_millis(script.load_ms));
        fail_load(&script, request, provider)?;
        let cpu_nodes = if provider == CPU_PROVIDER {
            script.nodes
        } else {
            script.fall_back_nodes
        };
        if request.forbid_cpu && cpu_nodes > 0 {
            return Err(LoadError::CpuForbidden {
                provider: provider.into(),
                nodes: script.nodes,
                cpu_nodes,
            });
        }
        let weights = touch(script.weights_bytes).map_err(|cause| LoadError::Compile {
            file: request.file.clone(),
            provider: provider.into(),
            cause: BackendError::new("allocate weights", cause),
        })?;
        let signature = match &script.text {
            Some(text) => text::signature(text),
            None => Signature {
                inputs: script.inputs.iter().map(|line| line.spec()).collect(),
                outputs: script.outputs.iter().map(|line| line.spec()).collect(),
            },
        };
        Ok(Self {
            loaded: Arc::new(Loaded {
                script,
                provider,
                signature,
                runs: AtomicU64::new(0),
                _weights: weights,
            }),
            threads: Mutex::new(request.threads),
        })
    }
}

fn fail_load(
    script: &Script,
    request: &LoadRequest,
    provider: &'static str,
) -> Result<(), LoadError> {
    let faults = Faults::new(script, provider);
    if let Some(status) = script.exit_at_load
        && faults.strikes()
    {
        std::process::exit(status);
    }
    if !script.unsupported_operators.is_empty() && faults.strikes() {
        return Err(LoadError::UnsupportedOperators {
            file: request.file.clone(),
            provider: provider.into(),
            operators: script.unsupported_operators.clone(),
        });
    }
    if let Some(text) = &script.fail_load
        && faults.strikes()
    {
        return Err(LoadError::Compile {
            file: request.file.clone(),
            provider: provider.into(),
            cause: BackendError::new("load", text),
        });
    }
    Ok(())
}

/// Memory of which every page has been written.
fn touch(bytes: u64) -> Result<Buffer, mote_api::MemoryError> {
    let buffer = Buffer::private(usize::try_from(bytes).unwrap_or(usize::MAX))?;
    for offset in (0..buffer.len()).step_by(PAGE_BYTES) {
        buffer.copy_in(offset, &[1u8])?;
    }
    Ok(buffer)
}

impl Model for FakeModel {
    fn signature(&self) -> &Signature {
        &self.loaded.signature
    }

    fn placement(&self) -> Placement {
        let script = &self.loaded.script;
        let share = |provider: &str, nodes| ProviderShare {
            provider: provider.into(),
            nodes,
            groups: 0,
            time_us: None,
        };
        let mut shares = match self.loaded.provider {
            CPU_PROVIDER => vec![share(CPU_PROVIDER, script.nodes)],
            other => vec![
                share(other, script.nodes - script.fall_back_nodes),
                share(CPU_PROVIDER, script.fall_back_nodes),
            ],
        };
        shares.retain(|share| share.nodes > 0);
        shares.sort_by_key(|share| std::cmp::Reverse(share.nodes));
        Placement {
            shares,
            read_back: true,
        }
    }

    fn session(&self) -> Result<Box<dyn Session>, LoadError> {
        Ok(Box::new(FakeSession::new(self.loaded.clone())))
    }

    fn set_threads(&self, threads: Threads) -> Result<bool, LoadError> {
        let mut current = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::replace(&mut *current, threads) != threads)
    }
}
