"""Programs and tests in text files: "=== a name", the program, "---", its tests."""

from pathlib import Path


def cases(name: str) -> dict[str, list[str]]:
    """The parts of each case of a file beside this one, by the case's name."""
    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    sections = ("\n" + text).split("\n=== ")[1:]
    table = {}
    for section in sections:
        title, _, body = section.partition("\n")
        assert title not in table, title
        table[title] = body.rstrip("\n").split("\n---\n")
    return table
