"""Where compiled kernels are kept: by host and source, whatever folder the package lies in.

Numba keeps compiled code beside its source, or by the path of its source. Ray unpacks the package into a new folder for
each cluster and each upload, so every node would compile all kernels again: about 25 seconds of CPU per worker.
"""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba.core import caching

from gristmill.records.cache import cache_folder

FOLDER = Path(__file__).parent


@cache
def source_digest() -> str:
    """Digest of all kernel sources: kernels inline one another, across files."""
    digest = hashlib.blake2b(digest_size=12)
    for path in sorted(FOLDER.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class SourceLocator(caching._CacheLocator):
    """Keeps the kernels of these sources in a folder of the node's cache."""

    def __init__(self, line: int) -> None:
        self.line = line

    def get_cache_path(self) -> str:
        return str(cache_folder() / f"kernels-{source_digest()}")

    def get_source_stamp(self) -> str:
        return source_digest()

    def get_disambiguator(self) -> str:
        return str(self.line)

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> "SourceLocator | None":
        """None for any other function, and where the cache cannot be written: numba then looks further."""
        if Path(py_file).parent != FOLDER:
            return None
        locator = cls(py_func.__code__.co_firstlineno)
        try:
            locator.ensure_cache_path()
        except OSError:
            return None
        return locator


def register() -> None:
    """Use the locator, after a folder that the user has set by NUMBA_CACHE_DIR."""
    if SourceLocator not in caching.CacheImpl._locator_classes:
        caching.CacheImpl._locator_classes.insert(1, SourceLocator)
