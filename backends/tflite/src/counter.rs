//! Counts nodes: a delegate that takes none and only looks at the execution plan. It is the one
//! way of the C API to read back what other delegates took.
#![allow(unsafe_code, reason = "the door for the counting delegate")]

use crate::sys::{self, Api, BUILTIN_DELEGATE, DELEGATE_ALLOWS_DYNAMIC_TENSORS, Status};
use std::ffi::c_void;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Nodes of all graphs of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeCount {
    /// All nodes; what a delegate took counts as one node per connected part.
    pub nodes: u32,
    /// Those that are a delegate's.
    pub delegates: u32,
}

/// A counting delegate. The interpreter that it was applied to goes first.
pub(crate) struct Counter {
    raw: NonNull<sys::Delegate>,
    tally: Box<Tally>,
}

struct Tally {
    api: Arc<Api>,
    nodes: AtomicU32,
    delegates: AtomicU32,
}

impl Counter {
    /// A counter, unless the library is too old for it.
    pub fn new(api: &Arc<Api>) -> Option<Self> {
        let create = api.opaque_delegate_create?;
        let _ = (api.opaque_delegate_delete?, api.execution_plan?);
        let _ = (api.node_and_operator?, api.builtin_code()?);
        let tally = Box::new(Tally {
            api: api.clone(),
            nodes: AtomicU32::new(0),
            delegates: AtomicU32::new(0),
        });
        let builder = sys::OpaqueDelegateBuilder {
            data: std::ptr::from_ref::<Tally>(&tally).cast_mut().cast(),
            prepare: Some(look),
            copy_from_buffer_handle: null_mut(),
            copy_to_buffer_handle: null_mut(),
            free_buffer_handle: null_mut(),
            // Otherwise the graph could not be resized any more.
            flags: DELEGATE_ALLOWS_DYNAMIC_TENSORS,
        };
        // SAFETY: the library copies the builder; the boxed tally lives as long as the delegate.
        let raw = unsafe { create(&raw const builder) };
        NonNull::new(raw).map(|raw| Self { raw, tally })
    }

    /// The library's object.
    pub fn raw(&self) -> *mut sys::Delegate {
        self.raw.as_ptr()
    }

    /// What was counted when it was applied.
    pub fn count(&self) -> NodeCount {
        NodeCount {
            nodes: self.tally.nodes.load(Relaxed),
            delegates: self.tally.delegates.load(Relaxed),
        }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        if let Some(delete) = self.tally.api.opaque_delegate_delete {
            // SAFETY: created by the counterpart, deleted once, after its interpreter.
            unsafe { delete(self.raw.as_ptr()) };
        }
    }
}

/// `Prepare` of the delegate: called once per graph of the model.
unsafe extern "C" fn look(
    context: *mut sys::Context,
    _delegate: *mut sys::Delegate,
    data: *mut c_void,
) -> Status {
    // SAFETY: `data` is the boxed tally, alive while the delegate is, and only shared.
    let tally = unsafe { &*data.cast::<Tally>() };
    let api = &tally.api;
    let (Some(plan_of), Some(node_of), Some(code_of)) = (
        api.execution_plan,
        api.node_and_operator,
        api.builtin_code(),
    ) else {
        return 0;
    };
    let mut plan = null_mut();
    // SAFETY: the context is valid during this call; the plan that it gives holds `size` numbers
    // behind its header and stays valid until the plan is asked for again.
    let indices = unsafe {
        if plan_of(context, &raw mut plan) != 0 || plan.is_null() {
            return 0;
        }
        let size = usize::try_from((*plan).size).unwrap_or(0);
        std::slice::from_raw_parts((&raw const (*plan).data).cast::<i32>(), size).to_vec()
    };
    for index in indices {
        let (mut node, mut operator) = (null_mut(), null_mut());
        // SAFETY: the index comes from the plan; the operator is read during this call only.
        let code = unsafe {
            let found = node_of(context, index, &raw mut node, &raw mut operator) == 0;
            (found && !operator.is_null()).then(|| code_of(operator))
        };
        tally.nodes.fetch_add(1, Relaxed);
        if code == Some(BUILTIN_DELEGATE) {
            tally.delegates.fetch_add(1, Relaxed);
        }
    }
    0
}
