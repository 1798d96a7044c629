"""deploy/run.py: all kinds of exit codes as entrypoints of jobs on a real Ray head, and as questions of a script."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gristmill.records.exit_codes import TABLE, classify
from tests.cluster.test_job_submit import Head
from tests.conftest import ROOT

RUN = ROOT / "deploy" / "run.py"
ENTRYPOINT = f"env PYTHONPATH={ROOT} {sys.executable} {RUN} --retried-by kuberay --"
ENDS = ("STOPPED", "SUCCEEDED", "FAILED")
TIMEOUT_S = 120.0


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    head = Head()
    try:
        head.start()
        yield head
    finally:
        head.stop()


def api(head: Head, path: str, content: dict[str, str] | None = None) -> dict[str, Any]:
    """The answer of the job server; with `content` it is a POST."""
    token = Path(head.env["RAY_AUTH_TOKEN_PATH"]).read_text()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    data = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(f"{head.address}/api/jobs/{path}", data, headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def submit(head: Head, command: str) -> str:
    return api(head, "", {"entrypoint": f"{ENTRYPOINT} {command}"})["submission_id"]


def status(head: Head, job: str) -> str:
    return api(head, job)["status"]


def logs(head: Head, job: str) -> str:
    return api(head, f"{job}/logs")["logs"]


def wait_until(is_true: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not is_true() and time.monotonic() < end:
        time.sleep(0.1)


EVERY_CODE = [f"exit {row.code}" for row in TABLE]


@pytest.mark.parametrize(
    "scripts", [["exit 3", "kill -9 $$"], pytest.param([*EVERY_CODE, "exit 13"], marks=pytest.mark.nightly)]
)
def test_kuberay_retries_losses_and_bugs_only(head: Head, scripts: list[str]) -> None:
    """KubeRay retries what is FAILED: a code that is never retried ends as STOPPED, and only 0 as SUCCEEDED."""
    ends = {}
    for script in scripts:
        code = int(script.split()[1]) if script.startswith("exit") else -9
        ends[script] = "FAILED" if classify(code).retry != "never" else "STOPPED" if code else "SUCCEEDED"
    jobs = {script: submit(head, f"sh -c '{script}'") for script in ends if script != "exit 3"}
    # As KubeRay's submitter does it: the second -- must reach run.py.
    words = ["job", "submit", "--address", head.address, "--no-wait", "--submission-id", f"three-{len(scripts)}", "--"]
    submitted = head.ray(*words, *ENTRYPOINT.split(), "sh", "-c", "exit 3")
    assert submitted.returncode == 0, submitted.stderr
    jobs["exit 3"] = f"three-{len(scripts)}"
    wait_until(lambda: all(status(head, job) in ENDS for job in jobs.values()))
    assert {script: status(head, job) for script, job in jobs.items()} == ends
    for script, job in jobs.items():
        last = logs(head, job).strip().splitlines()[-1]
        assert last.startswith(f"gristmill: exit code {script.split()[1]}, "), last
        assert ("it is not retried" in last) == (ends[script] in ("STOPPED", "SUCCEEDED"))
    # What KubeRay's submitter runs last must succeed, or its Kubernetes Job is the failure.
    followed = head.ray("job", "logs", "--address", head.address, "--follow", jobs["exit 3"])
    assert followed.returncode == 0, followed.stderr


DRIVER = """
import signal, sys, time
signals = []
signal.signal(signal.SIGTERM, lambda number, frame: signals.append(number))
print("ready", flush=True)
while not signals:
    time.sleep(0.05)
time.sleep(0.5)  # for a second one to come
print("signals:", len(signals), flush=True)
sys.exit(130)
"""


def test_a_job_that_somebody_stops_lets_the_driver_finish(head: Head) -> None:
    """The driver gets one SIGTERM, not two: a second one would end it at once."""
    script = head.folder / "driver.py"
    script.write_text(DRIVER)
    job = submit(head, f"{sys.executable} {script}")
    wait_until(lambda: "ready" in logs(head, job))
    api(head, f"{job}/stop", {})
    wait_until(lambda: status(head, job) in ENDS)
    assert status(head, job) == "STOPPED"
    assert "signals: 1" in logs(head, job) and "exit code 130, stopped" in logs(head, job)


def run(*words: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, RUN, *words], capture_output=True, text=True, env=env)


def test_scripts_ask_whether_a_code_is_retried() -> None:
    for code, is_retried in {**{str(row.code): row.retry == "retry" for row in TABLE}, "137": True}.items():
        done = run("--is-retried", code)
        assert done.returncode == (0 if is_retried else 1) and f"exit code {code}, " in done.stdout


def test_without_a_ray_job_the_code_stays_what_it_is() -> None:
    done = run("--retried-by", "kuberay", "--", "sh", "-c", "exit 3")
    assert done.returncode == 3 and "cannot be stopped" in done.stderr
    assert run("--retried-by", "kuberay", "--", "/no/such/program").returncode == 127
    assert run("--retried-by", "kuberay").returncode == 2
