"""Models of a chain, under `models/KEY` of the study's output, in the layout of `gristmill fit`.

A unit stores its model before it samples, so a unit that is killed while it samples does not train again. The unit
removes the model when it is done, unless the study keeps all models. The model of generation 1 stays, because later
generations are measured with it: it is the only model that learns from real rows alone.
"""

from collections.abc import Sequence

from gristmill.generators.lm.family import served_files
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_store

MODELS = "models"


class ModelStore:
    """The models of one unit. `keys` are the keys of the chain's generations; `generation` is the unit's own."""

    def __init__(self, store: Store, keys: Sequence[str], generation: int) -> None:
        self._store, self._keys, self.generation = store, keys, generation

    def folder(self, generation: int) -> Store:
        """The folder of a generation's model."""
        return open_store(self._store.path(f"{MODELS}/{self._keys[generation - 1]}"))

    def files_to_serve(self, generation: int) -> dict[str, bytes]:
        """The files of a finished model, in the format of transformers and vLLM."""
        return served_files(self.folder(generation))

    def clear(self) -> None:
        """Remove this generation's model."""
        self.folder(self.generation).clear()
