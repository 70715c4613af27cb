//! Answers.

use super::{
    FdSource, Parsed, audio, embed, event, generate_clip, invalid, limited, receipt, report,
    required, status, tensor, unless_zero,
};
use crate::limits::{LOGPROBS_MAX, Limits};
use crate::pb;
use crate::pb::server_frame::Body;
use crate::types::{
    Done, FinishReason, FrameOut, Logprobs, Preview, Progress, Reply, Stage, StreamOpened,
    StreamResult, Token, TopToken, Welcome,
};
use std::os::fd::OwnedFd;

pub(crate) fn parse(body: Body, fds: &mut FdSource) -> Parsed<Reply> {
    Ok(match body {
        Body::Welcome(welcome) => Reply::Welcome(parse_welcome(welcome)?),
        Body::Accepted(pb::Accepted { queue_position }) => Reply::Accepted { queue_position },
        Body::Token(token) => Reply::Token(parse_token(token)?),
        Body::Progress(progress) => Reply::Progress(parse_progress(progress)?),
        Body::Preview(preview) => Reply::Preview(parse_preview(preview)),
        Body::Frame(frame) => Reply::Frame(parse_frame(frame, fds)?),
        Body::Audio(sound) => Reply::Audio(audio::parse(sound, fds)?),
        Body::Tensor(out) => Reply::Tensor(tensor::parse_output(out.tensor, "tensor", fds)?),
        Body::Embeddings(result) => Reply::Embeddings(embed::parse_result(result, fds)?),
        Body::Labels(labels) => Reply::Labels(generate_clip::parse_labels(labels)?),
        Body::Steered(steered) => Reply::Steered(generate_clip::parse_steered(steered)?),
        Body::Done(done) => Reply::Done(Box::new(parse_done(done)?)),
        Body::Failed(failed) => Reply::Failed(status::parse(failed.status.unwrap_or_default())),
        Body::ModelList(models) => Reply::ModelList(report::parse_models(models)),
        Body::ModelDetails(details) => {
            Reply::ModelDetails(Box::new(report::parse_details(details)?))
        }
        Body::DeviceList(devices) => Reply::DeviceList(report::parse_devices(devices)),
        Body::Explanation(explanation) => {
            Reply::Explanation(Box::new(report::parse_explanation(explanation)))
        }
        Body::StreamOpened(opened) => Reply::StreamOpened(parse_opened(opened, fds)?),
        Body::StreamResult(result) => Reply::StreamResult(parse_result(result, fds)?),
        Body::StatusReport(report) => Reply::StatusReport(Box::new(report::parse_status(report)?)),
        Body::Event(event) => Reply::Event(event::parse(event)?),
        Body::Ok(pb::Ok {}) => Reply::Ok,
    })
}

pub(crate) fn write(reply: Reply, fds: &mut Vec<OwnedFd>) -> Body {
    match reply {
        Reply::Welcome(welcome) => Body::Welcome(write_welcome(welcome)),
        Reply::Accepted { queue_position } => Body::Accepted(pb::Accepted { queue_position }),
        Reply::Token(token) => Body::Token(write_token(token)),
        Reply::Progress(progress) => Body::Progress(write_progress(progress)),
        Reply::Preview(preview) => Body::Preview(write_preview(preview)),
        Reply::Frame(frame) => Body::Frame(write_frame(frame, fds)),
        Reply::Audio(sound) => Body::Audio(audio::write(sound, fds)),
        Reply::Tensor(tensor) => Body::Tensor(write_tensor(tensor, fds)),
        Reply::Embeddings(result) => Body::Embeddings(embed::write_result(result, fds)),
        Reply::Labels(labels) => Body::Labels(generate_clip::write_labels(labels)),
        Reply::Steered(steered) => Body::Steered(generate_clip::write_steered(steered)),
        Reply::Done(done) => Body::Done(write_done(*done)),
        Reply::Failed(failed) => Body::Failed(pb::Failed {
            status: Some(status::write(failed)),
        }),
        Reply::ModelList(models) => Body::ModelList(report::write_models(models)),
        Reply::ModelDetails(details) => Body::ModelDetails(report::write_details(*details)),
        Reply::DeviceList(devices) => Body::DeviceList(report::write_devices(devices)),
        Reply::Explanation(explanation) => {
            Body::Explanation(report::write_explanation(*explanation))
        }
        Reply::StreamOpened(opened) => Body::StreamOpened(write_opened(opened, fds)),
        Reply::StreamResult(result) => Body::StreamResult(pb::StreamResult {
            outputs: tensor::write_all(result.outputs, fds),
            compute_us: result.compute_us,
            bytes_copied: result.bytes_copied,
            bytes_converted: result.bytes_converted,
        }),
        Reply::StatusReport(report) => Body::StatusReport(report::write_status(*report)),
        Reply::Event(event) => Body::Event(event::write(event)),
        Reply::Ok => Body::Ok(pb::Ok {}),
    }
}

fn parse_welcome(welcome: pb::Welcome) -> Parsed<Welcome> {
    let limits = required("limits", welcome.limits)?;
    Ok(Welcome {
        version: welcome.version,
        server_version: welcome.server_version,
        limits: Limits {
            frame_bytes_max: limits.frame_bytes_max,
            inline_bytes_max: limits.inline_bytes_max,
            fds_per_frame_max: limits.fds_per_frame_max,
            open_requests_max: limits.open_requests_max,
            credit_max: limits.credit_max,
            buffers_max: limits.buffers_max,
            buffer_bytes_max: limits.buffer_bytes_max,
            prompt_bytes_max: limits.prompt_bytes_max,
        },
    })
}

fn write_welcome(welcome: Welcome) -> pb::Welcome {
    let limits = welcome.limits;
    pb::Welcome {
        version: welcome.version,
        server_version: welcome.server_version,
        limits: Some(pb::Limits {
            frame_bytes_max: limits.frame_bytes_max,
            inline_bytes_max: limits.inline_bytes_max,
            fds_per_frame_max: limits.fds_per_frame_max,
            open_requests_max: limits.open_requests_max,
            credit_max: limits.credit_max,
            buffers_max: limits.buffers_max,
            buffer_bytes_max: limits.buffer_bytes_max,
            prompt_bytes_max: limits.prompt_bytes_max,
        }),
    }
}

pub(super) fn parse_token(token: pb::Token) -> Parsed<Token> {
    let pb::Token {
        index,
        id,
        text,
        logprob,
        top,
        reasoning,
        is_reasoning,
    } = token;
    limited("top", top.len(), LOGPROBS_MAX as usize)?;
    let parse = |pb::TopToken { id, logprob, text }| TopToken { id, logprob, text };
    let logprobs = logprob.map(|chosen| Logprobs {
        chosen,
        top: top.into_iter().map(parse).collect(),
    });
    Ok(Token {
        index,
        id,
        text,
        reasoning,
        is_reasoning,
        logprobs,
    })
}

pub(super) fn write_token(token: Token) -> pb::Token {
    let Token {
        index,
        id,
        text,
        reasoning,
        is_reasoning,
        logprobs,
    } = token;
    let write = |TopToken { id, logprob, text }| pb::TopToken { id, logprob, text };
    let (logprob, top) = match logprobs {
        Some(Logprobs { chosen, top }) => (Some(chosen), top),
        None => (None, Vec::new()),
    };
    pb::Token {
        index,
        id,
        text,
        logprob,
        top: top.into_iter().map(write).collect(),
        reasoning,
        is_reasoning,
    }
}

pub(super) fn parse_progress(progress: pb::Progress) -> Parsed<Progress> {
    Ok(Progress {
        stage: parse_stage(&progress.stage)?,
        done: progress.done,
        total: unless_zero(progress.total),
        remaining_ms: unless_zero(progress.remaining_ms),
    })
}

pub(super) fn write_progress(progress: Progress) -> pb::Progress {
    pb::Progress {
        stage: write_stage(progress.stage).into(),
        done: progress.done,
        total: progress.total.unwrap_or_default(),
        remaining_ms: progress.remaining_ms.unwrap_or_default(),
    }
}

pub(super) fn parse_stage(stage: &str) -> Parsed<Stage> {
    Ok(match stage {
        "queued" => Stage::Queued,
        "trying" => Stage::Trying,
        "loading" => Stage::Loading,
        "compiling" => Stage::Compiling,
        "prefill" => Stage::Prefill,
        "decode" => Stage::Decode,
        "transform" => Stage::Transform,
        "encode" => Stage::Encode,
        "embed" => Stage::Embed,
        "denoise" => Stage::Denoise,
        "label" => Stage::Label,
        _ => return Err(invalid("stage", "it is unknown")),
    })
}

pub(super) fn write_stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Queued => "queued",
        Stage::Trying => "trying",
        Stage::Loading => "loading",
        Stage::Compiling => "compiling",
        Stage::Prefill => "prefill",
        Stage::Decode => "decode",
        Stage::Transform => "transform",
        Stage::Encode => "encode",
        Stage::Embed => "embed",
        Stage::Denoise => "denoise",
        Stage::Label => "label",
    }
}

pub(super) fn parse_preview(preview: pb::Preview) -> Preview {
    let pb::Preview {
        frame_index,
        width,
        height,
        png,
    } = preview;
    Preview {
        frame_index,
        width,
        height,
        png,
    }
}

pub(super) fn write_preview(preview: Preview) -> pb::Preview {
    let Preview {
        frame_index,
        width,
        height,
        png,
    } = preview;
    pb::Preview {
        frame_index,
        width,
        height,
        png,
    }
}

pub(super) fn parse_frame(frame: pb::FrameOut, fds: &mut FdSource) -> Parsed<FrameOut> {
    Ok(FrameOut {
        frame_index: frame.frame_index,
        frame: tensor::parse_output(frame.frame, "frame", fds)?,
    })
}

pub(super) fn write_frame(frame: FrameOut, fds: &mut Vec<OwnedFd>) -> pb::FrameOut {
    pb::FrameOut {
        frame_index: frame.frame_index,
        frame: Some(tensor::write(frame.frame, fds)),
    }
}

pub(super) fn write_tensor(tensor: crate::types::Tensor, fds: &mut Vec<OwnedFd>) -> pb::TensorOut {
    pb::TensorOut {
        tensor: Some(tensor::write(tensor, fds)),
    }
}

pub(super) fn parse_done(done: pb::Done) -> Parsed<Done> {
    let finish = match pb::FinishReason::try_from(done.finish) {
        Ok(pb::FinishReason::Unspecified | pb::FinishReason::Complete) => FinishReason::Complete,
        Ok(pb::FinishReason::EndOfAnswer) => FinishReason::EndOfAnswer,
        Ok(pb::FinishReason::StopString) => FinishReason::StopString,
        Ok(pb::FinishReason::TokensMax) => FinishReason::TokensMax,
        Ok(pb::FinishReason::ContextFull) => FinishReason::ContextFull,
        Err(_) => return Err(invalid("finish", "it is unknown")),
    };
    Ok(Done {
        receipt: receipt::parse(required("receipt", done.receipt)?),
        finish,
    })
}

pub(super) fn write_done(done: Done) -> pb::Done {
    let finish = match done.finish {
        FinishReason::Complete => pb::FinishReason::Complete,
        FinishReason::EndOfAnswer => pb::FinishReason::EndOfAnswer,
        FinishReason::StopString => pb::FinishReason::StopString,
        FinishReason::TokensMax => pb::FinishReason::TokensMax,
        FinishReason::ContextFull => pb::FinishReason::ContextFull,
    };
    pb::Done {
        receipt: Some(receipt::write(done.receipt)),
        finish: finish.into(),
    }
}

fn parse_opened(opened: pb::StreamOpened, fds: &mut FdSource) -> Parsed<StreamOpened> {
    Ok(StreamOpened {
        socket: fds.take("socket")?,
        inputs: tensor::parse_specs(opened.inputs, "inputs")?,
        outputs: tensor::parse_specs(opened.outputs, "outputs")?,
    })
}

fn write_opened(opened: StreamOpened, fds: &mut Vec<OwnedFd>) -> pb::StreamOpened {
    fds.push(opened.socket);
    pb::StreamOpened {
        inputs: tensor::write_specs(opened.inputs),
        outputs: tensor::write_specs(opened.outputs),
    }
}

fn parse_result(result: pb::StreamResult, fds: &mut FdSource) -> Parsed<StreamResult> {
    Ok(StreamResult {
        outputs: tensor::parse_outputs(result.outputs, "outputs", fds)?,
        compute_us: result.compute_us,
        bytes_copied: result.bytes_copied,
        bytes_converted: result.bytes_converted,
    })
}
