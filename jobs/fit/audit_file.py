"""audit.json: what an audit of a model's privacy found, beside model.json; written once, whole or not at all."""

import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from gristmill.generators.families.folder import ModelCard
from gristmill.records.formats import newest, parse

if TYPE_CHECKING:
    from gristmill.evaluation.privacy.audit_dp import Audit

AUDIT = "audit.json"  # beside model.json
FORMAT, CONFIDENCE = newest(AUDIT), 0.95
METHOD = "one fit with canaries (Steinke, Nasr, Jagielski 2023)"


def read_audit(path: str, data: bytes) -> dict[str, Any]:
    """What audit.json holds. Raises UserError where it cannot be read."""
    return parse(data, AUDIT, path)


def verdict_of(results: dict[str, "Audit"], card: ModelCard, audited: ModelCard, coins: np.ndarray) -> dict[str, Any]:
    """The part of audit.json that says what was found, the verdict first. `results` by way of scoring; they hold
    together. `audited` is the card of the second fit, whose own claim is what was put to the test."""
    how, best = max(results.items(), key=lambda item: item[1].epsilon_lower)
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
        "told_by": how,
        "bounds": {name: round(found.epsilon_lower, 4) for name, found in results.items()},
        "method": METHOD,
        "kind": card.kind,
        "fit_seed": card.identity["seed"],
        "fingerprint": card.fingerprint,
        "model": card.digest,
    }


def _verdict(bound: float, claimed: float | None, is_refuted: bool) -> str:
    if claimed is None:
        return f"epsilon is at least {bound:.2f}; nothing is claimed"
    if is_refuted:
        return f"REFUTED: epsilon is at least {bound:.2f}, above the {claimed:g} that is claimed"
    return f"not refuted: epsilon is at least {bound:.2f}, {claimed:g} is claimed; an audit can never prove a claim"


def show(found: dict[str, Any], as_json: bool) -> int:
    """Print; 1 where the claim is refuted."""
    if as_json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        table = Table(title=f"audit: {found['verdict']}", show_header=False, title_justify="left")
        for key, value in found.items():
            if key not in ("format", "verdict", "is_refuted"):
                table.add_row(key.replace("_", " "), value if isinstance(value, str) else json.dumps(value))
        Console(highlight=False).print(table)
    if not found["is_refuted"]:
        return 0
    line = "!" * 78
    print(f"{line}\n{found['verdict']}\nThis model must not be called private.\n{line}", file=sys.stderr)
    return 1
