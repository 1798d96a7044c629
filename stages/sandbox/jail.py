"""Runs programs one after another, each in a process of its own that is locked before the program's first line.

This file is a program: the host (runner.py) starts it as `python -S -s jail.py`, writes messages (wire.py) for each
program to its standard input, and reads a line of JSON for each from its standard output. It imports likely modules in
advance, so that a program costs forks instead of the start of a Python. Its argument, JSON, has `folder` (to be
created, for the files of its programs), `host` (the process id of the host), `landlock` and `namespaces` (what to use
of the kernel), `code` (statements to run before the first program) and `paths` (folders to import from).

For each program it forks a supervisor, which reads the program, forks the program's process, then reads the tests and
forks theirs. So neither the jail nor the program's process ever holds tests, of this program or of another.

It ends with the host, and a program ends with it; nothing of them remains.
"""

import builtins
import contextlib
import json
import os
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from typing import Any

sys.path.insert(0, sys.argv[2] if __name__ == "__main__" else "")  # the folder of the package gristmill
from gristmill.stages.sandbox import report as details
from gristmill.stages.sandbox import wire
from gristmill.stages.sandbox.judge import judge
from gristmill.stages.sandbox.lock import end_with, limit, lock
from gristmill.stages.sandbox.pretence import pretend
from gristmill.stages.sandbox.program import run_alone, run_for_tests
from gristmill.stages.sandbox.scratch import Scratch
from gristmill.stages.sandbox.seccomp import filter_of
from gristmill.stages.sandbox.supervise import Ending, Host, HostGone, end_of, watch

sys.path.pop(0)  # programs must not import it

LIKELY = (
    "abc array bisect calendar cmath collections collections.abc copy csv dataclasses datetime decimal enum fractions "
    "functools hashlib heapq io itertools json math numbers operator random re statistics string struct textwrap time "
    "typing unittest"
).split()
REPORT = 3  # descriptor for the verdict of the harness
LOCK_MARK = b"locked\n"  # written before the program's first line; the program itself may write what follows
HARNESS_VERDICTS = ("passed", "failed", "error", "syntax", "memory", "files", "exited")
HOST_GONE, PROGRAM_GONE = 3, 71  # exit codes of a supervisor, and of the process of tests
PATIENCE_S = 2.0  # for a program's process to end that has closed its end of the connection
Ends = tuple[int, ...]


def main() -> None:
    options = json.loads(sys.argv[1])
    is_over, host = False, Host(options["host"])
    scratch = Scratch(options["folder"], options["namespaces"])
    try:
        for name in LIKELY:
            with contextlib.suppress(ImportError):
                __import__(name)
        for name in ("exit", "quit"):  # which `site` makes, and jails start without it
            setattr(builtins, name, sys.exit)
        sys.path += options["paths"]
        exec(compile(options["code"], "warm.py", "exec"), {"__name__": "warm"})
        sys.path.pop(0)
        filter_of(os.getpid())  # builds what all filters have in common
        print(json.dumps({"ready": os.getpid(), "is_private": scratch.is_private}), flush=True)
        while True:
            host.wait()
            _supervise(options["landlock"], scratch, host)
    except (HostGone, BrokenPipeError):
        is_over = True
    finally:
        scratch.close()
        if is_over:  # if not, the host starts another jail there
            with contextlib.suppress(OSError):  # other jails may still use it
                os.rmdir(os.path.dirname(options["folder"]))


def _supervise(landlock: int, scratch: Scratch, host: Host) -> None:
    """Fork the supervisor of the next program and wait for it."""
    jail_pid = os.getpid()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            end_with(jail_pid)
            print(json.dumps(run(landlock, scratch, Host(jail_pid))), end="", flush=True)
            code = 0
        except (HostGone, wire.PeerEnded, BrokenPipeError):
            code = HOST_GONE
        except BaseException:  # noqa: BLE001 - the jail ends with it
            traceback.print_exc()
        finally:
            os._exit(code)
    end = os.pidfd_open(pid)
    try:
        while not select.select([end], [], [], 1.0)[0]:
            host.check()
    finally:
        os.close(end)
        os.kill(pid, signal.SIGKILL)  # no effect if it has ended
        _, status = os.waitpid(pid, 0)
        scratch.is_open = os.WIFSIGNALED(status)  # it did not get to clearing it
    if status:
        raise HostGone if os.waitstatus_to_exitcode(status) == HOST_GONE else RuntimeError("a supervisor is lost")
    print(flush=True)  # ends its answer: nothing of the program is left


def run(landlock: int, scratch: Scratch, host: Host) -> dict[str, Any]:
    """The result of the program that the host sends, as the fields of `Outcome`."""
    request = wire.receive(0)
    request["tests"] = ""
    scratch.open(request)
    output, out_end = os.pipe()
    pids: list[int] = []

    def fork(target: Callable[[], int], ends: Ends, files: Ends) -> int:
        """Fork a locked process and give it descriptors: standard input, output and error, the report, and others."""
        supervisor_pid = os.getpid()
        pid = os.fork()
        if not pid:
            code = 70
            try:
                _become(scratch, (*ends, *files), supervisor_pid, landlock, request)
                os.write(REPORT, LOCK_MARK)
                code = target()
            except BaseException as error:  # noqa: BLE001 - the host gets the error, and nothing runs
                with contextlib.suppress(BaseException):
                    os.write(REPORT, repr(error).encode("utf-8", "replace"))
            finally:
                os._exit(code)
        pids.append(pid)
        return pid

    try:
        if request["beside"]:
            return _run_beside(request, fork, scratch, host, output, out_end)
        return _run_alone(request, fork, scratch, host, output, out_end)
    finally:
        for pid in pids:
            end_of(pid)
        os.close(output)
        scratch.clear()


def _run_alone(
    request: dict[str, Any], fork: Callable[..., int], scratch: Scratch, host: Host, output: int, out_end: int
) -> dict[str, Any]:
    """Run a program without tests, or with tests in its own process."""
    request["tests"] = wire.receive(0)
    report, report_end = os.pipe()
    null = os.open("/dev/null", os.O_RDWR)
    files: Ends = (null, out_end, out_end)
    if request["stdin"] is not None:
        files = (_file_of(request["stdin"], os.path.dirname(scratch.path)), out_end, null)

    def program() -> int:
        run_alone(request["program"], request["tests"], REPORT)
        return 0

    start_time = time.monotonic()
    pid = fork(program, files, (report_end,))
    for end in {out_end, report_end, null, *files}:
        os.close(end)
    ending = watch((pid,), output, report, scratch, host, request, start_time)
    os.close(report)
    return _result(ending, len(request["tests"]))


def _file_of(text: str, folder: str) -> int:
    """A descriptor to read a text from, in a file without a name."""
    end, path = tempfile.mkstemp(dir=folder)
    os.unlink(path)
    with open(end, "wb", closefd=False) as file:
        file.write(text.encode("utf-8", "replace"))
    os.lseek(end, 0, os.SEEK_SET)
    return end


def _run_beside(
    request: dict[str, Any], fork: Callable[..., int], scratch: Scratch, host: Host, output: int, out_end: int
) -> dict[str, Any]:
    """Run a program, and its tests in another process."""
    null = os.open("/dev/null", os.O_RDONLY)
    files = (null, out_end, out_end)
    (question, question_end), (answer, answer_end) = os.pipe(), os.pipe()
    mark, mark_end = os.pipe()

    def program() -> int:
        run_for_tests(request["program"], REPORT + 1, REPORT + 2)
        return 0

    start_time = time.monotonic()
    program_pid = fork(program, files, (mark_end, question, answer_end))
    for end in (question, answer_end, mark_end):
        os.close(end)
    request["tests"] = wire.receive(0)
    report, report_end = os.pipe()

    def tests() -> int:
        findings = judge(request["tests"], REPORT + 1, REPORT + 2)
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
        if findings["verdict"] == "gone":
            return PROGRAM_GONE
        os.write(REPORT, json.dumps(findings).encode())
        return 0

    tests_pid = fork(tests, files, (report_end, answer, question_end))
    for end in (null, out_end, report_end, answer, question_end):
        os.close(end)
    ending = watch((tests_pid, program_pid), output, report, scratch, host, request, start_time)
    os.close(report)
    os.set_blocking(mark, False)
    begin = b""
    with contextlib.suppress(BlockingIOError):
        begin = os.read(mark, 4096)
    os.close(mark)
    is_gone = ending.verdict is None and os.waitstatus_to_exitcode(ending.status) == PROGRAM_GONE
    status, cpu_s = end_of(program_pid, PATIENCE_S if is_gone else 0.0)
    ending.cpu_s += cpu_s
    if not begin.startswith(LOCK_MARK):
        ending.report = begin
    elif is_gone:
        ending.status, ending.report = status, LOCK_MARK
    return _result(ending, len(request["tests"]))


def _become(scratch: Scratch, files: Ends, supervisor_pid: int, landlock: int, request: dict[str, Any]) -> None:
    """Turn the fork into a locked process with its own descriptors, environment and folder."""
    os.setsid()
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    for target, end in enumerate([os.dup(file) for file in files]):
        os.dup2(end, target)
    os.closerange(len(files), 4096)
    os.environ.clear()
    os.environ.update({"HOME": scratch.path, "TMPDIR": scratch.path, "PATH": "", "LANG": "C.UTF-8"})
    tempfile.tempdir = scratch.path
    os.chdir(scratch.path)
    os.umask(0o077)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - open as long as the program runs
    sys.stdout = open(1, "w", buffering=8192, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    pretend(scratch.path)
    details.hide(scratch.path)
    limit(request["cpu_s"], request["memory_mb"], min(request["file_mb"], request["scratch_mb"]), request["num_files"])
    lock(scratch.path, request["readable"], supervisor_pid, landlock, not scratch.is_private)


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
