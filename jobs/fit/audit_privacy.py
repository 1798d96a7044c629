"""`gristmill audit-privacy RECIPE --out URI`: a lower bound on epsilon from a second fit with canaries, as audit.json.

The second fit goes through the code of `gristmill fit`, on the cluster, from the recipe of the model that lies at
`--out`; it lies in `audit-fit/` there while it is under way, so a killed audit goes on where it was, with the same
canaries and coins, and everything of it but audit.json is deleted at the end.

Which rows the canaries are added to matters to what audit.json gives away. A guarantee holds for any rows, so the
default for a private model is rows that the model itself has sampled: a function of what is published, so the audit
costs nothing of the budget.
"""

import json
import logging
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from rich.console import Console

from gristmill.generators.families.contract import Family, draw_rows
from gristmill.generators.families.fit import Fit, is_finished
from gristmill.generators.families.folder import ModelCard, load_model, read_card
from gristmill.jobs.fit.audit_file import AUDIT, CONFIDENCE, read_audit, show, verdict_of
from gristmill.jobs.fit.command import run_fit
from gristmill.jobs.fit.plan import FitRecipe, OtherRows, Plan, load_plan, read_recipe, read_schema
from gristmill.jobs.terminal.output import Output, refusal
from gristmill.jobs.terminal.tables import clock
from gristmill.records.errors import UserError
from gristmill.records.ids import fingerprint
from gristmill.records.readers.datasets import data_spec, digest_table, read_table
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_store

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from gristmill.evaluation.privacy.audit_dp import Audit
    from gristmill.evaluation.privacy.canaries import Canaries

FOLDER, COINS, FITTED_TO = "audit-fit", "coins.json", "fitted-to.json"
LEASE = "lease.json"
UNCLAIMED_DELTA = 1e-6  # where no delta is claimed; less for very many rows
LEAST_CANARIES, MOST_CANARIES = 100, 1000
SAMPLES_A_ROW, MOST_SAMPLES = 4, 100_000
PLAIN_EVERY_S = 10.0
MODEL_ROWS = "rows sampled from the model itself"


@dataclass(frozen=True)
class AuditPrivacyArgs:
    """The flags of the verb."""

    recipe: str
    out: str
    settings: Sequence[str] = ()
    data: str | None = None
    canaries: int | None = None
    samples: int | None = None
    seed: int | None = None


def run(as_json: bool, **flags: Any) -> int:
    """`audit_privacy` with the flags of the command line."""
    return audit_privacy(AuditPrivacyArgs(**flags), as_json)


def audit_privacy(args: AuditPrivacyArgs, as_json: bool = False) -> int:
    """Audit, put audit.json, print it; returns 0, 1 where the claim is refuted, 130 when it was stopped. Raises
    UserError."""
    console = Console(stderr=True, highlight=False)

    if args.canaries is not None and args.canaries < 2:
        raise UserError("--canaries must be at least 2")
    if args.samples is not None and args.samples < 1:
        raise UserError("--samples must be at least 1")
    if args.seed is not None and args.seed < 0:
        raise UserError("--seed must not be negative")
    flags = {flag: getattr(args, flag) for flag in ("data", "canaries", "samples", "seed")}
    output = Output("audit-privacy", args.recipe, args.out, args.settings, flags)
    store, card = output.store, read_card(args.out)
    recipe = check_recipe(args, card)
    if (data := store.read_if_there(AUDIT)) is not None:
        found = read_audit(store.path(AUDIT), data)
        if found.get("model") != card.digest:
            raise UserError(f"{store.path(AUDIT)} is of another model than the one beside it; remove it to audit anew")
        logger.info(f"{store.path(AUDIT)}: this model was audited already; to audit it anew remove that file")
        return show(found, as_json)
    with output.writing(FOLDER) as lease:
        found_or_none = _audit(args, card, recipe, lease.store, console)
        if found_or_none is not None:
            store.put(AUDIT, (json.dumps(found_or_none, indent=1, ensure_ascii=False) + "\n").encode())
            clear(lease.store)
    if found_or_none is None:
        return output.stopped()
    return show(found_or_none, as_json)


def check_recipe(args: AuditPrivacyArgs, card: ModelCard) -> FitRecipe:
    """The recipe. Raises UserError for a family that cannot be audited and for a model of another recipe."""
    recipe, family_type, spec = read_recipe(args.recipe, args.settings)
    kind = family_type.kind
    if not family_type.needs_rows:
        raise UserError(f"model '{kind}' learns from no rows: there is nobody whose privacy could be audited")
    if not family_type.makes_rows:
        raise UserError(f"model '{kind}' makes no rows, so an audit by its rows is not possible")
    if card.kind != kind:
        raise UserError(f"{args.out} holds a model of kind '{card.kind}', the recipe is of kind '{kind}'")
    for column in card.schema.columns:
        if column.kind in ("image", "series", "text"):
            raise UserError(
                f"audit-privacy makes canaries of numbers and categories; '{column.name}' of model '{kind}' is of kind "
                f"{column.kind}, which it cannot audit"
            )
    if recipe.data is None or str(recipe.data) != card.trained_on["path"]:
        named = str(recipe.data) if recipe.data else "none"
        raise UserError(f"{args.out} was fitted to rows of {card.trained_on['path']}; the recipe names {named}")
    schema = card.schema if recipe.schema is None else read_schema(recipe.schema, pa.table({}))[0]
    family = family_type(spec, schema)
    _same(args, Plan(recipe, family, pa.table({}), dict(card.trained_on), []), card, is_whole=False)
    return recipe


def _same(args: AuditPrivacyArgs, plan: Plan, card: ModelCard, is_whole: bool) -> None:
    """Raise UserError where the plan would fit another model than that of `card`; unless `is_whole`, its rows may
    differ."""
    new, old = plan.fit(open_store(args.out)).identity(), card.identity
    if not is_whole:
        new, old = ({k: v for k, v in identity.items() if k != "rows"} for identity in (new, old))
    if fingerprint(new) != fingerprint(old):
        raise refusal(args.out, "was fitted by another recipe", old, new)


def _audit(
    args: AuditPrivacyArgs, card: ModelCard, recipe: FitRecipe, workshop: Store, console: Console
) -> dict[str, Any] | None:
    """The whole audit; None when it was stopped."""
    begun = _begin(args, card, recipe, workshop)
    seed, num = begun["coin_seed"], begun["num_canaries"]
    plan = _plan(args, card, num, seed)
    from gristmill.evaluation.privacy.audit_dp import toss  # scipy is loaded only now

    canaries = _canaries(plan, num, seed)
    coins = toss(num, seed)
    table = canaries.mixed(coins, plan.table, seed)
    told = {"path": "an audit", "num_rows": table.num_rows, "digest": digest_table(table)}
    job = Plan(plan.recipe, plan.family, plan.family.schema.conform(table), told, []).fit(workshop)
    logger.info(
        f"fitting {card.kind} anew to {plan.table.num_rows:,} rows ({plan.trained_on['path']}) and "
        f"{int(coins.sum())} of {num} canaries"
    )
    audited = _fit(job, plan.recipe, console)
    if audited is None:
        return None
    wanted = args.samples or min(MOST_SAMPLES, SAMPLES_A_ROW * table.num_rows)
    family = load_model(workshop.uri, audited)
    sampled = sample(family, wanted, seed)
    results = judge(family, canaries, coins, plan.table, sampled, audited)
    return {
        **verdict_of(results, card, audited, coins),
        "rows": plan.trained_on["path"],
        "num_rows": plan.table.num_rows,
        "num_sampled": sampled.num_rows,
        "coin_seed": seed,
        "coins": "of the operating system" if args.seed is None else "of the seed that was given",
    }


def _begin(args: AuditPrivacyArgs, card: ModelCard, recipe: FitRecipe, workshop: Store) -> dict[str, Any]:
    """What decides the audit, as a killed one has left it, or put down now.

    The coins are the operating system's: nothing in recipe, fit or canaries can know them, and nobody can pick lucky
    ones. Their seed is written down afterwards, so that the audit can be gone over. `--seed` is for who must have the
    same coins again.
    """
    rows = int(card.trained_on["num_rows"])
    num = args.canaries or min(MOST_CANARIES, max(LEAST_CANARIES, rows // 10))
    wanted = {"model": card.digest, "data": args.data, "num_canaries": num, "given_seed": args.seed}
    if (data := workshop.read_if_there(COINS)) is not None:
        try:
            before = json.loads(data)
        except ValueError:
            before = {}
        if {k: before.get(k) for k in wanted} == wanted:
            logger.info("going on with the audit that was under way")
            return dict(before)
        logger.info("an audit with other flags or of another model was under way; beginning anew")
    clear(workshop)
    seed = secrets.randbits(62) if args.seed is None else args.seed
    begun = {**wanted, "coin_seed": seed}
    workshop.put(COINS, json.dumps(begun).encode())
    return begun


def _plan(args: AuditPrivacyArgs, card: ModelCard, num_canaries: int, seed: int) -> Plan:
    """The recipe with the rows that the canaries are added to."""
    is_private = card.privacy["guarantee"] is not None
    if args.data is not None:
        spec = data_spec(args.data)
        table = card.schema.conform(read_table(spec), args.data)
        if is_private and str(spec) == card.trained_on["path"]:
            logger.info(
                f"note: {spec.path} is what the private model was fitted to. audit.json is computed from these rows "
                f"without noise, and no budget covers it: treat it as you treat the rows"
            )
        return load_plan(args.recipe, args.settings, OtherRows(args.data, table, card.schema))
    if not is_private:
        plan = load_plan(args.recipe, args.settings)
        _same(args, plan, card, is_whole=True)
        return plan
    # As many rows as the model has seen, canaries counted: the same sampling rates and noise.
    num = max(2, int(card.trained_on["num_rows"]) - num_canaries // 2)
    logger.info(f"sampling {num:,} rows of the model to audit on: unlike the private rows they give nothing more away")
    table = sample(load_model(args.out, card), num, seed + 1)
    return load_plan(args.recipe, args.settings, OtherRows(MODEL_ROWS, table, card.schema))


def _canaries(plan: Plan, num: int, seed: int) -> "Canaries":
    from gristmill.evaluation.privacy.canaries import make_canaries

    is_replaced = plan.recipe.privacy is not None and plan.recipe.privacy.adjacency == "replace"
    try:
        return make_canaries(plan.family.schema, plan.table, num, seed, is_replaced)
    except ValueError as error:
        raise UserError(f"no {num} canaries can be made: {error}; lower --canaries") from None


def _fit(job: Fit, recipe: FitRecipe, console: Console) -> ModelCard | None:
    store, mark = job.store, fingerprint([job.identity(), job.trained_on["digest"]]).encode()
    before = store.read_if_there(FITTED_TO)
    if before is not None and before != mark:
        logger.info("the rows have changed since the audit began; fitting anew")
        clear(store, keep=(COINS,))
    store.put(FITTED_TO, mark)
    return read_card(store.uri) if is_finished(store) else run_fit(job, recipe, console)


def sample(family: Family, num: int, seed: int) -> pa.Table:
    """About `num` rows as they come, with a line now and then."""
    seeds = np.random.default_rng([seed, 1]).integers(2**63, size=num)
    started = shown = time.monotonic()
    parts, step = [], max(family.block, 4096 // family.block * family.block)
    for first in range(0, num, step):
        parts.append(draw_rows(family, seeds[first : first + step]))
        if (now := time.monotonic()) - shown > PLAIN_EVERY_S:
            shown = now
            logger.info(f"[{clock(now - started)}]  {min(first + step, num):,} of {num:,} rows sampled")
    return pa.concat_tables(parts).combine_chunks()


def judge(
    family: Family, canaries: "Canaries", coins: np.ndarray, others: pa.Table, sampled: pa.Table, audited: ModelCard
) -> dict[str, "Audit"]:
    """The bound by each way of scoring; together they hold with CONFIDENCE (Bonferroni)."""
    from gristmill.evaluation.privacy.audit_dp import audit
    from gristmill.evaluation.privacy.canaries import scores_by_samples, scores_by_sums

    scores = {"sampled rows": scores_by_samples(family.schema, canaries, others, sampled)}
    if (sums := family.sums()) is not None:
        known, added = sums.total(others), sums.each(canaries.ins)
        if canaries.outs is not None:
            replaced = sums.each(canaries.outs)
            known, added = known + replaced.sum(0), added - replaced
        scores["noisy counts in the model"] = scores_by_sums(sums.values, known, added)
    budget = audited.privacy.get("budget")
    delta = budget["delta"] if budget else min(UNCLAIMED_DELTA, 0.1 / max(1, others.num_rows))
    own = 1 - (1 - CONFIDENCE) / len(scores)
    return {name: audit(values, coins, delta, own) for name, values in scores.items()}


def clear(workshop: Store, keep: Sequence[str] = ()) -> None:
    """Remove all that an audit keeps while it is under way, but its lease."""
    for entry in list(workshop.list()):
        if entry.name not in (LEASE, *keep):
            workshop.delete(entry.name)
