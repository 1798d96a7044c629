"""Facts of a release: outside of the identity of a run, never guessed, the same whenever it is packed."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import DatasetCard, metadata_load

from gristmill.jobs.recipes.compile import compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.jobs.release import run as release_run
from gristmill.jobs.release.card import size_category
from gristmill.jobs.release.command import command as pack
from gristmill.jobs.release.facts import ReleaseSpec, load_facts
from gristmill.jobs.release.languages import language_tag
from gristmill.jobs.release.mixture.spec import load_mixture
from gristmill.records.errors import UserError
from gristmill.records.licenses import HUB, license_id, license_url, named_license
from gristmill.records.output.manifest import load as read_manifest
from gristmill.records.stores.opening import open_store
from tests.batch_here import batch_work_here
from tests.jobs.release.mixture.test_mixture import by_hand, make_run, text
from tests.jobs.release.reading_back import records
from tests.recipes import canned, write

RELEASE = {
    "title": "Lessons: short ones",
    "license": ["CC-BY-4.0", "0BSD"],
    "languages": ["en", "pt-br", "en-GB"],
    "task": "question-answering",
    "cite": "Lessons, 2026",
    "contact": "lessons@example.org",
    "homepage": "https://example.org/lessons",
    "version": "1.2.0",
    "date": "2026-02-03",
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run that began late on one day and ended on the next, without a `[release]`."""
    monkeypatch.setattr(release_run, "batch_work", batch_work_here)
    uri = make_run(tmp_path / "run", [text(i) for i in range(30)])
    manifest = read_manifest(open_store(uri))
    assert manifest is not None
    manifest.recipe.update(generator={"kind": "canned"}, method=None, stages=[], source={"path": "corpus/"})
    manifest.starts = [{"started": "2026-01-30T23:59:30+00:00", "host": "h", "wall_s": 60.0}]
    manifest.save(open_store(uri))
    return uri


def packed(run: str, to: Path, facts: Any = None) -> tuple[dict[str, Any], dict[str, Any], str]:
    """(front matter, croissant.json, card) of a release."""
    assert pack(run, str(to), 1, facts=facts) == 0
    card = (to / "README.md").read_text()
    return metadata_load(to / "README.md"), json.loads((to / "croissant.json").read_text()), card  # type: ignore[return-value]


def test_without_facts_nothing_is_guessed(run: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    front, metadata, card = packed(run, tmp_path / "a")
    assert front["license"] == metadata["license"] == "unknown" and "Nobody has stated a licence" in card
    assert "language" not in front and "task_categories" not in front and "inLanguage" not in metadata
    assert metadata["datePublished"] == "2026-01-31" and "Published: 2026-01-31" in card
    assert "| corpus/ | unknown |" in card and "## Example row\n" in card
    assert front["size_categories"] == ["n<1K"] and front["pretty_name"] == "run"
    with caplog.at_level("INFO"):
        packed(run, tmp_path / "b")
    assert "the card states no license: see [release]" in caplog.text
    assert {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()} == {
        p.name: p.read_bytes() for p in (tmp_path / "b").iterdir()
    }
    assert len(records(tmp_path / "a", caplog)) == 30  # without a warning


def test_the_card_of_real_rows_does_not_call_them_synthetic(run: str, tmp_path: Path) -> None:
    manifest = read_manifest(open_store(run))
    assert manifest is not None
    for origin, tags in (("real", None), ("synthetic", ["synthetic"])):
        manifest.recipe["generator"] = {"kind": "passthrough", "origin": origin}
        manifest.save(open_store(run))
        front, metadata, card = packed(run, tmp_path / origin)
        assert front.get("tags") == tags and metadata["keywords"][0] == origin
        assert (
            ("Every row is real" in card) == (origin == "real") == ("synthetic" not in card.partition("## Columns")[0])
        )
    del manifest.recipe["generator"]
    manifest.recipe["generators"] = [
        {"kind": "teacher", "name": "large", "model": "/models/large"},
        {"kind": "passthrough", "name": "as-is", "origin": "real"},
    ]
    manifest.save(open_store(run))
    _, _, card = packed(run, tmp_path / "several")
    assert "The generators were\n`teacher` with the model `large`, `passthrough` named `as-is`" in card


def test_a_facts_file_replaces_single_keys(run: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manifest = read_manifest(open_store(run))
    assert manifest is not None
    manifest.recipe["release"] = {**RELEASE, "license": "mit"}
    manifest.save(open_store(run))
    facts = write(tmp_path / "facts.toml", {"release": {"license": RELEASE["license"]}, "source": {"license": "mit"}})
    front, metadata, card = packed(run, tmp_path / "a", facts)
    assert front == {
        "pretty_name": "Lessons: short ones",
        "license": ["cc-by-4.0", "other"],
        "license_name": "0bsd",
        "license_link": "https://spdx.org/licenses/0BSD.html",
        "language": ["en", "pt"],
        "language_details": ["pt-BR", "en-GB"],
        "task_categories": ["question-answering"],
        "tags": ["synthetic"],
        "size_categories": ["n<1K"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "train-*.parquet"}]}],
    }
    assert metadata["license"] == [f"https://spdx.org/licenses/{name}.html" for name in ("CC-BY-4.0", "0BSD")]
    assert (metadata["citeAs"], metadata["version"], metadata["datePublished"]) == (
        "Lessons, 2026",
        "1.2.0",
        "2026-02-03",
    )
    assert metadata["inLanguage"] == ["en", "pt-BR", "en-GB"] and metadata["url"] == RELEASE["homepage"]
    assert "| corpus/ | mit |" in card and "lessons@example.org" in card
    data = DatasetCard.load(tmp_path / "a" / "README.md").data
    assert data.license == ["cc-by-4.0", "other"] and yaml.safe_load(data.to_yaml()) == front
    assert len(records(tmp_path / "a", caplog)) == 30


def test_facts_are_no_part_of_the_identity(tmp_path: Path) -> None:
    plain = load(canned(tmp_path, num_asks=10))
    stated = load(canned(tmp_path, num_asks=10, release=RELEASE, source={"license": "mit"}))
    before, after = compile_recipe(plain), compile_recipe(stated)
    assert before.fingerprint == after.fingerprint and before.identity == after.identity
    assert "release" not in before.resolved() and after.resolved()["release"]["license"] == ["CC-BY-4.0", "0BSD"]
    assert after.resolved()["source"]["license"] == "mit"


def test_facts_of_a_mixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: str) -> None:
    by_hand(monkeypatch)
    keys = {"name": "mix", "synthetic_max": 1.0, "parts": [{"uri": run}]}
    plain = write(tmp_path / "plain.toml", keys)
    stated = write(tmp_path / "stated.toml", {**keys, "release": {**RELEASE, "date": ""}})
    front, metadata, _ = packed(plain, tmp_path / "plain")
    named, data, card = packed(stated, tmp_path / "stated")
    assert metadata["datePublished"] == data["datePublished"] == "2026-01-31"  # of the run
    assert front["license"] == "unknown" and named["license"] == ["cc-by-4.0", "other"] and "| run | unknown |" in card
    mixtures = [json.loads((tmp_path / name / "mixture.json").read_text()) for name in ("plain", "stated")]
    assert mixtures[0] == mixtures[1]
    again = write(tmp_path / "again.toml", {**keys, "parts": [{"uri": str(tmp_path / "plain2")}]})
    packed(run, tmp_path / "plain2", {"release": {"license": "mit", "date": "2026-03-04"}})
    front, metadata, card = packed(again, tmp_path / "again")
    assert metadata["datePublished"] == "2026-03-04" and "| plain2 | mit |" in card
    assert front["license"] == "unknown"  # the licence of a part is not that of the mixture
    (tmp_path / "plain2" / "croissant.json").write_text("{")
    assert packed(again, tmp_path / "damaged")[2].count("| plain2 | unknown |") == 1
    with pytest.raises(UserError, match="the parts of a mixture have `license` themselves"):
        pack(plain, str(tmp_path / "no"), facts=write(tmp_path / "f.toml", {"source": {"license": "mit"}}))


@pytest.mark.parametrize(
    ("release", "message"),
    [
        ({"license": "apache2"}, r"'apache2' is neither a licence .* \(did you mean 'apache-2.0'\?\)"),
        ({"license": ["mit", "free"]}, "'free' is neither .*; write an id of spdx.org/licenses"),
        ({"license": "other"}, "needs license_link"),
        ({"languages": ["english"]}, r"'english' is no language tag \(did you mean 'en'\?\)"),
        ({"languages": ["en_US"]}, "'en_US' is no language tag"),
        ({"languages": ["xx"]}, "'xx' is no language tag"),
        ({"task": "text-generaton"}, r"no task category of the Hub \(did you mean 'text-generation'\?\)"),
        ({"version": "1.0"}, "major.minor.patch"),
        ({"date": "31.1.2026"}, "date must be a day such as '2026-01-31'"),
        ({"homepage": "example.org"}, "must begin with https://"),
        ({"licence": "mit"}, r"unknown key 'licence' \(did you mean 'license'\?\)"),
    ],
)
def test_a_wrong_fact_is_refused_early(release: dict[str, Any], message: str, tmp_path: Path, run: str) -> None:
    with pytest.raises(UserError, match=message):
        load(canned(tmp_path, release=release))
    with pytest.raises(UserError, match=message):
        load_mixture(write(tmp_path / "mix.toml", {"name": "m", "synthetic_max": 1, "parts": [], "release": release}))
    with pytest.raises(UserError, match=message):
        pack(run, str(tmp_path / "to"), facts=write(tmp_path / "facts.toml", {"release": release}))
    assert not (tmp_path / "to").exists()


def test_unknown_tables_of_a_facts_file_and_licences_of_sources(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown key 'relase' \(did you mean 'release'\?\)"):
        load_facts(write(tmp_path / "facts.toml", {"relase": {}}))
    with pytest.raises(UserError, match="did you mean 'cc-by-4.0'"):
        load(canned(tmp_path, source={"license": "cc-by-4"}))
    with pytest.raises(UserError, match="did you mean 'cc-by-4.0'"):
        load_mixture({"name": "m", "synthetic_max": 1, "parts": [{"path": "x", "license": "cc-by-4"}]})


def test_names_of_the_hub() -> None:
    assert all(license_id(name) == name for name in HUB) and license_id("Apache-2.0") == "apache-2.0"
    assert license_id("mit or 0bsd") == license_url("MIT OR 0BSD") == "MIT OR 0BSD"
    names = [*HUB, "MIT OR 0BSD", "0BSD", "https://example.org/terms", "https://spdx.org/licenses/no-such-one.html"]
    assert [named_license(license_url(name)) for name in names] == names, "a licence is one id wherever it is read"
    assert license_url("odc-by") == "https://spdx.org/licenses/ODC-By-1.0.html" and license_url("gemma") == "gemma"
    assert [language_tag(tag) for tag in ("EN", "zh-hant-tw", "gsw", "code")] == ["en", "zh-Hant-TW", "gsw", "code"]
    assert ReleaseSpec(license="other", license_link="LICENSE").licenses == ("other",)
    sizes = {999: "n<1K", 1000: "1K<n<10K", 999_999: "100K<n<1M", 10**9: "1B<n<10B", 10**12: "n>1T", 10**14: "n>1T"}
    assert {num: size_category(num) for num in sizes} == sizes
