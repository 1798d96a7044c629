"""Objects beyond 5 GiB in S3, which are put in parts, and what killed puts leave of them."""

import math
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa

from gristmill.records.errors import Conflict, UserError
from gristmill.records.stores.contract import Store
from gristmill.records.stores.probe import LEFTOVER_AGE_S, check_completion, sweep_probes
from gristmill.records.stores.retry import patience
from gristmill.records.stores.s3_trouble import expect

T = TypeVar("T")

PART_BYTES, MAX_PARTS, NUM_PARTS_AT_ONCE = 64 << 20, 1000, 8
SWEEP_S = 3.0  # a resume waits no longer for a list of uploads


class S3Parts(Store):
    """Multipart uploads. Their conditional completion is not one step in every store, so lots are not committed so."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self._completes_if_absent: bool | None = None  # whether completing an upload heeds the condition, once tried
        self._probing = threading.Lock()

    @abstractmethod
    def _request(self, name: str | None, request: Callable[[Any], T], taken: tuple[int, ...] = (412,)) -> T:
        """The answer to a request, see `S3Store`."""

    @abstractmethod
    def _key(self, name: str) -> dict[str, str]:
        """Bucket and key of an object, as arguments of a request."""

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
            whole = {"MultipartUpload": {"Parts": parts}, **condition(if_absent)}
            expect("ETag", client.complete_multipart_upload(**upload, **whole))

        try:
            self._request(name, request, conflict_statuses(if_absent))
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
        old = [(name, upload) for name, upload in self._old_uploads() if _is_within(name, folders)] if folders else []
        for name, upload_id in old:
            self.abort_upload(name, upload_id)
        return len(old) + sweep_probes(self)

    def _old_uploads(self) -> Iterator[tuple[str, str]]:
        """Name and upload of what was begun an hour ago or more. Nothing where the keys may not list uploads."""
        place = self._key("")
        whole, prefix = {"Bucket": place["Bucket"], "Prefix": place["Key"]}, place["Key"]
        page: dict[str, Any] = {"IsTruncated": True}
        after: dict[str, str] = {}
        while page.get("IsTruncated"):
            try:
                with patience(SWEEP_S):  # a store that answers with something else looks as if it were in trouble
                    page = self._request(None, partial(_uploads, **whole, **after))
            except UserError:
                return  # without this right, or in a store without this request, a rule of the bucket must do it
            for upload in page.get("Uploads", []):
                if time.time() - upload["Initiated"].timestamp() > LEFTOVER_AGE_S:
                    yield upload["Key"].removeprefix(prefix), upload["UploadId"]
            if page.get("Uploads"):  # some stores name the last upload, but not its key
                after = {"KeyMarker": page["Uploads"][-1]["Key"], "UploadIdMarker": page["Uploads"][-1]["UploadId"]}


def _is_within(name: str, folders: Sequence[str]) -> bool:
    return any(not folder or name.startswith(f"{folder.rstrip('/')}/") for folder in folders)


def _uploads(client: Any, **arguments: Any) -> dict[str, Any]:
    return expect("IsTruncated", client.list_multipart_uploads(**arguments))


def condition(if_absent: bool) -> dict[str, str]:
    return {"IfNoneMatch": "*"} if if_absent else {}


def conflict_statuses(if_absent: bool) -> tuple[int, ...]:
    """Statuses that say that an object exists. Stores differ: AWS says 412, some others 409."""
    return (409, 412) if if_absent else (412,)
