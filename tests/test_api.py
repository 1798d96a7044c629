"""The Python API: results of real runs with their rows, recipes as dicts, and the README's plug-ins through it."""

import json
from pathlib import Path
from typing import Any

import pytest

import gristmill
from gristmill import UserError
from tests.session import ROOT
from tests.test_plugins import examples

TEXTS = {"items": [{"text": "Name a river."}, {"text": "Name a hill."}], "cycle": True}


def recipe(**changes: Any) -> dict[str, Any]:
    table = {
        "name": "api",
        "lot_size": 8,
        "source": TEXTS,
        "generator": {"kind": "canned", "num_words": 30},
        "method": {"kind": "prompt", "template": "{text}"},
        "stages": [{"kind": "finish"}, {"kind": "dedup"}],
        "limits": {"asks": 16},
    }
    return {**table, **changes}


def test_every_name_of_the_package_is_there_and_none_is_imported_before_its_use() -> None:
    for name in gristmill.__all__:
        assert getattr(gristmill, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'produc'"):
        _ = gristmill.produc  # type: ignore[attr-defined]


def test_a_run_from_a_dict_gives_totals_and_rows(ray_session: None, tmp_path: Path) -> None:
    out = tmp_path / "out"
    table = recipe()
    run = gristmill.produce(table, out, ["limits.asks=24"])
    assert table == recipe()  # settings change a copy
    assert (run.state, run.exit_code, run.totals["asks"]) == ("complete", 0, 24)
    assert run.rows().count_rows() == run.totals["kept"] > 0
    assert set(run.rows().to_table(columns=["text"]).column_names) == {"text"}
    again = gristmill.produce(table, out, ["limits.asks=24"])
    assert again.totals == run.totals
    assert gristmill.status(out).totals["totals"]["asks"] == 24
    assert gristmill.status(out).rows().count_rows() == run.totals["kept"]
    assert gristmill.audit(out).totals["ok"] is True
    assert Path(gristmill.report(out).totals["page"]).is_file()
    release = gristmill.pack(str(out), tmp_path / "release")
    assert release.rows().count_rows() == release.totals["rows"] == run.totals["kept"]
    with pytest.raises(UserError, match="holds no pages as Parquet"):
        run.rows("pages")
    with pytest.raises(UserError, match=r"made by another recipe.*lot_size: 8 -> 9"):
        gristmill.produce(recipe(lot_size=9), out)


def test_rows_on_s3(ray_session: None, s3: str) -> None:
    run = gristmill.produce(recipe(), f"{s3}/api-rows")
    assert run.rows().to_table(columns=["id"]).num_rows == run.totals["kept"] > 0


def test_fit_evaluate_and_study(ray_session: None, tmp_path: Path) -> None:
    fit = {
        "name": "cells",
        "data": {"path": "package:breast-cancer", "part": "train"},
        "schema": {"file": "package:schemas/breast-cancer"},
        "model": {"kind": "independent"},
    }
    model = gristmill.fit(fit, tmp_path / "model")
    assert (model.state, model.totals["kind"]) == ("complete", "independent")
    rows = recipe(
        source={"items": [{}], "cycle": True},
        generator={"kind": "model", "model": str(tmp_path / "model")},
        method=None,
        stages=[],
        limits={"asks": 64},
    )
    del rows["method"]
    run = gristmill.produce(rows, tmp_path / "rows")
    assert run.state == "complete"
    judged = gristmill.evaluate(
        tmp_path / "rows",
        "package:breast-cancer#train",
        "package:breast-cancer#holdout",
        tmp_path / "evaluation",
        max_rows=50,
    )
    assert judged.totals == json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    study = {
        "name": "tiny",
        "family": {"kind": "gaussian"},
        "n": 10,
        "generations": 2,
        "chains": 4,
        "regimes": {"replace": {}},
    }
    result = gristmill.study(study, tmp_path / "study")
    assert result.state == "complete" and result.rows().count_rows() == 4 * 2
    assert result.rows("summary").count_rows() > 0


def test_the_examples_of_the_readme_run(ray_session: None, tmp_path: Path) -> None:
    kinds = {}
    for name, (kind, source) in examples().items():
        (tmp_path / f"{name}.py").write_text(source)
        kinds[name] = kind
    assert set(kinds) == {"shout", "critique", "dice"}
    text = recipe(
        method={"kind": kinds["critique"]}, stages=[{"kind": kinds["shout"], "max_share": 0.2}, {"kind": "dedup"}]
    )
    path = tmp_path / "text.toml"
    path.write_text(_toml(text))
    run = gristmill.produce(path, tmp_path / "text")
    assert run.totals["kept"] > 0 and run.rows().schema.field("capitals").type == "float"
    assert gristmill.audit(tmp_path / "text").state == "ok"
    assert Path(gristmill.report(tmp_path / "text").totals["page"]).is_file()
    (tmp_path / "shout.py").write_text(examples()["shout"][1] + "\n# another source\n")
    with pytest.raises(UserError, match=r"made by another recipe.*stage shout: source "):
        gristmill.produce(path, tmp_path / "text")

    dice = {k: v for k, v in recipe(generator={"kind": kinds["dice"], "sides": 20}, stages=[]).items() if k != "method"}
    path.write_text(_toml(dice))
    throws = gristmill.produce(path, tmp_path / "dice").rows().to_table(columns=["throw"]).column(0).to_pylist()
    assert len(set(throws)) > 4 and set(throws) <= set(range(1, 21))


def _toml(table: dict[str, Any]) -> str:
    """A recipe as TOML: inline tables all the way down."""
    return "\n".join(f"{key} = {_value(value)}" for key, value in table.items()) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    return json.dumps(value)


def test_the_readme_names_what_is_there() -> None:
    text = (ROOT / "README.md").read_text()
    for name in ("check_stage", "gristmill.testing"):
        assert name in text
