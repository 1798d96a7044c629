"""The shipped prompts: every file is the default of one call, has its holes, speaks plain English and is identity."""

import json
import re
from collections.abc import Iterator

import pytest

from gristmill.generators.text.agent.turns import CALL_ONLY, PROTOCOL
from gristmill.generators.text.cross_document import FORMS
from gristmill.generators.text.registry import KINDS
from gristmill.generators.text.rephrase import CONTINUATION
from gristmill.generators.text.rephrase import TEMPLATES as STYLES
from gristmill.records.spec import build, literals
from gristmill.stages.judging.spec import JudgeSpec
from gristmill.stages.verify.answer_text import extract
from tests.conftest import ROOT
from tests.generators.text.script import method_of

FOLDERS = {"": ROOT / "generators/text/templates", "judge/": ROOT / "stages/judging/templates"}
FILES = {
    prefix + path.relative_to(folder).with_suffix("").as_posix(): path
    for prefix, folder in FOLDERS.items()
    for path in sorted(folder.rglob("*"))
    if path.is_file()
}
EVOLVED = ("constraints", "deepen", "concretise", "reasoning", "complicate", "breadth")
TOOLS = {"tools": [{"kind": "python"}], "calls": "json"}
HOLES = {
    "agent/system": "",
    "agent/json": "tools",
    "tool_calls/question": "tools topic tool",
    "tool_calls/json": "tools",
    "annotate/vote": "document labels",
    "annotate/vote_by_schema": "document labels",
    "backtranslate/instruction": "document",
    "backtranslate/score": "instruction document",
    "code/problem": "seed",
    "code/solution": "problem",
    "code/tests": "problem code",
    "code/all": "seed",
    "constitutional/initial": "prompt",
    "constitutional/critique": "prompt response critique_request",
    "constitutional/revision": "prompt response critique revision_request",
    **{f"cross_document/{form}": "document other" for form in ("qa", "comparison", "article")},
    "dialogue/opening": "persona topic",
    "dialogue/further": "persona topic transcript end",
    **{f"evol_instruct/{name}": "instruction" for name in (*EVOLVED, "response")},
    "evol_instruct/equal": "first second",
    "exercise/exercise": "audience topic difficulty form",
    "exercise/solution": "audience exercise",
    "magpie/output": "instruction",
    "math/problem": "seed",
    "math/solution": "problem",
    "paraphrase/template": "style document",
    "preference/answer": "prompt",
    "preference/judge": "prompt first second principle",
    **{f"rephrase/{style}": "document" for style in STYLES},
    "rephrase/continuation": "part parts before",
    "self_instruct/task": "tasks",
    "self_instruct/classify": "shown instruction",
    "self_instruct/instance": "shown instruction",
    "self_instruct/labels": "instruction",
    "self_instruct/input": "label instruction",
    "textbook/template": "style topic audience",
    "translate/translation": "language target document",
    "translate/back": "target language translation",
    "judge/pointwise": "low high text",
    "judge/pairwise": "low high a b",
    "judge/pairwise_question": "low high question a b",
    "judge/steps": "low high before step",
    "judge/steps_question": "low high question before step",
}
# Keys of the JSON object that the method reads from the answer.
KEYS = {
    "agent/json": "tool arguments answer",
    "tool_calls/json": "tool arguments",
    "annotate/vote": "rationale label",
    "backtranslate/score": "score",
    "code/all": "problem solution tests",
    "evol_instruct/equal": "same",
    "preference/judge": "better",
    "self_instruct/classify": "classification",
    "self_instruct/instance": "input output",
    "self_instruct/labels": "labels",
    "self_instruct/input": "input",
    **dict.fromkeys(("judge/pointwise", "judge/steps", "judge/steps_question"), "score"),
    **dict.fromkeys(("judge/pairwise", "judge/pairwise_question"), "a b"),
}
BARE = [name for name, path in FILES.items() if re.fullmatch(r"\{\w+\}\n", path.read_text())]
# What a translation into English says, and what small words give away that a model was told too little.
BANNED = (
    r"say it in json", r"answer with json", r"as json\b", r"make up", r"write (it )?anew", r"say .* again",
    r"write .* alone\b", r"in the place of", r"\bsomebody\b", r"\banybody\b", r"by who\b", r"\bsuch\b(?! as\b)",
    r"\bthereof\b", r"\bone can\b", r"\bput\b", r"carry it out", r"of medium",
    r"\bkindly\b", r"\bplease\b", r"e\.g\.", r"\betc\b", r"\bi want you\b",
    r"\bno more than 10 to 20\b", r"\ba thing\b", r"\bquite\b", r"\bvery\b",
)  # fmt: skip
MAX_WORDS = 26  # of a sentence


def defaults() -> Iterator[tuple[str, str]]:
    """(name, text) of the default template of each call."""
    labels = {"labels": ["a", "b"]}
    tables = {"annotate": labels, "translate": {"round_trip": True}, "agent": TOOLS, "tool_calls": TOOLS}
    for kind in KINDS:
        spec = method_of(kind, tables.get(kind, {})).spec
        if kind == "cross_document":
            yield from ((f"{kind}/{form}", text) for form, text in FORMS.items())
        elif kind == "agent":
            yield from (("agent/system", spec.system), ("agent/json", PROTOCOL), ("tool_calls/json", CALL_ONLY))
        elif kind in ("textbook", "paraphrase"):
            yield f"{kind}/template", spec.template
        elif kind not in ("rephrase", "megadoc", "prompt", "distill"):
            yield from ((f"{kind}/{call}", text) for call, text in spec.TEMPLATES.items() if text)
    schema = {"type": "object", "properties": {"label": {}}, "required": ["label"]}
    yield "annotate/vote_by_schema", method_of("annotate", {"schema": schema}).spec.wording["vote"]
    yield from ((f"rephrase/{style}", text) for style, text in STYLES.items())
    yield "rephrase/continuation", CONTINUATION.removesuffix("\n\n")
    for mode in ("pointwise", "pairwise", "steps"):
        yield f"judge/{mode}", judge(mode=mode).prompt
        if mode != "pointwise":
            yield f"judge/{mode}_question", judge(mode=mode, question="q").prompt


def judge(**keys: str) -> JudgeSpec:
    return build(JudgeSpec, {"model": "package:smollm2", **keys}, "stages[0]")


def test_every_file_is_the_default_of_one_call() -> None:
    calls = list(defaults())
    assert sorted(name for name, _ in calls) == sorted(FILES) == sorted(HOLES)
    for name, text in calls:
        assert FILES[name].read_text() == text + "\n"


@pytest.mark.parametrize("name", FILES)
def test_a_template_has_its_holes_and_plain_words(name: str) -> None:
    text = FILES[name].read_text()
    assert text.isascii() and text.endswith("\n") and not re.search(r"[ \t]$|\n\n\n|\t|\A\s|\n\n\Z", text, re.MULTILINE)
    assert sorted(set(re.findall(r"\{(\w*)\}", text))) == sorted(HOLES[name].split()) and "{{" not in text
    for words in BANNED:
        assert not re.search(words, text, re.IGNORECASE), words
    sentences = [s for line in text.splitlines() for s in re.split(r"(?<=[.!?:;])\s+", line)]
    assert max(len(sentence.split()) for sentence in sentences) <= MAX_WORDS
    if name in BARE:
        return
    if keys := KEYS.get(name):
        assert "Return a JSON object" in text and all(f'"{key}"' in text for key in keys.split())
    elif name not in ("annotate/vote_by_schema", "constitutional/critique", "math/solution", "rephrase/continuation"):
        assert re.search(r"\bReturn (only |the (\w+ )+in a single Python code block)|Begin directly with", text)


def test_messages_go_to_the_model_as_they_are() -> None:
    bare = ["constitutional/initial", "evol_instruct/response", "magpie/output", "preference/answer"]
    assert sorted(BARE) == bare
    assert [method_of(kind, {}).spec.template for kind in ("prompt", "distill")] == ["{text}"] * 2


def test_the_form_of_an_answer_is_one_that_is_read() -> None:
    last_line = re.search(r'a line that begins with "(\w+:)"', FILES["math/solution"].read_text())
    assert last_line and extract(f"So 3 + 4 = 7.\n{last_line[1]} 7", method_of("math", {}).spec.extract) == "7"


def test_the_texts_of_all_prompts_are_identity() -> None:
    shown = {
        kind: json.dumps(method_of(kind, table).identity())
        for kind, table in {
            **{kind: {} for kind in KINDS},
            "agent": TOOLS,
            "tool_calls": TOOLS,
            "annotate": {"labels": ["a", "b"]},
            "cross_document": {"forms": list(FORMS)},
            "rephrase": {"styles": list(STYLES), "chunk_words": 9},
            "translate": {"round_trip": True},
        }.items()
    }
    shown["code"] += json.dumps(method_of("code", {"structured": True}).identity())
    schema = {"type": "object", "properties": {"label": {}}, "required": ["label"]}
    shown["annotate"] += json.dumps(method_of("annotate", {"schema": schema}).identity())
    for mode in ("pointwise", "pairwise", "steps"):
        keys = [{"mode": mode}] if mode == "pointwise" else [{"mode": mode}, {"mode": mode, "question": "q"}]
        shown["judge"] = shown.get("judge", "") + json.dumps([literals(judge(**k), True) for k in keys])
    for name, path in FILES.items():
        assert json.dumps(path.read_text().removesuffix("\n"))[1:-1] in shown[name.split("/")[0]], name


QUOTE = re.compile(r"\"([^\"]+)\" \(`(\w+)`\)")


def test_the_page_that_compares_prompts_with_papers_quotes_them() -> None:
    """docs/prompts.md: a table for each method, whose third column quotes our templates."""
    quoted: set[str] = set()
    for section in re.split(r"^## ", (ROOT / "docs/prompts.md").read_text(), flags=re.MULTILINE)[1:]:
        kinds = re.findall(r"`(\w+)`", section.split("\n")[0])
        rows = [line.split(" | ") for line in section.split("\n") if line.startswith("| ")]
        for row in rows[1:]:
            assert len(row) == 3, row
            for words, call in QUOTE.findall(row[2]):
                name = f"{kinds[0]}/{call}"
                assert words in " ".join(FILES[name].read_text().split()), (name, words)
                quoted.add(name)
    assert set(FILES) - set(BARE) - quoted == set(), "each prompt is compared"
    kinds = set(re.findall(r"^## .*", (ROOT / "docs/prompts.md").read_text(), re.MULTILINE))
    assert all(any(f"`{kind}`" in title for title in kinds) for kind in (*KINDS, "judge"))


def test_the_reference_shows_every_prompt() -> None:
    page = (ROOT / "docs/reference/templates.md").read_text()
    assert all(path.read_text() in page for path in FILES.values())
