"""A filter for handlers of the logs of libraries: their lines may quote addresses with keys, and texts of models."""

import logging

from gristmill.records.masking.masks import masked_text
from gristmill.records.printable import printable


class SafeRecords(logging.Filter):
    """Replaces the message of each record by one without secrets and control characters."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = printable(masked_text(record.getMessage()))
        record.msg, record.args = text.replace("\n", "\n  "), None  # no line of it passes for another record
        return True


def make_safe(handler: logging.Handler | None) -> None:
    """Put the filter on a handler, once."""
    if handler is not None and not any(isinstance(f, SafeRecords) for f in handler.filters):
        handler.addFilter(SafeRecords())
