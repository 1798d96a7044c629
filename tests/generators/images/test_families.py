"""The five laws of generators/families/contract.py for the families of images, and what they refuse."""

import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from gristmill.generators.families.contract import Family, State, family_class
from gristmill.generators.families.fit import Fit, FitStopped
from gristmill.generators.families.fit_check import check_fit
from gristmill.generators.families.folder import load_model, read_card
from gristmill.generators.images.ddpm import NUM_TIMES, Ddpm, DdpmSpec
from gristmill.generators.noise_schedule import kept_signal
from gristmill.records.errors import UserError
from gristmill.records.readers.datasets import DataSpec, digest_table, images_table, pixels_of, read_table
from gristmill.records.readers.tables import Column, TableSchema
from gristmill.records.spec import build
from gristmill.records.stores.local import LocalStore

LABELS = tuple("0123456789")
DIGITS = TableSchema(
    (Column("image", "image", height=8, width=8, channels=1), Column("label", "category", categories=LABELS))
)
SPECS: dict[str, tuple[str, dict[str, Any]]] = {  # name -> (kind, spec)
    "ddpm": ("ddpm", {"steps": 6, "batch": 16, "width": 8, "sample_steps": 4}),
    "ddpm-ancestral": (
        "ddpm",
        {
            "steps": 6,
            "batch": 16,
            "width": 8,
            "sample_steps": 4,
            "sampler": "ddpm",
            "predict": "epsilon",
            "guidance": 1,
        },
    ),
    "ddpm-dpm": ("ddpm", {"steps": 6, "batch": 16, "width": 8, "sample_steps": 4, "sampler": "dpm"}),
    "dp_ddpm": ("dp_ddpm", {"steps": 6, "batch": 16, "width": 8, "sample_steps": 4, "copies": 2}),
    "gan": ("gan", {"steps": 4, "batch": 8, "width": 8, "critic_steps": 2}),
    "gan-spectral": ("gan", {"steps": 4, "batch": 8, "width": 8, "hold": "spectral"}),
    "vae": ("vae", {"steps": 6, "batch": 16, "width": 8, "latent": 4}),
}


@lru_cache
def digits() -> pa.Table:
    return DIGITS.conform(read_table(DataSpec("package:digits")).slice(0, 120))


def family(name: str, schema: TableSchema = DIGITS, **changes: Any) -> Family:
    kind, spec = SPECS[name]
    made = family_class(kind)
    return made(build(made.Spec, {**spec, **changes}, "model"), schema)


def fit(name: str, folder: Path, table: pa.Table | None = None, schema: TableSchema = DIGITS, **changes: Any) -> Fit:
    table = digits() if table is None else table
    trained_on = {"path": "x", "num_rows": table.num_rows, "digest": digest_table(table)}
    return Fit(family(name, schema, **changes), table, trained_on, LocalStore(folder), 7, span_s=0.01)


@pytest.fixture(scope="module", params=sorted(SPECS))
def fitted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    fit(request.param, folder).run()
    return request.param, folder


def seeds(made: Family, start: int = 0) -> np.ndarray:
    return np.arange(start, start + made.block, dtype=np.int64) * 1_000_003


def bytes_of(drawn: Any) -> list[bytes]:
    return [v["bytes"] for v in drawn.columns["image"].to_pylist()]


def test_law_1_the_same_model_wherever_training_stopped(fitted: tuple[str, Path], tmp_path: Path) -> None:
    name, folder = fitted
    stops = iter([False, True])
    with pytest.raises(FitStopped):
        fit(name, tmp_path).run(is_stopped=lambda: next(stops))
    card = fit(name, tmp_path).run()
    assert card.weights_sha256 == read_card(str(folder)).weights_sha256
    assert [line["step"] for line in card.losses][-1] == SPECS[name][1]["steps"]


def test_laws_2_to_5_rows_of_their_own_as_declared_and_as_wanted(fitted: tuple[str, Path]) -> None:
    name, folder = fitted
    card = read_card(str(folder))
    model = load_model(str(folder), card)
    wanted: list[dict[str, Any]] = [{"label": "3"} if i % 2 else {} for i in range(model.block)]
    drawn = model.sample(wanted, seeds(model))
    # 3: as the schema declares
    table = DIGITS.conform(pa.table(drawn.columns))
    pixels = pixels_of(table.column("image"), 8, 8, 1)
    assert pixels.shape == (model.block, 1, 8, 8) and drawn.reasons == [None] * model.block
    assert len(np.unique(pixels.reshape(model.block, -1), axis=0)) > model.block // 2
    # 4: conditions are met, and rows without one take labels as they come
    labels = table.column("label").to_pylist()
    assert labels[1::2] == ["3"] * (model.block // 2) and len(set(labels[::2])) > 3
    # 2: others in the block may be what they like
    others = model.sample([{"label": "9"}] * 5 + [wanted[5]] + [{}] * (model.block - 6), _but(seeds(model), 5))
    assert bytes_of(others)[5] == bytes_of(drawn)[5] and bytes_of(others)[6] != bytes_of(drawn)[6]
    # 5: back from the folder, the same rows
    again = load_model(str(folder), card).sample(wanted, seeds(model))
    assert all(again.columns[n].equals(drawn.columns[n]) for n in drawn.columns)
    # an image cannot be refused its label: another label is another image
    if name != "gan-spectral":
        nines = model.sample([{"label": "9"}] * model.block, seeds(model))
        assert bytes_of(nines)[1] != bytes_of(drawn)[1]


def _but(own: np.ndarray, place: int) -> np.ndarray:
    other = own + 17
    other[place] = own[place]
    return other


@pytest.mark.parametrize("name", ["ddpm", "dp_ddpm", "gan", "vae"])
def test_colour_images_without_labels(name: str, tmp_path: Path) -> None:
    schema = TableSchema((Column("picture", "image", height=16, width=12, channels=3),))
    pixels = np.random.default_rng(0).integers(0, 256, (20, 16, 12, 3), np.uint8)
    table = schema.conform(pa.table({"picture": images_table(pixels, np.zeros(20)).column("image")}))
    fit(name, tmp_path, table, schema, steps=2).run()
    drawn = load_model(str(tmp_path), read_card(str(tmp_path))).sample([{}] * 64, np.arange(64))
    assert set(drawn.columns) == {"picture"}
    assert pixels_of(drawn.columns["picture"], 16, 12, 3).shape == (64, 3, 16, 12)


def test_the_cosine_schedule() -> None:
    kept = kept_signal(NUM_TIMES)
    assert kept[0] == 1 and (np.diff(kept) < 0).all() and 0 < kept[-1] < 1e-4
    middle = np.cos((0.5 + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    assert kept[NUM_TIMES // 2] == pytest.approx(middle, rel=1e-9)  # equation 17 of Nichol & Dhariwal


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpm"])
@pytest.mark.parametrize("predict", ["v", "epsilon"])
@pytest.mark.parametrize("sample_steps", [1, 7, 50])
def test_a_model_that_knows_the_only_image_finds_it(sampler: str, predict: str, sample_steps: int) -> None:
    """With one image in the world the best guess of noise or v is known in closed form; sampling must end there."""
    import torch

    spec = build(DdpmSpec, {"sampler": sampler, "predict": predict, "sample_steps": sample_steps}, "model")
    model = Ddpm(spec, DIGITS)
    truth = torch.from_numpy(np.random.default_rng(1).uniform(-1, 1, (1, 1, 8, 8)).astype(np.float32))

    def guess(x: Any, time: int, labels: np.ndarray) -> Any:
        kept = kept_signal(NUM_TIMES)[time]
        noise = (x - np.sqrt(kept) * truth) / np.sqrt(1 - kept)
        return noise if predict == "epsilon" else np.sqrt(kept) * noise - np.sqrt(1 - kept) * truth

    model._guess = guess  # type: ignore[method-assign]
    model._shares = np.ones(10) / 10
    drawn = model.sample([{}] * model.block, seeds(model))
    expected = np.clip(np.rint((truth.numpy() + 1) * 127.5), 0, 255)
    found = pixels_of(drawn.columns["image"], 8, 8, 1).astype(float)
    assert np.abs(found - expected).max() <= 1


def test_dpm_keeps_the_spread_that_ddim_loses_in_few_steps() -> None:
    """For pixels that are N(0, 0.2^2) the best guess is linear, and the exact way ends at 0.2 times its noise: ten
    steps of second order lose less than a quarter of what ten of the first order lose."""
    scale = 0.2

    def spread(sampler: str) -> float:
        model = Ddpm(build(DdpmSpec, {"sampler": sampler, "sample_steps": 10}, "model"), DIGITS)

        def guess(x: Any, time: int, labels: np.ndarray) -> Any:
            kept = kept_signal(NUM_TIMES)[time]
            image = np.sqrt(kept) * scale**2 / (kept * scale**2 + 1 - kept) * x
            return (np.sqrt(kept) * x - image) / np.sqrt(1 - kept)

        model._guess = guess  # type: ignore[method-assign]
        streams = [np.random.default_rng(i) for i in range(256)]
        return float(model._denoise(np.zeros(256, np.int64), streams).std())

    assert abs(spread("dpm") - scale) < (scale - spread("ddim")) / 4


def test_guidance_pulls_away_from_no_label() -> None:
    import torch

    model = Ddpm(build(DdpmSpec, {"guidance": 2.0}, "model"), DIGITS)
    model._average = lambda x, times, labels: labels.float()[:, None, None, None] + torch.zeros_like(x)
    made = model._guess(torch.zeros(4, 1, 8, 8), 500, np.full(4, 3))
    assert made.shape == (4, 1, 8, 8) and float(made[0, 0, 0, 0]) == (1 + 2) * 3 - 2 * 10  # 10 is "no label"


def test_a_private_fit_and_one_row_are_refused() -> None:
    from gristmill.generators.private.account import PrivacySpec

    with pytest.raises(UserError, match="cannot be fitted under a budget"):
        check_fit(family("ddpm"), digits(), PrivacySpec(1.0, 1e-5))
    with pytest.raises(UserError, match="needs at least 2 rows, not 1"):
        check_fit(family("vae"), digits().slice(0, 1), None)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ((Column("a", "image", height=8, width=8, channels=1),) * 1 + (Column("x", "numeric"),), "'x' is numeric"),
        (tuple(Column(n, "image", height=8, width=8, channels=1) for n in "ab"), "the schema has 2 and 0"),
        ((Column("a", "image", height=9, width=8, channels=1),), "images of 9 x 8 pixels do not divide by"),
        (
            (
                Column("a", "image", height=8, width=8, channels=1),
                Column("b", "category", categories=("x", "y"), nullable=True),
            ),
            "takes no missing values; column 'b' is nullable",
        ),
    ],
)
@pytest.mark.parametrize("name", ["ddpm", "dp_ddpm", "gan", "vae"])
def test_schemas_that_are_refused(name: str, columns: tuple[Column, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        family(name, TableSchema(columns)).check()


def png(height: int, width: int) -> bytes:
    sink = io.BytesIO()
    Image.new("L", (width, height)).save(sink, "PNG")
    return sink.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (png(8, 9), "row 1 has an image of 8 x 9 pixels; the schema says 8 x 8"),
        (b"not an image", "row 1 has no readable image"),
        (b"", "row 1 has no readable image"),
        (None, "row 1 has no readable image"),
        (png(8, 8)[:45], "row 1 has no readable image"),
    ],
)
def test_images_that_are_refused(data: bytes | None, message: str) -> None:
    images = [{"bytes": png(8, 8), "path": None}, {"bytes": data, "path": None}]
    table = pa.table({"image": pa.array(images, DIGITS.payload[0].type), "label": ["1", "2"]})
    with pytest.raises(UserError, match=message):
        family("vae").begin(DIGITS.conform(table), 0, None)


def test_a_state_of_another_network_is_refused() -> None:
    made = family("vae")
    with pytest.raises(KeyError):
        made.restore(State({"shares": np.ones(10)}))


def recall(real: np.ndarray, made: np.ndarray, k: int = 5) -> float:
    """Share of real rows within the k-th neighbour's distance of some made row (Kynkaanniemi et al. 2019)."""
    a, b = (x.reshape(len(x), -1).astype(float) for x in (real, made))
    among = np.sort(((b[:, None] - b[None]) ** 2).sum(-1), 1)[:, k]
    return float((((a[:, None] - b[None]) ** 2).sum(-1) <= among).any(1).mean())


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_digits_are_learnt(tmp_path: Path) -> None:
    table = DIGITS.conform(read_table(DataSpec("package:digits", part="train")))
    held_out = DIGITS.conform(read_table(DataSpec("package:digits", part="holdout")))
    fit("ddpm", tmp_path, table, steps=400, batch=128, width=32, sample_steps=25).run()
    model = load_model(str(tmp_path), read_card(str(tmp_path)))
    parts = [model.sample([{}] * 64, seeds(model, 64 * n)).columns["image"] for n in range(24)]
    made = pixels_of(pa.chunked_array(parts), 8, 8, 1)[:1500]
    assert recall(pixels_of(held_out.column("image"), 8, 8, 1), made) >= 0.6
