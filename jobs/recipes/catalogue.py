"""`gristmill recipes`: what lies in recipes/, studies/ and mixtures/, by the lines with which each file begins.

    # Makes: what comes out, in one sentence.
    # Paper: what it follows, or none.
    # Cost: what a kept row takes (calls, tokens), or a whole fit or study.

A line goes on in the next ones that are indented by two blanks or more; other comments may stand around them.
"""

import json
import re
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gristmill.records.errors import UserError
from gristmill.records.shipped import SHIPPED
from gristmill.records.spec import nearest

KEYS = ("Makes", "Paper", "Cost")
# Where files lie, what they make, and how they are used.
FOLDERS = (
    ("recipes", "rows", "gristmill produce recipes/NAME.toml --out URI"),
    ("recipes/fit", "models", "gristmill fit recipes/fit/NAME.toml --out URI"),
    ("studies", "studies", "gristmill study studies/NAME.toml --out URI"),
    ("mixtures", "mixtures", "gristmill pack mixtures/NAME.toml --to URI"),
)


@dataclass(frozen=True)
class Listed:
    """One file, as it is told. `method`: of text its method, else the kind of generator, model or family."""

    name: str
    path: str  # relative to the project
    what: str  # rows, models, studies or mixtures
    makes: str
    method: str
    paper: str
    cost: str


def recipes(name: str | None, as_json: bool, root: Path = SHIPPED) -> int:
    """List the recipes, or print the one of that name with its comments; returns the exit code.

    Raises UserError when the folders are not there, and for a name that is none or not one alone.
    """
    found = listed(root)
    if name is not None:
        one = named(found, name)
        content = (root / one.path).read_text()
        told = {**asdict(one), "content": content}
        print(json.dumps(told, indent=2, ensure_ascii=False) if as_json else content.rstrip("\n"))
        return 0
    if as_json:
        print(json.dumps([asdict(one) for one in found], indent=2, ensure_ascii=False))
        return 0
    console = Console(highlight=False)
    for _, what, use in FOLDERS:
        some = [one for one in found if one.what == what]
        if some:
            console.print(Text(f"{what}: {use}", style="bold"), soft_wrap=True)
            console.print(Padding(_table(some), (0, 0, 1, 0)))
    console.print("gristmill recipes NAME prints one, with its comments.", markup=False)
    return 0


def _table(some: list[Listed]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for one in some:
        told = Text(one.makes[:1].upper() + one.makes[1:])
        facts = [one.method, *([one.paper] if one.paper != "none" else []), one.cost]
        told.append("\n" + " · ".join(fact for fact in facts if fact), style="dim")
        table.add_row(f"  {one.name}", told)
    return table


def listed(root: Path = SHIPPED) -> list[Listed]:
    """All files, folder by folder, by name. Raises UserError when there is no folder, or a file is no TOML."""
    if not (root / FOLDERS[0][0]).is_dir():
        raise UserError(
            f"{root / FOLDERS[0][0]}: not there; recipes lie in a checkout of the project, not in an installed "
            "package: clone it and run pip install -e ."
        )
    return [_listed(path, root, what) for folder, what, _ in FOLDERS for path in sorted((root / folder).glob("*.toml"))]


def _listed(path: Path, root: Path, what: str) -> Listed:
    place = path.relative_to(root).as_posix()
    try:
        text = path.read_text()
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{place}: not valid TOML: {error}") from None
    told = head_lines(text)
    kinds = [table.get(section, {}).get("kind") for section in ("method", "model", "family", "generator")]
    kind = next((kind for kind in kinds if kind), "")
    makes = told.get("Makes") or str(table.get("description") or "")
    return Listed(path.stem, place, what, makes, str(kind), told.get("Paper", ""), told.get("Cost", ""))


def head_lines(text: str) -> dict[str, str]:
    """What the comments before the first key say under Makes, Paper and Cost."""
    told: dict[str, str] = {}
    key = ""
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if begin := re.fullmatch(rf"# ({'|'.join(KEYS)}): *(.*)", line):
            key = begin[1]
            told[key] = begin[2].strip()
        elif key and re.match(r"#\s{2,}\S", line):
            told[key] += " " + line[1:].strip()
        else:
            key = ""
    return told


def named(found: list[Listed], name: str) -> Listed:
    """The file of that name, or of that path with or without its ending."""
    wanted = name.removesuffix(".toml").removeprefix("recipes/")
    fitting = [one for one in found if wanted in (one.name, one.path.removesuffix(".toml").removeprefix("recipes/"))]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise UserError(f"there is no recipe '{name}'{nearest(wanted, [one.name for one in found])}")
    # A recipe of rows may bear the name of a model or a study: its own path is the name alone.
    for one in fitting:
        if one.path == f"recipes/{wanted}.toml":
            return one
    raise UserError(f"'{name}' is {' and '.join(one.path for one in fitting)}: name one by its path")
