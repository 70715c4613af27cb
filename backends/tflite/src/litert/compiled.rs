//! A compiled model, and the buffers that its tensors lie in.
#![allow(unsafe_code, reason = "the door for compiled models and their buffers")]

use super::objects::{Environment, ModelObject, Options, SIGNATURE, Side, check, free, made};
use super::sys::{self, Api, Layout, RankedType, Status};
use mote_api::BackendError;
use std::ffi::{CString, c_int, c_void};
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Longer texts of the library are cut.
const TEXT_CHARS_MAX: usize = 4096;

/// What a model is compiled for.
#[derive(Debug)]
pub(crate) struct Target {
    pub accelerator: c_int,
    /// Of the CPU.
    pub threads: i32,
    /// What vendors' libraries read: their names, and TOML.
    pub vendor: Vec<(CString, CString)>,
}

/// Why a model was not compiled.
#[derive(Debug)]
pub(crate) enum CompileError {
    /// An operator was left that the device did not take.
    NotTaken,
    /// A call failed.
    Library(BackendError),
}

/// A compiled model: an interpreter with its state, for one thread at a time.
pub(crate) struct Compiled {
    raw: NonNull<sys::CompiledModel>,
    api: Arc<Api>,
    environment: Arc<Environment>,
    /// What the library asks between two nodes.
    _cancel: Arc<AtomicBool>,
    /// The library reads the model it was compiled from.
    _model: ModelObject,
}

// SAFETY: it may be used by one thread at a time, whichever: what changes it takes `&mut self`, and
// it is not `Sync`.
unsafe impl Send for Compiled {}

impl Drop for Compiled {
    fn drop(&mut self) {
        // SAFETY: made by this library, deleted once; model and environment are fields, which are
        // dropped after this.
        unsafe { (self.api.destroy_compiled)(self.raw.as_ptr()) };
    }
}

unsafe extern "C" fn is_cancelled(asked: *mut c_void) -> bool {
    // SAFETY: the flag lives as long as the compiled model that it was given to (`_cancel`).
    unsafe { &*asked.cast::<AtomicBool>() }.load(Ordering::Acquire)
}

impl Compiled {
    /// Compiles a model for exactly one kind of device. It takes the model, since compiling for an
    /// accelerator may rewrite it.
    pub fn new(
        model: ModelObject,
        target: &Target,
        cancel: &Arc<AtomicBool>,
    ) -> Result<Self, CompileError> {
        const OPERATION: &str = "LiteRtCreateCompiledModel";
        let environment = model.environment.clone();
        let api = environment.api.clone();
        let options = || {
            let options = Options::new(api.clone(), target.accelerator)?;
            // Errors are kept with the model, to be fetched.
            options.add(c"runtime_options_string", c"error_reporter_mode = 2\n")?;
            if target.accelerator == sys::ACCELERATOR_CPU {
                let threads = CString::new(format!("num_threads = {}\n", target.threads));
                let threads = threads.map_err(|error| BackendError::new("write options", error))?;
                options.add(c"xnnpack", &threads)?;
            }
            for (part, toml) in &target.vendor {
                options.add(part, toml)?;
            }
            Ok::<_, BackendError>(options)
        };
        let options = options().map_err(CompileError::Library)?;
        let mut raw = null_mut();
        // SAFETY: environment, model and options are live; the first two outlive what is made.
        let status = unsafe {
            (api.create_compiled)(
                environment.raw.as_ptr(),
                model.raw.as_ptr(),
                options.raw.as_ptr(),
                &raw mut raw,
            )
        };
        if status == sys::STATUS_COMPILATION {
            return Err(CompileError::NotTaken);
        }
        let compiled = Self {
            raw: made(OPERATION, status, raw).map_err(CompileError::Library)?,
            api,
            environment,
            _cancel: cancel.clone(),
            _model: model,
        };
        // SAFETY: the flag lives as long as the compiled model.
        let status = unsafe {
            let asked = Arc::as_ptr(cancel).cast_mut().cast();
            (compiled.api.set_cancellation)(compiled.raw.as_ptr(), asked, is_cancelled)
        };
        let set = check("LiteRtSetCompiledModelCancellationFunction", status);
        set.map_err(CompileError::Library)?;
        Ok(compiled)
    }

    /// Whether no operator is left to the CPU, as the library finds in its execution plan.
    pub fn is_all_off_the_cpu(&self) -> Result<bool, BackendError> {
        let mut answer = false;
        // SAFETY: asks a live object.
        let status = unsafe { (self.api.is_all_off_the_cpu)(self.raw.as_ptr(), &raw mut answer) };
        check("LiteRtCompiledModelIsNonCpuFullyAccelerated", status)?;
        Ok(answer)
    }

    /// Present shape of an input.
    pub fn input_shape(&self, at: usize) -> Result<Vec<usize>, BackendError> {
        const OPERATION: &str = "LiteRtGetCompiledModelInputTensorLayout";
        let mut layout = Layout::default();
        // SAFETY: fills in a layout; the library checks the place.
        let status =
            unsafe { (self.api.input_layout)(self.raw.as_ptr(), SIGNATURE, at, &raw mut layout) };
        check(OPERATION, status)?;
        known(OPERATION, &layout)
    }

    /// Allocates tensors, and tells the shapes of so many outputs.
    pub fn output_shapes(&mut self, count: usize) -> Result<Vec<Vec<usize>>, BackendError> {
        const OPERATION: &str = "LiteRtGetCompiledModelOutputTensorLayouts";
        let mut layouts = vec![Layout::default(); count];
        // SAFETY: fills in so many layouts. Nobody has bound memory yet, or it is still there.
        let status = unsafe {
            let layouts = layouts.as_mut_ptr();
            (self.api.output_layouts)(self.raw.as_ptr(), SIGNATURE, count, layouts, true)
        };
        self.explained(OPERATION, status)?;
        layouts
            .iter()
            .map(|layout| known(OPERATION, layout))
            .collect()
    }

    /// Gives an input another shape, as far as the file leaves its dimensions free.
    pub fn resize_input(&mut self, at: usize, shape: &[usize]) -> Result<(), BackendError> {
        const OPERATION: &str = "LiteRtCompiledModelResizeInputTensor";
        let dims: Result<Vec<c_int>, _> = shape.iter().map(|&dim| c_int::try_from(dim)).collect();
        let dims = dims.map_err(|error| BackendError::new(OPERATION, error))?;
        // SAFETY: so many numbers are there over the call; the library checks the place.
        let status = unsafe {
            let dims_at = dims.as_ptr();
            (self.api.resize_input)(self.raw.as_ptr(), SIGNATURE, at, dims_at, dims.len())
        };
        self.explained(OPERATION, status)
    }

    /// Computes once.
    pub fn run(
        &mut self,
        inputs: &[&TensorBuffer],
        outputs: &[&TensorBuffer],
    ) -> Result<(), BackendError> {
        let pointers = |buffers: &[&TensorBuffer]| -> Vec<*mut sys::TensorBuffer> {
            buffers.iter().map(|buffer| buffer.raw.as_ptr()).collect()
        };
        let (inputs, outputs) = (pointers(inputs), pointers(outputs));
        // SAFETY: so many live buffers each, of the model's types and sizes (`session.rs`), whose
        // memory lives at least until they are deleted.
        let status = unsafe {
            (self.api.run)(
                self.raw.as_ptr(),
                SIGNATURE,
                inputs.len(),
                inputs.as_ptr(),
                outputs.len(),
                outputs.as_ptr(),
            )
        };
        self.explained("LiteRtRunCompiledModel", status)
    }

    /// The result of a call, with what the library reported meanwhile.
    fn explained(&self, operation: &'static str, status: Status) -> Result<(), BackendError> {
        let outcome = check(operation, status);
        if outcome.is_ok() {
            return outcome;
        }
        let mut text = null_mut();
        // SAFETY: the text is the caller's to free; clearing touches no text that was given out.
        let said = unsafe {
            let status = (self.api.error_messages)(self.raw.as_ptr(), &raw mut text);
            let said = match status {
                0 => crate::sys::text(text),
                _ => String::new(),
            };
            free(text.cast());
            (self.api.clear_errors)(self.raw.as_ptr());
            said
        };
        let said: Vec<&str> = said.lines().map(str::trim).collect();
        let said: String = said.join("; ").chars().take(TEXT_CHARS_MAX).collect();
        match said.is_empty() {
            true => outcome,
            false => Err(BackendError::new(operation, said)),
        }
    }

    fn requirements(
        &self,
        side: Side,
        at: usize,
    ) -> Result<NonNull<sys::Requirements>, BackendError> {
        let mut raw = null_mut();
        let requirements = match side {
            Side::Input => self.api.input_requirements,
            Side::Output => self.api.output_requirements,
        };
        // SAFETY: fills in a pointer to what the compiled model owns; the library checks the place.
        let status = unsafe { requirements(self.raw.as_ptr(), SIGNATURE, at, &raw mut raw) };
        made("LiteRtGetCompiledModelBufferRequirements", status, raw)
    }

    /// A buffer over memory of ours, for a tensor that the device may have there as it lies.
    /// `None` when it wants another kind of memory, more of it, or another alignment.
    ///
    /// The caller keeps the memory until the buffer is gone.
    pub fn buffer_over(
        &self,
        (side, at): (Side, usize),
        element: c_int,
        memory: &mote_api::Tensor,
    ) -> Option<TensorBuffer> {
        let requirements = self.requirements(side, at).ok()?;
        let (mut kinds, mut bytes) = (0, 0);
        // SAFETY: asks live requirements about kinds that they list.
        let takes_host = unsafe {
            let listed = (self.api.buffer_type_count)(requirements.as_ptr(), &raw mut kinds) == 0;
            let sized = (self.api.buffer_bytes)(requirements.as_ptr(), &raw mut bytes) == 0;
            listed
                && sized
                && (0..kinds).any(|at| {
                    let mut kind = 0;
                    let told = (self.api.buffer_type)(requirements.as_ptr(), at, &raw mut kind);
                    told == 0 && kind == sys::BUFFER_HOST
                })
        };
        let data = memory.as_ptr();
        let fits = takes_host && memory.bytes() >= bytes && memory.bytes() > 0;
        if !fits || !data.addr().is_multiple_of(sys::HOST_ALIGNMENT_BYTES) {
            return None;
        }
        let layout = Layout::dense(memory.shape())?;
        let kind = RankedType { element, layout };
        let mut raw = null_mut();
        // SAFETY: the memory is aligned, as large as is said, and kept by the caller; a `Buffer` is
        // followed by readable bytes, so kernels that read past its end do no harm. Without a
        // function to free it, the library leaves it alone.
        let status = unsafe {
            let (length, keep) = (memory.bytes(), std::ptr::null());
            (self.api.host_buffer)(&raw const kind, data.cast(), length, keep, &raw mut raw)
        };
        let raw = made("LiteRtCreateTensorBufferFromHostMemory", status, raw).ok()?;
        Some(self.owned(raw))
    }

    /// A buffer in memory that the device wants, for a tensor of this shape.
    pub fn managed_buffer(
        &self,
        (side, at): (Side, usize),
        element: c_int,
        shape: &[usize],
    ) -> Result<TensorBuffer, BackendError> {
        const OPERATION: &str = "LiteRtCreateManagedTensorBufferFromRequirements";
        let requirements = self.requirements(side, at)?;
        let layout = Layout::dense(shape)
            .ok_or_else(|| BackendError::new(OPERATION, "the shape is too large"))?;
        let kind = RankedType { element, layout };
        let mut raw = null_mut();
        // SAFETY: all are live.
        let status = unsafe {
            let environment = self.environment.raw.as_ptr();
            (self.api.managed_buffer)(
                environment,
                &raw const kind,
                requirements.as_ptr(),
                &raw mut raw,
            )
        };
        Ok(self.owned(made(OPERATION, status, raw)?))
    }

    fn owned(&self, raw: NonNull<sys::TensorBuffer>) -> TensorBuffer {
        TensorBuffer {
            raw,
            environment: self.environment.clone(),
        }
    }
}

fn known(operation: &'static str, layout: &Layout) -> Result<Vec<usize>, BackendError> {
    let shape = layout.shape();
    shape.ok_or_else(|| BackendError::new(operation, "a dimension is not known"))
}

/// Memory as the library sees it.
pub(crate) struct TensorBuffer {
    raw: NonNull<sys::TensorBuffer>,
    environment: Arc<Environment>,
}

// SAFETY: used by one thread at a time, with the session that owns it.
unsafe impl Send for TensorBuffer {}

impl Drop for TensorBuffer {
    fn drop(&mut self) {
        // SAFETY: made by this library, deleted once.
        unsafe { (self.environment.api.destroy_buffer)(self.raw.as_ptr()) };
    }
}

impl TensorBuffer {
    /// Maps the buffer, which holds at least `bytes`, lets `with` use the address, and unmaps it.
    fn mapped(
        &mut self,
        mode: c_int,
        bytes: usize,
        with: impl FnOnce(*mut u8),
    ) -> Result<(), BackendError> {
        const OPERATION: &str = "LiteRtLockTensorBuffer";
        let api = &self.environment.api;
        let (mut data, mut have) = (null_mut(), 0);
        // SAFETY: the buffer is live, and locked by nobody else.
        unsafe {
            let status = (api.packed_bytes)(self.raw.as_ptr(), &raw mut have);
            check("LiteRtGetTensorBufferPackedSize", status)?;
            if have != bytes {
                let why = format!("it holds {have} bytes, not {bytes}");
                return Err(BackendError::new(OPERATION, why));
            }
            let status = (api.lock_buffer)(self.raw.as_ptr(), &raw mut data, mode);
            let data = made(OPERATION, status, data)?;
            with(data.as_ptr().cast());
            check(
                "LiteRtUnlockTensorBuffer",
                (api.unlock_buffer)(self.raw.as_ptr()),
            )
        }
    }

    /// Copies `source` in; truth values become 0 and 1.
    pub fn copy_in(&mut self, source: &mote_api::Tensor) -> Result<(), BackendError> {
        let bytes = source.bytes();
        if bytes == 0 {
            return Ok(());
        }
        let truths = source.dtype() == mote_api::DType::Bool;
        let from = source.as_ptr().cast_const();
        self.mapped(sys::LOCK_WRITE, bytes, |data| {
            // SAFETY: both ranges are `bytes` long and live.
            unsafe {
                std::ptr::copy(from, data, bytes);
                if truths {
                    let copied = std::slice::from_raw_parts_mut(data, bytes);
                    copied
                        .iter_mut()
                        .for_each(|byte| *byte = u8::from(*byte != 0));
                }
            }
        })
    }

    /// Copies into `target`, which is writable.
    pub fn copy_out(&mut self, target: &mote_api::Tensor) -> Result<(), BackendError> {
        let bytes = target.bytes();
        if bytes == 0 {
            return Ok(());
        }
        let to = target.as_ptr();
        self.mapped(sys::LOCK_READ, bytes, |data| {
            // SAFETY: both ranges are `bytes` long and live.
            unsafe { std::ptr::copy(data.cast_const(), to, bytes) };
        })
    }
}
