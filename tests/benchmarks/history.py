"""The run history: what recording costs, how large it gets, how fast it is in a DataFrame. Floors are SQLite by itself."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from agentroute import Agent, RunStore, ToolCall, replay, tool
from agentroute.column_cache import drop_cache
from agentroute.frames import turns
from agentroute.records import RunRecord, TurnRecord
from agentroute.tables import TABLES, Bodies, store_bodies
from agentroute.testing import ModelScripted
from tests.benchmarks.measure import row

RUNS = 20_000
"""Of three turns each."""
ROUNDS = 5
START = datetime(2026, 1, 1, tzinfo=UTC)


def history() -> None:
    with tempfile.TemporaryDirectory() as directory:
        frames(Path(directory))
        listing(Path(directory))
        sizes(Path(directory))
        recording(Path(directory))


# ---- DataFrames ---------------------------------------------------------------------------------------------------


def frames(directory: Path) -> None:
    """All columns of 60,000 turns; the goals are those for 300,000, a fifth of them."""
    import pandas as pd

    with closing(_filled(directory / "frames.db")) as store, closing(sqlite3.connect(store.path)) as connection:
        table = TABLES[TurnRecord]
        steps = f"SELECT {', '.join(f'max({name})' for name in table.names)} FROM turns"

        def floor() -> None:
            connection.execute(steps).fetchall()

        def cold() -> None:
            drop_cache(store.path)
            turns(store)

        turns(store)
        times = [[_ms(step) for step in (floor, cold, lambda: turns(store), lambda: pd.read_sql(table.select_sql("1"), connection))] for _ in range(ROUNDS)]
        least, first, second, by_pandas = (min(part) for part in zip(*times, strict=True))
        row("60,000 turns to a DataFrame, from the file", first, least, "≤ 220 ms")
        row("60,000 turns to a DataFrame, the second time", second, least, "≤ 24 ms")
        row("60,000 turns, pandas.read_sql of the same", by_pandas, least, "(to compare)")


def listing(directory: Path) -> None:
    """The notebook's table of 100,000 runs, the answers of half of them packed; the floor reads the same table with pandas."""
    import pandas as pd

    from agentroute_ipython.history_table import HistoryTable

    with closing(_listed(directory / "listing.db")) as store, closing(sqlite3.connect(store.path)) as connection:
        table = HistoryTable(store, {})

        def does(**message: Any) -> Callable[[], None]:
            def act() -> None:
                assert table.do(message) == ""
                table.state()

            return act

        def forms() -> Callable[[], None]:
            """Another agent each time, or what was found is known already."""
            names = itertools.cycle(AGENTS)
            return lambda: does(do="filter", form={"agent": next(names)})()

        steps = {
            "pandas.read_sql of its columns": (lambda: pd.read_sql("SELECT run_id, started_at, agent_name, request_model, status, cost_usd FROM runs", connection), ""),
            "opened": (lambda: HistoryTable(store, {}).state(), "≤ 1,000 ms"),
            "sorted by cost": (does(do="sort", by="cost_usd"), "≤ 300 ms"),
            "filtered by agent": (forms(), "≤ 300 ms"),
            "filtered by tag": (does(do="filter", form={"tag": "tenant=a"}), "≤ 300 ms"),
            "all again": (does(do="filter", form={}), "≤ 300 ms"),
            "a page in the middle": (does(do="page", page=1000), "≤ 300 ms"),
            "searched for a word": (does(do="filter", form={"text": "refund"}), "(to know)"),
            "sorted after that": (does(do="sort", by="cost_usd"), "≤ 300 ms"),
        }
        times = [[_ms(action) for action, _ in steps.values()] for _ in range(ROUNDS)]
    floor, *rest = (min(part) for part in zip(*times, strict=True))
    for (name, (_, goal)), least in zip(list(steps.items())[1:], rest, strict=True):
        row(f"100,000 runs in the notebook's table, {name}", least, floor, goal)


AGENTS = ("support", "triage", "research", "digest")


def _listed(path: Path) -> RunStore:
    store, rng = RunStore(path), random.Random(2)
    sentences = [_prose(rng, 40) for _ in range(5000)]
    rows, bodies = [], Bodies()
    for number in range(100_000):
        run = RunRecord(
            run_id=f"01KB{number:010}{rng.getrandbits(48):012x}", started_at=START + timedelta(seconds=20 * number), agent_name=rng.choice(AGENTS), request_model="m",
            status="ok", duration_s=rng.random(), n_turns=1, input_tokens=rng.randrange(5000), cost_usd=rng.random(), tags=rng.choice(['{"tenant": "a"}', '{"tenant": "b"}']),
            prompt_text=rng.choice(sentences), output_text=" ".join(rng.choices(sentences, k=rng.choice((2, 4, 20, 30)))),
        )  # fmt: skip
        rows.append([*TABLES[RunRecord].row(run, store.keeping, bodies, ()), 1])
    with store.transaction() as connection:
        store_bodies(connection, bodies)
        connection.executemany(TABLES[RunRecord].upsert_sql, rows)
    return store


def _filled(path: Path) -> RunStore:
    store, rng, models = RunStore(path), random.Random(1), ["anthropic/claude-sonnet-4", "openai/gpt-5-mini", "qwen/qwen3-32b"]
    runs: list[RunRecord] = []
    of_runs: list[TurnRecord] = []
    for number in range(RUNS):
        begun, model = START + timedelta(seconds=20 * number), rng.choice(models)
        runs.append(RunRecord(run_id=f"01KB{number:010}{rng.getrandbits(48):012x}", started_at=begun, agent_name="support", request_model=model))
        for index in (1, 2, 3):
            of_runs.append(
                TurnRecord(
                    run_id=runs[-1].run_id, turn_index=index, started_at=begun + timedelta(seconds=index), request_model=model, response_model=f"{model}-2026-05-01",
                    base_url="https://openrouter.ai/api/v1", finish_reason="tool_calls", input_tokens=rng.randrange(5000), output_tokens=rng.randrange(800),
                    cached_input_tokens=rng.randrange(200), reasoning_tokens=[None, 12][index % 2], cost_usd=rng.random() / 100, cost_source="provider",
                    duration_s=rng.random() * 3, time_to_first_chunk_s=[rng.random(), None][index % 2], response_id=f"gen-{rng.getrandbits(96):024x}",
                )
            )  # fmt: skip
    with store.transaction() as connection:
        for records in (runs, of_runs):
            table = TABLES[type(records[0])]
            extra = [1] if table.kind is RunRecord else []
            connection.executemany(table.upsert_sql, [[*table.row(record, store.keeping, {}), *extra] for record in records])
    return store


def _ms(action: Callable[[], Any]) -> float:
    gc.collect()
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1e3


# ---- bytes --------------------------------------------------------------------------------------------------------


_STEMS = ("order", "parcel", "left", "warehouse", "customer", "ask", "refund", "policy", "state", "address", "street", "arrive", "before", "ship", "value", "late")
WORDS = [f"{stem}{ending}" for stem in _STEMS for ending in ("", "s", "ing", "ed", "ly", "ment", "less")]


def _prose(rng: random.Random, n_chars: int) -> str:
    text = ""
    while len(text) < n_chars:
        text += f"{rng.choice(WORDS)}{rng.choice([' ', ' ', ' ', ', ', f' {rng.randrange(10000)} '])}"
    return text


def _run(store: RunStore | None, rng: random.Random, n_turns: int) -> int:
    """A run of so many turns; returns the bytes of its requests and answers as plain JSON."""

    @tool
    def look_up(question: str) -> str:
        """Looks something up in the handbook and in the list of orders."""
        return _prose(rng, 1200)

    calls = [ToolCall(f"call_{rng.getrandbits(64):x}", "look_up", {"question": _prose(rng, 80)}) for _ in range(n_turns - 1)]
    answers = [*calls, _prose(rng, 800)]
    model = ModelScripted(answers)
    instructions = _prose(random.Random(0), 2000)
    agent = Agent("support", model=model, tools=[look_up], instructions=instructions, store=store, record=store is not None, max_turns=n_turns)
    with replay("on" if store is not None else "off"):
        result = agent.run(_prose(rng, 600))
    parts = [[message.to_dict() for message in request.messages] for request in model.requests]
    return len(json.dumps(parts)) + sum(len(json.dumps(message)) for message in result.messages if message["role"] == "assistant")


def sizes(directory: Path) -> None:
    for n_turns, n_runs, goal in ((3, 200, "≤ 6 KB"), (100, 4, "≤ 150 KB")):
        rng = random.Random(n_turns)
        with closing(RunStore(directory / f"{n_turns}.db")) as store:
            _run(store, rng, n_turns)
            before = _bytes(store)
            plain = sum(_run(store, rng, n_turns) for _ in range(n_runs)) / n_runs
            kept = (_bytes(store) - before) / n_runs
        row(f"a run of {n_turns} turns in the file, and as plain JSON", kept / 1e3, plain / 1e3, goal, "KB")


def _bytes(store: RunStore) -> int:
    store.close()
    with closing(sqlite3.connect(store.path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return store.path.stat().st_size


# ---- recording ----------------------------------------------------------------------------------------------------


def recording(directory: Path) -> None:
    """What recording adds to 100 runs of three turns, told for 1,000; the floor writes the same rows, a commit a turn."""
    n_runs = 100

    def runs(store: RunStore | None) -> Callable[[], None]:
        def action() -> None:
            for _ in range(n_runs):
                _small_run(store)

        return action

    with closing(RunStore(directory / "recording.db")) as store:
        _small_run(store)
        record = store.record(_small_run(store))
        with closing(sqlite3.connect(directory / "raw.db", isolation_level=None)) as connection:
            floor = _raw(connection, record, n_runs)
            times = [[_ms(step) for step in (floor, runs(store), runs(None))] for _ in range(ROUNDS)]
    raw, recorded, unrecorded = (min(part) for part in zip(*times, strict=True))
    row("1,000 recorded runs, what recording adds", (recorded - unrecorded) / n_runs, raw / n_runs, "≤ 5 s", "s")


def _small_run(store: RunStore | None) -> str:
    model = ModelScripted([ToolCall("1", "add", {"a": 1}), ToolCall("2", "add", {"a": 2}), "done"])

    @tool
    async def add(a: int) -> int:
        """Adds."""
        return a

    agent = Agent("bench", model=model, tools=[add], store=store, record=store is not None)
    return asyncio.run(agent.arun("go")).run_id


def _raw(connection: sqlite3.Connection, record: Any, n_runs: int) -> Callable[[], None]:
    """The rows of a record by sqlite3 alone."""
    connection.execute("PRAGMA journal_mode=WAL").fetchone()
    connection.execute("PRAGMA synchronous=NORMAL")
    for table in TABLES.values():
        connection.execute(table.create_sql)
    counter = iter(range(10**9))

    def write() -> None:
        for _ in range(n_runs):
            run_id = f"r{next(counter):09}"
            for step in range(len(record.turns)):
                connection.execute("BEGIN IMMEDIATE")
                parts = [[record.run], record.turns[step : step + 1], record.tool_calls[step : step + 1], record.messages[2 * step : 2 * step + 2]]
                for rows in filter(None, parts):
                    table = TABLES[type(rows[0])]
                    extra = [1] if table.kind is RunRecord else []
                    connection.executemany(table.upsert_sql, [[run_id, *table.values(one)[1:], *[None] * len(table.longs), *extra] for one in map(_stored, rows)])
                connection.execute("COMMIT")

    return write


def _stored(one: Any) -> Any:
    from copy import copy

    from agentroute.tables import encoded

    plain = copy(one)
    for name, value in zip(TABLES[type(one)].names, encoded(one), strict=True):
        setattr(plain, name, value)
    return plain
