"""Watches a run's kept shards from beside it: when each was committed, and that none ever changes or goes away."""

import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.s3server import S3Server

EVERY_S = 0.1
TIMEOUT_S = 5.0
Listing = dict[str, str]  # name -> what identifies the object, not only its bytes


class Watch:
    """Lists kept/ ten times a second by `look`, which returns None for a server that does not answer."""

    def __init__(self, look: Callable[[], Listing | None]) -> None:
        self._look = look
        self.seen: Listing = {}
        self.commits: list[float] = []  # when (monotonic, s) each commit was first seen, in lot order
        self.wrong: list[str] = []
        self.num_listings = 0
        self._suspected: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def num_committed(self) -> int:
        return len(self.commits)

    def settle(self) -> None:
        """Return when two more listings have been taken; for a server that answers."""
        goal = self.num_listings + 2
        while self.num_listings < goal:
            time.sleep(EVERY_S)

    def _watch(self) -> None:
        while not self._stop.wait(EVERY_S):
            listing = self._look()
            if listing is not None:
                self.take(listing)
                self.num_listings += 1

    def take(self, listing: Listing) -> None:
        """Compare a listing with all before. What looks wrong twice running is wrong: a listing is no snapshot."""
        suspects = {f"{name} is gone" for name in self.seen.keys() - listing.keys()}
        suspects |= {f"{n} was put again" for n in self.seen.keys() & listing.keys() if self.seen[n] != listing[n]}
        if sorted(listing) != [f"part-{lot:08d}.parquet" for lot in range(len(listing))]:
            suspects.add(f"lots are no prefix: {sorted(listing)[-3:]} with {len(listing)} shards")
        self.wrong += sorted((suspects & self._suspected) - set(self.wrong))
        self._suspected = suspects
        for name in sorted(listing.keys() - self.seen.keys()):
            self.seen[name] = listing[name]
            self.commits.append(time.monotonic())


def bucket_look(server: S3Server, prefix: str, bucket: str = "mill") -> Callable[[], Listing | None]:
    """Lists at the server's own file index: it names the chunks that an object is made of, so that a second put of the
    same bytes is seen as well."""
    port = next(word.partition("=")[2] for word in server.command if word.startswith("-filer.port="))
    url = f"http://127.0.0.1:{port}/buckets/{bucket}/{prefix}/kept/?limit=1000000"

    def look() -> Listing | None:
        request = urllib.request.Request(url, headers={"Accept": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                entries = json.load(answer)["Entries"] or []
        except urllib.error.HTTPError as error:
            return {} if error.code == 404 else None  # no lot yet
        except (OSError, ValueError):
            return None
        return {entry["FullPath"].rpartition("/")[2]: _identity(entry) for entry in entries}

    return look


def _identity(entry: dict[str, Any]) -> str:
    chunks = [chunk["file_id"] for chunk in entry.get("chunks") or []]
    return json.dumps([entry["Md5"], entry["FileSize"], entry["Crtime"], chunks])


def folder_look(out: Path) -> Callable[[], Listing | None]:
    """Lists a folder: a second put of the same bytes is another inode, or has another time."""

    def look() -> Listing | None:
        listing: Listing = {}
        with suppress(FileNotFoundError), os.scandir(out / "kept") as entries:  # no lot yet
            for entry in entries:
                if not entry.name.startswith("."):  # an unfinished put
                    stat = entry.stat()
                    listing[entry.name] = f"{stat.st_ino} {stat.st_mtime_ns} {stat.st_size}"
        return listing

    return look
