"""The fit of any family: spans of steps, checks for NaN, checkpoints, and the model's folder at the end.

The same rows, seed and spec give the same bytes, however often the fit stops and resumes. Each step draws from its own
stream, and a checkpoint is a single object with everything that the next step needs, including the privacy account. So
a step repeated after a crash has the same outcome and is charged once.

The noise of a private fit must stay secret: anyone with its seed could subtract it. So the seed is derived from the
recipe's seed and a random key. The key is stored beside the checkpoints during the fit and deleted with them. Until
then the folder is not private. The finished folder holds nothing exact about the rows, not even their digest.
"""

import hashlib
import math
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa

from gristmill.generators.families.contract import Family, State
from gristmill.generators.families.folder import (
    FORMAT,
    NAME,
    STATE_ERRORS,
    ModelCard,
    pack,
    read_card,
    save_model,
    schema_literals,
    unpack,
)
from gristmill.generators.private.account import Account, BudgetExceeded, PrivacySpec
from gristmill.records.errors import Conflict, UserError
from gristmill.records.ids import fingerprint
from gristmill.records.plugins import kind_of, source_identity
from gristmill.records.shapes import check_shape
from gristmill.records.spec import literals
from gristmill.records.stores.contract import Store

CHECKPOINTS = "checkpoints/step-"
NOISE_KEY = "checkpoints/noise-key"
WITHHELD = "withheld: under a guarantee no exact function of the rows is published"
NOT_PRIVATE = "none: the model was fitted to the rows as they are and may reveal single rows"
HOLDS_ROWS = (
    "none: the model's folder holds the training rows as they are, and its rows lie between them; "
    "share neither where the rows may not go"
)
NO_ROWS = "none is needed: the model learned from no rows"
EPSILON_EVERY_S = 5.0  # seconds between updates of epsilon, which is slow to compute
MAX_LOSSES = 500  # points of the loss curve that the card keeps


@dataclass(frozen=True)
class FitProgress:
    """Progress of a fit: finished steps, all steps, mean losses, epsilon so far."""

    step: int
    num_steps: int
    losses: Mapping[str, float]
    epsilon: float | None = None


class _CheckpointFacts(TypedDict):
    fingerprint: str
    step: int
    losses: list[dict[str, float]]
    trained: dict[str, Any]
    training: dict[str, Any]
    events: list[dict[str, Any]] | None
    rows: str


BEGIN_AGAIN = "delete the folder checkpoints there to begin the fit again"


class TrainingFailed(UserError):
    """A loss or a weight is NaN or infinite; the message names the step and the cause."""


class FitStopped(Exception):
    """The fit stopped on request; it can resume from its checkpoint."""


def _silent(progress: FitProgress) -> None:
    """Report nothing."""


def _never() -> bool:
    return False


@dataclass
class Fit:
    """A fit: family, rows, seed and budget, and the store of the model."""

    family: Family
    table: pa.Table  # conforms to the family's schema
    trained_on: dict[str, Any]  # digest and so on, for the card
    store: Store
    seed: int
    privacy: PrivacySpec | None = None
    threads: int = 1  # threads of the process; the number affects the rounding of sums
    checkpoint_s: float = 60.0
    span_s: float = 1.0  # approximate seconds between checks for NaN
    noise_key: bytes | None = None  # private fits: default is random; a fixed key makes the noise repeatable

    def identity(self) -> dict[str, Any]:
        """Everything that decides the model."""
        return {
            "format": FORMAT,
            "kind": kind_of(self.family),
            "revision": self.family.revision,
            **source_identity(self.family),
            "spec": literals(self.family.spec),
            "schema": schema_literals(self.family.schema),
            "seed": self.seed,
            "rows": self._published_rows["digest"] if self.privacy is None else self._published_rows,
            "privacy": literals(self.privacy),
            "threads": self.threads,
        }

    @property
    def _published_rows(self) -> dict[str, Any]:
        """Facts about the rows that the model's folder publishes."""
        return {**self.trained_on, "digest": WITHHELD} if self.privacy else self.trained_on

    def _seed(self) -> int:
        """The recipe's seed; for a private fit a secret seed, which stays the same after a crash."""
        if self.privacy is None:
            return self.seed
        key = self.store.read_if_there(NOISE_KEY)
        if key is None:
            key = self.noise_key or secrets.token_bytes(32)
            self.store.put(NOISE_KEY, key, if_absent=True)
        mixed = hashlib.blake2b(str(self.seed).encode(), digest_size=8, key=key).digest()
        return int.from_bytes(mixed, "little") >> 1

    def run(self, tell: Callable[[FitProgress], None] = _silent, is_stopped: Callable[[], bool] = _never) -> ModelCard:
        """Fit the model and return its card.

        Raises TrainingFailed, Stopped, or UserError where the parts do not fit together.
        """
        check_fit(self.family, self.table, self.privacy)
        mark = fingerprint(self.identity())
        account = Account(self.privacy, self.table.num_rows) if self.privacy else None
        losses: list[dict[str, float]] = []
        family, step = self.family, 0
        family.begin(self.table, self._seed(), account)
        if checkpoint := self._newest(mark):
            step, losses = self._resume(checkpoint, account)
        save_time, epsilon_time, span, epsilon = time.monotonic(), -math.inf, 1, None
        num_steps = family.num_steps
        while step < num_steps:
            if is_stopped():
                self._checkpoint(mark, step, losses, account)
                raise FitStopped
            span_start, stop = time.monotonic(), min(step + span, num_steps)
            try:
                span_losses = dict(family.train(step, stop))
            except BudgetExceeded:
                break
            self._look(family.model_state(), span_losses, stop)
            step = stop
            losses = _thin([*losses, {"step": step, **span_losses}])
            if account and time.monotonic() - epsilon_time > EPSILON_EVERY_S:
                epsilon, epsilon_time = account.epsilon(), time.monotonic()
            tell(FitProgress(step, num_steps, span_losses, epsilon))
            took = max(time.monotonic() - span_start, 1e-3)
            span = max(1, min(span * 2, int(span * self.span_s / took)))
            if time.monotonic() - save_time > self.checkpoint_s and step < num_steps:
                self._checkpoint(mark, step, losses, account)
                save_time = time.monotonic()
        return self._finish(mark, losses, account)

    def _look(self, state: State, losses: Mapping[str, float], step: int) -> None:
        """Raise TrainingFailed when a loss or a weight is NaN or infinite."""
        for name, value in losses.items():
            if not math.isfinite(value):
                raise TrainingFailed(
                    f"{self.family.kind}: {name} became {value} by step {step}; a lower learning rate often helps"
                )
        for name, tensor in state.tensors.items():
            if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
                raise TrainingFailed(f"{self.family.kind}: '{name}' holds NaN or infinities by step {step}")

    def _checkpoint(self, mark: str, step: int, losses: list[dict[str, float]], account: Account | None) -> None:
        model_state, training_state = self.family.model_state(), self.family.training_state()
        tensors = {f"trained/{k}": v for k, v in model_state.tensors.items()}
        tensors |= {f"training/{k}": v for k, v in training_state.tensors.items()}
        facts = {
            "fingerprint": mark,
            "step": step,
            "losses": losses,
            "trained": model_state.facts,
            "training": training_state.facts,
            "events": account.literals() if account else None,
            "rows": self.trained_on["digest"],
        }
        before = [e.name for e in self.store.list(CHECKPOINTS)]
        name = f"{CHECKPOINTS}{step:010d}.safetensors"
        self.store.put(name, pack(tensors, facts))
        for old in before:
            if old != name:
                self.store.delete(old)

    def _newest(self, mark: str) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        names = sorted(e.name for e in self.store.list(CHECKPOINTS))
        if not names:
            return None
        where = self.store.path(names[-1])
        try:
            tensors, facts = unpack(self.store.read(names[-1]))
        except ValueError as error:
            raise UserError(f"{where}: {error}; {BEGIN_AGAIN}") from None
        check_shape(facts, _CheckpointFacts, where)
        if facts["fingerprint"] != mark or facts["rows"] != self.trained_on["digest"]:
            raise UserError(f"{self.store.uri} holds the checkpoint of another fit; choose another --out")
        return tensors, facts

    def _resume(
        self, checkpoint: tuple[dict[str, np.ndarray], dict[str, Any]], account: Account | None
    ) -> tuple[int, list[dict[str, float]]]:
        tensors, facts = checkpoint

        def part(name: str) -> State:
            arrays = {k.removeprefix(f"{name}/"): v for k, v in tensors.items() if k.startswith(f"{name}/")}
            return State(arrays, facts[name])

        try:
            self.family.restore(part("trained"), part("training"))
            if account:
                account.restore(facts["events"])
        except STATE_ERRORS as error:
            raise UserError(
                f"{self.store.path(CHECKPOINTS)} holds a checkpoint that was altered ({error!r}); {BEGIN_AGAIN}"
            ) from error
        return facts["step"], facts["losses"]

    def _not_private(self) -> str:
        if not self.family.needs_rows:
            return NO_ROWS
        return HOLDS_ROWS if self.family.holds_rows else NOT_PRIVATE

    def _finish(self, mark: str, losses: list[dict[str, float]], account: Account | None) -> ModelCard:
        if is_finished(self.store):
            return self._same_model(mark)
        model_state = self.family.model_state()
        self._look(model_state, {}, self.family.num_steps)
        weights = pack(model_state.tensors)
        card = ModelCard(
            format=FORMAT,
            identity=self.identity(),
            fingerprint=mark,
            trained_on=self._published_rows,
            privacy=account.statement() if account else {"guarantee": None, "text": self._not_private()},
            facts=model_state.facts,
            weights_sha256=hashlib.sha256(weights).hexdigest(),
            losses=losses,
        )
        for name, data in self.family.files().items():
            self.store.put(name, data)
        try:
            save_model(self.store, card, weights)
        except Conflict:
            return self._same_model(mark)
        clear(self.store)
        return card

    def _same_model(self, mark: str) -> ModelCard:
        """The card of this fit's model, finished by another trainer: that of a killed driver lives on for seconds.

        Raises Conflict for the model of another fit.
        """
        card = read_card(self.store.uri)
        if card.fingerprint != mark:
            raise Conflict(f"{self.store.path(NAME)} is already there: another fit has written it")
        clear(self.store)
        return card


def check_fit(family: Family, table: pa.Table, privacy: PrivacySpec | None) -> None:
    """Raise UserError when family, schema, rows and budget do not fit together. Starts nothing."""
    family.check_packages()
    family.check()
    if table.num_rows < family.min_rows:
        raise UserError(f"model '{family.kind}' needs at least {family.min_rows} rows, not {table.num_rows}")
    family.check_rows(table)
    if privacy is None and family.needs_privacy:
        raise UserError(f"model '{family.kind}' is for private fits: give [privacy] epsilon and delta")
    if privacy is not None:
        if not family.is_private:
            raise UserError(f"model '{family.kind}' cannot be fitted under a budget; leave [privacy] out, or take mst")
        if privacy.engine != "ghost" and not family.takes_engine:
            raise UserError(f"model '{family.kind}' takes no [privacy] engine; dp_ctgan, dp_tvae and dp_ddpm do")
        if family.schema.inferred:
            raise UserError(
                "a private fit needs a declared [schema]: bounds and categories read from rows give them away"
            )
        Account(privacy, table.num_rows)


def is_finished(store: Store) -> bool:
    return store.exists(NAME)


def clear(store: Store) -> None:
    """Remove the checkpoints and the key of a fit."""
    for entry in list(store.list("checkpoints/")):
        store.delete(entry.name)


def _thin(losses: list[dict[str, float]]) -> list[dict[str, float]]:
    return losses if len(losses) <= MAX_LOSSES else [*losses[:-1:2], losses[-1]]
