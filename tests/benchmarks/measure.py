"""How figures are taken: figure and floor in turn, several times; medians, because machines are shared."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

ROUNDS = 7


def row(name: str, value: float, floor: float, goal: str, unit: str = "ms") -> None:
    print(f"{name:58} {value:9.3f} {unit:3} floor {floor:9.3f} {unit:3} ratio {value / floor:6.2f}   goal {goal}", flush=True)


def processes(figure: str, floor: str, *python: str) -> tuple[float, float]:
    """Wall milliseconds of two whole programs, the best of several each."""

    def once(code: str) -> float:
        began = time.perf_counter()
        printed(code, *python)
        return (time.perf_counter() - began) * 1e3

    times = [(once(figure), once(floor)) for _ in range(15)]
    return min(a for a, _ in times), min(b for _, b in times)


def printed(code: str, *python: str) -> str:
    """What a program of its own prints; with compiled files, as an installed package has them."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run([sys.executable, *python, "-c", code], check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout


async def cpu(figure: Callable[[], Awaitable[Any]], floor: Callable[[], Awaitable[Any]], repeat: int) -> tuple[float, float]:
    """CPU milliseconds of one call of each, medians over rounds."""

    async def once(function: Callable[[], Awaitable[Any]]) -> float:
        began = time.process_time()
        for _ in range(repeat):
            await function()
        return (time.process_time() - began) / repeat * 1e3

    await once(figure), await once(floor)
    times = [(await once(figure), await once(floor)) for _ in range(ROUNDS)]
    return statistics.median(a for a, _ in times), statistics.median(b for _, b in times)


async def wall(figure: Callable[[], Awaitable[Any]], floor: Callable[[], Awaitable[Any]]) -> tuple[float, float]:
    """Wall milliseconds of one call of each, medians over rounds."""

    async def once(function: Callable[[], Awaitable[Any]]) -> float:
        began = time.perf_counter()
        await function()
        return (time.perf_counter() - began) * 1e3

    await once(figure), await once(floor)
    times = [(await once(figure), await once(floor)) for _ in range(ROUNDS)]
    return statistics.median(a for a, _ in times), statistics.median(b for _, b in times)


def resident_mb() -> float:
    """Memory of this process (Linux)."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
