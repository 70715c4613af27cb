//! What LiteRT compiles from: environment, model, options. Each is deleted by its owner.
#![allow(unsafe_code, reason = "the door for LiteRT's objects")]

use super::sys::{self, Api, EnvOption, RankedType, Status, status_text};
use crate::model_file::check_identifier;
use mote_api::{BackendError, Buffer};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

/// The signature that is run: of a model with several, the first.
pub(super) const SIGNATURE: usize = 0;
/// Models with more inputs, or more outputs, are refused.
const TENSORS_MAX: usize = 4096;

unsafe extern "C" {
    fn strdup(text: *const c_char) -> *mut c_char;
    pub(super) fn free(memory: *mut c_void);
}

pub(super) fn check(operation: &'static str, status: Status) -> Result<(), BackendError> {
    match status {
        0 => Ok(()),
        status => Err(BackendError::new(operation, status_text(status))),
    }
}

pub(super) fn made<T>(
    operation: &'static str,
    status: Status,
    object: *mut T,
) -> Result<NonNull<T>, BackendError> {
    check(operation, status)?;
    NonNull::new(object).ok_or_else(|| BackendError::new(operation, "it gave nothing"))
}

/// Where the library looks for what belongs to a kind of device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places<'a> {
    pub dispatch: &'a Path,
    pub compiler: Option<&'a Path>,
    pub cache: Option<&'a Path>,
}

/// What accelerators and buffers belong to.
pub(crate) struct Environment {
    pub(super) raw: NonNull<sys::Environment>,
    pub api: Arc<Api>,
    /// Texts of its options.
    _texts: Vec<CString>,
}

// SAFETY: an environment is not changed after it was made; models are compiled and buffers made
// with it from any thread, as LiteRT's own bindings do.
unsafe impl Send for Environment {}
// SAFETY: as above.
unsafe impl Sync for Environment {}

impl Drop for Environment {
    fn drop(&mut self) {
        // SAFETY: made by this library, deleted once; what was made with it holds an Arc of it.
        unsafe { (self.api.destroy_environment)(self.raw.as_ptr()) };
    }
}

impl Environment {
    /// One for the CPU alone, or for an NPU alone whose libraries lie in these places.
    pub fn new(api: Arc<Api>, npu: Option<Places>) -> Result<Self, BackendError> {
        let (accelerators, severity) = match npu {
            None => (sys::ACCELERATOR_CPU, sys::LOG_NOTHING),
            Some(_) => (sys::ACCELERATOR_NPU, sys::LOG_WARNINGS),
        };
        let mut options = vec![
            EnvOption::number(sys::TAG_ACCELERATORS, accelerators.into()),
            EnvOption::number(sys::TAG_LOG_SEVERITY, severity),
        ];
        let mut texts = Vec::new();
        let places = npu.map(|npu| {
            [
                (sys::TAG_DISPATCH_DIR, Some(npu.dispatch)),
                (sys::TAG_COMPILER_DIR, npu.compiler),
                (sys::TAG_CACHE_DIR, npu.cache),
            ]
        });
        for (tag, path) in places.into_iter().flatten() {
            let Some(path) = path else { continue };
            let text = CString::new(path.to_string_lossy().as_bytes());
            let text = text.map_err(|error| BackendError::new("name a folder", error))?;
            options.push(EnvOption::text(tag, text.as_ptr()));
            texts.push(text);
        }
        let mut raw = null_mut();
        let count = c_int::try_from(options.len()).unwrap_or(0);
        // SAFETY: so many options are there over the call; their texts outlive the environment.
        let status = unsafe { (api.create_environment)(count, options.as_ptr(), &raw mut raw) };
        Ok(Self {
            raw: made("LiteRtCreateEnvironment", status, raw)?,
            api,
            _texts: texts,
        })
    }
}

/// A parsed model.
pub(crate) struct ModelObject {
    pub(super) raw: NonNull<sys::Model>,
    pub environment: Arc<Environment>,
    /// The file's bytes, which the library's object points into.
    _bytes: Buffer,
}

// SAFETY: a model may be used by one thread at a time, whichever; it is not `Sync`.
unsafe impl Send for ModelObject {}

impl Drop for ModelObject {
    fn drop(&mut self) {
        // SAFETY: made by this library, deleted once, after what was compiled from it.
        unsafe { (self.environment.api.destroy_model)(self.raw.as_ptr()) };
    }
}

/// A tensor of the model's signature.
#[derive(Clone, Debug)]
pub(crate) struct TensorEntry {
    pub name: String,
    /// Which of the model's tensors it is.
    pub index: u32,
    /// `LiteRtElementType`.
    pub element: c_int,
}

/// Which list of a signature's tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Input,
    Output,
}

impl ModelObject {
    /// Parses a model; the library checks the whole flatbuffer before it is used.
    pub fn parse(environment: Arc<Environment>, bytes: Buffer) -> Result<Self, BackendError> {
        check_identifier(&bytes)?;
        let (data, length) = (bytes.as_ptr().cast_const().cast(), bytes.len());
        let mut raw = null_mut();
        // SAFETY: the bytes live as long as the model, as a field that is dropped after it.
        let status = unsafe {
            let environment = &environment;
            (environment.api.create_model)(environment.raw.as_ptr(), data, length, &raw mut raw)
        };
        Ok(Self {
            raw: made("LiteRtCreateModelFromBuffer", status, raw)?,
            environment,
            _bytes: bytes,
        })
    }

    /// Operators of all its graphs.
    pub fn operators(&self) -> Result<u32, BackendError> {
        let api = &self.environment.api;
        let (mut graphs, mut sum) = (0, 0);
        // SAFETY: asks a live model about graphs that it has.
        unsafe {
            let status = (api.subgraph_count)(self.raw.as_ptr(), &raw mut graphs);
            check("LiteRtGetNumModelSubgraphs", status)?;
            for graph in 0..graphs {
                let (mut raw, mut count) = (null_mut(), 0);
                let status = (api.subgraph)(self.raw.as_ptr(), graph, &raw mut raw);
                check("LiteRtGetModelSubgraph", status)?;
                check(
                    "LiteRtGetNumSubgraphOps",
                    (api.op_count)(raw, &raw mut count),
                )?;
                sum += count;
            }
        }
        Ok(u32::try_from(sum).unwrap_or(u32::MAX))
    }

    /// Tensors of a side of the signature that is run.
    pub fn tensors(&self, side: Side) -> Result<Vec<TensorEntry>, BackendError> {
        const OPERATION: &str = "LiteRtGetModelSignature";
        let api = &self.environment.api;
        let (mut signature, mut count) = (null_mut(), 0);
        // SAFETY: asks a live model, and its signature.
        unsafe {
            let status = (api.signature)(self.raw.as_ptr(), SIGNATURE, &raw mut signature);
            check(OPERATION, status)?;
            let count_of = match side {
                Side::Input => api.input_count,
                Side::Output => api.output_count,
            };
            check(OPERATION, count_of(signature, &raw mut count))?;
        }
        if count > TENSORS_MAX {
            let why = format!("{count} tensors, more than {TENSORS_MAX}");
            return Err(BackendError::new(OPERATION, why));
        }
        (0..count)
            .map(|at| self.tensor(signature, side, at))
            .collect()
    }

    fn tensor(
        &self,
        signature: *mut sys::Signature,
        side: Side,
        at: usize,
    ) -> Result<TensorEntry, BackendError> {
        let api = &self.environment.api;
        let (mut tensor, mut name, mut index) = (null_mut(), std::ptr::null(), 0);
        let mut kind = RankedType::default();
        // SAFETY: the signature is the live model's and has a tensor at this place; the name is
        // copied.
        unsafe {
            let tensor_at = match side {
                Side::Input => api.input_tensor,
                Side::Output => api.output_tensor,
            };
            let status = tensor_at(signature, at, &raw mut tensor);
            check("LiteRtGetSignatureTensorByIndex", status)?;
            check(
                "LiteRtGetTensorName",
                (api.tensor_name)(tensor, &raw mut name),
            )?;
            check(
                "LiteRtGetTensorIndex",
                (api.tensor_index)(tensor, &raw mut index),
            )?;
            let status = (api.tensor_type)(tensor, &raw mut kind);
            check("LiteRtGetRankedTensorType", status)?;
        }
        Ok(TensorEntry {
            name: crate::sys::text(name),
            index,
            element: kind.element,
        })
    }
}

/// Options of a compilation.
pub(super) struct Options {
    pub raw: NonNull<sys::Options>,
    api: Arc<Api>,
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: made by this library, deleted once; it owns the opaque ones that were added.
        unsafe { (self.api.destroy_options)(self.raw.as_ptr()) };
    }
}

impl Options {
    pub fn new(api: Arc<Api>, accelerators: c_int) -> Result<Self, BackendError> {
        let mut raw = null_mut();
        // SAFETY: fills in a pointer.
        let status = unsafe { (api.create_options)(&raw mut raw) };
        let raw = made("LiteRtCreateOptions", status, raw)?;
        let options = Self { raw, api };
        // SAFETY: the options are live.
        let status = unsafe { (options.api.set_accelerators)(raw.as_ptr(), accelerators) };
        check("LiteRtSetOptionsHardwareAccelerators", status)?;
        Ok(options)
    }

    /// Adds what a part of the library reads: TOML under the part's name.
    pub fn add(&self, part: &CStr, toml: &CStr) -> Result<(), BackendError> {
        let mut opaque = null_mut();
        // SAFETY: the payload is the C library's, which is what frees it; the library copies the
        // part's name; the options own what was added, and what was not is deleted here.
        unsafe {
            let payload = strdup(toml.as_ptr());
            let status =
                (self.api.create_opaque)(part.as_ptr(), payload.cast(), free, &raw mut opaque);
            let opaque = made("LiteRtCreateOpaqueOptions", status, opaque)?;
            let status = (self.api.add_opaque)(self.raw.as_ptr(), opaque.as_ptr());
            if status != 0 {
                (self.api.destroy_opaque)(opaque.as_ptr());
            }
            check("LiteRtAddOpaqueOptions", status)
        }
    }
}
