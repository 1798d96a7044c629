"""Texts that act on a terminal or a page, and a check that none of them does."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.records.printable import json_text
from gristmill.records.readers.parquet import SUMMARY_KEY
from gristmill.records.sealed import data_sha256
from tests.conftest import ROOT

TEXTS = {
    "title": "a\x1b]0;owned\x07b",
    "clear": "a\x1b[2J\x1b[Hb",
    "color": "a\x1b[38;5;201mb",
    "link": "a\x1b]8;;http://evil.example\x1b\\b\x1b]8;;\x1b\\",
    "c1": "a\x9b2J\x85\x90b",
    "c0": "a\x00\x08\x0b\x0c\x7fb",
    "return": "good\rgristmill: ok",
    "bidi": "a\u202eb\u2066c\u200f\u061c",
    "separators": "a\u2028b\u2029c\ufeff",
    "tags": "a" + "".join(chr(0xE0000 + ord(c)) for c in "hidden"),
    "markup": "[red]a[/] [link=http://evil.example]b[/link] :smile: [/nope]",
    "line": "a\ngristmill: all is well",
    "html": "<script>alert(1)</script>\"'&",
    "math": "$\\frac{a$ _{b}^",
}
SURROGATE = "a\udc80b"  # in names and settings; Arrow holds none
INTACT = "سلام\u200cدنیا שלום हिन्दी é 👩\u200d💻 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f 中文"
# What rich itself writes: styles, and the moves of a live display.
STYLES = re.compile(r"\x1b\[(?!38;5;201m)[0-9;]*m|\x1b\[\?25[lh]|\x1b\[2K|\x1b\[\d+A|\r(?=\x1b|\n)")
UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
    "\U000e0000-\U000e0066\U000e0068\U000e0069-\U000e006d\U000e006f-\U000e007e]"
)


def assert_clean(text: str, is_page: bool = False) -> None:
    """No control character but newlines, tabs and (on a screen) the styles of rich; no forged line."""
    unsafe = UNSAFE.search(text if is_page else STYLES.sub("", text))
    assert unsafe is None, (unsafe, text[max(0, unsafe.start() - 200) : unsafe.end() + 80])
    assert is_page or not re.search(r"^gristmill: all is well", text, re.M)


def hostile_run(folder: Path, text: str, name: str) -> Path:
    """A small output whose rows and reasons hold `text`, and whose recipe, host and log hold `name`."""
    run = Path(shutil.copytree(ROOT / "tests" / "records" / "outputs" / "format-3" / "run", folder / "run"))
    for path in sorted(run.glob("*/*.parquet")):
        table = pq.read_table(path)
        metadata = pq.read_metadata(path).metadata
        for column in ("text", "prompt", "source_id", "model"):
            at = table.schema.get_field_index(column)
            table = table.set_column(at, table.schema.field(at), pa.array([text] * table.num_rows, pa.string()))
        if path.parent.name == "rejected":
            at = table.schema.get_field_index("reject")
            values = [f"dedup:{text}"] * table.num_rows
            table = table.set_column(at, table.schema.field(at), pa.array(values, pa.string()))
        kept = {k: v for k, v in metadata.items() if k != b"ARROW:schema"}
        pq.write_table(table.replace_schema_metadata(kept), path)
        if SUMMARY_KEY in kept:  # the checksum of the data, which does not depend on the footer
            meta = {**json.loads(kept[SUMMARY_KEY]), "data_sha256": data_sha256(path.read_bytes())}
            pq.write_table(table.replace_schema_metadata({**kept, SUMMARY_KEY: json.dumps(meta).encode()}), path)
    return altered(run, text, name)


def altered(run: Path, text: str, name: str) -> Path:
    """`run` with `name` in its recipe, its starts, its lease and its log."""
    manifest: dict[str, Any] = json.loads((run / "manifest.json").read_text())
    manifest["recipe"] |= {"name": name, "description": name}
    manifest["recipe"]["generator"]["model"] = name
    manifest["recipe"]["stages"][0]["name"] = name
    manifest["totals"]["rejected"] = {"dedup:duplicate": 5, f"finish:{text}": 2}
    manifest["totals"]["rejected_tokens"] = {f"finish:{text}": 66}
    manifest["starts"][0] |= {"host": name, "retries": {text: 2}, "stage_s": {text: 1.0}}
    manifest["cost"] = {"device_s": 1, "cost": 2.0, "currency": name}
    (run / "manifest.json").write_text(json_text(manifest))
    (run / "lease.json").write_text(json.dumps({"token": text, "host": name, "pid": 1, "beat": 1}))
    line = {"t": "2026-11-29T15:10:07.000+00:00", "run": "3d31e4a68436", "start": 1, "event": "log"}
    with next(iter(sorted((run / "events").iterdir()))).open("a") as log:
        log.write(json.dumps({**line, "level": "info", "text": text}, ensure_ascii=False) + "\n")
        log.write(json.dumps({**line, "event": name.replace("\udc80", ""), "stage": text, "why": name}) + "\n")
    return run
