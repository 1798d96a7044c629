"""The generator `endpoint`: any text method with a model behind an OpenAI-shaped HTTP interface."""

from dataclasses import dataclass
from typing import Any

from gristmill.engines.endpoint.engine import NO_USER_TURN
from gristmill.engines.endpoint.spec import EndpointSpec
from gristmill.engines.served import FormSpec
from gristmill.generators.teacher import Teacher
from gristmill.records.errors import UserError


@dataclass(frozen=True)
class EndpointTeacherSpec(EndpointSpec, FormSpec):
    """Settings of `endpoint`: the model, its address, limits and prices, and the form of its answers."""

    name: str | None = None  # Value of the `model` column; unset: the last part of `model`.

    def __post_init__(self) -> None:
        super().__post_init__()
        self.form  # noqa: B018 - raises for two structures

    @property
    def short_name(self) -> str:
        return self.name or super().short_name


class Endpoint(Teacher):
    """A teacher whose engine is a server elsewhere."""

    kind = "endpoint"
    revision = 1
    Spec = EndpointTeacherSpec
    spec: Any

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "model_column": self.model}

    def check(self) -> None:
        if self.program.writes_user:
            raise UserError(f"method '{self.method}': {NO_USER_TURN}; use kind = \"teacher\"")
        self.program.check()
        self.spec.check()
