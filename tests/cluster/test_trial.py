"""Why an engine did not start, from what its processes wrote."""

from gristmill.cluster.trial import reason

LOG = """\
(EngineCore pid=12) INFO starting
(EngineCore pid=12) Traceback (most recent call last):
(EngineCore pid=12)   File "x.py", line 3, in f
(EngineCore pid=12) ValueError: To serve at least one request, 2.1 GiB KV cache is needed
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""
WRAPPED = RuntimeError("Engine core initialization failed. See root cause above.\nFailed core proc(s): {}")


def test_the_root_cause_is_named() -> None:
    assert reason(LOG, WRAPPED) == "ValueError: To serve at least one request, 2.1 GiB KV cache is needed"


def test_an_error_of_this_process_is_its_own_reason() -> None:
    assert reason(LOG, ValueError("max_num_batched_tokens\n(64) is smaller")) == (
        "ValueError: max_num_batched_tokens; (64) is smaller"
    )


def test_without_a_trace_the_wrapper_is_shown() -> None:
    assert reason("", WRAPPED).startswith("RuntimeError: Engine core initialization failed")
