"""Makes small outputs of the format that this version writes: `python -m tests.records.make_outputs`.

They are stored under tests/records/outputs/format-N, so that later versions are tested on files of earlier ones. Run
it once for a new format, and leave the folders of older formats as they are.
"""

import shutil
import socket
import sys
import tempfile
from pathlib import Path

from gristmill.jobs.cli import main
from gristmill.records.output.manifest import FORMAT

OUTPUTS = Path(__file__).parent / "outputs"
RUN = """
name = "small-run"
lot_size = 8
[source]
items = ["rivers", "bridges", "harvest", "glass"]
cycle = true
[generator]
kind = "canned"
num_words = 40
duplicates = 0.3
bad = 0.5
[method]
kind = "prompt"
template = "Write about {text}."
[[stages]]
kind = "finish"
[[stages]]
kind = "dedup"
num_perm = 16
[limits]
asks = 16
[cluster]
num_cpus = 1
"""
FIT = """
name = "small-fit"
[data]
path = "package:breast-cancer"
part = "train"
columns = ["mean_radius", "diagnosis"]
[model]
kind = "independent"
"""
STUDY = """
name = "small-study"
n = 20
generations = 2
chains = 64
[family]
kind = "gaussian"
[regimes.replace]
"""


def make(folder: Path) -> None:
    """Run, model and study under `folder`, without reports and logs."""
    with tempfile.TemporaryDirectory() as temporary:
        for verb, name, text in (("produce", "run", RUN), ("fit", "model", FIT), ("study", "study", STUDY)):
            recipe = Path(temporary) / f"{name}.toml"
            recipe.write_text(text)
            out = folder / name
            if main([verb, str(recipe), "--out", str(out)]):
                sys.exit(f"{verb} failed")
            (out / "report.html").unlink(missing_ok=True)
    for path in folder.rglob("*.json*"):
        path.write_text(path.read_text().replace(socket.gethostname(), "localhost"))


if __name__ == "__main__":
    target = OUTPUTS / f"format-{FORMAT}"
    shutil.rmtree(target, ignore_errors=True)
    make(target)
