"""A flow file: steps of several verbs in order, each with the outputs of earlier steps as its inputs."""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gristmill.cluster.spec import ClusterSpec
from gristmill.jobs.recipes.kind_change import leave_out_other_keys
from gristmill.jobs.recipes.toml_file import TomlSource, label_of, load_table, put
from gristmill.records.errors import UserError
from gristmill.records.shipped import PREFIX, shipped_path
from gristmill.records.spec import build, nearest

Verb = Literal["produce", "fit", "evaluate", "pack", "study"]
RESERVED = ("kept", "rejected", "events")  # with a folder of this name, an output passes for a run
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
KEYS: dict[str, tuple[str, ...]] = {  # of a step, by verb; of several with a slash exactly one is needed
    "produce": ("recipe",),
    "fit": ("recipe",),
    "study": ("study",),
    "pack": ("run/mixture",),
    "evaluate": ("run",),
}
FLAGS = {  # of the verb's command that a step may set
    "pack": {
        **{"format": str, "shard_mb": int, "seed": int, "facts": str, "without": str, "public": bool},
        "without_reasoning": bool,
    },
    "evaluate": {
        **dict.fromkeys(("real_train", "real_holdout", "schema", "target", "model", "text_column"), str),
        **dict.fromkeys(("perplexity_model", "student", "teacher"), str),
        **dict.fromkeys(("seed", "max_rows"), int),
    },
}


@dataclass(frozen=True)
class StepSpec:
    """`[[steps]]`: a verb, what it works on, and what to change there.

    `step:NAME` in the place of a path, an address or a model is the output of the earlier step NAME, and
    `step:NAME/FILE` a file or folder in it.
    """

    name: str  # Name of the step: letters, digits, "-" and "_". Its output is the folder of that name below --out.
    verb: Verb  # What the step does.
    # For produce and fit: the recipe, a path relative to the flow file, package:NAME, or the recipe's own tables.
    recipe: str | dict[str, Any] | None = None
    study: str | dict[str, Any] | None = None  # For study: the study, as a path or as tables.
    mixture: str | dict[str, Any] | None = None  # For pack: the mixture, as a path or as tables.
    run: str | None = None  # For pack and evaluate: the output to work on, usually "step:NAME".
    # Changes of the recipe, study or mixture, as --set makes them: { limits.asks = 100, "stages.0.threshold" = 0.7 }.
    set: dict[str, Any] = field(default_factory=dict)
    # For pack (format, shard_mb, without, without_reasoning, ...) and evaluate (real_train, real_holdout, target, ...):
    # flags of the command.
    flags: dict[str, Any] = field(default_factory=dict)
    # For produce: whether to start on the rows that the step before has committed so far, beside that step. It then
    # needs room for the engines of both. False: start at the end of that step, and take over its engines.
    stream: bool = False

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"name {self.name!r}: a step's name has letters, digits, '-' and '_'")
        if self.name in RESERVED:
            raise ValueError(f"name '{self.name}': an output has a folder or file of this name; choose another")
        needed = KEYS[self.verb]
        for key in ("recipe", "study", "mixture", "run"):
            if getattr(self, key) is not None and not any(key in names.split("/") for names in needed):
                raise ValueError(f"step '{self.name}': {self.verb} takes no '{key}', but {_words(needed)}")
        for names in needed:
            if sum(getattr(self, key) is not None for key in names.split("/")) != 1:
                raise ValueError(f"step '{self.name}': {self.verb} needs {_words((names,))}")
        if self.set and self.run is not None:
            raise ValueError(f"step '{self.name}': set changes a recipe, a study or a mixture, and there is none")
        if self.stream and self.verb != "produce":
            raise ValueError(f"step '{self.name}': stream is for produce")
        self._check_flags()

    def _check_flags(self) -> None:
        kinds = FLAGS.get(self.verb, {})
        for flag, value in self.flags.items():
            if flag not in kinds:
                hint = nearest(flag, kinds) if kinds else f": {self.verb} has none"
                raise ValueError(f"step '{self.name}': unknown flag '{flag}'{hint}")
            if not isinstance(value, kinds[flag]) or isinstance(value, bool) is not (kinds[flag] is bool):
                raise ValueError(f"step '{self.name}': flags.{flag} must be a {kinds[flag].__name__}")
        for flag in ("real_train", "real_holdout") if self.verb == "evaluate" else ():
            if flag not in self.flags:
                raise ValueError(f"step '{self.name}': evaluate needs flags.{flag}")

    @property
    def source(self) -> str | dict[str, Any] | None:
        """The TOML file or the tables that the verb reads, if it reads one."""
        return next((s for s in (self.recipe, self.study, self.mixture) if s is not None), None)


@dataclass(frozen=True)
class FlowSpec:
    """The whole flow file."""

    name: str  # Name of the flow, in its status and on its page.
    steps: tuple[StepSpec, ...]  # `[[steps]]`, in the order in which they run.
    description: str = ""  # One sentence for the page.
    # `[cluster]`: keys for every step that has a `[cluster]` of its own; a step's own keys take precedence.
    cluster: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.steps:
            raise ValueError("a flow has [[steps]]")
        names = [step.name for step in self.steps]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two steps are called '{name}'; rename one of them")


def load_flow(source: TomlSource, settings: Sequence[str] = ()) -> tuple[FlowSpec, dict[str, dict[str, Any] | None]]:
    """The flow, and the tables of each step with its changes applied; None for a step that reads no file.

    Raises UserError, naming file, step and key.
    """
    spec = build(FlowSpec, load_table(source, settings), label_of(source))
    build(ClusterSpec, spec.cluster, f"{label_of(source)}.cluster")
    folder = Path(shipped_path(source)).parent if isinstance(source, str) else Path()
    return spec, {step.name: _tables(step, spec, folder) for step in spec.steps}


def _tables(step: StepSpec, flow: FlowSpec, folder: Path) -> dict[str, Any] | None:
    source = step.source
    if source is None:
        return None
    if isinstance(source, str) and not source.startswith(PREFIX):
        source = str(folder / source)
    try:
        table = load_table(source)
        before = copy.deepcopy(table)
        for address, value in _leaves(step.set):
            try:
                put(table, address, value)
            except (IndexError, ValueError, TypeError, AttributeError):
                raise UserError(f"set: there is no '{address}' to set") from None
        leave_out_other_keys(before, table)
    except UserError as error:
        raise UserError(f"step '{step.name}': {error}") from None
    cluster = table.get("cluster", {})
    if step.verb in ("produce", "fit", "study") and isinstance(cluster, dict):  # else its spec says what is wrong
        table["cluster"] = {**flow.cluster, **cluster}
        if table["cluster"].get("address") != flow.cluster.get("address"):
            raise UserError(
                f"step '{step.name}': cluster.address: the steps of a flow share the Ray of its own [cluster]"
            )
    return table


def _leaves(changes: dict[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """(address, value) of every change; a table that is not empty is a part of addresses."""
    leaves: list[tuple[str, Any]] = []
    for key, value in changes.items():
        address = f"{before}.{key}" if before else key
        leaves += _leaves(value, address) if isinstance(value, dict) and value else [(address, value)]
    return leaves


def _words(keys: Sequence[str]) -> str:
    return " and ".join(" or ".join(f"'{key}'" for key in names.split("/")) for names in keys)
