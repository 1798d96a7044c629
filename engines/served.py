"""A model served by vLLM: the recipe keys that the teacher and every stage with a model share."""

import logging
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from gristmill.engines import models, parking
from gristmill.engines.contract import FREE_TEXT, AnswerForm, ServedEngine
from gristmill.engines.installed import environment, on_gpu
from gristmill.engines.needs import Needs
from gristmill.engines.structures import check_structure, check_texts
from gristmill.engines.vllm import ENGINE_REVISION, Engine
from gristmill.records.errors import UserError
from gristmill.records.ids import fingerprint
from gristmill.records.spec import later, literals, nearest

logger = logging.getLogger(__name__)

# Settings that shape the text. Left out: n (several texts), seed and output_kind (set by the wrapper), and logprobs
# (only adds to the reply).
SAMPLING = frozenset(
    "temperature top_p top_k min_p max_tokens min_tokens repetition_penalty presence_penalty frequency_penalty stop "
    "stop_token_ids include_stop_str_in_output bad_words ignore_eos logit_bias allowed_token_ids skip_special_tokens "
    "spaces_between_special_tokens".split()
)

# Each counts devices. The experts of `enable_expert_parallel` lie on those that there are.
PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")

# Engine arguments that decide how and where the engine runs, but not its text.
PLACEMENT = frozenset(
    "tensor_parallel_size pipeline_parallel_size data_parallel_size distributed_executor_backend "
    "gpu_memory_utilization kv_cache_memory_bytes num_gpu_blocks_override max_num_seqs "
    "max_num_batched_tokens max_num_scheduled_tokens swap_space cpu_offload_gb kv_offloading_size "
    "enforce_eager enable_prefix_caching enable_chunked_prefill async_scheduling block_size "
    "compilation_config download_dir load_format safetensors_load_strategy disable_log_stats "
    "enable_log_requests max_parallel_loading_workers disable_custom_all_reduce hf_token stream_interval "
    "use_tqdm_on_load".split()
)


class ModelService(Protocol):
    """The keys of a model and how it is served, as generators and stages use them: a ModelSpec or an EndpointSpec."""

    @property
    def short_name(self) -> str: ...

    @property
    def sampling(self) -> dict[str, Any]: ...

    @property
    def needs(self) -> Needs: ...

    @property
    def is_repeatable(self) -> bool: ...

    @property
    def is_paid(self) -> bool: ...

    @property
    def engine_key(self) -> str | None: ...

    @property
    def fixed_slots(self) -> int | None:
        """Asks at once that the recipe fixes; None: the engine decides."""

    def identity(self) -> dict[str, Any]: ...

    def check(self) -> None: ...

    def open_engine(self, sampling: dict[str, Any], form: AnswerForm = FREE_TEXT) -> ServedEngine: ...


@dataclass(frozen=True, kw_only=True)
class FormSpec:
    """The form of every answer: the recipe keys that all teachers share. At most one structure is set."""

    json_schema: dict[str, Any] | None = None  # JSON schema of an object that every answer must be (structured output)
    choice: tuple[str, ...] = later(())  # Texts of which every answer is one.
    regex: str | None = later(None)  # Regular expression that every answer matches.
    grammar: str | None = later(None)  # Context-free grammar (EBNF) that every answer follows.
    logprobs: bool = later(False)  # Whether rows get the columns logprob_mean, logprob_min and entropy.
    # Whether rows get the columns reasoning and tokens_reasoning; vLLM also needs `reasoning_parser`, which implies it.
    reasoning: bool = later(False)

    @property
    def form(self) -> AnswerForm:
        """The form of an answer. Raises ValueError for two structures, and for one that no answer can have."""
        structures = [name for name in ("json_schema", "choice", "regex", "grammar") if getattr(self, name)]
        if len(structures) > 1:
            raise ValueError(f"{structures[0]} and {structures[1]}: an answer has one structure; leave one out")
        check_texts(self.choice, self.regex, self.grammar)
        return AnswerForm(
            self.json_schema, self.choice, self.regex, self.grammar, logprobs=self.logprobs, reasoning=self.reasoning
        )


@dataclass(frozen=True)
class ModelSpec:
    """Which model, how it samples, and the resources of a replica."""

    model: str  # Folder, hub id (org/name or org/name@revision), s3://bucket/prefix or package:smollm2.
    name: str | None = None  # Value of the `model` column; unset: the last part of `model`.
    engine: dict[str, Any] = field(default_factory=dict)  # Arguments of vLLM's AsyncEngineArgs, e.g. max_model_len.
    sampling: dict[str, Any] = field(default_factory=dict)  # Fields of vLLM's SamplingParams, e.g. max_tokens.
    chat: bool = True  # Whether the model's chat template applies; false for base models.
    chat_template: str | None = None  # Jinja template that replaces the model's own.
    template_args: dict[str, Any] = field(default_factory=dict)  # Template arguments, e.g. {enable_thinking = false}.
    # vLLM's parser of the model's reasoning, e.g. "qwen3", "deepseek_r1" or "olmo3": it parts thinking from answer.
    reasoning_parser: str | None = later(None)
    lora: dict[str, str] = field(default_factory=dict)  # {name = ..., path = ...} of a LoRA adapter.
    batch_invariant: bool | None = None  # The same text in any batch; unset: yes on CPU, no on GPUs.
    num_cpus: float = 1.0  # CPU cores of a replica.
    num_gpus: float | None = None  # GPUs of a replica; unset: the product of its parallel sizes on GPUs, else 0.
    memory_gb: float = 0.0  # Memory of a replica in GB that Ray reserves; 0: none.
    kv_cache_gb: int = 2  # KV cache of a CPU engine in GiB.
    threads: int = 0  # Threads of a CPU engine; 0: one per core of num_cpus.
    max_in_flight: int | None = None  # Concurrent asks of a replica; unset: what its engine batches, and some more.
    env: dict[str, str] = field(default_factory=dict)  # Environment variables of the engine's process.

    def __post_init__(self) -> None:
        for key in self.sampling:
            if key not in SAMPLING:
                raise ValueError(f"sampling: unknown key '{key}'{nearest(key, SAMPLING)}")
        if "reasoning_parser" in self.engine:
            raise ValueError("engine.reasoning_parser: write reasoning_parser beside engine, not in it")
        if "reasoning_parser_plugin" in self.engine and not self.reasoning_parser:
            raise ValueError("engine.reasoning_parser_plugin needs reasoning_parser, a name in the plugin")
        if self.lora and set(self.lora) != {"name", "path"}:
            raise ValueError("lora has exactly the keys name and path")
        if (self.max_in_flight is not None and self.max_in_flight < 1) or self.kv_cache_gb < 1 or self.threads < 0:
            raise ValueError("max_in_flight and kv_cache_gb must be at least 1, threads at least 0")

    @property
    def short_name(self) -> str:
        return self.name or self.model.rstrip("/").rpartition("/")[2].removeprefix("package:")

    @property
    def fixed_slots(self) -> int | None:
        return self.max_in_flight

    @property
    def needs(self) -> Needs:
        """Resources of a replica. With the Ray executor, vLLM places its workers, and GPUs may be on several nodes."""
        parallel = 1
        for key in PARALLEL:
            parallel *= int(self.engine.get(key, 1))
        num_gpus = self.num_gpus if self.num_gpus is not None else float(parallel if on_gpu() else 0)
        threads = self.threads or max(1, int(self.num_cpus))
        env = {**environment(self.kv_cache_gb, threads, self._engine_of("").batch_invariant), **self.env}
        across_nodes = self.engine.get("distributed_executor_backend") == "ray" and num_gpus > 1
        return Needs(self.num_cpus, num_gpus, self.memory_gb, env, across_nodes=across_nodes)

    @property
    def is_repeatable(self) -> bool:
        """Whether a call gets the same text in any batch."""
        return self._engine_of("").batch_invariant

    @property
    def is_paid(self) -> bool:
        """Whether a call is paid by its tokens and may be answered otherwise another time."""
        return False

    @property
    def engine_key(self) -> str:
        """Names the engine: parts with the same key can take over each other's open engine."""
        return fingerprint(
            [self._parking_key, models.digest(self.model), self.lora and models.digest(self.lora["path"])]
        )

    @property
    def _parking_key(self) -> str:
        """The settings of the engine; sampling is of the calls."""
        of_calls = ("name", "sampling", "max_in_flight")
        names = [f.name for f in fields(ModelSpec) if f.name not in of_calls]
        return fingerprint({name: literals(getattr(self, name)) for name in names})

    def identity(self) -> dict[str, Any]:
        """Literals that change the replies of the model; never its location or placement."""
        return {
            "engine_revision": ENGINE_REVISION,
            "model": models.digest(self.model),
            "chat": [self.chat, self.chat_template, literals(self.template_args)],
            "lora": models.digest(self.lora["path"]) if self.lora else None,
            "batch_invariant": self.batch_invariant,
            "engine": self.engine_identity(),
            **({"reasoning_parser": self.reasoning_parser} if self.reasoning_parser else {}),
        }

    def engine_identity(self) -> dict[str, Any]:
        """The engine arguments that are identity, as literals.

        With `batch_invariant = true` the same bytes are promised, and tensor parallelism changes sums: it is identity.
        """
        placement = PLACEMENT - {"tensor_parallel_size"} if self.batch_invariant else PLACEMENT
        engine = {k: v for k, v in self.engine.items() if k not in placement}
        if engine.get("tensor_parallel_size") == 1:
            del engine["tensor_parallel_size"]  # as when it is not stated
        identity: dict[str, Any] = literals(engine)
        return identity

    def check(self) -> None:
        """Raise UserError when the model, the adapter or an engine argument does not exist. Starts nothing."""
        models.check(self.model)
        if self.lora:
            models.check(self.lora["path"])
        self._engine_of("").check()

    def check_form(self, form: AnswerForm) -> None:
        """Raise UserError for a structure that the engine's backend would refuse for every ask."""
        config = self.engine.get("structured_outputs_config")
        if not config or config.get("backend") == "guidance":
            check_structure(form)

    def open_engine(self, sampling: dict[str, Any], form: AnswerForm = FREE_TEXT) -> Engine:
        """A started engine that accepts `sampling`. Raises UserError when it does not accept it."""
        key = self._parking_key
        engine = parking.take(key)
        if not isinstance(engine, Engine):
            engine = self._engine_of(models.resolve(self.model))
            logger.info(f"starting vLLM on {self.short_name}")
            engine.open()
            engine.parking_key = key
        try:
            engine.check_sampling(sampling, form)
        except UserError:
            engine.close()
            raise
        return engine

    def _engine_of(self, model: str) -> Engine:
        args = dict(self.engine)
        revision = models.revision_of(self.model) if model else None
        if revision:
            args.setdefault("revision", revision)
        # Without a model this is only a check, which does not download an adapter from a bucket.
        lora = {**self.lora, "path": models.resolve(self.lora["path"])} if self.lora and model else {}
        return Engine(
            model,
            args,
            chat=self.chat,
            chat_template=self.chat_template,
            template_args=self.template_args,
            reasoning_parser=self.reasoning_parser,
            lora=lora,
            batch_invariant=self.batch_invariant,
            kv_cache_gb=self.kv_cache_gb,
            threads=self.threads,
        )
