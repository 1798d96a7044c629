"""The dataset card of a release: README.md as dataset hubs read it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import pyarrow as pa

from gristmill.cluster.shuffle import ShardFile
from gristmill.jobs.release.facts import Facts, FactsFile, ended_on, release_spec
from gristmill.jobs.release.format_card import format_section
from gristmill.jobs.release.formats import RowFormat
from gristmill.jobs.release.markdown import code, fenced, prose, yaml_string
from gristmill.jobs.release.mixture.spec import ADDED
from gristmill.jobs.terminal.tables import money
from gristmill.records.licenses import HUB, UNKNOWN, license_id, license_url
from gristmill.records.masking.masks import masked
from gristmill.records.mixing.regimes import REAL
from gristmill.records.output.manifest import Manifest, generators_of
from gristmill.records.output.shards import Summary
from gristmill.records.printable import json_text
from gristmill.records.schema import IDENTITY, PROVENANCE, has_reasoning

SIZES = [f"{low}<n<{high}" for low, high in pairwise("1K 10K 100K 1M 10M 100M 1B 10B 100B 1T".split())]  # of the Hub
DESCRIPTION = "A synthetic corpus made with Gristmill."
REAL_DESCRIPTION = "A corpus of real rows, filtered with Gristmill."
MAX_EXAMPLE_CHARS, MAX_EXAMPLE_ITEMS = 400, 20  # of a text, and of a list, of the example row


def _group(name: str) -> str:
    if name in {f.name for f in IDENTITY}:
        return "identity"
    return "provenance" if name in {f.name for f in PROVENANCE} or name in ADDED else "payload or finding"


def size_category(num_rows: int) -> str:
    """The size category of the Hub: "n<1K", "1K<n<10K", ..., "n>1T"."""
    if num_rows < 1_000:
        return "n<1K"
    digits = len(str(num_rows)) - 4
    return SIZES[digits] if digits < len(SIZES) else "n>1T"


def is_real(manifest: Manifest) -> bool:
    """Whether no row of the run is synthetic: `passthrough` keeps the rows of its source, which are real by default."""
    generators = generators_of(manifest.recipe)
    return bool(generators) and all(generator.get("origin") == REAL for generator in generators)


def _makers(recipe: Mapping[str, Any]) -> str:
    """The generators with their models, as the begin of a sentence that ends with the method."""
    parts = []
    for generator in generators_of(recipe):
        model = generator.get("name") or generator["model"] if generator.get("model") else generator.get("name")
        words = " with the model " if generator.get("model") else " named "
        parts.append(f"{code(generator['kind'])}{f'{words}{code(str(model))}' if model else ''}")
    return f"The generator was\n{parts[0]}" if len(parts) == 1 else f"The generators were\n{', '.join(parts)}"


def facts_of_run(manifest: Manifest, totals: Summary, file: FactsFile, format_task: str | None = None) -> Facts:
    """The facts of the release of a run. Raises UserError for a value that is refused."""
    recipe = manifest.recipe
    spec = release_spec(recipe.get("release") or {}, file)
    source = recipe.get("source") or {}
    place = source.get("path") or ("the items of the recipe" if any(source.get("items") or ()) else None)
    if source.get("kind"):
        place = f"rows of the kind {source['kind']}, which are computed"
    license = file.source.license or source.get("license")
    return Facts(
        recipe["name"],
        recipe.get("description") or (REAL_DESCRIPTION if is_real(manifest) else DESCRIPTION),
        manifest.fingerprint,
        run_keywords(manifest, totals.kept),
        spec,
        spec.date or ended_on(manifest),
        ((masked(place), license_id(license) if license else UNKNOWN),) if place else (),
        format_task,
    )


def run_keywords(manifest: Manifest, num_rows: int) -> tuple[str, ...]:
    """The keywords of the release of a run with so many rows."""
    return "real" if is_real(manifest) else "synthetic", f"{num_rows} rows"


def front_matter(facts: Facts, num_rows: int, tags: Sequence[str]) -> str:
    """The YAML front matter that dataset hubs read."""
    hub_ids = [name for name in facts.licenses if name in HUB]
    others = [name for name in facts.licenses if name not in HUB]
    licenses = [*hub_ids, *(["other"] if others and "other" not in hub_ids else [])]
    lines = [f"pretty_name: {yaml_string(facts.title)}"]
    lines += [f"license: {licenses[0]}"] if len(licenses) == 1 else _yaml_list("license", licenses)
    if "other" in licenses:
        link = facts.spec.license_link or (license_url(others[0]) if len(others) == 1 else "")
        lines.append(f"license_name: {yaml_string(' '.join(others).lower() or 'other')}")
        lines += [f"license_link: {yaml_string(link)}"] if link.startswith("http") or facts.spec.license_link else []
    codes = dict.fromkeys(tag.partition("-")[0] for tag in facts.languages)
    lines += _yaml_list("language", codes)
    lines += _yaml_list("language_details", [tag for tag in facts.languages if tag not in codes])
    lines += _yaml_list("task_categories", facts.tasks)
    lines += _yaml_list("tags", tags)
    lines += _yaml_list("size_categories", [size_category(num_rows)])
    return "\n".join(["---", *lines, *CONFIGS, "---", ""])


def _yaml_list(key: str, values: Iterable[str]) -> list[str]:
    lines = [f"- {yaml_string(value)}" for value in values]
    return [f"{key}:", *lines] if lines else []


CONFIGS = """configs:
- config_name: default
  data_files:
  - split: train
    path: train-*.parquet""".split("\n")


def facts_section(facts: Facts) -> str:
    """Licence, sources, citation and contact as Markdown."""
    license = ", ".join(f"{one} ({license_url(one)})" if license_url(one) != one else one for one in facts.licenses)
    stated = "" if facts.spec.licenses else " Nobody has stated a licence of these rows."
    lines = ["## Licence and citation", "", f"Licence: {prose(license)}.{stated}"]
    lines += [f"Text of the licence: {prose(facts.spec.license_link)}."] if facts.spec.license_link else []
    lines += [f"Version: {facts.spec.version}.{f' Published: {facts.date}.' if facts.date else ''}"]
    lines += [f"Homepage: {prose(facts.spec.homepage)}"] if facts.spec.homepage else []
    lines += [f"Contact: {prose(facts.spec.contact)}"] if facts.spec.contact else []
    if facts.sources:
        rows = [f"| {prose(place)} | {prose(license)} |" for place, license in facts.sources]
        lines += ["", "| source | licence |", "|---|---|", *rows]
    return "\n".join([*lines, "", fenced(facts.citation, "bibtex" if facts.citation.startswith("@") else "")]) + "\n"


def example_section(row: Mapping[str, Any]) -> str:
    """A row of the release as Markdown; long texts are cut, bytes are counted."""
    return f"## Example row\n\n{fenced(json_text(_shown(row), indent=2), 'json')}\n"


def _shown(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _shown(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        more = [f"({len(value) - MAX_EXAMPLE_ITEMS} more)"] if len(value) > MAX_EXAMPLE_ITEMS else []
        return [*(_shown(inner) for inner in value[:MAX_EXAMPLE_ITEMS]), *more]
    if isinstance(value, bytes):
        return f"({len(value):,} bytes)"
    if isinstance(value, str):
        num_more = len(value) - MAX_EXAMPLE_CHARS
        return value if num_more <= 0 else f"{value[:MAX_EXAMPLE_CHARS]} ({num_more:,} more characters)"
    is_plain = value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))
    return value if is_plain else str(value)


def columns_table(schema: pa.Schema) -> str:
    lines = "\n".join(f"| {code(f.name)} | {prose(str(f.type))} | {_group(f.name)} |" for f in schema)
    return f"| column | type | group |\n|---|---|---|\n{lines}\n{_reasoning_note(schema)}"


def _reasoning_note(schema: pa.Schema) -> str:
    """A sentence about the reasoning that rows or messages hold; "" without."""
    if has_reasoning(schema.names):
        return "\n`reasoning` is what the model thought before its answer, in `tokens_reasoning` tokens.\n"
    is_message = any(f.name == "messages" and "reasoning_content" in str(f.type) for f in schema)
    return "\n`reasoning_content` of a message is what the model thought before it.\n" if is_message else ""


READING = """## How to read it

```python
import datasets

rows = datasets.load_dataset("parquet", data_files="train-*.parquet", split="train")
```
"""


def _calls_cost(totals: Summary, manifest: Manifest) -> str:
    """What the calls of an endpoint cost, in a sentence; empty where they cost nothing."""
    paid = manifest.cost.get("paid")
    if not paid:
        return ""
    unit = prose(str(manifest.cost.get("currency") or ""))
    per_token = f", {money(1000 * paid / totals.kept_tokens)} per 1,000 kept tokens" if totals.kept_tokens else ""
    return f"The calls cost {money(paid)} {unit}{per_token}. "


def dataset_card(
    manifest: Manifest,
    totals: Summary,
    facts: Facts,
    shards: Sequence[ShardFile],
    schema: pa.Schema,
    example: Mapping[str, Any],
    row_format: RowFormat | None = None,
    takedown: str = "",
) -> str:
    """README.md of the release of a run: YAML front matter, then prose and tables. `example`: a row of the release."""
    recipe = manifest.recipe
    rejected = "\n".join(
        f"| rejected {prose(reason)} | {count:,} |" for reason, count in sorted(totals.rejected.items())
    )
    method = f", the method {code(recipe['method']['kind'])}" if recipe["method"] else ""
    origins = (
        "Every row is synthetic." if row_format else "Every row is synthetic unless its `origin` column says `real`."
    )
    origins = "Every row is real; no model wrote it." if is_real(manifest) else origins
    tags = [] if is_real(manifest) else ["synthetic"]
    shown_recipe = {k: v for k, v in recipe.items() if k not in ("cluster", "release")}
    num_rows = sum(shard.num_rows for shard in shards)
    tokens = f"""The kept rows hold {totals.kept_tokens:,} of the {totals.tokens_out:,} generated tokens; \
{totals.spent_on_rejected:,}
were spent on rejected rows. {_calls_cost(totals, manifest)}"""
    return f"""{front_matter(facts, num_rows, tags)}# {prose(facts.title)}

{prose(facts.description)}

{origins} {_makers(recipe)}{method}. The fingerprint of the recipe is `{manifest.fingerprint}`.
{manifest.repeatability}

## Generated and kept rows

| | rows |
|---|---|
| generated | {totals.asks:,} |
| kept | {num_rows:,} |
{rejected}

{"" if takedown else tokens}Number of shards:
{len(shards)}, {sum(s.num_bytes for s in shards):,} bytes in total; the rows are shuffled across all shards.

{takedown + chr(10) if takedown else ""}## Columns

{columns_table(schema)}
{example_section(example)}
{format_section(row_format) + chr(10) if row_format else ""}{facts_section(facts)}
## Recipe

```json
{json_text(shown_recipe, indent=2)}
```

{READING}"""
