"""Which settings are measured for a recipe, and which of them are part of its identity."""

import dataclasses
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gristmill.engines.sizes import EngineSizes
from gristmill.generators.teacher import TeacherSpec
from gristmill.jobs.tune.candidates import Measured, applied, is_identity, propose

FACTS = EngineSizes(64, 2048, True, 512, 93_184, 0.9)
CPU = Measured(FACTS, 40.0, 200, 320, False, 2, 0, 16.0)
GPU = Measured(
    EngineSizes(1024, 16384, True, 4096, 400_000, 0.9), 300.0, 900, None, is_gpu=True, num_cpus=64, num_gpus=8,
    memory_gb=512.0,
)  # fmt: skip
SPEC = TeacherSpec("m", engine={"max_num_seqs": 64}, num_gpus=None, threads=2)


def changes(measured: Measured, spec: TeacherSpec = SPEC, **sampling: Any) -> list[dict[str, Any]]:
    return [dict(candidate.changes) for candidate in propose(spec, sampling, measured).candidates]


def test_a_small_cpu_machine() -> None:
    keys = [key for change in changes(CPU) for key in change]
    assert keys == [
        *("engine.max_num_seqs", "engine.enable_prefix_caching", "engine.speculative_config"),
        *("threads", "engine.max_num_batched_tokens", "engine.max_num_batched_tokens", "engine.max_num_seqs"),
    ]
    assert {"engine.enable_prefix_caching": False} in changes(CPU) and {"threads": 1} in changes(CPU)


def test_what_cannot_help_is_left_out_with_its_reason() -> None:
    proposal = propose(SPEC, {"min_p": 0.05}, dataclasses.replace(CPU, num_asks=100, tokens_in=5.0))
    notes = " / ".join(proposal.notes)
    for words in ("only 100 asks", "sampling.min_p", "93,184 tokens", "prompts of a full batch (320)"):
        assert words in notes
    keys = {key for candidate in proposal.candidates for key in candidate.changes}
    assert keys == {"engine.enable_prefix_caching", "threads", "engine.max_num_seqs"}


def test_memory_is_tried_where_it_is_short() -> None:
    short = dataclasses.replace(CPU, longest=2000)
    assert {"kv_cache_gb": 4} in changes(short)
    assert not [c for c in changes(dataclasses.replace(short, memory_gb=6.0)) if "kv_cache_gb" in c]
    assert {"engine.gpu_memory_utilization": 0.95} in changes(GPU)


def test_parallel_sizes_where_a_node_has_gpus(monkeypatch) -> None:
    monkeypatch.setattr("gristmill.engines.served.on_gpu", lambda: True)
    spec = TeacherSpec("m", engine={"tensor_parallel_size": 2})
    assert changes(GPU, spec)[:3] == [
        {"engine.tensor_parallel_size": 4},
        {"engine.tensor_parallel_size": 1},
        {"engine.data_parallel_size": 2},
    ]
    assert applied(spec, propose(spec, {}, GPU).candidates[0]).needs.num_gpus == 4
    one = propose(spec, {}, dataclasses.replace(GPU, num_gpus=1))
    assert "parallel sizes: no node has two GPUs" in one.notes
    exact = TeacherSpec("m", engine={"tensor_parallel_size": 2}, batch_invariant=True)
    assert [is_identity(exact, c) for c in propose(exact, {}, GPU).candidates[:3]] == [True, True, False]


@given(
    st.builds(
        Measured,
        st.builds(
            EngineSizes,
            st.integers(1, 2048),
            st.integers(64, 65536),
            st.booleans(),
            st.integers(16, 65536),
            st.integers(0, 10**7),
            st.sampled_from([0.5, 0.9, 0.95]),
        ),
        st.floats(0, 1e5),
        st.integers(0, 10**5),
        st.none() | st.integers(1, 10**4),
        st.booleans(),
        st.integers(1, 256),
        st.integers(0, 8),
        st.floats(1, 2000),
    ),
    st.none() | st.integers(1, 512),
)
def test_each_candidate_is_a_change_and_only_speculation_is_identity(measured: Measured, in_flight: int | None) -> None:
    spec = dataclasses.replace(SPEC, max_in_flight=in_flight)
    proposal = propose(spec, {}, measured)
    names = [candidate.name for candidate in proposal.candidates]
    assert len(set(names)) == len(names) and len(names) <= 12
    for candidate in proposal.candidates:
        assert applied(spec, candidate) != spec
        assert is_identity(spec, candidate) == ("engine.speculative_config" in candidate.changes)
