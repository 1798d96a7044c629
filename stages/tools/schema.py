"""From the functions of a Python file to tools: names, descriptions and JSON schemas.

The file is read as a syntax tree and never run here: it may come with a recipe from elsewhere, and only the sandbox
runs it. So annotations are those that can be read without running: str, int, float, bool, None, Any, list, dict, tuple,
Literal, Optional, Union and `|`.
"""

import ast
import inspect
import json
import re
from dataclasses import dataclass
from typing import Any

from gristmill.records.errors import UserError
from gristmill.stages.tools.contract import object_schema

NAME = re.compile(r"[A-Za-z0-9_]{1,64}")
PLAIN = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "None": "null"}
KNOWN = "str, int, float, bool, None, Any, list, dict, tuple, Literal, Optional, Union"
SECTION = re.compile(r"^\s*+(Args|Arguments|Parameters|Returns|Raises|Examples?|Yields|Notes?):\s*$")
ARGUMENT = re.compile(r"^(\w++)\s*+(?:\([^)]*+\))?\s*+:\s*+(.*)$")
PARAM = re.compile(r"^\s*+:param\s++(?:[\w\[\], |]+\s)?(\w++)\s*+:\s*+(.*)$")


@dataclass(frozen=True)
class FunctionSchema:
    """A function as a tool."""

    name: str
    description: str
    parameters: dict[str, Any]  # JSON schema


def function_schemas(source: str, file: str) -> list[FunctionSchema]:
    """The public functions at the top of a Python file, in its order. Raises UserError with one line."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f" (line {error.lineno})" if isinstance(error, SyntaxError) else ""
        raise UserError(f"{file}: not Python: {getattr(error, 'msg', error)}{line}") from None
    schemas = []
    for node in tree.body:
        if isinstance(node, ast.AsyncFunctionDef) and not node.name.startswith("_"):
            raise UserError(f"{file}: {node.name} is async, and tools run without an event loop; write `def`")
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            schemas.append(_checked(node, f"{file}: {node.name}"))
    if not schemas:
        raise UserError(f"{file}: it defines no function without a leading underscore, so it has no tool")
    names = [schema.name for schema in schemas]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{file}: two functions are named {name}")
    return schemas


def _checked(node: ast.FunctionDef, where: str) -> FunctionSchema:
    """A function whose schema every engine and file takes."""
    if not NAME.fullmatch(node.name):
        raise UserError(f"{where}: the name of a tool has letters of ASCII, digits and _, at most 64")
    try:
        schema = _function(node, where)
        json.dumps([schema.description, schema.parameters], ensure_ascii=False).encode()
    except RecursionError:
        raise UserError(f"{where}: its types or defaults are nested too deeply") from None
    except UnicodeEncodeError:
        raise UserError(
            f"{where}: its docstring, defaults or types hold half a surrogate pair, which is no text"
        ) from None
    return schema


def _function(node: ast.FunctionDef, where: str) -> FunctionSchema:
    docstring = inspect.cleandoc(ast.get_docstring(node) or "")
    description, words = _described(docstring)
    if not description:
        raise UserError(f"{where} has no docstring: its first lines tell the model what the tool does")
    arguments = node.args
    if arguments.vararg or arguments.kwarg or arguments.posonlyargs:
        raise UserError(f"{where} takes *, ** or positional-only arguments; name each argument")
    defaults: list[ast.expr | None] = [None] * (len(arguments.args) - len(arguments.defaults))
    pairs = [*zip(arguments.args, [*defaults, *arguments.defaults]), *zip(arguments.kwonlyargs, arguments.kw_defaults)]
    properties, required = {}, []
    for argument, default in pairs:
        if argument.annotation is None:
            raise UserError(f"{where}: argument '{argument.arg}' has no type; annotate it, e.g. {argument.arg}: str")
        schema = _typed(argument.annotation, f"{where}: argument '{argument.arg}'")
        if text := words.get(argument.arg):
            schema["description"] = text
        if default is None:
            required.append(argument.arg)
        else:
            schema |= _default(default)
        properties[argument.arg] = schema
    return FunctionSchema(node.name, description, object_schema(properties, required))


def _default(node: ast.expr) -> dict[str, Any]:
    try:
        value = ast.literal_eval(node)
        json.dumps(value, allow_nan=False)
    except (ValueError, TypeError, SyntaxError, MemoryError):
        return {}
    return {"default": value}


def _typed(node: ast.expr, where: str) -> dict[str, Any]:
    """The JSON schema of an annotation."""
    if isinstance(node, ast.Constant) and isinstance(text := node.value, str):
        try:
            node = ast.parse(text, mode="eval").body
        except SyntaxError:
            raise UserError(f"{where}: {text!r} is no type") from None
    name = _name(node)
    if name in PLAIN:
        return {"type": PLAIN[name]}
    if name in ("Any", "object"):
        return {}
    if name in ("list", "tuple", "Sequence"):
        return {"type": "array"}
    if name in ("dict", "Mapping"):
        return {"type": "object"}
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _union([_typed(node.left, where), _typed(node.right, where)])
    if isinstance(node, ast.Subscript):
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        return _subscript(_name(node.value), inner, where, ast.unparse(node))
    raise UserError(f"{where}: the type {ast.unparse(node)} is not one of {KNOWN}")


def _subscript(name: str, inner: list[ast.expr], where: str, text: str) -> dict[str, Any]:
    if name == "Literal":
        values = [each.value for each in inner if isinstance(each, ast.Constant)]
        if len(values) == len(inner) and all(value is None or type(value) in (str, int, bool) for value in values):
            return {"enum": values}
    elif (name in ("list", "Sequence") and len(inner) == 1) or (
        name == "tuple" and len(inner) == 2 and isinstance(inner[1], ast.Constant) and inner[1].value is ...
    ):
        return {"type": "array", "items": _typed(inner[0], where)}
    elif name in ("dict", "Mapping") and len(inner) == 2 and _name(inner[0]) == "str":
        return {"type": "object", "additionalProperties": _typed(inner[1], where)}
    elif name == "Optional" and len(inner) == 1:
        return _union([_typed(inner[0], where), {"type": "null"}])
    elif name == "Union":
        return _union([_typed(each, where) for each in inner])
    elif name == "Annotated":
        return _typed(inner[0], where)
    raise UserError(f"{where}: the type {text} is not one of {KNOWN}")


def _union(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    kinds = [schema.get("type") for schema in schemas]
    if all(set(schema) == {"type"} for schema in schemas) and all(isinstance(kind, str) for kind in kinds):
        return {"type": kinds}
    flat = [part for schema in schemas for part in (schema["anyOf"] if set(schema) == {"anyOf"} else [schema])]
    return {"anyOf": flat}


def _name(node: ast.expr) -> str:
    """The name that an annotation ends in, as "Literal" of `typing.Literal`; "" for any other expression."""
    if isinstance(node, ast.Constant) and node.value is None:
        return "None"
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return {"List": "list", "Dict": "dict", "Tuple": "tuple"}.get(name, name)


def _described(docstring: str) -> tuple[str, dict[str, str]]:
    """What a docstring says of a function, and of each argument under "Args:" or after ":param"."""
    words: dict[str, str] = {}
    lead: list[str] = []
    section, indent, last = "", 0, ""
    for line in docstring.splitlines():
        if match := SECTION.match(line):
            section, last, indent = match[1], "", 0
        elif match := PARAM.match(line):
            section, last = "param", match[1]
            words[last] = match[2].strip()
        elif re.match(r"^\s*:\w[^:]*:", line):
            section, last = "other", ""
        elif not section:
            lead.append(line)
        elif section in ("Args", "Arguments", "Parameters", "param") and line.strip():
            depth = len(line) - len(line.lstrip())
            match = ARGUMENT.match(line.strip())
            if section != "param" and match and (not indent or depth <= indent):
                indent, last = depth, match[1]
                words[last] = match[2].strip()
            elif last:
                words[last] = f"{words[last]} {line.strip()}".strip()
    return "\n".join(lead).strip(), words
