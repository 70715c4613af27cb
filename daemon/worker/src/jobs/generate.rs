//! Text in, text out, a prefill chunk or a token at a time.

use super::{Job, Pools, Progressed};
use crate::load::LoadedModel;
use crate::status::{self, Failure};
use mote_api::{Canceller, MoeSpec};
use mote_pipeline::{
    ChatTurn, Finish, KvPool, PipelineError, TextJob, TextPrompt, TextRequest, TextStep, TokenBias,
};
use mote_wire::types::{
    Constraint, Done, FinishReason, Generate, JobReply, LogitBias, Logprobs, Progress, Prompt,
    Receipt, Stage, Status, Token, TopToken,
};

/// One answer.
pub struct TextWork {
    pub(super) job: TextJob,
    moe: Option<MoeSpec>,
    /// The seed, when tokens are drawn.
    seed: Option<u64>,
}

impl TextWork {
    /// Renders and tokenises the prompt and takes a KV cache.
    pub fn new(
        generate: Generate,
        loaded: &LoadedModel,
        seed: u64,
        resume_token_ids: Vec<u32>,
        kv: &mut KvPool,
    ) -> Result<Self, Failure> {
        let Some(text) = &loaded.text else {
            let why = format!("{:?} is no text model", loaded.manifest.name);
            return Err(Status::invalid("model", why).into());
        };
        let prompt = match generate.prompt {
            Prompt::Plain(text) => TextPrompt::Plain(text),
            Prompt::Messages(messages) => TextPrompt::Messages(
                messages
                    .into_iter()
                    .map(|message| ChatTurn {
                        role: message.role,
                        content: message.content,
                        fields: message.fields_json,
                    })
                    .collect(),
            ),
        };
        let sampling = mote_pipeline::Sampling {
            temperature: generate.sampling.temperature,
            top_k: generate.sampling.top_k,
            top_p: generate.sampling.top_p,
            min_p: generate.sampling.min_p,
            repetition_penalty: generate.sampling.repetition_penalty,
        };
        let seed = generate.sampling.seed.unwrap_or(seed);
        let draws = sampling.draws();
        let request = TextRequest {
            prompt,
            tools: generate.tools_json,
            tokens_max: generate.tokens_max.map(|n| n as usize),
            sampling,
            seed,
            stop: generate.stop,
            constraint: generate.constraint.map(|constraint| match constraint {
                Constraint::JsonSchema(schema) => mote_pipeline::Constraint::JsonSchema(schema),
                Constraint::Regex(regex) => mote_pipeline::Constraint::Regex(regex),
            }),
            reasoning: generate.reasoning.map(|asked| mote_pipeline::Reasoning {
                tokens_max: asked.tokens_max.map(|n| n as usize),
            }),
            logit_bias: generate
                .logit_bias
                .into_iter()
                .map(|LogitBias { token_id, bias }| TokenBias { id: token_id, bias })
                .collect(),
            logprobs: generate.logprobs.map(|n| n as usize),
            deterministic: generate.deterministic,
            slide_context: generate.slide_context,
            draft_tokens_max: generate.draft_tokens_max.unwrap_or_default() as usize,
            resume_token_ids,
        };
        let job = TextJob::start(text, kv, request).map_err(|error| status::of_step(&error))?;
        let moe = loaded
            .manifest
            .text
            .as_ref()
            .and_then(|spec| spec.moe.clone());
        Ok(Self {
            job,
            moe,
            seed: draws.then_some(seed),
        })
    }

    fn receipt(&self) -> Receipt {
        let stats = self.job.stats();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Receipt {
            prefill_us: stats.prefill_us,
            decode_us: stats.decode_us,
            compute_us: stats.compute_us,
            steps: stats.steps,
            shared_steps: stats.shared_steps,
            drafted_tokens: stats.drafted_tokens,
            accepted_tokens: stats.accepted_tokens,
            dropped_tokens: stats.dropped_tokens,
            prompt_tokens: stats.prompt_tokens,
            cached_tokens: stats.cached_tokens,
            generated_tokens: stats.generated_tokens,
            reasoning_tokens: stats.reasoning_tokens,
            bytes_copied: stats.bytes_copied,
            seed: self.seed,
            experts: self.moe.as_ref().map(|moe| count(moe.experts)),
            experts_per_token: self.moe.as_ref().map(|moe| count(moe.experts_per_token)),
            ..Receipt::default()
        }
    }

    /// What a step of the answer gave, as the broker is told.
    pub(super) fn tell(
        &self,
        step: Result<TextStep, PipelineError>,
        said: &mut Vec<JobReply>,
    ) -> Result<Progressed, Failure> {
        match step.map_err(|error| status::of_step(&error))? {
            TextStep::Prefill { done, total } => {
                said.push(JobReply::Progress(Progress {
                    stage: Stage::Prefill,
                    done: done as u64,
                    total: Some(total as u64),
                    remaining_ms: None,
                }));
                Ok(Progressed::More)
            }
            TextStep::Token {
                index,
                id,
                text,
                reasoning,
                is_reasoning,
                logprobs,
            } => {
                said.push(JobReply::Token(Token {
                    index,
                    id,
                    text,
                    reasoning,
                    is_reasoning,
                    logprobs: logprobs.map(|told| logprobs_of(*told)),
                }));
                Ok(Progressed::More)
            }
            TextStep::Finished { reason } => {
                let finish = match reason {
                    Finish::EndOfAnswer => FinishReason::EndOfAnswer,
                    Finish::StopString => FinishReason::StopString,
                    Finish::TokensMax => FinishReason::TokensMax,
                    Finish::ContextFull => FinishReason::ContextFull,
                };
                let receipt = self.receipt();
                Ok(Progressed::Done(Box::new(Done { receipt, finish })))
            }
        }
    }
}

fn logprobs_of(told: mote_pipeline::Logprobs) -> Logprobs {
    let top = told.top.into_iter().map(|token| TopToken {
        id: token.id,
        logprob: token.logprob,
        text: token.text,
    });
    Logprobs {
        chosen: told.chosen,
        top: top.collect(),
    }
}

impl Job for TextWork {
    fn step(&mut self, said: &mut Vec<JobReply>) -> Result<Progressed, Failure> {
        let step = self.job.step();
        self.tell(step, said)
    }

    fn may_join(&self) -> bool {
        self.job.may_join()
    }

    fn text(&mut self) -> Option<&mut TextWork> {
        Some(self)
    }

    fn canceller(&self) -> Option<Canceller> {
        Some(self.job.canceller())
    }

    fn give_back(self: Box<Self>, pools: &mut Pools<'_>) {
        self.job.finish(pools.kv);
    }
}
