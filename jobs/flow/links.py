"""Links between steps: `step:NAME` in the place of a path, an address or a model."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gristmill.jobs.flow.spec import FlowSpec, StepSpec
from gristmill.records.errors import UserError
from gristmill.records.spec import nearest

LINK = re.compile(r"step:([^/#\s]*)(?:/([^#]*))?(#.*)?")
MODEL_KEYS = frozenset({"model", "teacher", "perplexity_model", "lora.path"})
ROW_KEYS = frozenset({"path", "uri", "run", "real_train", "real_holdout"})
FILE_KEYS = frozenset({"file", "schema", "student"})
GIVES = {  # what the whole output of a step is to a step after it
    "produce": "rows",
    "pack": "rows",
    "fit": "model",
    "study": "results",
    "evaluate": "metrics",
}


@dataclass(frozen=True)
class Link:
    """The output of `step`, or `file` in it, as the value of `key`; `rest` follows the address, as #train does."""

    step: str
    key: str
    file: str = ""
    rest: str = ""

    def __str__(self) -> str:
        return f"step:{self.step}{'/' if self.file else ''}{self.file}{self.rest}"

    def address(self, out: str) -> str:
        """Where it lies below the output of the flow."""
        file = f"/{self.file}" if self.file else ""
        return f"{out.rstrip('/')}/{self.step}{file}{self.rest}"

    @property
    def wants(self) -> str:
        """What the key takes: "rows", "model" or "file"."""
        if _is_key(self.key, MODEL_KEYS):
            return "model"
        return "rows" if _is_key(self.key, ROW_KEYS) else "file"


def links_of(step: StepSpec, tables: Mapping[str, Any] | None) -> list[Link]:
    """The links of a step, by where they stand: in its tables, its run and its flags."""
    return [_link(value, key) for key, value in _texts(_whole(step, tables)) if _is_link(key, value)]


def resolved(value: Any, address: Callable[[Link], str], key: str = "") -> Any:
    """`value` with each link in it replaced by its address."""
    if isinstance(value, Mapping):
        return {k: resolved(v, address, f"{key}.{k}" if key else str(k)) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [resolved(v, address, f"{key}.{at}") for at, v in enumerate(value)]
    return address(_link(value, key)) if isinstance(value, str) and _is_link(key, value) else value


def check_links(flow: FlowSpec, step: StepSpec, links: Sequence[Link]) -> None:
    """Raise UserError for a link to no step, to a later step, or to a step that does not give what the key takes."""
    order = [other.name for other in flow.steps]
    for link in links:
        where = f"step '{step.name}': {link.key} = \"{link}\""
        if link.step not in order:
            raise UserError(f"{where}: no step has this name{nearest(link.step, order)}")
        if link.step == step.name:
            raise UserError(f"{where}: a step cannot read its own output")
        if order.index(link.step) > order.index(step.name):
            raise UserError(f"{where}: that step comes later; move it before this one")
        verb = flow.steps[order.index(link.step)].verb
        if not link.file and GIVES[verb] != link.wants:
            article = {"rows": "rows", "model": "a model", "file": "a file"}[link.wants]
            hint = f'; name a file in its output, as in "step:{link.step}/FILE"' if link.wants != "model" else ""
            raise UserError(f"{where}: the key takes {article}, and a {verb} step gives {GIVES[verb]}{hint}")
        if step.verb == "pack" and link.key == "run" and (verb != "produce" or link.file):
            raise UserError(f"{where}: pack takes the whole output of a produce step")


def _whole(step: StepSpec, tables: Mapping[str, Any] | None) -> dict[str, Any]:
    return {**(tables or {}), **({"run": step.run} if step.run else {}), "flags": step.flags}


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for k, v in value.items():
            yield from _texts(v, f"{key}.{k}" if key else str(k))
    elif isinstance(value, list | tuple):
        for at, v in enumerate(value):
            yield from _texts(v, f"{key}.{at}")
    elif isinstance(value, str):
        yield key, value


def _is_link(key: str, value: str) -> bool:
    """Whether a text is a link: elsewhere than under these keys it is content, such as an item of a source."""
    return value.startswith("step:") and _is_key(key, MODEL_KEYS | ROW_KEYS | FILE_KEYS) and ".items." not in f".{key}"


def _is_key(key: str, keys: frozenset[str]) -> bool:
    parts = key.split(".")
    return ".".join(parts[-2:]) in keys or (parts[-1] in keys and parts[-2:] != ["lora", "path"])


def _link(value: str, key: str) -> Link:
    match = LINK.fullmatch(value)
    if match is None or not match[1]:
        raise UserError(f'{key} = "{value}": write "step:NAME", or "step:NAME/FILE" for a file in the output of a step')
    return Link(match[1], key, match[2] or "", match[3] or "")
