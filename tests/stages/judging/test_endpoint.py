"""A judge behind an endpoint: scores by a schema, a refused ask is a missing score."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from gristmill.records.spec import build
from gristmill.stages.judging.judge import Judge, JudgeSpec
from tests.engines.endpoint.proxy import MODEL, Proxy


def test_a_judge_asks_an_endpoint() -> None:
    def change(data: dict[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
        data["choices"][0]["message"]["content"] = json.dumps({"score": 5 if "good" in str(body["messages"]) else 2})
        return data

    def script(number: int, body: Mapping[str, Any]) -> Any:
        is_long = "too long" in str(body["messages"])
        return (400, {"error": {"message": "prompt is too long"}}) if is_long else "429" if number == 0 else None

    texts = ["a good text", "a poor text", "a text that is too long"]
    batch = pa.RecordBatch.from_pydict({"text": texts, "seed": pa.array([1, 2, 3], pa.int64())})
    with Proxy(change=change, script=script) as server:
        table = {"min_score": 3, "endpoint": {"base_url": server.url, "model": MODEL, "sampling": {"max_tokens": 48}}}
        judge = Judge(build(JudgeSpec, table, "stages[0]"))
        judge.check()
        judge.open()
        findings = asyncio.run(judge.find_pooled(batch))
        judge.close()
    assert findings.columns["judge_score"].to_pylist() == [5, 2, None]
    assert findings.reasons is not None
    assert findings.reasons.to_pylist() == [None, "score", "no_score"]
    assert findings.columns["judge_tokens_out"].to_pylist() == [4, 4, 0]
    assert judge.needs.is_remote and not judge.is_repeatable
    assert all(body["max_tokens"] == 48 and body["temperature"] == 0.0 for body in server.bodies)
    assert all("response_format" in body for body in server.bodies)
