"""Perceptual hashes find what looks alike; every pair within the distance shares a band."""

import io
import pickle

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from gristmill.records.errors import UserError
from gristmill.records.schema import IMAGE, REJECT
from gristmill.records.spec import build
from gristmill.stages.dedup.image import DedupImage, DedupImageSpec, masks, perceptual_hash

HASHES = st.integers(0, 2**64 - 1)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind)
    return sink.getvalue()


def picture(seed: int, side: int = 96) -> Image.Image:
    """A few soft blobs: most of what a photograph has in its low frequencies."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    field = sum(
        draw.uniform(-1, 1) * np.exp(-((x - draw.random()) ** 2 + (y - draw.random()) ** 2) / draw.uniform(0.01, 0.1))
        for _ in range(12)
    )
    return Image.fromarray(np.uint8(255 * (field - field.min()) / np.ptp(field)))


def distance(a: int | None, b: int | None) -> int:
    assert a is not None and b is not None
    return (a ^ b).bit_count()


def keys(hashes: list[int], spec: DedupImageSpec) -> np.ndarray:
    return DedupImage(spec).keys(pa.array(hashes, pa.uint64()))


@given(HASHES, st.integers(0, 3), st.data())
def test_every_pair_within_the_distance_shares_a_band(value: int, within: int, data: st.DataObject) -> None:
    bits = data.draw(st.lists(st.integers(0, 63), max_size=within, unique=True))
    other = value
    for bit in bits:
        other ^= 1 << bit
    first, second = keys([value, other], DedupImageSpec(distance=within))
    assert (first == second).any()


@given(HASHES, HASHES, st.integers(0, 3))
def test_a_shared_band_means_equal_bits_in_two_thirds_of_the_blocks(a: int, b: int, within: int) -> None:
    first, second = keys([a, b], DedupImageSpec(distance=within))
    for key_a, key_b, mask in zip(first, second, masks(within).tolist()):
        assert (key_a == key_b) == ((a & mask) == (b & mask))


def test_bands_are_few_and_hold_enough_bits() -> None:
    assert [len(masks(d)) for d in range(4)] == [1, 3, 15, 84]
    assert [min(int(m).bit_count() for m in masks(d)) for d in range(4)] == [64, 42, 42, 42]
    assert len(set(keys([0], DedupImageSpec(distance=3))[0].tolist())) == 84  # bands of the same value differ


@pytest.mark.parametrize("seed", range(6))
def test_what_looks_alike_has_a_near_hash(seed: int) -> None:
    image = picture(seed)
    own = perceptual_hash(encoded(image))
    assert distance(own, perceptual_hash(encoded(image, "BMP"))) == 0
    assert distance(own, perceptual_hash(encoded(image.convert("RGB")))) == 0
    assert distance(own, perceptual_hash(encoded(image, "JPEG"))) <= 2
    assert distance(own, perceptual_hash(encoded(image.resize((64, 64))))) <= 4
    assert distance(own, perceptual_hash(encoded(ImageEnhance.Brightness(image).enhance(0.8)))) <= 2
    assert distance(own, perceptual_hash(encoded(ImageEnhance.Contrast(image).enhance(0.7)))) <= 2
    assert distance(own, perceptual_hash(encoded(picture(seed + 100)))) >= 12


def test_flat_images_are_alike_whatever_rounding_does() -> None:
    flat = [perceptual_hash(encoded(Image.new("L", (s, s), v))) for s, v in ((8, 255), (32, 90), (57, 17))]
    assert flat[0] is not None and len(set(flat)) == 1


def test_the_stage_signs_the_living_and_refuses_what_is_no_image() -> None:
    stage = pickle.loads(pickle.dumps(DedupImage(DedupImageSpec())))
    good = encoded(picture(1))
    values = [{"bytes": v, "path": None} for v in (good, b"junk", None, good[: len(good) // 2], good)]
    schema = pa.schema([pa.field("image", IMAGE), REJECT])
    columns = [pa.array([*values, None], IMAGE), pa.array([None] * 4 + ["x:y", None], pa.string())]
    answer = stage.run(pa.RecordBatch.from_arrays(columns, schema=schema))
    wrong = "dedup_image:unreadable"
    assert answer.schema.names == ["image", "image_hash", "duplicate_of", "reject"]
    assert answer.column("reject").to_pylist() == [None, wrong, wrong, wrong, "x:y", wrong]
    hashes = answer.column("image_hash")
    assert hashes.to_pylist() == [perceptual_hash(good), None, None, None, None, None]
    made = stage.keys(hashes)
    assert made.shape == (6, 15) and made.dtype == np.uint64 and made[0].all() and not made[1:].any()
    np.testing.assert_array_equal(stage.keys(pa.chunked_array([hashes[:2], hashes[2:]])), made)
    assert stage.keys(pa.chunked_array([], pa.uint64())).shape == (0, 15)


def test_refusals() -> None:
    for table, message in (({"distance": 4}, "distance must lie in 0 to 3"), ({"bloom_rows": 5}, "go with index")):
        with pytest.raises(UserError, match=message):
            build(DedupImageSpec, table, "stages[0]")
    assert DedupImage(DedupImageSpec()).refuses(pa.field("image", pa.string())) == "holds no images"
