"""Runs programs one after another, each in a process of its own that is locked before the program's first line.

This file is a program: the host (runner.py) starts it as `python -S -s jail.py`, writes a line of JSON for each program
to its standard input, and reads a line of JSON for each from its standard output. It has imported what programs are
likely to import, so that a program costs a fork and not the start of a Python. Its argument, JSON, may name statements
to run before the first program (`code`) and folders to import from (`paths`).
"""

import ast
import contextlib
import json
import os
import random
import re
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from typing import Any

sys.path.insert(0, sys.argv[2] if __name__ == "__main__" else "")  # where the package gristmill lies
from gristmill.stages.sandbox.lock import limit, lock

sys.path.pop(0)  # programs must not import it

LIKELY = (
    "abc array bisect calendar cmath collections collections.abc copy csv dataclasses datetime decimal enum fractions "
    "functools hashlib heapq io itertools json math numbers operator random re statistics string struct textwrap time "
    "typing unittest"
).split()
POLL_S = 0.02
REPORT = 3  # the descriptor that the harness tells its verdict by
MAX_REPORT = 65536
LOCKED = b"locked\n"  # told before the program's first line: what comes after it may be the program's own words
SPOKEN = ("passed", "failed", "error", "syntax", "memory", "exited")  # verdicts that the harness gives
ADDRESS = re.compile(r"0x[0-9a-f]{6,}")  # another one in every process
PROGRAM, TESTS = "program.py", "tests.py"


def main() -> None:
    for name in LIKELY:
        with contextlib.suppress(ImportError):
            __import__(name)
    warm = json.loads(sys.argv[1])
    sys.path += warm["paths"]
    exec(compile(warm["code"], "warm.py", "exec"), {"__name__": "warm"})
    sys.path.pop(0)
    print(json.dumps({"ready": os.getpid()}), flush=True)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)


def run(asked: dict[str, Any]) -> dict[str, Any]:
    """What became of one program."""
    scratch = tempfile.mkdtemp(prefix="program-", dir=asked["folder"])
    output, out_end = os.pipe()
    report, report_end = os.pipe()
    started = time.monotonic()
    pid = os.fork()
    if not pid:
        code = 70
        try:
            _become(scratch, out_end, report_end, asked)
            os.write(REPORT, LOCKED)
            code = _program(asked)
        except BaseException as error:  # noqa: BLE001 - the host is told, and nothing runs
            with contextlib.suppress(BaseException):
                os.write(REPORT, repr(error).encode("utf-8", "replace"))
        finally:
            os._exit(code)
    os.close(out_end)
    os.close(report_end)
    try:
        found = _watch(pid, output, report, scratch, started, asked)
    finally:
        os.close(output)
        os.close(report)
        shutil.rmtree(scratch, ignore_errors=True)
    return found


def _become(scratch: str, out_end: int, report_end: int, asked: dict[str, Any]) -> None:
    os.setsid()
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    null = os.open("/dev/null", os.O_RDONLY)
    ends = [os.dup(fd) for fd in (null, out_end, out_end, report_end)]
    for target, end in enumerate(ends):
        os.dup2(end, target)
    os.closerange(REPORT + 1, 4096)
    os.environ.clear()
    os.environ.update({"HOME": scratch, "TMPDIR": scratch, "PATH": "", "LANG": "C.UTF-8"})
    tempfile.tempdir = scratch
    os.chdir(scratch)
    os.umask(0o077)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - they stay open as long as the program runs
    sys.stdout = open(1, "w", buffering=8192, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    limit(asked["cpu_s"], asked["memory_mb"], asked["file_mb"], asked["num_files"])
    lock(scratch, asked["readable"])


def _program(asked: dict[str, Any]) -> int:
    """Run the program, then each statement of the tests in its names, and report."""
    random.seed(0)
    space: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
    told: dict[str, Any] = {"verdict": "passed"}
    at = "program"
    try:
        exec(compile(asked["program"], PROGRAM, "exec"), space)
        at = "tests"
        tree = ast.parse(asked["tests"], TESTS)
        for number, statement in enumerate(tree.body):
            told["test"] = number
            exec(compile(ast.Module([statement], []), TESTS, "exec"), space)
        told.pop("test", None)
    except SyntaxError as error:
        told |= {"verdict": "syntax", "detail": f"{error.msg} (line {error.lineno})"}
    except MemoryError:
        space.clear()
        told |= {"verdict": "memory"}
    except SystemExit as error:
        told |= {"verdict": "exited", "detail": repr(error.code)}
    except AssertionError as error:
        told |= {"verdict": "failed" if at == "tests" else "error", "detail": _line(error)}
    except BaseException as error:  # noqa: BLE001 - whatever a program raises is a finding
        told |= {"verdict": "error", "detail": _line(error)}
    told["at"] = at
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
    os.write(REPORT, json.dumps(told).encode()[:MAX_REPORT])
    return 0


def _line(error: BaseException) -> str:
    """The exception, and where in program or tests it came from."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in (PROGRAM, TESTS)]
    where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return ADDRESS.sub("0x", f"{type(error).__name__}: {error}")[:400] + where


def _watch(pid: int, output: int, report: int, scratch: str, started: float, asked: dict[str, Any]) -> dict[str, Any]:
    """Read what it writes until it ends, or goes beyond a limit and is ended."""
    text, told, verdict = b"", b"", None
    ends, done = {output, report}, 0
    while True:
        if not done:
            done, status, usage = os.wait4(pid, os.WNOHANG)
        ready = select.select(list(ends), [], [], 0 if done else POLL_S)[0] if ends else []
        for end in ready:
            data = os.read(end, 65536)
            if not data:
                ends.discard(end)
            elif end == output:
                text += data[: asked["output_kb"] * 1024 + 1 - len(text)]
            else:
                told += data[: MAX_REPORT - len(told)]
        if done and not ready:
            break
        if not ends and not ready and not done:
            time.sleep(POLL_S / 4)
        if verdict is None and not done:
            verdict = _beyond(text, scratch, started, asked)
            if verdict is not None:
                os.kill(pid, signal.SIGKILL)
    found: dict[str, Any] = {"verdict": verdict or "exited", "output": text.decode("utf-8", "replace")}
    if verdict is None and os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        found |= {"verdict": "timeout" if number in (signal.SIGXCPU, signal.SIGKILL) else "crashed", "signal": number}
    elif verdict is None:
        found |= reported(told, len(asked["tests"]))
    # Which of two clocks ended it first is chance, and rows hold none.
    found["exit"] = None if found["verdict"] in ("timeout", "output", "files") else os.waitstatus_to_exitcode(status)
    found["cpu_s"] = round(usage.ru_utime + usage.ru_stime, 4)
    found["wall_s"] = round(time.monotonic() - started, 4)
    return found


def reported(told: bytes, num_chars: int) -> dict[str, Any]:
    """What the harness told by REPORT; nothing where it is not the harness's form, as a program may write there too.

    `num_chars` of the tests: they have no more statements. A child that did not get as far as its locks is
    "unsandboxed", and no program can say so.
    """
    if not told.startswith(LOCKED):
        return {"verdict": "unsandboxed", "detail": told.decode("utf-8", "replace") or "it ended before its locks"}
    try:
        found = json.loads(told[len(LOCKED) :])
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict) or not {"verdict", "at"} <= found.keys() <= {"verdict", "at", "detail", "test"}:
        return {}
    detail, test = found.get("detail", ""), found.get("test", 0)
    if found["verdict"] not in SPOKEN or found["at"] not in ("program", "tests") or not isinstance(detail, str):
        return {}
    if type(test) is not int or not 0 <= test <= num_chars:
        return {}
    if "detail" in found:
        found["detail"] = detail.encode("utf-8", "replace").decode()
    return found


def _beyond(text: bytes, scratch: str, started: float, asked: dict[str, Any]) -> str | None:
    if len(text) > asked["output_kb"] * 1024:
        return "output"
    if time.monotonic() - started > asked["wall_s"]:
        return "timeout"
    if _size(scratch) > asked["scratch_mb"] << 20:
        return "files"
    return None


def _size(folder: str) -> int:
    """Bytes under the folder; what vanishes meanwhile counts nothing."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(root, name)).st_size
    return total


if __name__ == "__main__":
    main()
