"""`gristmill audit` of a packed mixture: recount the rows and check the cap."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.cluster.reading import is_on_cluster, ordered_reads
from gristmill.jobs.audit.findings import Findings
from gristmill.jobs.audit.takedown import examine_takedown, present_rows
from gristmill.jobs.release.mixture.card import mixture_section, percent
from gristmill.jobs.release.mixture.count import count_mixture
from gristmill.jobs.release.mixture.draw import Candidates, Draw, synthetic_share, twins
from gristmill.jobs.release.mixture.mixture_shape import MixtureFile
from gristmill.jobs.release.mixture.parts import CARD, MIXTURE
from gristmill.jobs.release.mixture.scan import release_schema, traits
from gristmill.jobs.release.mixture.spec import COPY, PART, TOKENS, WEIGHT
from gristmill.jobs.release.takedown.facts import Absence, absence_of
from gristmill.jobs.terminal.bar import Bar
from gristmill.jobs.terminal.console import open_console
from gristmill.records.errors import UserError
from gristmill.records.mixing.caps import TOLERANCE
from gristmill.records.output.formats import parse
from gristmill.records.output.manifest import differences
from gristmill.records.readers.parquet import read_parquet
from gristmill.records.shapes import check_shape
from gristmill.records.stores.contract import Store
from gristmill.records.words import TOKENS_ARE

NUM_SHOWN = 3
MIN_SHARDS, MIN_SHARDS_LOCAL = 4, 16  # from which they are read by Ray tasks: on a cluster, and on a local Ray
PLAIN_EVERY_S = 10.0  # between two progress lines where there is no terminal


def examine_mixture(store: Store, data: bytes) -> Findings:
    """Check that a release is unchanged and sound.

    Shards have their checksums, and no synthetic row equals a real row. Counts, fractions and ancestry agree with card
    and metadata, and the synthetic share is within the cap. No row bears an id that a take-down hides. Packed in
    another format, a release is checked for that and for its checksums alone. `data` is mixture.json.

    Raises UserError when mixture.json cannot be read. Memory is about 60 bytes per row.
    """
    facts = parse(data, MIXTURE, store.path(MIXTURE))
    check_shape(facts, MixtureFile, store.path(MIXTURE))
    if row_format := facts.get("made_as"):
        if "takedown" in facts:
            return examine_takedown(store)
        raise UserError(
            f"{store.uri} was packed as {row_format}, so its rows do not state their origin; audit the same "
            "mixture packed as rows (the same seed draws the same rows)"
        )
    walk = _Walk(facts)
    shards, section = facts["shards"], mixture_section(facts)
    findings = walk.findings
    names = {e.name for e in store.list("train-")}
    for name in sorted(names - {shard["name"] for shard in shards}):
        findings.add(f"{name} is there, but {MIXTURE} does not name it")
        shards = [*shards, {"name": name}]
    for shard in shards:
        if shard["name"] not in names:
            findings.add(f"{shard['name']} is missing")
    present = [shard for shard in shards if shard["name"] in names]
    use_tasks = len(present) >= (MIN_SHARDS if is_on_cluster() else MIN_SHARDS_LOCAL)
    absence = absence_of(store)
    if "takedown" in facts and absence is None:
        findings.add(f"takedown.json is missing, though {MIXTURE} tells of a take-down")
    if absence is not None:
        findings.count("hidden ids", len(absence))
    titles, has_words = [part["name"] for part in facts["parts"]], facts["tokens_are"] in (None, TOKENS_ARE)
    audit = ShardAudit(store, facts["payload"], facts["text_column"], titles, has_words, absence)
    with Bar(open_console(is_error=True), "audit", PLAIN_EVERY_S) as bar:
        for number, shard in enumerate(ordered_reads(store, audit.shards, [[s] for s in present], use_tasks), 1):
            walk.shard(shard)
            if number > 1:
                bar.show(number, len(present), f"{number:,} of {len(present):,} shards checked")
    if walk.arrays:
        walk.check_all_rows()
    _check_metadata(store, facts, section, findings)
    findings.count("shards", len(shards))
    return findings


def _unescaped(markdown: str) -> str:
    """Markdown without backslashes and backticks: older cards escape fewer characters of names."""
    return markdown.replace("\\", "").replace("`", "")


def _check_metadata(store: Store, facts: dict[str, Any], section: str, findings: Findings) -> None:
    card = store.read_if_there(CARD)
    if card is None:
        findings.add(f"{CARD} is missing: the release is incomplete")
    elif _unescaped(section) not in _unescaped(card.decode("utf-8", "replace")):
        findings.add(f"{CARD} does not state the numbers of {MIXTURE} (its section 'The mixture' differs)")
    try:
        entries = json.loads(store.read("croissant.json"))["distribution"]
        files = {entry["name"]: entry["sha256"] for entry in entries if entry["@type"] == "cr:FileObject"}
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        findings.add("croissant.json is missing or cannot be read")
        return
    if files != {shard["name"]: shard["sha256"] for shard in facts["shards"]}:
        findings.add(f"croissant.json does not name the shards of {MIXTURE}")


@dataclass
class ShardFacts:
    """What a shard alone says."""

    name: str
    errors: list[str] = field(default_factory=list)
    arrays: dict[str, np.ndarray] | None = None  # of its rows; None if they cannot be counted


@dataclass(frozen=True)
class ShardAudit:
    """Checks shards, each for itself. It can be pickled."""

    store: Store
    payload: Sequence[str]
    text_column: str | None
    titles: Sequence[str]  # of the parts
    has_words: bool = True  # whether it was packed with today's words; else its tokens are taken as they are
    absence: Absence | None = None  # of a take-down

    def shards(self, shards: Sequence[dict[str, Any]]) -> list[ShardFacts]:
        return [self.shard(shard) for shard in shards]

    def shard(self, shard: dict[str, Any]) -> ShardFacts:
        """Check a shard against its entry in mixture.json. It is in memory as a whole."""
        name, data = shard["name"], self.store.read(shard["name"])
        facts = ShardFacts(name)
        add = facts.errors.append
        try:
            table = read_parquet(data)
        except (pa.ArrowInvalid, OSError) as error:
            add(f"{name}: not readable as Parquet ({str(error).splitlines()[0]})")
            return facts
        if "sha256" in shard and hashlib.sha256(data).hexdigest() != shard["sha256"]:
            add(f"{name}: altered after it was packed (its sha256 is not the one in {MIXTURE})")
        if "num_rows" in shard and table.num_rows != shard["num_rows"]:
            add(f"{name}: {MIXTURE} states {shard['num_rows']:,} rows, it holds {table.num_rows:,}")
        if self.absence is not None:
            facts.errors += present_rows(self.absence, table, name)
        names = set(table.column_names)
        required = release_schema(
            pa.schema([(n, pa.null()) for n in self.payload]), bool(self.text_column), False, False
        )
        if missing := [n for n in required.names if n not in names]:
            add(f"{name}: there is no column {', '.join(missing)}")
            return facts
        payload = pa.schema([table.schema.field(n) for n in self.payload])
        try:
            arrays = traits(table, payload, self.text_column, name)
        except UserError as error:
            add(str(error))
            return facts
        if self.text_column and not self.has_words:
            arrays["tokens"] = table.column(TOKENS).to_numpy().astype(np.int64)
        elif self.text_column:
            wrong = np.flatnonzero(table.column(TOKENS).to_numpy() != arrays["tokens"])
            if len(wrong):
                add(f"{name}: {len(wrong):,} rows have other tokens than {TOKENS} states (row {wrong[0]})")
        numbers = {title: at for at, title in enumerate(self.titles)}
        parts = table.column(PART).to_pylist()
        unknown = Counter(part for part in parts if part not in numbers)
        for part, num in unknown.items():
            add(f"{name}: {num:,} rows are of a part '{part}' that {MIXTURE} does not name")
        arrays["part"] = np.array([numbers.get(part, -1) for part in parts], np.int32)
        for column, kind, default in ((COPY, np.int64, 0), (WEIGHT, np.float64, 1.0)):
            is_present = column in names
            arrays[column] = table.column(column).to_numpy() if is_present else np.full(table.num_rows, default, kind)
        facts.arrays = arrays
        return facts


class _Walk:
    """Keeps the arrays of all shards that checks over all rows need."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.facts, self.findings = facts, Findings()
        self.titles: list[str] = [part["name"] for part in facts["parts"]]
        self.text_column: str | None = facts["text_column"]
        self.cap, self.by = float(facts["asked"]["synthetic_max"]), str(facts["asked"]["by"])
        self.expected = facts["counts"]
        self.arrays: list[dict[str, np.ndarray]] = []  # of each shard
        self.names: list[str] = []  # of these shards

    def shard(self, facts: ShardFacts) -> None:
        for line in facts.errors:
            self.findings.add(line)
        if facts.arrays is None:
            return
        num_rows = len(facts.arrays["ids"])
        facts.arrays["shard"] = np.full(num_rows, len(self.arrays), np.int32)
        facts.arrays["row"] = np.arange(num_rows, dtype=np.int32)
        self.arrays.append(facts.arrays)
        self.names.append(facts.name)
        self.findings.count("rows", num_rows)

    def check_all_rows(self) -> None:
        """Check repeats, twins, counts and the cap over the rows of all shards."""
        rows = {name: np.concatenate([shard[name] for shard in self.arrays]) for name in self.arrays[0]}
        _, first, group = np.unique(rows["ids"], return_index=True, return_inverse=True)
        times = np.bincount(group).astype(np.int32)
        pairs = np.lexsort((rows[COPY], group))
        at = np.arange(len(group)) - np.repeat(np.cumsum(times) - times, times)
        if (bad := np.flatnonzero(rows[COPY][pairs] != at)).size:
            row_id = bytes(rows["ids"][pairs[bad[0]]]).ljust(16, b"\0").hex()
            self.findings.add(f"row {row_id} and {bad.size - 1:,} others occur more often than {COPY} states")
        distinct = Candidates(
            rows["ids"][first],
            rows["contents"][first],
            np.zeros(len(first), np.uint64),
            *(rows[name][first] for name in ("tokens", "is_real", "generation", "part", "shard", "row")),
        )
        drawn = Draw(times, rows[WEIGHT][first].astype(float), np.zeros(len(first), bool))
        is_twin = twins(distinct, whole=self.facts["asked"]["dedup"] == "all")
        if self.facts["tokens_are"] not in (None, TOKENS_ARE):  # other words, other twins
            is_twin[:] = False
        for index in np.flatnonzero(is_twin)[:NUM_SHOWN]:
            where = f"{self.names[distinct.chunk[index]]}: row {distinct.row[index]}"
            self.findings.add(f"{where} equals another row and is not left out")
        counts = count_mixture(distinct, drawn, self.titles, self.text_column is not None)
        for line in differences(self.expected, counts):
            self.findings.add(f"{MIXTURE} and the rows differ in {line}")
        units = np.ones(len(first), np.int64) if self.by == "rows" else distinct.tokens
        share = synthetic_share(distinct, drawn, units)
        if share > self.cap + (0 if (drawn.weights == 1).all() else TOLERANCE):
            self.findings.add(
                f"the rows are {percent(share)} synthetic by {self.by}, above synthetic_max = {percent(self.cap)}"
            )
