"""The command line. Parses first and imports a verb only when it is called, so that --help is instant."""

import argparse
import os
import sys
from collections.abc import Sequence

from gristmill.jobs.terminal.logs import set_up_logging
from gristmill.records.errors import UserError

FORMATS = ("rows", "messages", "alpaca", "preference", "text", "prompt-completion")  # those of jobs/release/formats.py

EPILOG = """\
examples:
  gristmill recipes
  gristmill produce recipes/demo.toml --out out/demo
  gristmill produce recipes/demo.toml --out s3://bucket/demo --set limits.asks=10000 --set cluster.replicas=8
  gristmill status out/demo --watch
  gristmill report out/demo
  gristmill audit out/demo
  gristmill pack out/demo --to out/demo-release --shard-mb 256
  gristmill pack out/demo --to out/demo-chat --format messages
  gristmill pack mixtures/topics.toml --to out/topics-mixture
  gristmill fit recipes/fit/adult-tabddpm.toml --out out/adult-tabddpm
  gristmill audit-privacy recipes/fit/adult-mst.toml --out out/adult-mst
  gristmill study studies/gaussian-laws.toml --out out/gaussian-laws
  gristmill evaluate out/adult-rows --real-train package:adult/train --real-holdout package:adult/test --target income \
      --schema package:schemas/adult --out out/adult-evaluation

The same produce command again resumes; an output is never overwritten. S3 endpoint and keys come from the standard
AWS settings (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY). On a cluster, set RAY_ADDRESS or submit:
  ray job submit --working-dir . -- python -m gristmill produce recipes/demo.toml --out s3://bucket/demo
"""

AUDIT_PRIVACY = """\
Tests the privacy that a model claims. The recipe is fitted a second time, to rows and to canaries: made-up rows that
stand out, each put in or left out by the toss of a fair coin. Who sees the second model then guesses, for the canaries
that it is surest of, whether they were in. Epsilon bounds how many guesses can be right, so many right ones prove that
epsilon is large (Steinke, Nasr, Jagielski 2023). The second model is thrown away; audit.json stays beside the first,
and the page of `gristmill evaluate` shows it.

A bound above the claim refutes it: the verb says so and exits with 1. A bound below proves nothing.

An audit on private rows is covered by no budget. So a private model is audited on rows that it has sampled itself,
unless --data names others: public rows of the same schema, or the private ones, if audit.json is to be kept from sight.
Models that claim nothing can be audited too: the bound alone is told.
"""
AUDIT_EXAMPLES = """
examples:
  gristmill audit-privacy recipes/fit/adult-mst.toml --out out/adult-mst
  gristmill audit-privacy recipes/fit/adult-mst.toml --out out/adult-mst --data package:adult/test
  gristmill audit-privacy recipes/fit/adult-smote.toml --out out/adult-smote --canaries 500

A killed audit goes on with the same command, with the same canaries and coins. An audited model is not audited again:
remove audit.json for that, and mind that who throws coins until the bound is low has shown nothing.
"""


def parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(
        prog="gristmill",
        description="Turns a Ray cluster into a mill for synthetic data.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = whole.add_subparsers(dest="verb", required=True, metavar="VERB")

    produce = verbs.add_parser("produce", help="run a recipe; the same command again resumes")
    produce.add_argument("recipe", metavar="RECIPE", help="a TOML file, see recipes/")
    produce.add_argument("--out", required=True, metavar="URI", help="local folder or s3://bucket/prefix")
    _settings(produce)
    produce.add_argument("--dry-run", action="store_true", help="check everything and show the plan; start nothing")

    fit = verbs.add_parser("fit", help="fit a model (tabular, image, private) to rows; the same command again resumes")
    fit.add_argument("recipe", metavar="RECIPE", help="a TOML file with [data] and [model], see recipes/")
    fit.add_argument("--out", required=True, metavar="URI", help="where the model goes: local folder or s3://")
    _settings(fit)
    fit.add_argument("--dry-run", action="store_true", help="check everything and show the plan; start nothing")

    private = verbs.add_parser(
        "audit-privacy",
        help="test a fitted model's claim of privacy: a lower bound on epsilon, as audit.json beside the model",
        description=AUDIT_PRIVACY,
        epilog=AUDIT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    private.add_argument("recipe", metavar="RECIPE", help="the recipe that the model was fitted by")
    private.add_argument("--out", required=True, metavar="URI", help="the --out of the fit: audit.json goes there")
    _settings(private)
    private.add_argument(
        "--data",
        metavar="URI",
        help="rows to add the canaries to, as --real-train of evaluate; default: for a private model rows that it has "
        "sampled itself, for any other the recipe's",
    )
    private.add_argument("--canaries", type=int, metavar="N", help="default: a tenth of the rows, 100 to 1000")
    private.add_argument("--samples", type=int, metavar="N", help="rows sampled (default 4 a row fitted, <= 100000)")
    private.add_argument("--seed", type=int, help="of canaries and coins (default: the operating system's randomness)")
    private.add_argument("--json", action="store_true", help="print audit.json instead of a table")

    evaluate = verbs.add_parser("evaluate", help="judge synthetic rows by real ones: metrics.json and report.html")
    evaluate.add_argument("synthetic", metavar="SYNTHETIC", help="the --out of a run, or a table (Parquet, CSV, JSONL)")
    data = "file, folder, s3:// or package:NAME; PATH#train and PATH#holdout are the parts of a split, see the docs"
    evaluate.add_argument("--real-train", required=True, metavar="URI", help=f"the rows that were learnt from: {data}")
    evaluate.add_argument("--real-holdout", required=True, metavar="URI", help="real rows that the generator never saw")
    evaluate.add_argument("--schema", metavar="FILE", help="TOML; default: the model's, else read from the train rows")
    evaluate.add_argument("--target", metavar="COLUMN", help="what utility predicts from the other columns")
    evaluate.add_argument("--model", metavar="URI", help='the fit\'s --out; a run of kind = "model" names it itself')
    evaluate.add_argument(
        "--text-column", metavar="COLUMN", help="texts to judge (default: text, where all three tables have it)"
    )
    evaluate.add_argument(
        "--perplexity-model", metavar="PATH", help="causal language model: folder, hub id, s3:// or package:smollm2"
    )
    evaluate.add_argument(
        "--student",
        metavar="RECIPE",
        help="a fit recipe of kind causal_lm: trained on the synthetic texts and on as many real ones, and both judged "
        "on the holdout",
    )
    evaluate.add_argument(
        "--teacher", metavar="PATH", help="the model that wrote the texts: how far students come up to it, or beyond"
    )
    evaluate.add_argument("--seed", type=int, default=0, help="of all draws and learners (default 0)")
    evaluate.add_argument(
        "--max-rows", type=int, default=50_000, help="of each table, drawn by the seed (default 50000)"
    )
    evaluate.add_argument("--out", required=True, metavar="URI", help="where both files go: a folder of its own")
    evaluate.add_argument("--json", action="store_true", help="print metrics.json instead of a table")

    study = verbs.add_parser(
        "study", help="run chains of generations over a grid of regimes; the same command again resumes"
    )
    study.add_argument("study", metavar="STUDY", help="a TOML file with [family], [regimes] and [grid], see studies/")
    study.add_argument("--out", required=True, metavar="URI", help="local folder or s3://bucket/prefix")
    _settings(study)
    study.add_argument("--dry-run", action="store_true", help="show cells, laws and chains needed; start nothing")

    for name, text in (
        ("status", "how far a run is: generated = kept + rejected by reason"),
        ("audit", "re-read an output or a mixture and prove it; exit code 1 when something is wrong"),
    ):
        verb = verbs.add_parser(name, help=text)
        told = "the --out of a run" + (" or a study, or the --to of a packed mixture" if name == "audit" else "")
        verb.add_argument("uri", metavar="URI", help=told)
        verb.add_argument("--json", action="store_true", help="machine-readable")
        if name == "status":
            verb.add_argument("--watch", action="store_true", help="go on showing it until the run ends")

    recipes = verbs.add_parser("recipes", help="list the recipes that come with the project, or print one")
    recipes.add_argument("name", metavar="NAME", nargs="?", help="print this one, with its comments")
    recipes.add_argument("--json", action="store_true", help="machine-readable")

    report = verbs.add_parser("report", help="write report.html beside the shards: the run as one page with plots")
    report.add_argument("uri", metavar="URI", help="the --out of a run")

    pack = verbs.add_parser(
        "pack", help="make a release, of a run or a mixture: shuffled shards, card, Croissant metadata"
    )
    pack.add_argument(
        "uri", metavar="URI", help="the --out of a complete run, or a mixture: a TOML file, see mixtures/"
    )
    pack.add_argument("--to", required=True, metavar="URI", help="where the release goes; must be empty")
    pack.add_argument(
        "--format",
        choices=FORMATS,
        default=FORMATS[0],
        help="rows: all columns (default); else what trainers load as it is: messages (chat), alpaca, preference "
        "(prompt, chosen, rejected), text, prompt-completion",
    )
    pack.add_argument("--shard-mb", type=int, default=256, help="size of a shard in MiB, about (default 256)")
    pack.add_argument("--seed", type=int, help="of draw and shuffle (default: the mixture's own, else 0)")
    pack.add_argument("--dry-run", action="store_true", help="count everything and show the plan; write nothing")
    return whole


def _settings(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="a.b=c",
        dest="settings",
        help="change one key of the recipe, e.g. limits.asks=100 or stages.0.threshold=0.7 (repeatable)",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 all done; 1 an audit found something or refuted a claim; 2 it cannot be done (one line says why);
    3 the source ended before a limit was reached; 130 stopped by Ctrl-C."""
    args = parser().parse_args(argv)
    set_up_logging()
    try:
        return _call(args)
    except UserError as error:
        print(f"gristmill: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("gristmill: stopped; the same command goes on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _call(args: argparse.Namespace) -> int:
    if args.verb == "produce":
        from gristmill.jobs.produce.command import produce

        return produce(args.recipe, args.out, args.settings, args.dry_run)
    if args.verb == "fit":
        from gristmill.jobs.fit.command import fit

        return fit(args.recipe, args.out, args.settings, args.dry_run)
    if args.verb == "audit-privacy":
        from gristmill.jobs.fit import audit_privacy as private

        given = {name: value for name, value in vars(args).items() if name not in ("verb", "json")}
        return private.audit_privacy(private.AuditPrivacyArgs(**given), args.json)
    if args.verb == "evaluate":
        from gristmill.jobs.evaluate.command import EvaluateArgs, evaluate

        given = {name: value for name, value in vars(args).items() if name not in ("verb", "json")}
        return evaluate(EvaluateArgs(**given), args.json)
    if args.verb == "study":
        from gristmill.jobs.study.command import study

        return study(args.study, args.out, args.settings, args.dry_run)
    if args.verb == "status":
        from gristmill.jobs.status.command import status

        return status(args.uri, args.json, args.watch)
    if args.verb == "recipes":
        from gristmill.jobs.recipes.catalogue import recipes

        return recipes(args.name, args.json)
    if args.verb == "report":
        from gristmill.jobs.report.command import report

        return report(args.uri)
    if args.verb == "audit":
        from gristmill.jobs.audit.command import audit

        return audit(args.uri, args.json)
    from gristmill.jobs.release.command import pack

    return pack(args.uri, args.to, args.shard_mb, args.seed, args.dry_run, args.format)


if __name__ == "__main__":
    sys.exit(main())
