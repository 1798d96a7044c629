"""A generator for tests whose calls cost money: every call is logged, and no two calls have the same answer."""

import asyncio
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from gristmill.engines.contract import FREE_TEXT, AnswerForm, ChatEngine, Messages, Reply
from gristmill.engines.errors import AskRefused
from gristmill.engines.needs import Needs
from gristmill.generators.text.contract import Method
from gristmill.generators.text.generator import TextGenerator

PRICE = 0.25  # of a call: sums of it are exact
BEGUN, ANSWERED = "begun", "answered"


@dataclass(frozen=True)
class PaidSpec:
    """`folder` holds the log of the calls."""

    folder: str
    seconds: float = 0.0  # of a call
    num_slots: int = 8
    flush_s: float = 0.3
    price_out: float = 1.0
    refuse: str = ""  # prompts with this text are refused, for money

    @property
    def log(self) -> Path:
        return Path(self.folder, "calls")


def calls(folder: Path | str) -> dict[str, int]:
    """How many calls were begun and answered, by all processes."""
    lines = Path(folder, "calls").read_text().splitlines() if Path(folder, "calls").exists() else []
    return {BEGUN: lines.count(BEGUN), ANSWERED: lines.count(ANSWERED)}


class PaidEngine:
    """Takes PRICE for a call."""

    synchronous = False

    def __init__(self, spec: PaidSpec) -> None:
        self.spec, self.num_slots, self.flush_s = spec, spec.num_slots, spec.flush_s
        self._log = os.open(spec.log, os.O_APPEND | os.O_CREAT | os.O_WRONLY)

    async def chat(
        self, prompt: Messages, sampling: Mapping[str, Any], seed: int, form: AnswerForm = FREE_TEXT
    ) -> Reply:
        os.write(self._log, f"{BEGUN}\n".encode())
        await asyncio.sleep(self.spec.seconds)
        os.write(self._log, f"{ANSWERED}\n".encode())
        if self.spec.refuse and self.spec.refuse in prompt:
            raise AskRefused("content_filter", cost=PRICE)
        return Reply(f"The answer is {secrets.token_hex(16)}.", "stop", 3, 7, cost=PRICE)

    def close(self) -> None:
        os.close(self._log)


class Paid(TextGenerator):
    """A method on a `PaidEngine`."""

    kind: ClassVar[str] = "paid"
    Spec: ClassVar[type] = PaidSpec
    spec: PaidSpec

    def __init__(self, spec: PaidSpec, method: Method) -> None:
        super().__init__(spec, method)

    @property
    def needs(self) -> Needs:
        return Needs(num_cpus=0.0, pooled=True, is_remote=True)

    @property
    def is_paid(self) -> bool:
        return True

    @property
    def is_repeatable(self) -> bool:
        return False

    def open_engine(self) -> ChatEngine:
        return PaidEngine(self.spec)

    def close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()  # type: ignore[attr-defined]
