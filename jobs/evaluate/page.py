"""report.html of an evaluation: one self-contained page without scripts."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from markupsafe import Markup

from gristmill.generators.private.account import privacy_line
from gristmill.jobs.evaluate import plots
from gristmill.jobs.evaluate.texts import figure, text_rows
from gristmill.jobs.pages.page import render
from gristmill.records.printable import json_text
from gristmill.records.readers.datasets import pixels_of
from gristmill.records.readers.tables import Column, TableSchema

if TYPE_CHECKING:
    from gristmill.evaluation.corpus import TextReport
    from gristmill.evaluation.whole import Sides, TableReport

MAX_COLUMNS, MAX_PAIRS, NUM_IMAGES, MAX_TABLE = 40, 6, 40, 40
SCORES = {"auc": "AUC", "macro_f1": "macro-F1", "positive_f1": "positive-F1", "r2": "R²"}
SETTINGS = ("inputs", "target", "seed", "max_rows", "features", "perplexity_model", "versions")
HIDDEN_KEYS = ("format", "is_refuted", "model", "fingerprint")  # of audit.json; the card has them, or readers need none
TOO_STRONG = 0.999  # above this, an association is one column twice


def page(metrics: dict[str, Any], judged: "TableReport | None", texts: "TextReport | None", seed: int) -> str:
    """The page of a table, of texts, or of both, from metrics.json and the data of the figures."""
    filters = {"three": _three, "percent": _percent, "count": lambda n: f"{n:,.0f}", "plain": _plain}
    facts = {
        "m": metrics,
        "tiles": [*(_tiles(metrics) if judged else []), *(_text_tiles(metrics["text"]) if texts else [])],
        **(_table_facts(metrics, judged, seed) if judged else {"images": [], "is_table": False}),
        "text_rows": text_rows(metrics["text"]) if texts else [],
        "card": _card(metrics["model"]),
        "is_private": bool(metrics["model"] and metrics["model"]["privacy"]["guarantee"]),
        "settings": json_text({k: metrics[k] for k in SETTINGS if k in metrics}, indent=2),
    }
    svgs = _figures(judged, seed) if judged else {}
    svgs |= {"texts": figure(texts)} if texts else {}
    figures = {name: Markup(svg) for name, svg in svgs.items()}
    return render(Path(__file__).with_name("evaluate.html"), {**facts, "figures": figures}, filters)


def _table_facts(metrics: dict[str, Any], judged: "TableReport", seed: int) -> dict[str, Any]:
    columns = worst_first(judged.sides.schema, metrics["fidelity"]["columns"])
    utility = metrics["utility"]
    return {
        "is_table": True,
        "num_columns": len(columns),
        "shown_columns": columns[:MAX_COLUMNS],
        "column_rows": _column_rows(metrics, [c.name for c in columns[:MAX_TABLE]]),
        "worst_pairs": sorted(
            (p for p in metrics["fidelity"]["pairs"] if p["score"] is not None), key=lambda p: p["score"]
        )[:8],
        "wholes": _wholes(metrics),
        "learners": _learners(metrics),
        "score_names": list(next(iter(utility["scores"].values()))["TSTR"]) if utility else [],
        "score_words": SCORES,
        "attack_legend": plots.legend([a.name for a in judged.attacks]),
        "images": _images(judged.sides, seed),
    }


def _figures(judged: "TableReport", seed: int) -> dict[str, str]:
    sides = judged.sides
    columns = worst_first(sides.schema, judged.metrics["fidelity"]["columns"])
    names, real, synthetic = judged.associations
    chosen = strongest(names, real)
    some_real, some_synthetic = (_sample(table, seed) for table in (sides.train, sides.synthetic))
    return {
        "marginals": plots.marginals(columns[:MAX_COLUMNS], sides.train, sides.synthetic) if columns else "",
        "associations": plots.associations(names, real, synthetic) if len(names) > 1 else "",
        "pairs": plots.pairs(sides.schema, chosen, some_real, some_synthetic) if chosen else "",
        "roc": plots.roc(judged.attacks),
        "distances": plots.distances(judged.closeness),
    }


def _sample(table: pa.Table, seed: int) -> pa.Table:
    from gristmill.evaluation.draws import some

    return table.take(pa.array(some(table.num_rows, plots.MAX_POINTS, seed, "points")))


def worst_first(schema: TableSchema, rows: list[dict[str, Any]]) -> list[Column]:
    """Columns in the order of their score, the worst first."""
    order = sorted(rows, key=lambda r: (r["score"] is not None, r["score"] or 0.0))
    return [schema.column(row["column"]) for row in order]


def strongest(names: list[str], values: np.ndarray) -> list[tuple[str, str]]:
    """The most strongly associated pairs of the real rows. For variety, no column is in more than two of them."""
    order = [(abs(values[i, j]), i, j) for i in range(len(names)) for j in range(i + 1, len(names))]
    chosen: list[tuple[str, str]] = []
    counts = dict.fromkeys(range(len(names)), 0)
    for value, i, j in sorted(order, key=lambda o: (-o[0], o[1], o[2])):
        if value < TOO_STRONG and max(counts[i], counts[j]) < 2 and len(chosen) < MAX_PAIRS:
            chosen.append((names[i], names[j]))
            counts[i], counts[j] = counts[i] + 1, counts[j] + 1
    return chosen


def _tiles(metrics: dict[str, Any]) -> list[dict[str, str]]:
    head, utility = metrics["headline"], metrics["utility"]
    attack = max(metrics["privacy"]["attacks"], key=lambda a: a["auc"])
    rate = attack["tpr_at_fpr_0.01"]["rate"]
    tiles = []
    if utility:
        task = f"{SCORES[utility['metric']]} of {utility['target']}, {utility['learner']}"
        tiles.append(("TSTR / TRTR", _three(head["tstr_over_trtr"]), task))
    fidelity, diversity = metrics["fidelity"], metrics["diversity"]
    tiles += [
        (
            "column shapes",
            _three(head["column_shapes"]),
            f"fresh real rows {_three(fidelity['column_shapes']['real'])}",
        ),
        (
            "column pair trends",
            _three(head["column_pair_trends"]),
            f"fresh real rows {_three(fidelity['column_pair_trends']['real'])}",
        ),
        ("two-sample test, AUC", _three(head["c2st_auc"]), "0.5 is best"),
        ("recall", _three(head["recall"]), f"real rows {_three(diversity['recall']['real'])}"),
        ("coverage", _three(head["coverage"]), f"real rows {_three(diversity['coverage']['real'])}"),
        ("strongest attack, AUC", _three(attack["auc"]), f"{attack['name']}; finds {rate:.1%} at 1% false alarms"),
        ("exact copies", _percent(head["exact_copies"]), "of train rows; not a measure of privacy"),
    ]
    return [{"label": label, "value": value, "note": note} for label, value, note in tiles]


def _text_tiles(text: dict[str, Any]) -> list[dict[str, str]]:
    memorised, coverage = text["memorised"], text["embeddings"]

    def share(of: dict[str, Any] | None, key: str) -> float | None:
        return of[key] if of else None

    tiles = [
        ("distinct-2", _three(text["distinct_2"]["synthetic"]), f"real texts {_three(text['distinct_2']['train'])}"),
        ("self-BLEU", _three(text["self_bleu"]["synthetic"]), f"real texts {_three(text['self_bleu']['train'])}"),
        (
            "embedding coverage",
            _three(share(coverage["synthetic"], "coverage")),
            f"real texts {_three(share(coverage['train'], 'coverage'))}",
        ),
        (
            f"{memorised['tokens']}-grams of train texts",
            _percent(share(memorised["synthetic"], "ngrams")),
            f"holdout {_percent(share(memorised['holdout'], 'ngrams'))}",
        ),
    ]
    return [{"label": label, "value": value, "note": note} for label, value, note in tiles]


def _column_rows(metrics: dict[str, Any], names: list[str]) -> list[dict[str, Any]]:
    covered = {row["column"]: row for row in metrics["diversity"]["columns"]}
    rows = {row["column"]: row for row in metrics["fidelity"]["columns"]}
    return [{**rows[name], "coverage": covered[name]["score"], "outside": covered[name]["outside"]} for name in names]


def _wholes(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    fidelity, diversity = metrics["fidelity"], metrics["diversity"]
    rows = [
        ("classifier two-sample test, AUC", fidelity["c2st_auc"], "0.5: indistinguishable"),
        ("MMD², RBF kernel", fidelity["mmd"], "0: same distribution"),
        ("Fréchet distance", fidelity["frechet"], "0: same mean and covariance"),
        ("precision", diversity["precision"], "share of synthetic rows that look real"),
        ("recall", diversity["recall"], "share of real rows that look like synthetic ones"),
        ("density", diversity["density"], "like precision, weighted by how many real rows are near"),
        ("coverage", diversity["coverage"], "share of real rows with a synthetic row nearby"),
        (
            f"Vendi score of {diversity['vendi']['rows']:,} rows",
            diversity["vendi"],
            "effective number of different rows",
        ),
    ]
    return [{"name": name, **values, "meaning": meaning} for name, values, meaning in rows]


def _learners(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    utility = metrics["utility"]
    if not utility:
        return []
    return [
        {"name": name, "regimes": [(r, list(scores[r].values())) for r in ("TRTR", "TSTR", "TRTS", "augmented")]}
        | {"gain": utility["augmentation_gain"][name]}
        for name, scores in utility["scores"].items()
    ]


def _images(sides: "Sides", seed: int) -> list[dict[str, str]]:
    from gristmill.evaluation.draws import some

    grids = []
    for column in sides.schema.of_kind("image"):
        assert column.height and column.width and column.channels
        for title, table in (("real train images", sides.train), ("synthetic", sides.synthetic)):
            rows = table.column(column.name).take(pa.array(some(table.num_rows, NUM_IMAGES, seed, "images")))
            pixels = pixels_of(rows, column.height, column.width, column.channels)
            grids.append({"title": f"{column.name}: {title}", "uri": plots.image_grid(pixels)})
    return grids


def _card(model: dict[str, Any] | None) -> list[tuple[str, str]]:
    if model is None:
        return []
    privacy = model["privacy"]
    rows_of_fit = model["trained_on"]
    rows = [
        ("family", model["kind"]),
        ("fitted to", f"{rows_of_fit['num_rows']:,} rows of {rows_of_fit['path']}"),
        ("privacy", privacy_line(privacy)),
    ]
    if privacy["guarantee"]:
        budget = privacy["budget"]
        rows.append(("budget", f"epsilon {budget['epsilon']:g}, delta {budget['delta']:g}"))
        rows += [
            (
                "spent",
                f"{e['count']:,} × {e['what']}, noise {e['noise_multiplier']:.4g}, rate {e['sampling_rate']:.4g}",
            )
            for e in privacy["events"]
        ]
        rows.append(("public", privacy["public"]))
    for key, value in (model["audit"] or {}).items():
        if key in HIDDEN_KEYS:
            continue
        rows.append((f"audit: {key.replace('_', ' ')}", _plain(value)))
    if model["audit"] is None:
        rows.append(("audit", "none" if privacy["guarantee"] else "none; there is no guarantee to audit"))
    settings = ", ".join(f"{k} = {_plain(v)}" for k, v in model["spec"].items())
    return [*rows, ("settings", settings or "none"), ("seed", str(model["seed"])), ("digest", model["digest"])]


def _three(value: float | None) -> str:
    """Three decimals, one for large and two significant digits for tiny values, or a dash for None."""
    if value is None:
        return "–"
    if value != 0 and abs(value) < 0.0005:
        return f"{value:.1e}"
    return f"{value:,.3f}" if abs(value) < 100 else f"{value:,.1f}"


def _percent(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1%}" if value >= 0.001 or value == 0 else "<0.1%"


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json_text(value)
