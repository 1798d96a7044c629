"""One unit of a comparison of corpora: a student is trained on one corpus with one seed, and judged on real text.

All students have one tokenizer and see equally many tokens. A unit reads its corpus and its task from the store, where
the driver has put them, and commits `units/KEY.json`; a finished unit costs a look-up.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa

from gristmill.engines.scorer import Scorer, bits_per_byte, perplexity
from gristmill.generators.lm import tokens
from gristmill.generators.lm.family import CausalLm
from gristmill.generators.lm.spec import LmSpec
from gristmill.records.errors import UserError
from gristmill.records.output.formats import parse_json
from gristmill.records.readers.parquet import read_parquet
from gristmill.records.readers.tables import Column, TableSchema
from gristmill.records.shapes import check_shape
from gristmill.records.spec import build
from gristmill.records.stores.contract import Store

REVISION = 1  # raised when the same unit gets other measures
SCHEMA = TableSchema((Column("text", "text"),))
WORK, UNITS = "work", "units"
TASK = f"{WORK}/task.json"


class Measures(TypedDict):
    """The content of a unit's file."""

    corpus: str
    seed: int
    num_tokens: int  # in the blocks of an epoch
    num_steps: int
    bits_per_byte: float
    perplexity: float
    probes: dict[str, float]  # accuracy by the name of the probe
    seconds: float


@dataclass(frozen=True)
class StudentUnit:
    """A corpus and a seed. `rows` names the file of the corpus in the store; `key` covers its texts, not its name."""

    key: str
    corpus: str
    rows: str
    seed: int
    needs: str | None = None
    left: int = 1


@dataclass(frozen=True)
class StudentTask:
    """What all students share, as `work/task.json` holds it."""

    model: dict[str, Any]  # keys of LmSpec
    num_tokens: int  # of a student's corpus
    tokenizer: dict[str, str]  # its files by name
    holdout: tuple[str, ...]  # real blocks that students are scored on
    probes: dict[str, tuple[tuple[str, ...], ...]]  # options of each item, the first right, by the probe's name
    device: str
    threads: int


def unit_name(key: str) -> str:
    """File of a unit's measures."""
    return f"{UNITS}/{key}.json"


def read_unit(store: Store, unit: StudentUnit) -> Measures | None:
    """The measures of a unit, under the name of its corpus; None where it is not done.

    The file may state another name: corpora with equal texts share it, and a corpus may be renamed. Raises UserError
    for a file that no unit wrote.
    """
    data = store.read_if_there(unit_name(unit.key))
    if data is None:
        return None
    where = store.path(unit_name(unit.key))
    measures = parse_json(data, where)
    check_shape(measures, Measures, where)
    done: Measures = measures
    done["corpus"] = unit.corpus
    return done


def draw_texts(tokenizer: Any, texts: Sequence[str], num_tokens: int, seed: int) -> list[str]:
    """Texts in an order drawn by the seed, as many as hold `num_tokens` tokens with their ends; the last one is cut."""
    from gristmill.evaluation.draws import stream

    selection: list[str] = []
    left = num_tokens
    for at in stream(seed, "student texts").permutation(len(texts)):
        ids = tokens.encode(tokenizer, [texts[at]])[0]
        if len(ids) + 1 >= left:
            selection.append(tokenizer.decode(ids[: left - 1]))
            break
        selection.append(texts[at])
        left -= len(ids) + 1
    return selection


def do_all(units: Sequence[StudentUnit], store: Store) -> list[tuple[str, float, str | None]]:
    """(key, seconds, error) of each unit. The error is None, or says why the unit cannot be done."""
    results: list[tuple[str, float, str | None]] = []
    for unit in units:
        started = time.perf_counter()
        try:
            if not store.exists(unit_name(unit.key)):
                measures = _measure(unit, store)
                seconds = round(time.perf_counter() - started, 2)
                store.put(unit_name(unit.key), json.dumps({**measures, "seconds": seconds}, indent=1).encode())
            results.append((unit.key, time.perf_counter() - started, None))
        except UserError as error:
            results.append((unit.key, time.perf_counter() - started, str(error)))
    return results


def _measure(unit: StudentUnit, store: Store) -> dict[str, Any]:
    import torch

    from gristmill.evaluation.probes import Item, accuracy

    task = build(StudentTask, parse_json(store.read(TASK), store.path(TASK)), "task")
    torch.set_num_threads(task.threads)
    spec = build(LmSpec, task.model, "model")
    tokenizer = tokens.from_files({name: text.encode() for name, text in task.tokenizer.items()})
    texts = read_parquet(store.read(unit.rows), where=store.path(unit.rows)).column("text").to_pylist()
    rows = pa.table({"text": pa.array(draw_texts(tokenizer, texts, task.num_tokens, unit.seed), pa.string())})
    model = CausalLm(spec, SCHEMA)
    model.tokenizer, model.device = tokenizer, task.device
    model.begin(rows, unit.seed, None)
    model.train(0, model.num_steps)
    scorer = Scorer.from_files(model.files_to_serve(), tokenizer, task.device)
    scores = scorer.log_probabilities(task.holdout, spec.length)
    probes = {}
    for name, options in task.probes.items():
        items = [Item(tuple(of_item)) for of_item in options]
        of_options = scorer.log_probabilities([option for item in items for option in item.options])
        probes[name] = accuracy([float(np.sum(score)) for score in of_options], items)
    return {
        "corpus": unit.corpus,
        "seed": unit.seed,
        "num_tokens": len(tokens.blocks_of(tokenizer, rows.column(0).to_pylist(), spec.length)) * spec.length,
        "num_steps": model.num_steps,
        "bits_per_byte": bits_per_byte(scores, task.holdout),
        "perplexity": perplexity(scores),
        "probes": probes,
    }
