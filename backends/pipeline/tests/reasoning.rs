//! Reasoning apart from the answer, from models that spell their tags and from models that have
//! tokens for them.

mod support;

use mote_api::{ReasoningTags, TextSpec};
use mote_pipeline::{
    ChatTurn, Constraint, Finish, KvPool, Reasoning, TextModel, TextPrompt, TextRequest,
};
use serde_json::{Value, json};
use std::sync::Arc;
use support::closure_model;
use support::text::{
    Answer, EOS, Next, PLAIN, answer, answer_with, compute, plain, signature, text_spec,
    write_folder,
};

/// Ids that the embedding has and the tokenizer gets here.
const THINK: u32 = EOS + 1;
const END_THINK: u32 = EOS + 2;

/// How a tokenizer knows the tags.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Known {
    Spelled,
    Tokens,
    /// Tokens that decode to nothing.
    Special,
}

const ALL: [Known; 3] = [Known::Spelled, Known::Tokens, Known::Special];

fn open(known: Known, next: Next, spec: TextSpec, template: Option<&str>) -> Arc<TextModel> {
    let folder = tempfile::tempdir().expect("a folder");
    write_folder(folder.path());
    if known != Known::Spelled {
        let file = folder.path().join("tokenizer.json");
        let text = std::fs::read_to_string(&file).expect("written");
        let mut tokenizer: Value = serde_json::from_str(&text).expect("JSON");
        let added = tokenizer["added_tokens"].as_array_mut().expect("a list");
        for (id, content) in [(THINK, "<think>"), (END_THINK, "</think>")] {
            let special = known == Known::Special;
            added.push(json!({"id": id, "content": content, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false, "special": special}));
        }
        std::fs::write(&file, tokenizer.to_string()).expect("writable");
    }
    if let Some(template) = template {
        std::fs::write(folder.path().join("chat.jinja"), template).expect("writable");
    }
    let (model, _) = closure_model(signature(PLAIN), move |run| compute(PLAIN, &next, run));
    Arc::new(TextModel::open(folder.path(), &spec, model).expect("opens"))
}

/// A model that says this after a prompt of so many tokens, whatever comes before.
fn saying(known: Known, prompt: usize, text: &str) -> Arc<TextModel> {
    let ids = tokens(known, text);
    open(known, Next::Script { prompt, ids }, text_spec(), None)
}

fn tokens(known: Known, text: &str) -> Vec<u32> {
    let mut ids = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let tag = [("<think>", THINK), ("</think>", END_THINK)]
            .into_iter()
            .find(|(tag, _)| known != Known::Spelled && rest.starts_with(tag));
        match tag {
            Some((tag, id)) => {
                ids.push(id);
                rest = &rest[tag.len()..];
            }
            // The tokenizer has one merge that a tag contains.
            None if rest.starts_with("th") => {
                ids.push(256);
                rest = &rest[2..];
            }
            None => {
                ids.extend(rest.bytes().take(c.len_utf8()).map(u32::from));
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    ids
}

fn apart(tokens_max: Option<usize>) -> TextRequest {
    TextRequest {
        reasoning: Some(Reasoning { tokens_max }),
        ..plain("Q")
    }
}

fn reasoning(answer: &Answer) -> String {
    answer.reasonings.concat()
}

#[test]
fn reasoning_and_answer_come_apart_and_every_token_says_which_it_is() {
    let text = "<think>\nwas it 4 < 5? é</think>\n\nYes. </think>";
    for known in ALL {
        let model = saying(known, 1, text);
        let (have, stats) = answer_with(&model, &mut KvPool::new(0), &apart(None));
        assert_eq!(reasoning(&have), "was it 4 < 5? é", "{known:?}");
        let want = match known {
            // Decoding leaves special tokens out, but for the tags that are looked for.
            Known::Special | Known::Tokens | Known::Spelled => "Yes. </think>",
        };
        assert_eq!(have.text(), want, "{known:?}");
        let close = tokens(known, "<think>\nwas it 4 < 5? é</think>").len();
        assert_eq!(stats.reasoning_tokens, close as u64, "{known:?}");
        let open = tokens(known, "<think>").len();
        let marked = have.marks.iter().filter(|&&mark| mark).count();
        assert_eq!(
            marked,
            close - (open - 1),
            "{known:?}: a spelled tag shows when it is whole"
        );
        assert!(have.marks[close..].iter().all(|&mark| !mark));
        // Unless it is asked for, it is text like any other.
        let (plain, stats) = answer_with(&model, &mut KvPool::new(0), &plain("Q"));
        assert_eq!(stats.reasoning_tokens, 0);
        assert!(plain.marks.iter().all(|&mark| !mark) && reasoning(&plain).is_empty());
        if known != Known::Special {
            assert_eq!(plain.text(), text);
        }
    }
}

#[test]
fn an_answer_without_reasoning_is_an_answer_and_one_that_never_ends_its_reasoning_is_none() {
    for known in ALL {
        let have = answer(&saying(known, 1, " <thin air"), &apart(None));
        assert_eq!((&*reasoning(&have), &*have.text()), ("", " <thin air"));
        let have = answer(&saying(known, 1, "<think>on and on</thi"), &apart(None));
        assert_eq!((&*reasoning(&have), &*have.text()), ("on and on</thi", ""));
        assert_eq!(have.reason, Finish::EndOfAnswer);
    }
}

#[test]
fn the_template_may_have_opened_or_closed_the_reasoning() {
    let body = "{% for m in messages %}{{ m.content }}{% endfor %}";
    let turn = ChatTurn::new("user", "Q");
    for known in ALL {
        for (tail, want) in [
            ("<think>\n", ("so", "yes")),
            ("<think>\n\n</think>\n\n", ("", "so</think>yes")),
        ] {
            let template = format!("{body}{tail}");
            // Jinja leaves out a line's end at the end of a template.
            let rendered = format!("Q{}", tail.strip_suffix('\n').unwrap_or(tail));
            let prompt = tokens(known, &rendered).len();
            let ids = tokens(known, "so</think>yes");
            let next = Next::Script { prompt, ids };
            let model = open(known, next, text_spec(), Some(&template));
            let mut request = apart(None);
            request.prompt = TextPrompt::Messages(vec![turn.clone()]);
            let have = answer(&model, &request);
            assert_eq!(
                (&*reasoning(&have), &*have.text()),
                want,
                "{known:?} {tail:?}"
            );
        }
    }
}

#[test]
fn tags_are_those_of_the_manifest() {
    let mut spec = text_spec();
    spec.reasoning = Some(ReasoningTags {
        open: "[R]".into(),
        close: "[/R]".into(),
    });
    let ids = tokens(Known::Spelled, "[R]<think>[/R]yes");
    let next = Next::Script { prompt: 1, ids };
    let have = answer(&open(Known::Spelled, next, spec, None), &apart(None));
    assert_eq!((&*reasoning(&have), &*have.text()), ("<think>", "yes"));
}

#[test]
fn reasoning_that_has_had_its_share_is_closed() {
    for known in ALL {
        for share in [0, 1, 5] {
            let said = "<think>0123456789</think>yes";
            let model = saying(known, 1, said);
            let mut request = apart(Some(share));
            request.tokens_max = Some(60);
            let (have, stats) = answer_with(&model, &mut KvPool::new(0), &request);
            assert_eq!(reasoning(&have), "0123456789"[..share], "{known:?} {share}");
            let forced = format!("<think>{}</think>", &"0123456789"[..share]);
            let forced = tokens(known, &forced);
            assert_eq!(have.ids[..forced.len()], forced);
            assert_eq!(stats.reasoning_tokens, forced.len() as u64);
            // What the model says then is at the same place of its script.
            let rest = &tokens(known, said)[forced.len()..];
            assert_eq!(have.ids[forced.len()..], *rest, "{known:?} {share}");

            // An answer that goes on after an interruption is closed at the same place.
            for given in 0..have.ids.len() {
                let mut again = request.clone();
                again.resume_token_ids = have.ids[..given].to_vec();
                let (rest, stats) = answer_with(&model, &mut KvPool::new(0), &again);
                assert_eq!(rest.ids, have.ids[given..], "{known:?} {share} {given}");
                assert_eq!(rest.texts, have.texts[given..]);
                assert_eq!(rest.reasonings, have.reasonings[given..]);
                assert_eq!(stats.reasoning_tokens, forced.len() as u64);
            }
        }
    }
}

#[test]
fn stop_strings_are_the_answers_own() {
    let model = saying(Known::Tokens, 1, "<think>stop here</think>no stop here");
    let mut request = apart(None);
    request.stop = vec!["stop".into()];
    let have = answer(&model, &request);
    assert_eq!((&*reasoning(&have), &*have.text()), ("stop here", "no "));
    assert_eq!(have.reason, Finish::StopString);
}

#[test]
fn a_constraint_begins_where_the_reasoning_ends() {
    let constrained = |share| TextRequest {
        constraint: Some(Constraint::Regex("[0-9]{4}".into())),
        tokens_max: Some(60),
        ..apart(share)
    };
    for known in [Known::Tokens, Known::Special] {
        let model = saying(known, 1, "<think>free text</think>\n\n1234 and more");
        let have = answer(&model, &constrained(None));
        assert_eq!(reasoning(&have), "free text", "{known:?}");
        assert!(have.text().bytes().all(|byte| byte.is_ascii_digit()) && have.text().len() == 4);
        assert_eq!(have.reason, Finish::EndOfAnswer);
        // It may not end in its reasoning, so that there is an answer in the end.
        let model = saying(known, 1, "<think>abc");
        let have = answer(&model, &constrained(Some(10)));
        assert_eq!(have.text().len(), 4, "{known:?}");
        // And it need not reason.
        let have = answer(&saying(known, 1, "7777"), &constrained(None));
        assert_eq!((&*reasoning(&have), &*have.text()), ("", "7777"));
    }
    // Where the tag is no token, only the template can open it.
    let have = answer(&saying(Known::Spelled, 1, "<think>"), &constrained(None));
    assert_eq!((&*reasoning(&have), have.text().len()), ("", 4));
}
