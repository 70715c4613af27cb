//! Messages written out in full, to be compared: prompts and outputs too, which `{:?}` hides.
//! Descriptors have no place in it but their number.

use mote_wire::types::{
    ChatMessage, ClipSegment, Command, Constraint, Embed, FrameLabels, Generate, GenerateClip,
    JobReply, LogitBias, Logprobs, Preview, Prompt, Reasoning, Reply, Request, SteerClip, SteerJob,
    Token, TopToken, Work, WorkerEvent,
};
use std::fmt::Write;

pub fn request(request: &Request) -> String {
    match request {
        Request::Generate(request) => generate(request),
        Request::Embed(request) => embed(request),
        Request::GenerateClip(request) => generate_clip(request),
        Request::SteerClip(SteerClip { target, prompt }) => {
            format!("SteerClip({target} {prompt:?})\n")
        }
        request => plain(request),
    }
}

fn embed(request: &Embed) -> String {
    let Embed {
        model,
        texts,
        kind,
        dimensions,
        truncate,
        options,
    } = request;
    let head = format!("Embed({model:?} {texts:?} {kind:?} {dimensions:?} {truncate})\n");
    head + &plain(options)
}

fn generate_clip(clip: &GenerateClip) -> String {
    let GenerateClip {
        model,
        segments,
        negative_prompt,
        guidance,
        seed,
        steps,
        width,
        height,
        frame_rate,
        scheduler,
        strength,
        output_format,
        encoder_speed,
        preview_every,
        send_frames,
        send_audio,
        options,
        output: _,
        contact_sheet,
        first_image,
        last_image,
        reference_image,
        source,
        checkpoint,
    } = clip;
    let mut text = format!("GenerateClip({model:?} not {negative_prompt:?})\n");
    for ClipSegment { prompt, frames } in segments {
        text += &format!("segment {prompt:?} {frames:?}\n");
    }
    text += &format!("guidance {guidance:?} seed {seed:?} steps {steps:?} strength {strength:?}\n");
    text += &format!("size {width:?} {height:?} rate {frame_rate:?} scheduler {scheduler:?}\n");
    text += &format!("output {output_format:?} speed {encoder_speed:?} frames {send_frames}\n");
    text += &format!("preview_every {preview_every:?}\n");
    if *send_audio {
        text += "audio\n";
    }
    for (file, what) in [
        (contact_sheet, "contact_sheet"),
        (first_image, "first_image"),
        (last_image, "last_image"),
        (reference_image, "reference_image"),
        (source, "source"),
        (checkpoint, "checkpoint"),
    ] {
        if file.is_some() {
            text += &format!("with {what}\n");
        }
    }
    text + &plain(options)
}

fn labels(labels: &FrameLabels) -> String {
    let FrameLabels {
        frame_index,
        frame_count,
        time_us,
        labels,
        boxes,
    } = labels;
    format!("FrameLabels({frame_index} + {frame_count} at {time_us})\n{labels:#?}\n{boxes:#?}\n")
}

pub fn reply(reply: &Reply) -> String {
    match reply {
        Reply::Token(reply) => token(reply),
        Reply::Preview(reply) => preview(reply),
        Reply::Labels(reply) => labels(reply),
        reply => plain(reply),
    }
}

pub fn command(command: &Command) -> String {
    let mut text = plain(command);
    if let Command::SteerJob(SteerJob { prompt, .. }) = command {
        text += &format!("{prompt:?}\n");
    }
    if let Command::StartJob(start) = command {
        match &start.work {
            Work::Generate(work) => text += &generate(work),
            Work::Embed(work) => text += &embed(work),
            Work::GenerateClip(work) => text += &generate_clip(work),
            Work::Infer(_) | Work::TransformClip(_) | Work::LabelClip(_) => {}
        }
    }
    text
}

pub fn event(event: &WorkerEvent) -> String {
    let mut text = plain(event);
    if let WorkerEvent::Job { reply, .. } = event {
        match reply {
            JobReply::Token(reply) => text += &token(reply),
            JobReply::Preview(reply) => text += &preview(reply),
            JobReply::Labels(reply) => text += &labels(reply),
            _ => {}
        }
    }
    text
}

/// Fields that came after the first texts, as they are written while they say nothing: left out, so
/// that those texts stand.
const LATER: [&str; 27] = [
    "step_times_us: [],",
    "scheduler: \"\",",
    "resumed_steps: 0,",
    "audio_samples_out: 0,",
    "audio_sample_rate: 0,",
    "audio_channels: 0,",
    "audio_codec: \"\",",
    "tile_side_max: None,",
    "sandbox: None,",
    "pid: None,",
    "power: None,",
    "measure: false,",
    "trials: [],",
    "verification: \"\",",
    "measured: false,",
    "measured_at_s: 0,",
    "host_cpu_us: 0,",
    "reasoning_tokens: 0,",
    "shared_steps: 0,",
    "drafted_tokens: 0,",
    "accepted_tokens: 0,",
    "dropped_tokens: 0,",
    "texts: 0,",
    "bytes_converted: 0,",
    "frames: [],",
    "frame_outputs: [],",
    "text: None,",
];

fn plain(message: &impl std::fmt::Debug) -> String {
    let mut text = String::new();
    for line in format!("{message:#?}").lines() {
        if LATER.contains(&line.trim_start()) {
            continue;
        }
        let line = match line.trim_start().strip_prefix("fd: ") {
            Some(number) if number.trim_end_matches(',').parse::<u32>().is_ok() => {
                "fd: a descriptor"
            }
            _ => line,
        };
        text += line;
        text.push('\n');
    }
    text
}

fn generate(generate: &Generate) -> String {
    let Generate {
        model,
        prompt,
        tokens_max,
        sampling,
        stop,
        logprobs,
        logit_bias,
        constraint,
        reasoning,
        tools_json,
        deterministic,
        slide_context,
        draft_tokens_max,
        options,
    } = generate;
    let mut text = format!("Generate model {model:?} tokens_max {tokens_max:?} stop {stop:?}\n");
    match prompt {
        Prompt::Plain(prompt) => text += &format!("prompt {prompt:?}\n"),
        Prompt::Messages(messages) => {
            for ChatMessage {
                role,
                content,
                fields_json,
            } in messages
            {
                text += &format!("message {role:?} {content:?}\n");
                if let Some(fields) = fields_json {
                    text += &format!("fields {fields:?}\n");
                }
            }
        }
    }
    let _ = writeln!(text, "{sampling:#?}\n{options:#?}");
    if let Some(top) = logprobs {
        text += &format!("logprobs {top}\n");
    }
    for (is_asked, what) in [
        (deterministic, "deterministic"),
        (slide_context, "slide_context"),
    ] {
        if *is_asked {
            text += &format!("{what}\n");
        }
    }
    if let Some(tokens_max) = draft_tokens_max {
        text += &format!("draft_tokens_max {tokens_max}\n");
    }
    if let Some(tools) = tools_json {
        text += &format!("tools {tools:?}\n");
    }
    if let Some(Reasoning { tokens_max }) = reasoning {
        text += &format!("reasoning tokens_max {tokens_max:?}\n");
    }
    match constraint {
        Some(Constraint::JsonSchema(schema)) => text += &format!("json_schema {schema:?}\n"),
        Some(Constraint::Regex(regex)) => text += &format!("regex {regex:?}\n"),
        None => {}
    }
    for LogitBias { token_id, bias } in logit_bias {
        text += &format!("bias {token_id} {bias}\n");
    }
    text
}

fn token(token: &Token) -> String {
    let Token {
        index,
        id,
        text,
        reasoning,
        is_reasoning,
        logprobs,
    } = token;
    let mut text = format!("Token index {index} id {id} text {text:?}\n");
    if *is_reasoning || !reasoning.is_empty() {
        text += &format!("reasoning {is_reasoning} {reasoning:?}\n");
    }
    if let Some(Logprobs { chosen, top }) = logprobs {
        text += &format!("logprob {chosen}\n");
        for TopToken {
            id,
            logprob,
            text: own,
        } in top
        {
            text += &format!("top {id} {logprob} {own:?}\n");
        }
    }
    text
}

fn preview(preview: &Preview) -> String {
    let Preview {
        frame_index,
        width,
        height,
        png,
    } = preview;
    format!("Preview frame_index {frame_index} width {width} height {height} png {png:?}\n")
}
