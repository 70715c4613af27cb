//! `mote_stream_t`: a model's own socket, straight to the worker that runs it.

use crate::buffer::{MoteBuffer, buffer, not_empty};
use crate::call::{Out, call, free, give};
use crate::client::{MoteClient, client};
use crate::door::{Given, Text};
use crate::error::MoteError;
use crate::failure::Failure;
use crate::frame::frames;
use crate::json::json_text;
use crate::options::options;
use crate::receipt::MoteReceipt;
use crate::result::MoteResult;
use crate::structs::{Options, PushArgs};
use crate::tensor::{inputs, targets};
use mote_client::{FramesPush, Stream, TensorSpec};
use serde::Serialize;
use std::ffi::{CString, c_char};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::{Mutex, OnceLock, PoisonError};

/// A stream. Calls from several threads take turns.
pub struct MoteStream {
    /// None once it was closed.
    stream: Mutex<Option<Stream>>,
    /// What a push takes and gives, as JSON.
    specs: CString,
    receipt: OnceLock<MoteReceipt>,
}

#[derive(Serialize)]
struct Specs<'a> {
    inputs: &'a [TensorSpec],
    outputs: &'a [TensorSpec],
}

/// Runs `work` on a stream that is open.
fn with<R>(
    stream: Option<&MoteStream>,
    work: impl FnOnce(&mut Stream) -> Result<R, Failure>,
) -> Result<R, Failure> {
    let stream = stream.ok_or_else(|| Failure::null("stream"))?;
    let mut open = stream.stream.lock().unwrap_or_else(PoisonError::into_inner);
    work(open.as_mut().ok_or_else(Failure::closed)?)
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_stream_open(
    given: Option<&MoteClient>,
    model: Text<'_>,
    wanted: Given<'_, Options<'_>>,
    stream: Out<'_, MoteStream>,
    error: Out<'_, MoteError>,
) -> i32 {
    call(error, || {
        give(stream, "stream", || {
            let client = client(given)?;
            let model = model.required("model")?;
            let stream = client.open_stream(model, &options(wanted)?)?;
            let specs = json_text(&Specs {
                inputs: stream.inputs(),
                outputs: stream.outputs(),
            })?;
            Ok(MoteStream {
                stream: Mutex::new(Some(stream)),
                specs,
                receipt: OnceLock::new(),
            })
        })
    })
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_stream_json(stream: Option<&MoteStream>) -> *const c_char {
    stream.map_or(ptr::null(), |stream| stream.specs.as_ptr())
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_stream_buffer_create(
    stream: Option<&MoteStream>,
    bytes: u64,
    buffer: Out<'_, MoteBuffer>,
    error: Out<'_, MoteError>,
) -> i32 {
    call(error, || {
        give(buffer, "buffer", || {
            with(stream, |stream| {
                not_empty(bytes)?;
                Ok(MoteBuffer::new(stream.buffer(bytes)?))
            })
        })
    })
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_stream_register(
    stream: Option<&MoteStream>,
    given: Option<&MoteBuffer>,
    error: Out<'_, MoteError>,
) -> i32 {
    call(error, || {
        with(stream, |stream| Ok(stream.register(buffer(given)?)?))
    })
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_stream_unregister(
    stream: Option<&MoteStream>,
    given: Option<&MoteBuffer>,
    error: Out<'_, MoteError>,
) -> i32 {
    call(error, || {
        with(stream, |stream| Ok(stream.unregister(buffer(given)?)?))
    })
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_stream_push(
    stream: Option<&MoteStream>,
    args: Given<'_, PushArgs<'_>>,
    result: Out<'_, MoteResult>,
    error: Out<'_, MoteError>,
) -> i32 {
    call(error, || {
        let run = || with(stream, |stream| push(stream, args));
        match result {
            None => run().map(drop),
            result => give(result, "result", run),
        }
    })
}

fn push(stream: &mut Stream, args: Given<'_, PushArgs<'_>>) -> Result<MoteResult, Failure> {
    let args = args.required("args")?;
    let given = args.inputs.take(args.input_count, "inputs")?;
    let wanted = args.targets.take(args.target_count, "targets")?;
    let pictures = args.frames.take(args.frame_count, "frames")?;
    let written = args
        .frame_outputs
        .take(args.frame_output_count, "frame_outputs")?;
    let mut result = stream.push_frames(&FramesPush {
        inputs: &inputs(given)?,
        outputs: &targets(wanted)?,
        frames: &frames(pictures, "frames")?,
        frame_outputs: &frames(written, "frame_outputs")?,
    })?;
    let held = MoteResult::new(std::mem::take(&mut result.outputs), wanted);
    Ok(held.of_push(&result))
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_stream_close(
    given: Option<&MoteStream>,
    receipt: Option<&mut MaybeUninit<*const MoteReceipt>>,
    error: Out<'_, MoteError>,
) -> i32 {
    call(error, || {
        let mut receipt = receipt;
        if let Some(receipt) = &mut receipt {
            receipt.write(ptr::null());
        }
        let stream = given.ok_or_else(|| Failure::null("stream"))?;
        let open = stream
            .stream
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let told = open.ok_or_else(Failure::closed)?.close()?;
        let told = stream.receipt.get_or_init(|| MoteReceipt::new(told));
        if let Some(receipt) = receipt {
            receipt.write(ptr::from_ref(told));
        }
        Ok(())
    })
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_stream_free(stream: Option<Box<MoteStream>>) {
    free(stream);
}
