"""A daemon of the tests' own over the models that ``tests/run`` prepared."""

import os
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

import mote

START_LIMIT_S = 20
REPOSITORY = Path(__file__).parents[3]


def prepared(variable):
    """A folder that ``tests/run`` names."""
    value = os.environ.get(variable)
    if value is None:
        pytest.fail(f"{variable} is not set: run tests/run")
    return Path(value)


@pytest.fixture(scope="session")
def socket_path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("daemon")
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    command = [target / "release" / "moted", "--exit-on-stdin-close", "--log-level", "warn"]
    # Which way is fastest here is not what these tests are about.
    command += ["--choose", "ranked"]
    command += ["--socket", folder / "mote.sock", "--state-dir", folder / "state"]
    command += ["--store", REPOSITORY / "tests" / "models" / "embedding"]
    command += ["--store", REPOSITORY / "tests" / "models" / "frames"]
    command += ["--store", REPOSITORY / "tests" / "models" / "labels"]
    command += ["--store", prepared("MOTE_TEST_MODELS"), "--runtimes", prepared("MOTE_RUNTIMES")]
    daemon = subprocess.Popen(command, stdin=subprocess.PIPE)
    began = time.monotonic()
    while True:
        try:
            mote.connect(folder / "mote.sock").close()
            break
        except ConnectionError:
            assert daemon.poll() is None, "moted ended before it listened"
            assert time.monotonic() - began < START_LIMIT_S, "moted does not listen"
            time.sleep(0.01)
    yield folder / "mote.sock"
    daemon.stdin.close()
    try:
        assert daemon.wait(START_LIMIT_S) == 0
    finally:
        daemon.kill()


@pytest.fixture
def daemon(socket_path):
    with mote.connect(socket_path) as client:
        yield client


@pytest.fixture(scope="session")
def case():
    """A reference case's inputs or outputs: ``case("magika", "input0")``."""

    def load(name, file):
        return np.load(prepared("MOTE_TEST_REFERENCE") / name / f"{file}.npy")

    return load
