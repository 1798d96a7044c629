"""The output of a writing verb: the lease is held for the block, and the resume command is the command that ran."""

import logging
import os
import shlex
import signal
from pathlib import Path

import pytest

from gristmill.jobs.terminal.output import Output, refusal
from gristmill.jobs.terminal.session import interruptible
from gristmill.records.errors import UserError
from gristmill.records.exit_codes import STOPPED
from gristmill.records.output.lease import NAME as LEASE


def test_the_lease_is_held_for_the_block(tmp_path: Path) -> None:
    output = Output("fit", "recipe.toml", str(tmp_path / "out"))
    with pytest.raises(RuntimeError), output.writing() as lease:
        assert (tmp_path / "out" / LEASE).exists() and lease.store is output.store
        with pytest.raises(UserError, match="being written by another driver"), output.writing():
            pass
        raise RuntimeError
    assert not (tmp_path / "out" / LEASE).exists()


def test_a_work_folder_is_removed_only_when_it_is_empty(tmp_path: Path) -> None:
    output = Output("audit-privacy", "recipe.toml", str(tmp_path))
    with output.writing("work") as lease:
        lease.store.put("coins.json", b"{}")
    assert [p.name for p in (tmp_path / "work").iterdir()] == ["coins.json"]
    with output.writing("work") as lease:
        lease.store.delete("coins.json")
    assert not (tmp_path / "work").exists()


def test_the_resume_command_is_the_command(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = str(tmp_path / "an output")
    flags = {"data": None, "canaries": 100, "seed": 0}
    output = Output("audit-privacy", "my recipe.toml", out, ["data.path=a b", "seed=1"], flags)
    words = ["gristmill", "audit-privacy", "my recipe.toml", "--out", out, "--set", "data.path=a b", "--set", "seed=1"]
    assert shlex.split(output.command) == [*words, "--canaries", "100", "--seed", "0"]
    with caplog.at_level(logging.INFO, "gristmill"):
        assert output.stopped() == STOPPED
    assert caplog.messages == [f"stopped; resume with: {output.command}"]


def test_a_refusal_names_the_first_differences() -> None:
    old, new = {str(n): n for n in range(9)}, {str(n): -n for n in range(9)}
    text = str(refusal("out", "holds another model", old, new))
    assert text.startswith(
        "out holds another model; nothing was changed. Differences (output -> command): 1: 1 -> -1; "
    )
    assert "5: 5 -> -5; and 3 more" in text and "6: 6" not in text


def test_the_first_signal_stops_and_the_second_ends(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[str] = []
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):  # noqa: SIM117
        with interruptible(lambda: calls.append("stop"), lambda: calls.append("give up")):
            os.kill(os.getpid(), signal.SIGTERM)
            assert calls == ["stop"]
            os.kill(os.getpid(), signal.SIGTERM)
    assert calls == ["stop", "give up"] and "interrupt again" in caplog.text
    assert signal.getsignal(signal.SIGTERM) is before
