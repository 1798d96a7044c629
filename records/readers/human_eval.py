"""HumanEval as rows: its 164 reference solutions with their tests, and variants with injected faults.

Chen et al. 2021 (arXiv 2107.03374). The label is known without a test run: a reference solution is right, and a program
with changed return values is wrong, whether its tests notice or not. So these rows are labelled data for the audit of
gates that run code.
"""

import json
import re
from typing import Any

import pyarrow as pa

RIGHT, WRONG = "right", "wrong"
# A different value of the same type for each return value, where the type has one.
ALTERED = """

def _altered(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, (list, tuple)):
        return value + type(value)([0])
    return 0

"""
# A fault replaces the function of the task. `_right` is the reference solution, renamed with its recursive calls.
FAULTS = {
    "none": "\ndef {entry}(*given):\n    return None\n",  # no return value
    "altered": ALTERED + "\ndef {entry}(*given):\n    return _altered(_right(*given))\n",  # never the right value
    # Wrong for a quarter of the arguments: as there are few tests, some of these programs pass.
    "sometimes": "\nimport zlib\n"
    + ALTERED
    + "\ndef {entry}(*given):\n    is_wrong = zlib.crc32(repr(given).encode()) % 4 == 0\n"
    + "    return _altered(_right(*given)) if is_wrong else _right(*given)\n",
}


def human_eval(data: bytes) -> pa.Table:
    """The 164 tasks from the bytes of HumanEval.jsonl: its columns, `text` (the whole program) and `tests`."""
    rows = []
    for line in data.splitlines():
        task: dict[str, Any] = json.loads(line)
        text = task["prompt"] + task["canonical_solution"]
        rows.append({**task, "text": text, "tests": f"{task['test']}\ncheck({task['entry_point']})\n"})
    return pa.Table.from_pylist(rows)


def human_eval_faults(data: bytes) -> pa.Table:
    """For each task the reference solution and a program for each of FAULTS: 656 rows with `label` and `fault`."""
    rows = []
    for task in human_eval(data).to_pylist():
        entry, shared = task["entry_point"], {name: task[name] for name in ("task_id", "entry_point", "tests")}
        rows.append({**shared, "text": task["text"], "label": RIGHT, "fault": None})
        renamed = re.sub(rf"\b{re.escape(entry)}\b", "_right", task["text"])
        for fault, replacement in FAULTS.items():
            rows.append({**shared, "text": renamed + replacement.format(entry=entry), "label": WRONG, "fault": fault})
    return pa.Table.from_pylist(rows)
