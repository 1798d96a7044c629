"""Chains of causal language models: the model of generation g writes the training rows of generation g + 1.

Each generation trains a model on its rows (generators/lm) with checkpoints, as `gristmill fit` does. Then an engine
loads the weights and writes the rows of the next generation. Rows are texts of `length` tokens: fresh samples, or with
`prompt_tokens` continuations of real blocks, as in Shumailov et al. (2024).
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
from gristmill.generators.chains.contract import NO_CONTEXT, ChainContext, Measures, Piece
from gristmill.generators.chains.families.tabled import TableChain, digest_of, mix_pieces
from gristmill.generators.chains.model_store import ModelStore
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
NUM_EXHIBIT_ROWS = 3


@dataclass(frozen=True)
class CausalLmSpec:
    """`[family]` of kind "causal_lm"."""

    data: DataSpec  # Real texts that the chain learns from.
    holdout: DataSpec  # Real texts that measure each generation; no model learns from them.
    # Keys of `[model]` of a fit recipe of kind "causal_lm": base, lora, length, epochs, lr, hidden, layers, ...
    model: dict[str, Any] = field(default_factory=dict)
    column: str = TEXT  # Text column of `data` and `holdout`.
    temperature: float = 1.0  # Sampling temperature; 0 takes the most likely token.
    top_p: float = 1.0  # Samples from the most likely tokens that together have this probability.
    top_k: int = 0  # Samples from this many most likely tokens; 0 allows all tokens.
    prompt_tokens: int = 0  # Number of tokens of a real block that each sample continues; 0 samples without a prompt.
    engine: dict[str, Any] = field(default_factory=dict)  # Arguments of vLLM's AsyncEngineArgs.
    scored: int = 256  # Number of holdout blocks that measure each generation.
    keep_models: bool = False  # Keeps the model of every generation under models/, not only that of generation 1.

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.top_k < 0:
            raise ValueError("temperature and top_k must be at least 0, and top_p in (0, 1]")
        if self.prompt_tokens < 0 or self.scored < 1:
            raise ValueError("prompt_tokens must be at least 0 and scored at least 1")


class RealText(NamedTuple):
    """The real texts in blocks of `length` tokens."""

    tokenizer: Any
    train: pa.Table
    holdout: list[str]
    words: list[list[str]]  # of the train blocks


@lru_cache(maxsize=2)  # cells of a study share it
def real_blocks(
    data: DataSpec, holdout: DataSpec, column: str, base: str | None, vocabulary: int, length: int
) -> RealText:
    """The real texts in blocks. Without a base model, the tokenizer is trained on the train texts.

    Raises UserError when the holdout has no block.
    """
    train, held_out = (_texts(read_table(d), column, str(d)) for d in (data, holdout))
    if base is None:
        tokenizer = tokens.learnt(train, vocabulary)
    else:
        from gristmill.engines.scorer import load_tokenizer

        tokenizer = load_tokenizer(base)
    blocks = tokens.pieces(tokenizer, train, length)
    held_out_blocks = tokens.pieces(tokenizer, held_out, length)
    if not held_out_blocks:
        raise UserError(f"{holdout} has no text of {length} tokens")
    return RealText(tokenizer, pa.table({TEXT: blocks}), held_out_blocks, [word_tokens(text) for text in blocks])


def _texts(table: pa.Table, column: str, name_of_rows: str) -> list[str]:
    schema = TableSchema((Column(column, "text"),))
    return list(schema.conform(table, name_of_rows).column(0).to_pylist())


class CausalLmChain(TableChain):
    """Needs engines and a model store in its context."""

    kind: ClassVar[str] = "causal_lm"
    Spec: ClassVar[type] = CausalLmSpec
    is_served: ClassVar[bool] = True
    spec: CausalLmSpec

    def __init__(self, spec: CausalLmSpec, context: ChainContext = NO_CONTEXT) -> None:
        super().__init__(spec, context)
        self.lm: LmSpec = build(LmSpec, {"packing": "rows", **spec.model}, "family.model")
        if spec.prompt_tokens >= self.lm.length:
            raise UserError(
                "family.prompt_tokens must be below model.length, because prompts are beginnings of real blocks"
            )

    @property
    def model_store(self) -> ModelStore:
        """Where the chain keeps its models."""
        assert self.context.model_store is not None, "only a unit of work fits a language model"
        return self.context.model_store

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
        """Random blocks of the train text without repetition."""
        train = self.real_text.train
        return train.take(pa.array(random.permutation(train.num_rows)[:num]))

    def columns(self) -> pa.Schema:
        schema: pa.Schema = self.real_text.train.schema
        return schema

    def every_real(self) -> pa.Table:
        return self.real_text.train

    # A generation. Its model is a set of files: sampling and measures read the same bytes.

    def fit(self, pieces: Sequence[Piece], random: np.random.Generator) -> dict[str, bytes]:
        import torch

        from gristmill.generators.families.fit import Fit, is_finished

        rows = mix_pieces(pieces, random)
        model = CausalLm(self.lm, SCHEMA)
        model.tokenizer = self.real_text.tokenizer
        model.device = device()
        generation = self.model_store.generation
        data = {"path": f"generation {generation}", "num_rows": rows.num_rows, "digest": digest_table(rows)}
        store = self.model_store.folder(generation)
        job = Fit(model, rows, data, store, int(random.integers(2**62)), threads=torch.get_num_threads())
        if not is_finished(store):
            job.run()
        return self.model_store.files_to_serve(generation)

    def sample(self, model: dict[str, bytes], num: int, random: np.random.Generator) -> pa.Table:
        """Blocks of `length` tokens. The end-of-text token is ignored, so all blocks have the same length."""
        seeds = random.integers(0, 2**62, num)
        start = tokens.start_of(self.real_text.tokenizer)
        prompts = [start] * num
        if self.spec.prompt_tokens:
            picked = self.real_text.train.take(pa.array(random.integers(self.real_text.train.num_rows, size=num)))
            ids = tokens.encode(self.real_text.tokenizer, picked.column(0).to_pylist())
            decode = self.real_text.tokenizer.decode
            prompts = [start + decode(block[: self.spec.prompt_tokens]) for block in ids]
        sampling = {
            "temperature": self.spec.temperature,
            "top_p": self.spec.top_p,
            "top_k": self.spec.top_k or -1,
            "max_tokens": self.lm.length,
            "ignore_eos": True,
        }
        assert self.context.engines is not None
        texts = self.context.engines.texts(model, self.spec.engine, prompts, [int(s) for s in seeds], sampling)
        return pa.table({TEXT: pa.array(texts, pa.string())})

    def measure(self, model: dict[str, bytes], rows: pa.Table, random: np.random.Generator) -> Measures:
        """perplexity and bits_per_byte of the holdout; the text metrics of the rows that the model made, with their
        perplexity under the model of generation 1."""
        length, tokenizer = self.lm.length, self.real_text.tokenizer
        scorer = Scorer.from_files(model, tokenizer, device())
        held_out = self.real_text.holdout[: self.spec.scored]
        scores = scorer.log_probabilities(held_out, length)
        measures = {"perplexity": perplexity(scores), "bits_per_byte": bits_per_byte(scores, held_out)}
        first = scorer
        if self.model_store.generation > 1:
            first = Scorer.from_files(self.model_store.files_to_serve(1), tokenizer, device())
        texts = rows.column(0).to_pylist()
        self._under_first = first.log_probabilities(texts, length)
        if self.context.metrics is not None:
            measure_texts = self.context.metrics.text(self.real_text.words)
            measures |= measure_texts([word_tokens(t) for t in texts], self._under_first)
        return {name: np.array([value], np.float64) for name, value in measures.items()}

    def exhibit(self, rows: pa.Table) -> Mapping[str, Any]:
        shown: dict[str, Any] = {"texts": rows.column(0).slice(0, NUM_EXHIBIT_ROWS).to_pylist()}
        if self.context.metrics is not None:
            shown["histogram"] = self.context.metrics.text.histogram(self._under_first)
        return shown

    def close(self) -> None:
        """Remove the model after its unit is committed, unless it is kept."""
        if self.model_store.generation > 1 and not self.spec.keep_models:
            self.model_store.clear()


def device() -> str:
    """ "cuda" where Ray has assigned a GPU to the unit, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
