"""Texts in `gristmill evaluate`: the column that holds them, their rows of the page, their figure."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from gristmill.jobs.evaluate.plots import REAL, SYNTHETIC, THIRD
from gristmill.jobs.pages.figure import draw
from gristmill.records.errors import UserError
from gristmill.records.readers.tables import Column, TableSchema, infer
from gristmill.records.spec import nearest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gristmill.evaluation.corpus import Corpora, TextReport

DEFAULT = "text"
COLORS = {"train": REAL, "holdout": THIRD, "synthetic": SYNTHETIC}


def texts_of(
    flag: str | None, uris: Sequence[str], tables: Sequence[pa.Table], declared: TableSchema | None
) -> tuple["Corpora | None", list[str]]:
    """The texts of the train, holdout and synthetic tables, in this order, and notes; None if there are no texts.

    `flag` is --text-column. Without it the column `text` is used, if all three tables have it and no schema declares
    it a category. Raises UserError if the column of the flag is absent, holds no texts, or too few.
    """
    from gristmill.evaluation.corpus import MIN_TEXTS, Corpora

    name = flag or DEFAULT
    if flag is None and declared is not None and name in declared.names:
        return None, []
    has_texts = [name in t.column_names and _is_text(t.schema.field(name).type) for t in tables]
    if flag is None and not has_texts[2]:
        return None, []
    if not all(has_texts):
        at = has_texts.index(False)
        uri, table = uris[at], tables[at]
        if flag is None:
            return None, [f"{uri} has no column '{name}' of texts, so the texts of {uris[2]} are not evaluated"]
        if name in table.column_names:
            raise UserError(f"{uri}: '{name}' holds no texts; name a column of texts by --text-column")
        raise UserError(f"{uri} has no column '{name}'{nearest(name, table.column_names)}")
    sides, doubts = [], []
    for uri, table in zip(uris, tables):
        column = table.column(name).cast(pa.string())
        kept = column.drop_null()
        if column.null_count:
            doubts.append(f"{uri}: {column.null_count:,} rows have no '{name}'; their texts are left out")
        if len(kept) < MIN_TEXTS:
            raise UserError(f"{uri} has {len(kept)} texts; at least {MIN_TEXTS} are needed")
        sides.append(kept.to_pylist())
    return Corpora(name, *sides), doubts


def _is_text(kind: pa.DataType) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_string_view(value))


def schema_beside(name: str, tables: Sequence[pa.Table]) -> tuple[TableSchema | None, list[str]]:
    """The schema of the other columns that all three tables share, inferred from the first table, and notes.

    The schema is None if there are none. A column whose kind cannot be inferred (an identifier, a list) is left out:
    tables with texts often have them.
    """
    columns: list[Column] = []
    doubts: list[str] = []
    absent: list[str] = []
    for column in tables[0].column_names:
        if column == name:
            continue
        if not all(column in t.column_names for t in tables[1:]):
            absent.append(column)
            continue
        try:
            columns += infer(tables[0].select([column]))[0].columns
        except (UserError, ValueError) as error:
            doubts.append(f"left out: {error}")
    if absent:
        doubts.append(f"left out, as not all tables have them: {', '.join(absent)}")
    return (TableSchema(tuple(columns), inferred=True) if columns else None), doubts


def without(schema: TableSchema, name: str) -> TableSchema | None:
    """`schema` without the column of texts, or None if no column remains."""
    others = tuple(c for c in schema.columns if c.name != name)
    return TableSchema(others, schema.inferred) if others else None


# The page.


def text_rows(m: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the table: each metric for synthetic, train and holdout texts, and its meaning."""
    rows = [("tokens in a text, median", {s: v["median"] for s, v in m["tokens_a_text"].items()}, "words and marks")]
    for n in (1, 2, 3):
        rows.append((f"distinct-{n}", m[f"distinct_{n}"], "share of distinct n-grams; low: the texts are repetitive"))
    for n in (1, 2):
        rows.append((f"entropy of {n}-grams, bits", m[f"entropy_{n}"], "low: a few n-grams dominate"))
    rows += [
        (f"self-BLEU of {m['self_bleu_texts']} texts", m["self_bleu"], "high: texts repeat each other"),
        ("MTLD", m["mtld"], "mean number of words before words repeat"),
    ]
    memorised = {s: m["memorised"][s]["ngrams"] if m["memorised"][s] else None for s in ("synthetic", "holdout")}
    rows += [
        (
            f"{m['memorised']['tokens']}-grams of train texts",
            memorised,
            "share that the train texts contain word for word",
        ),
        ("copies of train texts", m["copies"], "share of whole texts"),
    ]
    for key in ("precision", "recall", "density", "coverage"):
        values = {s: v[key] if v else None for s, v in m["embeddings"].items()}
        rows.append((f"embedding {key}", values, "against the holdout"))
    if m["perplexity"]:
        rows.append(("perplexity", m["perplexity"], "low alone is not good: repetitive text scores lowest"))
    if m["student"]:
        rows += _student_rows(m["student"])
    return [
        {"name": name, "meaning": meaning, **{s: values.get(s) for s in ("synthetic", "train", "holdout")}}
        for name, values, meaning in rows
    ]


def _student_rows(student: dict[str, Any]) -> list[tuple[str, dict[str, Any], str]]:
    """The rows about students."""
    rows: list[tuple[str, dict[str, Any], str]] = [
        (
            "student, bits per byte of the holdout",
            student["bits_per_byte"],
            "low is better; the student learned from these texts",
        ),
        ("student, perplexity of the holdout", student["perplexity"], "low is better"),
        (
            "student, bits per byte of synthetic texts",
            student["bits_per_byte_of_synthetic"],
            "texts held back from training",
        ),
        ("TSTR / TRTR of students", {"synthetic": student["ratio"], "train": 1.0}, "1 or more"),
    ]
    if student["base_bits_per_byte"] is not None:
        rows.append(("before training, bits per byte", {"train": student["base_bits_per_byte"]}, "the student's base"))
    if teacher := student["teacher"]:
        rows.append(("teacher, bits per byte of the holdout", {"synthetic": teacher["bits_per_byte"]}, "low is better"))
        if teacher["agreement"] is not None:
            rows.append(("student agrees with its teacher", {"synthetic": teacher["agreement"]}, "share of tokens"))
        if teacher["gap_recovered"] is not None:
            meaning = "1: as good as a student of real texts"
            rows.append(("gap to real texts recovered", {"synthetic": teacher["gap_recovered"]}, meaning))
    return rows


def figure(judged: "TextReport") -> str:
    """Three plots side by side: lengths, growth of the vocabulary, overlap with the train texts."""

    def paint(figure: "Figure", is_wide: bool) -> None:
        grid = figure.subplots(*((1, 3) if is_wide else (3, 1)), squeeze=False).ravel()
        _lengths(grid[0], judged.lengths)
        _growth(grid[1], judged.growth)
        _overlap(grid[2], judged.train_overlap)

    return draw("texts", "Lengths, growth of the vocabulary, overlap with train texts", paint, 2.9, 7.2)


def _lengths(axes: "Axes", lengths: dict[str, np.ndarray]) -> None:
    from matplotlib.ticker import MaxNLocator

    top = max(float(np.quantile(v, 0.98)) for v in lengths.values()) or 1.0
    edges = np.linspace(0, top, 25)
    for side, values in lengths.items():
        counts = np.histogram(np.minimum(values, top), edges)[0] / len(values)
        axes.stairs(counts, edges, color=COLORS[side], linewidth=1.5)
    axes.set(xlim=(0, top), ylim=(0, None), title="length", xlabel="tokens", ylabel="share of texts")
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")


def _growth(axes: "Axes", growth: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    for side, (read, different) in growth.items():
        axes.plot(read, different, color=COLORS[side], linewidth=1.5)
    axes.set(xlim=(0, None), ylim=(0, None), title="vocabulary", xlabel="tokens read", ylabel="distinct tokens")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(3))
        axis.set_major_formatter(EngFormatter(sep=""))


def _overlap(axes: "Axes", overlap: dict[str, np.ndarray]) -> None:
    for side, shares in overlap.items():
        if len(shares):
            at = np.arange(len(shares)) / max(1, len(shares) - 1)
            axes.plot(at, np.sort(shares)[::-1], color=COLORS[side], linewidth=1.5, clip_on=False)
    axes.set(xlim=(0, 1), ylim=(0, 1), title="overlap with train texts", xlabel="share of texts")
    axes.set_ylabel("n-grams found in train texts")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
