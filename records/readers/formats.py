"""Formats of data files by the endings of their names, and the keys of a recipe that say how files are read."""

import codecs
from dataclasses import dataclass
from typing import Literal, NamedTuple

Kind = Literal["lines", "json", "csv", "text", "html", "warc", "parquet"]
KINDS: dict[str, Kind] = {
    **{".jsonl": "lines", ".ndjson": "lines", ".json": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"},
    **{".txt": "text", ".md": "text", ".rst": "text", ".html": "html", ".htm": "html", ".warc": "warc"},
}
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".xz": "xz"}
ENDINGS = f"{', '.join(KINDS)} (also with {', '.join(COMPRESSIONS)})"  # for messages
TAB_ENDING = ".tsv"


class Format(NamedTuple):
    """What a file holds: its kind, its ending without that of a compression, and the compression."""

    kind: Kind
    ending: str
    compression: str | None = None  # "gzip", "bz2", "zstd" or "xz"


def format_of(name: str) -> Format | None:
    """The format that the ending of a name states, in any case of letters; None for another ending."""
    name = name.lower()
    compression = next((end for end in COMPRESSIONS if name.endswith(end)), "")
    inner = name.removesuffix(compression)
    ending = next((end for end in KINDS if inner.endswith(end)), None)
    if ending is None or (ending == ".parquet" and compression):  # Parquet compresses its own pages
        return None
    return Format(KINDS[ending], ending, COMPRESSIONS.get(compression))


@dataclass(frozen=True)
class ReadOptions:
    """The keys of a source, a data set or a part that say how its text files are read."""

    encoding: str | None = None
    delimiter: str | None = None
    sample_by: Literal["line", "document"] = "line"

    def __post_init__(self) -> None:
        check_options(self.encoding, self.delimiter)


def check_options(encoding: str | None, delimiter: str | None) -> None:
    """Raise ValueError for an encoding that Python does not have, and for a delimiter of another length than 1."""
    if encoding is not None:
        try:
            is_text = codecs.lookup(encoding)._is_text_encoding
        except (LookupError, ValueError):
            is_text = False
        if not is_text:
            raise ValueError(f"encoding '{encoding}' is not known; write for example 'latin-1', 'cp1252' or 'utf-16'")
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise ValueError(f"delimiter must be one character, not {delimiter!r}")
