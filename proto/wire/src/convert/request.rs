//! Requests.

use super::{
    FdSource, Parsed, check_length, clip, embed, generate_clip, id, invalid, name, options, text,
    work,
};
use crate::error::EncodeError;
use crate::fds::check_sealed;
use crate::limits::CREDIT_MAX;
use crate::pb;
use crate::pb::client_frame::Body;
use crate::types::{Hello, RegisterBuffer, Request, SteerClip};
use std::os::fd::{AsFd, OwnedFd};

pub(crate) fn parse(body: Body, fds: &mut FdSource) -> Parsed<Request> {
    Ok(match body {
        Body::Hello(hello) => Request::Hello(parse_hello(hello)?),
        Body::ListModels(pb::ListModels {}) => Request::ListModels,
        Body::InspectModel(pb::InspectModel { model, load }) => Request::InspectModel {
            model: name("model", model)?,
            load,
        },
        Body::ListDevices(pb::ListDevices { refresh }) => Request::ListDevices { refresh },
        Body::Explain(explain) => Request::Explain {
            model: name("model", explain.model)?,
            options: options::parse(explain.options)?,
            measure: explain.measure,
        },
        Body::Load(load) => Request::Load {
            model: name("model", load.model)?,
            options: options::parse(load.options)?,
        },
        Body::Unload(pb::Unload { model }) => Request::Unload {
            model: name("model", model)?,
        },
        Body::Pin(pb::Pin { model, pinned }) => Request::Pin {
            model: name("model", model)?,
            pinned,
        },
        Body::Infer(infer) => Request::Infer(work::parse_infer(infer)?),
        Body::OpenStream(open) => Request::OpenStream(work::parse_open(open)?),
        Body::StreamPush(push) => Request::StreamPush(work::parse_push(push)?),
        Body::StreamClose(pb::StreamClose {}) => Request::StreamClose,
        Body::Generate(generate) => Request::Generate(Box::new(text::parse(generate)?)),
        Body::TransformClip(clip) => Request::TransformClip(clip::parse(clip, fds)?),
        Body::Cancel(pb::Cancel { target_request_id }) => Request::Cancel {
            target: id("target_request_id", target_request_id)?,
        },
        Body::Credit(credit) => parse_credit(credit)?,
        Body::RegisterBuffer(register) => Request::RegisterBuffer(parse_register(register, fds)?),
        Body::UnregisterBuffer(pb::UnregisterBuffer { buffer }) => Request::UnregisterBuffer {
            buffer: id("buffer", buffer)?,
        },
        Body::Watch(pb::Watch {}) => Request::Watch,
        Body::GetStatus(pb::GetStatus {}) => Request::GetStatus,
        Body::Rescan(pb::Rescan {}) => Request::Rescan,
        Body::Embed(embed) => Request::Embed(Box::new(embed::parse(embed)?)),
        Body::GenerateClip(clip) => {
            Request::GenerateClip(Box::new(generate_clip::parse(clip, fds)?))
        }
        Body::LabelClip(clip) => Request::LabelClip(generate_clip::parse_label(clip, fds)?),
        Body::Pause(pb::Pause {
            target_request_id,
            paused,
        }) => Request::Pause {
            target: id("target_request_id", target_request_id)?,
            paused,
        },
        Body::SteerClip(steer) => {
            let steer = SteerClip {
                target: id("target_request_id", steer.target_request_id)?,
                prompt: steer.prompt,
            };
            steer.check()?;
            Request::SteerClip(steer)
        }
    })
}

pub(crate) fn write(request: Request, fds: &mut Vec<OwnedFd>) -> Result<Body, EncodeError> {
    Ok(match request {
        Request::Hello(hello) => Body::Hello(write_hello(hello)),
        Request::ListModels => Body::ListModels(pb::ListModels {}),
        Request::InspectModel { model, load } => {
            Body::InspectModel(pb::InspectModel { model, load })
        }
        Request::ListDevices { refresh } => Body::ListDevices(pb::ListDevices { refresh }),
        Request::Explain {
            model,
            options,
            measure,
        } => Body::Explain(pb::Explain {
            model,
            options: options::write(options),
            measure,
        }),
        Request::Load { model, options } => Body::Load(pb::Load {
            model,
            options: options::write(options),
        }),
        Request::Unload { model } => Body::Unload(pb::Unload { model }),
        Request::Pin { model, pinned } => Body::Pin(pb::Pin { model, pinned }),
        Request::Infer(infer) => Body::Infer(work::write_infer(infer)),
        Request::OpenStream(open) => Body::OpenStream(work::write_open(open)),
        Request::StreamPush(push) => Body::StreamPush(work::write_push(push)),
        Request::StreamClose => Body::StreamClose(pb::StreamClose {}),
        Request::Generate(generate) => Body::Generate(text::write(*generate)),
        Request::TransformClip(clip) => Body::TransformClip(clip::write(clip, fds)),
        Request::Embed(embed) => Body::Embed(embed::write(*embed)),
        Request::GenerateClip(clip) => Body::GenerateClip(generate_clip::write(*clip, fds)),
        Request::LabelClip(clip) => Body::LabelClip(generate_clip::write_label(clip, fds)),
        Request::Pause { target, paused } => Body::Pause(pb::Pause {
            target_request_id: target,
            paused,
        }),
        Request::SteerClip(SteerClip { target, prompt }) => Body::SteerClip(pb::SteerClip {
            target_request_id: target,
            prompt,
        }),
        Request::Cancel { target } => Body::Cancel(pb::Cancel {
            target_request_id: target,
        }),
        Request::Credit { target, frames } => Body::Credit(pb::Credit {
            target_request_id: target,
            frames,
        }),
        Request::RegisterBuffer(register) => Body::RegisterBuffer(write_register(register, fds)),
        Request::UnregisterBuffer { buffer } => {
            Body::UnregisterBuffer(pb::UnregisterBuffer { buffer })
        }
        Request::Watch => Body::Watch(pb::Watch {}),
        Request::GetStatus => Body::GetStatus(pb::GetStatus {}),
        Request::Rescan => Body::Rescan(pb::Rescan {}),
        Request::Unsupported { what } => return Err(EncodeError::NoForm { what }),
    })
}

fn parse_hello(hello: pb::Hello) -> Parsed<Hello> {
    check_length("client_name", &hello.client_name)?;
    if hello.version_min == 0 || hello.version_max < hello.version_min {
        return Err(invalid("version_min", "it is 0 or above version_max"));
    }
    Ok(Hello {
        version_min: hello.version_min,
        version_max: hello.version_max,
        client_name: hello.client_name,
    })
}

fn write_hello(hello: Hello) -> pb::Hello {
    pb::Hello {
        version_min: hello.version_min,
        version_max: hello.version_max,
        client_name: hello.client_name,
    }
}

fn parse_credit(credit: pb::Credit) -> Parsed<Request> {
    if credit.frames == 0 {
        return Err(invalid("frames", "it is 0"));
    }
    Ok(Request::Credit {
        target: id("target_request_id", credit.target_request_id)?,
        frames: credit.frames.min(CREDIT_MAX),
    })
}

fn parse_register(register: pb::RegisterBuffer, fds: &mut FdSource) -> Parsed<RegisterBuffer> {
    let pb::RegisterBuffer {
        buffer,
        bytes,
        writable,
    } = register;
    let buffer = id("buffer", buffer)?;
    let fd = fds.take("fd")?;
    check_sealed(fd.as_fd(), bytes, writable)?;
    Ok(RegisterBuffer {
        buffer,
        bytes,
        writable,
        fd,
    })
}

fn write_register(register: RegisterBuffer, fds: &mut Vec<OwnedFd>) -> pb::RegisterBuffer {
    fds.push(register.fd);
    pb::RegisterBuffer {
        buffer: register.buffer,
        bytes: register.bytes,
        writable: register.writable,
    }
}
