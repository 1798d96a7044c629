"""`scene`: shapes on a textured ground under a lamp, seen by a camera, with exact boxes and masks.

A renderer in numpy: each pixel is carried back through the camera to the ground, which gives its texture and the
topmost shape over it. Light is Lambert's, from one lamp, over the relief of the ground's texture and a dome over each
shape.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gristmill.generators.simulators.contract import Parameter, Simulator
from gristmill.records.readers.datasets import png
from gristmill.records.schema import IMAGE

SHAPES = ("circle", "square", "triangle", "cross")
MIN_PIXELS = 12  # of a shape that are seen; below it, it is not labelled and not painted
BOX = pa.struct([(name, pa.int32()) for name in ("object", "x", "y", "width", "height")] + [("shape", pa.string())])


@dataclass(frozen=True)
class SceneSpec:
    """Settings of `scene`."""

    height: int = 64  # height of the image in pixels
    width: int = 64  # width of the image in pixels

    def __post_init__(self) -> None:
        if not (16 <= self.height <= 1024 and 16 <= self.width <= 1024):
            raise ValueError("height and width must lie in 16 to 1024 pixels")


class Scene(Simulator):
    """One picture a row. `boxes` are the smallest boxes around what is seen of each shape, in pixels from the top left;
    `mask` is a grey image that holds the shape's number (from 1) where it is seen, and 0 elsewhere."""

    kind: ClassVar[str] = "scene"
    Spec: ClassVar[type] = SceneSpec
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("num_shapes", 3, 1, 5, "", 0, 100, is_whole=True),
        Parameter("shape_size", 0.22, 0.12, 0.35, "of the view's half height", 0.01, 2),
        Parameter("light", 1.0, 0.5, 1.4, "of full brightness", 0, 10),
        Parameter("light_direction", 0.8, 0.0, 2 * math.pi, "rad"),
        Parameter("light_height", 0.9, 0.4, 1.4, "rad above the ground", 0, math.pi / 2),
        Parameter("texture_scale", 4.0, 2.0, 12.0, "rad a half height", 0),
        Parameter("texture_contrast", 0.25, 0.0, 0.5, "", 0, 1),
        Parameter("camera_angle", 0.0, -0.6, 0.6, "rad"),
        Parameter("camera_zoom", 1.0, 0.75, 1.35, "", 0.05, 20),
        Parameter("camera_tilt", 0.0, -0.3, 0.3, "how much nearer the bottom is than the top", -0.9, 0.9),
        Parameter("noise", 0.02, 0.0, 0.06, "of full brightness", 0, 1),
    )

    @property
    def fields(self) -> list[pa.Field]:
        return [pa.field("image", IMAGE), pa.field("mask", IMAGE), pa.field("boxes", pa.list_(BOX))]

    def reset(self, values: Mapping[str, float], draw: np.random.Generator) -> None:
        """Lay out the shapes; whatever is drawn here is a pose, a colour or a texture."""
        self._world, self._draw = values, draw
        count = int(values["num_shapes"])
        self._kinds = draw.integers(len(SHAPES), size=count)
        self._places = draw.uniform(-0.75, 0.75, (count, 2))
        self._turns = draw.uniform(0, 2 * math.pi, count)
        self._sizes = values["shape_size"] * draw.uniform(0.75, 1.25, count)
        self._colours = draw.uniform(0.25, 1.0, (count, 3))
        self._ground = draw.uniform(0.2, 0.8, 3)
        self._waves = draw.standard_normal((6, 2)), draw.uniform(0, 2 * math.pi, 6)

    def act(self, observation: None, draw: np.random.Generator) -> None:
        """No action: the camera takes its picture."""

    def step(self, action: None) -> tuple[np.ndarray, bool]:
        """Take the picture: uint8 (height, width, 3)."""
        world = self._world
        x, y = self._ground_points()
        relief = self._relief(x, y)
        owner = np.zeros(x.shape, np.uint8)
        colour = self._ground * (1 + world["texture_contrast"] * relief[..., None])
        slope = 0.4 * world["texture_contrast"] * np.stack(np.gradient(relief), -1)[..., ::-1]
        kinds: list[int] = []
        for kind, place, turn, size, paint in zip(self._kinds, self._places, self._turns, self._sizes, self._colours):
            u, v = _turn(x - place[0], y - place[1], turn)
            inside = _inside(SHAPES[kind], u / size, v / size)
            if inside.sum() < MIN_PIXELS:
                continue
            kinds.append(int(kind))
            owner[inside] = len(kinds)
            colour[inside] = paint
            slope[inside] = 0.5 * np.stack([x - place[0], y - place[1]], -1)[inside] / size
        self._mask, self._shapes = _renumber(owner, kinds)
        lit = colour * (world["light"] * self._shade(slope))[..., None]
        lit = lit + world["noise"] * self._draw.standard_normal(lit.shape)
        self._picture = np.clip(np.rint(lit * 255), 0, 255).astype(np.uint8)
        return self._picture, True

    def _ground_points(self) -> tuple[np.ndarray, np.ndarray]:
        """The point of the ground that each pixel sees, x and y, each (height, width)."""
        height, width = self.spec.height, self.spec.width
        rows, columns = np.mgrid[0:height, 0:width]
        x, y = (columns + 0.5 - width / 2) * 2 / height, (rows + 0.5) * 2 / height - 1
        depth = 1 / (1 + self._world["camera_tilt"] * y)  # what is nearer is larger
        return _turn(
            x * depth / self._world["camera_zoom"], y * depth / self._world["camera_zoom"], self._world["camera_angle"]
        )

    def _relief(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The texture: a few waves of chance directions, (height, width), about -1 to 1."""
        directions, phases = self._waves
        scale = self._world["texture_scale"]
        waves = [np.sin(scale * (d[0] * x + d[1] * y) + p) for d, p in zip(directions, phases)]
        return np.sum(waves, 0) / math.sqrt(2 * len(waves))

    def _shade(self, slope: np.ndarray) -> np.ndarray:
        """Lambert's cosine of lamp and surface, with some light from everywhere: (height, width), at least 0.25."""
        world = self._world
        flat, up = math.cos(world["light_height"]), math.sin(world["light_height"])
        lamp = flat * math.cos(world["light_direction"]), flat * math.sin(world["light_direction"]), up
        normal = slope[..., 0] * lamp[0] + slope[..., 1] * lamp[1] + lamp[2]
        return 0.25 + 0.75 * np.maximum(normal / np.sqrt(1 + (slope**2).sum(-1)), 0)

    def row(self) -> dict[str, Any]:
        boxes = []
        for number, shape in enumerate(self._shapes, 1):
            rows, columns = np.nonzero(self._mask == number)
            x, y = int(columns.min()), int(rows.min())
            size = {"width": int(columns.max()) - x + 1, "height": int(rows.max()) - y + 1}
            boxes.append({"object": number, "x": x, "y": y, **size, "shape": SHAPES[shape]})
        image, mask = ({"bytes": png(pixels), "path": None} for pixels in (self._picture, self._mask))
        return {"image": image, "mask": mask, "boxes": boxes}


def _turn(x: np.ndarray, y: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """The points turned by -`angle` about the origin."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return x * cosine + y * sine, y * cosine - x * sine


def _inside(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Which points lie in a shape of size 1 about the origin: bool, the shape of `u`."""
    if shape == "circle":
        return u**2 + v**2 <= 1
    if shape == "square":
        return np.maximum(abs(u), abs(v)) <= 0.85
    if shape == "cross":
        return (np.maximum(abs(u), abs(v)) <= 1) & (np.minimum(abs(u), abs(v)) <= 0.32)
    return (v >= -0.5) & (v <= 1 - math.sqrt(3) * abs(u))


def _renumber(owner: np.ndarray, kinds: list[int]) -> tuple[np.ndarray, list[int]]:
    """The mask with numbers from 1 without gaps, and the shape of each; what is hardly seen counts as ground."""
    mask, shapes = np.zeros_like(owner), []
    for number, kind in enumerate(kinds, 1):
        seen = owner == number
        if seen.sum() >= MIN_PIXELS:
            shapes.append(kind)
            mask[seen] = len(shapes)
    return mask, shapes
