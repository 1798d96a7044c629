"""An OpenAI-shaped server on loopback, in a thread: answers of its own or of another server, with scripted faults."""

import asyncio
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import ClientSession, web

MODEL = "tiny-1"
KEY = "test-key-0123456789abcdef"
FAULTS = ("429", "500", "503", "hang", "cut", "repeat", "json", "html", "empty", "drop")


def answer_of(body: Mapping[str, Any]) -> str:
    """The deterministic answer of the server to a request: the first hex digits of a digest of what shapes it."""
    shape = [body.get("messages") or body.get("prompt"), body.get("seed"), body.get("temperature")]
    return hashlib.blake2b(json.dumps(shape).encode(), digest_size=8).hexdigest()


def completion(number: int, body: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON of an answer."""
    text = answer_of(body)
    is_chat = "messages" in body
    content = {"message": {"role": "assistant", "content": text}} if is_chat else {"text": text}
    tokens_in = len(json.dumps(body.get("messages") or body.get("prompt"))) // 4
    return {
        "id": f"answer-{number}",
        "object": "chat.completion" if is_chat else "text_completion",
        "created": 0,
        "model": body["model"],
        "choices": [{"index": 0, "finish_reason": "stop", **content}],
        "usage": {"prompt_tokens": tokens_in, "completion_tokens": 4, "total_tokens": tokens_in + 4},
    }


class Proxy:
    """A context manager: the server runs inside the block at `url`.

    upstream: base_url of another server that answers; None: `completion`. script: the fault of a call by its number
    (from 0, calls of the preflight not counted) and its body; None: no fault. A fault is one of FAULTS, or (status,
    JSON, headers). latency_s: of an answer, from the number of calls in flight.
    """

    def __init__(
        self,
        upstream: str | None = None,
        script: Callable[[int, Mapping[str, Any]], Any] = lambda number, body: None,
        latency_s: Callable[[int], float] = lambda in_flight: 0.0,
        change: Callable[[dict[str, Any], Mapping[str, Any]], dict[str, Any]] = lambda data, body: data,
        hang_s: float = 60.0,
        key: str | None = None,
        counts_probes: bool = False,
    ) -> None:
        self.upstream, self.script, self.latency_s, self.change = upstream, script, latency_s, change
        self.hang_s, self.key, self.counts_probes = hang_s, key, counts_probes
        self.bodies: list[dict[str, Any]] = []  # of all calls but those of the preflight
        self.headers: list[Mapping[str, str]] = []
        self.probes: list[dict[str, Any]] = []
        self.answers: Counter[str] = Counter()  # times that each prompt was answered, faults left out
        self.faults: Counter[str] = Counter()
        self.num_in_flight = self.most_in_flight = 0
        self._last: dict[str, Any] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.url = ""

    def __enter__(self) -> "Proxy":
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)

    async def _start(self) -> None:
        app = web.Application(client_max_size=2**28)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_post("/v1/completions", self._complete)
        self.add_routes(app)
        self._session = ClientSession()
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, backlog=4096)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        self.url = f"http://127.0.0.1:{port}/v1"

    def add_routes(self, app: web.Application) -> None:
        """Further paths of a subclass."""

    async def _stop(self) -> None:
        await self._session.close()
        await self._runner.cleanup()

    def _refusal(self, request: web.Request) -> web.Response | None:
        if self.key is not None and request.headers.get("Authorization") != f"Bearer {self.key}":
            given = request.headers.get("Authorization", "")
            return web.json_response({"error": {"message": f"Incorrect API key provided: {given}"}}, status=401)
        return None

    async def _models(self, request: web.Request) -> web.Response:
        return self._refusal(request) or web.json_response({"object": "list", "data": [{"id": MODEL}]})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        if (refusal := self._refusal(request)) is not None:
            return refusal
        body = await request.json()
        if body["model"] != MODEL and self.upstream is None:
            return web.json_response({"error": {"message": f"The model `{body['model']}` does not exist."}}, status=404)
        is_probe = not self.counts_probes and "What is the capital of France?" in json.dumps(body)
        number = -1 - len(self.probes) if is_probe else len(self.bodies)
        (self.probes if is_probe else self.bodies).append(body)
        self.headers.append(dict(request.headers))
        fault = None if is_probe else self.script(number, body)
        self.num_in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.num_in_flight)
        try:
            return await self._respond(request, number, body, fault)
        finally:
            self.num_in_flight -= 1

    async def _respond(self, request: web.Request, number: int, body: dict[str, Any], fault: Any) -> web.StreamResponse:
        if fault is not None:
            self.faults[fault if isinstance(fault, str) else str(fault[0])] += 1
            if (response := await self._fault(request, fault)) is not None:
                return response
        if (wait_s := self.latency_s(self.num_in_flight)) > 0:
            await asyncio.sleep(wait_s)
        if fault == "repeat" and self._last is not None:
            return web.json_response(self._last)
        status, data = 200, self.change(completion(number, body), body)
        if self.upstream is not None:
            path = request.path.removeprefix("/v1")
            async with self._session.post(f"{self.upstream}{path}", json=body) as answer:
                status, data = answer.status, await answer.json()
        text = json.dumps(data)
        if fault == "cut":
            response = web.StreamResponse(
                headers={"Content-Length": str(len(text)), "Content-Type": "application/json"}
            )
            await response.prepare(request)
            await response.write(text[: len(text) // 2].encode())
            assert request.transport is not None
            request.transport.abort()
            return response
        if status == 200:
            self.answers[json.dumps(body.get("messages") or body.get("prompt"))] += 1
            self._last = data
        return web.Response(text=text, status=status, content_type="application/json")

    async def _fault(self, request: web.Request, fault: Any) -> web.Response | None:
        """The response of a fault; None where the answer follows."""
        if isinstance(fault, tuple):
            status, data, *headers = fault
            return web.json_response(data, status=status, headers=headers[0] if headers else None)
        if fault == "429":
            headers = {"Retry-After": "0.05"}
            return web.json_response({"error": {"message": "Rate limit reached"}}, status=429, headers=headers)
        if fault in ("500", "503"):
            return web.json_response({"error": {"message": "internal"}}, status=int(fault))
        if fault == "hang":
            await asyncio.sleep(self.hang_s)
        if fault == "drop":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        texts = {
            "json": ("application/json", '{"choices": [{"mess'),
            "html": ("text/html", "<html><head><title>502 Bad Gateway</title></head></html>"),
            "empty": ("application/json", '{"id": "x", "choices": []}'),
        }
        if fault in texts:
            kind, text = texts[fault]
            return web.Response(text=text, content_type=kind)
        return None
