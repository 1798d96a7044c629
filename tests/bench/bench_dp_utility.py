"""Utility against epsilon on Adult: AUC on the real test part of gradient boosting trained on generated rows.

python -m tests.bench.bench_dp_utility out.json [out.png]            all families and epsilons; goes on where it stopped
python -m tests.bench.bench_dp_utility out.json [out.png] --only mst,1,0     (family, epsilon, seed)
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

FAMILIES: dict[str, dict[str, Any]] = {
    "mst": {},
    "mst-target": {"target": "income"},
    "dp_ctgan": {},
    "dp_tvae": {},
    "pate_gan": {},
}
EPSILONS = (0.5, 1.0, 3.0, 10.0, None)
DELTA = 1e-6
SEEDS = (0, 1, 2)  # a fit each; the table gives mean, least and most
TARGET = "income"
POSITIVE = ">50K"


def read() -> tuple[Any, pa.Table, pa.Table]:
    from gristmill.jobs.recipes.toml_file import load_table
    from gristmill.records.readers.datasets import DataSpec, read_table
    from gristmill.records.readers.tables import TableSchema
    from gristmill.records.spec import build

    schema = build(TableSchema, load_table("package:schemas/adult"), "schema")
    parts = (schema.conform(read_table(DataSpec(f"package:adult/{p}"))) for p in ("train", "test"))
    return schema, *parts


def features(schema: Any, table: pa.Table) -> tuple[np.ndarray, np.ndarray, list[bool]]:
    """(rows, columns) with categories as their places, labels, which columns are categories."""
    columns = [c for c in schema.columns if c.name != TARGET]
    values = []
    for column in columns:
        found = table.column(column.name).to_pylist()
        order = {c: i for i, c in enumerate(column.categories)}
        values.append([v if column.is_number else order[v] for v in found])
    labels = np.array([v == POSITIVE for v in table.column(TARGET).to_pylist()])
    return np.array(values, np.float64).T, labels, [not c.is_number for c in columns]


def auc(schema: Any, rows: pa.Table, test: pa.Table) -> float:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score

    x, y, is_category = features(schema, rows)
    if y.all() or not y.any():
        return 0.5
    model = HistGradientBoostingClassifier(categorical_features=is_category, random_state=0).fit(x, y)
    test_x, test_y, _ = features(schema, test)
    return float(roc_auc_score(test_y, model.predict_proba(test_x)[:, 1]))


def draw_rows(family: Any, num_rows: int) -> pa.Table:
    parts, names = [], family.schema.names
    for first in range(0, num_rows, family.block):
        drawn = family.sample([{}] * family.block, np.arange(first, first + family.block, dtype=np.int64) * 104_729 + 1)
        parts.append(pa.table({n: drawn.columns[n] for n in names}))
    return pa.concat_tables(parts).slice(0, num_rows)


def one(kind: str, epsilon: float | None, seed: int, schema: Any, train: pa.Table, test: pa.Table) -> dict[str, Any]:
    from gristmill.generators.families.contract import family_class
    from gristmill.generators.private.account import Account, PrivacySpec

    family_type = family_class(kind.removesuffix("-target"))
    family = family_type(family_type.Spec(**FAMILIES[kind]), schema)
    account = Account(PrivacySpec(epsilon, DELTA), train.num_rows) if epsilon else None
    started = time.monotonic()
    family.begin(train, seed, account)
    if family.num_steps:
        family.train(0, family.num_steps)
    fit_s = time.monotonic() - started
    spent = account.epsilon() if account else None
    value = auc(schema, draw_rows(family, train.num_rows), test)
    return {"kind": kind, "epsilon": epsilon, "seed": seed, "auc": value, "fit_s": fit_s, "spent": spent}


def study(out: str, only: tuple[str, float | None, int] | None = None) -> list[dict[str, Any]]:
    """All runs, those in the file `out` among them; each is added to it when it is done."""
    path = Path(out)
    done: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    schema, train, test = read()
    for seed in SEEDS:
        for kind in FAMILIES:
            for epsilon in EPSILONS:
                is_done = any((r["kind"], r["epsilon"], r["seed"]) == (kind, epsilon, seed) for r in done)
                if is_done or (only and only != (kind, epsilon, seed)):
                    continue
                done.append(one(kind, epsilon, seed, schema, train, test))
                path.write_text(json.dumps(done, indent=1))
                print(done[-1], file=sys.stderr, flush=True)
    return done


def cells(done: list[dict[str, Any]], kind: str) -> list[list[float]]:
    return [[r["auc"] for r in done if (r["kind"], r["epsilon"]) == (kind, e)] for e in EPSILONS]


def as_markdown(done: list[dict[str, Any]]) -> str:
    lines = ["| AUC at epsilon | " + " | ".join("none" if e is None else f"{e:g}" for e in EPSILONS) + " | fit, s |"]
    lines.append("|" + "---|" * (len(EPSILONS) + 2))
    for kind in FAMILIES:
        told = [f"{np.mean(c):.3f} ({min(c):.3f}-{max(c):.3f})" if c else "" for c in cells(done, kind)]
        times = [r["fit_s"] for r in done if r["kind"] == kind]
        lines.append(f"| {kind} | " + " | ".join(told) + f" | {np.median(times) if times else 0:.0f} |")
    return "\n".join(lines)


def plot(done: list[dict[str, Any]], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.2))
    places = np.arange(len(EPSILONS))
    for kind, marker in zip(FAMILIES, "osD^v"):
        found = [(p, c) for p, c in zip(places, cells(done, kind)) if c]
        means = [float(np.mean(c)) for _, c in found]
        spans = [
            [max(0.0, m - min(c)) for m, (_, c) in zip(means, found)],
            [max(0.0, max(c) - m) for m, (_, c) in zip(means, found)],
        ]
        axes.errorbar([p for p, _ in found], means, spans, marker=marker, capsize=3, label=kind)
    real = 0.9265
    axes.axhline(real, color="grey", linestyle=":", label=f"real rows ({real})")
    axes.set_xticks(places, ["none" if e is None else f"{e:g}" for e in EPSILONS])
    axes.set_xlabel(f"epsilon (delta = {DELTA:g}, one row added or removed)")
    axes.set_ylabel("AUC on the real test part")
    axes.set_title("Adult: gradient boosting trained on generated rows")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def bench() -> list[dict[str, Any]]:
    """The row of `make bench`: mst at epsilon 1, the gate."""
    schema, train, test = read()
    found = one("mst-target", 1.0, 0, schema, train, test)
    return [
        {
            "what": "mst (target = income) on Adult at epsilon 1: AUC of gradient boosting on real test rows",
            "value": f"{found['auc']:.4f} ({found['fit_s']:.1f} s)",
            "peer": "trained on the real rows .9265",
            "ratio": found["auc"] / 0.9265,
            "target": ">= .89",
        }
    ]


def main(words: list[str]) -> int:
    only: tuple[str, float | None, int] | None = None
    if "--only" in words:
        kind, epsilon, seed = words.pop(words.index("--only") + 1).split(",")
        words.remove("--only")
        only = kind, None if epsilon == "none" else float(epsilon), int(seed)
    done = study(words[0], only)
    print(as_markdown(done))
    if len(words) > 1:
        plot(done, words[1])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
