"""Runs programs one after another, each in a process of its own that is locked before the program's first line.

This file is a program: the host (runner.py) starts it as `python -S -s jail.py`, writes a line of JSON for each program
to its standard input, and reads a line of JSON for each from its standard output. It imports likely modules in advance,
so that a program costs a fork instead of the start of a Python. Its argument, JSON, has `folder` (to be created, for
the files of its programs), `host` (the process id of the host), `landlock` and `namespaces` (what to use of the
kernel), `code` (statements to run before the first program) and `paths` (folders to import from).

It ends with the host, and a program ends with it; nothing of them remains.
"""

import ast
import contextlib
import errno
import json
import os
import random
import re
import signal
import sys
import tempfile
import traceback
from typing import Any

sys.path.insert(0, sys.argv[2] if __name__ == "__main__" else "")  # the folder of the package gristmill
from gristmill.stages.sandbox.lock import limit, lock
from gristmill.stages.sandbox.pretence import pretend
from gristmill.stages.sandbox.scratch import Scratch
from gristmill.stages.sandbox.seccomp import filter_of
from gristmill.stages.sandbox.supervise import MAX_REPORT, Ending, Host, HostGone, watch

sys.path.pop(0)  # programs must not import it

LIKELY = (
    "abc array bisect calendar cmath collections collections.abc copy csv dataclasses datetime decimal enum fractions "
    "functools hashlib heapq io itertools json math numbers operator random re statistics string struct textwrap time "
    "typing unittest"
).split()
REPORT = 3  # descriptor for the verdict of the harness
LOCK_MARK = b"locked\n"  # written before the program's first line; the program itself may write what follows
HARNESS_VERDICTS = ("passed", "failed", "error", "syntax", "memory", "files", "exited")
ADDRESS = re.compile(r"0x[0-9a-f]{6,}")  # addresses differ between processes
PROGRAM, TESTS = "program.py", "tests.py"


def main() -> None:
    options = json.loads(sys.argv[1])
    host = Host(options["host"])
    scratch = Scratch(options["folder"], options["namespaces"])
    try:
        for name in LIKELY:
            with contextlib.suppress(ImportError):
                __import__(name)
        sys.path += options["paths"]
        exec(compile(options["code"], "warm.py", "exec"), {"__name__": "warm"})
        sys.path.pop(0)
        filter_of(os.getpid())  # builds what all filters have in common
        print(json.dumps({"ready": os.getpid(), "is_private": scratch.is_private}), flush=True)
        with contextlib.suppress(HostGone, BrokenPipeError):
            while True:
                request = json.loads(host.line())
                print(json.dumps(run(request, options["landlock"], scratch, host)), flush=True)
    finally:
        scratch.close()
        with contextlib.suppress(OSError):  # other jails may still use it
            os.rmdir(os.path.dirname(options["folder"]))


def run(request: dict[str, Any], landlock: int, scratch: Scratch, host: Host) -> dict[str, Any]:
    """The result of a program, as the fields of `Outcome`."""
    scratch.open(request)
    output, out_end = os.pipe()
    report, report_end = os.pipe()
    jail_pid = os.getpid()
    pid = os.fork()
    if not pid:
        code = 70
        try:
            _become(scratch, out_end, report_end, jail_pid, landlock, request)
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
        return _result(watch(pid, output, report, scratch, host, request), len(request["tests"]))
    finally:
        os.close(output)
        os.close(report)
        scratch.clear()


def _become(
    scratch: Scratch, out_end: int, report_end: int, jail_pid: int, landlock: int, request: dict[str, Any]
) -> None:
    """Turn the fork into a locked process with its own descriptors, environment and folder."""
    os.setsid()
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    null = os.open("/dev/null", os.O_RDONLY)
    ends = [os.dup(fd) for fd in (null, out_end, out_end, report_end)]
    for target, end in enumerate(ends):
        os.dup2(end, target)
    os.closerange(REPORT + 1, 4096)
    os.environ.clear()
    os.environ.update({"HOME": scratch.path, "TMPDIR": scratch.path, "PATH": "", "LANG": "C.UTF-8"})
    tempfile.tempdir = scratch.path
    os.chdir(scratch.path)
    os.umask(0o077)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - open as long as the program runs
    sys.stdout = open(1, "w", buffering=8192, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    pretend(scratch.path)
    limit(request["cpu_s"], request["memory_mb"], min(request["file_mb"], request["scratch_mb"]), request["num_files"])
    lock(scratch.path, request["readable"], jail_pid, landlock, not scratch.is_private)


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
    except OSError as error:
        report |= {"verdict": "files"} if error.errno == errno.ENOSPC else {"verdict": "error", "detail": _line(error)}
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


def _result(ending: Ending, num_chars: int) -> dict[str, Any]:
    """The fields of `Outcome`; `num_chars` is the length of the tests."""
    verdict = ending.verdict
    result: dict[str, Any] = {"verdict": verdict or "exited", "output": ending.output.decode("utf-8", "replace")}
    if verdict is None and os.WIFSIGNALED(ending.status):
        number = os.WTERMSIG(ending.status)
        result |= {"verdict": "timeout" if number in (signal.SIGXCPU, signal.SIGKILL) else "crashed", "signal": number}
    elif verdict is None:
        result |= read_report(ending.report, num_chars)
        if result["verdict"] == "files":  # the kernel refused a file that the count would have found a moment later
            result = {"verdict": "files", "output": result["output"]}
    # Which of two clocks ended it first is random, and rows must not be.
    is_cut = result["verdict"] in ("timeout", "output", "files")
    result["exit"] = None if is_cut else os.waitstatus_to_exitcode(ending.status)
    return result | {"cpu_s": round(ending.cpu_s, 4), "wall_s": round(ending.wall_s, 4)}


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


if __name__ == "__main__":
    main()
