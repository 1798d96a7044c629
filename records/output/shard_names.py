"""Names of shards. Any other object in `kept/` or `rejected/` is a stranger: no run wrote it."""

import re

KEPT, REJECTED = "kept", "rejected"
REJECTED_NAME = re.compile(rf"{REJECTED}/part-(\d{{8,}})(?:-[0-9a-f]{{16}})?\.parquet", re.ASCII)
NUM_DIGITS = 8  # at least, of the lot in a name
KEPT_START, END = f"{KEPT}/part-", ".parquet"


def shard_name(folder: str, lot: int) -> str:
    """The name of a kept shard, and of a rejected shard of 0.2."""
    return f"{folder}/part-{lot:08d}.parquet"


def rejected_name(lot: int, sha256: str) -> str:
    """The name of a rejected shard with this hex digest."""
    return f"{REJECTED}/part-{lot:08d}-{sha256[:16]}.parquet"


def kept_lot(name: str) -> int | None:
    """The lot of a kept shard, None for any other object."""
    if not (name.startswith(KEPT_START) and name.endswith(END)):
        return None
    digits = name[len(KEPT_START) : -len(END)]
    if not (digits.isdecimal() and digits.isascii()):
        return None
    return int(digits) if len(digits) == NUM_DIGITS or shard_name(KEPT, int(digits)) == name else None


def rejected_lot(name: str) -> int | None:
    """The lot of a rejected shard, None for any other object."""
    match = REJECTED_NAME.fullmatch(name)
    digits = match[1] if match else ""  # at least NUM_DIGITS
    if match is None or (len(digits) > NUM_DIGITS and digits[0] == "0"):
        return None
    return int(digits)
