"""Texts of `--help`: what each verb does, and commands to copy. `package:NAME` names files that come with Gristmill."""

GRISTMILL = "Gristmill turns a Ray cluster into a mill for synthetic data."
GRISTMILL_EXAMPLES = """\
examples:
  gristmill recipes
  gristmill preview package:demo --set generator.kind=canned
  gristmill produce package:demo --out out/demo
  gristmill produce package:demo --out s3://bucket/demo --set limits.asks=10000 --set cluster.replicas=8
  gristmill tune package:demo
  gristmill status out/demo --watch
  gristmill report out/demo
  gristmill audit out/demo
  gristmill pack out/demo --to out/demo-release
  gristmill fit package:fit/adult-tabddpm --out out/adult-tabddpm
  gristmill study package:gaussian-laws --out out/gaussian-laws
  gristmill flow package:lessons --out out/lessons

`gristmill VERB --help` explains a verb. package:NAME names a recipe, study or mixture that comes with
Gristmill, from any folder. To resume a command that was stopped, run it again; an output is never
overwritten. S3 endpoint and keys come from the standard AWS settings (AWS_ENDPOINT_URL,
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY). GRISTMILL_LOG=json writes the log as JSON lines.

On a cluster, set RAY_ADDRESS or submit a job:
  ray job submit --working-dir . -- python -m gristmill produce package:demo --out s3://bucket/demo
"""

# verb: (description, examples)
VERBS = {
    "produce": (
        """\
Makes rows from a recipe, filters them, removes duplicates, and writes Parquet with the
provenance of every row and the reason of every reject. Run the same command again to resume;
the rows do not depend on where it was stopped.
""",
        """\
examples:
  gristmill produce package:demo --out out/demo --dry-run
  gristmill produce package:demo --out out/demo
  gristmill produce my-recipe.toml --out s3://bucket/corpus --set limits.kept_rows=100000
""",
    ),
    "preview": (
        """\
Shows the first rows of a recipe on the terminal: what each row was made from, its text, its
tokens, and what every stage says of it, in the order in which stages decide. A stage after a
reject is "not run". Duplicates and admission are decided among these rows. Nothing is written.

The rows are those with which `gristmill produce` begins, so the first ones of a run are the same.
Engines start as for a run, one after the other. To try prompts, stages and columns without a
model, set generator.kind=canned: the canned generator writes plain English through the same
method, and the keys of the recipe's own generator are ignored. A judge still starts its model,
unless you set stages.N.kind=canned_judge.
""",
        """\
examples:
  gristmill preview package:demo
  gristmill preview package:demo -n 20 --set generator.kind=canned
  gristmill preview my-recipe.toml --set generator.sampling.temperature=0.9 --json
""",
    ),
    "fit": (
        """\
Fits a model to the rows of [data] and writes it to --out. A recipe with generator kind "model"
then samples from it. Run the same command again to resume from the last checkpoint.
""",
        """\
examples:
  gristmill fit package:fit/adult-copula --out out/adult-copula
  gristmill fit package:fit/adult-mst --out out/adult-mst
  gristmill produce package:adult-rows --out out/adult-rows --set generator.model=out/adult-mst
""",
    ),
    "audit-privacy": (
        """\
Tests the privacy claim of a model. The recipe is fitted a second time, to rows and to canaries:
made-up outliers, each included or left out by a fair coin. An attacker with access to the
second model guesses, for its most confident canaries, whether each was included. Epsilon limits
how many guesses can be right, so many right guesses prove that epsilon is large (Steinke, Nasr,
Jagielski 2023). The second model is deleted; audit.json stays beside the first, and the page of
`gristmill evaluate` shows it.

A bound above the claim refutes the claim: the verb says so and exits with 1. A bound below it
proves nothing.

No privacy budget covers an audit on private rows. A private model is therefore audited on rows
that it samples itself, unless --data names others: public rows of the same schema, or the
private rows, if you keep audit.json secret. A model that claims nothing can be audited too; the
result is the bound alone.
""",
        """\
examples:
  gristmill audit-privacy package:fit/adult-mst --out out/adult-mst
  gristmill audit-privacy package:fit/adult-mst --out out/adult-mst --data package:adult/test
  gristmill audit-privacy package:fit/adult-smote --out out/adult-smote --canaries 500

A killed audit resumes with the same command, with the same canaries and coins. An audited model
is not audited again unless you remove audit.json; re-running until the bound comes out low
proves nothing.
""",
    ),
    "evaluate": (
        """\
Compares synthetic rows with real ones: fidelity, diversity, utility and privacy of tables, and
texts by n-grams, embeddings, perplexity and trained students. A table is a file, a folder,
s3:// or package:NAME; PATH#train and PATH#holdout are the parts of a split.
""",
        """\
examples:
  gristmill evaluate out/adult-rows --real-train package:adult/train --real-holdout package:adult/test \\
      --target income --schema package:schemas/adult --out out/adult-evaluation
""",
    ),
    "compare": (
        """\
Which recipe helped? Trains the same small language model on equally many tokens of each corpus
and of real text, several times, and judges all of them on held-out real text: bits per byte,
perplexity, and small tests (cloze sentences, agreement of verbs). One table with 95 % intervals
over seeds, and a page with a plot.

The first lines name the corpus that is ahead, and say whether the next one is surely behind. A
difference that is smaller than its interval shows nothing: take more --seeds or more --tokens. A
student of a million weights measures what text it has read, not what a large model would make of
it; give a larger one by --student, on GPUs with --set train.num_gpus=1.

Run the same command again to resume. With more corpora or seeds it trains only the new students.
""",
        """\
examples:
  gristmill compare out/textbook out/rephrase --real package:docstrings --out out/compared
  gristmill compare base=out/v1 chunks=out/v2 --real real.parquet#train --holdout real.parquet#holdout \\
    --out out/compared --seeds 5 --tokens 500000
  gristmill compare out/v1 s3://bucket/release --real corpus/ --out s3://bucket/compared \\
    --student package:fit/docstrings-smollm2 --set train.num_gpus=1

About a minute of one core for each student of the default size; --dry-run shows how many.
""",
    ),
    "study": (
        """\
Runs chains of generations, in which each model learns from rows of the one before, over a grid
of regimes. Where a closed form is known, the measured curve is compared with it. Run the same
command again to resume.
""",
        """\
examples:
  gristmill study package:gaussian-laws --out out/gaussian-laws --dry-run
  gristmill study package:gaussian-laws --out out/gaussian-laws
""",
    ),
    "flow": (
        """\
Runs steps (produce, fit, evaluate, pack, study) in the order of a flow file. A step names the
output of an earlier one as "step:NAME". Each step is an output of its own below --out, and the
same command resumes the first that is not done. Engines of the same model stay up from step to
step. With stream = true a step reads rows while the step before still commits them; the bytes are
the same either way.

The exit code is that of the first step that does not end with 0; the flow ends there.
""",
        """\
examples:
  gristmill flow package:lessons --out out/lessons --dry-run
  gristmill flow package:lessons --out out/lessons
  gristmill flow my-flow.toml --out s3://bucket/corpus --set steps.write.set.limits.asks=10000
  gristmill status out/lessons --watch
""",
    ),
    "status": (
        """\
Shows rows generated, kept and rejected by reason, tokens, cost, and whether the driver is
alive.
""",
        """\
examples:
  gristmill status out/demo
  gristmill status s3://bucket/demo --watch
""",
    ),
    "audit": (
        """\
Reads an output again and checks it: unique ids, generated = kept + rejected, every duplicate
names a kept row, checksums, and more. Exits with 1 if anything is wrong, and says what and
where.
""",
        """\
examples:
  gristmill audit out/demo
""",
    ),
    "recipes": (
        """\
Lists the recipes, studies, mixtures and flows that come with Gristmill, with what they make, their
paper and cost.
""",
        """\
examples:
  gristmill recipes
  gristmill recipes textbook > my-recipe.toml
""",
    ),
    "report": (
        """\
Writes report.html beside the shards: yield, rejects, speed, cost and example rows, as one
self-contained page.
""",
        """\
examples:
  gristmill report out/demo
""",
    ),
    "pack": (
        """\
Makes a release from a complete run or from a mixture: shuffled Parquet shards, a dataset card
and Croissant metadata. A pack that stops goes on with the same command; finished shards are kept.
""",
        """\
examples:
  gristmill pack out/demo --to out/demo-release --shard-mb 256
  gristmill pack out/demo --to out/demo-chat --format messages
  gristmill pack out/demo --to out/demo-release --facts facts.toml
  gristmill pack mixtures/topics.toml --to out/topics-mixture
  gristmill pack out/demo --to out/demo-2 --without taken-down.txt
  gristmill pack out/demo --to hf://datasets/org/demo
""",
    ),
    "queue": (
        """\
Shows the runs of a Ray cluster in the order in which they are served: whose they are, how far
they are, how many engines each has and may have, and what a waiting run waits for. A run waits
while others hold its room (cluster.wait_s). Runs are served by cluster.priority, then in the
order of arrival; engines above `replicas` are divided by cluster.share. A quota limits the
devices (GPUs, or engines without a GPU) of all runs with a label of cluster.labels.
""",
        """\
examples:
  RAY_ADDRESS=auto gristmill queue
  gristmill queue --address 10.0.0.5:6379 --json
  gristmill queue --quota team=vision:16
  gristmill queue --quota team=vision:none
""",
    ),
    "tune": (
        """\
Measures settings of the recipe's engine on the recipe's own first asks, and prints a table and
the settings to paste: batch size, KV cache, prefix caching, speculation, threads or parallel
sizes. It writes into no output.

Each trial is an engine of its own. Many settings are measured on few asks, the faster half on
twice as many, and so on, always beside the recipe's own settings. Speed is in tokens per second
while the batch is full, per device; the time of the start is shown apart. A setting with which
the engine does not start is a row with its reason.

The column "texts" compares the rows with those of the recipe's own settings. Settings marked
"new --out" are part of the recipe's identity: a run with them needs a new --out.
""",
        """\
examples:
  gristmill tune package:demo
  gristmill tune my-recipe.toml --minutes 60
  gristmill tune my-recipe.toml --asks 512 --json

Stop it with Ctrl-C to see what was measured so far. Nothing else should run on the machine.
""",
    ),
}
