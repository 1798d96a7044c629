"""The four column groups of every row; the full schema is fixed before a run starts.

identity    id: string (32 hex), lot: int64, row: int32, seed: int64
provenance  origin: "real" | "synthetic", generation: int32, generator, model, recipe, method, source_id: string,
            finish: string ("stop", "length", ...), tokens_in: int32, tokens_out: int32
payload     declared by the recipe (text, prompt, topic, ...)
findings    added by the stages, then `reject`: null = the row is alive, else "stage:reason"

The batch of a lot in flight also has `ask`, the JSON text of the source row; shards do not have it.
"""

import json
from collections.abc import Sequence

import pyarrow as pa

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # the Image feature of `datasets`
IDENTITY = [
    pa.field("id", pa.string(), nullable=False),
    pa.field("lot", pa.int64(), nullable=False),
    pa.field("row", pa.int32(), nullable=False),
    pa.field("seed", pa.int64(), nullable=False),
]
PROVENANCE = [
    pa.field("origin", pa.string(), nullable=False),
    pa.field("generation", pa.int32(), nullable=False),
    pa.field("generator", pa.string(), nullable=False),
    pa.field("model", pa.string()),
    pa.field("recipe", pa.string(), nullable=False),
    pa.field("method", pa.string()),
    pa.field("source_id", pa.string()),
    pa.field("finish", pa.string()),
    pa.field("tokens_in", pa.int32()),
    pa.field("tokens_out", pa.int32()),
]
ASK = pa.field("ask", pa.string())
REJECT = pa.field("reject", pa.string())
LIMIT = "limit"  # stands for a stage in SURPLUS, the reject of a row behind the last one of an exact limit
SURPLUS = f"{LIMIT}:surplus"

PAID = {b"gristmill": b"paid"}  # metadata of the columns that hold money
# What a model thought before its answer, and the tokens of that: payload of generators that part it from the answer.
REASONING = pa.field("reasoning", pa.string())
TOKENS_REASONING = pa.field("tokens_reasoning", pa.int32())

RESERVED = {f.name for f in [*IDENTITY, *PROVENANCE, ASK, REJECT]}
# Of use in their run only.
INNER_COLUMNS = frozenset(
    {"minhash", "image_hash", "row_hash", "embedding", "duplicate_of", "existing_source", "existing_id"}
)


def ask_schema(carried: Sequence[pa.Field] = ()) -> pa.Schema:
    """The schema of the asks of a lot, before the generator runs."""
    return pa.schema([*IDENTITY, *PROVENANCE, ASK, *carried, REJECT])


def full_schema(payload: Sequence[pa.Field], findings: Sequence[pa.Field]) -> pa.Schema:
    """The schema of every shard of a run.

    Raises ValueError when two columns have the same name.
    """
    fields = [*IDENTITY, *PROVENANCE, *payload, *findings, REJECT]
    names: set[str] = set()
    for field in fields:
        if field.name in names or field.name == ASK.name:
            raise ValueError(f"column '{field.name}' is declared twice")
        names.add(field.name)
    return with_images(pa.schema(fields))


def with_images(schema: pa.Schema) -> pa.Schema:
    """`schema` with the metadata by which `datasets` decodes its image columns; unchanged without images."""
    lists = {"feature": {"_type": "Image"}, "_type": "List"}
    images = {f.name: {"_type": "Image"} for f in schema if f.type == IMAGE}
    images |= {f.name: lists for f in schema if f.type == pa.list_(IMAGE)}
    metadata = json.dumps({"info": {"features": images}})
    return schema.with_metadata({"huggingface": metadata}) if images else schema


def cost_field(name: str) -> pa.Field:
    """A column of money paid for the calls of a row, in the currency of the run."""
    return pa.field(name, pa.float64(), metadata=PAID)


def cost_columns(schema: pa.Schema) -> list[str]:
    """Names of the columns that hold money paid for calls."""
    return [f.name for f in schema if f.metadata and PAID.items() <= f.metadata.items() and f.type == pa.float64()]


def release_columns(schema: pa.Schema) -> list[str]:
    """Names of the columns of a run that its release has: all but `reject`, inner columns and money.

    What a row has cost is in the currency of its run, and of use there; the card states the sum.
    """
    inner = INNER_COLUMNS.union(cost_columns(schema), [REJECT.name])
    return [name for name in schema.names if name not in inner]


def has_reasoning(names: Sequence[str]) -> bool:
    """Whether the column `reasoning` among `names` holds what a model thought, and not a value of the source."""
    return REASONING.name in names and TOKENS_REASONING.name in names


def clean(text: str) -> str:
    """`text` with "?" for lone surrogates (of broken JSON escapes): Arrow accepts only valid Unicode."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def set_column(batch: pa.RecordBatch, field: pa.Field, column: pa.Array) -> pa.RecordBatch:
    """`batch` with `column` in place of the column of that name, or added before `reject`."""
    names = batch.schema.names
    if field.name in names:
        return batch.set_column(names.index(field.name), field, column)
    at = names.index(REJECT.name) if REJECT.name in names else len(names)
    return batch.add_column(at, field, column)
