"""Which class is the chain family of which kind. The module is imported when a study names the kind."""

from gristmill.generators.chains.contract import ChainFamily
from gristmill.records.kinds import Kinds, kind_class

KINDS: Kinds = {
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
    """The class of chain family `kind`. Raises UserError naming the nearest kind."""
    cls: type[ChainFamily] = kind_class(KINDS, kind, "family")
    return cls
