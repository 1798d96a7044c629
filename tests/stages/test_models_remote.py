"""Models, benchmarks and schemas that lie in a bucket."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.engines import models
from gristmill.records.errors import UserError
from gristmill.records.pins import Pins, active
from gristmill.records.stores.opening import open_store
from gristmill.stages.decontaminate.benchmarks import Benchmark, digest, load
from gristmill.stages.decontaminate.ngrams import Decontaminate, DecontaminateSpec
from gristmill.stages.verify.json_schema import JsonSchema

QUESTION = "how many leaves does the old oak behind the village school lose on the first day of a windy november"


def test_a_model_in_a_bucket_is_fetched_once_and_is_the_same_model(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "cache"))
    files = {"config.json": b'{"model_type": "llama"}', "tokenizer.json": b"{}", "model.safetensors": b"\0" * 100_000}
    local, remote = tmp_path / "model", open_store(f"{s3}/models-{tmp_path.name}/small")
    local.mkdir()
    for name, data in files.items():
        (local / name).write_bytes(data)
        remote.put(name, data)
    models.check(remote.uri)
    identity = models.digest(remote.uri)
    fetched = Path(models.resolve(remote.uri))
    assert {p.name: p.read_bytes() for p in fetched.iterdir() if p.name in files} == files
    copy = open_store(f"{s3}/models-{tmp_path.name}/copy")
    for name, data in files.items():
        copy.put(name, data)
    assert models.digest(copy.uri) == identity

    run = Pins()
    with active(run):
        assert models.digest(remote.uri) == identity
    remote.put("tokenizer.json", b"{}")  # the same bytes
    with active(run):
        assert models.resolve(remote.uri) == str(fetched)
    remote.put("model.safetensors", b"\0" * 50_000 + b"\1" + b"\0" * 49_999)
    assert models.digest(remote.uri) != identity
    with pytest.raises(UserError, match=r"model\.safetensors changed since this run began"), active(run):
        models.resolve(remote.uri)
    with pytest.raises(UserError, match="no object at this address"):
        models.check(f"{s3}/models-{tmp_path.name}/nothing")


def test_benchmarks_and_schemas_in_a_bucket(s3: str, tmp_path: Path) -> None:
    store = open_store(f"{s3}/checks-{tmp_path.name}")
    line = json.dumps({"text": QUESTION, "id": "q1"}).encode()
    store.put("bench/items.jsonl", line + b"\n")
    (tmp_path / "items.jsonl").write_bytes(line + b"\n")
    remote = Benchmark("oaks", f"{store.uri}/bench", id_column="id")
    assert list(load(remote)) == [("q1", QUESTION)]
    assert digest(remote) == digest(Benchmark("oaks", str(tmp_path / "items.jsonl"), id_column="id"))
    stage = Decontaminate(DecontaminateSpec((remote,)))
    stage.check()
    stage.open()
    rows = pa.record_batch(
        {"text": [f"Tell me, {QUESTION}?", "nothing of the kind"], "reject": pa.nulls(2, pa.string())}
    )
    assert stage.run(rows).column("overlap_item").to_pylist() == ["q1", None]

    store.put("schema.json", b'{"type": "object", "required": ["a"]}')
    checker = JsonSchema(JsonSchema.Spec(file=f"{store.uri}/schema.json"))
    checker.check()
    checker.open()
    rows = pa.record_batch({"text": ['{"a": 1}', '{"b": 1}'], "reject": pa.nulls(2, pa.string())})
    assert checker.run(rows).column("reject").to_pylist() == [None, "json_schema:schema"]
