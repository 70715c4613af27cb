//! The C client, used from C and C++, against private daemons.

#[path = "../../proto/c/tests/common/mod.rs"]
#[allow(dead_code, reason = "the tests of the header use more of it")]
mod build;
#[path = "c_client/clips.rs"]
mod clips;
#[path = "faults/common.rs"]
#[allow(dead_code, reason = "the tests of faults use more of it")]
mod common;

use anyhow::{Context, Result, ensure};
use build::{Language, Workshop, crate_folder, done};
use common::{ADD, FOR_EVER, Model, serve, settled_descriptors, settles_at, tensor, text};
use mote_client::{
    ChatMessage, Client, DType, Embed, EmbedKind, Generate, Input, Prompt, Sampling, Status,
    WorkOptions,
};
use mote_tests::daemon::{Daemon, Setup};
use mote_tests::npy::numbers;
use mote_tests::prepared;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const CHAT_MODEL: &str = "smollm2-135m";
const QUESTION: &str = "Invent a name for a ship and tell its story.";
const TOKENS: u32 = 24;
const SEED: u64 = 7;
const TEMPERATURE: f32 = 1.0;
/// What `silero-vad` takes: so many samples, the first of which are the chunk's before.
const CONTEXT_SAMPLES: usize = 64;
const CHUNK_SAMPLES: usize = 512;
const CHUNKS: usize = 20;

fn c_source(name: &str) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.join("tests/c_client").join(name)
}

fn example(name: &str) -> PathBuf {
    crate_folder().join("examples").join(name)
}

/// Builds a test program, which finds what test programs share.
fn build(workshop: &Workshop, name: &str) -> Result<PathBuf> {
    let shared = format!("-I{}", crate_folder().join("tests/c").display());
    workshop.build(Language::C, &c_source(name), &[&shared])
}

/// Plays one part of `session.c` against scripted models; nothing of it may be left.
fn play(part: &str) -> Result<()> {
    let workshop = Workshop::new()?;
    let program = build(&workshop, "session.c")?;
    let deadly = format!("{ADD}crash_at_run = 1\n");
    let huge = Model {
        variant: "providers = [\"fake-cpu\"]\nmemory_bytes = 8000000000\n",
        ..tensor("huge", ADD)
    };
    let (daemon, _store) = serve(&[
        tensor("add", ADD),
        tensor("slow", FOR_EVER),
        tensor("deadly", &deadly),
        huge,
        text("answers", "step_ms = 10\n"),
        text("hangs", FOR_EVER),
    ])?;
    // What is made once and kept is made before.
    done(workshop.command(&program).arg(part).arg(daemon.socket()))?;
    let before = settled_descriptors(daemon.pid())?;
    if part == "refusals" {
        // A model that crashed is in quarantine from then on.
        return Ok(());
    }
    done(workshop.command(&program).arg(part).arg(daemon.socket()))?;
    settles_at(daemon.pid(), before)
}

#[test]
fn reports_are_json() -> Result<()> {
    play("reports")
}

#[test]
fn options_grow_with_later_headers() -> Result<()> {
    play("options")
}

#[test]
fn tensors_go_by_pointer_and_by_buffer() -> Result<()> {
    play("tensors")
}

#[test]
fn refusals_carry_their_fields() -> Result<()> {
    play("refusals")
}

#[test]
fn streams_go_by_pointer_and_by_buffer() -> Result<()> {
    play("streams")
}

#[test]
fn answers_end_with_their_receipt() -> Result<()> {
    play("answers")
}

#[test]
fn another_thread_cancels() -> Result<()> {
    play("cancels")
}

#[test]
fn threads_share_a_client_and_a_stream() -> Result<()> {
    play("threads")
}

#[test]
fn handles_outlive_their_client() -> Result<()> {
    play("orphans")
}

#[test]
fn a_program_lives_through_the_death_of_the_daemon() -> Result<()> {
    let workshop = Workshop::new()?;
    let program = build(&workshop, "session.c")?;
    let (daemon, _store) = serve(&[tensor("add", ADD), text("answers", "step_ms = 50\n")])?;
    let mut command = workshop.command(&program);
    command.arg("bereft").arg(daemon.socket());
    let mut session = command.stdout(Stdio::piped()).spawn()?;
    let output = BufReader::new(session.stdout.take().context("it has an output")?);
    let first = output.lines().next().context("it says where it is")??;
    assert_eq!(first, "in the middle");
    kill(Pid::from_raw(daemon.pid()), Signal::SIGKILL)?;
    let status = session.wait()?;
    ensure!(status.success(), "{status}");
    Ok(())
}

/// A daemon over what `tests/run` prepared.
fn real() -> Result<Daemon> {
    Daemon::start(&Setup {
        stores: vec![prepared("MOTE_TEST_MODELS")?],
        runtimes: vec![prepared("MOTE_RUNTIMES")?],
        ..Setup::default()
    })
}

fn chat(workshop: &Workshop, daemon: &Daemon) -> Result<Command> {
    let program = workshop.build(Language::C, &example("chat.c"), &[])?;
    let mut command = workshop.command(&program);
    command.arg("-s").arg(daemon.socket());
    Ok(command)
}

#[test]
fn chat_says_what_the_rust_client_hears() -> Result<()> {
    let (workshop, daemon) = (Workshop::new()?, real()?);
    let mut command = chat(&workshop, &daemon)?;
    command.args(["-n", &TOKENS.to_string(), "-t", &TEMPERATURE.to_string()]);
    command.args(["-r", &SEED.to_string(), CHAT_MODEL, QUESTION]);
    let said = String::from_utf8(done(&mut command)?.stdout)?;
    let request = Generate {
        tokens_max: Some(TOKENS),
        sampling: Sampling {
            temperature: Some(TEMPERATURE),
            seed: Some(SEED),
            ..Sampling::default()
        },
        ..Generate::new(
            CHAT_MODEL,
            Prompt::Messages(vec![ChatMessage::new("user", QUESTION)]),
        )
    };
    let (heard, done) = daemon.client()?.generate(request)?.text()?;
    assert!(done.receipt.generated_tokens > 0);
    assert_eq!(said, format!("{heard}\n"));
    Ok(())
}

#[test]
fn chat_answers_in_the_form_of_a_schema() -> Result<()> {
    let (workshop, daemon) = (Workshop::new()?, real()?);
    let mut command = chat(&workshop, &daemon)?;
    let schema = r#"{"enum": ["yes", "no"]}"#;
    command.args(["-j", schema, CHAT_MODEL, QUESTION]);
    let said = String::from_utf8(done(&mut command)?.stdout)?;
    ensure!(["\"yes\"\n", "\"no\"\n"].contains(&&*said), "{said:?}");
    Ok(())
}

#[test]
fn chat_says_why_it_cannot() -> Result<()> {
    let (workshop, daemon) = (Workshop::new()?, real()?);
    let output = chat(&workshop, &daemon)?
        .args(["nobody", "Hello?"])
        .output()?;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr)?.contains("there is no model \"nobody\""));
    Ok(())
}

/// Ctrl-C on a scripted model that would go on for long.
#[test]
fn an_interrupt_ends_the_answer_of_chat() -> Result<()> {
    let workshop = Workshop::new()?;
    let (daemon, store) = serve(&[text("answers", "step_ms = 20\n")])?;
    // Chat asks by messages, for which the scripted model has no template yet.
    let folder = store.path().join("answers");
    std::fs::write(folder.join("chat.jinja"), "{{ messages[0].content }}")?;
    let mut manifest = File::options()
        .append(true)
        .open(folder.join("mote.toml"))?;
    writeln!(manifest, "chat_template = \"chat.jinja\"")?;
    daemon.client()?.rescan()?;
    let mut command = chat(&workshop, &daemon)?;
    command.args(["-n", "1000", "answers", "t1"]);
    let mut chat = command.stdout(Stdio::piped()).spawn()?;
    let mut output = BufReader::new(chat.stdout.take().context("it has an output")?);
    ensure!(!output.fill_buf()?.is_empty(), "nothing was said");
    kill(Pid::from_raw(chat.id().cast_signed()), Signal::SIGINT)?;
    let mut rest = String::new();
    output.read_to_string(&mut rest)?;
    assert_eq!(chat.wait()?.code(), Some(130), "{rest}");
    Ok(())
}

#[test]
fn search_ranks_as_the_rust_client_does() -> Result<()> {
    let workshop = Workshop::new()?;
    let daemon = Daemon::start(&Setup {
        stores: vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("models/embedding")],
        runtimes: vec![prepared("MOTE_RUNTIMES")?],
        ..Setup::default()
    })?;
    let texts = [
        "a crab on the ship",
        "salt wind",
        "two whale in the deep sea",
    ];
    let program = workshop.build(Language::C, &example("search.c"), &[])?;
    let mut command = workshop.command(&program);
    command.arg("-s").arg(daemon.socket());
    command.args(["tiny-bert", "the whale"]).args(texts);
    let said = String::from_utf8(done(&mut command)?.stdout)?;
    let client = daemon.client()?;
    let embed = |kind, texts: &[&str]| {
        let texts = texts.iter().map(|text| (*text).to_owned()).collect();
        let request = Embed {
            kind,
            ..Embed::new("tiny-bert", texts)
        };
        anyhow::Ok(client.embed(request)?.wait()?.vectors)
    };
    let question = embed(EmbedKind::Query, &["the whale"])?;
    let vectors = embed(EmbedKind::Document, &texts)?;
    let nearness = |vector: &[f32]| -> f64 {
        let pairs = question.get(0).iter().zip(vector);
        pairs.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    };
    let mut wanted: Vec<_> = vectors.iter().map(nearness).zip(texts).collect();
    wanted.sort_by(|a, b| b.0.total_cmp(&a.0));
    let lines = wanted
        .iter()
        .map(|(near, text)| format!("{near:.4} {text}\n"));
    assert_eq!(said, lines.collect::<String>());
    Ok(())
}

/// What the model takes of a file, as its documentation says.
fn ends_of(content: &[u8]) -> Vec<u8> {
    const END: usize = 1024;
    const BLOCK: usize = 4096;
    let is_space = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x0b;
    let first = &content[..content.len().min(BLOCK)];
    let from = first.iter().take_while(|byte| is_space(byte)).count();
    let first = first[from..].iter().take(END);
    let last = &content[content.len().saturating_sub(BLOCK)..];
    let to = last.len() - last.iter().rev().take_while(|byte| is_space(byte)).count();
    let last = &last[to.saturating_sub(END)..to];
    let mut tokens: Vec<i32> = first.map(|&byte| byte.into()).collect();
    tokens.resize(2 * END - last.len(), 256);
    tokens.extend(last.iter().map(|&byte| i32::from(byte)));
    tokens
        .iter()
        .flat_map(|token| token.to_ne_bytes())
        .collect()
}

fn classified(client: &Client, content: &[u8]) -> Result<(usize, f32)> {
    let tokens = ends_of(content);
    let input = Input::bytes("bytes", DType::I32, &[1, 2048], &tokens);
    let result = client.infer("magika", &[input], &[], &WorkOptions::default())?;
    let output = result.outputs.first().context("an output")?;
    let chances = numbers(output.dtype, output.bytes().context("no target was named")?);
    let best = (0..chances.len()).max_by(|&a, &b| chances[a].total_cmp(&chances[b]));
    let best = best.context("labels")?;
    Ok((best, chances[best] as f32))
}

#[test]
fn tensor_finds_what_the_rust_client_finds() -> Result<()> {
    let (workshop, daemon) = (Workshop::new()?, real()?);
    let program = workshop.build(Language::C, &example("tensor.c"), &[])?;
    let client = daemon.client()?;
    for sample in ["json", "png", "python"] {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = here.join("models/magika/samples").join(sample);
        let mut command = workshop.command(&program);
        command.arg("-s").arg(daemon.socket()).arg(&path);
        let printed = String::from_utf8(done(&mut command)?.stdout)?;
        let words: Vec<&str> = printed.split_whitespace().collect();
        let ["label", label, "chance", chance] = words[..] else {
            anyhow::bail!("{printed}")
        };
        let (wanted_label, wanted_chance) = classified(&client, &std::fs::read(path)?)?;
        assert_eq!(label.parse::<usize>()?, wanted_label, "{sample}");
        assert_eq!(chance.parse::<f32>()?, wanted_chance, "{sample}");
    }
    Ok(())
}

/// Sound that rises and falls, so that the chances differ.
fn sound() -> Vec<f32> {
    let samples = 0..CHUNKS * CHUNK_SAMPLES;
    let sample = |at: usize| {
        let seconds = at as f32 / 16_000.0;
        let pitch_hz = 120.0 + 60.0 * (seconds * 9.0).sin();
        (seconds * pitch_hz * std::f32::consts::TAU).sin() * (seconds * 5.0).sin() * 0.5
    };
    samples.map(sample).collect()
}

#[test]
fn speech_hears_what_the_rust_client_hears() -> Result<()> {
    let (workshop, daemon) = (Workshop::new()?, real()?);
    let program = workshop.build(Language::Cpp, &example("speech.cpp"), &[])?;
    let sound = sound();
    let mut command = workshop.command(&program);
    command.arg(daemon.socket()).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut speech = command.spawn()?;
    let bytes: Vec<u8> = sound.iter().flat_map(|s| s.to_ne_bytes()).collect();
    speech
        .stdin
        .take()
        .context("it has an input")?
        .write_all(&bytes)?;
    let output = speech.wait_with_output()?;
    ensure!(output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout)?;
    let chances = printed
        .lines()
        .map(str::parse)
        .collect::<Result<Vec<f32>, _>>()?;
    let receipt: serde_json::Value = serde_json::from_slice(&output.stderr)?;
    assert_eq!(receipt["steps"], CHUNKS);
    assert_eq!(receipt["bytes_copied"], 0);

    let client = daemon.client()?;
    let mut stream = client.open_stream("silero-vad", &WorkOptions::default())?;
    let mut padded = vec![0.0; CONTEXT_SAMPLES];
    padded.extend(sound);
    let mut wanted = Vec::new();
    for chunk in 0..CHUNKS {
        let from = chunk * CHUNK_SAMPLES;
        let samples = &padded[from..from + CONTEXT_SAMPLES + CHUNK_SAMPLES];
        let bytes: Vec<u8> = samples.iter().flat_map(|s| s.to_ne_bytes()).collect();
        let shape = [1, samples.len() as u64];
        let input = Input::bytes("input", DType::F32, &shape, &bytes);
        let result = stream.push(&[input], &[])?;
        let chance = result.outputs[0].bytes().context("no target was named")?;
        wanted.push(f32::from_ne_bytes(chance.try_into()?));
    }
    assert_eq!(chances, wanted);
    assert!(wanted.iter().any(|&chance| chance != wanted[0]));
    Ok(())
}

#[test]
fn a_clip_goes_from_file_to_file() -> Result<()> {
    let (workshop, daemon) = (Workshop::new()?, real()?);
    let program = build(&workshop, "clip.c")?;
    let bikes = prepared("MOTE_CACHE")?.join("files/sample-clips/bikes.mp4");
    let folder = tempfile::tempdir()?;
    let (clip, sheet) = (folder.path().join("out.mp4"), folder.path().join("out.png"));
    let mut command = workshop.command(&program);
    command
        .arg(daemon.socket())
        .arg(bikes)
        .arg(&clip)
        .arg(&sheet);
    let printed = String::from_utf8(done(&mut command)?.stdout)?;
    let words: Vec<&str> = printed.split_whitespace().collect();
    let ["previews", previews, "frames_in", "16", "frames_out", "31"] = words[..] else {
        anyhow::bail!("{printed}")
    };
    assert!(previews.parse::<u32>()? > 0);
    assert!(std::fs::read(sheet)?.starts_with(b"\x89PNG\r\n\x1a\n"));
    Ok(())
}

/// A Rust client finds the daemon as it was: C programs leave nothing behind in it.
#[test]
fn a_refused_c_program_costs_nobody_else_anything() -> Result<()> {
    let workshop = Workshop::new()?;
    let program = build(&workshop, "session.c")?;
    let (daemon, _store) = serve(&[tensor("add", ADD)])?;
    let client = daemon.client()?;
    common::adds_one(&client, "add")?;
    let pid = client.status()?.workers[0].pid;
    done(
        workshop
            .command(&program)
            .arg("tensors")
            .arg(daemon.socket()),
    )?;
    common::eventually("its connection is gone", || {
        let status = client.status()?;
        Ok((status.connections, status.buffers) == (1, 0))
    })?;
    common::adds_one(&client, "add")?;
    assert_eq!(client.status()?.workers[0].pid, pid);
    let refused = client.load("nobody", &WorkOptions::default());
    let refused = refused.err().context("there is no such model")?;
    assert!(matches!(
        refused.status(),
        Some(Status::ModelNotFound { .. })
    ));
    Ok(())
}
