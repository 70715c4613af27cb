//! [`Model`]: a loaded file, whose engine can be replaced while sessions use it.

use crate::engine::{Engine, Interface, spins_for_a_limit};
use crate::failure::{backend_error, chain};
use crate::mover::Mover;
use crate::providers::Provider;
use crate::session::OrtSession;
use mote_api::{
    BackendError, DType, LoadError, LoadRequest, Model, Placement, Profile, Session, Signature,
    Threads,
};
use ort::environment::Environment;
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Movers kept, one for each type and shape of state; a model has few.
const MOVERS_MAX: usize = 16;

pub(crate) struct OrtModel(Arc<Shared>);

/// What a model and its sessions share.
pub(crate) struct Shared {
    pub(crate) environment: Environment,
    /// Version of the library.
    library: String,
    pub(crate) row: &'static Provider,
    request: LoadRequest,
    pub(crate) interface: Interface,
    /// Ordinary CPU memory, in the library's terms.
    pub(crate) memory: MemoryInfo<'static>,
    engine: RwLock<Arc<Engine>>,
    /// What `engine` was made with; held while it is being replaced.
    threads: Mutex<Threads>,
    /// Least recently made first.
    movers: Mutex<Vec<Arc<Mover>>>,
}

impl Shared {
    /// A way to copy tensors of this type and shape from and to the device.
    pub(crate) fn mover(&self, dtype: DType, shape: &[usize]) -> Result<Arc<Mover>, LoadError> {
        let mut movers = self.movers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = movers.iter().find(|mover| mover.fits(dtype, shape)) {
            return Ok(Arc::clone(known));
        }
        let mover = Mover::load(&self.environment, self.row, &self.request, dtype, shape)?;
        let mover = Arc::new(mover);
        if movers.len() >= MOVERS_MAX {
            movers.remove(0);
        }
        movers.push(Arc::clone(&mover));
        Ok(mover)
    }

    /// The engine to run on now.
    pub(crate) fn engine(&self) -> Arc<Engine> {
        let engine = self.engine.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&engine)
    }
}

impl OrtModel {
    pub(crate) fn load(
        environment: &Environment,
        library: &str,
        row: &'static Provider,
        request: &LoadRequest,
    ) -> Result<Self, LoadError> {
        let engine = Engine::load(environment, library, row, request)?;
        Self::new(environment, library, row, request, engine)
    }

    /// A model over an engine that `request` made.
    pub(crate) fn new(
        environment: &Environment,
        library: &str,
        row: &'static Provider,
        request: &LoadRequest,
        engine: Engine,
    ) -> Result<Self, LoadError> {
        let (device, kind) = (AllocationDevice::CPU, AllocatorType::Device);
        let memory = MemoryInfo::new(device, 0, kind, MemoryType::Default)
            .map_err(|error| LoadError::Session(backend_error("describe CPU memory", &error)))?;
        Ok(Self(Arc::new(Shared {
            environment: environment.clone(),
            library: library.to_owned(),
            row,
            request: request.clone(),
            interface: engine.interface.clone(),
            memory,
            engine: RwLock::new(Arc::new(engine)),
            threads: Mutex::new(effective(request.threads)),
            movers: Mutex::default(),
        })))
    }
}

/// One thread has nobody to spin for.
fn effective(threads: Threads) -> Threads {
    let count = threads.count.max(1);
    Threads {
        count,
        spin: threads.spin && count > 1,
    }
}

impl Model for OrtModel {
    fn signature(&self) -> &Signature {
        &self.0.interface.signature
    }

    fn placement(&self) -> Placement {
        self.0.engine().placement.clone()
    }

    fn session(&self) -> Result<Box<dyn Session>, LoadError> {
        let session = OrtSession::new(Arc::clone(&self.0))
            .map_err(|error| LoadError::Session(backend_error("make run options", &error)))?;
        Ok(Box::new(session))
    }

    /// The library fixes threads and spinning when a session is made, so this loads the file
    /// again and swaps the result in. Both copies of the weights are in memory meanwhile. A model
    /// with tensors in memory of a device keeps its threads: they hardly matter to it, two copies of
    /// the weights may be more than the device holds, and states are the old session's memory. Nor is
    /// it worth a load to end spinning where the library limits it.
    fn set_threads(&self, threads: Threads) -> Result<bool, LoadError> {
        let shared = &*self.0;
        let mut current = shared
            .threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let threads = effective(threads);
        if *current == threads || shared.engine().has_device_memory() {
            return Ok(false);
        }
        let only_ends_spinning = current.count == threads.count && current.spin;
        if only_ends_spinning && spins_for_a_limit(&shared.library) {
            return Ok(false);
        }
        let request = LoadRequest {
            threads,
            ..shared.request.clone()
        };
        let failed = |why: String| LoadError::Threads(BackendError::new("load again", why));
        let engine = Engine::load(&shared.environment, &shared.library, shared.row, &request)
            .map_err(|error| failed(chain(&error)))?;
        if engine.interface != shared.interface {
            return Err(failed("the model file is not the one loaded before".into()));
        }
        let old = std::mem::replace(
            &mut *shared
                .engine
                .write()
                .unwrap_or_else(PoisonError::into_inner),
            Arc::new(engine),
        );
        *current = threads;
        // Freed here, not under the lock that every run takes; or by the run that still uses it.
        drop(old);
        Ok(true)
    }

    fn end_profile(&self) -> Result<Option<Profile>, LoadError> {
        let engine = self.0.engine();
        let profile = self
            .0
            .request
            .profile
            .as_ref()
            .map(|_| engine.end_profile());
        profile.transpose().map_err(LoadError::Session)
    }
}
