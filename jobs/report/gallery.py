"""The rows of a run that its page shows: some kept rows, and a rejected row for each reason.

The choice depends on the output alone: kept rows from lots spread over the run, and for each reason its first row in
the sample. Only the columns that the page shows are read, of at most as many shards as rows.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from gristmill.jobs.report.rows import RowLayout, RowView, layout_of, row_view
from gristmill.jobs.report.sample import Sample, spread
from gristmill.records.errors import UserError
from gristmill.records.ordered_map import read_ahead
from gristmill.records.output.shard_names import KEPT, REJECTED
from gristmill.records.output.shard_reading import UnreadableShard, name_of, read_shard
from gristmill.records.spec import build
from gristmill.records.stores.contract import Store
from gristmill.stages.registry import stage_class

if TYPE_CHECKING:
    import pyarrow.parquet as pq

NUM_KEPT_SHOWN, NUM_REASONS_SHOWN = 3, 12


def gallery(store: Store, sample: Sample, recipe: dict[str, Any]) -> list[RowView]:
    """Kept rows first, then a row per reason, the most frequent reason first."""
    stages = stage_columns(recipe)
    rows: list[RowView] = []
    lots = sample.lots
    chosen = [lots[at] for at in spread(len(lots), NUM_KEPT_SHOWN)]
    sources: set[str] = set()  # of the rows so far: rows about different things tell more
    for number, lot in enumerate(chosen):
        left = NUM_KEPT_SHOWN - len(rows)
        wanted = left if number == len(chosen) - 1 else 1
        rows += _rows(store, KEPT, lot, stages, partial(varied, num=wanted, known=sources))
    reasons = sorted(sample.first_rejected, key=lambda r: (-sample.num_rejected[r], r))[:NUM_REASONS_SHOWN]
    places = [sample.first_rejected[reason] for reason in reasons]

    def read(place: tuple[int, int]) -> list[RowView]:
        return _rows(store, REJECTED, place[0], stages, partial(_the_one, place=place[1]))

    return rows + [row for shown in read_ahead(store, read, places) for row in shown]


def _the_one(ids: Sequence[str], place: int) -> list[int]:
    return [place]


def varied(ids: Sequence[str], num: int, known: set[str]) -> list[int]:
    """Places of `num` rows spread over a shard, each moved on to the next of a source that is not known yet.

    ids: the source of each row. Adds the sources of the rows to `known`; where all are known, a row stays.
    """
    places: list[int] = []
    for start in spread(len(ids), num):
        others = [*range(start, len(ids)), *range(start)]
        place = next((at for at in others if ids[at] not in known and at not in places), start)
        places.append(place)
        known.add(ids[place])
    return places


def stage_columns(recipe: dict[str, Any]) -> list[tuple[str, dict[str, Any], list[str]]]:
    """(name, table of the recipe, findings) of each stage; a stage that this version cannot build has no findings."""
    columns = []
    for table in recipe.get("stages", ()):
        try:
            cls = stage_class(table["kind"])
            rest = {k: v for k, v in table.items() if k not in ("kind", "name")}
            names = [f.name for f in cls(build(cls.Spec, rest, "stage"), table["name"]).columns()]
        except UserError:
            names = []
        columns.append((table["name"], table, names))
    return columns


def _rows(
    store: Store,
    folder: str,
    lot: int,
    stages: Sequence[tuple[str, dict[str, Any], list[str]]],
    places_of: Callable[[Sequence[str]], list[int]],
) -> list[RowView]:
    """Rows of a shard, at `places_of` of their sources; none of an unreadable shard, which the sample lists."""
    layout: RowLayout | None = None

    def columns(file: "pq.ParquetFile") -> list[str]:
        nonlocal layout
        layout = layout_of(file.schema_arrow, stages)
        return [n for n in layout.columns if n in file.schema_arrow.names] if layout else []

    try:
        name = name_of(store, folder, lot)
        table = read_shard(store, name, columns) if name else None
    except UnreadableShard:
        return []
    if layout is None or table is None:
        return []
    sources = table.column("source_id").to_pylist() if "source_id" in table.column_names else [""] * table.num_rows
    return [row_view(table.slice(place, 1).to_pylist()[0], layout) for place in places_of(sources)]
