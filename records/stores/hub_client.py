"""Requests to the Hugging Face hub, with the token, the endpoint and the session of huggingface_hub.

Every request goes through one retry loop (`HubClient.call`), also those of the library. HF_ENDPOINT names another hub.
"""

import logging
import os
import re
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from importlib import import_module
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

from gristmill.records.errors import Conflict, Refused, Rejected, UserError
from gristmill.records.printable import printable_line
from gristmill.records.stores.retry import Outage, Tries, retry_s

logger = logging.getLogger(__name__)

T = TypeVar("T")

CONNECT_S, READ_S = 10.0, 60.0  # timeouts of a try; less when the bound on retries is small
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
SIGN_IN = "set HF_TOKEN or run `hf auth login`"
ADDRESS = re.compile(r"hf://datasets/([^/@]+/[^/@]+)(?:@(refs/(?:pr|convert)/[^/]+|[^/]+))?(?:/(.*))?")
SHAPE = "write hf://datasets/org/name, hf://datasets/org/name/folder or hf://datasets/org/name@revision/folder"


class NoRepository(UserError):
    """The hub has no such data set, or does not show it to the owner of the token."""


class NoRevision(UserError):
    """A data set has no such branch, tag or commit."""


class HubAddress(NamedTuple):
    """The parts of an address: "org/name", a branch, tag or commit, and a folder (may be "")."""

    repo: str
    revision: str
    folder: str


def hub_address(uri: str) -> HubAddress:
    """The parts of `hf://datasets/org/name[@revision][/folder]`. Raises UserError for any other address."""
    match = ADDRESS.fullmatch(uri.rstrip("/"))
    if match is None:
        raise UserError(f"{uri}: no address of a data set on the hub; {SHAPE}")
    repo, revision, folder = match.groups()
    if not all(re.fullmatch(r"[\w.-]+", part) for part in repo.split("/")):
        raise UserError(f"{uri}: '{repo}' is no name of a data set; {SHAPE}")
    return HubAddress(repo, (revision or "main").replace("%2F", "/"), (folder or "").strip("/"))


class HubClient:
    """Requests about one data set. `count` is called with the kind of each failed request."""

    def __init__(self, repo: str, count: Callable[[str], None], endpoint: str = "") -> None:
        self.repo, self.count = repo, count
        self.endpoint = endpoint or os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"
        self.patience_s, self.outage = retry_s(), Outage()

    def api(self, *parts: str) -> str:
        """The address of an endpoint about this data set; the parts are quoted."""
        return "/".join([f"{self.endpoint}/api/datasets/{self.repo}", *(quote(part, safe="") for part in parts)])

    def commit_of(self, revision: str, where: str) -> str:
        """The present commit of a revision, 40 hex characters. Raises NoRepository and NoRevision."""
        _, facts = self.json("GET", self.api("revision", revision), where)
        return str(facts["sha"])

    @property
    def has_token(self) -> bool:
        from huggingface_hub import get_token

        return get_token() is not None

    def request(self, method: str, url: str, where: str, *, is_signed: bool = False, **arguments: Any) -> Any:
        """The response, after retries. `where` is the address for messages; a signed URL needs no token.

        Raises what `call` raises.
        """
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        request_headers = arguments.pop("headers", {})

        def send() -> Any:
            headers = {**({} if is_signed else build_hf_headers()), **request_headers}
            session = get_session()
            response = session.request(method, url, headers=headers, timeout=self._timeout(session), **arguments)
            hf_raise_for_status(response)
            return response

        return self.call(send, where)

    def json(self, method: str, url: str, where: str, **arguments: Any) -> Any:
        """The response, and its body, which is JSON. Raises UserError for another body, and what `call` raises."""
        response = self.request(method, url, where, **arguments)
        try:
            return response, response.json()
        except ValueError:
            raise UserError(f"{where}: {self.endpoint} does not answer as a hub does; check HF_ENDPOINT") from None

    def call(self, function: Callable[[], T], where: str) -> T:
        """The answer of a function that sends requests. Retries while the hub is in trouble, and after its pauses.

        Raises FileNotFoundError, NoRepository, NoRevision, Conflict (409, 412), Refused (401, 403), Rejected for other
        answers, and UserError when there is no answer in time.
        """
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
        from huggingface_hub.utils import get_session

        tries = Tries(self.outage, self.patience_s)
        while True:
            pause_s = 0.0
            if self.outage.is_hopeless:
                raise UserError(f"{where}: not requested, because the hub has not answered and the run is stopping")
            session = get_session()
            transport: Any = import_module(type(session).__module__.partition(".")[0])  # httpx2 or httpx
            session.timeout = self._timeout(session)
            try:
                answer = function()
                self.outage.answered()
                return answer
            except OfflineModeIsEnabled:
                raise UserError(f"{where}: HF_HUB_OFFLINE is set; unset it, or copy the data set first") from None
            except (HfHubHTTPError, transport.TransportError, RuntimeError, ConnectionError) as error:
                cause = error.__cause__ if isinstance(error, RuntimeError) else error
                if isinstance(cause, HfHubHTTPError):
                    response = cause.response
                    self.outage.answered()
                    if response.status_code not in TRANSIENT:
                        raise self._failure(response, where) from None
                    kind, pause_s = str(response.status_code), pause_of(response.headers)
                    problem = f"{self.endpoint} answers {kind}"
                elif isinstance(cause, transport.TransportError):
                    is_slow = isinstance(cause, transport.TimeoutException)
                    kind = "timeout" if is_slow else "connection"
                    reason = (
                        "does not answer in time" if is_slow else f"cannot be reached ({printable_line(str(cause))})"
                    )
                    problem = f"{self.endpoint} {reason}"
                else:  # of hf_xet
                    kind, problem = "upload", f"the transfer failed ({printable_line(str(error))})"
            self.count(kind)
            if pause_s:
                logger.info(f"{where}: {problem} and asks for a pause of {pause_s:.0f} s")
            if not tries.again(pause_s):
                again = f"tried {tries.num_failed} times; run the same command again later"
                raise UserError(f"{where}: {problem}, {again}")

    def _timeout(self, session: Any) -> Any:
        limit_s = max(1.0, self.patience_s / 3)
        return type(session.timeout)(min(READ_S, limit_s), connect=min(CONNECT_S, limit_s))

    def _failure(self, response: Any, where: str) -> Exception:
        """The error for an answer that no retry changes."""
        status, code = response.status_code, response.headers.get("X-Error-Code", "")
        message = printable_line(response.headers.get("X-Error-Message", "") or f"status {status}")
        page = f"{self.endpoint}/datasets/{self.repo}"
        if code == "GatedRepo":
            return Refused(
                f"{where}: the data set is gated; accept its terms at {page} and {SIGN_IN} with a token of that account"
            )
        if code == "RevisionNotFound":
            return NoRevision(f"{where}: the data set has no such revision ({message})")
        if code == "EntryNotFound":
            return FileNotFoundError(where)
        if status == 401 and self.has_token and code != "RepoNotFound":
            return Refused(f"{where}: the hub refuses your token ({message}); {SIGN_IN} with a valid one")
        if code == "RepoNotFound" or status in (401, 404):
            remedy = "one that your token may not read; check both" if self.has_token else f"a private one: {SIGN_IN}"
            return NoRepository(f"{where}: no such data set on {self.endpoint}, or {remedy}")
        if status == 403:
            return Refused(f"{where}: your token lacks the right ({message}); {SIGN_IN} with one that has it")
        if status in (409, 412):
            return Conflict(f"{where}: another commit came first ({message}); run the same command again")
        return Rejected(f"{where}: {self.endpoint} answers {status} ({message})")


def pause_of(headers: Any) -> float:
    """Seconds that an answer asks to wait: of Retry-After (a number or a date) or of RateLimit; 0.0 without."""
    text = headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    if text:
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
        except ValueError:
            return 0.0
    limit = re.search(r";\s*r=0\s*;\s*t=(\d+)", headers.get("RateLimit", ""))
    return float(limit[1]) if limit else 0.0
