"""Engines reach the output on any node, and the answers of a lot go with its commit."""

from pathlib import Path

import pytest

from gristmill.cluster.answer_store import DriverFolder, answer_store
from gristmill.cluster.lots.commit import Committer
from gristmill.records.errors import Conflict
from gristmill.records.output import answers
from gristmill.records.output.answers import AnswerFolder, Record
from gristmill.records.output.shards import Encoded, Summary
from gristmill.records.stores.local import LocalStore
from gristmill.records.stores.opening import open_store

WRITER = "0123456789abcdef"


def test_a_local_folder_is_used_through_the_drivers_node(tmp_path: Path, ray_session: None) -> None:
    near = answer_store(LocalStore(str(tmp_path)))
    assert isinstance(near, DriverFolder)
    far = answer_store(LocalStore(str(tmp_path)))
    assert isinstance(far, DriverFolder)
    far.node = "of the driver, elsewhere"
    near.put("answers/a", b"near", if_absent=True)
    far.put("answers/b", b"far", if_absent=True)
    for store in (near, far):
        assert [entry.name for entry in store.list("answers/")] == ["answers/a", "answers/b"]
        assert store.read_if_there("answers/b") == b"far" and store.read_if_there("answers/c") is None
        with pytest.raises(Conflict):
            store.put("answers/a", b"again", if_absent=True)
    assert answer_store(bucket := open_store("s3://mill/out")) is bucket


@pytest.mark.parametrize("keeps_answers", [True, False])
def test_a_commit_deletes_the_answers_of_its_lot_alone(keeps_answers: bool, tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    for lot in range(6):
        for number in range(3):
            name = answers.name_of(lot, WRITER, number)
            answers.keep(AnswerFolder(store, "run"), name, [Record("generator", "row", "key", {})])
    committer = Committer(store, keeps_answers=keeps_answers)
    for lot in range(4):
        committer.submit(Encoded(lot, b"kept", None, Summary(num_lots=1)))
    seen: list[int] = []
    while len(seen) < 4:
        seen += [lot for lot, _ in committer.done()]
    committer.stop()
    left = {answers.lot_of(entry.name) for entry in store.list("answers/")}
    assert left == ({4, 5} if keeps_answers else set(range(6)))
