"""Runs programs one after another, each in a process of its own that is locked before the program's first line.

This file is a program: the host (runner.py) starts it as `python -S -s jail.py`, writes a line of JSON for each program
to its standard input, and reads a line of JSON for each from its standard output. It imports likely modules in advance,
so that a program costs a fork instead of the start of a Python. Its argument, JSON, may name statements to run before
the first program (`code`) and folders to import from (`paths`).
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

sys.path.insert(0, sys.argv[2] if __name__ == "__main__" else "")  # the folder of the package gristmill
from gristmill.stages.sandbox.lock import limit, lock

sys.path.pop(0)  # programs must not import it

LIKELY = (
    "abc array bisect calendar cmath collections collections.abc copy csv dataclasses datetime decimal enum fractions "
    "functools hashlib heapq io itertools json math numbers operator random re statistics string struct textwrap time "
    "typing unittest"
).split()
POLL_S = 0.02
REPORT = 3  # descriptor for the verdict of the harness
MAX_REPORT = 65536
LOCK_MARK = b"locked\n"  # written before the program's first line; the program itself may write what follows
HARNESS_VERDICTS = ("passed", "failed", "error", "syntax", "memory", "exited")
ADDRESS = re.compile(r"0x[0-9a-f]{6,}")  # addresses differ between processes
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


def run(request: dict[str, Any]) -> dict[str, Any]:
    """The result of a program, as the fields of `Outcome`."""
    scratch = tempfile.mkdtemp(prefix="program-", dir=request["folder"])
    output, out_end = os.pipe()
    report, report_end = os.pipe()
    start_time = time.monotonic()
    pid = os.fork()
    if not pid:
        code = 70
        try:
            _become(scratch, out_end, report_end, request)
            os.write(REPORT, LOCK_MARK)
            code = _program(request)
        except BaseException as error:  # noqa: BLE001 - the host gets the error, and nothing runs
            with contextlib.suppress(BaseException):
                os.write(REPORT, repr(error).encode("utf-8", "replace"))
        finally:
            os._exit(code)
    os.close(out_end)
    os.close(report_end)
    try:
        result = _watch(pid, output, report, scratch, start_time, request)
    finally:
        os.close(output)
        os.close(report)
        shutil.rmtree(scratch, ignore_errors=True)
    return result


def _become(scratch: str, out_end: int, report_end: int, request: dict[str, Any]) -> None:
    """Turn the fork into a locked process with its own descriptors, environment and folder."""
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
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - open as long as the program runs
    sys.stdout = open(1, "w", buffering=8192, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    limit(request["cpu_s"], request["memory_mb"], request["file_mb"], request["num_files"])
    lock(scratch, request["readable"])


def _program(request: dict[str, Any]) -> int:
    """Run the program, then each statement of the tests in its namespace, and report."""
    random.seed(0)
    space: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
    report: dict[str, Any] = {"verdict": "passed"}
    at = "program"
    try:
        exec(compile(request["program"], PROGRAM, "exec"), space)
        at = "tests"
        tree = ast.parse(request["tests"], TESTS)
        for number, statement in enumerate(tree.body):
            report["test"] = number
            exec(compile(ast.Module([statement], []), TESTS, "exec"), space)
        report.pop("test", None)
    except SyntaxError as error:
        report |= {"verdict": "syntax", "detail": f"{error.msg} (line {error.lineno})"}
    except MemoryError:
        space.clear()
        report |= {"verdict": "memory"}
    except SystemExit as error:
        report |= {"verdict": "exited", "detail": repr(error.code)}
    except AssertionError as error:
        report |= {"verdict": "failed" if at == "tests" else "error", "detail": _line(error)}
    except BaseException as error:  # noqa: BLE001 - whatever a program raises is a finding
        report |= {"verdict": "error", "detail": _line(error)}
    report["at"] = at
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
    os.write(REPORT, json.dumps(report).encode()[:MAX_REPORT])
    return 0


def _line(error: BaseException) -> str:
    """The exception, and its place in the program or the tests."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in (PROGRAM, TESTS)]
    where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return ADDRESS.sub("0x", f"{type(error).__name__}: {error}")[:400] + where


def _watch(
    pid: int, output: int, report: int, scratch: str, start_time: float, request: dict[str, Any]
) -> dict[str, Any]:
    """Read the output of a program until it ends or exceeds a limit and is killed."""
    text, report_bytes, verdict = b"", b"", None
    ends, exit_pid = {output, report}, 0
    while True:
        if not exit_pid:
            exit_pid, status, usage = os.wait4(pid, os.WNOHANG)
        ready = select.select(list(ends), [], [], 0 if exit_pid else POLL_S)[0] if ends else []
        for end in ready:
            data = os.read(end, 65536)
            if not data:
                ends.discard(end)
            elif end == output:
                text += data[: request["output_kb"] * 1024 + 1 - len(text)]
            else:
                report_bytes += data[: MAX_REPORT - len(report_bytes)]
        if exit_pid and not ready:
            break
        if not ends and not ready and not exit_pid:
            time.sleep(POLL_S / 4)
        if verdict is None and not exit_pid:
            verdict = _beyond(text, scratch, start_time, request)
            if verdict is not None:
                os.kill(pid, signal.SIGKILL)
    result: dict[str, Any] = {"verdict": verdict or "exited", "output": text.decode("utf-8", "replace")}
    if verdict is None and os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        result |= {"verdict": "timeout" if number in (signal.SIGXCPU, signal.SIGKILL) else "crashed", "signal": number}
    elif verdict is None:
        result |= read_report(report_bytes, len(request["tests"]))
    # Which of two clocks ended it first is random, and rows must not be.
    result["exit"] = None if result["verdict"] in ("timeout", "output", "files") else os.waitstatus_to_exitcode(status)
    result["cpu_s"] = round(usage.ru_utime + usage.ru_stime, 4)
    result["wall_s"] = round(time.monotonic() - start_time, 4)
    return result


def read_report(report: bytes, num_chars: int) -> dict[str, Any]:
    """The report of the harness; nothing if it has another form, because a program may write to REPORT too.

    `num_chars` is the length of the tests, which have no more statements. A child that ended before its locks is
    "unsandboxed"; a program cannot report that.
    """
    if not report.startswith(LOCK_MARK):
        return {"verdict": "unsandboxed", "detail": report.decode("utf-8", "replace") or "it ended before its locks"}
    try:
        fields = json.loads(report[len(LOCK_MARK) :])
    except (ValueError, RecursionError):
        return {}
    if not isinstance(fields, dict) or not {"verdict", "at"} <= fields.keys() <= {"verdict", "at", "detail", "test"}:
        return {}
    detail, test = fields.get("detail", ""), fields.get("test", 0)
    if (
        fields["verdict"] not in HARNESS_VERDICTS
        or fields["at"] not in ("program", "tests")
        or not isinstance(detail, str)
    ):
        return {}
    if type(test) is not int or not 0 <= test <= num_chars:
        return {}
    if "detail" in fields:
        fields["detail"] = detail.encode("utf-8", "replace").decode()
    return fields


def _beyond(text: bytes, scratch: str, start_time: float, request: dict[str, Any]) -> str | None:
    """The limit that a running program exceeds, as a verdict; None if it exceeds none."""
    if len(text) > request["output_kb"] * 1024:
        return "output"
    if time.monotonic() - start_time > request["wall_s"]:
        return "timeout"
    if _size(scratch) > request["scratch_mb"] << 20:
        return "files"
    return None


def _size(folder: str) -> int:
    """Bytes under the folder; files that vanish during the count do not count."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(root, name)).st_size
    return total


if __name__ == "__main__":
    main()
