"""The verbs as functions. Each takes what its command takes; the command line calls the same.

Each returns a `Result`, except `preview`, which has no output and returns its rows.

`recipe` is the path of a TOML file, `package:NAME` for a shipped one, or a dict of the same tables. `settings` are
"a.b=c" lines as `--set` takes them. Progress goes to the logger "gristmill" and, on a terminal, to stderr.

Each raises UserError with one line when something cannot be done. A run that Ctrl-C stops returns with the state
"stopped"; the same call resumes it.
"""

from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from typing import Any

from gristmill.jobs.results import Result

Recipe = str | PathLike[str] | Mapping[str, Any]


def produce(recipe: Recipe, out: str | PathLike[str], settings: Sequence[str] = ()) -> Result:
    """Run a recipe into `out`; the same call again resumes. Rows: "rows" (kept) and "rejected"."""
    from gristmill.jobs.produce.command import produce as verb

    return verb(_recipe(recipe), fspath(out), settings)


def preview(recipe: Recipe, n: int = 5, settings: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The first `n` rows of a recipe with what every stage says of them. Writes nothing.

    Each row is a dict: id, source_id, source, columns, turns, finish, tokens_in, tokens_out, reject (None: kept), and
    stages, a list of {"stage", "verdict": "pass" | "reject" | "not run", "reason", "findings"}.
    """
    from gristmill.jobs.preview.command import preview as verb

    return verb(_recipe(recipe), n, settings)


def fit(recipe: Recipe, out: str | PathLike[str], settings: Sequence[str] = ()) -> Result:
    """Fit a model into `out`; the same call again goes on from the last checkpoint. No rows: produce makes them."""
    from gristmill.jobs.fit.command import fit as verb

    return verb(_recipe(recipe), fspath(out), settings)


def study(study: Recipe, out: str | PathLike[str], settings: Sequence[str] = ()) -> Result:
    """Run a study into `out`; the same call again resumes. Rows: a row a chain and generation, and "summary"."""
    from gristmill.jobs.study.command import study as verb

    return verb(_recipe(study), fspath(out), settings)


def flow(flow: Recipe, out: str | PathLike[str], settings: Sequence[str] = ()) -> Result:
    """Run a chain of steps into `out`; the same call again resumes. Rows: those of a step, by its name."""
    from gristmill.jobs.flow.command import flow as verb

    return verb(_recipe(flow), fspath(out), settings)


def evaluate(
    synthetic: str | PathLike[str],
    real_train: str | PathLike[str],
    real_holdout: str | PathLike[str],
    out: str | PathLike[str],
    **options: Any,
) -> Result:
    """Compare synthetic rows with real ones; `totals` is metrics.json.

    `options`: schema, target, model, text_column, perplexity_model, student, teacher, seed, max_rows, as the flags of
    `gristmill evaluate`. Raises TypeError for others.
    """
    from gristmill.jobs.evaluate.command import EvaluateArgs
    from gristmill.jobs.evaluate.command import evaluate as verb

    paths: dict[str, Any] = {"synthetic": synthetic, "real_train": real_train, "real_holdout": real_holdout, "out": out}
    return verb(EvaluateArgs(**{name: fspath(path) for name, path in paths.items()}, **options))


def compare(
    corpora: Sequence[str | PathLike[str]], real: str | PathLike[str], out: str | PathLike[str], **options: Any
) -> Result:
    """Train students on corpora and on real text, and judge them; `totals` is compare.json.

    `options`: holdout, text_column, num_tokens, num_seeds, student, settings, as the flags of `gristmill compare`.
    Raises TypeError for others.
    """
    from gristmill.jobs.compare.command import CompareArgs
    from gristmill.jobs.compare.command import compare as verb

    return verb(CompareArgs([fspath(corpus) for corpus in corpora], fspath(real), fspath(out), **options))


def pack(
    source: Recipe,
    to: str | PathLike[str],
    *,
    format: str = "rows",
    shard_mb: int = 256,
    seed: int | None = None,
    facts: Recipe | None = None,
    without: str | PathLike[str] | None = None,
    public: bool = False,
    without_reasoning: bool = False,
) -> Result:
    """Write the release of a run or of a mixture. Rows: those of the release.

    facts: a TOML file, or its tables, whose `[release]` and `[source]` replace keys for card and metadata.
    without: a file of row ids, source ids or source digests whose rows, and rows made from them, are left out.
    public: whether everyone may read a release at hf://.
    without_reasoning: whether messages leave out the model's reasoning.
    """
    from gristmill.jobs.release.command import pack as verb
    from gristmill.jobs.release.options import PackOptions

    options = PackOptions(
        shard_mb=shard_mb,
        seed=seed,
        format_name=format,
        facts=None if facts is None else _recipe(facts),
        without=None if without is None else fspath(without),
        is_public=public,
        without_reasoning=without_reasoning,
    )
    return verb(_recipe(source), fspath(to), options)


def audit(uri: str | PathLike[str]) -> Result:
    """Re-read an output and prove it; the state is "ok" or "wrong", and `totals["wrong"]` has a line a finding."""
    from gristmill.jobs.audit.command import audit as verb

    return verb(fspath(uri))


def status(uri: str | PathLike[str]) -> Result:
    """How far a run is; `totals` is what `gristmill status --json` prints."""
    from gristmill.jobs.status.command import status as verb

    return verb(fspath(uri))


def report(uri: str | PathLike[str]) -> Result:
    """Write report.html beside the shards of a run."""
    from gristmill.jobs.report.command import report as verb

    return verb(fspath(uri))


def _recipe(recipe: Recipe) -> str | Mapping[str, Any]:
    return recipe if isinstance(recipe, Mapping) else fspath(recipe)
