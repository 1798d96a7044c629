"""`gristmill evaluate SYNTHETIC --real-train URI --real-holdout URI --out URI`: metrics.json and report.html.

The same tables, flags and package versions give the same metrics.json; it holds no times.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

from rich.table import Table

from gristmill.engines import models
from gristmill.generators.private.account import privacy_line
from gristmill.jobs.evaluate.inputs import EvaluateArgs, Inputs, read_inputs
from gristmill.jobs.evaluate.student import check_student, judge_student
from gristmill.jobs.evaluate.texts import text_rows
from gristmill.jobs.results import Result
from gristmill.jobs.terminal.console import open_console, print_json
from gristmill.jobs.terminal.tables import clock
from gristmill.records.errors import UserError
from gristmill.records.extras import check_installed
from gristmill.records.masking.masks import masked
from gristmill.records.output.formats import newest
from gristmill.records.output.manifest import versions
from gristmill.records.pins import Pins
from gristmill.records.printable import json_text
from gristmill.records.spec import literals
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_output, open_store

logger = logging.getLogger(__name__)

METRICS, REPORT = "metrics.json", "report.html"
FORMAT = newest(METRICS)
AXES = ("fidelity", "diversity", "utility", "privacy")  # of tables
OTHER_OUTPUTS = ("manifest.json", "model.json", "flow.json")  # a folder that holds one of them has its own report.html

logger = logging.getLogger(__name__)

__all__ = ["EvaluateArgs", "evaluate"]


def command(as_json: bool, **flags: Any) -> int:
    """`gristmill evaluate`: prints a summary or the metrics; returns 0. Raises UserError for bad input."""
    result = evaluate(EvaluateArgs(**flags))
    if as_json:
        print_json(result.totals)
        return 0
    console, store = open_console(), open_store(result.uri)
    console.print(summary_table(dict(result.totals)))
    console.print_line(store.path(REPORT))
    console.print_line(store.path(METRICS))
    return 0


def evaluate(args: EvaluateArgs) -> Result:
    """Compute the metrics and write both files; `totals` is the content of metrics.json.

    Raises UserError for bad input and for a package that is not installed.
    """
    with Pins().active():  # tables and models are read more than once
        return _evaluate(args)


def _evaluate(args: EvaluateArgs) -> Result:
    check_packages(args)
    store = open_output(args.out)
    for name in OTHER_OUTPUTS:
        if store.exists(name):
            raise UserError(f"{store.uri} holds {name}: choose a folder of its own for --out")
    started = time.monotonic()

    def log_step(text: str) -> None:
        logger.info(f"[{clock(time.monotonic() - started)}]  {text}")

    if args.perplexity_model is not None:
        models.check(args.perplexity_model)
    with store.writable():
        log_step("reading the tables")
        check_student(args)
        inputs = read_inputs(args)
        for doubt in inputs.doubts:
            logger.info(f"note: {doubt}")
        metrics = write_evaluation(args, inputs, store, log_step)
    log_step("done")
    return Result(store.uri, "complete", metrics)


def check_packages(args: EvaluateArgs) -> None:
    """Raise UserError, with the command that installs it, for a package that is missing."""
    check_installed("tables", "sklearn", "scipy")
    if args.perplexity_model is not None or args.student is not None:
        check_installed("lm", "torch", "transformers")


def write_evaluation(
    args: EvaluateArgs, inputs: Inputs, store: Store, log_step: Callable[[str], None]
) -> dict[str, Any]:
    """Compute the metrics, write `metrics.json` and `report.html`, and return the content of the first."""
    from gristmill.engines.scorer import Scorer
    from gristmill.evaluation.corpus import judge_texts
    from gristmill.evaluation.whole import judge
    from gristmill.jobs.evaluate.page import page

    scorer = Scorer.from_model(args.perplexity_model) if args.perplexity_model is not None else None
    score = scorer.log_probabilities if scorer else None
    judged = judge(inputs.sides, args.target, args.seed, args.max_rows, log_step) if inputs.sides else None
    texts = judge_texts(inputs.texts, args.seed, args.max_rows, score, log_step) if inputs.texts else None
    axes = judged.metrics if judged else dict.fromkeys(AXES)
    axes["text"] = texts.metrics if texts else None
    if inputs.texts is not None and axes["text"] is not None:
        axes["text"]["student"] = judge_student(args, inputs.texts, store, log_step) if args.student else None
    metrics = {"headline": headline(axes), **axes, **_provenance(args, inputs)}
    log_step("report.html")
    html = page(metrics, judged, texts, args.seed)
    store.put(METRICS, (json_text(metrics, indent=2, allow_nan=False) + "\n").encode())
    store.put(REPORT, html.encode("utf-8", "replace"))
    return metrics


def headline(metrics: dict[str, Any]) -> dict[str, Any]:
    """The most informative numbers: utility first, the strongest attack, and how much text is copied."""
    utility, fidelity, privacy, text = (metrics[axis] for axis in ("utility", "fidelity", "privacy", "text"))
    numbers: dict[str, Any] = {}
    if fidelity:
        strongest = max(privacy["attacks"], key=lambda a: a["auc"])
        numbers = {
            "tstr_over_trtr": utility["ratio"] if utility else None,
            "c2st_auc": fidelity["c2st_auc"]["value"],
            "column_shapes": fidelity["column_shapes"]["value"],
            "column_pair_trends": fidelity["column_pair_trends"]["value"],
            "recall": metrics["diversity"]["recall"]["value"],
            "coverage": metrics["diversity"]["coverage"]["value"],
            "strongest_attack": strongest["name"],
            "attack_auc": strongest["auc"],
            "exact_copies": privacy["copies"]["share"],
        }
    if text:
        memorised, coverage = text["memorised"]["synthetic"], text["embeddings"]["synthetic"]
        numbers |= {
            "text_coverage": coverage["coverage"] if coverage else None,
            "text_distinct_2": text["distinct_2"]["synthetic"],
            "text_self_bleu": text["self_bleu"]["synthetic"],
            "text_memorised": memorised["ngrams"] if memorised else None,
            "text_copies": text["copies"]["synthetic"],
            "student_ratio": text["student"]["ratio"] if text["student"] else None,
        }
    return numbers


def _provenance(args: EvaluateArgs, inputs: Inputs) -> dict[str, Any]:
    """The inputs, settings, model and package versions behind the metrics."""
    card = inputs.card
    paths = {"real_train": args.real_train, "real_holdout": args.real_holdout, "synthetic": args.synthetic}
    model = None
    if card is not None:
        model = {
            "kind": card.kind,
            "spec": masked(card.identity["spec"]),
            "digest": card.digest,
            "seed": card.identity["seed"],
            "trained_on": card.trained_on,
            "privacy": card.privacy,
            "audit": inputs.audit,
        }
    return {
        "format": FORMAT,
        "inputs": {
            name: {
                "path": paths[name],
                "digest": inputs.digests[name],
                "rows": num,
                "rows_used": min(num, args.max_rows),
            }
            for name, num in zip(paths, inputs.rows)
        },
        "schema": literals(inputs.sides.schema) if inputs.sides else None,
        "target": args.target,
        "seed": args.seed,
        "max_rows": args.max_rows,
        "perplexity_model": args.perplexity_model,
        "student": args.student,
        "teacher": args.teacher,
        "notes": inputs.doubts,
        "model": model,
        "versions": {k: v for k, v in versions().items() if k in ("python", "gristmill", "numpy", "pyarrow")}
        | _library_versions(),
    }


def _library_versions() -> dict[str, str]:
    import scipy
    import sklearn

    return {"scikit-learn": sklearn.__version__, "scipy": scipy.__version__}


def number(value: float | None, digits: int = 3) -> str:
    """The value for display, or a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}"


def summary_table(metrics: dict[str, Any]) -> Table:
    """The main metrics as a table for the terminal."""
    head, utility, fidelity = metrics["headline"], metrics["utility"], metrics["fidelity"]
    of = f": {utility['metric']} of {utility['target']} by {utility['learner']}" if utility else ""
    table = Table(title=f"evaluation{of}", title_justify="left", box=None, padding=(0, 2))
    for name in ("", "synthetic", "real rows", "best"):
        table.add_column(name, justify="left" if name in ("", "best") else "right")
    if utility:
        scores = utility["scores"][utility["learner"]]
        table.add_row("TSTR / TRTR", number(head["tstr_over_trtr"]), "1.000", "1 or more", style="bold")
        for name, values in scores["TSTR"].items():
            table.add_row(f"TSTR {name.replace('_', '-')}", number(values), number(scores["TRTR"][name]), "high")
    if fidelity:
        _table_rows(table, metrics)
    if metrics["text"]:
        for row in text_rows(metrics["text"]):
            real = row["holdout"] if row["train"] is None else row["train"]
            table.add_row(row["name"], number(row["synthetic"]), number(real), row["meaning"])
    if metrics["model"]:
        table.caption, table.caption_justify = f"privacy: {privacy_line(metrics['model']['privacy'])}", "left"
    return table


def _table_rows(table: Table, metrics: dict[str, Any]) -> None:
    fidelity, diversity, privacy = metrics["fidelity"], metrics["diversity"], metrics["privacy"]
    for label, row, best in (
        ("column shapes", fidelity["column_shapes"], "1"),
        ("column pair trends", fidelity["column_pair_trends"], "1"),
        ("two-sample test, AUC", fidelity["c2st_auc"], "0.5"),
        ("Frechet distance", fidelity["frechet"], "0"),
        *((name, diversity[name], "1") for name in ("precision", "recall", "density", "coverage")),
    ):
        table.add_row(label, number(row["value"]), number(row["real"]), best)
    for attack in privacy["attacks"]:
        low, high = attack["auc_by_chance"]
        rate = attack["tpr_at_fpr_0.01"]["rate"]
        best = f"{low:.2f} to {high:.2f}; TPR {rate:.1%} at 1% FPR"
        table.add_row(f"{attack['name']} attack, AUC", number(attack["auc"]), "", best)
    copies, closer = privacy["copies"], privacy["distances"]["closer_to_train"]
    table.add_row("exact copies", f"{copies['share']:.2%}", f"{copies['share_of_holdout']:.2%}", "")
    table.add_row("closer to train", number(closer["share"]), "", f"{closer['expected']:.3f}, no guarantee of privacy")
