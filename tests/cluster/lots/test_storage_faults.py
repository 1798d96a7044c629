"""Whatever the store does to a run, it ends with the same bytes or stops cleanly, and then the same command goes on."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gristmill.records.stores.opening import open_store
from gristmill.records.stores.retry import VARIABLE
from tests import outputs
from tests.conftest import ROOT, gristmill
from tests.faults import KINDS, FaultProxy, faults
from tests.outputs import PATIENCE_S, kept_hashes, num_committed, wait_for_commits
from tests.recipes import AT_ONCE, canned
from tests.s3server import KEYS, S3Server
from tests.session import moto_server

NUM_LOTS = 16
# Slow enough that on a starved machine, too, a run that is to be disturbed is not over before it is.
SIZE = {"num_asks": NUM_LOTS * 32, "generator": {"seconds_per_ask": 0.05}}
QUICK = tuple(kind for kind in KINDS if not kind.startswith("freeze"))


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, str]:
    return kept_hashes(outputs.undisturbed(num_asks=NUM_LOTS * 32))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A server of our own: it is killed and frozen."""
    server = S3Server(tmp_path_factory.mktemp("seaweedfs"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def proxy(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy before it. This process sees the server itself, `through(proxy)` is for runs."""
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    with faults(server.port, seed=5) as proxy:
        yield proxy


def through(proxy: FaultProxy, patience_s: float) -> dict[str, str]:
    return {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}", VARIABLE: str(patience_s)}


def start(recipe: str, out: str, env: dict[str, str]) -> subprocess.Popen:
    command = [sys.executable, "-m", "gristmill", "produce", recipe, "--out", out]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, **env}, **pipes)


def assert_clean_stop(code: int | None, output: str) -> str:
    """The one line that ends a run by the store's fault."""
    assert code == 2, output
    assert "Traceback" not in output
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in output
    (line,) = [line for line in output.splitlines() if line.startswith("gristmill: ")]
    assert "run the same command again" in line
    return line


def test_keys_expire_then_the_store_goes_then_every_fifth_request_fails(
    tmp_path: Path, server: S3Server, proxy: FaultProxy, undisturbed: dict[str, str]
) -> None:
    out, recipe = f"s3://mill/gone-{tmp_path.name}", canned(tmp_path, **SIZE)
    run = start(recipe, out, through(proxy, 4))
    wait_for_commits(out, 3, run)
    proxy.always = "expired"
    output, _ = run.communicate(timeout=PATIENCE_S)
    line = assert_clean_stop(run.returncode, output)
    assert out in line and "access refused" in line and "ExpiredToken" in line and "AWS_SESSION_TOKEN" in line
    assert num_committed(out) < NUM_LOTS
    proxy.always = None

    run = start(recipe, out, through(proxy, 4))
    wait_for_commits(out, num_committed(out) + 1, run)
    server.kill()
    killed = time.monotonic()
    try:
        output, _ = run.communicate(timeout=PATIENCE_S)
        line = assert_clean_stop(run.returncode, output)
        assert out in line and f"http://127.0.0.1:{proxy.port}" in line and "AWS_ENDPOINT_URL" in line
        assert time.monotonic() - killed < 60
        for verb in ("status", "audit"):
            began = time.monotonic()
            dead = gristmill(verb, out, env={VARIABLE: "2"})
            assert dead.returncode == 2 and time.monotonic() - began < 60
            assert f"cannot reach {server.env['AWS_ENDPOINT_URL']} (Connection refused)" in dead.stderr
            assert "Traceback" not in dead.stderr and len(dead.stderr.splitlines()) <= 2, dead.stderr
    finally:
        server.start()
    assert num_committed(out) < NUM_LOTS

    proxy.share, proxy.kinds = 0.2, QUICK
    proxy.seen.clear()
    done = gristmill("produce", recipe, "--out", out, *AT_ONCE, env=through(proxy, 60))
    assert done.returncode == 0, done.stderr
    assert kept_hashes(out) == undisturbed
    audit = gristmill("audit", out, env=through(proxy, 60))
    assert audit.returncode == 0, audit.stdout + audit.stderr
    assert sum(number for kind, number in proxy.seen.items() if kind != "ok") >= 8, proxy.seen


@pytest.mark.nightly  # the kill tests' short form stops and freezes the store, too
def test_a_restart_and_a_freeze_are_waited_out(
    tmp_path: Path, server: S3Server, proxy: FaultProxy, undisturbed: dict[str, str]
) -> None:
    out, recipe = f"s3://mill/restart-{tmp_path.name}", canned(tmp_path, **SIZE)
    run = start(recipe, out, {VARIABLE: "60"})
    wait_for_commits(out, 3, run)
    server.kill()
    time.sleep(2)
    server.start()
    wait_for_commits(out, 6, run)
    server.freeze()
    time.sleep(10)
    server.thaw()
    output, _ = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 0, output
    assert "cannot reach" in output and "retrying for up to 60 s" in output
    assert kept_hashes(out) == undisturbed
    assert gristmill("audit", out).returncode == 0


def test_a_full_disk_stops_a_run_that_room_lets_go_on(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a file system: {mounted.stderr.decode().strip()}")
    try:
        out, recipe = str(folder / "out"), canned(tmp_path, **SIZE)
        full = gristmill("produce", recipe, "--out", out, *AT_ONCE)
        assert "no space left; make room" in assert_clean_stop(full.returncode, full.stdout + full.stderr)
        assert 0 < num_committed(out) < NUM_LOTS
        kept = {name for name in kept_hashes(out) if name.startswith("kept/")}
        assert {name: kept_hashes(out)[name] for name in kept} == {name: undisturbed[name] for name in kept}
        subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
        done = gristmill("produce", recipe, "--out", out, *AT_ONCE)
        assert done.returncode == 0, done.stderr
        assert kept_hashes(out) == undisturbed
        assert not list(folder.rglob(".tmp-*"))
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.nightly
def test_a_store_of_another_make_holds_the_same_run(
    tmp_path: Path, undisturbed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in moto_server().env.items():
        monkeypatch.setenv(name, value)
    out, recipe = f"s3://mill/moto-{tmp_path.name}", canned(tmp_path, **SIZE)
    run = start(recipe, out, {})
    wait_for_commits(out, 3, run)
    run.kill()
    run.wait()
    done = gristmill("produce", recipe, "--out", out, *AT_ONCE, own_process=True)
    assert done.returncode == 0, done.stderr
    assert kept_hashes(out) == undisturbed
    assert [e.name for e in open_store(out).list(".")] == []
    for command in (["audit", out], ["pack", out, "--to", f"{out}-release"]):
        done = gristmill(*command, own_process=True)
        assert done.returncode == 0, done.stdout + done.stderr
