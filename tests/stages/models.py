"""Models for stages to read, without a fit."""

import tempfile
from functools import lru_cache

import numpy as np

from generators.fitting import Fit
from generators.images.classifier import Classifier, Spec
from records.datasets import digest_table, images_table
from records.store import LocalStore
from records.tables import Column, TableSchema

FINISHES = ("stop", "length")


@lru_cache
def classifier() -> str:
    """The folder of a classifier of 8 x 8 pixels that has learnt next to nothing; its classes are finishes."""
    columns = Column("image", "image", height=8, width=8, channels=1), Column("label", "category", categories=FINISHES)
    schema = TableSchema(columns)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 8), np.uint8)
    table = schema.conform(images_table(pixels, np.array(FINISHES * 4)))
    store = LocalStore(tempfile.mkdtemp(prefix="classifier-"))
    trained_on = {"path": "x", "num_rows": 8, "digest": digest_table(table)}
    Fit(Classifier(Spec(steps=1, batch=4, width=8), schema), table, trained_on, store, 0).run()
    return store.uri
