"""`gristmill tune`: what it refuses in one line, what it prints, and a run with the real engine."""

import contextlib
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.jobs.cli import main
from gristmill.jobs.recipes.compile import compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.jobs.tune.bench import Bench
from gristmill.jobs.tune.halving import Candidate, Trial
from gristmill.jobs.tune.show import toml_value
from gristmill.records.lots import ask_batch, asks
from gristmill.records.stores.opening import open_store
from tests.conftest import gristmill
from tests.recipes import canned, teacher

SPEEDS = {"max_num_seqs": 2.0, "threads": 0.8, "enable_prefix_caching": 1.02}
CANDIDATES = [
    Candidate({"engine.max_num_seqs": 128}),
    Candidate({"threads": 1}),
    Candidate({"engine.enable_prefix_caching": False}),
    Candidate({"engine.speculative_config": {"method": "ngram"}}),
]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--minutes", "0"], "--minutes 0: it must be more than 0"),
        (["--minutes", "nan"], "--minutes nan: it must be more than 0"),
        (["--asks", "0"], "--asks 0: it must be at least 1"),
        (["--set", "generator={kind='canned'}"], "generator 'canned' has none"),
        (["--set", "generator.model=/no/such/model"], "/no/such/model"),
        (["--set", "generator.engine={max_num_seq=3}"], "did you mean 'max_num_seqs'"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["tune", teacher(tmp_path, 200), *flags]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and len(captured.err.splitlines()) == 1 and not captured.out


def test_a_recipe_without_a_teacher(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["tune", canned(tmp_path)]) == 2
    assert "tune measures the engine of a teacher" in capsys.readouterr().err


def test_without_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    from gristmill.engines import installed

    installed.engine_arguments.cache_clear()
    monkeypatch.setattr(installed.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("gristmill.engines.models.check", lambda model: None)
    recipe = teacher(tmp_path, generator={"kind": "teacher", "model": str(tmp_path)})
    assert main(["tune", recipe]) == 2
    assert "vLLM is not installed" in capsys.readouterr().err


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """No Ray and no engine: trials with the speeds of SPEEDS. Ctrl-C comes in the trial of number `stop_at`."""
    state: dict[str, Any] = {"stop_at": 1000, "base_failure": "", "num": 0}

    def measure(self: Bench, candidate: Candidate, num_asks: int, limits: Any, show: Any) -> Trial:
        from gristmill.cluster.trial import Stopped

        show(candidate, "measuring", 1, num_asks)
        state["num"] += 1
        if state["num"] == state["stop_at"]:
            raise Stopped
        if not candidate.changes and state["base_failure"]:
            return Trial(candidate, num_asks, 1.0, failure=state["base_failure"])
        if "engine.speculative_config" in candidate.changes:
            return Trial(candidate, num_asks, 1.0, failure="ValueError: no such method")
        rate = 100.0 if state["num"] < state.get("slow_from", 1000) else 25.0
        for key in candidate.changes:
            rate *= SPEEDS[key.removeprefix("engine.")]
        rows = {str(n): "a" for n in range(num_asks)}
        if state.get("texts_differ") and candidate.changes:
            rows |= {"0": "b"}
        return Trial(candidate, num_asks, 2.0, 1.0, 1.0, rate, rate / 50, rows=rows)

    def propose(self: Bench, base: Trial) -> list[Candidate]:
        self.candidates, self.notes = CANDIDATES, ["memory: there is enough"]
        return CANDIDATES

    monkeypatch.setattr(Bench, "measure", measure)
    monkeypatch.setattr(Bench, "propose", propose)
    monkeypatch.setattr("gristmill.cluster.connect.connected", lambda spec: contextlib.nullcontext())
    monkeypatch.setattr("gristmill.cluster.preflight.seated", lambda *_: contextlib.nullcontext())
    return state


def block(out: str) -> dict[str, Any]:
    """The TOML block at the end of what was printed."""
    return tomllib.loads(out[out.index("[generator]") :])


def test_table_and_settings(engines: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    recipe = teacher(
        tmp_path, generator={"kind": "teacher", "model": "package:smollm2", "engine": {"max_model_len": 9}}
    )
    assert main(["tune", recipe]) == 0
    out = capsys.readouterr().out
    assert block(out) == {"generator": {"engine": {"max_model_len": 9, "max_num_seqs": 128}}}
    for words in ("2.00 times as fast, with the same texts", "ngram: ValueError: no such method", "not tried: memory"):
        assert words in out
    assert "new --out" not in out.replace("; new --out", "")


def test_settings_that_change_texts_are_named(
    engines: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    engines["texts_differ"] = True
    assert main(["tune", teacher(tmp_path, 200)]) == 0
    out = capsys.readouterr().out
    assert "1 of 64 differ" in out and "2.00 times as fast, with other texts" in out and "may hold other texts" in out
    assert "depend on the batch" not in out
    engines["num"] = 0
    assert main(["tune", teacher(tmp_path, 200), "--json"]) == 0
    output = json.loads(capsys.readouterr().out)
    assert output["fastest"]["changes"] == {"engine.max_num_seqs": 128} and output["fastest_with_same_texts"] is None
    assert [t["failure"] for t in output["trials"] if t["changes_identity"]] == ["ValueError: no such method"]


def test_what_may_be_chance_is_said(engines: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["tune", teacher(tmp_path, 60)]) == 0  # no asks for a second round
    assert "measured in the first round only" in capsys.readouterr().out
    engines["slow_from"] = engines["num"] + 3
    assert main(["tune", teacher(tmp_path, 200)]) == 0
    out = capsys.readouterr().out
    assert "4.0 times as fast in one round as in another" in out and "first round only" not in out


def test_texts_that_depend_on_the_batch(engines: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["tune", teacher(tmp_path, 200), "--set", "generator.batch_invariant=false"]) == 0
    assert "differ between any two runs" in capsys.readouterr().out


def test_ctrl_c_prints_what_was_measured(
    engines: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    engines["stop_at"] = 3
    assert main(["tune", teacher(tmp_path, 200)]) == 130
    out = capsys.readouterr().out
    assert "max_num_seqs = 128" in out and "this is what was measured so far" in out
    assert "no time for: threads = 1" in out


def test_an_engine_that_does_not_start_is_one_line(
    engines: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    engines["base_failure"] = "ValueError: no KV cache"
    assert main(["tune", teacher(tmp_path, 200)]) == 2
    captured = capsys.readouterr()
    assert "the recipe's own settings: ValueError: no KV cache" in captured.err and not captured.out


def test_the_asks_are_those_of_produce(tmp_path: Path) -> None:
    """In rounds, too, where asks hold examples: those of the first round are measured, and no others."""
    compiled = compile_recipe(load("package:self-instruct", ["rounds={num=3, lots=2}", "lot_size=4"]))
    bench = Bench(compiled, None, lambda: False)
    assert bench.most_asks == 8
    lots = [ask_batch(lot) for lot in bench.lots(5)]
    assert lots == [asks(compiled.plan, compiled.ask_source(open_store(str(tmp_path))), lot) for lot in range(2)]
    assert all(json.loads(text)["examples"] for lot in lots for text in lot.column("ask").to_pylist())
    assert Bench(compiled, 3, lambda: False).most_asks == 3


SCALARS = st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    SCALARS | TEXTS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3)
)


@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_toml_is_read_back(value: dict[str, Any]) -> None:
    assert tomllib.loads(f"x = {toml_value(value)}")["x"] == value


@pytest.mark.vllm
@pytest.mark.nightly
def test_the_real_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that start and one that does not, whose reason another process knows; nothing is written."""
    real = Bench.propose

    def few(self: Bench, base: Trial) -> list[Candidate]:
        names = {"engine.enable_prefix_caching", "engine.speculative_config"}
        chosen = [candidate for candidate in real(self, base) if set(candidate.changes) & names]
        return [Candidate({"engine.num_gpu_blocks_override": 1}), *chosen]

    monkeypatch.setattr(Bench, "propose", few)
    engine = {"max_model_len": 256, "max_num_seqs": 16}
    generator = {"kind": "teacher", "model": "package:smollm2", "engine": engine, "kv_cache_gb": 1}
    recipe = teacher(tmp_path, num_asks=160, generator={**generator, "sampling": {"max_tokens": 24}})
    done = gristmill("tune", recipe, "--minutes", "8", "--json")
    assert done.returncode == 0, done.stderr
    output = json.loads(done.stdout)
    first = [trial for trial in output["trials"] if trial["round"] == 1]
    assert [bool(trial["failure"]) for trial in first] == [False, True, False, False]
    assert "No available memory for the cache blocks" in first[1]["failure"], first
    assert [trial["changes_identity"] for trial in first] == [False, False, False, True]
    measured = [trial for trial in output["trials"] if not trial["failure"]]
    assert all(t["tokens_per_s"] > 0 and t["start_s"] > 0 and t["rows_compared"] >= 16 for t in measured)
    assert all(not t["rows_that_differ"] for t in measured if not t["changes_identity"])
    assert [path.name for path in tmp_path.iterdir()] == ["teacher.toml"]
