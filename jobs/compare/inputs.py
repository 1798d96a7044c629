"""The inputs of `gristmill compare`: corpora, real text and its holdout, the students' recipe, and what all share."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.generators.lm import student, tokens
from gristmill.generators.lm.family import CausalLm
from gristmill.generators.lm.spec import LmSpec
from gristmill.generators.lm.student import SCHEMA, StudentTask, StudentUnit
from gristmill.jobs.fit.plan import FitRecipe, read_recipe
from gristmill.jobs.recipes.toml_file import TomlSource
from gristmill.records.errors import UserError, without_keys
from gristmill.records.ids import fingerprint
from gristmill.records.output import manifest
from gristmill.records.readers.datasets import PACKAGE, DataSpec, data_spec, read_table
from gristmill.records.readers.formats import format_of
from gristmill.records.spec import literals
from gristmill.records.stores.opening import open_store

logger = logging.getLogger(__name__)

KIND, REAL = "causal_lm", "real"
# A model of a million weights: one student takes about a minute of one core.
STUDENT: Mapping[str, Any] = {"name": "student", "model": {"kind": KIND, "length": 64, "epochs": 3.0, "lr": 2e-3}}
NUM_TOKENS, NUM_SEEDS = 131_072, 3
POOL = 4  # a corpus is read up to so many times the tokens of a student, from which each seed draws its own
CHUNK = 256  # texts that are tokenised at once
MAX_BLOCKS, MIN_BLOCKS = 400, 8  # held-out blocks that students are scored on
MIN_STEPS = 4  # of a student in one epoch
NUM_ITEMS, MIN_ITEMS = 200, 20  # of a probe
PACKAGED = "package:help-topics"


@dataclass(frozen=True)
class CompareArgs:
    """The flags of `gristmill compare`."""

    corpora: Sequence[str]  # outputs of runs, releases or data files, each as URI or NAME=URI
    real: str  # real text that one student learns from
    out: str  # folder of compare.json and report.html
    holdout: str | None = None  # real text that judges all students; default: the holdout part of `real`
    text_column: str = "text"  # column of the texts
    num_tokens: int = NUM_TOKENS  # tokens that each student learns from
    num_seeds: int = NUM_SEEDS  # students of each corpus
    student: str | None = None  # fit recipe of kind causal_lm; default: STUDENT
    settings: Sequence[str] = field(default_factory=tuple)  # of --set, for the student's recipe

    def __post_init__(self) -> None:
        if self.num_seeds < 1 or self.num_tokens < 1:
            raise UserError("--seeds and --tokens must be at least 1")


@dataclass(frozen=True)
class Corpus:
    """A corpus as students read it: texts in a drawn order, up to POOL times the tokens of a student."""

    name: str
    path: str
    texts: list[str]
    num_tokens: int  # of `texts`, with an end each
    num_texts: int  # of the whole corpus

    @property
    def digest(self) -> str:
        return fingerprint(self.texts)


@dataclass(frozen=True)
class Comparison:
    """Everything that the students need."""

    recipe: FitRecipe
    corpora: list[Corpus]  # the real one last
    task: StudentTask
    notes: list[str]

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the measures of a corpus, apart from the corpus and the seed."""
        from gristmill.evaluation import probes

        shared = {k: v for k, v in literals(self.task).items() if k not in ("device", "tokenizer")}
        shared["holdout"], shared["probes"] = fingerprint(shared["holdout"]), fingerprint(shared["probes"])
        tokenizer = fingerprint(self.task.tokenizer)
        return {**shared, "tokenizer": tokenizer, "revisions": [student.REVISION, probes.REVISION]}

    def units(self, num_seeds: int) -> list[StudentUnit]:
        """A unit for each corpus and seed, seed by seed, so that a stopped comparison has whole seeds."""
        identity = self.identity
        digests = {corpus.name: corpus.digest for corpus in self.corpora}
        return [
            StudentUnit(
                fingerprint([identity, digests[corpus.name], seed])[:32],
                corpus.name,
                f"{student.WORK}/{digests[corpus.name][:16]}.parquet",
                seed,
            )
            for seed in range(num_seeds)
            for corpus in self.corpora
        ]


def read_comparison(args: CompareArgs) -> Comparison:
    """Read and check everything. Raises UserError for faulty inputs and too little text."""
    from gristmill.evaluation.draws import stream

    recipe, spec = _student(args.student or dict(STUDENT), args.settings, args.student)
    addresses = _addresses(args.corpora)
    real = data_spec(args.real)
    if args.holdout is None and real.part != "all":
        raise UserError(f"--real {args.real} is a part of a split: name the held-out text by --holdout")
    real_train = real if args.holdout is not None else DataSpec(real.path, part="train")
    held_out = data_spec(args.holdout) if args.holdout is not None else DataSpec(real.path, part="holdout")
    real_texts, holdout = (_texts(data, args.text_column) for data in (real_train, held_out))
    if real_texts == holdout:
        raise UserError("--holdout holds the same texts as --real; give texts that no student learns from")
    tokenizer = CausalLm(spec, SCHEMA).own_tokenizer(_some(real_texts, args.num_tokens * POOL))
    sources = [(name, str(data_spec(uri)), _texts(data_spec(uri), args.text_column)) for name, uri in addresses.items()]
    corpora = [_corpus(*source, tokenizer, args.num_tokens) for source in [*sources, (REAL, args.real, real_texts)]]
    num_tokens = _equal_tokens(corpora, args.num_tokens, spec)
    blocks = tokens.pieces(tokenizer, holdout, spec.length)
    if len(blocks) < MIN_BLOCKS:
        raise UserError(
            f"{held_out} gives {len(blocks)} blocks of {spec.length} tokens, and {MIN_BLOCKS} are needed: give more "
            f"held-out text, or --set model.length to a shorter one"
        )
    notes = [] if num_tokens == args.num_tokens // spec.length * spec.length else [_scarce(corpora, num_tokens)]
    selection = stream(0, "student holdout").permutation(len(blocks))[:MAX_BLOCKS]
    held_out_blocks = tuple(blocks[at] for at in np.sort(selection))
    items, more = _probes(holdout, corpora)
    unfinished = [note for name, uri in addresses.items() if (note := _unfinished(name, data_spec(uri).path))]
    notes += [*unfinished, *more, *_copies(held_out_blocks, corpora)]
    files = {name: data.decode() for name, data in tokens.files_of(tokenizer).items()}
    device = "cuda" if recipe.train.num_gpus else "cpu"
    task = StudentTask(literals(spec), num_tokens, files, held_out_blocks, items, device, recipe.train.num_cpus)
    return Comparison(recipe, corpora, task, notes)


def _student(source: TomlSource, settings: Sequence[str], flag: str | None) -> tuple[FitRecipe, LmSpec]:
    recipe, family, spec = read_recipe(source, settings)
    if family.kind != KIND:
        raise UserError(f"--student {flag}: its model is of kind '{family.kind}'; a student is of kind '{KIND}'")
    return recipe, spec


def _addresses(corpora: Sequence[str]) -> dict[str, str]:
    """The address of each corpus by its name: the last part of the address, or the name before "="."""
    addresses: dict[str, str] = {}
    for corpus in corpora:
        name, sep, uri = corpus.partition("=")
        if not sep or "/" in name or not name:
            name, uri = corpus.rstrip("/").rpartition("/")[2], corpus
        if not uri or name in addresses or name == REAL:
            why = "is the name of the real text" if name == REAL else "names two corpora" if uri else "has no address"
            raise UserError(f"'{name}' {why}: give each corpus a name of its own, as in NAME={uri or 'URI'}")
        addresses[name] = uri
    return addresses


def _unfinished(name: str, path: str) -> str | None:
    """A note on a corpus whose run is not complete; None for any other."""
    if path.startswith(PACKAGE) or format_of(path):
        return None
    run = manifest.load(open_store(path))
    return f"the run of '{name}' is {run.state}: its rows so far count" if run and run.state != "complete" else None


def _texts(data: DataSpec, column: str) -> list[str]:
    with without_keys():
        values = read_table(replace(data, columns=(column,))).column(column)
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        raise UserError(f"{data}: '{column}' holds no texts; name a column of texts by --text-column")
    return [text for text in values.to_pylist() if text and text.strip()]


def _some(texts: list[str], most_tokens: int) -> list[str]:
    """Texts in a drawn order, as many as hold about `most_tokens` tokens (of at least two bytes)."""
    from gristmill.evaluation.draws import stream

    selection: list[str] = []
    num_chars = 0
    for at in stream(0, "student pool").permutation(len(texts)):
        selection.append(texts[at])
        num_chars += len(texts[at])
        if num_chars > 8 * most_tokens:
            break
    return selection


def _corpus(name: str, path: str, texts: list[str], tokenizer: Any, num_tokens: int) -> Corpus:
    pool = _some(texts, POOL * num_tokens)
    total, kept = 0, 0
    while kept < len(pool) and total < POOL * num_tokens:
        total += sum(len(ids) + 1 for ids in tokens.encode(tokenizer, pool[kept : kept + CHUNK]))
        kept += len(pool[kept : kept + CHUNK])
    return Corpus(name, path, pool[:kept], total, len(texts))


def _equal_tokens(corpora: list[Corpus], num_tokens: int, spec: LmSpec) -> int:
    """Tokens of every student: `num_tokens`, or those of the smallest corpus; a multiple of the block's length."""
    smallest = min(corpora, key=lambda corpus: corpus.num_tokens)
    equal = min(num_tokens, smallest.num_tokens) // spec.length * spec.length
    if equal < (least := MIN_STEPS * spec.batch * spec.length):
        raise UserError(
            f"{smallest.path} has {smallest.num_tokens:,} tokens, --tokens is {num_tokens:,}, and a student needs at "
            f"least {least:,}: give more text, or --set model.batch and model.length to smaller ones"
        )
    return equal


def _scarce(corpora: list[Corpus], num_tokens: int) -> str:
    smallest = min(corpora, key=lambda corpus: corpus.num_tokens)
    return f"every student learns from {num_tokens:,} tokens: '{smallest.name}' has no more"


def _probes(holdout: list[str], corpora: list[Corpus]) -> tuple[dict[str, tuple[tuple[str, ...], ...]], list[str]]:
    """Options of the items by probe, without sentences that a corpus holds, and notes on probes that are left out."""
    from gristmill.evaluation import probes

    packaged = read_table(DataSpec(PACKAGED)).column("text").to_pylist()
    of_probe = {
        "cloze_holdout": probes.cloze_items(holdout, NUM_ITEMS),
        "cloze_python_help": probes.cloze_items(packaged, NUM_ITEMS),
        "agreement": probes.agreement_items(NUM_ITEMS),
    }
    options, notes = {}, []
    for name, items in of_probe.items():
        left = items
        for corpus in corpora:
            left = probes.unseen(left, corpus.texts)
        if len(left) < MIN_ITEMS:
            notes.append(f"probe {name} is left out: {len(left)} of {len(items)} items are in none of the corpora")
        else:
            options[name] = tuple(item.options for item in left)
    return options, notes


def _copies(blocks: Sequence[str], corpora: list[Corpus]) -> list[str]:
    """A note for each corpus that holds held-out blocks word for word."""
    notes = []
    for corpus in corpora:
        whole = "\n".join(corpus.texts)
        num = sum(block in whole for block in blocks)
        if num:
            notes.append(
                f"'{corpus.name}' holds {num} of {len(blocks)} held-out blocks word for word: its student has read them"
            )
    return notes
