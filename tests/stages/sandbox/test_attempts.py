"""Attempts on what Landlock does not govern, on this kernel and as on kernels with less."""

import os
import platform
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gristmill.records.errors import UserError
from gristmill.stages.sandbox import seccomp, syscalls
from gristmill.stages.sandbox.lock import LEAST_LANDLOCK, landlock_version
from gristmill.stages.sandbox.runner import Jail, Kernel, Limits, Outcome, Sandbox, Warm, check
from tests.stages.sandbox.attempts import ATTEMPTS, HONEST, PRELUDE

LIMITS = Limits(cpu_s=2, wall_s=30, scratch_mb=8)
# All that this kernel has, the least that is not refused, and those between that differ.
KERNELS = {
    "own": Kernel(),
    "least": Kernel(LEAST_LANDLOCK, namespaces=False),
    "without truncate": Kernel(2, namespaces=False),
    "without devices": Kernel(4),
    "without signals": Kernel(5),
}
DAILY = ("own", "least")
# What the kernel or the filter says to an attempt; 18: not between these folders, 22: not this file, 95: no attributes.
DENIALS = ("PermissionError", "OSError: [Errno 18]", "OSError: [Errno 22]", "OSError: [Errno 95]")
x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="the attempts make calls by number")


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A file in a folder that programs may not use, one in a folder that they may read, and a process."""
    folder, library = tmp_path_factory.mktemp("folder"), tmp_path_factory.mktemp("library")
    helper = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(100000)"])
    files = {"victim": str(folder / "victim"), "library": str(library / "module.py")}
    for file in files.values():
        Path(file).write_text("text = 1\n" * 1000)
        os.chmod(file, 0o644)
    yield {**files, "folder": str(folder), "helper": str(helper.pid)}
    assert helper.poll() is None
    helper.kill()
    helper.wait()


@pytest.fixture(
    scope="module", params=[k if k in DAILY else pytest.param(k, marks=pytest.mark.nightly) for k in KERNELS]
)
def sandbox(request: pytest.FixtureRequest, surroundings: dict[str, str]) -> Iterator[Sandbox]:
    """A sandbox whose programs may read the folder of the library."""
    kernel = KERNELS[request.param]
    if kernel.landlock > landlock_version() and request.param != "own":
        pytest.skip("this kernel has less")
    sandbox = Sandbox(1, Warm(paths=(os.path.dirname(surroundings["library"]),)), kernel)
    yield sandbox
    sandbox.close()


def state(surroundings: dict[str, str]) -> list[object]:
    """What an attempt could change: files, what is in their folders, and the process."""
    paths = [surroundings[name] for name in ("victim", "library", "folder")]
    paths += [os.path.dirname(surroundings["library"]), "/dev/null"]
    infos = [os.stat(path) for path in paths]
    values: list[object] = [(i.st_mode, i.st_uid, i.st_gid, i.st_mtime_ns, i.st_nlink, i.st_size) for i in infos]
    helper = int(surroundings["helper"])
    status = Path(f"/proc/{helper}/status").read_text()
    kept = [line for line in status.splitlines() if line.startswith(("State", "SigPnd", "ShdPnd", "TracerPid"))]
    values += [sorted(os.listdir(path)) for path in paths[2:4]] + [os.getpriority(os.PRIO_PROCESS, helper)]
    attributes = [os.listxattr(path) for path in paths[:2]]
    return [*values, *attributes, kept, os.sched_getaffinity(helper), Path(f"/proc/{helper}/limits").read_text()]


def prelude(surroundings: dict[str, str]) -> str:
    text = PRELUDE
    for name, value in surroundings.items():
        text = text.replace(f"{{{name}!r}}", repr(value)).replace(f"{{{name}}}", value)
    return text


def outcome(sandbox: Sandbox, program: str) -> Outcome:
    return sandbox.run([(program, "")], LIMITS)[0]


@x86_64
@pytest.mark.parametrize("name", ATTEMPTS)
def test_an_attempt_changes_nothing(name: str, sandbox: Sandbox, surroundings: dict[str, str]) -> None:
    program, verdict = ATTEMPTS[name]
    before = state(surroundings)
    result = outcome(sandbox, prelude(surroundings) + program)
    assert result.verdict == verdict, result
    if verdict == "error":
        assert (result.detail or "").startswith(DENIALS), "the attempt itself is wrong"
    assert state(surroundings) == before


@x86_64
def test_a_call_in_no_table_is_refused(sandbox: Sandbox, surroundings: dict[str, str]) -> None:
    tables = (syscalls.ALLOWED_CALLS, syscalls.OTHERS, syscalls.PRETENDED, syscalls.UNSUPPORTED)
    listed = {number for table in tables for number in table["x86_64"].values()}
    own = syscalls.OTHERS["x86_64"]
    listed -= {number for name, number in own.items() if name.startswith(("landlock", "cap", "seccomp"))}
    listed |= {335, 336}  # probes of the kernel, which no filter sees; they end any process that has none set
    program = f"for number in set(range(600)) - {listed}:\n    refused(number, 0, 0, 0, 0, 0, 0)"
    result = outcome(sandbox, prelude(surroundings) + program)
    assert result.verdict == "passed", result


def test_only_process_ids_differ_between_filters() -> None:
    filters = [b"".join(struct.pack("=HBBI", *line) for line in seccomp.instructions(pid)) for pid in (1, 4194304)]
    assert [seccomp.filter_of(pid) for pid in (1, 4194304)] == filters and filters[0] != filters[1]


def test_no_call_is_in_two_tables() -> None:
    for machine in syscalls.MACHINES:
        tables = [syscalls.ALLOWED_CALLS, syscalls.OTHERS, syscalls.PRETENDED, syscalls.UNSUPPORTED]
        numbers = [number for table in tables for number in table[machine].values()]
        names = [name for table in tables for name in table[machine]]
        assert len(numbers) == len(set(numbers)) and len(names) == len(set(names))


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_program_passes(name: str, sandbox: Sandbox) -> None:
    assert outcome(sandbox, HONEST[name]).verdict == "passed"


def test_a_kernel_that_does_not_cover_enough_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"needs Landlock 1 or newer .*kernel has none"):
        check(Kernel(LEAST_LANDLOCK - 1))
    with pytest.raises(UserError, match="nothing runs without it"):
        Sandbox(1, kernel=Kernel(LEAST_LANDLOCK - 1))


def test_a_jail_does_not_run_what_it_cannot_lock_in(surroundings: dict[str, str], tmp_path: Path) -> None:
    """The jail's own check, for a kernel that is not what the host has seen."""
    jail = Jail(str(tmp_path), Warm(), Kernel(LEAST_LANDLOCK - 1))
    result = jail.run(f"open({surroundings['folder']!r} + '/a', 'w')", "", LIMITS)
    jail.close()
    assert result.verdict == "unsandboxed" and "Landlock 1 is needed" in (result.detail or "")
    assert not os.path.exists(surroundings["folder"] + "/a")
