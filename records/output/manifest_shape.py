"""The keys of manifest.json that readers use. Recipes of earlier versions have fewer keys, of later ones more."""

from datetime import datetime
from typing import Any, Literal, NotRequired, TypedDict

from gristmill.records.output.shards import Summary

State = Literal["running", "stopped", "complete", "exhausted", "budget", "alarm"]


class Component(TypedDict):
    """A generator or a method."""

    kind: str


class NamedComponent(Component):
    """One of several generators."""

    name: str


class RecordedStage(TypedDict):
    kind: str
    name: str
    column: NotRequired[str | None]


class RecordedRecipe(TypedDict):
    """The resolved recipe of a run, as far as it is needed to show how far the run is."""

    name: str
    lot_size: NotRequired[int]
    generator: NotRequired[Component]
    generators: NotRequired[list[NamedComponent]]
    stages: NotRequired[list[RecordedStage]]
    limits: NotRequired[dict[str, float | bool | None]]
    method: NotRequired[Component | None]
    description: NotRequired[str | None]
    source: NotRequired[dict[str, Any] | None]
    release: NotRequired[dict[str, Any] | None]
    gate_audit: NotRequired[dict[str, str] | None]


class WholeRecipe(TypedDict):
    """The resolved recipe of a run, as a report and an audit need it."""

    lot_size: int
    generator: NotRequired[Component]  # or `generators`
    generators: NotRequired[list[NamedComponent]]
    stages: list[RecordedStage]


class DriverStart(TypedDict):
    """A start of the driver."""

    started: datetime
    host: str
    versions: NotRequired[dict[str, str]]
    wall_s: NotRequired[float]
    device_s: NotRequired[float]
    cost: NotRequired[float]
    paid: NotRequired[float]
    stage_s: NotRequired[dict[str, float]]
    pools: NotRequired[dict[str, dict[str, float]]]
    retries: NotRequired[dict[str, int]]


class Cost(TypedDict):
    """Device-seconds, and money where there is a price; `paid`: the part for calls."""

    device_s: NotRequired[float]
    pools: NotRequired[dict[str, dict[str, float]]]
    paid: NotRequired[float]
    price_per_device_hour: NotRequired[float | None]
    currency: NotRequired[str]
    cost: NotRequired[float | None]
    per_kept_row: NotRequired[float | None]
    per_1000_kept_tokens: NotRequired[float | None]


class StageIdentity(TypedDict):
    """What an audit and a page read of the identity of a stage."""

    name: NotRequired[str | None]  # null in the identity of a judge, where it names the model
    revision: NotRequired[int]
    searchable_items: NotRequired[dict[str, list[int]]]


class RecordedIdentity(TypedDict):
    stages: NotRequired[list[StageIdentity]]


class ManifestFile(TypedDict):
    """The whole file."""

    format: int
    fingerprint: str
    recipe: RecordedRecipe
    identity: RecordedIdentity
    totals: Summary
    state: NotRequired[State]
    starts: NotRequired[list[DriverStart]]
    ended: NotRequired[str | None]
    closed_at: NotRequired[int | None]
    cost: NotRequired[Cost]
