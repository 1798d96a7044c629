"""No secret of a recipe, an address or the environment reaches a file or a screen, by whatever writer."""

import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from gristmill.jobs.cli import main
from gristmill.jobs.produce.monitor import EventRecorder
from gristmill.jobs.recipes.compile import compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.jobs.release.card import dataset_card, facts_of_run
from gristmill.jobs.release.croissant import croissant
from gristmill.jobs.release.facts import FactsFile
from gristmill.jobs.report.command import write_report
from gristmill.jobs.study.command import _study_file, _write
from gristmill.jobs.study.spec import load_study
from gristmill.jobs.terminal.output import Output, refusal
from gristmill.records.errors import UserError
from gristmill.records.ids import fingerprint
from gristmill.records.output.events import Events
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.manifest import load as read_manifest
from gristmill.records.spec import literals
from gristmill.records.stores.opening import open_store
from tests.recipes import write
from tests.records.masking.test_masks import SECRET, trees

KIND = "tests.jobs.free_form:FreeForm"


def recipe(engine: Any, **generator: Any) -> dict[str, Any]:
    return {
        "name": "keyed",
        "source": {"items": ["a", "b"]},
        "generator": {"kind": KIND, "engine": engine, **generator},
    }


def files(folder: Path) -> str:
    return "\n".join(p.read_bytes().decode("utf-8", "replace") for p in sorted(folder.rglob("*")) if p.is_file())


def write_all(table: dict[str, Any], folder: Path) -> None:
    """What a run writes about its recipe, without the rows."""
    compiled = compile_recipe(load(table))
    store = open_store(str(folder))
    manifest = Manifest(compiled.fingerprint, compiled.resolved(), compiled.identity, "complete")
    manifest.begin()
    manifest.save(store)
    events = Events(store, compiled.fingerprint, 1)
    events.note("end", why=f"the engine answers: {json.dumps(table)}", engine=table["generator"])
    EventRecorder(events).emit(logging.makeLogRecord({"msg": f"retrying with {table['generator']}", "levelno": 30}))
    events.flush()
    write_report(store)
    schema = pa.schema([("text", pa.string())])
    facts = facts_of_run(manifest, manifest.totals, FactsFile())
    store.put("README.md", dataset_card(manifest, manifest.totals, facts, [], schema, {}).encode())
    store.put("croissant.json", json.dumps(croissant(facts, [], schema)).encode())


@given(tree=trees())
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_writer_of_a_run_shows_a_secret(tree: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("run")
    write_all(recipe({**tree, "max_tokens": 7, "eos_token": "</s>"}), folder / "out")
    text = files(folder)
    assert len(list((folder / "out").iterdir())) >= 4 and SECRET not in text
    engine = json.loads((folder / "out" / "manifest.json").read_text())["recipe"]["generator"]["engine"]
    assert engine["max_tokens"] == 7 and engine["eos_token"] == "</s>"


@given(tree=trees())
@settings(
    max_examples=8, phases=(Phase.generate,), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
def test_neither_the_plan_nor_a_refusal_nor_the_log_shows_a_secret(
    tree: Any, tmp_path_factory: pytest.TempPathFactory, capfd: pytest.CaptureFixture
) -> None:
    folder = tmp_path_factory.mktemp("run")
    path, out = write(folder / "recipe.toml", without_nulls(recipe(tree))), folder / "out"
    arguments = ["produce", path, "--out", str(out), "--dry-run"]
    assert main(arguments) == 0
    write_all(without_nulls(recipe(tree)), out)
    assert main([*arguments, "--set", f"generator.engine.api_token={SECRET}-rotated"]) == 0, "a secret is no difference"
    assert main([*arguments, "--set", "generator.url=other", "--set", "seed=3"]) == 2
    assert main([*arguments, "--set", f'generator.runtime_env={{env_vars = {{KEY = "{SECRET}"}}}}']) == 2
    assert main([*arguments, "--set", f"generator.engine={SECRET}"]) == 2
    assert main([*arguments, "--set", f"generator.engine.password.x.{SECRET}"]) == 2
    assert main(["status", str(out)]) == 0 and main(["status", str(out), "--json"]) == 0
    with pytest.raises(SystemExit):
        main([*arguments, "--sett", f"generator.engine.api_key={SECRET}"])
    captured = capfd.readouterr()
    assert "Differences" in captured.err and "unrecognized" in captured.err and "keyed" in captured.out
    assert SECRET not in captured.out + captured.err.replace(f"password.x.{SECRET}", "")


def without_nulls(value: Any) -> Any:
    """TOML has no null."""
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return [without_nulls(v) for v in value if v is not None] if isinstance(value, list) else value


def test_an_output_made_with_a_secret_in_its_fingerprint_is_resumed(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    table = recipe({"api_key": SECRET})
    path, out = write(tmp_path / "recipe.toml", table), tmp_path / "out"
    compiled = compile_recipe(load(path))
    clear = {
        **compiled.identity,
        "generator": {**compiled.identity["generator"], "spec": literals(compiled.generator.spec)},
    }
    assert fingerprint(clear) == compiled.old_fingerprint != compiled.fingerprint
    Manifest(compiled.old_fingerprint, {**compiled.resolved(), "generator": table["generator"]}, clear).save(
        open_store(str(out))
    )
    assert SECRET in files(out)
    assert main(["produce", path, "--out", str(out), "--dry-run"]) == 0
    assert main(["produce", path, "--out", str(out), "--dry-run", "--set", "generator.engine.api_key=other"]) == 2
    manifest = read_manifest(open_store(str(out)))
    assert manifest and SECRET not in json.dumps([manifest.recipe, manifest.identity])
    assert SECRET not in "".join(capfd.readouterr())


ADDRESS = "s3://AKIDFIRST:" + "wJalrXUtn/FEMI+K7MD" + "@bucket/prefix"


@pytest.mark.parametrize("uri", [ADDRESS, ADDRESS.partition("@")[0], "s3://wJalrXUtnFEMI@bucket"])
def test_an_address_with_keys_is_refused_in_one_line(
    uri: str, tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "recipe.toml", recipe({}))
    fit = write(tmp_path / "fit.toml", {"name": "x", "data": {"path": uri}, "model": {"kind": "independent"}})
    teacher = {**recipe({}), "generator": {"kind": "teacher", "model": uri}}
    mixture = write(tmp_path / "mix.toml", {"name": "m", "synthetic_max": 1.0, "parts": [{"uri": uri}]})
    commands = [
        ["produce", path, "--out", uri],
        ["produce", path, "--out", str(tmp_path / "out"), "--set", f"source={{path = '{uri}/x.jsonl'}}"],
        ["produce", write(tmp_path / "teacher.toml", teacher), "--out", str(tmp_path / "out"), "--dry-run"],
        ["fit", fit, "--out", str(tmp_path / "out"), "--dry-run"],
        ["pack", mixture, "--to", str(tmp_path / "out"), "--dry-run"],
        ["pack", str(tmp_path), "--to", uri],
        *(["status", uri], ["audit", uri], ["report", uri]),
        ["evaluate", uri, "--real-train", uri, "--real-holdout", uri, "--out", str(tmp_path / "out")],
    ]
    for command in commands:
        assert main(command) == 2, command
        captured = capfd.readouterr()
        assert "wJalr" not in captured.out + captured.err and "AKIDFIRST" not in captured.err
        errors = [line for line in captured.err.splitlines() if line.startswith("gristmill: s3://***")]
        assert len(errors) == 1 and "AWS_ACCESS_KEY_ID" in errors[0], command


def test_the_printed_command_and_the_errors_of_libraries_show_no_secret(tmp_path: Path) -> None:
    arguments = [f"generator.engine.api_key={SECRET}", "limits.asks=3", f"generator.url=https://me:{SECRET}@host/x"]
    output = Output("produce", "r.toml", str(tmp_path), arguments, {"data": f"https://me:{SECRET}@host/rows.csv"})
    assert SECRET not in output.command and "limits.asks=3" in output.command
    for error in (
        UserError(f"cannot reach Ray at ray://me:{SECRET}@head:10001"),
        UserError(f"HTTPError: 403 for https://host/x?X-Amz-Signature={SECRET}&a=1"),
        refusal("out", "differs", {"a": {"api_key": SECRET}, "b": 1}, {"a": {"api_key": "new" + SECRET}, "b": 2}),
    ):
        assert SECRET not in str(error) and "api_key" not in str(error)


def test_a_study_shows_no_secret_and_a_rotated_one_resumes(tmp_path: Path) -> None:
    study: dict[str, Any] = {
        "name": "keyed",
        "family": {"kind": "gaussian"},
        "regimes": {"replace": {}},
        "n": 20,
        "generations": 2,
        "engines": {"env": {"HF_TOKEN": SECRET, "MODE": "fast"}},
        "cluster": {"address": f"ray://me:{SECRET}@head:10001"},
    }
    spec, _ = load_study(study)
    store = open_store(str(tmp_path))
    _write(store, _study_file(spec, store))
    assert SECRET not in files(tmp_path)
    study["engines"]["env"]["HF_TOKEN"] = study["cluster"]["address"] = "rotated"
    rotated, _ = load_study(study)
    assert _study_file(rotated, store)["study"]["name"] == "keyed"
