"""The clients of the `openai` package, and what their errors mean."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from gristmill.engines.endpoint.faults import Fault, clean_line, response_fault
from gristmill.engines.endpoint.settings import EndpointSettings
from gristmill.records.errors import UserError
from gristmill.records.masking.masks import remember

AMBIENT_HEADERS = "OPENAI_CUSTOM_HEADERS"
SPARE = 16  # connections beyond those of the calls at once, for files and batches
CONNECT_S = 10.0  # to connect; a host that drops packets answers nothing at all


def secrets_in_environment(spec: EndpointSettings) -> dict[str, str]:
    """The values of its variables in this process, by name. Raises UserError for one that is not set."""
    for name in spec.variables:
        if not os.environ.get(name, "").strip():
            raise UserError(f"{spec.words}: the environment variable {name} is not set; set it where the run starts")
    secrets = {name: os.environ[name].strip() for name in spec.variables}
    for secret in secrets.values():
        remember(secret, "api_key")  # so that no message shows it
    return secrets


def options_of(spec: EndpointSettings, secrets: Mapping[str, str]) -> dict[str, Any]:
    """Options of the client.

    Those that are not set would come from the environment: OPENAI_API_KEY is a key for another server. The client
    demands some key, so a server without one gets the word "none".
    """
    from openai import Timeout

    return {
        "base_url": spec.base_url,
        "api_key": secrets[spec.api_key_env] if spec.api_key_env else "none",
        "organization": "",
        "project": "",
        "admin_api_key": "",
        "default_headers": {header: secrets[name] for header, name in spec.headers_env.items()},
        "max_retries": 0,
        "timeout": Timeout(spec.timeout_s, connect=CONNECT_S),
    }


def async_client(spec: EndpointSettings, secrets: Mapping[str, str]) -> Any:
    """The client. Over aiohttp, which every Ray has: its other transport slows down with hundreds of connections."""
    import aiohttp  # noqa: F401 - the transport imports it late
    from httpx2 import Limits
    from openai import AsyncOpenAI, DefaultAioHttpClient

    most = spec.most_in_flight + SPARE  # the default keeps 100 connections and opens the others anew for each call
    pool = DefaultAioHttpClient(limits=Limits(max_connections=most, max_keepalive_connections=most))
    with no_ambient_headers():
        return AsyncOpenAI(**options_of(spec, secrets), http_client=pool)


def blocking_client(spec: EndpointSettings, secrets: Mapping[str, str]) -> Any:
    from openai import OpenAI

    with no_ambient_headers():
        return OpenAI(**options_of(spec, secrets))


@contextmanager
def no_ambient_headers() -> Iterator[None]:
    """The package finds no headers in the environment during the block: they are for another server."""
    headers = os.environ.pop(AMBIENT_HEADERS, None)
    try:
        yield
    finally:
        if headers is not None:
            os.environ[AMBIENT_HEADERS] = headers


def fault_of(error: BaseException, parameters: tuple[str, ...] = ()) -> Fault:
    """The fault behind an error of the client."""
    from openai import APIConnectionError, APIStatusError, APITimeoutError

    if isinstance(error, TimeoutError | APITimeoutError):
        return Fault("broken", "time-out", "no answer within timeout_s")
    if isinstance(error, APIStatusError):
        body = error.body if error.body is not None else error.response.text
        return response_fault(error.status_code, body, error.response.headers, parameters)
    if isinstance(error, APIConnectionError):
        cause = error.__cause__ or error
        if "Connect" in type(cause).__name__:
            return Fault("busy", "no connection", clean_line(str(cause)))
        return Fault("broken", "cut connection", clean_line(str(cause)))
    if isinstance(error, UnicodeEncodeError):  # half of a surrogate pair
        return Fault("ask", "engine_refused", clean_line(f"the prompt is no Unicode text: {error}"))
    if isinstance(error, ValueError):  # of the JSON
        return Fault("broken", "malformed answer", clean_line(f"no JSON: {error}"))
    return Fault("broken", "malformed answer", clean_line(f"{type(error).__name__}: {error}"))
