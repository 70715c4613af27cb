//! The C API of LiteRT's `CompiledModel`, bound when the library is loaded. Declarations follow
//! `litert/c/litert_{environment,model,options,compiled_model,tensor_buffer}.h` of 2.3.
//!
//! Version 2.2 gave functions that make models a first parameter, which no symbol tells; the one
//! for what runs outside of the CPU came with 2.3. It is required here, so that libraries with the
//! old parameters are refused before any of them is called.
#![allow(unsafe_code, reason = "the door to the C API: symbols and their types")]

use crate::sys::{api, opaque, open_for_ever};
use libloading::os::unix::Library;
use mote_api::Absence;
use std::ffi::{c_char, c_int, c_void};
use std::path::Path;

/// Status of a call: 0 is success.
pub(crate) type Status = c_int;
/// `kLiteRtStatusErrorCompilation`: also when operators are left that no accelerator took.
pub(crate) const STATUS_COMPILATION: Status = 504;

/// `kLiteRtHwAcceleratorCpu`.
pub(crate) const ACCELERATOR_CPU: c_int = 1;
/// `kLiteRtHwAcceleratorNpu`.
pub(crate) const ACCELERATOR_NPU: c_int = 4;

/// Tags of what an environment is made with.
pub(crate) const TAG_COMPILER_DIR: c_int = 0;
pub(crate) const TAG_DISPATCH_DIR: c_int = 1;
pub(crate) const TAG_CACHE_DIR: c_int = 18;
pub(crate) const TAG_ACCELERATORS: c_int = 24;
pub(crate) const TAG_LOG_SEVERITY: c_int = 25;
/// The library's log from warnings on: it tells why a vendor's library did not load.
pub(crate) const LOG_WARNINGS: i64 = 2;
/// No log: what goes wrong is fetched from the model.
pub(crate) const LOG_NOTHING: i64 = 4;

/// `kLiteRtTensorBufferTypeHostMemory`.
pub(crate) const BUFFER_HOST: c_int = 1;
/// `LITERT_HOST_MEMORY_BUFFER_ALIGNMENT`.
pub(crate) const HOST_ALIGNMENT_BYTES: usize = 64;
/// `kLiteRtTensorBufferLockModeRead`.
pub(crate) const LOCK_READ: c_int = 0;
/// `kLiteRtTensorBufferLockModeWrite`.
pub(crate) const LOCK_WRITE: c_int = 1;
/// `LITERT_TENSOR_MAX_RANK`.
pub(crate) const RANK_MAX: usize = 8;

opaque! {
    /// `LiteRtEnvironment`.
    Environment,
    /// `LiteRtModel`.
    Model,
    /// `LiteRtSubgraph`.
    Subgraph,
    /// `LiteRtSignature`.
    Signature,
    /// `LiteRtTensor`.
    Tensor,
    /// `LiteRtOptions`.
    Options,
    /// `LiteRtOpaqueOptions`.
    OpaqueOptions,
    /// `LiteRtCompiledModel`.
    CompiledModel,
    /// `LiteRtTensorBuffer`.
    TensorBuffer,
    /// `LiteRtTensorBufferRequirements`.
    Requirements,
}

/// `LiteRtAny`, of the two kinds that options here have.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Any {
    kind: c_int,
    value: AnyValue,
}

#[repr(C)]
#[derive(Clone, Copy)]
union AnyValue {
    number: i64,
    string: *const c_char,
}

/// `LiteRtEnvOption`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct EnvOption {
    tag: c_int,
    value: Any,
}

impl EnvOption {
    /// An option with a number.
    pub fn number(tag: c_int, number: i64) -> Self {
        const INT: c_int = 2;
        let value = AnyValue { number };
        let value = Any { kind: INT, value };
        Self { tag, value }
    }

    /// An option with a text, which has to live while the environment does.
    pub fn text(tag: c_int, string: *const c_char) -> Self {
        const STRING: c_int = 8;
        let value = AnyValue { string };
        let value = Any {
            kind: STRING,
            value,
        };
        Self { tag, value }
    }
}

/// `LiteRtLayout`: the rank in the lowest seven bits of a word (all of Mote's machines are
/// little-endian), then the dimensions.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Layout {
    bits: u32,
    dimensions: [i32; RANK_MAX],
    strides: [u32; RANK_MAX],
}

impl Layout {
    /// The layout of a dense tensor; `None` when its rank or a dimension is too large.
    pub fn dense(shape: &[usize]) -> Option<Self> {
        let mut layout = Self::default();
        let dims = layout.dimensions.get_mut(..shape.len())?;
        for (dim, &wanted) in dims.iter_mut().zip(shape) {
            *dim = i32::try_from(wanted).ok()?;
        }
        layout.bits = u32::try_from(shape.len()).ok()?;
        Some(layout)
    }

    /// Its dimensions; `None` when one is not known.
    pub fn shape(&self) -> Option<Vec<usize>> {
        let rank = (self.bits & 0x7f) as usize;
        let dims = self.dimensions.get(..rank)?.iter();
        dims.map(|&dim| usize::try_from(dim).ok()).collect()
    }
}

/// `LiteRtRankedTensorType`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct RankedType {
    /// `LiteRtElementType`, whose numbers are those of `TfLiteType`.
    pub element: c_int,
    pub layout: Layout,
}

/// Frees the payload of opaque options.
pub(crate) type FreePayload = unsafe extern "C" fn(*mut c_void);
/// Says between two nodes whether the run is to end.
pub(crate) type IsCancelled = unsafe extern "C" fn(*mut c_void) -> bool;

api! {
    required {
        is_all_off_the_cpu = b"LiteRtCompiledModelIsNonCpuFullyAccelerated\0":
            fn(*mut CompiledModel, *mut bool) -> Status;
        create_environment = b"LiteRtCreateEnvironment\0":
            fn(c_int, *const EnvOption, *mut *mut Environment) -> Status;
        destroy_environment = b"LiteRtDestroyEnvironment\0": fn(*mut Environment);
        create_model = b"LiteRtCreateModelFromBuffer\0":
            fn(*mut Environment, *const c_void, usize, *mut *mut Model) -> Status;
        destroy_model = b"LiteRtDestroyModel\0": fn(*mut Model);
        subgraph_count = b"LiteRtGetNumModelSubgraphs\0": fn(*mut Model, *mut usize) -> Status;
        subgraph = b"LiteRtGetModelSubgraph\0":
            fn(*mut Model, usize, *mut *mut Subgraph) -> Status;
        op_count = b"LiteRtGetNumSubgraphOps\0": fn(*mut Subgraph, *mut usize) -> Status;
        signature = b"LiteRtGetModelSignature\0":
            fn(*mut Model, usize, *mut *mut Signature) -> Status;
        input_count = b"LiteRtGetNumSignatureInputs\0":
            fn(*mut Signature, *mut usize) -> Status;
        output_count = b"LiteRtGetNumSignatureOutputs\0":
            fn(*mut Signature, *mut usize) -> Status;
        input_tensor = b"LiteRtGetSignatureInputTensorByIndex\0":
            fn(*mut Signature, usize, *mut *mut Tensor) -> Status;
        output_tensor = b"LiteRtGetSignatureOutputTensorByIndex\0":
            fn(*mut Signature, usize, *mut *mut Tensor) -> Status;
        tensor_name = b"LiteRtGetTensorName\0": fn(*mut Tensor, *mut *const c_char) -> Status;
        tensor_index = b"LiteRtGetTensorIndex\0": fn(*mut Tensor, *mut u32) -> Status;
        tensor_type = b"LiteRtGetRankedTensorType\0":
            fn(*mut Tensor, *mut RankedType) -> Status;
        create_options = b"LiteRtCreateOptions\0": fn(*mut *mut Options) -> Status;
        destroy_options = b"LiteRtDestroyOptions\0": fn(*mut Options);
        set_accelerators = b"LiteRtSetOptionsHardwareAccelerators\0":
            fn(*mut Options, c_int) -> Status;
        create_opaque = b"LiteRtCreateOpaqueOptions\0":
            fn(*const c_char, *mut c_void, FreePayload, *mut *mut OpaqueOptions) -> Status;
        destroy_opaque = b"LiteRtDestroyOpaqueOptions\0": fn(*mut OpaqueOptions);
        add_opaque = b"LiteRtAddOpaqueOptions\0":
            fn(*mut Options, *mut OpaqueOptions) -> Status;
        create_compiled = b"LiteRtCreateCompiledModel\0":
            fn(*mut Environment, *mut Model, *mut Options, *mut *mut CompiledModel) -> Status;
        destroy_compiled = b"LiteRtDestroyCompiledModel\0": fn(*mut CompiledModel);
        input_layout = b"LiteRtGetCompiledModelInputTensorLayout\0":
            fn(*mut CompiledModel, usize, usize, *mut Layout) -> Status;
        output_layouts = b"LiteRtGetCompiledModelOutputTensorLayouts\0":
            fn(*mut CompiledModel, usize, usize, *mut Layout, bool) -> Status;
        resize_input = b"LiteRtCompiledModelResizeInputTensor\0":
            fn(*mut CompiledModel, usize, usize, *const c_int, usize) -> Status;
        input_requirements = b"LiteRtGetCompiledModelInputBufferRequirements\0":
            fn(*mut CompiledModel, usize, usize, *mut *mut Requirements) -> Status;
        output_requirements = b"LiteRtGetCompiledModelOutputBufferRequirements\0":
            fn(*mut CompiledModel, usize, usize, *mut *mut Requirements) -> Status;
        buffer_type_count = b"LiteRtGetNumTensorBufferRequirementsSupportedBufferTypes\0":
            fn(*mut Requirements, *mut c_int) -> Status;
        buffer_type = b"LiteRtGetTensorBufferRequirementsSupportedTensorBufferType\0":
            fn(*mut Requirements, c_int, *mut c_int) -> Status;
        buffer_bytes = b"LiteRtGetTensorBufferRequirementsBufferSize\0":
            fn(*mut Requirements, *mut usize) -> Status;
        host_buffer = b"LiteRtCreateTensorBufferFromHostMemory\0":
            fn(*const RankedType, *mut c_void, usize, *const c_void, *mut *mut TensorBuffer)
                -> Status;
        managed_buffer = b"LiteRtCreateManagedTensorBufferFromRequirements\0":
            fn(*mut Environment, *const RankedType, *mut Requirements, *mut *mut TensorBuffer)
                -> Status;
        lock_buffer = b"LiteRtLockTensorBuffer\0":
            fn(*mut TensorBuffer, *mut *mut c_void, c_int) -> Status;
        unlock_buffer = b"LiteRtUnlockTensorBuffer\0": fn(*mut TensorBuffer) -> Status;
        packed_bytes = b"LiteRtGetTensorBufferPackedSize\0":
            fn(*mut TensorBuffer, *mut usize) -> Status;
        destroy_buffer = b"LiteRtDestroyTensorBuffer\0": fn(*mut TensorBuffer);
        run = b"LiteRtRunCompiledModel\0":
            fn(*mut CompiledModel, usize, usize, *const *mut TensorBuffer, usize,
               *const *mut TensorBuffer) -> Status;
        set_cancellation = b"LiteRtSetCompiledModelCancellationFunction\0":
            fn(*mut CompiledModel, *mut c_void, IsCancelled) -> Status;
        error_messages = b"LiteRtCompiledModelGetErrorMessages\0":
            fn(*mut CompiledModel, *mut *mut c_char) -> Status;
        clear_errors = b"LiteRtCompiledModelClearErrors\0": fn(*mut CompiledModel) -> Status;
    }
    optional {}
}

impl Api {
    /// Loads a library and binds the functions.
    pub fn load(path: &Path) -> Result<Self, Absence> {
        Self::bind(open_for_ever(path)?)
    }
}

/// What a status means, as `litert_common.h` names it.
pub(crate) fn status_text(status: Status) -> String {
    let name = match status {
        1 => "invalid argument",
        2 => "out of memory",
        3 => "runtime failure",
        4 => "missing input",
        5 => "unsupported",
        6 => "not found",
        8 => "wrong version",
        500 => "file",
        501 => "invalid flatbuffer",
        502 => "dynamic loading",
        503 => "serialisation",
        STATUS_COMPILATION => "compilation",
        1000..=1003 => "invalid graph",
        2000..=2001 => "legalisation",
        4000..=4002 => "unsupported version",
        5000..=5001 => "shape inference",
        _ => return format!("status {status}"),
    };
    format!("status {status}, {name}")
}
