"""The laws of generators/contract.py hold for the generators that need no model, and the checks catch broken ones."""

import secrets
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest

from gristmill.generators.contract import GeneratedRow, Generator, fields_of, fill
from gristmill.generators.registry import generator_class
from gristmill.generators.text.registry import method_class
from gristmill.records.schema import ASK, REJECT
from gristmill.records.spec import build
from gristmill.testing.generators import check_generator


@pytest.mark.parametrize("kind", ["canned", "passthrough", "simulator"])
def test_the_generators_without_a_model_keep_the_laws(kind: str) -> None:
    table = {"canned": {"bad": 0.3}, "passthrough": {}, "simulator": {"simulator": "cartpole"}}[kind]
    generator_type: Any = generator_class(kind)
    spec = build(generator_type.Spec, table, "generator")
    if generator_type.takes_method:
        method = method_class("prompt")
        check_generator(lambda: generator_type(spec, method(method.Spec())))
    else:
        check_generator(generator_type(spec), [{"delay": n % 3} for n in range(9)] if kind == "simulator" else None)


@dataclass(frozen=True)
class EchoSpec:
    broken: int = 0  # number of the law that it breaks; 0: none


class Echo(Generator):
    """Answers each ask with its own text, and breaks the law that its spec names."""

    kind = "echo"
    Spec = EchoSpec

    def __init__(self, spec: EchoSpec) -> None:
        self.spec, self.salt = spec, ""

    @property
    def payload(self) -> list[pa.Field]:
        return [pa.field("text", pa.int64() if self.spec.broken == 2 else pa.string())]

    def open(self) -> None:
        if self.spec.broken == 4:
            self.salt = secrets.token_hex(4)

    async def make(self, asks: pa.RecordBatch) -> pa.RecordBatch:
        broken, dead = self.spec.broken, asks.column(REJECT.name).is_valid().to_pylist()
        if broken == 6 and not asks.num_rows:
            raise IndexError("no rows")
        if broken == 1:
            asks = asks.slice(0, max(0, asks.num_rows - 1))
        texts = [(fields_of(text) or {}).get("text") for text in asks.column(ASK.name).to_pylist()]
        if broken == 3:
            texts = [f"{text} of {asks.num_rows}" for text in texts]
        texts = [f"{text}{self.salt}" for text in texts]
        made = [None if d and broken != 5 else GeneratedRow({"text": t}, "stop") for d, t in zip(dead, texts)]
        payload = [pa.field("text", pa.string())]
        return fill(asks, payload, made[: asks.num_rows])


@pytest.mark.parametrize("law", range(1, 7))
def test_a_generator_that_breaks_a_law_is_caught(law: int) -> None:
    check_generator(Echo(EchoSpec()))
    with pytest.raises(AssertionError, match=f"breaks law {law}"):
        check_generator(lambda: Echo(EchoSpec(law)))
