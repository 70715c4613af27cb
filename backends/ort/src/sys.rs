//! The one unsafe door to the ONNX Runtime C API: libraries, sessions, values, runs.
//!
//! Promises this file and `sys/` keep: every pointer they hand to the library comes from the library
//! or from live memory of a [`Tensor`] that the same struct owns; every object is released once, by the
//! struct that made it; enumerations the library writes are read as integers, because a newer
//! library may know more of them.
#![allow(unsafe_code, reason = "the one unsafe door to the ONNX Runtime C API")]

mod device;

pub(crate) use device::{DeviceValue, Place, ValueRef, copy_value};

use crate::turn::TurnGuard;
use mote_api::{Access, DType, ProviderShare, Tensor, TensorError};
use ort::AsPointer;
use ort::environment::Environment;
use ort::memory::MemoryInfo;
use ort::session::RunOptions;
use ort::session::builder::SessionBuilder;
use ort::sys::{
    ONNXTensorElementDataType as Element, OrtAllocator, OrtApiBase, OrtSession, OrtStatusPtr,
    OrtTypeInfo, OrtValue,
};
use std::ffi::{CStr, CString, OsString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::ptr::{NonNull, null, null_mut};
use std::sync::{Mutex, PoisonError};

/// `ONNX_TYPE_TENSOR`.
pub(crate) const ONNX_TYPE_TENSOR: c_int = 1;
/// The function every ONNX Runtime library exports.
pub(crate) const ENTRY_SYMBOL: &str = "OrtGetApiBase";

/// Why a shared library is no ONNX Runtime.
pub(crate) enum LibraryError {
    Open(libloading::Error),
    NoEntry,
    NoVersion,
}

/// Version of the ONNX Runtime at `path`. Loads the library (its constructors run), and for good
/// when it is one: the binding opens it next.
pub(crate) fn library_version(path: &Path) -> Result<String, LibraryError> {
    // SAFETY: loading runs the library's constructors. The path comes from the runtime flavour
    // that the operator installed, whose digest the caller verified; a vendor library that is
    // hostile is beyond what a process can defend against, and this one is a sandboxed worker.
    let library = unsafe { libloading::Library::new(path) }.map_err(LibraryError::Open)?;
    // SAFETY: this is the signature of the symbol in onnxruntime_c_api.h, stable since 1.0.
    let entry: libloading::Symbol<unsafe extern "C" fn() -> *const OrtApiBase> =
        unsafe { library.get(ENTRY_SYMBOL) }.map_err(|_| LibraryError::NoEntry)?;
    // SAFETY: the function takes nothing and answers a pointer to a static, or null.
    let base = unsafe { entry().as_ref() }.ok_or(LibraryError::NoVersion)?;
    // SAFETY: `base` is the library's static table; the function answers a static string.
    let version = unsafe { (base.GetVersionString)() };
    if version.is_null() {
        return Err(LibraryError::NoVersion);
    }
    // SAFETY: not null, and a static NUL-terminated string by the API's contract.
    let version = unsafe { CStr::from_ptr(version) }
        .to_string_lossy()
        .into_owned();
    std::mem::forget(library);
    Ok(version)
}

fn check(status: OrtStatusPtr) -> Result<(), ort::Error> {
    // SAFETY: `status` was just returned by the library and is consumed here.
    unsafe { ort::Error::result_from_status(status) }
}

fn not_null<T>(pointer: *mut T) -> Result<NonNull<T>, ort::Error> {
    NonNull::new(pointer).ok_or_else(|| ort::Error::new("the library answered a null pointer"))
}

/// Copies a C string that the library owns.
///
/// # Safety
/// `text` is null or a NUL-terminated string that lives during the call.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}

/// Execution providers compiled into the library.
pub(crate) fn compiled_in() -> Result<Vec<String>, ort::Error> {
    let (mut names, mut count) = (null_mut(), 0);
    // SAFETY: both are out-parameters on this stack.
    check(unsafe { (ort::api().GetAvailableProviders)(&mut names, &mut count) })?;
    let listed = usize::try_from(count).unwrap_or(0);
    // SAFETY: the library filled `names` with `count` strings, which live until released below.
    let copied = (0..listed)
        .map(|index| unsafe { text(*names.add(index)) })
        .collect();
    // SAFETY: exactly what GetAvailableProviders gave.
    check(unsafe { (ort::api().ReleaseAvailableProviders)(names, count) })?;
    Ok(copied)
}

/// One input or output as the library describes it.
pub(crate) struct TensorInfo {
    pub(crate) name: String,
    /// `ONNXType`.
    pub(crate) kind: c_int,
    /// `ONNXTensorElementDataType`; 0 when it is no tensor.
    pub(crate) element: c_int,
    /// −1 for a dimension decided at run time; `None` when even the rank is.
    pub(crate) dims: Option<Vec<i64>>,
}

/// A side of the graph.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    Input,
    Output,
}

/// Names as the C API wants them. The pointers point into `owned`, whose heap strings never move.
#[derive(Default)]
struct Names {
    owned: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl Names {
    fn push(&mut self, name: CString) {
        self.pointers.push(name.as_ptr());
        self.owned.push(name);
    }
}

/// An `OrtSession`: a model compiled for its providers.
pub(crate) struct RawSession {
    session: NonNull<OrtSession>,
    inputs: Names,
    outputs: Names,
    /// Operators of our own belong to the options, and must live as long as the session.
    _options: SessionBuilder,
    _environment: Environment,
}

// SAFETY: an OrtSession is immutable after creation except in Run, which takes a turn; nothing in
// it belongs to a thread. `Names` is never changed after creation, and the options are kept only.
unsafe impl Send for RawSession {}
// SAFETY: as above.
unsafe impl Sync for RawSession {}

impl Drop for RawSession {
    fn drop(&mut self) {
        // SAFETY: made by CreateSession*, released once, and no run can be in progress: runs
        // borrow `self`.
        unsafe { (ort::api().ReleaseSession)(self.session.as_ptr()) };
    }
}

/// Makes a process's first session while no other is made: with it the library enters the domain of our
/// operators into a map of its own, and fails where two find it missing at once.
fn first_alone<T>(make: impl FnOnce() -> Result<T, ort::Error>) -> Result<T, ort::Error> {
    static HAS_DOMAIN: Mutex<bool> = Mutex::new(false);
    let mut has_domain = HAS_DOMAIN.lock().unwrap_or_else(PoisonError::into_inner);
    if *has_domain {
        drop(has_domain);
        return make();
    }
    let made = make();
    *has_domain = made.is_ok();
    made
}

impl RawSession {
    /// Loads and compiles a model file.
    pub(crate) fn from_file(
        environment: &Environment,
        options: SessionBuilder,
        file: &Path,
    ) -> Result<Self, ort::Error> {
        let file = CString::new(file.as_os_str().as_bytes())?;
        let mut session = null_mut();
        first_alone(|| {
            // SAFETY: environment and options are live objects of this library, `file` is a
            // NUL-terminated path, `session` is an out-parameter.
            check(unsafe {
                (ort::api().CreateSession)(
                    environment.ptr(),
                    file.as_ptr(),
                    options.ptr(),
                    &mut session,
                )
            })
        })?;
        Self::finish(environment, options, session)
    }

    /// Loads and compiles a model in memory; the library copies what it keeps.
    pub(crate) fn from_bytes(
        environment: &Environment,
        options: SessionBuilder,
        model: &[u8],
    ) -> Result<Self, ort::Error> {
        let mut session = null_mut();
        first_alone(|| {
            // SAFETY: as in `from_file`; `model` is a live slice of the length given.
            check(unsafe {
                (ort::api().CreateSessionFromArray)(
                    environment.ptr(),
                    model.as_ptr().cast(),
                    model.len(),
                    options.ptr(),
                    &mut session,
                )
            })
        })?;
        Self::finish(environment, options, session)
    }

    fn finish(
        environment: &Environment,
        options: SessionBuilder,
        session: *mut OrtSession,
    ) -> Result<Self, ort::Error> {
        let mut this = Self {
            session: not_null(session)?,
            inputs: Names::default(),
            outputs: Names::default(),
            _options: options,
            _environment: environment.clone(),
        };
        for index in 0..this.count(Side::Input)? {
            let name = this.name(Side::Input, index)?;
            this.inputs.push(name);
        }
        for index in 0..this.count(Side::Output)? {
            let name = this.name(Side::Output, index)?;
            this.outputs.push(name);
        }
        Ok(this)
    }

    fn count(&self, side: Side) -> Result<usize, ort::Error> {
        let api = ort::api();
        let mut count = 0;
        // SAFETY: a live session and an out-parameter.
        check(unsafe {
            match side {
                Side::Input => (api.SessionGetInputCount)(self.session.as_ptr(), &mut count),
                Side::Output => (api.SessionGetOutputCount)(self.session.as_ptr(), &mut count),
            }
        })?;
        Ok(count)
    }

    fn name(&self, side: Side, index: usize) -> Result<CString, ort::Error> {
        let api = ort::api();
        let (mut allocator, mut name): (*mut OrtAllocator, *mut c_char) = (null_mut(), null_mut());
        // SAFETY: an out-parameter; the default allocator is a static of the library.
        check(unsafe { (api.GetAllocatorWithDefaultOptions)(&mut allocator) })?;
        let session = self.session.as_ptr();
        // SAFETY: a live session and allocator; the library checks `index`.
        check(unsafe {
            match side {
                Side::Input => (api.SessionGetInputName)(session, index, allocator, &mut name),
                Side::Output => (api.SessionGetOutputName)(session, index, allocator, &mut name),
            }
        })?;
        let name = not_null(name)?;
        // SAFETY: a NUL-terminated string that lives until it is freed below.
        let copied = unsafe { CStr::from_ptr(name.as_ptr()) }.to_owned();
        // SAFETY: allocated by this allocator just above, freed once.
        check(unsafe { (api.AllocatorFree)(allocator, name.as_ptr().cast()) })?;
        Ok(copied)
    }

    /// All inputs or outputs, in the model's order.
    pub(crate) fn tensors(&self, side: Side) -> Result<Vec<TensorInfo>, ort::Error> {
        let names = match side {
            Side::Input => &self.inputs,
            Side::Output => &self.outputs,
        };
        let describe = |(index, name): (usize, &CString)| {
            self.tensor(side, index, name.to_string_lossy().into_owned())
        };
        names.owned.iter().enumerate().map(describe).collect()
    }

    fn tensor(&self, side: Side, index: usize, name: String) -> Result<TensorInfo, ort::Error> {
        let api = ort::api();
        let mut info: *mut OrtTypeInfo = null_mut();
        let session = self.session.as_ptr();
        // SAFETY: a live session, an out-parameter; the library checks `index`.
        check(unsafe {
            match side {
                Side::Input => (api.SessionGetInputTypeInfo)(session, index, &mut info),
                Side::Output => (api.SessionGetOutputTypeInfo)(session, index, &mut info),
            }
        })?;
        let info = TypeInfo(not_null(info)?);
        let mut described = TensorInfo {
            name,
            kind: 0,
            element: 0,
            dims: None,
        };
        // SAFETY: a live type info; ONNXType is a C enumeration of the size of an int.
        check(unsafe {
            (api.GetOnnxTypeFromTypeInfo)(info.0.as_ptr(), (&raw mut described.kind).cast())
        })?;
        if described.kind == ONNX_TYPE_TENSOR {
            info.read_shape(&mut described)?;
        }
        Ok(described)
    }

    /// Nodes per execution provider after partitioning, and the groups that they were put into.
    pub(crate) fn assignment(&self) -> Result<Vec<ProviderShare>, ort::Error> {
        let api = ort::api();
        let (mut graphs, mut count) = (null(), 0);
        // SAFETY: a live session and out-parameters; the array belongs to the session.
        check(unsafe {
            (api.Session_GetEpGraphAssignmentInfo)(self.session.as_ptr(), &mut graphs, &mut count)
        })?;
        let mut shares: Vec<ProviderShare> = Vec::new();
        for index in 0..count {
            let (mut name, mut nodes, mut node_count) = (null(), null(), 0);
            // SAFETY: the library gave `count` live subgraphs, which it keeps with the session.
            let graph = unsafe { *graphs.add(index) };
            // SAFETY: a live subgraph and an out-parameter; the string lives with the session.
            check(unsafe { (api.EpAssignedSubgraph_GetEpName)(graph, &mut name) })?;
            // SAFETY: a live subgraph and out-parameters; only the count is used.
            check(unsafe {
                (api.EpAssignedSubgraph_GetNodes)(graph, &mut nodes, &mut node_count)
            })?;
            // SAFETY: filled by the library just above.
            let name = unsafe { text(name) };
            let node_count = u32::try_from(node_count).unwrap_or(u32::MAX);
            match shares.iter_mut().find(|share| share.provider == name) {
                Some(share) => {
                    share.nodes = share.nodes.saturating_add(node_count);
                    share.groups = share.groups.saturating_add(1);
                }
                None => shares.push(ProviderShare {
                    provider: name,
                    nodes: node_count,
                    groups: 1,
                    time_us: None,
                }),
            }
        }
        Ok(shares)
    }

    /// Ends the profile that the session's options began; the name of its file. No run may be in
    /// progress, which its caller's turn sees to.
    pub(crate) fn end_profiling(&self) -> Result<OsString, ort::Error> {
        let api = ort::api();
        let (mut allocator, mut name): (*mut OrtAllocator, *mut c_char) = (null_mut(), null_mut());
        // SAFETY: an out-parameter; the default allocator is a static of the library.
        check(unsafe { (api.GetAllocatorWithDefaultOptions)(&mut allocator) })?;
        // SAFETY: a live session and allocator, and an out-parameter.
        check(unsafe { (api.SessionEndProfiling)(self.session.as_ptr(), allocator, &mut name) })?;
        let name = not_null(name)?;
        // SAFETY: a NUL-terminated string that lives until it is freed below.
        let bytes = unsafe { CStr::from_ptr(name.as_ptr()) }.to_bytes().to_vec();
        // SAFETY: allocated by this allocator just above, freed once.
        check(unsafe { (api.AllocatorFree)(allocator, name.as_ptr().cast()) })?;
        Ok(OsString::from_vec(bytes))
    }

    /// Computes once. `inputs` and `outputs` follow the model's order; for each output without a
    /// value the library allocates one, which comes back at its position.
    pub(crate) fn run<'a>(
        &self,
        _turn: &TurnGuard<'_>,
        options: &RunOptions,
        inputs: impl ExactSizeIterator<Item = ValueRef<'a>>,
        outputs: impl ExactSizeIterator<Item = Option<ValueRef<'a>>>,
    ) -> Result<Vec<Option<Produced>>, ort::Error> {
        if inputs.len() != self.inputs.owned.len() || outputs.len() != self.outputs.owned.len() {
            return Err(ort::Error::new("wrong number of inputs or outputs"));
        }
        let inputs: Vec<*const OrtValue> =
            inputs.map(|value| value.0.as_ptr().cast_const()).collect();
        let given: Vec<*mut OrtValue> = outputs
            .map(|value| value.map_or(null_mut(), |value| value.0.as_ptr()))
            .collect();
        let mut filled = given.clone();
        // SAFETY: all arrays have the lengths given (checked above); names point into
        // `self.inputs` and `self.outputs`; every value is borrowed for the duration of the call
        // and owns its memory; the turn keeps other runs out.
        let status = check(unsafe {
            (ort::api().Run)(
                self.session.as_ptr(),
                options.ptr(),
                self.inputs.pointers.as_ptr(),
                inputs.as_ptr(),
                inputs.len(),
                self.outputs.pointers.as_ptr(),
                filled.len(),
                filled.as_mut_ptr(),
            )
        });
        // Collected before `status` is looked at, so that nothing leaks if a failing run filled some.
        let produced = std::iter::zip(given, filled)
            .map(|(given, filled)| match given.is_null() {
                true => NonNull::new(filled).map(Produced),
                false => None,
            })
            .collect();
        status.map(|()| produced)
    }
}

struct TypeInfo(NonNull<OrtTypeInfo>);

impl Drop for TypeInfo {
    fn drop(&mut self) {
        // SAFETY: made by SessionGet*TypeInfo and released once.
        unsafe { (ort::api().ReleaseTypeInfo)(self.0.as_ptr()) };
    }
}

impl TypeInfo {
    fn read_shape(&self, into: &mut TensorInfo) -> Result<(), ort::Error> {
        let api = ort::api();
        let mut shape = null();
        // SAFETY: a live type info; `shape` then borrows from it.
        check(unsafe { (api.CastTypeInfoToTensorInfo)(self.0.as_ptr(), &mut shape) })?;
        let shape = not_null(shape.cast_mut())?.as_ptr();
        // SAFETY: a live tensor info; the enumeration has the size of an int.
        check(unsafe { (api.GetTensorElementType)(shape, (&raw mut into.element).cast()) })?;
        // SAFETY: a live tensor info.
        if !unsafe { (api.TensorTypeAndShape_HasShape)(shape) } {
            return Ok(());
        }
        let mut rank = 0;
        // SAFETY: a live tensor info and an out-parameter.
        check(unsafe { (api.GetDimensionsCount)(shape, &mut rank) })?;
        let mut dims = vec![0i64; rank];
        // SAFETY: `dims` has room for `rank` dimensions.
        check(unsafe { (api.GetDimensions)(shape, dims.as_mut_ptr(), rank) })?;
        into.dims = Some(dims);
        Ok(())
    }
}

const fn element(dtype: DType) -> Element {
    match dtype {
        DType::F32 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        DType::F16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        DType::Bf16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        DType::F64 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        DType::I8 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        DType::U8 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        DType::I16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
        DType::U16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,
        DType::I32 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        DType::U32 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
        DType::I64 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        DType::U64 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
        DType::Bool => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
    }
}

/// The `ONNXTensorElementDataType` of an element type, which is onnx.proto's `DataType` too.
pub(crate) fn element_code(dtype: DType) -> u64 {
    element(dtype) as u64
}

/// The element type of an `ONNXTensorElementDataType`, where Mote has it.
pub(crate) fn dtype(code: c_int) -> Option<DType> {
    const ALL: [DType; 13] = [
        DType::F32,
        DType::F16,
        DType::Bf16,
        DType::F64,
        DType::I8,
        DType::U8,
        DType::I16,
        DType::U16,
        DType::I32,
        DType::U32,
        DType::I64,
        DType::U64,
        DType::Bool,
    ];
    ALL.into_iter()
        .find(|&dtype| element(dtype) as c_int == code)
}

/// An `OrtValue` over the memory of a [`Tensor`], which it keeps alive.
pub(crate) struct RawValue {
    value: NonNull<OrtValue>,
    tensor: Tensor,
}

// SAFETY: an OrtValue is plain data behind an atomic reference count; it belongs to no thread.
unsafe impl Send for RawValue {}

impl Drop for RawValue {
    fn drop(&mut self) {
        // SAFETY: made by CreateTensorWithDataAsOrtValue and released once; the library does not
        // free memory it did not allocate.
        unsafe { (ort::api().ReleaseValue)(self.value.as_ptr()) };
    }
}

impl RawValue {
    /// Wraps `tensor` in place. `memory` describes ordinary CPU memory.
    pub(crate) fn over(tensor: &Tensor, memory: &MemoryInfo<'_>) -> Result<Self, ort::Error> {
        let mut dims = [0i64; mote_api::RANK_MAX];
        let rank = tensor.shape().len();
        for (dim, &size) in dims.iter_mut().zip(tensor.shape()) {
            *dim = i64::try_from(size).map_err(|_| ort::Error::new("a dimension is too large"))?;
        }
        let mut value = null_mut();
        // SAFETY: the tensor's range lies in its buffer (Tensor::new), which this value keeps
        // mapped through its clone; `dims` holds `rank` ≤ RANK_MAX dimensions (Tensor::new).
        check(unsafe {
            (ort::api().CreateTensorWithDataAsOrtValue)(
                memory.ptr(),
                tensor.as_ptr().cast(),
                tensor.bytes(),
                dims.as_ptr(),
                rank,
                element(tensor.dtype()),
                &mut value,
            )
        })?;
        Ok(Self {
            value: not_null(value)?,
            tensor: tensor.clone(),
        })
    }

    pub(crate) fn view(&self) -> ValueRef<'_> {
        ValueRef(self.value, PhantomData)
    }

    /// The tensor underneath.
    pub(crate) fn tensor(&self) -> &Tensor {
        &self.tensor
    }
}

/// An output that the library allocated, or took from an input.
pub(crate) struct Produced(NonNull<OrtValue>);

impl Drop for Produced {
    fn drop(&mut self) {
        // SAFETY: given to us by Run and released once.
        unsafe { (ort::api().ReleaseValue)(self.0.as_ptr()) };
    }
}

impl Produced {
    /// Element type code and dimensions.
    pub(crate) fn describe(&self) -> Result<(c_int, Vec<usize>), ort::Error> {
        let (mut code, mut dims, mut rank): (c_int, *const i64, usize) = (0, null(), 0);
        // SAFETY: a live value and out-parameters; the enumeration has the size of an int.
        check(unsafe {
            (ort::api().GetTensorElementTypeAndShapeDataReference)(
                self.0.as_ptr(),
                (&raw mut code).cast(),
                &mut dims,
                &mut rank,
            )
        })?;
        let shape = (0..rank)
            // SAFETY: the library gave `rank` dimensions, which live with the value.
            .map(|index| usize::try_from(unsafe { *dims.add(index) }).unwrap_or(0))
            .collect();
        Ok((code, shape))
    }

    /// Copies the elements into `target`, which has the value's element type and shape.
    pub(crate) fn copy_to(&self, target: &Tensor) -> Result<(), ort::Error> {
        let (code, shape) = self.describe()?;
        let fits = code == element(target.dtype()) as c_int && shape == target.shape();
        if !fits || target.buffer().access() == Access::ReadOnly {
            return Err(ort::Error::new("the copy's target does not fit"));
        }
        let mut data: *mut c_void = null_mut();
        // SAFETY: a live tensor value and an out-parameter.
        check(unsafe { (ort::api().GetTensorMutableData)(self.0.as_ptr(), &mut data) })?;
        if target.bytes() > 0 {
            let source = not_null(data)?.as_ptr().cast::<u8>();
            // SAFETY: the value holds as many bytes as its shape and type say, which are the
            // target's (checked); the target is writable and stays mapped while borrowed. The two
            // may overlap when an output is an input, so this is a memmove.
            unsafe { std::ptr::copy(source, target.as_ptr(), target.bytes()) };
        }
        Ok(())
    }
}

/// Copies all bytes of one tensor into another.
///
/// # Errors
/// When the sizes differ or the target is read-only.
pub(crate) fn copy(from: &Tensor, to: &Tensor) -> Result<(), TensorError> {
    if from.bytes() != to.bytes() {
        return Err(TensorError::Length {
            have: to.bytes(),
            asked: from.bytes(),
        });
    }
    if to.buffer().access() == Access::ReadOnly {
        return Err(TensorError::ReadOnly);
    }
    // SAFETY: both ranges lie in mappings that live while borrowed (Tensor::new), have the same
    // length (checked), and the target is writable; memmove tolerates overlap.
    unsafe { std::ptr::copy(from.as_ptr(), to.as_ptr(), from.bytes()) };
    Ok(())
}
