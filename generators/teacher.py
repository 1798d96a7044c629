"""The vLLM teacher: any text method with a real model behind it."""

import sys
from dataclasses import dataclass, field
from typing import Any

from generators import models
from generators.contract import Needs
from generators.text.contract import ChatEngine, Method
from generators.text.generator import TextGenerator
from records.errors import UserError
from records.spec import literals, nearest
from stages.engine import Engine, environment, on_gpu

# Settings that shape the text. What makes several texts (n), what the wrapper sets itself (seed, output_kind) and
# what only adds to the reply (logprobs) is left out.
SAMPLING = frozenset(
    "temperature top_p top_k min_p max_tokens min_tokens repetition_penalty presence_penalty frequency_penalty stop "
    "stop_token_ids include_stop_str_in_output bad_words ignore_eos logit_bias allowed_token_ids skip_special_tokens "
    "spaces_between_special_tokens".split()
)

# Engine arguments that say how and where the engine runs, not what it writes.
PLACEMENT = frozenset(
    "tensor_parallel_size pipeline_parallel_size data_parallel_size distributed_executor_backend "
    "gpu_memory_utilization kv_cache_memory_bytes num_gpu_blocks_override max_num_seqs "
    "max_num_batched_tokens max_num_scheduled_tokens swap_space cpu_offload_gb kv_offloading_size "
    "enforce_eager enable_prefix_caching enable_chunked_prefill async_scheduling block_size "
    "compilation_config download_dir load_format safetensors_load_strategy disable_log_stats "
    "enable_log_requests max_parallel_loading_workers disable_custom_all_reduce hf_token stream_interval "
    "use_tqdm_on_load".split()
)


@dataclass(frozen=True)
class TeacherSpec:
    """Which model, how it samples, and what one replica takes.

    model: a folder, a hub id (org/name or org/name@revision), s3://bucket/prefix or package:smollm2.
    name: what the `model` column says; the model's own name unless given.
    engine: arguments of vLLM's AsyncEngineArgs (dtype, quantization, max_model_len, tensor_parallel_size, ...).
    sampling: fields of vLLM's SamplingParams; max_tokens is 1024 unless given.
    chat: False for base models, which get the prompt as it is. template_args: e.g. {enable_thinking = false}.
    json_schema: every answer is an object of this JSON schema.
    lora: {name = ..., path = ...} of an adapter.
    batch_invariant: the same text in any batch; unless given, yes on CPU and no on GPUs.
    num_gpus: unless given, the parallel sizes' product where the installed vLLM runs on GPUs, else 0.
    kv_cache_gb, threads: of a CPU engine. max_in_flight: asks of a replica under way at once.
    """

    model: str
    name: str | None = None
    engine: dict[str, Any] = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)
    chat: bool = True
    chat_template: str | None = None
    template_args: dict[str, Any] = field(default_factory=dict)
    json_schema: dict[str, Any] | None = None
    lora: dict[str, str] = field(default_factory=dict)
    batch_invariant: bool | None = None
    num_cpus: float = 1.0
    num_gpus: float | None = None
    memory_gb: float = 0.0
    kv_cache_gb: int = 2
    threads: int = 0
    max_in_flight: int = 256
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in self.sampling:
            if key not in SAMPLING:
                raise ValueError(f"sampling: unknown key '{key}'{nearest(key, SAMPLING)}")
        if self.lora and set(self.lora) != {"name", "path"}:
            raise ValueError("lora needs the keys name and path, and no other")
        if self.max_in_flight < 1 or self.kv_cache_gb < 1 or self.threads < 0:
            raise ValueError("max_in_flight and kv_cache_gb must be at least 1, threads at least 0")


class Teacher(TextGenerator):
    """A vLLM engine behind a text method; one engine per replica."""

    kind = "teacher"
    Spec = TeacherSpec
    spec: TeacherSpec

    def __init__(self, spec: TeacherSpec, method: Method) -> None:
        super().__init__(spec, method)
        self.sampling = {"max_tokens": 1024, **spec.sampling}
        self.json_schema = spec.json_schema
        self.max_in_flight = spec.max_in_flight

    @property
    def model(self) -> str | None:
        return self.spec.name or self.spec.model.rstrip("/").rpartition("/")[2].removeprefix("package:")

    @property
    def needs(self) -> Needs:
        spec = self.spec
        parallel = 1
        for key in ("tensor_parallel_size", "pipeline_parallel_size"):
            parallel *= int(spec.engine.get(key, 1))
        num_gpus = spec.num_gpus if spec.num_gpus is not None else float(parallel if on_gpu() else 0)
        threads = spec.threads or max(1, int(spec.num_cpus))
        env = {**environment(spec.kv_cache_gb, threads, self._engine_of("").batch_invariant), **spec.env}
        return Needs(num_cpus=spec.num_cpus, num_gpus=num_gpus, memory_gb=spec.memory_gb, env=env)

    def identity(self) -> dict[str, Any]:
        spec = self.spec
        return {
            **super().identity(),
            "model": models.digest(spec.model),
            "sampling": literals(self.sampling),
            "chat": [spec.chat, spec.chat_template, literals(spec.template_args)],
            "json_schema": literals(spec.json_schema),
            "lora": models.digest(spec.lora["path"]) if spec.lora else None,
            "batch_invariant": spec.batch_invariant,
            "engine": literals({k: v for k, v in spec.engine.items() if k not in PLACEMENT}),
        }

    def check(self) -> None:
        models.check(self.spec.model)
        if self.spec.lora:
            models.check(self.spec.lora["path"])
        self._engine_of("").check()

    def open_engine(self) -> ChatEngine:
        engine = self._engine_of(models.resolve(self.spec.model))
        print(f"teacher: starting vLLM on {self.model}", file=sys.stderr, flush=True)
        engine.open()
        try:
            engine.check_sampling(self.sampling, self.json_schema)
        except UserError:
            engine.close()
            raise
        return engine

    def close(self) -> None:
        engine, self._engine = self._engine, None
        if isinstance(engine, Engine):
            engine.close()

    def _engine_of(self, model: str) -> Engine:
        spec = self.spec
        args = dict(spec.engine)
        revision = models.split_revision(spec.model)[1] if models.where(spec.model) == "hub" else None
        if revision:
            args.setdefault("revision", revision)
        # Without a model this is a check only, and an adapter in a bucket is not downloaded for that.
        lora = {**spec.lora, "path": models.resolve(spec.lora["path"])} if spec.lora and model else {}
        return Engine(
            model,
            args,
            chat=spec.chat,
            chat_template=spec.chat_template,
            template_args=spec.template_args,
            lora=lora,
            batch_invariant=spec.batch_invariant,
            kv_cache_gb=spec.kv_cache_gb,
            threads=spec.threads,
        )
