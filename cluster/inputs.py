"""Opens the parts of a run in workers, where their inputs must be what the driver has read."""

from typing import Any

from gristmill.records.pins import active


def open_unchanged(part: Any) -> None:
    """Open a generator, a stage or a worker. Raises UserError when an input has changed since the run began."""
    with active(getattr(part, "pins", None)):
        part.open()
