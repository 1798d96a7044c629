"""A TCP proxy with the round trip and the rate per connection of a store far away:
`python -m tests.bench.slow_link UPSTREAM_PORT ROUND_TRIP_S BYTES_PER_S` prints its port.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.conftest import ROOT

CHUNK_BYTES = 256 << 10
BUFFER_CHUNKS = 4  # in flight on a connection


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float, rate: float) -> None:
    """Hand on what is read, each byte `delay_s` late and no faster than `rate` bytes/s."""
    loop = asyncio.get_running_loop()
    on_its_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(BUFFER_CHUNKS)

    async def deliver() -> None:
        while True:
            due, data = await on_its_way.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not data:
                writer.close()
                return
            writer.write(data)
            await writer.drain()

    delivery = asyncio.create_task(deliver())
    free = loop.time()
    try:
        while data := await reader.read(CHUNK_BYTES):
            free = max(free, loop.time()) + len(data) / rate
            await on_its_way.put((free + delay_s, data))
            await asyncio.sleep(max(0.0, free - loop.time()))
        await on_its_way.put((loop.time() + delay_s, b""))
        await delivery
    except OSError:
        delivery.cancel()
        writer.close()


async def _serve(upstream: int, round_trip_s: float, rate: float) -> None:
    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", upstream)
        way = round_trip_s / 2, rate
        await asyncio.gather(_carry(reader, back, *way), _carry(there, writer, *way), return_exceptions=True)

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def slow_link(upstream: int, round_trip_s: float, rate: float) -> Iterator[int]:
    """The port of a proxy in a process of its own, for the length of the block."""
    command = [sys.executable, "-m", "tests.bench.slow_link", str(upstream), str(round_trip_s), str(rate)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as proxy:
        assert proxy.stdout
        try:
            yield int(proxy.stdout.readline())
        finally:
            proxy.kill()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
