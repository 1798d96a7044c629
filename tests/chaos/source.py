"""The source of all runs: a file that is replaced by another content under a run, and restored."""

import json
import os
from pathlib import Path

NUM_ROWS = 200
NAME = "topics.jsonl"


class SourceFile:
    """`path` holds the rows that every run is made of, except between `replace` and `restore`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.restore()

    def _put(self, word: str) -> None:
        """Another file takes the name, as a program does that writes a new version."""
        new = self.path.with_name(f"new-{NAME}")
        new.write_text("".join(json.dumps({"text": f"{word} {number:04}"}) + "\n" for number in range(NUM_ROWS)))
        os.replace(new, self.path)

    def replace(self) -> None:
        """Other rows, of the same number and size."""
        self._put("wheat")

    def restore(self) -> None:
        """The same bytes as ever; the file's times and inode are new."""
        self._put("river")
