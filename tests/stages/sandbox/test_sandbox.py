"""Programs that try to get out, and what the sandbox says of those that do not."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.stages.sandbox import jail, runner
from gristmill.stages.sandbox.runner import Limits, Outcome, Sandbox
from tests.faults import wait_until

# A program that waits for a busy machine must not end as one that hangs; those that are to hang need not last.
SHORT = Limits(cpu_s=1, wall_s=30, memory_mb=256, output_kb=16, file_mb=4, scratch_mb=8)
HANGING = replace(SHORT, wall_s=2)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    found = Sandbox(1)
    yield found
    found.close()


def outcome(sandbox: Sandbox, program: str, tests: str = "", limits: Limits = SHORT) -> Outcome:
    return sandbox.run([(program, tests)], limits)[0]


# Each must fail inside: it ends with the verdict named, and the jail lives to run the next program.
ESCAPES = {
    "a socket": ("import socket; socket.socket()", "error"),
    "a unix socket": ("import socket; socket.socket(socket.AF_UNIX)", "error"),
    "a socket pair": ("import socket; socket.socketpair()", "error"),
    "a netlink socket": ("import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)", "error"),
    "DNS": ("import socket; socket.getaddrinfo('example.org', 80)", "error"),
    "a web page": ("import urllib.request as u; u.urlopen('http://127.0.0.1:{port}', timeout=1)", "error"),
    "the user's home": ("open('{home}/.profile').read()", "error"),
    "a secret file": ("open('{secret}').read()", "error"),
    "a listing of the root": ("import os; os.listdir('/')", "error"),
    "the password file": ("open('/etc/passwd').read()", "error"),
    "writing outside": ("open('{outside}/mine', 'w').write('x')", "error"),
    "writing into the library": ("import os; open(os.__file__, 'a')", "error"),
    "removing outside": ("import os; os.remove('{secret}')", "error"),
    "a link to a secret": ("import os; os.symlink('{secret}', 'a'); open('a').read()", "error"),
    "a hard link to a secret": ("import os; os.link('{secret}', 'a'); open('a').read()", "error"),
    "up and out of the folder": ("import os; os.chdir('../../../..'); open('etc/passwd').read()", "error"),
    "a fork": ("import os; os.fork()", "error"),
    "a fork bomb": ("import os\nwhile True:\n    os.fork()", "error"),
    "a shell": ("import os; assert os.system('true') == 0", "error"),
    "another program": ("import subprocess; subprocess.run(['/bin/true'])", "error"),
    "exec": ("import os; os.execv('/bin/true', ['true'])", "error"),
    "a daemon": ("import os\nif os.fork() == 0:\n    os.setsid()\n    while True: pass", "error"),
    "multiprocessing": ("import multiprocessing as m; p = m.Process(target=print); p.start(); p.join()", "error"),
    "a bomb of memory": ("a = []\nwhile True:\n    a.append(bytearray(10**7))", "memory"),
    "one large piece of memory": ("a = bytearray(10**12)", "memory"),
    "a loop without end": ("while True: pass", "timeout"),
    "sleeping for ever": ("import time; time.sleep(10**6)", "timeout"),
    "waiting for input": ("input()", "error"),
    "output without end": ("while True: print('x' * 1000)", "output"),
    "a large file": ("open('a', 'wb').write(bytes(10**8))", "error"),
    "many files": ("for i in range(10**6): open(str(i), 'wb').write(bytes(10**6))", "files"),
    "many open files": ("a = [open('/dev/null') for _ in range(10**4)]", "error"),
    "killing its parent": ("import os; os.kill(os.getppid(), 9)", "error"),
    "killing everybody": ("import os; os.kill(-1, 9)", "error"),
    "killing its group": ("import os; os.killpg(0, 9)", "error"),
    "tracing its parent": (
        "import ctypes, os; assert ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0", "error",
    ),
    "its parent's memory": ("import os; open(f'/proc/{os.getppid()}/mem', 'rb')", "error"),
    "its parent's environment": ("import os; open(f'/proc/{os.getppid()}/environ', 'rb')", "error"),
    "its own memory by /proc": ("open('/proc/self/mem', 'r+b')", "error"),
    "the root by /proc": ("open('/proc/self/root/etc/passwd')", "error"),
    "open files of others by /proc": ("import os; os.listdir('/proc/self/fd')", "error"),
    "mounting": ("import ctypes; assert ctypes.CDLL(None).mount(b'none', b'.', b'tmpfs', 0, None) == 0", "error"),
    "a namespace": ("import ctypes; assert ctypes.CDLL(None).unshare(0x10000000) == 0", "error"),
    "becoming another user": ("import os; os.setuid(1)", "error"),
    "raising its limits": (
        "import resource as r; r.setrlimit(r.RLIMIT_CPU, (r.RLIM_INFINITY, r.RLIM_INFINITY))", "error",
    ),
    "the keyring": ("import ctypes; assert ctypes.CDLL(None).syscall(250, 0, -3, 1) >= 0", "error"),
    "io_uring": ("import ctypes; assert ctypes.CDLL(None).syscall(425, 8, b'0' * 120) >= 0", "error"),
    "the other numbering": ("import ctypes; assert ctypes.CDLL(None).syscall(0x40000000 + 41, 2, 1, 0) >= 0", "error"),
    "a crash of the interpreter": ("import ctypes; ctypes.string_at(0)", "crashed"),
    "deep recursion": ("f = lambda: f()\nf()", "error"),
    "leaving early": ("import sys; sys.exit(0)", "exited"),
    "leaving without a word": ("import os; os._exit(0)", "exited"),
    "a verdict that is none": ("import os; os.write(3, b'{\"a\": 1}'); os._exit(0)", "exited"),
    "no object": ("import os; os.write(3, b'[1]'); os._exit(0)", "exited"),
    "a verdict too deep to read": ("import os; os.write(3, b'[' * 60000); os._exit(0)", "exited"),
    "a verdict of wrong types": (
        "import os; os.write(3, b'{\"verdict\": \"passed\", \"at\": \"tests\", \"test\": \"1\"}'); os._exit(0)",
        "exited",
    ),
    "a verdict that cannot be hashed": (
        "import os; os.write(3, b'{\"verdict\": [], \"at\": {}}'); os._exit(0)", "exited",
    ),
    "a test beyond all numbers": (
        "import os; os.write(3, b'{\"verdict\": \"failed\", \"at\": \"tests\", \"test\": 9999999999}'); os._exit(0)",
        "exited",
    ),
    "stopping the run": (
        "import os; os.write(3, b'{\"verdict\": \"unsandboxed\", \"at\": \"tests\"}'); os._exit(0)", "exited",
    ),
    "breaking the harness": ("import json, os; json.dumps = os.write = None", "passed"),
    "an error of half a character": ("raise ValueError(chr(0xd800))", "error"),
}  # fmt: skip


@pytest.fixture(scope="module")
def around(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What there is to get at: a server that answers, a secret, a folder that anybody may write to."""
    folder = tmp_path_factory.mktemp("around")
    (folder / "secret").write_text("secret")
    (folder / "outside").mkdir(mode=0o777)
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_serve, args=(server,), daemon=True).start()
    yield {
        "port": str(server.getsockname()[1]),
        "home": os.path.expanduser("~"),
        "secret": str(folder / "secret"),
        "outside": str(folder / "outside"),
    }
    server.close()


def _serve(server: socket.socket) -> None:
    while True:
        try:
            end, _ = server.accept()
        except OSError:
            return
        end.recv(1000)
        end.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello")
        end.close()


@pytest.mark.parametrize("name", ESCAPES)
def test_nothing_gets_out(name: str, sandbox: Sandbox, around: dict[str, str]) -> None:
    program, verdict = ESCAPES[name]
    for key, value in around.items():
        program = program.replace("{" + key + "}", value)
    before = _processes()
    started = time.monotonic()
    found = outcome(sandbox, program, limits=HANGING if verdict == "timeout" else SHORT)
    assert found.verdict == verdict, found
    assert time.monotonic() - started < 30
    assert Path(around["secret"]).read_text() == "secret" and not list(Path(around["outside"]).iterdir())
    # Orphans of another worker's tests, whose hosts are killed, take a moment to end.
    wait_until("nobody is left behind", lambda: _processes() <= before)
    assert outcome(sandbox, "x = 1", "assert x == 1").verdict == "passed", "the jail lives"


def _processes() -> set[int]:
    """Processes of sandboxes that are there and not about to be reaped: ours, and those that have lost their parent.

    Another worker of this test run may have sandboxes too.
    """
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if _is_jail(process):
                parent = process.parent()
                while parent is not None and _is_jail(parent):
                    parent = parent.parent()
                if parent is None or parent.pid in (1, os.getpid()):
                    found.add(process.pid)
    return found


def _is_jail(process: psutil.Process) -> bool:
    return any("jail.py" in word for word in process.cmdline())


def test_the_same_attempts_succeed_without_the_sandbox(around: dict[str, str]) -> None:
    """So the tests above can fail: it is the sandbox that stops them."""
    import urllib.request

    assert urllib.request.urlopen(f"http://127.0.0.1:{around['port']}", timeout=5).read() == b"hello"
    assert Path(around["secret"]).read_text() == "secret" and os.listdir("/") and Path("/etc/passwd").read_text()


def test_the_host_s_environment_is_not_seen(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    other = Sandbox(1)
    found = outcome(other, "import os; print(sorted(os.environ))")
    other.close()
    assert found.verdict == "passed" and "AWS" not in found.output and "HOME" in found.output


def test_programs_do_not_see_each_other(sandbox: Sandbox) -> None:
    assert outcome(sandbox, "import json; json.mine = 1; open('left', 'w').write('x')").verdict == "passed"
    program = "import json, os; assert not hasattr(json, 'mine') and os.listdir('.') == []"
    assert outcome(sandbox, program).verdict == "passed"


@pytest.mark.parametrize(
    ("program", "tests", "verdict", "number"),
    [
        ("def f(x): return x + 1", "assert f(1) == 2\nassert f(2) == 3", "passed", None),
        ("def f(x): return x", "assert f(1) == 1\nassert f(1) == 2", "failed", 1),
        ("def f(x): return 1 / x", "f(1)\nf(0)", "error", 1),
        ("def f(x) return x", "assert f(1)", "syntax", None),
        ("def f(x): return x", "assert f(", "syntax", None),
        ("raise ValueError('no')", "assert True", "error", None),
        ("import threading as t; a = t.Thread(target=print); a.start(); a.join()", "assert a", "passed", None),
        ("open('a', 'w').write('b'); c = open('a').read()", "assert c == 'b'", "passed", None),
        ("import numpy", "", "error", None),
    ],
)
def test_verdicts(sandbox: Sandbox, program: str, tests: str, verdict: str, number: int | None) -> None:
    found = outcome(sandbox, program, tests)
    assert (found.verdict, found.test) == (verdict, number)


def test_standard_input_can_be_read_and_not_written(sandbox: Sandbox) -> None:
    program = (
        "import os, sys\nassert sys.stdin.read() == 'text' and os.lseek(0, 0, 0) == 0 and sys.stdin.read() == 'text'\n"
    )
    for change in ("os.write(0, b'x')", "os.ftruncate(0, 0)", "open('/proc/self/fd/0', 'r+b', 0).write(b'x')"):
        assert sandbox.one(runner.Job(program, stdin="text"), SHORT).verdict == "passed"
        found = sandbox.one(runner.Job(program + change, stdin="text"), SHORT)
        assert found.verdict == "error" and "PermissionError" in (found.detail or ""), found


def test_several_workers_and_many_programs_keep_their_order() -> None:
    sandbox = Sandbox(2)
    programs = [(f"x = {i}", f"assert x % 3 == {i % 3} and x != 7") for i in range(30)]
    found = [o.verdict for o in sandbox.run(programs, SHORT)]
    sandbox.close()
    assert found == ["failed" if i == 7 else "passed" for i in range(30)]


def test_a_jail_that_is_killed_is_replaced(sandbox: Sandbox) -> None:
    lost = sandbox._jails.get()
    assert lost is not None
    lost._process.kill()
    sandbox._jails.put(lost)
    assert outcome(sandbox, "x = 1").verdict == "crashed"
    assert outcome(sandbox, "x = 1").verdict == "passed"


def test_a_jail_that_cannot_be_replaced_is_an_error_and_no_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = Sandbox(1)

    def refuse(folder: str, warm: runner.Warm, kernel: runner.Kernel) -> None:
        raise EOFError("the jail has ended")

    def lose() -> None:
        lost = sandbox._jails.get()
        assert lost is not None
        lost._process.kill()
        sandbox._jails.put(lost)

    lose()
    with monkeypatch.context() as patched:
        patched.setattr(runner, "Jail", refuse)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="does not start"):
                outcome(sandbox, "x = 1")
    assert outcome(sandbox, "x = 1").verdict == "passed", "it is started anew when it can be"
    sandbox.close()


def test_a_jail_that_does_not_start_leaves_none_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    before, made, real = _processes(), [], runner.Jail

    def second_fails(folder: str, warm: runner.Warm, kernel: runner.Kernel) -> runner.Jail:
        if made:
            raise TimeoutError("the jail does not answer")
        made.append(real(folder, warm, kernel))
        return made[0]

    monkeypatch.setattr(runner, "Jail", second_fails)
    with pytest.raises(RuntimeError, match="does not answer"):
        Sandbox(2)
    assert made and _processes() <= before


MESSAGES = st.one_of(
    st.binary(max_size=40),
    st.fixed_dictionaries(
        {},
        optional={
            "verdict": st.sampled_from(["passed", "failed", "unsandboxed", None, 1]),
            "at": st.sampled_from(["tests", "program", "", 2]),
            "test": st.one_of(st.integers(), st.booleans(), st.none()),
            "detail": st.one_of(st.text(), st.just("\ud800"), st.integers()),
            "exit": st.just(0),
        },
    ).map(lambda told: json.dumps(told).encode()),
)


@given(MESSAGES, st.booleans())
def test_whatever_a_program_writes_as_its_verdict_is_an_outcome(message: bytes, is_locked: bool) -> None:
    found = Outcome(**{"verdict": "exited", **jail.read_report((jail.LOCK_MARK if is_locked else b"") + message, 10)})
    assert found.verdict in (("passed", "failed", "exited") if is_locked else ("unsandboxed",))
    assert found.test is None or (type(found.test) is int and 0 <= found.test <= 10)
    assert found.detail is None or found.detail.encode("utf-8")
    assert found.at in (None, "program", "tests")


def test_without_locks_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from gristmill.records.errors import UserError

    monkeypatch.setattr(runner, "landlock_version", lambda: 0)
    with pytest.raises(UserError, match="nothing runs without it"):
        Sandbox(1)
    with pytest.raises(ValueError, match="at least 64"):
        Limits(memory_mb=1)


def test_no_detail_names_the_folder_of_the_run(sandbox: Sandbox) -> None:
    """That name differs between runs, and rows must not."""
    program = "import os\nopen(os.path.join(os.getcwd(), 'there', 'a'))"
    for tests in ("", "assert 1"):
        assert outcome(sandbox, program, tests).detail == (
            "FileNotFoundError: [Errno 2] No such file or directory: '~/there/a' at program.py:2"
        )
