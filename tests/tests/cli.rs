//! The command line as its users see it: exit codes, JSON, and what is left on disk.
//!
//! `tests/run` fetches the models and runtimes.

use anyhow::{Context, Result, ensure};
use mote_client::Client;
use mote_tests::daemon::{Daemon, Setup};
use mote_tests::{binary, prepared};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// As a shell tells of a program that SIGINT or SIGPIPE ended.
const INTERRUPTED: i32 = 130;
const OUTPUT_CLOSED: i32 = 141;
/// What the command line itself refuses.
const USAGE: i32 = 2;
const PATIENCE: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A daemon over the prepared models, and a folder to work in.
struct Scene {
    daemon: Daemon,
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Result<Self> {
        Ok(Self {
            daemon: Daemon::start(&Setup {
                stores: vec![prepared("MOTE_TEST_MODELS")?],
                runtimes: vec![prepared("MOTE_RUNTIMES")?],
                ..Setup::default()
            })?,
            folder: tempfile::tempdir()?,
        })
    }

    fn command(&self, args: &[&str]) -> Result<Command> {
        let mut command = mote(args)?;
        command.env("MOTE_SOCKET", self.daemon.socket());
        command.current_dir(&self.folder);
        Ok(command)
    }

    fn run(&self, args: &[&str]) -> Result<Output> {
        Ok(self.command(args)?.output()?)
    }

    /// Runs what is to be refused, and answers what it said.
    fn refused(&self, args: &[&str]) -> Result<String> {
        let output = self.run(args)?;
        assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{args:?}: {output:?}");
        Ok(String::from_utf8(output.stderr)?)
    }

    /// Presses Ctrl-C once the daemon works on what `args` ask for.
    fn interrupted(&self, args: &[&str]) -> Result<()> {
        let mut child = self.command(args)?.spawn()?;
        let client = self.daemon.client()?;
        wait_for(&mut child, || Ok(client.status()?.jobs_running > 0))?;
        interrupt(child)
    }

    fn names(&self) -> Result<Vec<String>> {
        names(self.folder.path())
    }
}

fn mote(args: &[&str]) -> Result<Command> {
    let mut command = Command::new(binary("mote")?);
    command.args(args).stdin(Stdio::null());
    Ok(command)
}

/// Everything in a folder, hidden files too.
fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn wait_for(child: &mut Child, mut seen: impl FnMut() -> Result<bool>) -> Result<()> {
    let since = Instant::now();
    while !seen()? {
        let ended = child.try_wait()?;
        ensure!(ended.is_none(), "it ended before it was to: {ended:?}");
        ensure!(since.elapsed() < PATIENCE, "it does not begin");
        std::thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

fn interrupt(mut child: Child) -> Result<()> {
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT)?;
    assert_eq!(child.wait()?.code(), Some(INTERRUPTED));
    Ok(())
}

/// What nobody waits for is not computed.
fn idle(client: &Client) -> Result<()> {
    let since = Instant::now();
    while client.status()?.jobs_running > 0 {
        ensure!(since.elapsed() < PATIENCE, "the work goes on");
        std::thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

fn bikes() -> Result<String> {
    text(&prepared("MOTE_CACHE")?.join("files/sample-clips/bikes.mp4"))
}

fn text(path: &Path) -> Result<String> {
    let text = path.to_str().context("paths of tests are UTF-8")?;
    Ok(text.to_owned())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir(to)?;
    for name in names(from)? {
        std::fs::copy(from.join(&name), to.join(&name))?;
    }
    Ok(())
}

fn json(bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes).with_context(|| String::from_utf8_lossy(bytes).into_owned())
}

#[test]
fn a_clip_that_fails_leaves_nothing() -> Result<()> {
    let (scene, bikes) = (Scene::new()?, bikes()?);
    let no_clip = text(&scene.folder.path().join("text"))?;
    std::fs::write(&no_clip, "no clip ".repeat(100))?;
    for out in ["out.mp4", "out.gif", "out"] {
        for (model, input, why) in [
            ("no such model", bikes.as_str(), "no such model"),
            ("magika", &bikes, "magika"),
            ("rife", &no_clip, "clip.format"),
            ("rife", "absent.mp4", "absent.mp4"),
        ] {
            let args = ["clip", model, input, "-o", out, "--contact-sheet", "s.png"];
            let said = scene.refused(&args)?;
            assert!(said.contains(why), "{said}");
            assert_eq!(scene.names()?, ["text"], "{args:?}");
        }
        let args = [
            "clip",
            "rife",
            &bikes,
            "-o",
            out,
            "--contact-sheet",
            "s.png",
        ];
        scene.interrupted(&args)?;
        assert_eq!(scene.names()?, ["text"], "{args:?}");
    }
    Ok(())
}

#[test]
fn a_clip_replaces_results_only_when_told_and_complete() -> Result<()> {
    let (scene, bikes) = (Scene::new()?, bikes()?);
    let path = |name: &str| scene.folder.path().join(name);
    let short = ["--frames-max", "2", "--width-max", "64"];
    for name in ["out.mp4", "s.png"] {
        std::fs::write(path(name), "older")?;
    }
    let args = [
        "clip",
        "rife",
        &bikes,
        "-o",
        "out.mp4",
        "--contact-sheet",
        "s.png",
    ];
    assert!(scene.refused(&args)?.contains("--force"));
    scene.interrupted(&[&args[..], &["--force"]].concat())?;
    assert_eq!(std::fs::read(path("out.mp4"))?, b"older");
    assert_eq!(std::fs::read(path("s.png"))?, b"older");

    let output = scene.run(&[&args[..], &short, &["--force"]].concat())?;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        std::fs::read(path("out.mp4"))?.get(4..8),
        Some(&b"ftyp"[..])
    );
    assert!(std::fs::read(path("s.png"))?.starts_with(b"\x89PNG"));
    assert_eq!(scene.names()?, ["out.mp4", "s.png"]);

    let frames = ["clip", "rife", &bikes, "-o", "frames", "--width-max", "64"];
    let long = [&frames[..], &["--frames-max", "4"]].concat();
    assert!(scene.run(&long)?.status.success());
    assert_eq!(names(&path("frames"))?.len(), 7);
    std::fs::write(path("frames/notes"), "mine")?;
    assert!(scene.refused(&long)?.contains("--force"));
    let again = [&frames[..], &["--frames-max", "2", "--force"]].concat();
    assert!(scene.run(&again)?.status.success());
    let kept = names(&path("frames"))?;
    assert_eq!(kept.len(), 4, "{kept:?}");
    assert_eq!(
        (kept[0].as_str(), kept[3].as_str()),
        ("frame-00000.png", "notes")
    );
    Ok(())
}

#[test]
fn outputs_of_a_run_appear_together_or_not_at_all() -> Result<()> {
    let scene = Scene::new()?;
    let input = text(&prepared("MOTE_TEST_REFERENCE")?.join("magika/input0.npy"))?;
    let run = |model: &str, input: &str| {
        let args = ["run", model, "-i", input, "-o", "arrays"];
        scene.refused(&args)
    };
    assert!(run("rapidocr-det", &input)?.contains("i32"));
    assert!(run("magika", "absent.npy")?.contains("absent.npy"));
    assert!(run("rife", &input)?.contains("mote clip"));
    assert!(scene.names()?.is_empty());
    let args = ["run", "magika", "-i", &input, "-o", "arrays", "--json"];
    let output = scene.run(&args)?;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(scene.names()?, ["arrays"]);
    let ran = json(&output.stdout)?;
    assert_eq!(ran["outputs"][0]["file"], "arrays/target_label.npy");
    let array = std::fs::read(scene.folder.path().join("arrays/target_label.npy"))?;
    assert!(array.starts_with(b"\x93NUMPY"));
    Ok(())
}

/// A store of the test's own, and a folder to write weights in.
struct Importer {
    folder: tempfile::TempDir,
}

impl Importer {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(folder.path().join("store"))?;
        Ok(Self { folder })
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn command(&self, args: &[&str]) -> Result<Command> {
        let mut command = mote(args)?;
        command.current_dir(&self.folder);
        command.env("MOTE_STORE", self.store());
        // Nobody is to be told.
        command.env("MOTE_SOCKET", self.folder.path().join("nobody.sock"));
        Ok(command)
    }
}

#[test]
fn an_import_writes_all_that_was_asked_for_or_nothing() -> Result<()> {
    let scene = Importer::new()?;
    let args = ["import", "--recipe", "smollm2-135m-moe", "--also", "gguf"];
    let both = [&args[..], &["--also", "hf=weights"]].concat();
    // Once when the first is written already, once while the model itself is.
    for seen in ["smollm2-135m-moe-gguf", "weights"] {
        let mut child = scene.command(&both)?.stderr(Stdio::null()).spawn()?;
        wait_for(&mut child, || Ok(scene.folder.path().join(seen).exists()))?;
        interrupt(child)?;
        assert_eq!(names(scene.folder.path())?, ["store"]);
        assert!(names(&scene.store())?.is_empty());
    }

    let output = scene
        .command(&[&args[..], &["--json"]].concat())?
        .output()?;
    assert!(output.status.success(), "{output:?}");
    let imported = json(&output.stdout)?;
    assert_eq!(imported["name"], "smollm2-135m-moe");
    assert_eq!(imported["also"][0]["format"], "gguf");
    assert_eq!(names(&scene.store())?, ["smollm2-135m-moe"]);
    let folder = scene.folder.path().join("smollm2-135m-moe-gguf");
    assert_eq!(names(&folder)?, ["LICENSE", "model.gguf"]);
    // The format's own header: magic, version, number of tensors (13 a layer, and 2).
    let gguf = std::fs::read(folder.join("model.gguf"))?;
    assert_eq!(gguf.get(..8), Some(&b"GGUF\x03\0\0\0"[..]));
    assert_eq!(gguf.get(8..16), Some(&(13u64 * 30 + 2).to_le_bytes()[..]));
    assert_eq!(imported["also"][0]["weights_bytes"], gguf.len());

    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/architectures/qwen3_moe");
    let other = other.display().to_string();
    for (args, status) in [
        // Not a plain Llama from GGUF.
        (
            vec!["import", "--also", "gguf", "--name", "other", &other],
            1,
        ),
        (vec!["import", "--also", "zip", "--name", "dense"], USAGE),
        (args.to_vec(), 1),
    ] {
        let output = scene.command(&args)?.output()?;
        assert_eq!(output.status.code(), Some(status), "{args:?}: {output:?}");
    }
    assert_eq!(names(&scene.store())?, ["smollm2-135m-moe"]);
    Ok(())
}

#[test]
fn a_checkpoint_is_a_folder_or_a_file_and_what_is_neither_is_told() -> Result<()> {
    let scene = Importer::new()?;
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/architectures");
    let source = tiny.join("qwen3_moe").display().to_string();
    let import = |args: &[&str]| scene.command(&[&["import"][..], args].concat());
    for bits in ["4", "8", "16", "32"] {
        let name = format!("tiny-{bits}");
        let output = import(&["--name", &name, "--bits", bits, "--json", &source])?.output()?;
        assert!(output.status.success(), "{bits}: {output:?}");
        let imported = json(&output.stdout)?;
        assert_eq!(imported["name"], name);
        assert_eq!(imported["experts_per_token"], 3);
        let folder = scene.store().join(&name);
        for file in [
            "mote.toml",
            "model.onnx",
            "model.onnx.data",
            "tokenizer.json",
        ] {
            assert!(folder.join(file).exists(), "{bits}: {file}");
        }
    }
    let narrow = ["--head-bits", "4", "--cache", "i8"];
    let flags = [&["--name", "tiny-narrow", "--bits", "4"], &narrow[..]].concat();
    let output = import(&[&flags[..], &[&source]].concat())?.output()?;
    assert!(output.status.success(), "{output:?}");
    for (name, variant) in [
        ("tiny-4", "onnxruntime-int4-mixed"),
        ("tiny-narrow", "onnxruntime-int4"),
        ("tiny-8", "onnxruntime-int8"),
    ] {
        let manifest = std::fs::read_to_string(scene.store().join(name).join("mote.toml"))?;
        let line = format!("name = {variant:?}\n");
        assert!(manifest.contains(&line), "{name}: {manifest}");
    }
    std::fs::create_dir(scene.folder.path().join("pickles"))?;
    std::fs::write(scene.folder.path().join("pickles/model.bin"), "")?;
    let single = tiny.join("llama/model.safetensors").display().to_string();
    for (path, told) in [
        (single.as_str(), "name the folder"),
        ("pickles", "safetensors"),
        ("absent", "cannot read absent"),
    ] {
        let output = import(&["--name", "refused", path])?.output()?;
        assert_eq!(output.status.code(), Some(1), "{path}: {output:?}");
        assert!(String::from_utf8(output.stderr)?.contains(told), "{path}");
        assert!(!scene.store().join("refused").exists(), "{path}");
    }
    let output = import(&["--name", "tiny-3", "--bits", "3", &source])?.output()?;
    assert_eq!(output.status.code(), Some(USAGE), "{output:?}");
    Ok(())
}

#[test]
fn a_model_that_is_not_what_its_manifest_says_is_not_installed() -> Result<()> {
    let scene = Importer::new()?;
    let altered = scene.folder.path().join("altered");
    copy(&prepared("MOTE_TEST_MODELS")?.join("magika"), &altered)?;
    let install = || scene.command(&["models", "install", "altered"]);
    assert!(install()?.output()?.status.success());
    assert_eq!(names(&scene.store())?, ["magika"]);
    let licence = altered.join("LICENSE");
    std::fs::write(&licence, "other terms")?;
    let replace = ["models", "install", "altered", "--replace"];
    let output = scene.command(&replace)?.output()?;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8(output.stderr)?.contains("LICENSE"));
    assert_eq!(names(&scene.store())?, ["magika"]);
    let kept = std::fs::read(scene.store().join("magika/LICENSE"))?;
    assert_ne!(kept, b"other terms");
    Ok(())
}

#[test]
fn errors_are_json_where_results_are() -> Result<()> {
    let scene = Scene::new()?;
    for (args, status) in [
        (["models", "inspect", "no such model"], "model_not_found"),
        (["explain", "no such model", "--quiet"], "model_not_found"),
        (["fetch", "no such thing", "--quiet"], "failed"),
        (["run", "magika", "--input=absent.npy"], "failed"),
        (["generate", "magika", "Hello"], "invalid"),
    ] {
        let output = scene.run(&[&args[..], &["--json"]].concat())?;
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(output.stderr.is_empty(), "{args:?}: {output:?}");
        let error = json(&output.stdout)?;
        assert_eq!(error["status"], status, "{args:?}: {error}");
        let message = error["message"].as_str().context("a message")?;
        assert!(!message.is_empty());
    }
    for args in [
        vec!["status"],
        vec!["devices"],
        vec!["models", "list"],
        vec!["models", "inspect", "magika", "--load"],
        vec!["explain", "rife"],
        vec!["fetch"],
    ] {
        let output = scene.run(&[&args[..], &["--json"]].concat())?;
        assert!(output.status.success(), "{args:?}: {output:?}");
        json(&output.stdout)?;
    }
    Ok(())
}

#[test]
fn a_reader_that_has_seen_enough_ends_it_quietly() -> Result<()> {
    let scene = Scene::new()?;
    for args in [
        &["models", "list"][..],
        &["devices", "--json"],
        &["completions", "bash"],
        &["generate", "smollm2-135m", "Tell a story."],
    ] {
        // Closed before the program starts: it may be quicker than whoever would close it after.
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let child = scene
            .command(args)?
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()?;
        let output = child.wait_with_output()?;
        assert_eq!(output.status.code(), Some(OUTPUT_CLOSED), "{args:?}");
        assert!(output.stderr.is_empty(), "{args:?}: {output:?}");
    }
    idle(&scene.daemon.client()?)
}

/// A model that computes for an hour, and an input for it.
fn slow_model(store: &Path) -> Result<()> {
    let folder = store.join("slow");
    std::fs::create_dir(&folder)?;
    let variant = "[[variant]]\nname = \"v\"\nbackend = \"fake\"\nfile = \"v.fake\"\n\
        precision = \"f32\"\nproviders = [\"fake-cpu\"]\nmemory_bytes = 1000000\n";
    let manifest = format!("format = 1\nname = \"slow\"\ntask = \"tensor\"\n{variant}");
    std::fs::write(folder.join("mote.toml"), manifest)?;
    let script = "step_ms = 3600000\n[[input]]\nname = \"x\"\ndtype = \"f32\"\nshape = [2]\n\
        [[output]]\nname = \"y\"\ndtype = \"f32\"\nshape = [2]\n";
    std::fs::write(folder.join("v.fake"), script)?;
    // NEP 1, version 1.0.
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }";
    let mut array = b"\x93NUMPY\x01\0\x76\0".to_vec();
    array.extend(format!("{header:<117}\n").bytes());
    array.extend([0; 8]);
    Ok(std::fs::write(folder.join("x.npy"), array)?)
}

#[test]
fn ctrl_c_ends_what_only_waits() -> Result<()> {
    let store = tempfile::tempdir()?;
    slow_model(store.path())?;
    let scene = Scene {
        daemon: Daemon::start(&Setup {
            stores: vec![store.path().to_owned()],
            scripted: true,
            ..Setup::default()
        })?,
        folder: tempfile::tempdir()?,
    };
    let input = text(&store.path().join("slow/x.npy"))?;
    scene.interrupted(&["run", "slow", "-i", &input, "-o", "arrays"])?;
    assert!(scene.names()?.is_empty());
    idle(&scene.daemon.client()?)?;

    // A daemon that never answers.
    let socket = scene.folder.path().join("silent.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket)?;
    let child = mote(&["--socket", &text(&socket)?, "status"])?.spawn()?;
    let (_connection, _) = listener.accept()?;
    interrupt(child)
}
