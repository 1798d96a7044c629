"""An --out or --to that cannot be an output is refused in one line, and nothing is changed."""

import shutil
from pathlib import Path

import pytest

from tests.fuzz.calls import call
from tests.records.make_outputs import FIT, RUN, STUDY
from tests.records.test_outputs import OUTPUTS

DATA = "package:breast-cancer"
SIDES = ["--real-train", f"{DATA}#train", "--real-holdout", f"{DATA}#holdout"]
VERBS = {
    "produce": ["produce", "{run}", "--out"],
    "fit": ["fit", "{fit}", "--out"],
    "study": ["study", "{study}", "--out"],
    "evaluate": ["evaluate", DATA, *SIDES, "--out"],
    "pack": ["pack", "{outputs}/run", "--to"],
    "audit-privacy": ["audit-privacy", "{fit}", "--out"],
    "report": ["report"],
    "audit": ["audit"],
    "status": ["status"],
}
PLACES = {
    "a file": ("{folder}/file", "not a folder"),
    "below a file": ("{folder}/file/out", "folder"),
    "a device": ("/dev/null", "not a folder"),
    "empty": ("", "is no address"),
    "blank": (" ", "is no address"),
    "a link to nowhere": ("{folder}/link", "folder"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "link").symlink_to("nowhere")
    for name, text in (("run", RUN), ("fit", FIT), ("study", STUDY)):
        (tmp_path / f"{name}.toml").write_text(text)
    return tmp_path


def words(verb: str, folder: Path, place: str) -> list[str]:
    names = {name: str(folder / f"{name}.toml") for name in ("run", "fit", "study")}
    names |= {"folder": str(folder), "outputs": str(OUTPUTS / "format-3")}
    return [word.format(**names) for word in [*VERBS[verb], place]]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("verb", VERBS)
def test_a_place_that_is_no_folder(
    verb: str, place: str, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    address, why = PLACES[place]
    monkeypatch.chdir(tmp_path_factory.mktemp("working"))
    before = {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}
    code, out, err = call(*words(verb, folder, address))
    assert code == 2 and why in err, (out, err)
    assert len([line for line in err.splitlines() if line.startswith("gristmill: ")]) == 1, err
    assert {path: path.lstat().st_mtime_ns for path in folder.rglob("*")} == before
    assert not any(Path.cwd().iterdir())


@pytest.mark.parametrize("name", ["kept", "rejected", "events", "index"])
def test_a_folder_of_the_layout_that_is_a_file_is_refused_before_anything_is_deleted(name: str, folder: Path) -> None:
    out = Path(shutil.copytree(OUTPUTS / "format-3" / "run", folder / "out"))
    shutil.rmtree(out / name, ignore_errors=True)
    (out / name).write_text("")
    before = sorted(out.rglob("*"))
    code, _, err = call(*words("produce", folder, str(out)))
    assert code == 2 and f"{out / name} is not a folder" in err
    assert sorted(out.rglob("*")) == before


@pytest.mark.parametrize("name", ["manifest.json", "lease.json", "report.html"])
def test_a_file_of_the_layout_that_is_a_folder_is_refused(name: str, folder: Path) -> None:
    out = Path(shutil.copytree(OUTPUTS / "format-3" / "run", folder / "out"))
    (out / name).unlink(missing_ok=True)
    (out / name).mkdir()
    code, _, err = call(*words("produce", folder, str(out)))
    assert code == 2 and f"{out / name} is a folder" in err


def test_a_command_that_fails_leaves_no_folder(folder: Path) -> None:
    flags = ["--max-rows", "2", "--out", str(folder / "new" / "evaluation")]
    code, _, err = call("evaluate", DATA, *SIDES, *flags)
    assert code == 2 and "--max-rows" in err
    assert not (folder / "new").exists()
