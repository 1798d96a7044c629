"""The contract of trainable generators: a family is fitted to rows once; its model then makes rows from seeds.

Five laws, checked by gristmill.testing.check_family:
 1. the same rows, seed and spec give the same model, wherever training stops and resumes;
 2. a row depends on its conditions, its seed and its place in the block, and on no other row. So the same seed gives
    the same bytes on any number of actors, and a lot sampled in parts equals the whole lot;
 3. columns match the schema: types, bounds, categories; nothing is NaN;
 4. a row meets its conditions, or is refused with a reason;
 5. a saved and loaded model makes the same rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gristmill.generators.private.account import Account
from gristmill.records.errors import UserError
from gristmill.records.extras import check_installed
from gristmill.records.kinds import Kinds, kind_class
from gristmill.records.readers.tables import TableSchema

KINDS: Kinds = {
    "adr": ("gristmill.generators.simulators.family", "AdrFamily"),
    "causal_lm": ("gristmill.generators.lm.family", "CausalLm"),
    "classifier": ("gristmill.generators.images.classifier", "Classifier"),
    "copula": ("gristmill.generators.tabular.copula", "Copula"),
    "ctgan": ("gristmill.generators.tabular.ctgan", "Ctgan"),
    "ddpm": ("gristmill.generators.images.ddpm", "Ddpm"),
    "dp_ctgan": ("gristmill.generators.tabular.dp_ctgan", "DpCtgan"),
    "dp_ddpm": ("gristmill.generators.images.dp_ddpm", "DpDdpm"),
    "dp_tvae": ("gristmill.generators.tabular.dp_tvae", "DpTvae"),
    "gan": ("gristmill.generators.images.gan", "Gan"),
    "independent": ("gristmill.generators.tabular.independent", "Independent"),
    "mst": ("gristmill.generators.tabular.mst", "Mst"),
    "pate_gan": ("gristmill.generators.tabular.pate_gan", "PateGan"),
    "quality": ("gristmill.generators.families.quality", "Quality"),
    "smote": ("gristmill.generators.tabular.smote", "Smote"),
    "tabddpm": ("gristmill.generators.tabular.tabddpm", "TabDdpm"),
    "tvae": ("gristmill.generators.tabular.tvae", "Tvae"),
    "vae": ("gristmill.generators.images.vae", "Vae"),
}


def family_class(kind: str) -> "type[Family]":
    """The class of family `kind`. Raises UserError naming the nearest one."""
    cls: type[Family] = kind_class(KINDS, kind, "model", Family, "gristmill.families")
    return cls


@dataclass
class State:
    """A model, or the state of a training: named arrays, and JSON-ready facts."""

    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class SampleBlock:
    """A block of sampled rows: an array for each schema column, and for each row None or why it is refused."""

    columns: dict[str, pa.Array]
    reasons: list[str | None]


class Sums(ABC):
    """Sums over rows that a model publishes with Gaussian noise: float64 (sums,)."""

    values: np.ndarray

    @abstractmethod
    def each(self, table: pa.Table) -> np.ndarray:
        """The contribution of each row: float64 (rows, sums)."""

    @abstractmethod
    def total(self, table: pa.Table) -> np.ndarray:
        """The contribution of all rows, computed in little memory: float64 (sums,)."""


class Family(ABC):
    """Base of every family. The constructor imports nothing heavy; `begin` and `restore` do."""

    kind: ClassVar[str]
    revision: ClassVar[int] = 1  # raise it when the same rows, spec and seed give another model; part of the identity
    Spec: ClassVar[type]
    block: ClassVar[int] = 256  # rows of a call of `sample`
    is_private: ClassVar[bool] = False  # whether it can be fitted under a privacy budget
    needs_privacy: ClassVar[bool] = False  # whether it cannot be fitted without one
    takes_engine: ClassVar[bool] = False  # whether `[privacy] engine` chooses its gradients
    holds_rows: ClassVar[bool] = False  # whether the model's folder holds the rows themselves
    min_rows: ClassVar[int] = 2
    needs_rows: ClassVar[bool] = True  # false: it learns from no rows, and `own_schema` declares its columns
    makes_rows: ClassVar[bool] = True  # false: its model serves a stage, or a teacher serves it
    extra: ClassVar[str] = ""  # the extra of the package that brings `packages`
    packages: ClassVar[tuple[str, ...]] = ()  # optional modules that fitting and sampling import
    used_by: ClassVar[str] = '[generator] kind = "model", model = "{uri}"'  # how a recipe uses the model

    def __init__(self, spec: Any, schema: TableSchema) -> None:
        self.spec = spec
        self.schema = schema
        self.device = "cpu"  # or "cuda"; set before `begin` or `restore`

    @classmethod
    def own_schema(cls, spec: Any) -> TableSchema:
        """The schema of a family that needs no rows. Raises UserError for a spec without columns."""
        raise AssertionError(f"{cls.kind} takes its schema from rows or recipe")

    def check_packages(self) -> None:
        """Raise UserError with a `pip install` hint if an optional package is missing. Imports none of them."""
        check_installed(self.extra, *self.packages)

    def check(self) -> None:  # noqa: B027
        """Raise UserError when the family cannot make a column of the schema."""

    def inputs(self) -> dict[str, str]:
        """Digests of what the spec refers to, e.g. of a base model; part of the identity of a fit."""
        return {}

    def check_rows(self, table: pa.Table) -> None:  # noqa: B027
        """Raise UserError when the family cannot learn from these rows. Cheap: it runs before a fit starts."""

    @classmethod
    def summary(cls, facts: Mapping[str, Any]) -> Mapping[str, str]:
        """Lines that describe a finished model to people, from its facts: text by subject."""
        return {}

    # Fitting.

    @property
    def num_steps(self) -> int:
        """Number of training steps, available after `begin`; 0 when `begin` alone fits the family."""
        return 0

    @abstractmethod
    def begin(self, table: pa.Table, seed: int, account: Account | None) -> None:
        """Learn the transforms and build the networks. `table` conforms to the schema; `seed` is below 2^63.

        With `account`, charge everything that depends on the rows to it before use.
        """

    def train(self, start: int, stop: int) -> Mapping[str, float]:
        """Run steps [start, stop), each with its own random numbers (`stream(seed, step)`). Returns mean losses.

        Called with adjoining spans, after `begin` or `restore`. With an account, raises BudgetExceeded before the step
        that would exceed the budget; the model is then as after the previous step. The model's folder publishes the
        losses: with an account they must not be computed from rows without noise.
        """
        raise AssertionError(f"{self.kind} has no steps")

    @abstractmethod
    def model_state(self) -> State:
        """Everything that `sample` needs."""

    def training_state(self) -> State:
        """Everything else that resuming the training needs: optimizers, discriminators, averages."""
        return State()

    @abstractmethod
    def restore(self, model_state: State, training_state: State | None = None) -> None:
        """The inverse of `model_state` and, after `begin` with the same rows and seed, of `training_state`."""

    def files(self) -> Mapping[str, bytes]:
        """Further files for the model's folder, by name, for other programs."""
        return {}

    def sums(self) -> "Sums | None":
        """Noisy sums over the rows that the model publishes, for an audit; None if it publishes only samples."""
        return None

    # Sampling.

    @abstractmethod
    def sample(self, requests: Sequence[Mapping[str, Any]], seeds: np.ndarray) -> SampleBlock:
        """Sample one row for each of `seeds`, int64 (block,), with the column values that `requests[i]` names.

        The caller checks and converts the values in `requests` (gristmill.generators.families.generator).
        """


def stream(seed: int, *keys: int) -> np.random.Generator:
    """Random numbers for one step or purpose, spawned from the seed and never shared."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=keys)))


def uniforms(seeds: np.ndarray, count: int, key: int = 0) -> np.ndarray:
    """Numbers in [0, 1) from each row's own seed: float64 (rows, count). Each `key` gives different numbers."""
    return np.stack([_row_random(s, key).random(count) for s in seeds])


def normals(seeds: np.ndarray, count: int, key: int = 0) -> np.ndarray:
    """Standard normal numbers from each row's own seed: float32 (rows, count). Use another key than for `uniforms`."""
    return np.stack([_row_random(s, key).standard_normal(count, np.float32) for s in seeds])


def _row_random(seed: int, key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=int(seed) + (key << 64)))


def draw_rows(family: Family, seeds: np.ndarray) -> pa.Table:
    """Sample a row without conditions for each of `seeds`, int64 (rows,), in blocks of the family's size.

    Omits rows that the family refuses.
    """
    parts = []
    for start in range(0, len(seeds), family.block):
        block_seeds = seeds[start : start + family.block]
        padded_seeds = np.concatenate([block_seeds, np.zeros(family.block - len(block_seeds), np.int64)])
        block = family.sample([{}] * family.block, padded_seeds)
        has_row = [reason is None for reason in block.reasons[: len(block_seeds)]]
        table = pa.table([block.columns[n] for n in family.schema.names], schema=pa.schema(family.schema.payload))
        parts.append(table.slice(0, len(block_seeds)).filter(pa.array(has_row)))
    return pa.concat_tables(parts).combine_chunks()


LEAST_BIAS = 1e-6  # smallest divisor of logits


def check_bias(bias: float) -> None:
    """Raise ValueError unless `bias` lies in [0, 1]."""
    if not 0 <= bias <= 1:
        raise ValueError("bias must lie in [0, 1]: the share of the variance that is sampled with")


def need_columns(schema: TableSchema, kind: str, *kinds: str) -> None:
    """Raise UserError when a column of the schema is of none of the `kinds`."""
    for column in schema.columns:
        if column.kind not in kinds:
            raise UserError(f"model '{kind}' makes {' and '.join(kinds)} columns; '{column.name}' is {column.kind}")
