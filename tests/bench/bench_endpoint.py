"""An endpoint beside a bare client of the `openai` package at the same concurrency, against the same server.

The server is a process on one core, and each client a process on the other, in turns. `engine` sends the calls by the
engine alone, `rows` by a generator with its method, throttle and rows. The last rows leave the number of calls at once
to the engine, on a server that slows down beyond 64, beside the best of several fixed numbers.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from gristmill.engines.contract import Reply
from gristmill.engines.endpoint.spec import EndpointSpec
from tests.engines.endpoint.proxy import MODEL, Proxy

NUM_TURNS = 3
PROMPT = "Write about ask {number}. " + "word " * 200
SAMPLING = {"max_tokens": 100, "temperature": 0.7}


def server(base_s: float, knee: int, power: float) -> None:
    """Serve until stdin ends. An answer takes `base_s`, and more by a power of the calls at once beyond `knee`."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with Proxy(latency_s=lambda in_flight: base_s * max(1.0, in_flight / knee) ** power) as proxy:
        print(proxy.url, flush=True)
        sys.stdin.read()


async def bare(url: str, num_calls: int, at_once: int) -> float:
    import aiohttp  # noqa: F401
    from httpx2 import Limits
    from openai import AsyncOpenAI, DefaultAioHttpClient

    pool = DefaultAioHttpClient(limits=Limits(max_connections=at_once, max_keepalive_connections=at_once))
    client = AsyncOpenAI(base_url=url, api_key="x", max_retries=0, http_client=pool, timeout=600)
    semaphore = asyncio.Semaphore(at_once)

    async def call(number: int) -> str:
        async with semaphore:
            messages: Any = [{"role": "user", "content": PROMPT.format(number=number)}]
            answer = await client.chat.completions.create(model=MODEL, messages=messages, seed=number, **SAMPLING)  # type: ignore[call-overload]
            return str(answer.choices[0].message.content)

    await asyncio.gather(*map(call, range(at_once)))
    started = time.perf_counter()
    await asyncio.gather(*map(call, range(num_calls)))
    return num_calls / (time.perf_counter() - started)


async def engine(url: str, num_calls: int, at_once: int, adapts: bool = False) -> float:
    opened = EndpointSpec(base_url=url, model=MODEL, max_in_flight=at_once).open_engine(dict(SAMPLING))
    if not adapts:
        opened.limiter.concurrency.adapts, opened.limiter.concurrency.limit = False, at_once

    async def call(number: int) -> Reply:
        return await opened.chat(PROMPT.format(number=number), SAMPLING, number)

    await asyncio.gather(*map(call, range(min(at_once, 64))))
    started = time.perf_counter()
    await asyncio.gather(*map(call, range(num_calls)))
    seconds = time.perf_counter() - started
    opened.close()
    return num_calls / seconds


async def rows(url: str, num_calls: int, at_once: int) -> float:
    from gristmill.generators.endpoint import Endpoint, EndpointTeacherSpec
    from gristmill.generators.text.registry import method_class
    from gristmill.records.lots import Plan, asks
    from gristmill.records.readers.sources import SourceSpec, open_source
    from gristmill.records.spec import build

    kind = method_class("prompt")
    method = kind(build(kind.Spec, {"template": PROMPT}, "method"))
    generator = Endpoint(
        build(EndpointTeacherSpec, {"base_url": url, "model": MODEL, "max_in_flight": at_once}, "g"), method
    )
    source = open_source(build(SourceSpec, {"items": [{"number": number} for number in range(num_calls)]}, "source"))
    plan = Plan("0" * 16, num_calls // 4, num_calls, num_calls, "endpoint", MODEL, "prompt")
    lots = [asks(plan, source, lot) for lot in range(4)]
    generator.open()
    limiter = generator._engine.limiter  # type: ignore[union-attr]
    limiter.concurrency.adapts, limiter.concurrency.limit = False, at_once
    assert generator.throttle is not None
    generator.throttle.resize(at_once)
    await generator.make(lots[0].slice(0, min(at_once, 64)))
    started = time.perf_counter()
    await asyncio.gather(*map(generator.make, lots))
    seconds = time.perf_counter() - started
    generator.close()
    return num_calls / seconds


def client(kind: str, url: str, num_calls: int, at_once: int) -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    kinds: dict[str, Any] = {"bare": bare, "engine": engine, "rows": rows}
    run = engine(url, num_calls, at_once, True) if kind == "adaptive" else kinds[kind](url, num_calls, at_once)
    print(asyncio.run(run))


class Server:
    def __init__(self, base_s: float, knee: int = 10**6, power: float = 0.0) -> None:
        command = [sys.executable, "-m", "tests.bench.bench_endpoint", "server", str(base_s), str(knee), str(power)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate("")

    def rate(self, kind: str, num_calls: int, at_once: int) -> float:
        """Calls a second of a client."""
        command = [sys.executable, "-m", "tests.bench.bench_endpoint", kind, self.url, str(num_calls), str(at_once)]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def beside(what: str, base_s: float, num_calls: int, at_once: int, kinds: tuple[str, ...]) -> list[dict[str, Any]]:
    """Rows that compare kinds of clients with a bare one; the ratio is the median over turns."""
    rates: dict[str, list[float]] = {kind: [] for kind in ("bare", *kinds)}
    with Server(base_s) as running:
        for _ in range(NUM_TURNS):
            for kind in rates:
                rates[kind].append(running.rate(kind, num_calls, at_once))
    return [
        {
            "what": f"endpoint, {what}: {kind}",
            "value": f"{statistics.median(rates[kind]):,.0f} calls/s",
            "peer": f"bare openai client: {statistics.median(rates['bare']):,.0f}",
            "ratio": statistics.median(a / b for a, b in zip(rates[kind], rates["bare"])),
            "target": ">= 0.97",
        }
        for kind in kinds
    ]


def bench() -> Iterator[dict[str, Any]]:
    yield from beside("64 calls at once, answers in 0.5 s", 0.5, 1280, 64, ("engine", "rows"))
    yield from beside("1,000 calls at once on one core, answers in 4 s", 4.0, 4000, 1000, ("engine", "rows"))
    yield from beside("64 calls at once, answers at once: the client's core is full", 0.0, 2000, 64, ("engine", "rows"))
    with Server(0.5, 64, 2.0) as running:
        fixed = {number: running.rate("engine", 3000, number) for number in (48, 64, 96)}
        best = max(fixed, key=lambda number: fixed[number])
        pairs = [(running.rate("adaptive", 6000, 1000), running.rate("engine", 6000, best)) for _ in range(NUM_TURNS)]
    adaptive, beside_it = (statistics.median(rates) for rates in zip(*pairs))
    yield {
        "what": "endpoint, a server that slows down beyond 64 calls at once, up to 1,000 allowed",
        "value": f"{adaptive:,.0f} calls/s",
        "peer": f"the best fixed number, {best}: {beside_it:,.0f}",
        "ratio": statistics.median(a / b for a, b in pairs),
        "target": ">= 0.9",
    }


if __name__ == "__main__":
    if sys.argv[1] == "server":
        server(float(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
    else:
        client(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
