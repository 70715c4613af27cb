//! What C sees of the library when no daemon is there.

#[allow(dead_code, reason = "the tests of the whole product use more of it")]
mod common;

use anyhow::{Context, Result};
use common::{Language, Workshop, crate_folder, done};
use std::process::Command;

#[test]
fn arguments_that_do_not_hold_are_refused_by_name() -> Result<()> {
    let workshop = Workshop::new()?;
    let source = crate_folder().join("tests/c/arguments.c");
    let program = workshop.build(Language::C, &source, &[])?;
    done(&mut workshop.command(&program))?;
    Ok(())
}

#[test]
fn the_static_library_links_with_what_its_pkg_config_file_names() -> Result<()> {
    let workshop = Workshop::new()?;
    let template = std::fs::read_to_string(crate_folder().join("mote.pc.in"))?;
    let private = template
        .lines()
        .find_map(|line| line.strip_prefix("Libs.private: "))
        .context("libraries of the static one")?;
    let program = workshop.path().join("arguments_static");
    let mut compiler = Language::C.compiler();
    compiler.arg("-I").arg(workshop.path().join("include"));
    compiler.arg("-o").arg(&program);
    compiler.arg(crate_folder().join("tests/c/arguments.c"));
    compiler.arg(common::built("libmote.a")?);
    done(compiler.args(private.split_whitespace()))?;
    done(&mut workshop.command(&program))?;
    Ok(())
}

#[test]
fn the_examples_build_as_the_readme_says() -> Result<()> {
    let workshop = Workshop::new()?;
    let readme = std::fs::read_to_string(crate_folder().join("README.md"))?;
    let lines: Vec<&str> = readme
        .lines()
        .filter(|line| line.starts_with("cc ") || line.starts_with("c++ "))
        .collect();
    assert_eq!(lines.len(), 6, "{lines:?}");
    let has = Command::new("pkg-config").arg("--version").output();
    if has.is_err() {
        eprintln!("skipped: pkg-config is not installed");
        return Ok(());
    }
    let folder = workshop.path().join("examples");
    std::fs::create_dir(&folder)?;
    for name in [
        "chat.c",
        "tensor.c",
        "search.c",
        "film.c",
        "speech.cpp",
        "seen.cpp",
    ] {
        std::fs::copy(
            crate_folder().join("examples").join(name),
            folder.join(name),
        )?;
    }
    for line in lines {
        let mut shell = Command::new("sh");
        shell.args(["-e", "-c", line]).current_dir(&folder);
        done(shell.env("PKG_CONFIG_PATH", workshop.path().join("lib/pkgconfig")))?;
    }
    for program in ["chat", "tensor", "search", "film", "seen"] {
        let mut command = workshop.command(&folder.join(program));
        let output = command.output()?;
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(String::from_utf8(output.stderr)?.contains("usage: "));
    }
    Ok(())
}

#[test]
fn the_program_in_the_readme_builds() -> Result<()> {
    let workshop = Workshop::new()?;
    let readme = std::fs::read_to_string(crate_folder().join("README.md"))?;
    let (_, rest) = readme.split_once("```c\n").context("a program")?;
    let (program, _) = rest.split_once("```").context("its end")?;
    let source = workshop.path().join("story.c");
    std::fs::write(&source, program)?;
    let program = workshop.build(Language::C, &source, &[])?;
    let mut command = workshop.command(&program);
    let output = command.env("MOTE_SOCKET", "/nowhere/mote.sock").output()?;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8(output.stderr)?.contains("cannot connect to /nowhere/mote.sock"));
    Ok(())
}

#[test]
fn unsafe_code_is_behind_its_door() -> Result<()> {
    let mut doors = Vec::new();
    for entry in std::fs::read_dir(crate_folder().join("src"))? {
        let path = entry?.path();
        let text = std::fs::read_to_string(&path)?;
        let mut code = text.lines().filter(|line| !line.trim().starts_with("//"));
        // An attribute that exports a symbol is written without the space.
        if code.any(|line| line.contains("unsafe ")) {
            doors.push(path.file_name().context("a name")?.to_owned());
        }
    }
    assert_eq!(doors, ["door.rs"]);
    Ok(())
}
