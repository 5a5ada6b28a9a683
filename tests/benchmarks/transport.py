"""Many at once, long streams and many runs: what they take beside the same done by hand."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
from typing import Any
from urllib.parse import urlsplit

from agentroute import Agent
from tests.benchmarks.measure import cpu, resident_mb, row, wall

AT_ONCE, DELTAS = 500, 5000


async def transport(base_url: str) -> None:
    await deltas(base_url)
    await at_once(base_url)


async def deltas(base_url: str) -> None:
    """A burst of deltas, each an HTTP chunk of its own."""
    import httpx

    agent = Agent("bench", model=f"s-{DELTAS}", base_url=base_url)

    async def ours() -> None:
        async for _ in agent.stream("go"):
            pass

    async with httpx.AsyncClient() as client:

        async def by_hand() -> None:
            body = {"model": f"s-{DELTAS}", "stream": True}
            async with client.stream("POST", f"{base_url}/chat/completions", json=body) as response:
                async for line in response.aiter_lines():
                    if line.startswith("data: {"):
                        json.loads(line[6:])

        value, floor = await cpu(ours, by_hand, 1)
    row(f"a delta in a burst of {DELTAS}, CPU", value / DELTAS * 1e3, floor / DELTAS * 1e3, "≤ 25 µs", "µs")


async def at_once(base_url: str) -> None:
    """Runs at once against a server that takes 50 ms. The floor is bare sockets, opened anew each time."""
    model, place = "m-0-1-50", urlsplit(base_url)
    agent = Agent("bench", model=model, base_url=base_url)
    body = json.dumps({"model": model, "messages": []}).encode()
    request = b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)

    async def ours() -> None:
        await asyncio.gather(*(agent.arun("go") for _ in range(AT_ONCE)))

    async def by_hand() -> None:
        async def one() -> Any:
            reader, writer = await asyncio.open_connection(place.hostname, place.port)
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            answer = json.loads(await reader.readexactly(int(head.rpartition(b"content-length: ")[2])))
            writer.close()
            return answer

        await asyncio.gather(*(one() for _ in range(AT_ONCE)))

    await agent.arun("warm up")
    before = resident_mb()
    await ours()
    more = resident_mb() - before
    value, floor = await wall(ours, by_hand)
    row(f"{AT_ONCE} runs at once, server takes 50 ms, wall", value, floor, "≤ 800 ms")
    row(f"{AT_ONCE} runs at once, memory they add", more, before, "≤ 30 MB", "MB")


async def resident_after(base_url: str) -> list[float]:
    """Memory after 200 runs and after 1000."""
    agent = Agent("bench", model="m-0-1", base_url=base_url)
    figures = []
    for runs in (200, 800):
        for _ in range(runs):
            await agent.arun("go")
        gc.collect()
        figures.append(resident_mb())
    return figures


def memory(base_url: str) -> None:
    """In a process of its own, where nothing before could hide what is kept."""
    code = (
        f"import asyncio; from tests.benchmarks.transport import resident_after; print(asyncio.run(resident_after({base_url!r})))"
    )
    early, late = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    row("memory after 1000 runs, against after 200", late, early, f"≤ +0.5 MB; it is {late - early:+.2f} MB", "MB")
