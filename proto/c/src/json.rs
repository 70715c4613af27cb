//! Texts for C.

use crate::failure::Failure;
use serde::Serialize;
use std::ffi::{CString, c_char};
use std::mem::MaybeUninit;
use std::ptr;

/// Where C wants a text that it then owns.
pub(crate) type TextOut<'a> = Option<&'a mut MaybeUninit<*mut c_char>>;

/// A text that C can read. A NUL inside, which would end it early, is shown as U+FFFD.
pub(crate) fn c_text(text: &str) -> CString {
    CString::new(text)
        .or_else(|_| CString::new(text.replace('\0', "\u{fffd}")))
        .unwrap_or_default()
}

/// A value as JSON.
pub(crate) fn json_text(value: &impl Serialize) -> Result<CString, Failure> {
    let text = serde_json::to_string(value);
    let text = text.map_err(|cause| Failure::internal("writing JSON", cause))?;
    // JSON escapes control characters, so there is no NUL in it.
    Ok(c_text(&text))
}

/// Puts JSON where C wants it: NULL first, so that it is never left undefined.
pub(crate) fn give_json<T: Serialize>(
    out: TextOut<'_>,
    ask: impl FnOnce() -> Result<T, Failure>,
) -> Result<(), Failure> {
    let out = out.ok_or_else(|| Failure::null("json"))?;
    out.write(ptr::null_mut());
    out.write(json_text(&ask()?)?.into_raw());
    Ok(())
}
