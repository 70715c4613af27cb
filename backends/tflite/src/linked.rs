//! A TensorFlow Lite library that this program is linked to, through the crate `tflitec`: for
//! firmware images that ship `libtensorflowlite_c.so` with its headers and load nothing by path.
//! Built with the feature `tflitec`, and with `tflitec-xnnpack` where the library has XNNPACK.
//!
//! ```sh
//! export TFLITEC_PREBUILT_PATH=/sysroot/usr/lib/libtensorflowlite_c.so
//! export TFLITEC_HEADER_DIR=/sysroot/usr/include          # holds tensorflow/lite/c/c_api.h
//! pip install --target /tmp/clang libclang
//! export LIBCLANG_PATH=/tmp/clang/clang/native
//! export BINDGEN_EXTRA_CLANG_ARGS="-I$(cc -print-file-name=include)"
//! cargo build --release -p mote-worker --features tflitec-xnnpack
//! ```
//!
//! The headers must be those of the library: XNNPACK's options are returned by value, and their
//! size is another in each version. Building also takes OpenSSL's headers, as a crate that could
//! download TensorFlow's is compiled. `tests/linked` of this crate builds it so, and runs the suite
//! that all engines pass.
//!
//! A flavour whose `library` has the name that is linked (`libtensorflowlite_c.so`) is served by it,
//! and other TFLite libraries are refused:
//!
//! | what | how here |
//! | --- | --- |
//! | where tensors lie | in the library's memory: all are copied, and the report counts it |
//! | cancellation | ends a run when its computation is done |
//! | placement | not read back: the library computes on the CPU, XNNPACK or not |
//! | free dimensions | those that the file has in their place |
//! | delegates | XNNPACK alone |
//! | errors | without the library's words, which go to standard error |
//!
//! The crate's models borrow their bytes and its interpreters their model. Both are kept for the
//! life of the process, which loads one model.

use crate::binding::Bindings;
use crate::delegate::thread_count;
use crate::model_file::{self, check_identifier, malformed};
use crate::{CPU, XNNPACK, probe};
use mote_api::{
    Absence, Backend, BackendError, BackendKind, Buffer, Cancel, Canceller, Capability, DType,
    LoadError, LoadRequest, Model, OutputTarget, Placement, ProviderShare, RunError, RunReport,
    Session, Signature, Tensor, TensorSpec, Threads,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tflitec::interpreter::{Interpreter, Options};
use tflitec::tensor::DataType;

/// The name that the program is linked to.
const LIBRARY: &str = "libtensorflowlite_c.so";

/// The linked library, when `library` is it.
pub(crate) fn backend(library: &Path, flavour: &str) -> Option<Box<dyn Backend>> {
    let is_linked = library.file_name().is_some_and(|name| name == LIBRARY);
    let flavour = flavour.to_owned();
    is_linked.then(|| Box::new(LinkedBackend { flavour }) as Box<dyn Backend>)
}

/// Why this program loads no other library of this kind: their functions would be found in the one
/// that is linked, which crashes.
pub(crate) fn refusal(library: &Path) -> Option<Absence> {
    Some(Absence::LibraryRejected {
        name: library.display().to_string(),
        why: format!("this program is linked to {LIBRARY}, and holds one such library"),
    })
}

struct LinkedBackend {
    flavour: String,
}

impl Backend for LinkedBackend {
    fn kind(&self) -> BackendKind {
        BackendKind::Tflite
    }

    fn version(&self) -> &str {
        tflitec::tf_lite_version()
    }

    fn providers(&self) -> Vec<String> {
        let xnnpack = cfg!(feature = "tflitec-xnnpack").then_some(XNNPACK);
        let names = xnnpack.into_iter().chain([CPU]);
        names.map(str::to_owned).collect()
    }

    fn probe_provider(&self, provider: &str) -> Vec<Capability> {
        let absence = self_test(provider).err();
        vec![Capability {
            flavour: self.flavour.clone(),
            backend: BackendKind::Tflite,
            library_version: self.version().into(),
            provider: provider.into(),
            device: absence.is_none().then(crate::cpu),
            absence,
        }]
    }

    fn load(&self, request: &LoadRequest) -> Result<Arc<dyn Model>, LoadError> {
        let bytes = model_file::read(&request.file)?;
        Ok(Arc::new(LinkedModel::compile(&bytes, request)?))
    }
}

fn self_test(provider: &str) -> Result<(), Absence> {
    let mut request = probe::request(provider, &[]);
    // It is the CPU, whichever kernels.
    request.forbid_cpu = false;
    let model = LinkedModel::compile(&probe::model_bytes()?, &request);
    probe::prove(&model.map_err(probe::absence)?)
}

fn failed(operation: &'static str) -> impl Fn(tflitec::Error) -> BackendError {
    move |error| BackendError::new(operation, error)
}

/// What all sessions share.
struct Shared {
    model: &'static tflitec::model::Model<'static>,
    options: Options,
    file: PathBuf,
    provider: &'static str,
    signature: Signature,
}

impl Shared {
    /// An interpreter, its tensors allocated.
    fn interpreter(&self) -> Result<Interpreter<'static>, LoadError> {
        let made = Interpreter::new(self.model, Some(self.options));
        let made = made.map_err(failed("TfLiteInterpreterCreate"));
        let interpreter = made.map_err(|cause| self.refuse(cause))?;
        let allocated = interpreter.allocate_tensors();
        let allocated = allocated.map_err(failed("TfLiteInterpreterAllocateTensors"));
        allocated.map_err(|cause| self.refuse(cause))?;
        Ok(interpreter)
    }

    fn refuse(&self, cause: BackendError) -> LoadError {
        LoadError::Compile {
            file: self.file.clone(),
            provider: self.provider.into(),
            cause,
        }
    }
}

struct LinkedModel {
    shared: Arc<Shared>,
}

impl LinkedModel {
    fn compile(bytes: &Buffer, request: &LoadRequest) -> Result<Self, LoadError> {
        let provider = match request.provider.as_str() {
            CPU | "" => CPU,
            XNNPACK if cfg!(feature = "tflitec-xnnpack") => XNNPACK,
            other => {
                return Err(LoadError::ProviderAbsent {
                    provider: other.into(),
                    absence: Absence::NotCompiledIn,
                });
            }
        };
        if request.forbid_cpu {
            return Err(LoadError::CpuForbidden {
                provider: provider.into(),
                nodes: 0,
                cpu_nodes: 0,
            });
        }
        let mut shared = Shared {
            model: parse(bytes).map_err(|cause| malformed(&request.file, cause))?,
            options: options(provider, request.threads),
            file: request.file.clone(),
            provider,
            signature: Signature::default(),
        };
        let interpreter = shared.interpreter()?;
        shared.signature = Signature {
            inputs: (0..interpreter.input_tensor_count())
                .map(|at| spec(interpreter.input(at)))
                .collect::<Result<_, _>>()?,
            outputs: (0..interpreter.output_tensor_count())
                .map(|at| spec(interpreter.output(at)))
                .collect::<Result<_, _>>()?,
        };
        let shared = Arc::new(shared);
        Ok(Self { shared })
    }
}

/// Options of an interpreter; without XNNPACK's feature they know nothing of it.
fn options(provider: &str, threads: Threads) -> Options {
    let mut options = Options {
        thread_count: thread_count(threads),
        ..Options::default()
    };
    set_xnnpack(&mut options, provider == XNNPACK);
    options
}

#[cfg(feature = "tflitec-xnnpack")]
fn set_xnnpack(options: &mut Options, wanted: bool) {
    options.is_xnnpack_enabled = wanted;
}

#[cfg(not(feature = "tflitec-xnnpack"))]
fn set_xnnpack(_options: &mut Options, _wanted: bool) {}

/// Parses a model, which stays.
fn parse(bytes: &Buffer) -> Result<&'static tflitec::model::Model<'static>, BackendError> {
    check_identifier(bytes)?;
    let mut own = vec![0u8; bytes.len()];
    let copied = bytes.copy_out(0, &mut own);
    copied.map_err(|error| BackendError::new("copy model", error))?;
    let model = tflitec::model::Model::from_bytes(own.leak());
    let model = model.map_err(failed("TfLiteModelCreate"))?;
    Ok(Box::leak(Box::new(model)))
}

fn spec(tensor: tflitec::Result<tflitec::tensor::Tensor<'_>>) -> Result<TensorSpec, LoadError> {
    let tensor = tensor.map_err(|error| LoadError::Session(failed("read signature")(error)))?;
    let name = tensor.name().to_owned();
    let dtype = dtype(tensor.data_type()).ok_or_else(|| LoadError::UnservedType {
        name: name.clone(),
        dtype: format!("{:?}", tensor.data_type()),
    })?;
    let dims = tensor.shape().dimensions().iter();
    Ok(TensorSpec {
        name,
        dtype,
        shape: dims.map(|&dim| Some(dim)).collect(),
    })
}

/// Quantised tensors are served as the integers they hold.
fn dtype(kind: DataType) -> Option<DType> {
    Some(match kind {
        DataType::Bool => DType::Bool,
        DataType::UInt8 => DType::U8,
        DataType::UInt16 => DType::U16,
        DataType::UInt32 => DType::U32,
        DataType::UInt64 => DType::U64,
        DataType::Int8 => DType::I8,
        DataType::Int16 => DType::I16,
        DataType::Int32 => DType::I32,
        DataType::Int64 => DType::I64,
        DataType::BFloat16 => DType::Bf16,
        DataType::Float16 => DType::F16,
        DataType::Float32 => DType::F32,
        DataType::Float64 => DType::F64,
        DataType::Int4 | DataType::String | DataType::Complex64 | DataType::Complex128 => {
            return None;
        }
    })
}

impl Model for LinkedModel {
    fn signature(&self) -> &Signature {
        &self.shared.signature
    }

    /// Without numbers of nodes: the crate has no way to ask for them.
    fn placement(&self) -> Placement {
        let share = ProviderShare {
            provider: self.shared.provider.into(),
            nodes: 0,
            groups: 0,
            time_us: None,
        };
        Placement {
            shares: vec![share],
            read_back: false,
        }
    }

    fn session(&self) -> Result<Box<dyn Session>, LoadError> {
        Ok(Box::new(LinkedSession {
            interpreter: self.shared.interpreter()?,
            bindings: Bindings::new(&self.shared.signature),
            shared: self.shared.clone(),
            cancel: Arc::default(),
            scratch: Vec::new(),
        }))
    }

    /// Interpreters fix their threads when they are made: nothing changes.
    fn set_threads(&self, _threads: Threads) -> Result<bool, LoadError> {
        Ok(false)
    }
}

struct LinkedSession {
    interpreter: Interpreter<'static>,
    bindings: Bindings,
    shared: Arc<Shared>,
    cancel: Arc<AtomicBool>,
    /// An input on its way from memory that others may write.
    scratch: Vec<u8>,
}

struct CancelHandle(Arc<AtomicBool>);

impl Cancel for CancelHandle {
    fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl LinkedSession {
    fn copy_in(&mut self, at: usize, tensor: &Tensor) -> Result<(), RunError> {
        self.scratch.resize(tensor.bytes(), 0);
        let copied = tensor
            .buffer()
            .copy_out(tensor.offset(), &mut self.scratch[..]);
        copied.map_err(|error| RunError::Compute(BackendError::new("copy input", error)))?;
        if tensor.dtype() == DType::Bool {
            // Only 0 and 1 are truth values.
            let bytes = self.scratch.iter_mut();
            bytes.for_each(|byte| *byte = u8::from(*byte != 0));
        }
        let copied = self.interpreter.copy(&self.scratch, at);
        copied.map_err(|error| RunError::Compute(failed("TfLiteTensorCopyFromBuffer")(error)))
    }

    fn copy_out(&mut self, at: usize) -> Result<usize, RunError> {
        let output = self.interpreter.output(at);
        let output = output.map_err(|error| RunError::Compute(failed("read output")(error)))?;
        let spec = &self.shared.signature.outputs[at];
        let target = self
            .bindings
            .target(at, spec, output.shape().dimensions())?;
        target.write_bytes(output.data::<u8>())?;
        let bytes = target.bytes();
        self.bindings.results[at] = Some(target);
        Ok(bytes)
    }
}

impl Session for LinkedSession {
    fn bind_input(&mut self, index: usize, tensor: &Tensor) -> Result<(), RunError> {
        self.bindings
            .bind_input(&self.shared.signature, index, tensor)
    }

    fn bind_output(&mut self, index: usize, target: OutputTarget) -> Result<(), RunError> {
        self.bindings
            .bind_output(&self.shared.signature, index, target)
    }

    fn run(&mut self) -> Result<RunReport, RunError> {
        let inputs = self.bindings.all_inputs(&self.shared.signature)?;
        if self.cancel.swap(false, Ordering::AcqRel) {
            return Err(RunError::Cancelled);
        }
        let mut bytes_copied = 0;
        for (at, input) in inputs.iter().enumerate() {
            self.copy_in(at, input)?;
            bytes_copied += input.bytes();
        }
        let start = Instant::now();
        let ran = self.interpreter.invoke();
        let compute_us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        if self.cancel.swap(false, Ordering::AcqRel) {
            return Err(RunError::Cancelled);
        }
        // The crate has one error for all that a computation may fail of.
        ran.map_err(|_| {
            let why = "the library failed; its words are on standard error";
            RunError::Compute(BackendError::new("TfLiteInterpreterInvoke", why))
        })?;
        for at in 0..self.shared.signature.outputs.len() {
            bytes_copied += self.copy_out(at)?;
        }
        Ok(RunReport {
            compute_us,
            bytes_copied: bytes_copied as u64,
        })
    }

    fn output(&self, index: usize) -> Result<Tensor, RunError> {
        self.bindings.output(&self.shared.signature, index)
    }

    fn canceller(&self) -> Canceller {
        Canceller::new(CancelHandle(self.cancel.clone()))
    }
}
