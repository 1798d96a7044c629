"""`gristmill preview RECIPE`: shows a few rows of a recipe with every stage's verdict. It writes into no output."""

import time
from collections.abc import Sequence
from typing import Any

from gristmill.jobs.preview.rows import row_literals
from gristmill.jobs.preview.run import finished_rows, first_asks, sample_plan
from gristmill.jobs.preview.show import show_rows, summary
from gristmill.jobs.recipes.compile import compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.jobs.recipes.toml_file import TomlSource
from gristmill.jobs.terminal.bar import Bar
from gristmill.jobs.terminal.console import open_console, print_json
from gristmill.jobs.terminal.tables import clock
from gristmill.records.errors import UserError
from gristmill.records.exit_codes import DONE

NUM_ROWS, MAX_ROWS = 5, 1000
PLAIN_EVERY_S = 10.0  # between two progress lines where there is no terminal


def command(recipe_path: str, num_rows: int = NUM_ROWS, settings: Sequence[str] = (), as_json: bool = False) -> int:
    """`gristmill preview`; returns the exit code. Raises UserError before any engine starts, where it can."""
    rows = preview(recipe_path, num_rows, settings)
    if as_json:
        print_json({"rows": rows, "summary": summary(rows)})
    else:
        show_rows(rows, open_console())
    return DONE


def preview(recipe: TomlSource, num_rows: int = NUM_ROWS, settings: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The first rows of a recipe with what each stage said, see `row_literals`. Writes nothing.

    Raises UserError for a recipe that cannot run, and for a part that cannot be opened.
    """
    if not 1 <= num_rows <= MAX_ROWS:
        raise UserError(f"-n {num_rows}: preview shows 1 to {MAX_ROWS} rows; `gristmill produce` makes more")
    compiled = compile_recipe(load(recipe, settings))
    compiled.check()
    plan = sample_plan(compiled, num_rows)
    asks = first_asks(compiled, plan)
    began = time.monotonic()
    with Bar(open_console(is_error=True), f"{compiled.recipe.name}: preview", PLAIN_EVERY_S) as bar:

        def show(part: str, phase: str, done: int) -> None:
            count = f", {done} of {asks.num_rows} rows" if done else ""
            bar.show(done, asks.num_rows, f"{part}: {phase}{count} ({clock(time.monotonic() - began)})")

        return row_literals(compiled, finished_rows(compiled, plan, asks, show), asks)
