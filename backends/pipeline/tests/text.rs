//! Text generation against a model whose tokens depend on its whole cache.

mod support;

use half::f16;
use mote_api::{Canceller, DType, RunError, Signature, TextSpec};
use mote_pipeline::{
    ChatTurn, Finish, KvPool, POOL_ENTRIES_MAX, PREFILL_CHUNK_TOKENS, PipelineError, Sampling,
    TextJob, TextModel, TextPrompt, TextRequest, TextStep,
};
use proptest::prelude::*;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use support::text::{
    Answer, CONTEXT, EOS, Form, IM_START, Next, PLAIN, VOCAB, answer, answer_with, finish,
    logits_after, open, open_form, plain, signature, text_spec, write_folder,
};
use support::{Changes, closure_model, spec};

/// Greedy tokens after `prompt` by definition, without any cache.
fn reference(prompt: &[u32], tokens_max: usize, half: bool) -> Vec<u32> {
    let mut tokens = prompt.to_vec();
    while tokens.len() < prompt.len() + tokens_max {
        let mut logits = logits_after(&Next::Hash, &tokens);
        if half {
            let round = |logit: &mut f32| *logit = f16::from_f32(*logit).to_f32();
            logits.iter_mut().for_each(round);
        }
        let best = (0..VOCAB).max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a)));
        match best.expect("a vocabulary") as u32 {
            EOS => break,
            id => tokens.push(id),
        }
    }
    tokens.split_off(prompt.len())
}

/// Text that is one token per byte.
fn letters(count: usize) -> String {
    (0..count)
        .map(|i| char::from(b'B' + (i * i % 23) as u8))
        .collect()
}

fn ids_of(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

#[test]
fn every_form_of_graph_gives_the_defined_tokens_for_prompts_around_chunk_borders() {
    let chunk = PREFILL_CHUNK_TOKENS;
    let lengths = [1, 2, chunk - 1, chunk, chunk + 1, 2 * chunk, 3 * chunk + 5];
    for bits in 0..16 {
        let form = Form {
            asks_logits: bits & 8 > 0,
            mask: bits & 1 > 0,
            all_logits: bits & 2 > 0,
            half: bits & 4 > 0,
        };
        let (model, log) = open_form(Next::Hash, form);
        for length in lengths {
            let prompt = letters(length);
            let mut request = plain(&prompt);
            request.tokens_max = Some(12);
            let runs = log.runs();
            let (have, stats) = answer_with(&model, &mut KvPool::new(0), &request);
            let want = reference(&ids_of(&prompt), 12, form.half);
            assert_eq!(have.generated(), want, "{length} tokens");
            assert_eq!(log.runs() - runs, stats.steps as usize);
            assert_eq!(stats.prompt_tokens, length as u64);
            assert_eq!(stats.generated_tokens, have.generated().len() as u64);
            let ended = u64::from(have.reason == Finish::EndOfAnswer);
            let chunks = length.div_ceil(chunk) as u64;
            assert_eq!(
                stats.steps,
                chunks + have.generated().len() as u64 + ended - 1
            );
        }
    }
}

#[test]
fn a_prompt_is_computed_chunk_by_chunk_with_progress() {
    let (model, _) = open(Next::Hash);
    let request = plain(&letters(300));
    let mut job = TextJob::start(&model, &mut KvPool::new(0), request).expect("starts");
    for done in [64, 128, 192, 256] {
        let step = job.step().expect("runs");
        assert_eq!(step, TextStep::Prefill { done, total: 300 });
    }
    let step = job.step().expect("runs");
    assert!(matches!(step, TextStep::Token { index: 0, .. }));
}

/// What a token's kernels round may depend on the tokens it is computed with, so a prompt is computed in
/// the same chunks whatever is cached, and an answer token by token, also when it is resumed.
#[test]
fn tokens_are_computed_with_the_same_others_every_time() {
    let chunk = PREFILL_CHUNK_TOKENS;
    for length in [1, 2, chunk - 1, chunk, chunk + 1, 2 * chunk, 300] {
        for resumed in [0, 1, 5] {
            let lengths = Arc::new(Mutex::new(Vec::new()));
            let seen = Arc::clone(&lengths);
            let folder = tempfile::tempdir().expect("a folder");
            write_folder(folder.path());
            let (model, _) = closure_model(signature(PLAIN), move |run| {
                seen.lock()
                    .expect("not poisoned")
                    .push(run.inputs[0].elements());
                let logits = mote_api::Tensor::from_slice(&[1, 1, VOCAB], &[0f32; VOCAB])?;
                Ok(vec![Some(logits), None, None, None, None])
            });
            let model = TextModel::open(folder.path(), &text_spec(), model).expect("opens");
            let (model, mut pool) = (Arc::new(model), KvPool::new(2));
            let mut request = plain(&letters(length));
            request.tokens_max = Some(8);
            request.resume_token_ids = vec![0; resumed];
            let mut run = |request: &TextRequest| {
                answer_with(&model, &mut pool, request);
                std::mem::take(&mut *lengths.lock().expect("not poisoned"))
            };
            let whole = length / chunk;
            let mut cold = vec![chunk; whole];
            cold.extend((length > whole * chunk).then_some(length - whole * chunk));
            let answer = [1; 7];
            assert_eq!(run(&request), [&cold, &answer[..]].concat(), "{length}");
            // The whole prompt is cached with its logits, and so is what is resumed, but for the last.
            let again = run(&request);
            assert_eq!(again, answer[resumed.saturating_sub(1)..], "{length}");
            // A prompt that goes on otherwise has its whole chunks.
            request.prompt = TextPrompt::Plain(letters(length) + "!!!");
            let longer = length + 3;
            let mut rest = vec![chunk; longer / chunk - whole];
            rest.extend((longer % chunk > 0).then_some(longer % chunk));
            assert_eq!(run(&request), [&rest, &answer[..]].concat(), "{length}");
        }
    }
}

#[test]
fn whole_chunks_of_a_prompt_are_taken_over_and_whole_answers_unless_it_is_to_be_deterministic() {
    let (model, _) = open(Next::Hash);
    let base = letters(200);
    for (common, want) in [
        (63, 0),
        (64, 64),
        (100, 64),
        (128, 128),
        (199, 192),
        (200, 192),
    ] {
        let mut pool = KvPool::new(1);
        let mut request = plain(&(base[..common].to_owned() + &"!".repeat(210 - common)));
        request.tokens_max = Some(3);
        answer_with(&model, &mut pool, &request);
        request.prompt = TextPrompt::Plain(base.clone());
        let (have, stats) = answer_with(&model, &mut pool, &request);
        assert_eq!(stats.cached_tokens, want, "{common} in common");
        assert_eq!(have.generated(), reference(&ids_of(&base), 3, false));
    }
    // A conversation that goes on behind a long answer.
    let script = Next::Script {
        prompt: 70,
        ids: ids_of(&letters(200)),
    };
    let (model, _) = open(script);
    for (deterministic, want) in [(false, 269), (true, 64)] {
        let mut pool = KvPool::new(1);
        let mut request = plain(&base[..70]);
        request.tokens_max = Some(200);
        answer_with(&model, &mut pool, &request);
        request.deterministic = deterministic;
        let said = base[..70].to_owned() + &letters(200);
        request.prompt = TextPrompt::Plain(said + "and then?");
        request.tokens_max = Some(2);
        let (_, stats) = answer_with(&model, &mut pool, &request);
        assert_eq!(stats.cached_tokens, want);
    }
}

#[test]
fn a_job_says_where_its_cache_lies() {
    let (model, _) = open(Next::Hash);
    let mut pool = KvPool::new(0);
    let mut job = TextJob::start(&model, &mut pool, plain("abc")).expect("starts");
    let places = job.cache_places().expect("known");
    let [place] = &places[..] else {
        panic!("{places:?}")
    };
    assert_eq!((&place.device, place.bytes), (&None, model.kv_bytes()));
}

#[test]
fn kept_caches_give_way_when_the_device_is_full() {
    let (model, log) = open(Next::Hash);
    // Four states each: room for two conversations and a part of a third.
    log.states_max.store(11, Ordering::Relaxed);
    let mut pool = KvPool::new(POOL_ENTRIES_MAX);
    for (text, kept) in [("first", 1), ("second", 2), ("third", 2), ("fourth", 2)] {
        let request = TextRequest {
            tokens_max: Some(3),
            ..plain(text)
        };
        let (said, _) = answer_with(&model, &mut pool, &request);
        assert_eq!(said, answer(&open(Next::Hash).0, &request), "{text}");
        assert_eq!(pool.len(), kept, "{text}");
        assert_eq!(log.states.load(Ordering::Relaxed), 4 * kept);
    }
    // One that runs cannot give way.
    pool.clear();
    let start = |pool: &mut KvPool| TextJob::start(&model, pool, plain("x"));
    let _running = [start(&mut pool), start(&mut pool)].map(|job| job.expect("starts"));
    match start(&mut pool).err() {
        Some(PipelineError::Run(RunError::DeviceMemory { device, bytes, .. })) => {
            assert_eq!((&*device, bytes), ("tiny", model.kv_bytes() / 4));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_is_bound_between_tokens() {
    let script = Next::Script {
        prompt: 200,
        ids: ids_of(&letters(100)),
    };
    let (model, log) = open(script);
    let mut request = plain(&letters(200));
    request.tokens_max = Some(100);
    let mut job = TextJob::start(&model, &mut KvPool::new(0), request).expect("starts");
    for _ in 0..5 {
        job.step().expect("runs");
    }
    let binds = log.binds();
    finish(&mut job, 2).expect("runs");
    assert_eq!(log.runs(), 4 + 99);
    assert_eq!(log.binds(), binds);
    assert_eq!(log.sessions(), 1);
}

fn sampled() -> Sampling {
    Sampling {
        temperature: Some(0.9),
        top_k: Some(40),
        top_p: Some(0.95),
        min_p: Some(0.01),
        repetition_penalty: Some(1.2),
    }
}

#[test]
fn a_seed_gives_the_same_answer_and_another_seed_another() {
    let (model, _) = open(Next::Hash);
    let mut request = plain("Once");
    request.sampling = sampled();
    request.tokens_max = Some(40);
    let answers: Vec<Answer> = [1, 1, 2]
        .iter()
        .map(|&seed| {
            answer(
                &model,
                &TextRequest {
                    seed,
                    ..request.clone()
                },
            )
        })
        .collect();
    assert_eq!(answers[0], answers[1]);
    assert_ne!(answers[0].ids, answers[2].ids);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// A job that begins anew after any token goes on as if nothing had happened: the same
    /// tokens, the same pieces of text, the same end.
    #[test]
    fn resuming_at_any_token_equals_never_having_stopped(
        seed: u64,
        prompt in "[a-z ]{1,300}",
        stops in prop::collection::vec("[a-f]{1,2}", 0..3),
        tokens_max in 1usize..60,
        cold: bool,
    ) {
        let (model, _) = open(Next::Hash);
        let mut request = plain(&prompt);
        request.seed = seed;
        request.sampling = sampled();
        request.tokens_max = Some(tokens_max);
        request.stop = stops;
        let mut pool = KvPool::new(usize::from(!cold));
        let (whole, _) = answer_with(&model, &mut pool, &request);
        for given in 0..=whole.ids.len() {
            let mut rest = request.clone();
            rest.resume_token_ids = whole.ids[..given].to_vec();
            let (have, stats) = answer_with(&model, &mut pool, &rest);
            prop_assert_eq!(&have.ids[..], &whole.ids[given..]);
            prop_assert_eq!(&have.texts[..], &whole.texts[given..]);
            prop_assert_eq!(have.reason, whole.reason);
            prop_assert_eq!(stats.generated_tokens, whole.generated().len() as u64);
        }
    }

    /// Whatever a pool has seen, an answer is the one a cold start gives.
    #[test]
    fn answers_do_not_depend_on_what_the_pool_holds(
        prompts in prop::collection::vec(("[ab]{0,4}", "[a-c]{1,200}"), 1..12),
        entries in 0usize..4,
    ) {
        let (model, _) = open(Next::Hash);
        let mut pool = KvPool::new(entries);
        for (head, tail) in prompts {
            let prompt = head.repeat(40) + &tail;
            let mut request = plain(&prompt);
            request.tokens_max = Some(5);
            let (have, stats) = answer_with(&model, &mut pool, &request);
            prop_assert_eq!(have.generated(), reference(&encoded(&prompt), 5, false));
            prop_assert!(stats.cached_tokens <= stats.prompt_tokens);
            prop_assert!(pool.len() <= entries);
        }
    }

    /// However stop strings and characters lie across tokens, the text is that of the whole.
    #[test]
    fn text_ends_before_the_first_stop_string_and_never_inside_a_character(
        text in "[athe€é😀 ]{1,60}",
        stops in prop::collection::vec("[athe€é😀 ]{1,3}", 0..3),
        cut in 1usize..200,
    ) {
        let ids = encoded(&text);
        let (model, _) = open(Next::Script { prompt: 1, ids: ids.clone() });
        let mut request = plain("Q");
        request.tokens_max = Some(cut);
        request.stop = stops.clone();
        let have = answer(&model, &request);

        let mut bytes = Vec::new();
        ids.iter().take(cut).for_each(|&id| bytes.extend(bytes_of(id)));
        let all = String::from_utf8_lossy(&bytes).into_owned();
        let stop = all.char_indices().map(|(i, c)| i + c.len_utf8()).find_map(|end| {
            let hit = stops.iter().filter(|s| all[..end].ends_with(s.as_str()));
            hit.map(|stop| end - stop.len()).min()
        });
        prop_assert_eq!(have.text(), &all[..stop.unwrap_or(all.len())]);
        // Only an answer that was cut inside a character ends with one that is not whole.
        let whole = have.texts.split_last().map_or(&[][..], |(_, whole)| whole);
        prop_assert!(!whole.concat().contains(char::REPLACEMENT_CHARACTER));
        prop_assert_eq!(have.reason == Finish::StopString, stop.is_some());
    }

    /// Tokens that make no text give replacement characters, all of them, once.
    #[test]
    fn random_tokens_decode_as_they_do_together(ids in prop::collection::vec(0u32..262, 1..31)) {
        let (model, _) = open(Next::Script { prompt: 1, ids: ids.clone() });
        let mut bytes = Vec::new();
        ids.iter().for_each(|&id| bytes.extend(bytes_of(id)));
        prop_assert_eq!(answer(&model, &plain("Q")).text(), String::from_utf8_lossy(&bytes));
    }
}

/// What a token of the test's tokenizer stands for.
fn bytes_of(id: u32) -> Vec<u8> {
    const MERGED: [&[u8]; 6] = [
        b"th",
        b"the",
        b" a",
        &[0xE2, 0x82],
        &[0xF0, 0x9F],
        &[0xA9, 0xC3],
    ];
    match id {
        0..256 => vec![id as u8],
        _ => MERGED[id as usize - 256].to_vec(),
    }
}

/// Byte-pair encoding by its definition: the first merge of the list that fits, leftmost first.
fn encoded(text: &str) -> Vec<u32> {
    let mut parts: Vec<Vec<u8>> = text.bytes().map(|byte| vec![byte]).collect();
    let id_of = |part: &[u8]| match part {
        [byte] => Some(u32::from(*byte)),
        _ => (256..262).find(|&id| bytes_of(id) == part),
    };
    loop {
        let ranked = parts.windows(2).enumerate().filter_map(|(at, pair)| {
            let id = id_of(&pair.concat())?;
            Some((id, at))
        });
        let Some((_, at)) = ranked.min() else {
            return parts.iter().filter_map(|part| id_of(part)).collect();
        };
        let right = parts.remove(at + 1);
        parts[at].extend(right);
    }
}

#[test]
fn a_conversation_that_goes_on_computes_only_what_is_new() {
    let (model, _) = open(Next::Hash);
    let mut pool = KvPool::new(2);
    let turn = |role: &str, content: &str| ChatTurn::new(role, content);
    let mut turns = vec![turn("user", &letters(150))];
    let mut request = TextRequest::new(TextPrompt::Messages(turns.clone()));
    request.tokens_max = Some(4);
    let (_, first) = answer_with(&model, &mut pool, &request);
    assert_eq!(first.cached_tokens, 0);
    // The same prompt again: even its logits are there, so one run fewer gives all four tokens.
    let (_, again) = answer_with(&model, &mut pool, &request);
    assert_eq!((again.cached_tokens, again.steps), (first.prompt_tokens, 3));
    assert_eq!(pool.len(), 1);

    turns.extend([turn("assistant", "QQ"), turn("user", "more")]);
    request.prompt = TextPrompt::Messages(turns);
    let (warm, stats) = answer_with(&model, &mut pool, &request);
    let chunks = first.prompt_tokens / PREFILL_CHUNK_TOKENS as u64;
    assert_eq!(stats.cached_tokens, chunks * PREFILL_CHUNK_TOKENS as u64);
    assert_eq!(warm, answer(&model, &request));

    // Another conversation gets a cache of its own while there is room, and does not cost the
    // first one its place.
    let (_, other) = answer_with(&model, &mut pool, &plain("Quite another matter"));
    assert_eq!((other.cached_tokens, pool.len()), (0, 2));
    let (_, back) = answer_with(&model, &mut pool, &request);
    assert_eq!(back.cached_tokens, back.prompt_tokens);
}

#[test]
fn templates_are_encoded_with_their_special_tokens() {
    let prompt = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n";
    let mut ids = Vec::new();
    for (index, part) in prompt.split("<|im_start|>").enumerate() {
        if index > 0 {
            ids.push(IM_START);
        }
        for (index, part) in part.split("<|im_end|>").enumerate() {
            if index > 0 {
                ids.push(EOS);
            }
            ids.extend(encoded(part));
        }
    }
    let (model, _) = open(Next::Hash);
    let turns = vec![ChatTurn::new("user", "hi")];
    let mut request = TextRequest::new(TextPrompt::Messages(turns));
    request.tokens_max = Some(8);
    assert_eq!(
        answer(&model, &request).generated(),
        reference(&ids, 8, false)
    );
}

/// Cancels from inside run number `at`; the model then leaves rubbish behind its valid cache.
fn cancel_at(log: &support::Log, at: usize, canceller: Canceller) {
    log.on_run(move |number| {
        if number == at {
            canceller.cancel();
        }
    });
}

#[test]
fn a_cancelled_job_leaves_a_cache_that_is_right_as_far_as_it_goes() {
    for at in 1..8 {
        let (model, log) = open(Next::Hash);
        let mut pool = KvPool::new(1);
        let mut request = plain(&letters(300));
        request.tokens_max = Some(20);
        let want = answer(&model, &request);
        let mut job = TextJob::start(&model, &mut pool, request.clone()).expect("starts");
        cancel_at(&log, log.runs() + at, job.canceller());
        let error = finish(&mut job, 0).expect_err("is cancelled");
        assert!(matches!(error, PipelineError::Cancelled), "{error}");
        assert!(matches!(job.step(), Err(PipelineError::Cancelled)));
        let late = job.canceller();
        job.finish(&mut pool);
        assert_eq!(pool.tokens(), [0, 64, 128, 192, 256, 300, 301][at - 1]);
        // A cancel that comes after the job's end, and hits the session's next job.
        late.cancel();
        let (have, stats) = answer_with(&model, &mut pool, &request);
        assert_eq!(have, want, "after a cancel in run {at}");
        let cached = [0, 64, 128, 192, 256, 300, 300][at - 1];
        assert_eq!(stats.cached_tokens, cached);
        assert_eq!(pool.len(), 1);
    }
}

#[test]
fn a_cancel_between_steps_ends_the_job_before_its_next_run() {
    let (model, log) = open(Next::Hash);
    let mut job = TextJob::start(&model, &mut KvPool::new(0), plain("Q")).expect("starts");
    job.step().expect("runs");
    job.canceller().cancel();
    assert!(matches!(job.step(), Err(PipelineError::Cancelled)));
    assert_eq!(log.runs(), 1);
}

#[test]
fn answers_end_for_the_reason_that_came_first() {
    let script = |text: &str| Next::Script {
        prompt: 1,
        ids: ids_of(text),
    };
    let run = |text: &str, tokens_max: Option<usize>, stop: &[&str]| {
        let mut request = plain("Q");
        request.tokens_max = tokens_max;
        request.stop = stop.iter().map(|s| s.to_string()).collect();
        let answer = answer(&open(script(text)).0, &request);
        (answer.texts, answer.reason)
    };
    let own = |texts: &[&str], reason| {
        let texts: Vec<String> = texts.iter().map(|text| text.to_string()).collect();
        (texts, reason)
    };
    let cases = [
        (
            run("XYZ", None, &[]),
            own(&["X", "Y", "Z"], Finish::EndOfAnswer),
        ),
        (
            run("XYZ", Some(3), &[]),
            own(&["X", "Y", "Z"], Finish::TokensMax),
        ),
        (
            run("XYZ", Some(2), &["YZ"]),
            own(&["X", "Y"], Finish::TokensMax),
        ),
        // The end token brings what was held back.
        (
            run("XYZ", Some(9), &["YZ!"]),
            own(&["X", "", "", "YZ"], Finish::EndOfAnswer),
        ),
        (
            run("XYZ", Some(3), &["YZ"]),
            own(&["X", "", ""], Finish::StopString),
        ),
    ];
    for (have, want) in cases {
        assert_eq!(have, want);
    }
    let long = letters(CONTEXT);
    let (texts, reason) = run(&long, None, &[]);
    assert_eq!((texts.len(), reason), (CONTEXT - 1, Finish::ContextFull));
    let (texts, reason) = run(&long, Some(CONTEXT - 1), &[]);
    assert_eq!((texts.len(), reason), (CONTEXT - 1, Finish::TokensMax));
}

#[test]
fn a_finished_job_stays_finished() {
    let next = Next::Script {
        prompt: 1,
        ids: Vec::new(),
    };
    let (model, log) = open(next);
    let mut job = TextJob::start(&model, &mut KvPool::new(0), plain("Q")).expect("starts");
    let first = job.step().expect("runs");
    assert!(matches!(
        first,
        TextStep::Finished {
            reason: Finish::EndOfAnswer,
            ..
        }
    ));
    assert_eq!(job.step().expect("stays"), first);
    assert_eq!(log.runs(), 1);
}

#[test]
fn bad_requests_are_refused_with_the_field_before_anything_runs() {
    let (model, log) = open(Next::Hash);
    let cases: Changes<TextRequest> = vec![
        ("prompt", |r| r.prompt = TextPrompt::Plain(String::new())),
        ("prompt", |r| {
            r.prompt = TextPrompt::Plain("x".repeat(3 << 20))
        }),
        ("messages", |r| r.prompt = TextPrompt::Messages(Vec::new())),
        ("tokens_max", |r| r.tokens_max = Some(0)),
        ("sampling.temperature", |r| {
            r.sampling.temperature = Some(f32::NAN)
        }),
        ("sampling.temperature", |r| {
            r.sampling.temperature = Some(-0.1)
        }),
        ("sampling.top_p", |r| r.sampling.top_p = Some(0.0)),
        ("sampling.min_p", |r| r.sampling.min_p = Some(1.1)),
        ("sampling.repetition_penalty", |r| {
            r.sampling.repetition_penalty = Some(0.0)
        }),
        ("stop", |r| r.stop = vec!["x".into(); 17]),
        ("stop[1]", |r| r.stop = vec!["x".into(), String::new()]),
        ("stop[0]", |r| r.stop = vec!["x".repeat(257)]),
        ("resume_token_ids[1]", |r| {
            r.resume_token_ids = vec![0, VOCAB as u32]
        }),
        ("resume_token_ids[1]", |r| r.resume_token_ids = vec![EOS, 0]),
        ("resume_token_ids[2]", |r| {
            r.tokens_max = Some(2);
            r.resume_token_ids = vec![70, 71, 72];
        }),
    ];
    for (want, change) in cases {
        let mut request = plain("Q");
        change(&mut request);
        match TextJob::start(&model, &mut KvPool::new(1), request).err() {
            Some(PipelineError::Invalid { field, .. }) => assert_eq!(field, want),
            other => panic!("{want}: {other:?}"),
        }
    }
    for (tokens, fits) in [(CONTEXT - 1, true), (CONTEXT, false), (CONTEXT + 1, false)] {
        let result = TextJob::start(&model, &mut KvPool::new(1), plain(&letters(tokens)));
        match result.err() {
            None => assert!(fits),
            Some(PipelineError::ContextOverflow {
                prompt_tokens,
                context_tokens,
            }) => {
                assert!(!fits);
                assert_eq!(
                    (prompt_tokens, context_tokens),
                    (tokens as u64, CONTEXT as u64)
                );
            }
            Some(other) => panic!("{other}"),
        }
    }
    assert_eq!(log.runs(), 0);
}

#[test]
fn logits_of_nan_are_an_error_and_the_cache_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    write_folder(folder.path());
    let poison = Arc::new(Mutex::new(true));
    let poisoned = Arc::clone(&poison);
    let (model, _) = closure_model(signature(PLAIN), move |_| {
        let value = if *poisoned.lock().expect("not poisoned") {
            f32::NAN
        } else {
            0.0
        };
        let logits = mote_api::Tensor::from_slice(&[1, 1, VOCAB], &[value; VOCAB])?;
        Ok(vec![Some(logits), None, None, None, None])
    });
    let model = TextModel::open(folder.path(), &text_spec(), model).expect("opens");
    let (model, mut pool) = (Arc::new(model), KvPool::new(1));
    let mut job = TextJob::start(&model, &mut pool, plain("Quarter")).expect("starts");
    assert!(matches!(job.step(), Err(PipelineError::Logits { .. })));
    job.finish(&mut pool);
    assert_eq!(pool.tokens(), 7);
    *poison.lock().expect("not poisoned") = false;
    let mut request = plain("Quarter");
    request.tokens_max = Some(1);
    assert_eq!(answer_with(&model, &mut pool, &request).0.ids, [0]);
}

#[test]
fn models_that_are_not_what_the_manifest_says_are_refused_by_tensor() {
    let folder = tempfile::tempdir().expect("a folder");
    write_folder(folder.path());
    let cases: Changes<(Signature, TextSpec)> = vec![
        ("input_ids", |s| s.0.inputs[0].dtype = DType::F32),
        ("encoder_hidden", |s| {
            s.0.inputs.push(spec("encoder_hidden", DType::F32, &[1]))
        }),
        ("past_key_values.1.value", |s| drop(s.0.inputs.remove(6))),
        ("present.0.key", |s| s.0.outputs[1].name = "other".into()),
        ("past_key_values.2.key", |t| t.1.layers = 3),
        ("past_key_values.1.key", |t| t.1.layers = 1),
        ("past_key_values.0.key", |t| t.1.kv_heads = 4),
        ("past_key_values.0.value", |s| {
            s.0.inputs[4].dtype = DType::F16
        }),
        ("logits", |t| t.1.vocab += 1),
        ("logits", |s| s.0.outputs[0].shape.truncate(2)),
        ("seqlens_k", |s| s.0.inputs[1].shape.push(Some(1))),
    ];
    for (want, change) in cases {
        let mut parts = (signature(PLAIN), text_spec());
        change(&mut parts);
        let (signature, spec) = parts;
        let (model, _) = closure_model(signature, |_| Ok(Vec::new()));
        match TextModel::open(folder.path(), &spec, model).err() {
            Some(PipelineError::Graph { tensor, .. }) => assert_eq!(tensor, want),
            other => panic!("{want}: {other:?}"),
        }
    }
}

#[test]
fn folders_that_are_not_in_order_are_refused_by_file() {
    let cases: [(&str, Option<&str>); 5] = [
        ("tokenizer.json", None),
        ("tokenizer.json", Some("{\"model\": 1}")),
        ("chat.jinja", None),
        ("chat.jinja", Some("{% if %}")),
        ("tokenizer_config.json", Some("[")),
    ];
    for (name, content) in cases {
        let folder = tempfile::tempdir().expect("a folder");
        write_folder(folder.path());
        let file = folder.path().join(name);
        match content {
            Some(content) => std::fs::write(&file, content).expect("writable"),
            None => std::fs::remove_file(&file).expect("there"),
        }
        let (model, _) = closure_model(signature(PLAIN), |_| Ok(Vec::new()));
        let error = TextModel::open(folder.path(), &text_spec(), model).err();
        match (content, error) {
            (None, Some(PipelineError::ModelFile { file: have, .. }))
            | (Some(_), Some(PipelineError::MalformedFile { file: have, .. })) => {
                assert_eq!(have, file);
            }
            (_, other) => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn special_tokens_reach_the_template_from_the_config_or_the_manifest() {
    for (config, want) in [
        (None, "!|<|im_end|>Q"),
        (
            Some(r#"{"bos_token": {"content": "B"}, "eos_token": "E"}"#),
            "B|EQ",
        ),
        (Some(r#"{"bos_token": null}"#), "!|<|im_end|>Q"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        write_folder(folder.path());
        let template = "{{ bos_token }}|{{ eos_token }}{{ messages[0].content }}";
        std::fs::write(folder.path().join("chat.jinja"), template).expect("writable");
        if let Some(config) = config {
            let file = folder.path().join("tokenizer_config.json");
            std::fs::write(file, config).expect("writable");
        }
        let mut spec = text_spec();
        spec.bos_token_id = Some(u32::from(b'!'));
        let (model, log) = closure_model(signature(PLAIN), |run| {
            let ids = run.inputs[0].read::<i64>()?;
            let sum: i64 = ids.iter().sum();
            let mut logits = vec![0f32; VOCAB];
            logits[sum as usize % 256] = 9.0;
            let logits = mote_api::Tensor::from_slice(&[1, 1, VOCAB], &logits)?;
            Ok(vec![Some(logits), None, None, None, None])
        });
        let model = Arc::new(TextModel::open(folder.path(), &spec, model).expect("opens"));
        let turns = vec![ChatTurn::new("user", "Q")];
        let mut request = TextRequest::new(TextPrompt::Messages(turns));
        request.tokens_max = Some(1);
        let sum: u32 = want
            .replace("<|im_end|>", "")
            .bytes()
            .map(u32::from)
            .sum::<u32>()
            + if want.contains("<|im_end|>") { EOS } else { 0 };
        assert_eq!(answer(&model, &request).ids, [sum % 256], "{want}");
        assert_eq!(log.runs(), 1);
    }
}
