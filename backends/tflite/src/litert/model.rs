//! A model that LiteRT compiled for one kind of device.

use super::compiled::{CompileError, Compiled, Target};
use super::dispatch::Dispatch;
use super::objects::{Environment, ModelObject, Side, TensorEntry};
use super::session::LiteRtSession;
use super::sys::{ACCELERATOR_CPU, ACCELERATOR_NPU, Api};
use super::{LITERT_CPU, LITERT_NPU};
use crate::delegate::thread_count;
use crate::model::{dtype, unknown_operators};
use crate::model_file::malformed;
use mote_api::{
    BackendError, Buffer, LoadError, LoadRequest, Model, Placement, ProviderShare, Session,
    Signature, TensorSpec, Threads,
};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

/// Shapes of inputs, and of outputs.
type Shapes = (Vec<Vec<usize>>, Vec<Vec<usize>>);

/// What all sessions of a model share.
pub(crate) struct Shared {
    environment: Arc<Environment>,
    /// The file, which is parsed anew for each session.
    bytes: Buffer,
    file: PathBuf,
    target: Target,
    has_compiler: bool,
    pub inputs: Vec<TensorEntry>,
    pub outputs: Vec<TensorEntry>,
    /// Shapes of the inputs as the file has them.
    pub file_shapes: Vec<Vec<usize>>,
    pub signature: Signature,
}

impl Shared {
    /// Whether kernels of a vendor compute.
    pub fn is_foreign(&self) -> bool {
        self.target.accelerator == ACCELERATOR_NPU
    }

    pub fn provider(&self) -> &'static str {
        match self.is_foreign() {
            true => LITERT_NPU,
            false => LITERT_CPU,
        }
    }

    fn parse(&self) -> Result<ModelObject, LoadError> {
        ModelObject::parse(self.environment.clone(), self.bytes.clone())
            .map_err(|cause| malformed(&self.file, cause))
    }

    /// Compiles the model for the shapes of the file.
    pub fn compile(&self, cancel: &Arc<AtomicBool>) -> Result<Compiled, LoadError> {
        let model = self.parse()?;
        let compiled = Compiled::new(model, &self.target, cancel);
        compiled.map_err(|error| match error {
            CompileError::Library(cause) => explain(cause, &self.file, self.provider()),
            CompileError::NotTaken => LoadError::Compile {
                file: self.file.clone(),
                provider: self.provider().into(),
                cause: BackendError::new("LiteRtCreateCompiledModel", self.not_taken()),
            },
        })
    }

    fn not_taken(&self) -> &'static str {
        match (self.is_foreign(), self.has_compiler) {
            (false, _) => "operators are left that the CPU accelerator did not take",
            (true, true) => "operators are left that neither the NPU's compiler nor the NPU took",
            (true, false) => {
                "operators are left that the NPU did not take; without the vendor's compiler \
                 plug-in (compiler_dir) only models that were compiled for this NPU run on it"
            }
        }
    }

    /// Present shapes; tensors are allocated.
    pub fn shapes(&self, compiled: &mut Compiled) -> Result<Shapes, BackendError> {
        let inputs = (0..self.inputs.len()).map(|at| compiled.input_shape(at));
        let inputs = inputs.collect::<Result<_, _>>()?;
        Ok((inputs, compiled.output_shapes(self.outputs.len())?))
    }
}

/// A compiled model and the way to cancel it.
type Spare = (Compiled, Arc<AtomicBool>);

pub(crate) struct LiteRtModel {
    shared: Arc<Shared>,
    placement: Placement,
    /// What the load has compiled, for the first session.
    spare: Mutex<Option<Spare>>,
}

impl LiteRtModel {
    /// Compiles a model for the CPU, or for the NPU of this dispatch library.
    pub fn compile(
        api: &Arc<Api>,
        bytes: Buffer,
        request: &LoadRequest,
        npu: Option<&Dispatch>,
    ) -> Result<Self, LoadError> {
        let places = npu.map(Dispatch::places);
        let environment = Environment::new(api.clone(), places).map_err(LoadError::Session)?;
        let mut shared = Shared {
            environment: Arc::new(environment),
            bytes,
            file: request.file.clone(),
            target: Target {
                accelerator: match npu {
                    Some(_) => ACCELERATOR_NPU,
                    None => ACCELERATOR_CPU,
                },
                threads: thread_count(request.threads),
                vendor: npu.map(|npu| npu.vendor.clone()).unwrap_or_default(),
            },
            has_compiler: npu.is_some_and(Dispatch::has_compiler),
            inputs: Vec::new(),
            outputs: Vec::new(),
            file_shapes: Vec::new(),
            signature: Signature::default(),
        };
        let model = shared.parse()?;
        // Before it is compiled: what a device takes becomes one operator.
        let operators = model.operators().map_err(LoadError::Session)?;
        shared.inputs = model.tensors(Side::Input).map_err(LoadError::Session)?;
        shared.outputs = model.tensors(Side::Output).map_err(LoadError::Session)?;
        drop(model);
        refuse_shared_tensors(&shared)?;
        let cancel = Arc::<AtomicBool>::default();
        let mut compiled = shared.compile(&cancel)?;
        let placement = placement(&shared, &compiled, operators, request.forbid_cpu)?;
        let failed = |cause| explain(cause, &request.file, shared.provider());
        let shapes = shared.shapes(&mut compiled).map_err(failed)?;
        let free = free_dims(&shared, &mut compiled, &shapes)
            .map_err(|cause| explain(cause, &request.file, shared.provider()))?;
        shared.signature = Signature {
            inputs: specs(&shared.inputs, &shapes.0, &free.0)?,
            outputs: specs(&shared.outputs, &shapes.1, &free.1)?,
        };
        shared.file_shapes = shapes.0;
        Ok(Self {
            shared: Arc::new(shared),
            placement,
            spare: Mutex::new(Some((compiled, cancel))),
        })
    }
}

/// Refuses a model that gives a tensor out at two places: LiteRT 2.3 leaves all of them zero.
fn refuse_shared_tensors(shared: &Shared) -> Result<(), LoadError> {
    let all: Vec<_> = shared.inputs.iter().chain(&shared.outputs).collect();
    for (at, entry) in all.iter().enumerate() {
        if all[..at].iter().any(|other| other.index == entry.index) {
            let why = format!(
                "tensor {:?} is an input or output at two places, which LiteRT does not fill in",
                entry.name
            );
            return Err(LoadError::Compile {
                file: shared.file.clone(),
                provider: shared.provider().into(),
                cause: BackendError::new("read signature", why),
            });
        }
    }
    Ok(())
}

/// Names what failed: missing operators by name, everything else as the library says it.
fn explain(cause: BackendError, file: &Path, provider: &str) -> LoadError {
    let operators = unknown_operators(&cause.message);
    let (file, provider) = (file.into(), provider.into());
    match operators.is_empty() {
        true => LoadError::Compile {
            file,
            provider,
            cause,
        },
        false => LoadError::UnsupportedOperators {
            file,
            provider,
            operators,
        },
    }
}

/// What runs where. For an NPU it was asked for alone and the library's execution plan says whether
/// all of it is there. The CPU is one place to run, so there is nothing to read back.
fn placement(
    shared: &Shared,
    compiled: &Compiled,
    operators: u32,
    forbid_cpu: bool,
) -> Result<Placement, LoadError> {
    let off_the_cpu = compiled.is_all_off_the_cpu().map_err(LoadError::Session)?;
    let provider = shared.provider();
    if (shared.is_foreign() || forbid_cpu) && !off_the_cpu {
        return Err(LoadError::CpuForbidden {
            provider: provider.into(),
            nodes: operators,
            cpu_nodes: operators,
        });
    }
    let share = ProviderShare {
        provider: provider.into(),
        nodes: operators,
        groups: 0,
        time_us: None,
    };
    Ok(Placement {
        shares: vec![share],
        read_back: shared.is_foreign(),
    })
}

/// Which dimensions are free, by tensor and axis, for inputs and outputs.
type Free = (Vec<Vec<bool>>, Vec<Vec<bool>>);

/// Tries which dimensions of inputs the file leaves free, and which of the outputs follow: the
/// library tells the present ones only. Code for an NPU is for fixed shapes.
fn free_dims(
    shared: &Shared,
    compiled: &mut Compiled,
    (inputs, outputs): &Shapes,
) -> Result<Free, BackendError> {
    let fixed = |shapes: &[Vec<usize>]| -> Vec<Vec<bool>> {
        shapes
            .iter()
            .map(|shape| vec![false; shape.len()])
            .collect()
    };
    let mut free = (fixed(inputs), fixed(outputs));
    if shared.is_foreign() {
        return Ok(free);
    }
    let mut larger = inputs.clone();
    for (at, shape) in inputs.iter().enumerate() {
        for axis in 0..shape.len() {
            let mut tried = shape.clone();
            tried[axis] += 1;
            if compiled.resize_input(at, &tried).is_ok() {
                free.0[at][axis] = true;
                larger[at][axis] += 1;
                compiled.resize_input(at, shape)?;
            }
        }
    }
    if larger == *inputs {
        return Ok(free);
    }
    for (at, shape) in larger.iter().enumerate() {
        if *shape != inputs[at] {
            compiled.resize_input(at, shape)?;
        }
    }
    // Inputs that belong together need not bear to grow alike; then any dimension may follow.
    let grown = compiled.output_shapes(outputs.len()).ok();
    for (at, shape) in outputs.iter().enumerate() {
        let grown = grown.as_ref().map(|grown| &grown[at]);
        for (axis, dim) in shape.iter().enumerate() {
            free.1[at][axis] = grown.is_none_or(|grown| grown.get(axis) != Some(dim));
        }
    }
    for (at, shape) in inputs.iter().enumerate() {
        if *shape != larger[at] {
            compiled.resize_input(at, shape)?;
        }
    }
    compiled.output_shapes(outputs.len())?;
    Ok(free)
}

fn specs(
    tensors: &[TensorEntry],
    shapes: &[Vec<usize>],
    free: &[Vec<bool>],
) -> Result<Vec<TensorSpec>, LoadError> {
    tensors
        .iter()
        .zip(shapes.iter().zip(free))
        .map(|(tensor, (shape, free))| {
            let dtype = dtype(tensor.element).ok_or_else(|| LoadError::UnservedType {
                name: tensor.name.clone(),
                dtype: format!("LiteRtElementType {}", tensor.element),
            })?;
            let dims = shape.iter().zip(free);
            Ok(TensorSpec {
                name: tensor.name.clone(),
                dtype,
                shape: dims.map(|(&dim, &free)| (!free).then_some(dim)).collect(),
            })
        })
        .collect()
}

impl Model for LiteRtModel {
    fn signature(&self) -> &Signature {
        &self.shared.signature
    }

    fn placement(&self) -> Placement {
        self.placement.clone()
    }

    fn session(&self) -> Result<Box<dyn Session>, LoadError> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let spare = { spare }.take();
        let (compiled, cancel) = match spare {
            Some(spare) => spare,
            None => {
                let cancel = Arc::default();
                (self.shared.compile(&cancel)?, cancel)
            }
        };
        let session = LiteRtSession::new(self.shared.clone(), compiled, cancel)?;
        Ok(Box::new(session))
    }

    /// Threads are fixed when the model is compiled, and recurrent state lives in what was
    /// compiled: nothing changes.
    fn set_threads(&self, _threads: Threads) -> Result<bool, LoadError> {
        Ok(false)
    }
}
