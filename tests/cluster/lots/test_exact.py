"""`limits.exact` by a slow, obvious reference: the same rows, whatever is claimed together, rewound or resumed."""

import random
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.cluster.lots.sequencer import CommitSequencer
from gristmill.cluster.lots.work import LotResult
from gristmill.cluster.spec import ClusterSpec, Limits
from gristmill.records.output.summary import Summary
from gristmill.records.schema import SURPLUS
from gristmill.records.stores.local import LocalStore
from gristmill.stages.admission.balance import Balance, BalanceSpec
from gristmill.stages.dedup.bandindex import NOBODY
from gristmill.stages.dedup.contract import Duplicates
from gristmill.stages.dedup.texts import Dedup, DedupSpec

LABELS = ("a", "b", "c")
EXACT = Dedup(DedupSpec(num_perm=16, threshold=0.5))
BLOOM = Dedup(DedupSpec(num_perm=16, threshold=0.5, index="bloom", bloom_rows=40, bloom_error=0.1))


class PlainIndex:
    """The index of a run in this process, built anew from its claims at every query. It checks its caller."""

    def __init__(self, dedup: Duplicates) -> None:
        self.dedup = dedup
        self.claims: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.num_committed = 0

    def query(self, lot: int, keys: np.ndarray) -> np.ndarray:
        assert sorted(self.claims) == list(range(lot))
        index = self.dedup.new_index(self.dedup.bands)
        for claimed, owners in self.claims.values():
            index.insert(claimed, owners, is_settled=True)
        return index.query(keys)

    def add(self, lot: int, claims: tuple[np.ndarray, np.ndarray]) -> None:
        assert lot == len(self.claims)
        self.claims[lot] = claims

    def committed(self, lot: int) -> None:
        assert lot == self.num_committed
        self.num_committed += 1

    def rewind(self, lot: int, first_owner: int) -> None:
        assert lot >= self.num_committed
        self.claims = {n: claims for n, claims in self.claims.items() if n < lot}


class Rows:
    """Random lots: living rows with band keys that often collide, and a label each."""

    def __init__(self, seed: int, num_lots: int, lot_size: int, num_values: int, dedup: Duplicates | None) -> None:
        self.lot_size, self.num_values, self.dedup = lot_size, num_values, dedup
        self.random = np.random.default_rng(seed)
        self.lots: list[tuple[np.ndarray, np.ndarray | None, list[str]]] = []
        for lot in range(num_lots):
            self.lots.append(self.draw(lot))

    def draw(self, lot: int) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
        alive = self.random.random(self.lot_size) < 0.8
        keys = None
        if self.dedup:
            keys = self.random.integers(1, self.num_values, (self.lot_size, self.dedup.bands)).astype(np.uint64)
            keys[~alive] = 0
        return alive, keys, self.random.choice(LABELS, self.lot_size).tolist()


def reference(rows: Rows, quotas: dict[str, int] | None, exact_rows: int) -> list[str]:
    """Each row in turn: dead, surplus, a duplicate of a kept row, refused by its quota, or kept."""
    kept: list[int] = []
    counts: Counter[str] = Counter()
    verdicts: list[str] = []
    whole = [row for lot in rows.lots for row in zip(lot[0], lot[1] if lot[1] is not None else lot[2], lot[2])]
    for number, (is_alive, keys, label) in enumerate(whole):
        twins = [k for k in kept if rows.dedup and (whole[k][1] == keys).any()]
        if not is_alive:
            verdicts.append("dead")
        elif len(kept) == exact_rows:
            verdicts.append(SURPLUS)
        elif twins:
            verdicts.append(f"duplicate of {twins[0]}")
        elif quotas and counts[label] >= quotas[label]:
            verdicts.append("balance:quota")
        else:
            verdicts.append("kept")
            kept.append(number)
            counts[label] += 1
    return verdicts


class Driver:
    """Claims and commits the lots as the loop does, and writes down the verdicts of the committed lots."""

    def __init__(self, rows: Rows, quotas: dict[str, int] | None, exact_rows: int | None) -> None:
        self.rows, self.quotas, self.exact_rows = rows, quotas, exact_rows
        self.written: list[list[str]] = []
        self.closed_at: list[int | None] = []
        self.index = PlainIndex(rows.dedup) if rows.dedup else None
        self.start()

    def start(self) -> None:
        """A driver on what is committed."""
        balance = Balance(BalanceSpec("label", quotas=self.quotas)) if self.quotas else None
        pipeline: Any = SimpleNamespace(
            plan=SimpleNamespace(lot_size=self.rows.lot_size), dedup=None, admissions=[balance] if balance else []
        )
        self.sequencer = CommitSequencer(pipeline, LocalStore("/nowhere"), ClusterSpec())
        kept = [
            (row, lot) for lot, verdicts in enumerate(self.written) for row, v in enumerate(verdicts) if v == "kept"
        ]
        labels = Counter(self.rows.lots[lot][2][row] for row, lot in kept)
        totals = Summary(len(self.written), kept=len(kept), admitted={"balance": labels})
        self.sequencer.start(totals, lambda: False, self.exact_rows)
        if self.index:
            self.index.rewind(len(self.written), 0)
            self.sequencer.index = self.index  # type: ignore[assignment]
        self.claimed: list[tuple[list[str], int | None]] = []

    @property
    def is_closed(self) -> bool:
        return any(self.closed_at)

    def claim(self, num_lots: int) -> None:
        first = len(self.written) + len(self.claimed)
        lots = []
        for lot in range(first, min(first + num_lots, len(self.rows.lots))):
            alive, keys, labels = self.rows.lots[lot]
            lots.append((lot, LotResult(alive.copy(), keys, {}, [labels] if self.quotas else ())))
        for (lot, result), verdicts in zip(lots, self.sequencer.claim(lots)):
            words = ["kept" if is_alive else "dead" for is_alive in self.rows.lots[lot][0]]
            if verdicts is not None:
                assert not (verdicts.owners[~result.alive] != NOBODY).any()
                for row, owner in enumerate(verdicts.owners.tolist()):
                    if owner != NOBODY:
                        words[row] = f"duplicate of {owner}"
                for row, reason in enumerate(verdicts.reasons):
                    assert reason is None or verdicts.owners[row] == NOBODY  # it names no other row
                    words[row] = reason or words[row]
            self.claimed.append((words, verdicts.closed_at if verdicts else None))

    def commit(self, num_lots: int) -> None:
        for _ in range(min(num_lots, len(self.claimed))):
            if self.is_closed:
                return
            words, closed_at = self.claimed.pop(0)
            self.sequencer.committed(len(self.written))
            self.written.append(words)
            self.closed_at.append(closed_at)

    def rewind(self, lot: int, is_remade: bool) -> None:
        self.sequencer.rewind(lot)
        del self.claimed[lot - len(self.written) :]
        for later in range(lot, len(self.rows.lots)) if is_remade else ():
            self.rows.lots[later] = self.rows.draw(later)


@given(seed=st.integers(0, 2**32), kind=st.sampled_from([None, EXACT, BLOOM]))
def test_the_rows_are_those_of_a_plain_pass(seed: int, kind: Duplicates | None) -> None:
    chance = random.Random(seed)
    num_lots, lot_size = chance.randint(1, 6), chance.randint(1, 12)
    rows = Rows(seed, num_lots, lot_size, chance.randint(8, 200), kind)
    quotas = chance.choice([None, {"a": 2, "b": 5, "c": 40}])
    exact_rows = chance.randint(1, max(1, num_lots * lot_size * 2 // 3))
    driver = Driver(rows, quotas, exact_rows)
    while len(driver.written) < num_lots and not driver.is_closed:
        driver.claim(chance.randint(1, 4))
        driver.commit(chance.randint(0, 3))
        event = chance.random()
        if event < 0.2:
            driver.start()
        elif event < 0.4 and driver.claimed and not driver.is_closed:
            lot = len(driver.written) + chance.randrange(len(driver.claimed))
            driver.rewind(lot, is_remade=chance.random() < 0.5)
    written = [verdict for lot in driver.written for verdict in lot]
    expected = cut(rows, quotas, exact_rows) if kind is BLOOM else reference(rows, quotas, exact_rows)
    assert written == expected[: len(written)]
    is_full = expected.count("kept") == exact_rows
    assert written.count("kept") == expected.count("kept")
    assert driver.closed_at == [None] * (len(driver.written) - 1) + [exact_rows if is_full else None]
    assert is_full or len(written) == len(expected)


def cut(rows: Rows, quotas: dict[str, int] | None, exact_rows: int) -> list[str]:
    """The verdicts of a run without a limit up to the last kept row. A Bloom filter's answers are its own."""
    driver = Driver(rows, quotas, None)
    for _ in rows.lots:
        driver.claim(1)
        driver.commit(1)
    whole = [verdict for lot in driver.written for verdict in lot]
    kept = [at for at, verdict in enumerate(whole) if verdict == "kept"]
    if len(kept) < exact_rows:
        return whole
    last = kept[exact_rows - 1]
    return [v if at <= last or v == "dead" else SURPLUS for at, v in enumerate(whole)]


@given(seed=st.integers(0, 2**32))
def test_another_number_changes_no_lot_before_the_last(seed: int) -> None:
    chance = random.Random(seed)
    outputs = []
    for exact_rows in (chance.randint(1, 40), chance.randint(1, 40), None):
        driver = Driver(Rows(seed, 5, 8, 60, EXACT), None, exact_rows)
        while len(driver.written) < 5 and not driver.is_closed:
            driver.claim(chance.randint(1, 5))
            driver.commit(5)
        outputs.append(driver.written)
    for output in outputs[:2]:
        assert output[:-1] == outputs[2][: len(output) - 1]


@pytest.mark.parametrize("table", [{"asks": 5}, {}])
def test_an_exact_limit_needs_its_number(table: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="exact = true needs kept_rows"):
        Limits(exact=True, **table)
    assert Limits(kept_rows=3, exact=True).exact_rows == 3 and Limits(kept_rows=3).exact_rows is None
