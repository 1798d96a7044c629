"""A release on the Hugging Face hub under construction: readers of the main branch see it whole or not at all.

Shards go to the hub's storage of large files as they are written. A branch, STAGE, holds the note of a begun release
and, from time to time, the shards so far: a pack that was killed reads there what is done. `publish` makes one commit
on main with all files and removes the branch. A new repository is private until then, and stays so without `is_public`.
"""

import base64
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import pyarrow as pa

from gristmill.records.errors import Conflict, UserError
from gristmill.records.printable import printable_line
from gristmill.records.stores.contract import Entry, Store, is_between
from gristmill.records.stores.hub import HubStore
from gristmill.records.stores.hub_client import SIGN_IN, HubClient, NoRepository, NoRevision, hub_address
from gristmill.records.stores.retry import Tries

if TYPE_CHECKING:
    import pyarrow.fs

logger = logging.getLogger(__name__)

T = TypeVar("T")

STAGE = "gristmill-pack"  # a branch
ATTRIBUTES = ".gitattributes"  # every repository has one: which files are large
LARGE = ".parquet"
RULE = b"*.parquet filter=lfs diff=lfs merge=lfs -text\n"
COMMIT_SHARDS, COMMIT_S = 64, 300.0  # shards and seconds between two commits of the stage
MANY_FILES = 1000  # of one commit, beyond which the hub may be slow


class HubRelease(Store):
    """The root of a data set, for a release alone: shards (.parquet), the note that it is begun (if absent), card and
    metadata.

    Every method but `put` of a shard and `read` belongs to the process that publishes.
    """

    guards_reads: ClassVar[bool] = True
    is_remote: ClassVar[bool] = True

    def __init__(self, uri: str, is_public: bool = False, endpoint: str = "") -> None:
        super().__init__(uri.rstrip("/"))
        self.repo, revision, folder = hub_address(uri)
        if revision != "main" or folder:
            raise UserError(f"{uri}: a release fills the main branch of a data set; write hf://datasets/{self.repo}")
        self.is_public = is_public
        self.client = HubClient(self.repo, self.count, endpoint)
        self._small_files: dict[str, bytes] = {}  # for the last commit
        self._shards: dict[str, dict[str, Any]] = {}  # uploaded shards that the stage lacks, as lines of a commit
        self._last_commit_s = time.monotonic()
        self._stage_reader: HubStore | None = None  # of the stage since the last commit of this process

    def __reduce__(self) -> tuple[type["HubRelease"], tuple[str, bool, str]]:
        return type(self), (self.uri, self.is_public, self.client.endpoint)

    def give_up(self) -> None:
        self.client.outage.give_up()

    def _at(self, branch: str) -> HubStore:
        """The branch as it is now, whatever a run has pinned."""
        commit = self.client.commit_of(branch, self.uri)
        return HubStore(f"hf://datasets/{self.repo}@{branch}", self.client.endpoint, commit)

    def _files(self, branch: str) -> dict[str, Entry] | None:
        """The files of a branch by name, but for ATTRIBUTES; None without the branch or the repository."""
        try:
            return {entry.name: entry for entry in self._at(branch).list() if entry.name != ATTRIBUTES}
        except (NoRepository, NoRevision):
            return None

    def list(self, prefix: str = "", after: str = "", until: str | None = None) -> Iterator[Entry]:
        self._commit_shards()
        files = self._files(STAGE)
        if files is None:
            files = self._files("main") or {}
        yield from (e for e in files.values() if e.name.startswith(prefix) and is_between(e.name, after, until))

    def _stage(self) -> HubStore:
        """The stage with every shard that this process knows of."""
        self._commit_shards()
        if self._stage_reader is None:
            self._stage_reader = self._at(STAGE)
        return self._stage_reader

    def version(self, name: str) -> str:
        return self._stage().version(name)

    def sha256(self, name: str) -> str | None:
        return self._stage().sha256(name)

    def read(self, name: str, version: str | None = None) -> bytes:
        return self._stage().read(name, version)

    def open(self, name: str, version: str | None = None) -> pa.NativeFile:
        return self._stage().open(name, version)

    def exists(self, name: str) -> bool:
        return name in (self._files(STAGE) or {})

    def filesystem(self) -> "tuple[pyarrow.fs.FileSystem, str]":
        return self._at("main").filesystem()

    def sweep(self, folders: Sequence[str] = ()) -> int:
        return 0

    def check(self, write: bool) -> None:
        """Raise UserError without a token, without the right to write, and for a public repository without `is_public`.

        With `write`, make the repository, private, if there is none.
        """
        if not write:
            return
        if not self.client.has_token:
            raise UserError(f"{self.uri}: no token for the hub; {SIGN_IN} with a token that may write")
        url = self.client.api()
        try:
            _, facts = self.client.json("GET", url, self.uri)
        except NoRepository:
            owner, _, name = self.repo.partition("/")
            request = {"name": name, "organization": owner, "type": "dataset", "visibility": "private"}
            self.client.request("POST", f"{self.client.endpoint}/api/repos/create", self.uri, json=request)
            logger.info(f"{self.uri}: new private data set")
            return
        if not facts.get("private") and not self.is_public:
            raise UserError(f"{self.uri}: the data set is public; add --public to publish there, or make it private")

    def put(self, name: str, data: bytes, *, if_absent: bool = False) -> None:
        if name.endswith(LARGE):
            self._upload(name, data)
        elif if_absent:
            self._begin(name, data)
        else:
            self._small_files[name] = data

    def _begin(self, name: str, data: bytes) -> None:
        """Make the stage with one file. Raises Conflict when it has the file."""
        with suppress(Conflict):
            self.client.request("POST", self.client.api("branch", STAGE), self.uri, json={})

        def commit() -> bool:
            stage = self._at(STAGE)
            names = {entry.name for entry in stage.list()}
            if name in names:
                return False
            if names - {ATTRIBUTES}:
                raise UserError(f"{self.uri}: its branch {STAGE} holds files of others; remove the branch")
            lines = [_small_file(name, data), *([] if names else [_small_file(ATTRIBUTES, RULE)])]
            self._commit(STAGE, "Begin a release", lines, parent=stage.commit)
            return True

        if not self._retry(commit):
            raise Conflict(f"{self.path(name)} is already there: another pack has begun")

    def _upload(self, name: str, data: bytes) -> None:
        """Send a shard to the storage of large files, which keeps what it has already."""
        from huggingface_hub import CommitOperationAdd, HfApi
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()
        api = HfApi(endpoint=self.client.endpoint)

        def send() -> None:
            shard = CommitOperationAdd(name, data)
            try:
                api.preupload_lfs_files(self.repo, [shard], repo_type="dataset", revision=STAGE, num_threads=1)
            except ValueError as error:  # the storage says no, e.g. because a quota is used up
                raise UserError(f"{self.path(name)}: the hub does not take it ({printable_line(str(error))})") from None

        self.client.call(send, self.path(name))

    def record(self, name: str, size: int, sha256: str) -> None:
        self._shards[name] = _large_file(name, size, sha256)
        if len(self._shards) >= COMMIT_SHARDS or time.monotonic() - self._last_commit_s > COMMIT_S:
            self._commit_shards()

    def _commit_shards(self) -> None:
        lines, self._shards = list(self._shards.values()), {}
        if lines:
            self._retry(lambda: self._commit(STAGE, f"Add {len(lines)} shards", lines))
        self._last_commit_s = time.monotonic()

    def publish(self, mark: str) -> None:
        """Commit all files but `mark` to main at once, then remove the stage. Raises UserError for files of others."""
        self._commit_shards()
        shards = {name: entry for name, entry in (self._files(STAGE) or {}).items() if name != mark}
        lines = [_large_file(name, entry.size, entry.version.partition("-")[2]) for name, entry in shards.items()]
        lines += [_small_file(name, data) for name, data in self._small_files.items()]
        versions = {name: entry.version for name, entry in shards.items()}
        versions |= {name: f"{len(data)}-{_blob(data)}" for name, data in self._small_files.items()}
        if len(versions) > MANY_FILES:
            logger.warning(f"{self.uri}: one commit of {len(versions):,} files; a larger --shard-mb makes fewer")
        logger.info(f"{self.uri}: one commit of {len(versions):,} files on main")
        self._retry(lambda: self._commit_all(lines, versions))
        if self.is_public:
            self.client.request("PUT", self.client.api("settings"), self.uri, json={"visibility": "public"})
        self.delete(mark)

    def _commit_all(self, lines: Sequence[dict[str, Any]], versions: dict[str, str]) -> None:
        """One commit on main, unless it has these files already, because an answer was lost."""
        main = self._at("main")
        present = {entry.name: entry.version for entry in main.list()}
        if foreign := sorted(set(present) - set(versions) - {ATTRIBUTES}):
            raise UserError(f"{self.uri}: another commit has added {foreign[0]}; remove it, or choose another --to")
        if any(present.get(name) != version for name, version in versions.items()):
            attributes = [] if ATTRIBUTES in present else [_small_file(ATTRIBUTES, RULE)]
            self._commit("main", "Add the release", [*attributes, *lines], parent=main.commit)

    def _retry(self, commit: Callable[[], T]) -> T:
        """The answer of `commit`, which commits to a branch as it finds it; again where another commit comes first."""
        tries = Tries(self.client.outage, self.client.patience_s)
        while True:
            try:
                return commit()
            except Conflict:
                if not tries.again():
                    raise

    def _commit(self, branch: str, summary: str, lines: Sequence[dict[str, Any]], parent: str = "") -> None:
        """One commit. Raises Conflict when the branch is not at `parent`, if it is stated, or is being written."""
        head = {"summary": summary, "description": "", **({"parentCommit": parent} if parent else {})}
        body = b"".join(json.dumps(line).encode() + b"\n" for line in [{"key": "header", "value": head}, *lines])
        self._stage_reader = None
        headers = {"Content-Type": "application/x-ndjson"}
        self.client.request("POST", self.client.api("commit", branch), self.uri, headers=headers, content=body)

    def delete(self, name: str) -> None:
        """Remove the stage, which goes with the note of `begin`."""
        with suppress(NoRevision, NoRepository):
            self.client.request("DELETE", self.client.api("branch", STAGE), self.uri)
        self._small_files, self._shards, self._stage_reader = {}, {}, None


def _small_file(name: str, data: bytes) -> dict[str, Any]:
    """The line of a commit that adds a small file."""
    value = {"path": name, "content": base64.b64encode(data).decode(), "encoding": "base64"}
    return {"key": "file", "value": value}


def _large_file(name: str, size: int, sha256: str) -> dict[str, Any]:
    """The line of a commit that adds a large file, whose bytes the hub has."""
    return {"key": "lfsFile", "value": {"path": name, "algo": "sha256", "oid": sha256, "size": size}}


def _blob(data: bytes) -> str:
    """The digest of a small file, as git computes it."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
