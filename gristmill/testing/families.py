"""Checks the five laws of a family (see gristmill.generators.families.contract) on a table of yours."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa

from gristmill.generators.families.contract import Family, State
from gristmill.generators.families.fit import Fit, FitStopped, is_finished
from gristmill.generators.families.folder import WEIGHTS, ModelCard, unpack
from gristmill.generators.private.account import PrivacySpec
from gristmill.records.errors import UserError
from gristmill.records.readers.tables import Column
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_store

NUM_STOPS = 3  # steps after which law 1 stops a fit
NUM_PLACES = 2  # rows that law 2 looks at
NUM_CONDITIONED = 6  # rows of a block that name values: families may take long to meet them
NOISE_KEY = b"a key that everybody knows, so that a private fit can be repeated"[:32]
Factory = Callable[[], Family]
Conditions = Sequence[Mapping[str, Any]]


def check_family(make: Factory, table: pa.Table, privacy: PrivacySpec | None = None, seed: int = 1) -> None:
    """Raise AssertionError, with the law in one line, if a family breaks one of its five laws.

    `make` returns a new family with its spec and schema; `table` conforms to the schema. The check fits the family some
    four times, so give it a spec that is fitted in seconds. With `privacy` the fits are private.
    """
    with TemporaryDirectory(prefix="gristmill-check-") as folder:
        fit = fit_of(make, table, Path(folder) / "whole", privacy, seed)
        card = fit.run()
        check_stopped_fits(make, table, card, privacy, seed)
        if not fit.family.makes_rows:
            return
        check_samples(fit.family, random_conditions(fit.family, 0))
        check_folder(make, fit.family, fit.store, card)


def fit_of(make: Factory, table: pa.Table, folder: Path, privacy: PrivacySpec | None = None, seed: int = 1) -> Fit:
    """A fit of a new family into `folder`, one step at a time, whose noise anybody can repeat."""
    trained_on = {"path": "check", "num_rows": table.num_rows, "digest": "0"}
    store = open_store(str(folder))
    return Fit(make(), table, trained_on, store, seed, privacy, span_s=0.0, noise_key=NOISE_KEY)


def check_stopped_fits(
    make: Factory, table: pa.Table, card: ModelCard, privacy: PrivacySpec | None = None, seed: int = 1
) -> None:
    """Law 1: fits that are stopped after 0, 1 and 2 steps and resumed give the weights of `card`."""
    for stop in range(NUM_STOPS):
        with TemporaryDirectory(prefix="gristmill-check-") as folder:
            looks = iter(range(10_000_000))
            fit = fit_of(make, table, Path(folder), privacy, seed)
            try:
                again = fit.run(is_stopped=lambda: next(looks) == stop)  # noqa: B023
            except FitStopped:
                if is_finished(fit.store):
                    _broken(fit.family, 1, "a fit that was stopped has a finished model")
                again = fit_of(make, table, Path(folder), privacy, seed).run()
        if again.weights_sha256 != card.weights_sha256:
            _broken(fit.family, 1, f"the same rows and seed give another model when stopped after {stop} steps")


def check_samples(family: Family, wanted: Conditions, seed: int = 0) -> None:
    """Laws 2 to 4 on a fitted family. `wanted` names values for the rows of a block; missing ones name none."""
    draw = np.random.default_rng(seed)
    block = [*wanted, *({} for _ in range(family.block - len(wanted)))]
    seeds = draw.integers(2**63, size=family.block)
    rows = sampled(family, block, seeds)
    others = [block[n] for n in draw.permutation(family.block)]
    for place in draw.integers(min(family.block, 2 * NUM_CONDITIONED), size=NUM_PLACES).tolist():
        other_seeds = draw.integers(2**63, size=family.block)
        other_seeds[place] = seeds[place]
        if sampled(family, [*others[:place], block[place], *others[place + 1 :]], other_seeds)[place] != rows[place]:
            _broken(family, 2, f"row {place} changes with the other rows of its block")
    for place, (conditions, row) in enumerate(zip(block, rows)):
        if isinstance(row, str) and not conditions:
            _broken(family, 4, f"row {place} is refused as '{row}' although it has no conditions")
        if not isinstance(row, str) and {name: row[name] for name in conditions} != dict(conditions):
            _broken(family, 4, f"row {place} does not meet {dict(conditions)} and is not refused")


def check_folder(make: Factory, family: Family, store: Store, card: ModelCard) -> None:
    """Law 5: the model in `store`, loaded into a new family, makes the rows of `family`."""
    back = make()
    back.restore(State(unpack(store.read(WEIGHTS))[0], card.facts))
    seeds = np.arange(family.block, dtype=np.int64) * 7919
    plain: list[dict[str, Any]] = [{} for _ in range(family.block)]
    for wanted in (plain, random_conditions(family, 7)):
        if sampled(back, wanted, seeds) != sampled(family, wanted, seeds):
            _broken(family, 5, "a model that was saved and loaded makes other rows")


def sampled(family: Family, wanted: Conditions, seeds: np.ndarray) -> list[dict[str, Any] | str]:
    """Each row of a block, or the reason why it was refused. Checks law 3: columns are as the schema declares."""
    drawn = family.sample(wanted, seeds)
    table = pa.table(drawn.columns)
    if not table.schema.equals(pa.schema(family.schema.payload)):
        _broken(family, 3, "columns or types are not those of the schema")
    made = table.filter(pa.array([reason is None for reason in drawn.reasons]))
    try:
        is_declared = family.schema.conform(made).equals(made)
    except UserError as error:
        _broken(family, 3, str(error))
    if not is_declared:
        _broken(family, 3, "values are not as the schema declares them")
    rows = table.to_pylist()
    if any(isinstance(value, float) and math.isnan(value) for row in rows for value in row.values()):
        _broken(family, 3, "a value is NaN")
    return [reason or row for row, reason in zip(rows, drawn.reasons)]


def random_conditions(family: Family, seed: int) -> list[dict[str, Any]]:
    """Conditions for a block: the first rows name values, which the schema allows, of one or two columns."""
    draw = np.random.default_rng(seed)
    allowed = {column.name: values for column in family.schema.columns if (values := _values(column))}
    block: list[dict[str, Any]] = [{} for _ in range(family.block)]
    for conditions in block[:NUM_CONDITIONED]:
        for name in draw.permutation(list(allowed))[: draw.integers(1, 3)].tolist():
            conditions[name] = allowed[name][draw.integers(len(allowed[name]))]
    return block


def _values(column: Column) -> list[Any]:
    """Some values that a condition on `column` may name; none for columns that take no conditions."""
    if column.kind == "category":
        return list(column.categories)
    if not column.is_number or column.low is None or column.high is None:
        return []
    middle = float(round((column.low + column.high) / 2))
    return [column.low, column.high, *([middle] if column.low < middle < column.high else [])]


def _broken(family: Family, law: int, fault: str) -> NoReturn:
    raise AssertionError(f"{family.kind} breaks law {law}: {fault}")
