//! The C API of TensorFlow Lite, bound when the library is loaded: no headers, no link-time
//! dependency. Declarations follow `tensorflow/lite/core/c/c_api.h`, `c_api_experimental.h`,
//! `c_api_opaque.h` and `delegates/xnnpack/xnnpack_delegate.h`.
//!
//! Symbols that every version since 2.6 has are required; younger ones are `Option`s, and each
//! caller says what it does without.
#![allow(unsafe_code, reason = "the door to the C API: symbols and their types")]

use libloading::os::unix::Library;
use mote_api::Absence;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::path::Path;

/// Status of a call: 0 is success.
pub(crate) type Status = c_int;
/// `kTfLiteCancelled`.
pub(crate) const STATUS_CANCELLED: Status = 8;
/// Alignment that the library demands of memory it does not own: `kDefaultTensorAlignment`.
pub(crate) const TENSOR_ALIGNMENT_BYTES: usize = 64;
/// `kTfLiteBuiltinDelegate`: the operator code of a node that a delegate has taken.
pub(crate) const BUILTIN_DELEGATE: c_int = 51;
/// `kTfLiteDelegateFlagsAllowDynamicTensors`.
pub(crate) const DELEGATE_ALLOWS_DYNAMIC_TENSORS: i64 = 1;

/// Types that are only ever pointed to.
macro_rules! opaque {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[repr(C)]
        pub(crate) struct $name {
            _private: [u8; 0],
        }
    )*};
}

opaque! {
    /// `TfLiteModel`.
    Model,
    /// `TfLiteInterpreterOptions`.
    Options,
    /// `TfLiteInterpreter`.
    Interpreter,
    /// `TfLiteTensor`; only touched through accessors, since its layout differs by version.
    Tensor,
    /// `TfLiteDelegate`, also called `TfLiteOpaqueDelegate`.
    Delegate,
    /// `TfLiteOpaqueContext`.
    Context,
    /// `TfLiteOpaqueNode`.
    Node,
    /// `TfLiteOperator`, before 2.15 `TfLiteRegistrationExternal`.
    Operator,
}

/// `TfLiteIntArray`: a length and that many numbers behind it.
#[repr(C)]
pub(crate) struct IntArray {
    pub size: c_int,
    pub data: [c_int; 0],
}

/// `TfLiteCustomAllocation`.
#[repr(C)]
pub(crate) struct CustomAllocation {
    pub data: *mut c_void,
    pub bytes: usize,
}

/// `TfLiteXNNPackDelegateOptions`, which grows from version to version. It is returned by value;
/// since it is larger than two registers (2.12), the caller passes the address of the result, so
/// a result type larger than any version's is filled as far as the library's own goes.
#[repr(C)]
pub(crate) struct XnnpackOptions {
    pub num_threads: i32,
    rest: [MaybeUninit<u32>; 127],
}

/// `TfLiteOpaqueDelegateBuilder`.
#[repr(C)]
pub(crate) struct OpaqueDelegateBuilder {
    pub data: *mut c_void,
    pub prepare: Option<unsafe extern "C" fn(*mut Context, *mut Delegate, *mut c_void) -> Status>,
    pub copy_from_buffer_handle: *mut c_void,
    pub copy_to_buffer_handle: *mut c_void,
    pub free_buffer_handle: *mut c_void,
    pub flags: i64,
}

/// `void (*)(void* user_data, const char* format, va_list args)`. Where `va_list` is passed as a
/// pointer, which is all that this crate uses it for (see `reporter.rs`).
pub(crate) type Reporter = unsafe extern "C" fn(*mut c_void, *const c_char, *mut c_void);

/// A struct `Api` of a library's functions, and how they are found.
macro_rules! api {
    (
        required { $($required:ident = $required_name:literal : fn($($ra:ty),*) $(-> $rr:ty)?;)* }
        optional { $($optional:ident = $optional_name:literal : fn($($oa:ty),*) $(-> $or:ty)?;)* }
    ) => {
        /// Functions of a loaded library. Calling one is sound under the rules of the C header;
        /// the modules that call them say how they keep them.
        pub(crate) struct Api {
            $(pub $required: unsafe extern "C" fn($($ra),*) $(-> $rr)?,)*
            $(pub $optional: Option<unsafe extern "C" fn($($oa),*) $(-> $or)?>,)*
            /// Keeps the functions mapped.
            _library: Library,
        }

        impl Api {
            fn bind(library: Library) -> Result<Self, Absence> {
                use $crate::sys::symbol_missing;
                // SAFETY: each symbol is given the type that the header of the versions named
                // above declares for it; the library stays mapped (RTLD_NODELETE, and `_library`).
                unsafe {
                    $(let $required = *library.get($required_name).map_err(|_| symbol_missing($required_name))?;)*
                    $(let $optional = library.get($optional_name).ok().map(|symbol| *symbol);)*
                    Ok(Self { $($required,)* $($optional,)* _library: library })
                }
            }
        }
    };
}

pub(crate) use {api, opaque};

api! {
    required {
        version = b"TfLiteVersion\0": fn() -> *const c_char;
        model_create = b"TfLiteModelCreate\0": fn(*const c_void, usize) -> *mut Model;
        model_delete = b"TfLiteModelDelete\0": fn(*mut Model);
        options_create = b"TfLiteInterpreterOptionsCreate\0": fn() -> *mut Options;
        options_delete = b"TfLiteInterpreterOptionsDelete\0": fn(*mut Options);
        options_set_num_threads = b"TfLiteInterpreterOptionsSetNumThreads\0": fn(*mut Options, i32);
        options_set_error_reporter = b"TfLiteInterpreterOptionsSetErrorReporter\0":
            fn(*mut Options, Reporter, *mut c_void);
        interpreter_create = b"TfLiteInterpreterCreate\0":
            fn(*const Model, *const Options) -> *mut Interpreter;
        interpreter_delete = b"TfLiteInterpreterDelete\0": fn(*mut Interpreter);
        input_count = b"TfLiteInterpreterGetInputTensorCount\0": fn(*const Interpreter) -> i32;
        input_tensor = b"TfLiteInterpreterGetInputTensor\0":
            fn(*const Interpreter, i32) -> *mut Tensor;
        output_count = b"TfLiteInterpreterGetOutputTensorCount\0": fn(*const Interpreter) -> i32;
        output_tensor = b"TfLiteInterpreterGetOutputTensor\0":
            fn(*const Interpreter, i32) -> *mut Tensor;
        resize_input = b"TfLiteInterpreterResizeInputTensor\0":
            fn(*mut Interpreter, i32, *const c_int, i32) -> Status;
        allocate_tensors = b"TfLiteInterpreterAllocateTensors\0": fn(*mut Interpreter) -> Status;
        invoke = b"TfLiteInterpreterInvoke\0": fn(*mut Interpreter) -> Status;
        tensor_type = b"TfLiteTensorType\0": fn(*const Tensor) -> c_int;
        tensor_num_dims = b"TfLiteTensorNumDims\0": fn(*const Tensor) -> i32;
        tensor_dim = b"TfLiteTensorDim\0": fn(*const Tensor, i32) -> i32;
        tensor_byte_size = b"TfLiteTensorByteSize\0": fn(*const Tensor) -> usize;
        tensor_data = b"TfLiteTensorData\0": fn(*const Tensor) -> *mut c_void;
        tensor_name = b"TfLiteTensorName\0": fn(*const Tensor) -> *const c_char;
    }
    optional {
        model_create_with_reporter = b"TfLiteModelCreateWithErrorReporter\0":
            fn(*const c_void, usize, Reporter, *mut c_void) -> *mut Model;
        options_enable_cancellation = b"TfLiteInterpreterOptionsEnableCancellation\0":
            fn(*mut Options, bool) -> Status;
        cancel = b"TfLiteInterpreterCancel\0": fn(*const Interpreter) -> Status;
        modify_graph = b"TfLiteInterpreterModifyGraphWithDelegate\0":
            fn(*const Interpreter, *mut Delegate) -> Status;
        input_index = b"TfLiteInterpreterGetInputTensorIndex\0":
            fn(*const Interpreter, i32) -> c_int;
        output_index = b"TfLiteInterpreterGetOutputTensorIndex\0":
            fn(*const Interpreter, i32) -> c_int;
        set_custom_allocation = b"TfLiteInterpreterSetCustomAllocationForTensor\0":
            fn(*mut Interpreter, c_int, *const CustomAllocation, i64) -> Status;
        num_dims_signature = b"TfLiteOpaqueTensorGetNumDimsSignature\0":
            fn(*const Tensor, *mut i32) -> Status;
        dim_signature = b"TfLiteOpaqueTensorGetDimSignature\0":
            fn(*const Tensor, i32, *mut i32) -> Status;
        xnnpack_options = b"TfLiteXNNPackDelegateOptionsDefault\0": fn() -> XnnpackOptions;
        xnnpack_create = b"TfLiteXNNPackDelegateCreate\0":
            fn(*const XnnpackOptions) -> *mut Delegate;
        xnnpack_delete = b"TfLiteXNNPackDelegateDelete\0": fn(*mut Delegate);
        opaque_delegate_create = b"TfLiteOpaqueDelegateCreate\0":
            fn(*const OpaqueDelegateBuilder) -> *mut Delegate;
        opaque_delegate_delete = b"TfLiteOpaqueDelegateDelete\0": fn(*mut Delegate);
        execution_plan = b"TfLiteOpaqueContextGetExecutionPlan\0":
            fn(*mut Context, *mut *mut IntArray) -> Status;
        node_and_operator = b"TfLiteOpaqueContextGetNodeAndRegistration\0":
            fn(*mut Context, c_int, *mut *mut Node, *mut *mut Operator) -> Status;
        operator_code = b"TfLiteOperatorGetBuiltInCode\0": fn(*const Operator) -> c_int;
        // The name of the same function before 2.15.
        registration_code = b"TfLiteRegistrationExternalGetBuiltInCode\0":
            fn(*const Operator) -> c_int;
    }
}

pub(crate) fn symbol_missing(name: &[u8]) -> Absence {
    let name = name.strip_suffix(b"\0").unwrap_or(name);
    Absence::SymbolMissing {
        symbol: String::from_utf8_lossy(name).into_owned(),
    }
}

/// Maps a shared object for the life of the process: unloading libraries of this family crashes
/// (threads and thread-locals of theirs outlive the call).
pub(crate) fn open_for_ever(path: &Path) -> Result<Library, Absence> {
    use nix::libc::{RTLD_LOCAL, RTLD_NODELETE, RTLD_NOW};
    let name = path.display().to_string();
    if !path.exists() {
        return Err(Absence::LibraryMissing { name });
    }
    // SAFETY: running a library's initialisers is what the operator asked for by naming it; its
    // known demands on the processor are checked before (`processor.rs`).
    let opened = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE) };
    opened.map_err(|error| {
        use std::error::Error;
        let why = error.source().unwrap_or(&error).to_string();
        match why.split_once(": cannot open shared object file") {
            Some((missing, _)) => Absence::DriverMissing {
                name: missing.into(),
            },
            None => Absence::LibraryRejected { name, why },
        }
    })
}

/// Whether a library has a function; `symbol` ends with zero.
pub(crate) fn exports(library: &Library, symbol: &[u8]) -> bool {
    // SAFETY: the symbol is looked up, not called.
    unsafe { library.get::<unsafe extern "C" fn()>(symbol) }.is_ok()
}

impl Api {
    /// Loads a library and binds the functions.
    pub fn load(path: &Path) -> Result<Self, Absence> {
        Self::bind(open_for_ever(path)?)
    }

    /// The library's own version.
    pub fn version_text(&self) -> String {
        // SAFETY: takes nothing, returns a static string.
        text(unsafe { (self.version)() })
    }

    /// The operator code of a registration, by whichever name the library has the function.
    pub fn builtin_code(&self) -> Option<unsafe extern "C" fn(*const Operator) -> c_int> {
        self.operator_code.or(self.registration_code)
    }
}

/// A copy of a C string that the library owns; empty for null.
pub(crate) fn text(string: *const c_char) -> String {
    if string.is_null() {
        return String::new();
    }
    // SAFETY: the callers pass strings that the library ends with zero and keeps while its object
    // lives, which they hold.
    let string = unsafe { CStr::from_ptr(string) };
    string.to_string_lossy().into_owned()
}
