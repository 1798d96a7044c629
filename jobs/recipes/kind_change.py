"""`--set TABLE.kind=OTHER`: keys of the kind before that the other kind lacks are left out, and one line names them.

So `--set generator.kind=canned` tries a recipe without its model. Any other unknown key stays an error.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

from gristmill.records.errors import UserError
from gristmill.records.spec import nearest

logger = logging.getLogger(__name__)

# Tables, or lists of tables, whose `kind` names a class: the function that finds it.
CLASSES = {
    "generator": ("gristmill.generators.registry", "generator_class"),
    "generators": ("gristmill.generators.registry", "generator_class"),
    "method": ("gristmill.generators.text.registry", "method_class"),
    "stages": ("gristmill.stages.registry", "stage_class"),
    "model": ("gristmill.generators.families.contract", "family_class"),
    "family": ("gristmill.generators.chains.registry", "chain_class"),
}
STAND_INS = {"judge": "canned_judge"}  # of stages with a model, for recipes that are tried without
GENERATORS = ("generator", "generators")
GENERAL_KEYS = {"generators": {"name", "share", "when"}, "stages": {"name"}}  # of a table, whatever its kind


def leave_out_other_keys(before: Mapping[str, Any], table: dict[str, Any]) -> None:
    """Take keys of the kind in `before` out of the tables of `table` in which settings have changed the kind.

    Raises UserError for a key of `before` that its own kind does not have.
    """
    is_canned = False
    for section, (module, function) in CLASSES.items():
        class_of: Callable[[str], Any] = getattr(import_module(module), function) if section in table else _no_class
        for where, old, new in _pairs(before.get(section), table.get(section), section):
            if _is_changed(old, new):
                _leave_out(old, new, where, class_of, GENERAL_KEYS.get(section, set()))
                is_canned |= section in GENERATORS and new["kind"] == "canned"
                if section == "generator" and "method" in table and not _takes_method(class_of, new["kind"]):
                    del table["method"]
                    logger.info(f"{where}.kind = {new['kind']}: [method] is ignored")

    if is_canned:
        _name_models(table.get("stages"))


def _name_models(stages: Any) -> None:
    """Say which stages still need their models."""
    for number, stage in enumerate(stages if isinstance(stages, list) else ()):
        kind = stage.get("kind") if isinstance(stage, dict) else None
        if kind in STAND_INS:
            name = stage.get("name") or number
            logger.info(
                f"stage '{stage.get('name') or kind}' still needs its model; "
                f"--set stages.{name}.kind={STAND_INS[kind]} tries the recipe without"
            )


def _no_class(kind: str) -> Any:
    raise UserError(f"there is no kind '{kind}'")


def _pairs(old: Any, new: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    """(address, table before, table after) of a section."""
    if isinstance(old, list) and isinstance(new, list):
        for number, pair in enumerate(zip(old, new)):
            yield f"{where}[{number}]", *pair
    else:
        yield where, old, new


def _is_changed(old: Any, new: Any) -> bool:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return False
    kinds = old.get("kind"), new.get("kind")
    return all(isinstance(kind, str) for kind in kinds) and kinds[0] != kinds[1]


def _leave_out(
    old: Mapping[str, Any], new: dict[str, Any], where: str, class_of: Callable[[str], Any], general: set[str]
) -> None:
    try:
        old_keys = _keys(class_of(old["kind"]))
    except UserError:
        return  # a kind that is not there has no keys, and the setting mends it
    new_keys = _keys(class_of(new["kind"]))
    for key in old:
        if key not in {*old_keys, *general, "kind"}:
            raise UserError(f"{where} ({old['kind']}): unknown key '{key}'{nearest(key, old_keys)}")
    ignored = [key for key in new if key in old_keys and key not in {*new_keys, *general}]
    for key in ignored:
        del new[key]
    if STAND_INS.get(old["kind"]) == new["kind"]:
        new.setdefault("name", old["kind"])  # others read its columns under this name
    if ignored:
        logger.info(f"{where}.kind = {new['kind']}: keys of '{old['kind']}' are ignored: {', '.join(ignored)}")


def _keys(component: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(component.Spec) if field.init}


def _takes_method(class_of: Callable[[str], Any], kind: str) -> bool:
    return bool(class_of(kind).takes_method)
