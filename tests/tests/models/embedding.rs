//! Embedding models through the daemon: the vectors are those of transformers.

use anyhow::{Context, Result, ensure};
use mote_client::{
    Client, ClientError, Embed, EmbedKind, EmbeddingEvent, Generate, Prompt, Stage, Status, Vectors,
};
use mote_tests::binary;
use mote_tests::daemon::{Daemon, Setup};
use mote_tests::npy::numbers;
use mote_tests::prepared;
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const ENCODER: &str = "tiny-bert";
const DECODER: &str = "tiny-qwen3";
/// Difference allowed between 32-bit vectors of length 1.
const ERROR_MAX: f64 = 1e-5;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/embedding")
}

fn golden(file: &str) -> Result<Value> {
    let text = std::fs::read_to_string(folder().join(file))?;
    Ok(serde_json::from_str(&text)?)
}

fn texts(golden: &Value) -> Result<Vec<String>> {
    let texts = golden["texts"].as_array().context("texts")?;
    let text = |one: &Value| Ok(one["text"].as_str().context("a text")?.to_owned());
    texts.iter().map(text).collect()
}

/// The largest difference from what transformers pooled, given the length 1.
fn difference(vectors: &Vectors, golden: &Value, pooling: &str) -> Result<f64> {
    let texts = golden["texts"].as_array().context("texts")?;
    assert_eq!(vectors.len(), texts.len());
    let mut worst = 0f64;
    for (vector, text) in vectors.iter().zip(texts) {
        let wanted = text[pooling].as_array().context("a vector")?;
        let wanted: Vec<f64> = wanted.iter().filter_map(Value::as_f64).collect();
        let length = wanted.iter().map(|it| it * it).sum::<f64>().sqrt();
        assert_eq!(vector.len(), wanted.len());
        for (have, wanted) in vector.iter().zip(wanted) {
            worst = worst.max((f64::from(*have) - wanted / length).abs());
        }
    }
    Ok(worst)
}

/// A daemon with the encoder that is checked in, and others.
fn daemon(more: &[PathBuf]) -> Result<Daemon> {
    Daemon::start(&Setup {
        stores: [&[folder()][..], more].concat(),
        runtimes: vec![prepared("MOTE_RUNTIMES")?],
        ..Setup::default()
    })
}

fn refusal(client: &Client, request: Embed) -> Result<Status> {
    match client.embed(request)?.wait() {
        Err(ClientError::Refused(status)) => Ok(status),
        other => anyhow::bail!("{other:?}"),
    }
}

fn field(client: &Client, request: Embed) -> Result<String> {
    match refusal(client, request)? {
        Status::Invalid { field, .. } => Ok(field),
        other => anyhow::bail!("{other:?}"),
    }
}

fn words(count: usize) -> String {
    vec!["whale"; count].join(" ")
}

#[test]
fn vectors_are_those_of_transformers() -> Result<()> {
    let store = tempfile::tempdir()?;
    let checkpoint = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/architectures/qwen3");
    let imported = Command::new(binary("mote")?)
        .args(["--quiet", "import", "--embedding", "--pooling", "last"])
        .args(["--bits", "32", "--name", DECODER])
        .arg(&checkpoint)
        .env("MOTE_STORE", store.path())
        .env("MOTE_SOCKET", store.path().join("nobody.sock"))
        .output()?;
    ensure!(imported.status.success(), "{imported:?}");
    let daemon = daemon(&[store.path().into()])?;
    let client = daemon.client()?;
    let decoders = golden("decoders.json")?;
    let cases = [
        (ENCODER, "mean", &golden("bert/golden.json")?),
        (DECODER, "last", &decoders["qwen3"]),
    ];
    for (model, pooling, golden) in cases {
        let request = Embed::new(model, texts(golden)?);
        let result = client.embed(request)?.wait()?;
        let error = difference(&result.vectors, golden, pooling)?;
        eprintln!("{model}: largest error {error:e}");
        ensure!(error <= ERROR_MAX, "{model}: {error}");
        let ids = golden["texts"].as_array().context("texts")?.iter();
        let counts = ids.map(|text| text["ids"].as_array().map_or(0, Vec::len) as u32);
        assert_eq!(result.vectors.tokens, counts.collect::<Vec<_>>());
        let receipt = &result.done.receipt;
        assert_eq!(receipt.model, model);
        assert_eq!(receipt.texts, result.vectors.len() as u64);
        let tokens = result.vectors.tokens.iter().map(|&count| u64::from(count));
        assert_eq!(receipt.prompt_tokens, tokens.sum::<u64>());
        let alone = receipt.steps == receipt.texts;
        assert_eq!(alone, model == DECODER, "{} runs", receipt.steps);
        assert!(receipt.placement_read_back && receipt.compute_us > 0);
    }
    Ok(())
}

#[test]
fn many_texts_come_back_in_their_order_with_progress() -> Result<()> {
    let daemon = daemon(&[])?;
    let client = daemon.client()?;
    // More than travels in a frame.
    let texts: Vec<String> = (0..1000).map(|at| words(1 + at * 7 % 20)).collect();
    let (mut progress, mut made, mut done) = (Vec::new(), None, None);
    for event in client.embed(Embed::new(ENCODER, texts.clone()))? {
        match event? {
            EmbeddingEvent::Progress(one) if one.stage == Stage::Embed => progress.push(one),
            EmbeddingEvent::Vectors(vectors) => made = Some(vectors),
            EmbeddingEvent::Done(receipt) => done = Some(receipt),
            EmbeddingEvent::Accepted { .. } | EmbeddingEvent::Progress(_) => {}
        }
    }
    let vectors = made.context("vectors")?;
    assert!(done.is_some());
    assert_eq!((vectors.len(), vectors.dimensions()), (1000, 32));
    assert!(!progress.is_empty());
    assert!(progress.iter().all(|one| one.total == Some(1000)));
    assert!(progress.is_sorted_by(|a, b| a.done < b.done));
    for (index, text) in texts.iter().enumerate().skip(20) {
        let same = texts.iter().position(|other| other == text);
        let same = same.context("the first of its length")?;
        assert!(vectors.cosine(index, same) > 1.0 - 1e-5);
        assert!(vectors.cosine(index, (same + 1) % 20) < 1.0 - 1e-4);
    }
    Ok(())
}

#[test]
fn what_is_asked_of_vectors_is_heeded() -> Result<()> {
    let daemon = daemon(&[])?;
    let client = daemon.client()?;
    let ask = |change: &dyn Fn(&mut Embed)| -> Result<Vectors> {
        let mut request = Embed::new(ENCODER, vec!["crab".into(), words(23)]);
        request.truncate = true;
        change(&mut request);
        Ok(client.embed(request)?.wait()?.vectors)
    };
    let whole = ask(&|_| {})?;
    // Of 24 tokens, two are special ones.
    assert_eq!(
        (&whole.tokens[..], &whole.truncated[..]),
        (&[3, 24][..], &[1][..])
    );
    let kept = ask(&|request| request.texts[1] = words(22))?;
    assert!(kept.truncated.is_empty());
    assert_eq!(kept.get(1), whole.get(1));
    let few = ask(&|request| request.dimensions = Some(8))?;
    let first = &whole.get(0)[..8];
    let length = first.iter().map(|value| value * value).sum::<f32>().sqrt();
    for (have, wanted) in few.get(0).iter().zip(first) {
        assert!((have - wanted / length).abs() < 1e-6);
    }
    let query = ask(&|request| request.kind = EmbedKind::Query)?;
    let written = ask(&|request| request.texts[0] = "the crab".into())?;
    assert_eq!(query.get(0), written.get(0));
    assert_ne!(query.get(0), whole.get(0));
    Ok(())
}

#[test]
fn what_cannot_be_embedded_is_refused_by_type_and_field() -> Result<()> {
    let daemon = daemon(&[prepared("MOTE_TEST_MODELS")?])?;
    let client = daemon.client()?;
    let embed = |texts: &[&str]| {
        let texts = texts.iter().map(|text| (*text).to_owned());
        Embed::new(ENCODER, texts.collect())
    };
    let long = words(23);
    match refusal(&client, embed(&["crab", &long]))? {
        Status::ContextOverflow {
            prompt_tokens,
            context_tokens,
            text,
        } => assert_eq!((prompt_tokens, context_tokens, text), (25, 24, Some(1))),
        other => panic!("{other:?}"),
    }
    assert_eq!(field(&client, embed(&[]))?, "texts");
    assert_eq!(field(&client, embed(&["crab", ""]))?, "texts[1]");
    assert_eq!(field(&client, embed(&["cr\0ab"]))?, "texts[0]");
    let wide = Embed {
        dimensions: Some(33),
        ..embed(&["crab"])
    };
    assert_eq!(field(&client, wide)?, "dimensions");
    let many = Embed::new(ENCODER, vec!["crab".into(); 1025]);
    match refusal(&client, many)? {
        Status::LimitExceeded { what, have, limit } => {
            assert_eq!((what.as_str(), have, limit), ("texts", 1025, 1024));
        }
        other => panic!("{other:?}"),
    }
    for model in ["magika", "smollm2-135m"] {
        let request = Embed {
            model: model.into(),
            ..embed(&["crab"])
        };
        assert_eq!(field(&client, request)?, "model");
    }
    let generate = Generate::new(ENCODER, Prompt::Plain("crab".into()));
    match client.generate(generate)?.text() {
        Err(ClientError::Refused(Status::Invalid { field, .. })) => assert_eq!(field, "model"),
        other => panic!("{other:?}"),
    }
    client.embed(embed(&["crab"]))?.wait()?;
    Ok(())
}

#[test]
fn a_cancelled_request_ends_as_such_and_the_next_is_served() -> Result<()> {
    let daemon = daemon(&[])?;
    let client = daemon.client()?;
    let many = Embed::new(ENCODER, vec![words(20); 1000]);
    client.embed(many.clone())?.wait()?;
    let mut embedding = client.embed(many.clone())?;
    embedding.canceller().cancel()?;
    let last = embedding.by_ref().last().context("an end")?;
    match last {
        Err(ClientError::Refused(Status::Cancelled)) => {}
        // It was faster.
        Ok(EmbeddingEvent::Done(_)) => {}
        other => panic!("{other:?}"),
    }
    drop(client.embed(many)?);
    client
        .embed(Embed::new(ENCODER, vec!["crab".into()]))?
        .wait()?;
    Ok(())
}

/// `mote embed` with these arguments, and `input` on its standard input.
fn mote(daemon: &Daemon, args: &[&str], input: &str) -> Result<Output> {
    let mut child = Command::new(binary("mote")?)
        .arg("--socket")
        .arg(daemon.socket())
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("an input")?;
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    Ok(child.wait_with_output()?)
}

fn said(output: &Output) -> Result<String> {
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout.clone())?)
}

#[test]
fn the_command_line_prints_compares_and_writes_vectors() -> Result<()> {
    let daemon = daemon(&[])?;
    let compared = said(&mote(
        &daemon,
        &["embed", ENCODER, "crab", "whale", "crab"],
        "",
    )?)?;
    assert!(
        compared.starts_with("3 vectors of 32 numbers"),
        "{compared}"
    );
    let first = compared.lines().nth(2).context("a row")?;
    assert_eq!(first.matches("1.000").count(), 2, "{compared}");
    let one = said(&mote(&daemon, &["embed", ENCODER, "crab"], "")?)?;
    assert!(one.starts_with("a vector of 32 numbers: "), "{one}");

    let json = said(&mote(
        &daemon,
        &["--json", "embed", ENCODER],
        "crab\nwhale\n",
    )?)?;
    let json: Value = serde_json::from_str(&json)?;
    assert_eq!(json["dimensions"], 32);
    assert_eq!(json["texts"][1]["tokens"], 3);
    assert_eq!(
        json["texts"][1]["vector"].as_array().map(Vec::len),
        Some(32)
    );
    assert_eq!(json["receipts"][0]["texts"], 2);

    let folder = tempfile::tempdir()?;
    let lines = folder.path().join("lines.txt");
    // More than one request takes.
    std::fs::write(&lines, "crab\nthe whale\n".repeat(600))?;
    let lines = lines.display().to_string();
    for (name, header) in [("v.npy", 128), ("v.f32", 0)] {
        let out = folder.path().join(name).display().to_string();
        let args = ["embed", ENCODER, "--file", &lines, "--out", &out];
        let told = said(&mote(&daemon, &args, "")?)?;
        assert!(told.starts_with("1200 vectors of 32 numbers in "), "{told}");
        let bytes = std::fs::read(&out)?;
        assert_eq!(bytes.len(), header + 1200 * 32 * 4);
        let values = numbers(mote_client::DType::F32, &bytes[header..]);
        assert_eq!(values[..64], values[64..128]);
        let again = mote(&daemon, &args, "")?;
        ensure!(!again.status.success(), "it was replaced without --force");
    }
    for (args, why) in [
        (&["embed", ENCODER, "--file", "/nowhere"][..], "cannot open"),
        (&["embed", ENCODER, "a", "--out", "v.txt"], ".npy"),
        (&["run", ENCODER, "--input", &lines], "mote embed"),
    ] {
        let output = mote(&daemon, args, "")?;
        let error = String::from_utf8(output.stderr)?;
        ensure!(!output.status.success() && error.contains(why), "{error}");
    }
    Ok(())
}
