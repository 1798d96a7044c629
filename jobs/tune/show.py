"""What `gristmill tune` prints: a table of trials and the settings to paste."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from gristmill.engines.served import ModelSpec
from gristmill.jobs.tune.candidates import applied, is_identity
from gristmill.jobs.tune.halving import GAIN, Candidate, Trial, best_of
from gristmill.records.masking.masks import masked
from gristmill.records.printable import printable_line

NEW_OUT = "; new --out"


def num_different(trial: Trial, base: Trial) -> tuple[int, int]:
    """(rows that differ from the baseline's, rows that both have answered)."""
    both = trial.rows.keys() & base.rows.keys()
    return sum(trial.rows[row] != base.rows[row] for row in both), len(both)


def texts_word(trial: Trial, base: Trial) -> str:
    """For example "same (64)" or "3 of 64 differ"."""
    differ, both = num_different(trial, base)
    if not both:
        return "not known"
    return f"{differ:,} of {both:,} differ" if differ else f"same ({both:,})"


def keeps_texts(spec: ModelSpec, trial: Trial, base: Trial) -> bool:
    """Whether identity and measured texts are those of the recipe's own settings."""
    return not is_identity(spec, trial.candidate) and not num_different(trial, base)[0]


def recommended(spec: ModelSpec, trials: Sequence[Trial]) -> tuple[Trial | None, Trial | None]:
    """The fastest candidate of the last round, and the fastest that leaves identity and measured texts as they are.

    None where none is faster than the recipe's own settings by GAIN. The second may come from an earlier round, if
    the last one was left to settings that change texts. Both are the same where the fastest one leaves the texts.
    """
    bases = first_bases(trials)
    ranked = best_of(trials)
    last = max((trial.round for trial, _ in ranked), default=0)
    fastest = next(((t, ratio) for t, ratio in ranked if t.round == last and ratio >= 1 + GAIN), None)
    if fastest is None:
        return None, None
    for trial, ratio in ranked:
        if ratio >= 1 + GAIN and keeps_texts(spec, trial, bases[trial.round]):
            return (fastest[0] if fastest[1] > ratio else trial), trial
    return fastest[0], None


def first_bases(trials: Sequence[Trial]) -> dict[int, Trial]:
    """The baseline's trial of each round."""
    return {trial.round: trial for trial in trials if not trial.candidate.changes}


def trials_table(spec: ModelSpec, trials: Sequence[Trial], title: str) -> Table:
    """A row for each trial, by round, the fastest first below the recipe's own settings."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1))
    for name in ("round", "settings", "tokens/s", "rows/s", "speed", "start", "texts"):
        is_text = name in ("settings", "texts")
        table.add_column(name, justify="left" if is_text else "right", no_wrap=not is_text, overflow="fold")
    bases = first_bases(trials)
    has_devices = any(trial.num_devices != 1 for trial in trials)
    for trial in sorted(trials, key=lambda t: (t.round, bool(t.candidate.changes), -t.score)):
        base, name = bases[trial.round], printable_line(trial.candidate.name)
        if trial.failure:
            table.add_row(f"{trial.round}", name, "failed")
            continue
        per = f"{trial.num_devices:g} x " if has_devices else ""
        table.add_row(
            f"{trial.round}",
            name,
            f"{per}{trial.score:,.0f}{'*' if trial.is_cut else ''}",
            "" if trial.is_cut else f"{trial.rows_per_s:,.2f}",  # those that were answered are the short ones
            f"{trial.score / base.score:.2f}" if base.score else "",
            f"{trial.start_s:.0f} s",
            "" if trial is base else texts_word(trial, base) + (NEW_OUT if is_identity(spec, trial.candidate) else ""),
        )
    return table


def toml_block(spec: ModelSpec, candidate: Candidate) -> str:
    """The keys of [generator] to paste: those that the candidate changes; `engine` as a whole, without secrets."""
    changed = applied(spec, candidate)
    lines = ["[generator]"]
    if any(key.startswith("engine.") for key in candidate.changes):
        lines.append(f"engine = {toml_value(masked(changed.engine))}")
    lines += [f"{k} = {toml_value(v)}" for k, v in candidate.changes.items() if not k.startswith("engine.")]
    return "\n".join(lines)


def toml_value(value: Any) -> str:
    """A literal as TOML on one line."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {toml_value(v)}" for k, v in value.items()) + " }" if value else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(v) for v in value) + "]"
    return _text(value)


def _text(value: Any) -> str:
    """A text, number or boolean: TOML writes them as JSON does, but for DEL, which it wants escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    is_bare = name and all(c.isascii() and (c.isalnum() or c in "-_") for c in name)
    return name if is_bare else _text(name)


def trial_literals(spec: ModelSpec, trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """The trials for JSON."""
    bases = first_bases(trials)
    return [
        {
            "round": trial.round,
            "changes": dict(trial.candidate.changes),
            "num_asks": trial.num_asks,
            "tokens_per_s": round(trial.tokens_per_s, 2),
            "rows_per_s": round(trial.rows_per_s, 4),
            "num_devices": trial.num_devices,
            "speed": round(trial.score / bases[trial.round].score, 4) if bases[trial.round].score else None,
            "start_s": round(trial.start_s, 1),
            "run_s": round(trial.run_s, 1),
            "is_cut": trial.is_cut,
            "rows_that_differ": num_different(trial, bases[trial.round])[0],
            "rows_compared": num_different(trial, bases[trial.round])[1],
            "changes_identity": is_identity(spec, trial.candidate),
            "failure": trial.failure or None,
        }
        for trial in trials
    ]
