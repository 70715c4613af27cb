//! One compiled ONNX Runtime session: a model file, a provider, a number of threads.

use crate::compiled::{self, Keeps};
use crate::failure::{backend_error, chain, forget_logged, load_error};
use crate::operators;
use crate::profile;
use crate::providers::Provider;
use crate::sys::{self, DeviceValue, Place, Produced, RawSession, Side, TensorInfo, ValueRef};
use crate::turn::Turn;
use mote_api::{
    BackendError, DType, LoadError, LoadRequest, Placement, Profile, RANK_MAX, Signature,
    TensorSpec,
};
use ort::environment::Environment;
use ort::session::RunOptions;
use ort::session::builder::SessionBuilder;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// More threads than any board has; larger requests are cut to it.
const THREADS_MAX: usize = 256;
/// Makes the library remember which provider got which node.
const RECORD_ASSIGNMENT: (&str, &str) = ("session.record_ep_graph_assignment_info", "1");

/// Makes threads that spin stop when a run ends: between runs there is nothing to wait for.
const SPIN_WITHIN_RUNS: (&str, &str) = ("session.force_spinning_stop", "1");
/// How long a thread spins before it sleeps. On an idle machine 30 to 300 µs decode as fast as
/// the library's own choice; beside a busy loop that takes more than half of the speed, 100 µs a tenth.
const SPIN_LIMIT: (&str, &str) = ("session.intra_op.spin_duration_us", "100");
/// The oldest library that was seen to know of a [limit](SPIN_LIMIT): 1.24.1 does not, and leaves it unread.
const SPIN_LIMIT_SINCE: [u32; 3] = [1, 31, 1];

/// A model compiled for one provider with a fixed number of threads.
pub(crate) struct Engine {
    session: Arc<RawSession>,
    turn: Turn,
    pub(crate) interface: Interface,
    pub(crate) placement: Placement,
    pub(crate) places: Places,
}

/// Per input and output, the device memory that it is wanted in or comes in; `None` for the host's.
/// Both are empty where all of it is the host's, or where the library does not know.
#[derive(Default)]
pub(crate) struct Places {
    pub(crate) inputs: Vec<Option<Place>>,
    pub(crate) outputs: Vec<Option<Place>>,
}

/// What a model's tensors are like.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) signature: Signature,
    /// Per input and output, whether even the rank is decided at run time; its shape in the
    /// signature is then empty.
    pub(crate) any_rank: (Vec<bool>, Vec<bool>),
    /// Per output, whether it is an input by the same name. The library then ignores memory bound
    /// for it and answers the input itself.
    pub(crate) passed_through: Vec<bool>,
}

/// What one run gave.
pub(crate) struct Computed {
    /// Outputs the library allocated, at their positions.
    pub(crate) produced: Vec<Option<Produced>>,
    pub(crate) compute: Duration,
}

impl Engine {
    /// Loads `request.file` on the provider of `row`: what was compiled before, if there is such and
    /// it may be kept, or else the file.
    pub(crate) fn load(
        environment: &Environment,
        library: &str,
        row: &Provider,
        request: &LoadRequest,
    ) -> Result<Self, LoadError> {
        check_readable(&request.file)?;
        let kept = match (&request.compiled, row.keeps) {
            (Some(folder), Keeps::Context) => Some(folder),
            _ => None,
        };
        if let Some(folder) = kept {
            if let Some(engine) = Self::recall(environment, library, row, request, folder) {
                return engine.allowed(row, request);
            }
            if let Some(engine) = Self::compile_and_keep(environment, library, row, request, folder)
            {
                return engine.allowed(row, request);
            }
        }
        let builder = Self::builder(environment, row, request)?;
        let session = RawSession::from_file(environment, builder, &request.file);
        Self::of(session, row, request)?.allowed(row, request)
    }

    /// Loads a model from memory; the file of `request` is for messages only.
    pub(crate) fn load_bytes(
        environment: &Environment,
        row: &Provider,
        request: &LoadRequest,
        model: &[u8],
    ) -> Result<Self, LoadError> {
        let builder = Self::builder(environment, row, request)?;
        let session = RawSession::from_bytes(environment, builder, model);
        Self::of(session, row, request)?.allowed(row, request)
    }

    /// What was compiled before; `None` when there is nothing, or it is of no use any more.
    fn recall(
        environment: &Environment,
        library: &str,
        row: &Provider,
        request: &LoadRequest,
        folder: &Path,
    ) -> Option<Self> {
        let of_no_use = |why: &str| log::warn!("what was compiled before is of no use: {why}");
        let found = match compiled::find(folder, library) {
            Ok(found) => found?,
            Err(error) => {
                of_no_use(&error.to_string());
                return None;
            }
        };
        let builder = Self::builder(environment, row, request);
        let session = |builder| RawSession::from_file(environment, builder, &found.model);
        let loaded = builder.and_then(|builder| Self::of(session(builder), row, request));
        match loaded {
            // Each group is one node now.
            Ok(engine) if engine.groups() == groups(&found.placement) => Some(Self {
                placement: found.placement,
                ..engine
            }),
            Ok(_) => {
                of_no_use("it is placed otherwise than it was");
                None
            }
            Err(error) => {
                of_no_use(&chain(&error));
                None
            }
        }
    }

    /// Compiles and keeps the result; `None` when that does not work together.
    fn compile_and_keep(
        environment: &Environment,
        library: &str,
        row: &Provider,
        request: &LoadRequest,
        folder: &Path,
    ) -> Option<Self> {
        let cannot = |why: &str| log::warn!("cannot keep what {} compiles: {why}", row.name);
        if let Err(error) = compiled::clear(folder) {
            cannot(&error.to_string());
            return None;
        }
        let compile = || -> Result<Self, LoadError> {
            let entries = compiled::entries(folder).into_iter().flatten();
            let mut builder = Self::builder(environment, row, request)?;
            for (key, value) in entries {
                builder = builder.with_config_entry(key, &value).map_err(|error| {
                    LoadError::Session(backend_error("set a session option", &error))
                })?;
            }
            let session = RawSession::from_file(environment, builder, &request.file);
            Self::of(session, row, request)
        };
        match compile() {
            Ok(engine) => {
                if let Err(error) = compiled::keep(folder, library, &engine.placement) {
                    cannot(&error.to_string());
                }
                Some(engine)
            }
            Err(error) => {
                log::debug!("not compiled to be kept: {}", chain(&error));
                // What is half written takes room for nothing.
                if let Err(error) = compiled::clear(folder) {
                    cannot(&error.to_string());
                }
                None
            }
        }
    }

    /// Session options with the provider registered.
    fn builder(
        environment: &Environment,
        row: &Provider,
        request: &LoadRequest,
    ) -> Result<SessionBuilder, LoadError> {
        forget_logged();
        let builder = options(environment, request).map_err(LoadError::Session)?;
        row.register(builder, environment, request)
    }

    fn of(
        session: Result<RawSession, ort::Error>,
        row: &Provider,
        request: &LoadRequest,
    ) -> Result<Self, LoadError> {
        let session = session.map_err(|error| load_error(request, row.name, &error))?;
        Self::finish(session, &request.file)
    }

    /// Refuses what runs on the CPU though it must not.
    fn allowed(self, row: &Provider, request: &LoadRequest) -> Result<Self, LoadError> {
        let (nodes, cpu_nodes) = self.nodes();
        // A provider that took nothing would be the CPU by stealth.
        let took_nothing = row.name != crate::CPU_PROVIDER && nodes > 0 && cpu_nodes == nodes;
        if took_nothing || (request.forbid_cpu && cpu_nodes > 0) {
            return Err(LoadError::CpuForbidden {
                provider: row.name.to_owned(),
                nodes,
                cpu_nodes,
            });
        }
        Ok(self)
    }

    /// Per provider, the groups of nodes that are one node each in what was compiled; the CPU's are
    /// not compiled.
    fn groups(&self) -> Vec<(&str, u32)> {
        groups(&self.placement)
    }

    fn finish(session: RawSession, file: &Path) -> Result<Self, LoadError> {
        let read = |error: ort::Error| LoadError::Session(backend_error("read the model", &error));
        let inputs = specs(file, session.tensors(Side::Input).map_err(read)?)?;
        let outputs = specs(file, session.tensors(Side::Output).map_err(read)?)?;
        let passed_through = outputs
            .0
            .iter()
            .map(|output| inputs.0.iter().any(|input| input.name == output.name))
            .collect();
        let mut shares = session
            .assignment()
            .map_err(|error| LoadError::Session(backend_error("read the assignment", &error)))?;
        shares.sort_by_key(|share| std::cmp::Reverse(share.nodes));
        let placement = Placement {
            shares,
            read_back: true,
        };
        Ok(Self {
            places: places(&session, &placement),
            session: Arc::new(session),
            turn: Turn::default(),
            interface: Interface {
                any_rank: (inputs.1, outputs.1),
                passed_through,
                signature: Signature {
                    inputs: inputs.0,
                    outputs: outputs.0,
                },
            },
            placement,
        })
    }

    /// All nodes, and those on the CPU.
    pub(crate) fn nodes(&self) -> (u32, u32) {
        let cpu_nodes = self.placement.nodes_on(crate::CPU_PROVIDER);
        (self.placement.nodes(), cpu_nodes)
    }

    /// Ends the profile of this session's runs, and reads it; the file is removed.
    pub(crate) fn end_profile(&self) -> Result<Profile, BackendError> {
        let _turn = self.turn.take();
        let failed = |error: ort::Error| backend_error("end the profile", &error);
        let file = PathBuf::from(self.session.end_profiling().map_err(failed)?);
        let profile = profile::read(&file);
        let removed = std::fs::remove_file(&file);
        let read = |cause: std::io::Error| BackendError::new("read the profile", cause);
        let profile = profile.map_err(read)?;
        removed.map_err(read)?;
        Ok(profile)
    }

    /// Whether inputs or outputs lie in memory that only a device reaches.
    pub(crate) fn has_device_memory(&self) -> bool {
        let Places { inputs, outputs } = &self.places;
        inputs.iter().chain(outputs).any(Option::is_some)
    }

    /// A tensor where input `input` is wanted; it keeps the session, whose memory it is.
    pub(crate) fn device_value(
        &self,
        input: usize,
        dtype: DType,
        shape: &[usize],
    ) -> Result<DeviceValue, ort::Error> {
        DeviceValue::for_input(&self.session, input, dtype, shape)
    }

    /// Waits for the turn and copies a tensor from or to the device.
    pub(crate) fn copy(
        &self,
        environment: &Environment,
        from: ValueRef<'_>,
        to: ValueRef<'_>,
    ) -> Result<(), ort::Error> {
        let _turn = self.turn.take();
        sys::copy_value(environment, from, to)
    }

    /// Waits for the turn and computes once.
    pub(crate) fn run<'a>(
        &self,
        options: &RunOptions,
        inputs: impl ExactSizeIterator<Item = ValueRef<'a>>,
        outputs: impl ExactSizeIterator<Item = Option<ValueRef<'a>>>,
    ) -> Result<Computed, ort::Error> {
        let turn = self.turn.take();
        let start = Instant::now();
        let produced = self.session.run(&turn, options, inputs, outputs)?;
        Ok(Computed {
            produced,
            compute: start.elapsed(),
        })
    }
}

/// Where inputs and outputs lie. On the CPU alone there is nothing to ask; where the library does not
/// know (an output that is a constant), state stays on the host.
fn places(session: &RawSession, placement: &Placement) -> Places {
    if placement.nodes_on(crate::CPU_PROVIDER) == placement.nodes() {
        return Places::default();
    }
    let on_device = |side| match session.places(side) {
        Ok(places) => {
            let beyond = |place: Option<Place>| place.filter(|place| !place.is_host());
            places.into_iter().map(beyond).collect()
        }
        Err(error) => {
            log::debug!("where tensors lie is not known: {error}");
            Vec::new()
        }
    };
    Places {
        inputs: on_device(Side::Input),
        outputs: on_device(Side::Output),
    }
}

/// The system's own error for a file that cannot be read; the library's is a text.
fn check_readable(file: &Path) -> Result<(), LoadError> {
    let readable = std::fs::File::open(file).and_then(|opened| match opened.metadata()?.is_dir() {
        true => Err(std::io::ErrorKind::IsADirectory.into()),
        false => Ok(()),
    });
    readable.map_err(|cause| LoadError::Read {
        file: file.to_path_buf(),
        cause,
    })
}

/// Groups of compiled nodes per provider.
fn groups(placement: &Placement) -> Vec<(&str, u32)> {
    let shares = placement.shares.iter();
    let compiled = shares.filter(|share| share.provider != crate::CPU_PROVIDER);
    let mut groups: Vec<_> = compiled
        .map(|share| (share.provider.as_str(), share.groups))
        .collect();
    groups.sort_unstable();
    groups
}

/// Whether threads that spin in this library do so for a [limited time](SPIN_LIMIT) only.
pub(crate) fn spins_for_a_limit(library_version: &str) -> bool {
    let numbers = library_version.split('.').map(str::parse);
    let numbers: Result<Vec<u32>, _> = numbers.collect();
    numbers.is_ok_and(|numbers| numbers.as_slice() >= SPIN_LIMIT_SINCE.as_slice())
}

/// Session options for a request: nodes one after another, each on all threads. Without memory
/// patterns, because the library keeps one for every input shape it ever saw (24 batch sizes of
/// one model took 230 MB instead of 153 MB) and runs no faster with them.
fn options(
    environment: &Environment,
    request: &LoadRequest,
) -> Result<SessionBuilder, BackendError> {
    let threads = request.threads;
    let set = || -> Result<SessionBuilder, ort::Error> {
        let mut builder = SessionBuilder::new(environment)?
            .with_intra_threads(threads.count.clamp(1, THREADS_MAX))?
            .with_inter_threads(1)?
            .with_parallel_execution(false)?
            .with_intra_op_spinning(threads.spin && threads.count > 1)?
            .with_inter_op_spinning(false)?
            .with_config_entry(SPIN_LIMIT.0, SPIN_LIMIT.1)?
            .with_config_entry(SPIN_WITHIN_RUNS.0, SPIN_WITHIN_RUNS.1)?
            .with_memory_pattern(false)?
            .with_config_entry(RECORD_ASSIGNMENT.0, RECORD_ASSIGNMENT.1)?
            .with_operators(operators::domain()?)?;
        for (name, &size) in &request.dimensions {
            let size = i64::try_from(size).unwrap_or(i64::MAX);
            builder = builder.with_dimension_override(name, size)?;
        }
        if let Some(folder) = &request.profile {
            builder = builder.with_profiling(folder.join(profile::PREFIX))?;
        }
        Ok(builder)
    };
    set().map_err(|error| backend_error("set session options", &error))
}

/// Specs of one side, and which of them have any rank.
fn specs(file: &Path, tensors: Vec<TensorInfo>) -> Result<(Vec<TensorSpec>, Vec<bool>), LoadError> {
    let any_rank = tensors.iter().map(|tensor| tensor.dims.is_none()).collect();
    let specs: Result<_, _> = tensors.into_iter().map(|t| spec(file, t)).collect();
    Ok((specs?, any_rank))
}

fn spec(file: &Path, tensor: TensorInfo) -> Result<TensorSpec, LoadError> {
    let unserved = |dtype: String| LoadError::UnservedType {
        name: tensor.name.clone(),
        dtype,
    };
    if tensor.kind != sys::ONNX_TYPE_TENSOR {
        return Err(unserved(kind_name(tensor.kind)));
    }
    let dtype = sys::dtype(tensor.element).ok_or_else(|| unserved(element_name(tensor.element)))?;
    let dims = tensor.dims.unwrap_or_default();
    if dims.len() > RANK_MAX {
        let why = format!(
            "tensor {:?} has {} dimensions, more than {RANK_MAX}",
            tensor.name,
            dims.len()
        );
        return Err(LoadError::Malformed {
            file: file.to_path_buf(),
            cause: BackendError::new("read the model", why),
        });
    }
    Ok(TensorSpec {
        name: tensor.name,
        dtype,
        shape: dims.into_iter().map(|d| usize::try_from(d).ok()).collect(),
    })
}

fn kind_name(kind: i32) -> String {
    match kind {
        2 => "sequence".into(),
        3 => "map".into(),
        4 => "opaque".into(),
        5 => "sparse tensor".into(),
        6 => "optional".into(),
        other => format!("ONNX type {other}"),
    }
}

fn element_name(element: i32) -> String {
    match element {
        8 => "string".into(),
        14 => "complex64".into(),
        15 => "complex128".into(),
        17..=20 => "8-bit float".into(),
        21 | 22 => "4-bit integer".into(),
        other => format!("ONNX element type {other}"),
    }
}
