//! How likely tokens were by the model itself.

use super::sampler::{exp_sum, likeliest, maximum};
use crate::PipelineError;
use tokenizers::Tokenizer;

/// What is told of a token that cannot come, as its logarithm has no number.
const LOGPROB_MIN: f32 = -9_999.0;

/// Logarithms of probabilities at one position of an answer.
///
/// They are those of the model's own distribution: the softmax of its logits, before bias,
/// constraint, penalty, temperature and any filter.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    /// Of the token that was taken; at most 0.
    pub chosen: f32,
    /// The likeliest tokens, the likeliest first, of equals the one with the lower id; the token
    /// that was taken may be one of them. Fewer than asked for when fewer can come.
    pub top: Vec<TopToken>,
}

/// A token that could have been taken.
#[derive(Clone, Debug, PartialEq)]
pub struct TopToken {
    /// Token.
    pub id: u32,
    /// Logarithm of its probability; at most 0.
    pub logprob: f32,
    /// What it decodes to alone, special tokens included: replacement characters where it is a part
    /// of a character.
    pub text: String,
}

impl Logprobs {
    /// Of token `id` and the `top` likeliest among `logits`, which hold one value per token of the
    /// vocabulary and are as the model gave them.
    pub(crate) fn new(
        tokenizer: &Tokenizer,
        logits: &[f32],
        id: u32,
        top: usize,
    ) -> Result<Self, PipelineError> {
        let logit_max = maximum(logits)?;
        let log_sum = exp_sum(logits, logit_max).ln();
        let logprob = |logit: f32| {
            let value = f64::from(logit) - f64::from(logit_max) - log_sum;
            (value as f32).clamp(LOGPROB_MIN, 0.0)
        };
        let chosen = logits.get(id as usize).copied();
        let top = likeliest(logits, top)
            .into_sorted_vec()
            .into_iter()
            .filter(|candidate| candidate.0.logit > f32::NEG_INFINITY)
            .map(|candidate| {
                let id = candidate.0.id;
                let text = tokenizer.decode(&[id], false);
                Ok(TopToken {
                    id,
                    logprob: logprob(candidate.0.logit),
                    text: text.map_err(PipelineError::Detokenize)?,
                })
            });
        Ok(Self {
            chosen: logprob(chosen.unwrap_or(f32::NEG_INFINITY)),
            top: top.collect::<Result<_, PipelineError>>()?,
        })
    }
}
