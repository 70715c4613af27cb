"""What `build` and `test` share: the board table, where things lie, and what they need from outside."""

import glob
import os
import pathlib
import shutil
import subprocess
import sys
import tomllib

CROSS = pathlib.Path(__file__).resolve().parent
TOP = CROSS.parent
# The linker for releases, by package and version: it knows which symbols each version of the C library had.
ZIG = ("ziglang==0.17.1", "cargo-zigbuild==0.24.0")
PROGRAMS = ("mote", "moted", "mote-worker", "libmote.so")


class Failure(Exception):
    """What ends the command, in words for its user."""


def step(text):
    print(f"\n== {text}", file=sys.stderr, flush=True)


def cache():
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(os.environ.get("MOTE_CROSS_CACHE") or pathlib.Path(home) / "mote-cross")


def table():
    with open(CROSS / "boards.toml", "rb") as file:
        return tomllib.load(file)


def build_of(board):
    """The build that a board uses, with its own name in it."""
    boards = table()
    if board not in boards["board"]:
        raise Failure(f"no board is called {board}; `cross/build --list` tells all")
    name = boards["board"][board]["build"]
    return dict(boards["build"][name], name=name)


def has_runtime(build, prefix):
    """Whether some board of this build has a runtime of a kind."""
    return any(way["runtime"].startswith(prefix) for board in table()["board"].values()
               if board["build"] == build["name"] for way in board["way"])


def target_folder(linker):
    """Of its own for each linker: they compile the C parts of libraries differently."""
    return cache() / ("target" if linker == "zig" else f"target-{linker}")


def programs_folder(build, linker):
    return target_folder(linker) / build["rust"] / "release"


def packages_folder(build):
    return cache() / "packages" / build["name"]


def run(*command, **options):
    """Runs a command to its end; what it prints goes where this one's output goes."""
    words = [str(word) for word in command]
    if subprocess.run(words, **options).returncode != 0:
        raise Failure(f"this failed: {' '.join(words)}")


def output(*command, **options):
    words = [str(word) for word in command]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, **options)
    if done.returncode != 0:
        raise Failure(f"this failed: {' '.join(words)}")
    return done.stdout


def need(*packages):
    """Debian packages that are missing get installed: pairs of a file or program, and its package."""
    missing = [p for have, p in packages if not (shutil.which(have) or os.path.exists(have))]
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise Failure(f"these Debian packages, or your distribution's like them, are missing: {' '.join(missing)}")
    step(f"install {' '.join(missing)}")
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    run(*as_root, "apt-get", "update", "-qq")
    run(*as_root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-qq",
        "--no-install-recommends", *missing, stdout=subprocess.DEVNULL)


def variable(build, name):
    """The environment variable that tells cargo something of this build's target alone."""
    return f"CARGO_TARGET_{build['rust'].upper().replace('-', '_')}_{name}"


def standard_library(build):
    """Environment in which the compilers of programs and of examples in documentation find a standard library
    of our own, where they have none themselves."""
    target = build["rust"]
    folder = output("rustc", "--print", "target-libdir", "--target", target, cwd=TOP).strip()
    if glob.glob(f"{folder}/libstd-*"):
        return {}
    sysroot = cache() / "sysroot"
    run(CROSS / "std", target, sysroot)
    return {variable(build, name): f"--sysroot={sysroot}" for name in ("RUSTFLAGS", "RUSTDOCFLAGS")}


def emulator(build):
    """The command that runs a program of this build here, less the program."""
    if "emulator" not in build:
        return []
    libraries = pathlib.Path("/usr") / build["gnu"]
    need((build["emulator"], "qemu-user-static"),
         (f"{libraries}/lib/libc.so.6", f"libc6-{build.get('debian', build['name'])}-cross"),
         (f"{libraries}/lib/libgcc_s.so.1", f"libgcc-s1-{build.get('debian', build['name'])}-cross"))
    return [build["emulator"], "-L", str(libraries)]


def script(path, command):
    """A program that stands for a command: it passes its arguments on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    words = " ".join(f"'{word}'" for word in command)
    path.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    path.chmod(0o755)
    return path


def zig_folder():
    """Where the linker for releases is, installed when it is not there yet."""
    folder = cache() / f"zig-{'-'.join(package.split('==')[1] for package in ZIG)}"
    if not (folder / ".complete").exists():
        step("the linker for releases")
        shutil.rmtree(folder, ignore_errors=True)
        run(sys.executable, "-m", "venv", folder)
        run(folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", *ZIG)
        (folder / ".complete").touch()
    return folder


def zig_environment():
    """Environment in which cargo links with it, into a folder of its own."""
    return dict(os.environ, PATH=f"{zig_folder() / 'bin'}:{os.environ['PATH']}",
                CARGO_TARGET_DIR=str(target_folder("zig")))
