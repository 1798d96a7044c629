"""Checks the token before Ray uses it: with a wrong one, Ray fails after 20 s of log lines that do not name it."""

import os
from pathlib import Path

from ray._private.gcs_utils import create_gcs_channel
from ray._private.services import canonicalize_bootstrap_address
from ray._raylet import (  # type: ignore[attr-defined]
    AuthenticationMode,
    AuthenticationTokenLoader,
    get_authentication_mode,
)
from ray.core.generated.gcs_service_pb2 import CheckAliveRequest
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

from gristmill.records.errors import UserError

TIMEOUT_S = 5.0
REMEDY = (
    "set RAY_AUTH_MODE=token and the token of the cluster (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token)"
)


def check_token(address: str) -> None:
    """Raise UserError when the cluster at `address` rejects the token of this process, or wants one and gets none.

    One call to the head. Any other answer, or none, is left to Ray.
    """
    if get_authentication_mode() == AuthenticationMode.TOKEN:
        path = os.environ.get("RAY_AUTH_TOKEN_PATH")
        if not os.environ.get("RAY_AUTH_TOKEN") and path and not Path(path).expanduser().is_file():
            raise UserError(f"no token for Ray at {address}: RAY_AUTH_TOKEN_PATH={path} is no file; {REMEDY}")
        if not AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True):
            raise UserError(f"no token for Ray at {address}: RAY_AUTH_MODE=token, but there is no token; {REMEDY}")
    head = canonicalize_bootstrap_address(address)
    if head is not None and _status(head) == "UNAUTHENTICATED":
        raise UserError(f"Ray at {address} rejects the token: {_reason()}; {REMEDY}")


def _status(head: str) -> str:
    """The name of the status that gRPC gives to one call with the token of this process."""
    channel = create_gcs_channel(head)
    try:
        call = NodeInfoGcsServiceStub(channel).CheckAlive.future(CheckAliveRequest(), timeout=TIMEOUT_S)
        name: str = call.code().name
        return name
    finally:
        channel.close()


def _reason() -> str:
    if get_authentication_mode() != AuthenticationMode.TOKEN:
        mode = os.environ.get("RAY_AUTH_MODE")
        return f"none was sent, since RAY_AUTH_MODE is {mode or 'not set'}"
    source = next((name for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH") if os.environ.get(name)), None)
    return f"the one of {source or '~/.ray/auth_token'} is not the cluster's"
