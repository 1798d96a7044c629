"""`dedup.against` in real runs: what is rejected, whatever the order of lots, and what the audit says of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from gristmill.jobs.audit.existing import ExistingAudit, ExistingRow
from gristmill.jobs.audit.findings import Findings
from gristmill.jobs.audit.lots import LotAudit, id_keys
from gristmill.records.output.manifest import load
from gristmill.records.stores.opening import open_store
from tests.conftest import gristmill
from tests.outputs import kept_hashes, undisturbed
from tests.recipes import AT_ONCE, canned

ASKS = 320
STAGES: list[dict[str, Any]] = [{"kind": "finish"}, {"kind": "dedup"}]


def table_of(out: Path, folder: str) -> list[dict[str, Any]]:
    return [row for path in sorted((out / folder).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


@pytest.mark.timeout(900)
def test_a_run_against_a_run_and_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = Path(shutil.copytree(undisturbed(num_asks=ASKS, stages=STAGES), tmp_path / "earlier"))
    old = table_of(earlier, "kept")
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"text": row["text"]}) + "\n" for row in old[: len(old) // 2]))
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "cache"))
    against = [str(corpus), str(earlier)]
    recipe = canned(tmp_path, ASKS, seed=5, stages=[STAGES[0], {"kind": "dedup", "against": against}])

    plan = gristmill("produce", recipe, "--out", str(tmp_path / "a"), "--dry-run")
    assert f"corpus.jsonl ({len(old) // 2:,} rows), earlier ({len(old):,} rows)" in " ".join(plan.stdout.split())
    for out, settings in (
        ("a", [("cluster.window=6",)]),
        ("b", [("cluster.window=1", "limits.asks=160"), ("cluster.num_cpus=1",)]),
    ):
        for values in settings:
            flags = [flag for value in values for flag in ("--set", value)]
            done = gristmill("produce", recipe, "--out", str(tmp_path / out), *AT_ONCE, *flags)
            assert done.returncode == 0, done.stderr
    assert kept_hashes(str(tmp_path / "a")) == kept_hashes(str(tmp_path / "b"))

    store, run = open_store(str(tmp_path / "a")), load(open_store(str(tmp_path / "a")))
    assert run is not None
    dedup = LotAudit(store, run, None).dedup
    assert dedup is not None
    bands = {tuple(key) for row in old for key in enumerate(keys_of(dedup, row).tolist())}
    rejected = table_of(tmp_path / "a", "rejected")
    existing = [row for row in rejected if row["reject"] == "dedup:existing"]
    assert existing and run.totals.rejected["dedup:existing"] == len(existing)
    for row in [*table_of(tmp_path / "a", "kept"), *rejected]:
        is_like = any(key in bands for key in enumerate(keys_of(dedup, row).tolist())) if row["minhash"] else False
        assert is_like == (row["reject"] == "dedup:existing") == (row["existing_id"] is not None)
    names = {row["existing_source"]: row for row in existing}
    assert set(names) <= {"corpus.jsonl", "earlier"} and all(row["duplicate_of"] is None for row in existing)
    for name, by in (
        ("corpus.jsonl", {f"corpus.jsonl:{at}" for at in range(len(old))}),
        ("earlier", {r["id"] for r in old}),
    ):
        assert all(row["existing_id"] in by for row in existing if row["existing_source"] == name)

    done = gristmill("audit", str(tmp_path / "a"))
    assert done.returncode == 0 and "rejected rows compared with existing rows" in done.stdout
    findings = Findings()
    audit = ExistingAudit(dedup, store, run, findings)
    like, unlike = keys_of(dedup, old[0]), np.arange(dedup.bands, dtype=np.uint64)
    audit.lot("kept/x", like.reshape(1, -1), id_keys(["f" * 32]), [])
    audit.lot("kept/x", None, id_keys([]), [ExistingRow("rejected/x", 1, "earlier", "no such id", like)])
    audit.lot("kept/x", None, id_keys([]), [ExistingRow("rejected/x", 2, "earlier", old[0]["id"], unlike)])
    audit.close()
    like_none = "is rejected as existing, but no row of the corpora is like it"
    expected = (
        f"kept/x: kept row {'f' * 32} is a near-duplicate of an existing row",
        "rejected/x: row 1 is rejected as existing, but it names no such id of earlier, "
        "not the first row that is like it",
        f"rejected/x: row 2 {like_none}",
    )
    assert tuple(findings.errors) == expected

    corpus.write_text(corpus.read_text().replace("a", "b", 1))
    refused = gristmill("produce", recipe, "--out", str(tmp_path / "a"))
    assert refused.returncode == 2 and "stage dedup: against" in refused.stderr
    done = gristmill("audit", str(tmp_path / "a"))
    assert done.returncode == 0 and "NOT compared (corpus.jsonl changed since the run)" in done.stdout


def keys_of(dedup: Any, row: dict[str, Any]) -> np.ndarray:
    import pyarrow as pa

    return dedup.keys(pa.array([row["minhash"]], pa.list_(pa.uint32(), dedup.spec.num_perm)))[0]
