//! Work as it is kept until it is done.

use mote_api::Task;
use mote_wire::types::{
    BufferRange, ChatMessage, ClipSegment, Constraint, Embed, Generate, GenerateClip, Infer,
    LabelClip, Prompt, Status, Tensor, TensorData, TransformClip, Work, WorkOptions,
};
use std::io;
use std::os::fd::OwnedFd;

/// The model it is for.
pub fn model(work: &Work) -> &str {
    match work {
        Work::Infer(infer) => &infer.model,
        Work::Generate(generate) => &generate.model,
        Work::TransformClip(clip) => &clip.model,
        Work::Embed(embed) => &embed.model,
        Work::GenerateClip(clip) => &clip.model,
        Work::LabelClip(clip) => &clip.model,
    }
}

/// Its options.
pub fn options(work: &Work) -> &WorkOptions {
    match work {
        Work::Infer(infer) => &infer.options,
        Work::Generate(generate) => &generate.options,
        Work::TransformClip(clip) => &clip.options,
        Work::Embed(embed) => &embed.options,
        Work::GenerateClip(clip) => &clip.options,
        Work::LabelClip(clip) => &clip.options,
    }
}

/// Refuses, before anything is loaded, to embed, to make clips and to label them with a model that is there
/// for something else, and to write text with one that embeds. Any model may be run on its tensors; what else does not fit is found out by
/// the worker.
///
/// # Errors
/// [`Status::Invalid`] for `model`.
pub fn check_task(work: &Work, task: Task) -> Result<(), Status> {
    let why = match (work, task) {
        (Work::Embed(_), Task::Embedding)
        | (Work::GenerateClip(_), Task::ClipGeneration)
        | (Work::LabelClip(_), Task::ClipLabelling)
        | (Work::Infer(_), _) => return Ok(()),
        (Work::GenerateClip(_), task) => format!("it is for {task}, not for clip-generation"),
        (Work::LabelClip(_), task) => format!("it is for {task}, not for clip-labelling"),
        (Work::Embed(_), task) => format!("it is for {task}, not for embedding"),
        (_, Task::Embedding) => "it is for embedding: it gives vectors, not text or clips".into(),
        _ => return Ok(()),
    };
    Err(Status::invalid("model", why))
}

/// Bytes it takes to keep it.
pub fn kept_bytes(work: &Work) -> usize {
    match work {
        Work::Infer(infer) => infer
            .inputs
            .iter()
            .map(|input| match &input.data {
                TensorData::Inline(bytes) => bytes.len(),
                TensorData::Range(_) | TensorData::Passed { .. } => 0,
            })
            .sum(),
        Work::Generate(generate) => {
            let prompt = match &generate.prompt {
                Prompt::Plain(text) => text.len(),
                Prompt::Messages(messages) => messages.iter().map(ChatMessage::bytes).sum(),
            };
            let constraint = match &generate.constraint {
                Some(Constraint::JsonSchema(text) | Constraint::Regex(text)) => text.len(),
                None => 0,
            };
            let bias = size_of_val(&generate.logit_bias[..]);
            let tools = generate.tools_json.as_ref().map_or(0, String::len);
            prompt
                + tools
                + constraint
                + bias
                + generate.stop.iter().map(String::len).sum::<usize>()
        }
        Work::TransformClip(_) | Work::LabelClip(_) => 0,
        Work::GenerateClip(clip) => {
            let segments = clip.segments.iter();
            let prompts = segments.map(|one| size_of::<ClipSegment>() + one.prompt.len());
            clip.negative_prompt.len() + prompts.sum::<usize>()
        }
        Work::Embed(embed) => {
            let texts = embed
                .texts
                .iter()
                .map(|text| size_of::<String>() + text.len());
            texts.sum()
        }
    }
}

/// A range's place in a request.
#[derive(Clone, Copy, Debug)]
pub enum RangeField {
    /// Of this input.
    Input(usize),
    /// Of this output's target, which is written to.
    Output(usize),
}

impl std::fmt::Display for RangeField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Input(index) => write!(f, "inputs[{index}].range"),
            Self::Output(index) => write!(f, "outputs[{index}].range"),
        }
    }
}

/// All ranges of buffers in it, with their places.
pub fn ranges(work: &mut Work) -> impl Iterator<Item = (RangeField, &mut BufferRange)> {
    let (inputs, outputs) = match work {
        Work::Infer(infer) => (&mut infer.inputs[..], &mut infer.outputs[..]),
        Work::Generate(_)
        | Work::TransformClip(_)
        | Work::Embed(_)
        | Work::GenerateClip(_)
        | Work::LabelClip(_) => (&mut [][..], &mut [][..]),
    };
    let inputs = inputs.iter_mut().enumerate();
    let inputs = inputs.filter_map(|(index, input)| match &mut input.data {
        TensorData::Range(range) => Some((RangeField::Input(index), range)),
        TensorData::Inline(_) | TensorData::Passed { .. } => None,
    });
    let outputs = outputs.iter_mut().enumerate();
    inputs.chain(outputs.map(|(index, target)| (RangeField::Output(index), &mut target.range)))
}

/// A copy to be given away; descriptors are duplicated.
///
/// # Errors
/// When the system has no more descriptors.
pub fn duplicate(work: &Work) -> io::Result<Work> {
    Ok(match work {
        Work::Infer(infer) => Work::Infer(Infer {
            model: infer.model.clone(),
            inputs: infer
                .inputs
                .iter()
                .map(duplicate_tensor)
                .collect::<io::Result<_>>()?,
            outputs: infer.outputs.clone(),
            options: infer.options.clone(),
        }),
        Work::Generate(generate) => Work::Generate(Generate::clone(generate)),
        Work::TransformClip(clip) => Work::TransformClip(duplicate_clip(clip)?),
        Work::Embed(embed) => Work::Embed(Embed::clone(embed)),
        Work::GenerateClip(clip) => Work::GenerateClip(Box::new(duplicate_generate(clip)?)),
        Work::LabelClip(clip) => Work::LabelClip(LabelClip {
            model: clip.model.clone(),
            frames_max: clip.frames_max,
            every: clip.every,
            frame_rate: clip.frame_rate,
            labels_max: clip.labels_max,
            score_min: clip.score_min,
            options: clip.options.clone(),
            input: clip.input.try_clone()?,
        }),
    })
}

fn duplicate_tensor(tensor: &Tensor) -> io::Result<Tensor> {
    let data = match &tensor.data {
        TensorData::Inline(bytes) => TensorData::Inline(bytes.clone()),
        TensorData::Range(range) => TensorData::Range(*range),
        TensorData::Passed { fd, bytes } => TensorData::Passed {
            fd: fd.try_clone()?,
            bytes: *bytes,
        },
    };
    let (name, shape) = (tensor.name.clone(), tensor.shape.clone());
    Ok(Tensor {
        name,
        dtype: tensor.dtype,
        shape,
        data,
    })
}

fn duplicate_clip(clip: &TransformClip) -> io::Result<TransformClip> {
    Ok(TransformClip {
        model: clip.model.clone(),
        factor: clip.factor,
        output_format: clip.output_format,
        frames_max: clip.frames_max,
        width_max: clip.width_max,
        height_max: clip.height_max,
        frame_rate: clip.frame_rate,
        encoder_speed: clip.encoder_speed,
        preview_every: clip.preview_every,
        tile_side_max: clip.tile_side_max,
        options: clip.options.clone(),
        input: clip.input.try_clone()?,
        output: clip.output.try_clone()?,
        contact_sheet: duplicate_fd(&clip.contact_sheet)?,
    })
}

fn duplicate_fd(fd: &Option<OwnedFd>) -> io::Result<Option<OwnedFd>> {
    fd.as_ref().map(OwnedFd::try_clone).transpose()
}

fn duplicate_generate(clip: &GenerateClip) -> io::Result<GenerateClip> {
    Ok(GenerateClip {
        model: clip.model.clone(),
        segments: clip.segments.clone(),
        negative_prompt: clip.negative_prompt.clone(),
        guidance: clip.guidance,
        seed: clip.seed,
        steps: clip.steps,
        width: clip.width,
        height: clip.height,
        frame_rate: clip.frame_rate,
        scheduler: clip.scheduler.clone(),
        strength: clip.strength,
        output_format: clip.output_format,
        encoder_speed: clip.encoder_speed,
        preview_every: clip.preview_every,
        send_frames: clip.send_frames,
        send_audio: clip.send_audio,
        options: clip.options.clone(),
        output: clip.output.try_clone()?,
        contact_sheet: duplicate_fd(&clip.contact_sheet)?,
        first_image: duplicate_fd(&clip.first_image)?,
        last_image: duplicate_fd(&clip.last_image)?,
        reference_image: duplicate_fd(&clip.reference_image)?,
        source: duplicate_fd(&clip.source)?,
        checkpoint: duplicate_fd(&clip.checkpoint)?,
    })
}

/// Gives a clip that is to be generated a place to keep the work so far, where its client has not: a
/// worker that takes over goes on from there.
///
/// # Errors
/// [`Status::Internal`] when the system has no more memory or descriptors.
pub fn keep_checkpoint(work: &mut Work) -> Result<(), Status> {
    if let Work::GenerateClip(clip) = work
        && clip.checkpoint.is_none()
    {
        let memory = mote_wire::scratch("mote-checkpoint");
        clip.checkpoint = Some(memory.map_err(|error| Status::Internal {
            operation: "make a place for checkpoints".into(),
            cause: error.to_string(),
        })?);
    }
    Ok(())
}
