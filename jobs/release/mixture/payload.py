"""The payload of a release: the columns that the parts share, and the text column whose words are counted."""

from collections.abc import Sequence

import pyarrow as pa

from gristmill.jobs.release.mixture.parts import Part
from gristmill.jobs.release.mixture.spec import MixtureSpec
from gristmill.records.errors import UserError
from gristmill.records.spec import nearest

TEXT = "text"


def common_payload(parts: Sequence[Part], spec: MixtureSpec) -> tuple[pa.Schema, str | None]:
    """(payload, text column): the columns that all parts have, or those that `spec` names, in types that fit all parts.

    Raises UserError when the parts share no column, or when the types of a shared column cannot be unified.
    """
    requested, text_column = spec.payload, spec.text_column
    common = [n for n in parts[0].schema.names if all(n in p.schema.names for p in parts)]
    if not common:
        columns = "; ".join(f"'{p.title}' has {', '.join(p.schema.names) or 'none'}" for p in parts)
        raise UserError(
            f'the parts have no payload column in common: {columns}. Map one with columns = {{ new = "old" }}'
        )
    names = {n for p in parts for n in p.schema.names}
    for name in requested:
        if name not in names:
            raise UserError(f"payload: no part has a column '{name}'{nearest(name, names)}")
    if requested and not set(requested) & set(common):
        raise UserError(f"payload: none of its columns is in all parts; shared columns: {', '.join(common)}")
    if text_column and text_column not in common:
        raise UserError(f"text_column: not every part has a column '{text_column}'{nearest(text_column, common)}")
    fields = []
    for name in requested or common:
        owners = [p for p in parts if name in p.schema.names]
        try:
            schema = pa.unify_schemas([pa.schema([p.schema.field(name)]) for p in owners], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            types = ", ".join(f"{p.schema.field(name).type} in '{p.title}'" for p in owners)
            raise UserError(f"column '{name}' is {types}: leave it out of payload, or map it to another name") from None
        kind = schema.field(0).type
        fields.append(pa.field(name, pa.string() if pa.types.is_null(kind) else kind))
    if text_column and not pa.types.is_string(next(f.type for f in fields if f.name == text_column)):
        raise UserError(f"text_column: '{text_column}' is not a text column")
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
