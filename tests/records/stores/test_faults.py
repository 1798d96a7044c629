"""S3 through a proxy that misbehaves: an object is whole or absent, an answer right or a clean error."""

import io
import pickle
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.records.errors import Conflict, UserError
from gristmill.records.stores import s3
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_store
from gristmill.records.stores.retry import VARIABLE, patience
from gristmill.records.stores.s3 import S3Store
from tests.faults import KINDS, FaultProxy
from tests.s3server import KEYS, free_port

QUICK = tuple(kind for kind in KINDS if not kind.startswith("freeze"))
COUNTED = {
    "slow_down": "503",
    "error_after": "500",
    "reset_before": "connection",
    "reset_after": "connection",
}


# moto checks no signatures, and a request that never reaches a server needs no second one.
SEAWEEDFS = pytest.mark.parametrize("s3_server", ["seaweedfs"], indirect=True)


@pytest.fixture
def store(remote: S3Store) -> S3Store:
    return remote


def read_open(store: Store, name: str) -> bytes:
    with store.open(name) as file:
        return file.read()


VERBS: dict[str, Callable[[Store], object]] = {
    "put": lambda store: store.put("a", b"new"),
    "put_if_absent": lambda store: store.put("b", b"bee", if_absent=True),
    "read": lambda store: store.read("a"),
    "open": lambda store: read_open(store, "a"),
    "list": lambda store: [e.name for e in store.list()],
    "exists": lambda store: store.exists("b"),
    "check": lambda store: store.check(write=False),
    "delete": lambda store: store.delete("b"),
}
ANSWERS = {"read": b"new", "open": b"new", "list": ["a", "b"], "exists": True}


@pytest.mark.parametrize("kind", QUICK)
def test_each_verb_survives_each_fault(kind: str, proxy: FaultProxy, store: S3Store) -> None:
    for verb, call in VERBS.items():
        proxy.script = [kind]
        assert call(store) == ANSWERS.get(verb), verb
        assert not proxy.script, f"{verb} asked nothing"
    assert not store.exists("b") and store.read("a") == b"new"
    if kind in COUNTED:
        assert set(store.errors) == {COUNTED[kind]} and store.errors[COUNTED[kind]] == len(VERBS)
    elif kind in ("truncate", "behead"):
        # Half an answer without a body is still an answer (though its connection is gone); half a listing is a 500.
        assert set(store.errors) <= {"connection", "500"} and 3 <= store.errors.total() <= len(VERBS)
    else:
        assert not store.errors


@SEAWEEDFS
@pytest.mark.parametrize("kind", ["freeze", "freeze_after"])
def test_a_frozen_store_is_noticed(kind: str, proxy: FaultProxy, store: S3Store) -> None:
    store.put("a", b"new")
    impatient = S3Store(store.uri, patience_s=6.0)  # and so 2 s until a try counts as unanswered
    for verb in ("put_if_absent", "open", "list"):
        proxy.script = [kind]
        assert VERBS[verb](impatient) == ANSWERS.get(verb), verb
        assert not proxy.script
    assert impatient.errors["timeout"] >= 3


@pytest.mark.parametrize("kind", ["reset_after", "error_after"])
def test_a_conditional_put_that_meets_itself_has_won(kind: str, proxy: FaultProxy, store: S3Store) -> None:
    proxy.script = [kind]
    store.put("one", b"mine", if_absent=True)
    assert store.read("one") == b"mine"
    with pytest.raises(Conflict):
        store.put("one", b"mine", if_absent=True)  # no retry before it: this is another one's
    for fault in (kind, "reset_before", "slow_down", "deciding"):
        proxy.script = [fault]
        with pytest.raises(Conflict, match="another run has written it"):
            store.put("one", b"theirs", if_absent=True)
    assert store.read("one") == b"mine"


def test_two_conditional_puts_that_meet(proxy: FaultProxy, store: S3Store) -> None:
    proxy.script = ["deciding", "deciding"]
    store.put("one", b"mine", if_absent=True)
    assert store.read("one") == b"mine" and store.errors == {"409": 2}
    proxy.always = "deciding"
    with pytest.raises(Conflict, match="is being written by another run"):
        S3Store(store.uri, patience_s=0.5).put("two", b"mine", if_absent=True)


SEEDS = [*(("seaweedfs", seed) for seed in range(5)), ("moto", 0), ("moto", 1)]


@pytest.mark.parametrize(("s3_server", "seed"), SEEDS, indirect=["s3_server"])
def test_any_faults_leave_whole_objects_and_one_winner(
    seed: int, s3_server: dict[str, str], proxy, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    proxy._rng.seed(seed)
    proxy.share, proxy.kinds = 0.5, (*QUICK, "deciding")
    stores = [S3Store(f"s3://mill/plan-{seed}-{tmp_path.name}", patience_s=rng.choice([0.3, 6.0])) for _ in range(3)]
    names = [f"kept/{number}" for number in range(8)]
    content = {(name, who): rng.randbytes(rng.randrange(1, 3 << 20)) for name in names for who in range(len(stores))}
    won: list[tuple[str, int]] = []
    clean: list[UserError] = []

    def rival(who: int) -> None:
        for name in names:
            try:
                stores[who].put(name, content[name, who], if_absent=True)
                won.append((name, who))
            except UserError as error:
                clean.append(error)

    with ThreadPoolExecutor(len(stores)) as pool:
        list(pool.map(rival, range(len(stores))))
    assert len(won) + len(clean) == len(names) * len(stores)
    assert len({name for name, _ in won}) == len(won), "one name, two winners"
    proxy.share = 0.0
    there = {e.name: stores[0].read(e.name) for e in stores[0].list()}
    for name, data in there.items():
        assert data in [content[name, who] for who in range(len(stores))], f"{name} is not whole"
    for name, who in won:
        assert there[name] == content[name, who], f"{name} is not what its winner wrote"


def test_a_listing_of_three_pages_through_faults(
    proxy: FaultProxy, store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "PAGE_NAMES", 100)
    names = [f"kept/{number:05d}" for number in range(210)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: store.put(name, b""), names))
    proxy.script = ["ok", "reset_after", "truncate", "behead", "slow_down"]
    assert [e.name for e in store.list("kept/")] == names
    assert not proxy.script and store.errors.total() == 4


def test_ranges_are_read_like_a_file(proxy: FaultProxy, store: S3Store) -> None:
    rng = random.Random(7)
    data = rng.randbytes(3 << 20)
    store.put("big", data)
    proxy.share, proxy.kinds = 0.2, QUICK
    with store.open("big") as file:
        plain = io.BytesIO(data)
        assert file.size() == len(data)
        for _ in range(60):
            offset = rng.randrange(len(data) + 10)
            size = rng.choice([0, 1, 100, 70_000, 400_000])
            assert file.seek(offset) == plain.seek(offset)
            for _ in range(rng.randrange(1, 4)):  # in order, too
                assert file.read(size) == plain.read(size)
        file.seek(5)
        assert file.read() == data[5:]
    store.put("empty", b"")
    assert read_open(store, "empty") == b""


def test_parquet_footers_take_one_request_and_columns_few(proxy: FaultProxy, store: S3Store) -> None:
    rng = np.random.default_rng(0)
    table = pa.table({name: rng.bytes(200_000).hex()[::2].split("0") for name in "x"} | {})
    table = table.append_column("y", pa.array(rng.integers(0, 1 << 40, table.num_rows)))
    sink = io.BytesIO()
    pq.write_table(table, sink)
    store.put("shard", sink.getvalue())
    proxy.seen.clear()
    with store.open("shard") as file:
        assert pq.read_metadata(file).num_rows == table.num_rows
    assert proxy.seen.total() == 1
    proxy.share, proxy.kinds = 0.2, QUICK

    def column(_: int) -> pa.Table:
        with store.open("shard") as file:
            return pq.read_table(file, columns=["y"])

    with ThreadPoolExecutor(16) as pool:
        assert all(found == table.select(["y"]) for found in pool.map(column, range(48)))


def test_a_store_error_in_the_middle_of_a_parquet_read_keeps_its_words(proxy: FaultProxy, store: S3Store) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"x": np.random.default_rng(0).bytes(400_000).hex().split("0")}), sink)
    store.put("shard", sink.getvalue())
    store = S3Store(store.uri, patience_s=0.5)
    with store.open("shard") as file:
        proxy.always = "slow_down"
        with pytest.raises(UserError, match=r"shard: http://\S+ answers 503 \(SlowDown\), tried \d+ times"):
            pq.read_table(file)
    proxy.always = None
    with store.open("shard") as file:
        store.put("shard", b"other" * 100_000)
        with pytest.raises(UserError, match="was replaced during the read"):
            pq.read_table(file)


def test_patience_ends_with_one_line_and_is_shared(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(VARIABLE, "3")
    store = open_store("s3://mill/x")
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(store.read, f"kept/{n}") for n in range(8)]
        errors = [call.exception() for call in calls]
    assert 2.5 < time.monotonic() - began < 12
    for error in errors:
        assert isinstance(error, UserError) and "\n" not in str(error)
        assert "cannot reach http://127.0.0.1:" in str(error) and "AWS_ENDPOINT_URL" in str(error)
        assert "run the same command again" in str(error) and "s3://mill/x/kept/" in str(error)
    assert len(caplog.messages) == 1 and "retrying for up to 3 s" in caplog.messages[0]
    assert store.errors["connection"] > 8 * 3
    began = time.monotonic()
    with pytest.raises(UserError):
        store.put("manifest.json", b"{}")  # the store has been gone for long: what is asked last is not asked for long
    assert time.monotonic() - began < 2


def test_a_store_that_comes_back_is_met_with_new_patience(proxy: FaultProxy, store: S3Store) -> None:
    store = S3Store(store.uri, patience_s=1.0)
    proxy.always = "slow_down"
    with pytest.raises(UserError, match="503"):
        store.put("a", b"1")
    proxy.always = None
    store.put("a", b"2")
    proxy.script = ["slow_down", "slow_down"]
    assert store.read("a") == b"2"


def test_giving_up_and_a_smaller_patience(proxy: FaultProxy, store: S3Store) -> None:
    store = S3Store(store.uri, patience_s=60.0)
    proxy.always = "slow_down"
    began = time.monotonic()
    with patience(0.5), pytest.raises(UserError):
        store.read("a")
    waiting = threading.Timer(0.5, store.give_up)
    waiting.start()
    with pytest.raises(UserError, match="503"):
        store.read("a")
    assert time.monotonic() - began < 15
    before = proxy.seen.total()
    with pytest.raises(UserError, match="not requested"):
        store.put("manifest.json", b"{}")
    assert proxy.seen.total() == before


@SEAWEEDFS
def test_new_keys_are_picked_up(proxy: FaultProxy, store: S3Store, tmp_path: Path, monkeypatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))

    def write(secret: str) -> None:
        file.write_text(
            f"[default]\naws_access_key_id = {KEYS['AWS_ACCESS_KEY_ID']}\naws_secret_access_key = {secret}\n"
        )

    with pytest.raises(UserError, match="no usable keys"):
        store.put("a", b"1")
    write(KEYS["AWS_SECRET_ACCESS_KEY"])
    store.put("a", b"1")
    proxy.script = ["expired"]
    assert store.read("a") == b"1"  # a session made anew is all it takes when keys have been rotated
    write("old-secret")
    proxy.script = ["expired"]
    with pytest.raises(UserError, match=r"access refused: .*SignatureDoesNotMatch.*AWS_SECRET_ACCESS_KEY") as caught:
        store.read("a")
    assert "old-secret" not in str(caught.value)
    write(KEYS["AWS_SECRET_ACCESS_KEY"])
    assert store.read("a") == b"1"


@SEAWEEDFS
def test_no_message_holds_a_secret(
    proxy: FaultProxy, store: S3Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    secrets = ["AKIDSECRETID", "very/secret+key", "secret-session-token", "secret-password"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", secrets[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secrets[1])
    monkeypatch.setenv("AWS_SESSION_TOKEN", secrets[2])
    told: list[str] = []

    def failing(kind: str | None = None, endpoint: str | None = None) -> None:
        proxy.always = kind
        if endpoint:
            monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        broken = S3Store(store.uri, patience_s=1.5)
        for verb in ("put_if_absent", "open", "list", "exists"):
            with pytest.raises(UserError) as caught:
                VERBS[verb](broken)
            told.append(str(caught.value))
            assert "\n" not in told[-1] and "run the same command again" in told[-1]

    failing()  # keys that the real server does not know
    for kind in ("expired", "refused", "slow_down", "reset_before"):
        failing(kind)
    failing(endpoint=f"http://user:secret-password@127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", f"{secrets[0]}\nx")
    failing(endpoint=f"http://127.0.0.1:{proxy.port}")
    assert len(told) >= 7 * 4
    for secret in secrets:
        assert not [line for line in (*told, *caplog.messages) if secret in line]


def test_counts_stay_in_their_process_and_patience_travels(
    proxy: FaultProxy, store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.script = ["slow_down"]
    store.put("a", b"1")
    monkeypatch.setenv(VARIABLE, "77")
    copy = pickle.loads(pickle.dumps(store))
    assert store.errors == {"503": 1} and not copy.errors
    assert copy.patience_s == 30.0 and copy.read("a") == b"1"
    for wrong in ("soon", "0", "-1", "nan", "inf"):
        monkeypatch.setenv(VARIABLE, wrong)
        with pytest.raises(UserError, match=VARIABLE):
            open_store(store.uri)
