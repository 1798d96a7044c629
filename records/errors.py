"""Errors with a message for the user."""


class UserError(Exception):
    """A command cannot be carried out; the message is one line and names a remedy.

    The command line prints it without a traceback and exits with 2. A bug of the program is never a UserError.
    """


class Conflict(UserError):
    """An if-absent put found the object: another driver has written it."""

    num_retries = 0  # retries before the answer: with retries, the other writer may be the same put


class InputChanged(UserError):
    """An input is not the one that the run began with; the message names it."""


class Changed(UserError):
    """An object is not in the version that was requested; another process has written it."""


class Rejected(UserError):
    """A store rejects a request for what it says; another try is of no use."""
