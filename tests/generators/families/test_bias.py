"""Sampling bias of families that make rows from normal vectors: MAD's lambda."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gristmill.generators.families.contract import draw_rows, family_class
from gristmill.jobs.recipes.toml_file import load_table
from gristmill.records.errors import UserError
from gristmill.records.readers.datasets import data_spec, pixels_of, read_table
from gristmill.records.readers.tables import TableSchema
from gristmill.records.spec import build

BREAST_CANCER = ("package:breast-cancer#train", "package:schemas/breast-cancer")
DIGITS = ("package:digits#train", "recipes/fit/digits-gan.toml")
SMALL: dict[str, tuple[tuple[str, str], dict[str, Any]]] = {
    "tvae": (BREAST_CANCER, {"epochs": 60, "batch_size": 100}),
    "ctgan": (BREAST_CANCER, {"epochs": 60, "batch_size": 100}),
    "vae": (DIGITS, {"steps": 20, "batch": 32, "width": 8}),
    "gan": (DIGITS, {"steps": 20, "batch": 32, "width": 8}),
}


@pytest.mark.parametrize("kind", SMALL)
def test_without_variance_vectors_are_all_the_same(kind: str) -> None:
    (path, file), settings = SMALL[kind]
    told = load_table(file)
    schema = build(TableSchema, told.get("schema", told), file)
    found = family_class(kind)
    family = found(build(found.Spec, settings, "model"), schema)
    table = schema.conform(read_table(data_spec(path)), path)
    deviations = np.array([np.std(table.column(c.name).to_numpy()) for c in schema.columns if c.is_number])
    family.begin(table, 0, None)
    family.train(0, family.num_steps)
    seeds = np.arange(40)

    def spread(bias: float) -> float:
        family.spec = replace(family.spec, bias=bias)
        rows = draw_rows(family, seeds)
        if kind in ("vae", "gan"):
            labels = np.array(rows.column("label").to_pylist())
            pixels = pixels_of(rows.column("image"), 8, 8, 1).reshape(len(rows), -1).astype(float)
            return float(np.mean([pixels[labels == v].std(axis=0).mean() for v in set(labels)]))
        numbers = np.stack([rows.column(c.name).to_numpy() for c in schema.columns if c.is_number])
        return float((numbers.std(axis=1) / deviations).mean())

    assert spread(0.0) < spread(1.0)
    if kind in ("vae", "gan"):
        assert spread(0.0) == 0.0  # one image a label
    with pytest.raises((ValueError, UserError), match="bias must lie in"):
        build(found.Spec, {**settings, "bias": 2.0}, "model")
