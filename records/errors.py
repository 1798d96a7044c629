"""Errors with a message for the user."""

from collections.abc import Iterator
from contextlib import contextmanager

from gristmill.records.masking.masks import masked_text


class UserError(Exception):
    """A command cannot be carried out; the message is one line and names a remedy.

    The command line prints it without a traceback and exits with 2. A bug of the program is never a UserError. Secrets
    in the message are masked: it may quote a recipe, an address, or the error of a library.
    """

    def __str__(self) -> str:  # not in the constructor: `convert` makes and drops many of them
        return masked_text(super().__str__())

    def __repr__(self) -> str:
        return masked_text(super().__repr__())


class KeyFault(UserError):
    """A fault of a file that a key of `[source]` mends; `other` is the remedy where there is no such key."""

    def __init__(self, fault: str, remedy: str, other: str) -> None:
        super().__init__(fault, remedy, other)
        self.fault, self.remedy, self.other = fault, remedy, other

    def __str__(self) -> str:
        return masked_text(f"{self.fault}; {self.remedy}, or {self.other}")

    def without_key(self) -> UserError:
        """The error where there is no such key."""
        return UserError(f"{self.fault}; {self.other}")


@contextmanager
def without_keys() -> Iterator[None]:
    """Faults of files in the block do not recommend keys: an address of the command line or of a list has none."""
    try:
        yield
    except KeyFault as fault:
        raise fault.without_key() from None


class Conflict(UserError):
    """An if-absent put found the object: another driver has written it."""

    num_retries = 0  # retries before the answer: with retries, the other writer may be the same put
    is_undecided = False  # two puts met, and the store has not said that the other has won


class InputChanged(UserError):
    """An input is not the one that the run began with; the message names it."""


class AbsentInput(UserError):
    """There is no file at the place of an input."""


class Changed(UserError):
    """An object is not in the version that was requested; another process has written it."""


class Rejected(UserError):
    """A store rejects a request for what it says; another try is of no use."""


class Refused(UserError):
    """A store does not accept the keys, or they do not allow the request."""
