"""Errors of engines: a refused ask, or a failure of the engine itself."""


class AskRefused(Exception):
    """No engine can serve this ask; `reason` goes into the `reject` of its row."""

    def __init__(self, reason: str, detail: str = "", cost: float = 0.0) -> None:
        """`cost`: money paid for the refused call, in the currency of the run."""
        super().__init__(reason, detail, cost)
        self.reason = reason
        self.detail = detail
        self.cost = cost


class EngineDead(Exception):
    """The engine has failed: the replica must be restarted and the lot retried."""


def is_refusal(error: BaseException) -> bool:
    """Whether the engine is alive and refused one request; any other error counts as a failure of the engine.

    Classes are compared by name: they move between releases of vLLM, and some are raised `from` the true cause.
    """
    names = {c.__name__ for c in type(error).__mro__}
    if names & {"EngineDeadError"}:
        return False
    if names & {"VLLMClientError", "ValueError", "TypeError"}:
        return True
    return "EngineGenerateError" in names and error.__cause__ is not None and is_refusal(error.__cause__)
