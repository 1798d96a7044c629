"""The wheel, built from the source distribution: what is in it, and that it runs away from the checkout."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from gristmill.cluster.connect import FLOORS
from tests.conftest import ROOT
from tests.recipes import write

DATA = ("recipes", "studies", "mixtures", "flows")
SUFFIXES = {".py", ".html", ".npz", ".css", ".toml", ".txt", ".typed"}
HOSTILE = ("stages/__init__.py", "records/__init__.py", "jobs/__init__.py", "cluster.py")

# Imported by every Python process before anything else: writes down which gristmill the process runs.
WITNESS = """
import os, sys

class Witness:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("gristmill."):
            line = f"{os.path.basename(sys.argv[0])} {sys.modules['gristmill'].__file__}"
            with open(os.path.join(os.environ["WITNESS"], str(os.getpid())), "w") as file:
                file.write(line)
            sys.meta_path.remove(self)
        return None

sys.meta_path.insert(0, Witness())
"""


def python(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | env
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done


def pip(*arguments: str, cwd: Path) -> None:
    python("-m", "pip", "--disable-pip-version-check", "-q", *arguments, cwd=cwd)


def files_of_the_package() -> set[str]:
    """Their paths in a wheel."""
    names = set()
    for folder in ("gristmill", *FLOORS, *DATA):
        paths = (path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES)
        names |= {path if folder == "gristmill" else f"gristmill/{path}" for path in paths}
    return names


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the checkout, which a build would otherwise fill with its own folders."""
    folder = tmp_path_factory.mktemp("sdist")
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "out", "models")
    shutil.copytree(ROOT, folder / "copy", ignore=ignored)
    python("setup.py", "-q", "sdist", "-d", str(folder), cwd=folder / "copy")
    return next(folder.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> Path:
    with tarfile.open(sdist) as archive:
        archive.extractall(sdist.parent, filter="data")
    source = sdist.parent / sdist.name.removesuffix(".tar.gz")
    pip("wheel", "--no-deps", "--no-build-isolation", ".", "-w", str(sdist.parent), cwd=source)
    return next(sdist.parent.glob("*.whl"))


@pytest.fixture(scope="module")
def target(wheel: Path) -> Path:
    """A folder that the wheel is installed into."""
    folder = wheel.parent / "target"
    pip("install", "--no-deps", "--target", str(folder), str(wheel), cwd=wheel.parent)
    return folder


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A working directory with modules of the same names as the floors, which must not be imported."""
    for name in HOSTILE:
        path = tmp_path / "elsewhere" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"raise RuntimeError('{name} of the working directory was imported')\n")
    return tmp_path / "elsewhere"


def test_the_wheel_holds_one_package_with_all_of_its_files(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tops = {name.split("/")[0] for name in names}
    assert len(tops) == 2 and all(re.fullmatch(r"gristmill(-[\d.]+\.dist-info)?", top) for top in tops)
    assert {name for name in names if name.startswith("gristmill/")} == files_of_the_package()
    for name in ("recipes/demo.toml", "recipes/fit/adult-mst.toml", "recipes/schemas/adult.toml", "py.typed"):
        assert f"gristmill/{name}" in names
    kinds = {Path(name).suffix for name in names}
    assert {".html", ".css"} <= kinds and any(name.startswith("gristmill/recipes/principles/") for name in names)


def test_the_source_distribution_holds_what_the_wheel_is_built_from(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        tops = {Path(member.name).parts[1] for member in archive.getmembers() if member.isfile()}
    assert {"pyproject.toml", "setup.py", "README.md", "LICENSE", "gristmill", *FLOORS, *DATA} <= tops


def test_it_lists_its_recipes_anywhere(target: Path, elsewhere: Path) -> None:
    done = python("-m", "gristmill", "recipes", "--json", cwd=elsewhere, PYTHONPATH=str(target))
    assert "demo" in done.stdout and json.loads(done.stdout)


def test_a_run_imports_the_wheel_in_the_driver_and_in_workers(target: Path, elsewhere: Path, tmp_path: Path) -> None:
    recipe = {
        "name": "wheel",
        "lot_size": 16,
        "source": {"items": ["rivers", "bridges"], "cycle": True},
        "generator": {"kind": "canned", "num_words": 60},
        "method": {"kind": "prompt", "template": "Write about {text}."},
        "stages": [{"kind": "finish"}],  # without kernels, which each new place compiles again
        "limits": {"asks": 64},
        "cluster": {"num_cpus": 2},
    }
    witness = tmp_path / "witness"
    witness.mkdir()
    (witness / "sitecustomize.py").write_text(WITNESS)
    path, out = write(tmp_path / "recipe.toml", recipe), tmp_path / "out"
    env = {"PYTHONPATH": f"{witness}{os.pathsep}{target}", "WITNESS": str(witness)}
    python("-m", "gristmill", "produce", path, "--out", str(out), cwd=elsewhere, **env)
    totals = json.loads((out / "manifest.json").read_text())["totals"]
    assert totals["asks"] == 64 and totals["kept"] > 0

    lines = [file.read_text().split(" ", 1) for file in witness.iterdir() if file.name.isdigit()]
    assert {place for _, place in lines} == {str(target / "gristmill" / "__init__.py")}
    programs = [program for program, _ in lines]
    assert "default_worker.py" in programs and any(program != "default_worker.py" for program in programs)
