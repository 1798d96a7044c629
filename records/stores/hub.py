"""A data set on the Hugging Face hub as a store: inputs only, read by byte ranges.

    hf://datasets/org/name                    the main branch
    hf://datasets/org/name@revision/folder    a branch, a tag or a commit, and a folder of it

The revision is resolved to a commit once, and everything is read at this commit. The processes of a run share it by
the pins of the run. The version of an object is its size and its digest (SHA-256 of a large file, git's SHA-1 of
others), so equal versions mean equal bytes whatever the commit.
"""

import hashlib
import io
import re
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn
from urllib.parse import quote, urlsplit

import pyarrow as pa

from gristmill.records import pins
from gristmill.records.errors import Changed, Refused, Rejected, UserError
from gristmill.records.stores.contract import Entry, Store, is_between, is_hidden
from gristmill.records.stores.hub_client import HubClient, hub_address
from gristmill.records.stores.ranges import RangeFile

if TYPE_CHECKING:
    import pyarrow.fs

TAIL_BYTES = 64 << 10  # pyarrow reads as much for a footer
SHA256_HEX = 64
COMMIT = re.compile(r"[0-9a-f]{40}")
IDENTITY = {"Accept-Encoding": "identity"}  # a compressed answer has other ranges


class HubStore(Store):
    """A folder of a data set at a commit. Puts and deletes raise UserError."""

    guards_reads: ClassVar[bool] = True
    is_remote: ClassVar[bool] = True
    is_read_only: ClassVar[bool] = True

    def __init__(self, uri: str, endpoint: str = "", commit: str = "") -> None:
        """`endpoint`: of the hub, by default that of HF_ENDPOINT; `commit`: by default the present one."""
        super().__init__(uri.rstrip("/"))
        self.repo, self.revision, self.folder = hub_address(uri)
        self.client = HubClient(self.repo, self.count, endpoint)
        self._commit = commit or (self.revision if COMMIT.fullmatch(self.revision) else "")
        self._entries: dict[str, Entry] = {}  # that this store has seen, by name
        self._signed_urls: dict[str, str] = {}  # addresses that large files were redirected to, by name
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["HubStore"], tuple[str, str, str]]:
        return type(self), (self.uri, self.client.endpoint, self._commit)

    def give_up(self) -> None:
        self.client.outage.give_up()

    @property
    def commit(self) -> str:
        """The commit that everything is read at, 40 hex characters. Raises UserError for no data set or revision."""
        with self._lock:
            if not self._commit:
                run, key = pins.current(), f"{self.client.endpoint} {self.repo}@{self.revision}"
                commit = run.facts.get(key) if run else None
                if commit is None:
                    commit = self.client.commit_of(self.revision, self.uri)
                    if run:
                        commit = run.facts.setdefault(key, commit)
                self._commit = commit
        return self._commit

    def list(self, prefix: str = "", after: str = "", until: str | None = None) -> Iterator[Entry]:
        folder = "/".join(filter(None, [self.folder, prefix.rpartition("/")[0]]))
        url: str | None = self.client.api("tree", self.commit) + (f"/{quote(folder)}" if folder else "")
        arguments: dict[str, Any] = {"params": {"recursive": "true", "expand": "false"}}
        entries = []
        while url:
            try:
                answer, items = self.client.json("GET", url, self.uri, **arguments)
            except FileNotFoundError:
                return  # no such folder
            entries += [self._entry(item) for item in items if item["type"] == "file"]
            url, arguments = answer.links.get("next", {}).get("url"), {}
        self._entries.update({entry.name: entry for entry in entries})
        for entry in sorted(entries):
            is_inside = entry.name.startswith(prefix) and is_between(entry.name, after, until)
            if is_inside and not is_hidden(entry.name, prefix):
                yield entry

    def _entry(self, item: dict[str, Any]) -> Entry:
        digest = (item.get("lfs") or {}).get("oid") or item["oid"]
        name = item["path"].removeprefix(f"{self.folder}/") if self.folder else item["path"]
        return Entry(name, int(item["size"]), f"{item['size']}-{digest}")

    def _full(self, name: str) -> str:
        return f"{self.folder}/{name}" if self.folder else name

    def _look_up(self, name: str, version: str | None = None) -> Entry:
        """The entry of an object. Raises FileNotFoundError, IsADirectoryError, and Changed for another version."""
        entry = self._entries.get(name)
        if entry is None:
            form = {"paths": [self._full(name)], "expand": False}
            url = self.client.api("paths-info", self.commit)
            for item in self.client.json("POST", url, self.path(name), data=form)[1]:
                if item["type"] != "file":
                    raise IsADirectoryError(self.path(name))
                entry = self._entries[name] = self._entry(item)
        if entry is None:
            raise FileNotFoundError(self.path(name))
        if version not in (None, entry.version):
            raise Changed(f"{self.path(name)} changed since it was listed; run the command again")
        return entry

    def version(self, name: str) -> str:
        return self._look_up(name).version

    def sha256(self, name: str) -> str | None:
        digest = self._look_up(name).version.partition("-")[2]
        return digest if len(digest) == SHA256_HEX else None

    def exists(self, name: str) -> bool:
        try:
            self._look_up(name)
        except FileNotFoundError:
            return False
        except IsADirectoryError:
            return True
        return True

    def read(self, name: str, version: str | None = None) -> bytes:
        entry = self._look_up(name, version)
        data = self._get(name, 0, entry.size)
        digest = entry.version.partition("-")[2]
        present = hashlib.sha256(data) if len(digest) == SHA256_HEX else hashlib.sha1(b"blob %d\0" % len(data) + data)
        if present.hexdigest() != digest:
            raise UserError(f"{self.path(name)}: the hub sent other bytes than its listing says; run the command again")
        return data

    def open(self, name: str, version: str | None = None) -> pa.NativeFile:
        entry = self._look_up(name, version)
        tail = self._get(name, max(0, entry.size - TAIL_BYTES), entry.size)
        if len(tail) == entry.size:
            return pa.PythonFile(io.BytesIO(tail), "r")
        return pa.PythonFile(RangeFile(lambda start, stop: self._get(name, start, stop), entry.size, tail), "r")

    def fetch(self, name: str, start: int, stop: int, version: str | None = None) -> bytes:
        self._look_up(name, version)
        return self._get(name, start, stop)

    def _get(self, name: str, start: int, stop: int) -> bytes:
        """The bytes of a range. Raises UserError when the hub sends another number of bytes."""
        if start == stop:
            return b""
        headers = {**IDENTITY, "Range": f"bytes={start}-{stop - 1}"}
        answer = None
        if signed := self._signed_urls.get(name):
            try:
                answer = self.client.request("GET", signed, self.path(name), is_signed=True, headers=headers)
            except (UserError, FileNotFoundError) as error:
                if not isinstance(error, Refused | Rejected | FileNotFoundError) and "no such data set" not in str(
                    error
                ):
                    raise
                self._signed_urls.pop(name, None)  # the address has expired
        if answer is None:
            url = f"{self.client.endpoint}/datasets/{self.repo}/resolve/{self.commit}/{quote(self._full(name))}"
            answer = self.client.request("GET", url, self.path(name), headers=headers, follow_redirects=True)
            if answer.history and "/resolve/" not in urlsplit(str(answer.url)).path:
                self._signed_urls[name] = str(answer.url)  # one request a range instead of two
        data: bytes = answer.content
        data = data[start:stop] if answer.status_code == 200 else data
        if len(data) != stop - start:
            raise UserError(f"{self.path(name)}: the hub sent {len(data):,} of {stop - start:,} bytes; run it again")
        return data

    def filesystem(self) -> "tuple[pyarrow.fs.FileSystem, str]":
        from huggingface_hub import HfFileSystem
        from pyarrow import fs

        hub = fs.PyFileSystem(fs.FSSpecHandler(HfFileSystem(endpoint=self.client.endpoint)))
        return hub, f"datasets/{self.repo}@{self.commit}/{self.folder}".rstrip("/")

    def check(self, write: bool) -> None:
        if write:
            self._refuse()
        _ = self.commit

    def sweep(self, folders: Sequence[str] = ()) -> int:
        return 0

    def put(self, name: str, data: bytes, *, if_absent: bool = False) -> None:
        self._refuse()

    def delete(self, name: str) -> None:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise UserError(
            f"{self.uri}: a data set on the hub is read only; `gristmill pack --to` writes a release to one"
        )
