"""Every kind of stage takes time linear in a row's text, whatever the text, and no text ends a run."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from gristmill.records.spec import build
from gristmill.stages.admission.contract import Admission
from gristmill.stages.contract import Stage
from gristmill.stages.filters.pii_secrets import PLUGINS, finder_of
from gristmill.stages.judging.answers import read_scores
from gristmill.stages.registry import KINDS, stage_class
from tests.long_texts import GENERAL, LONG, SHORT, Attack, Sizes, attacks_on, slowness
from tests.stages.test_contract import ANSWERS, TABLES, batch_of, opened, run
from tests.test_expressions import expressions

# Kinds that are not timed, and why.
EXCLUDED = {
    "classifier": "reads images",
    "dedup_image": "reads images",
    "execute": "runs the text in the sandbox, under its limits; tests/records/test_fences.py times its fences",
}
# Kinds that run a transformer over the whole text: linear, but hours for a text of a megabyte. What they do with a text
# before that is timed in tests/stages/decontaminate/test_paragraphs.py.
BY_MODEL = {"decontaminate_embedding", "dedup_semantic"}
MODEL_SIZES = Sizes((250, 2_000), 1.0)
SECONDS_PER_MB = {"pii": 150.0}  # phonenumbers tries runs of digits in several forms, for each region
NO_ALGEBRA = {"answer": {"column": "text", "reference": "finish", "math": False}}  # algebra reads 500 characters
TIMED = sorted(set(KINDS) - set(EXCLUDED))


def stage_of(kind: str) -> Stage:
    if kind not in NO_ALGEBRA:
        return opened(kind)
    cls = stage_class(kind)
    return cls(build(cls.Spec, NO_ALGEBRA[kind], "stages[0]"))


def calls(kind: str) -> list[Callable[[str], Any]]:
    """What a stage of the kind does with a text: as a row's text, and for some kinds in other places."""
    stage = stage_of(kind)

    def as_row(text: str) -> None:
        batch = batch_of([(text, text[:100_000], None)])
        run(stage, batch)

    def as_samples(text: str) -> None:
        samples = [text, f"{text}.", None, *text.split()]
        batch = batch_of([("", "stop", None)])
        at = batch.schema.get_field_index(ANSWERS.name)
        run(stage, batch.set_column(at, ANSWERS, pa.array([samples], ANSWERS.type)))

    def at_commit(text: str) -> None:
        assert isinstance(stage, Admission)
        book = stage.new_book()
        for ask in range(2):
            [offer] = stage.offers(batch_of([(text, "stop", None)]))
            book.judge(offer, ask)
            book.admit(offer, ask)

    if kind == "consistency":
        return [as_row, as_samples]
    if kind == "judge":
        return [as_row, lambda text: read_scores(text, ["score"], 1, 5)]
    return [as_row, at_commit] if isinstance(stage, Admission) and kind == "novelty" else [as_row]


def fault_of(kind: str, attacks: list[Attack], sizes: Sizes) -> str | None:
    limit = SECONDS_PER_MB.get(kind, 10.0)
    faults = (slowness(call, attack, sizes, limit) for call in calls(kind) for attack in attacks)
    return next((fault for fault in faults if fault), None)


def all_attacks() -> list[Attack]:
    """The general attacks, and those on every expression of the package."""
    patterns = [p for found, _ in expressions().values() for p in found]
    return list(dict.fromkeys([*GENERAL, *(attack for pattern in patterns for attack in attacks_on(pattern)[:40])]))


def test_limits_of_length_are_reasons() -> None:
    novelty = opened("novelty")
    assert isinstance(novelty, Admission)
    book = novelty.new_book()
    for num_words, reason in ((4096, None), (4097, "too_long")):
        [offer] = novelty.offers(batch_of([("word " * num_words, "stop", None)]))
        assert book.judge(offer, 0).reason == reason
    consistency = opened("consistency")
    batch = batch_of([("", "0", None)])
    at = batch.schema.get_field_index(ANSWERS.name)
    for num_answers, reject in ((256, "share"), (257, "too_many_answers")):
        samples = pa.array([[str(number) for number in range(num_answers)]], ANSWERS.type)
        row = run(consistency, batch.set_column(at, ANSWERS, samples)).to_pylist()[0]
        assert row["reject"] == f"{consistency.name}:{reject}"


def test_every_kind_is_timed_or_excluded_with_a_reason() -> None:
    assert set(TIMED) | set(EXCLUDED) == set(KINDS) == set(TABLES)


@pytest.mark.parametrize("kind", sorted(set(TIMED) - BY_MODEL))
def test_time_grows_with_the_text_alone(kind: str) -> None:
    calls(kind)[0]("compile the kernels and load the models before")
    assert fault_of(kind, list(GENERAL), SHORT) is None


@pytest.mark.nightly
@pytest.mark.parametrize("kind", sorted(BY_MODEL))
def test_time_of_a_model_grows_with_the_text_alone(kind: str) -> None:
    calls(kind)[0]("compile the kernels and load the models before")
    assert fault_of(kind, list(GENERAL), MODEL_SIZES) is None


@pytest.mark.nightly
@pytest.mark.parametrize("kind", sorted(set(TIMED) - BY_MODEL))
def test_a_megabyte_of_anything_takes_seconds(kind: str) -> None:
    calls(kind)[0]("compile the kernels and load the models before")
    assert fault_of(kind, list(GENERAL), LONG) is None
    assert fault_of(kind, all_attacks(), SHORT) is None


@pytest.mark.parametrize("module", [plugin.partition(".")[0] for plugin in PLUGINS])
def test_the_finders_of_secrets_are_linear(module: str) -> None:
    from importlib import import_module

    name = next(plugin.partition(".")[2] for plugin in PLUGINS if plugin.startswith(f"{module}."))
    for pattern in getattr(import_module(f"detect_secrets.plugins.{module}"), name)().denylist:
        finder = finder_of(module, pattern)
        for attack in attacks_on(pattern):
            assert slowness(lambda text, finder=finder: list(finder(text)), attack, SHORT) is None  # type: ignore[misc]


@pytest.mark.parametrize("opening", ["[", '{"a":', "{", "(", "\\frac{", "\\boxed{", "-", "```json\n["])
@pytest.mark.parametrize("kind", sorted(set(TIMED) - BY_MODEL))
def test_deep_nesting_judges_the_row(kind: str, opening: str) -> None:
    closing = {"[": "]", "{": "}", "(": ")", ":": "}"}.get(opening[-1], "")
    for call in calls(kind):
        for depth in (900, 990, 5_000, 100_000):
            call(opening * depth + "1" + closing * depth)


@pytest.mark.parametrize(
    "number", ["1" * 5_000, "1e999999999", "-1e-999999999", "1/" + "9" * 5_000, "0." + "3" * 9_000]
)
@pytest.mark.parametrize("kind", ["answer", "consistency", "json_schema", "judge", "novelty", "pii"])
def test_numbers_of_any_size_judge_the_row(kind: str, number: str) -> None:
    for text in (number, f"The answer is {number}.", f"\\boxed{{{number}}}", f'{{"a": {number}}}'):
        assert all(slowness(call, Attack("", text), Sizes((len(text),), 1.0)) is None for call in calls(kind))
