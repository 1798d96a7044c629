"""Where the models of a chain lie: `models/KEY` of the study's output, as `gristmill fit` leaves a model.

The model of a generation is put there before it is sampled, so that a unit that is killed while it samples need not
train again; it is removed when the unit is done, unless it is to be kept. That of generation 1, the only one that has
seen real rows alone, stays: later generations are judged by it.
"""

from collections.abc import Sequence

from gristmill.generators.lm.family import served_files
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_store

MODELS = "models"


class ModelStore:
    """Of one unit. `keys` are those of its chain's generations, `generation` is the unit's."""

    def __init__(self, store: Store, keys: Sequence[str], generation: int) -> None:
        self._store, self._keys, self.generation = store, keys, generation

    def folder(self, generation: int) -> Store:
        return open_store(self._store.path(f"{MODELS}/{self._keys[generation - 1]}"))

    def served(self, generation: int) -> dict[str, bytes]:
        """The finished model's files as transformers and vLLM read them."""
        return served_files(self.folder(generation))

    def clear(self) -> None:
        """Remove this generation's model."""
        self.folder(self.generation).clear()
