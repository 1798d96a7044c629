"""audit.json: the result of a privacy audit, beside model.json. It is written once, atomically."""

import json
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import numpy as np
from rich.table import Table

from gristmill.generators.families.folder import ModelCard
from gristmill.jobs.terminal.console import open_console, print_error, print_json
from gristmill.records.exit_codes import DONE, FINDING
from gristmill.records.output.formats import newest, parse
from gristmill.records.shapes import check_shape

if TYPE_CHECKING:
    from gristmill.evaluation.privacy.audit_dp import Audit

AUDIT = "audit.json"  # beside model.json
FORMAT, CONFIDENCE = newest(AUDIT), 0.95
METHOD = "one fit with canaries (Steinke, Nasr, Jagielski 2023)"


class _AuditFile(TypedDict):
    format: int
    verdict: str
    is_refuted: bool
    epsilon_lower_bound: float
    confidence: NotRequired[float]
    claimed_epsilon: NotRequired[float | None]
    delta: NotRequired[float]
    model: str
    num_canaries: NotRequired[int]
    adjacency: NotRequired[str]


def read_audit(path: str, data: bytes) -> dict[str, Any]:
    """The content of audit.json. Raises UserError if it cannot be read."""
    report = parse(data, AUDIT, path)
    check_shape(report, _AuditFile, path)
    return report


def verdict_of(results: dict[str, "Audit"], card: ModelCard, audited: ModelCard, coins: np.ndarray) -> dict[str, Any]:
    """The part of audit.json with the verdict and its numbers.

    `results` maps each scoring method to its bound; all bounds hold together. `audited` is the card of the second fit:
    its claim is the one under test.
    """
    method, best = max(results.items(), key=lambda item: item[1].epsilon_lower)
    privacy = audited.privacy
    claimed = privacy["epsilon"] if privacy["guarantee"] is not None else None
    is_refuted = claimed is not None and best.epsilon_lower > claimed
    return {
        "format": FORMAT,
        "verdict": _verdict(best.epsilon_lower, claimed, is_refuted),
        "is_refuted": is_refuted,
        "epsilon_lower_bound": round(best.epsilon_lower, 4),
        "confidence": CONFIDENCE,
        "claimed_epsilon": claimed,
        "delta": best.delta,
        "adjacency": privacy.get("adjacency", "add-remove"),
        "num_canaries": best.num_canaries,
        "num_in": int(coins.sum()),
        "num_guesses": best.num_guesses,
        "num_correct": best.num_correct,
        "told_by": method,
        "bounds": {name: round(bound.epsilon_lower, 4) for name, bound in results.items()},
        "method": METHOD,
        "kind": card.kind,
        "fit_seed": card.identity["seed"],
        "fingerprint": card.fingerprint,
        "model": card.digest,
    }


def _verdict(bound: float, claimed: float | None, is_refuted: bool) -> str:
    if claimed is None:
        return f"epsilon is at least {bound:.2f}; the model claims nothing"
    if is_refuted:
        return f"REFUTED: epsilon is at least {bound:.2f}, above the claimed {claimed:g}"
    return f"not refuted: epsilon is at least {bound:.2f}, the claim is {claimed:g}; an audit can never prove a claim"


def show(report: dict[str, Any], as_json: bool) -> int:
    """Print the report. Returns 1 if it refutes the claim, else 0."""
    if as_json:
        print_json(report, indent=1)
    else:
        table = Table(title=f"audit: {report['verdict']}", show_header=False, title_justify="left")
        for key, value in report.items():
            if key not in ("format", "verdict", "is_refuted"):
                table.add_row(key.replace("_", " "), value if isinstance(value, str) else json.dumps(value))
        open_console().print(table)
    if not report["is_refuted"]:
        return DONE
    line = "!" * 78
    print_error(f"{line}\n{report['verdict']}\nThis model must not be called private.\n{line}")
    return FINDING
