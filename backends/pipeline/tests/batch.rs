//! Several answers in one run, against a model whose tokens depend on its whole cache.

mod support;

use mote_pipeline::{
    Finish, KvPool, PREFILL_CHUNK_TOKENS, PipelineError, ROWS_MAX, Sampling, TextJob, TextModel,
    TextRequest, TextStep,
};
use proptest::prelude::*;
use std::sync::Arc;
use support::text::{CONTEXT, Form, Next, answer, open, open_form, plain};

/// Text that is one token per byte.
fn letters(count: usize) -> String {
    (0..count)
        .map(|i| char::from(b'B' + (i * i % 23) as u8))
        .collect()
}

fn start(model: &Arc<TextModel>, pool: &mut KvPool, request: &TextRequest) -> TextJob {
    TextJob::start(model, pool, request.clone()).expect("starts")
}

/// What a job has said.
#[derive(Default)]
struct Said {
    ids: Vec<u32>,
    reason: Option<Finish>,
}

impl Said {
    fn hear(&mut self, step: Result<TextStep, PipelineError>) {
        match step.expect("runs") {
            TextStep::Prefill { .. } => {}
            TextStep::Token { id, .. } => self.ids.push(id),
            TextStep::Finished { reason } => self.reason = Some(reason),
        }
    }
}

/// Runs all to their ends, a step of each at a time.
fn finish_together(jobs: &mut [TextJob]) -> Vec<Said> {
    let mut said: Vec<Said> = jobs.iter().map(|_| Said::default()).collect();
    while said.iter().any(|said| said.reason.is_none()) {
        let mut active: Vec<(&mut TextJob, &mut Said)> = jobs
            .iter_mut()
            .zip(&mut said)
            .filter(|(_, said)| said.reason.is_none())
            .collect();
        let mut working: Vec<&mut TextJob> = active.iter_mut().map(|(job, _)| &mut **job).collect();
        let steps = TextJob::step_together(&mut working);
        assert_eq!(steps.len(), active.len());
        for ((_, said), step) in active.iter_mut().zip(steps) {
            said.hear(step);
        }
    }
    said
}

#[test]
fn eight_answers_take_the_runs_of_one() {
    for mask in [false, true] {
        let form = Form {
            asks_logits: mask,
            mask,
            all_logits: false,
            half: false,
        };
        let (model, log) = open_form(Next::Hash, form);
        let mut pool = KvPool::new(8).with_rows(ROWS_MAX);
        let requests: Vec<TextRequest> = (0..ROWS_MAX)
            .map(|number| TextRequest {
                tokens_max: Some(20),
                ..plain(&letters(5 + 11 * number)[number..])
            })
            .collect();
        let mut jobs: Vec<TextJob> = requests
            .iter()
            .map(|request| start(&model, &mut pool, request))
            .collect();
        let said = finish_together(&mut jobs);
        // Prompts one by one, two of them in two chunks; then a token of each at a time.
        let longest = said.iter().map(|said| said.ids.len()).max();
        let prompts = requests.len() + 2;
        assert!(
            log.runs() <= prompts + longest.expect("eight") + 2,
            "{}",
            log.runs()
        );
        assert_eq!(log.sessions(), 1);
        for ((said, request), job) in said.iter().zip(&requests).zip(&jobs) {
            let alone = answer(&open_form(Next::Hash, form).0, request);
            assert_eq!((&said.ids, said.reason), (&alone.ids, Some(alone.reason)));
            let stats = job.stats();
            assert!(stats.shared_steps > 0 && stats.shared_steps < stats.steps);
        }
        assert!(pool.is_empty(), "all are taken");
        for job in jobs {
            job.finish(&mut pool);
        }
        assert_eq!(pool.len(), ROWS_MAX);
    }
}

#[test]
fn a_prompt_that_others_have_is_copied_from_them_while_they_go_on() {
    let (model, log) = open(Next::Hash);
    let mut pool = KvPool::new(0).with_rows(ROWS_MAX);
    let system = letters(4 * PREFILL_CHUNK_TOKENS);
    let request = |tail: &str| TextRequest {
        tokens_max: Some(6),
        ..plain(&(system.clone() + tail))
    };
    let mut first = start(&model, &mut pool, &request("one"));
    let mut first_said = Said::default();
    while first_said.ids.is_empty() {
        first_said.hear(first.step());
    }
    let runs = log.runs();
    let mut second = start(&model, &mut pool, &request("and another"));
    assert_eq!(second.stats().cached_tokens, system.len() as u64);
    let mut second_said = Said::default();
    second_said.hear(second.step());
    assert_eq!((log.runs() - runs, second_said.ids.len()), (1, 1));
    let mut jobs = [first, second];
    for ((mut said, rest), tail) in [first_said, second_said]
        .into_iter()
        .zip(finish_together(&mut jobs))
        .zip(["one", "and another"])
    {
        said.ids.extend(rest.ids);
        assert_eq!(said.ids, answer(&open(Next::Hash).0, &request(tail)).ids);
    }
}

#[test]
fn a_deterministic_answer_shares_no_run() {
    let (model, log) = open(Next::Hash);
    let mut pool = KvPool::new(0).with_rows(ROWS_MAX);
    let request = |deterministic| TextRequest {
        tokens_max: Some(10),
        deterministic,
        ..plain("Quite")
    };
    let mut jobs: Vec<TextJob> = [true, false, false]
        .map(|deterministic| start(&model, &mut pool, &request(deterministic)))
        .into();
    for job in &mut jobs {
        job.step().expect("the prompt");
    }
    let may_join = jobs.iter().map(TextJob::may_join);
    assert_eq!(may_join.collect::<Vec<_>>(), [false, true, true]);
    let runs = log.runs();
    let mut working: Vec<&mut TextJob> = jobs.iter_mut().collect();
    TextJob::step_together(&mut working);
    assert_eq!(log.runs() - runs, 2);
    finish_together(&mut jobs);
    let shared = |job: &TextJob| job.stats().shared_steps > 0;
    assert_eq!(
        jobs.iter().map(shared).collect::<Vec<_>>(),
        [false, true, true]
    );
}

#[test]
fn a_job_that_is_cancelled_or_dropped_costs_the_others_nothing() {
    let (model, log) = open(Next::Hash);
    let mut pool = KvPool::new(0).with_rows(ROWS_MAX);
    let texts = ["One", "Two", "Three"];
    let request = |text: &str| TextRequest {
        tokens_max: Some(12),
        ..plain(text)
    };
    let mut jobs: Vec<TextJob> = texts
        .map(|text| start(&model, &mut pool, &request(text)))
        .into();
    let mut said: Vec<Said> = jobs.iter().map(|_| Said::default()).collect();
    for _ in 0..3 {
        let mut working: Vec<&mut TextJob> = jobs.iter_mut().collect();
        for (said, step) in said.iter_mut().zip(TextJob::step_together(&mut working)) {
            said.hear(step);
        }
    }
    // From inside the run that serves all three.
    let canceller = jobs[1].canceller();
    let at = log.runs() + 1;
    log.on_run(move |number| {
        if number == at {
            canceller.cancel();
        }
    });
    let mut working: Vec<&mut TextJob> = jobs.iter_mut().collect();
    for (said, step) in said.iter_mut().zip(TextJob::step_together(&mut working)) {
        said.hear(step);
    }
    assert!(matches!(jobs[1].step(), Err(PipelineError::Cancelled)));
    drop(jobs.remove(1));
    said.remove(1);
    // Another one takes the row meanwhile.
    jobs.push(start(&model, &mut pool, &request("Four")));
    said.push(Said::default());
    for ((mut said, rest), text) in said
        .into_iter()
        .zip(finish_together(&mut jobs))
        .zip(["One", "Three", "Four"])
    {
        said.ids.extend(rest.ids);
        assert_eq!(said.ids, answer(&open(Next::Hash).0, &request(text)).ids);
    }
}

#[test]
fn conversations_are_bounded_in_bytes_and_what_is_kept_gives_way() {
    let (model, _) = open(Next::Hash);
    let token_bytes = model.kv_bytes() / CONTEXT as u64;
    let mut pool = KvPool::new(8)
        .with_rows(ROWS_MAX)
        .with_bytes(100 * token_bytes);
    let request = |text: &str, tokens_max| TextRequest {
        tokens_max: Some(tokens_max),
        ..plain(text)
    };
    for text in ["first one", "second one", "third one"] {
        let mut jobs = [start(&model, &mut pool, &request(text, 5))];
        finish_together(&mut jobs);
        for job in jobs {
            job.finish(&mut pool);
        }
    }
    assert_eq!(pool.len(), 3);
    let big = start(&model, &mut pool, &request("bigger one", 80));
    assert_eq!(pool.len(), 0);
    assert_eq!(pool.bytes(), 90 * token_bytes);
    let refused = TextJob::start(&model, &mut pool, request("fiver", 6)).err();
    match refused {
        Some(PipelineError::CacheFull {
            need_bytes,
            have_bytes,
            bytes_max,
        }) => assert_eq!(
            [need_bytes, have_bytes, bytes_max],
            [11, 10, 100].map(|tokens| tokens * token_bytes)
        ),
        other => panic!("{other:?}"),
    }
    let small = start(&model, &mut pool, &request("fiver", 5));
    drop((big, small));
    assert!(pool.bytes() < 90 * token_bytes);
}

/// What a conversation had beyond what is taken over of it is no claim of the job that goes on with it.
#[test]
fn the_rest_of_a_conversation_gives_way_to_who_goes_on_with_its_beginning() {
    let (model, _) = open(Next::Hash);
    let token_bytes = model.kv_bytes() / CONTEXT as u64;
    let mut pool = KvPool::new(8)
        .with_rows(ROWS_MAX)
        .with_bytes(300 * token_bytes);
    let begins = letters(2 * PREFILL_CHUNK_TOKENS);
    let request = |text: &str, tokens_max| TextRequest {
        tokens_max: Some(tokens_max),
        ..plain(text)
    };
    let mut first = [start(
        &model,
        &mut pool,
        &request(&(begins.clone() + &letters(50)), 4),
    )];
    finish_together(&mut first);
    for job in first {
        job.finish(&mut pool);
    }
    let mut goes_on = [start(
        &model,
        &mut pool,
        &request(&(begins.clone() + "!!"), 10),
    )];
    assert_eq!(goes_on[0].stats().cached_tokens, begins.len() as u64);
    assert_eq!(pool.bytes(), 140 * token_bytes);
    let other = start(&model, &mut pool, &request(&"Q".repeat(150), 10));
    assert_eq!(pool.bytes(), 300 * token_bytes);
    let said = finish_together(&mut goes_on);
    let alone = answer(&open(Next::Hash).0, &request(&(begins + "!!"), 10));
    assert_eq!(said[0].ids, alone.ids);
    drop(other);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever jobs run together, come and go, each gives what it gives alone.
    #[test]
    fn answers_do_not_depend_on_what_shares_their_runs(
        requests in prop::collection::vec(
            (0usize..3, "[a-c]{1,150}", 1usize..30, any::<bool>(), any::<u64>()),
            1..14,
        ),
        entries in 0usize..5,
        rows in 1usize..9,
        at_once in 1usize..9,
        turns in prop::collection::vec(any::<u8>(), 8),
    ) {
        let (model, _) = open(Next::Hash);
        let mut pool = KvPool::new(entries).with_rows(rows);
        let heads = ["", "aab", "cab"].map(|head| head.repeat(40));
        let mut waiting: Vec<TextRequest> = requests
            .into_iter()
            .map(|(head, tail, tokens_max, deterministic, seed)| TextRequest {
                tokens_max: Some(tokens_max),
                deterministic,
                seed,
                sampling: Sampling { temperature: Some(0.8), ..Sampling::default() },
                ..plain(&(heads[head].clone() + &tail))
            })
            .collect();
        let mut active: Vec<(TextRequest, TextJob, Said)> = Vec::new();
        let mut turns = turns.into_iter().cycle();
        while !waiting.is_empty() || !active.is_empty() {
            while active.len() < at_once && let Some(request) = waiting.pop() {
                let job = start(&model, &mut pool, &request);
                active.push((request, job, Said::default()));
            }
            let mask = turns.next().expect("a cycle") | 1 << (active.len() / 2);
            let mut chosen: Vec<&mut (TextRequest, TextJob, Said)> = active
                .iter_mut()
                .enumerate()
                .filter_map(|(at, one)| (mask & (1 << at) > 0).then_some(one))
                .collect();
            let mut jobs: Vec<&mut TextJob> = chosen.iter_mut().map(|one| &mut one.1).collect();
            let steps = TextJob::step_together(&mut jobs);
            for (one, step) in chosen.iter_mut().zip(steps) {
                one.2.hear(step);
            }
            while let Some(at) = active.iter().position(|one| one.2.reason.is_some()) {
                let (request, job, said) = active.remove(at);
                let alone = answer(&open(Next::Hash).0, &request);
                prop_assert_eq!(said.ids, alone.ids);
                job.finish(&mut pool);
                prop_assert!(pool.len() <= entries);
            }
        }
    }
}
