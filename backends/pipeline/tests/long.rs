//! Contexts that are outgrown, and tokens that are drafted.

mod support;

use mote_pipeline::{
    DRAFT_TOKENS_MAX, Finish, KvPool, PREFILL_CHUNK_TOKENS, PipelineError, Sampling, TextJob,
    TextRequest,
};
use proptest::prelude::*;
use support::text::{
    Answer, CONTEXT, Form, Next, PLAIN, VOCAB, answer_with, finish, logits_after, open, open_form,
    plain,
};

const DRAFTS: Form = Form {
    asks_logits: true,
    ..PLAIN
};

/// Text that is one token per byte.
fn letters(count: usize) -> String {
    (0..count)
        .map(|i| char::from(b'B' + (i * i % 23) as u8))
        .collect()
}

/// What stays of a text that outgrows the context: the beginning, and the later half of a context.
fn slid(tokens: &mut Vec<u32>) {
    tokens.drain(PREFILL_CHUNK_TOKENS..tokens.len() - CONTEXT / 2);
}

/// Greedy tokens by definition, without any cache, leaving out the middle whenever the context is full.
fn reference(prompt: &str, count: usize) -> Vec<u32> {
    let mut tokens: Vec<u32> = prompt.bytes().map(u32::from).collect();
    if tokens.len() >= CONTEXT {
        slid(&mut tokens);
    }
    let mut said = Vec::new();
    while said.len() < count {
        let logits = logits_after(&Next::Hash, &tokens);
        let best = (0..VOCAB).max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a)));
        let id = best.expect("a vocabulary") as u32;
        said.push(id);
        tokens.push(id);
        if tokens.len() > CONTEXT {
            slid(&mut tokens);
        }
    }
    said
}

fn sliding(prompt: &str, tokens_max: usize) -> TextRequest {
    TextRequest {
        slide_context: true,
        tokens_max: Some(tokens_max),
        ..plain(prompt)
    }
}

/// A prompt whose answer goes on for so many tokens.
fn long_answer(prompt_tokens: usize, tokens: usize) -> (String, Vec<u32>) {
    let prompts = (0..26u8).map(|shift| {
        let text = letters(prompt_tokens + 1);
        let tail: String = text[1..]
            .bytes()
            .map(|b| char::from(b ^ shift & 1))
            .collect();
        char::from(b'a' + shift).to_string() + &tail[1..]
    });
    for prompt in prompts {
        let want = reference(&prompt, tokens);
        if !want.contains(&support::text::EOS) {
            return (prompt, want);
        }
    }
    panic!("every answer ends early")
}

#[test]
fn an_answer_goes_on_behind_the_end_of_the_context_as_defined() {
    for prompt_tokens in [10, CONTEXT - 3, CONTEXT, CONTEXT + 200] {
        let (prompt, want) = long_answer(prompt_tokens, CONTEXT);
        let (model, _) = open(Next::Hash);
        let request = sliding(&prompt, CONTEXT);
        let (have, stats) = answer_with(&model, &mut KvPool::new(0), &request);
        assert_eq!(have.generated(), want, "{prompt_tokens}");
        assert_eq!(have.reason, Finish::TokensMax);
        assert!(stats.dropped_tokens > 0);
        // Neither what came before nor where it is resumed makes a difference.
        let mut pool = KvPool::new(2);
        for given in [0, 1, CONTEXT / 2, CONTEXT - 1] {
            let resumed = TextRequest {
                resume_token_ids: want[..given].to_vec(),
                ..request.clone()
            };
            let (have, again) = answer_with(&model, &mut pool, &resumed);
            assert_eq!(have.generated(), &want[given..], "resumed after {given}");
            assert_eq!(again.dropped_tokens, stats.dropped_tokens);
        }
    }
}

#[test]
fn without_sliding_a_full_context_refuses_the_prompt_or_ends_the_answer() {
    let (model, _) = open(Next::Hash);
    let (prompt, want) = long_answer(CONTEXT - 10, 20);
    let request = TextRequest {
        tokens_max: Some(20),
        ..plain(&prompt)
    };
    let (have, stats) = answer_with(&model, &mut KvPool::new(0), &request);
    assert_eq!(
        (have.generated(), have.reason),
        (&want[..10], Finish::ContextFull)
    );
    assert_eq!(stats.dropped_tokens, 0);
    let refused = TextJob::start(&model, &mut KvPool::new(0), plain(&letters(CONTEXT)));
    assert!(matches!(
        refused.err(),
        Some(PipelineError::ContextOverflow { .. })
    ));
}

fn drafting(request: &TextRequest, draft_tokens_max: usize) -> TextRequest {
    TextRequest {
        draft_tokens_max,
        ..request.clone()
    }
}

#[test]
fn an_answer_that_quotes_takes_fewer_runs() {
    let text = letters(100);
    let script = || Next::Script {
        prompt: 100,
        ids: text.bytes().skip(10).take(60).map(u32::from).collect(),
    };
    for form in [
        DRAFTS,
        Form {
            all_logits: true,
            ..PLAIN
        },
    ] {
        let (model, _) = open_form(script(), form);
        let mut request = plain(&text);
        request.tokens_max = Some(60);
        let (want, alone) = answer_with(&model, &mut KvPool::new(0), &request);
        let drafted = drafting(&request, 8);
        let (have, stats) = answer_with(&model, &mut KvPool::new(0), &drafted);
        assert_eq!(have, want);
        assert!(stats.steps * 3 < alone.steps, "{stats:?}");
        assert!(stats.accepted_tokens > 40, "{stats:?}");
        assert!(stats.accepted_tokens <= stats.drafted_tokens);
        assert_eq!(alone.drafted_tokens, 0);
    }
    // A model that gives one token's logits drafts none.
    let (model, _) = open(script());
    let (_, stats) = answer_with(&model, &mut KvPool::new(0), &drafting(&plain(&text), 8));
    assert_eq!(stats.drafted_tokens, 0);
}

#[test]
fn drafts_are_bounded_and_do_not_go_with_determinism() {
    let (model, _) = open_form(Next::Hash, DRAFTS);
    for (draft_tokens_max, deterministic) in [(DRAFT_TOKENS_MAX + 1, false), (1, true)] {
        let request = TextRequest {
            draft_tokens_max,
            deterministic,
            ..plain("Q")
        };
        match TextJob::start(&model, &mut KvPool::new(0), request).err() {
            Some(PipelineError::Invalid { field, .. }) => assert_eq!(field, "draft_tokens_max"),
            other => panic!("{other:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever is drafted, the answer is the one without drafts, and may be resumed anywhere.
    #[test]
    fn answers_do_not_depend_on_drafts(
        prompt in "[ab]{1,80}",
        // Few likely tokens, so that texts repeat themselves.
        top_k in 1u32..4,
        seed: u64,
        drafts in 1usize..=DRAFT_TOKENS_MAX,
        tokens_max in 1usize..80,
        stops in prop::collection::vec("[a-f]{1,2}", 0..2),
        resume in 0usize..20,
        slide_context: bool,
        repeats: bool,
    ) {
        // Logits that depend on the last token alone make loops.
        let next = if repeats { Next::Last } else { Next::Hash };
        let (model, _) = open_form(next, DRAFTS);
        let mut request = plain(&prompt);
        request.sampling = Sampling { top_k: Some(top_k), ..Sampling::default() };
        request.seed = seed;
        request.tokens_max = Some(tokens_max);
        request.stop = stops;
        request.slide_context = slide_context;
        let mut pool = KvPool::new(2);
        let (want, _) = answer_with(&model, &mut pool, &request);
        let drafted = drafting(&request, drafts);
        let (have, stats) = answer_with(&model, &mut pool, &drafted);
        prop_assert_eq!(&have, &want);
        prop_assert!(stats.accepted_tokens <= stats.drafted_tokens);
        let given = resume.min(want.ids.len().saturating_sub(1));
        let resumed = TextRequest { resume_token_ids: want.ids[..given].to_vec(), ..drafted };
        let mut job = TextJob::start(&model, &mut pool, resumed).expect("starts");
        let rest: Answer = finish(&mut job, given).expect("runs");
        prop_assert_eq!(&rest.ids[..], &want.ids[given..]);
        job.finish(&mut pool);
        let (again, _) = answer_with(&model, &mut pool, &request);
        prop_assert_eq!(&again, &want);
    }
}
