//! A model file in memory, and the library's object over it.
#![allow(unsafe_code, reason = "the door for model objects")]

use crate::reporter::ErrorText;
use crate::sys::{self, Api};
use mote_api::{BackendError, Buffer, FILE_CHUNK_BYTES, LoadError};
use std::io::Read;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

/// Larger files are refused: flatbuffers end at 2 GiB.
pub const TFLITE_BYTES_MAX: u64 = 2 << 30;
/// Bytes 4 to 8 of every model file.
const FILE_IDENTIFIER: &[u8; 4] = b"TFL3";

/// A parsed model. The library only reads it, so interpreters on several threads share it.
pub(crate) struct ModelObject {
    raw: NonNull<sys::Model>,
    pub api: Arc<Api>,
    /// The object reports into it.
    _errors: Box<ErrorText>,
    /// The file's bytes, which the library's object points into.
    _bytes: Buffer,
}

// SAFETY: a TfLiteModel is immutable after its creation; interpreters take it as `const`, and the
// header allows one model for several interpreters. The bytes are private and never written again.
unsafe impl Send for ModelObject {}
// SAFETY: as above.
unsafe impl Sync for ModelObject {}

impl Drop for ModelObject {
    fn drop(&mut self) {
        // SAFETY: created by this library, deleted once; interpreters hold an Arc of `self`, so
        // none is left.
        unsafe { (self.api.model_delete)(self.raw.as_ptr()) };
    }
}

impl ModelObject {
    /// Reads and parses a file.
    pub fn read(api: Arc<Api>, file: &Path) -> Result<Self, LoadError> {
        let bytes = read(file)?;
        Self::parse(api, bytes).map_err(|cause| malformed(file, cause))
    }

    /// Parses a model. The library checks the whole flatbuffer before it is used.
    pub fn parse(api: Arc<Api>, bytes: Buffer) -> Result<Self, BackendError> {
        check_identifier(&bytes)?;
        let errors = Box::<ErrorText>::default();
        let (reporter, user_data) = errors.callback();
        let data = bytes.as_ptr().cast_const().cast();
        // SAFETY: the bytes live as long as the model (`_bytes` is dropped after `drop` has run),
        // and so does the boxed ErrorText.
        let raw = unsafe {
            match api.model_create_with_reporter {
                Some(create) => create(data, bytes.len(), reporter, user_data),
                None => (api.model_create)(data, bytes.len()),
            }
        };
        match NonNull::new(raw) {
            Some(raw) => Ok(Self {
                raw,
                api,
                _errors: errors,
                _bytes: bytes,
            }),
            None => Err(errors.error("TfLiteModelCreate", "the flatbuffer is damaged")),
        }
    }

    /// The library's object.
    pub fn raw(&self) -> *const sys::Model {
        self.raw.as_ptr()
    }
}

/// The error for a file that is no model.
pub(crate) fn malformed(file: &Path, cause: BackendError) -> LoadError {
    LoadError::Malformed {
        file: file.into(),
        cause,
    }
}

/// Refuses bytes that are no model of this format.
pub(crate) fn check_identifier(bytes: &Buffer) -> Result<(), BackendError> {
    let mut start = [0u8; 8];
    let enough = bytes.len() >= start.len() && bytes.copy_out(0, &mut start).is_ok();
    if !enough || &start[4..] != FILE_IDENTIFIER {
        let why = "the file does not carry the identifier TFL3";
        return Err(BackendError::new("check identifier", why));
    }
    Ok(())
}

/// A file's bytes in private memory.
pub(crate) fn read(file: &Path) -> Result<Buffer, LoadError> {
    let read = |cause| LoadError::Read {
        file: file.into(),
        cause,
    };
    let refuse = |why: String| malformed(file, BackendError::new("read model", why));
    let mut opened = std::fs::File::open(file).map_err(read)?;
    let length = opened.metadata().map_err(read)?.len();
    if length > TFLITE_BYTES_MAX {
        return Err(refuse(format!(
            "{length} bytes, more than {TFLITE_BYTES_MAX}"
        )));
    }
    let length = usize::try_from(length).map_err(|_| refuse("too large to address".into()))?;
    // Read, not mapped: the library trusts the bytes after its check, so they must not change.
    let bytes = Buffer::private(length).map_err(|error| refuse(error.to_string()))?;
    let mut chunk = vec![0u8; FILE_CHUNK_BYTES.min(length)];
    let mut offset = 0;
    while offset < length {
        let part = chunk.len().min(length - offset);
        opened.read_exact(&mut chunk[..part]).map_err(read)?;
        let copied = bytes.copy_in(offset, &chunk[..part]);
        copied.map_err(|error| refuse(error.to_string()))?;
        offset += part;
    }
    Ok(bytes)
}
