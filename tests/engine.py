"""One real vLLM engine with the demo model, lent to all tests that ask it in this process."""

import asyncio
from pathlib import Path
from typing import Any

from gristmill.engines.vllm import Engine
from gristmill.generators.teacher import Teacher, TeacherSpec
from gristmill.generators.text.registry import method_class
from gristmill.records.spec import build

MODEL: dict[str, Any] = {
    "model": "package:smollm2",
    "engine": {
        **{"max_model_len": 2048, "max_num_seqs": 32},
        # The parser has an effect only where a call states that its reasoning has not ended (test_reasoning.py).
        "structured_outputs_config": {
            **{"backend": "guidance", "disable_any_whitespace": True, "reasoning_parser": "hashes"},
            "reasoning_parser_plugin": str(Path(__file__).parent / "engines" / "hash_parser.py"),
        },
    },
    "kv_cache_gb": 1,
    "threads": 1,
}


def teacher(**table: Any) -> Teacher:
    """A teacher that sends the text of the ask as it is, not open yet."""
    method = method_class("prompt")
    made = Teacher(
        build(TeacherSpec, {**MODEL, **table}, "generator"),
        method(build(method.Spec, {"template": "{text}"}, "method")),
    )
    made.check()
    return made


class SharedEngine:
    """The engine and the event loop that its tasks belong to. It is started when it is first asked for."""

    def __init__(self) -> None:
        self.loop = asyncio.Runner()
        self._owner: Teacher | None = None

    @property
    def engine(self) -> Engine:
        if self._owner is None:
            self._owner = teacher()
            self._owner.open()
        assert self._owner._engine is not None
        return self._owner._engine

    def close(self) -> None:
        """End the engine; the next who asks for it starts another."""
        if self._owner is not None:
            self._owner.close()
            self._owner = None
