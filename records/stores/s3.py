"""A store in an S3 bucket: its requests and its reads. Only the files s3*.py import boto3.

Every request goes through one retry loop (`_request`). Retries of botocore are off, so that the two do not multiply.
"""

import io
import logging
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import pyarrow as pa
from botocore.exceptions import ClientError

from gristmill.records.errors import Changed, Conflict, Refused, Rejected, UserError
from gristmill.records.stores.contract import PROBE_PREFIX, Entry, is_hidden
from gristmill.records.stores.probe import check_promises
from gristmill.records.stores.ranges import RangeFile
from gristmill.records.stores.retry import Outage, Tries, retry_s
from gristmill.records.stores.s3_bulk import BulkReader
from gristmill.records.stores.s3_client import arrow_filesystem, connect
from gristmill.records.stores.s3_listing import OBJECTS, Page
from gristmill.records.stores.s3_puts import S3Puts
from gristmill.records.stores.s3_trouble import CONDITIONAL, DECIDING, ERRORS, REMEDY, Trouble, expect

if TYPE_CHECKING:
    import pyarrow.fs

logger = logging.getLogger(__name__)

T = TypeVar("T")

TAIL_BYTES = 64 << 10  # pyarrow reads as much for a footer
PAGE_NAMES = 1000  # of a listing; S3 gives no more
QUIET_S, LOG_EVERY_S = 1.0, 10.0


class S3Store(S3Puts):
    """A bucket and a prefix. Puts of S3 are atomic; if-absent puts use `If-None-Match: *`.

    The version of an object is its size and ETag, which is a digest of its parts; reads state it by `If-Match`.
    """

    guards_reads: ClassVar[bool] = True
    is_remote: ClassVar[bool] = True

    def __init__(self, uri: str, patience_s: float | None = None) -> None:
        super().__init__(uri.rstrip("/"))
        self.bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        if ":" in self.bucket or "@" in self.bucket:  # UserError masks what stands before the @
            raise UserError(
                f"{uri}: an address holds no keys; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, "
                "and write s3://bucket/prefix"
            )
        if not self.bucket:
            raise UserError(f"{uri}: no bucket named; write s3://bucket/prefix")
        self.patience_s = patience_s or retry_s()
        self._outage = Outage()
        self._lock = threading.Lock()
        self._client: Any = None
        self._bulk: BulkReader | None = None
        self._logged = 0.0

    def __reduce__(self) -> tuple[type["S3Store"], tuple[str, float]]:
        return type(self), (self.uri, self.patience_s)  # each process creates its own client

    def give_up(self) -> None:
        self._outage.give_up()

    @property
    def client(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = connect(self.uri, self.patience_s)
            return self._client

    def _renewed(self, stale: Any) -> Any:
        with self._lock:
            if self._client is stale:  # else another thread has renewed it
                self._client = None
        return self.client

    def _request(self, name: str | None, request: Callable[[Any], T], taken: tuple[int, ...] = (412,)) -> T:
        """The answer to a request. Retries while the store is in trouble, and once with fresh keys when refused.

        Raises FileNotFoundError (404), Conflict (a status of `taken`), Rejected for what the request says, and
        UserError with a remedy for any other failure.
        """
        where = self.uri if name is None else self.path(name)
        client, has_fresh_keys = self.client, False
        tries = Tries(self._outage, self.patience_s)
        while True:
            if self._outage.is_hopeless:
                raise UserError(f"{where}: not requested, because the store has not answered and the run is stopping")
            try:
                answer = request(client)
                self._outage.answered()
                return answer
            except ERRORS as error:
                scheme, _, host = client.meta.endpoint_url.partition("://")
                trouble = Trouble(error, f"{scheme}://{host.rpartition('@')[2]}")
            if trouble.status and not trouble.is_transient:
                self._outage.answered()
            if trouble.code == "NoSuchBucket" or (trouble.status == 404 and name is None):
                raise UserError(f"s3://{self.bucket}: no such bucket; create it or correct the address")
            if trouble.status == 404:
                raise FileNotFoundError(where)
            if trouble.status in taken and not trouble.is_transient:
                conflict = Conflict(f"{where} is already there: another run has written it")
                conflict.num_retries = tries.num_failed
                raise conflict
            self.count(trouble.kind)
            if trouble.is_refusal and not has_fresh_keys:
                has_fresh_keys = True
                client = self._renewed(client)
                continue
            if trouble.is_transient:
                self._log(where, trouble, tries)
                if tries.again():
                    continue
                if trouble.code in DECIDING:
                    conflict = Conflict(f"{where} is being written by another run")
                    conflict.is_undecided = True
                    raise conflict
            failure = Refused if trouble.is_refusal else Rejected if trouble.is_rejection else UserError
            raise failure(f"{where}: {trouble.advice(tries)}")

    def _log(self, where: str, trouble: Trouble, tries: Tries) -> None:
        now = time.monotonic()
        with self._lock:
            if (
                not tries.patience_s
                or tries.spent_s < QUIET_S
                or now - self._logged < LOG_EVERY_S
                or self._outage.has_given_up
            ):
                return
            self._logged = now
        logger.warning(f"{where}: {trouble.message}, retrying for up to {tries.patience_s:.0f} s")

    def _key(self, name: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.prefix + name}

    def filesystem(self) -> "tuple[pyarrow.fs.FileSystem, str]":
        return arrow_filesystem(self.client), f"{self.bucket}/{self.prefix}".rstrip("/")

    def list(self, prefix: str = "", after: str = "", until: str | None = None) -> Iterator[Entry]:
        for names, page, start in self._pages(prefix, after, until):
            sizes, tags = page.sizes[start:], page.tags[start:]
            yield from [Entry(n, s, f"{s}-{t}") for n, s, t in zip(names, sizes, tags) if not is_hidden(n, prefix)]

    def sizes(self, prefix: str = "", after: str = "", until: str | None = None) -> Iterator[tuple[str, int]]:
        for names, page, start in self._pages(prefix, after, until):
            if any(PROBE_PREFIX in name for name in names):
                yield from [(n, s) for n, s in zip(names, page.sizes[start:]) if not is_hidden(n, prefix)]
            else:
                yield from zip(names, page.sizes[start:])

    def _pages(self, prefix: str, after: str, until: str | None) -> Iterator[tuple[Sequence[str], Page, int]]:
        """The names between, page by page, and where the first of them is in its page."""
        whole = {"Bucket": self.bucket, "Prefix": self.prefix + prefix, "MaxKeys": PAGE_NAMES}
        place = {"StartAfter": self.prefix + after} if after else {}
        cut = len(self.prefix)
        while True:
            answer = self._request(None, partial(_page, **whole, **place))
            page: Page = answer[OBJECTS]
            names = [key[cut:] for key in page.keys] if cut else page.keys
            stop = len(names) if until is None else bisect_right(names, until)
            start = bisect_right(names, after) if after else 0  # 0 but for a store that ignores StartAfter
            yield names[start:stop], page, start
            if stop < len(names) or not answer.get("IsTruncated"):
                return
            place = {"ContinuationToken": answer["NextContinuationToken"]}

    def version(self, name: str) -> str:
        head = self._request(name, lambda client: client.head_object(**self._key(name)))
        return _version(head["ContentLength"], head)

    def read(self, name: str, version: str | None = None) -> bytes:
        def request(client: Any) -> tuple[bytes, str]:
            answer = client.get_object(**self._key(name), **_condition(version))
            data = answer["Body"].read()
            return data, _version(len(data), answer)

        data, present = self._versioned(name, version, request)
        if version not in (None, present):
            raise Changed(f"{self.path(name)} changed since it was listed; run the command again")
        return data

    def read_small(self, name: str) -> bytes:
        with self._lock:
            if self._bulk is None:
                self._bulk = BulkReader(self._client or connect(self.uri, self.patience_s), self.bucket)
        data = self._bulk.get(self.prefix + name)
        return self.read(name) if data is None else data

    def open(self, name: str, version: str | None = None) -> pa.NativeFile:
        def request(client: Any) -> tuple[bytes, int, str]:
            return self._get(client, name, f"-{TAIL_BYTES}", **_condition(version))

        try:
            tail, size, etag = self._versioned(name, version, request)
        except _Empty:
            tail, size, etag = b"", 0, ""
        if version and (size != int(version.partition("-")[0]) or (size and f"{size}-{etag}" != version)):
            raise Changed(f"{self.path(name)} changed since it was listed; run the command again")
        if not size:
            return pa.PythonFile(io.BytesIO(), "r")

        def fetch(start: int, stop: int) -> bytes:
            same = {"IfMatch": etag} if etag.startswith('"') else {}
            try:
                return self._request(name, lambda client: self._get(client, name, f"{start}-{stop - 1}", **same)[0])
            except (Conflict, _Empty):
                raise UserError(f"{self.path(name)}: was replaced during the read; run the command again") from None

        return pa.PythonFile(RangeFile(fetch, size, tail), "r")

    def fetch(self, name: str, start: int, stop: int, version: str | None = None) -> bytes:
        def request(client: Any) -> bytes:
            data, _, tag = self._get(client, name, f"{start}-{stop - 1}", **_condition(version))
            if len(data) != stop - start or (version and version.partition("-")[2] != tag):
                raise Changed(f"{self.path(name)} changed since it was listed; run the command again")
            return data

        return self._versioned(name, version, request)

    def _versioned(self, name: str, version: str | None, request: Callable[[Any], T]) -> T:
        """The answer to a request that may name a version. Raises Changed where the object is in another."""
        try:
            return self._request(name, request)
        except Conflict:
            if version is None:
                raise
            raise Changed(f"{self.path(name)} changed since it was listed; run the command again") from None

    def _get(self, client: Any, name: str, part: str, **condition: str) -> tuple[bytes, int, str]:
        """The bytes of a range, the size of the whole object and its tag."""
        try:
            answer = client.get_object(**self._key(name), Range=f"bytes={part}", **condition)
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 416:
                raise _Empty from None
            raise
        data = answer["Body"].read()
        size = int(answer["ContentRange"].rpartition("/")[2]) if "ContentRange" in answer else len(data)
        return data, size, _tag(answer)

    def exists(self, name: str) -> bool:
        try:
            self._request(name, lambda client: client.head_object(**self._key(name)))
        except FileNotFoundError:
            return False
        return True

    def check(self, write: bool) -> None:
        self._request(None, lambda client: client.head_bucket(Bucket=self.bucket))
        if write:
            check_promises(self, CONDITIONAL, REMEDY)


def _page(client: Any, **arguments: Any) -> dict[str, Any]:
    return expect(OBJECTS, expect("IsTruncated", client.list_objects_v2(**arguments)))


def _tag(answer: dict[str, Any]) -> str:
    """The ETag; where a store has none, the time of the last write."""
    return str(answer.get("ETag") or answer.get("LastModified") or "")


def _version(size: int, answer: dict[str, Any]) -> str:
    return f"{size}-{_tag(answer)}"


def _condition(version: str | None) -> dict[str, str]:
    tag = version.partition("-")[2] if version else ""
    return {"IfMatch": tag} if tag.startswith('"') else {}


class _Empty(Exception):
    """Status 416: the object is empty, so it has no such range."""
