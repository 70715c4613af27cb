//! One interpreter with its delegate: the running state of a model.
#![allow(unsafe_code, reason = "the door for interpreters and their tensors")]

use crate::cancel::CancelState;
use crate::counter::{Counter, NodeCount};
use crate::delegate::{Delegate, DelegateKind};
use crate::model_file::ModelObject;
use crate::reporter::ErrorText;
use crate::sys::{self, Api, Status, TENSOR_ALIGNMENT_BYTES};
use mote_api::{Absence, BackendError, Buffer, DType, LoadError, Tensor};
use std::ffi::c_int;
use std::ptr::NonNull;
use std::sync::Arc;

/// Which list of a model's tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Input,
    Output,
}

/// What an interpreter is built for.
pub(crate) struct Build<'a> {
    pub model: &'a Arc<ModelObject>,
    pub kind: &'a DelegateKind,
    pub provider: &'a str,
    pub threads: i32,
    /// Shapes of all inputs, when they are not those of the file.
    pub shapes: Option<&'a [Vec<usize>]>,
}

/// An interpreter, its tensors allocated, its delegate applied.
pub(crate) struct Interpreter {
    raw: NonNull<sys::Interpreter>,
    /// Where a cancel finds the interpreter; emptied before it is deleted.
    cancel: Arc<CancelState>,
    counters: Vec<Counter>,
    delegates: Vec<Delegate>,
    errors: Box<ErrorText>,
    /// Memory that tensors lie in, by tensor index.
    adopted: Vec<(c_int, Buffer)>,
    model: Arc<ModelObject>,
    /// `None` when the library cannot tell.
    pub counts: Option<Counts>,
}

/// Nodes of an interpreter's graphs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    /// Before any delegate.
    pub before: NodeCount,
    /// After the one that was asked for.
    pub after: NodeCount,
    /// After the one for what it left.
    pub last: NodeCount,
}

// SAFETY: an interpreter may be used by one thread at a time, whichever: `&mut self` sees to it.
// What other threads do meanwhile is `TfLiteInterpreterCancel`, which the header allows.
unsafe impl Send for Interpreter {}

impl Drop for Interpreter {
    fn drop(&mut self) {
        self.cancel.forget(self.raw);
        // SAFETY: created by this library, deleted once; nobody can cancel it any more. Its
        // delegates, error text, memory and model are fields, which are dropped after this.
        unsafe { (self.api().interpreter_delete)(self.raw.as_ptr()) };
    }
}

impl Interpreter {
    /// Builds one.
    pub fn new(build: &Build, cancel: &Arc<CancelState>) -> Result<Self, LoadError> {
        let mut interpreter = Self::bare(build, cancel).map_err(LoadError::Session)?;
        if let Some(shapes) = build.shapes {
            let resized = interpreter.resize_inputs(shapes);
            resized.map_err(LoadError::Session)?;
        }
        let before = interpreter.count();
        let first = build.kind.make(&build.model.api)?;
        interpreter.delegate(build, first)?;
        let after = interpreter.count();
        let second = build.kind.make_second(&build.model.api)?;
        interpreter.delegate(build, second)?;
        let last = interpreter.count();
        let counted = before.zip(after).zip(last);
        interpreter.counts = counted.map(|((before, after), last)| Counts {
            before,
            after,
            last,
        });
        interpreter.allocate().map_err(LoadError::Session)?;
        cancel.aim(&interpreter.model.api, interpreter.raw);
        Ok(interpreter)
    }

    fn bare(build: &Build, cancel: &Arc<CancelState>) -> Result<Self, BackendError> {
        let api = &build.model.api;
        let errors = Box::<ErrorText>::default();
        let (reporter, user_data) = errors.callback();
        // SAFETY: the options live over the creation, which copies them; the boxed ErrorText and
        // the model live as long as the interpreter, as fields beside it.
        let raw = unsafe {
            let options = (api.options_create)();
            (api.options_set_num_threads)(options, build.threads);
            (api.options_set_error_reporter)(options, reporter, user_data);
            if let Some(enable) = api.options_enable_cancellation {
                enable(options, true);
            }
            let raw = (api.interpreter_create)(build.model.raw(), options);
            (api.options_delete)(options);
            raw
        };
        let Some(raw) = NonNull::new(raw) else {
            return Err(errors.error("TfLiteInterpreterCreate", "it gave no interpreter"));
        };
        Ok(Self {
            raw,
            cancel: cancel.clone(),
            counters: Vec::new(),
            delegates: Vec::new(),
            errors,
            adopted: Vec::new(),
            model: build.model.clone(),
            counts: None,
        })
    }

    fn api(&self) -> &Api {
        &self.model.api
    }

    fn resize_inputs(&mut self, shapes: &[Vec<usize>]) -> Result<(), BackendError> {
        const OPERATION: &str = "TfLiteInterpreterResizeInputTensor";
        for (index, shape) in (0..).zip(shapes) {
            let dims: Result<Vec<c_int>, _> = shape.iter().map(|&d| c_int::try_from(d)).collect();
            let dims = dims.map_err(|error| BackendError::new(OPERATION, error))?;
            let rank = i32::try_from(dims.len()).unwrap_or(i32::MAX);
            // SAFETY: `dims` holds `rank` numbers over the call; the library checks the index.
            let status =
                unsafe { (self.api().resize_input)(self.raw.as_ptr(), index, dims.as_ptr(), rank) };
            self.check(OPERATION, status)?;
        }
        Ok(())
    }

    /// Applies a delegate, if there is one. A failing one leaves no trace in the graph.
    fn delegate(&mut self, build: &Build, delegate: Option<Delegate>) -> Result<(), LoadError> {
        let Some(delegate) = delegate else {
            return Ok(());
        };
        let Some(modify) = self.api().modify_graph else {
            return Err(LoadError::ProviderAbsent {
                provider: build.provider.into(),
                absence: Absence::SymbolMissing {
                    symbol: "TfLiteInterpreterModifyGraphWithDelegate".into(),
                },
            });
        };
        // SAFETY: the delegate becomes a field, which outlives the interpreter.
        let status = unsafe { modify(self.raw.as_ptr(), delegate.raw()) };
        self.delegates.push(delegate);
        self.check("TfLiteInterpreterModifyGraphWithDelegate", status)
            .map_err(LoadError::Session)
    }

    /// Counts nodes; `None` when the library cannot tell.
    fn count(&mut self) -> Option<NodeCount> {
        let modify = self.api().modify_graph?;
        let counter = Counter::new(&self.model.api)?;
        // SAFETY: the counter becomes a field, which outlives the interpreter.
        let status = unsafe { modify(self.raw.as_ptr(), counter.raw()) };
        let count = counter.count();
        self.counters.push(counter);
        (status == 0).then_some(count)
    }

    /// Allocates tensors, and takes note of adopted memory.
    pub fn allocate(&mut self) -> Result<(), BackendError> {
        // SAFETY: adopted memory is held in `adopted`.
        let status = unsafe { (self.api().allocate_tensors)(self.raw.as_ptr()) };
        self.check("TfLiteInterpreterAllocateTensors", status)
    }

    /// Computes once.
    pub fn invoke(&mut self) -> Result<(), Status> {
        self.errors.take();
        // SAFETY: tensors are allocated (`new`), and adopted memory is held in `adopted`.
        match unsafe { (self.api().invoke)(self.raw.as_ptr()) } {
            0 => Ok(()),
            status => Err(status),
        }
    }

    /// The error of a failed call.
    pub fn error(&self, operation: &'static str, status: Status) -> BackendError {
        self.errors.error(operation, &format!("status {status}"))
    }

    fn check(&self, operation: &'static str, status: Status) -> Result<(), BackendError> {
        match status {
            0 => Ok(()),
            status => Err(self.error(operation, status)),
        }
    }

    /// Number of tensors of a side.
    pub fn tensors(&self, side: Side) -> usize {
        let raw = self.raw.as_ptr();
        // SAFETY: asks a live interpreter.
        let count = unsafe {
            match side {
                Side::Input => (self.api().input_count)(raw),
                Side::Output => (self.api().output_count)(raw),
            }
        };
        usize::try_from(count).unwrap_or(0)
    }

    /// The tensor at a position; `None` when there is no such.
    pub fn tensor(&self, side: Side, position: usize) -> Option<TensorView<'_>> {
        if position >= self.tensors(side) {
            return None;
        }
        let position = i32::try_from(position).ok()?;
        let raw = self.raw.as_ptr();
        // SAFETY: the position was checked. The view borrows `self`, so nothing that could move
        // tensors (all of that takes `&mut self`) happens while it lives.
        let tensor = unsafe {
            match side {
                Side::Input => (self.api().input_tensor)(raw, position),
                Side::Output => (self.api().output_tensor)(raw, position),
            }
        };
        NonNull::new(tensor).map(|raw| TensorView {
            raw,
            api: self.api(),
            _interpreter: std::marker::PhantomData,
        })
    }

    /// The library's index of a tensor, unless the model also gives it out at another position
    /// (an input that is an output too): one tensor cannot lie in two memories.
    fn index_of_its_own(&self, side: Side, position: usize) -> Option<c_int> {
        let (input_index, output_index) = (self.api().input_index?, self.api().output_index?);
        let raw = self.raw.as_ptr();
        let count = |side| i32::try_from(self.tensors(side)).unwrap_or(0);
        let (inputs, outputs) = (0..count(Side::Input), 0..count(Side::Output));
        // SAFETY: asks a live interpreter about positions that it has.
        let indices: Vec<(Side, c_int)> = unsafe {
            let inputs = inputs.map(|at| (Side::Input, input_index(raw, at)));
            let outputs = outputs.map(|at| (Side::Output, output_index(raw, at)));
            inputs.chain(outputs).collect()
        };
        let own = indices.iter().filter(|(of, _)| *of == side).nth(position)?;
        let uses = indices.iter().filter(|(_, index)| *index == own.1).count();
        (uses == 1).then_some(own.1)
    }

    /// Puts a tensor into `memory` from the next [`allocate`](Self::allocate) on; it stays there
    /// until it is put elsewhere. `false` when the library or this tensor cannot.
    pub fn adopt(&mut self, side: Side, position: usize, memory: &Tensor) -> bool {
        let (Some(set), Some(index)) = (
            self.api().set_custom_allocation,
            self.index_of_its_own(side, position),
        ) else {
            return false;
        };
        let data = memory.as_ptr();
        let fits = self
            .tensor(side, position)
            .is_some_and(|view| view.bytes() == memory.bytes());
        if !fits || memory.bytes() == 0 || !data.addr().is_multiple_of(TENSOR_ALIGNMENT_BYTES) {
            return false;
        }
        let allocation = sys::CustomAllocation {
            data: data.cast(),
            bytes: memory.bytes(),
        };
        // SAFETY: the memory is aligned and as large as the tensor; `adopted` holds it until the
        // tensor is put elsewhere or the interpreter is gone; a `Buffer` is followed by readable
        // bytes, so kernels that read past its end do no harm. Callers pass writable memory for
        // outputs (`session.rs`).
        let status = unsafe { set(self.raw.as_ptr(), index, &raw const allocation, 0) };
        if status != 0 {
            self.errors.take();
            return false;
        }
        // The old memory goes only now that nothing points to it any more.
        self.adopted.retain(|(tensor, _)| *tensor != index);
        self.adopted.push((index, memory.buffer().clone()));
        true
    }
}

/// One tensor of an interpreter, as it is now.
pub(crate) struct TensorView<'a> {
    raw: NonNull<sys::Tensor>,
    api: &'a Api,
    _interpreter: std::marker::PhantomData<&'a Interpreter>,
}

impl TensorView<'_> {
    /// `TfLiteType`.
    pub fn type_code(&self) -> c_int {
        // SAFETY: asks a live tensor.
        unsafe { (self.api.tensor_type)(self.raw.as_ptr()) }
    }

    /// Name in the file.
    pub fn name(&self) -> String {
        // SAFETY: asks a live tensor; the string is copied.
        sys::text(unsafe { (self.api.tensor_name)(self.raw.as_ptr()) })
    }

    /// Bytes.
    pub fn bytes(&self) -> usize {
        // SAFETY: asks a live tensor.
        unsafe { (self.api.tensor_byte_size)(self.raw.as_ptr()) }
    }

    /// Present dimensions.
    pub fn shape(&self) -> Vec<usize> {
        let raw = self.raw.as_ptr();
        // SAFETY: asks a live tensor for dimensions below its rank.
        unsafe {
            let rank = (self.api.tensor_num_dims)(raw).max(0);
            let dims = (0..rank).map(|axis| (self.api.tensor_dim)(raw, axis));
            dims.map(|dim| usize::try_from(dim).unwrap_or(0)).collect()
        }
    }

    /// Dimensions as the file declares them, with `None` for free ones; the present ones when the
    /// file or the library does not tell.
    pub fn declared_shape(&self) -> Vec<Option<usize>> {
        let present: Vec<Option<usize>> = self.shape().into_iter().map(Some).collect();
        let (Some(rank_of), Some(dim_of)) = (self.api.num_dims_signature, self.api.dim_signature)
        else {
            return present;
        };
        let raw = self.raw.as_ptr();
        let mut declared = Vec::new();
        // SAFETY: asks a live tensor for dimensions below the declared rank.
        unsafe {
            let mut rank = -1;
            if rank_of(raw, &raw mut rank) != 0 || usize::try_from(rank) != Ok(present.len()) {
                return present;
            }
            for axis in 0..rank {
                let mut dim = -1;
                if dim_of(raw, axis, &raw mut dim) != 0 {
                    return present;
                }
                declared.push(usize::try_from(dim).ok());
            }
        }
        declared
    }

    /// Copies `source` into the tensor; `false` when sizes differ or it has no memory.
    pub fn copy_in(&self, source: &Tensor) -> bool {
        // SAFETY: asks a live tensor.
        let data = unsafe { (self.api.tensor_data)(self.raw.as_ptr()) }.cast::<u8>();
        let bytes = source.bytes();
        if bytes == 0 {
            return self.bytes() == 0;
        }
        if data.is_null() || self.bytes() != bytes {
            return false;
        }
        if source.dtype() == DType::Bool {
            let Ok(truths) = source.read_bytes() else {
                return false;
            };
            for (offset, byte) in truths.into_iter().enumerate() {
                // SAFETY: the offset is below the tensor's size.
                unsafe { data.add(offset).write(u8::from(byte != 0)) };
            }
            return true;
        }
        // SAFETY: both ranges are `bytes` long and live; `copy` allows that they overlap.
        unsafe { std::ptr::copy(source.as_ptr().cast_const(), data, bytes) };
        true
    }

    /// Copies the tensor into `target`, which is writable; `false` when sizes differ or it has no
    /// memory.
    pub fn copy_out(&self, target: &Tensor) -> bool {
        // SAFETY: asks a live tensor.
        let data = unsafe { (self.api.tensor_data)(self.raw.as_ptr()) }.cast::<u8>();
        let bytes = target.bytes();
        if bytes == 0 {
            return self.bytes() == 0;
        }
        if data.is_null() || self.bytes() != bytes {
            return false;
        }
        // SAFETY: both ranges are `bytes` long and live; `copy` allows that they overlap.
        unsafe { std::ptr::copy(data.cast_const(), target.as_ptr(), bytes) };
        true
    }
}
