"""The papers of a mixture: mixture.json, and the dataset card that says the same in words."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from gristmill.jobs.release.card import READING, About, columns_table, front
from gristmill.jobs.release.format_card import format_section
from gristmill.jobs.release.formats import Form
from gristmill.jobs.release.mixture.draw import Candidates, Drawn
from gristmill.jobs.release.mixture.parts import Part
from gristmill.jobs.release.mixture.spec import MixSpec
from gristmill.records.formats import newest
from gristmill.records.spec import literals
from gristmill.records.words import TOKENS_ARE

if TYPE_CHECKING:
    from gristmill.jobs.release.command import ShardFile

DID = {
    "shrink": "rows were left out",
    "resample": "rows were taken more than once, and synthetic rows that exceeded the cap were left out",
    "real": "real rows were put in their place or beside them",
    "reweight": "rows were given weights",
}


def mixture_facts(
    spec: MixSpec,
    parts: Sequence[Part],
    rows: Candidates,
    drawn: Drawn,
    counts: dict[str, Any],
    payload: pa.Schema,
    text_column: str | None,
) -> dict[str, Any]:
    """mixture.json, without its shards. Addresses are told without passwords."""
    asked = {key: value for key, value in literals(spec).items() if key != "parts"}
    told = []
    for number, part in enumerate(parts):
        mine = rows.part == number
        place = {"uri" if part.spec.uri else "path": part.spec.place}
        there = {"rows_there": int(mine.sum()), "duplicates": int((mine & drawn.is_twin).sum())}
        weights = {"share": part.spec.share, **counts["parts"][part.title]}
        told.append({"name": part.title, **part.facts, **place, **there, **weights})
    content = hashlib.blake2b(payload.to_string().encode(), digest_size=16)
    for array in (rows.ids, drawn.times, drawn.weights):
        content.update(array.tobytes())
    return {
        "format": newest("mixture.json"),
        "fingerprint": content.hexdigest(),
        "asked": asked,
        "text_column": text_column,
        "tokens_are": TOKENS_ARE if text_column else None,
        "payload": payload.names,
        "used": {
            "short_parts": [parts[number].title for number in drawn.short_parts],
            "share_before": drawn.over_cap,
            "policy": spec.shortfall if drawn.short_parts or drawn.over_cap is not None else None,
        },
        "counts": counts,
        "parts": told,
        "duplicates": int(drawn.is_twin.sum()),
    }


def percent(share: float | None) -> str:
    return "" if share is None else f"{share:.4%}"


def number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def mixture_section(facts: dict[str, Any]) -> str:
    """The counts in words; the audit looks for it in the card."""
    asked, counts, used = facts["asked"], facts["counts"], facts["used"]
    by, fractions = asked["by"], counts["fractions"]
    lines = ["## The mixture", "", "| | rows | tokens |", "|---|---|---|"]
    for name, sums in counts["totals"].items():
        lines.append(f"| {name} | {sums['rows']:,} | {number(sums['tokens'])} |")
    lines.append(f"| synthetic fraction | {percent(fractions['rows'])} | {percent(fractions['tokens'])} |")
    if fractions["rows_by_weight"] is not None:
        shares = percent(fractions["rows_by_weight"]), percent(fractions["tokens_by_weight"])
        lines.append(f"| synthetic fraction by weight | {shares[0]} | {shares[1]} |")
    cap = f"At most {asked['synthetic_max']:.4%} of the {by} may be synthetic"
    lines += ["", f"{cap}; where that or the size asked for cannot be kept: `{asked['shortfall']}`. {_policy(used)}"]
    if facts["tokens_are"]:
        lines.append(f"Tokens are {facts['tokens_are']} in `{facts['text_column']}`, not those of a model.")
    what = "rows that equal another" if asked["dedup"] == "all" else "synthetic rows that equal a real one"
    lines.append(f"Left out as duplicates ({what}): {facts['duplicates']:,} rows.")
    lines.append(f"Rows that stand there again: {counts['repeated_rows']:,}. Effective rows (Kish): ")
    lines[-1] += f"{counts['effective_rows']:,.1f}."
    lines += ["", "| part | kind | share | rows there | duplicates | rows | tokens |", "|---|---|---|---|---|---|---|"]
    for part in facts["parts"]:
        there = f"{part['rows_there']:,} | {part['duplicates']:,} | {part['rows']:,} | {number(part['tokens'])}"
        name = part["name"].replace("|", "\\|")
        lines.append(f"| {name} | {part['kind']} | {percent(part['share'])} | {there} |")
    lines += ["", "| origin | generation | rows | tokens |", "|---|---|---|---|"]
    for one in counts["ancestry"]:
        lines.append(f"| {one['origin']} | {one['generation']} | {one['rows']:,} | {number(one['tokens'])} |")
    return "\n".join(lines) + "\n"


def _policy(used: dict[str, Any]) -> str:
    if used["policy"] is None:
        return "It was not needed."
    why = [f"too little was there of {', '.join(used['short_parts'])}"] if used["short_parts"] else []
    if used["share_before"] is not None:
        why.append(f"the synthetic share would have been {percent(used['share_before'])}")
    return f"It was needed ({'; '.join(why)}): {DID[used['policy']]}."


def mixture_card(facts: dict[str, Any], schema: pa.Schema, form: Form | None = None) -> str:
    """README.md of the release."""
    asked, counts = facts["asked"], facts["counts"]
    tags = ["synthetic"] if counts["totals"]["synthetic"]["rows"] else []
    shards = facts["shards"]
    if form:
        origins = (
            "The rows do not say of themselves what is real: the same mixture packed as rows does, by the same ids."
        )
        audited = "these numbers can be counted anew in the same mixture packed as rows, by `gristmill audit`"
    else:
        origins = """The `origin` column says of each row whether it is `real` or `synthetic`, `generation` in which \
round it was made (0: real rows, and those of a first model), `mixture_part` where it came from."""
        audited = "`gristmill audit` counts the rows anew and compares"
    return f"""{front(asked["name"], counts["totals"]["all"]["rows"], [*tags, "mixture"])}# {asked["name"]}

{asked["description"] or "A training mixture of real and synthetic rows, drawn with Gristmill."}

{origins} The fingerprint of the mixture is
`{facts["fingerprint"]}`.

{mixture_section(facts)}
`mixture.json` holds these numbers for machines; {audited}. Number of shards:
{len(shards)}, of {sum(s["num_bytes"] for s in shards):,} bytes together; rows are shuffled over all of them.

## Columns

{columns_table(schema)}
{format_section(form) + chr(10) if form else ""}{READING}"""


def about_mixture(facts: dict[str, Any]) -> About:
    """For Croissant."""
    asked, counts = facts["asked"], facts["counts"]
    fractions = counts["fractions"]
    told = f"{counts['totals']['all']['rows']:,} rows, {percent(fractions['rows'])} of them synthetic"
    if fractions["tokens"] is not None:
        told += f" ({percent(fractions['tokens'])} of the tokens)"
    words = (asked["description"] or "A training mixture of real and synthetic rows, drawn with Gristmill.").rstrip()
    keywords = ("mixture", f"{counts['totals']['all']['rows']} rows", f"synthetic {percent(fractions['rows'])}")
    return About(
        asked["name"],
        f"{words} {told}; at most {asked['synthetic_max']:.4%} by {asked['by']}.",
        facts["fingerprint"],
        keywords,
    )


def shard_facts(shards: Sequence["ShardFile"]) -> list[dict[str, Any]]:
    return [{**shard.__dict__} for shard in shards]
