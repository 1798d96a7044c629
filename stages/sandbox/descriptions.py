"""What one side says of its classes, and the mirrors that the other side builds of it."""

import re
import types
from collections.abc import Callable
from typing import Any

from gristmill.stages.sandbox.contact import Contact
from gristmill.stages.sandbox.mirrors import (
    CLASS_NUMBER,
    DOCUMENTATION,
    FIELDS,
    LIKE,
    LIKENESS,
    LOCAL,
    NUMBER,
    PEER,
    TEXTS,
    VALUES,
    Member,
    RemoteMeta,
    RemoteObject,
)  # fmt: skip
from gristmill.stages.sandbox.wire import BadMessage

SPECIAL = re.compile(r"__[a-z_]{1,40}__")
HASH = "_gristmill_hash"
MAX_NAME = 200


def description(number: int, kind: type, form: Callable[[type], Any]) -> list[Any]:
    """[number, name, full name, bases, special methods, other attributes, texts of its own] of a class of this side."""
    bases = [form(base) for base in kind.__bases__]
    names = {name: value for name, value in vars(kind).items() if isinstance(name, str)}
    specials = [
        name for name, value in names.items() if SPECIAL.fullmatch(name) and name not in LOCAL and callable(value)
    ]
    is_own = kind.__module__ == "__main__"
    members = [name for name in names if is_own and not (name.startswith("__") and name.endswith("__"))]
    texts = [name for name in TEXTS if not isinstance(getattr(kind, name), types.WrapperDescriptorType)]
    full_name = f"{kind.__module__}.{kind.__qualname__}"
    return [number, kind.__name__, full_name, bases, specials, members, texts]


def value_of(value: Any) -> list[Any]:
    """What goes with a reference to an object of this side: its hash if it is its own, and its plain value."""
    kind = type(value)
    plain = next((convert(value) for base, convert in VALUES.items() if issubclass(kind, base)), None)
    number = None
    if plain is None and kind.__hash__ is not object.__hash__ and kind.__hash__ is not None:
        try:
            number = hash(value)
        except Exception:  # noqa: BLE001 - it is the program's, and hash() of the proxy tells it again
            number = None
    return [number, plain]


class Mirrors:
    """The mirrors of the classes of the other side, by number."""

    def __init__(self, peer: Contact) -> None:
        self._peer = peer
        self.classes: dict[int, Any] = {}

    def add_class(
        self, number: int, name: str, full_name: str, bases: list[Any], specials: list[str], members: list[str],
        texts: list[str],
    ) -> None:  # fmt: skip
        """Build the mirror of a description. Its bases must have mirrors."""
        if number in self.classes or not all(isinstance(word, str) for word in (name, full_name)):
            raise BadMessage("a wrong class")
        parents = [self._peer.decode(base) for base in bases]
        if not all(isinstance(parent, RemoteMeta) or self._is_local(parent) for parent in parents):
            raise BadMessage("a wrong base class")
        space: dict[str, Any] = {CLASS_NUMBER: number, PEER: self._peer, "__dict__": FIELDS, "__doc__": DOCUMENTATION}
        if full_name in LIKE:
            space[LIKENESS] = LIKE[full_name]
        for word in members:
            if not word.startswith("_gristmill") and not SPECIAL.fullmatch(word):
                space[word] = Member(word, False)
        for word in specials:
            if SPECIAL.fullmatch(word) and word not in LOCAL:
                space[word] = Member(word, True)
        for word in texts:
            if word in TEXTS:
                space[word] = getattr(RemoteObject, word)
        parents = [parent for parent in parents if parent is not object]
        if not any(isinstance(parent, RemoteMeta) for parent in parents):
            parents.append(RemoteObject)
        self.classes[number] = RemoteMeta(name[:MAX_NAME], tuple(parents), space)

    def _is_local(self, parent: Any) -> bool:
        return parent in (object, *VALUES) or (isinstance(parent, type) and issubclass(parent, BaseException))

    def new(self, number: int, class_number: int, own_hash: int | None, plain: Any) -> Any:
        """A proxy."""
        kind = self.classes[class_number]
        value = self._peer.decode(plain)
        base = next((base for base in VALUES if issubclass(kind, base)), None)
        if (base is None) != (value is None) or (base is not None and type(value) is not base):
            raise BadMessage("a value of a wrong type")
        proxy: Any = object.__new__(kind) if base is None else base.__new__(kind, value)
        object.__setattr__(proxy, NUMBER, int(number))
        object.__setattr__(proxy, HASH, number if own_hash is None else int(own_hash))
        return proxy

    def new_exception(self, kind: type[BaseException], number: int, arguments: tuple[Any, ...]) -> BaseException:
        error = kind.__new__(kind, *arguments)
        error.args = arguments
        object.__setattr__(error, NUMBER, int(number))
        object.__setattr__(error, HASH, int(number))
        return error
