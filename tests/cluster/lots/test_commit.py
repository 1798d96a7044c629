"""Commits stay a prefix, whatever a put does."""

from pathlib import Path

import pytest

from gristmill.cluster.lots.commit import Committer
from gristmill.records.errors import UserError
from gristmill.records.output.shard_names import kept_lot
from gristmill.records.output.shards import Encoded, Summary
from gristmill.records.stores.local import LocalStore


class Moody(LocalStore):
    """A store that refuses one lot, as a full disk or a 503 would."""

    refused = 3

    def put(self, name: str, data: bytes, *, if_absent: bool = False) -> None:
        if kept_lot(name) == self.refused:
            raise UserError("no")
        super().put(name, data, if_absent=if_absent)


def test_no_lot_is_committed_after_one_that_failed(tmp_path: Path) -> None:
    store = Moody(str(tmp_path))
    committer = Committer(store)
    for lot in range(8):
        committer.submit(Encoded(lot, b"kept", b"rejected", Summary(num_lots=1)))
    seen: list[int] = []
    with pytest.raises(UserError, match="no"):
        while True:
            seen += [lot for lot, _ in committer.done()]
    seen += [lot for lot, _ in committer.stop()]
    assert seen == [0, 1, 2]
    assert [e.name for e in store.list("kept/")] == [f"kept/part-{n:08d}.parquet" for n in range(3)]


def test_what_was_put_while_stopping_is_counted(tmp_path: Path) -> None:
    committer = Committer(LocalStore(str(tmp_path)))
    for lot in range(4):
        committer.submit(Encoded(lot, b"kept", None, Summary(num_lots=1)))
    ended = [lot for lot, _ in committer.stop()]
    assert ended == list(range(len(ended)))
    assert len(list(LocalStore(str(tmp_path)).list("kept/"))) == len(ended)
