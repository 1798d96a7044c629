"""`--set TABLE.kind=OTHER`: keys of the kind before that the other kind lacks are left out, and one line names them.

So `--set generator.kind=canned` tries any recipe of texts without its model, [[generators]] included. What only goes
with a model is ignored, too: a limit on the cost where nothing has a price, and pools. Any other unknown key stays an
error.
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
CANNED = "canned"
STAND_INS = {"judge": "canned_judge"}  # of stages with a model, for recipes that are tried without
GENERATORS = ("generator", "generators")
MODEL_STRUCTURES = ("regex", "grammar")  # of answers: canned texts follow none, but those of `answers`
PRICES = ("price_in", "price_cached", "price_out")
COUNT_LIMITS = ("asks", "kept_rows", "kept_tokens", "tokens")  # limits that any run reaches
NUM_TRIAL_ASKS = 256
GENERAL_KEYS = {"generators": {"name", "share", "when"}, "stages": {"name"}}  # of a table, whatever its kind


def leave_out_other_keys(before: Mapping[str, Any], table: dict[str, Any]) -> None:
    """Take keys of the kind in `before` out of the tables of `table` in which settings have changed the kind.

    Raises UserError for a key of `before` that its own kind does not have.
    """
    _spread(before, table)
    is_canned = has_stand_in = False
    for section, (module, function) in CLASSES.items():
        class_of: Callable[[str], Any] = getattr(import_module(module), function) if section in table else _no_class
        for where, old, new in _pairs(before.get(section), table.get(section), section):
            if _is_changed(old, new):
                if section == "generators" and new["kind"] == CANNED:
                    new.setdefault("name", _name(old))
                _leave_out(old, new, where, class_of, GENERAL_KEYS.get(section, set()))
                is_canned |= section in GENERATORS and new["kind"] == CANNED
                has_stand_in |= section == "stages" and STAND_INS.get(old["kind"]) == new["kind"]
                if section == "generator" and "method" in table and not _takes_method(class_of, new["kind"]):
                    del table["method"]
                    logger.info(f"{where}.kind = {new['kind']}: [method] is ignored")
    if is_canned:
        _leave_out_pools(before, table)
        _name_models(table.get("stages"))
    if is_canned or has_stand_in:
        _leave_out_cost(before, table)


def _spread(before: Mapping[str, Any], table: dict[str, Any]) -> None:
    """A setting `generator.kind=canned` of a recipe with [[generators]] holds for each of them."""
    keys, generators = table.get("generator"), table.get("generators")
    if "generator" in before or not (isinstance(keys, dict) and isinstance(generators, list)):
        return
    if keys.get("kind") == CANNED and all(isinstance(generator, dict) for generator in generators):
        for generator in generators:
            generator.update(keys)
        del table["generator"]


def _name(old: Mapping[str, Any]) -> str:
    """The name of one of [[generators]]: that of its model, unless it has its own."""
    return str(old.get("model", "")).rstrip("/").rpartition("/")[2].removeprefix("package:") or str(old["kind"])


def _leave_out_pools(before: Mapping[str, Any], table: dict[str, Any]) -> None:
    """Ignore `[cluster.pools]` of generators that no longer have an engine."""
    pools = _table(table, "cluster").get("pools")
    if not isinstance(pools, dict):
        return
    for _, old, new in _pairs(before.get("generators"), table.get("generators"), "generators"):
        if _is_changed(old, new) and new["kind"] == CANNED and not new.get("pooled") and pools.pop(new["name"], None):
            logger.info(f"cluster.pools.{new['name']} is ignored: canned answers need no engine")


def _leave_out_cost(before: Mapping[str, Any], table: dict[str, Any]) -> None:
    """Ignore a limit on the cost where nothing has a price any more. A run that only it would end gets another."""
    limits = _table(table, "limits")
    if "cost" in limits and "cost" in _table(before, "limits") and not _has_price(table):
        del limits["cost"]
        logger.info("limits.cost is ignored: nothing has a price without the model")
    source = _table(table, "source") or {"cycle": True}
    is_endless = source.get("cycle") or ("kind" in source and "num_rows" not in source)
    if is_endless and _table(before, "limits") and not any(name in limits for name in COUNT_LIMITS):
        limits["asks"] = NUM_TRIAL_ASKS
        logger.info(f"limits.asks = {NUM_TRIAL_ASKS}: no other limit would end a run without the model")


def _has_price(table: Mapping[str, Any]) -> bool:
    if _table(table, "cluster").get("price_per_device_hour") is not None:
        return True
    parts = [table.get("generator"), *_list(table, "generators"), *_list(table, "stages")]
    services = [service for part in parts if isinstance(part, dict) for service in (part, _table(part, "endpoint"))]
    return any(service.get(price) for service in services for price in PRICES)


def _table(table: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = table.get(key)
    return value if isinstance(value, dict) else {}


def _list(table: Mapping[str, Any], key: str) -> list[Any]:
    value = table.get(key)
    return value if isinstance(value, list) else []


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
    if new["kind"] == CANNED and all(isinstance(a, dict) and a.get("when") for a in _list(new, "answers")):
        ignored += [key for key in MODEL_STRUCTURES if new.get(key) and new[key] == old.get(key)]
    if old.get("reasoning_parser") and "reasoning" in new_keys and "reasoning_parser" not in new_keys:
        new["reasoning"] = True  # it has the columns that a parser gives
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
