"""A small server that speaks what a run needs of S3, over a key space that need not exist: for benches of listings.

It pages by 1,000 keys with prefix, StartAfter and continuation tokens, answers ranges, and waits `delay_s` before each
answer, as a store in another building does. Names of the virtual folders are computed; every other object is real.
It checks no signatures.
"""

import asyncio
import hashlib
import heapq
import multiprocessing
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.s3server import KEYS, free_port

PAGE_NAMES = 1000
DATE = "2026-01-01T00:00:00.000Z"
STATUS = {200: "OK", 204: "No Content", 206: "Partial Content", 404: "Not Found", 412: "Precondition Failed"}


NO_UPLOADS = b"<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>"


@dataclass(frozen=True)
class VirtualFolder:
    """`num` objects whose names are `pattern % number`, in the order of numbers; each has `size` bytes."""

    pattern: str  # with one %08d
    num: int
    size: int = 4096

    def after(self, name: str) -> int:
        """The first number whose name is greater."""
        low, high = 0, self.num
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self.pattern % middle <= name else (low, middle)
        return low

    def names(self, prefix: str, after: str) -> Iterator[tuple[str, int]]:
        for number in range(self.after(max(prefix[:-1] + chr(ord(prefix[-1]) - 1) if prefix else "", after)), self.num):
            name = self.pattern % number
            if name.startswith(prefix):
                yield name, self.size
            elif name > prefix:
                return


@dataclass
class PagedStore:
    """The objects of one bucket."""

    folders: tuple[VirtualFolder, ...] = ()
    objects: dict[str, bytes] = field(default_factory=dict)
    root: Path | None = None  # of a folder whose files are objects too
    delay_s: float = 0.0

    def __post_init__(self) -> None:
        for path in sorted(self.root.rglob("*")) if self.root else []:
            if path.is_file():
                self.objects[path.relative_to(self.root).as_posix()] = path.read_bytes()

    def listing(self, query: Mapping[str, list[str]]) -> bytes:
        prefix, after = query.get("prefix", [""])[0], query.get("start-after", [""])[0]
        after = query.get("continuation-token", [after])[0]
        most = min(PAGE_NAMES, int(query.get("max-keys", [PAGE_NAMES])[0]))
        real = sorted((n, len(d)) for n, d in self.objects.items() if n.startswith(prefix) and n > after)
        page = list(islice(heapq.merge(real, *(f.names(prefix, after) for f in self.folders)), most + 1))
        is_cut, page = len(page) > most, page[:most]
        items = "".join(
            f"<Contents><Key>{escape(n)}</Key><LastModified>{DATE}</LastModified><ETag>&#34;{hash(n):016x}&#34;</ETag>"
            f"<Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            for n, size in page
        )
        token = f"<NextContinuationToken>{escape(page[-1][0])}</NextContinuationToken>" if is_cut else ""
        return (
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>mill</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount>"
            f"<IsTruncated>{str(is_cut).lower()}</IsTruncated>{token}{items}</ListBucketResult>"
        ).encode()

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes, list[str]]:
        """(status, body, further headers) of a request."""
        parts = urlsplit(target)
        name = unquote(parts.path).lstrip("/").partition("/")[2]
        if not name:
            if method == "GET" and "uploads" in parts.query:
                return 200, NO_UPLOADS, ["Content-Type: application/xml"]
            is_list = method == "GET" and "list-type" in parts.query
            return 200, self.listing(parse_qs(parts.query)) if is_list else b"", ["Content-Type: application/xml"]
        if method == "PUT":
            if "if-none-match" in headers and name in self.objects:
                return 412, b"<Error><Code>PreconditionFailed</Code></Error>", []
            self.objects[name] = body
            return 200, b"", [f"ETag: {_tag(body)}"]
        if method == "DELETE":
            self.objects.pop(name, None)
            return 204, b"", []
        data = self.objects.get(name)
        if data is None:
            return 404, b"<Error><Code>NoSuchKey</Code></Error>", []
        tag = f"ETag: {_tag(data)}"
        span = re.fullmatch(r"bytes=(\d*)-(\d*)", headers.get("range", ""))
        if span is None:
            return 200, data, [tag]
        start = int(span[1]) if span[1] else max(0, len(data) - int(span[2]))
        stop = int(span[2]) + 1 if span[1] and span[2] else len(data)
        piece = data[start:stop]
        return 206, piece, [tag, f"Content-Range: bytes {start}-{start + len(piece) - 1}/{len(data)}"]

    async def serve(self, port: int) -> None:
        server = await asyncio.start_server(self._connection, "127.0.0.1", port)
        async with server:
            await server.serve_forever()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, target, _ = head[0].split(" ")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
                if headers.get("expect", "").lower() == "100-continue":
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                status, data, more = self.answer(method, target, headers, body)
                lines = [f"HTTP/1.1 {status} {STATUS[status]}", f"Content-Length: {len(data)}", *more, "", ""]
                writer.write("\r\n".join(lines).encode() + (b"" if method == "HEAD" else data))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


def _tag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def _run(store: PagedStore, port: int) -> None:
    asyncio.run(store.serve(port))


@contextmanager
def served(store: PagedStore) -> Iterator[dict[str, str]]:
    """The store in a process of its own during the block; yields the environment that reaches it as bucket `mill`."""
    port = free_port()
    process = multiprocessing.get_context("fork").Process(target=_run, args=(store, port), daemon=True)
    process.start()
    try:
        yield {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_EC2_METADATA_DISABLED": "true"}
    finally:
        process.terminate()
        process.join()
