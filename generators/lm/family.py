"""`causal_lm`: a causal language model trained on texts, from scratch or from a base, whole or by adapters.

It makes no rows itself. Its folder holds `hf/`, which the teacher serves (`[generator] kind = "teacher", model =
"OUT/hf"`), so that a model of ours is sampled by the engine that samples all others.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gristmill.engines import models
from gristmill.engines.scorer import load_network
from gristmill.generators.families.contract import Family, SampleBlock, State, stream
from gristmill.generators.lm import tokens
from gristmill.generators.lm.spec import LmSpec
from gristmill.generators.private.account import Account
from gristmill.records.errors import UserError
from gristmill.records.extras import check_installed
from gristmill.records.stores.contract import Store

INIT, ORDER = 1 << 32, 1 << 33  # keys of streams, beyond all steps
SERVING_FOLDER = "hf/"  # where in a model's folder lies what transformers and vLLM read
WARM, LEAST = 0.1, 0.1  # the share of steps over which the rate rises, and what it falls to


class CausalLm(Family):
    """A language model of a schema with a single column of texts."""

    kind: ClassVar[str] = "causal_lm"
    revision: ClassVar[int] = 1
    Spec: ClassVar[type] = LmSpec
    extra: ClassVar[str] = "lm"
    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers")
    makes_rows: ClassVar[bool] = False
    used_by: ClassVar[str] = '[generator] kind = "teacher", model = "{uri}/hf", chat = false'
    spec: LmSpec
    tokenizer: Any = None  # set before `begin` where rows must not decide it; else the base's, or learnt from the rows

    def check(self) -> None:
        if [c.kind for c in self.schema.columns] != ["text"]:
            raise UserError(
                "model 'causal_lm' learns from one column of texts: give [data] columns = [\"text\"] and "
                '[schema] columns = [{name = "text", kind = "text"}]'
            )
        if self.spec.base is not None:
            models.check(self.spec.base)

    def check_packages(self) -> None:
        super().check_packages()
        if self.spec.lora:
            check_installed("lm", "peft")

    # Fitting.

    @property
    def num_steps(self) -> int:
        return max(1, math.ceil(self.spec.epochs * len(self._blocks) / self._batch))

    @property
    def _batch(self) -> int:
        return min(self.spec.batch, len(self._blocks))

    def begin(self, table: pa.Table, seed: int, account: Account | None) -> None:
        texts = table.column(0).to_pylist()
        self._seed = seed
        if self.tokenizer is None:
            self.tokenizer = self.own_tokenizer(texts)
        cut = tokens.rows_of if self.spec.packing == "rows" else tokens.blocks_of
        self._blocks = cut(self.tokenizer, texts, self.spec.length)
        if not (self._blocks[:, 1:] != tokens.IGNORED).any():
            raise UserError("the texts hold nothing to learn from")
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))
        self._build()

    def own_tokenizer(self, texts: Sequence[str]) -> Any:
        """The tokenizer of the base; without a base, a new one learned from `texts`."""
        if self.spec.base is None:
            return tokens.learnt(texts, self.spec.vocabulary)
        from gristmill.engines.scorer import load_tokenizer

        return load_tokenizer(self.spec.base)

    def _build(self) -> None:
        import torch

        from gristmill.generators.nets import causal
        from gristmill.generators.nets.arrays import seed_torch

        seed_torch(getattr(self, "_seed", 0), INIT)
        if self.spec.base is None:
            network = causal.from_scratch(self.spec, self.tokenizer)
        else:
            network = load_network(self.spec.base)
        if self.spec.lora:
            network = causal.add_adapters(network, self.spec)
        self._network = network.to(self.device).train()
        self._adam = torch.optim.AdamW(
            [weight for _, weight in causal.trained_weights(network)],
            self.spec.lr,
            betas=(0.9, 0.95),
            weight_decay=self.spec.weight_decay,
            fused=True,
        )

    def train(self, start: int, stop: int) -> Mapping[str, float]:
        mean_loss = np.mean([self._step(step) for step in range(start, stop)])
        return {"loss": float(mean_loss)}

    def _step(self, step: int) -> float:
        import torch

        from gristmill.generators.nets import causal

        blocks = torch.from_numpy(self._blocks[self._rows(step)]).to(self.device)
        for group in self._adam.param_groups:
            group["lr"] = self.spec.lr * self._rate(step)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            loss = causal.mean_loss(self._network, blocks)
        self._adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([w for _, w in causal.trained_weights(self._network)], self.spec.clip)
        self._adam.step()
        return float(loss.detach())

    def _rate(self, step: int) -> float:
        warm = max(1, int(WARM * self.num_steps))
        if step < warm:
            return (step + 1) / warm
        return LEAST + (1 - LEAST) * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, self.num_steps - warm)))

    def _rows(self, step: int) -> np.ndarray:
        """The blocks of a step; each epoch visits all blocks in its own order."""
        places = np.arange(step * self._batch, (step + 1) * self._batch)
        epochs, at = places // len(self._blocks), places % len(self._blocks)
        rows = np.empty(len(places), np.int64)
        for epoch in np.unique(epochs):
            if self._order[0] != epoch:
                self._order = int(epoch), stream(self._seed, ORDER, int(epoch)).permutation(len(self._blocks))
            rows[epochs == epoch] = self._order[1][at[epochs == epoch]]
        return rows

    def model_state(self) -> State:
        from gristmill.generators.nets import causal

        facts = {}
        if self.spec.base is None:
            facts = {"tokenizer": {n: d.decode() for n, d in tokens.files_of(self.tokenizer).items()}}
        return State(causal.arrays(self._network), facts)

    def training_state(self) -> State:
        from gristmill.generators.nets.arrays import of_adam

        return State(of_adam(self._adam, "adam"))

    def restore(self, model_state: State, training_state: State | None = None) -> None:
        from gristmill.generators.nets import causal
        from gristmill.generators.nets.arrays import to_adam

        if training_state is None:
            if self.spec.base is None:
                self.tokenizer = tokens.from_files({n: t.encode() for n, t in model_state.facts["tokenizer"].items()})
            else:
                self.tokenizer = self.own_tokenizer(())
            self._build()
        causal.load_arrays(self._network, model_state.tensors)
        if training_state is not None:
            to_adam(self._adam, "adam", training_state.tensors)

    # For teachers and other programs.

    def files(self) -> dict[str, bytes]:
        """hf/: the model as transformers and vLLM read it."""
        return {f"{SERVING_FOLDER}{name}": data for name, data in self.files_to_serve().items()}

    def files_to_serve(self) -> dict[str, bytes]:
        """The same, without the folder's name."""
        from gristmill.generators.nets import causal

        return {**causal.files_to_serve(self._network), **tokens.files_of(self.tokenizer)}

    def sample(self, requests: Sequence[Mapping[str, Any]], seeds: np.ndarray) -> SampleBlock:
        raise AssertionError("a causal_lm is served by a teacher")


def served_files(store: Store) -> dict[str, bytes]:
    """hf/ of a finished model's folder, by name."""
    return {e.name.removeprefix(SERVING_FOLDER): store.read(e.name) for e in store.list(SERVING_FOLDER)}
