"""A generator for tests whose calls cost money: every call is logged, and no two calls have the same answer."""

import asyncio
import json
import os
import random
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.engines.contract import FREE_TEXT, AnswerForm, ChatEngine, Messages, Reply
from gristmill.engines.errors import AskRefused
from gristmill.engines.needs import Needs
from gristmill.generators.text.contract import Ask, Method, Session
from gristmill.generators.text.generator import TextGenerator
from gristmill.records.errors import UserError
from gristmill.records.lots import Plan, ask_batch, source_lot
from gristmill.records.output import answers
from gristmill.records.output.answers import AnswerFolder
from gristmill.records.readers.sources import SourceSpec, open_source
from gristmill.records.spec import placement
from gristmill.records.stores.local import LocalStore

PRICE = 0.25  # of a call: sums of it are exact
RUN = "f" * 32
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
    name: str | None = placement(None)  # value of the `model` column

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
    def model(self) -> str | None:
        return self.spec.name

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


class Steps(Method):
    """Calls its steps in order. A step is a list of prompts, all at once; later prompts hold the answers before."""

    kind = "steps"

    @property
    def payload(self) -> list[pa.Field]:
        return [pa.field("text", pa.string())]

    def fields_read(self) -> list[str]:
        return ["steps"]

    async def run(self, ask: Ask, session: Session) -> dict[str, Any]:
        so_far = ""
        for number, prompts in enumerate(ask.fields["steps"]):
            key = f"tool {number}"
            if (tool := session.value(key)) is None:
                tool = {"result": random.random()}
                session.keep(key, tool)
            replies = await session.chats([f"{prompt} after {so_far} and {tool}" for prompt in prompts])
            so_far = " ".join(reply.text for reply in replies)
        return {"text": so_far}


def asks(steps: list[Any], lot: int = 3) -> pa.RecordBatch:
    """The asks of a lot, one for each list of steps."""
    source = open_source(SourceSpec(items=({"steps": []},), cycle=True))
    batch = ask_batch(source_lot(Plan(RUN, len(steps), None, 1, "paid"), source, lot))
    column = pa.array([json.dumps({"steps": each}) for each in steps])
    return batch.set_column(batch.schema.names.index("ask"), "ask", column)


class Mortal:
    """A store of a process that may be killed: nothing is written after that. `num_faults` of its puts fail first."""

    def __init__(self, folder: Path, num_faults: int = 0) -> None:
        self.inner, self.is_dead, self.num_faults = LocalStore(str(folder)), False, num_faults
        self.uri = self.inner.uri

    def list(self, prefix: str = "") -> Any:
        return self.inner.list(prefix)

    def read_if_there(self, name: str) -> bytes | None:
        return self.inner.read_if_there(name)

    def put(self, name: str, data: bytes, *, if_absent: bool = False) -> None:
        if self.is_dead:
            return
        if self.num_faults:
            self.num_faults -= 1
            if self.num_faults % 2 and self.num_faults < 100:  # it was written, and the store's answer was lost
                self.inner.put(name, data, if_absent=if_absent)
            raise UserError("the store is in trouble")
        self.inner.put(name, data, if_absent=if_absent)


def num_kept(folder: Path, lot: int = 3) -> int:
    """Kept answers of calls."""
    records = answers.records_of(AnswerFolder(LocalStore(str(folder)), RUN), lot)
    return sum(record.cost > 0 for record in records)
