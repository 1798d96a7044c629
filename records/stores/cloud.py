"""Stores of Google Cloud and Azure through obstore: `gs://bucket/prefix` for inputs, `az://container/prefix`.

Credentials come from the standard settings: GOOGLE_APPLICATION_CREDENTIALS or the role of the machine;
AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN, AZURE_CLIENT_ID and so on. Every
request goes through one retry loop (`_request`); retries of obstore are off, so that the two do not multiply.
"""

import io
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import pyarrow as pa

from gristmill.records.errors import Changed, Conflict, Refused, Rejected, UserError
from gristmill.records.extras import require
from gristmill.records.stores.contract import Entry, Store, is_between, is_hidden
from gristmill.records.stores.probe import check_promises, sweep_probes
from gristmill.records.stores.ranges import RangeFile
from gristmill.records.stores.retry import Outage, Tries, retry_s

if TYPE_CHECKING:
    import pyarrow.fs

T = TypeVar("T")

TAIL_BYTES = 64 << 10  # pyarrow reads as much for a footer
CONNECT_S, READ_S, REQUEST_S = 10.0, 30.0, 600.0  # timeouts; a request carries a whole shard
PAGE_NAMES = 1000  # of a listing
TRANSIENT = (408, 429, 500, 502, 503, 504)
STATUS = re.compile(r"status code: (\d{3})")
CODE = re.compile(r"<Code>(\w+)</Code>")
NAMES = {"gs": "Google Cloud Storage", "az": "Azure Blob Storage"}
SETTINGS = {
    "gs": "GOOGLE_APPLICATION_CREDENTIALS or the role of this machine",
    "az": "AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN or a client id",
}
CONDITIONAL, REMEDY = "conditional puts (If-None-Match: *)", "use Azure Blob Storage, S3 or a local folder"


class CloudStore(Store):
    """A bucket or container and a prefix. The version of an object is its size and ETag, which reads state."""

    guards_reads: ClassVar[bool] = True
    is_remote: ClassVar[bool] = True

    def __init__(self, uri: str, patience_s: float | None = None) -> None:
        super().__init__(uri.rstrip("/"))
        self.scheme, _, rest = uri.partition("://")
        self.bucket, _, prefix = rest.partition("/")
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        if not self.bucket or "@" in self.bucket or ":" in self.bucket:
            raise UserError(f"{uri}: no bucket named; write {self.scheme}://bucket/prefix, and set {self._settings}")
        self.is_read_only = self.scheme == "gs"  # type: ignore[misc]
        self.patience_s = patience_s or retry_s()
        self._outage, self._lock = Outage(), threading.Lock()
        self._client: Any = None

    def __reduce__(self) -> tuple[type["CloudStore"], tuple[str, float]]:
        return type(self), (self.uri, self.patience_s)

    @property
    def _settings(self) -> str:
        return SETTINGS[self.scheme]

    def give_up(self) -> None:
        self._outage.give_up()

    @property
    def client(self) -> Any:
        """The store of obstore. Raises UserError for settings that it cannot read, and without the package."""
        require("obstore", "cloud")
        from obstore.exceptions import BaseError
        from obstore.store import AzureStore, GCSStore

        with self._lock:
            if self._client is None:
                try:
                    self._client = (GCSStore if self.scheme == "gs" else AzureStore)(self.bucket, **self._options())
                except (BaseError, ValueError) as error:
                    first = str(error).splitlines()[0]
                    raise UserError(f"{self.uri}: {first}; set {self._settings}") from None
        return self._client

    def _options(self) -> dict[str, Any]:
        bound_s = max(1.0, self.patience_s / 3)
        limits = {
            "connect_timeout": min(CONNECT_S, bound_s),
            "read_timeout": min(READ_S, bound_s),
            "timeout": REQUEST_S,
        }
        options = {name: timedelta(seconds=seconds) for name, seconds in limits.items()}
        return {"client_options": {**options, "allow_http": True}, "retry_config": {"max_retries": 0}}

    def _request(
        self, name: str | None, request: Callable[[Any], T], has_tried: Callable[[], None] = lambda: None
    ) -> T:
        """The answer to a request. Retries while the store is in trouble; `has_tried` is called before a retry.

        Raises FileNotFoundError, Conflict (object exists, or another version), Refused, Rejected and UserError.
        """
        client, where = self.client, self.uri if name is None else self.path(name)
        no_bucket = UserError(f"{self.scheme}://{self.bucket}: no such bucket; create it or correct the address")
        from obstore import exceptions

        tries = Tries(self._outage, self.patience_s)
        while True:
            if self._outage.is_hopeless:
                raise UserError(f"{where}: not requested, because the store has not answered and the run is stopping")
            try:
                answer = request(client)
                self._outage.answered()
                return answer
            except FileNotFoundError:
                raise (no_bucket if name is None else FileNotFoundError(where)) from None
            except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
                raise Conflict(f"{where} is already there: another run has written it") from None
            except (exceptions.BaseError, OSError) as error:
                text = str(error)
                match = STATUS.search(text)
                status = int(match[1]) if match else 0
                is_refusal = isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError)
                is_rejection = isinstance(error, exceptions.NotSupportedError | exceptions.InvalidPathError)
            if status == 404 and name is None:
                raise no_bucket
            if is_refusal or "token request" in text or status in (401, 403):
                self.count("403")
                raise Refused(f"{where}: access refused{_code(text)}; set {self._settings}")
            if is_rejection or (status and status not in TRANSIENT):
                problem = f"answers {status}{_code(text)}" if status else "does not take this name or request"
                raise Rejected(f"{where}: {NAMES[self.scheme]} {problem}")
            self.count(str(status) if status else "connection")
            if not tries.again():
                problem = f"answers {status}{_code(text)}" if status else "cannot be reached"
                raise UserError(
                    f"{where}: {NAMES[self.scheme]} {problem}, tried {tries.num_failed} times in {tries.spent_s:.0f} "
                    "s; check the store and the settings, then run the same command again to resume"
                )
            has_tried()

    def list(self, prefix: str = "", after: str = "", until: str | None = None) -> Iterator[Entry]:
        last = self.prefix + after if after else ""
        for item in self._items(self.prefix + prefix, last):
            path = str(item["path"])
            if path < last:
                raise UserError(f"{self.uri}: this store lists names in no order, so a run could not resume; {REMEDY}")
            last, name = path, path.removeprefix(self.prefix)
            if until is not None and name > until:
                return
            is_inside = path.startswith(self.prefix + prefix) and is_between(name, after, until)
            if is_inside and not is_hidden(name, prefix):
                yield Entry(name, int(item["size"]), _version(item))

    def _items(self, prefix: str, after: str) -> Iterator[Any]:
        """The objects of the last folder of a prefix whose paths are greater than `after`."""
        import obstore

        pages: Any = None

        def page(client: Any) -> Sequence[Any] | None:
            nonlocal pages
            if pages is None:
                folder = prefix.rpartition("/")[0] or None
                pages = iter(obstore.list(client, folder, offset=after or None, chunk_size=PAGE_NAMES))
            try:
                answer: Sequence[Any] | None = next(pages, None)
                return answer
            except BaseException:
                pages = None  # the next try begins after the last object
                raise

        while items := self._request(None, page):
            for item in items:
                if item["path"] > after or not after:  # some stores begin earlier
                    yield item
            after = max(after, str(items[-1]["path"]))

    def _head(self, name: str) -> Any:
        import obstore

        return self._request(name, lambda client: obstore.head(client, self.prefix + name))

    def version(self, name: str) -> str:
        return _version(self._head(name))

    def read(self, name: str, version: str | None = None) -> bytes:
        return self._get(name, None, version)[0]

    def open(self, name: str, version: str | None = None) -> pa.NativeFile:
        present = version or self.version(name)
        size = int(present.partition("-")[0])
        tail, _ = self._get(name, (max(0, size - TAIL_BYTES), size), present)
        if len(tail) == size:
            return pa.PythonFile(io.BytesIO(tail), "r")

        def fetch(start: int, stop: int) -> bytes:
            try:
                return self._get(name, (start, stop), present)[0]
            except Changed:
                raise UserError(f"{self.path(name)}: was replaced during the read; run the command again") from None

        return pa.PythonFile(RangeFile(fetch, size, tail), "r")

    def fetch(self, name: str, start: int, stop: int, version: str | None = None) -> bytes:
        data, _ = self._get(name, (start, stop), version)
        if len(data) != stop - start:
            raise Changed(f"{self.path(name)} is shorter than it was; run the command again")
        return data

    def _get(self, name: str, part: tuple[int, int] | None, version: str | None) -> tuple[bytes, str]:
        """The bytes of a range, or of the whole object, and its version. Raises Changed for another version."""
        import obstore

        changed = Changed(f"{self.path(name)} changed since it was listed; run the command again")
        options: Any = {}
        if part and part[1] > part[0]:
            options["range"] = part
        if version:
            options["if_match"] = f'"{version.partition("-")[2]}"'

        def request(client: Any) -> tuple[bytes, str]:
            answer = obstore.get(client, self.prefix + name, options=options)
            return bytes(answer.bytes()), _version(answer.meta)

        try:
            data, present = self._request(name, request)
        except Conflict:
            raise changed from None
        if version not in (None, present):  # for a store that ignores If-Match
            raise changed
        return data, present

    def put(self, name: str, data: bytes, *, if_absent: bool = False) -> None:
        import obstore

        tries = 1

        def again() -> None:
            nonlocal tries
            tries += 1

        def request(client: Any) -> None:
            mode: Any = "create" if if_absent else "overwrite"
            obstore.put(client, self.prefix + name, data, mode=mode, use_multipart=False)

        try:
            self._request(name, request, again)
        except Conflict:
            # A put whose answer was lost may have succeeded; its retry then conflicts with itself.
            if tries == 1 or self.read_if_there(name) != data:
                raise

    def delete(self, name: str) -> None:
        import obstore

        try:
            self._request(name, lambda client: obstore.delete(client, self.prefix + name))
        except FileNotFoundError:
            return

    def exists(self, name: str) -> bool:
        try:
            self._head(name)
        except FileNotFoundError:
            return False
        return True

    def sweep(self, folders: Sequence[str] = ()) -> int:
        return sweep_probes(self)

    def filesystem(self) -> "tuple[pyarrow.fs.FileSystem, str]":
        require("obstore", "cloud")
        from obstore.fsspec import FsspecStore
        from pyarrow import fs

        options: Any = self._options()
        view = fs.PyFileSystem(fs.FSSpecHandler(FsspecStore("gs" if self.scheme == "gs" else "az", **options)))
        return view, f"{self.bucket}/{self.prefix}".rstrip("/")

    def check(self, write: bool) -> None:
        if write and self.is_read_only:
            raise UserError(f"{self.uri}: gs:// is for inputs; choose a folder, s3:// or az:// for an output")
        next(self.list(), None)
        if write:
            check_promises(self, CONDITIONAL, REMEDY)


def _version(item: Any) -> str:
    """Size and ETag, whose quotes some answers have; where a store has none, the time of the last write."""
    tag = str(item.get("e_tag") or item["last_modified"].isoformat())
    return f"{item['size']}-{tag.strip(chr(34))}"


def _code(text: str) -> str:
    match = CODE.search(text)
    return f" ({match[1]})" if match else ""
