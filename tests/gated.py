"""A generator for tests whose asks about "the gate" are answered when a file is there, and all others at once."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from gristmill.engines.contract import FREE_TEXT, AnswerForm, ChatEngine, Messages, Reply
from gristmill.engines.needs import Needs
from gristmill.generators.text.contract import Method
from gristmill.generators.text.generator import TextGenerator

WORDS = "the gate"


@dataclass(frozen=True)
class GatedSpec:
    """`folder` holds the gate and the log of answered prompts."""

    folder: str
    num_slots: int = 8
    seconds: float = 0.002  # of an ask whose gate is open


class GatedEngine:
    """Works on `num_slots` asks at once."""

    synchronous = False

    def __init__(self, spec: GatedSpec) -> None:
        self.num_slots, self.seconds = spec.num_slots, spec.seconds
        self.gate, self.log = Path(spec.folder, "open"), Path(spec.folder, "log")

    async def chat(
        self, prompt: Messages, sampling: Mapping[str, Any], seed: int, form: AnswerForm = FREE_TEXT
    ) -> Reply:
        await asyncio.sleep(self.seconds)
        while WORDS in prompt and not self.gate.exists():
            await asyncio.sleep(0.02)
        with open(self.log, "a") as log:
            log.write(f"{prompt}\n")
        return Reply(f"answer {seed}", "stop", 3, 7)


class Gated(TextGenerator):
    """A method on a `GatedEngine`."""

    kind: ClassVar[str] = "gated"
    Spec: ClassVar[type] = GatedSpec

    def __init__(self, spec: GatedSpec, method: Method) -> None:
        super().__init__(spec, method)

    @property
    def needs(self) -> Needs:
        return Needs(num_cpus=0.1, pooled=True)

    def open_engine(self) -> ChatEngine:
        return GatedEngine(self.spec)
