"""Puts to S3: whole, held back until their turn, in parts when they are large, and again and again."""

import io
import math
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa

from gristmill.records.errors import Conflict, Refused, Rejected, UserError
from gristmill.records.stores.contract import PendingPut, Store
from gristmill.records.stores.held_put import Dropped, HeldBody, Holding, send_held
from gristmill.records.stores.probe import LEFTOVER_AGE_S, check_completion, sweep_probes
from gristmill.records.stores.retry import patience
from gristmill.records.stores.s3_trouble import expect

T = TypeVar("T")

IN_ONE_SEND_BYTES = 1 << 20  # a larger body is sent in blocks, so that the timeout holds for each block
ONE_PUT_BYTES = 5 << 30  # S3 takes no larger body in one request
PART_BYTES, MAX_PARTS, NUM_PARTS_AT_ONCE = 64 << 20, 1000, 8


class S3Puts(Store):
    """The writing half of a store in S3."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.holding = Holding()
        self._completes_if_absent: bool | None = None  # whether completing an upload heeds the condition, once tried
        self._versions: dict[str, str] = {}  # of objects that `renew` has put
        self._may_delete_versions = True
        self._probing = threading.Lock()

    @abstractmethod
    def _request(self, name: str | None, request: Callable[[Any], T], taken: tuple[int, ...] = (412,)) -> T:
        """The answer to a request, see `S3Store`."""

    @abstractmethod
    def _key(self, name: str) -> dict[str, str]:
        """Bucket and key of an object, as arguments of a request."""

    def put(self, name: str, data: bytes, *, if_absent: bool = False) -> None:
        if len(data) > ONE_PUT_BYTES:
            self._put_parts(name, data, if_absent)
        else:
            self._put(name, data, if_absent)

    def _put(self, name: str, data: bytes, if_absent: bool, has_tried: bool = False) -> dict[str, Any]:
        """The answer to a put. `has_tried`: a put of these bytes before may have succeeded without an answer."""

        def request(client: Any) -> dict[str, Any]:
            body = data if len(data) <= IN_ONE_SEND_BYTES else io.BytesIO(data)
            answer: dict[str, Any] = client.put_object(**self._key(name), Body=body, **_condition(if_absent))
            return answer

        try:
            return self._request(name, request, _taken(if_absent))
        except Conflict as conflict:
            # A put whose answer was lost may have succeeded; its retry then conflicts with itself.
            if not ((conflict.num_retries or has_tried) and self._holds(name, data)):
                raise
            return {}

    def _holds(self, name: str, data: bytes) -> bool:
        """Whether an object has this content."""
        view = memoryview(data)
        try:
            with self.open(name) as file:
                if file.size() != len(view):
                    return False
                step = PART_BYTES
                return all(file.read(step) == view[at : at + step] for at in range(0, len(view), step))
        except FileNotFoundError:
            return False

    def begin_put(self, name: str, data: bytes) -> PendingPut:
        if 1 < len(data) <= ONE_PUT_BYTES:
            return HeldPut(self, name, data)
        return PendingPut(self, name, data)

    # Puts in parts

    def _put_parts(self, name: str, data: bytes, if_absent: bool) -> None:
        """Put an object by a multipart upload. A put that fails removes its parts; `sweep` those of a killed one."""
        if if_absent and not self._heeds_completion():
            raise UserError(
                f"{self.path(name)}: {len(data) / 2**30:.1f} GiB are too much for one put, and this store ignores "
                "If-None-Match where parts are put together; use a smaller lot_size"
            )
        upload = {**self._key(name), "UploadId": self.begin_upload(name)}
        try:
            parts = self._send_parts(name, upload, memoryview(data))
            self._complete(name, upload, parts, data, if_absent)
        except BaseException:
            self.abort_upload(name, upload["UploadId"])
            raise

    def begin_upload(self, name: str) -> str:
        answer = self._request(name, lambda client: client.create_multipart_upload(**self._key(name)))
        return str(answer["UploadId"])

    def _send_parts(self, name: str, upload: dict[str, str], view: memoryview) -> list[dict[str, Any]]:
        step = max(PART_BYTES, math.ceil(len(view) / MAX_PARTS))

        def send(number: int) -> dict[str, Any]:
            part = pa.py_buffer(view[(number - 1) * step : number * step])

            def request(client: Any) -> dict[str, Any]:
                answer = client.upload_part(**upload, PartNumber=number, Body=pa.BufferReader(part))
                # AWS wants the checksums that the parts were sent with.
                sums = {key: value for key, value in answer.items() if key.startswith("Checksum") and "Type" not in key}
                return {"PartNumber": number, "ETag": answer["ETag"], **sums}

            return self._request(name, request)

        with ThreadPoolExecutor(NUM_PARTS_AT_ONCE, thread_name_prefix="part") as pool:
            sent = [pool.submit(send, number) for number in range(1, math.ceil(len(view) / step) + 1)]
            try:
                return [future.result() for future in sent]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _complete(
        self, name: str, upload: dict[str, str], parts: list[dict[str, Any]], data: bytes, if_absent: bool
    ) -> None:
        """Make the parts the object. Raises Conflict with `if_absent` when it exists."""
        num_tries = 0

        def request(client: Any) -> None:
            nonlocal num_tries
            num_tries += 1
            whole = {"MultipartUpload": {"Parts": parts}, **_condition(if_absent)}
            expect("ETag", client.complete_multipart_upload(**upload, **whole))

        try:
            self._request(name, request, _taken(if_absent))
        except (Conflict, FileNotFoundError) as error:
            # A completion whose answer was lost: its retry finds the object, or the upload no more.
            if num_tries > 1 and self._holds(name, data):
                return
            if isinstance(error, FileNotFoundError) and if_absent and self.exists(name):
                raise Conflict(f"{self.path(name)} is already there: another run has written it") from None
            if isinstance(error, FileNotFoundError):
                raise UserError(f"{self.path(name)}: its upload was ended by another; run the command again") from None
            raise

    def abort_upload(self, name: str, upload_id: str) -> None:
        """Remove the parts of an upload. Raises nothing: `sweep` tries again."""
        with suppress(UserError, OSError):
            upload = {**self._key(name), "UploadId": upload_id}
            self._request(name, lambda client: client.abort_multipart_upload(**upload))

    def _heeds_completion(self) -> bool:
        with self._probing:
            if self._completes_if_absent is None:
                self._completes_if_absent = check_completion(self, self._complete_over)
            return self._completes_if_absent

    def _complete_over(self, name: str) -> None:
        """Put a small object by an if-absent upload that must conflict with an object. Raises Conflict if it does."""
        upload = {**self._key(name), "UploadId": self.begin_upload(name)}
        try:
            parts = self._send_parts(name, upload, memoryview(b"second"))
            self._complete(name, upload, parts, b"second", if_absent=True)
        except BaseException:
            self.abort_upload(name, upload["UploadId"])
            raise

    def sweep(self, folders: Sequence[str] = ()) -> int:
        old = [upload for folder in folders for upload in self._old_uploads(folder)]
        for name, upload_id in old:
            self.abort_upload(name, upload_id)
        return len(old) + sweep_probes(self)

    def _old_uploads(self, folder: str) -> Iterator[tuple[str, str]]:
        """Name and upload of what was begun an hour ago or more. Nothing where the keys may not list uploads."""
        place, prefix = self._key(f"{folder.rstrip('/')}/" if folder else ""), self._key("")["Key"]
        whole = {"Bucket": place["Bucket"], "Prefix": place["Key"]}
        page: dict[str, Any] = {"IsTruncated": True}
        after: dict[str, str] = {}
        while page.get("IsTruncated"):
            try:
                page = self._request(None, partial(_uploads, **whole, **after))
            except UserError:
                return  # without this right, or in a store without this request, a rule of the bucket must do it
            for upload in page.get("Uploads", []):
                if time.time() - upload["Initiated"].timestamp() > LEFTOVER_AGE_S:
                    yield upload["Key"].removeprefix(prefix), upload["UploadId"]
            if page.get("Uploads"):  # some stores name the last upload, but not its key
                after = {"KeyMarker": page["Uploads"][-1]["Key"], "UploadIdMarker": page["Uploads"][-1]["UploadId"]}

    # Puts again and again

    def renew(self, name: str, data: bytes, *, if_absent: bool = False) -> bool:
        before = self._versions.get(name, "")
        version = self._put(name, data, if_absent).get("VersionId", "")
        if version in ("", "null"):
            return True  # the bucket keeps no versions
        self._versions[name] = version
        if before and self._may_delete_versions:
            self._may_delete_versions = self._delete_version(name, before)
        return self._may_delete_versions

    def delete(self, name: str) -> None:
        self._request(name, lambda client: client.delete_object(**self._key(name)))
        version = self._versions.pop(name, "")  # under the mark of the deletion, as no older one may come to light
        if version and self._may_delete_versions:
            self._may_delete_versions = self._delete_version(name, version)

    def _delete_version(self, name: str, version: str) -> bool:
        """Delete a superseded version; returns False when the keys or a lock of the bucket forbid it."""
        try:
            self._request(name, lambda client: client.delete_object(**self._key(name), VersionId=version))
        except (Refused, Rejected):
            return False
        except (UserError, FileNotFoundError):
            return True  # it remains when the store is in trouble, but the next may be deleted
        return True


class HeldPut(PendingPut):
    """`send` puts the object but for its last byte, which goes when `complete` says so."""

    def __init__(self, store: S3Puts, name: str, data: bytes) -> None:
        super().__init__(store, name, data)
        self._puts = store
        self._turn, self._lock = threading.Event(), threading.Lock()
        self._bodies: list[HeldBody] = []
        self._sent: Future[None] | None = None
        self._is_dropped = False

    def send(self) -> None:
        with self._lock:
            if self._turn.is_set() or not self._puts.holding.is_allowed:
                return
            self._sent = Future()
        try:
            with patience(0.0):  # one try: a put that has failed is put anew in its turn
                self._puts._request(self.name, self._request, _taken(True))
            self._sent.set_result(None)
        except BaseException as error:  # noqa: BLE001 - `complete` deals with it
            if isinstance(error, Dropped) and any(body.has_expired for body in self._bodies):
                self._puts.holding.expired(self._puts.path(self.name))
            self._sent.set_exception(error)

    def _request(self, client: Any) -> None:
        body = HeldBody(self.data, self._turn)
        with self._lock:
            self._bodies.append(body)
            if self._is_dropped:
                body.give_up()
        send_held(body, lambda: client.put_object(**self._puts._key(self.name), Body=body, **_condition(True)))

    def complete(self) -> None:
        with self._lock:
            self._turn.set()
            sent = self._sent
        error = sent.exception() if sent is not None else None
        if sent is not None and error is None:
            return self._puts.holding.succeeded()
        if isinstance(error, Conflict) and not error.is_undecided:
            raise error
        has_tried = any(body.is_whole for body in self._bodies) and not isinstance(error, Conflict)
        self._puts._put(self.name, self.data, if_absent=True, has_tried=has_tried)

    def drop(self) -> None:
        with self._lock:
            self._is_dropped = True
            for body in self._bodies:
                body.give_up()
            self._turn.set()
            sent = self._sent
        if sent is not None:
            sent.exception()  # the connection is closed now


def _uploads(client: Any, **arguments: Any) -> dict[str, Any]:
    return expect("IsTruncated", client.list_multipart_uploads(**arguments))


def _condition(if_absent: bool) -> dict[str, str]:
    return {"IfNoneMatch": "*"} if if_absent else {}


def _taken(if_absent: bool) -> tuple[int, ...]:
    """Statuses that say that an object exists. Stores differ: AWS says 412, some others 409."""
    return (409, 412) if if_absent else (412,)
