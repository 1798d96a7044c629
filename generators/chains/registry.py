"""Families of chains by name."""

from importlib import import_module

from gristmill.generators.chains.contract import ChainFamily
from gristmill.records.errors import UserError
from gristmill.records.spec import nearest

KINDS = {
    "causal_lm": ("gristmill.generators.chains.families.causal_lm", "CausalLmChain"),
    "gaussian": ("gristmill.generators.chains.families.gaussian", "Gaussian"),
    "gmm": ("gristmill.generators.chains.families.gmm", "Gmm"),
    "kde": ("gristmill.generators.chains.families.kde", "Kde"),
    "multinomial": ("gristmill.generators.chains.families.multinomial", "Multinomial"),
    "ngram": ("gristmill.generators.chains.families.ngram", "Ngram"),
    "model": ("gristmill.generators.chains.families.trainable", "Trainable"),
    "linear_classifier": ("gristmill.generators.chains.families.classifier", "LinearClassifier"),
    "linear_regression": ("gristmill.generators.chains.families.regression", "LinearRegression"),
}


def chain_class(kind: str) -> type[ChainFamily]:
    """Raises UserError for a kind that is not known."""
    if kind not in KINDS:
        raise UserError(f"family: kind '{kind}' is not known{nearest(kind, KINDS)}")
    module, name = KINDS[kind]
    found: type[ChainFamily] = getattr(import_module(module), name)
    return found
