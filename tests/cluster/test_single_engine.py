"""One engine for a while: the process that opens it gets the secrets that its part names, and no others."""

import asyncio
import os
from types import SimpleNamespace
from typing import Any

import pytest

from gristmill.cluster.pools.replica import StageWorker
from gristmill.cluster.single_engine import EngineProcess, SingleEngine
from gristmill.engines.endpoint.spec import EndpointSpec
from gristmill.generators.endpoint import Endpoint, EndpointTeacherSpec
from gristmill.generators.text.prompt import Prompt, PromptSpec
from gristmill.stages.judging.judge import Judge, JudgeSpec

ADDRESS: dict[str, Any] = {
    "base_url": "http://127.0.0.1:9/v1",
    "model": "m",
    "api_key_env": "KEY_OF_TEST",
    "headers_env": {"X-Org": "ORG_OF_TEST"},
}
SECRETS = {"KEY_OF_TEST": "key", "ORG_OF_TEST": "org"}


@pytest.mark.parametrize(
    "part",
    [
        Endpoint(EndpointTeacherSpec(**ADDRESS), Prompt(PromptSpec())),
        StageWorker(Judge(JudgeSpec(endpoint=EndpointSpec(**ADDRESS)), "judge")),
    ],
    ids=["generator", "judge"],
)
def test_an_engine_elsewhere_gets_the_secrets_of_its_part(part: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of a cluster that runs already has not the environment of the driver."""
    seen: dict[str, str] = {}
    for name, value in {**SECRETS, "OTHER_OF_TEST": "other"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(part, "open", lambda: seen.update(os.environ))

    def elsewhere(*args: Any) -> Any:
        with pytest.MonkeyPatch.context() as there:
            there.setattr(os, "environ", {"PATH": os.environ["PATH"]})
            return asyncio.run(EngineProcess(part).open(*args))

    engine = SingleEngine(part, lambda: False, lambda phase, done: None)
    engine._actor = SimpleNamespace(open=SimpleNamespace(remote=elsewhere))
    monkeypatch.setattr(engine, "wait", lambda value, limit_s, phase: value)
    engine.open(1.0)
    assert {name: value for name, value in seen.items() if name != "PATH"} == SECRETS
