"""`make oracles`: our metrics beside SDMetrics and prdc, our training beside ctgan, our rules beside datatrove.

python -m tests.oracles metrics            seconds
python -m tests.oracles speed              some 3 minutes: seconds an epoch, in turns
python -m tests.oracles rules              a minute: verdicts of the quality rules beside datatrove's
python -m tests.oracles contamination      a minute: planted benchmark items beside the rules of lm-eval and decon
python -m tests.oracles quality            an hour: the peers trained by their own defaults, judged as ours are
"""

import importlib
import sys

from tests.bench.__main__ import COLUMNS, line

KINDS = ("metrics", "speed", "rules", "contamination", "quality")


def main(words: list[str]) -> int:
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS), flush=True)
    for kind in words or KINDS[:4]:
        for row in importlib.import_module(f"tests.oracles.{kind}").bench():
            print(line(row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
