"""The dataset card and the Croissant metadata of a release."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from gristmill.cluster.shuffle import ShardFile
from gristmill.jobs.release.format_card import format_section
from gristmill.jobs.release.formats import RowFormat
from gristmill.jobs.release.markdown import code, one_line, prose, yaml_string
from gristmill.jobs.release.mixture.spec import ADDED
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.shards import Summary
from gristmill.records.printable import json_text, printable
from gristmill.records.schema import IDENTITY, IMAGE, PROVENANCE

TYPES = {"string": "sc:Text", "int": "sc:Integer", "float": "sc:Float", "double": "sc:Float", "bool": "sc:Boolean"}
SIZES = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M")]
SIZES += [(10**8, "10M<n<100M"), (10**9, "100M<n<1B")]


def _group(name: str) -> str:
    if name in {f.name for f in IDENTITY}:
        return "identity"
    return "provenance" if name in {f.name for f in PROVENANCE} or name in ADDED else "payload or finding"


@dataclass(frozen=True)
class Description:
    """Name, description and version of a release, for Croissant."""

    name: str
    description: str
    version: str
    keywords: tuple[str, ...]


def describe_run(manifest: Manifest, totals: Summary) -> Description:
    description = manifest.recipe.get("description") or "A synthetic corpus made with Gristmill."
    return Description(manifest.recipe["name"], description, manifest.fingerprint, ("synthetic", f"{totals.kept} rows"))


def front_matter(name: str, num_rows: int, tags: Sequence[str]) -> str:
    """The YAML front matter that dataset hubs read."""
    size = next((label for limit, label in SIZES if num_rows < limit), "n>1B")
    tag_lines = "\n".join(f"- {tag}" for tag in tags)
    return f"""---
pretty_name: {yaml_string(name)}
tags:
{tag_lines}
size_categories:
- {size}
configs:
- config_name: default
  data_files:
  - split: train
    path: train-*.parquet
---
"""


def columns_table(schema: pa.Schema) -> str:
    lines = "\n".join(f"| {code(f.name)} | {prose(str(f.type))} | {_group(f.name)} |" for f in schema)
    return f"| column | type | group |\n|---|---|---|\n{lines}\n"


READING = """## How to read it

```python
import datasets

rows = datasets.load_dataset("parquet", data_files="train-*.parquet", split="train")
```
"""


def dataset_card(
    manifest: Manifest,
    totals: Summary,
    shards: Sequence[ShardFile],
    schema: pa.Schema,
    row_format: RowFormat | None = None,
    takedown: str = "",
) -> str:
    """README.md of the release as dataset hubs read it: YAML front matter, then prose and tables."""
    recipe = manifest.recipe
    rejected = "\n".join(
        f"| rejected {prose(reason)} | {count:,} |" for reason, count in sorted(totals.rejected.items())
    )
    generator = recipe["generator"]
    model = (
        f" with the model {code(str(generator.get('name') or generator['model']))}" if generator.get("model") else ""
    )
    method = f", the method {code(recipe['method']['kind'])}" if recipe["method"] else ""
    origins = (
        "Every row is synthetic." if row_format else "Every row is synthetic unless its `origin` column says `real`."
    )
    return f"""{front_matter(recipe["name"], sum(s.num_rows for s in shards), ["synthetic"])}# {prose(recipe["name"])}

{prose(recipe.get("description") or "A synthetic corpus made with Gristmill.")}

{origins} The generator was
{code(generator["kind"])}{model}{method}. The fingerprint of the recipe is `{manifest.fingerprint}`.
{manifest.repeatability}

## Generated and kept rows

| | rows |
|---|---|
| generated | {totals.asks:,} |
| kept | {totals.kept:,} |
{rejected}

The kept rows hold {totals.kept_tokens:,} of the {totals.tokens_out:,} generated tokens; {totals.spent_on_rejected:,}
were spent on rejected rows. Number of shards:
{len(shards)}, {sum(s.num_bytes for s in shards):,} bytes in total; the rows are shuffled across all shards.

{takedown + chr(10) if takedown else ""}## Columns

{columns_table(schema)}
{format_section(row_format) + chr(10) if row_format else ""}## Recipe

```json
{json_text({k: v for k, v in recipe.items() if k != "cluster"}, indent=2)}
```

{READING}"""


def _croissant_field(field: pa.Field, column: str = "", path: str = "") -> dict[str, Any]:
    """Croissant field of a column. A list of structs has sub-fields, addressed by a JSON path in the column."""
    column = column or field.name
    entry: dict[str, Any] = {
        "@type": "cr:Field",
        "@id": f"rows/{column}{'/' + path if path else ''}",
        "name": field.name,
    }
    kind = field.type.value_type if pa.types.is_list(field.type) else field.type
    if pa.types.is_list(field.type):
        entry["repeated"] = True
    if pa.types.is_struct(kind) and kind != IMAGE:
        return {**entry, "subField": [_croissant_field(inner, column, inner.name) for inner in kind]}
    source: dict[str, Any] = {"fileSet": {"@id": "shards"}, "extract": {"column": column}}
    if path:
        source["transform"] = {"jsonPath": path}
    return {
        **entry,
        "dataType": next((v for k, v in TYPES.items() if str(kind).startswith(k)), "sc:Text"),
        "source": source,
    }


def croissant(description: Description, shards: Sequence[ShardFile], schema: pa.Schema) -> dict[str, Any]:
    """Croissant 1.0 metadata (JSON-LD): the shards as file objects, and one record set with their columns."""
    files = [
        {
            "@type": "cr:FileObject",
            "@id": shard.name,
            "name": shard.name,
            "contentUrl": shard.name,
            "encodingFormat": "application/x-parquet",
            "contentSize": f"{shard.num_bytes} B",
            "sha256": shard.sha256,
        }
        for shard in shards
    ]
    file_set = {
        "@type": "cr:FileSet",
        "@id": "shards",
        "name": "shards",
        "containedIn": [{"@id": shard.name} for shard in shards],
        "encodingFormat": "application/x-parquet",
        "includes": "train-*.parquet",
    }
    fields = [_croissant_field(field) for field in schema]
    return {
        "@context": {
            "@language": "en",
            "@vocab": "https://schema.org/",
            "cr": "http://mlcommons.org/croissant/",
            "sc": "https://schema.org/",
            "conformsTo": "dct:conformsTo",
            "dct": "http://purl.org/dc/terms/",
            "column": "cr:column",
            "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
            "extract": "cr:extract",
            "field": "cr:field",
            "fileObject": "cr:fileObject",
            "fileSet": "cr:fileSet",
            "includes": "cr:includes",
            "jsonPath": "cr:jsonPath",
            "recordSet": "cr:recordSet",
            "repeated": "cr:repeated",
            "source": "cr:source",
            "subField": "cr:subField",
            "transform": "cr:transform",
        },
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": one_line(description.name),
        "description": printable(description.description),
        "version": description.version,
        "distribution": [*files, file_set],
        "recordSet": [{"@type": "cr:RecordSet", "@id": "rows", "name": "rows", "field": fields}],
        "keywords": list(description.keywords),
    }
