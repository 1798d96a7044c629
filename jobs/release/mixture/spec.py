"""A mixture file: which corpora and runs go into a release, how much of each, and how much of it may be synthetic."""

from dataclasses import dataclass, field, fields
from typing import Literal
from urllib.parse import urlsplit

from gristmill.jobs.recipes.toml_file import load_table
from gristmill.records.errors import UserError
from gristmill.records.mixing.regimes import Shortfall
from gristmill.records.readers.datasets import PACKAGE
from gristmill.records.schema import RESERVED
from gristmill.records.spec import build

OF_FILES = ("origin", "generation", "id_column", "sample_by")  # a run's rows say themselves what they are
PART, TOKENS, COPY, WEIGHT = "mixture_part", "mixture_tokens", "mixture_copy", "mixture_weight"
ADDED = (PART, TOKENS, COPY, WEIGHT)  # columns of a release beside identity, provenance and payload


@dataclass(frozen=True)
class PartSpec:
    """`[[parts]]`: the rows of a run or a release (`uri`), or of data files (`path`)."""

    uri: str | None = None  # the --out of a run, or the --to of a pack
    path: str | None = None  # file or folder of Parquet, CSV, JSONL or text, local or s3://; or package:adult/train
    name: str = ""  # of the part, stands in every row; default: the last word of uri or path
    share: float | None = None  # of the mixture; either all parts have one, or none
    origin: Literal["real", "synthetic"] = "real"
    generation: int = 0  # how many models stand in a row between those rows and real ones, less one
    columns: dict[str, str] = field(default_factory=dict)  # name in the release = name in this part
    id_column: str | None = None  # becomes source_id; else file and place
    sample_by: Literal["line", "document"] = "line"  # how text files are cut

    def __post_init__(self) -> None:
        if bool(self.uri) == bool(self.path):
            raise ValueError("give either uri (a run or a release) or path (data files)")
        if self.share is not None and not 0 <= self.share <= 1:
            raise ValueError(f"share must lie in [0, 1], not {self.share}")
        if self.generation < 0:
            raise ValueError("generation must be at least 0")
        if self.origin == "real" and self.generation:
            raise ValueError("real rows are of generation 0; set origin = 'synthetic' or leave generation out")
        if self.uri:
            defaults = {f.name: f.default for f in fields(self)}
            for name in OF_FILES:
                if getattr(self, name) != defaults[name]:
                    raise ValueError(f"{name} is for data files (path); the rows of a run say it themselves")
        for name in self.columns:
            if name in RESERVED or name in ADDED:
                raise ValueError(f"columns: '{name}' is a column of ours; choose another name")

    @property
    def place(self) -> str:
        """Where the rows lie, without user, password or query: fit to be published."""
        place = self.uri or self.path or ""
        if "://" not in place:
            return place
        parts = urlsplit(place)
        side = f"#{parts.fragment}" if parts.fragment else ""  # of a split
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}{side}"

    @property
    def title(self) -> str:
        words = self.name or self.place.removeprefix(PACKAGE).rstrip("/").rpartition("/")[2]
        return words or self.place


@dataclass(frozen=True)
class MixSpec:
    """The file, checked key by key."""

    name: str
    synthetic_max: float  # the cap: the largest synthetic fraction of the release
    parts: tuple[PartSpec, ...]
    description: str = ""
    seed: int = 0
    by: Literal["rows", "tokens"] = "rows"  # what the cap, the shares and the size are counted in
    rows: int | None = None  # size of the release; default: all that there is (in the shares asked for)
    tokens: int | None = None
    shortfall: Shortfall = "fail"  # when there are too few rows, or the cap would be exceeded
    dedup: Literal["twins", "all"] = "twins"  # synthetic rows that a real one equals; or every row that another equals
    text_column: str | None = None  # what tokens are counted in and twins are known by; default: text, where it is
    payload: tuple[str, ...] = ()  # columns; default: those that all parts have

    def __post_init__(self) -> None:
        if not 0 <= self.synthetic_max <= 1:
            raise ValueError(f"synthetic_max must lie in [0, 1], not {self.synthetic_max}")
        if not self.parts:
            raise ValueError("a mixture has [[parts]]")
        if not -(2**63) <= self.seed < 2**63:
            raise ValueError("seed must be a 64-bit integer")
        for unit in ("rows", "tokens"):
            size = getattr(self, unit)
            if size is not None and size < 1:
                raise ValueError(f"{unit} must be at least 1")
            if size is not None and unit != self.by:
                raise ValueError(f"the size is counted in what by counts: {unit} needs by = '{unit}'")
        titles = [part.title for part in self.parts]
        for title in titles:
            if titles.count(title) > 1:
                raise ValueError(f"two parts are called '{title}'; give one of them another name")
        shares = [part.share for part in self.parts if part.share is not None]
        if shares and len(shares) < len(self.parts):
            raise ValueError("either every part has a share, or none has")
        if shares and abs(sum(shares) - 1) > 1e-9:
            raise ValueError(f"the shares of the parts add up to {sum(shares):.6g}, not to 1")
        for name in self.payload:
            if name in RESERVED or name in ADDED:
                raise ValueError(f"payload: '{name}' is a column of ours, which every row has anyway")
        if self.payload and self.text_column and self.text_column not in self.payload:
            raise ValueError(f"payload does not name text_column = '{self.text_column}'")

    @property
    def size(self) -> int | None:
        """What is asked for, in the unit that `by` names."""
        return self.rows if self.by == "rows" else self.tokens

    @property
    def shares(self) -> list[float] | None:
        shares = [part.share for part in self.parts if part.share is not None]
        return shares or None


def load_mix(path: str) -> MixSpec:
    """Read a mixture file. Raises UserError, naming file and key."""
    table = load_table(path)
    if "parts" not in table and ("generator" in table or "model" in table):
        raise UserError(
            f"{path} is a recipe, and no mixture: pack the --out of its run, or write a file with [[parts]]"
        )
    return build(MixSpec, table, path)
