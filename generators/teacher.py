"""The teachers: any text method with a real model."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from gristmill.engines.contract import FREE_TEXT, AnswerForm, ServedEngine
from gristmill.engines.served import FormSpec, ModelSpec
from gristmill.engines.tool_calls import check_parser
from gristmill.engines.vllm import Engine
from gristmill.generators.contract import Needs
from gristmill.generators.text.contract import Method
from gristmill.generators.text.generator import TextGenerator
from gristmill.records.errors import UserError
from gristmill.records.spec import later, literals

MAX_TOKENS, MAX_TOKENS_THINKING = 1024, 8192  # of a reply, reasoning included


@dataclass(frozen=True)
class TeacherSpec(ModelSpec, FormSpec):
    """Settings of `teacher`: the model and how it is served, and the form of its answers."""

    # Parser of vLLM that takes tool calls out of answers, by the format of the model: "hermes", "llama3_json", ...
    tool_parser: str | None = later(None)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reasoning and not self.reasoning_parser:
            raise ValueError('reasoning needs reasoning_parser, e.g. "qwen3": vLLM parts thinking by a parser')
        self.form  # noqa: B018 - raises for two structures

    @property
    def form(self) -> AnswerForm:
        return replace(super().form, reasoning=bool(self.reasoning_parser))

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), **({"tool_parser": self.tool_parser} if self.tool_parser else {})}

    def check(self) -> None:
        super().check()
        if self.tool_parser is not None:
            check_parser(self.tool_parser)

    def open_engine(self, sampling: dict[str, Any], form: AnswerForm = FREE_TEXT) -> Engine:
        engine = super().open_engine(sampling, form)
        try:
            engine.use_tool_parser(self.tool_parser)
        except UserError:
            engine.close()
            raise
        return engine


class Teacher(TextGenerator):
    """An engine of one model behind a text method; one engine per replica."""

    kind = "teacher"
    revision = 1
    Spec: ClassVar[type] = TeacherSpec
    spec: TeacherSpec
    _engine: ServedEngine | None

    def __init__(self, spec: TeacherSpec, method: Method) -> None:
        super().__init__(spec, method, spec.fixed_slots)
        self.form = spec.form
        max_tokens = MAX_TOKENS_THINKING if self.form.reasoning else MAX_TOKENS
        self.sampling = {"max_tokens": max_tokens, **spec.sampling}

    @property
    def model(self) -> str | None:
        return self.spec.short_name

    @property
    def needs(self) -> Needs:
        return self.spec.needs

    @property
    def is_repeatable(self) -> bool:
        return self.spec.is_repeatable and self.program.is_repeatable

    @property
    def is_paid(self) -> bool:
        return self.spec.is_paid

    @property
    def engine_key(self) -> str | None:
        return self.spec.engine_key

    def identity(self) -> dict[str, Any]:
        return {
            **super().identity(),
            **self.spec.identity(),
            "sampling": literals(self.sampling),
            "json_schema": literals(self.spec.json_schema),
            **literals({k: v for k, v in self.form.literals().items() if k != "json_schema"}),
        }

    def check(self) -> None:
        if self.program.writes_user and not self.spec.chat:
            raise UserError(f"method '{self.method}' lets the model write the user's message and needs chat = true")
        if self.program.calls_tools and not (self.spec.chat and self.spec.tool_parser):
            raise UserError(
                f"method '{self.method}' lets the model call tools: set generator.tool_parser, e.g. \"hermes\", and "
                'chat = true; or write calls as JSON (method.calls = "json")'
            )
        super().check()
        self.spec.check()
        self.spec.check_form(self.form)

    def open_engine(self) -> ServedEngine:
        engine: ServedEngine = self.spec.open_engine(dict(self.sampling), self.form)
        if self.program.writes_user:
            try:
                engine.check_user_turn()
            except UserError:
                engine.close()
                raise
        return engine

    async def facts(self) -> dict[str, Any]:
        return await self._engine.facts() if self._engine is not None else {}

    def close(self) -> None:
        super().close()
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
