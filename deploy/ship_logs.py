#!/usr/bin/env python3
"""Copies the logs of this node's Ray to the store while they grow, so that they survive the pod and the cluster.

    python deploy/ship_logs.py --to s3://bucket/logs [--source /tmp/ray] [--node NAME] [--every-s 60]

It runs beside Ray (deploy/kuberay/components/logs). Every `--every-s` seconds each log gets one object with its new
lines, TO/NODE/SESSION/FILE/BEGIN-END.log. BEGIN and END count bytes of the file: sorted by name, the objects of a file
are the file. SIGTERM copies once more and ends. Secrets are masked as in events. A store that fails is tried again the
next time: logs never harm a run.
"""

import argparse
import logging
import os
import signal
import socket
import threading
from collections.abc import Sequence
from pathlib import Path

from gristmill.records.errors import UserError
from gristmill.records.masking.masks import masked_text
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_store

PATTERNS = ("worker-*.err", "worker-*.out", "job-driver-*.log", "raylet.*", "gcs_server.*", "monitor.*", "autoscaler.*")
MAX_CHUNK_BYTES = 16 * 2**20
MAX_FILE_BYTES = 256 * 2**20  # of one log; the rest stays on the node

logger = logging.getLogger("ship_logs")


class Shipper:
    """The copies of one node's logs. It goes on where an earlier process of the node has stopped."""

    def __init__(self, source: Path, store: Store, node: str) -> None:
        self.source, self.store, self.node = source, store, node
        self.sent: dict[str, int] | None = None  # bytes by "SESSION/FILE"; None: not read from the store yet

    def sweep(self, is_last: bool = False) -> int:
        """Copy the new lines of all logs; returns the number of objects. `is_last`: also a line that is not complete.

        Raises UserError and OSError of the store.
        """
        if self.sent is None:
            self.sent = self._sent_before()
        number = 0
        for path in sorted(p for pattern in PATTERNS for p in self.source.glob(f"session_2*/logs/{pattern}")):
            if path.is_file():
                number += self._copy(path, f"{path.parts[-3]}/{path.name}", self.sent, is_last)
        return number

    def _copy(self, path: Path, name: str, sent: dict[str, int], is_last: bool) -> int:
        begin = sent.get(name, 0)
        size = path.stat().st_size
        if size < begin:  # cut or replaced by a rotation
            begin = 0
        if size <= begin or begin >= MAX_FILE_BYTES:
            return 0
        with open(path, "rb") as file:
            file.seek(begin)
            data = file.read(MAX_CHUNK_BYTES)
        if not is_last and b"\n" in data:
            data = data[: data.rindex(b"\n") + 1]
        elif not is_last and len(data) < MAX_CHUNK_BYTES:
            return 0
        end = begin + len(data)
        text = masked_text(data.decode("utf-8", "backslashreplace"))
        self.store.put(f"{self.node}/{name}/{begin:012d}-{end:012d}.log", text.encode())
        sent[name] = end
        return 1 + (self._copy(path, name, sent, is_last) if end < size else 0)

    def _sent_before(self) -> dict[str, int]:
        sent: dict[str, int] = {}
        for entry in self.store.list(f"{self.node}/"):
            _, session, file, span = entry.name.split("/")
            end = int(span.removesuffix(".log").partition("-")[2])
            sent[f"{session}/{file}"] = max(end, sent.get(f"{session}/{file}", 0))
        return sent


def main(argv: Sequence[str] | None = None) -> int:
    """Copy until SIGTERM; returns the exit code."""
    parser = argparse.ArgumentParser(prog="ship_logs.py", description=__doc__.split("\n")[0])
    parser.add_argument("--to", default=os.environ.get("GRISTMILL_LOGS_TO"), help="default: GRISTMILL_LOGS_TO")
    parser.add_argument("--source", type=Path, default=Path("/tmp/ray"))
    parser.add_argument("--node", default=socket.gethostname(), help="default: the name of the host, here of the pod")
    parser.add_argument("--every-s", type=float, default=60.0)
    args = parser.parse_args(argv)
    if not args.to:
        parser.error("name the place of the logs: --to URI, or GRISTMILL_LOGS_TO")
    logging.basicConfig(level=logging.INFO, format="ship_logs: %(message)s")
    is_ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: is_ending.set())
    shipper = Shipper(args.source, open_store(args.to), args.node)
    logger.info(f"copying logs of {args.source} to {args.to}/{args.node}")
    while True:
        is_last = is_ending.wait(args.every_s)
        try:
            shipper.sweep(is_last)
        except (UserError, OSError) as error:
            logger.warning(f"not copied this time: {error}")
        if is_last:
            return 0


if __name__ == "__main__":
    raise SystemExit(main())
