"""Gates over the rows of trainable generators: copies of images, a classifier's confidence, nearness to real rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gristmill.evaluation.collapse.chains import ChainMetrics
from gristmill.generators.chains.contract import ChainContext
from gristmill.generators.chains.gates.gate import make_gates
from gristmill.generators.chains.registry import chain_class
from gristmill.generators.families.contract import stream
from gristmill.generators.families.fit import Fit
from gristmill.generators.images.classifier import Classifier, Spec
from gristmill.jobs.recipes.toml_file import load_table
from gristmill.records.readers.datasets import data_spec, digest_table, images_table, read_table
from gristmill.records.readers.tables import TableSchema
from gristmill.records.spec import build
from gristmill.records.stores.opening import open_store
from tests.generators.chains.test_chains import BREAST_CANCER

DIGITS = {
    "model": {"kind": "vae", "steps": 5, "batch": 16, "width": 8},
    "data": {"path": "package:digits", "part": "train"},
    "holdout": {"path": "package:digits", "part": "holdout"},
    "schema": load_table("recipes/fit/digits-gan.toml")["schema"],
}


def family(table: dict[str, Any]) -> Any:
    found = chain_class("model")
    made = found(build(found.Spec, table, "family"), ChainContext(ChainMetrics()))
    made.open()
    return made


def kept(gate: dict[str, Any], made: Any, rows: pa.Table) -> np.ndarray:
    (opened,) = make_gates([gate], made)
    return opened.keep(rows, stream(0), lambda: [])


def test_copies_of_images_are_dropped() -> None:
    made = family(DIGITS)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8), np.uint8)
    fresh = made.schema.conform(images_table(pixels, np.arange(6)))
    real = made.every_real().slice(0, 3)
    rows = pa.concat_tables([real, fresh, fresh.slice(0, 2)])
    assert kept({"kind": "dedup"}, made, rows).tolist() == [False] * 3 + [True] * 6 + [False] * 2


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("classifier"))
    schema = build(TableSchema, DIGITS["schema"], "schema")
    table = schema.conform(read_table(data_spec("package:digits#train")))
    told = {"path": "package:digits", "num_rows": table.num_rows, "digest": digest_table(table)}
    Fit(Classifier(Spec(steps=200), schema), table, told, open_store(folder), 0).run()
    return folder


def test_a_classifier_keeps_what_it_is_sure_of(classifier: str) -> None:
    made = family(DIGITS)
    gate = {"kind": "stage", "stage": {"kind": "classifier", "path": classifier, "label": "label", "min_score": 0.8}}
    held = made.schema.conform(read_table(data_spec("package:digits#holdout")))
    wrong = held.set_column(1, "label", pa.array([str((int(v) + 1) % 10) for v in held.column("label").to_pylist()]))
    assert kept(gate, made, held).mean() > 0.7 and kept(gate, made, wrong).mean() < 0.05


def test_rows_near_real_ones_are_dropped(tmp_path: Path) -> None:
    made = family(BREAST_CANCER)
    rows = {"path": "package:breast-cancer", "part": "train"}
    gate = {"kind": "stage", "stage": {"kind": "copies", "rows": rows, "near_share": 0.5}}
    real, held = made.every_real(), made.schema.conform(read_table(data_spec("package:breast-cancer#holdout")))
    assert not kept(gate, made, real).any()
    assert 0.2 < kept(gate, made, held).mean() < 1
