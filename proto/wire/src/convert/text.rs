//! Text in, text out.

use super::{Parsed, Place, invalid, limited, name, options, required, unless_zero};
use crate::limits::{
    BIAS_MAX, CONSTRAINT_BYTES_MAX, DRAFT_TOKENS_MAX, LOGIT_BIAS_MAX, LOGPROBS_MAX, MESSAGES_MAX,
    PROMPT_BYTES_MAX, STOP_BYTES_MAX, STOPS_MAX, TOOLS_BYTES_MAX,
};
use crate::pb;
use crate::pb::constraint::Kind;
use crate::types::{
    ChatMessage, Constraint, Generate, LogitBias, Prompt, Reasoning, Sampling, Status,
};
use std::collections::HashSet;

pub(super) fn parse(generate: pb::Generate) -> Parsed<Generate> {
    Ok(Generate {
        model: name("model", generate.model)?,
        prompt: parse_prompt(generate.messages, generate.prompt)?,
        tokens_max: unless_zero(generate.tokens_max),
        sampling: parse_sampling(generate.sampling.unwrap_or_default())?,
        stop: parse_stop(generate.stop)?,
        logprobs: parse_logprobs(generate.logprobs)?,
        logit_bias: parse_bias(generate.logit_bias)?,
        constraint: generate.constraint.map(parse_constraint).transpose()?,
        reasoning: generate.reasoning.map(parse_reasoning),
        tools_json: parse_tools(generate.tools_json)?,
        deterministic: generate.deterministic,
        slide_context: generate.slide_context,
        draft_tokens_max: parse_draft(generate.draft_tokens_max)?,
        options: options::parse(generate.options)?,
    })
}

pub(super) fn write(generate: Generate) -> pb::Generate {
    let (messages, prompt) = match generate.prompt {
        Prompt::Messages(messages) => (messages, String::new()),
        Prompt::Plain(prompt) => (Vec::new(), prompt),
    };
    let write_message = |message: ChatMessage| pb::ChatMessage {
        role: message.role,
        content: message.content,
        fields_json: message.fields_json.unwrap_or_default(),
    };
    let Sampling {
        temperature,
        top_k,
        top_p,
        min_p,
        repetition_penalty,
        seed,
    } = generate.sampling;
    pb::Generate {
        model: generate.model,
        messages: messages.into_iter().map(write_message).collect(),
        prompt,
        tokens_max: generate.tokens_max.unwrap_or_default(),
        sampling: Some(pb::Sampling {
            temperature,
            top_k,
            top_p,
            min_p,
            repetition_penalty,
            seed,
        }),
        stop: generate.stop,
        logprobs: generate.logprobs,
        logit_bias: generate.logit_bias.into_iter().map(write_bias).collect(),
        constraint: generate.constraint.map(write_constraint),
        reasoning: generate.reasoning.map(write_reasoning),
        tools_json: generate.tools_json.unwrap_or_default(),
        deterministic: generate.deterministic,
        slide_context: generate.slide_context,
        draft_tokens_max: generate.draft_tokens_max,
        options: options::write(generate.options),
    }
}

fn parse_prompt(messages: Vec<pb::ChatMessage>, prompt: String) -> Parsed<Prompt> {
    if messages.is_empty() {
        if prompt.is_empty() {
            return Err(invalid("prompt", "there are no messages either"));
        }
        limited("bytes of prompt", prompt.len(), PROMPT_BYTES_MAX)?;
        return Ok(Prompt::Plain(prompt));
    }
    if !prompt.is_empty() {
        return Err(invalid("prompt", "there are messages as well"));
    }
    limited("messages", messages.len(), MESSAGES_MAX)?;
    let bytes = messages
        .iter()
        .map(|message| message.content.len() + message.fields_json.len())
        .sum();
    limited("bytes of messages", bytes, PROMPT_BYTES_MAX)?;
    let parse = |(index, message): (usize, pb::ChatMessage)| {
        let at = Place {
            list: "messages",
            index,
        };
        Ok(ChatMessage {
            role: name(at.field("role"), message.role)?,
            content: message.content,
            fields_json: unless_zero(message.fields_json),
        })
    };
    let messages = messages.into_iter().enumerate().map(parse);
    Ok(Prompt::Messages(messages.collect::<Result<_, Status>>()?))
}

fn parse_stop(stop: Vec<String>) -> Parsed<Vec<String>> {
    limited("stop", stop.len(), STOPS_MAX)?;
    for (index, text) in stop.iter().enumerate() {
        if text.is_empty() {
            return Err(invalid(format_args!("stop[{index}]"), "it is empty"));
        }
        let what = format_args!("bytes of stop[{index}]");
        limited(what, text.len(), STOP_BYTES_MAX)?;
    }
    Ok(stop)
}

fn parse_logprobs(logprobs: Option<u32>) -> Parsed<Option<u32>> {
    let count = logprobs.unwrap_or_default();
    limited("logprobs", count as usize, LOGPROBS_MAX as usize)?;
    Ok(logprobs)
}

fn parse_bias(given: Vec<pb::LogitBias>) -> Parsed<Vec<LogitBias>> {
    limited("logit_bias", given.len(), LOGIT_BIAS_MAX)?;
    let mut seen = HashSet::with_capacity(given.len());
    let parse = |(index, bias): (usize, pb::LogitBias)| {
        let at = Place {
            list: "logit_bias",
            index,
        };
        let pb::LogitBias { token_id, bias } = bias;
        if !seen.insert(token_id) {
            return Err(invalid(at.field("token_id"), "it is there twice"));
        }
        // No comparison holds of a NaN, so the range refuses it too.
        if !(-BIAS_MAX..=BIAS_MAX).contains(&bias) {
            return Err(invalid(at.field("bias"), "it is not from -100 to 100"));
        }
        Ok(LogitBias { token_id, bias })
    };
    given.into_iter().enumerate().map(parse).collect()
}

fn write_bias(LogitBias { token_id, bias }: LogitBias) -> pb::LogitBias {
    pb::LogitBias { token_id, bias }
}

fn parse_constraint(constraint: pb::Constraint) -> Parsed<Constraint> {
    let kind = required("constraint.kind", constraint.kind)?;
    let (field, text) = match &kind {
        Kind::JsonSchema(schema) => ("constraint.json_schema", schema),
        Kind::Regex(regex) => ("constraint.regex", regex),
    };
    if text.is_empty() {
        return Err(invalid(field, "it is empty"));
    }
    let what = format_args!("bytes of {field}");
    limited(what, text.len(), CONSTRAINT_BYTES_MAX)?;
    Ok(match kind {
        Kind::JsonSchema(schema) => Constraint::JsonSchema(schema),
        Kind::Regex(regex) => Constraint::Regex(regex),
    })
}

fn write_constraint(constraint: Constraint) -> pb::Constraint {
    let kind = match constraint {
        Constraint::JsonSchema(schema) => Kind::JsonSchema(schema),
        Constraint::Regex(regex) => Kind::Regex(regex),
    };
    pb::Constraint { kind: Some(kind) }
}

fn parse_draft(tokens_max: Option<u32>) -> Parsed<Option<u32>> {
    let tokens = tokens_max.unwrap_or_default() as usize;
    limited("draft_tokens_max", tokens, DRAFT_TOKENS_MAX as usize)?;
    Ok(tokens_max)
}

fn parse_tools(tools: String) -> Parsed<Option<String>> {
    limited("bytes of tools_json", tools.len(), TOOLS_BYTES_MAX)?;
    Ok(unless_zero(tools))
}

fn parse_reasoning(pb::Reasoning { tokens_max }: pb::Reasoning) -> Reasoning {
    Reasoning { tokens_max }
}

fn write_reasoning(Reasoning { tokens_max }: Reasoning) -> pb::Reasoning {
    pb::Reasoning { tokens_max }
}

fn parse_sampling(sampling: pb::Sampling) -> Parsed<Sampling> {
    // No comparison holds of a NaN, so the ranges refuse it too.
    let check = |field: &str, value: Option<f32>, holds: fn(f32) -> bool, range: &str| {
        if value.is_none_or(holds) {
            return Ok(());
        }
        Err(invalid(
            format_args!("sampling.{field}"),
            format_args!("it is not {range}"),
        ))
    };
    let pb::Sampling {
        temperature,
        top_k,
        top_p,
        min_p,
        repetition_penalty,
        seed,
    } = sampling;
    check(
        "temperature",
        temperature,
        |t| (0.0..=100.0).contains(&t),
        "from 0 to 100",
    )?;
    check(
        "top_p",
        top_p,
        |p| p > 0.0 && p <= 1.0,
        "above 0 and at most 1",
    )?;
    check(
        "min_p",
        min_p,
        |p| (0.0..1.0).contains(&p),
        "from 0 to below 1",
    )?;
    check(
        "repetition_penalty",
        repetition_penalty,
        |penalty| penalty > 0.0 && penalty <= 10.0,
        "above 0 and at most 10",
    )?;
    if top_k == Some(0) {
        return Err(invalid("sampling.top_k", "it is 0"));
    }
    Ok(Sampling {
        temperature,
        top_k,
        top_p,
        min_p,
        repetition_penalty,
        seed,
    })
}
