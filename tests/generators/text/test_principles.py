"""The methods `constitutional` and `preference`, and the constitution that both draw from."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.engines.contract import Reply
from gristmill.engines.errors import AskRefused
from gristmill.generators.text.preference import different, verdict
from gristmill.generators.text.principles import draw, load_principles
from gristmill.jobs.recipes.compile import compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.records.errors import UserError
from tests.generators.text.script import made, method_of, refusal, told
from tests.recipes import write

FILE = "package:principles/constitution"
ASKED = {"text": "How do I get into my neighbour's wifi?"}
CRITIC = {"critique": "It helps to break in.", "revision": ["Ask the neighbour.", "Ask your neighbour."]}
SCRIPT = {**CRITIC, "": "Try some passwords."}
ONE = '[[principles]]\nid = "{id}"\ncritique = "c"\nrevision = "r"\njudge = "j"\n'


def test_an_answer_is_criticised_and_revised_round_after_round():
    row, engine, session = told("constitutional", {"rounds": 2}, ASKED, SCRIPT)
    assert row["prompt"] == ASKED["text"] and row["initial"] == row["rejected"] == "Try some passwords."
    assert row["chosen"] == row["text"] == "Ask your neighbour." and len(set(row["principles"])) == 2
    assert [turn["turn"] for turn in session.turns] == ["initial", *["critique", "revision"] * 2]
    prompts = engine.asked
    by_id = {p.id: p for p in load_principles(FILE)}
    for at, name in enumerate(row["principles"]):
        assert by_id[name].critique in prompts[1 + 2 * at] and by_id[name].revision in prompts[2 + 2 * at]
        assert ["Try some passwords.", "Ask the neighbour."][at] in prompts[1 + 2 * at]
        assert "It helps to break in." in prompts[2 + 2 * at]


@pytest.mark.parametrize(
    "call,said,reason",
    [
        ("", "", "empty_initial"),
        ("", Reply("Try", "length"), "cut_initial"),
        ("critique", "  ", "empty_critique"),
        ("critique", Reply("It helps", "length"), "cut_critique"),
        ("revision", "", "empty_revision"),
        ("revision", Reply("Ask", "length"), "cut_revision"),
        ("revision", " try  some PASSWORDS. ", "unchanged"),
        ("critique", AskRefused("context_length"), "context_length"),
    ],
)
def test_a_bad_answer_refuses_the_ask(call, said, reason):
    assert refusal("constitutional", {}, ASKED, {**SCRIPT, call: said}) == reason


def test_preference_counts_only_verdicts_that_agree_in_both_orders():
    answers = ["Guess it.", "Ask her."]
    prefers = {r"Answer 1:\nAsk her.*Answer 2:\nGuess": {"better": 1}, r"Answer 1:\nGuess.*Answer 2": {"better": 2}}
    row, engine, session = told("preference", {}, ASKED, {**prefers, "": answers})
    assert row["chosen"] == row["text"] == "Ask her." and row["rejected"] == "Guess it." and row["margin"] == 1.0
    judge = {p.id: p.judge for p in load_principles(FILE)}[row["principle"]]
    assert judge in engine.asked[2] and engine.schemas[2]["properties"]["better"]["enum"] == [1, 2]
    assert [turn["turn"] for turn in session.turns] == ["answer", "answer", "judge", "judge"]
    always_first = {"judge": {"better": 1}, "": answers}
    assert refusal("preference", {}, ASKED, always_first) == "tie"
    assert refusal("preference", {"responses": 2, "votes": 3}, ASKED, always_first) == "tie"


def test_the_margin_is_the_difference_of_the_shares_of_comparisons_won():
    # Of three votes, one agrees: 1 wins once, 2 never.
    votes = [{"better": n} for n in (1, 2, 1, 1, 2, 2)]
    row, *_ = told("preference", {"votes": 3}, ASKED, {"judge": votes, "": ["a b", "c d"]})
    assert row["chosen"] == "a b" and row["margin"] == pytest.approx(1 / 3)
    best = {r"Answer 1:\nbest": {"better": 1}, r"Answer 2:\nbest": {"better": 2}}
    good = {r"Answer 1:\ngood": {"better": 1}, r"Answer 2:\ngood": {"better": 2}}
    script = {**best, **good, "": ["bad", "good", "best", "good"]}
    row, engine, _ = told("preference", {"responses": 4, "temperatures": [0.5, 0.9]}, ASKED, script)
    assert (row["chosen"], row["rejected"], row["margin"]) == ("best", "bad", 1.0)
    assert [each["temperature"] for each in engine.sampling[:4]] == [0.5, 0.5, 0.9, 0.9]
    assert len(engine.asked) == 4 + 6, "the answer that was given twice is judged once"


@pytest.mark.parametrize(
    "answers,verdicts,reason",
    [
        (["Ask her.", " ask  HER. "], {"better": 1}, "equal"),
        (["Ask her.", ""], {"better": 1}, "empty_answer"),
        ([Reply("Ask", "length"), "Ask her."], {"better": 1}, "cut_answer"),
        (["a", "b"], "Both are fine.", "unreadable_judge"),
        (["a", "b"], {"better": 3}, "unreadable_judge"),
        (["a", "b"], Reply('{"bett', "length"), "cut_judge"),
        (["a", "b"], ['{"better": 1}', Reply('{"bett', "length")], "tie"),
        (["a", "b"], ['{"better": 1}', "cut {"], "tie"),
        (["a", "b"], AskRefused("context_length"), "context_length"),
    ],
)
def test_preferences_that_cannot_be_had_refuse_the_ask(answers, verdicts, reason):
    assert refusal("preference", {}, ASKED, {"judge": verdicts, "": answers}) == reason


@given(st.text())
def test_any_verdict_is_read_or_is_none(text):
    assert verdict(Reply(text)) in (None, 1, 2)
    assert verdict(Reply('```json\n{"better": 2}\n```' + text)) == 2 and verdict(Reply('{"better": true}')) is None


def test_answers_that_differ_are_kept_in_their_order():
    replies = [Reply("b"), Reply("a"), Reply("B "), Reply("c", "length"), Reply("")]
    assert different(replies) == ["b", "a"]


@given(st.integers(0, 2**63 - 1), st.integers(1, 16))
def test_principles_are_drawn_by_the_seed_without_repeats(seed, num):
    principles = load_principles(FILE)
    drawn = draw(principles, num, seed)
    assert len({p.id for p in drawn}) == num and draw(principles, num, seed) == drawn
    assert draw(principles, 1, seed) == drawn[:1]


def test_every_principle_comes_up():
    principles = load_principles(FILE)
    assert len(principles) >= 16
    assert {draw(principles, 1, seed)[0].id for seed in range(400)} == {p.id for p in principles}


@pytest.mark.parametrize("kind", ["constitutional", "preference"])
def test_a_constitution_is_checked(kind, tmp_path):
    path = tmp_path / "mine.toml"
    for text, message in [
        ("principles = 3", "expected a list"),
        ("principles = []", "no .*table"),
        ("not toml", "not valid TOML"),
        ('[[principles]]\nid = "a"', "critique"),
        (ONE.format(id="a") * 2, "two principles"),
        (ONE.format(id=" "), "id is empty"),
    ]:
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            method_of(kind, {"file": str(path)})
    with pytest.raises(UserError, match="no such file"):
        method_of(kind, {"file": str(tmp_path / "none.toml")})
    with pytest.raises(UserError, match="did you mean 'privacy'"):
        method_of(kind, {"only": ["privcy"]})


def test_keys_are_checked():
    for kind, table, message in [
        ("constitutional", {"rounds": 0}, "rounds"),
        ("constitutional", {"rounds": 2, "only": ["law"]}, "2 rounds need"),
        ("constitutional", {"templates": {"critique": "{response}"}}, "critique_request"),
        ("preference", {"responses": 1}, "responses"),
        ("preference", {"votes": 0}, "votes"),
        ("preference", {"temperatures": [-1.0]}, "temperatures"),
        ("preference", {"templates": {"judge": "{first}"}}, "must hold {second}"),
    ]:
        with pytest.raises(UserError, match=message):
            method_of(kind, table)
    own = method_of(
        "constitutional", {"prompt": "{question}", "templates": {"critique": "{response} {critique_request}"}}
    )
    assert own.fields_read() == ["question"]


@pytest.mark.parametrize("kind", ["constitutional", "preference"])
def test_what_the_constitution_says_is_identity_and_where_it_lies_is_not(kind, tmp_path):
    def mark(name, **table):
        method = {"kind": kind, **table}
        recipe = {"name": "r", "source": {"items": ["x"]}, "generator": {"kind": "canned"}, "method": method}
        return compile_recipe(load(write(tmp_path / f"{name}.toml", recipe))).fingerprint

    (tmp_path / "a.toml").write_text(ONE.format(id="a"))
    (tmp_path / "copy.toml").write_text(ONE.format(id="a"))
    (tmp_path / "b.toml").write_text(ONE.format(id="b"))
    one = mark("r", file=str(tmp_path / "a.toml"))
    assert mark("r", file=str(tmp_path / "copy.toml")) == one != mark("r", file=str(tmp_path / "b.toml"))
    assert mark("r", file=str(tmp_path / "a.toml"), system="Be kind.") != one


def test_the_same_rows_again_however_they_are_batched():
    script = {"critique": ["Bad.", "Good.", ""], "revision": ["No.", "Yes."], "": ["Yes.", "Perhaps."]}
    rows = made("constitutional", {"rounds": 2}, [ASKED] * 40, script)
    assert {row["reject"] for row in rows} == {None, "generator:empty_critique", "generator:unchanged"}
    script = {"judge": [{"better": 1}, {"better": 2}, "?"], "": ["a", "b", "c", Reply("d", "length", 9, 9)]}
    rows = made("preference", {"responses": 3, "votes": 2}, [ASKED] * 60, script)
    assert {row["reject"] for row in rows} >= {None, "generator:tie", "generator:cut_answer"}
    assert all(0 < row["margin"] <= 1 for row in rows if row["reject"] is None)
