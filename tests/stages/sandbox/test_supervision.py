"""No program outlives its jail, no jail its host, and nothing of them remains."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from gristmill.records.processes import this_process
from gristmill.stages.sandbox import folders
from gristmill.stages.sandbox.runner import Job, Kernel, Limits, Outcome, Sandbox
from tests.session import ROOT

FORMS = {"in memory": Kernel(), "on disk": Kernel(namespaces=False)}
LONG = Limits(cpu_s=1000, wall_s=1000, scratch_files=3000)
PATIENCE_S = 60.0
# Each is still there if nothing ends it: it makes what cannot be walked by paths, then sleeps or spins.
DEEP = "import os\ntop = os.open('.', os.O_RDONLY)\nfor _ in range(1200): os.mkdir('a' * 100); os.chdir('a' * 100)\n"
SLEEP = "import os, time\nopen('ready', 'w')\ntime.sleep(10000)"
LASTING = {
    "asleep": SLEEP,
    "in deep folders": DEEP + "os.fchdir(top)\n" + SLEEP,
    "busy": "open('ready', 'w')\nwhile True: pass",
    "silent": "import os\nopen('ready', 'w')\nfor end in range(5):\n    try: os.close(end)\n    except OSError: pass\n"
    "import time; time.sleep(10000)",
    "deaf": "import signal, time\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n"
    "    except (OSError, ValueError): pass\nopen('ready', 'w')\ntime.sleep(10000)",
    "stopped": "import os, signal\nopen('ready', 'w')\nos.kill(os.getpid(), signal.SIGSTOP)",
    "in threads": "import threading, time\n"
    "for _ in range(5): threading.Thread(target=time.sleep, args=(10000,)).start()\n"
    "open('ready', 'w'); time.sleep(10000)",
    "without its first thread": "import ctypes, threading, time\n"
    "threading.Thread(target=time.sleep, args=(10000,)).start()\nopen('ready', 'w')\nctypes.CDLL(None).syscall(60, 0)",
}  # fmt: skip
HOST = """
import sys
from gristmill.stages.sandbox.runner import Kernel, Limits, Sandbox
sandbox = Sandbox(1, kernel=Kernel(namespaces={namespaces}))
print(sandbox._folder.path, flush=True)
sandbox.run([({program!r}, "")], Limits(cpu_s=1000, wall_s=1000, scratch_files=3000))
"""


def wait_for(condition: Callable[[], bool], what: str) -> None:
    end_time = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_time, what
        time.sleep(0.005)


def processes_below(pid: int) -> list[int]:
    """All processes that a process has started, its own before theirs."""
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def is_ready(host: int, is_private: bool) -> bool:
    """Whether the program of a host runs: the file that it makes first is there."""
    below = processes_below(host)
    return len(below) > 1 and os.path.exists(f"/proc/{below[0]}/root{_scratch(below[0])}/ready")


def _scratch(jail: int) -> str:
    folder = Path(f"/proc/{jail}/cwd").resolve()
    return str(next(folder.iterdir()) / "scratch")


def start(form: str, program: str, temporary: Path) -> tuple[subprocess.Popen[str], str]:
    """A host that runs the program, which has begun, and its folder in `temporary`, which no other sandbox sweeps."""
    code = HOST.format(namespaces=FORMS[form].namespaces, program=program)
    environment = {**os.environ, "TMPDIR": str(temporary)}
    host = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
    assert host.stdout is not None
    folder = host.stdout.readline().strip()
    wait_for(lambda: is_ready(host.pid, FORMS[form].namespaces), "the program does not begin")
    return host, folder


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["asleep", "in deep folders"])
def test_a_killed_host_leaves_nothing(form: str, name: str, tmp_path: Path) -> None:
    host, folder = start(form, LASTING[name], tmp_path)
    below = processes_below(host.pid)
    host.kill()
    host.wait()
    wait_for(lambda: not any(os.path.exists(f"/proc/{each}") for each in below), "processes are left")
    wait_for(lambda: not os.listdir(tmp_path), f"files are left in {folder}")


def test_a_host_that_ends_without_closing_leaves_nothing() -> None:
    code = "from gristmill.stages.sandbox.runner import Limits, Sandbox\ns = Sandbox(2)\nprint(s._folder.path)\n"
    code += "assert s.run([('x = 1', '')] * 3, Limits())[2].verdict == 'passed'"
    folder = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT, check=True
    ).stdout.strip()
    assert folders.PREFIX in folder
    wait_for(lambda: not os.path.exists(folder), "files are left")


@pytest.mark.parametrize("form", FORMS)
def test_what_a_killed_host_and_its_killed_jail_leave_is_deleted_by_the_next_sandbox(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, folder = start(form, LASTING["in deep folders"], tmp_path)
    below = processes_below(host.pid)
    os.kill(below[0], signal.SIGSTOP)  # so that it cannot notice the end of the host
    host.kill()
    host.wait()
    os.kill(below[0], signal.SIGKILL)
    wait_for(lambda: not any(os.path.exists(f"/proc/{each}") for each in below), "processes are left")
    assert os.path.exists(folder)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folders.sweep()
    assert not os.listdir(tmp_path)


def test_folders_of_living_processes_and_strangers_are_not_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    own = folders.Folder()
    dead = this_process().rpartition("-")[0] + "-1"  # the same process id, another start
    names = {
        "dead": f"{folders.PREFIX}{dead}-aaaa",
        "held": f"{folders.PREFIX}{dead}-bbbb",
        "elsewhere": f"{folders.PREFIX}another-host-1-1-cccc",
        "unsigned": f"{folders.PREFIX}dddd",
    }
    for name in names.values():
        (tmp_path / name / "a" / "b").mkdir(parents=True)
    (tmp_path / f"{folders.PREFIX}{dead}-eeee").symlink_to(tmp_path / names["unsigned"])
    (tmp_path / f"{folders.PREFIX}{dead}-ffff").write_text("a file")
    code = "import fcntl, os, sys\nend = os.open(sys.argv[1], os.O_RDONLY)\nfcntl.flock(end, fcntl.LOCK_EX)\n"
    code += "print(flush=True)\nsys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / names["held"])], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None and holder.stdin is not None
    holder.stdout.readline()
    folders.sweep()
    assert {name for name, folder in names.items() if not (tmp_path / folder / "a" / "b").exists()} == {"dead"}
    assert os.path.isdir(own.path)
    holder.stdin.close()
    holder.wait()
    folders.sweep()
    assert not (tmp_path / names["held"]).exists()
    own.close()
    own.close()
    assert not os.path.exists(own.path)


@pytest.mark.parametrize(
    ("form", "name"),
    [
        *(("in memory", name) for name in LASTING),
        ("on disk", "in deep folders"),
        *(pytest.param("on disk", name, marks=pytest.mark.nightly) for name in LASTING if name != "in deep folders"),
    ],
)
def test_a_program_ends_with_its_jail(form: str, name: str) -> None:
    sandbox = Sandbox(1, kernel=FORMS[form])
    jail = sandbox._jails.get()
    assert jail is not None
    sandbox._jails.put(jail)
    results: list[Outcome] = []
    thread = threading.Thread(target=lambda: results.extend(sandbox.run([(LASTING[name], "")], LONG)), daemon=True)
    thread.start()
    pid = jail._process.pid

    def program() -> list[int]:
        below = processes_below(pid)
        ready = f"/proc/{pid}/root{jail._folder}/scratch/ready"
        return below if os.path.exists(ready) else []

    wait_for(lambda: bool(program()), "the program does not begin")
    children = program()
    jail._process.kill()
    thread.join()
    assert [result.verdict for result in results] == ["crashed"]
    wait_for(lambda: not any(os.path.exists(f"/proc/{child}") for child in children), "the program is left")
    folder = sandbox._folder.path
    assert sandbox.run([("x = 1", "")], LONG)[0].verdict == "passed"
    sandbox.close()
    assert not os.path.exists(folder)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", [name for name in LASTING if name != "in deep folders"])
def test_a_program_that_lasts_is_ended(form: str, name: str, sandboxes: dict[str, Sandbox]) -> None:
    limits = Limits(cpu_s=1000, wall_s=0.3, scratch_files=3000)
    jail = sandboxes[form]._jails.get()
    sandboxes[form]._jails.put(jail)
    assert jail is not None
    before = processes_below(jail._process.pid)  # its template
    result = sandboxes[form].run([(LASTING[name], "")], limits)[0]
    assert result.verdict == "timeout", result
    assert len(before) == 1 and processes_below(jail._process.pid) == before


def test_a_template_that_is_killed_is_replaced_with_its_jail() -> None:
    sandbox = Sandbox(1)
    for _ in range(2):
        jail = sandbox._jails.get()
        assert jail is not None
        sandbox._jails.put(jail)
        os.kill(processes_below(jail._process.pid)[0], signal.SIGKILL)
        assert sandbox.run([("x = 1", "")], LONG)[0].verdict == "crashed"
        assert sandbox.run([("x = 1", "assert x")], LONG)[0].verdict == "passed"
    sandbox.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may read the memory of a process without capabilities")
def test_a_template_holds_no_text_of_a_program_or_its_tests() -> None:
    marks = [f"{word}-{os.urandom(8).hex()}" for word in ("program", "tests", "input", "output")]
    sandbox = Sandbox(1)
    sandbox.run([(f"x = {marks[0]!r}\nprint({marks[3]!r})", f"assert x == {marks[1]!r}, {marks[1]!r}")] * 3, LONG)
    sandbox.one(Job("print(input())", stdin=marks[2]), LONG)
    jail = sandbox._jails.get()
    assert jail is not None
    sandbox._jails.put(jail)
    memory = memory_of(processes_below(jail._process.pid)[0])
    assert b"gristmill" in memory and not [mark for mark in marks if mark.encode() in memory]
    assert not [mark for mark in marks[:3] if mark.encode() not in memory_of(os.getpid())], "the search finds nothing"
    sandbox.close()


def memory_of(pid: int) -> bytes:
    """The writable memory of a process."""
    parts = []
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as file:
        for line in maps:
            start, end = (int(word, 16) for word in line.split()[0].split("-"))
            if " rw-p " in line and end - start < 1 << 28:
                file.seek(start)
                parts.append(file.read(end - start))
    return b"".join(parts)


@pytest.fixture(scope="module")
def sandboxes() -> Iterator[dict[str, Sandbox]]:
    sandboxes = {form: Sandbox(1, kernel=kernel) for form, kernel in FORMS.items()}
    yield sandboxes
    for sandbox in sandboxes.values():
        sandbox.close()
