"""A mixture file: the corpora and runs of a release, the share of each, and the cap on synthetic rows."""

from dataclasses import dataclass, field, fields
from typing import Literal
from urllib.parse import urlsplit

from gristmill.jobs.recipes.toml_file import TomlSource, label_of, load_table
from gristmill.jobs.release.facts import ReleaseSpec
from gristmill.records.errors import UserError
from gristmill.records.licenses import license_id
from gristmill.records.mixing.regimes import Shortfall
from gristmill.records.readers.datasets import PACKAGE
from gristmill.records.readers.formats import ReadOptions, check_options
from gristmill.records.schema import RESERVED
from gristmill.records.spec import build, later

FILE_KEYS = (
    "origin",
    "generation",
    "id_column",
    "sample_by",
    "encoding",
    "delimiter",
)  # the rows of a run state these themselves
PART, TOKENS, COPY, WEIGHT = "mixture_part", "mixture_tokens", "mixture_copy", "mixture_weight"
ADDED = (PART, TOKENS, COPY, WEIGHT)  # columns that a mixture adds to identity, provenance and payload


@dataclass(frozen=True)
class PartSpec:
    """`[[parts]]`: the rows of a run or a release (`uri`), or of data files (`path`)."""

    # Output of a run (its --out) or of a pack (its --to), a local folder or s3:// address; excludes `path`.
    uri: str | None = None
    # Data files: file, folder or glob, local or in a bucket, or package:adult/train; excludes `uri`.
    path: str | None = None
    name: str = ""  # Name of the part in column mixture_part; unset: last segment of uri or path.
    share: float | None = None  # Fraction of the mixture (0 to 1) from this part; set it for all parts or for none.
    origin: Literal["real", "synthetic"] = "real"  # Origin of all rows in `path`.
    # Number of models in sequence between real rows and the rows in `path`, minus one; 0 for real rows.
    generation: int = 0
    # Renamed columns: name in the release = name in this part.
    columns: dict[str, str] = field(default_factory=dict)
    id_column: str | None = None  # Column of `path` that becomes source_id; unset: file and position.
    sample_by: Literal["line", "document"] = "line"  # Unit that becomes one row in text files.
    # Licence of the rows, an id of SPDX or of the Hub, for the card; default: what a run or a release states of itself.
    license: str | None = later(None)
    encoding: str | None = later(None)  # Encoding of text files without a byte-order mark; unset: UTF-8.
    delimiter: str | None = later(None)  # Delimiter of CSV files; unset: told from their first lines.

    def __post_init__(self) -> None:
        check_options(self.encoding, self.delimiter)
        if bool(self.uri) == bool(self.path):
            raise ValueError("give either uri (a run or a release) or path (data files)")
        if self.share is not None and not 0 <= self.share <= 1:
            raise ValueError(f"share must lie in [0, 1], not {self.share}")
        if self.license is not None:
            license_id(self.license)
        if self.generation < 0:
            raise ValueError("generation must be at least 0")
        if self.origin == "real" and self.generation:
            raise ValueError("real rows are of generation 0; set origin = 'synthetic' or omit generation")
        if self.uri:
            defaults = {f.name: f.default for f in fields(self)}
            for name in FILE_KEYS:
                if getattr(self, name) != defaults[name]:
                    raise ValueError(f"{name} is for data files (path); the rows of a run state it themselves")
        for name in self.columns:
            if name in RESERVED or name in ADDED:
                raise ValueError(f"columns: '{name}' is a reserved column; choose another name")

    @property
    def options(self) -> ReadOptions:
        """How its text files are read."""
        return ReadOptions(self.encoding, self.delimiter, self.sample_by)

    @property
    def place(self) -> str:
        """Address of the rows without user, password and query, safe to publish."""
        place = self.uri or self.path or ""
        if "://" not in place:
            return place
        parts = urlsplit(place)
        fragment = f"#{parts.fragment}" if parts.fragment else ""  # the side of a split
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}{fragment}"

    @property
    def title(self) -> str:
        name = self.name or self.place.removeprefix(PACKAGE).rstrip("/").rpartition("/")[2]
        return name or self.place


@dataclass(frozen=True)
class MixtureSpec:
    """A mixture file."""

    name: str  # Name of the release, the title of its card.
    synthetic_max: float  # Cap: largest synthetic fraction of the release (0 to 1), in the unit of `by`.
    parts: tuple[PartSpec, ...]  # Runs, releases and data files to mix.
    description: str = ""  # First paragraph of the card.
    seed: int = 0  # Seed of the draw and of the shuffle, a 64-bit integer.
    by: Literal["rows", "tokens"] = "rows"  # Unit of the cap, the shares and the size.
    rows: int | None = None  # Size of the release in rows (by = "rows"); unset: all rows that the shares allow.
    tokens: int | None = None  # Size of the release in tokens (by = "tokens"); unset: all that the shares allow.
    shortfall: Shortfall = "fail"  # Policy for a part with too few rows, or a synthetic fraction above the cap.
    # Duplicates to leave out: "twins" are synthetic rows equal to a real row, "all" are all repeated rows.
    dedup: Literal["twins", "all"] = "twins"
    # Column whose words count as tokens and whose text identifies duplicates; unset: `text`, if all parts have it.
    text_column: str | None = None
    payload: tuple[str, ...] = ()  # Payload columns of the release; unset: the columns that all parts have.
    # `[release]`: facts for the card and the Croissant metadata; they never change a row.
    release: ReleaseSpec | None = later(None)

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
                raise ValueError(f"the size has the unit of `by`: {unit} needs by = '{unit}'")
        titles = [part.title for part in self.parts]
        for title in titles:
            if titles.count(title) > 1:
                raise ValueError(f"two parts are called '{title}'; rename one of them")
        shares = [part.share for part in self.parts if part.share is not None]
        if shares and len(shares) < len(self.parts):
            raise ValueError("either every part has a share, or none has")
        if shares and abs(sum(shares) - 1) > 1e-9:
            raise ValueError(f"the shares of the parts add up to {sum(shares):.6g}, not to 1")
        for name in self.payload:
            if name in RESERVED or name in ADDED:
                raise ValueError(f"payload: '{name}' is a reserved column, which every row has")
        if self.payload and self.text_column and self.text_column not in self.payload:
            raise ValueError(f"payload does not include text_column = '{self.text_column}'")

    @property
    def size(self) -> int | None:
        """Requested size in the unit of `by`; None for all."""
        return self.rows if self.by == "rows" else self.tokens

    @property
    def shares(self) -> list[float] | None:
        shares = [part.share for part in self.parts if part.share is not None]
        return shares or None


def load_mixture(source: TomlSource) -> MixtureSpec:
    """Read a mixture file. Raises UserError with file and key."""
    path, table = label_of(source), load_table(source)
    if "parts" not in table and ("generator" in table or "model" in table):
        raise UserError(f"{path} is a recipe, not a mixture: pack the --out of its run, or write a file with [[parts]]")
    return build(MixtureSpec, table, path)
