//! Builds C and C++ programs against the library that was built with the tests.

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Name that programs look for at run time.
pub const SONAME: &str = "libmote.so.1";
/// Warnings that are errors in what is ours.
pub const STRICT: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];
/// A command that programs run under, such as `valgrind --error-exitcode=9`; words, no quotes.
const RUNNER_VARIABLE: &str = "MOTE_TEST_C_RUNNER";

/// A language, its compiler and the standard that the header promises to work with.
#[derive(Clone, Copy, Debug)]
pub enum Language {
    /// C99.
    C,
    /// C++17.
    Cpp,
}

impl Language {
    /// The compiler: what `CC` or `CXX` says, or the system's.
    pub fn compiler(self) -> Command {
        let (variable, usual, standard) = match self {
            Self::C => ("CC", "cc", "-std=c99"),
            Self::Cpp => ("CXX", "c++", "-std=c++17"),
        };
        let mut command = Command::new(std::env::var_os(variable).unwrap_or(usual.into()));
        command.arg(standard).args(STRICT);
        command
    }

    /// What `-x` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::C => "c",
            Self::Cpp => "c++",
        }
    }
}

/// The crate's folder.
pub fn crate_folder() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    // The tests of the whole product use this file too.
    match here.join("include/mote.h").exists() {
        true => here,
        false => here.join("../proto/c"),
    }
}

/// What is built beside the test that is running.
pub fn built(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe().context("cannot tell where the test runs")?;
    let path = test.with_file_name(name);
    ensure!(
        path.exists(),
        "{} is not built: run tests/run, or `cargo build --release -p mote-c`",
        path.display()
    );
    Ok(path)
}

/// An installation as a package makes it, in a folder of its own, and programs built against it.
pub struct Workshop {
    folder: tempfile::TempDir,
}

impl Workshop {
    pub fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (lib, include) = (folder.path().join("lib"), folder.path().join("include"));
        std::fs::create_dir_all(lib.join("pkgconfig"))?;
        std::fs::create_dir(&include)?;
        let library = built("libmote.so")?;
        std::os::unix::fs::symlink(&library, lib.join(SONAME))?;
        std::os::unix::fs::symlink(SONAME, lib.join("libmote.so"))?;
        std::fs::copy(
            crate_folder().join("include/mote.h"),
            include.join("mote.h"),
        )?;
        let template = std::fs::read_to_string(crate_folder().join("mote.pc.in"))?;
        let prefix = folder.path().display().to_string();
        let filled = template
            .replace("@prefix@", &prefix)
            .replace("@libdir@", "${prefix}/lib")
            .replace("@includedir@", "${prefix}/include")
            .replace("@version@", env!("CARGO_PKG_VERSION"));
        std::fs::write(lib.join("pkgconfig/mote.pc"), filled)?;
        Ok(Self { folder })
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Builds a program; `flags` come after the source.
    pub fn build(&self, language: Language, source: &Path, flags: &[&str]) -> Result<PathBuf> {
        let program = self.path().join(source.file_stem().context("a name")?);
        let mut compiler = language.compiler();
        compiler.arg("-I").arg(self.path().join("include"));
        compiler.arg("-o").arg(&program).arg(source);
        compiler.args(flags);
        compiler.arg("-L").arg(self.path().join("lib"));
        done(compiler.args(["-lmote", "-lpthread"]))?;
        Ok(program)
    }

    /// A built program, ready to be run.
    pub fn command(&self, program: &Path) -> Command {
        let runner = std::env::var(RUNNER_VARIABLE).unwrap_or_default();
        let mut words = runner.split_whitespace();
        let mut command = match words.next() {
            None => Command::new(program),
            Some(runner) => {
                let mut command = Command::new(runner);
                command.args(words).arg(program);
                command
            }
        };
        command.env("LD_LIBRARY_PATH", self.path().join("lib"));
        command
    }
}

/// Runs a command that must go well.
pub fn done(command: &mut Command) -> Result<Output> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {:?}", command.get_program()))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output)
}
