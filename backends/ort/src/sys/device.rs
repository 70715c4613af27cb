//! Memory of devices: where a session wants tensors, and values that lie there.

use super::{RawSession, Side, check, element, not_null, text};
use mote_api::DType;
use ort::AsPointer;
use ort::environment::Environment;
use ort::sys::{OrtAllocator, OrtMemoryInfo, OrtValue};
use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::ptr::{NonNull, null, null_mut};
use std::sync::Arc;

/// `OrtMemoryInfoDeviceType_CPU`.
const DEVICE_CPU: c_int = 0;
/// `OrtDeviceMemoryType_HOST_ACCESSIBLE`.
const HOST_ACCESSIBLE: c_int = 5;

/// A value for the time of a call.
#[derive(Clone, Copy)]
pub(crate) struct ValueRef<'a>(pub(super) NonNull<OrtValue>, pub(super) PhantomData<&'a ()>);

/// Memory that an input is wanted in, or an output comes in, as the library describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The allocator's name, such as `Cuda`.
    pub(crate) name: String,
    /// `OrtMemoryInfoDeviceType`.
    device: c_int,
    /// `OrtDeviceMemoryType`.
    memory: c_int,
    /// Which of several devices.
    number: c_int,
}

impl Place {
    /// Whether the host reaches it.
    pub(crate) fn is_host(&self) -> bool {
        self.device == DEVICE_CPU || self.memory == HOST_ACCESSIBLE
    }

    /// # Safety
    /// `info` is live.
    unsafe fn describe(info: *const OrtMemoryInfo) -> Result<Self, ort::Error> {
        let api = ort::api();
        let (mut name, mut device, mut number) = (null(), DEVICE_CPU, 0);
        // SAFETY: live (the caller's promise), with an out-parameter; the string lives with it.
        check(unsafe { (api.MemoryInfoGetName)(info, &mut name) })?;
        // SAFETY: as above.
        check(unsafe { (api.MemoryInfoGetId)(info, &mut number) })?;
        // SAFETY: as above; the enumeration has the size of an int.
        unsafe { (api.MemoryInfoGetDeviceType)(info, (&raw mut device).cast()) };
        // SAFETY: the function answers an enumeration of the size of an int, which is thus read as
        // one, since a newer library may know more of them.
        let memory_of: unsafe extern "system" fn(*const OrtMemoryInfo) -> c_int =
            unsafe { std::mem::transmute(api.MemoryInfoGetDeviceMemType as *const c_void) };
        Ok(Self {
            // SAFETY: filled by the library above.
            name: unsafe { text(name) },
            device,
            // SAFETY: live (the caller's promise).
            memory: unsafe { memory_of(info) },
            number,
        })
    }
}

impl RawSession {
    /// Where inputs are wanted or outputs come, in the model's order; `None` where the library does
    /// not say.
    pub(crate) fn places(&self, side: Side) -> Result<Vec<Option<Place>>, ort::Error> {
        let infos = self.memory_infos(side)?;
        let describe = |&info: &*const OrtMemoryInfo| match info.is_null() {
            true => Ok(None),
            // SAFETY: not null, and it lives as long as the session.
            false => unsafe { Place::describe(info) }.map(Some),
        };
        infos.iter().map(describe).collect()
    }

    fn memory_infos(&self, side: Side) -> Result<Vec<*const OrtMemoryInfo>, ort::Error> {
        let api = ort::api();
        let session = self.session.as_ptr();
        let count = match side {
            Side::Input => self.inputs.owned.len(),
            Side::Output => self.outputs.owned.len(),
        };
        let mut infos = vec![null(); count];
        if count > 0 {
            // SAFETY: a live session, and room for as many as it has.
            check(unsafe {
                match side {
                    Side::Input => {
                        (api.SessionGetMemoryInfoForInputs)(session, infos.as_mut_ptr(), count)
                    }
                    Side::Output => {
                        (api.SessionGetMemoryInfoForOutputs)(session, infos.as_mut_ptr(), count)
                    }
                }
            })?;
        }
        Ok(infos)
    }
}

/// A session's way to memory of its device.
struct DeviceAllocator {
    allocator: NonNull<OrtAllocator>,
    /// An allocator that is made for a session ends with it.
    _session: Arc<RawSession>,
}

// SAFETY: an allocator of the library locks itself and belongs to no thread.
unsafe impl Send for DeviceAllocator {}

impl Drop for DeviceAllocator {
    fn drop(&mut self) {
        // SAFETY: made by CreateAllocator, and released once, while its session lives.
        unsafe { (ort::api().ReleaseAllocator)(self.allocator.as_ptr()) };
    }
}

impl DeviceAllocator {
    /// For memory as input `input` wants it.
    fn for_input(session: &Arc<RawSession>, input: usize) -> Result<Self, ort::Error> {
        let infos = session.memory_infos(Side::Input)?;
        let info = infos.get(input).copied().filter(|info| !info.is_null());
        let info = info.ok_or_else(|| ort::Error::new("no memory is wanted for this input"))?;
        let mut allocator = null_mut();
        // SAFETY: a live session and memory info of its own, and an out-parameter.
        check(unsafe {
            (ort::api().CreateAllocator)(session.session.as_ptr(), info, &mut allocator)
        })?;
        Ok(Self {
            allocator: not_null(allocator)?,
            _session: Arc::clone(session),
        })
    }
}

/// A tensor in memory of a device. What is in it at first is not known.
pub(crate) struct DeviceValue {
    value: NonNull<OrtValue>,
    _allocator: DeviceAllocator,
}

// SAFETY: an OrtValue is plain data behind an atomic reference count; it belongs to no thread.
unsafe impl Send for DeviceValue {}

impl Drop for DeviceValue {
    fn drop(&mut self) {
        // SAFETY: made by CreateTensorAsOrtValue, and released once, before its allocator.
        unsafe { (ort::api().ReleaseValue)(self.value.as_ptr()) };
    }
}

impl DeviceValue {
    /// A tensor where `session` wants its input `input`.
    pub(crate) fn for_input(
        session: &Arc<RawSession>,
        input: usize,
        dtype: DType,
        shape: &[usize],
    ) -> Result<Self, ort::Error> {
        let allocator = DeviceAllocator::for_input(session, input)?;
        let dims: Result<Vec<i64>, _> = shape.iter().map(|&dim| i64::try_from(dim)).collect();
        let dims = dims.map_err(|_| ort::Error::new("a dimension is too large"))?;
        let mut value = null_mut();
        // SAFETY: a live allocator, which outlives the value (`Drop`, then the fields), and
        // dimensions that live during the call.
        check(unsafe {
            (ort::api().CreateTensorAsOrtValue)(
                allocator.allocator.as_ptr(),
                dims.as_ptr(),
                dims.len(),
                element(dtype),
                &mut value,
            )
        })?;
        let made = Self {
            value: not_null(value)?,
            _allocator: allocator,
        };
        made.check_memory(dims.iter().product::<i64>() > 0)?;
        Ok(made)
    }

    /// Some allocators answer null when they have no more, which the library passes on.
    fn check_memory(&self, wanted: bool) -> Result<(), ort::Error> {
        let mut data: *mut c_void = null_mut();
        // SAFETY: a live tensor value and an out-parameter; the address is not followed.
        check(unsafe { (ort::api().GetTensorMutableData)(self.value.as_ptr(), &mut data) })?;
        match wanted && data.is_null() {
            true => Err(ort::Error::new("the device's allocator gave no memory")),
            false => Ok(()),
        }
    }

    pub(crate) fn view(&self) -> ValueRef<'_> {
        ValueRef(self.value, PhantomData)
    }
}

/// Copies a tensor to another of the same type and shape, wherever they lie, as far as a library that
/// was plugged in has taught the environment.
pub(crate) fn copy_value(
    environment: &Environment,
    from: ValueRef<'_>,
    to: ValueRef<'_>,
) -> Result<(), ort::Error> {
    let from = [from.0.as_ptr().cast_const()];
    let mut to = [to.0.as_ptr().cast_const()];
    // SAFETY: the environment and both values live during the call, and there is one of each; the
    // library checks their sizes. Without a stream it returns when it is done.
    check(unsafe {
        (ort::api().CopyTensors)(
            environment.ptr().cast_mut(),
            from.as_ptr(),
            to.as_mut_ptr(),
            null_mut(),
            1,
        )
    })
}
