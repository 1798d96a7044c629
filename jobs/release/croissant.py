"""Croissant metadata of a release: one record set with the columns, read from the shards beside croissant.json.

Croissant 1.0 (mlcommons.org/croissant/1.0). The file set has no `containedIn`: readers look for the shards in the
folder of croissant.json. Identifiers are percent-encoded names: valid in any IRI, and different where names differ.
"""

import json
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from gristmill.cluster.shuffle import ShardFile
from gristmill.jobs.release.facts import Facts
from gristmill.jobs.release.markdown import one_line
from gristmill.records.licenses import license_url, named_license
from gristmill.records.printable import printable
from gristmill.records.schema import IMAGE

CONTEXT = {  # of the specification
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
PARQUET = "application/x-parquet"


def croissant(facts: Facts, shards: Sequence[ShardFile], schema: pa.Schema) -> dict[str, Any]:
    """croissant.json (JSON-LD): the facts, the shards with their checksums, and a record set with their columns."""
    files = [
        {
            "@type": "cr:FileObject",
            "@id": shard.name,
            "name": shard.name,
            "contentUrl": shard.name,
            "encodingFormat": PARQUET,
            "contentSize": f"{shard.num_bytes} B",
            "sha256": shard.sha256,
        }
        for shard in shards
    ]
    file_set = {
        "@type": "cr:FileSet",
        "@id": "shards",
        "name": "shards",
        "encodingFormat": PARQUET,
        "includes": "train-*.parquet",
    }
    licenses = [facts.spec.license_link or one if one == "other" else license_url(one) for one in facts.licenses]
    optional = {
        "datePublished": facts.date,
        "inLanguage": list(facts.languages),
        "url": facts.spec.homepage,
    }
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": one_line(facts.title),
        "description": printable(facts.description),
        "license": licenses[0] if len(licenses) == 1 else licenses,
        "version": facts.spec.version,
        "identifier": facts.fingerprint,
        "citeAs": printable(facts.citation),
        **{key: value for key, value in optional.items() if value},
        "keywords": list(facts.keywords),
        "distribution": [*files, file_set],
        "recordSet": [record_set(schema)],
    }


def stated_by(data: bytes | None) -> tuple[str, str]:
    """(day of publication, ids of the licences) that a croissant.json states; empty where it does not.

    A licence without a page in the SPDX list is as it is stated there.
    """
    try:
        metadata = json.loads(data or b"{}")
    except (ValueError, RecursionError):  # the audit of that release says so
        metadata = {}
    table = metadata if isinstance(metadata, dict) else {}
    day, license = table.get("datePublished"), table.get("license")
    names = license if isinstance(license, list) else [license]
    is_day = isinstance(day, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", day)
    return str(day) if is_day else "", ", ".join(named_license(name) for name in names if isinstance(name, str))


def record_set(schema: pa.Schema) -> dict[str, Any]:
    """The columns as fields. The description names columns, and parts of columns, that Croissant cannot express."""
    missing: list[str] = []
    fields = [_field(column.name, column.type, _Place(column.name), missing) for column in schema]
    described = {"description": f"Columns without a field: {', '.join(missing)}."} if missing else {}
    return {
        "@type": "cr:RecordSet",
        "@id": "rows",
        "name": "rows",
        **described,
        "field": [field for field in fields if field],
    }


class _Place:
    """Where the values of a field lie: a column and a path of struct fields in it, perhaps in a list of structs."""

    def __init__(self, column: str, path: tuple[str, ...] = (), in_list: bool = False) -> None:
        self.column, self.path, self.in_list = column, path, in_list

    def inner(self, name: str, in_list: bool) -> "_Place":
        return _Place(self.column, (*self.path, name), self.in_list or in_list)

    @property
    def id(self) -> str:
        return "/".join(["rows", *(quote(name, safe="") for name in (self.column, *self.path))])

    def source(self, *last: str) -> dict[str, Any]:
        source: dict[str, Any] = {"fileSet": {"@id": "shards"}, "extract": {"column": self.column}}
        if path := (*self.path, *last):
            source["transform"] = {"jsonPath": _json_path(path)}
        return source

    def __str__(self) -> str:
        return ".".join((self.column, *self.path))


def _json_path(names: Sequence[str]) -> str:
    """ "role", or "$['a b']" where a name is no identifier."""
    if all(re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name) and name != "where" for name in names):
        return ".".join(names)
    return "$" + "".join("['" + re.sub(r"(['\\])", r"\\\1", name) + "']" for name in names)


def _field(name: str, kind: pa.DataType, place: _Place, missing: list[str]) -> dict[str, Any] | None:
    """The field of a column or struct field; None, noted in `missing`, where Croissant has no way to say its values."""
    is_list, inner = _without_lists(kind)
    entry: dict[str, Any] = {"@type": "cr:Field", "@id": place.id, "name": name}
    if is_list:
        entry["repeated"] = True
    if inner == IMAGE and not place.in_list:
        return {**entry, "dataType": "sc:ImageObject", "source": place.source("bytes")}
    if pa.types.is_struct(inner) and name and not (is_list and place.path):  # readers follow a list of structs once
        fields = [_field(child.name, child.type, place.inner(child.name, is_list), missing) for child in inner]
        if any(fields):
            return {**entry, "subField": [field for field in fields if field]}
    if (data_type := _data_type(inner)) is None or not name or "*" in place.path:
        missing.append(f"{place} ({kind})")
        return None
    return {**entry, "dataType": data_type, "source": place.source()}


def _without_lists(kind: pa.DataType) -> tuple[bool, pa.DataType]:
    """(whether it is a list, the type of its elements). Extension types and dictionaries count as their values."""
    is_list = False
    while True:
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        elif pa.types.is_dictionary(kind):
            kind = kind.value_type
        elif (
            pa.types.is_list(kind)
            or pa.types.is_large_list(kind)
            or pa.types.is_fixed_size_list(kind)
            or pa.types.is_list_view(kind)
            or pa.types.is_large_list_view(kind)
        ):
            if pa.types.is_struct(kind.value_type) and is_list:
                return True, kind  # a list of lists of structs
            is_list, kind = True, kind.value_type
        else:
            return is_list, kind


def _data_type(kind: pa.DataType) -> str | None:
    types = pa.types
    if types.is_boolean(kind):
        return "sc:Boolean"
    if types.is_integer(kind):
        return "sc:Integer"
    if types.is_floating(kind) or types.is_decimal(kind):
        return "sc:Float"
    if types.is_date(kind):
        return "sc:Date"
    if types.is_timestamp(kind):
        return "sc:DateTime"
    if types.is_time(kind):
        return "sc:Time"
    is_text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    is_bytes = types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
    return "sc:Text" if is_text or is_bytes or types.is_binary_view(kind) or types.is_null(kind) else None
