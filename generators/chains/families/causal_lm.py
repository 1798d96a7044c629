"""Chains of causal language models: generation g's weights are the teacher of generation g + 1.

A generation trains a model on its rows (generators/lm), as `gristmill fit` does, with checkpoints; then an engine takes
the weights over and writes the rows of the next. Rows are blocks of `length` tokens, as texts: fresh samples, or with
`prompt_tokens` what follows the beginnings of real blocks, as in Shumailov et al. (2024).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa

from gristmill.engines import models
from gristmill.engines.scorer import Scorer, bits_per_byte, perplexity
from gristmill.engines.vllm import ENGINE_REVISION, Engine
from gristmill.generators.chains.contract import Measures, Piece
from gristmill.generators.chains.families.tabled import TableChain, digest_of, mixed
from gristmill.generators.lm import tokens
from gristmill.generators.lm.family import CausalLm
from gristmill.generators.lm.spec import LmSpec
from gristmill.records.errors import UserError
from gristmill.records.readers.datasets import DataSpec, digest_table, read_table
from gristmill.records.readers.tables import Column, TableSchema
from gristmill.records.spec import build
from gristmill.records.words import tokens as word_tokens

TEXT = "text"
SCHEMA = TableSchema((Column(TEXT, "text"),))
NUM_SHOWN = 3


@dataclass(frozen=True)
class CausalLmSpec:
    """`model`: base, lora, length, epochs, lr, hidden, layers, ... as [model] of a fit recipe of kind causal-lm."""

    data: DataSpec
    holdout: DataSpec
    model: dict[str, Any] = field(default_factory=dict)
    column: str = TEXT
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  # 0: all tokens
    prompt_tokens: int = 0  # of a real block, that a sample goes on from; 0: samples start afresh
    engine: dict[str, Any] = field(default_factory=dict)  # arguments of vLLM's AsyncEngineArgs
    scored: int = 256  # blocks of the holdout that each generation is judged by
    keep_models: bool = False  # of all generations, under models/; else that of generation 1

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.top_k < 0:
            raise ValueError("temperature and top_k must not be negative, and top_p lie in (0, 1]")
        if self.prompt_tokens < 0 or self.scored < 1:
            raise ValueError("prompt_tokens must not be negative and scored be at least 1")


class Real(NamedTuple):
    """The real text, cut."""

    tokenizer: Any
    train: pa.Table
    holdout: list[str]
    words: list[list[str]]  # of the train blocks


@lru_cache(maxsize=2)  # cells of a study have it in common
def real_blocks(
    data: DataSpec, held_out: DataSpec, column: str, base: str | None, vocabulary: int, length: int
) -> Real:
    """From scratch the tokenizer is learnt from the train texts, once for all generations."""
    train, holdout = (_texts(read_table(d), column, str(d)) for d in (data, held_out))
    if base is None:
        tokenizer = tokens.learnt(train, vocabulary)
    else:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(models.resolve(base))
    blocks = tokens.pieces(tokenizer, train, length)
    held = tokens.pieces(tokenizer, holdout, length)
    if not held:
        raise UserError(f"{held_out} has no text of {length} tokens")
    return Real(tokenizer, pa.table({TEXT: blocks}), held, [word_tokens(text) for text in blocks])


def _texts(table: pa.Table, column: str, what: str) -> list[str]:
    schema = TableSchema((Column(column, "text"),))
    return list(schema.conform(table, what).column(0).to_pylist())


class CausalLmChain(TableChain):
    """Needs engines (`engines`) that write, and a shelf (`shelf`) that models lie on."""

    kind: ClassVar[str] = "causal_lm"
    Spec: ClassVar[type] = CausalLmSpec
    is_served: ClassVar[bool] = True
    spec: CausalLmSpec

    def __init__(self, spec: CausalLmSpec) -> None:
        super().__init__(spec)
        self.lm: LmSpec = build(LmSpec, {"packing": "rows", **spec.model}, "family.model")
        if spec.prompt_tokens >= self.lm.length:
            raise UserError(
                "family.prompt_tokens must be below model.length: prompts are the beginnings of real blocks"
            )

    def check(self, n: int) -> None:
        super().check(n)
        CausalLm(self.lm, SCHEMA).check()
        Engine("", self.spec.engine, chat=False).check()
        self.open()
        if n > self.real_text.train.num_rows:
            raise UserError(
                f"{self.spec.data} has {self.real_text.train.num_rows:,} blocks of {self.lm.length} tokens, n is {n:,}"
            )

    def identity(self) -> list[Any]:
        base = models.digest(self.lm.base) if self.lm.base is not None else None
        return [digest_of(self.spec.data), digest_of(self.spec.holdout), base, ENGINE_REVISION]

    def open(self) -> None:
        spec, lm = self.spec, self.lm
        self.real_text = real_blocks(spec.data, spec.holdout, spec.column, lm.base, lm.vocabulary, lm.length)

    def real(self, chains: int, num: int, random: np.random.Generator) -> pa.Table:
        """Blocks of the train text at random, none twice."""
        train = self.real_text.train
        return train.take(pa.array(random.permutation(train.num_rows)[:num]))

    def columns(self) -> pa.Schema:
        schema: pa.Schema = self.real_text.train.schema
        return schema

    def every_real(self) -> pa.Table:
        return self.real_text.train

    # A generation. Its model is its files: what is sampled and what is judged are the same bytes.

    def fit(self, pieces: Sequence[Piece], random: np.random.Generator) -> dict[str, bytes]:
        import torch

        from gristmill.generators.families.fit import Fit, is_finished

        rows = mixed(pieces, random)
        model = CausalLm(self.lm, SCHEMA)
        model.tokenizer = self.real_text.tokenizer
        model.device = device()
        told = {"path": f"generation {self.shelf.generation}", "num_rows": rows.num_rows, "digest": digest_table(rows)}
        store = self.shelf.folder(self.shelf.generation)
        job = Fit(model, rows, told, store, int(random.integers(2**62)), threads=torch.get_num_threads())
        if not is_finished(store):
            job.run()
        return self.shelf.served(self.shelf.generation)

    def sample(self, model: dict[str, bytes], num: int, random: np.random.Generator) -> pa.Table:
        """Blocks of `length` tokens each. What ends a text is passed over, so that blocks are equally long."""
        seeds = random.integers(0, 2**62, num)
        start = tokens.start_of(self.real_text.tokenizer)
        prompts = [start] * num
        if self.spec.prompt_tokens:
            picked = self.real_text.train.take(pa.array(random.integers(self.real_text.train.num_rows, size=num)))
            ids = tokens.encoded(self.real_text.tokenizer, picked.column(0).to_pylist())
            decode = self.real_text.tokenizer.decode
            prompts = [start + decode(own[: self.spec.prompt_tokens]) for own in ids]
        sampling = {
            "temperature": self.spec.temperature,
            "top_p": self.spec.top_p,
            "top_k": self.spec.top_k or -1,
            "max_tokens": self.lm.length,
            "ignore_eos": True,
        }
        made = self.engines.texts(model, self.spec.engine, prompts, [int(s) for s in seeds], sampling)
        return pa.table({TEXT: pa.array(made, pa.string())})

    def measure(self, model: dict[str, bytes], made: pa.Table, random: np.random.Generator) -> Measures:
        """perplexity and bits_per_byte of the holdout, and what the meter says of the texts made, with their own
        perplexity under generation 1's model."""
        length, tokenizer = self.lm.length, self.real_text.tokenizer
        own = Scorer.from_files(model, tokenizer, device())
        held = self.real_text.holdout[: self.spec.scored]
        scores = own.log_probabilities(held, length)
        found = {"perplexity": perplexity(scores), "bits_per_byte": bits_per_byte(scores, held)}
        first = own if self.shelf.generation == 1 else Scorer.from_files(self.shelf.served(1), tokenizer, device())
        texts = made.column(0).to_pylist()
        self._under_first = first.log_probabilities(texts, length)
        if self.meter is not None:
            meter = self.meter.text(self.real_text.words)
            found |= meter([word_tokens(t) for t in texts], self._under_first)
        return {name: np.array([value], np.float64) for name, value in found.items()}

    def exhibit(self, made: pa.Table) -> Mapping[str, Any]:
        told: dict[str, Any] = {"texts": made.column(0).slice(0, NUM_SHOWN).to_pylist()}
        if self.meter is not None:
            told["histogram"] = self.meter.text.histogram(self._under_first)
        return told

    def close(self) -> None:
        """The unit is done."""
        if self.shelf.generation > 1 and not self.spec.keep_models:
            self.shelf.clear()


def device() -> str:
    """cuda where the unit was given one; Ray hides the others."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
