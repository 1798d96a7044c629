"""The shipped study of verified selection, in a short form: breakdown where it must be, rates as they were set."""

from pathlib import Path

import numpy as np
import pytest

from gristmill.generators.chains.work import do_all
from gristmill.jobs.study.command import worst_z
from gristmill.jobs.study.laws import law_curves
from gristmill.jobs.study.results import write_results
from gristmill.jobs.study.spec import load_study
from gristmill.records.errors import UserError
from gristmill.records.stores.opening import open_store

PATH = "studies/verified-selection.toml"
SHORT = [
    "n=2000",
    "generations=2",
    "chains=4",
    "grid={'gates.0.keep_wrong'=[0.3, 1.0], 'family.made_noise'=[0.3, 0.65, 0.85]}",
]


def test_accuracy_breaks_down_beyond_the_breakdown_share(tmp_path: Path) -> None:
    _, cells = load_study(PATH, SHORT)
    store = open_store(str(tmp_path))
    assert all(why is None for _, _, why in do_all([u for cell in cells for u in cell.units()], store))
    summary = write_results(cells, store)
    worst = worst_z(summary)
    assert worst is not None and abs(worst["z"]) <= 4 and worst["num_tested"] == 2 * 2 * len(cells)
    rows = {(r["cell"], r["generation"], r["measure"]): r for r in summary.to_pylist()}
    broken = 0
    for cell in cells:
        share, limit = (rows[cell.name, 1, m]["mean"] for m in ("share_wrong", "breakdown_share"))
        accuracy = rows[cell.name, 2, "accuracy"]
        assert (share > limit) == (accuracy["mean"] < 0.5)
        broken += share > limit
        # The law holds for many dimensions; here are 50.
        assert accuracy["mean"] == pytest.approx(accuracy["law"], abs=0.03)
        kept = rows[cell.name, 1, "share_wrong_kept"]
        assert kept["mean"] == pytest.approx(kept["law"], abs=0.02)
    assert broken == 3


def test_a_verifier_becomes_the_truth(tmp_path: Path) -> None:
    """Its accuracy is the limit, whatever the real rows said; the law lies beside it, untested."""
    settings = ["n=4000", "generations=6", "chains=2", "grid={}", "family.made_noise=0.0"]
    _, (cell,) = load_study(PATH, [*settings, "gates=[{kind='verifier', accuracy=0.8}]"])
    line = law_curves(cell)["accuracy"]
    assert not line.is_tested.any() and np.all(np.diff(line.expected) < 0)
    store = open_store(str(tmp_path))
    do_all(list(cell.units()), store)
    rows = [r for r in write_results([cell], store).to_pylist() if r["measure"] == "accuracy"]
    assert [r["mean"] for r in rows] == pytest.approx(list(line.expected), abs=0.02)
    assert rows[0]["mean"] > 0.94 and rows[-1]["mean"] == pytest.approx(0.8, abs=0.02)
    _, (loose,) = load_study(PATH, [*settings, "regimes.replace.pool='accumulate'"])
    assert not law_curves(loose)


@pytest.mark.parametrize("address", ["gates.1.keep_wrong", "gates.x.keep_wrong", "gates.keep_wrong"])
def test_a_gate_that_is_not_there_is_no_axis(address: str) -> None:
    with pytest.raises(UserError, match=r"grid address 'gates\."):
        load_study(PATH, [f"grid={{'{address}'=[0.1]}}"])
