//! Between the broker and its workers.

use super::{
    FdSource, Parsed, audio, clip, embed, generate_clip, id, invalid, options, receipt, reply,
    report, required, status, tensor, text, unless_zero, work,
};
use crate::error::EncodeError;
use crate::fds::check_sealed;
use crate::pb;
use crate::pb::worker as wpb;
use crate::pb::worker::command::Body as CommandBody;
use crate::pb::worker::job_reply::Reply as ReplyBody;
use crate::pb::worker::start_job::Work as WorkBody;
use crate::pb::worker::worker_event::Body as EventBody;
use crate::types::{
    Command, JobReply, LoadModel, Loaded, Progress, StartJob, SteerJob, Work, WorkerEvent,
};
use std::os::fd::{AsFd, OwnedFd};

pub(crate) fn parse_command(body: CommandBody, fds: &mut FdSource) -> Parsed<Command> {
    Ok(match body {
        CommandBody::LoadModel(load) => Command::LoadModel(Box::new(parse_load(load))),
        CommandBody::TryModel(wpb::TryModel { load, terms_json }) => Command::TryModel {
            load: Box::new(parse_load(required("load", load)?)),
            terms_json,
        },
        CommandBody::StartJob(start) => Command::StartJob(Box::new(parse_start(start, fds)?)),
        CommandBody::CancelJob(wpb::CancelJob { job }) => Command::CancelJob { job },
        CommandBody::CreditJob(wpb::CreditJob { job, frames }) => {
            Command::CreditJob { job, frames }
        }
        CommandBody::PauseJob(wpb::PauseJob { job }) => Command::PauseJob { job },
        CommandBody::ResumeJob(wpb::ResumeJob { job }) => Command::ResumeJob { job },
        CommandBody::SteerJob(steer) => Command::SteerJob(SteerJob {
            job: steer.job,
            prompt: steer.prompt,
            from_segment: steer.from_segment,
        }),
        CommandBody::MapBuffer(map) => {
            let fd = fds.take("fd")?;
            check_sealed(fd.as_fd(), map.bytes, map.writable)?;
            Command::MapBuffer {
                buffer: id("buffer", map.buffer)?,
                bytes: map.bytes,
                writable: map.writable,
                fd,
            }
        }
        CommandBody::UnmapBuffer(wpb::UnmapBuffer { buffer }) => Command::UnmapBuffer { buffer },
        CommandBody::AttachStream(attach) => Command::AttachStream {
            stream: attach.stream,
            socket: fds.take("socket")?,
            step_limit_ms: attach.step_limit_ms,
            receipt: Box::new(receipt::parse(required("receipt", attach.receipt)?)),
        },
        CommandBody::HoldStream(wpb::HoldStream { stream, held }) => {
            Command::HoldStream { stream, held }
        }
        CommandBody::SetLoad(wpb::SetLoad { busy, threads_max }) => {
            Command::SetLoad { busy, threads_max }
        }
        CommandBody::SetThrottle(wpb::SetThrottle { throttle_json }) => {
            Command::SetThrottle { throttle_json }
        }
        CommandBody::Shutdown(wpb::Shutdown {}) => Command::Shutdown,
    })
}

pub(crate) fn write_command(
    command: Command,
    fds: &mut Vec<OwnedFd>,
) -> Result<CommandBody, EncodeError> {
    Ok(match command {
        Command::LoadModel(load) => CommandBody::LoadModel(write_load(*load)),
        Command::TryModel { load, terms_json } => CommandBody::TryModel(wpb::TryModel {
            load: Some(write_load(*load)),
            terms_json,
        }),
        Command::StartJob(start) => CommandBody::StartJob(write_start(*start, fds)),
        Command::CancelJob { job } => CommandBody::CancelJob(wpb::CancelJob { job }),
        Command::CreditJob { job, frames } => {
            CommandBody::CreditJob(wpb::CreditJob { job, frames })
        }
        Command::PauseJob { job } => CommandBody::PauseJob(wpb::PauseJob { job }),
        Command::ResumeJob { job } => CommandBody::ResumeJob(wpb::ResumeJob { job }),
        Command::SteerJob(steer) => CommandBody::SteerJob(wpb::SteerJob {
            job: steer.job,
            prompt: steer.prompt,
            from_segment: steer.from_segment,
        }),
        Command::MapBuffer {
            buffer,
            bytes,
            writable,
            fd,
        } => {
            fds.push(fd);
            CommandBody::MapBuffer(wpb::MapBuffer {
                buffer,
                bytes,
                writable,
            })
        }
        Command::UnmapBuffer { buffer } => CommandBody::UnmapBuffer(wpb::UnmapBuffer { buffer }),
        Command::AttachStream {
            stream,
            socket,
            step_limit_ms,
            receipt,
        } => {
            fds.push(socket);
            CommandBody::AttachStream(wpb::AttachStream {
                stream,
                step_limit_ms,
                receipt: Some(receipt::write(*receipt)),
            })
        }
        Command::SetLoad { busy, threads_max } => {
            CommandBody::SetLoad(wpb::SetLoad { busy, threads_max })
        }
        Command::HoldStream { stream, held } => {
            CommandBody::HoldStream(wpb::HoldStream { stream, held })
        }
        Command::SetThrottle { throttle_json } => {
            CommandBody::SetThrottle(wpb::SetThrottle { throttle_json })
        }
        Command::Shutdown => CommandBody::Shutdown(wpb::Shutdown {}),
    })
}

fn parse_load(load: wpb::LoadModel) -> LoadModel {
    LoadModel {
        folder: load.folder,
        manifest_json: load.manifest_json,
        candidate_json: load.candidate_json,
        flavour_json: load.flavour_json,
        flavour_folder: load.flavour_folder,
        threads: load.threads,
        spin: load.spin,
        threads_follow_load: load.threads_follow_load,
        threads_at_first: load.threads_at_first,
        model_digest: load.model_digest,
        forbid_cpu: load.forbid_cpu,
        verify_digests: load.verify_digests,
        compiled_folder: load.compiled_folder,
        cache_bytes_max: load.cache_bytes_max,
    }
}

fn write_load(load: LoadModel) -> wpb::LoadModel {
    wpb::LoadModel {
        folder: load.folder,
        manifest_json: load.manifest_json,
        candidate_json: load.candidate_json,
        flavour_json: load.flavour_json,
        flavour_folder: load.flavour_folder,
        threads: load.threads,
        spin: load.spin,
        threads_follow_load: load.threads_follow_load,
        threads_at_first: load.threads_at_first,
        model_digest: load.model_digest,
        forbid_cpu: load.forbid_cpu,
        verify_digests: load.verify_digests,
        compiled_folder: load.compiled_folder,
        cache_bytes_max: load.cache_bytes_max,
    }
}

fn parse_start(start: wpb::StartJob, fds: &mut FdSource) -> Parsed<StartJob> {
    Ok(StartJob {
        job: start.job,
        work: match required("work", start.work)? {
            WorkBody::Infer(infer) => Work::Infer(work::parse_infer(infer)?),
            WorkBody::Generate(generate) => Work::Generate(text::parse(generate)?),
            WorkBody::TransformClip(clip) => Work::TransformClip(clip::parse(clip, fds)?),
            WorkBody::Embed(embed) => Work::Embed(embed::parse(embed)?),
            WorkBody::GenerateClip(clip) => {
                Work::GenerateClip(Box::new(generate_clip::parse(clip, fds)?))
            }
            WorkBody::LabelClip(clip) => Work::LabelClip(generate_clip::parse_label(clip, fds)?),
        },
        resume_token_ids: start.resume_token_ids,
        seed: start.seed,
        credit: options::parse_credit(start.credit),
    })
}

fn write_start(start: StartJob, fds: &mut Vec<OwnedFd>) -> wpb::StartJob {
    let work = match start.work {
        Work::Infer(infer) => WorkBody::Infer(work::write_infer(infer)),
        Work::Generate(generate) => WorkBody::Generate(text::write(generate)),
        Work::TransformClip(clip) => WorkBody::TransformClip(clip::write(clip, fds)),
        Work::Embed(embed) => WorkBody::Embed(embed::write(embed)),
        Work::GenerateClip(clip) => WorkBody::GenerateClip(generate_clip::write(*clip, fds)),
        Work::LabelClip(clip) => WorkBody::LabelClip(generate_clip::write_label(clip, fds)),
    };
    wpb::StartJob {
        job: start.job,
        resume_token_ids: start.resume_token_ids,
        seed: start.seed,
        credit: start.credit,
        work: Some(work),
    }
}

pub(crate) fn parse_event(body: EventBody, fds: &mut FdSource) -> Parsed<WorkerEvent> {
    Ok(match body {
        EventBody::Hello(wpb::Hello { build_id, pid }) => WorkerEvent::Hello { build_id, pid },
        EventBody::LoadProgress(progress) => WorkerEvent::LoadProgress(Progress {
            stage: reply::parse_stage(&progress.stage)?,
            done: progress.done,
            total: unless_zero(progress.total),
            remaining_ms: None,
        }),
        EventBody::Loaded(loaded) => WorkerEvent::Loaded(Box::new(parse_loaded(loaded)?)),
        EventBody::LoadFailed(failed) => WorkerEvent::LoadFailed {
            status: status::parse(required("status", failed.status)?),
            rejection_json: failed.rejection_json,
        },
        EventBody::JobReply(reply) => WorkerEvent::Job {
            job: reply.job,
            reply: parse_reply(required("reply", reply.reply)?, fds)?,
        },
        EventBody::StreamEnded(ended) => WorkerEvent::StreamEnded {
            stream: ended.stream,
            steps: ended.steps,
            compute_us: ended.compute_us,
            bytes_copied: ended.bytes_copied,
        },
        EventBody::Probing(wpb::Probing { providers }) => WorkerEvent::Probing { providers },
        EventBody::Probed(wpb::Probed { capabilities_json }) => {
            WorkerEvent::Probed { capabilities_json }
        }
        EventBody::Tried(wpb::Tried {
            verdict_json,
            samples_json,
        }) => WorkerEvent::Tried {
            verdict_json,
            samples_json,
        },
        EventBody::Faulted(wpb::Faulted {
            job,
            rejection_json,
        }) => WorkerEvent::Faulted {
            job,
            rejection_json,
        },
        EventBody::StreamFaulted(wpb::StreamFaulted {
            stream,
            rejection_json,
        }) => WorkerEvent::StreamFaulted {
            stream,
            rejection_json,
        },
    })
}

pub(crate) fn write_event(event: WorkerEvent, fds: &mut Vec<OwnedFd>) -> EventBody {
    match event {
        WorkerEvent::Hello { build_id, pid } => EventBody::Hello(wpb::Hello { build_id, pid }),
        WorkerEvent::LoadProgress(progress) => EventBody::LoadProgress(wpb::LoadProgress {
            stage: reply::write_stage(progress.stage).into(),
            done: progress.done,
            total: progress.total.unwrap_or_default(),
        }),
        WorkerEvent::Loaded(loaded) => EventBody::Loaded(write_loaded(*loaded)),
        WorkerEvent::LoadFailed {
            status,
            rejection_json,
        } => EventBody::LoadFailed(wpb::LoadFailed {
            status: Some(status::write(status)),
            rejection_json,
        }),
        WorkerEvent::Job { job, reply } => EventBody::JobReply(wpb::JobReply {
            job,
            reply: Some(write_reply(reply, fds)),
        }),
        WorkerEvent::StreamEnded {
            stream,
            steps,
            compute_us,
            bytes_copied,
        } => EventBody::StreamEnded(wpb::StreamEnded {
            stream,
            steps,
            compute_us,
            bytes_copied,
        }),
        WorkerEvent::Probing { providers } => EventBody::Probing(wpb::Probing { providers }),
        WorkerEvent::Probed { capabilities_json } => {
            EventBody::Probed(wpb::Probed { capabilities_json })
        }
        WorkerEvent::Tried {
            verdict_json,
            samples_json,
        } => EventBody::Tried(wpb::Tried {
            verdict_json,
            samples_json,
        }),
        WorkerEvent::Faulted {
            job,
            rejection_json,
        } => EventBody::Faulted(wpb::Faulted {
            job,
            rejection_json,
        }),
        WorkerEvent::StreamFaulted {
            stream,
            rejection_json,
        } => EventBody::StreamFaulted(wpb::StreamFaulted {
            stream,
            rejection_json,
        }),
    }
}

fn parse_loaded(loaded: wpb::Loaded) -> Parsed<Loaded> {
    Ok(Loaded {
        placement_json: loaded.placement_json,
        inputs: tensor::parse_specs(loaded.inputs, "inputs")?,
        outputs: tensor::parse_specs(loaded.outputs, "outputs")?,
        load_us: loaded.load_us,
        rss_bytes: loaded.rss_bytes,
        library_version: loaded.library_version,
        sandbox: loaded.sandbox.map(report::parse_sandbox).transpose()?,
        jobs_per_run: loaded.jobs_per_run,
    })
}

fn write_loaded(loaded: Loaded) -> wpb::Loaded {
    wpb::Loaded {
        placement_json: loaded.placement_json,
        inputs: tensor::write_specs(loaded.inputs),
        outputs: tensor::write_specs(loaded.outputs),
        load_us: loaded.load_us,
        rss_bytes: loaded.rss_bytes,
        library_version: loaded.library_version,
        sandbox: loaded.sandbox.map(report::write_sandbox),
        jobs_per_run: loaded.jobs_per_run,
    }
}

fn parse_reply(reply: ReplyBody, fds: &mut FdSource) -> Parsed<JobReply> {
    Ok(match reply {
        ReplyBody::Token(token) => JobReply::Token(reply::parse_token(token)?),
        ReplyBody::Progress(progress) => JobReply::Progress(reply::parse_progress(progress)?),
        ReplyBody::Preview(preview) => JobReply::Preview(reply::parse_preview(preview)),
        ReplyBody::Frame(frame) => JobReply::Frame(reply::parse_frame(frame, fds)?),
        ReplyBody::Audio(sound) => JobReply::Audio(audio::parse(sound, fds)?),
        ReplyBody::Tensor(pb::TensorOut { tensor }) => {
            JobReply::Tensor(tensor::parse_output(tensor, "tensor", fds)?)
        }
        ReplyBody::Embeddings(result) => JobReply::Embeddings(embed::parse_result(result, fds)?),
        ReplyBody::Labels(labels) => JobReply::Labels(generate_clip::parse_labels(labels)?),
        ReplyBody::Steered(steered) => JobReply::Steered(generate_clip::parse_steered(steered)?),
        ReplyBody::Done(done) => JobReply::Done(Box::new(reply::parse_done(done)?)),
        ReplyBody::Failed(failed) => {
            let status = failed
                .status
                .ok_or_else(|| invalid("status", "it is missing"))?;
            JobReply::Failed(status::parse(status))
        }
    })
}

fn write_reply(reply: JobReply, fds: &mut Vec<OwnedFd>) -> ReplyBody {
    match reply {
        JobReply::Token(token) => ReplyBody::Token(reply::write_token(token)),
        JobReply::Progress(progress) => ReplyBody::Progress(reply::write_progress(progress)),
        JobReply::Preview(preview) => ReplyBody::Preview(reply::write_preview(preview)),
        JobReply::Frame(frame) => ReplyBody::Frame(reply::write_frame(frame, fds)),
        JobReply::Audio(sound) => ReplyBody::Audio(audio::write(sound, fds)),
        JobReply::Tensor(tensor) => ReplyBody::Tensor(reply::write_tensor(tensor, fds)),
        JobReply::Embeddings(result) => ReplyBody::Embeddings(embed::write_result(result, fds)),
        JobReply::Labels(labels) => ReplyBody::Labels(generate_clip::write_labels(labels)),
        JobReply::Steered(steered) => ReplyBody::Steered(generate_clip::write_steered(steered)),
        JobReply::Done(done) => ReplyBody::Done(reply::write_done(*done)),
        JobReply::Failed(status) => ReplyBody::Failed(pb::Failed {
            status: Some(status::write(status)),
        }),
    }
}
