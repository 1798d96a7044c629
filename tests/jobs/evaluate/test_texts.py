"""`gristmill evaluate` with texts: a corpus alone, a table with texts, perplexity by a real model folder, refusals."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.engines.scorer import Scorer
from gristmill.jobs.evaluate.inputs import EvaluateArgs, read_inputs
from gristmill.records.errors import UserError
from tests.browser import browser, look
from tests.conftest import gristmill
from tests.docstrings import docstrings
from tests.recipes import AT_ONCE, canned


def put(folder: Path, name: str, texts: Any, **columns: Any) -> str:
    path = folder / f"{name}.parquet"
    pq.write_table(pa.table({"text": pa.array(list(texts), pa.string()), **columns}), path)
    return str(path)


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A causal language model that has learnt nothing: a folder as others come."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("language-model")
    letters = {chr(c): c - 32 for c in range(32, 127)} | {"?!": 95}
    letters_only = Tokenizer(models.BPE(vocab=letters, merges=[], unk_token="?!"))
    letters_only.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=letters_only, unk_token="?!").save_pretrained(folder)
    config = GPT2Config(vocab_size=96, n_positions=64, n_embd=8, n_layer=1, n_head=1, bos_token_id=0, eos_token_id=0)
    network = GPT2LMHeadModel(config)
    for weights in network.parameters():
        weights.data.zero_()  # so every letter is as likely as any other
    network.save_pretrained(folder)
    return str(folder)


def test_perplexity_of_a_model_that_knows_nothing_is_its_vocabulary(language_model: str) -> None:
    score = Scorer.from_model(language_model).log_probabilities
    found = score(["some words", "a", ""])
    # The tokenizer has neither a begin nor an end of text: the first letter is not scored.
    assert [len(values) for values in found] == [9, 0, 0]
    assert np.allclose(found[0], -math.log(96), rtol=1e-5)
    assert len(score(["x" * 500])[0]) == 64  # the model's context
    with pytest.raises(UserError, match="no such folder"):
        Scorer.from_model("/no/such/model")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, language_model: str) -> Path:
    """The whole verb over a corpus of a run, whose rows have a prompt and findings too."""
    folder = tmp_path_factory.mktemp("corpus")
    generator = {"contaminated": 0, "contamination": None}
    recipe = canned(folder, num_asks=64, generator=generator, stages=[], cluster={"num_cpus": 1})
    run = gristmill("produce", recipe, "--out", str(folder / "run"), *AT_ONCE)
    assert run.returncode == 0, run.stderr
    texts = docstrings()
    sides = put(folder, "train", texts[:300]), put(folder, "holdout", texts[300:500])
    done = gristmill(
        *("evaluate", str(folder / "run"), "--real-train", sides[0], "--real-holdout", sides[1]),
        *("--out", str(folder / "out"), "--perplexity-model", language_model, "--max-rows", "200"),
    )
    assert done.returncode == 0, done.stderr
    assert "self-BLEU" in done.stdout and "texts: perplexity" in done.stderr
    return folder / "out"


def test_a_corpus_alone_is_judged_by_its_texts(made: Path) -> None:
    found = json.loads((made / "metrics.json").read_text())
    assert found["utility"] is None and found["fidelity"] is None and found["schema"] is None
    assert found["text"]["perplexity"]["synthetic"] == pytest.approx(96, rel=1e-4)
    assert found["headline"]["text_copies"] == 0
    assert found["text"]["texts_used"] == {
        "train": 200,
        "holdout": 200,
        "synthetic": found["text"]["texts"]["synthetic"],
    }
    html = (made / "report.html").read_text()
    assert "embedding coverage" in html and "Pairs of columns" not in html and "Privacy: attacks" not in html


@pytest.mark.skipif(browser() is None, reason="needs Chromium (Debian: apt-get install chromium)")
def test_a_narrow_browser_shows_it(made: Path, tmp_path: Path) -> None:
    html = Path(shutil.copy(made / "report.html", tmp_path / "report.html"))
    for width in (400, 1200):
        seen = look(html, width)
        assert seen["width"] <= width and seen["svgs"] == 1
        assert seen["headings"][0] == "Texts"


def mixed(folder: Path, name: str, first: int, num: int, seed: int) -> str:
    texts = docstrings()[first : first + num]
    draws = np.random.default_rng(seed)
    stars = draws.integers(1, 6, num)
    return put(
        folder,
        name,
        texts,
        stars=stars,
        likes=stars * 2.0 + draws.normal(size=num),
        id=[f"{name}{i}" for i in range(num)],
    )


def sides_of(folder: Path) -> dict[str, str]:
    return {
        "synthetic": mixed(folder, "made", 500, 120, 2),
        "real_train": mixed(folder, "train", 0, 200, 0),
        "real_holdout": mixed(folder, "holdout", 300, 100, 1),
    }


def test_a_table_with_texts_is_judged_by_both(tmp_path: Path) -> None:
    texts = list(docstrings()[500:620])
    paths = sides_of(tmp_path)
    columns = pq.read_table(paths["synthetic"]).drop_columns(["text", "id"])
    paths["synthetic"] = put(tmp_path, "made", [None, *texts[1:]], **{n: columns[n] for n in columns.column_names})
    done = gristmill(
        *("evaluate", paths["synthetic"], "--real-train", paths["real_train"], "--json"),
        *("--real-holdout", paths["real_holdout"], "--target", "stars", "--out", str(tmp_path / "out")),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [c["name"] for c in found["schema"]["columns"]] == ["stars", "likes"]
    assert found["utility"]["target"] == "stars" and found["text"]["texts"]["synthetic"] == 119
    assert "1 rows have no 'text'" in done.stderr and "not all tables have them: id" in done.stderr
    html = (tmp_path / "out" / "report.html").read_text()
    assert html.index("Pairs of columns") < html.index("<h2>Texts</h2>") < html.index("<h2>Model card</h2>")


def test_a_column_that_the_schema_calls_a_category_stays_one(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    words = {n: put(tmp_path, n, draws.choice(["a", "b"], 60), n=draws.normal(size=60)) for n in ("t", "h", "s")}
    schema = tmp_path / "schema.toml"
    schema.write_text(
        '[[columns]]\nname = "text"\nkind = "category"\ncategories = ["a", "b"]\n'
        '[[columns]]\nname = "n"\nkind = "numeric"\n'
    )
    sides = {"synthetic": words["s"], "real_train": words["t"], "real_holdout": words["h"], "out": ""}
    found = read_inputs(EvaluateArgs(**sides, schema=str(schema)))
    assert found.texts is None and found.sides and found.sides.schema.names == ["text", "n"]
    found = read_inputs(EvaluateArgs(**sides, schema=str(schema), text_column="text"))
    assert found.texts and found.sides and found.sides.schema.names == ["n"]


def test_what_cannot_be_judged_is_refused(tmp_path: Path) -> None:
    paths = sides_of(tmp_path)
    alone = {n: put(tmp_path, f"alone-{n}", pq.read_table(p)["text"].to_pylist()) for n, p in paths.items()}
    few = put(tmp_path, "few", [*docstrings()[800:805], *[None] * 90])
    for changes, words in (
        ({**paths, "text_column": "txt"}, "has no column 'txt' (did you mean 'text'?)"),
        ({**paths, "text_column": "stars"}, "'stars' holds no texts"),
        ({**alone, "target": "text"}, "no column but the texts"),
        ({**alone, "synthetic": few}, "has 5 texts; at least 20 are needed"),
        ({**alone, "real_holdout": alone["real_train"]}, "holds the same rows as --real-train"),
        ({**alone, "real_holdout": put(tmp_path, "mix", docstrings()[100:300])}, "it is not a holdout"),
        (
            {n: "package:breast-cancer#train" for n in ("synthetic", "real_train")}
            | {"real_holdout": "package:breast-cancer#holdout", "perplexity_model": "package:smollm2"},
            "--perplexity-model is for texts",
        ),
    ):
        with pytest.raises(UserError) as caught:
            read_inputs(EvaluateArgs(**{"out": "", **changes}))
        assert words in str(caught.value)
