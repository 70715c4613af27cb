//! Scripted models, and what the system says about processes.

use anyhow::{Context, Result};
use mote_client::{Client, DType, Generate, Input, Prompt, WorkOptions};
use mote_tests::daemon::{Daemon, Setup};
use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// Nothing here takes long; what takes longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// A step that ends only when it is cancelled.
pub const FOR_EVER: &str = "step_ms = 3600000\n";
/// Adds 1 to four numbers.
pub const ADD: &str = "compute = { add = 1.0 }\n";
/// Entries of a text model's vocabulary.
pub const VOCAB: u32 = 300;
const TENSORS: &str = "[[input]]\nname = \"x\"\ndtype = \"f32\"\nshape = [1, -1]\n\
    [[output]]\nname = \"y\"\ndtype = \"f32\"\nshape = [1, -1]\n";

/// One model of a store.
pub struct Model<'a> {
    pub name: &'a str,
    /// What its manifest says of every variant.
    pub variant: &'a str,
    /// The script of each variant, the best first.
    pub scripts: Vec<String>,
    pub is_text: bool,
}

/// Tensors in and out, on the scripted CPU.
pub fn tensor<'a>(name: &'a str, script: &str) -> Model<'a> {
    Model {
        name,
        variant: "providers = [\"fake-cpu\"]\nmemory_bytes = 1000000\n",
        scripts: vec![script.to_owned()],
        is_text: false,
    }
}

/// Text in and out, on the scripted CPU: each token follows from the sum of all before it.
pub fn text<'a>(name: &'a str, script: &str) -> Model<'a> {
    Model {
        is_text: true,
        ..tensor(name, script)
    }
}

/// A daemon that serves these models with `budget_bytes` for them, and the folder they are in.
pub fn serve_within(
    models: &[Model<'_>],
    budget_bytes: Option<u64>,
) -> Result<(Daemon, tempfile::TempDir)> {
    let store = tempfile::tempdir()?;
    for model in models {
        write(store.path(), model)?;
    }
    // A marker lies where no worker could leave it from within its sandbox.
    let mut scripts = models.iter().flat_map(|model| &model.scripts);
    let sandbox_off = scripts.any(|script| script.contains("fault_marker"));
    let daemon = Daemon::start(&Setup {
        stores: vec![store.path().into()],
        scripted: true,
        budget_bytes,
        sandbox_off,
        ..Setup::default()
    })?;
    Ok((daemon, store))
}

/// As above, with memory enough.
pub fn serve(models: &[Model<'_>]) -> Result<(Daemon, tempfile::TempDir)> {
    serve_within(models, Some(1 << 30))
}

/// Writes a model into a store.
pub fn write(store: &Path, model: &Model<'_>) -> Result<()> {
    let folder = store.join(model.name);
    std::fs::create_dir(&folder)?;
    let task = if model.is_text {
        "text-generation"
    } else {
        "tensor"
    };
    let mut manifest = format!("format = 1\nname = \"{}\"\ntask = \"{task}\"\n", model.name);
    for (index, script) in model.scripts.iter().enumerate() {
        write!(
            manifest,
            "[[variant]]\nname = \"v{index}\"\nbackend = \"fake\"\nfile = \"v{index}.fake\"\n\
             precision = \"f32\"\n{}",
            model.variant
        )?;
        let tail = if model.is_text {
            format!("[text]\nvocab = {VOCAB}\nnext = \"sum\"\n")
        } else {
            TENSORS.to_owned()
        };
        std::fs::write(
            folder.join(format!("v{index}.fake")),
            format!("{script}{tail}"),
        )?;
    }
    if model.is_text {
        write!(
            manifest,
            "[text]\ntokenizer = \"tokenizer.json\"\ncontext_tokens = 1024\nvocab = {VOCAB}\n\
             layers = 1\nkv_heads = 1\nhead_dim = 1\neos_token_ids = [{}]\n",
            VOCAB - 1
        )?;
        let vocab: serde_json::Map<_, _> =
            (0..VOCAB).map(|id| (format!("t{id}"), id.into())).collect();
        let tokenizer = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"},
            "post_processor": null, "decoder": null,
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "t0"},
        });
        std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string())?;
    }
    Ok(std::fs::write(folder.join("mote.toml"), manifest)?)
}

/// Asks a text model to go on after `t1`.
pub fn question(model: &str, tokens_max: u32, options: WorkOptions) -> Generate {
    Generate {
        tokens_max: Some(tokens_max),
        options,
        ..Generate::new(model, Prompt::Plain("t1".into()))
    }
}

/// Runs a model of one step and checks what it says.
pub fn adds_one(client: &Client, model: &str) -> Result<mote_client::Receipt> {
    let numbers = [1.0f32, 2.0, 3.0, 4.0];
    let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_ne_bytes()).collect();
    let input = Input::bytes("x", DType::F32, &[1, 4], &bytes);
    let result = client.infer(model, &[input], &[], &WorkOptions::default())?;
    let expected: Vec<u8> = numbers
        .iter()
        .flat_map(|n| (n + 1.0).to_ne_bytes())
        .collect();
    assert_eq!(result.outputs[0].bytes(), Some(&expected[..]));
    Ok(result.done.receipt)
}

/// Waits for something that comes about in another process.
pub fn eventually(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !holds()? {
        anyhow::ensure!(begun.elapsed() < PATIENCE, "{what}: not after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Open descriptors of a process.
pub fn descriptors(pid: i32) -> Result<usize> {
    let listing = std::fs::read_dir(format!("/proc/{pid}/fd"));
    Ok(listing.context("the process is gone")?.count())
}

/// Waits until the daemon holds as many descriptors as it did before.
pub fn settles_at(pid: i32, before: usize) -> Result<()> {
    let mut last = 0;
    let settled = eventually("descriptors are closed", || {
        last = descriptors(pid)?;
        Ok(last == before)
    });
    settled.with_context(|| format!("{last} descriptors where there were {before}"))
}

/// Descriptors of a process, once what has ended is put away.
pub fn settled_descriptors(pid: i32) -> Result<usize> {
    let (mut last, mut same) = (descriptors(pid)?, 0);
    eventually("descriptors settle", || {
        let now = descriptors(pid)?;
        same = if now == last { same + 1 } else { 0 };
        last = now;
        Ok(same >= 20)
    })?;
    Ok(last)
}
