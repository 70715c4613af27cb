//! What is told of tokens, and what a request says of single tokens.

mod support;

use mote_pipeline::{
    KvPool, LOGPROBS_MAX, Logprobs, PipelineError, Sampling, TextJob, TextRequest,
};
use support::text::{EOS, Next, VOCAB, answer, answer_with, logits_after, open, plain};

/// Logarithms of the softmax, by its definition.
fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
    let log = |&logit: &f32| f64::from(logit) - sum.ln();
    logits.iter().map(log).collect()
}

fn assert_told(told: &Logprobs, logits: &[f32], id: u32, top: usize) {
    let want = log_softmax(logits);
    let close = |have: f32, id: u32| (f64::from(have) - want[id as usize]).abs() < 1e-5;
    assert!(close(told.chosen, id), "{} for token {id}", told.chosen);
    let mut ids: Vec<u32> = (0..VOCAB as u32).collect();
    ids.sort_by(|&a, &b| {
        let by_value = want[b as usize].total_cmp(&want[a as usize]);
        by_value.then(a.cmp(&b))
    });
    let have: Vec<u32> = told.top.iter().map(|token| token.id).collect();
    assert_eq!(have, ids[..top]);
    assert!(told.top.iter().all(|token| close(token.logprob, token.id)));
}

fn shaped() -> Sampling {
    Sampling {
        temperature: Some(1.7),
        top_k: Some(3),
        top_p: Some(0.9),
        min_p: Some(0.01),
        repetition_penalty: Some(1.5),
    }
}

#[test]
fn what_is_told_is_the_models_own_distribution_whatever_shapes_the_draw() {
    let (model, _) = open(Next::Hash);
    for sampling in [Sampling::default(), shaped()] {
        for top in [0, 1, 7, LOGPROBS_MAX] {
            let mut request = plain("Once upon");
            request.tokens_max = Some(12);
            request.sampling = sampling;
            let silent = answer(&model, &request);
            assert!(silent.logprobs.iter().all(Option::is_none));
            request.logprobs = Some(top);
            let told = answer(&model, &request);
            assert_eq!((&told.ids, &told.texts), (&silent.ids, &silent.texts));
            let mut tokens: Vec<u32> = "Once upon".bytes().map(u32::from).collect();
            for (&id, told) in told.ids.iter().zip(&told.logprobs) {
                let told = told.as_ref().expect("asked for");
                assert_told(told, &logits_after(&Next::Hash, &tokens), id, top);
                tokens.push(id);
            }
        }
    }
}

#[test]
fn logits_after_a_cached_prompt_are_told_as_after_a_cold_one() {
    let (model, _) = open(Next::Hash);
    let mut pool = KvPool::new(1);
    let mut request = plain("the same prompt, once more, and quite long enough to keep");
    request.tokens_max = Some(4);
    request.sampling = shaped();
    request.logprobs = Some(5);
    let (cold, _) = answer_with(&model, &mut pool, &request);
    let (warm, stats) = answer_with(&model, &mut pool, &request);
    assert_eq!(stats.cached_tokens, stats.prompt_tokens);
    assert_eq!(warm, cold);
}

#[test]
fn likely_tokens_come_with_their_own_text_and_unlikely_ones_with_a_number() {
    let next = Next::Script {
        prompt: 1,
        ids: vec![256, 0xE2, EOS],
    };
    let (model, _) = open(next);
    let mut request = plain("Q");
    request.logprobs = Some(2);
    let have = answer(&model, &request);
    let told: Vec<&str> = have
        .logprobs
        .iter()
        .map(|told| told.as_ref().expect("asked for").top[0].text.as_str())
        .collect();
    assert_eq!(told, ["th", "\u{FFFD}", "<|im_end|>"]);
    let told = have.logprobs[0].as_ref().expect("asked for");
    assert!(told.chosen > -1e-6 && told.chosen <= 0.0, "{}", told.chosen);
    assert!(told.top[1].logprob < -29.0 && told.top[1].logprob.is_finite());
}

fn refused(change: impl Fn(&mut TextRequest)) -> String {
    let (model, log) = open(Next::Hash);
    let mut request = plain("Q");
    change(&mut request);
    let error = TextJob::start(&model, &mut KvPool::new(1), request).err();
    assert_eq!(log.runs(), 0);
    match error {
        Some(PipelineError::Invalid { field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

#[test]
fn more_than_may_be_told_is_refused() {
    let field = refused(|request| request.logprobs = Some(LOGPROBS_MAX + 1));
    assert_eq!(field, "logprobs");
}
