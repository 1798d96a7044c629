"""A real HTTP proxy in front of a real S3 server that does what networks and stores do, on a seeded plan.

Requests are forwarded byte for byte: SigV4 signs the Host header, and the server checks it against the one it gets.
"""

import http.client
import os
import random
import socket
import socketserver
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader

KINDS = (
    "slow_down",  # 503 SlowDown, nothing done
    "reset_before",  # connection reset, nothing done
    "reset_after",  # connection reset, but the store has done it
    "error_after",  # 500 InternalError, but the store has done it
    "truncate",  # half of the answer's body (of its head, when it has none), then the end
    "behead",  # the answer's head and nothing of its body
    "delay",  # a late answer
    "freeze",  # taken and never answered, nothing done
    "freeze_after",  # never answered, but the store has done it
)
DELAY_S = 0.2
ERRORS = {
    "slow_down": (503, "SlowDown", "Please reduce your request rate."),
    "error_after": (500, "InternalError", "We encountered an internal error."),
    "expired": (400, "ExpiredToken", "The provided token has expired."),
    "refused": (403, "InvalidAccessKeyId", "The key you provided does not exist."),
    "deciding": (409, "ConditionalRequestConflict", "A conflicting conditional operation is in progress."),
    "exists": (409, "ObjectAlreadyExists", "The object exists."),
    "not_implemented": (501, "NotImplemented", "A header implies functionality that is not implemented."),
    "error_in_ok": (200, "InternalError", "We encountered an internal error."),
    "no_such_upload": (404, "NoSuchUpload", "The specified multipart upload does not exist."),
    "invalid": (400, "InvalidArgument", "Invalid argument."),
}


class FaultProxy:
    """Listens on `port` in threads of this process. `share` of the requests get a fault from `kinds`, drawn from
    `seed`; `script` (kinds, "ok" for none) comes before the plan; `always` names what befalls every request.

    With `tls` (certificate and key as PEM files) it serves https.

    Stores of other kinds: `refuses_trailers` answers 501 to checksums that follow a body, `refused` are parts of
    requests that get 403, `conditional` befalls every conditional put, `answers` replaces an answer of that status, and
    headers of `dropped` (lower case) do not reach the server, whose signatures must then be off."""

    def __init__(self, upstream_port: int, seed: int = 0, tls: tuple[str, str] | None = None) -> None:
        self.upstream_port = upstream_port
        self.scheme = "https" if tls else "http"
        self.refuses_trailers = False
        self.refused: tuple[bytes, ...] = ()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if tls else None
        if context and tls:
            context.load_cert_chain(*tls)
        self.share, self.kinds = 0.0, KINDS
        self.script: list[str] = []
        self.always: str | None = None
        self.conditional: str | None = None
        self.answers: dict[int, str] = {}
        self.dropped: tuple[bytes, ...] = ()
        self.requests: Counter[str] = Counter()  # by verb
        self.verbs: tuple[str, ...] = ("GET", "PUT", "HEAD", "DELETE")  # others, and other verbs, pass untouched
        self.seen: Counter[str] = Counter()  # requests by what befell them
        self._rng, self._lock = random.Random(seed), threading.Lock()
        self._ended = threading.Event()
        proxy = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                proxy._serve(context.wrap_socket(self.request, server_side=True) if context else self.request)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads, block_on_close, allow_reuse_address, request_queue_size = True, False, True, 128

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # a client that went away is no news here

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    def close(self) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()

    def env(self, upstream: dict[str, str]) -> dict[str, str]:
        """The environment of the server behind, with this proxy as its address."""
        return {**upstream, "AWS_ENDPOINT_URL": f"{self.scheme}://127.0.0.1:{self.port}"}

    def _draw(self, verb: str) -> str:
        with self._lock:
            if verb not in self.verbs:
                kind = "ok"
            elif self.script:
                kind = self.script.pop(0)
            elif self.always:
                kind = self.always
            else:
                kind = self._rng.choice(self.kinds) if self._rng.random() < self.share else "ok"
            self.seen[kind] += 1
            return kind

    def _serve(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = client.makefile("rb")
        while request := _read_request(client, reader):
            verb = request.split(b" ", 1)[0].decode()
            self.requests[verb] += 1
            head, _, body = request.partition(b"\r\n\r\n")
            is_conditional = verb == "PUT" and b"\r\nif-none-match:" in head.lower()
            kind = self.conditional if self.conditional and is_conditional else self._draw(verb)
            has_trailer = b"aws-chunked" in head.lower() or b"\r\nx-amz-trailer:" in head.lower()
            if self.refuses_trailers and has_trailer:
                kind = "not_implemented"
            elif any(part in head for part in self.refused):
                kind = "refused"
            lines = [line for line in head.split(b"\r\n") if line.partition(b":")[0].lower() not in self.dropped]
            request = b"\r\n".join(lines) + b"\r\n\r\n" + body
            if kind == "reset_before":
                return _reset(client)
            if kind == "freeze":
                self._ended.wait()
                return None
            if kind in ERRORS and kind != "error_after":
                client.sendall(_error(verb, kind))
                continue
            if kind == "delay":
                self._ended.wait(DELAY_S)
            try:
                status, head, body = self._forward(request, verb)
            except (OSError, http.client.HTTPException):
                return _reset(client)  # the server behind is gone
            if kind == "reset_after":
                return _reset(client)
            if kind == "freeze_after":
                self._ended.wait()
                return None
            if kind == "error_after" or status in self.answers:
                client.sendall(_error(verb, self.answers.get(status, kind)))
            elif kind == "truncate":
                client.sendall(head + body[: len(body) // 2] if body else head[: len(head) // 2])
                return None
            elif kind == "behead":
                client.sendall(head)
                return None
            else:
                client.sendall(head + body)
        return None

    def _forward(self, request: bytes, verb: str) -> tuple[int, bytes, bytes]:
        """Status, head and body of the server's answer to a request."""
        with socket.create_connection(("127.0.0.1", self.upstream_port)) as upstream:
            upstream.sendall(request)
            answer = http.client.HTTPResponse(upstream, method=verb)
            answer.begin()
            body = answer.read()
            fields = [(k, v) for k, v in answer.getheaders() if k.lower() not in ("transfer-encoding", "connection")]
            if not any(k.lower() == "content-length" for k, _ in fields):
                fields.append(("Content-Length", str(len(body))))
            return answer.status, _head(answer.status, answer.reason, fields), body


def _read_request(client: socket.socket, reader: BufferedReader) -> bytes:
    """One whole request; empty when the client has closed."""
    head, length, is_chunked = b"", 0, False
    while (line := reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
        is_chunked |= name.lower() == b"transfer-encoding" and b"chunked" in value
        if name.lower() == b"expect":  # answered here, so that the body is read before the plan is asked
            client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            continue  # not among the signed headers
        head += line
    body = b"".join(_chunks(reader)) if is_chunked else reader.read(length)
    return head + b"\r\n" + body if head else b""


def _chunks(reader: BufferedReader) -> Iterator[bytes]:
    """A chunked body as it is, to its last chunk."""
    size = 1
    while size:
        line = reader.readline()
        size = int(line, 16)
        yield line + reader.read(size + 2)


def _head(status: int, reason: str, fields: list[tuple[str, str]]) -> bytes:
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in fields)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _error(verb: str, kind: str) -> bytes:
    status, code, text = ERRORS[kind]
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{text}</Message></Error>'.encode()
    fields = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
    return _head(status, "Error", fields) + (b"" if verb == "HEAD" else body)


def _reset(client: socket.socket) -> None:
    """Close with RST, as a crashed peer or a dropped route does."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(client.detach())  # at once, though a reader still holds the socket


@contextmanager
def faults(upstream_port: int, seed: int = 0, tls: tuple[str, str] | None = None) -> Iterator[FaultProxy]:
    """A proxy for the length of the block."""
    proxy = FaultProxy(upstream_port, seed, tls)
    try:
        yield proxy
    finally:
        proxy.close()


def wait_until(what: str, is_so: Callable[[], bool], timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < end, f"not so after {timeout_s} s: {what}"
        time.sleep(0.02)
