"""Families of chains by name."""

from importlib import import_module

from generators.chains.contract import ChainFamily
from records.errors import UserError
from records.spec import nearest

KINDS = {
    "causal_lm": ("generators.chains.causal_lm", "CausalLmChain"),
    "gaussian": ("generators.chains.gaussian", "Gaussian"),
    "gmm": ("generators.chains.gmm", "Gmm"),
    "kde": ("generators.chains.kde", "Kde"),
    "multinomial": ("generators.chains.multinomial", "Multinomial"),
    "ngram": ("generators.chains.ngram", "Ngram"),
    "model": ("generators.chains.trainable", "Trainable"),
    "linear_classifier": ("generators.chains.classifier", "LinearClassifier"),
    "linear_regression": ("generators.chains.regression", "LinearRegression"),
}


def chain_class(kind: str) -> type[ChainFamily]:
    """Raises UserError for a kind that is not known."""
    if kind not in KINDS:
        raise UserError(f"family: kind '{kind}' is not known{nearest(kind, KINDS)}")
    module, name = KINDS[kind]
    found: type[ChainFamily] = getattr(import_module(module), name)
    return found
