//! Answers that must have a form: a grammar follows the answer's bytes and says which tokens may come.

use super::request::{CONSTRAINT_BYTES_MAX, Constraint, SCHEMA_DEPTH_MAX};
use super::vocabulary;
use crate::PipelineError;
use llguidance::api::{ParserLimits, StopReason, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv};
use llguidance::{Matcher, ParserFactory};
use mote_api::TextSpec;
use serde_json::Value;
use std::sync::Arc;
use tokenizers::Tokenizer;

/// States of a grammar's lexer at most, 1 to 2 KiB each.
const LEXER_STATES_MAX: usize = 20_000;
/// Symbols of a compiled grammar at most.
const GRAMMAR_SYMBOLS_MAX: usize = 100_000;
/// Bytes of the library's own words about a constraint that are passed on.
const WHY_BYTES_MAX: usize = 512;

/// Makes grammars over one model's vocabulary.
pub(crate) struct Grammars(ParserFactory);

/// Where an answer is in its grammar.
pub(crate) struct Grammar {
    matcher: Matcher,
}

impl Grammars {
    /// Takes about a tenth of a second for a large vocabulary, so it is made for the first request
    /// that needs it.
    pub fn new(tokenizer: &Tokenizer, spec: &TextSpec) -> Result<Self, PipelineError> {
        let trie = vocabulary::trie(tokenizer, spec.vocab, &spec.eos_token_ids)?;
        let vocabulary: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        // Nothing is forced on the model: how a text is cut into tokens is its choice.
        let capabilities = InferenceCapabilities::default();
        let slices = llguidance::earley::SlicedBiasComputer::general_slices();
        let mut factory = ParserFactory::new(&vocabulary, capabilities, &slices)
            .map_err(|cause| PipelineError::Grammar(cause.into()))?;
        factory.quiet();
        *factory.limits_mut() = ParserLimits {
            max_lexer_states: LEXER_STATES_MAX,
            max_grammar_size: GRAMMAR_SYMBOLS_MAX,
            verbose_errors: false,
            ..ParserLimits::default()
        };
        Ok(Self(factory))
    }

    /// The beginning of an answer under `constraint`, which was checked.
    pub fn begin(&self, constraint: &Constraint) -> Result<Grammar, PipelineError> {
        let grammar = match constraint {
            Constraint::JsonSchema(schema) => {
                TopLevelGrammar::from_json_schema(parse_schema(schema)?)
            }
            Constraint::Regex(regex) => TopLevelGrammar::from_regex(regex),
        };
        let parser = self.0.create_parser(grammar);
        let mut matcher = Matcher::new(parser);
        // What cannot be satisfied shows when the first token is asked for, at the latest.
        let mask = matcher.compute_mask();
        let why = match mask {
            Ok(mask) if !mask.is_zero() => return Ok(Grammar { matcher }),
            Ok(_) => "nothing satisfies it".to_owned(),
            Err(cause) => first_words(&cause.to_string()),
        };
        Err(PipelineError::invalid(constraint.field(), why))
    }
}

impl Grammar {
    /// Rules out the tokens that cannot come next, except `also`.
    pub fn mask(&mut self, logits: &mut [f32], also: Option<u32>) -> Result<(), PipelineError> {
        let mask = self.matcher.compute_mask().map_err(failed)?;
        for (id, logit) in logits.iter_mut().enumerate() {
            let allowed = id < mask.len() && mask.get(id);
            if !allowed && also != u32::try_from(id).ok() {
                *logit = f32::NEG_INFINITY;
            }
        }
        Ok(())
    }

    /// Goes on by a token that is no end token.
    ///
    /// # Errors
    /// When it cannot come here.
    pub fn accept(&mut self, id: u32) -> Result<(), PipelineError> {
        self.matcher.consume_token(id).map_err(failed)
    }

    /// Whether the answer is whole and nothing can follow.
    pub fn is_complete(&self) -> bool {
        matches!(
            self.matcher.stop_reason(),
            StopReason::NoExtension | StopReason::EndOfSentence
        )
    }
}

fn failed(cause: impl std::fmt::Display) -> PipelineError {
    PipelineError::Grammar(first_words(&cause.to_string()).into())
}

/// The library adds traces and states to what it says.
fn first_words(text: &str) -> String {
    let line = text.lines().find(|line| !line.trim().is_empty());
    let line = line.unwrap_or("it cannot be compiled").trim();
    let end = line.floor_char_boundary(WHY_BYTES_MAX);
    line[..end].to_owned()
}

fn parse_schema(schema: &str) -> Result<Value, PipelineError> {
    let refused = |why: String| PipelineError::invalid("constraint.json_schema", why);
    let value: Value =
        serde_json::from_str(schema).map_err(|cause| refused(format!("is no JSON: {cause}")))?;
    let depth = depth(&value);
    if depth > SCHEMA_DEPTH_MAX {
        let why = format!("{depth} levels deep, more than {SCHEMA_DEPTH_MAX}");
        return Err(refused(why));
    }
    Ok(value)
}

/// Levels of lists and objects; the parser of JSON stops at 128.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

impl Constraint {
    /// The field of a request, for messages.
    fn field(&self) -> &'static str {
        match self {
            Self::JsonSchema(_) => "constraint.json_schema",
            Self::Regex(_) => "constraint.regex",
        }
    }

    /// Checks everything that needs no model.
    pub(crate) fn check(&self) -> Result<(), PipelineError> {
        let (Self::JsonSchema(text) | Self::Regex(text)) = self;
        if text.is_empty() || text.len() > CONSTRAINT_BYTES_MAX {
            let why = format!("{} bytes are not 1 to {CONSTRAINT_BYTES_MAX}", text.len());
            return Err(PipelineError::invalid(self.field(), why));
        }
        match self {
            Self::JsonSchema(schema) => parse_schema(schema).map(drop),
            Self::Regex(_) => Ok(()),
        }
    }
}
