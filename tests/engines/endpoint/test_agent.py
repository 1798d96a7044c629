"""An agent on an endpoint: the server states calls, gets them back with their results, and a row is kept."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from gristmill.generators.endpoint import Endpoint, EndpointTeacherSpec
from gristmill.records.spec import build
from tests.conftest import ROOT
from tests.engines.endpoint.proxy import MODEL, Proxy
from tests.generators.text.script import asks, method_of

TABLE = {"tools": [{"kind": "file", "file": str(ROOT / "recipes" / "tools" / "library.py")}], "max_turns": 4}
TURNS: list[Any] = [
    [("late_fee", '{"days_late": 5}'), ("late_fee", '{"days_late": ')],
    [("book_details", '{"book_id": "B101"}')],
    "It is $1.00.",
]


def turn(data: dict[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of a server with tools: by the number of the model's turns before it."""
    said = TURNS[sum(message["role"] == "assistant" for message in body["messages"])]
    if isinstance(said, str):
        message: dict[str, Any] = {"role": "assistant", "content": said}
    else:
        calls = [
            {"id": f"chatcmpl-tool-{number}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for number, (name, arguments) in enumerate(said)
        ]
        message = {"role": "assistant", "content": None, "tool_calls": calls}
    finish = "stop" if isinstance(said, str) else "tool_calls"
    return {**data, "choices": [{"index": 0, "finish_reason": finish, "message": message}]}


@pytest.mark.parametrize("fault", [None, "500", "cut"])
def test_a_trajectory_on_an_endpoint(fault: str | None) -> None:
    with Proxy(script=lambda number, _: fault if number == 1 else None, change=turn) as server:
        spec = build(EndpointTeacherSpec, {"base_url": server.url, "model": MODEL, "timeout_s": 5}, "generator")
        generator = Endpoint(spec, method_of("agent", TABLE))
        generator.check()

        async def rows() -> list[dict[str, Any]]:
            generator.open()
            try:
                return (await generator.make(asks([{"text": "What do I pay?"}]))).to_pylist()  # type: ignore[no-any-return]
            finally:
                generator.close()

        (row,) = asyncio.run(rows())
    assert (row["reject"], row["text"], row["finish"]) == (None, "It is $1.00.", "stop")
    assert (row["num_turns"], row["num_calls"], row["num_failed_calls"]) == (3, 3, 1)
    last = server.bodies[-1]
    assert [tool["function"]["name"] for tool in last["tools"]] == [
        t["function"]["name"] for t in json.loads(row["tools"])
    ]
    calls = [call for message in last["messages"] for call in message.get("tool_calls", ())]
    results = [message for message in last["messages"] if message["role"] == "tool"]
    assert [call["id"] for call in calls] == [result["tool_call_id"] for result in results]
    assert all(isinstance(json.loads(call["function"]["arguments"]), dict) for call in calls), "servers refuse others"
    assert results[0]["content"] == "1.00" and results[1]["content"].startswith("Error: ")
