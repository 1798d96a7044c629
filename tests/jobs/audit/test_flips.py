"""Altered bytes in any file of rows: an audit names the file, and no verb takes them for the rows of the run."""

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gristmill.jobs.audit.command import audit, examine
from gristmill.jobs.cli import main
from gristmill.records.output.formats import newest
from gristmill.records.stores.opening import open_store
from tests.records.test_outputs import OUTPUTS

NEWEST, OLD = OUTPUTS / f"format-{newest('manifest.json')}", OUTPUTS / "format-3"
RUN_FILES = sorted(p.relative_to(NEWEST).as_posix() for p in (NEWEST / "run").rglob("*.parquet"))
STUDY_FILES = sorted(p.relative_to(NEWEST).as_posix() for p in (NEWEST / "study").rglob("*.parquet"))
STUDY_FILES.remove("study/summary.parquet")  # made of the results, which are compared with the units
OLD_FILES = sorted(p.relative_to(OLD).as_posix() for p in (OLD / "run").rglob("*.parquet"))
SAME_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    return Path(shutil.copytree(NEWEST, tmp_path / "new"))


def flip(path: Path, draw: st.DataObject, is_footer: bool) -> bytes:
    """Change one byte of a file, in its footer if asked; returns what it was."""
    before = path.read_bytes()
    start = len(before) - 8 - int.from_bytes(before[-8:-4], "little") if is_footer else 0
    data = bytearray(before)
    data[draw.draw(st.integers(start, len(data) - 1))] ^= draw.draw(st.integers(1, 255))
    path.write_bytes(data)
    return before


@SAME_FOLDER
@given(st.sampled_from([*RUN_FILES, *STUDY_FILES]), st.booleans(), st.data())
def test_an_audit_names_every_altered_file(outputs: Path, name: str, is_footer: bool, draw: st.DataObject) -> None:
    path = outputs / name
    before = flip(path, draw, is_footer)
    findings = examine(open_store(str(outputs / name.partition("/")[0])))
    assert any(name.partition("/")[2] in line and "\n" not in line for line in findings.errors), findings.errors
    path.write_bytes(before)


@SAME_FOLDER
@given(st.sampled_from(OLD_FILES), st.booleans(), st.data())
def test_a_shard_of_an_earlier_version_never_ends_an_audit(
    tmp_path: Path, name: str, is_footer: bool, draw: st.DataObject
) -> None:
    """The footer of such a shard has no checksum of its own, so some changes in it go unseen; rows have one."""
    folder = tmp_path / "old"
    if not folder.exists():
        shutil.copytree(OLD, folder)
    before = flip(folder / name, draw, is_footer)
    result = audit(str(folder / "run"))
    assert all("\n" not in line for line in result.totals["wrong"])
    if not is_footer and (folder / name).read_bytes()[: len(before) - 4000] != before[: len(before) - 4000]:
        assert result.totals["wrong"]
    (folder / name).write_bytes(before)


def test_pack_refuses_an_altered_row(outputs: Path, ray_session: None, capfd: pytest.CaptureFixture) -> None:
    path = outputs / "run/kept/part-00000001.parquet"
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    assert main(["pack", str(outputs / "run"), "--to", str(outputs / "release")]) == 2
    error = capfd.readouterr().err
    assert "kept/part-00000001.parquet: altered after it was written" in error and "Traceback" not in error
    assert not (outputs / "release" / "README.md").exists()


@pytest.mark.parametrize("verb", ["status", "report", "evaluate", "pack --dry-run"])
def test_other_verbs_say_it_in_one_line(outputs: Path, verb: str, capfd: pytest.CaptureFixture) -> None:
    """Each reads what it needs of a shard: the footer is always among it."""
    path, run = outputs / "run/kept/part-00000000.parquet", str(outputs / "run")
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    manifest = outputs / "run/manifest.json"
    if verb in ("status", "report"):  # totals that the manifest does not hold come from the footers
        manifest.write_text(manifest.read_text().replace('"num_lots": 2', '"num_lots": 0'))
    words = verb.split()
    words.insert(1, run)
    if verb == "evaluate":
        data_uri = "package:breast-cancer"
        words += ["--real-train", data_uri, "--real-holdout", data_uri, "--out", str(outputs / "evaluation")]
    if "pack" in verb:
        words += ["--to", str(outputs / "release")]
    assert main(words) == 2
    error = capfd.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("gristmill: ")]
    assert len(lines) == 1 and "part-00000000.parquet" in lines[0] and "altered" in lines[0], error
    assert "Traceback" not in error
