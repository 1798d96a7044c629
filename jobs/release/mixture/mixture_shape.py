"""The keys of mixture.json that the audit and the card use."""

from typing import Literal, NotRequired, TypedDict

from gristmill.jobs.release.mixture.spec import Shortfall


class Sums(TypedDict):
    rows: int
    tokens: int | None


class Asked(TypedDict):
    """The mixture file without its parts."""

    synthetic_max: float
    by: Literal["rows", "tokens"]
    dedup: Literal["twins", "all"]
    shortfall: str


class Used(TypedDict):
    short_parts: list[str]
    share_before: float | None
    policy: Shortfall | None


class Fractions(TypedDict):
    rows: float
    tokens: float | None
    rows_by_weight: float | None
    tokens_by_weight: float | None


class Ancestry(Sums):
    origin: str
    generation: int


class Counts(TypedDict):
    totals: dict[str, Sums]
    fractions: Fractions
    repeated_rows: int
    effective_rows: float
    ancestry: list[Ancestry]


class MixturePart(Sums):
    name: str
    kind: str
    share: float | None
    rows_there: int
    duplicates: int


class TakedownCounts(TypedDict):
    rows_listed: int
    rows_made_from_them: int


class MixtureShard(TypedDict):
    name: str
    num_rows: int
    sha256: str


class MixtureFile(TypedDict):
    """The whole file."""

    asked: Asked
    text_column: str | None
    tokens_are: str | None
    payload: list[str]
    used: Used
    counts: Counts
    parts: list[MixturePart]
    duplicates: int
    shards: list[MixtureShard]
    made_as: NotRequired[str | None]
    takedown: NotRequired[TakedownCounts]
