"""The simulator contract: parameters with ranges, episodes by `reset` and `step`, and exact labels.

Each row draws the parameters of its world from their ranges: domain randomization (Tobin et al. 2017; Peng et al.
2018). A simulator depends only on its parameters, its actions and the row's own random numbers.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gristmill.records.errors import UserError
from gristmill.records.spec import nearest

Ranges = Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Parameter:
    """A number of a world: its estimate `centre`, its default range `low` to `high`, and what the simulator supports,
    `least` to `most`. `unit` is for people."""

    name: str
    centre: float
    low: float
    high: float
    unit: str = ""
    least: float = -math.inf
    most: float = math.inf
    is_whole: bool = False  # whether it is rounded to whole numbers


class Simulator(ABC):
    """Base of every simulator. An object runs one episode after another."""

    kind: ClassVar[str]
    Spec: ClassVar[type]  # its own settings, as a recipe gives them
    parameters: ClassVar[tuple[Parameter, ...]]

    def __init__(self, spec: Any) -> None:
        self.spec = spec

    @property
    @abstractmethod
    def fields(self) -> list[pa.Field]:
        """Columns of a row beside its parameters: observations, actions and labels."""

    @abstractmethod
    def reset(self, values: Mapping[str, float], draw: np.random.Generator) -> Any:
        """Begin an episode in a world with these parameters; returns the first observation."""

    @abstractmethod
    def step(self, action: Any) -> tuple[Any, bool]:
        """(the next observation, whether the episode is over)."""

    @abstractmethod
    def act(self, observation: Any, draw: np.random.Generator) -> Any:
        """The action of the spec's policy."""

    @abstractmethod
    def row(self) -> dict[str, Any]:
        """The columns of the episode so far, by name."""

    def episode(self, values: Mapping[str, float], draw: np.random.Generator) -> dict[str, Any]:
        """A whole episode as a row: its parameters and its columns."""
        observation, is_over = self.reset(values, draw), False
        while not is_over:
            observation, is_over = self.step(self.act(observation, draw))
        return {**values, **self.row()}


def with_ranges(parameters: Sequence[Parameter], ranges: Ranges) -> tuple[Parameter, ...]:
    """The parameters with the ranges that a recipe gives: [low, high], or [value] for a fixed one.

    Raises UserError for an unknown name and for an invalid range.
    """
    names = [p.name for p in parameters]
    for name, bounds in ranges.items():
        if name not in names:
            raise UserError(f"ranges: no parameter '{name}'{nearest(name, names)}")
        if len(bounds) not in (1, 2) or bounds[0] > bounds[-1]:
            raise UserError(f"ranges.{name}: give [low, high], or [value] to fix it, not {list(bounds)}")
    parameters_in_range = []
    for p in parameters:
        low, *_, high = ranges[p.name] * 2 if p.name in ranges else (p.low, p.high)
        if low < p.least or high > p.most:
            raise UserError(f"ranges.{p.name}: must lie in {p.least:g} to {p.most:g} {p.unit}".rstrip())
        parameters_in_range.append(replace(p, low=low, high=high, centre=min(max(p.centre, low), high)))
    return tuple(parameters_in_range)


def draw_parameters(
    parameters: Sequence[Parameter], draw: np.random.Generator, fixed_values: Mapping[str, float]
) -> dict[str, float]:
    """A value for each parameter: the given one, else uniform in its range. A given one changes no other draw."""
    levels = draw.random(len(parameters))
    values = {}
    for parameter, level in zip(parameters, levels):
        value = parameter.low + (parameter.high - parameter.low) * float(level)
        value = float(fixed_values.get(parameter.name, value))
        values[parameter.name] = float(round(value)) if parameter.is_whole else value
    return values
