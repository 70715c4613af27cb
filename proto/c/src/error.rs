//! `mote_error_t`.

use crate::call::{free, quiet};
use crate::door::Text;
use crate::failure::{Failure, status_name};
use crate::json::c_text;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::{CString, c_char};
use std::mem::MaybeUninit;
use std::ptr;

/// Why a call failed, for as long as C keeps it.
pub struct MoteError {
    code: i32,
    message: CString,
    json: CString,
    texts: BTreeMap<String, CString>,
    numbers: BTreeMap<String, i64>,
}

impl MoteError {
    pub(crate) fn new(failure: Failure) -> Self {
        let (mut texts, mut numbers) = (BTreeMap::new(), BTreeMap::new());
        for (name, value) in &failure.fields {
            match value {
                Value::String(text) => drop(texts.insert(name.clone(), c_text(text))),
                Value::Number(number) => {
                    let number = number.as_i64().unwrap_or(i64::MAX);
                    numbers.insert(name.clone(), number);
                }
                other => drop(texts.insert(name.clone(), c_text(&other.to_string()))),
            }
        }
        let mut json = failure.fields;
        let name = status_name(failure.code).to_string_lossy();
        json.insert("status".into(), name.into());
        json.insert("message".into(), failure.message.as_str().into());
        Self {
            code: failure.code,
            message: c_text(&failure.message),
            json: c_text(&Value::Object(json).to_string()),
            texts,
            numbers,
        }
    }
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_status_name(status: i32) -> *const c_char {
    status_name(status).as_ptr()
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_error_status(error: Option<&MoteError>) -> i32 {
    error.map_or(crate::codes::MOTE_OK, |error| error.code)
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_error_message(error: Option<&MoteError>) -> *const c_char {
    error.map_or(ptr::null(), |error| error.message.as_ptr())
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_error_json(error: Option<&MoteError>) -> *const c_char {
    error.map_or(ptr::null(), |error| error.json.as_ptr())
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_error_text(error: Option<&MoteError>, field: Text<'_>) -> *const c_char {
    quiet(ptr::null(), || {
        let field = field.optional("field").ok().flatten()?;
        Some(error?.texts.get(field)?.as_ptr())
    })
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_error_number(
    error: Option<&MoteError>,
    field: Text<'_>,
    value: Option<&mut MaybeUninit<i64>>,
) -> i32 {
    quiet(0, || {
        let field = field.optional("field").ok().flatten()?;
        let found = *error?.numbers.get(field)?;
        value?.write(found);
        Some(1)
    })
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_error_free(error: Option<Box<MoteError>>) {
    free(error);
}
