"""Whether the source of a run and the name of its model are the same at each start, and the source while it goes on.

The fingerprint covers the content of the source, but of a Parquet file only its size and both ends. So the manifest
records under `inputs.source` the version of all files and the digest of every byte. A start compares the version, which
costs nothing, and where it differs the content: after `touch` or a copy a run resumes. Where the source is of runs or
releases, `inputs.source.upstream` says where they are, so that a take-down finds what a row was made from.
"""

import logging
import time
from dataclasses import asdict

from gristmill.records.committed import CommittedRows
from gristmill.records.errors import InputChanged, UserError
from gristmill.records.lots import Plan
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.shard_names import KEPT, shard_name
from gristmill.records.output.shard_reading import read_meta, read_shard
from gristmill.records.pins import REMEDY
from gristmill.records.readers.sources import Source
from gristmill.records.readers.upstreams import upstreams_of
from gristmill.records.stores.contract import Store

logger = logging.getLogger(__name__)

CHECK_S = 30.0  # between two looks at all files of a source
MAX_SHARE = 0.02  # of the driver's time for these looks


def pin_source(manifest: Manifest, source: Source) -> None:
    """Record the source in the manifest of an output, or compare it with the recorded one.

    Raises UserError when its content has changed since the output was begun. An older output without a record gets one.
    """
    record = manifest.inputs.get("source")
    if isinstance(source, CommittedRows):
        if record:
            source.verify(record)
        manifest.inputs["source"] = source.record()
        return
    if record and record["version"] == source.version:
        return
    way, content = source.content()
    if record and record["way"] != way:
        logger.warning(
            f"source {source.path} has moved to another kind of store; its Parquet files are compared by size and "
            "both ends"
        )
    elif record and record["content"] != content:
        how = "its sizes are the same" if way == "bytes" else "its files were written again"
        raise InputChanged(f"source {source.path} changed since this run began ({how}); {REMEDY}")
    manifest.inputs["source"] = {"version": source.version, "way": way, "content": content}
    upstreams = upstreams_of(part.pin for part in source.parts if part.pin)
    manifest.inputs["source"]["upstream"] = [asdict(upstream) for upstream in upstreams]
    if source.skipped:
        manifest.inputs["source"]["skipped"] = source.skipped


class SourceWatch:
    """Looks at all files of a source from time to time: a lot compares only the files that it reads."""

    def __init__(self, source: Source, manifest: Manifest) -> None:
        self.source, self.manifest = source, manifest
        self._next = time.monotonic() + CHECK_S

    def look(self) -> None:
        """Look, unless it is too early. Raises UserError when a file has changed, has gone or has been added."""
        if isinstance(self.source, CommittedRows):
            self.manifest.inputs["source"] = self.source.record()
        began = time.monotonic()
        if began < self._next:
            return
        self.source.check()
        now = time.monotonic()
        self._next = now + max(CHECK_S, (now - began) / MAX_SHARE)

    def end(self) -> None:
        """The last look. All rows are made, from the source as it was, so a change is only a warning."""
        if isinstance(self.source, CommittedRows):
            self.manifest.inputs["source"] = self.source.record()
        try:
            self.source.check()
        except UserError as error:
            logger.warning(f"{error}. The rows of this run are made of the source as it was")


def check_model(store: Store, plan: Plan, uses_name: bool) -> None:
    """Raise UserError where committed rows have another value in the column `model` than new rows would get.

    The content of a model is identity, its name is not for every kind. `uses_name`: whether the recipe may set it.
    Call it for an output with a committed lot.
    """
    if plan.division is not None:
        return  # the names of several generators are identity
    names = [shard_name(KEPT, 0), read_meta(store, 0)["rejected"]]
    tables = (read_shard(store, name, ["model"]) for name in names if name)
    before = next((table.column("model")[0].as_py() for table in tables if table.num_rows), plan.model)
    if before != plan.model:
        way = f'set generator.name = "{before}", or ' if uses_name and before else ""
        raise UserError(
            f"{store.uri}: its rows have model = {before!r}, and rows of this recipe would have {plan.model!r}: {way}"
            f"choose another --out"
        )
