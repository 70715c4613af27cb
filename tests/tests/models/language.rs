//! Language models, dense and as a mixture of experts.

use crate::{ONNXRUNTIME, client};
use anyhow::{Context, Result};
use mote_client::{
    ChatMessage, Client, Done, FinishReason, Generate, GenerationEvent, Prompt, Sampling, Status,
};
use mote_tests::reference::Case;

const DENSE: &str = "smollm2-135m";
const MOE: &str = "smollm2-135m-moe";
/// What the reference cases ask.
const QUESTION: &str = "Write two sentences about the ocean.";
/// Logits by which the reference must prefer a token for it to be demanded. Both use the same 8-bit
/// weights, but the runtime multiplies them with activations that it rounds to 8 bits as well.
const MARGIN_MIN: f64 = 0.4;
/// Tokens that must be equal before a narrow choice may part the answers.
const EQUAL_TOKENS_MIN: usize = 5;
/// `<|im_end|>`, after which the daemon ends the answer and the reference goes on.
const END_OF_ANSWER: f64 = 2.0;

/// An answer, complete.
pub struct Answer {
    pub ids: Vec<u32>,
    text: String,
    pub done: Box<Done>,
}

/// A question in a chat, whose answer does not depend on what other tests ask meanwhile.
pub fn ask(model: &str, question: &str) -> Generate {
    Generate {
        tokens_max: Some(32),
        deterministic: true,
        ..Generate::new(
            model,
            Prompt::Messages(vec![ChatMessage::new("user", question)]),
        )
    }
}

pub fn answer(client: &Client, request: Generate) -> Result<Answer> {
    let (mut ids, mut text) = (Vec::new(), String::new());
    for event in client.generate(request)? {
        match event? {
            GenerationEvent::Token(token) => {
                assert_eq!(token.index as usize, ids.len());
                ids.push(token.id);
                text += &token.text;
            }
            GenerationEvent::Done(done) => return Ok(Answer { ids, text, done }),
            GenerationEvent::Accepted { .. } | GenerationEvent::Progress(_) => {}
        }
    }
    anyhow::bail!("the answer has no end")
}

fn check_greedy(model: &str, case: &str) -> Result<Answer> {
    let case = Case::read(case)?;
    let answer = answer(&*client()?, ask(model, QUESTION))?;
    let receipt = &answer.done.receipt;
    ONNXRUNTIME.check(model, receipt);
    assert_eq!(receipt.prompt_tokens, case.inputs["input_ids"].shape[1]);
    assert_eq!(receipt.generated_tokens, answer.ids.len() as u64);

    let wanted = case.outputs["greedy_ids"].numbers();
    let margins = case.outputs["greedy_margins"].numbers();
    let ends = wanted.iter().position(|&id| id == END_OF_ANSWER);
    let length = ends.unwrap_or(wanted.len());
    let got: Vec<f64> = answer.ids.iter().map(|&id| f64::from(id)).collect();
    let parted = (0..length).find(|&at| got.get(at) != Some(&wanted[at]));
    eprintln!(
        "DIFF {model} {parted:?} {length} {:?}",
        parted.map(|a| margins[a])
    );
    match parted {
        None if ends.is_some() => assert_eq!(answer.done.finish, FinishReason::EndOfAnswer),
        None => assert_eq!(answer.done.finish, FinishReason::TokensMax),
        Some(at) => {
            let margin = margins[at];
            assert!(margin < MARGIN_MIN, "token {at} of {model}: {margin}");
            assert!(at >= EQUAL_TOKENS_MIN, "only {at} tokens of {model}");
        }
    }
    Ok(answer)
}

#[test]
fn the_dense_model_says_what_the_reference_says() -> Result<()> {
    let answer = check_greedy(DENSE, "language_model_dense")?;
    assert_eq!(answer.done.receipt.experts, None);
    Ok(())
}

#[test]
fn the_mixture_of_experts_says_what_the_reference_says() -> Result<()> {
    let answer = check_greedy(MOE, "language_model_moe")?;
    let receipt = answer.done.receipt;
    assert_eq!(
        (receipt.experts, receipt.experts_per_token),
        (Some(8), Some(7))
    );
    Ok(())
}

#[test]
fn a_seed_repeats_its_tokens_and_another_draws_others() -> Result<()> {
    let client = client()?;
    let draw = |seed: Option<u64>| {
        let mut request = ask(DENSE, "Invent a name for a ship and tell its story.");
        request.sampling = Sampling {
            temperature: Some(1.0),
            top_p: Some(0.95),
            seed,
            ..Sampling::default()
        };
        answer(&client, request)
    };
    let first = draw(Some(7))?;
    assert_eq!(first.done.receipt.seed, Some(7));
    let again = draw(Some(7))?;
    assert_eq!((&first.ids, &first.text), (&again.ids, &again.text));
    assert_ne!(first.ids, draw(Some(8))?.ids);
    // A seed that the daemon drew is told, and repeats too.
    let drawn = draw(None)?;
    let seed = drawn
        .done
        .receipt
        .seed
        .context("the receipt tells the seed")?;
    assert_eq!(draw(Some(seed))?.ids, drawn.ids, "seed {seed}");
    Ok(())
}

#[test]
fn an_answer_ends_before_its_stop_string() -> Result<()> {
    let client = client()?;
    let whole = answer(&client, ask(DENSE, QUESTION))?;
    // From the middle of one word to the middle of a later one, so that it spans tokens.
    let middle = whole.text.len() / 2;
    let stop = whole.text.get(middle..middle + 9).context("ASCII")?;
    let before = whole.text.find(stop).context("it was taken from there")?;
    let mut request = ask(DENSE, QUESTION);
    request.stop = vec!["never said".into(), stop.into()];
    let stopped = answer(&client, request)?;
    assert_eq!(stopped.done.finish, FinishReason::StopString);
    assert_eq!(stopped.text, whole.text[..before]);
    Ok(())
}

#[test]
fn a_prompt_over_the_limit_of_bytes_is_refused_before_it_is_read() -> Result<()> {
    let client = client()?;
    let bytes_max = client.limits().prompt_bytes_max;
    let request = ask(DENSE, &"x".repeat(bytes_max as usize + 1));
    match client.generate(request)?.next() {
        Some(Err(mote_client::ClientError::Refused(Status::LimitExceeded {
            have, limit, ..
        }))) => assert_eq!((have, limit), (bytes_max + 1, bytes_max)),
        other => panic!("{other:?}"),
    }
    let mut request = ask(DENSE, QUESTION);
    request.tokens_max = Some(1);
    assert_eq!(answer(&client, request)?.ids.len(), 1);
    Ok(())
}

#[test]
fn a_prompt_over_the_context_is_refused_with_both_figures() -> Result<()> {
    let client = client()?;
    let request = ask(DENSE, &"word ".repeat(3000));
    let error = answer(&client, request).err().context("it cannot fit")?;
    match error
        .downcast_ref::<mote_client::ClientError>()
        .and_then(|e| e.status())
    {
        Some(&Status::ContextOverflow {
            prompt_tokens,
            context_tokens,
            text: None,
        }) => {
            assert!(prompt_tokens > 3000, "{prompt_tokens}");
            assert_eq!(context_tokens, 2048);
        }
        other => panic!("{other:?}"),
    }
    let mut request = ask(DENSE, QUESTION);
    request.tokens_max = Some(2);
    assert_eq!(answer(&client, request)?.ids.len(), 2);
    Ok(())
}

/// Questions by so many clients at once.
fn at_once(requests: Vec<Generate>) -> Result<Vec<Answer>> {
    let clients: Result<Vec<_>> = requests.iter().map(|_| client()).collect();
    let asked: Vec<_> = clients?
        .into_iter()
        .zip(requests)
        .map(|(client, request)| std::thread::spawn(move || answer(&client, request)))
        .collect();
    let answers = asked.into_iter().map(|one| match one.join() {
        Ok(answer) => answer,
        Err(panic) => std::panic::resume_unwind(panic),
    });
    answers.collect()
}

const TOPICS: [&str; 7] = ["rain", "bread", "trains", "stars", "dogs", "glass", "salt"];

#[test]
fn answers_at_once_share_runs_and_a_deterministic_one_among_them_is_as_if_it_were_alone()
-> Result<()> {
    for model in [DENSE, MOE] {
        let alone = answer(&*client()?, ask(model, QUESTION))?;
        let mut requests = vec![ask(model, QUESTION)];
        requests.extend(TOPICS.map(|topic| Generate {
            deterministic: false,
            tokens_max: Some(64),
            ..ask(model, &format!("Write two sentences about {topic}."))
        }));
        let answers = at_once(requests)?;
        let (among, others) = answers.split_first().context("eight")?;
        assert_eq!(among.ids, alone.ids, "{model}");
        assert_eq!(among.done.receipt.shared_steps, 0);
        let shared = others.iter().map(|other| {
            let receipt = &other.done.receipt;
            assert!(receipt.shared_steps <= receipt.steps, "{receipt:?}");
            assert!(!other.text.trim().is_empty());
            receipt.shared_steps
        });
        // One may end before the others begin.
        let shared: Vec<u64> = shared.collect();
        let count = shared.iter().filter(|&&steps| steps > 0).count();
        assert!(count >= TOPICS.len() / 2, "{model}: {shared:?}");
    }
    Ok(())
}

/// A system prompt of about a thousand tokens, and a question.
fn with_manual(model: &str, question: &str) -> Generate {
    let rules = (0..70).map(|number| format!("Rule {number}: be kind, exact and brief.\n"));
    let manual: String = rules.collect();
    Generate {
        prompt: Prompt::Messages(vec![
            ChatMessage::new("system", manual),
            ChatMessage::new("user", question),
        ]),
        ..ask(model, "")
    }
}

#[test]
fn a_long_prompt_that_was_read_before_is_taken_over_and_changes_no_token() -> Result<()> {
    for model in [DENSE, MOE] {
        let client = client()?;
        let cold = answer(&client, with_manual(model, "What is a river?"))?;
        let prompt_tokens = cold.done.receipt.prompt_tokens;
        assert!(prompt_tokens > 900, "{prompt_tokens}");
        answer(&client, with_manual(model, "Why do cats sleep so much?"))?;
        let warm = answer(&client, with_manual(model, "What is a river? "))?;
        let receipt = &warm.done.receipt;
        let computed = receipt.prompt_tokens - receipt.cached_tokens;
        assert!(computed * 10 <= prompt_tokens, "{model}: {receipt:?}");
        let again = answer(&client, with_manual(model, "What is a river?"))?;
        assert_eq!(again.ids, cold.ids, "{model}");
    }
    Ok(())
}

#[test]
fn an_answer_goes_on_behind_a_full_context_only_when_asked() -> Result<()> {
    let client = client()?;
    let filler: String = (0..2_100).map(|_| "river ").collect();
    let request = Generate {
        prompt: Prompt::Plain(filler),
        tokens_max: Some(8),
        slide_context: true,
        ..Generate::new(DENSE, Prompt::Plain(String::new()))
    };
    let slid = answer(&client, request.clone())?;
    let receipt = &slid.done.receipt;
    assert_eq!((receipt.generated_tokens, slid.ids.len()), (8, 8));
    assert!(receipt.dropped_tokens > 900, "{receipt:?}");
    let refused = answer(
        &client,
        Generate {
            slide_context: false,
            ..request
        },
    );
    let refused = refused.err().context("it is too long")?;
    let status = refused
        .downcast_ref::<mote_client::ClientError>()
        .context("typed")?;
    assert!(
        matches!(status.status(), Some(Status::ContextOverflow { .. })),
        "{status}"
    );
    Ok(())
}
