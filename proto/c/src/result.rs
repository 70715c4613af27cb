//! `mote_result_t`: what a run or a push gave.

use crate::call::{Out, call, free};
use crate::door::{Filled, Text};
use crate::error::MoteError;
use crate::failure::Failure;
use crate::json::c_text;
use crate::receipt::MoteReceipt;
use crate::structs::{Output, Target};
use crate::tensor::dtype_number;
use mote_client::{DType, OwnedData, OwnedTensor, StreamResult};
use std::ffi::CString;
use std::ptr;

/// Alignment of elements that C may read in place: that of the largest element type.
const ELEMENT_ALIGNMENT_BYTES: usize = 8;

/// Outputs, and what is told of their computation.
pub struct MoteResult {
    outputs: Vec<Held>,
    receipt: Option<MoteReceipt>,
    compute_us: u64,
    bytes_copied: u64,
    bytes_converted: u64,
}

/// An output, for as long as its result lives.
struct Held {
    name: CString,
    dtype: DType,
    shape: Vec<u64>,
    data: Data,
}

enum Data {
    Own(Vec<u8>),
    /// Copied to where its elements are aligned; so many bytes of them.
    Aligned(Vec<u64>, usize),
    InBuffer(*const u8, usize),
}

impl Data {
    fn own(bytes: Vec<u8>) -> Self {
        if bytes.as_ptr().align_offset(ELEMENT_ALIGNMENT_BYTES) == 0 {
            return Self::Own(bytes);
        }
        let words = bytes.chunks(8).map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_ne_bytes(word)
        });
        Self::Aligned(words.collect(), bytes.len())
    }

    fn place(&self) -> (*const u8, usize) {
        match self {
            Self::Own(bytes) if bytes.is_empty() => (ptr::null(), 0),
            Self::Own(bytes) => (bytes.as_ptr(), bytes.len()),
            Self::Aligned(words, bytes) => (words.as_ptr().cast(), *bytes),
            Self::InBuffer(start, bytes) => (*start, *bytes),
        }
    }
}

impl MoteResult {
    /// Holds `outputs`, some of which may be in the buffers of `targets`.
    pub(crate) fn new(outputs: Vec<OwnedTensor>, targets: &[Target<'_>]) -> Self {
        let hold = |output: OwnedTensor| Held {
            name: c_text(&output.name),
            dtype: output.dtype,
            shape: output.shape,
            data: match output.data {
                OwnedData::Bytes(bytes) => Data::own(bytes),
                OwnedData::InBuffer(range) => {
                    let buffers = targets.iter().filter_map(|target| target.buffer.optional());
                    let start = buffers
                        .filter(|buffer| buffer.buffer.id() == range.buffer)
                        .find_map(|buffer| buffer.at(range.offset, range.bytes));
                    let bytes = usize::try_from(range.bytes).unwrap_or_default();
                    start.map_or(Data::InBuffer(ptr::null(), 0), |start| {
                        Data::InBuffer(start, bytes)
                    })
                }
            },
        };
        Self {
            outputs: outputs.into_iter().map(hold).collect(),
            receipt: None,
            compute_us: 0,
            bytes_copied: 0,
            bytes_converted: 0,
        }
    }

    pub(crate) fn of_run(self, receipt: MoteReceipt) -> Self {
        Self {
            compute_us: receipt.receipt().compute_us,
            bytes_copied: receipt.receipt().bytes_copied,
            bytes_converted: receipt.receipt().bytes_converted,
            receipt: Some(receipt),
            ..self
        }
    }

    pub(crate) fn of_push(self, push: &StreamResult) -> Self {
        Self {
            compute_us: push.compute_us,
            bytes_copied: push.bytes_copied,
            bytes_converted: push.bytes_converted,
            ..self
        }
    }
}

fn result(result: Option<&MoteResult>) -> Result<&MoteResult, Failure> {
    result.ok_or_else(|| Failure::null("result"))
}

fn show(held: &Held, output: Filled<'_, Output>) -> Result<(), Failure> {
    let (data, bytes) = held.data.place();
    let value = Output {
        size: size_of::<Output>(),
        name: held.name.as_ptr(),
        shape: held.shape.as_ptr(),
        rank: u32::try_from(held.shape.len()).unwrap_or(u32::MAX),
        dtype: dtype_number(held.dtype),
        data: data.cast(),
        bytes,
        in_buffer: i32::from(matches!(held.data, Data::InBuffer(..))),
        flags: 0,
    };
    output.fill("output", value)
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_result_output_count(given: Option<&MoteResult>) -> usize {
    given.map_or(0, |result| result.outputs.len())
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_result_output(
    given: Option<&MoteResult>,
    index: usize,
    output: Filled<'_, Output>,
    error: Out<'_, MoteError>,
) -> i32 {
    call(error, || {
        let outputs = &result(given)?.outputs;
        let held = outputs.get(index).ok_or_else(|| {
            Failure::invalid("index", format_args!("there are {} outputs", outputs.len()))
        })?;
        show(held, output)
    })
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_result_find(
    given: Option<&MoteResult>,
    name: Text<'_>,
    output: Filled<'_, Output>,
    error: Out<'_, MoteError>,
) -> i32 {
    call(error, || {
        let name = name.required("name")?;
        let mut outputs = result(given)?.outputs.iter();
        let held = outputs.find(|held| held.name.to_bytes() == name.as_bytes());
        let none = || Failure::invalid("name", format_args!("there is no output {name:?}"));
        show(held.ok_or_else(none)?, output)
    })
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_result_receipt(given: Option<&MoteResult>) -> *const MoteReceipt {
    let receipt = given.and_then(|result| result.receipt.as_ref());
    receipt.map_or(ptr::null(), ptr::from_ref)
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_result_compute_us(given: Option<&MoteResult>) -> u64 {
    given.map_or(0, |result| result.compute_us)
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_result_bytes_copied(given: Option<&MoteResult>) -> u64 {
    given.map_or(0, |result| result.bytes_copied)
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_result_bytes_converted(given: Option<&MoteResult>) -> u64 {
    given.map_or(0, |result| result.bytes_converted)
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_result_free(result: Option<Box<MoteResult>>) {
    free(result);
}
