"""`make bench`: every benchmark beside its peer or limit, in one run on one machine; prints a Markdown table.

python -m tests.bench              all of them (about 40 minutes on 2 cores)
python -m tests.bench minhash      only those whose name contains a word
"""

import importlib
import pkgutil
import platform
import sys
import time
from pathlib import Path
from typing import Any

import psutil

COLUMNS = ("what", "value", "peer", "ratio", "target")


def names() -> list[str]:
    folder = Path(__file__).parent
    return sorted(m.name for m in pkgutil.iter_modules([str(folder)]) if m.name.startswith("bench_"))


def line(row: dict[str, Any]) -> str:
    ratio = row.get("ratio")
    cells = {**row, "ratio": f"{ratio:.3g}" if isinstance(ratio, float) else ratio or ""}
    return "| " + " | ".join(str(cells.get(c, "")) for c in COLUMNS) + " |"


def main(words: list[str]) -> int:
    memory_gb = psutil.virtual_memory().total / 2**30
    print(
        f"{psutil.cpu_count()} cores, {memory_gb:.0f} GiB, {platform.machine()}, Python {platform.python_version()}\n"
    )
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS), flush=True)
    for name in names():
        if words and not any(word in name for word in words):
            continue
        started = time.monotonic()
        for row in importlib.import_module(f"tests.bench.{name}").bench():
            print(line(row), flush=True)
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
