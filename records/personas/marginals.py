"""Published marginals and conditional shares, from a TOML file (docs/sources.md, "Personas")."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gristmill.records.errors import UserError
from gristmill.records.personas.network import SPAN, Attribute, Network, Value, check_phrases, cumulative
from gristmill.records.spec import build, nearest
from gristmill.records.stores.opening import read_bytes

SHIPPED = Path(__file__).with_name("us_workers.toml")
REST = "*"  # the row of weights for values of the parent that have none


@dataclass(frozen=True)
class AttributeSpec:
    """An attribute of a file of marginals."""

    name: str  # Column of the rows.
    values: tuple[str, ...]  # Categories, or ranges of whole numbers such as "16-19".
    weights: Any  # A weight for each value; with a parent a table from its values to such lists, "*" for the rest.
    parent: str | None = None  # An earlier attribute that the weights depend on.
    phrases: dict[str, str] = field(default_factory=dict)  # What stands in the sentence instead of a value.


@dataclass(frozen=True)
class MarginalsSpec:
    """A file of marginals."""

    attributes: tuple[AttributeSpec, ...]
    personas: tuple[str, ...]  # Templates of sentences with names of attributes in braces; each is as likely.
    about: str = "people"  # Who they are, for a plan.
    sources: tuple[str, ...] = ()  # Where the figures are published.
    # Tables from two attributes to lists of values, of which none of the one comes with one of the other.
    impossible: tuple[dict[str, Any], ...] = ()


def read_marginals(path: str | None) -> Network:
    """The network of a TOML file; None: the shipped one. Raises UserError that names file and attribute."""
    where = path or "us_workers.toml"
    try:
        table = tomllib.loads((read_bytes(path) if path else SHIPPED.read_bytes()).decode())
    except ValueError as error:
        raise UserError(f"{where}: not valid TOML: {error}") from None
    spec = build(MarginalsSpec, table, where)
    attributes: list[Attribute] = []
    for each in spec.attributes:
        attributes.append(_attribute(each, attributes, f"{where}: attribute '{each.name}'"))
    if not attributes or not spec.personas:
        raise UserError(f"{where}: needs at least one of [[attributes]] and of personas")
    return Network(spec.about, attributes, _impossible(spec, attributes, where), spec.personas)


def _attribute(spec: AttributeSpec, earlier: Sequence[Attribute], where: str) -> Attribute:
    names = [attribute.name for attribute in earlier]
    if spec.name in (*names, "persona"):
        raise UserError(f"{where}: this name is taken")
    if len(set(spec.values)) < len(spec.values) or not spec.values:
        raise UserError(f"{where}: values must be distinct, and at least one")
    if spec.parent is None:
        rows: list[Any] = [spec.weights]
    elif spec.parent not in names:
        raise UserError(f"{where}: parent '{spec.parent}' is no earlier attribute{nearest(spec.parent, names)}")
    else:
        rows = _rows(spec, earlier[names.index(spec.parent)].texts, where)
    weights = tuple(cumulative(_checked(row, len(spec.values), where)) for row in rows)
    parent = None if spec.parent is None else names.index(spec.parent)
    attribute = Attribute(spec.name, _as_spans(spec.values, where), parent, weights, spec.phrases)
    check_phrases(attribute, spec.phrases, f"{where}: phrases")
    return attribute


def _rows(spec: AttributeSpec, parent_values: Sequence[str], where: str) -> list[Any]:
    """The weights for each value of the parent."""
    if not isinstance(spec.weights, Mapping):
        raise UserError(f"{where}: with a parent, weights is a table from its values to lists")
    for value in spec.weights:
        if value not in (*parent_values, REST):
            raise UserError(f"{where}: weights: no value '{value}' of {spec.parent}{nearest(value, parent_values)}")
    rows = [spec.weights.get(value, spec.weights.get(REST)) for value in parent_values]
    if None in rows:
        raise UserError(f"{where}: weights lack the value '{parent_values[rows.index(None)]}' of {spec.parent}")
    return rows


def _checked(row: Any, number: int, where: str) -> list[float]:
    is_list = isinstance(row, list | tuple) and all(
        isinstance(w, int | float) and not isinstance(w, bool) and w >= 0 for w in row
    )
    if not is_list or len(row) != number or not sum(row):
        raise UserError(f"{where}: weights must be {number} numbers from 0 on, not all 0, not {row}")
    return list(row)


def _as_spans(values: Sequence[str], where: str) -> tuple[Value, ...]:
    """Ranges where every value is one, else the values as they are."""
    matches = [SPAN.fullmatch(value) for value in values]
    if not all(matches):
        return tuple(values)
    spans = [(int(match[1]), int(match[2])) for match in matches if match]
    for low, high in spans:
        if low > high:
            raise UserError(f"{where}: the range '{low}-{high}' ends before it begins: write '{high}-{low}'")
    return tuple(spans)


def _impossible(
    spec: MarginalsSpec, attributes: Sequence[Attribute], where: str
) -> dict[tuple[int, int], dict[int, frozenset[int]]]:
    names = [attribute.name for attribute in attributes]
    pairs: dict[tuple[int, int], dict[int, frozenset[int]]] = {}
    for table in spec.impossible:
        if len(table) != 2:
            raise UserError(f"{where}: each [[impossible]] names two attributes, not {len(table)}")
        places = []
        for name, values in table.items():
            if name not in names:
                raise UserError(f"{where}: impossible: no attribute '{name}'{nearest(name, names)}")
            texts = attributes[names.index(name)].texts
            for value in values:
                if value not in texts:
                    raise UserError(f"{where}: impossible.{name}: no value '{value}'{nearest(str(value), texts)}")
            places.append((names.index(name), [texts.index(value) for value in values]))
        (first, firsts), (second, seconds) = sorted(places)
        banned = pairs.setdefault((first, second), {})
        for place in firsts:
            banned[place] = banned.get(place, frozenset()) | frozenset(seconds)
    return pairs
