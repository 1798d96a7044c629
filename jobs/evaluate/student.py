"""Utility of texts: a student language model trained on synthetic texts, and one trained on as many real texts.

Both are scored on the real holdout (train on synthetic, test on real), in bits per byte, which do not depend on the
tokenizer. With the teacher that wrote the texts, two more numbers are computed: how often student and teacher choose
the same token (imitation), and how much of the gap between the teacher and a student of real texts is recovered (weak
to strong: Burns et al. 2023, section 3, where a strong student learns from a weak teacher's labels).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from gristmill.jobs.evaluate.inputs import EvaluateArgs
from gristmill.jobs.terminal.console import open_console
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
HELD_BACK_SHARE = 0.1  # of the synthetic texts; no student is trained on them
MAX_BLOCKS = 200  # blocks of each side that students are scored on
MIN_BLOCKS = 8
MAX_TOKEN_RATIO = 8  # a teacher reads a block of up to this many times the student's length
SCHEMA = TableSchema((Column("text", "text"),))


def check_student(args: EvaluateArgs) -> None:
    """Raise UserError for a recipe of another kind than a student's, and for a missing teacher. Trains nothing."""
    if args.student is None:
        return
    from gristmill.engines import models
    from gristmill.jobs.fit.plan import read_recipe

    family = read_recipe(args.student)[1]
    if family.kind != KIND:
        raise UserError(
            f"--student {args.student}: its model is of kind '{family.kind}'; a student is of kind '{KIND}'"
        )
    if args.teacher is not None:
        models.check(args.teacher)


def judge_student(
    args: EvaluateArgs, texts: "Corpora", store: Store, log_step: Callable[[str], None]
) -> dict[str, Any]:
    """The section `text.student` of metrics.json. Runs two fits on the cluster; after a crash it keeps finished fits.

    Raises UserError for too little text.
    """
    from gristmill.cluster.connect import connected
    from gristmill.engines.scorer import Scorer, bits_per_byte, perplexity
    from gristmill.generators.lm import tokens
    from gristmill.generators.lm.family import CausalLm
    from gristmill.jobs.fit.plan import read_recipe

    recipe, _, spec = read_recipe(str(args.student))
    sides, held_back, num_words = shares(texts, args.seed)
    tokenizer = CausalLm(spec, SCHEMA).own_tokenizer(sides["train"])  # made of real texts, used by both students
    blocks = {
        "real": first_blocks(tokens.pieces(tokenizer, texts.holdout, spec.length), "--real-holdout", spec.length),
        "synthetic": first_blocks(tokens.pieces(tokenizer, held_back, spec.length), "the synthetic rows", spec.length),
    }
    scorers: dict[str, Scorer] = {}
    with connected(recipe.cluster):  # one Ray for both fits
        for side, texts_of_side in sides.items():
            log_step(f"student: training on {len(texts_of_side):,} {'real' if side == 'train' else 'synthetic'} texts")
            files = _train(args, recipe, spec, tokenizer, texts_of_side, open_store(store.path(f"{FOLDER}/{side}")))
            scorers[side] = Scorer.from_files(files, tokenizer)
    log_step("student: scoring")
    scores = {
        side: {of: scorer.log_probabilities(some, spec.length) for of, some in blocks.items()}
        for side, scorer in scorers.items()
    }
    bits = {of: {side: bits_per_byte(scores[side][of], blocks[of]) for side in sides} for of in blocks}
    result = {
        "spec": literals(spec),
        "words_of_a_side": num_words,
        "texts": {side: len(some) for side, some in sides.items()},
        "blocks": {of: len(some) for of, some in blocks.items()},
        "bits_per_byte": bits["real"],
        "perplexity": {side: perplexity(scores[side]["real"]) for side in sides},
        "bits_per_byte_of_synthetic": bits["synthetic"],
        "ratio": bits["real"]["train"] / bits["real"]["synthetic"],
        "base_bits_per_byte": None,
        "teacher": None,
    }
    if spec.base is not None:
        result["base_bits_per_byte"] = _bits_of_whole_blocks(Scorer.from_model(spec.base), blocks["real"], spec.length)
    if args.teacher is not None:
        log_step("student: comparing with the teacher")
        result["teacher"] = compare_teacher(
            Scorer.from_model(args.teacher), scorers, blocks["real"], spec.length, bits["real"]
        )
    open_store(store.path(FOLDER)).clear()
    return result


def shares(texts: "Corpora", seed: int) -> tuple[dict[str, list[str]], list[str], int]:
    """Training texts by side, held-back synthetic texts, and the number of words per side.

    Both sides have about the same number of words. The seed draws the order of the texts.
    """
    from gristmill.evaluation.draws import stream
    from gristmill.records.words import tokens

    order = stream(seed, "student synthetic").permutation(len(texts.synthetic))
    num_held_back = max(1, round(HELD_BACK_SHARE * len(order)))
    shuffled = [texts.synthetic[i] for i in order]
    pools = {
        "synthetic": shuffled[num_held_back:],
        "train": [texts.train[i] for i in stream(seed, "student real").permutation(len(texts.train))],
    }
    lengths = {side: np.cumsum([len(tokens(t)) for t in pool]) for side, pool in pools.items()}
    most = min(int(total[-1]) if len(total) else 0 for total in lengths.values())
    sides = {side: pool[: int(np.searchsorted(lengths[side], most)) + 1] for side, pool in pools.items()}
    return sides, shuffled[:num_held_back], most


def first_blocks(blocks: Sequence[str], side: str, length: int) -> list[str]:
    """At most MAX_BLOCKS blocks. Raises UserError for fewer than MIN_BLOCKS; `side` names the texts."""
    if len(blocks) < MIN_BLOCKS:
        raise UserError(
            f"--student: {side} give {len(blocks)} blocks of {length} tokens, and {MIN_BLOCKS} are needed; give more "
            f"texts or a recipe with a shorter length"
        )
    return list(blocks[:MAX_BLOCKS])


def _train(
    args: EvaluateArgs, recipe: Any, spec: Any, tokenizer: Any, texts: list[str], store: Store
) -> dict[str, bytes]:
    """Fit a student to the texts, unless that is done, and return its files. Raises KeyboardInterrupt if stopped."""
    from gristmill.generators.families.fit import is_finished
    from gristmill.generators.lm.family import CausalLm, served_files
    from gristmill.jobs.fit.command import run_fit
    from gristmill.jobs.fit.plan import Plan

    rows = pa.table({"text": pa.array(texts, pa.string())})
    family = CausalLm(spec, SCHEMA)
    family.tokenizer = tokenizer
    trained_on = {"path": "an evaluation", "num_rows": rows.num_rows, "digest": digest_table(rows)}
    seeded = replace(recipe, seed=args.seed)
    job = Plan(seeded, family, rows, trained_on, []).fit(store)
    console = open_console(is_error=True)
    if not is_finished(store):
        card = run_fit(job, seeded, console)
        if card is None:
            raise KeyboardInterrupt
    return served_files(store)


def compare_teacher(
    teacher: "Scorer", students: dict[str, "Scorer"], blocks: list[str], length: int, bits: dict[str, float]
) -> dict[str, Any]:
    """The teacher's score on the same blocks. `agreement` is None unless teacher and student share a tokenizer."""
    teacher_bits = _bits_of_whole_blocks(teacher, blocks, length)
    gap = teacher_bits - bits["train"]
    student = students["synthetic"]
    agreement = None
    if teacher.tokenizer.get_vocab() == student.tokenizer.get_vocab():
        agreement = float((teacher.choices(blocks, length) == student.choices(blocks, length)).mean())
    return {
        "bits_per_byte": teacher_bits,
        "agreement": agreement,
        # There is no gap to recover unless a student of real texts is better than the teacher.
        "gap_recovered": (teacher_bits - bits["synthetic"]) / gap if gap > 0 else None,
    }


def _bits_of_whole_blocks(scorer: "Scorer", blocks: list[str], length: int) -> float:
    from gristmill.engines.scorer import bits_per_byte
    from gristmill.generators.lm.tokens import encode

    longest = max(len(ids) for ids in encode(scorer.tokenizer, blocks))
    return bits_per_byte(scorer.log_probabilities(blocks, min(longest, MAX_TOKEN_RATIO * length)), blocks)
