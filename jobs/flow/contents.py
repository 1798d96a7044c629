"""What the output of a step is identified by: its rows, its model or its results, not its pages and times."""

from concurrent.futures import ThreadPoolExecutor

from gristmill.records.committed import kept_digest
from gristmill.records.errors import UserError
from gristmill.records.ids import fingerprint
from gristmill.records.output.manifest import NAME as MANIFEST
from gristmill.records.output.manifest import load as read_manifest
from gristmill.records.stores.contract import Store
from gristmill.records.stores.digest import digest_ends

PAGES = frozenset({"lease.json", "report.html", "README.md", "croissant.json", "audit.json", "study.json"})
FOLDERS = ("events/", "index/", "checkpoints/", "units/")
NUM_THREADS = 16


def content_of(store: Store) -> str:
    """The digest of an output. Of a run: of its kept shards, by their checksums. Of any other: of its files, by their
    names, sizes and ends.

    Raises UserError when it holds nothing.
    """
    if store.exists(MANIFEST):
        manifest = read_manifest(store)
        assert manifest is not None
        return kept_digest(store, manifest.totals.num_lots)
    names = [e for e in store.list() if e.name not in PAGES and not e.name.startswith(FOLDERS)]
    if not names:
        raise UserError(f"{store.uri}: there is nothing in this output yet")

    def ends(name: str, size: int) -> str:
        with store.open(name) as file:
            return digest_ends(file, size)

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        digests = list(pool.map(lambda e: ends(e.name, e.size), names))
    return fingerprint([[e.name, digest] for e, digest in zip(names, digests)])
