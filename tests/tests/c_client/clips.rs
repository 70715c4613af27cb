//! Clips made of words, and what is seen in them, from C and C++.

use crate::build::{Language, Workshop, done};
use crate::{build, example};
use anyhow::{Context, Result};
use mote_client::{ClipEvent, ClipFormat, GenerateClip, LabelClip, WorkOptions};
use mote_tests::daemon::{Daemon, Setup};
use mote_tests::prepared;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

const CLIP_MODEL: &str = "shapes-clip";
const LABEL_MODEL: &str = "shapes";
const PROMPT: &str = "a red square moves left";
const SEED: u64 = 7;

/// A daemon that also serves the models that label.
fn real() -> Result<Daemon> {
    let labels = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/labels");
    Daemon::start(&Setup {
        stores: vec![prepared("MOTE_TEST_MODELS")?, labels],
        runtimes: vec![prepared("MOTE_RUNTIMES")?],
        ..Setup::default()
    })
}

fn result(path: &Path) -> Result<File> {
    let mut options = File::options();
    let options = options.read(true).write(true).create(true).truncate(true);
    Ok(options.open(path)?)
}

/// Has the Rust client make a clip.
fn make(daemon: &Daemon, path: &Path, output_format: ClipFormat) -> Result<()> {
    let request = GenerateClip {
        seed: Some(SEED),
        output_format,
        ..GenerateClip::new(CLIP_MODEL, PROMPT, result(path)?.into())
    };
    for event in daemon.client()?.generate_clip(request)? {
        event?;
    }
    Ok(())
}

#[test]
fn a_clip_is_made_of_words_halted_left_and_steered() -> Result<()> {
    let (workshop, daemon) = (Workshop::new()?, real()?);
    let program = build(&workshop, "words.c")?;
    let folder = tempfile::tempdir()?;
    let mut command = workshop.command(&program);
    command.arg(daemon.socket());
    command.args([folder.path().join("out.rgb"), folder.path().join("kept")]);
    let printed = String::from_utf8(done(&mut command)?.stdout)?;
    let words: Vec<&str> = printed.split_whitespace().collect();
    assert_eq!(words, ["frames", "17", "steps", "24"], "{printed}");
    Ok(())
}

#[test]
fn film_makes_the_clip_that_the_rust_client_makes() -> Result<()> {
    let (workshop, daemon) = (Workshop::new()?, real()?);
    let folder = tempfile::tempdir()?;
    let (made, wanted) = (folder.path().join("c.mp4"), folder.path().join("rust.mp4"));
    let program = workshop.build(Language::C, &example("film.c"), &[])?;
    let mut command = workshop.command(&program);
    command.arg("-s").arg(daemon.socket());
    command.args(["-r", &SEED.to_string(), CLIP_MODEL]);
    let output = done(command.arg(&made).arg(PROMPT))?;
    let printed = String::from_utf8(output.stdout)?;
    let mut lines = printed.lines();
    let first = lines.next().context("a receipt")?;
    assert!(first.starts_with("17 frames, seed 7, "), "{printed}");
    assert!(first.ends_with(", 0 steps taken over"), "{printed}");
    assert!(lines.all(|line| line.starts_with("step ") && line.ends_with(" us")));
    make(&daemon, &wanted, ClipFormat::Mp4Av1)?;
    assert_eq!(std::fs::read(made)?, std::fs::read(wanted)?);
    Ok(())
}

/// Ctrl-C in the middle, and the same command once more.
#[test]
fn an_interrupted_film_goes_on_from_its_checkpoint() -> Result<()> {
    let (workshop, daemon) = (Workshop::new()?, real()?);
    let folder = tempfile::tempdir()?;
    let made = folder.path().join("out.mp4");
    let program = workshop.build(Language::C, &example("film.c"), &[])?;
    let command = || {
        let mut command = workshop.command(&program);
        command.arg("-s").arg(daemon.socket());
        // Steps enough that there are some left when the signal comes.
        command.args(["-r", "7", "-n", "64", "-k"]);
        command.arg(folder.path().join("kept"));
        command.arg(CLIP_MODEL).arg(&made).arg(PROMPT);
        command
    };
    let whole = String::from_utf8(done(&mut command())?.stdout)?;
    assert!(whole.contains(", 0 steps taken over"), "{whole}");
    let wanted = std::fs::read(&made)?;
    std::fs::remove_file(folder.path().join("kept"))?;
    let mut film = command().stderr(Stdio::piped()).spawn()?;
    let mut said = BufReader::new(film.stderr.take().context("it tells of its steps")?).lines();
    for _ in 0..3 {
        said.next().context("a step")??;
    }
    kill(Pid::from_raw(film.id().cast_signed()), Signal::SIGINT)?;
    assert_eq!(film.wait()?.code(), Some(130));
    let rest = String::from_utf8(done(&mut command())?.stdout)?;
    assert!(!rest.contains(", 0 steps taken over"), "{rest}");
    assert_eq!(std::fs::read(&made)?, wanted);
    Ok(())
}

#[test]
fn seen_prints_what_the_rust_client_hears() -> Result<()> {
    let (workshop, daemon) = (Workshop::new()?, real()?);
    let folder = tempfile::tempdir()?;
    let clip = folder.path().join("clip.y4m");
    make(&daemon, &clip, ClipFormat::Y4m)?;
    let program = workshop.build(Language::Cpp, &example("seen.cpp"), &[])?;
    let mut command = workshop.command(&program);
    command.arg("-s").arg(daemon.socket());
    let output = done(command.arg(LABEL_MODEL).arg(&clip))?;
    let receipt: serde_json::Value = serde_json::from_slice(&output.stderr)?;
    assert_eq!(receipt["frames_in"], 17);
    let request = LabelClip {
        model: LABEL_MODEL.into(),
        frames_max: None,
        every: None,
        frame_rate: None,
        labels_max: None,
        score_min: None,
        options: WorkOptions::default(),
        input: File::open(clip)?.into(),
    };
    let mut wanted = String::new();
    for event in daemon.client()?.label_clip(request)? {
        let ClipEvent::Labels(seen) = event? else {
            continue;
        };
        let seconds = seen.time_us as f64 / 1e6;
        for one in seen.labels {
            wanted += &format!("{seconds:.3} {} {:.3}\n", one.label, one.score);
        }
        for one in seen.boxes {
            let label = one.label;
            wanted += &format!("{seconds:.3} {} {:.3} ", label.label, label.score);
            wanted += &format!("{:.1} {:.1} {:.1} {:.1}\n", one.x0, one.y0, one.x1, one.y1);
        }
    }
    assert!(!wanted.is_empty(), "nothing is seen in a clip of a square");
    assert_eq!(String::from_utf8(output.stdout)?, wanted);
    Ok(())
}
