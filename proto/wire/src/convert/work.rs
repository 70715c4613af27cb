//! Tensors in, tensors out: single runs and streams.

use super::{Parsed, frame, name, options, tensor};
use crate::pb;
use crate::types::{Infer, OpenStream, StreamPush};

pub(super) fn parse_infer(infer: pb::Infer) -> Parsed<Infer> {
    let inputs = tensor::parse_inputs(infer.inputs)?;
    Ok(Infer {
        model: name("model", infer.model)?,
        outputs: tensor::parse_targets(infer.outputs, &inputs)?,
        inputs,
        options: options::parse(infer.options)?,
    })
}

pub(super) fn write_infer(infer: Infer) -> pb::Infer {
    pb::Infer {
        model: infer.model,
        inputs: tensor::write_all(infer.inputs, &mut Vec::new()),
        outputs: tensor::write_targets(infer.outputs),
        options: options::write(infer.options),
    }
}

pub(super) fn parse_open(open: pb::OpenStream) -> Parsed<OpenStream> {
    Ok(OpenStream {
        model: name("model", open.model)?,
        options: options::parse(open.options)?,
    })
}

pub(super) fn write_open(open: OpenStream) -> pb::OpenStream {
    pb::OpenStream {
        model: open.model,
        options: options::write(open.options),
    }
}

pub(super) fn parse_push(push: pb::StreamPush) -> Parsed<StreamPush> {
    let inputs = tensor::parse_inputs(push.inputs)?;
    Ok(StreamPush {
        outputs: tensor::parse_targets(push.outputs, &inputs)?,
        inputs,
        frames: frame::parse_all(push.frames, "frames")?,
        frame_outputs: frame::parse_targets(push.frame_outputs, "frame_outputs")?,
    })
}

pub(super) fn write_push(push: StreamPush) -> pb::StreamPush {
    pb::StreamPush {
        inputs: tensor::write_all(push.inputs, &mut Vec::new()),
        outputs: tensor::write_targets(push.outputs),
        frames: frame::write_all(push.frames),
        frame_outputs: frame::write_all(push.frame_outputs),
    }
}
