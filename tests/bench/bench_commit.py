"""Commits into a store far away, and a model from there: 40 ms a round trip, 20 MB/s on each connection.

The peer of the commits puts each shard whole in its turn, as one ordered thread; the peer of the download reads each
object from its start to its end. Both are held by one connection.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from tests.bench.slow_link import slow_link
from tests.s3server import S3Server

ROUND_TRIP_S, RATE = 0.04, 20e6
SHARDS = {16 << 20: 24, 4 << 20: 64, 1 << 20: 120, 256 << 10: 120, 64 << 10: 120}  # bytes of a shard: how many
MODEL_BYTES, NUM_FILES = 64 << 20, 3


def bench() -> Iterator[dict[str, Any]]:
    from gristmill.records.stores.s3 import S3Store

    with tempfile.TemporaryDirectory() as folder:
        server = S3Server(Path(folder))
        server.start()
        try:
            with slow_link(server.port, ROUND_TRIP_S, RATE) as port:
                env = {**server.env, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
                with mock.patch.dict(os.environ, env):
                    for size, num in SHARDS.items():
                        yield _commits(S3Store, size, num)
                    yield _download(S3Store("s3://mill/model"), Path(folder))
        finally:
            server.kill()


def _commits(kind: Any, size: int, num: int) -> dict[str, Any]:
    from gristmill.records.stores.contract import Store

    whole = type("WholeStore", (kind,), {"begin_put": Store.begin_put})
    peer_s, ours_s = (_seconds(k(f"s3://mill/{k.__name__}-{size}"), size, num) for k in (whole, kind))
    total = size * num / 1e6
    return {
        "what": f"commits of {num} kept shards of {size >> 10:,} KiB, {ROUND_TRIP_S * 1e3:.0f} ms a round trip, "
        f"{RATE / 1e6:.0f} MB/s a connection",
        "value": f"{total / ours_s:.0f} MB/s, {num / ours_s:.1f} lots/s",
        "peer": f"whole puts in turn: {total / peer_s:.1f} MB/s, {num / peer_s:.1f} lots/s",
        "ratio": peer_s / ours_s,
        "target": "not held by one connection" if size > 1 << 20 else "",
    }


def _seconds(store: Any, size: int, num: int) -> float:
    from gristmill.cluster.lots.commit import Committer
    from gristmill.cluster.lots.flow import MAX_COMMIT_BYTES, MAX_IN_COMMIT
    from gristmill.records.output.shards import Encoded, Summary

    store.check(write=True)
    data, committer = os.urandom(size), Committer(store)
    bound = int(max(2, min(MAX_IN_COMMIT, MAX_COMMIT_BYTES / size)))  # as the lot loop submits them
    began, num_submitted, num_done = time.perf_counter(), 0, 0
    while num_done < num:
        while num_submitted < num and num_submitted - num_done < bound:
            committer.submit(Encoded(num_submitted, data, None, Summary(num_lots=1)))
            num_submitted += 1
        num_done += len(committer.done())
        time.sleep(0.002)
    seconds = time.perf_counter() - began
    committer.stop()
    return seconds


def _download(store: Any, folder: Path) -> dict[str, Any]:
    import shutil

    from gristmill.records.stores.download import download

    for number in range(NUM_FILES):
        store.put(f"model-{number}.safetensors", os.urandom(MODEL_BYTES))
    entries = list(store.list())
    began = time.perf_counter()
    download(store, entries, folder / "ours")
    ours_s, began = time.perf_counter() - began, time.perf_counter()
    for entry in entries:
        with store.open(entry.name, entry.version) as source, (folder / "peer").open("wb") as target:
            shutil.copyfileobj(source, target, 16 << 20)
    peer_s, total = time.perf_counter() - began, MODEL_BYTES * NUM_FILES / 1e6
    return {
        "what": f"a model of {NUM_FILES} x {MODEL_BYTES >> 20} MiB from there to the node",
        "value": f"{total / ours_s:.0f} MB/s",
        "peer": f"object by object: {total / peer_s:.0f} MB/s",
        "ratio": peer_s / ours_s,
        "target": "not held by one connection",
    }
