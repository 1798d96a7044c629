"""`gristmill recipes`: lists the files in recipes/, studies/, mixtures/ and flows/ by their header comments.

    # Makes: what comes out, in one sentence.
    # Paper: the paper that it follows, or none.
    # Cost: calls and tokens per kept row, or the cost of a whole fit or study.

Each file starts with these lines. A line continues in the next lines that are indented by two blanks or more.
"""

import re
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gristmill.jobs.terminal.console import open_console, print_json, print_text
from gristmill.records.errors import UserError
from gristmill.records.literals import toml_tables
from gristmill.records.shipped import PREFIX, SHIPPED
from gristmill.records.spec import nearest

KEYS = ("Makes", "Paper", "Cost")
# (folder, what its files make, how to use them)
FOLDERS = (
    ("recipes", "rows", "gristmill produce package:NAME --out URI"),
    ("recipes/fit", "models", "gristmill fit package:fit/NAME --out URI"),
    ("studies", "studies", "gristmill study package:studies/NAME --out URI"),
    ("mixtures", "mixtures", "gristmill pack mixtures/NAME.toml --to URI"),
    ("flows", "flows", "gristmill flow package:flows/NAME --out URI"),
)


@dataclass(frozen=True)
class Entry:
    """One file: a recipe, a study, a mixture or a flow."""

    name: str
    path: str  # relative to the project
    what: str  # rows, models, studies, mixtures or flows
    makes: str
    method: str  # of text its method, else the kind of generator, model or family
    paper: str
    cost: str


def recipes(name: str | None, as_json: bool, root: Path = SHIPPED) -> int:
    """List the files, or print one with its comments; returns the exit code.

    Raises UserError when the folders do not exist, and for a name that no file has or that several have.
    """
    entries = catalogue(root)
    if name is not None:
        entry = find(entries, name)
        content = (root / entry.path).read_text()
        table = {**asdict(entry), "content": content}
        print_json(table) if as_json else print_text(content.rstrip("\n"))
        return 0
    if as_json:
        print_json([asdict(entry) for entry in entries])
        return 0
    console = open_console()
    for _, what, use in FOLDERS:
        if of_kind := [entry for entry in entries if entry.what == what]:
            console.print(Text(f"{what}: {use}", style="bold"), soft_wrap=True)
            console.print(Padding(_table(of_kind), (0, 0, 1, 0)))
    console.print("gristmill recipes NAME prints a file with its comments.")
    return 0


def _table(entries: list[Entry]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for entry in entries:
        text = Text(entry.makes[:1].upper() + entry.makes[1:])
        facts = [entry.method, *([entry.paper] if entry.paper != "none" else []), entry.cost]
        text.append("\n" + " · ".join(fact for fact in facts if fact), style="dim")
        table.add_row(f"  {entry.name}", text)
    return table


def catalogue(root: Path = SHIPPED) -> list[Entry]:
    """All files by folder and name. Raises UserError when a folder does not exist or a file is not TOML."""
    if not (root / FOLDERS[0][0]).is_dir():
        raise UserError(f"{root / FOLDERS[0][0]}: no such folder; the recipes of this installation are missing")
    return [_entry(path, root, what) for folder, what, _ in FOLDERS for path in sorted((root / folder).glob("*.toml"))]


def _entry(path: Path, root: Path, what: str) -> Entry:
    place = path.relative_to(root).as_posix()
    try:
        text = path.read_text()
        table = toml_tables(text)
    except ValueError as error:
        raise UserError(f"{place}: not valid TOML: {error}") from None
    header = header_lines(text)
    parts = [table.get(section) for section in ("method", "model", "family", "generator")]
    kinds = [part.get("kind") for part in [*parts, *table.get("generators", [])] if part]
    kind = next((kind for kind in kinds if kind), "")
    makes = header.get("Makes") or str(table.get("description") or "")
    return Entry(path.stem, place, what, makes, str(kind), header.get("Paper", ""), header.get("Cost", ""))


def header_lines(text: str) -> dict[str, str]:
    """The texts under Makes, Paper and Cost in the comments before the first key."""
    header: dict[str, str] = {}
    key = ""
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if begin := re.fullmatch(rf"# ({'|'.join(KEYS)}): *(.*)", line):
            key = begin[1]
            header[key] = begin[2].strip()
        elif key and re.match(r"#\s{2,}\S", line):
            header[key] += " " + line[1:].strip()
        else:
            key = ""
    return header


def find(entries: list[Entry], name: str) -> Entry:
    """The file with a name or a path, with or without `.toml`. Raises UserError for none and for several."""
    wanted = name.removeprefix(PREFIX).removesuffix(".toml").removeprefix("recipes/")
    fitting = [e for e in entries if wanted in (e.name, e.path.removesuffix(".toml").removeprefix("recipes/"))]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise UserError(f"there is no recipe '{name}'{nearest(wanted, [entry.name for entry in entries])}")
    # A recipe of rows may have the name of a model or a study: its own path is the name alone.
    for entry in fitting:
        if entry.path == f"recipes/{wanted}.toml":
            return entry
    raise UserError(f"'{name}' is {' and '.join(entry.path for entry in fitting)}: give the path")
