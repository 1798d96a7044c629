"""docs/reference/ is what the specs say, and every key of a spec has a sentence."""

from scripts.reference_tables import FOLDER, pages


def test_the_pages_are_those_that_the_code_gives() -> None:
    written = {path.name: path.read_text() for path in FOLDER.glob("*.md")}
    assert written == pages(), "run: make reference"


def test_every_key_has_a_meaning() -> None:
    rows = [(name, line) for name, text in pages().items() for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) > 200
    assert not [f"{name}: {line}" for name, line in rows if line.endswith("|  |")]
