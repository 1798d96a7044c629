"""Personas: the stated marginals and conditional shares, nothing impossible, and no rare pair of a table."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare

from gristmill.records.errors import UserError
from gristmill.records.functions.draws import Draws
from gristmill.records.personas.fitting import chow_liu
from gristmill.records.personas.network import Network
from gristmill.records.personas.rows import PersonaRows, PersonaRowsSpec
from gristmill.records.readers.sources import SourceSpec, open_source
from gristmill.records.spec import build

SENTENCE = "A {age}-year-old {job} from {city}."
FILE = """
personas = ["A {age}-year-old {job}."]
[[attributes]]
name = "age"
values = ["10-17", "18-29"]
weights = [1, 3]
[[attributes]]
name = "job"
parent = "age"
values = ["pupil", "doctor"]
weights = { "10-17" = [1, 0], "*" = [1, 1] }
phrases = { doctor = "person who treats the sick" }
"""


def made(**keys: Any) -> PersonaRows:
    return PersonaRows(build(PersonaRowsSpec, keys, "source (personas)"))


def rows(function: PersonaRows, count: int, seed: int = 0) -> list[dict[str, Any]]:
    return [function.row(number, Draws(seed, number)) for number in range(count)]


def shares(network: Network, name: str, parent_place: int = 0) -> dict[Any, float]:
    attribute = next(each for each in network.attributes if each.name == name)
    single = np.diff([0, *attribute.weights[parent_place]])
    return dict(zip(attribute.values, single / single.sum()))


def agrees(counts: Counter[Any], expected: dict[Any, float]) -> bool:
    total = sum(counts.values())
    held = {value: share for value, share in expected.items() if share}
    assert set(counts) <= set(held)
    return bool(chisquare([counts[v] for v in held], [total * s for s in held.values()]).pvalue > 0.001)


def test_the_shipped_personas_have_the_published_shares() -> None:
    function = made()
    drawn = rows(function, 8000)
    bands = {span: Counter[Any]() for span in function.network.attributes[0].values}

    def band(age: int) -> Any:
        return next(span for span in bands if span[0] <= age <= span[1])

    assert agrees(Counter(band(row["age"]) for row in drawn), shares(function.network, "age"))
    for place, span in enumerate(bands):
        held = Counter(row["sector"] for row in drawn if band(row["age"]) == span)
        assert agrees(held, shares(function.network, "sector", place))
    adults = [row for row in drawn if row["age"] >= 25]  # education of the younger ones is limited by their age
    for place, sector in enumerate(function.network.attributes[1].values):
        held = Counter(row["education"] for row in adults if row["sector"] == sector)
        assert agrees(held, shares(function.network, "education", place))
    ages = Counter(row["age"] for row in drawn if 25 <= row["age"] <= 34)
    assert agrees(ages, dict.fromkeys(range(25, 35), 0.1))


def test_nothing_impossible_is_drawn() -> None:
    for row in rows(made(), 4000, seed=2):
        assert 16 <= row["age"] <= 79
        if row["age"] < 20:
            assert row["education"] in ("less than high school", "high school", "some college")
        if row["age"] < 25:
            assert row["education"] != "master's degree or higher"
        if row["field"] in ("law", "healthcare"):
            assert row["sector"] == "professional"


def test_sentences_are_sentences_and_rows_are_reproducible() -> None:
    drawn = rows(made(), 400)
    assert drawn[100:103] == [made().row(number, Draws(0, number)) for number in range(100, 103)]
    for row in drawn:
        assert str(row["age"]) in row["persona"] and row["persona"].endswith(".") and "{" not in row["persona"]
        assert " a 8" not in row["persona"] and "A 18" not in row["persona"]
    assert len({row["persona"] for row in drawn}) > 350
    own = made(persona="I am {age} and {education}.").row(0, Draws(0, 0))["persona"]
    assert own.startswith("I am ")


def table(path: Path, num_rows: int = 4000) -> list[dict[str, Any]]:
    """Rows whose city decides the job, and whose age decides whether there is one; a few rows are rare."""
    random = np.random.default_rng(0)
    people = []
    for _ in range(num_rows):
        age, city = int(random.integers(10, 60)), str(random.choice(["Ulm", "Bern"], p=[0.7, 0.3]))
        job = (
            "pupil"
            if age < 18
            else str(random.choice(["cook", "clerk"], p=[0.8, 0.2] if city == "Ulm" else [0.1, 0.9]))
        )
        people.append({"age": age, "city": city, "job": job, "w": 1 if city == "Ulm" else 3})
    people += [{"age": 12, "city": "Ulm", "job": "cook", "w": 1}, {"age": 40, "city": "Rome", "job": "pope", "w": 1}]
    path.write_text("".join(json.dumps(row) + "\n" for row in people))
    return people


def test_a_table_is_followed_without_its_rare_rows(tmp_path: Path) -> None:
    people = table(tmp_path / "people.jsonl")
    function = made(table=str(tmp_path / "people.jsonl"), attributes=["age", "city", "job"], persona=SENTENCE)
    drawn = rows(function, 3000)
    assert {row["city"] for row in drawn} == {"Ulm", "Bern"} and "pope" not in {row["job"] for row in drawn}
    assert not [row for row in drawn if (row["age"] < 17) != (row["job"] == "pupil") and row["age"] < 16]
    for city in ("Ulm", "Bern"):
        real, drawn_here = (
            [row["job"] for row in some if row["city"] == city and row["age"] > 20] for some in (people, drawn)
        )
        assert abs(real.count("cook") / len(real) - drawn_here.count("cook") / len(drawn_here)) < 0.06
    assert abs(np.mean([row["age"] for row in drawn]) - np.mean([row["age"] for row in people])) < 1
    weighted = made(
        table=str(tmp_path / "people.jsonl"), attributes=["age", "city", "job"], weight="w", persona=SENTENCE
    )
    share = np.mean([row["city"] == "Bern" for row in rows(weighted, 2000)])
    assert abs(share - 0.9 / 1.6) < 0.04


def test_no_pair_of_values_is_rare_in_the_table(tmp_path: Path) -> None:
    people = table(tmp_path / "people.jsonl", num_rows=300)
    function = made(
        table=str(tmp_path / "people.jsonl"), attributes=["city", "job"], persona="{job} {city}", min_count=20
    )
    counts = Counter((row["city"], row["job"]) for row in people)
    for row in rows(function, 500):
        assert counts[row["city"], row["job"]] >= 20


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"name": f"n{at}", "age": at} for at in range(40)], "'name' has no value that 5 rows hold"),
        ([{"name": f"n{at % 250}", "age": at} for at in range(2500)], "'name' has 250 values, above 200"),
        ([{"name": ["a"], "age": 1}] * 9, "neither text nor number"),
        ([{"name": None, "age": 1}] * 9, "column 'name' is empty in every row: leave it out of attributes"),
        ([{"name": "a", "age": None}] * 9, "column 'age' is empty in every row"),
        ([{"name": "a", "age": None}, {"name": None, "age": 1}] * 9, "no row has a value in every column"),
        ([{"name": "a", "age": at} for at in range(7)], "'age' has 7 rows, too few for ranges .* lower min_count"),
        (
            [{"name": f"n{at % 5}", "age": at} for at in range(100)],
            r"no possible combination of values: .* lower num_bins \(now 16\).* lower min_count \(now 5\)",
        ),
    ],
)
def test_a_table_that_does_not_fit_is_refused(rows: list[dict[str, Any]], message: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=message) as caught:
        made(table=str(path), persona="{name}", min_count=5)
    assert "\n" not in str(caught.value)


def fitted(path: Path, values: list[int] | list[float], **keys: Any) -> PersonaRows:
    path.write_text("".join(json.dumps({"x": value}) + "\n" for value in values))
    return made(**{"table": str(path), "persona": "{x}", **keys})


@pytest.mark.parametrize("min_count", [1, 2, 5, 9])
@pytest.mark.parametrize(
    "values", [list(range(20, 40)), [1] * 9 + list(range(2, 90, 4)), [2.5, 7.25] * 8 + [1e6, -3.0]]
)
def test_min_count_holds_for_numbers(values: list[Any], min_count: int, tmp_path: Path) -> None:
    """A range holds that many rows, and as many lie at or beyond each number that is drawn, on both sides."""
    function = fitted(tmp_path / "rows.jsonl", values, min_count=min_count)
    spans = function.network.attributes[0].values
    for low, high in spans:
        assert len(spans) == 1 or sum(low <= value <= high for value in values) >= min_count
    for row in rows(function, 300):
        assert sum(value <= row["x"] for value in values) >= min_count
        assert sum(value >= row["x"] for value in values) >= min_count


@pytest.mark.parametrize(
    ("low", "high"), [(0.0005, 0.004), (1e-9, 3e-9), (0.1, 0.3), (1e6, 5e9), (-0.02, -0.01), (3.0, 3.5)]
)
def test_fractions_stay_in_their_range_and_differ(low: float, high: float, tmp_path: Path) -> None:
    values = np.random.default_rng(0).uniform(low, high, 400).tolist()
    drawn = [row["x"] for row in rows(fitted(tmp_path / "rows.jsonl", values), 300)]
    assert min(values) <= min(drawn) and max(drawn) <= max(values)
    assert len(set(drawn)) > 250 and abs(np.mean(drawn) - np.mean(values)) < 0.1 * (high - low)
    assert all(len(repr(number)) < 14 for number in drawn)


def test_numbers_that_are_none_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("name,x\n" + "".join(f"a,{'' if at % 3 == 0 else at / 7}\n" for at in range(90)))
    for row in rows(made(table=str(path), persona="{name} {x}"), 50):
        assert 0 < row["x"] < 13


def test_the_tree_has_the_most_information() -> None:
    information = {
        (a, b): {(0, 1): 0.1, (1, 2): 0.5, (0, 2): 0.3}[min(a, b), max(a, b)]
        for a in range(3)
        for b in range(3)
        if a != b
    }
    assert chow_liu(3, information) == ([0, 2, 1], {0: None, 2: 0, 1: 2})


def test_adult_rows_are_personas() -> None:
    keys = {
        "table": "package:adult/train",
        "weight": "fnlwgt",
        "attributes": ["age", "education", "marital_status", "sex", "relationship"],
        "persona": "A {age}-year-old {sex} with {education}.",
        "phrases": {"sex": {"Female": "woman", "Male": "man"}, "education": {"Bachelors": "a bachelor's degree"}},
    }
    drawn = rows(made(**keys), 2000)
    assert not [row for row in drawn if row["relationship"] == "Husband" and row["sex"] == "Female"]
    assert not [row for row in drawn if row["education"] in ("Doctorate", "Masters") and row["age"] < 20]
    assert " woman with " in "".join(row["persona"] for row in drawn[:50])
    assert (
        open_source(SourceSpec(kind="personas", keys=keys)).digest()
        == open_source(SourceSpec(kind="personas", keys=keys)).digest()
    )


def test_a_file_of_marginals(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(FILE)
    drawn = rows(made(marginals=str(path)), 2000)
    assert {row["job"] for row in drawn if row["age"] < 18} == {"pupil"}
    assert abs(np.mean([row["age"] < 18 for row in drawn]) - 0.25) < 0.04
    assert "An 18-year-old person who treats the sick." in {row["persona"] for row in drawn}
    there = open_source(SourceSpec(kind="personas", keys={"marginals": str(path)}))
    (tmp_path / "copy.toml").write_text("# another place\n" + FILE)
    copy = open_source(SourceSpec(kind="personas", keys={"marginals": str(tmp_path / "copy.toml")}))
    assert there.digest() == copy.digest() != open_source(SourceSpec(kind="personas")).digest()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('parent = "age"', 'parent = "ages"', r"parent 'ages' is no earlier attribute \(did you mean 'age'\?\)"),
        ("[1, 1] }", "[1, 1, 1] }", "weights must be 2 numbers from 0 on"),
        ("[1, 3]", "[1, -3]", "weights must be 2 numbers from 0 on"),
        ('"*"', '"18-28"', r"weights: no value '18-28' of age \(did you mean '18-29'\?\)"),
        (', "*" = [1, 1]', "", "weights lack the value '18-29' of age"),
        ("{job}.", "{jobs}.", r"no attribute 'jobs' \(did you mean 'job'\?\)"),
        ("doctor = ", "docter = ", r"phrases: no value 'docter' \(did you mean 'doctor'\?\)"),
        ("weights = [1, 3]", 'weights = [1, 3]\nphrases = { "10-17" = "a" }', "'10-17' is no number of its ranges"),
        ('"18-29"]', '"29-18"]', "the range '29-18' ends before it begins: write '18-29'"),
        ('name = "job"', 'name = "age"', "this name is taken"),
        ('name = "job"', 'name = "id"', "has the name of a column that every row has|no attribute 'job'"),
        ("[[attributes]]", "[attributes]]", "not valid TOML"),
        ("personas = ", "persona = ", r"unknown key 'persona' \(did you mean 'personas'\?\)"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(FILE.replace(old, new, 1))
    with pytest.raises(UserError, match=message) as caught:
        made(marginals=str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"table": "people.jsonl"}, "table needs persona"),
        ({"marginals": "a.toml", "table": "b", "persona": "{age}"}, "either marginals or table"),
        ({"weight": "w"}, "are for table"),
        ({"persona": "Somebody."}, "names no attribute"),
        ({"phrases": {"job": {"a": "b"}}}, "phrases: no attribute 'job'"),
        ({"phrases": {"sector": {"profesional": "b"}}}, r"phrases.sector: no value 'profesional' \(did you mean 'prof"),
        ({"phrases": {"age": {"90": "b"}}}, r"phrases.age: '90' is no number of its ranges \(16-19, "),
        ({"table": "nowhere.csv", "persona": "{age}"}, "nowhere.csv"),
        ({"table": "package:adult/train", "persona": "{age}", "attributes": ["agee"]}, r"no column 'agee' \(did you"),
        ({"table": "package:adult/train", "persona": "{age}", "attributes": ["age"], "weight": "sex"}, "not a number"),
    ],
)
def test_bad_keys_are_refused_in_one_line(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        made(**keys)
    assert "\n" not in str(caught.value)
