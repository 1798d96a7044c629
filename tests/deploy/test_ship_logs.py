"""deploy/ship_logs.py: whatever a log does meanwhile, the copies put together are the log; its last words come too."""

import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.records.errors import UserError
from gristmill.records.stores.local import LocalStore
from tests.conftest import ROOT

MODULE = runpy.run_path(str(ROOT / "deploy" / "ship_logs.py"))
Shipper, MAX_CHUNK_BYTES = MODULE["Shipper"], MODULE["MAX_CHUNK_BYTES"]
LINES = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=8), max_size=6)


def logs(folder: Path) -> Path:
    path = folder / "session_2026-01-01_00-00-00" / "logs" / "worker-1.err"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def copied(out: Path, name: str = "worker-1.err") -> bytes:
    parts = sorted(out.glob(f"pod/session_*/{name}/*.log"))
    spans = [[int(number) for number in part.stem.split("-")] for part in parts]
    assert [begin for begin, _ in spans] == [0, *(end for _, end in spans[:-1])][: len(spans)]
    return b"".join(part.read_bytes() for part in parts)


@settings(max_examples=25)
@given(st.lists(st.tuples(LINES, st.booleans()), max_size=6))
def test_the_copies_together_are_the_log(tmp_path_factory: pytest.TempPathFactory, steps: list) -> None:
    """Lines arrive in pieces; the sidecar may be started again between any two sweeps."""
    folder = tmp_path_factory.mktemp("logs")
    path, out = logs(folder / "ray"), folder / "out"
    path.touch()
    shipper = Shipper(folder / "ray", LocalStore(str(out)), "pod")
    for lines, is_restarted in steps:
        with open(path, "ab") as file:
            file.write("\n".join(lines).encode())
        if is_restarted:
            shipper = Shipper(folder / "ray", LocalStore(str(out)), "pod")
        shipper.sweep()
        assert path.read_bytes().startswith(copied(out))
    shipper.sweep(is_last=True)
    assert copied(out) == path.read_bytes()


def test_a_long_log_and_an_endless_line_are_cut_into_objects(tmp_path: Path) -> None:
    path, out = logs(tmp_path / "ray"), tmp_path / "out"
    path.write_bytes(b"x" * (MAX_CHUNK_BYTES + 10) + b"\nend")
    Shipper(tmp_path / "ray", LocalStore(str(out)), "pod").sweep(is_last=True)
    assert copied(out) == path.read_bytes() and len(list(out.rglob("*.log"))) == 2


def test_secrets_are_masked_and_other_files_stay(tmp_path: Path) -> None:
    path, out = logs(tmp_path / "ray"), tmp_path / "out"
    path.write_text("AWS_SECRET_ACCESS_KEY=abcdefghijklmnopqrst1234567890ABCDEFGHIJ\n")
    (path.parent / "dashboard_agent.log").write_text("noise\n")
    (path.parent / "job-driver-1.log").write_text("gristmill: exit code 0\n")
    (tmp_path / "ray" / "session_latest").symlink_to(path.parents[1])
    assert Shipper(tmp_path / "ray", LocalStore(str(out)), "pod").sweep() == 2
    assert b"abcdefghij" not in copied(out) and copied(out, "job-driver-1.log").endswith(b"0\n")


def test_a_store_that_fails_is_tried_again_and_the_last_words_come(tmp_path: Path) -> None:
    path, out = logs(tmp_path / "ray"), tmp_path / "out"
    out.write_text("no folder")
    with pytest.raises((UserError, OSError)):
        path.write_text("first\n")
        Shipper(tmp_path / "ray", LocalStore(str(out)), "pod").sweep()
    command = [sys.executable, ROOT / "deploy" / "ship_logs.py", "--to", str(out), "--source", tmp_path / "ray"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*command, "--node", "pod", "--every-s", "0.05"], env=env, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert any("not copied this time" in line for line in process.stderr)
    out.unlink()
    while not list(out.rglob("*.log")):
        time.sleep(0.05)
    process.send_signal(signal.SIGSTOP)
    with open(path, "a") as file:
        file.write("last words without an end")
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=30)
    assert process.returncode == 0 and copied(out) == path.read_bytes()
