//! The examples of the documentation, as they are.

use crate::harness::{Stage, with};
use anyhow::{Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

const QUESTION: &str = "Name three oceans.";

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../systemd/dbus/examples")
        .join(name)
}

/// What an example prints.
fn run(stage: &Stage, program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments);
    let output = stage.bus.run(&mut command)?;
    ensure!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

fn is_installed(program: &str) -> bool {
    let found = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join(program).exists())
    });
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

#[test]
fn the_examples_run() -> Result<()> {
    let stage = Stage::real(&["chat=smollm2-135m"])?;
    with(async { stage.caller().await.map(drop) })?;
    let file = |name| example(name).display().to_string();
    if is_installed("busctl") {
        let printed = run(&stage, "sh", &[&file("busctl.sh"), "use:chat", "--user"])?;
        assert!(printed.contains("/org/moted/Inference1/model/smollm2_2d135m"));
        assert!(printed.contains("onnxruntime"), "{printed}");
    }
    let python = std::env::var("MOTE_PYTHON").unwrap_or_else(|_| "python3".into());
    let printed = run(&stage, &python, &[&file("chat.py"), "use:chat", QUESTION])?;
    assert!(printed.trim_end().ends_with("on onnxruntime"), "{printed}");
    let folder = tempfile::tempdir()?;
    let clip = folder.path().join("square.mp4").display().to_string();
    let shot = "a red square moves left";
    let words = [&*file("clip.py"), "shapes-clip", &clip, shot];
    let printed = run(&stage, &python, &words)?;
    assert!(printed.starts_with("17 frames in "), "{printed}");
    assert!(std::fs::read(clip)?[4..].starts_with(b"ftyp"));
    if is_installed("gjs") {
        let printed = run(&stage, "gjs", &[&file("chat.js"), "use:chat", QUESTION])?;
        assert!(printed.trim_end().ends_with("on onnxruntime"), "{printed}");
    }
    Ok(())
}
