"""The same command on an output from which a hand, or a rule of a bucket, has taken or into which it has put files."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gristmill.records.output.shard_names import rejected_name
from tests.conftest import gristmill
from tests.recipes import AT_ONCE, canned

NUM_LOTS = 4


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    done = gristmill("produce", canned(folder, num_asks=32 * NUM_LOTS), "--out", str(folder / "out"), *AT_ONCE)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def out(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole / "out", tmp_path / "out"))


def files(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def kept(lot: int) -> str:
    return f"kept/part-{lot:08d}.parquet"


def rejected(out: Path, lot: int) -> Path:
    return next((out / "rejected").glob(f"part-{lot:08d}-*"))


def produce(whole: Path, out: Path) -> tuple[int, str]:
    done = gristmill("produce", str(whole / "recipe.toml"), "--out", str(out), *AT_ONCE)
    return done.returncode, done.stderr


LOSSES: dict[str, tuple[Callable[[Path], object], str]] = {
    "all kept": (lambda out: shutil.move(out / "kept", out.parent / "kept"), f"{kept(0)}, {kept(1)}, {kept(2)} and 1"),
    "the last kept": (lambda out: (out / kept(3)).unlink(), kept(3)),
    "a kept between others": (lambda out: (out / kept(1)).unlink(), kept(1)),
    "all rejected": (lambda out: shutil.rmtree(out / "rejected"), "rejected/part-00000000-"),
    "one rejected": (lambda out: rejected(out, 2).unlink(), "rejected/part-00000002-"),
    "the manifest": (lambda out: (out / "manifest.json").unlink(), "holds shards but no manifest.json"),
    "all but rejected": (
        lambda out: (shutil.rmtree(out / "kept"), (out / "manifest.json").unlink()), "holds shards but no manifest.json"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("lose", "words"), LOSSES.values(), ids=LOSSES.keys())
def test_what_is_lost_is_named_and_nothing_is_changed(
    whole: Path, out: Path, lose: Callable[[Path], object], words: str
) -> None:
    lose(out)
    before = files(out)
    code, error = produce(whole, out)
    assert code == 2 and words in error and error.count("\n") == 1, error
    assert files(out) == before


@pytest.mark.parametrize("verb", ["status", "report", "pack"])
def test_readers_name_it_too(out: Path, verb: str, tmp_path: Path) -> None:
    (out / kept(3)).unlink()
    done = gristmill(verb, str(out), *(["--to", str(tmp_path / "release")] if verb == "pack" else []))
    assert done.returncode == 2 and f"{kept(3)} is missing" in done.stderr and done.stderr.count("\n") == 1
    wrong = json.loads(gristmill("audit", str(out), "--json").stdout)["wrong"]
    assert f"{kept(3)} is missing, though {NUM_LOTS} lots are committed" in wrong


def test_a_leftover_of_a_committed_lot_is_removed(whole: Path, out: Path) -> None:
    before = files(out)
    named = rejected(out, 1)
    other = out / rejected_name(1, "ab" * 32)
    shutil.copy(named, other)
    wrong = json.loads(gristmill("audit", str(out), "--json").stdout)["wrong"]
    assert [line for line in wrong if other.name in line and "does not name it" in line]
    assert produce(whole, out)[0] == 0
    after = files(out)
    assert {n: d for n, d in after.items() if n[0] in "kr"} == {n: d for n, d in before.items() if n[0] in "kr"}


def test_a_shard_that_may_still_be_committed_stays(whole: Path, out: Path) -> None:
    other = out / rejected_name(NUM_LOTS, "ab" * 32)
    shutil.copy(rejected(out, 1), other)
    assert produce(whole, out)[0] == 0 and other.exists()
    report = json.loads(gristmill("audit", str(out), "--json").stdout)
    assert report["ok"] and report["checked"]["rejected shards of lots that are not committed"] == 1


def test_a_manifest_of_an_earlier_version_counts_no_rejected_shards(whole: Path, out: Path) -> None:
    path = out / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["totals"]["rejected_shards"]
    path.write_text(json.dumps({**manifest, "format": 3}))
    rejected(out, 2).unlink()
    code, error = produce(whole, out)
    assert code == 2 and "rejected/part-00000002-" in error


STRANGERS = ("kept/part-3.parquet", "kept/part-000000003.parquet", "kept/old/part-00000003.parquet",
             "kept/copy.parquet", "rejected/part-3.parquet", "rejected/part-00000003.parquet.bak")  # fmt: skip


@pytest.mark.parametrize("name", STRANGERS)
def test_a_stranger_is_named_and_never_read(whole: Path, out: Path, name: str) -> None:
    (out / name).parent.mkdir(exist_ok=True)
    shutil.copy(out / kept(3), out / name)
    wrong = json.loads(gristmill("audit", str(out), "--json").stdout)["wrong"]
    assert len(wrong) == 1 and name in wrong[0]
    code, error = produce(whole, out)
    assert code == 0 and name in error and (out / name).exists()
    status = json.loads(gristmill("status", str(out), "--json").stdout)
    assert status["totals"]["num_lots"] == NUM_LOTS
