"""What a verb returns to a program: the state, the totals and the rows of an output."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gristmill.records.errors import UserError
from gristmill.records.stores.opening import open_store

if TYPE_CHECKING:
    import pyarrow.dataset


@dataclass(frozen=True)
class Result:
    """The output of a verb at `uri`.

    `state`: "complete", "stopped", "exhausted", "failed", ... `totals`: counts and measures of the verb, as literals.
    `exit_code`: what the command line would exit with. `row_names`: prefixes of the Parquet objects that hold the rows.
    """

    uri: str
    state: str
    totals: Mapping[str, Any]
    exit_code: int = 0
    row_names: Mapping[str, str] = field(default_factory=dict)

    def rows(self, part: str = "rows") -> "pyarrow.dataset.Dataset":
        """The rows as an Arrow dataset; nothing is read yet. `part` is a key of `row_names`, such as "rejected".

        Raises UserError when the output holds no such rows.
        """
        import pyarrow.dataset as ds

        store = open_store(self.uri)
        prefix = self.row_names.get(part)
        names = [] if prefix is None else sorted(e.name for e in store.list(prefix) if e.name.endswith(".parquet"))
        if not names:
            parts = ", ".join(self.row_names) or "none"
            raise UserError(f"{self.uri}: holds no {part} as Parquet (parts: {parts})")
        filesystem, root = store.filesystem()
        options = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
        rows_format = ds.ParquetFileFormat(default_fragment_scan_options=options)
        return ds.dataset([f"{root}/{name}" for name in names], format=rows_format, filesystem=filesystem)
