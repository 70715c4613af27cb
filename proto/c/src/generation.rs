//! `mote_generation_t`: an answer while it is written.

use crate::call::{Out, call, free, give};
use crate::client::{MoteClient, client};
use crate::codes::{MOTE_REASONING_APART, MOTE_REASONING_IN_TEXT, MOTE_REASONING_LIMITED};
use crate::door::{Filled, Given};
use crate::error::MoteError;
use crate::failure::Failure;
use crate::job::{self, Job, JobEvent};
use crate::options::{no_flags, options, unless_zero};
use crate::structs::{Event, GenerateArgs, Sampling};
use mote_client::{
    ChatMessage, Constraint, Generate, Generation, GenerationEvent, Prompt, Reasoning,
};

/// An answer while it is written.
pub struct MoteGeneration(Job<Generation>);

impl From<GenerationEvent> for JobEvent {
    fn from(event: GenerationEvent) -> Self {
        match event {
            GenerationEvent::Accepted { queue_position } => Self::Accepted { queue_position },
            GenerationEvent::Progress(progress) => Self::Progress(progress),
            GenerationEvent::Token(token) => Self::Token(token),
            GenerationEvent::Done(done) => Self::Done(done),
        }
    }
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_generate(
    given: Option<&MoteClient>,
    args: Given<'_, GenerateArgs<'_>>,
    generation: Out<'_, MoteGeneration>,
    error: Out<'_, MoteError>,
) -> i32 {
    call(error, || {
        give(generation, "generation", || {
            let client = client(given)?;
            let generation = client.generate(request(args.required("args")?)?)?;
            let canceller = generation.canceller();
            Ok(MoteGeneration(Job::new(generation, canceller)))
        })
    })
}

fn request(args: GenerateArgs<'_>) -> Result<Generate, Failure> {
    no_flags(args.flags, "flags")?;
    let stops = args.stop.take(args.stop_count, "stop")?;
    let stop = |(index, stop): (usize, &crate::door::Text<'_>)| {
        Ok(stop.required(format_args!("stop[{index}]"))?.to_owned())
    };
    let model = args.model.required("model")?;
    let bias = args.logit_bias.take(args.logit_bias_count, "logit_bias")?;
    let bias = bias.iter().map(|given| mote_client::LogitBias {
        token_id: given.token_id,
        bias: given.bias,
    });
    Ok(Generate {
        tokens_max: unless_zero(args.tokens_max),
        sampling: args
            .sampling
            .optional("sampling")?
            .map_or_else(Default::default, sampling),
        stop: stops
            .iter()
            .enumerate()
            .map(stop)
            .collect::<Result<_, Failure>>()?,
        constraint: constraint(&args)?,
        reasoning: reasoning(&args)?,
        tools_json: args.tools_json.optional("tools_json")?.map(str::to_owned),
        logit_bias: bias.collect(),
        deterministic: args.deterministic != 0,
        slide_context: args.slide_context != 0,
        draft_tokens_max: draft(&args)?,
        logprobs: (args.has_logprobs != 0).then_some(args.top_logprobs),
        options: options(args.options)?,
        ..Generate::new(model, prompt(&args)?)
    })
}

fn draft(args: &GenerateArgs<'_>) -> Result<Option<u32>, Failure> {
    let tokens_max = u32::try_from(args.draft_tokens_max)
        .map_err(|_| Failure::invalid("draft_tokens_max", "is more than 16"))?;
    Ok(unless_zero(tokens_max))
}

fn reasoning(args: &GenerateArgs<'_>) -> Result<Option<Reasoning>, Failure> {
    let tokens_max = match args.reasoning {
        MOTE_REASONING_IN_TEXT => return Ok(None),
        MOTE_REASONING_APART => None,
        MOTE_REASONING_LIMITED => Some(args.reasoning_tokens_max),
        _ => return Err(Failure::invalid("reasoning", "is none of MOTE_REASONING_*")),
    };
    Ok(Some(Reasoning { tokens_max }))
}

fn constraint(args: &GenerateArgs<'_>) -> Result<Option<Constraint>, Failure> {
    let schema = args.json_schema.optional("json_schema")?;
    match (schema, args.regex.optional("regex")?) {
        (Some(_), Some(_)) => {
            let why = "is given, and json_schema as well";
            Err(Failure::invalid("regex", why))
        }
        (Some(schema), None) => Ok(Some(Constraint::JsonSchema(schema.into()))),
        (None, regex) => Ok(regex.map(|regex| Constraint::Regex(regex.into()))),
    }
}

fn prompt(args: &GenerateArgs<'_>) -> Result<Prompt, Failure> {
    let messages = args.messages.take(args.message_count, "messages")?;
    match (args.prompt.optional("prompt")?, messages) {
        (None, []) => Err(Failure::invalid(
            "prompt",
            "neither it nor messages are given",
        )),
        (Some(prompt), []) => Ok(Prompt::Plain(prompt.into())),
        (Some(_), _) => Err(Failure::invalid("prompt", "is given, and messages as well")),
        (None, messages) => {
            let fields = match args.message_fields.is_null() {
                true => &[],
                false => args.message_fields.take(messages.len(), "message_fields")?,
            };
            let mut conversation = Vec::with_capacity(messages.len());
            for (index, message) in messages.iter().enumerate() {
                let role = message
                    .role
                    .required(format_args!("messages[{index}].role"))?;
                let content = message
                    .content
                    .required(format_args!("messages[{index}].content"))?;
                let fields = match fields.get(index) {
                    Some(fields) => fields.optional(format_args!("message_fields[{index}]"))?,
                    None => None,
                };
                conversation.push(ChatMessage {
                    role: role.into(),
                    content: content.into(),
                    fields_json: fields.map(str::to_owned),
                });
            }
            Ok(Prompt::Messages(conversation))
        }
    }
}

/// In C a temperature of 0 is given, and greedy, whatever else is set.
fn sampling(given: Sampling) -> mote_client::Sampling {
    mote_client::Sampling {
        temperature: Some(given.temperature),
        top_k: unless_zero(given.top_k),
        top_p: unless_zero(given.top_p),
        min_p: unless_zero(given.min_p),
        repetition_penalty: unless_zero(given.repetition_penalty),
        seed: (given.has_seed != 0).then_some(given.seed),
    }
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_generation_next(
    generation: Option<&MoteGeneration>,
    event: Filled<'_, Event>,
    error: Out<'_, MoteError>,
) -> i32 {
    job::next(generation.map(|it| &it.0), "generation", event, error)
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_generation_cancel(
    generation: Option<&MoteGeneration>,
    error: Out<'_, MoteError>,
) -> i32 {
    job::cancel(generation.map(|it| &it.0), "generation", error)
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_generation_free(generation: Option<Box<MoteGeneration>>) {
    free(generation);
}
