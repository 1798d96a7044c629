"""Plug-ins: the README's examples run, travel to workers, bear identity, and bad ones end in one line."""

import re
import textwrap
from pathlib import Path

import pytest

from gristmill import Findings, Stage, UserError
from gristmill.records import plugins
from gristmill.records.plugins import kind_of, look_in, plugin_class, source_identity, travelling_modules
from gristmill.stages.registry import stage_class
from tests.conftest import ROOT

EXAMPLE = re.compile(r"```python\n# (\w+)\.py: kind = \"([\w:]+)\"[^\n]*\n(.*?)```", re.S)


def examples() -> dict[str, tuple[str, str]]:
    """The README's plug-ins: (kind, source) by module name."""
    text = (ROOT / "README.md").read_text()
    return {name: (kind, source) for name, kind, source in EXAMPLE.findall(text)}


def write(folder: Path, name: str, source: str) -> None:
    path = folder / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(source))


STAGE = """
from dataclasses import dataclass
import pyarrow as pa
from gristmill import Findings, Stage

@dataclass(frozen=True)
class Spec:
    word: str = "x"

class Holds(Stage):
    '''Rejects rows without a word.'''
    Spec = Spec

    def find(self, rows):
        texts = rows.column("text").to_pylist()
        return Findings({}, pa.array([None if self.spec.word in t else "missing" for t in texts], pa.string()))
"""


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_folders", [])


def test_a_module_beside_the_recipe_is_found_before_others(tmp_path: Path) -> None:
    write(tmp_path / "one", "beside_plugin", STAGE)
    look_in(tmp_path / "one")
    cls = stage_class("beside_plugin:Holds")
    assert issubclass(cls, Stage) and cls.kind == "holds"
    assert kind_of(cls) == kind_of(cls(cls.Spec())) == "beside_plugin:Holds"
    assert "beside_plugin" in [module.__name__ for module in travelling_modules()]


def test_the_digest_follows_the_source_and_that_of_its_helpers(tmp_path: Path) -> None:
    write(tmp_path, "digest_helper", "WORD = 'x'\n")
    write(tmp_path, "digest_plugin", "from digest_helper import WORD\n" + STAGE)
    look_in(tmp_path)

    def digest() -> str:
        return source_identity(stage_class("digest_plugin:Holds"))["source"]

    first = digest()
    assert digest() == first
    write(tmp_path, "digest_helper", "WORD = 'y'\n")
    second = digest()
    write(tmp_path, "digest_plugin", "from digest_helper import WORD\n" + STAGE + "\n# other\n")
    assert len({first, second, digest()}) == 3
    assert {m.__name__ for m in travelling_modules()} >= {"digest_plugin", "digest_helper"}


def test_another_folder_may_hold_a_module_of_the_same_name(tmp_path: Path) -> None:
    write(tmp_path / "a", "same_name", STAGE)
    write(tmp_path / "b", "same_name", STAGE.replace('"x"', '"y"'))
    look_in(tmp_path / "a")
    assert stage_class("same_name:Holds").Spec().word == "x"
    look_in(tmp_path / "b")
    assert stage_class("same_name:Holds").Spec().word == "y"


def test_a_class_of_the_package_has_no_source_identity() -> None:
    cls = stage_class("finish")
    assert source_identity(cls) == {} and kind_of(cls) == "finish"


ABSTRACT = STAGE.replace("def find", "def fnd")
NO_SPEC = STAGE.replace("    Spec = Spec\n", "")


@pytest.mark.parametrize(
    ("kind", "source", "message"),
    [
        ("nowhere_to_be_found:Holds", None, "no module 'nowhere_to_be_found'; put nowhere_to_be_found.py beside"),
        ("bad_class:Hold", STAGE, "has no class 'Hold' .*it has: Holds"),
        ("bad_base:Spec", STAGE, "is not a subclass of gristmill.stages.contract.Stage"),
        ("bad_abstract:Holds", ABSTRACT, "does not implement find"),
        ("bad_spec:Holds", NO_SPEC, "has no class attribute Spec"),
        ("bad_syntax:Holds", "def", "cannot be imported"),
        ("bad_import:Holds", "import no_such_library\n" + STAGE, "needs no_such_library, which is missing"),
        ("bad_name:Holds", "from gristmill import Nothing\n" + STAGE, "cannot be imported"),
        ("finsh", None, r"unknown kind 'finsh' \(did you mean 'finish'\?\)"),
    ],
)
def test_a_bad_plugin_ends_in_one_line(tmp_path: Path, kind: str, source: str | None, message: str) -> None:
    if source is not None:
        write(tmp_path, kind.partition(":")[0], source)
    look_in(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        stage_class(kind)
    assert "\n" not in str(caught.value)


def test_an_entry_point_registers_a_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "pointed_plugin", STAGE)
    info = tmp_path / "pointed_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pointed-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gristmill.stages]\nholds_word = pointed_plugin:Holds\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    cls = stage_class("holds_word")
    assert issubclass(cls, Stage) and kind_of(cls) == "holds_word"
    assert source_identity(cls)
    with pytest.raises(UserError, match="did you mean 'holds_word'"):
        stage_class("hold_word")


def test_a_class_that_is_no_plugin_is_refused() -> None:
    with pytest.raises(UserError, match="is not a subclass"):
        plugin_class("json:JSONDecoder", Stage, "stage")
    assert Findings().reasons is None
