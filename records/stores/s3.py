"""A store in an S3 bucket. Only this file imports boto3.

Every request goes through one retry loop (`_request`). Retries of botocore are off, so that the two do not multiply.
"""

import io
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import boto3
import pyarrow as pa
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from gristmill.records.errors import Conflict, UserError
from gristmill.records.stores.contract import Entry, Store
from gristmill.records.stores.ranges import RangeFile
from gristmill.records.stores.retry import Outage, Tries, retry_s
from gristmill.records.stores.s3_trouble import DECIDING, ERRORS, Trouble

if TYPE_CHECKING:
    import pyarrow.fs

logger = logging.getLogger(__name__)

T = TypeVar("T")

CONNECT_S, READ_S = 10.0, 30.0  # timeouts of a try; less when the bound on retries is small
TAIL_BYTES = 64 << 10  # pyarrow reads as much for a footer
IN_ONE_SEND_BYTES = 1 << 20  # a larger body is sent in blocks, so that the timeout holds for each block
QUIET_S, LOG_EVERY_S = 1.0, 10.0


class S3Store(Store):
    """A bucket and a prefix. Puts of S3 are atomic; if-absent puts use `If-None-Match: *`."""

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
        self._logged = 0.0

    def __reduce__(self) -> tuple[type["S3Store"], tuple[str, float]]:
        return type(self), (self.uri, self.patience_s)  # each process creates its own client

    def give_up(self) -> None:
        self._outage.give_up()

    @property
    def client(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _connect(self) -> Any:
        session = boto3.session.Session()  # a new session reads environment, files and role again
        config = Config(
            retries={"mode": "standard", "total_max_attempts": 1},
            connect_timeout=min(CONNECT_S, max(1.0, self.patience_s / 3)),
            read_timeout=min(READ_S, max(1.0, self.patience_s / 3)),
            max_pool_connections=32,
        )
        try:
            client = session.client("s3", config=config)
            if "amazonaws.com" not in client.meta.endpoint_url:  # most compatible stores have no host name per bucket
                client = session.client("s3", config=config.merge(Config(s3={"addressing_style": "path"})))
        except ValueError:  # its text may hold the password before an @
            raise UserError(f"{self.uri}: AWS_ENDPOINT_URL is not an address; write http://host:port") from None
        except BotoCoreError as error:
            raise UserError(f"{self.uri}: {error}") from None
        return client

    def _renewed(self, stale: Any) -> Any:
        with self._lock:
            if self._client is stale:  # else another thread has renewed it
                self._client = None
        return self.client

    def _request(self, name: str | None, request: Callable[[Any], T]) -> T:
        """The answer to a request. Retries while the store is in trouble, and once with fresh keys when refused.

        Raises FileNotFoundError (404), Conflict (412), and UserError with a remedy for any other failure.
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
            if trouble.status == 412:
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
                    raise Conflict(f"{where} is being written by another run")
            raise UserError(f"{where}: {trouble.advice(tries)}")

    def _log(self, where: str, trouble: Trouble, tries: Tries) -> None:
        now = time.monotonic()
        with self._lock:
            if tries.spent_s < QUIET_S or now - self._logged < LOG_EVERY_S or self._outage.has_given_up:
                return
            self._logged = now
        logger.warning(f"{where}: {trouble.message}, retrying for up to {tries.patience_s:.0f} s")

    def _key(self, name: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.prefix + name}

    def filesystem(self) -> "tuple[pyarrow.fs.FileSystem, str]":
        from pyarrow import fs

        keys = boto3.session.Session().get_credentials()
        frozen = keys.get_frozen_credentials() if keys else None
        scheme, _, host = self.client.meta.endpoint_url.partition("://")
        filesystem = fs.S3FileSystem(
            access_key=frozen and frozen.access_key,
            secret_key=frozen and frozen.secret_key,
            session_token=frozen and frozen.token,
            anonymous=frozen is None,
            region=self.client.meta.region_name,
            scheme=scheme,
            endpoint_override=None if host.endswith("amazonaws.com") else host,
        )
        return filesystem, f"{self.bucket}/{self.prefix}".rstrip("/")

    def list(self, prefix: str = "") -> Iterator[Entry]:
        whole = {"Bucket": self.bucket, "Prefix": self.prefix + prefix}
        token: dict[str, str] = {}
        while True:
            page = self._request(None, partial(_page, **whole, **token))
            for item in page.get("Contents", []):
                yield Entry(item["Key"][len(self.prefix) :], item["Size"])
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def read(self, name: str) -> bytes:
        return self._request(name, lambda client: client.get_object(**self._key(name))["Body"].read())

    def open(self, name: str) -> pa.NativeFile:
        try:
            tail, size, etag = self._request(name, lambda client: self._get(client, name, f"-{TAIL_BYTES}"))
        except _Empty:
            return pa.PythonFile(io.BytesIO(), "r")

        def fetch(start: int, stop: int) -> bytes:
            same = {"IfMatch": etag} if etag else {}
            try:
                return self._request(name, lambda client: self._get(client, name, f"{start}-{stop - 1}", **same)[0])
            except (Conflict, _Empty):
                raise UserError(f"{self.path(name)}: was replaced during the read; run the command again") from None

        return pa.PythonFile(RangeFile(fetch, size, tail), "r")

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
        return data, size, answer.get("ETag", "")

    def put(self, name: str, data: bytes, *, if_absent: bool = False) -> None:
        condition = {"IfNoneMatch": "*"} if if_absent else {}

        def request(client: Any) -> None:
            body = data if len(data) <= IN_ONE_SEND_BYTES else io.BytesIO(data)
            client.put_object(**self._key(name), Body=body, **condition)

        try:
            self._request(name, request)
        except Conflict as conflict:
            # A put whose answer was lost may have succeeded; its retry then conflicts with itself.
            if not (conflict.num_retries and self.read_if_there(name) == data):
                raise

    def delete(self, name: str) -> None:
        self._request(name, lambda client: client.delete_object(**self._key(name)))

    def exists(self, name: str) -> bool:
        try:
            self._request(name, lambda client: client.head_object(**self._key(name)))
        except FileNotFoundError:
            return False
        return True

    def check(self, write: bool) -> None:
        self._request(None, lambda client: client.head_bucket(Bucket=self.bucket))
        if write:
            name = f".probe-{secrets.token_hex(6)}"
            self.put(name, b"first", if_absent=True)
            try:
                self.put(name, b"second", if_absent=True)
            except Conflict:
                return
            finally:
                self.delete(name)
            raise UserError(f"{self.uri}: this store ignores If-None-Match, which commits need")


def _page(client: Any, **arguments: str) -> dict[str, Any]:
    page = client.list_objects_v2(**arguments)
    if "IsTruncated" not in page:  # botocore reads a truncated answer as an empty listing
        raise ResponseParserError("a truncated listing")
    return page


class _Empty(Exception):
    """Status 416: the object is empty, so it has no such range."""
