//! Streams: a model's own socket, straight to the worker that runs it.

use crate::buffer::Buffer;
use crate::client::Client;
use crate::error::{ClientError, End, ProtocolError};
use crate::tensor::{Input, Output, OwnedTensor, Staging, lower_outputs};
use mote_wire::types::{
    OpenStream, Progress, Receipt, Reply, Request, StreamPush, TensorSpec, VideoFrame, WorkOptions,
};
use mote_wire::{Connection, Link as WireLink, frame_to_reply, request_to_frame};

/// A stateful stream. Its state lives in the daemon until it is closed or dropped, or its client
/// is. Calls block; the socket is served by the calling thread, with no thread between.
#[derive(Debug)]
pub struct Stream {
    connection: Connection,
    request_id: u64,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    /// Takes inputs given as bytes that are too large for a frame.
    staged: Option<Buffer>,
}

/// What one push gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamResult {
    /// Outputs, those in the caller's buffers included.
    pub outputs: Vec<OwnedTensor>,
    /// Time inside the library.
    pub compute_us: u64,
    /// Bytes copied between the client's memory and the library's.
    pub bytes_copied: u64,
    /// Bytes written by the passes that make tensors of frames, and frames of tensors.
    pub bytes_converted: u64,
}

/// One step with frames. A frame is named where it lies ([`Buffer::frame`]): it is converted on its way into
/// the model, or bound itself where its bytes are what the model takes, and copied in no case.
#[derive(Clone, Copy, Debug, Default)]
pub struct FramesPush<'a> {
    /// Inputs that are tensors.
    pub inputs: &'a [Input<'a>],
    /// Outputs that are written as tensors to the caller's buffers.
    pub outputs: &'a [Output<'a>],
    /// Inputs that are frames.
    pub frames: &'a [VideoFrame],
    /// Outputs that are written as frames; they are in no tensor of the result.
    pub frame_outputs: &'a [VideoFrame],
}

impl Client {
    /// Opens a stream, loading the model first if need be.
    pub fn open_stream(&self, model: &str, options: &WorkOptions) -> Result<Stream, ClientError> {
        self.open_stream_with(model, options, |_| {})
    }

    /// As [`Client::open_stream`], telling how far the loading is.
    pub fn open_stream_with(
        &self,
        model: &str,
        options: &WorkOptions,
        mut on_progress: impl FnMut(Progress),
    ) -> Result<Stream, ClientError> {
        let request = Request::OpenStream(OpenStream {
            model: model.into(),
            options: options.clone(),
        });
        let Reply::StreamOpened(opened) = self.link.ask_with(request, &mut on_progress)? else {
            return Err(ClientError::other_answer("open_stream"));
        };
        Ok(Stream {
            connection: Connection::new(opened.socket.into(), WireLink::Client),
            request_id: 0,
            inputs: opened.inputs,
            outputs: opened.outputs,
            staged: None,
        })
    }
}

impl Stream {
    /// What a push takes.
    pub fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    /// What a push gives.
    pub fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    /// A buffer of `bytes` zeroes that is registered on this stream.
    pub fn buffer(&mut self, bytes: u64) -> Result<Buffer, ClientError> {
        let buffer = Buffer::create(bytes)?;
        self.register(&buffer)?;
        Ok(buffer)
    }

    /// Makes a buffer of the client or of another stream known here too.
    pub fn register(&mut self, buffer: &Buffer) -> Result<(), ClientError> {
        match self.ask(buffer.registration()?)? {
            Reply::Ok => Ok(()),
            _ => Err(ClientError::other_answer("register_buffer")),
        }
    }

    /// Makes room for another buffer.
    pub fn unregister(&mut self, buffer: &Buffer) -> Result<(), ClientError> {
        let buffer = buffer.id();
        match self.ask(Request::UnregisterBuffer { buffer })? {
            Reply::Ok => Ok(()),
            _ => Err(ClientError::other_answer("unregister_buffer")),
        }
    }

    /// One step. After [`ClientError::Refused`] the stream goes on, unless it was revoked or is lost; with
    /// [`Status::StreamLost`](mote_wire::types::Status::StreamLost) it runs elsewhere when it is opened
    /// anew.
    pub fn push(
        &mut self,
        inputs: &[Input<'_>],
        outputs: &[Output<'_>],
    ) -> Result<StreamResult, ClientError> {
        self.push_frames(&FramesPush {
            inputs,
            outputs,
            ..FramesPush::default()
        })
    }

    /// As [`Stream::push`], with frames. A frame of an input must be left alone until the call returns: what is
    /// written to it meanwhile may be seen, or not.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), mote_client::ClientError> {
    /// use mote_client::{Client, FrameFormat, FramesPush, WorkOptions};
    ///
    /// let client = Client::connect_default("camera")?;
    /// let mut stream = client.open_stream("selfie-segmentation", &WorkOptions::default())?;
    /// let mut buffer = stream.buffer(FrameFormat::Nv12.dense_bytes(1280, 720, 3))?;
    /// buffer.with_slice_mut(|bytes| bytes.fill(128));
    /// let result = stream.push_frames(&FramesPush {
    ///     frames: &[buffer.frame("input_1", FrameFormat::Nv12, (1280, 720))],
    ///     ..FramesPush::default()
    /// })?;
    /// println!("{} bytes converted", result.bytes_converted);
    /// # Ok(())
    /// # }
    /// ```
    pub fn push_frames(&mut self, push: &FramesPush<'_>) -> Result<StreamResult, ClientError> {
        let staging = Staging::of(push.inputs);
        self.make_room(staging.bytes)?;
        let request = Request::StreamPush(StreamPush {
            inputs: staging.lower(push.inputs, self.staged.as_mut())?,
            outputs: lower_outputs(push.outputs),
            frames: push.frames.to_vec(),
            frame_outputs: push.frame_outputs.to_vec(),
        });
        let Reply::StreamResult(result) = self.ask(request)? else {
            return Err(ClientError::other_answer("stream_push"));
        };
        Ok(StreamResult {
            outputs: OwnedTensor::read_all(result.outputs)?,
            compute_us: result.compute_us,
            bytes_copied: result.bytes_copied,
            bytes_converted: result.bytes_converted,
        })
    }

    /// Ends the stream in good order: what computed it, over all its steps.
    pub fn close(mut self) -> Result<Receipt, ClientError> {
        match self.ask(Request::StreamClose)? {
            Reply::Done(done) => Ok(done.receipt),
            _ => Err(ClientError::other_answer("stream_close")),
        }
    }

    fn make_room(&mut self, bytes: u64) -> Result<(), ClientError> {
        if bytes <= self.staged.as_ref().map_or(0, Buffer::bytes) {
            return Ok(());
        }
        if let Some(outgrown) = self.staged.take() {
            self.unregister(&outgrown)?;
        }
        let bytes = bytes.checked_next_power_of_two().unwrap_or(bytes);
        self.staged = Some(self.buffer(bytes)?);
        Ok(())
    }

    /// Sends a request and waits for its answer.
    fn ask(&mut self, request: Request) -> Result<Reply, ClientError> {
        self.request_id += 1;
        let frame = request_to_frame(self.request_id, request)?;
        let mut end = self.connection.send(frame).err().map(End::from);
        loop {
            // What the worker said before it closed the socket is there to be read.
            let frame = match self.connection.recv() {
                Ok(Some(frame)) => frame,
                Ok(None) => return Err(end.unwrap_or(End::Closed).into()),
                Err(error) => return Err(end.unwrap_or(error.into()).into()),
            };
            match frame_to_reply(frame) {
                Ok((id, Reply::Failed(status))) if id == self.request_id => {
                    return Err(status.into());
                }
                Ok((id, reply)) if id == self.request_id => return Ok(reply),
                Ok((0, Reply::Failed(status))) => end = Some(End::Refused(status)),
                Ok(_) => {}
                Err(refusal) => return Err(ProtocolError::Answer(refusal).into()),
            }
        }
    }
}
