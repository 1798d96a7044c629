"""A faulty flow is refused in one line that names the step, before anything runs."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from gristmill.jobs.flow.build import build_chain
from gristmill.jobs.terminal.output import Output
from gristmill.records.errors import UserError
from gristmill.records.stores.opening import open_store
from tests.jobs.flow.flows import JUDGED, TEXTS, TOPICS, chain, flow_file, step
from tests.jobs.release.mixture.test_mixture import make_run

FIT = {"name": "f", "data": {"path": "step:topics"}, "model": {"kind": "independent"}}


def change(recipe: dict[str, Any], **tables: Any) -> dict[str, Any]:
    changed = deepcopy(recipe)
    for key, value in tables.items():
        changed[key] = {**changed.get(key, {}), **value} if isinstance(value, dict) else value
    return changed


def texts(**tables: Any) -> list[dict[str, Any]]:
    return [step("topics", recipe=TOPICS), step("texts", recipe=change(TEXTS, **tables))]


TABLE: dict[str, tuple[list[dict[str, Any]], str]] = {
    "no step": (texts(source={"path": "step:topisc"}), "step 'texts': source.path.*no step.*did you mean 'topics'"),
    "itself": (texts(source={"path": "step:texts"}), "a step cannot read its own output"),
    "later": ([*reversed(chain()[:2])], "step 'texts': source.path = \"step:topics\": that step comes later"),
    "no name": (texts(source={"path": "step:"}), 'write "step:NAME"'),
    "column": (texts(method={"template": "Write {tex}."}), "step 'texts'.*'tex', which is not there.*mean 'text'"),
    "carried column": (texts(source={"carry": ["feild"]}), "source.carry names.*'feild'.*mean 'field'"),
    "id column": (texts(source={"id_column": "idd"}), "source.id_column names.*'idd'"),
    "rows of a model": (
        [
            step("topics", recipe=TOPICS),
            step("m", "fit", recipe=FIT),
            step("x", recipe=change(JUDGED, source={"path": "step:m"})),
        ],
        "step 'x': source.path.*takes rows, and a fit step gives model",
    ),
    "model of rows": (
        [
            step("topics", recipe=TOPICS),
            step("x", recipe=change(TOPICS, generator={"kind": "model", "model": "step:topics"})),
        ],
        "generator.model.*takes a model, and a produce step gives rows",
    ),
    "fit without the column": (
        [step("topics", recipe=TOPICS), step("m", "fit", recipe=change(FIT, data={"columns": ["txt"]}))],
        "step 'm': the rows of the step before have no column 'txt'",
    ),
    "format": (
        [*chain(), step("r", "pack", run="step:judged", flags={"format": "preference"})],
        "step 'r': --format preference needs",
    ),
    "unknown format": ([*chain(), step("r", "pack", run="step:judged", flags={"format": "txt"})], "'txt' is no format"),
    "pack of a release": (
        [*chain(), step("r", "pack", run="step:judged"), step("s", "pack", run="step:r")],
        "pack takes the whole output of a produce step",
    ),
    "evaluate's target": (
        [
            *chain(),
            step("e", "evaluate", run="step:judged", flags={"real_train": "a", "real_holdout": "b", "target": "incme"}),
        ],
        "step 'e': flags.target: the step gives no column 'incme'",
    ),
    "evaluate without real rows": (
        [*chain(), step("e", "evaluate", run="step:judged")],
        "evaluate needs flags.real_train",
    ),
    "mixture": (
        [
            step("topics", recipe=TOPICS),
            step(
                "r",
                "pack",
                mixture={"name": "m", "synthetic_max": 1.0, "parts": [{"uri": "step:topics", "columns": {"a": "txt"}}]},
            ),
        ],
        "step 'r': part 'topics': the step gives no column 'txt'",
    ),
    "verb": ([step("topics", "prodcue", recipe=TOPICS)], "'prodcue' is not one of 'produce', 'fit'"),
    "key of another verb": ([step("topics", study=TOPICS)], "step 'topics': produce takes no 'study', but 'recipe'"),
    "nothing to do": ([step("topics")], "step 'topics': produce needs 'recipe'"),
    "two things to do": (
        [*chain(), step("r", "pack", run="step:judged", mixture={"name": "m"})],
        "step 'r': pack needs 'run' or 'mixture'",
    ),
    "unknown key": ([step("topics", recipes=TOPICS)], "unknown key 'recipes' .did you mean 'recipe'"),
    "unknown flag": ([*chain(), step("r", "pack", run="step:judged", flags={"shards": 3})], "unknown flag 'shards'"),
    "type of a flag": (
        [*chain(), step("r", "pack", run="step:judged", flags={"seed": "x"})],
        "flags.seed must be a int",
    ),
    "recipe": (texts(generator={"kind": "cannd"}), "step 'texts': .*did you mean 'canned'"),
    "key of a recipe": (texts(lot_sise=3), "step 'texts': .*unknown key 'lot_sise'"),
    "no file": ([step("topics", recipe="nowhere.toml")], "step 'topics': .*nowhere.toml: no such recipe file"),
    "nothing to set": (
        chain(judged={"set": {"stages.4.name": "x"}}),
        "step 'judged': set: there is no 'stages.4.name'",
    ),
    "address of a step": (
        texts(cluster={"address": "auto"}),
        "step 'texts': cluster.address: the steps of a flow share",
    ),
    "names": ([step("a", recipe=TOPICS), step("a", recipe=TOPICS)], "two steps are called 'a'"),
    "a name with a slash": ([step("a/b", recipe=TOPICS)], "a step's name has letters"),
    "a reserved name": ([step("kept", recipe=TOPICS)], "an output has a folder or file of this name"),
    "no steps": ([], "a flow has"),
    "stream of a pack": ([*chain(), step("r", "pack", run="step:judged", stream=True)], "stream is for produce"),
}


@pytest.mark.parametrize("case", TABLE)
def test_it_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    steps, message = TABLE[case]
    path = flow_file(tmp_path, steps)
    with pytest.raises(UserError, match=message) as refusal:
        build_chain(path, open_store(str(tmp_path / "out")))
    assert "\n" not in str(refusal.value) and not (tmp_path / "out").exists()


def test_a_key_of_cluster_is_checked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="flow.toml.cluster: unknown key 'replicsa' .did you mean 'replicas'"):
        build_chain(flow_file(tmp_path, chain(), cluster={"replicsa": 2}), open_store(str(tmp_path / "out")))


def test_no_other_verb_writes_into_a_flow(tmp_path: Path) -> None:
    (tmp_path / "flow.json").write_text("{}")
    with (
        pytest.raises(UserError, match="is the output of a flow"),
        Output("produce", "r.toml", str(tmp_path)).writing(),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["flow.json"]


def test_an_output_of_another_verb_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="holds manifest.json, the output of another verb"):
        build_chain(flow_file(tmp_path, chain()), open_store(str(tmp_path / "out")))


def test_a_pack_step_notices_that_its_files_were_edited(tmp_path: Path) -> None:
    make_run(tmp_path / "run", ["A text of a run."])
    facts, listing = tmp_path / "facts.toml", tmp_path / "without.txt"

    def mark(version: str, row_id: str) -> str:
        facts.write_text(f'[release]\nversion = "{version}"\n')
        listing.write_text(f"{row_id}\n")
        flags = {"facts": str(facts), "without": str(listing)}
        path = flow_file(tmp_path, [step("r", "pack", run=str(tmp_path / "run"), flags=flags)])
        pack = build_chain(path, open_store(str(tmp_path / "out")))[0].steps["r"]
        pack.prepare()
        return pack.fingerprint

    assert mark("1.0", "a") == mark("1.0", "a") and len({mark("1.0", "a"), mark("1.1", "a"), mark("1.0", "b")}) == 3


def test_an_evaluation_notices_that_its_schema_was_edited(tmp_path: Path) -> None:
    make_run(tmp_path / "run", ["A text of a run."])
    schema = tmp_path / "schema.toml"

    def mark(columns: str) -> str:
        schema.write_text(columns)
        flags = {"real_train": "package:adult/train", "real_holdout": "package:adult/test", "schema": str(schema)}
        path = flow_file(tmp_path, [step("e", "evaluate", run=str(tmp_path / "run"), flags=flags)])
        evaluation = build_chain(path, open_store(str(tmp_path / "out")))[0].steps["e"]
        evaluation.prepare()
        return evaluation.fingerprint

    assert mark("a = 1") == mark("a = 1") != mark("a = 2")


def test_a_text_that_looks_like_a_link_is_content(tmp_path: Path) -> None:
    steps = [
        step(
            "topics",
            recipe=change(TOPICS, source={"items": ["step:nowhere"], "carry": []}, method={"template": "{text}"}),
        )
    ]
    built, _ = build_chain(flow_file(tmp_path, steps), open_store(str(tmp_path / "out")))
    assert not built.steps["topics"].links


def test_a_step_of_the_list_is_set_by_its_name(tmp_path: Path) -> None:
    path = flow_file(tmp_path, chain(), cluster={"num_cpus": 2, "replicas": 3})
    settings = ["steps.topics.set.limits.asks=32", "steps.judged.recipe.cluster.replicas=1"]
    built, _ = build_chain(path, open_store(str(tmp_path / "out")), settings)
    topics, judged = built.steps["topics"].tables, built.steps["judged"].tables
    assert topics and judged and topics["limits"] == {"asks": 32}
    assert topics["cluster"] == {"num_cpus": 2, "replicas": 3} and judged["cluster"] == {"num_cpus": 2, "replicas": 1}
