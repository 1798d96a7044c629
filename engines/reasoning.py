"""Parts a reply of a vLLM engine into reasoning and answer, by vLLM's own parsers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gristmill.engines.contract import UNFINISHED, Reply
from gristmill.engines.errors import AskRefused
from gristmill.engines.installed import reasoning_parsers
from gristmill.records.errors import UserError
from gristmill.records.spec import nearest


def check_parser(name: str) -> None:
    """Raise UserError unless the installed vLLM has a parser of that name. Imports no vLLM."""
    names = reasoning_parsers()
    if names and name not in names:
        raise UserError(f"reasoning_parser: vLLM has no '{name}'{nearest(name, names)}")


class ReasoningParser:
    """A parser of vLLM with the tokenizer of an open engine. The state of a reply is in a parser of its own."""

    def __init__(self, name: str, vllm_config: Any, template_args: Mapping[str, Any], tokenizer: Any) -> None:
        """`vllm_config` and `template_args` (of the chat template) are those of the engine, and so is the tokenizer.

        Raises UserError in one line when the parser does not exist or does not fit the model.
        """
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
        from vllm.parser.parser_manager import ParserManager
        from vllm.reasoning import ReasoningParserManager

        if plugin := vllm_config.structured_outputs_config.reasoning_parser_plugin:
            ReasoningParserManager.import_reasoning_parser(plugin)
        self._tokenizer = tokenizer
        self._template_args = dict(template_args)
        self._config = {"model_config": vllm_config.model_config, "chat_template_kwargs": self._template_args}
        is_harmony = vllm_config.model_config.hf_config.model_type == "gpt_oss"
        try:
            self._class: Any = ParserManager.get_parser(
                reasoning_parser_name=name, is_harmony=is_harmony, tokenizer=tokenizer
            )
            self._request = self._new().adjust_request(ChatCompletionRequest(messages=[], model=""))
            self._parse(self._new(), "ready?", tokenizer.encode("ready?"))
        except (TypeError, ValueError, RuntimeError, KeyError, NotImplementedError, ImportError) as error:
            reason = str(error.__cause__ or error).splitlines()[0]
            raise UserError(f"reasoning_parser '{name}' does not fit the model: {reason}") from None

    def _new(self) -> Any:
        return self._class(self._tokenizer, None, **self._config)

    @property
    def sampling(self) -> dict[str, Any]:
        """Sampling settings that keep the marks of the reasoning in the text."""
        return {} if self._request.skip_special_tokens else {"skip_special_tokens": False}

    def call_args(self, opening: str) -> dict[str, Any]:
        """Arguments of vLLM's `generate`, so that a structure binds the answer alone. `opening`: see `parted`."""
        parser = self._new()
        ids = self._tokenizer.encode(opening, add_special_tokens=False)
        return {
            "reasoning_ended": _is_closed(opening, *self._marks(parser)) or bool(parser.is_reasoning_end(ids)),
            "reasoning_parser_kwargs": {"chat_template_kwargs": dict(self._template_args)},
        }

    def parted(self, reply: Reply, prompt_ids: Sequence[int], opening: str, ids: Sequence[int]) -> Reply:
        """`reply` of tokens `ids` to a prompt, its text parted into reasoning and answer.

        `opening` is the end of the prompt that belongs to the reply: what the chat template writes after the last
        message. It may open the reasoning, or close it when the model is told not to think.

        Raises AskRefused("unreadable_reasoning") for a text that the parser cannot read.
        """
        try:
            reasoning, answer, is_finished = self._split(prompt_ids, opening, reply.text, ids)
        except Exception as error:
            raise AskRefused("unreadable_reasoning", f"{type(error).__name__}: {error}") from error
        num_before = self._num_before(answer, reply.text, ids) if is_finished else len(ids)
        finish = reply.finish if is_finished else UNFINISHED
        return replace(reply, text=answer, finish=finish, reasoning=reasoning or None, tokens_reasoning=num_before)

    def _split(self, prompt_ids: Sequence[int], opening: str, text: str, ids: Sequence[int]) -> tuple[str, str, bool]:
        """(reasoning, answer, whether the reasoning has an end)."""
        parser = self._new()
        start, end = self._marks(parser)
        if _is_closed(opening, start, end):
            return "", text, True
        is_open = bool(start and start in opening)
        parser.set_prompt_token_ids(list(prompt_ids))
        reasoning, answer = self._parse(parser, text, ids)
        if not reasoning and is_open and start and end and end in text:
            # This parser needs the start mark, which is in the prompt.
            again = self._parse(self._new(), start + text, ids)
            reasoning, answer = again if again[0] else (reasoning, answer)
        has_end = bool(end and end in text) or bool(parser.is_reasoning_end(list(ids)))
        if end and not has_end and (is_open or (start and text.lstrip().startswith(start))):
            # Some parsers take a text without an end mark as the answer.
            reasoning, answer = text.lstrip().removeprefix(start or ""), ""
        return reasoning.strip(), answer, has_end or bool(answer.strip()) or not reasoning.strip()

    def _parse(self, parser: Any, text: str, ids: Sequence[int]) -> tuple[str, str]:
        reasoning, answer, _ = parser.parse(text, self._request, model_output_token_ids=list(ids))
        return reasoning or "", answer or ""

    @staticmethod
    def _marks(parser: Any) -> tuple[str | None, str | None]:
        inner = parser.reasoning_parser
        return getattr(inner, "reasoning_start_str", None), getattr(inner, "reasoning_end_str", None)

    def _num_before(self, answer: str, text: str, ids: Sequence[int]) -> int:
        """The number of tokens before the answer."""
        at = text.rfind(answer) if answer else len(text)
        if at <= 0:
            return 0
        content: list[int] = self._new().reasoning_parser.extract_content_ids(list(ids))
        if 0 < len(content) < len(ids):
            return len(ids) - len(content)
        return first_token(at, ids, lambda some: self._tokenizer.decode(some, skip_special_tokens=False))


def _is_closed(opening: str, start: str | None, end: str | None) -> bool:
    """Whether the reasoning ends in the prompt."""
    return bool(end) and opening.rfind(end or "") > opening.rfind(start or end or "")


def first_token(at: int, ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> int:
    """The number of the token that holds the character at `at` of the text of `ids`: the first if at is 0."""
    low, high = 0, len(ids)
    while low < high:
        middle = (low + high) // 2
        if len(decode(list(ids[: middle + 1]))) > at:
            high = middle
        else:
            low = middle + 1
    return low
