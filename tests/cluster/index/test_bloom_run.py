"""A whole run whose index is Bloom filters: stopped, resumed and wider, it writes the same bytes."""

import json
from pathlib import Path

import pytest

from gristmill.records.output.manifest import load
from gristmill.records.stores.opening import open_store
from tests.conftest import gristmill
from tests.outputs import kept_hashes, num_committed
from tests.recipes import STAGES, canned

DEDUP = {"kind": "dedup", "index": "bloom", "bloom_rows": 2000, "bloom_error": 0.02}
BLOOM = {"stages": [*STAGES[:-1], DEDUP]}


@pytest.mark.nightly
def test_stopped_lengthened_and_wider_it_writes_the_same_bytes(tmp_path: Path) -> None:
    recipe, out, undisturbed = canned(tmp_path, **BLOOM), str(tmp_path / "out"), str(tmp_path / "undisturbed")
    done = gristmill("produce", recipe, "--out", undisturbed, "--set", "cluster.snapshot_lots=0")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "undisturbed" / "index").exists()
    first = ["--set", "limits.asks=288", "--set", "cluster.snapshot_lots=2"]
    assert gristmill("produce", recipe, "--out", out, *first).returncode == 0
    assert num_committed(out) == 9
    more = ["--set", "cluster.snapshot_lots=3", "--set", "cluster.index_actors=3"]
    done = gristmill("produce", recipe, "--out", out, *more)
    assert done.returncode == 0, done.stderr
    assert "rows read back" in done.stderr
    assert kept_hashes(out) == kept_hashes(undisturbed)
    assert len(list((tmp_path / "out" / "index").iterdir())) >= 3
    audit = gristmill("audit", out, "--json")
    assert audit.returncode == 0, audit.stdout
    assert json.loads(audit.stdout)["checked"]["lots"] == 20
    book = load(open_store(out))
    assert book is not None and book.totals.rejected["dedup:probable_duplicate"] > 0
    # Whatever is in index/, it is no part of the output: without it the audit says the same, and so does status.
    for file in (tmp_path / "out" / "index").iterdir():
        file.write_bytes(b"rubbish")
    assert gristmill("audit", out).returncode == 0
    assert gristmill("status", out).returncode == 0
    packed = gristmill("pack", out, "--to", str(tmp_path / "release"))
    assert packed.returncode == 0, packed.stderr


def test_a_limit_beyond_the_filters_is_refused(tmp_path: Path) -> None:
    recipe = canned(tmp_path, stages=[DEDUP], limits={"asks": None, "kept_rows": 2001})
    done = gristmill("produce", recipe, "--out", str(tmp_path / "out"), "--dry-run")
    assert done.returncode == 2
    assert "limits.kept_rows is 2,001, but stage 'dedup' has filters for 2,000 rows" in done.stderr
