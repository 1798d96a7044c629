"""The cache folder of a node: models, kernels and digests."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """The node's cache: $GRISTMILL_CACHE, else ~/.cache/gristmill."""
    return Path(os.environ.get("GRISTMILL_CACHE") or "~/.cache/gristmill").expanduser()
