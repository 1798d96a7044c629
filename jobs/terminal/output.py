"""The output of a verb that writes: its store, its lease, and the command that resumes it."""

import logging
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from gristmill.jobs.recipes.toml_file import TomlSource
from gristmill.records.errors import UserError
from gristmill.records.masking.masks import covered, masked, masked_setting, masked_text
from gristmill.records.output.lease import Lease
from gristmill.records.output.manifest import differences
from gristmill.records.stores.opening import open_store

logger = logging.getLogger(__name__)

MAX_DIFFERENCES = 5
STOPPED = 130  # exit code, as of a shell command that Ctrl-C ends


class Output:
    """The folder or prefix that `gristmill VERB FILE --out URI` writes to."""

    def __init__(
        self,
        verb: str,
        source: TomlSource,
        out: str,
        settings: Sequence[str] = (),
        flags: Mapping[str, Any] | None = None,
    ) -> None:
        """`settings` are those of --set; `flags` are further flags by name, without those that are None.

        Raises UserError for an address that is not a store.
        """
        self.store = open_store(out)
        words = ["gristmill", verb, source if isinstance(source, str) else "RECIPE", "--out", out]
        for setting in settings:
            words += ["--set", masked_setting(setting)]
        for flag, value in (flags or {}).items():
            words += [f"--{flag}", masked_text(str(value))] if value is not None else []
        self.command = shlex.join(words)

    @contextmanager
    def writing(self, folder: str = "") -> Iterator[Lease]:
        """Hold the lease of the output, or of a work folder in it, for the block; yields the lease with its store.

        A work folder that is empty at the end is removed. Raises UserError when the store cannot be written, or when
        another driver holds the lease.
        """
        self.store.check(write=True)
        store = self.store
        if folder:
            store = open_store(f"{self.store.uri.rstrip('/')}/{folder}")
            store.check(write=True)
        lease = Lease(store)
        lease.acquire()
        try:
            yield lease
        finally:
            lease.release()
            if folder and not any(store.list()):
                store.clear()

    def stopped(self) -> int:
        """Log the command that resumes; returns the exit code."""
        logger.info(f"stopped; resume with: {self.command}")
        return STOPPED


def refusal(uri: str, reason: str, old: Any, new: Any) -> UserError:
    """The error for an output of another recipe: `reason` ("holds another model") and where the literals differ."""
    lines = list(differences(covered(masked(old)), covered(masked(new))))
    lines = lines or ["a text that quotes a secret and is not shown"]
    more = f"; and {len(lines) - MAX_DIFFERENCES} more" if len(lines) > MAX_DIFFERENCES else ""
    return UserError(
        f"{uri} {reason}; nothing was changed. Differences (output -> command): "
        f"{'; '.join(lines[:MAX_DIFFERENCES])}{more}. Choose another --out, or undo the difference to resume"
    )
