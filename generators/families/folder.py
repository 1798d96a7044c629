"""The folder of a fitted model, local or on S3: `model.json` and `weights.safetensors`. Never a pickle.

    model.json           kind, spec, schema, seed, facts, privacy statement, training rows, digests
    weights.safetensors  the arrays that sampling needs
    checkpoints/         only during the fit
The fit writes `model.json` last and only if absent: this commits the fit.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Any, NotRequired, TypedDict

import numpy as np

from gristmill.generators.families.contract import Family, State, family_class
from gristmill.records import pins
from gristmill.records.errors import Conflict, UserError
from gristmill.records.ids import fingerprint
from gristmill.records.masking.masks import holds_mask
from gristmill.records.output.formats import newest, parse
from gristmill.records.printable import json_text
from gristmill.records.readers.tables import TableSchema
from gristmill.records.shapes import check_shape
from gristmill.records.spec import build, literals, plain
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_store

NAME, WEIGHTS = "model.json", "weights.safetensors"
FORMAT = newest(NAME)
# What `Family.restore` raises for a state of another shape.
STATE_ERRORS = (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError, RuntimeError)


class _Identity(TypedDict):
    kind: str
    spec: dict[str, Any]
    schema: dict[str, Any]
    seed: int


class _TrainedOn(TypedDict):
    path: str
    num_rows: int
    digest: str


class _Budget(TypedDict):
    epsilon: float
    delta: float


class _Privacy(TypedDict):
    guarantee: str | None
    text: NotRequired[str]
    epsilon: NotRequired[float]
    epsilon_accountant: NotRequired[str]
    epsilon_rdp: NotRequired[float | None]
    delta: NotRequired[float]
    unit: NotRequired[str]
    adjacency: NotRequired[str]
    num_units: NotRequired[int]
    budget: NotRequired[_Budget]


class _ModelFile(TypedDict):
    format: int
    identity: _Identity
    fingerprint: str
    trained_on: _TrainedOn
    privacy: _Privacy
    facts: dict[str, Any]
    weights_sha256: str
    losses: list[dict[str, float]]


STATED = ("epsilon", "epsilon_accountant", "epsilon_rdp", "delta", "unit", "adjacency", "num_units")  # of a guarantee


@dataclass(frozen=True)
class ModelCard:
    """Contents of `model.json`."""

    format: int
    identity: dict[
        str, Any
    ]  # decides the model, with secrets masked: kind, spec, schema, seed, digest of the rows, privacy, threads
    fingerprint: str
    trained_on: dict[str, Any]  # num_rows, digest, path
    privacy: dict[str, Any]  # the privacy statement; {"guarantee": None, ...} without a guarantee
    facts: dict[str, Any]
    weights_sha256: str
    losses: list[dict[str, float]]
    weights: str = WEIGHTS  # name of the file of the weights

    @property
    def kind(self) -> str:
        return str(self.identity["kind"])

    @property
    def schema(self) -> TableSchema:
        return build(TableSchema, self.identity["schema"], NAME)

    @property
    def digest(self) -> str:
        """Identity of the model's bytes; part of the fingerprint of runs that sample from it."""
        return fingerprint([self.fingerprint, self.weights_sha256, self.facts])


def read_card(uri: str) -> ModelCard:
    """The card of a finished model. Raises UserError if there is none."""
    store = open_store(uri)
    try:
        data = pins.read(store, NAME, "model")
    except FileNotFoundError:
        raise UserError(
            f"{uri} holds no finished model ({NAME} is missing); make one with gristmill fit RECIPE --out {uri}"
        ) from None
    where = store.path(NAME)
    literals = parse(data, NAME, where)
    check_shape(literals, _ModelFile, where)
    plain(literals["identity"], f"{where}: identity")
    privacy = literals["privacy"]
    for key in ("text",) if privacy["guarantee"] is None else STATED:
        if key not in privacy:
            raise UserError(f"{where} cannot be read: privacy.{key} is missing")
    try:
        card = ModelCard(**literals)
    except TypeError as error:
        raise UserError(f"{where} cannot be read: {error}") from None
    if fingerprint(card.identity) != card.fingerprint and not holds_mask(card.identity):
        raise UserError(f"{where} was altered: its identity is not that of its fingerprint; fit the model again")
    return card


def empty_family(card: ModelCard) -> Family:
    """The family of a model, without its weights."""
    kind = family_class(card.kind)
    return kind(build(kind.Spec, card.identity["spec"], NAME), card.schema)


def load_model(uri: str, card: ModelCard, device: str = "cpu") -> Family:
    """The model on `device`, ready to sample. Raises UserError if its weights do not match the card."""
    family = empty_family(card)
    family.check_packages()
    family.device = device
    try:
        data = pins.read(open_store(uri), card.weights, "model")
    except FileNotFoundError:
        raise UserError(f"{uri}/{card.weights} is missing; fit the model again") from None
    if hashlib.sha256(data).hexdigest() != card.weights_sha256:
        raise UserError(f"{uri}/{card.weights} is not what {NAME} names: it was altered or cut")
    try:
        family.restore(State(unpack(data)[0], card.facts))
    except STATE_ERRORS as error:
        raise UserError(f"{uri}/{NAME} was altered: its facts do not fit the weights ({error!r})") from error
    return family


def save_model(store: Store, card: ModelCard, weights: bytes) -> None:
    """Write the weights, then the card, which commits them. Raises Conflict if another fit has finished there.

    Another trainer of the same fit, which was killed or may still finish, can have written other weights (on a GPU,
    bits differ). They stay until the card is there, and ours get a name of their own.
    """
    try:
        store.put(WEIGHTS, weights, if_absent=True)
    except Conflict:
        if store.read_if_there(WEIGHTS) != weights:
            card = replace(card, weights=f"weights-{card.weights_sha256[:16]}.safetensors")
            store.put(card.weights, weights)
    literals = {k: v for k, v in asdict(card).items() if (k, v) != ("weights", WEIGHTS)}
    store.put(NAME, json_text(literals, indent=1).encode(), if_absent=True)
    for entry in list(store.list("weights")):
        if entry.name != card.weights:
            store.delete(entry.name)


def pack(tensors: dict[str, np.ndarray], facts: dict[str, Any] | None = None) -> bytes:
    """safetensors bytes with `facts` as JSON in the header."""
    from safetensors.numpy import save

    ready = {name: np.ascontiguousarray(t) for name, t in sorted(tensors.items())}
    ready = ready or {"nothing": np.zeros(1, np.uint8)}
    return bytes(save(ready, {"facts": json.dumps(facts or {}, sort_keys=True, allow_nan=False)}))


def unpack(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(tensors, facts) of `pack`. Raises ValueError for other bytes."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = dict(load(data))
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        facts = json.loads(header.get("__metadata__", {}).get("facts", "{}"))
    except (SafetensorError, ValueError, KeyError, RecursionError) as error:  # KeyError: a type that numpy lacks
        raise ValueError(f"not safetensors of gristmill: {str(error).splitlines()[0]}") from None
    if not isinstance(facts, dict):
        raise ValueError("not safetensors of gristmill: its facts are no table")
    return tensors, facts


def schema_literals(schema: TableSchema) -> dict[str, Any]:
    """Literals that `build` reads back; keys at their default are omitted."""
    columns = [
        {k: v for k, v in literals(c).items() if v is not None and v is not False and v != []} for c in schema.columns
    ]
    return {"columns": columns, "inferred": schema.inferred}
