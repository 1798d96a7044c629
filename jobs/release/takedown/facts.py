"""What a release says of its take-down: counts in the card, and salted hashes by which an audit proves absence.

The list itself is not published: it may name documents. `takedown.json` holds a random salt, and a hash under it of
each id that no row may bear: all ids on the list, and those of all rows that were left out. A reader who does not know
an id learns nothing from its hash. A reader who can guess one (a file name and a line) can test the guess, as can
anyone who compares two releases. With `--format` rows state no source ids, so their own ids are proven absent.
"""

import base64
import hashlib
import logging
import secrets
from collections.abc import Sequence
from typing import Any

from gristmill.jobs.release.takedown.listing import KINDS, MAX_NAMED, NUM_BYTES, key
from gristmill.jobs.release.takedown.trace import Takedown
from gristmill.records.errors import UserError
from gristmill.records.output.formats import newest, parse
from gristmill.records.printable import json_text, printable_line
from gristmill.records.stores.contract import Store

logger = logging.getLogger(__name__)

NAME = "takedown.json"
TITLE = "## Take-down"


def takedown_facts(takedown: Takedown) -> dict[str, Any]:
    """Counts of the list and of the rows, as literals."""
    return {
        "entries": len(takedown.listing.entries),
        "matched": {kind: len(takedown.matched[kind]) for kind in KINDS},
        "unmatched": len(takedown.unmatched),
        "rows_listed": takedown.num_rows["listed"],
        "rows_made_from_them": takedown.num_rows["derived"],
    }


def log_matches(takedown: Takedown, uri: str) -> None:
    """Log what the list has matched, and name entries that have matched nothing."""
    facts = takedown_facts(takedown)
    kinds = ", ".join(f"{facts['matched'][kind]:,} as {name}" for kind, name in KINDS.items())
    logger.info(
        f"take-down {uri}: of {facts['entries']:,} entries {kinds}; {facts['rows_listed']:,} rows are left out for "
        f"them, and {facts['rows_made_from_them']:,} rows made from those"
    )
    if unmatched := takedown.unmatched:
        names = ", ".join(printable_line(value)[:80] for value in unmatched[:MAX_NAMED])
        more = f" and {len(unmatched) - MAX_NAMED:,} more" if len(unmatched) > MAX_NAMED else ""
        logger.warning(
            f"take-down {uri}: {len(unmatched):,} of {facts['entries']:,} entries matched nothing: {names}{more}"
        )


def takedown_section(facts: dict[str, Any]) -> str:
    """The counts as Markdown; the audit compares the card with it."""
    return (
        f"{TITLE}\n\nLeft out by a take-down list: {facts['rows_listed']:,} rows that it names, and "
        f"{facts['rows_made_from_them']:,} rows that\nwere made from them. `{NAME}` holds salted hashes of their ids, "
        "and `gristmill audit` proves that no row\nbears one.\n"
    )


def write_takedown(target: Store, takedown: Takedown) -> None:
    """Write takedown.json."""
    salt = secrets.token_bytes(NUM_BYTES)
    hashes = b"".join(sorted(_salted(salt, value) for value in takedown.hidden if value))
    content = {"format": newest(NAME), **takedown_facts(takedown)}
    content |= {"salt": salt.hex(), "hashes": base64.b64encode(hashes).decode()}
    target.put(NAME, (json_text(content, indent=2) + "\n").encode())


def _salted(salt: bytes, value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=NUM_BYTES, key=salt).digest()


class Absence:
    """Proves that rows bear none of the ids of a take-down. It can be pickled."""

    def __init__(self, store: Store) -> None:
        """Reads takedown.json. Raises UserError when it cannot be read."""
        where = store.path(NAME)
        self.facts = parse(store.read(NAME), NAME, where)
        try:
            self.salt = bytes.fromhex(self.facts["salt"])
            data = base64.b64decode(self.facts["hashes"], validate=True)
            self.section = takedown_section(self.facts)
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{where} cannot be read: it lacks counts, salt or hashes") from None
        self._hashes = frozenset(data[at : at + NUM_BYTES] for at in range(0, len(data), NUM_BYTES))

    def __len__(self) -> int:
        return len(self._hashes)

    def present(self, *columns: Sequence[Any]) -> list[int]:
        """Numbers of the rows that bear a hidden id in one of the columns: texts, or lists of texts."""
        rows = set[int]()
        for column in columns:
            for row, value in enumerate(column):
                for text in value if isinstance(value, list) else [value]:
                    if text is not None and _salted(self.salt, key(text)) in self._hashes:
                        rows.add(row)
        return sorted(rows)


def absence_of(store: Store) -> Absence | None:
    """The take-down of a release, None where it has none."""
    return Absence(store) if store.exists(NAME) else None
