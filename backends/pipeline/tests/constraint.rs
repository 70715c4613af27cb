//! Answers that must have a form, from a model that knows none.

mod support;

use mote_pipeline::{
    CONSTRAINT_BYTES_MAX, Constraint, Finish, KvPool, PipelineError, SCHEMA_DEPTH_MAX, Sampling,
    TextJob, TextRequest,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::text::{Answer, EOS, Next, answer, answer_with, open, plain};

fn under(constraint: Constraint) -> TextRequest {
    TextRequest {
        tokens_max: Some(400),
        constraint: Some(constraint),
        ..plain("Q")
    }
}

fn regex(regex: &str) -> TextRequest {
    under(Constraint::Regex(regex.into()))
}

fn schema(schema: Value) -> TextRequest {
    under(Constraint::JsonSchema(schema.to_string()))
}

fn hash_answer(request: &TextRequest) -> Answer {
    answer(&open(Next::Hash).0, request)
}

/// Ways to choose a token; the model's own order is noise.
fn samplings() -> [Sampling; 4] {
    let drawn = Sampling {
        temperature: Some(1.5),
        ..Sampling::default()
    };
    [
        Sampling::default(),
        drawn,
        Sampling {
            top_k: Some(2),
            ..drawn
        },
        Sampling {
            min_p: Some(0.2),
            top_p: Some(0.7),
            repetition_penalty: Some(1.3),
            ..drawn
        },
    ]
}

/// Every string is short, so that noise comes to an end.
fn person() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 6},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "tags": {"type": "array", "items": {"enum": ["a", "the", "é"]}, "maxItems": 3},
        },
        "required": ["name", "age", "tags"],
        "additionalProperties": false,
        "x-guidance": {"whitespace_flexible": false},
    })
}

#[test]
fn whatever_the_draw_the_answer_is_what_the_schema_says_and_ends_by_itself() {
    for sampling in samplings() {
        for seed in 0..8 {
            let mut request = schema(person());
            request.sampling = sampling;
            request.seed = seed;
            let have = hash_answer(&request);
            assert_eq!(have.reason, Finish::EndOfAnswer);
            let value: Value = serde_json::from_str(&have.text()).expect("JSON");
            let name = value["name"].as_str().expect("a name");
            assert!(name.chars().count() <= 6, "{name:?}");
            assert!(value["age"].as_u64().is_some_and(|age| age <= 120));
            let tags = value["tags"].as_array().expect("tags");
            assert!(
                tags.iter()
                    .all(|tag| ["a", "the", "é"].map(Value::from).contains(tag))
            );
            assert_eq!(value.as_object().expect("an object").len(), 3);
        }
    }
}

#[test]
fn a_regular_expression_is_matched_whole() {
    for sampling in samplings() {
        let mut request = regex("[0-9]{3}-(the|th)! ?é€");
        request.sampling = sampling;
        let have = hash_answer(&request);
        let text = have.text();
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        assert_eq!(digits, 3, "{text:?}");
        let rest = ["-the!é€", "-th!é€", "-the! é€", "-th! é€"];
        assert!(rest.contains(&&text[3..]), "{text:?}");
        assert_eq!(have.reason, Finish::EndOfAnswer);
    }
}

#[test]
fn the_model_ends_an_answer_where_the_form_lets_it_and_only_there() {
    let script = |text: &str| Next::Script {
        prompt: 1,
        ids: text.bytes().map(u32::from).collect(),
    };
    // It would end at once, and may not before the second digit.
    let have = answer(&open(script("")).0, &regex("[7-9]{2,5}"));
    assert_eq!((&*have.text(), have.reason), ("77", Finish::EndOfAnswer));
    // It may go on, and does.
    let have = answer(&open(script("7898765")).0, &regex("[7-9]{2,5}"));
    assert_eq!((&*have.text(), have.reason), ("78987", Finish::EndOfAnswer));
    assert_eq!(
        have.ids.len(),
        5,
        "it ends with the token that completes it"
    );
}

#[test]
fn text_stays_whole_where_characters_are_cut_into_tokens() {
    let have = hash_answer(&regex("(é|€|😀){5}"));
    assert_eq!(have.text().chars().count(), 5);
    assert!(!have.texts.concat().contains(char::REPLACEMENT_CHARACTER));
    for text in &have.texts {
        assert!(text.is_empty() || text.chars().all(|c| "é€😀".contains(c)));
    }
}

#[test]
fn stop_strings_and_limits_end_it_as_ever() {
    let mut request = regex("ab+c");
    request.stop = vec!["bb".into()];
    request.logit_bias = vec![mote_pipeline::TokenBias {
        id: u32::from(b'b'),
        bias: 100.0,
    }];
    let have = hash_answer(&request);
    assert_eq!((&*have.text(), have.reason), ("a", Finish::StopString));
    request.stop.clear();
    request.tokens_max = Some(4);
    let have = hash_answer(&request);
    assert_eq!((&*have.text(), have.reason), ("abbb", Finish::TokensMax));
}

#[test]
fn special_tokens_are_no_text() {
    // All that is text is allowed, and special tokens are not.
    let mut request = regex("(?s:.){40}");
    request.logit_bias = vec![mote_pipeline::TokenBias {
        id: support::text::IM_START,
        bias: 100.0,
    }];
    let have = hash_answer(&request);
    assert!(have.ids.iter().all(|&id| id < support::text::IM_START));
    assert_eq!(have.text().chars().count(), 40);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// A job that begins anew after any token goes on as if nothing had happened.
    #[test]
    fn resuming_at_any_token_equals_never_having_stopped(seed: u64, which in 0usize..4) {
        let (model, _) = open(Next::Hash);
        let mut request = schema(person());
        request.seed = seed;
        request.sampling = samplings()[which];
        let whole = answer(&model, &request);
        for given in 0..whole.ids.len() {
            let mut rest = request.clone();
            rest.resume_token_ids = whole.ids[..given].to_vec();
            let (have, _) = answer_with(&model, &mut KvPool::new(0), &rest);
            prop_assert_eq!(&have.ids[..], &whole.ids[given..]);
            prop_assert_eq!(&have.texts[..], &whole.texts[given..]);
            prop_assert_eq!(have.reason, whole.reason);
        }
    }
}

#[test]
fn constraints_that_cannot_hold_are_refused_before_anything_runs() {
    let nested = |levels: usize| {
        let (open, close) = ("{\"items\":".repeat(levels), "}".repeat(levels));
        format!("{open}true{close}")
    };
    let json = |text: &str| Constraint::JsonSchema(text.into());
    let regex = |text: &str| Constraint::Regex(text.into());
    let cases = [
        json(""),
        json("{"),
        json(r#"{"type": "nonsense"}"#),
        json(r#"{"type": "integer", "minimum": 5, "maximum": 4}"#),
        json(r#"{"$ref": "https://example.org/schema"}"#),
        json(&nested(SCHEMA_DEPTH_MAX + 1)),
        json(&nested(1000)),
        json(&format!(
            "{{\"title\": \"{}\"}}",
            "x".repeat(CONSTRAINT_BYTES_MAX)
        )),
        regex(""),
        regex("("),
        regex(r"(a)\1"),
        regex(&"x".repeat(CONSTRAINT_BYTES_MAX + 1)),
    ];
    let (model, log) = open(Next::Hash);
    for constraint in cases {
        let want = match constraint {
            Constraint::JsonSchema(_) => "constraint.json_schema",
            Constraint::Regex(_) => "constraint.regex",
        };
        let shown: String = format!("{constraint:?}").chars().take(60).collect();
        let started = TextJob::start(&model, &mut KvPool::new(1), under(constraint));
        match started.err() {
            Some(PipelineError::Invalid { field, why }) => {
                assert_eq!(field, want, "{shown}");
                assert!(!why.is_empty() && why.len() <= 600, "{shown}: {why}");
            }
            other => panic!("{shown}: {other:?}"),
        }
    }
    // What was said already must have kept to it.
    let mut request = under(regex("[0-9]+"));
    request.resume_token_ids = vec![u32::from(b'7'), u32::from(b'x')];
    match TextJob::start(&model, &mut KvPool::new(1), request).err() {
        Some(PipelineError::Invalid { field, .. }) => assert_eq!(field, "resume_token_ids[1]"),
        other => panic!("{other:?}"),
    }
    assert_eq!(log.runs(), 0);
    let deep_enough = under(json(&nested(SCHEMA_DEPTH_MAX)));
    assert!(TextJob::start(&model, &mut KvPool::new(1), deep_enough).is_ok());
    assert_eq!(EOS, 263, "the end token is the last that the tokenizer has");
}

/// Whoever may ask may send these; a worker that hangs or dies takes others' answers with it.
#[test]
fn hostile_constraints_are_refused_or_cheap() {
    let nested = |open: &str, close: &str| {
        let levels = (CONSTRAINT_BYTES_MAX - 64) / (open.len() + close.len());
        format!("{}a{}", open.repeat(levels), close.repeat(levels))
    };
    let choices: Vec<Value> = (0..10)
        .map(|number| json!({"properties": {format!("p{number}"): {"type": "string"}}}))
        .collect();
    let product = json!({"allOf": vec![json!({"anyOf": choices}); 10]});
    let chain: Vec<String> = (0..60)
        .map(|level| {
            format!(
                "\"d{level}\": {{\"items\": {{\"$ref\": \"#/$defs/d{}\"}}}}",
                level + 1
            )
        })
        .collect();
    let chain = format!(
        "{{\"$defs\": {{{}, \"d60\": {{}}}}, \"$ref\": \"#/$defs/d0\"}}",
        chain.join(", ")
    );
    let texts = [
        ("schema", r##"{"$ref": "#"}"##.to_owned()),
        (
            "schema",
            r##"{"allOf": [{"$ref": "#"}, {"type": "object"}]}"##.to_owned(),
        ),
        ("schema", product.to_string()),
        ("schema", chain),
        ("schema", json!({"pattern": nested("(", ")")}).to_string()),
        (
            "schema",
            json!({"type": "string", "pattern": "(((a{1,999}){1,999}){1,999})"}).to_string(),
        ),
        (
            "schema",
            json!({"type": "array", "minItems": 1_000_000_000}).to_string(),
        ),
        (
            "schema",
            json!({"type": "integer", "multipleOf": 1e-300}).to_string(),
        ),
        ("regex", nested("(", ")")),
        ("regex", nested("(?:a|", ")*")),
        (
            "regex",
            "(((a{1,1000}){1,1000}){1,1000}){1,1000}".to_owned(),
        ),
        ("regex", "(a|b)*a(a|b){2000}".to_owned()),
        ("regex", r"[\p{L}\p{N}]{1,1000}".repeat(20)),
    ];
    let (model, _) = open(Next::Hash);
    for (kind, text) in texts {
        let shown: String = text.chars().take(60).collect();
        let constraint = match kind {
            "schema" => Constraint::JsonSchema(text),
            _ => Constraint::Regex(text),
        };
        let begun = std::time::Instant::now();
        let mut request = under(constraint);
        request.tokens_max = Some(20);
        match TextJob::start(&model, &mut KvPool::new(0), request) {
            Err(PipelineError::Invalid { .. }) => {}
            Err(other) => panic!("{shown}: {other}"),
            Ok(mut job) => match support::text::finish(&mut job, 0) {
                Ok(_) | Err(PipelineError::Grammar(_)) => {}
                Err(other) => panic!("{shown}: {other}"),
            },
        }
        assert!(
            begun.elapsed().as_secs() < 5,
            "{shown}: {:?}",
            begun.elapsed()
        );
    }
}
