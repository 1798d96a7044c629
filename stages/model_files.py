"""Reads a model trained by `gristmill fit`: its card and its weights."""

import hashlib
from typing import Any, TypedDict

import numpy as np

from gristmill.records.errors import UserError
from gristmill.records.output.formats import parse
from gristmill.records.shapes import check_shape
from gristmill.records.stores.opening import open_store

NAME = "model.json"


class _Identity(TypedDict):
    kind: str
    spec: dict[str, Any]


class _Card(TypedDict):
    identity: _Identity
    facts: dict[str, Any]
    weights_sha256: str


def read_card(path: str, kind: str, stage: str) -> dict[str, Any]:
    """The parsed `model.json` of a finished model of `kind`.

    Raises UserError, with the stage's name, if there is none.
    """
    store = open_store(path)
    data = store.read_if_there(NAME)
    if data is None:
        raise UserError(
            f"{stage}: {path} holds no finished model; make one with gristmill fit RECIPE --out {path} and "
            f'[model] kind = "{kind}"'
        )
    card = parse(data, NAME, store.path(NAME))
    check_shape(card, _Card, store.path(NAME))
    if card["identity"]["kind"] != kind:
        raise UserError(f"{stage}: {path} holds a model of kind '{card['identity']['kind']}', not '{kind}'")
    return card


def read_weights(path: str, card: dict[str, Any], stage: str) -> dict[str, np.ndarray]:
    """Weights by name. Raises UserError if their digest differs from the one in the card."""
    from safetensors.numpy import load

    data = open_store(path).read_if_there("weights.safetensors")
    if data is None:
        raise UserError(f"{stage}: {path}: weights.safetensors is missing; fit the model again")
    if hashlib.sha256(data).hexdigest() != card["weights_sha256"]:
        raise UserError(f"{stage}: {path}: the digest of the weights differs from the one in model.json")
    return dict(load(data))
