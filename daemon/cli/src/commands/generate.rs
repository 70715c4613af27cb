//! `mote generate`.

use crate::args::Generate;
use crate::receipt::receipt_text;
use crate::ui::Ui;
use crate::work::options;
use crate::{input, interrupt};
use anyhow::{Result, bail, ensure};
use mote_client::{Client, GenerationEvent};
use mote_wire::limits::{CONSTRAINT_BYTES_MAX, PROMPT_BYTES_MAX, TOOLS_BYTES_MAX};
use mote_wire::types::{
    ChatMessage, Constraint, Done, Progress, Prompt, Reasoning, Sampling, Stage, Token,
};
use serde::Serialize;

/// An answer and what came with it.
#[derive(Serialize)]
pub struct Answer {
    /// The whole text.
    pub text: String,
    /// What the model wrote ahead of it, where that was asked for apart.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reasoning: String,
    /// Every token, where it was asked how likely each was.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<Token>,
    /// Why it ended, and the receipt.
    #[serde(flatten)]
    pub done: Done,
}

/// Answers a prompt.
pub fn generate(client: &Client, args: &Generate, ui: &Ui) -> Result<()> {
    let answer = match stream(client, request(args)?, ui) {
        Err(error) if interrupt::pressed() && !ui.json => {
            // What was said so far is no whole line.
            ui.stream("\n")?;
            return Err(error);
        }
        answer => answer?,
    };
    if ui.json {
        return ui.result(&answer, "");
    }
    ui.stream("\n")?;
    if args.receipt {
        ui.note(receipt_text(&answer.done.receipt));
    }
    Ok(())
}

fn request(args: &Generate) -> Result<mote_wire::types::Generate> {
    let text = match args.prompt.as_str() {
        "-" => input::text(std::io::stdin(), "the prompt", PROMPT_BYTES_MAX)?,
        text => text.to_owned(),
    };
    let is_blank = text.trim().is_empty() && !args.raw;
    ensure!(!text.is_empty() && !is_blank, "the prompt is empty");
    let prompt = if args.raw {
        Prompt::Plain(text)
    } else {
        let system = args
            .system
            .iter()
            .map(|system| ChatMessage::new("system", system));
        Prompt::Messages(system.chain([ChatMessage::new("user", text)]).collect())
    };
    Ok(mote_wire::types::Generate {
        tokens_max: args.tokens_max,
        sampling: Sampling {
            temperature: args.temperature,
            top_k: args.top_k,
            top_p: args.top_p,
            min_p: args.min_p,
            repetition_penalty: args.repetition_penalty,
            seed: args.seed,
        },
        stop: args.stop.clone(),
        logprobs: args.logprobs,
        constraint: constraint(args)?,
        tools_json: args
            .tools
            .as_ref()
            .map(|file| input::text_of(file, TOOLS_BYTES_MAX))
            .transpose()?,
        reasoning: args.reasoning.then_some(Reasoning {
            tokens_max: args.reasoning_tokens_max,
        }),
        logit_bias: args.logit_bias.clone(),
        deterministic: args.deterministic,
        slide_context: args.slide_context,
        draft_tokens_max: args.draft_tokens_max,
        options: options(&args.work),
        ..mote_wire::types::Generate::new(&args.model, prompt)
    })
}

fn constraint(args: &Generate) -> Result<Option<Constraint>> {
    let Some(file) = &args.json_schema else {
        return Ok(args.regex.clone().map(Constraint::Regex));
    };
    let schema = input::text_of(file, CONSTRAINT_BYTES_MAX)?;
    Ok(Some(Constraint::JsonSchema(schema)))
}

/// Streams an answer to standard output (or collects it for JSON); Ctrl-C cancels it.
pub fn stream(client: &Client, request: mote_wire::types::Generate, ui: &Ui) -> Result<Answer> {
    let spinner = ui.spinner("wait");
    let generation = client.generate(request)?;
    let (mut text, mut tokens) = (String::new(), Vec::new());
    let mut reasoning = String::new();
    let _watch = interrupt::Watch::start(generation.canceller())?;
    for event in generation {
        match event.map_err(interrupt::or_interrupted)? {
            GenerationEvent::Token(token) => {
                spinner.finish_and_clear();
                ui.aside(&token.reasoning);
                reasoning.push_str(&token.reasoning);
                if text.is_empty() && !reasoning.is_empty() && !token.text.is_empty() {
                    ui.aside("\n\n");
                }
                text.push_str(&token.text);
                if !ui.json {
                    ui.stream(&token.text)?;
                }
                if token.logprobs.is_some() {
                    tokens.push(token);
                }
            }
            GenerationEvent::Done(done) => {
                let done = *done;
                return Ok(Answer {
                    text,
                    reasoning,
                    tokens,
                    done,
                });
            }
            GenerationEvent::Progress(progress) => {
                spinner.set_prefix(stage_text(&progress));
            }
            GenerationEvent::Accepted { .. } => {}
        }
    }
    bail!("the daemon ended the answer without a receipt")
}

/// How long it compiles, and how long it took the last time.
fn compiling(progress: &Progress) -> String {
    match progress.total {
        Some(total_ms) => format!(
            "compile, {} of about {} s",
            progress.done / 1_000,
            total_ms.div_ceil(1_000)
        ),
        None => "compile".to_owned(),
    }
}

fn stage_text(progress: &Progress) -> String {
    match (progress.stage, progress.total) {
        (Stage::Queued, _) => "wait".to_owned(),
        (Stage::Trying, Some(total)) => format!("try {}/{total} ways to run it", progress.done),
        (Stage::Trying, None) => "try ways to run it".to_owned(),
        (Stage::Loading, _) => "load".to_owned(),
        (Stage::Compiling, _) => compiling(progress),
        (Stage::Prefill, Some(total)) => format!("read {}/{total} tokens", progress.done),
        (Stage::Prefill, None) => "read the prompt".to_owned(),
        _ => "answer".to_owned(),
    }
}
