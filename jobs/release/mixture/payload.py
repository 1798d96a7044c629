"""The columns that the parts of a mixture have in common, and the text that is counted."""

from collections.abc import Sequence

import pyarrow as pa

from gristmill.jobs.release.mixture.parts import Part
from gristmill.jobs.release.mixture.spec import MixSpec
from gristmill.records.errors import UserError
from gristmill.records.spec import nearest

TEXT = "text"


def payload_of(parts: Sequence[Part], spec: MixSpec) -> tuple[pa.Schema, str | None]:
    """(payload, text column) of a release: the columns that all parts have, or those wanted, in types that fit all.

    Raises UserError when the parts have none in common, or one in types that do not go together.
    """
    wanted, text_column = spec.payload, spec.text_column
    common = [n for n in parts[0].own.names if all(n in p.own.names for p in parts)]
    if not common:
        told = "; ".join(f"'{p.title}' has {', '.join(p.own.names) or 'none'}" for p in parts)
        raise UserError(f'the parts have no payload column in common: {told}. Map one with columns = {{ new = "old" }}')
    every = {n for p in parts for n in p.own.names}
    for name in wanted:
        if name not in every:
            raise UserError(f"payload: no part has a column '{name}'{nearest(name, every)}")
    if wanted and not set(wanted) & set(common):
        raise UserError(f"payload: none of its columns is in all parts; those that are: {', '.join(common)}")
    if text_column and text_column not in common:
        raise UserError(f"text_column: not every part has a column '{text_column}'{nearest(text_column, common)}")
    fields = []
    for name in wanted or common:
        having = [p for p in parts if name in p.own.names]
        try:
            schema = pa.unify_schemas([pa.schema([p.own.field(name)]) for p in having], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            told = ", ".join(f"{p.own.field(name).type} in '{p.title}'" for p in having)
            raise UserError(f"column '{name}' is {told}: leave it out of payload, or map it to another name") from None
        kind = schema.field(0).type
        fields.append(pa.field(name, pa.string() if pa.types.is_null(kind) else kind))
    if text_column and not pa.types.is_string(next(f.type for f in fields if f.name == text_column)):
        raise UserError(f"text_column: '{text_column}' holds no text")
    payload = pa.schema(fields)
    if (
        text_column is None
        and TEXT in common
        and TEXT in payload.names
        and pa.types.is_string(payload.field(TEXT).type)
    ):
        text_column = TEXT
    if spec.by == "tokens" and text_column is None:
        raise UserError(
            f"by = 'tokens' counts the words of a text, and not every part has a text column '{TEXT}'; "
            f"set text_column or by = 'rows'"
        )
    return payload, text_column
