"""Commits of models on the hub, from its cache on this node or from the hub itself."""

import os
import re
from pathlib import Path

from gristmill.records.errors import UserError


def is_offline() -> bool:
    """Whether the environment forbids requests to the hub."""
    keys = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(key, "").upper() in ("1", "TRUE", "YES", "ON") for key in keys)


def cached_commit(hub_id: str, revision: str | None) -> str | None:
    """The commit of a model in the cache of this node; None for a model that is not there."""
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")).expanduser()
    repo = hub / f"models--{hub_id.replace('/', '--')}"
    ref = repo / "refs" / (revision or "main")
    if ref.is_file():
        return ref.read_text().strip()
    return revision if revision and (repo / "snapshots" / revision).is_dir() else None


def commit_of(hub_id: str, revision: str | None) -> str:
    """The commit that `revision` names: of the cache, which the engine uses too, else of the hub."""
    if revision and re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    cached = cached_commit(hub_id, revision)
    if cached:
        return cached
    from huggingface_hub import HfApi

    try:
        return str(HfApi().model_info(hub_id, revision=revision, timeout=20).sha)
    except Exception as error:  # noqa: BLE001 - the remedy is the same for any error of the hub's client
        lines = str(error).strip().splitlines()
        raise UserError(f"model '{hub_id}': the hub has no such model: {lines[0] if lines else error!r}") from None
