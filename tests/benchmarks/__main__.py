"""Prints each figure with its floor, their ratio and the goal. Nothing here fails: machines differ, ratios are to be read.

Figure and floor are measured in turn, several times; the median of each is shown. CPU is this process's own, the
endpoint runs in another.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

from agentroute import Agent, tool
from tests.benchmarks.drawing import drawing
from tests.benchmarks.endpoint import endpoint
from tests.benchmarks.history import history
from tests.benchmarks.measure import cpu, printed, processes, row
from tests.benchmarks.transport import memory, transport


@tool
async def work(n: int) -> int:
    """Works."""
    return n


def by_hand(base_url: str, model: str) -> Callable[[], Awaitable[str]]:
    """The loop a person would write with httpx alone, its client kept open."""
    import httpx

    client = httpx.AsyncClient(timeout=60)
    tools = [work.to_wire()]

    async def run() -> str:
        messages: list[dict[str, Any]] = [{"role": "user", "content": "go"}]
        while True:
            response = await client.post(
                f"{base_url}/chat/completions", json={"model": model, "messages": messages, "tools": tools}
            )
            response.raise_for_status()
            message = response.json()["choices"][0]["message"]
            messages.append(message)
            if not message.get("tool_calls"):
                return str(message["content"])
            for call in message["tool_calls"]:
                result = await work.fn(**json.loads(call["function"]["arguments"]))
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": json.dumps(result)})

    return run


async def runs(base_url: str) -> None:
    def ours(model: str) -> Callable[[], Awaitable[Any]]:
        agent = Agent("bench", model=model, base_url=base_url, tools=[work], max_turns=1000)
        return lambda: agent.arun("go")

    value, floor = await cpu(ours("m-0-1"), by_hand(base_url, "m-0-1"), 40)
    row("one warm answer, CPU", value, floor, "≤ 1.3×")
    ten, ten_floor = await cpu(ours("m-10-1"), by_hand(base_url, "m-10-1"), 4)
    row("ten tool turns, CPU a turn", ten / 11, ten_floor / 11, "≤ 1.5×")
    hundred, hundred_floor = await cpu(ours("m-100-1"), by_hand(base_url, "m-100-1"), 1)
    row("a hundred tool turns, CPU a turn", hundred / 101, hundred_floor / 101, "≤ 1.5×")
    row("a hundred tool turns, CPU a turn, against ten", hundred / 101, ten / 11, "≤ 1×")


async def tools_side_by_side(base_url: str) -> None:
    @tool(name="work")
    def block(n: int) -> int:
        """Works."""
        time.sleep(0.1)
        return n

    @tool(name="work")
    async def wait(n: int) -> int:
        """Works."""
        await asyncio.sleep(0.1)
        return n

    for label, kind in (("plain", block), ("async", wait)):
        agent = Agent("bench", model="m-1-8", base_url=base_url, tools=[kind])
        await agent.arun("warm up")
        times = []
        for _ in range(5):
            began = time.perf_counter()
            await agent.arun("go")
            times.append((time.perf_counter() - began) * 1e3)
        row(f"a turn with eight {label} tools of 100 ms, wall", statistics.median(times), 100.0, "≤ 120 ms")


def load_ext() -> tuple[float, float]:
    """Milliseconds of the line in a fresh IPython, and of all that a bare one takes; the best of several each.

    Taken inside, as the difference of two whole programs of 200 ms varies by more than the line takes.
    """
    timed = "import time; began = time.perf_counter(); get_ipython().run_line_magic('load_ext', 'agentroute_ipython'); print(time.perf_counter() - began)"
    ipython = ("-m", "IPython", "--no-banner", "--quick")
    _, floor = processes("pass", "pass", *ipython)
    return min(float(printed(timed, *ipython)) for _ in range(15)) * 1e3, floor


def main() -> None:
    value, floor = processes("from agentroute import Agent", "pass")
    row("from agentroute import Agent, whole process", value, floor, "≤ 80 ms")
    value, floor = load_ext()
    row("%load_ext agentroute_ipython over bare IPython", value, floor, "≤ 20 ms")
    drawing()
    with endpoint() as base_url:
        asyncio.run(runs(base_url))
        asyncio.run(tools_side_by_side(base_url))
        asyncio.run(transport(base_url))
        memory(base_url)
    history()
    print("load average {:.1f} {:.1f} {:.1f}".format(*os.getloadavg()))


if __name__ == "__main__":
    main()
