"""Puts to S3: whole, held back until their turn, and again and again."""

import io
import threading
from concurrent.futures import Future
from typing import Any

from gristmill.records.errors import Conflict, Refused, Rejected, UserError
from gristmill.records.stores.contract import PendingPut
from gristmill.records.stores.held_put import Dropped, HeldBody, Holding, send_held
from gristmill.records.stores.retry import patience
from gristmill.records.stores.s3_parts import S3Parts, condition, conflict_statuses

IN_ONE_SEND_BYTES = 1 << 20  # a larger body is sent in blocks, so that the timeout holds for each block
ONE_PUT_BYTES = 5 << 30  # S3 takes no larger body in one request


class S3Puts(S3Parts):
    """The writing half of a store in S3."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.holding = Holding()
        self._versions: dict[str, str] = {}  # of objects that `renew` has put
        self._may_delete_versions = True

    def put(self, name: str, data: bytes, *, if_absent: bool = False) -> None:
        if len(data) > ONE_PUT_BYTES:
            self._put_parts(name, data, if_absent)
        else:
            self._put(name, data, if_absent)

    def _put(self, name: str, data: bytes, if_absent: bool, has_tried: bool = False) -> dict[str, Any]:
        """The answer to a put. `has_tried`: a put of these bytes before may have succeeded without an answer."""

        def request(client: Any) -> dict[str, Any]:
            body = data if len(data) <= IN_ONE_SEND_BYTES else io.BytesIO(data)
            answer: dict[str, Any] = client.put_object(**self._key(name), Body=body, **condition(if_absent))
            return answer

        try:
            return self._request(name, request, conflict_statuses(if_absent))
        except Conflict as conflict:
            # A put whose answer was lost may have succeeded; its retry then conflicts with itself.
            if not ((conflict.num_retries or has_tried) and self._holds(name, data)):
                raise
            return {}

    def begin_put(self, name: str, data: bytes) -> PendingPut:
        if 1 < len(data) <= ONE_PUT_BYTES:
            return HeldPut(self, name, data)
        return PendingPut(self, name, data)

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
                self._puts._request(self.name, self._request, conflict_statuses(True))
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
        send_held(body, lambda: client.put_object(**self._puts._key(self.name), Body=body, **condition(True)))

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
