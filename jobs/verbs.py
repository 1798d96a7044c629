"""The verbs of the command line, with their flags and their help."""

import argparse
from typing import NoReturn

import gristmill
from gristmill.jobs import help_texts as texts
from gristmill.records.masking.masks import masked_text
from gristmill.records.printable import printable_line

FORMATS = ("rows", "messages", "alpaca", "preference", "text", "prompt-completion")  # those of jobs/release/formats.py


class Parser(argparse.ArgumentParser):
    """A parser whose errors repeat a faulty command line without its secrets."""

    def error(self, message: str) -> NoReturn:
        super().error(printable_line(masked_text(message)))


def parser() -> argparse.ArgumentParser:
    """The whole command line. Each verb names its function as `run`, "module:function" below gristmill.jobs."""
    whole = Parser(
        prog="gristmill",
        description=texts.GRISTMILL,
        epilog=texts.GRISTMILL_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole.add_argument("--version", action="version", version=f"gristmill {gristmill.__version__}")
    verbs = whole.add_subparsers(dest="verb", required=True, metavar="VERB")
    for add in (
        _produce,
        _preview,
        _fit,
        _audit_privacy,
        _evaluate,
        _compare,
        _study,
        _flow,
        _status,
        _audit,
        _recipes,
        _report,
        _pack,
        _queue,
        _tune,
    ):
        add(verbs)
    return whole


def _verb(verbs: argparse._SubParsersAction, name: str, run: str, summary: str) -> argparse.ArgumentParser:
    description, examples = texts.VERBS[name]
    verb: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=summary,
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.set_defaults(run=run)
    return verb


def _settings(verb: argparse.ArgumentParser, file: str = "recipe") -> None:
    verb.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="a.b=c",
        dest="settings",
        help=f"change one key of the {file}, e.g. limits.asks=100 or stages.0.threshold=0.7 (repeatable)",
    )


def _json(verb: argparse.ArgumentParser, text: str) -> None:
    verb.add_argument("--json", action="store_true", dest="as_json", help=text)


def _produce(verbs: argparse._SubParsersAction) -> None:
    verb = _verb(verbs, "produce", "produce.command:command", "make a corpus from a recipe")
    verb.add_argument("recipe_path", metavar="RECIPE", help="TOML file, or package:NAME for a recipe of the project")
    verb.add_argument("--out", required=True, metavar="URI", help="local folder or s3://bucket/prefix")
    _settings(verb)
    verb.add_argument("--dry-run", action="store_true", help="check everything and show the plan; start nothing")


def _preview(verbs: argparse._SubParsersAction) -> None:
    verb = _verb(verbs, "preview", "preview.command:command", "show a few rows of a recipe with every stage's verdict")
    verb.add_argument("recipe_path", metavar="RECIPE", help="TOML file, or package:NAME for a recipe of the project")
    verb.add_argument("-n", type=int, default=5, dest="num_rows", metavar="N", help="number of rows (default 5)")
    _settings(verb)
    _json(verb, "print JSON instead of panels")


def _fit(verbs: argparse._SubParsersAction) -> None:
    verb = _verb(verbs, "fit", "fit.command:command", "fit a model to tables, images or texts")
    verb.add_argument("recipe_path", metavar="RECIPE", help="TOML file with [data] and [model], or package:fit/NAME")
    verb.add_argument("--out", required=True, metavar="URI", help="where the model goes: local folder or s3://")
    _settings(verb)
    verb.add_argument("--dry-run", action="store_true", help="check everything and show the plan; start nothing")


def _audit_privacy(verbs: argparse._SubParsersAction) -> None:
    verb = _verb(
        verbs, "audit-privacy", "fit.audit_privacy:run", "test a model's privacy claim: a lower bound on epsilon"
    )
    verb.add_argument("recipe", metavar="RECIPE", help="the recipe of the fit")
    verb.add_argument("--out", required=True, metavar="URI", help="the --out of the fit; audit.json goes there")
    _settings(verb)
    verb.add_argument(
        "--data",
        metavar="URI",
        help="rows to add the canaries to; default: for a private model rows that it samples itself, for any other "
        "model the recipe's rows",
    )
    verb.add_argument("--canaries", type=int, metavar="N", help="number of canaries (default: rows / 10, 100 to 1000)")
    verb.add_argument("--samples", type=int, metavar="N", help="sampled rows (default: 4 per row, at most 100000)")
    verb.add_argument("--seed", type=int, help="of canaries and coins (default: random)")
    _json(verb, "print audit.json instead of a table")


def _evaluate(verbs: argparse._SubParsersAction) -> None:
    verb = _verb(
        verbs,
        "evaluate",
        "evaluate.command:command",
        "compare synthetic rows with real ones: metrics.json and report.html",
    )
    verb.add_argument("synthetic", metavar="SYNTHETIC", help="the --out of a run, or a table (Parquet, CSV, JSONL)")
    verb.add_argument("--real-train", required=True, metavar="URI", help="real rows that the generator learned from")
    verb.add_argument("--real-holdout", required=True, metavar="URI", help="real rows that the generator never saw")
    verb.add_argument(
        "--schema", metavar="FILE", help="TOML; default: the model's schema, else inferred from the train rows"
    )
    verb.add_argument("--target", metavar="COLUMN", help="target column of the utility task")
    verb.add_argument("--model", metavar="URI", help='the --out of a fit; a run of kind = "model" names it itself')
    verb.add_argument("--text-column", metavar="COLUMN", help="text column to compare (default: text)")
    verb.add_argument(
        "--perplexity-model", metavar="PATH", help="causal language model: folder, hub id, s3:// or package:smollm2"
    )
    verb.add_argument(
        "--student",
        metavar="RECIPE",
        help="fit recipe of kind causal_lm: a student is trained on synthetic texts and another on as many real ones",
    )
    verb.add_argument("--teacher", metavar="PATH", help="the model that wrote the texts, to compare the students with")
    verb.add_argument("--seed", type=int, default=0, help="of all draws and learners (default 0)")
    verb.add_argument("--max-rows", type=int, default=50_000, help="rows drawn from each table (default 50000)")
    verb.add_argument("--out", required=True, metavar="URI", help="where both files go: a folder of its own")
    _json(verb, "print metrics.json instead of a table")


def _compare(verbs: argparse._SubParsersAction) -> None:
    verb = _verb(verbs, "compare", "compare.command:command", "which corpus teaches a small language model most")
    verb.add_argument(
        "corpora",
        metavar="CORPUS",
        nargs="+",
        help="the --out of a run, a release, or a table (Parquet, CSV, JSONL); NAME=URI gives it a name",
    )
    verb.add_argument(
        "--real", required=True, metavar="PATH", help="real text: the yardstick, a student learns from it"
    )
    verb.add_argument("--holdout", metavar="PATH", help="real text that judges all students (default: part of --real)")
    verb.add_argument("--text-column", default="text", metavar="COLUMN", help="column of the texts (default: text)")
    verb.add_argument(
        "--tokens",
        type=int,
        default=131_072,
        dest="num_tokens",
        metavar="N",
        help="tokens that each student learns from (default 131072, or as many as the smallest corpus has)",
    )
    verb.add_argument(
        "--seeds", type=int, default=3, dest="num_seeds", metavar="K", help="students of each corpus (default 3)"
    )
    verb.add_argument(
        "--student", metavar="RECIPE", help="fit recipe of kind causal_lm (default: a million weights from scratch)"
    )
    _settings(verb, "student's recipe")
    verb.add_argument("--out", required=True, metavar="URI", help="where the result goes: local folder or s3://")
    verb.add_argument("--dry-run", action="store_true", help="read everything and show the plan; train nothing")
    _json(verb, "print compare.json instead of a table")


def _study(verbs: argparse._SubParsersAction) -> None:
    verb = _verb(verbs, "study", "study.command:command", "train models on their own output, over a grid of regimes")
    verb.add_argument("path", metavar="STUDY", help="TOML file with [family], [regimes] and [grid], or package:NAME")
    verb.add_argument("--out", required=True, metavar="URI", help="local folder or s3://bucket/prefix")
    _settings(verb, "study")
    verb.add_argument("--dry-run", action="store_true", help="show cells, laws, chains and cost; start nothing")


def _flow(verbs: argparse._SubParsersAction) -> None:
    verb = _verb(verbs, "flow", "flow.command:command", "run a chain of steps as one job")
    verb.add_argument("path", metavar="FLOW", help="TOML file with [[steps]], or package:NAME")
    verb.add_argument("--out", required=True, metavar="URI", help="local folder or s3://bucket/prefix")
    _settings(verb, "flow")
    verb.add_argument("--dry-run", action="store_true", help="check everything and show all plans; start nothing")


def _status(verbs: argparse._SubParsersAction) -> None:
    verb = _verb(verbs, "status", "status.command:command", "show how far a run or a flow is")
    verb.add_argument("uri", metavar="URI", help="the --out of a run or a flow")
    _json(verb, "print JSON")
    verb.add_argument("--watch", action="store_true", dest="is_watching", help="keep showing it until the run ends")


def _audit(verbs: argparse._SubParsersAction) -> None:
    verb = _verb(verbs, "audit", "audit.command:command", "re-read an output and check every promise")
    verb.add_argument(
        "uri", metavar="URI", help="the --out of a run, a study or a flow, or the --to of a packed mixture"
    )
    _json(verb, "print JSON")


def _recipes(verbs: argparse._SubParsersAction) -> None:
    verb = _verb(verbs, "recipes", "recipes.catalogue:recipes", "list the project's recipes, or print one")
    verb.add_argument("name", metavar="NAME", nargs="?", help="print this one, with its comments")
    _json(verb, "print JSON")


def _report(verbs: argparse._SubParsersAction) -> None:
    verb = _verb(verbs, "report", "report.command:command", "write report.html: the run as one page with plots")
    verb.add_argument("uri", metavar="URI", help="the --out of a run or a flow")


def _pack(verbs: argparse._SubParsersAction) -> None:
    verb = _verb(verbs, "pack", "release.command:command", "make a release: shuffled shards, card, Croissant metadata")
    verb.add_argument("uri", metavar="URI", help="the --out of a complete run, or the TOML file of a mixture")
    verb.add_argument(
        "--to",
        required=True,
        metavar="URI",
        help="where the release goes: an empty folder or prefix, hf://datasets/org/name, or that of the same pack",
    )
    verb.add_argument(
        "--public",
        action="store_true",
        dest="is_public",
        help="let everyone read a release at hf:// (default: private)",
    )
    verb.add_argument(
        "--format",
        choices=FORMATS,
        default=FORMATS[0],
        dest="format_name",
        help="rows: all columns (default). Trainers load the others directly: messages (chat), alpaca, preference "
        "(prompt, chosen, rejected), text, prompt-completion",
    )
    verb.add_argument(
        "--without-reasoning",
        action="store_true",
        help="leave the model's reasoning out of the messages (default: reasoning_content of the last answer)",
    )
    verb.add_argument(
        "--facts",
        metavar="FILE",
        help="TOML file whose [release] (title, license, languages, task, cite, ...) and [source] license replace "
        "those of the recipe or mixture, for card and Croissant metadata",
    )
    verb.add_argument("--shard-mb", type=int, default=256, help="approximate size of a shard in MiB (default 256)")
    verb.add_argument("--seed", type=int, help="of draw and shuffle (default: the mixture's, else 0)")
    verb.add_argument(
        "--without",
        metavar="FILE",
        help="leave out the rows that FILE lists, and rows made from them: row ids, source ids or source digests, one "
        "a line, or a CSV or JSONL file with a column id, source_id or source_digest",
    )
    verb.add_argument("--dry-run", action="store_true", help="count everything and show the plan; write nothing")


def _queue(verbs: argparse._SubParsersAction) -> None:
    verb = _verb(verbs, "queue", "queue.command:command", "show the runs of a cluster and what they hold")
    verb.add_argument("--address", metavar="ADDRESS", help="of the cluster: auto or host:port (default: RAY_ADDRESS)")
    verb.add_argument(
        "--quota",
        action="append",
        default=[],
        metavar="KEY=VALUE:DEVICES",
        dest="quotas",
        help="limit all runs with this label to so many devices; DEVICES none removes the limit (repeatable)",
    )
    _json(verb, "print JSON")


def _tune(verbs: argparse._SubParsersAction) -> None:
    verb = _verb(verbs, "tune", "tune.command:command", "find faster settings for a recipe's engine")
    verb.add_argument("recipe_path", metavar="RECIPE", help="TOML file with a teacher, or package:NAME")
    _settings(verb)
    verb.add_argument(
        "--minutes", type=float, metavar="M", help="time to spend (default: 10 with vLLM on CPU, 30 on GPUs)"
    )
    verb.add_argument("--asks", type=int, metavar="N", help="the most asks of a trial (default: all of the recipe)")
    _json(verb, "print JSON instead of a table")
