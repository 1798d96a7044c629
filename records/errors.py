"""The one error that a user is meant to read."""


class UserError(Exception):
    """Something the user asked for cannot be done; the message is one line and says what to do.

    The command line prints it without a traceback and exits with 2. Our own bugs are never a UserError.
    """


class Conflict(UserError):
    """An object that was to be written only if absent is already there: another driver has written it."""

    num_retries = 0  # requests that the client had repeated before the answer: the "other" may be ourselves
