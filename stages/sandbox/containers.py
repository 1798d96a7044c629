"""Lists, dicts and other containers that exist in both processes at once.

A container that passes from one process to the other gets a number, and a twin on the other side. Whenever a message
goes over, the contents that changed since the last message go with it, so that both sides see one container: a list
that a program sorts in place is sorted for its tests. A container that only this table still holds is given up.
"""

import sys
from collections.abc import Callable
from typing import Any

from gristmill.stages.sandbox.wire import CHANGEABLE, BadMessage, content, fill, new_container, options

MAX_ELEMENTS = 5_000  # of all containers that both sides keep; beyond it they part, and changes stay on their side
Fields = dict[str, Any]


class Containers:
    """The containers of this side and their numbers; one side takes even numbers, the other odd ones."""

    def __init__(self, first_number: int, encode: Callable[[Any], Any], decode: Callable[[Any], Any]) -> None:
        self._next, self._encode, self._decode = first_number, encode, decode
        self._objects: dict[int, Any] = {}
        self._numbers: dict[int, int] = {}  # by id()
        self._contents: dict[int, Any] = {}  # as the other side knows them
        self._edges: dict[int, list[int]] = {}  # numbers of the containers in a container
        self._pending: list[int] = []  # containers that the message in work defines
        self._inner: list[int] = []

    def reference(self, value: Any) -> Fields:
        """The encoded form of a container. `flush` must follow before the message goes."""
        number = self._numbers.get(id(value))
        if number is None:
            number, self._next = self._next, self._next + 2
            self._add(number, value)
            self._pending.append(number)
        self._inner.append(number)
        return {"h": number}

    def resolve(self, number: Any) -> Any:
        return self._objects[number]

    def flush(self, is_limited: bool) -> Fields:
        """The fields of a message that carry new containers, changes, and the numbers to forget.

        `is_limited`: whether MAX_ELEMENTS holds. No request may be in work then that waits for its changes.
        """
        contents, definitions, changes = {}, [], []
        for number in [number for number in self._objects if number in self._contents]:
            body = self._content(number)
            if body != self._contents[number]:
                changes.append([number, body])
                contents[number] = body
        for number in self._pending:  # it grows on the way, by what is in the containers
            value = self._objects[number]
            contents[number] = self._content(number)
            definitions.append([number, CHANGEABLE[type(value)], options(value, self._encode), contents[number]])
            del value
        self._contents |= contents
        self._pending.clear()
        unheld = self._unheld(is_limited)
        self.forget(unheld)
        return {key: part for key, part in (("n", definitions), ("u", changes), ("z", unheld)) if part}

    def apply(self, message: Fields) -> None:
        """Take new containers and changes from a message; `forget` its numbers when the message is read."""
        definitions = message.get("n", [])
        for number, tag, option, _ in definitions:
            if number in self._objects or number % 2 == self._next % 2:
                raise BadMessage("a container has a wrong number")
            self._add(number, new_container(tag, option, self._decode))
        for number, *_, body in (*definitions, *message.get("u", [])):
            fill(self._objects[number], body, self._decode)
        for number, *_ in (*definitions, *message.get("u", [])):
            self._contents[number] = self._content(number)  # as this side writes it

    def abandon(self) -> None:
        """Forget the new containers of a message that does not go."""
        self.forget(self._pending)
        self._pending.clear()

    def forget(self, numbers: list[int]) -> None:
        for number in numbers:
            value = self._objects.pop(number)
            self._numbers.pop(id(value))
            self._contents.pop(number, None)
            self._edges.pop(number, None)

    def _add(self, number: int, value: Any) -> None:
        self._objects[number] = value
        self._numbers[id(value)] = number

    def _content(self, number: int) -> Any:
        self._inner.clear()
        body = content(self._objects[number], self._encode)
        self._edges[number] = list(self._inner)
        return body

    def _unheld(self, is_limited: bool) -> list[int]:
        """Numbers of the containers that nothing holds but this table and what else is unheld."""
        times: dict[int, int] = {}
        for inner in self._edges.values():
            for number in inner:
                times[number] = times.get(number, 0) + 1
        held = [n for n in self._objects if sys.getrefcount(self._objects[n]) - OWN_REFERENCES > times.get(n, 0)]
        if is_limited and sum(len(self._objects[number]) for number in held) > MAX_ELEMENTS:
            return list(self._objects)
        reached = set(held)
        while held:
            fresh = [number for number in self._edges.get(held.pop(), []) if number not in reached]
            reached.update(fresh)
            held += fresh
        return [number for number in self._objects if number not in reached]


def _own_references() -> int:
    table = {0: [1]}
    return sys.getrefcount(table[0])


OWN_REFERENCES = _own_references()
