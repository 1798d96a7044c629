"""Base of all image families: an image column, at most one label column, and conversion from and to rows."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gristmill.generators.families.contract import Family, SampleBlock, need_columns
from gristmill.records.errors import UserError
from gristmill.records.readers.datasets import pixels_of, png
from gristmill.records.readers.tables import IMAGE, Column


class ImageFamily(Family):
    """A family whose schema is an image column and, optionally, a category column that conditions it."""

    extra: ClassVar[str] = "images"
    packages: ClassVar[tuple[str, ...]] = ("torch", "PIL")
    block = 64

    def check(self) -> None:
        need_columns(self.schema, self.kind, "image", "category")
        images, labels = self.schema.of_kind("image"), self.schema.of_kind("category")
        if len(images) != 1 or len(labels) > 1:
            raise UserError(
                f"model '{self.kind}' makes one image column and at most one category; "
                f"the schema has {len(images)} and {len(labels)}"
            )
        for column in (*images, *labels):
            if column.nullable:
                raise UserError(f"model '{self.kind}' takes no missing values; column '{column.name}' is nullable")
        divisor = self.divisor()
        if self.image.height % divisor or self.image.width % divisor:
            size = f"{self.image.height} x {self.image.width}"
            raise UserError(f"model '{self.kind}': images of {size} pixels do not divide by {divisor}; resize them")

    def divisor(self) -> int:
        """Number that height and width must be multiples of."""
        return 4

    @property
    def image(self) -> Any:  # a Column whose height, width and channels are known
        return self.schema.of_kind("image")[0]

    @property
    def label(self) -> Column | None:
        return next(iter(self.schema.of_kind("category")), None)

    @property
    def num_labels(self) -> int:
        return len(self.label.categories) if self.label else 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.image.channels, self.image.height, self.image.width

    def read(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """Pixels float32 (n, channels, height, width) in [-1, 1], and label numbers int64 (n,), zeros without labels.

        Raises UserError for an image that cannot be read or has another size.
        """
        pixels = pixels_of(table.column(self.image.name), *self.shape[1:], self.shape[0])
        labels = np.zeros(len(pixels), np.int64)
        if self.label:
            order = {c: i for i, c in enumerate(self.label.categories)}
            labels = np.array([order[v] for v in table.column(self.label.name).to_pylist()], np.int64)
        return pixels.astype(np.float32) / 127.5 - 1, labels

    def shares(self, labels: np.ndarray) -> np.ndarray:
        """Shares of the labels: float64 (max(num_labels, 1),), with sum 1."""
        counts = np.bincount(labels, minlength=max(self.num_labels, 1))
        return counts / counts.sum()

    def choose(self, requests: Sequence[Mapping[str, Any]], levels: np.ndarray, shares: np.ndarray) -> np.ndarray:
        """Label numbers int64 (rows,): the requested label, else drawn by `shares` from the row's level in [0, 1)."""
        edges = np.cumsum(shares)
        places = np.minimum(np.searchsorted(edges, levels * edges[-1], side="right"), len(edges) - 1)
        if self.label:
            order = {c: i for i, c in enumerate(self.label.categories)}
            names = [w.get(self.label.name) for w in requests]
            places = np.array([d if g is None else order[g] for d, g in zip(places, names)])
        return places.astype(np.int64)

    def sample_block(self, pixels: np.ndarray, labels: np.ndarray) -> SampleBlock:
        """The answer of `sample` from pixels float (n, channels, height, width) in [-1, 1] or beyond."""
        columns = {self.image.name: encode(np.clip(np.rint((pixels + 1) * 127.5), 0, 255).astype(np.uint8))}
        if self.label:
            names = np.array(self.label.categories, dtype=object)
            columns[self.label.name] = pa.array(names[labels].tolist(), pa.string())
        return SampleBlock(columns, [None] * len(pixels))


def row_streams(seeds: np.ndarray) -> list[np.random.Generator]:
    """Each row's own random numbers, for rows that draw more than once."""
    return [np.random.Generator(np.random.Philox(key=int(s))) for s in seeds]


def encode(pixels: np.ndarray) -> pa.Array:
    """PNG bytes in the Image struct of `datasets`, from uint8 (n, channels, height, width), 1 or 3 channels."""
    planes = [image[0] if len(image) == 1 else np.moveaxis(image, 0, -1) for image in pixels]
    return pa.array([{"bytes": png(image), "path": None} for image in planes], IMAGE)
