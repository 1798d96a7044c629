"""What goes wrong with a request to S3: its kind, whether it is worth a retry, and what a user can do."""

import socket
import ssl
from typing import Any

from botocore import exceptions as boto
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from gristmill.records.stores.retry import Tries

DECIDING = {"ConditionalRequestConflict", "OperationAborted"}  # two conditional puts met; AWS says to retry
BUSY = {"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "InternalError", "ServiceUnavailable"}
TIMED_OUT = {"RequestTimeout", "RequestTimeoutException"}
DAMAGED = {"IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch"}  # the body was damaged on its way
REFUSED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired", "InvalidToken"}
SKEWED = "RequestTimeTooSkewed"
CONDITIONAL = "conditional puts (If-None-Match: *)"
REMEDY = "use one that has them: AWS S3, Cloudflare R2, or a current SeaweedFS, Ceph or MinIO"

NO_KEYS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.MetadataRetrievalError,
    boto.SSOError,
)
SLOW = (boto.ReadTimeoutError, boto.ConnectTimeoutError, TimeoutError)
BROKEN = (
    *(boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError, boto.FlexibleChecksumError),
    *(ResponseParserError, HTTPError, ConnectionError, socket.gaierror, ssl.SSLError),
)
ERRORS = (ClientError, BotoCoreError, *SLOW, *BROKEN)


class Trouble:
    """A failed request: `kind` for the counts, `message` for people. It quotes nothing that was sent."""

    def __init__(self, error: BaseException, endpoint: str) -> None:
        self.code, self.status = "", 0
        self.is_transient = self.is_refusal = False
        inner = getattr(error, "kwargs", {}).get("error") or error
        if isinstance(error, ClientError):
            self._read(error, endpoint)
        elif isinstance(error, NO_KEYS):
            self.kind, self.message, self.is_refusal = "403", f"no usable keys for {endpoint}", True
        elif "CERTIFICATE_VERIFY_FAILED" in str(inner):
            self.kind, self.message = "connection", f"the certificate of {endpoint} is not trusted; see AWS_CA_BUNDLE"
        elif isinstance(error, SLOW):
            self.kind, self.message, self.is_transient = "timeout", f"{endpoint} does not answer in time", True
        elif isinstance(error, BROKEN) and not (inner is not error and isinstance(inner, ValueError)):
            is_connected = not isinstance(error, boto.EndpointConnectionError | boto.ProxyConnectionError)
            problem = "broken connection to" if is_connected else "cannot reach"
            self.kind, self.message, self.is_transient = "connection", f"{problem} {endpoint} ({_why(inner)})", True
        else:
            self.kind, self.message = "request", f"{endpoint}: the request cannot be made ({type(inner).__name__})"

    def _read(self, error: ClientError, endpoint: str) -> None:
        self.code = str(error.response.get("Error", {}).get("Code", ""))
        self.status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        code = f" ({self.code})" if self.code not in ("", str(self.status)) else ""
        if self.code == "PreconditionFailed":
            self.status = 412  # also as an error in the body of an answer 200, which botocore takes for a 500
        self.kind, self.message = str(self.status), f"{endpoint} answers {self.status}{code}"
        # The answer to a HEAD has no body, so an expired token is a bare 400.
        is_bare = self.status == 400 and error.operation_name.startswith("Head")
        self.is_refusal = self.status in (401, 403) or self.code in REFUSED or is_bare
        busy = self.code in BUSY | DECIDING | TIMED_OUT | DAMAGED or self.status in (429, 500, 502, 503, 504)
        self.is_transient = busy and not self.is_refusal
        if self.code in TIMED_OUT:
            self.kind = "timeout"

    @property
    def is_rejection(self) -> bool:
        """Whether the store answers that it will not do this, whoever asks and however often."""
        return self.status != 0 and not self.is_transient and not self.is_refusal

    def advice(self, tries: Tries) -> str:
        """The problem and its remedy, as the rest of a line."""
        again = "then run the same command again to resume"
        if self.code == SKEWED:
            return f"{self.message}; set this machine's clock, {again}"
        if self.is_refusal:
            return (
                f"access refused: {self.message}; renew or correct AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, "
                f"AWS_SESSION_TOKEN or the bucket's policy, {again}"
            )
        tried = f", tried {tries.num_failed} times in {tries.spent_s:.0f} s" if self.is_transient else ""
        return f"{self.message}{tried}; check the store, AWS_ENDPOINT_URL and AWS_REGION, {again}"


def expect(field: str, answer: dict[str, Any]) -> dict[str, Any]:
    """An answer with this field. Raises ResponseParserError without: botocore reads an answer that was cut off as an
    empty one."""
    if field not in answer:
        raise ResponseParserError(f"an answer without {field}")
    return answer


def _why(error: BaseException | None) -> str:
    """The message of the operating system inside wrapped errors, else the name of the error's class."""
    top, depth = error, 0
    while error is not None and depth < 10:
        if isinstance(error, OSError) and error.errno is not None and error.strerror:
            return error.strerror
        inner = [a for a in error.args if isinstance(a, BaseException)]
        error, depth = (inner[0] if inner else error.__cause__ or error.__context__), depth + 1
    return type(top).__name__
