"""S3 and everything that speaks it. The only file that imports boto3."""

import random
import secrets
import time
from collections.abc import Iterator
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.fs
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from records.errors import Conflict, UserError
from records.store import Entry, Store

MAX_ATTEMPTS = 6  # botocore's standard mode: exponential backoff with jitter, also for 503 SlowDown


class StillDeciding(Exception):
    """409: two conditional puts of one name met, and the store has not decided between them."""


class S3Store(Store):
    """A bucket and a prefix. Atomic by S3's own rule; if-absent puts use `If-None-Match: *`."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self.bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        if not self.bucket:
            raise UserError(f"{uri}: no bucket named; write s3://bucket/prefix")
        self._client: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None}  # a client does not pickle; each process makes its own

    @property
    def client(self) -> Any:
        if self._client is None:
            session = boto3.session.Session()
            retries = {"mode": "standard", "total_max_attempts": MAX_ATTEMPTS}
            config = Config(retries=retries, connect_timeout=10, read_timeout=60, max_pool_connections=32)
            try:
                client = session.client("s3", config=config)
                if "amazonaws.com" not in client.meta.endpoint_url:  # most compatible stores have no bucket hosts
                    config = config.merge(Config(s3={"addressing_style": "path"}))
                    client = session.client("s3", config=config)
            except (BotoCoreError, ValueError) as error:
                raise UserError(f"{self.uri}: {error}") from None
            self._client = client
        return self._client

    def _call(self, verb: str, name: str | None = None, **arguments: Any) -> Any:
        """One request, with the errors that a user can mend as one line."""
        if name is not None:
            arguments["Key"] = self.prefix + name
        try:
            return getattr(self.client, verb)(Bucket=self.bucket, **arguments)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            where = self.path(name) if name else self.uri
            if code == "PreconditionFailed" or status == 412:
                conflict = Conflict(f"{where} is already there: another run has written it")
                conflict.num_retries = error.response["ResponseMetadata"].get("RetryAttempts", 0)
                raise conflict from None
            if code == "ConditionalRequestConflict":
                raise StillDeciding from None
            if code == "NoSuchBucket" or (verb in ("head_bucket", "list_objects_v2") and status == 404):
                raise UserError(f"s3://{self.bucket}: no such bucket; create it or correct the address") from None
            if status == 404:
                raise FileNotFoundError(where) from None
            if status in (401, 403):
                raise UserError(
                    f"{where}: access refused ({code or status}); check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY "
                    f"and the bucket's policy at {self.client.meta.endpoint_url}"
                ) from None
            raise UserError(f"{where}: the store answered {code or status} after {MAX_ATTEMPTS} tries") from error
        except BotoCoreError as error:
            endpoint = self.client.meta.endpoint_url
            raise UserError(f"{self.uri}: cannot reach {endpoint}: {error}; check AWS_ENDPOINT_URL and keys") from None

    def list(self, prefix: str = "") -> Iterator[Entry]:
        token: dict[str, str] = {}
        while True:
            page = self._call("list_objects_v2", Prefix=self.prefix + prefix, **token)
            for item in page.get("Contents", []):
                yield Entry(item["Key"][len(self.prefix) :], item["Size"])
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def read(self, name: str) -> bytes:
        for attempt in range(MAX_ATTEMPTS):
            body = self._call("get_object", name)["Body"]
            try:
                return body.read()
            except (BotoCoreError, OSError) as error:  # the connection broke in the middle
                if attempt == MAX_ATTEMPTS - 1:
                    raise UserError(f"{self.path(name)}: cannot be read whole: {error}") from None
                time.sleep(random.uniform(0, 0.1 * 2**attempt))
        raise AssertionError

    def open(self, name: str) -> pa.NativeFile:
        credentials = boto3.session.Session().get_credentials()
        if credentials is None:
            raise UserError(f"{self.uri}: no S3 credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
        frozen = credentials.get_frozen_credentials()
        scheme, _, host = self.client.meta.endpoint_url.partition("://")
        files = pyarrow.fs.S3FileSystem(
            access_key=frozen.access_key,
            secret_key=frozen.secret_key,
            session_token=frozen.token,
            region=self.client.meta.region_name or "us-east-1",
            scheme=scheme,
            endpoint_override=None if "amazonaws.com" in host else host,
        )
        return files.open_input_file(f"{self.bucket}/{self.prefix}{name}")

    def put(self, name: str, data: bytes, *, if_absent: bool = False) -> None:
        condition = {"IfNoneMatch": "*"} if if_absent else {}
        try:
            for attempt in range(MAX_ATTEMPTS):
                try:
                    self._call("put_object", name, Body=data, **condition)
                    return
                except StillDeciding:  # another conditional put of this name is under way: ask again, as AWS says
                    time.sleep(random.uniform(0, 0.1 * 2**attempt))
            raise Conflict(f"{self.path(name)} is being written by another run")
        except Conflict as conflict:
            # A put that timed out after it had succeeded is tried again and then meets itself.
            was_retried = bool(conflict.num_retries)
            if not (was_retried and self.read_if_there(name) == data):
                raise

    def delete(self, name: str) -> None:
        self._call("delete_object", name)

    def exists(self, name: str) -> bool:
        try:
            self._call("head_object", name)
        except FileNotFoundError:
            return False
        return True

    def check(self, write: bool) -> None:
        self._call("head_bucket")
        if write:
            name = f".probe-{secrets.token_hex(6)}"
            self.put(name, b"", if_absent=True)
            try:
                self.put(name, b"", if_absent=True)
            except Conflict:
                return
            finally:
                self.delete(name)
            raise UserError(f"{self.uri}: this store ignores If-None-Match, without which commits are not safe")
