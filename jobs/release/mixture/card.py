"""mixture.json, and the dataset card that states the same in words."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from gristmill.cluster.shuffle import ShardFile
from gristmill.jobs.release.card import READING, columns_table, example_section, facts_section, front_matter
from gristmill.jobs.release.facts import Facts, ReleaseSpec
from gristmill.jobs.release.format_card import format_section
from gristmill.jobs.release.formats import RowFormat
from gristmill.jobs.release.markdown import code, prose
from gristmill.jobs.release.mixture.draw import Candidates, Draw
from gristmill.jobs.release.mixture.parts import Part
from gristmill.jobs.release.mixture.spec import MixtureSpec
from gristmill.jobs.release.takedown.facts import takedown_section
from gristmill.records.masking.masks import masked
from gristmill.records.output.formats import newest
from gristmill.records.spec import literals
from gristmill.records.words import TOKENS_ARE

DESCRIPTION = "A training mixture of real and synthetic rows, drawn with Gristmill."
EFFECTS = {  # by shortfall policy
    "shrink": "rows were left out",
    "resample": "rows were repeated, and synthetic rows above the cap were left out",
    "real": "real rows were added",
    "reweight": "rows were given weights",
}


def mixture_facts(
    spec: MixtureSpec,
    parts: Sequence[Part],
    rows: Candidates,
    drawn: Draw,
    counts: dict[str, Any],
    payload: pa.Schema,
    text_column: str | None,
) -> dict[str, Any]:
    """Content of mixture.json, except the shards. Addresses have no passwords."""
    requested = masked({key: value for key, value in literals(spec).items() if key not in ("parts", "release")})
    part_facts = []
    for number, part in enumerate(parts):
        in_part = rows.part == number
        place = {"uri" if part.spec.uri else "path": masked(part.spec.place), "license": part.license}
        available = {"rows_there": int(in_part.sum()), "duplicates": int((in_part & drawn.is_twin).sum())}
        drawn_counts = {"share": part.spec.share, **counts["parts"][part.title]}
        part_facts.append({"name": part.title, **part.facts, **place, **available, **drawn_counts})
    content = hashlib.blake2b(payload.to_string().encode(), digest_size=16)
    for array in (rows.ids, drawn.times, drawn.weights):
        content.update(array.tobytes())
    return {
        "format": newest("mixture.json"),
        "fingerprint": content.hexdigest(),
        "asked": requested,
        "text_column": text_column,
        "tokens_are": TOKENS_ARE if text_column else None,
        "payload": payload.names,
        "used": {
            "short_parts": [parts[number].title for number in drawn.short_parts],
            "share_before": drawn.share_before,
            "policy": spec.shortfall if drawn.short_parts or drawn.share_before is not None else None,
        },
        "counts": counts,
        "parts": part_facts,
        "duplicates": int(drawn.is_twin.sum()),
    }


def percent(share: float | None) -> str:
    return "" if share is None else f"{share:.4%}"


def number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def mixture_section(facts: dict[str, Any]) -> str:
    """The counts as Markdown; the audit compares the card with it."""
    requested, counts, used = facts["asked"], facts["counts"], facts["used"]
    by, fractions = requested["by"], counts["fractions"]
    lines = ["## The mixture", "", "| | rows | tokens |", "|---|---|---|"]
    for name, sums in counts["totals"].items():
        lines.append(f"| {name} | {sums['rows']:,} | {number(sums['tokens'])} |")
    lines.append(f"| synthetic fraction | {percent(fractions['rows'])} | {percent(fractions['tokens'])} |")
    if fractions["rows_by_weight"] is not None:
        shares = percent(fractions["rows_by_weight"]), percent(fractions["tokens_by_weight"])
        lines.append(f"| synthetic fraction by weight | {shares[0]} | {shares[1]} |")
    cap = f"At most {requested['synthetic_max']:.4%} of the {by} may be synthetic"
    lines += ["", f"{cap}. Policy for too few rows or too high a share: `{requested['shortfall']}`. {_policy(used)}"]
    if facts["tokens_are"]:
        lines.append(f"Tokens are {facts['tokens_are']} in {code(facts['text_column'])}, not tokens of a model.")
    what = "rows that equal another" if requested["dedup"] == "all" else "synthetic rows that equal a real one"
    lines.append(f"Left out as duplicates ({what}): {facts['duplicates']:,} rows.")
    lines.append(f"Repeated rows: {counts['repeated_rows']:,}. Effective rows (Kish): ")
    lines[-1] += f"{counts['effective_rows']:,.1f}."
    lines += [
        "",
        "| part | kind | share | rows available | duplicates | rows | tokens |",
        "|---|---|---|---|---|---|---|",
    ]
    for part in facts["parts"]:
        cells = f"{part['rows_there']:,} | {part['duplicates']:,} | {part['rows']:,} | {number(part['tokens'])}"
        lines.append(f"| {prose(part['name'])} | {part['kind']} | {percent(part['share'])} | {cells} |")
    lines += ["", "| origin | generation | rows | tokens |", "|---|---|---|---|"]
    for group in counts["ancestry"]:
        cells = f"{group['rows']:,} | {number(group['tokens'])}"
        lines.append(f"| {prose(group['origin'])} | {group['generation']} | {cells} |")
    if facts.get("takedown"):
        lines += ["", takedown_section(facts["takedown"]).rstrip()]
    return "\n".join(lines) + "\n"


def _policy(used: dict[str, Any]) -> str:
    if used["policy"] is None:
        return "It was not applied."
    why = [f"too few rows in {', '.join(map(prose, used['short_parts']))}"] if used["short_parts"] else []
    if used["share_before"] is not None:
        why.append(f"a synthetic share of {percent(used['share_before'])} before")
    return f"It was applied ({'; '.join(why)}): {EFFECTS[used['policy']]}."


def mixture_card(
    facts: dict[str, Any],
    stated: Facts,
    schema: pa.Schema,
    example: Mapping[str, Any],
    row_format: RowFormat | None = None,
) -> str:
    """README.md of the release. `facts` is mixture.json, `example` a row of the release."""
    requested, counts = facts["asked"], facts["counts"]
    tags = ["synthetic"] if counts["totals"]["synthetic"]["rows"] else []
    shards = facts["shards"]
    if row_format:
        origins = "The rows do not state their origin. The same mixture packed as rows does, under the same ids."
        audit_note = "To recount them, pack the same mixture as rows and run `gristmill audit`"
    else:
        origins = """Column `origin` is `real` or `synthetic`. Column `generation` is the round that made the row \
(0: real rows, and rows of a first model). Column `mixture_part` names the part of the row."""
        audit_note = "`gristmill audit` recounts the rows and compares"
    head = front_matter(stated, counts["totals"]["all"]["rows"], [*tags, "mixture"])
    return f"""{head}# {prose(stated.title)}

{prose(requested["description"] or DESCRIPTION)}

{origins} The fingerprint of the mixture is
`{facts["fingerprint"]}`.

{mixture_section(facts)}
`mixture.json` holds these numbers for machines. {audit_note}. Number of shards:
{len(shards)}, {sum(s["num_bytes"] for s in shards):,} bytes in total; the rows are shuffled across all shards.

## Columns

{columns_table(schema)}
{example_section(example)}
{format_section(row_format) + chr(10) if row_format else ""}{facts_section(stated)}
{READING}"""


def facts_of_mixture(
    facts: dict[str, Any], spec: ReleaseSpec, parts: Sequence[Part], row_format: RowFormat | None
) -> Facts:
    """What card and Croissant metadata state about the mixture; `facts` is mixture.json.

    The date is that of `[release]`, else the last one that a run or release of its parts states.
    """
    requested, counts = facts["asked"], facts["counts"]
    fractions = counts["fractions"]
    summary = f"{counts['totals']['all']['rows']:,} rows, {percent(fractions['rows'])} of them synthetic"
    if fractions["tokens"] is not None:
        summary += f" ({percent(fractions['tokens'])} of the tokens)"
    description = (requested["description"] or DESCRIPTION).rstrip()
    return Facts(
        requested["name"],
        f"{description} {summary}; at most {requested['synthetic_max']:.4%} by {requested['by']}.",
        facts["fingerprint"],
        ("mixture", f"{counts['totals']['all']['rows']} rows", f"synthetic {percent(fractions['rows'])}"),
        spec,
        spec.date or max((part.date for part in parts), default=""),
        tuple((part.title, part.license) for part in parts),
        row_format.task if row_format else None,
    )


def shard_facts(shards: Sequence[ShardFile]) -> list[dict[str, Any]]:
    return [{**shard.__dict__} for shard in shards]
