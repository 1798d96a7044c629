"""The output of a verb that writes: its store, its lease, and the command that resumes it."""

import logging
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from gristmill.jobs.recipes.toml_file import TomlSource
from gristmill.records.errors import UserError
from gristmill.records.exit_codes import STOPPED
from gristmill.records.masking.masks import covered, masked, masked_setting, masked_text
from gristmill.records.output.lease import Lease
from gristmill.records.output.manifest import differences
from gristmill.records.processes import last_step
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_output, open_store

logger = logging.getLogger(__name__)

MAX_DIFFERENCES = 5
FLOW = "flow.json"


class Output:
    """The folder or prefix that `gristmill VERB FILE --out URI` writes to."""

    def __init__(
        self,
        verb: str,
        source: TomlSource | list[str],
        out: str,
        settings: Sequence[str] = (),
        flags: Mapping[str, Any] | None = None,
    ) -> None:
        """`source`: the file of the verb, or the addresses that it reads. `settings`: those of --set. `flags`: further
        flags by name; those that are None are left out.

        Raises UserError for an address that is not a store.
        """
        self.store, self.verb = open_output(out), verb
        sources = source if isinstance(source, list) else [source if isinstance(source, str) else "RECIPE"]
        words = ["gristmill", verb, *map(masked_text, sources), "--out", out]
        for setting in settings:
            words += ["--set", masked_setting(setting)]
        for flag, value in (flags or {}).items():
            words += [f"--{flag}", masked_text(str(value))] if value is not None else []
        self.command = shlex.join(words)

    @contextmanager
    def writing(self, folder: str = "") -> Iterator[Lease]:
        """Hold the lease of the output, or of a work folder in it, for the block; yields the lease with its store.

        A work folder that is empty at the end is removed. Raises UserError when the store cannot be written, when it
        is the output of a flow and this is another verb, or when another driver holds the lease.
        """
        store = self.store
        if self.verb != "flow" and store.exists(FLOW):
            raise UserError(f"{store.uri} is the output of a flow; choose another --out, or one of its steps")
        with ExitStack() as stack:
            stack.enter_context(self._held(store))
            if folder:
                store = open_store(f"{store.uri.rstrip('/')}/{folder}")
                stack.enter_context(self._held(store))
                stack.callback(_remove_empty, store)
            lease = Lease(store)
            lease.acquire()
            stack.callback(lease.release)
            stack.enter_context(last_step(lease.release))
            yield lease

    @contextmanager
    def _held(self, store: Store) -> Iterator[None]:
        """The store can be written; folders that were made for it and that stay empty are removed."""
        with last_step(store.leave), store.writable():
            yield

    def stopped(self) -> int:
        """Log the command that resumes; returns the exit code."""
        logger.info(f"stopped; resume with: {self.command}")
        return STOPPED


def _remove_empty(store: Store) -> None:
    if not any(store.list()):
        store.clear()


def refusal(uri: str, reason: str, old: Any, new: Any, flag: str = "--out") -> UserError:
    """The error for an output of another recipe: `reason` ("holds another model") and where the literals differ."""
    lines = list(differences(covered(masked(old)), covered(masked(new))))
    lines = lines or ["a text that quotes a secret and is not shown"]
    more = f"; and {len(lines) - MAX_DIFFERENCES} more" if len(lines) > MAX_DIFFERENCES else ""
    return UserError(
        f"{uri} {reason}; nothing was changed. Differences (output -> command): "
        f"{'; '.join(lines[:MAX_DIFFERENCES])}{more}. Choose another {flag}, or undo the difference to resume"
    )
