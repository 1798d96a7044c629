"""Checks of a fit before it starts."""

import pyarrow as pa

from gristmill.generators.families.contract import Family
from gristmill.generators.private.account import Account, PrivacySpec
from gristmill.records.errors import UserError


def check_fit(family: Family, table: pa.Table, privacy: PrivacySpec | None) -> None:
    """Raise UserError when family, schema, rows and budget do not fit together. Starts nothing."""
    family.check_packages()
    family.check()
    if table.num_rows < family.min_rows:
        raise UserError(f"model '{family.kind}' needs at least {family.min_rows} rows, not {table.num_rows}")
    family.check_rows(table)
    if privacy is None and family.needs_privacy:
        raise UserError(f"model '{family.kind}' is for private fits: give [privacy] epsilon and delta")
    if privacy is not None:
        if not family.is_private:
            raise UserError(f"model '{family.kind}' cannot be fitted under a budget; leave [privacy] out, or take mst")
        if privacy.engine != "ghost" and not family.takes_engine:
            raise UserError(f"model '{family.kind}' takes no [privacy] engine; dp_ctgan, dp_tvae and dp_ddpm do")
        if family.schema.inferred:
            raise UserError(
                "a private fit needs a declared [schema]: bounds and categories read from rows give them away"
            )
        Account(privacy, table.num_rows)
