"""KubeRay's CRDs and Kubernetes' kinds as strict JSON schemas: what the API server would silently drop is an error."""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from kubernetes_validate.utils import Registry, Resource, schema_contents

from tests.conftest import ROOT

FOLDER = Path(os.environ.get("GRISTMILL_CRDS") or ROOT.parent / "shared" / "crds")
KUBERNETES = "1.37"
SPANS = {"int32": 2**31, "int64": 2**63}


@lru_cache
def crd(plural: str) -> dict[str, Any]:
    """The CustomResourceDefinition of "rayclusters" or "rayjobs"."""
    with open(FOLDER / f"ray.io_{plural}.yaml") as file:
        return yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


@lru_cache
def validator(plural: str, version: str) -> Draft202012Validator:
    """Raises KeyError when the definition does not serve this version."""
    served = {v["name"]: v for v in crd(plural)["spec"]["versions"] if v["served"]}
    schema = strict(served[version]["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}  # Kubernetes' own, not the definition's
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """A structural OpenAPI v3 schema as a JSON schema that refuses fields it does not know."""
    found: dict[str, Any] = {}
    for key in ("enum", "pattern", "minLength", "maxLength", "minItems", "maxItems", "minimum", "maximum"):
        if key in schema:
            found[key] = schema[key]
    for key in ("allOf", "anyOf", "oneOf"):  # in structural schemas these only narrow, they name no fields
        if key in schema and not schema.get("x-kubernetes-int-or-string"):
            found[key] = schema[key]
    if schema.get("x-kubernetes-int-or-string"):
        found["type"] = ["integer", "string"]
    elif "type" in schema:
        found["type"] = [schema["type"], "null"] if schema.get("nullable") else schema["type"]
    if schema.get("type") == "integer" and schema.get("format") in SPANS:
        found.setdefault("minimum", -SPANS[schema["format"]])
        found.setdefault("maximum", SPANS[schema["format"]] - 1)
    if schema.get("type") == "object":
        found["properties"] = {name: strict(part) for name, part in schema.get("properties", {}).items()}
        found["required"] = schema.get("required", [])
        others = schema.get("additionalProperties", False)
        if schema.get("x-kubernetes-preserve-unknown-fields"):
            others = True
        found["additionalProperties"] = strict(others) if isinstance(others, dict) else others
    if schema.get("type") == "array":
        found["items"] = strict(schema["items"])
    return found


def doubles(value: Any, schema: dict[str, Any], where: str = "") -> list[str]:
    """Entries of lists that Kubernetes keeps as maps (x-kubernetes-list-map-keys) and that bear the same keys."""
    found: list[str] = []
    if isinstance(value, list):
        keys = schema.get("x-kubernetes-list-map-keys", [])
        # A key that has a default counts with it: ports of one number differ by their protocol.
        defaults = {k: schema["items"].get("properties", {}).get(k, {}).get("default") for k in keys}
        seen = [tuple(item.get(k, defaults[k]) for k in keys) for item in value if keys]
        found += [f"{where}: {key} twice" for key in set(seen) if seen.count(key) > 1]
        for number, item in enumerate(value):
            found += doubles(item, schema.get("items", {}), f"{where}[{number}]")
    elif isinstance(value, dict):
        for name, item in value.items():
            part = schema.get("properties", {}).get(name) or schema.get("additionalProperties") or {}
            found += doubles(item, part if isinstance(part, dict) else {}, f"{where}.{name}")
    return found


@lru_cache
def kubernetes_validator(api_version: str, kind: str) -> Draft202012Validator:
    """Of one of Kubernetes' own kinds; kubernetes_validate has the schemas, and reads them again at each call."""
    group, _, version = api_version.rpartition("/")
    name = "-".join(filter(None, [kind.lower(), group.partition(".")[0], version]))
    folder = f"kubernetes-json-schema/v{KUBERNETES}.0-local-strict"
    schema = schema_contents(f"{folder}/{name}.json", KUBERNETES)
    return Draft202012Validator(schema, registry=_definitions(folder))


@lru_cache
def _definitions(folder: str) -> Registry:
    return Resource.from_contents(schema_contents(f"{folder}/_definitions.json", KUBERNETES)) @ Registry()


def kubernetes_errors(document: dict[str, Any]) -> list[str]:
    """What Kubernetes has against an object of its own kinds."""
    found = kubernetes_validator(document["apiVersion"], document["kind"]).iter_errors(document)
    return [f"{error.json_path}: {error.message}" for error in found]
