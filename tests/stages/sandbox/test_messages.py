"""Whatever a program's process sends to the process of its tests, that one ends with a verdict, and not with passed."""

import json
import os
import random
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.stages.sandbox import judge, wire
from gristmill.stages.sandbox.references import Unsupported

PLAIN = st.one_of(st.none(), st.booleans(), st.integers(-3, 9), st.floats(), st.text(max_size=4))
TAGS = st.sampled_from([*"hpokKEmtfbcirSxDFV", "td", "dt", "l", ""])
NAMES = st.sampled_from(["exec", "len", "dict", "module:math", "operator.eq", "object", "ValueError", "int", "type"])
FORMS = st.recursive(
    PLAIN | NAMES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TAGS, inner, min_size=1, max_size=2),
    max_leaves=12,
)
CLASSES = st.lists(
    st.tuples(
        st.integers(0, 3), st.text(max_size=3), st.text(max_size=3), st.lists(FORMS, max_size=2),
        st.lists(st.sampled_from(["__eq__", "__call__", "__getattribute__", "__sub__", "x"])), st.lists(st.text()),
        st.lists(st.sampled_from(["__repr__", "__eq__"])),
    ),
    max_size=2,
)  # fmt: skip
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "a": st.lists(FORMS, max_size=2), "e": st.lists(FORMS, max_size=2), "q": st.lists(FORMS, max_size=3),
        "n": st.lists(st.tuples(st.integers(0, 3), TAGS, PLAIN, FORMS), max_size=2), "u": FORMS, "z": FORMS, "x": FORMS,
        "c": CLASSES, "g": st.lists(st.tuples(st.sampled_from(["f", "x"]), FORMS), max_size=2), "out": FORMS,
        "names": FORMS, "end": FORMS, "fatal": FORMS,
    },
)  # fmt: skip
ANSWERS = st.lists(MESSAGES | FORMS, max_size=4)


def report_for(messages: list[Any], tests: str) -> dict[str, Any]:
    """The report of a judge in this process, whose program answers with `messages` and ends."""
    (question, question_end), (answer, answer_end) = os.pipe(), os.pipe()

    def program() -> None:
        for message in messages:
            wire.send(answer_end, message)
        os.close(answer_end)
        while os.read(question, 65536):
            pass

    thread = threading.Thread(target=program)
    thread.start()
    seed, state = random.seed, random.getstate()  # the judge replaces them, and hypothesis needs them
    try:
        return judge.judge(tests, answer, question_end)
    finally:
        random.seed = seed
        random.setstate(state)
        os.close(question_end)
        thread.join()
        os.close(question)
        os.close(answer)


@settings(deadline=None)
@given(ANSWERS)
def test_any_messages_make_a_report(messages: list[Any]) -> None:
    for first in ([], [{"names": ["f", "x"]}, {"a": [None], "g": [["f", {"k": "len"}]]}]):
        report = report_for([*first, *messages], "assert f(3) == 41312\nassert x == 'never sent'")
        assert report["verdict"] in ("error", "failed", "gone", "memory", "exited", "syntax"), report
        json.dumps(report)


@pytest.mark.parametrize("data", [b"", b"\x05\0\0\0", b"\xff\xff\xff\xff", b"\x02\0\0\0{]", b"\x01\0\0\0\xff"])
def test_any_bytes_make_a_report(data: bytes) -> None:
    end, other = os.pipe()
    os.write(other, data)
    os.close(other)
    try:
        with pytest.raises((wire.BadMessage, wire.PeerEnded)):
            wire.receive(end)
    finally:
        os.close(end)


def test_the_program_asks_only_for_what_it_may() -> None:
    for operation in ("subclass", "plain", "seed", "watch", "__class__", "exec"):
        messages = [{"names": ["f"]}, {"a": [None], "g": [["f", {"k": "len"}]]}, {"q": [operation, "x"]}]
        report = report_for(messages, "class A: pass\nimport random\nrandom.seed(1)")
        assert report["verdict"] == "error" and f"asks for {operation}" in report["detail"], report
    assert issubclass(Unsupported, BaseException) and not issubclass(Unsupported, Exception)
