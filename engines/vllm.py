"""A thin asynchronous wrapper around the AsyncLLM of vLLM: one prompt in, one text out.

Each call has its own seed. With `batch_invariant` the text of a call does not depend on the other calls in the batch:
on CPU by engines/cpu.py, on GPUs by a mode of vLLM that needs Hopper or newer. Prompts are rendered and tokenised here
and sent as token ids. So an ask longer than the context is rejected before it reaches the engine, and costs one row.
"""

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from gristmill.engines import parking, processes
from gristmill.engines.contract import FREE_TEXT, NUM_CANDIDATES, AnswerForm, Messages, Reply
from gristmill.engines.errors import AskRefused, EngineDead, is_refusal
from gristmill.engines.guard import Guard
from gristmill.engines.installed import engine_arguments, environment, is_hopper, on_gpu
from gristmill.engines.invariance import Trace, is_invariant
from gristmill.engines.logprobs import answer_logprobs
from gristmill.engines.prompts import Prompts
from gristmill.engines.reasoning import ReasoningParser, check_parser
from gristmill.engines.structures import one_line
from gristmill.engines.tool_calls import ToolParser, Tools
from gristmill.engines.user_turn import USER_TURN
from gristmill.records.errors import UserError
from gristmill.records.spec import nearest

ENGINE_REVISION = 1  # to be raised when this wrapper gives other texts for the same model, sampling, prompt and seed
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # the maximal ranks that vLLM accepts


class Engine:
    """A vLLM engine. All methods are called on one event loop, to which the tasks of the engine belong."""

    synchronous = False  # `chat` waits for the engine, so callers should run many calls at once

    def __init__(
        self,
        model: str,
        args: Mapping[str, Any] | None = None,
        *,
        chat: bool = True,
        chat_template: str | None = None,
        template_args: Mapping[str, Any] | None = None,
        reasoning_parser: str | None = None,
        lora: Mapping[str, str] | None = None,
        batch_invariant: bool | None = None,
        kv_cache_gb: int = 2,
        threads: int = 0,
    ) -> None:
        """`model` is a folder or hub id; `args` go to AsyncEngineArgs unchanged.

        chat: False sends the text as it is, for base models. chat_template: Jinja text instead of the tokenizer's.
        template_args: further variables of the template, e.g. enable_thinking. lora: {"name": ..., "path": ...}.
        reasoning_parser: vLLM's parser of the model's reasoning; None: all of a reply is the answer.
        batch_invariant: the same text alone and in any batch; None: yes on CPU, no on GPUs, where it costs speed.
        kv_cache_gb, threads: on CPU only; threads = 0 means OMP_NUM_THREADS, else all cores of this process.
        """
        self.model = model
        self.args = dict(args or {})
        self.chat_mode = chat
        self.chat_template = chat_template
        self.template_args = dict(template_args or {})
        self.reasoning_parser = reasoning_parser
        self.lora = dict(lora or {})
        self.batch_invariant = not on_gpu() if batch_invariant is None else batch_invariant
        self.kv_cache_gb = kv_cache_gb
        self.threads = threads
        self.max_model_len = 0
        self.parking_key: str | None = None  # see gristmill.engines.parking; None: it never changes hands
        self._engine: Any = None
        self._guard: Guard | None = None
        self._tokenizer: Any = None
        self._parser: ReasoningParser | None = None
        self._lora_request: Any = None
        self._tool_parser: ToolParser | None = None
        self._numbers = count()
        self._verdict: list[bool | None] = []  # of the probe, once it was made

    def check(self) -> None:
        """Raise UserError when vLLM or the adapter is missing, or vLLM does not have an argument."""
        for name in self.args:
            if name not in engine_arguments():
                raise UserError(f"engine: unknown argument '{name}'{nearest(name, engine_arguments())}")
        if self.reasoning_parser and "reasoning_parser_plugin" not in self.args:
            check_parser(self.reasoning_parser)
        if self.args.get("enable_chunked_prefill") and not on_gpu():
            # vLLM 0.32 rewinds the random generator of a request after a part of a prompt; those of the CPU cannot.
            raise UserError("engine: enable_chunked_prefill ends the engine on CPU, because every ask has a seed")
        if self.args.get("distributed_executor_backend") == "ray" and not on_gpu():
            raise UserError("engine: distributed_executor_backend = 'ray' needs GPUs: on CPU vLLM has no such executor")
        if self.lora and not (Path(self.lora["path"]) / "adapter_config.json").is_file():
            raise UserError(f"lora '{self.lora['path']}': it has no adapter_config.json")

    def open(self) -> None:
        """Start the engine: half a minute on CPU, minutes for a large model on GPUs."""
        self.check()
        for name, value in environment(self.kv_cache_gb, self.threads, self.batch_invariant).items():
            os.environ.setdefault(name, value)
        if not on_gpu():
            os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
        self._guard = Guard()
        if os.environ.get(processes.FORKS) == "1":
            processes.preload()
        from vllm import AsyncEngineArgs, SamplingParams
        from vllm.lora.request import LoRARequest
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.async_llm import AsyncLLM

        if self.lora:
            self._lora_request = LoRARequest(self.lora["name"], 1, os.path.abspath(self.lora["path"]))
        # vLLM's own defaults for batch work: on large GPUs 1,024 requests at once, where a server would take 128.
        engine_args = AsyncEngineArgs(**self.arguments())
        self._engine = AsyncLLM.from_engine_args(engine_args, usage_context=UsageContext.LLM_CLASS)
        self._tokenizer = self._engine.get_tokenizer()
        self.max_model_len = self._engine.model_config.max_model_len
        self._sampling_class, self._final = SamplingParams, RequestOutputKind.FINAL_ONLY
        self._structure_class = StructuredOutputsParams
        if self.reasoning_parser:
            try:
                self._parser = ReasoningParser(
                    self.reasoning_parser, self._engine.vllm_config, self.template_args, self._tokenizer
                )
            except UserError:
                self.close()
                raise
        if self.chat_mode:
            try:
                self.encode("ready?")
            except Exception as error:  # noqa: BLE001 - a template is a program and can fail in any way
                self.close()
                raise UserError(f"model: no usable chat template (chat = false for a base model): {error}") from None

    def arguments(self) -> dict[str, Any]:
        """The arguments for EngineArgs of vLLM: the model, the defaults of this wrapper, and `args` over them."""
        defaults: dict[str, Any] = {"model": self.model, "disable_log_stats": True}
        # Otherwise a small model fills its JSON with blanks until it runs out of tokens.
        defaults["structured_outputs_config"] = {"backend": "guidance", "disable_any_whitespace": True}
        if not on_gpu():
            # Compiling takes minutes and a C++ compiler on every node. For chunked prefill see `check`.
            defaults |= {"enforce_eager": True, "enable_chunked_prefill": False}
            if self.batch_invariant:
                defaults["worker_extension_cls"] = "gristmill.engines.cpu.Worker"
        elif self.batch_invariant and is_hopper():
            # FlashAttention 3, the default there, gives other bits in other batches (vLLM issues 47069 and 51902).
            defaults["attention_config"] = {"flash_attn_version": 2}
        if self.lora:
            rank = json.loads((Path(self.lora["path"]) / "adapter_config.json").read_text()).get("r", 8)
            defaults |= {"enable_lora": True, "max_lora_rank": next((n for n in LORA_RANKS if n >= rank), rank)}
        arguments = {**defaults, **self.args}
        if self.reasoning_parser:  # a structure binds the answer alone
            parser = {"reasoning_parser": self.reasoning_parser}
            if plugin := arguments.pop("reasoning_parser_plugin", None):
                parser["reasoning_parser_plugin"] = plugin
            arguments["structured_outputs_config"] = {**arguments["structured_outputs_config"], **parser}
        return arguments

    @property
    def _prompts(self) -> Prompts:
        return Prompts(self._tokenizer, self.chat_mode, self.chat_template, self.template_args)

    @property
    def num_slots(self) -> int:
        """The number of requests that the open engine works on at once."""
        config = self._engine.vllm_config
        return int(config.scheduler_config.max_num_seqs) * max(1, int(config.parallel_config.data_parallel_size))

    async def load(self, folder: str) -> None:
        """Load the weights of another model into the running engine, which saves the half minute of a start.

        The model has the same config.json and tokenizer, and a separate output matrix: vLLM loads weights by name and
        would keep a tied matrix. No call may be running. Raises UserError for tied weights.
        """
        if json.loads((Path(folder) / "config.json").read_text()).get("tie_word_embeddings"):
            raise UserError(f"{folder}: an engine cannot load tied weights; save the output matrix separately")
        if self._engine is None:
            raise EngineDead("not open")
        await self._engine.collective_rpc("reload_weights", kwargs={"weights_path": folder})
        await self._engine.reset_prefix_cache()  # it is of the old weights

    def close(self) -> None:
        """Stop the engine's processes and free the device, unless the engine changes hands; safe at any time."""
        if self._engine is not None and parking.park(self):
            return
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.shutdown()
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.stop()

    def check_sampling(self, sampling: Mapping[str, Any], form: AnswerForm = FREE_TEXT) -> None:
        """Raise UserError for values that the open engine refuses for every ask."""
        config = self._engine.vllm_config
        try:
            self._params(sampling, 0, form).verify(
                config.model_config, config.speculative_config, config.structured_outputs_config, self._tokenizer
            )
        except Exception as error:
            if not isinstance(error, ValueError | TypeError) and not is_refusal(error):
                raise
            raise UserError(f"sampling: {one_line(str(error))}") from None

    def check_user_turn(self) -> None:
        """Raise UserError when the model has no chat template that can be cut at the user's turn."""
        try:
            self.encode([USER_TURN])
        except Exception as error:  # noqa: BLE001 - a template is a program and can fail in any way
            raise UserError(f"model: cannot write a user's message, which needs a chat template: {error}") from None

    def use_tool_parser(self, name: str | None) -> None:
        """Take the calls of tools out of answers, by a parser of vLLM (see ToolParser); None: they stay in the text."""
        self._tool_parser = None if name is None else ToolParser(name, self._tokenizer, self._prompts.render)

    def encode(self, prompt: Messages, tools: Tools = ()) -> list[int]:
        """The token ids that the engine receives for `prompt`, including the chat template."""
        return self._prompts.encode(prompt, tools)

    async def chat(
        self, prompt: Messages, sampling: Mapping[str, Any], seed: int, form: AnswerForm = FREE_TEXT
    ) -> Reply:
        """A completion. Raises AskRefused when this ask cannot be served, EngineDead when the engine has failed."""
        if self._engine is None:
            raise EngineDead("not open")
        try:
            if form.tools and self._tool_parser:
                sampling = self._tool_parser.sampling(sampling, form.tools)
            ids, sampling = self._prompts.request(prompt, sampling, form.tools)
            opening = self._prompts.opening(prompt, form.tools) if self._parser is not None else None
        except (TypeError, UnicodeError) as error:
            raise AskRefused("engine_refused", str(error)) from error
        room = self.max_model_len - len(ids)
        if room < 1:
            raise AskRefused("context_length", f"{len(ids)} tokens, the context holds {self.max_model_len}")
        wanted = sampling.get("max_tokens") or room
        try:
            params = self._params({**sampling, "max_tokens": min(wanted, room)}, seed, form)
            output = await self._last(ids, params, opening)
        except (asyncio.CancelledError, EngineDead):
            raise
        except Exception as error:
            if is_refusal(error):
                raise AskRefused("engine_refused", str(error)) from error
            raise EngineDead(f"{type(error).__name__}: {error}") from error
        reply = Reply(output.text, output.finish_reason, len(ids), len(output.token_ids))
        if self._parser is not None and opening is not None:
            reply = self._parser.parted(reply, ids, opening, output.token_ids)
        if form.logprobs:
            reply = replace(reply, logprobs=answer_logprobs(output, reply.tokens_reasoning))
        return self._tool_parser.parted(reply, form.tools) if form.tools and self._tool_parser else reply

    async def _last(self, ids: list[int], params: Any, opening: str | None = None) -> Any:
        """The whole completion of a prompt, as vLLM gives it. Raises EngineDead when there is none."""
        last = None
        prompt = {"prompt_token_ids": ids}
        settings: dict[str, Any] = {"reasoning_ended": True}  # a structure binds all of the reply
        if self._parser is not None and opening is not None:
            settings = self._parser.call_args(opening)
        settings["lora_request"] = self._lora_request
        async for answer in self._engine.generate(prompt, params, str(next(self._numbers)), **settings):
            last = answer
        if last is None or last.outputs[0].finish_reason in (None, "abort", "error"):
            raise EngineDead("the engine dropped a request")
        return last.outputs[0]

    def count_tokens(self, text: str) -> int:
        """The tokens of a text, without special ones."""
        return len(self._tokenizer.encode(text, add_special_tokens=False))

    async def trace(self, text: str, num_tokens: int, seed: int) -> Trace:
        """See `gristmill.engines.invariance`. Raises EngineDead when the engine has failed."""
        sampling = {"max_tokens": num_tokens, "logprobs": 0, "ignore_eos": True}
        output = await self._last(list(self._tokenizer.encode(text)), self._params(sampling, seed, FREE_TEXT))
        return tuple((token, chosen[token].logprob) for token, chosen in zip(output.token_ids, output.logprobs))

    async def forget(self) -> None:
        await self._engine.reset_prefix_cache()

    async def facts(self) -> dict[str, Any]:
        """What a manifest records of an open engine: its sizes, and whether its answers depend on their batch.

        `batch_invariant` is None where it is not promised or the engine refuses the probe (a context of a few tokens),
        and otherwise what a probe has shown.
        """
        if not self._verdict:
            self._verdict.append(await self._probe() if self.batch_invariant else None)
        parallel = self._engine.vllm_config.parallel_config
        return {
            "slots": self.num_slots,
            "tensor_parallel_size": int(parallel.tensor_parallel_size),
            "batch_invariant": self._verdict[0],
        }

    async def _probe(self) -> bool | None:
        try:
            return await is_invariant(self)
        except Exception as error:
            if not is_refusal(error):
                raise
            return None

    def _params(self, sampling: Mapping[str, Any], seed: int, form: AnswerForm) -> Any:
        extra: dict[str, Any] = {"logprobs": NUM_CANDIDATES} if form.logprobs else {}
        if form.is_structured:
            json_schema = dict(form.json_schema) if form.json_schema else None
            choice = list(form.choice) or None
            extra["structured_outputs"] = self._structure_class(
                json=json_schema, choice=choice, regex=form.regex, grammar=form.grammar
            )
        marks = self._parser.sampling if self._parser is not None else {}
        return self._sampling_class(**{**marks, **sampling, "seed": seed, "output_kind": self._final, **extra})
