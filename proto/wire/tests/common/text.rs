//! Arbitrary requests for text, and tokens.

use super::generate::{name, options, some, text};
use mote_wire::types::*;
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;

fn sampling() -> impl Strategy<Value = Sampling> {
    (
        of(0.0..=100.0f32),
        some(1..=u32::MAX),
        of(0.000_1..=1.0f32),
        of(0.0..0.999f32),
        of(0.000_1..=10.0f32),
        of(any::<u64>()),
    )
        .prop_map(
            |(temperature, top_k, top_p, min_p, repetition_penalty, seed)| Sampling {
                temperature,
                top_k,
                top_p,
                min_p,
                repetition_penalty,
                seed,
            },
        )
}

pub fn generate() -> impl Strategy<Value = Generate> {
    // A conversation or a plain prompt, as types that can be shown.
    let prompt = prop_oneof![
        vec((name(), text(), of("\\PC{1,20}")), 1..4).prop_map(Ok),
        (text(), "x").prop_map(|(text, one)| Err(text + &one)),
    ];
    let stop = vec("\\PC{1,20}", 0..=4);
    (
        name(),
        prompt,
        some(1..=u32::MAX),
        sampling(),
        stop,
        shape(),
        options(),
    )
        .prop_map(
            |(model, prompt, tokens_max, sampling, stop, shape, options)| Generate {
                model,
                prompt: prompt.map_or_else(Prompt::Plain, conversation),
                tokens_max,
                sampling,
                stop,
                options,
                ..shape
            },
        )
}

/// What else a request says of its answer.
fn shape() -> impl Strategy<Value = Generate> {
    let constraint = prop_oneof![
        "\\PC{1,20}".prop_map(Constraint::JsonSchema),
        "\\PC{1,20}".prop_map(Constraint::Regex),
    ];
    let bias = btree_map(any::<u32>(), -100.0..=100.0f32, 0..9);
    let bias = bias.prop_map(|bias| {
        let bias = bias.into_iter();
        bias.map(|(token_id, bias)| LogitBias { token_id, bias })
            .collect()
    });
    let reasoning = of(any::<u32>()).prop_map(|tokens_max| Reasoning { tokens_max });
    let tools = of("\\PC{1,20}");
    let runs = (any::<bool>(), any::<bool>(), some(0..=16u32));
    (
        some(0..=20u32),
        bias,
        of(constraint),
        of(reasoning),
        tools,
        runs,
    )
        .prop_map(
            |(logprobs, logit_bias, constraint, reasoning, tools_json, runs)| Generate {
                logprobs,
                logit_bias,
                constraint,
                reasoning,
                tools_json,
                deterministic: runs.0,
                slide_context: runs.1,
                draft_tokens_max: runs.2,
                ..Generate::new("", Prompt::Plain(String::new()))
            },
        )
}

fn conversation(messages: Vec<(String, String, Option<String>)>) -> Prompt {
    let message = |(role, content, fields_json)| ChatMessage {
        role,
        content,
        fields_json,
    };
    Prompt::Messages(messages.into_iter().map(message).collect())
}

pub fn token() -> impl Strategy<Value = Token> {
    let top = (any::<u32>(), -100.0..=0.0f32, text());
    let top = top.prop_map(|(id, logprob, text)| TopToken { id, logprob, text });
    let logprobs =
        (-100.0..=0.0f32, vec(top, 0..=20)).prop_map(|(chosen, top)| Logprobs { chosen, top });
    let reasoning = (text(), any::<bool>());
    (any::<u32>(), any::<u32>(), text(), reasoning, of(logprobs)).prop_map(
        |(index, id, text, (reasoning, is_reasoning), logprobs)| Token {
            index,
            id,
            text,
            reasoning,
            is_reasoning,
            logprobs,
        },
    )
}
