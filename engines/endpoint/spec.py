"""`kind = "endpoint"`: a model behind an address, as generators and stages use it."""

import importlib.util
from dataclasses import dataclass
from typing import Any

from gristmill.engines.contract import FREE_TEXT, AnswerForm
from gristmill.engines.endpoint.client import secrets_in_environment
from gristmill.engines.endpoint.engine import EndpointEngine
from gristmill.engines.endpoint.settings import EndpointSettings
from gristmill.engines.needs import Needs
from gristmill.records.errors import UserError
from gristmill.records.spec import literals

CLIENT_REVISION = 1  # to be raised when this client sends other requests for the same spec, prompt and seed


@dataclass(frozen=True)
class EndpointSpec(EndpointSettings):
    """A model behind an address: the keys of a recipe, and the engine that they open."""

    @property
    def fixed_slots(self) -> int | None:
        return None  # `max_in_flight` is only a bound: the engine adapts

    @property
    def needs(self) -> Needs:
        return Needs(self.num_cpus, variables=self.variables, is_remote=True)

    @property
    def is_repeatable(self) -> bool:
        """Never: what answers at an address is not under control of the run."""
        return False

    @property
    def is_paid(self) -> bool:
        """Always: an endpoint without a price is not repeatable either."""
        return True

    @property
    def engine_key(self) -> str | None:
        return None  # it opens at once, so none is taken over

    def identity(self) -> dict[str, Any]:
        """Literals that change the replies: the model and what is sent to it, not where it is and what it costs."""
        return {
            "client_revision": CLIENT_REVISION,
            "model": self.model,
            "chat": self.chat,
            "extra_body": literals(self.extra_body),
        }

    def check(self) -> None:
        """Raise UserError when the client is not installed or a key is not set. Sends nothing."""
        if importlib.util.find_spec("openai") is None:
            raise UserError("the package 'openai' is not installed: pip install gristmill[endpoints]")
        secrets_in_environment(self)

    def open_engine(self, sampling: dict[str, Any], form: AnswerForm = FREE_TEXT) -> EndpointEngine:
        """An engine whose endpoint accepts `sampling` and `form`. Raises UserError when it does not."""
        engine = EndpointEngine(self)
        engine.open(sampling, form)
        return engine
