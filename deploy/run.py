#!/usr/bin/env python3
"""Turns the exit code of a driver into what a scheduler understands (docs/exit-codes.md).

    python deploy/run.py --retried-by kuberay -- python -m gristmill produce RECIPE --out URI
    python deploy/run.py --is-retried CODE

The first form is the entrypoint of a RayJob. KubeRay retries every job that FAILED, with a new cluster. So a driver
that ends with a code that is never retried has its own job stopped: the RayJob ends as STOPPED, which KubeRay does not
retry, and the last line of its log says why. All other codes pass.

The second form serves shell scripts: it prints one line about the code and exits with 0 if the run is to be retried,
else with 1.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from types import FrameType

from gristmill.records.exit_codes import DONE, ExitCode, classify

STOP_TIMEOUT_S = 60.0  # for Ray to stop the job that this process belongs to
JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray for the entrypoint of a job
AFTERWARDS = {
    "never": "it is not retried: the same command would end the same way",
    "resume": "the same command resumes",
    "retry": "it is retried: the same command goes on where it stopped",
}

is_signalled = threading.Event()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command, or classify a code; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    at = words.index("--") if "--" in words else len(words)
    command = words[at + 1 :]
    parser = argparse.ArgumentParser(prog="run.py", description=__doc__.split("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--retried-by", choices=["kuberay"], help="who repeats failed jobs; -- COMMAND follows")
    what.add_argument(
        "--is-retried", type=int, metavar="CODE", help="exit with 0 if CODE is to be retried, else with 1"
    )
    args = parser.parse_args(words[:at])
    if args.is_retried is not None:
        row = classify(args.is_retried)
        say(row)
        return 0 if row.retry == "retry" else 1
    if not command:
        parser.error("-- COMMAND is missing")
    return under_kuberay(command)


def under_kuberay(command: Sequence[str]) -> int:
    """Run the driver. Ray signals every process of the job, so the signals are not passed on: a second one would end
    the driver at once.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _on_signal)
    try:
        code = subprocess.Popen(command, preexec_fn=_default_signals).wait()
    except OSError as error:
        print(f"run.py: {command[0]}: {error.strerror}", file=sys.stderr)
        code = 127
    row = classify(code)
    say(row)
    if row.retry == "never" and code != DONE:
        stop_own_job()
    return code if code >= 0 else 128 - code


def say(row: ExitCode) -> None:
    print(f"gristmill: exit code {row.code}, {row.name}: {row.meaning}; {AFTERWARDS[row.retry]}", flush=True)


def stop_own_job() -> None:
    """Ask Ray to stop the job of this process, and wait for its signal.

    Where this fails, the job ends as FAILED and is retried in vain: better than a wrong success.
    """
    try:
        from ray.job_submission import JobSubmissionClient

        job = json.loads(os.environ[JOB_CONFIG])["metadata"]["job_submission_id"]
        JobSubmissionClient().stop_job(job)
    except Exception as error:  # noqa: BLE001 - of Ray, of the network, or no Ray job at all
        print(f"run.py: the Ray job cannot be stopped ({type(error).__name__}: {error})", file=sys.stderr, flush=True)
        return
    is_signalled.wait(STOP_TIMEOUT_S)


def _on_signal(number: int, frame: FrameType | None) -> None:
    is_signalled.set()


def _default_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())
