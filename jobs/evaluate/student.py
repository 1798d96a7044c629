"""Utility of texts: a student language model trained on the synthetic ones beside one trained on as many real ones.

Both are judged on the real holdout (train on synthetic, test on real), in bits per byte, which can be compared between
tokenizers. With the teacher that wrote the texts: how often the student says what the teacher would say (imitation),
and how much of the gap between the teacher and a student of real texts is recovered (weak to strong: Burns et al. 2023,
section 3, where a strong student learns from a weak teacher's labels).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from rich.console import Console

from gristmill.jobs.evaluate.inputs import EvaluateArgs
from gristmill.records.errors import UserError
from gristmill.records.readers.datasets import digest_table
from gristmill.records.readers.tables import Column, TableSchema
from gristmill.records.spec import literals
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_store

if TYPE_CHECKING:
    from gristmill.engines.scorer import Scorer
    from gristmill.evaluation.corpus import Corpora

KIND, FOLDER = "causal_lm", "students"
KEPT_BACK = 0.1  # of the synthetic texts, that neither student sees
MAX_BLOCKS = 200  # of a side, that students are judged by
MIN_BLOCKS = 8
WHOLE = 8  # a teacher's tokenizer may make so many times more tokens of a block; it reads it whole
SCHEMA = TableSchema((Column("text", "text"),))


def check_student(args: EvaluateArgs) -> None:
    """Raise UserError for a recipe that is no student's and a teacher that is not there; trains nothing."""
    if args.student is None:
        return
    from gristmill.engines import models
    from gristmill.jobs.fit.plan import read_recipe

    family = read_recipe(args.student)[1]
    if family.kind != KIND:
        raise UserError(f"--student {args.student}: its model is '{family.kind}', a student is of kind '{KIND}'")
    if args.teacher is not None:
        models.check(args.teacher)


def judge_student(args: EvaluateArgs, texts: "Corpora", store: Store, tell: Any) -> dict[str, Any]:
    """What metrics.json holds of it. Two fits on the cluster; what was trained before a crash is not trained again.

    Raises UserError for too little text.
    """
    from gristmill.engines.scorer import Scorer, bits_per_byte, perplexity
    from gristmill.generators.lm import tokens
    from gristmill.generators.lm.family import CausalLm
    from gristmill.jobs.fit.plan import read_recipe

    recipe, _, spec = read_recipe(str(args.student))
    sides, back, num_words = shares(texts, args.seed)
    made = CausalLm(spec, SCHEMA).own_tokenizer(sides["train"])  # of real texts, for both
    judged = {
        "real": some_blocks(tokens.pieces(made, texts.holdout, spec.length), "--real-holdout", spec.length),
        "synthetic": some_blocks(tokens.pieces(made, back, spec.length), "the synthetic rows", spec.length),
    }
    scorers: dict[str, Scorer] = {}
    for side, own in sides.items():
        tell(f"student: trained on {len(own):,} {'real' if side == 'train' else 'synthetic'} texts")
        files = _trained(args, recipe, spec, made, own, open_store(store.path(f"{FOLDER}/{side}")))
        scorers[side] = Scorer.from_files(files, made)
    tell("student: judged")
    scores = {
        side: {of: scorer.log_probabilities(own, spec.length) for of, own in judged.items()}
        for side, scorer in scorers.items()
    }
    bits = {of: {side: bits_per_byte(scores[side][of], judged[of]) for side in sides} for of in judged}
    found = {
        "spec": literals(spec),
        "words_of_a_side": num_words,
        "texts": {side: len(own) for side, own in sides.items()},
        "blocks": {of: len(own) for of, own in judged.items()},
        "bits_per_byte": bits["real"],
        "perplexity": {side: perplexity(scores[side]["real"]) for side in sides},
        "bits_per_byte_of_synthetic": bits["synthetic"],
        "ratio": bits["real"]["train"] / bits["real"]["synthetic"],
        "base_bits_per_byte": None,
        "teacher": None,
    }
    if spec.base is not None:
        found["base_bits_per_byte"] = _whole_bits(Scorer.from_model(spec.base), judged["real"], spec.length)
    if args.teacher is not None:
        tell("student: beside its teacher")
        found["teacher"] = beside(Scorer.from_model(args.teacher), scorers, judged["real"], spec.length, bits["real"])
    open_store(store.path(FOLDER)).clear()
    return found


def shares(texts: "Corpora", seed: int) -> tuple[dict[str, list[str]], list[str], int]:
    """Texts of both sides with about the same number of words, in an order drawn by the seed; synthetic ones kept
    back; and the words of a side."""
    from gristmill.evaluation.draws import stream
    from gristmill.records.words import tokens

    order = stream(seed, "student synthetic").permutation(len(texts.synthetic))
    num_back = max(1, round(KEPT_BACK * len(order)))
    shuffled = [texts.synthetic[i] for i in order]
    pools = {
        "synthetic": shuffled[num_back:],
        "train": [texts.train[i] for i in stream(seed, "student real").permutation(len(texts.train))],
    }
    lengths = {side: np.cumsum([len(tokens(t)) for t in own]) for side, own in pools.items()}
    most = min(int(total[-1]) if len(total) else 0 for total in lengths.values())
    sides = {side: own[: int(np.searchsorted(lengths[side], most)) + 1] for side, own in pools.items()}
    return sides, shuffled[:num_back], most


def some_blocks(blocks: Sequence[str], what: str, length: int) -> list[str]:
    if len(blocks) < MIN_BLOCKS:
        raise UserError(
            f"--student: {what} give {len(blocks)} blocks of {length} tokens to judge by, and {MIN_BLOCKS} are needed; "
            f"give more texts or a recipe with a shorter length"
        )
    return list(blocks[:MAX_BLOCKS])


def _trained(
    args: EvaluateArgs, recipe: Any, spec: Any, tokenizer: Any, texts: list[str], store: Store
) -> dict[str, bytes]:
    from gristmill.generators.families.fit import is_finished
    from gristmill.generators.lm.family import CausalLm, served_files
    from gristmill.jobs.fit.command import run_fit
    from gristmill.jobs.fit.plan import Plan

    rows = pa.table({"text": pa.array(texts, pa.string())})
    family = CausalLm(spec, SCHEMA)
    family.tokenizer = tokenizer
    told = {"path": "an evaluation", "num_rows": rows.num_rows, "digest": digest_table(rows)}
    own = replace(recipe, seed=args.seed)
    job = Plan(own, family, rows, told, []).fit(store)
    console = Console(stderr=True, highlight=False)
    if not is_finished(store):
        card = run_fit(job, own, console)
        if card is None:
            raise KeyboardInterrupt
    return served_files(store)


def beside(
    teacher: "Scorer", students: dict[str, "Scorer"], blocks: list[str], length: int, bits: dict[str, float]
) -> dict[str, Any]:
    """The teacher on the same blocks; `agreement` only where both have one tokenizer."""
    own = _whole_bits(teacher, blocks, length)
    gap = own - bits["train"]
    student = students["synthetic"]
    agreement = None
    if teacher.tokenizer.get_vocab() == student.tokenizer.get_vocab():
        agreement = float((teacher.choices(blocks, length) == student.choices(blocks, length)).mean())
    return {
        "bits_per_byte": own,
        "agreement": agreement,
        # Of a teacher that a student of real texts is no better than there is no gap to recover.
        "gap_recovered": (own - bits["synthetic"]) / gap if gap > 0 else None,
    }


def _whole_bits(scorer: "Scorer", blocks: list[str], length: int) -> float:
    from gristmill.engines.scorer import bits_per_byte
    from gristmill.generators.lm.tokens import encoded

    longest = max(len(ids) for ids in encoded(scorer.tokenizer, blocks))
    return bits_per_byte(scorer.log_probabilities(blocks, min(longest, WHOLE * length)), blocks)
