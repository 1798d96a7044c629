"""A parser of reasoning for the demo model, as a plug-in of vLLM: its marks are single tokens of that model."""

from vllm.reasoning import ReasoningParserManager
from vllm.reasoning.basic_parsers import BaseThinkingReasoningParser


@ReasoningParserManager.register_module("hashes")
class HashParser(BaseThinkingReasoningParser):
    """Reasoning between ==== and ####."""

    @property
    def start_token(self) -> str:
        return "===="

    @property
    def end_token(self) -> str:
        return "####"
