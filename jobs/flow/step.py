"""A step of a flow: what every verb has in common here."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from gristmill.jobs.flow.contents import content_of
from gristmill.jobs.flow.links import Link, links_of, resolved
from gristmill.jobs.flow.spec import FlowSpec, StepSpec
from gristmill.jobs.flow.state import StepRecord, StepState
from gristmill.jobs.terminal.console import SafeConsole
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_store


@dataclass
class StepEnd:
    """How a step ended."""

    state: StepState
    exit_code: int = 0


@dataclass
class Chain:
    """The steps of a flow in order, by name, and its output."""

    flow: FlowSpec
    out: str
    steps: dict[str, "Step"] = field(default_factory=dict)


class Step(ABC):
    """A step with its tables, whose links are resolved to addresses below the output of the flow."""

    def __init__(self, spec: StepSpec, tables: Mapping[str, Any] | None, chain: Chain, record: StepRecord) -> None:
        self.spec, self.chain, self.record = spec, chain, record
        self.links, self.written = links_of(spec, tables), tables
        self.uri = f"{chain.out.rstrip('/')}/{spec.name}"
        self.tables = resolved(tables, self.address) if tables is not None else None
        self.run_uri = resolved(spec.run, self.address, "run") if spec.run is not None else None
        self.flags: dict[str, Any] = resolved(spec.flags, self.address, "flags")
        self.note = ""  # for people: what could not be checked yet, or why the step waits
        self.fingerprint = ""  # set by `prepare`: what decides the output

    def address(self, link: Link) -> str:
        return link.address(self.chain.out)

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def store(self) -> Store:
        return open_store(self.uri)

    def before(self, link: Link) -> "Step":
        """The step that a link names."""
        return self.chain.steps[link.step]

    @property
    def extent(self) -> dict[str, Any]:
        """What ends the step, beside its fingerprint."""
        return {}

    @property
    def columns(self) -> frozenset[str] | None:
        """The columns of the rows that the step gives, once `check` was called; None where they are not known yet."""
        return None

    @property
    def engine_widths(self) -> dict[str, int]:
        """Largest number of engines by key (see Needs.key), once `check` was called."""
        return {}

    needs_ray: ClassVar[bool] = True

    @property
    def starts_engines(self) -> bool:
        """Whether the step may start engines, of whatever kind."""
        return bool(self.engine_widths)

    @abstractmethod
    def check(self) -> None:
        """Check everything that can be checked before the steps before have run. Raises UserError."""

    @abstractmethod
    def show_plan(self, console: SafeConsole) -> None:
        """Print what the step would do, after `check`."""

    @abstractmethod
    def prepare(self) -> None:
        """Read the inputs, which are there now, and set `fingerprint`. Raises UserError."""

    @property
    @abstractmethod
    def is_finished(self) -> bool:
        """Whether the output holds all of this step, after `prepare`. A driver may have died before it said so."""

    @abstractmethod
    def run(self, console: SafeConsole | None = None) -> StepEnd:
        """Do the work, after `prepare`; a step that was stopped goes on. `console` shows the progress."""

    def show_end(self) -> None:  # noqa: B027
        """Print what came out, after `run`."""

    def inputs(self) -> list[dict[str, str]]:
        """The entries of flow.json: what each link to an earlier step is identified by."""
        return self._inputs_of(self.links)

    def _inputs_of(self, links: Sequence[Link]) -> list[dict[str, str]]:
        """The entries of links whose steps have ended, by content."""
        return [
            {"step": link.step, "key": link.key, "by": "content", "identity": content_of(self.before(link).store)}
            for link in links
        ]
