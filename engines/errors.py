"""What goes wrong with an engine: one ask that it refuses, or the engine itself."""


class AskRefused(Exception):
    """This one ask cannot be served, whatever engine tries; `reason` goes into the row's reject."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class EngineDead(Exception):
    """The engine itself has failed: the replica must be restarted, and the lot tried again elsewhere."""


def is_refusal(error: BaseException) -> bool:
    """Whether the engine lives and refuses one request; anything else is taken for the engine's own failure.

    Told by name, because the classes move between releases and some are raised `from` the true cause.
    """
    names = {c.__name__ for c in type(error).__mro__}
    if names & {"EngineDeadError"}:
        return False
    if names & {"VLLMClientError", "ValueError", "TypeError"}:
        return True
    return "EngineGenerateError" in names and error.__cause__ is not None and is_refusal(error.__cause__)
