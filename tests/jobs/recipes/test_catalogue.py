"""`gristmill recipes`: every file that comes with the project tells what it makes, after which paper, at what cost."""

import json
from pathlib import Path

import pytest

from gristmill.jobs.recipes.catalogue import FOLDERS, KEYS, catalogue, find, header_lines, recipes
from gristmill.records.errors import UserError
from tests.conftest import ROOT, gristmill

FILES = [path for folder, _, _ in FOLDERS for path in sorted((ROOT / folder).glob("*.toml"))]


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_every_file_begins_with_its_lines(path: Path) -> None:
    told = header_lines(path.read_text())
    assert list(told) == list(KEYS), "begin with '# Makes: ', '# Paper: ' and '# Cost: ' (docs/recipes.md)"
    assert all(told.values()) and path.read_text().startswith("# Makes: ")
    assert path.stem == catalogue(ROOT)[FILES.index(path)].name


def test_lines_go_on_where_they_are_indented() -> None:
    told = header_lines("# Makes: a\n#   b\n# not it\n#   nor this\n# Paper: none\n# Cost: c: d\n\n# Makes: later\n")
    assert told == {"Makes": "a b", "Paper": "none", "Cost": "c: d"}
    assert header_lines('name = "x"\n# Makes: y\n') == {}


def test_the_list_and_one_of_it() -> None:
    done = gristmill("recipes", env={"COLUMNS": "100"})
    assert done.returncode == 0, done.stderr
    for heading in ("rows: gristmill produce", "models: gristmill fit", "studies: ", "mixtures: ", "flows: "):
        assert heading in done.stdout
    every = json.loads(gristmill("recipes", "--json").stdout)
    assert len(every) == len(FILES) and all(one["name"] in done.stdout for one in every)
    textbook = next(one for one in every if one["path"] == "recipes/textbook.toml")
    assert textbook["method"] == "textbook" and textbook["what"] == "rows" and "Gunasekar" in textbook["paper"]
    assert next(one for one in every if one["name"] == "adult-mst")["method"] == "mst"
    one = gristmill("recipes", "textbook")
    assert one.stdout == (ROOT / "recipes" / "textbook.toml").read_text()
    unknown = gristmill("recipes", "textbok")
    assert unknown.returncode == 2 and "did you mean 'textbook'" in unknown.stderr


def test_names_that_are_not_one_alone(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(UserError, match="no such folder; the recipes of this installation"):
        recipes(None, False, tmp_path)
    for folder in ("recipes/fit", "studies"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "same.toml").write_text(f'# Makes: {folder}\nname = "same"\n')
    found = catalogue(tmp_path)
    with pytest.raises(UserError, match="recipes/fit/same.toml and studies/same.toml"):
        find(found, "same")
    assert find(found, "fit/same").what == "models" and find(found, "studies/same.toml").what == "studies"
    assert recipes("recipes/fit/same.toml", True, tmp_path) == 0
    assert json.loads(capsys.readouterr().out)["content"].startswith("# Makes: recipes/fit")
    (tmp_path / "recipes" / "same.toml").write_text("# Makes: rows\n")
    assert find(catalogue(tmp_path), "same").what == "rows"
    (tmp_path / "studies" / "broken.toml").write_text("= 3")
    with pytest.raises(UserError, match=r"studies/broken.toml: not valid TOML"):
        catalogue(tmp_path)
