"""The keys of `kind = "endpoint"`: which model at which address, what it costs and how fast it may be asked."""

import math
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from gristmill.engines.served import SAMPLING
from gristmill.records.masking.masks import secrets_in
from gristmill.records.masking.patterns import is_secret
from gristmill.records.spec import PLACEMENT, nearest, placement

VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,99}")  # upper case only: most keys are not
CALLS, BATCH_CALLS = 256, 10_000  # at once, unless the recipe says otherwise
# Keys of a request that extra_body must not have, and what to do in their place.
ELSEWHERE = {
    **dict.fromkeys(SAMPLING, "write it in sampling"),
    "max_completion_tokens": "write max_tokens in sampling; it gets this name where the server wants it",
    "model": "write it as the key model",
    "messages": "the method writes the messages",
    "prompt": "the method writes the prompt",
    "stream": "answers are not streamed, leave it out",
    "stream_options": "answers are not streamed, leave it out",
    "n": "a call has one answer; a method asks for more by a key of its own",
    "seed": "each call has the seed of its ask, leave it out",
    "tools": "the method states its tools",
    "tool_choice": "the method states its tools",
    "response_format": "write json_schema, choice, regex or grammar",
    "logprobs": "write logprobs = true",
    "top_logprobs": "write logprobs = true",
}


@dataclass(frozen=True)
class EndpointSettings:
    """Which model behind which address, how it samples, and the limits and prices of its calls."""

    base_url: str = field(metadata={PLACEMENT: True})  # Address with the version, e.g. http://host:8000/v1.
    model: str  # Name of the model at the endpoint.
    api_key_env: str | None = placement(None)  # Environment variable that holds the key; unset: no key is sent.
    # Further secret headers: the name of each header and the environment variable that holds its value.
    headers_env: dict[str, str] = field(default_factory=dict, metadata={PLACEMENT: True})
    chat: bool = True  # Whether calls go to /chat/completions; false: /completions, for base models.
    # As for a teacher. Keys that OpenAI does not have, such as top_k, need a server that has them.
    sampling: dict[str, Any] = field(default_factory=dict)
    extra_body: dict[str, Any] = field(default_factory=dict)  # Further keys of every request, e.g. reasoning_effort.
    timeout_s: float = placement(600.0)  # Longest time of a call in seconds; after that it is sent again.
    retry_s: float = placement(600.0)  # Seconds without any answer after which the run stops.
    # Largest number of calls at once, per replica; the actual number adapts. Unset: 256, with `batch_api` 10,000.
    max_in_flight: int | None = placement(None)
    requests_per_minute: int | None = placement(None)  # Largest number of calls a minute, per replica.
    tokens_per_minute: int | None = placement(None)  # Largest number of tokens a minute, per replica.
    price_in: float = placement(0.0)  # Price of a million tokens that are sent, in cluster.currency.
    price_cached: float | None = placement(None)  # Price of a million tokens read from a cache; unset: `price_in`.
    price_out: float = placement(0.0)  # Price of a million tokens that the model writes, reasoning included.
    flush_s: float = placement(2.0)  # Seconds after which an answer is kept in the output, so that it is paid for once.
    batch_api: bool = placement(False)  # Whether calls go through the Batch API, where they cost less and take longer.
    batch_poll_s: float = placement(30.0)  # Seconds between two looks at the batches in work.
    num_cpus: float = placement(0.0)  # CPU cores that Ray reserves for a replica, which only waits most of the time.

    def __post_init__(self) -> None:
        self._check_address()
        self._check_keys()
        for key in self.sampling:
            if key not in SAMPLING:
                raise ValueError(f"sampling: unknown key '{key}'{nearest(key, SAMPLING)}")
        for key in self.extra_body:
            if key in ELSEWHERE:
                raise ValueError(f"extra_body.{key}: {ELSEWHERE[key]}")
        for name in ("max_in_flight", "requests_per_minute", "tokens_per_minute"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        for name in ("timeout_s", "retry_s", "flush_s", "batch_poll_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be more than 0")
        for name in ("price_in", "price_cached", "price_out", "num_cpus"):
            if not math.isfinite(getattr(self, name) or 0.0) or (getattr(self, name) or 0.0) < 0:
                raise ValueError(f"{name} must be a number that is not negative")

    def _check_address(self) -> None:
        try:
            parts = urlsplit(self.base_url)
            has_host, _ = bool(parts.hostname), parts.port
        except ValueError:
            has_host = False
        if not has_host or parts.scheme not in ("http", "https"):
            raise ValueError("base_url is no address; write it as http://host:port/v1 or https://host/v1")
        if parts.username or parts.password or is_secret(self.base_url):
            raise ValueError("base_url holds a key; name the variable that holds it with api_key_env or headers_env")
        if parts.query or parts.fragment:
            raise ValueError("base_url ends with its path; write further parameters as keys of extra_body")

    def _check_keys(self) -> None:
        """Raise ValueError for a key in clear. No message shows the value."""
        names = {"api_key_env": self.api_key_env, **{f"headers_env.{k}": v for k, v in self.headers_env.items()}}
        for where, name in names.items():
            if name is not None and (not VARIABLE.fullmatch(name) or is_secret(name)):
                raise ValueError(
                    f"{where} is the name of an environment variable in capitals, such as OPENAI_API_KEY; a key itself "
                    f"never goes into a recipe"
                )
        if any(True for _ in secrets_in(self.extra_body)):
            raise ValueError("extra_body holds a key; name the variable that holds it with api_key_env or headers_env")

    @property
    def most_in_flight(self) -> int:
        return self.max_in_flight or (BATCH_CALLS if self.batch_api else CALLS)

    @property
    def short_name(self) -> str:
        return self.model.rstrip("/").rpartition("/")[2]

    @property
    def words(self) -> str:
        """The endpoint in a message: its model and its address."""
        return f"endpoint {self.base_url.rstrip('/')} (model '{self.model}')"

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the environment variables that hold its keys."""
        return tuple(dict.fromkeys([*([self.api_key_env] if self.api_key_env else []), *self.headers_env.values()]))

    def cost(self, tokens_in: int, tokens_cached: int, tokens_out: int) -> float:
        """The price of a call, in cluster.currency."""
        price_cached = self.price_in if self.price_cached is None else self.price_cached
        paid_in = (tokens_in - tokens_cached) * self.price_in + tokens_cached * price_cached
        return (paid_in + tokens_out * self.price_out) / 1e6
