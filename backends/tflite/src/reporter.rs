//! Collects the text of the library's errors.
#![allow(unsafe_code, reason = "the door for the library's error callback")]

use crate::sys::Reporter;
use mote_api::BackendError;
use std::cell::RefCell;
use std::ffi::{c_char, c_void};
use std::sync::{Mutex, PoisonError};

/// Longer messages are cut.
const MESSAGE_BYTES_MAX: usize = 512;
/// Later messages are dropped until the text is taken.
const TEXT_BYTES_MAX: usize = 4096;

/// Where one library object reports its errors. It must outlive that object.
#[derive(Debug, Default)]
pub(crate) struct ErrorText(Mutex<String>);

impl ErrorText {
    /// What a library function takes for its callback; the pointer is valid while `self` stays
    /// where it is.
    pub fn callback(&self) -> (Reporter, *mut c_void) {
        (report, std::ptr::from_ref(self).cast_mut().cast())
    }

    /// Takes the text out.
    pub fn take(&self) -> String {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The error of a call, with the text that was reported.
    pub fn error(&self, operation: &'static str, otherwise: &str) -> BackendError {
        let text = self.take();
        BackendError::new(operation, if text.is_empty() { otherwise } else { &text })
    }

    fn push(&self, message: &str) {
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        append(&mut text, message);
    }
}

fn append(text: &mut String, message: &str) {
    let message = message.trim();
    if text.len() + message.len() <= TEXT_BYTES_MAX && !message.is_empty() {
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(message);
    }
}

/// The library calls this with the object's [`ErrorText`].
unsafe extern "C" fn report(user_data: *mut c_void, format: *const c_char, args: *mut c_void) {
    // SAFETY: `user_data` is what `callback` gave, and whoever gave it keeps the ErrorText in
    // place while the library object lives. It is only shared, and its text is behind a lock.
    let target = unsafe { &*user_data.cast::<ErrorText>() };
    // SAFETY: format and arguments come from the library and belong together.
    target.push(&unsafe { expand(format, args) });
}

/// Formats a message of the library.
///
/// # Safety
/// `args` must be the `va_list` that belongs to `format`.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
unsafe fn expand(format: *const c_char, args: *mut c_void) -> String {
    unsafe extern "C" {
        fn vsnprintf(
            text: *mut c_char,
            bytes: usize,
            format: *const c_char,
            args: *mut c_void,
        ) -> std::ffi::c_int;
    }
    let mut message = [0u8; MESSAGE_BYTES_MAX];
    // SAFETY: vsnprintf writes at most `bytes` and ends with zero. A parameter of type va_list is
    // a pointer here: System V x86-64 declares it an array, and AAPCS64 passes its 32-byte
    // structure by reference, so handing the pointer on is handing the list on.
    unsafe {
        vsnprintf(message.as_mut_ptr().cast(), MESSAGE_BYTES_MAX, format, args);
    }
    let end = message.iter().position(|&byte| byte == 0);
    String::from_utf8_lossy(&message[..end.unwrap_or(0)]).into_owned()
}

/// Elsewhere `va_list` may be passed in other ways: the format alone says enough.
///
/// # Safety
/// `format` must be a C string.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn expand(format: *const c_char, _args: *mut c_void) -> String {
    crate::sys::text(format)
}

thread_local! {
    static PLUGIN_TEXT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// The callback for plug-ins, which report without an object: on the calling thread.
pub(crate) unsafe extern "C" fn report_plugin(message: *const c_char) {
    let message = crate::sys::text(message);
    PLUGIN_TEXT.with_borrow_mut(|text| {
        append(
            text,
            &message.chars().take(MESSAGE_BYTES_MAX).collect::<String>(),
        )
    });
}

/// Takes what plug-ins reported on this thread.
pub(crate) fn take_plugin_text() -> String {
    PLUGIN_TEXT.take()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_bounded_and_taken_once() {
        let text = ErrorText::default();
        assert_eq!(text.error("call", "status 1").message, "status 1");
        for _ in 0..100 {
            text.push(&"x".repeat(100));
        }
        text.push(" one \n");
        assert!(text.take().len() <= TEXT_BYTES_MAX);
        text.push("one");
        text.push("two");
        assert_eq!(text.error("call", "").message, "one; two");
        assert_eq!(text.take(), "");
    }
}
