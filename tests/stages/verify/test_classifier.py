"""The classifier filter reads what a fit wrote, agrees with torch, and keeps what it is sure of."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from gristmill.generators.families.fit import Fit
from gristmill.generators.families.folder import load_model, read_card
from gristmill.generators.families.generator import ModelGenerator, ModelGeneratorSpec
from gristmill.generators.images.classifier import Classifier as Family
from gristmill.generators.images.classifier import ClassifierSpec as FamilySpec
from gristmill.records.errors import UserError
from gristmill.records.readers.datasets import DataSpec, digest_table, images_table, read_table
from gristmill.records.readers.tables import Column, TableSchema
from gristmill.records.schema import IMAGE, REJECT
from gristmill.records.stores.local import LocalStore
from gristmill.stages.verify.classifier import Classifier, ClassifierSpec

SCHEMA = TableSchema(
    (
        Column("image", "image", height=8, width=8, channels=1),
        Column("label", "category", categories=tuple("0123456789")),
    )
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    table = SCHEMA.conform(read_table(DataSpec("package:digits", part="train")))
    store = LocalStore(tmp_path_factory.mktemp("classifier"))
    trained_on = {"path": "x", "num_rows": table.num_rows, "digest": digest_table(table)}
    Fit(Family(FamilySpec(steps=300, width=64), SCHEMA), table, trained_on, store, 0).run()
    return store.uri


def batch(table: pa.Table) -> pa.RecordBatch:
    table = table.append_column(REJECT, pa.nulls(table.num_rows, pa.string()))
    return table.combine_chunks().to_batches()[0]


def opened(model: str, **changes: object) -> Classifier:
    stage = Classifier(ClassifierSpec(model, **changes))  # type: ignore[arg-type]
    stage.check()
    stage.open()
    return stage


def test_real_rows_stay_and_wrong_or_strange_ones_go(model: str) -> None:
    held_out = read_table(DataSpec("package:digits", part="holdout")).select(["image", "label"])
    answer = opened(model, min_score=0.6).run(batch(held_out))
    assert answer.column("reject").null_count > 0.85 * held_out.num_rows
    assert set(answer.column("reject").drop_null().to_pylist()) <= {"classifier:other_class", "classifier:unsure"}
    scores = answer.column("class_score").to_numpy()
    assert scores.min() > 0.1 and scores.max() <= 1
    wrong = held_out.set_column(1, "label", pa.array([str((int(v) + 1) % 10) for v in held_out["label"].to_pylist()]))
    assert opened(model).run(batch(wrong)).column("reject").null_count < 0.05 * held_out.num_rows
    noise = images_table(np.random.default_rng(0).integers(0, 256, (200, 8, 8), np.uint8), np.zeros(200, int))
    strip_label = opened(model, label="", min_score=0.9)
    assert strip_label.reads() == ["image"]
    assert strip_label.run(batch(noise)).column("reject").null_count < 60
    assert strip_label.run(batch(held_out)).column("reject").null_count > 0.5 * held_out.num_rows


def test_it_says_what_torch_says(model: str) -> None:
    import torch

    table = SCHEMA.conform(read_table(DataSpec("package:digits", part="holdout")).slice(0, 50))
    family = load_model(model, read_card(model))
    assert isinstance(family, Family)
    with torch.inference_mode():
        told = torch.softmax(family._net(torch.from_numpy(family.read(table)[0])), 1).numpy()
    found = opened(model).run(batch(table))
    assert found.column("predicted").to_pylist() == [str(i) for i in told.argmax(1)]
    np.testing.assert_allclose(found.column("class_score").to_numpy(), told.max(1), atol=1e-4)


def test_what_is_no_image_of_the_right_size(model: str) -> None:
    sink = io.BytesIO()
    Image.new("L", (9, 8)).save(sink, "PNG")
    values = [{"bytes": v, "path": None} for v in (sink.getvalue(), b"junk", None)]
    table = pa.table({"image": pa.array([*values, None], IMAGE), "label": ["1", "1", "1", None]})
    answer = opened(model).run(batch(table))
    assert answer.column("reject").to_pylist() == ["classifier:unreadable"] * 4
    assert answer.column("predicted").null_count == answer.column("class_score").null_count == 4


def test_models_that_are_refused(model: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no finished model; make one with gristmill fit"):
        Classifier(ClassifierSpec(str(tmp_path))).check()
    card = (Path(model) / "model.json").read_text()
    (tmp_path / "model.json").write_text(card.replace('"kind": "classifier"', '"kind": "vae"'))
    with pytest.raises(UserError, match="holds a model of kind 'vae'"):
        Classifier(ClassifierSpec(str(tmp_path))).check()
    (tmp_path / "model.json").write_text(card)
    (tmp_path / "weights.safetensors").write_bytes(b"other")
    with pytest.raises(UserError, match="the digest of the weights differs"):
        Classifier(ClassifierSpec(str(tmp_path))).open()
    with pytest.raises(UserError, match="holds a model of kind 'classifier', which makes no rows"):
        ModelGenerator(ModelGeneratorSpec(model))


def test_identity_is_the_model_and_not_its_place(model: str, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_bytes((Path(model) / "model.json").read_bytes())
    assert Classifier(ClassifierSpec(str(tmp_path))).identity() == Classifier(ClassifierSpec(model)).identity()


def test_a_classifier_needs_labels() -> None:
    with pytest.raises(UserError, match="needs a category column"):
        Family(FamilySpec(), TableSchema(SCHEMA.columns[:1])).check()
