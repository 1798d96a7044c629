"""Prompts as the token ids that an engine receives: the chat template and the tokenizer of its model."""

from collections.abc import Mapping
from datetime import date
from typing import Any

from gristmill.engines.contract import Messages
from gristmill.engines.errors import AskRefused
from gristmill.engines.tool_calls import Tools, with_objects
from gristmill.engines.user_turn import end_of_turn, is_users, split_turn, with_end

# The date for chat templates that state it: with the current date, a resumed run would write other rows.
SAME_DAY = date(2024, 7, 26)


class Prompts:
    """Renders prompts with a tokenizer. Templates are programs: rendering may raise any exception."""

    def __init__(self, tokenizer: Any, chat: bool, chat_template: str | None, template_args: Mapping[str, Any]) -> None:
        self._tokenizer = tokenizer
        self._chat = chat
        self._template = chat_template
        self._template_args = dict(template_args)

    def encode(self, prompt: Messages, tools: Tools = ()) -> list[int]:
        """The token ids of `prompt`, including the chat template."""
        if is_users(prompt):
            return self._open_turn(prompt)[0]
        if not self._chat:
            text = prompt if isinstance(prompt, str) else "\n\n".join(m["content"] for m in prompt)
            return list(self._tokenizer.encode(text))
        text = self.render(messages_of(prompt), tools)
        return list(self._tokenizer.encode(text, add_special_tokens=False))  # they are in the template

    def request(
        self, prompt: Messages, sampling: Mapping[str, Any], tools: Tools = ()
    ) -> tuple[list[int], Mapping[str, Any]]:
        """The token ids of `prompt`, and `sampling`, which ends at the user's turn if the model writes that turn."""
        if not is_users(prompt):
            return self.encode(prompt, tools), sampling
        ids, end = self._open_turn(prompt)
        return ids, with_end(sampling, end)

    def opening(self, prompt: Messages, tools: Tools = ()) -> str | None:
        """The end of the rendered prompt that belongs to the reply: what the chat template writes after the messages.

        Without a chat template it is the last line. None if the model writes the user's message.
        """
        if is_users(prompt):
            return None
        if not self._chat:
            text: str = prompt if isinstance(prompt, str) else prompt[-1]["content"]
            return text.rstrip().rpartition("\n")[2]
        messages = messages_of(prompt)
        text, before = self.render(messages, tools), self.render(messages, tools, add_generation_prompt=False)
        return text[len(before) :] if text.startswith(before) else text

    def render(self, messages: list[dict[str, Any]], tools: Tools = (), add_generation_prompt: bool = True) -> str:
        """A chat with tools as the text that the model reads."""
        text: str = self._tokenizer.apply_chat_template(
            messages,
            tools=[dict(tool) for tool in tools] or None,
            chat_template=self._template,
            add_generation_prompt=add_generation_prompt,
            tokenize=False,
            **{"strftime_now": SAME_DAY.strftime, **self._template_args},
        )
        return text

    def _open_turn(self, prompt: Messages) -> tuple[list[int], dict[str, Any]]:
        """The token ids up to the user's message, which the model writes, and the sampling settings that end it."""
        if not self._chat or isinstance(prompt, str):
            raise AskRefused("no_chat_template")
        before, after = split_turn(self.render, prompt)
        return list(self._tokenizer.encode(before, add_special_tokens=False)), end_of_turn(after, self._tokenizer)


def messages_of(prompt: Messages) -> list[dict[str, Any]]:
    """The messages of a prompt."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else with_objects(prompt)
