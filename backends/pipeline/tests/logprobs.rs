//! What is told of tokens, and what a request says of single tokens.

mod support;

use mote_pipeline::{
    BIAS_MAX, KvPool, LOGIT_BIAS_MAX, LOGPROBS_MAX, Logprobs, PipelineError, Sampling, TextJob,
    TextRequest, TokenBias,
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

/// By its definition: the likeliest token after the bias, token by token.
fn biased_reference(prompt: &str, bias: &[TokenBias], count: usize) -> Vec<u32> {
    let mut tokens: Vec<u32> = prompt.bytes().map(u32::from).collect();
    for _ in 0..count {
        let mut logits = logits_after(&Next::Hash, &tokens);
        for bias in bias {
            logits[bias.id as usize] += bias.bias;
        }
        let best = (0..VOCAB).max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a)));
        tokens.push(best.expect("a vocabulary") as u32);
    }
    tokens.split_off(prompt.len())
}

#[test]
fn a_bias_is_added_to_logits_and_changes_nothing_that_is_told() {
    let (model, _) = open(Next::Hash);
    let all: Vec<TokenBias> = (0..LOGIT_BIAS_MAX.min(VOCAB) as u32)
        .map(|id| TokenBias {
            id,
            bias: if id == EOS {
                -BIAS_MAX
            } else {
                (id % 7) as f32 / 3.0
            },
        })
        .collect();
    let mut request = plain("Tell");
    request.tokens_max = Some(20);
    request.logit_bias = all.clone();
    let have = answer(&model, &request);
    assert_eq!(have.ids, biased_reference("Tell", &all, 20));
    // What is told is from before the bias.
    request.logprobs = Some(1);
    let told = answer(&model, &request);
    let first = told.logprobs[0].as_ref().expect("asked for");
    let logits = logits_after(
        &Next::Hash,
        &"Tell".bytes().map(u32::from).collect::<Vec<_>>(),
    );
    assert_told(first, &logits, told.ids[0], 1);
    // An answer that goes on after an interruption is biased as before.
    request.resume_token_ids = have.ids[..7].to_vec();
    let (rest, _) = answer_with(&model, &mut KvPool::new(0), &request);
    assert_eq!(rest.ids, have.ids[7..]);
}

#[test]
fn a_token_can_be_forced_and_ruled_out_also_where_tokens_are_drawn() {
    let (model, _) = open(Next::Hash);
    for sampling in [Sampling::default(), shaped()] {
        let mut request = plain("Q");
        request.tokens_max = Some(30);
        request.sampling = Sampling {
            repetition_penalty: None,
            ..sampling
        };
        let bias = |id, bias| TokenBias { id, bias };
        request.logit_bias = vec![bias(65, BIAS_MAX)];
        assert_eq!(answer(&model, &request).ids, [65; 30]);
        request.logit_bias = (0..VOCAB as u32)
            .filter(|&id| id != 66 && id != 67)
            .map(|id| bias(id, -BIAS_MAX))
            .collect();
        let ids = answer(&model, &request).ids;
        assert!(ids.len() == 30 && ids.iter().all(|id| [66, 67].contains(id)));
    }
}

#[test]
fn biases_that_do_not_hold_are_refused_by_index() {
    let bias = |id: u32, bias: f32| TokenBias { id, bias };
    let cases = [
        (vec![bias(1, 0.0); 2], "logit_bias[1]"),
        (vec![bias(0, 1.0), bias(1, f32::NAN)], "logit_bias[1]"),
        (vec![bias(0, 100.5)], "logit_bias[0]"),
        (vec![bias(VOCAB as u32, 1.0)], "logit_bias[0]"),
        (
            (0..=LOGIT_BIAS_MAX as u32)
                .map(|id| bias(id, 1.0))
                .collect(),
            "logit_bias",
        ),
    ];
    for (given, want) in cases {
        assert_eq!(refused(|request| request.logit_bias = given.clone()), want);
    }
}
