"""Base of the methods of several calls. The name of a call selects its template and sampling, and labels its turns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from gristmill.engines.contract import Messages, Reply
from gristmill.engines.errors import AskRefused
from gristmill.engines.served import SAMPLING
from gristmill.generators.text.answers import first_object
from gristmill.generators.text.contract import Method, Session, Template, conversation
from gristmill.generators.text.prompts import columns_of
from gristmill.records.spec import nearest


@dataclass(frozen=True)
class StepsSpec:
    """Settings of all methods of several calls. The column `turns` names each call."""

    TEMPLATES: ClassVar[Mapping[str, str]] = {}
    HOLES: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # what a call's template must hold

    templates: dict[str, str] = field(default_factory=dict)  # prompt of a call in other words, by the call's name
    # sampling settings of a call over those of [generator.sampling], by its name: {judge = {temperature = 0.0}}
    sampling: dict[str, dict[str, Any]] = field(default_factory=dict)
    system: str = ""  # system message of every call

    def __post_init__(self) -> None:
        Template(self.system)
        for key, table in (("templates", self.templates), ("sampling", self.sampling)):
            for name in table:
                if name not in self.TEMPLATES:
                    raise ValueError(f"{key}: no call is named '{name}'{nearest(name, self.TEMPLATES)}")
                if name not in self.call_names:
                    raise ValueError(f"{key}.{name} has no effect: with these keys the method makes no such call")
        for name, text in self.templates.items():
            for hole in self.HOLES.get(name, ()):
                if hole not in Template(text).names:
                    raise ValueError(f"templates.{name} must hold {{{hole}}}")
        for name, settings in self.sampling.items():
            for key in settings:
                if key not in SAMPLING:
                    raise ValueError(f"sampling.{name}: unknown key '{key}'{nearest(key, SAMPLING)}")

    @property
    def call_names(self) -> Sequence[str]:
        """Names of the calls that this recipe can make."""
        return list(self.TEMPLATES)

    @property
    def wording(self) -> dict[str, str]:
        """The template of every call in `call_names`: the recipe's, else the built-in one."""
        return {name: self.templates.get(name, self.TEMPLATES[name]) for name in self.call_names}


class Steps(Method):
    """Base of the methods of several calls. `method_holes` are the holes that the method fills itself."""

    keeps_turns = True
    method_holes: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, spec: Any) -> None:
        super().__init__(spec)
        self._prompts = {name: Template(text) for name, text in spec.wording.items()}
        self._system = Template(spec.system)

    def columns_of(self, *templates: Template) -> list[str]:
        """The source columns that these templates, those of the calls and the system message name."""
        more = [name for template in templates for name in template.names]
        return columns_of([*self._prompts.values(), self._system], self.method_holes, *more)

    def fields_read(self) -> list[str]:
        return self.columns_of()

    def identity(self) -> dict[str, Any]:
        # Includes the built-in prompts: rows change when a release rewords them.
        return {**super().identity(), "templates": self.spec.wording}

    def ways(self) -> list[dict[str, int]]:
        """The possible sequences of calls of an ask, each as the largest number of each call."""
        return [dict.fromkeys(self.spec.call_names, 1)]

    def most_tokens(self, max_tokens: int) -> int | None:
        bound = {
            name: int(self.spec.sampling.get(name, {}).get("max_tokens", max_tokens)) for name in self.spec.call_names
        }
        return max(sum(num * bound[name] for name, num in way.items()) for way in self.ways())

    def words(self, name: str, fields: Mapping[str, Any]) -> Messages:
        """The prompt of the call `name`."""
        return conversation(self._system.render(fields), self._prompts[name].render(fields))

    async def say(
        self, session: Session, name: str, fields: Mapping[str, Any], json_schema: Mapping[str, Any] | None = None
    ) -> Reply:
        """The call `name`, its template filled from `fields`."""
        return await session.chat(self.words(name, fields), json_schema, name, **self.spec.sampling.get(name, {}))

    async def say_all(
        self,
        session: Session,
        name: str,
        fields: Sequence[Mapping[str, Any]],
        json_schema: Mapping[str, Any] | None = None,
        **sampling: Any,
    ) -> list[Reply]:
        """A call `name` for each of `fields`, all at once; `sampling` overrides the recipe's."""
        prompts = [self.words(name, each) for each in fields]
        return await session.chats(prompts, json_schema, name, **{**self.spec.sampling.get(name, {}), **sampling})


def read_object(reply: Reply, call_name: str, **types: type) -> dict[str, Any]:
    """The first JSON object of an answer, with a value of the right type at every key of `types`.

    Raises AskRefused("unreadable_CALL"), or ("cut_CALL") when the answer was cut off inside its object.
    """
    answer = first_object(reply.text)
    if answer is None:
        raise AskRefused(f"cut_{call_name}" if reply.finish == "length" else f"unreadable_{call_name}")
    for name, kind in types.items():
        if type(answer.get(name)) is not kind:
            raise AskRefused(f"unreadable_{call_name}", name)
    return {name: answer[name] for name in types}


def object_of(**properties: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON schema of an object with these properties, in this order, and no other."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }
