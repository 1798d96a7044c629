"""Before the first lot: the band keys of the corpora that a run must not repeat, and their index on this node."""

import logging
from collections.abc import Iterator, Sequence

from gristmill.jobs.recipes.compile import CompiledRecipe
from gristmill.jobs.terminal.bar import Bar
from gristmill.jobs.terminal.console import open_console
from gristmill.records.stores.contract import Store
from gristmill.stages.dedup.corpora import Piece
from gristmill.stages.dedup.existing import Existing
from gristmill.stages.dedup.texts import Dedup

logger = logging.getLogger(__name__)

MIN_ROWS = 400_000  # fewer are signed here before a local Ray has started
PLAIN_EVERY_S = 10.0  # between two progress lines where there is no terminal


def existing_of(compiled: CompiledRecipe) -> Existing | None:
    """The corpora of the recipe's dedup stage, None where it names none."""
    return next((s.existing for s in compiled.stages if isinstance(s, Dedup) and s.existing), None)


def prepare(existing: Existing, store: Store, is_output: bool = True) -> None:
    """Have the keys of all corpora in the caches, and the index in the cache of this node.

    With an output in a bucket, the keys of each piece are also in its `index/`, where other nodes read them. A run that
    is interrupted goes on with the first missing piece. `is_output`: whether keys may be put there; they are read in
    any case. Raises UserError when a corpus cannot be read.
    """
    existing.shared, existing.is_sharing = store if store.is_remote else None, is_output
    missing = existing.missing
    num_rows = sum(piece.stop - piece.start for _, piece in missing)
    use_tasks = num_rows >= MIN_ROWS
    if missing:
        logger.info(f"signing {num_rows:,} of {existing.num_rows:,} rows of the corpora in dedup.against")
    with Bar(open_console(is_error=True), "against", PLAIN_EVERY_S) as bar:
        done = 0
        for size in _signed(existing, store, missing) if use_tasks else map(existing.sign, missing):
            done += size
            bar.show(done, num_rows, f"{done:,} of {num_rows:,} rows of existing corpora signed")


def _signed(existing: Existing, store: Store, missing: Sequence[tuple[int, Piece]]) -> Iterator[int]:
    """Sign the pieces in tasks, and then make the index of a node: its other processes would wait for it."""
    from gristmill.cluster.batch_work import batch_work

    with batch_work(store) as workers:
        yield from workers.ordered(existing.sign, missing)
        list(workers.ordered(existing.make, [None]))
