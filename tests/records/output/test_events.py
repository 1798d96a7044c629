"""Events reach the store in order, survive its troubles, and stay readable whatever lies beside them."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest

from gristmill.records.errors import UserError
from gristmill.records.output import events as module
from gristmill.records.output.events import Events, newest_events, part_name, parts, read_events
from gristmill.records.stores.contract import Store
from gristmill.records.stores.local import LocalStore
from gristmill.records.stores.opening import open_store

RUN = "0123456789abcdef0123456789abcdef"


def check_order_and_content(store: Store) -> None:
    first, second = Events(store, RUN, 1), Events(store, RUN, 2)
    second.note("start", num_lots=4, replicas=1, nodes=1)
    second.flush()
    for lot in range(3):
        first.note("commit", lot=lot, rejected={"rules:short": 2}, made_s=0.5)
        first.flush()
    first.note("retry", lot=3, stage="making", why="gone")
    first.flush()
    first.flush()  # nothing new
    found = list(read_events(store))
    assert [(e["start"], e["event"], e.get("lot")) for e in found] == [
        *((1, "commit", lot) for lot in range(3)),
        *((1, "retry", 3), (2, "start", None)),
    ]
    assert found[0]["run"] == RUN[:12] and found[0]["rejected"] == {"rules:short": 2}
    assert found[3]["stage"] == "making" and "stage" not in found[0]
    assert [e["t"] for e in found[:4]] == sorted(e["t"] for e in found[:4])
    assert parts(store) == [part_name(1, 0), part_name(2, 0)]  # a part grows from flush to flush
    assert [e["event"] for e in newest_events(store, 1)] == ["start"]


def test_order_and_content(tmp_path: Path) -> None:
    check_order_and_content(open_store(str(tmp_path)))


def test_order_and_content_on_s3(s3: str) -> None:
    check_order_and_content(open_store(f"{s3}/events-order"))


def test_a_part_is_closed_when_it_is_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART_BYTES", 1000)
    store = open_store(str(tmp_path))
    log = Events(store, RUN, 1)
    for number in range(60):
        log.note("beat", made_tokens=number)
        log.flush()
    assert len(parts(store)) > 3
    assert [e["made_tokens"] for e in read_events(store)] == list(range(60))
    assert all((tmp_path / name).stat().st_size < 1200 for name in parts(store))


def test_the_same_start_twice_overwrites_nothing(tmp_path: Path) -> None:
    """A driver that dies before its start stands in the manifest leaves its number to the next one."""
    store = open_store(str(tmp_path))
    for who in ("dead", "next"):
        log = Events(store, RUN, 1)
        log.note("start", who=who)
        log.flush()
        log.note("end", who=who)
        log.flush()
    assert [(e["event"], e["who"]) for e in read_events(store)] == [
        *(("start", "dead"), ("end", "dead"), ("start", "next"), ("end", "next"))
    ]


class Flaky(LocalStore):
    """A folder that refuses puts while `is_down`, or takes them and says that it did not while `is_lying`."""

    is_down = is_lying = False

    def put(self, name: str, data: bytes, *, if_absent: bool = False) -> None:
        if self.is_down:
            raise UserError("the store answered 503")
        super().put(name, data, if_absent=if_absent)
        if self.is_lying:
            raise OSError("timed out")


def test_lines_wait_for_a_store_in_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PENDING", 5)
    store = Flaky(str(tmp_path))
    log = Events(store, RUN, 1)
    store.is_down = True
    for number in range(4):
        log.note("beat", n=number)
    log.flush()
    for number in range(4, 9):
        log.note("beat", n=number)
        log.flush()
    assert list(read_events(store)) == []
    store.is_down = False
    log.note("beat", n=9)
    log.flush()
    *rest, told = read_events(store)
    assert told["event"] == "dropped" and told["num"] == 5
    assert [e["n"] for e in rest] == [5, 6, 7, 8, 9]


def test_a_put_that_succeeded_and_failed_is_not_told_twice(tmp_path: Path) -> None:
    store = Flaky(str(tmp_path))
    log = Events(store, RUN, 1)
    for number in range(6):
        store.is_lying = number % 2 == 0
        log.note("beat", n=number)
        log.flush()
    assert [e["n"] for e in read_events(store)] == list(range(6))


def test_torn_and_foreign_lines_are_left_out(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    log = Events(store, RUN, 3)
    log.note("start")
    log.note("end")
    log.flush()
    path = tmp_path / part_name(3, 0)
    whole = path.read_bytes()
    foreign = [
        b"",
        b"[1]",
        b"null",
        b'{"a": 1}',
        b'{"event": "x", "start": 1, "t": "yesterday"}',
        b"\xff\xfe",
        b"[" * 9999,
    ]
    path.write_bytes(b"\n".join(foreign) + b"\n" + whole + whole[:40])
    store.put("events/notes.txt", b"not a part")
    store.put("events/start-0001-000000.jsonl.bak", whole)
    assert [e["event"] for e in read_events(store)] == ["start", "end"]


def test_numbers_of_starts_beyond_their_width_stay_in_order(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for start in (9_999, 10_000, 2):
        log = Events(store, RUN, start)
        log.note("start")
        log.flush()
    assert [e["start"] for e in read_events(store)] == [2, 9_999, 10_000]


def test_values_are_made_plain_and_secrets_stay_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SECRET_KEY", 'hush"hush/very+long')
    store = open_store(str(tmp_path))
    log = Events(store, RUN, 1)
    log.note(
        "odd",
        why='403 for key hush"hush/very+long at host',
        nested={"a": ['hush"hush/very+long'], 3: np.float32(1.5)},
        lots=np.arange(3),
        nan=float("nan"),
        big=np.int64(2**40),
        long="x" * 5000,
        broken="\ud800",
        other=Path("/a"),
    )
    log.flush()
    (event,) = read_events(store)
    assert b"hush" not in (tmp_path / part_name(1, 0)).read_bytes()
    assert event["why"] == "403 for key *** at host" and event["nested"] == {"a": ["***"], "3": 1.5}
    assert event["lots"] == [0, 1, 2] and event["nan"] is None and event["big"] == 2**40
    assert len(event["long"]) == module.MAX_CHARS and event["broken"] == "?" and event["other"] == "/a"


def test_notes_from_many_threads(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    log = Events(store, RUN, 1)

    def work(thread: int) -> None:
        for number in range(200):
            log.note("beat", thread=thread, n=number)
            if number % 50 == 0:
                log.flush()

    threads = [threading.Thread(target=work, args=(t,)) for t in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.flush()
    found = list(read_events(store))
    assert len(found) == 8 * 200
    assert [e["t"] for e in found] == sorted(e["t"] for e in found)
    for thread in range(8):
        assert [e["n"] for e in found if e["thread"] == thread] == list(range(200))


def test_echo_goes_to_stderr_at_once(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    log = Events(open_store(str(tmp_path)), RUN, 1, echo=True)
    log.note("engine", replica=0, state="open")
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["state"], line["start"]) == ("engine", "open", 1)
    assert not (tmp_path / "events").exists()
