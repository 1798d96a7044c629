"""`gristmill audit` of a packed mixture: its rows are counted anew, and the cap is held against what they are."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.progress import track

from gristmill.jobs.audit.findings import Findings
from gristmill.jobs.release.mixture.card import mixture_section, percent
from gristmill.jobs.release.mixture.count import counted
from gristmill.jobs.release.mixture.draw import Candidates, Drawn, synthetic_share, twins
from gristmill.jobs.release.mixture.parts import CARD, MIXTURE
from gristmill.jobs.release.mixture.scan import release_schema, traits
from gristmill.jobs.release.mixture.spec import COPY, PART, TOKENS, WEIGHT
from gristmill.records.errors import UserError
from gristmill.records.formats import parse
from gristmill.records.manifest import differences
from gristmill.records.mixing.caps import TOLERANCE
from gristmill.records.readers.parquet import read_parquet
from gristmill.records.stores.contract import Store

NUM_SHOWN = 3


def examine_mixture(store: Store, data: bytes) -> Findings:
    """The shards are those that were written; no synthetic row equals a real one; counts, fractions and ancestry are
    those that the papers state; no more is synthetic than the cap allows.

    `data` is mixture.json. Raises UserError when that cannot be read. Some 60 bytes a row are held.
    """
    facts = parse(data, MIXTURE, store.path(MIXTURE))
    try:
        if form := facts.get("made_as"):
            raise UserError(
                f"{store.uri} was packed as {form}, so its rows do not say what is real; audit the same mixture packed "
                "as rows (the same seed draws the same rows)"
            )
        walk = _Walk(store, facts)
        shards, section = facts["shards"], mixture_section(facts)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{store.path(MIXTURE)} cannot be read as a packed mixture ({error!r})") from None
    findings = walk.findings
    there = {e.name for e in store.list("train-")}
    for name in sorted(there - {shard["name"] for shard in shards}):
        findings.add(f"{name} is there, and {MIXTURE} does not name it")
        shards = [*shards, {"name": name}]
    for shard in track(shards, description="audit", console=Console(stderr=True), transient=True):
        if shard["name"] not in there:
            findings.add(f"{shard['name']} is missing")
            continue
        walk.shard(shard)
    if walk.parts:
        walk.judge()
    _papers(store, facts, section, findings)
    findings.count("shards", len(shards))
    return findings


def _papers(store: Store, facts: dict[str, Any], section: str, findings: Findings) -> None:
    card = store.read_if_there(CARD)
    if card is None:
        findings.add(f"{CARD} is missing: the release was not finished")
    elif section not in card.decode("utf-8", "replace"):
        findings.add(f"{CARD} does not state the numbers of {MIXTURE} (its section 'The mixture' is another)")
    try:
        told = json.loads(store.read("croissant.json"))["distribution"]
        files = {one["name"]: one["sha256"] for one in told if one["@type"] == "cr:FileObject"}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        findings.add("croissant.json is missing or cannot be read")
        return
    if files != {shard["name"]: shard["sha256"] for shard in facts["shards"]}:
        findings.add(f"croissant.json does not name the shards of {MIXTURE}")


class _Walk:
    """One pass over the shards, and what is held of their rows."""

    def __init__(self, store: Store, facts: dict[str, Any]) -> None:
        self.store, self.facts, self.findings = store, facts, Findings()
        self.titles: list[str] = [part["name"] for part in facts["parts"]]
        self.text_column: str | None = facts["text_column"]
        self.payload: Sequence[str] = facts["payload"]
        self.cap, self.by = float(facts["asked"]["synthetic_max"]), str(facts["asked"]["by"])
        self.told = facts["counts"]
        self.parts: list[dict[str, np.ndarray]] = []
        self.names: list[str] = []  # of the shards that they are of

    def shard(self, shard: dict[str, Any]) -> None:
        name, data = shard["name"], self.store.read(shard["name"])
        try:
            table = read_parquet(pa.BufferReader(data), check_pages=True)
        except (pa.ArrowInvalid, OSError) as error:
            self.findings.add(f"{name}: not readable as Parquet ({str(error).splitlines()[0]})")
            return
        if "sha256" in shard and hashlib.sha256(data).hexdigest() != shard["sha256"]:
            self.findings.add(f"{name}: altered after it was packed (not the bytes that {MIXTURE} names)")
        if "num_rows" in shard and table.num_rows != shard["num_rows"]:
            self.findings.add(f"{name}: {MIXTURE} says {shard['num_rows']:,} rows, it holds {table.num_rows:,}")
        names = set(table.column_names)
        least = release_schema(pa.schema([(n, pa.null()) for n in self.payload]), bool(self.text_column), False, False)
        if missing := [n for n in least.names if n not in names]:
            self.findings.add(f"{name}: there is no column {', '.join(missing)}")
            return
        payload = pa.schema([table.schema.field(n) for n in self.payload])
        try:
            found = traits(table, payload, self.text_column, name)
        except UserError as error:
            self.findings.add(str(error))
            return
        if self.text_column:
            wrong = np.flatnonzero(table.column(TOKENS).to_numpy() != found["tokens"])
            if len(wrong):
                self.findings.add(f"{name}: {len(wrong):,} rows have other tokens than {TOKENS} says (row {wrong[0]})")
        numbers = {title: at for at, title in enumerate(self.titles)}
        parts = table.column(PART).to_pylist()
        strange = Counter(part for part in parts if part not in numbers)
        for part, num in strange.items():
            self.findings.add(f"{name}: {num:,} rows are of a part '{part}' that {MIXTURE} does not know")
        found["part"] = np.array([numbers.get(part, -1) for part in parts], np.int32)
        for column, kind, default in ((COPY, np.int64, 0), (WEIGHT, np.float64, 1.0)):
            have = column in names
            found[column] = table.column(column).to_numpy() if have else np.full(table.num_rows, default, kind)
        found["shard"] = np.full(table.num_rows, len(self.parts), np.int32)
        found["row"] = np.arange(table.num_rows, dtype=np.int32)
        self.parts.append(found)
        self.names.append(name)
        self.findings.count("rows", table.num_rows)

    def judge(self) -> None:
        """All that needs every row: repeats, twins, counts, the cap."""
        rows = {name: np.concatenate([part[name] for part in self.parts]) for name in self.parts[0]}
        _, first, own = np.unique(rows["ids"], return_index=True, return_inverse=True)
        times = np.bincount(own).astype(np.int32)
        pairs = np.lexsort((rows[COPY], own))
        at = np.arange(len(own)) - np.repeat(np.cumsum(times) - times, times)
        if (bad := np.flatnonzero(rows[COPY][pairs] != at)).size:
            one = bytes(rows["ids"][pairs[bad[0]]]).ljust(16, b"\0").hex()
            self.findings.add(f"row {one} and {bad.size - 1:,} others stand there more often than {COPY} says")
        distinct = Candidates(
            rows["ids"][first],
            rows["twins"][first],
            np.zeros(len(first), np.uint64),
            *(rows[name][first] for name in ("tokens", "is_real", "generation", "part", "shard", "row")),
        )
        drawn = Drawn(times, rows[WEIGHT][first].astype(float), np.zeros(len(first), bool))
        again = twins(distinct, whole=self.facts["asked"]["dedup"] == "all")
        for one in np.flatnonzero(again)[:NUM_SHOWN]:
            where = f"{self.names[distinct.chunk[one]]}: row {distinct.row[one]}"
            self.findings.add(f"{where} equals another row, and should have been left out")
        found = counted(distinct, drawn, self.titles, self.text_column is not None)
        for line in differences(self.told, found):
            self.findings.add(f"{MIXTURE} and the rows differ in {line}")
        units = np.ones(len(first), np.int64) if self.by == "rows" else distinct.tokens
        share = synthetic_share(distinct, drawn, units)
        if share > self.cap + (0 if (drawn.weights == 1).all() else TOLERANCE):
            self.findings.add(
                f"the rows are {percent(share)} synthetic by {self.by}, above synthetic_max = {percent(self.cap)}"
            )
