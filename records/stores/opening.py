"""From an address to a store: a local path, `file://`, `s3://bucket/prefix`, `gs://`, `az://` or `hf://datasets/`.

S3 takes the standard AWS settings (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, AWS_REGION, profiles),
so any S3-compatible store with conditional puts works. docs/stores.md has the settings of the others.
"""

from gristmill.records import pins
from gristmill.records.errors import UserError
from gristmill.records.shipped import shipped_path
from gristmill.records.stores.contract import Store
from gristmill.records.stores.local import LocalStore

SCHEMES = ("file://", "s3://", "gs://", "az://", "hf://datasets/")
# What the verbs write into an output, at its top.
FOLDERS = (
    *("kept", "rejected", "events", "index", "answers"),
    *("checkpoints", "units", "rows", "students", "audit-fit"),
)
FILES = (
    *("manifest.json", "lease.json", "report.html", "model.json", "weights.safetensors", "audit.json", "study.json"),
    *("results.parquet", "summary.parquet", "metrics.json", "mixture.json", "croissant.json", "README.md", "pack.json"),
    *("flow.json", "takedown.json"),
)


def open_store(uri: str) -> Store:
    """The store at an address: a local path, or one of SCHEMES. Does no I/O.

    Raises UserError for any other address.
    """
    if not uri.strip() or "\0" in uri:
        raise UserError(f"{uri!r} is no address; name a folder or s3://bucket/prefix (. is the working folder)")
    scheme, sep, rest = uri.partition("://")
    if not sep:
        return LocalStore(uri)
    if scheme == "file":
        return LocalStore("/" + rest.lstrip("/"))
    if scheme == "s3":
        from gristmill.records.stores.s3 import S3Store  # boto3 takes a second to import

        return S3Store(uri)
    if scheme in ("gs", "az"):
        from gristmill.records.stores.cloud import CloudStore

        return CloudStore(uri)
    if scheme == "hf":
        from gristmill.records.stores.hub import HubStore

        return HubStore(uri)
    raise UserError(f"{uri}: only local paths, {', '.join(SCHEMES)} are supported, not {scheme}://")


def open_output(uri: str) -> Store:
    """The store of an output that a command writes, with its layout checked. Raises UserError for any other place."""
    store = open_store(uri)
    if store.is_read_only:
        raise UserError(
            f"{uri}: an output cannot be here; choose a folder, s3:// or az:// (pack --to takes hf:// as well)"
        )
    store.check_layout(FOLDERS, FILES)
    return store


def split(uri: str) -> tuple[str, str]:
    """An object's address as (store address, name)."""
    head, _, name = uri.rstrip("/").rpartition("/")
    return head or (uri[: len(uri) - len(name)] or "."), name


def read_bytes(uri: str) -> bytes:
    """The object or file at a full address, or a file of the package (`package:NAME`): an input of a run.

    Raises UserError when it does not exist, and when it has changed since the run began.
    """
    root, name = split(shipped_path(uri))
    try:
        return pins.read(open_store(root), name)
    except FileNotFoundError:
        raise UserError(f"{uri}: no such file") from None
