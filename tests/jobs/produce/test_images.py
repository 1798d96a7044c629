"""Images and simulated rows all the way: recipes, runs, audit, release, and PIL images out of `datasets`."""

import json
import shutil
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gristmill.jobs.fit.plan import load_plan
from gristmill.jobs.recipes.compile import compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.records.errors import UserError
from gristmill.records.output.shards import OutputSpec, encode
from gristmill.records.readers.datasets import images_table
from gristmill.records.schema import IMAGE, full_schema
from gristmill.records.stores.local import LocalStore
from tests.conftest import ROOT, gristmill
from tests.jobs.audit.test_run import rewrite
from tests.recipes import write
from tests.stages.test_contract import batch_of


def test_shards_with_images_say_so_and_others_do_not(tmp_path: Path) -> None:
    schema = full_schema([pa.field("text", pa.string()), pa.field("image", IMAGE)], [])
    assert full_schema([pa.field("text", pa.string())], []).metadata is None
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 6, 3), np.uint8)
    images = images_table(pixels, np.zeros(3)).column("image").combine_chunks()
    batch = batch_of([("a", "stop", None), ("b", "stop", "x:y"), ("c", "stop", None)])
    names = [n for n in batch.schema.names if n != "image"]
    encoded = encode(batch.select(names).append_column("image", images), schema, 0, OutputSpec())
    (tmp_path / "kept.parquet").write_bytes(encoded.kept)
    assert encoded.rejected is not None
    (tmp_path / "rejected.parquet").write_bytes(encoded.rejected)
    for file, expected in (("kept", [0, 2]), ("rejected", [1])):
        rows = datasets.load_dataset(
            "parquet", data_files=str(tmp_path / f"{file}.parquet"), split="train", cache_dir=str(tmp_path / "hf")
        )
        assert isinstance(rows[0]["image"], Image.Image)
        assert [np.array_equal(np.asarray(r["image"]), pixels[i]) for r, i in zip(rows, expected)] == [True] * len(rows)


@pytest.mark.timeout(600)
def test_scenes_from_the_run_to_the_release(tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = ["limits.asks=40", "lot_size=20", "cluster.num_cpus=2", "generator.settings.width=48"]
    flags = [word for s in settings for word in ("--set", s)]
    done = gristmill("produce", str(ROOT / "recipes/scenes.toml"), "--out", str(out), *flags)
    assert done.returncode == 0, done.stderr
    assert gristmill("audit", str(out)).returncode == 0
    done = gristmill("pack", str(out), "--to", str(tmp_path / "release"))
    assert done.returncode == 0, done.stderr
    rows = datasets.load_dataset(str(tmp_path / "release"), split="train", cache_dir=str(tmp_path / "hf"))
    assert "image_hash" not in rows.column_names and len(rows) >= 38
    for row in rows:
        assert row["image"].size == row["mask"].size == (48, 64)
        assert len(row["boxes"]) == len(set(np.asarray(row["mask"]).ravel().tolist()) - {0})

    path = out / "kept" / "part-00000001.parquet"  # another picture in a row's place is found out
    table = pq.read_table(path)
    images = table.column("image").to_pylist()
    altered = table.set_column(
        table.schema.get_field_index("image"), table.schema.field("image"), [pa.array([images[1], *images[1:]], IMAGE)]
    )
    rewrite(path, altered, is_honest=False)
    told = json.loads(gristmill("audit", str(out), "--json").stdout)["wrong"]
    assert any("a row's image_hash is not that of its image" in line for line in told)


@pytest.mark.timeout(600)
def test_equal_rows_name_the_row_that_was_kept(tmp_path: Path) -> None:
    stages = [{"kind": "dedup_rows", "columns": ["delay", "end"]}]
    generator = {"kind": "simulator", "simulator": "cartpole", "settings": {"max_steps": 20, "policy": "random"}}
    recipe = {"name": "x", "lot_size": 25, "generator": generator, "stages": stages, "limits": {"asks": 100}}
    recipe["cluster"] = {"num_cpus": 2}
    out = tmp_path / "out"
    done = gristmill("produce", write(tmp_path / "recipe.toml", recipe), "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert gristmill("audit", str(out)).returncode == 0
    kept, rejected = (pq.read_table(out / folder).to_pylist() for folder in ("kept", "rejected"))
    assert len({(row["delay"], row["end"]) for row in kept}) == len(kept) < 10 and len(kept) + len(rejected) == 100
    values = {row["id"]: (row["delay"], row["end"]) for row in kept}
    for row in rejected:
        assert row["reject"] == "dedup_rows:duplicate" and values[row["duplicate_of"]] == (row["delay"], row["end"])
    path = out / "kept" / "part-00000003.parquet"  # what was rejected there put back among the kept
    shutil.copy(next((out / "rejected").glob("part-00000003-*")), path)
    assert gristmill("audit", str(out)).returncode == 1


@pytest.mark.parametrize(
    "name", ["digits-ddpm", "digits-dp-ddpm", "digits-gan", "digits-classifier", "mnist-vae", "cartpole-adr"]
)
def test_fit_recipes_are_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    plan = load_plan(f"recipes/fit/{name}.toml")
    assert plan.recipe.name == name and plan.recipe.description and plan.family.num_steps > 1


def test_the_recipe_of_digits_fits_its_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its two models, fitted for one step each, in the place of those that its header makes."""
    monkeypatch.chdir(ROOT)
    recipe = load("recipes/digits-rows.toml")
    with pytest.raises(UserError, match="holds no finished model .* make one with gristmill fit"):
        compile_recipe(load("recipes/digits-rows.toml", [f"generator.model={tmp_path}/none"]))
    settings = []
    for key, uri in (("generator.model", recipe.generator["model"]), ("stages.0.path", recipe.stages[0]["path"])):
        name = uri.removeprefix("out/")
        load_plan(f"recipes/fit/{name}.toml", ["model.steps=1"]).fit(LocalStore(tmp_path / name)).run()
        settings.append(f"{key}={tmp_path / name}")
    mill = compile_recipe(load("recipes/digits-rows.toml", settings))
    mill.check()
    assert mill.schema.names[-6:] == ["label", "predicted", "class_score", "image_hash", "duplicate_of", "reject"]
    with pytest.raises(UserError, match="reads column 'label', which holds no images"):
        compile_recipe(load("recipes/digits-rows.toml", [*settings, "stages.0.column=label"]))


def test_one_stage_of_duplicates_and_no_pool_for_it(tmp_path: Path) -> None:
    two = [{"kind": "dedup_rows", "columns": ["end"]}, {"kind": "dedup_rows", "columns": ["delay"], "name": "b"}]
    recipe = {"name": "x", "generator": {"kind": "simulator", "simulator": "cartpole"}, "limits": {"asks": 5}}
    with pytest.raises(UserError, match="a recipe takes one dedup stage"):
        compile_recipe(load(write(tmp_path / "a.toml", {**recipe, "stages": two})))
    pools = {"pools": {"dedup_rows": {"replicas": 1}}}
    with pytest.raises(UserError, match=r"cluster.pools.dedup_rows: dedup_rows has no engine"):
        compile_recipe(load(write(tmp_path / "b.toml", {**recipe, "stages": two[:1], "cluster": pools})))
    with pytest.raises(UserError, match="'dedup_image' reads column 'image', which is not there"):
        compile_recipe(load(write(tmp_path / "c.toml", {**recipe, "stages": [{"kind": "dedup_image"}]})))
    with pytest.raises(UserError, match="'dedup_image' reads column 'end', which holds no images"):
        compile_recipe(
            load(write(tmp_path / "d.toml", {**recipe, "stages": [{"kind": "dedup_image", "column": "end"}]}))
        )
