"""The settings that `gristmill tune` measures: one change of the recipe's settings each.

In this order, each only where it can change the speed; `Proposal.notes` says why one is left out:

1. twice and half the GPUs of an engine (tensor_parallel_size), and two engines in one (data_parallel_size), where a
   node has so many; the speed is per GPU, since the others can hold replicas;
2. max_num_seqs twice, where the recipe has so many asks;
3. enable_prefix_caching the other way;
4. speculation by n-grams of the prompt (speculative_config);
5. on CPU, threads: all cores of the node, and half of them;
6. memory for the KV cache, where twice the slots would fill it: kv_cache_gb twice on CPU, gpu_memory_utilization 0.95;
7. max_num_batched_tokens twice, and half, where the prompts of a full batch need more than a step;
8. max_num_seqs half.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from gristmill.engines.served import ModelSpec
from gristmill.engines.sizes import EngineSizes
from gristmill.jobs.tune.halving import Candidate

NGRAMS = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4, "prompt_lookup_min": 2}
NO_SPECULATION = ("min_p", "logit_bias")  # sampling settings that vLLM refuses under speculation
MOST_GPU_MEMORY = 0.95
LEAST_SEQS = 8
MEMORY_SHARE = 0.5  # of a node's memory: the most for a KV cache on CPU


@dataclass(frozen=True)
class Measured:
    """What the first trial of the recipe's settings showed, and what the device has."""

    engine: EngineSizes
    tokens_in: float  # of a row, on average
    longest: int  # tokens of the longest row, prompt and answer
    num_asks: int | None  # of the recipe; None: no end
    is_gpu: bool
    num_cpus: int  # of the node
    num_gpus: int
    memory_gb: float


@dataclass
class Proposal:
    """Candidates in the order in which they are measured, and why other settings are not."""

    candidates: list[Candidate] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, **changes: Any) -> None:
        """A candidate; `engine_x` stands for an engine argument."""
        names = {(f"engine.{k[7:]}" if k.startswith("engine_") else k): v for k, v in changes.items()}
        self.candidates.append(Candidate(names))


def propose(spec: ModelSpec, sampling: dict[str, Any], measured: Measured) -> Proposal:
    """The candidates for a recipe, by the rule above. Pure: the same facts give the same candidates."""
    proposal = Proposal()
    engine = measured.engine
    seqs = engine.max_num_seqs
    if measured.is_gpu:
        _parallel(proposal, spec, measured)
    if measured.num_asks is not None and measured.num_asks < 2 * seqs:
        proposal.notes.append(f"max_num_seqs = {2 * seqs}: the recipe has only {measured.num_asks:,} asks")
    else:
        _slots(proposal, spec, 2 * seqs)
    proposal.add(engine_enable_prefix_caching=not engine.enable_prefix_caching)
    if "speculative_config" in spec.engine:
        proposal.notes.append("speculation: the recipe states its own speculative_config")
    elif refused := [name for name in NO_SPECULATION if sampling.get(name)]:
        proposal.notes.append(f"speculation: vLLM refuses sampling.{refused[0]} with it")
    else:
        proposal.add(engine_speculative_config=dict(NGRAMS))
    if not measured.is_gpu:
        now = spec.threads or max(1, int(spec.num_cpus))
        for threads in dict.fromkeys((measured.num_cpus, measured.num_cpus // 2)):
            if threads >= 1 and threads != now:
                proposal.add(threads=threads)
    _memory(proposal, spec, measured)
    _batched_tokens(proposal, measured)
    if seqs // 2 >= LEAST_SEQS:
        _slots(proposal, spec, seqs // 2)
    return proposal


def applied(spec: Any, candidate: Candidate) -> Any:
    """`spec` with the changes of a candidate."""
    engine = {k.removeprefix("engine."): v for k, v in candidate.changes.items() if k.startswith("engine.")}
    keys = {k: v for k, v in candidate.changes.items() if not k.startswith("engine.")}
    return dataclasses.replace(spec, engine={**spec.engine, **engine}, **keys)


def is_identity(spec: ModelSpec, candidate: Candidate) -> bool:
    """Whether the changes are part of the recipe's identity, so that they need another --out."""
    changed: ModelSpec = applied(spec, candidate)
    return changed.engine_identity() != spec.engine_identity()


def _slots(proposal: Proposal, spec: ModelSpec, seqs: int) -> None:
    if spec.max_in_flight is None:
        proposal.add(engine_max_num_seqs=seqs)
    else:
        proposal.add(engine_max_num_seqs=seqs, max_in_flight=seqs)  # the recipe's own bound would hide the change


def _parallel(proposal: Proposal, spec: ModelSpec, measured: Measured) -> None:
    if measured.num_gpus < 2:
        proposal.notes.append("parallel sizes: no node has two GPUs")
        return
    if spec.num_gpus is not None:
        proposal.notes.append("parallel sizes: the recipe states num_gpus")
        return
    tensor, data = int(spec.engine.get("tensor_parallel_size", 1)), int(spec.engine.get("data_parallel_size", 1))
    others = spec.needs.num_gpus / tensor
    if 2 * tensor * others <= measured.num_gpus:
        proposal.add(engine_tensor_parallel_size=2 * tensor)
    if tensor > 1:
        proposal.add(engine_tensor_parallel_size=tensor // 2)
    if data == 1 and 2 * spec.needs.num_gpus <= measured.num_gpus:
        proposal.add(engine_data_parallel_size=2)


def _memory(proposal: Proposal, spec: ModelSpec, measured: Measured) -> None:
    engine = measured.engine
    wanted = 2 * engine.max_num_seqs * measured.longest
    if engine.kv_cache_tokens >= wanted:
        proposal.notes.append(
            f"memory: the KV cache of {engine.kv_cache_tokens:,} tokens holds twice the slots with the longest row "
            f"({measured.longest:,} tokens)"
        )
    elif measured.is_gpu:
        if engine.gpu_memory_utilization < MOST_GPU_MEMORY:
            proposal.add(engine_gpu_memory_utilization=MOST_GPU_MEMORY)
    elif 2 * spec.kv_cache_gb <= MEMORY_SHARE * measured.memory_gb:
        proposal.add(kv_cache_gb=2 * spec.kv_cache_gb)
    else:
        proposal.notes.append(f"memory: the node has no room for a KV cache of {2 * spec.kv_cache_gb} GiB")


def _batched_tokens(proposal: Proposal, measured: Measured) -> None:
    engine = measured.engine
    prompts = measured.tokens_in * engine.max_num_seqs
    tokens = engine.max_num_batched_tokens
    if prompts > tokens:
        proposal.add(engine_max_num_batched_tokens=2 * tokens)
    if prompts > tokens / 2 and tokens / 2 >= max(engine.max_model_len, engine.max_num_seqs):
        proposal.add(engine_max_num_batched_tokens=tokens // 2)
    if prompts <= tokens / 2:
        proposal.notes.append(
            f"max_num_batched_tokens: a step of {tokens:,} tokens takes the prompts of a full batch ({prompts:,.0f})"
        )
