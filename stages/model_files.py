"""A model that `gristmill fit` made, as a stage reads it: the card, and the arrays that it names."""

import hashlib
import json
from typing import Any

import numpy as np

from gristmill.records.errors import UserError
from gristmill.records.stores.contract import open_store


def read_card(path: str, kind: str, stage: str) -> dict[str, Any]:
    """`model.json` of a finished model of `kind`. Raises UserError, naming the stage, when there is none."""
    data = open_store(path).read_if_there("model.json")
    if data is None:
        raise UserError(
            f"{stage}: {path} holds no finished model; make one with gristmill fit RECIPE --out {path}, "
            f'with [model] kind = "{kind}"'
        )
    card: dict[str, Any] = json.loads(data)
    if card["identity"]["kind"] != kind:
        raise UserError(f"{stage}: {path} holds a model of kind '{card['identity']['kind']}'")
    return card


def read_weights(path: str, card: dict[str, Any], stage: str) -> dict[str, np.ndarray]:
    """The arrays by name. Raises UserError when they are not those that the card names."""
    from safetensors.numpy import load

    data = open_store(path).read("weights.safetensors")
    if hashlib.sha256(data).hexdigest() != card["weights_sha256"]:
        raise UserError(f"{stage}: {path}: the weights are not those that model.json names")
    return dict(load(data))
