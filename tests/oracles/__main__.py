"""`make oracles`: our metrics beside SDMetrics and prdc, our training beside the ctgan package. A Markdown table.

python -m tests.oracles metrics            seconds
python -m tests.oracles speed              some 3 minutes: seconds an epoch, in turns
python -m tests.oracles quality            an hour: the peers trained by their own defaults, judged as ours are
"""

import importlib
import sys

from tests.bench.__main__ import COLUMNS, line

KINDS = ("metrics", "speed", "quality")


def main(words: list[str]) -> int:
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS), flush=True)
    for kind in words or KINDS[:2]:
        for row in importlib.import_module(f"tests.oracles.{kind}").bench():
            print(line(row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
