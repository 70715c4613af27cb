"""Expected outputs of the real models, from the reference runtimes in Python.

    python reference.py --models FOLDER --out FOLDER [--only CASE ...]

FOLDER of --models is searched for the files by name; models that are checked in are taken from
beside this file. Each case becomes a folder of .npy files and a case.json:

    {"model", "runtime", "steps", "inputs": {tensor: file}, "outputs": {tensor: file}, "note"}

TFLite cases also have "plain_outputs": what the interpreter's own kernels say, without XNNPACK.
In 8 bits the two round differently, and a model with state carries the difference on.
With "steps" N, axis 0 of every file that isn't listed in "constant" counts the N calls made in
turn, and what lies behind it is the tensor of one call. State tensors are given once, before the
first call, and the caller carries them from output to input.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "carve"))

import tensor_cases  # noqa: E402
import text_cases  # noqa: E402

TENSORS = {"inputs", "outputs", "plain_outputs"}
CASES = tensor_cases.CASES | text_cases.CASES


class Folder:
    """Finds model files: those checked in first, then anywhere below the fetched folder."""

    def __init__(self, fetched):
        self.fetched = fetched

    def find(self, name):
        local = HERE / name
        found = [local] if local.exists() else sorted(self.fetched.rglob(Path(name).name))
        if not found:
            raise FileNotFoundError(f"{name} is neither checked in nor below {self.fetched}")
        return found[0]


def write(folder, case):
    """One case: its arrays as .npy and its description."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {key: value for key, value in case.items() if key not in TENSORS}
    for side in TENSORS & case.keys():
        about[side] = {}
        for number, (tensor, array) in enumerate(case[side].items()):
            file = f"{side[:-1]}{number}.npy"
            np.save(folder / file, array)
            about[side][tensor] = file
    (folder / "case.json").write_text(json.dumps(about, indent=1, sort_keys=True) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=sorted(CASES), default=sorted(CASES))
    options = parser.parse_args()
    models = Folder(options.models)
    for name in options.only:
        case = CASES[name](models)
        write(options.out / name, case)
        shapes = {tensor: list(array.shape) for tensor, array in case["outputs"].items()}
        print(f"{name}: {case['model']} {shapes} {case['note']}", flush=True)


if __name__ == "__main__":
    main()
