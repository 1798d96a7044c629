"""`gristmill audit-privacy RECIPE --out URI`: a lower bound on epsilon from a second fit with canaries, as audit.json.

The second fit uses the code of `gristmill fit` and the recipe of the model at `--out`. Its files are in `audit-fit/`
below `--out` until it ends. A killed audit resumes there with the same canaries and coins. At the end everything but
audit.json is deleted.

The rows that the canaries are added to decide what audit.json reveals. A guarantee holds for any rows. So a private
model is by default audited on rows sampled from the model itself: they depend on published data only, and the audit
spends no budget.
"""

import json
import logging
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import pyarrow as pa

from gristmill.generators.families.contract import Family, draw_rows
from gristmill.generators.families.fit import Fit, is_finished
from gristmill.generators.families.folder import ModelCard, load_model, read_card
from gristmill.jobs.fit.audit_file import AUDIT, CONFIDENCE, read_audit, show, verdict_of
from gristmill.jobs.fit.command import run_fit
from gristmill.jobs.fit.plan import FitRecipe, OtherRows, Plan, load_plan, read_recipe, read_schema
from gristmill.jobs.terminal.console import SafeConsole, open_console
from gristmill.jobs.terminal.output import Output, refusal
from gristmill.jobs.terminal.tables import clock
from gristmill.records.errors import UserError, without_keys
from gristmill.records.extras import check_installed
from gristmill.records.ids import fingerprint
from gristmill.records.masking.masks import covered, masked
from gristmill.records.output.formats import parse_json
from gristmill.records.printable import json_text
from gristmill.records.readers.datasets import data_spec, digest_table, read_table
from gristmill.records.shapes import check_shape
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_store

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from gristmill.evaluation.privacy.audit_dp import Audit
    from gristmill.evaluation.privacy.canaries import Canaries

FOLDER, COINS, FITTED_TO = "audit-fit", "coins.json", "fitted-to.json"
LEASE = "lease.json"
UNCLAIMED_DELTA = 1e-6  # for a model that claims no delta; smaller for very many rows
LEAST_CANARIES, MOST_CANARIES = 100, 1000
SAMPLES_A_ROW, MOST_SAMPLES = 4, 100_000
PLAIN_EVERY_S = 10.0
MODEL_ROWS = "rows sampled from the model itself"


class _Coins(TypedDict):
    coin_seed: int


@dataclass(frozen=True)
class AuditPrivacyArgs:
    """The flags of `gristmill audit-privacy`."""

    recipe: str  # path of the recipe that the model was fitted by
    out: str  # --out of the fit
    settings: Sequence[str] = ()  # changes of the recipe, "a.b=c"
    data: str | None = None  # rows to add the canaries to; default: sampled from a private model, else the recipe's
    canaries: int | None = None  # default: a tenth of the rows, 100 to 1000
    samples: int | None = None  # rows to sample from the second model; default: 4 per fitted row, at most 100000
    seed: int | None = None  # of canaries and coins; default: the operating system's randomness


def run(as_json: bool, **flags: Any) -> int:
    """`audit_privacy` with the flags of the command line."""
    return audit_privacy(AuditPrivacyArgs(**flags), as_json)


def audit_privacy(args: AuditPrivacyArgs, as_json: bool = False) -> int:
    """Audit the model, write audit.json and print it.

    Returns 0, 1 if the claim is refuted, or 130 if the audit was stopped. Raises UserError.
    """
    console = open_console(is_error=True)

    if args.canaries is not None and args.canaries < 2:
        raise UserError("--canaries must be at least 2")
    if args.samples is not None and args.samples < 1:
        raise UserError("--samples must be at least 1")
    if args.seed is not None and args.seed < 0:
        raise UserError("--seed must not be negative")
    check_installed("private", "scipy")
    flags = {flag: getattr(args, flag) for flag in ("data", "canaries", "samples", "seed")}
    output = Output("audit-privacy", args.recipe, args.out, args.settings, flags)
    store, card = output.store, read_card(args.out)
    recipe = check_recipe(args, card)
    if (data := store.read_if_there(AUDIT)) is not None:
        report = read_audit(store.path(AUDIT), data)
        if report.get("model") != card.digest:
            raise UserError(
                f"{store.path(AUDIT)} belongs to another model than the one beside it; remove it to audit again"
            )
        logger.info(f"{store.path(AUDIT)}: this model is already audited; remove that file to audit again")
        return show(report, as_json)
    with output.writing(FOLDER) as lease:
        new_report = _audit(args, card, recipe, lease.store, console)
        if new_report is not None:
            store.put(AUDIT, (json_text(new_report, indent=1) + "\n").encode())
            clear(lease.store)
    if new_report is None:
        return output.stopped()
    return show(new_report, as_json)


def check_recipe(args: AuditPrivacyArgs, card: ModelCard) -> FitRecipe:
    """The recipe. Raises UserError if its family cannot be audited, or if another recipe made the model."""
    recipe, family_type, spec = read_recipe(args.recipe, args.settings)
    kind = family_type.kind
    if not family_type.needs_rows:
        raise UserError(f"model '{kind}' learns from no rows, so there is no privacy to audit")
    if not family_type.makes_rows:
        raise UserError(f"model '{kind}' makes no rows, and an audit needs its rows")
    if card.kind != kind:
        raise UserError(f"{args.out} holds a model of kind '{card.kind}', the recipe is of kind '{kind}'")
    for column in card.schema.columns:
        if column.kind in ("image", "series", "text"):
            raise UserError(
                f"audit-privacy makes canaries of numbers and categories only; "
                f"column '{column.name}' of model '{kind}' is of kind {column.kind}"
            )
    if recipe.data is None or str(recipe.data) != card.trained_on["path"]:
        rows = str(recipe.data) if recipe.data else "none"
        raise UserError(f"{args.out} was fitted to rows of {card.trained_on['path']}; the recipe names {rows}")
    schema = card.schema if recipe.schema is None else read_schema(recipe.schema, pa.table({}))[0]
    family = family_type(spec, schema)
    _check_same(args, Plan(recipe, family, pa.table({}), dict(card.trained_on), []), card, is_whole=False)
    return recipe


def _check_same(args: AuditPrivacyArgs, plan: Plan, card: ModelCard, is_whole: bool) -> None:
    """Raise UserError if the plan would fit another model than that of `card`. Unless `is_whole`, rows may differ."""
    new, old = plan.fit(open_store(args.out)).identity(), card.identity
    if not is_whole:
        new, old = ({k: v for k, v in identity.items() if k != "rows"} for identity in (new, old))
    if covered(masked(new)) != covered(masked(old)):
        raise refusal(args.out, "was fitted by another recipe", old, new)


def _audit(
    args: AuditPrivacyArgs, card: ModelCard, recipe: FitRecipe, work: Store, console: SafeConsole
) -> dict[str, Any] | None:
    """Fit with canaries, sample, and bound epsilon. Returns None if the audit was stopped."""
    from gristmill.evaluation.privacy.audit_dp import toss

    state = _begin(args, card, recipe, work)
    seed, num = state["coin_seed"], state["num_canaries"]
    plan = _plan(args, card, num, seed)

    canaries = _canaries(plan, num, seed)
    coins = toss(num, seed)
    table = canaries.mix_into(coins, plan.table, seed)
    trained_on = {"path": "an audit", "num_rows": table.num_rows, "digest": digest_table(table)}
    job = Plan(plan.recipe, plan.family, plan.family.schema.conform(table), trained_on, []).fit(work)
    logger.info(
        f"fitting {card.kind} again to {plan.table.num_rows:,} rows ({plan.trained_on['path']}) and "
        f"{int(coins.sum())} of {num} canaries"
    )
    audited = _fit(job, plan.recipe, console)
    if audited is None:
        return None
    num_samples = args.samples or min(MOST_SAMPLES, SAMPLES_A_ROW * table.num_rows)
    family = load_model(work.uri, audited)
    sampled = sample(family, num_samples, seed)
    results = judge(family, canaries, coins, plan.table, sampled, audited)
    return {
        **verdict_of(results, card, audited, coins),
        "rows": plan.trained_on["path"],
        "num_rows": plan.table.num_rows,
        "num_sampled": sampled.num_rows,
        "coin_seed": seed,
        "coins": "of the operating system" if args.seed is None else "of the seed that was given",
    }


def _begin(args: AuditPrivacyArgs, card: ModelCard, recipe: FitRecipe, work: Store) -> dict[str, Any]:
    """The state of the audit: that of a killed audit with the same flags, or a new one, which is written to `work`.

    The operating system draws the seed of the coins. So neither recipe nor fit can depend on them, and nobody can
    choose favourable ones. audit.json records the seed, so that the audit can be repeated with `--seed`.
    """
    rows = int(card.trained_on["num_rows"])
    num = args.canaries or min(MOST_CANARIES, max(LEAST_CANARIES, rows // 10))
    flags = {"model": card.digest, "data": args.data, "num_canaries": num, "given_seed": args.seed}
    if (data := work.read_if_there(COINS)) is not None:
        try:
            state = parse_json(data, COINS)
            check_shape(state, _Coins, COINS)
        except UserError:
            state = {}
        if {k: state.get(k) for k in flags} == flags:
            logger.info("resuming the audit that was stopped")
            return dict(state)
        logger.info("the audit that was stopped had other flags or another model; starting again")
    clear(work)
    seed = secrets.randbits(62) if args.seed is None else args.seed
    state = {**flags, "coin_seed": seed}
    work.put(COINS, json.dumps(state).encode())
    return state


def _plan(args: AuditPrivacyArgs, card: ModelCard, num_canaries: int, seed: int) -> Plan:
    """The plan of the second fit, with the rows that the canaries are added to."""
    is_private = card.privacy["guarantee"] is not None
    if args.data is not None:
        spec = data_spec(args.data)
        with without_keys():
            table = card.schema.conform(read_table(spec), args.data)
        if is_private and str(spec) == card.trained_on["path"]:
            logger.info(
                f"note: the private model was fitted to {spec.path}. audit.json is computed from these rows without "
                f"noise, and no budget covers it: protect it as you protect the rows"
            )
        return load_plan(args.recipe, args.settings, OtherRows(args.data, table, card.schema))
    if not is_private:
        plan = load_plan(args.recipe, args.settings)
        _check_same(args, plan, card, is_whole=True)
        return plan
    # With canaries as many rows as the model was fitted to, so sampling rates and noise are the same.
    num = max(2, int(card.trained_on["num_rows"]) - num_canaries // 2)
    logger.info(f"sampling {num:,} rows from the model to audit on: unlike the private rows they reveal nothing new")
    table = sample(load_model(args.out, card), num, seed + 1)
    return load_plan(args.recipe, args.settings, OtherRows(MODEL_ROWS, table, card.schema))


def _canaries(plan: Plan, num: int, seed: int) -> "Canaries":
    from gristmill.evaluation.privacy.canaries import make_canaries

    is_replaced = plan.recipe.privacy is not None and plan.recipe.privacy.adjacency == "replace"
    try:
        return make_canaries(plan.family.schema, plan.table, num, seed, is_replaced)
    except ValueError as error:
        raise UserError(f"no {num} canaries can be made: {error}; lower --canaries") from None


def _fit(job: Fit, recipe: FitRecipe, console: SafeConsole) -> ModelCard | None:
    """Fit to the rows with canaries, unless that is done. Starts again if the rows have changed."""
    store, mark = job.store, fingerprint([covered(job.identity()), job.trained_on["digest"]]).encode()
    old_mark = store.read_if_there(FITTED_TO)
    if old_mark is not None and old_mark != mark:
        logger.info("the rows have changed since the audit began; fitting again")
        clear(store, keep=(COINS,))
    store.put(FITTED_TO, mark)
    return read_card(store.uri) if is_finished(store) else run_fit(job, recipe, console)


def sample(family: Family, num: int, seed: int) -> pa.Table:
    """About `num` rows of the model; logs the progress."""
    seeds = np.random.default_rng([seed, 1]).integers(2**63, size=num)
    started = last_line = time.monotonic()
    parts, step = [], max(family.block, 4096 // family.block * family.block)
    for first in range(0, num, step):
        parts.append(draw_rows(family, seeds[first : first + step]))
        if (now := time.monotonic()) - last_line > PLAIN_EVERY_S:
            last_line = now
            logger.info(f"[{clock(now - started)}]  {min(first + step, num):,} of {num:,} rows sampled")
    return pa.concat_tables(parts).combine_chunks()


def judge(
    family: Family, canaries: "Canaries", coins: np.ndarray, others: pa.Table, sampled: pa.Table, audited: ModelCard
) -> dict[str, "Audit"]:
    """The bound by each scoring method. All of them hold together with CONFIDENCE (Bonferroni)."""
    from gristmill.evaluation.privacy.audit_dp import audit
    from gristmill.evaluation.privacy.canaries import scores_by_samples, scores_by_sums

    scores = {"sampled rows": scores_by_samples(family.schema, canaries, others, sampled)}
    if (sums := family.sums()) is not None:
        base, added = sums.total(others), sums.each(canaries.ins)
        if canaries.outs is not None:
            replaced = sums.each(canaries.outs)
            base, added = base + replaced.sum(0), added - replaced
        scores["noisy counts in the model"] = scores_by_sums(sums.values, base, added)
    budget = audited.privacy.get("budget")
    delta = budget["delta"] if budget else min(UNCLAIMED_DELTA, 0.1 / max(1, others.num_rows))
    confidence = 1 - (1 - CONFIDENCE) / len(scores)
    return {name: audit(values, coins, delta, confidence) for name, values in scores.items()}


def clear(work: Store, keep: Sequence[str] = ()) -> None:
    """Delete the files of an unfinished audit, except its lease and those in `keep`."""
    for entry in list(work.list()):
        if entry.name not in (LEASE, *keep):
            work.delete(entry.name)
