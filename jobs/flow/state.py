"""`flow.json`: the state of every step of a flow, and what each step has read."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NotRequired, TypedDict

from gristmill.records.output.formats import newest, parse
from gristmill.records.output.lease import is_alive, read_lease, who
from gristmill.records.output.manifest import now, versions
from gristmill.records.printable import json_text
from gristmill.records.shapes import check_shape
from gristmill.records.stores.contract import Store

NAME = "flow.json"
FORMAT = newest(NAME)
StepState = Literal["waiting", "running", "complete", "exhausted", "budget", "alarm", "stopped", "failed"]


@dataclass
class StepRecord:
    """A step as it is now.

    inputs: an entry per link to an earlier step: its key, and what the rows or the model are identified by, which is
    the plan of that step ("plan": fingerprint and extent) or the content of its output ("content").
    """

    name: str
    verb: str
    state: StepState = "waiting"
    fingerprint: str | None = None
    extent: dict[str, Any] = field(default_factory=dict)  # what ends it, beside its fingerprint
    inputs: list[dict[str, str]] = field(default_factory=list)
    note: str = ""  # why it waits for its input, or which step it runs beside
    exit_code: int | None = None
    error: str | None = None
    started: str | None = None
    wall_s: float = 0.0  # over all starts

    @property
    def is_done(self) -> bool:
        return self.state == "complete"


@dataclass
class FlowFile:
    """The whole file."""

    name: str
    steps: list[StepRecord]
    description: str = ""
    state: str = "running"  # running | complete | incomplete | stopped | failed
    starts: list[dict[str, Any]] = field(default_factory=list)
    format: int = FORMAT

    def step(self, name: str) -> StepRecord:
        return next(step for step in self.steps if step.name == name)

    def begin(self) -> None:
        """Record a start of the driver."""
        self.state = "running"
        self.starts.append({"started": now(), "versions": versions()})

    def save(self, store: Store) -> None:
        store.put(NAME, (json_text(asdict(self), indent=2) + "\n").encode())


class _Input(TypedDict):
    step: str
    key: str
    by: Literal["plan", "content"]
    identity: str


class _Step(TypedDict):
    name: str
    verb: str
    state: StepState
    fingerprint: NotRequired[str | None]
    extent: NotRequired[dict[str, Any]]
    inputs: NotRequired[list[_Input]]
    note: NotRequired[str]
    exit_code: NotRequired[int | None]
    error: NotRequired[str | None]
    started: NotRequired[str | None]
    wall_s: NotRequired[float]


class _Flow(TypedDict):
    format: int
    name: str
    state: str
    steps: list[_Step]
    description: NotRequired[str]
    starts: NotRequired[list[dict[str, Any]]]


def load(store: Store) -> FlowFile | None:
    """The state of a flow, None where there is none. Raises UserError for a file that cannot be read."""
    data = store.read_if_there(NAME)
    if data is None:
        return None
    table = parse(data, NAME, store.path(NAME))
    check_shape(table, _Flow, store.path(NAME))
    steps = [StepRecord(**{k: v for k, v in step.items() if k in _Step.__annotations__}) for step in table["steps"]]
    return FlowFile(table["name"], steps, table.get("description", ""), table["state"], table.get("starts", []))


@dataclass(frozen=True)
class FlowLife:
    """Whether a flow goes on: its state, "stopped" where the driver is gone, and the holder of the lease."""

    state: str
    driver: str | None
    alive: bool | None  # None: on another host


def flow_life(store: Store, flow: FlowFile) -> FlowLife:
    """A killed driver leaves a lease, and a file that says "running"."""
    lease = read_lease(store)
    alive = is_alive(lease) if lease else None
    driver = who(lease) if lease else None
    is_gone = flow.state == "running" and (lease is None or alive is False)
    return FlowLife("stopped" if is_gone else flow.state, driver, alive)
