"""Runs programs one after another, each in a process of its own that is locked before the program's first line.

This file is a program: the host (runner.py) starts it as `python -S -s jail.py`, writes messages (wire.py) for each
program to its standard input, and reads a line of JSON for each from its standard output. It imports likely modules in
advance, so that a program costs forks instead of the start of a Python. Its argument, JSON, has `folder` (to be
created, for the files of its programs), `host` (the process id of the host), `landlock` and `namespaces` (what to use
of the kernel), `readable` (what programs may read), `code` (statements to run before the first program) and `paths`
(folders to import from).

Before the first program it forks a template (template.py), from which the processes of all programs and of their tests
are forked. The jail reads programs and tests and passes each to its process as an open file, so neither the template
nor the process of a program ever holds tests, of this program or of another.

It ends with the host, and a program ends with it; nothing of them remains.
"""

import builtins
import contextlib
import gc
import json
import os
import signal
import sys
import time
from typing import Any

sys.path.insert(0, sys.argv[2] if __name__ == "__main__" else "")  # the folder of the package gristmill
from gristmill.stages.sandbox import wire
from gristmill.stages.sandbox.lock import Rules
from gristmill.stages.sandbox.scratch import Scratch
from gristmill.stages.sandbox.supervise import Ending, Host, HostGone, end_of, watch
from gristmill.stages.sandbox.template import ALONE, LOCK_MARK, PROGRAM_GONE, SERVING, TESTS, Template, file_of

sys.path.pop(0)  # programs must not import it

LIKELY = (
    "abc array bisect calendar cmath collections collections.abc copy csv dataclasses datetime decimal enum fractions "
    "functools hashlib heapq io itertools json math numbers operator random re statistics string struct textwrap time "
    "typing unittest"
).split()
HARNESS_VERDICTS = ("passed", "failed", "error", "syntax", "memory", "files", "exited")
Pipe = tuple[int, int]
PATIENCE_S = 2.0  # for a program's process to end that has closed its end of the connection


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
        gc.collect()
        gc.freeze()  # collections of a program would touch, and so copy, the memory of all that is imported here
        runner = ProgramRunner(options, scratch, host)
        print(json.dumps({"ready": os.getpid(), "is_private": scratch.is_private}), flush=True)
        while True:
            host.wait()
            print(json.dumps(runner.run()), flush=True)
    except (HostGone, BrokenPipeError, wire.PeerEnded):
        is_over = True
    finally:
        scratch.close()
        if is_over:  # if not, the host starts another jail there
            with contextlib.suppress(OSError):  # other jails may still use it
                os.rmdir(os.path.dirname(options["folder"]))


class ProgramRunner:
    """Runs one program after another."""

    def __init__(self, options: dict[str, Any], scratch: Scratch, host: Host) -> None:
        self._rules = Rules(options["readable"], options["landlock"])
        self._scratch, self._host, self._template = scratch, host, Template(scratch)
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._pids: list[int] = []  # processes of the program in work
        self._passed: list[int] = []  # descriptors that its processes have by now

    def run(self) -> dict[str, Any]:
        """The result of the program that the host sends, as the fields of `Outcome`. Nothing of it is left."""
        request = wire.receive(0)
        request["tests"] = wire.receive(0)
        self._scratch.open(request)
        try:
            rules = self._pass(self._rules.of(self._scratch.path))
        except OSError as error:
            self._scratch.clear()
            return {"verdict": "unsandboxed", "detail": repr(error)}
        output = self._pipe()
        try:
            run = self._run_beside if request["beside"] else self._run_alone
            return _result(run(request, output, rules), len(request["tests"]))
        finally:
            for pid in self._pids:
                end_of(pid)
            self._pids.clear()
            self._close_passed()
            os.close(output[0])
            self._scratch.clear()

    def _run_alone(self, request: dict[str, Any], output: Pipe, rules: int) -> Ending:
        """Run a program without tests, or with tests in its own process."""
        report = self._pipe()
        files = (self._null, output[1], output[1])
        if request["stdin"] is not None:
            files = (self._pass(file_of(request["stdin"], "replace")), output[1], self._null)
        texts = [self._pass(file_of(request[name])) for name in ("program", "tests")]
        start_time = time.monotonic()
        pid = self._fork(ALONE, request, *files, report[1], rules, *texts)
        self._close_passed()
        try:
            return watch((pid,), output[0], report[0], self._scratch, self._host, request, start_time)
        finally:
            os.close(report[0])

    def _run_beside(self, request: dict[str, Any], output: Pipe, rules: int) -> Ending:
        """Run a program, and its tests in another process."""
        files = (self._null, output[1], output[1])
        mark, report, question, answer = (self._pipe() for _ in range(4))
        self._passed += [question[0], answer[0]]
        texts = [self._pass(file_of(request[name])) for name in ("program", "tests")]
        start_time = time.monotonic()
        program_pid = self._fork(SERVING, request, *files, mark[1], question[0], answer[1], rules, texts[0])
        tests_pid = self._fork(TESTS, request, *files, report[1], answer[0], question[1], rules, texts[1])
        self._close_passed()
        try:
            pids = (tests_pid, program_pid)
            ending = watch(pids, output[0], report[0], self._scratch, self._host, request, start_time)
            os.set_blocking(mark[0], False)
            begin = b""
            with contextlib.suppress(BlockingIOError):
                begin = os.read(mark[0], 4096)
        finally:
            os.close(report[0])
            os.close(mark[0])
        is_gone = ending.verdict is None and os.waitstatus_to_exitcode(ending.status) == PROGRAM_GONE
        status, cpu_s = end_of(program_pid, PATIENCE_S if is_gone else 0.0)
        ending.cpu_s += cpu_s
        if not begin.startswith(LOCK_MARK):
            ending.report = begin
        elif is_gone:
            ending.status, ending.report = status, LOCK_MARK
        return ending

    def _fork(self, role: int, request: dict[str, Any], *ends: int) -> int:
        pid = self._template.fork(role, request, ends)
        self._pids.append(pid)
        return pid

    def _pipe(self) -> Pipe:
        """A pipe to read from, whose other end is for processes of the program."""
        pipe = os.pipe()
        self._passed.append(pipe[1])
        return pipe

    def _pass(self, end: int) -> int:
        self._passed.append(end)
        return end

    def _close_passed(self) -> None:
        while self._passed:
            os.close(self._passed.pop())


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
