"""Makes a month of runs to analyse: October 2026 at a shop for shoes, through the real loop and the real recorder.

    python notebooks/month.py month.db [--runs 50000] [--seed 7]

Only the models are played: they answer from a script, with the token counts, prices and delays of real ones, on a clock
that nobody waits for. The same seed makes the same rows. Beside the file, `month.json` holds what the models themselves
have counted: a second book, kept without the run history.

What happens:
    support   answers customers; on a cheaper model from the 15th, with two prompts side by side from the 19th
    triage    sorts tickets; from the 6th to the 9th half of them on a server of the shop's own, whose price nobody has told
    research  reads pages, and has a reader read others; on the 13th it goes in circles until max_cost stops it
    digest    sums up reviews at night; on the 8th it breaks down half way, and is started again with replay
    lab       a notebook with prompts to try, restarted and run from top to bottom once a week, with replay
    the 13th  the provider refuses requests in the afternoon; the 20th: a new shoe; the 22nd and 23rd: a slow warehouse
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from shop import (
    BAD_DAY,
    HAIKU,
    MINI,
    QUESTIONS,
    QWEN,
    SHOES,
    SONNET,
    START,
    Cast,
    Ledger,
    PlayedAgent,
    Script,
    World,
    one_answer,
    prose,
    research,
    support,
    triage,
)

from agentroute import RunStore, replay
from agentroute.events import AgentEnd
from agentroute.records import ScoreRecord
from agentroute.replays import Place, set_place

SHARES = {"support": 0.36, "research": 0.045, "digest": 0.14, "lab": 0.01}  # of all runs; triage has the rest
TENANTS = {"alpen": 0.42, "baltic": 0.31, "corvo": 0.18, "delta": 0.09}
OWN_SERVER, BREAKDOWN, CHEAPER, TWO_PROMPTS, LAUNCH = (6, 7, 8, 9), 8, 15, 19, 20
SESSIONS = ((1, 0), (5, 4), (8, 4), (12, 4), (19, 4), (26, 4))  # days and hours: everything is started again, in a new process
HOURS = (1, 1, 1, 1, 1, 2, 5, 9, 16, 22, 24, 23, 18, 20, 22, 21, 18, 15, 12, 10, 8, 6, 4, 2)  # how busy each hour is


# ---- the plan -------------------------------------------------------------------------------------------------------


@dataclass(order=True, frozen=True)
class Planned:
    """A run that somebody begins at a time of the month."""

    at_us: int
    kind: str
    number: int
    details: tuple[Any, ...] = ()


def plan(runs: int, seed: int) -> list[Planned]:
    """The runs of the month in order of time; with those that the readers will make there are `runs` of them."""
    dice, left = random.Random(f"{seed}/plan"), runs
    planned: list[Planned] = []
    usual = [0.35 if (START + timedelta(days=day)).weekday() >= 5 else 1.0 for day in range(31)]
    usual[LAUNCH - 1 : LAUNCH + 1] = 2.4, 1.5

    def some_time(day: int | None = None, hour: int | None = None) -> int:
        day = dice.choices(range(31), usual)[0] + 1 if day is None else day
        hour = dice.choices(range(24), HOURS)[0] if hour is None else hour
        return int(((day - 1) * 86_400 + hour * 3600 + dice.random() * 3400) * 1e6)

    def add(at_us: int, kind: str, *details: Any, count: int = 1) -> None:
        nonlocal left
        planned.append(Planned(at_us, kind, len(planned), details))
        left -= count

    def share(kind: str) -> int:
        return left - max(6, round(runs * SHARES[kind]))

    until = share("lab")
    for session, (day, _) in enumerate(SESSIONS):
        for cell in range((left - until) // (len(SESSIONS) - session)):
            add(some_time(day, 9) // 3_600_000_000 * 3_600_000_000 + cell * 30_000_000, "lab", cell, session)
    until = share("digest")
    nights = [*range(1, 32), BREAKDOWN]
    each = max(2, (left - until) // len(nights))
    for number, day in enumerate(nights):
        hour, count = (2, each // 2 if day == BREAKDOWN else each) if number < 31 else (6, each)
        for item in range(count):
            add(int(((day - 1) * 86_400 + hour * 3600) * 1e6) + item * 7_000_000, "digest", day, item)
    for _ in range(max(1, round(runs * 0.0003))):
        add(some_time(BAD_DAY, dice.randint(10, 16)), "research", 0, True)
    until = share("research")
    while left > until:
        readers = dice.randint(0, 4)
        add(some_time(), "research", readers, False, count=1 + readers)
    until = share("support")
    while left > until:
        start, length, customer = some_time(), min(dice.choice((1, 1, 1, 2, 2, 3, 4)), left - until), dice.getrandbits(40)
        for part in range(length):
            add(start + part * 180_000_000, "support", f"chat-{customer:010x}")
    while left > 0:
        add(some_time(), "triage")
    return sorted(planned)


# ---- the play -------------------------------------------------------------------------------------------------------


class Play:
    """One session of the month: a process, as it would be started in the morning."""

    def __init__(self, store: RunStore, ledger: Ledger, seed: int) -> None:
        self.seed, self.store, self.ledger = seed, store, ledger
        self.world = World(ledger)
        self.cast = Cast(self.world, store)
        self.place = Place()
        set_place(lambda: self.place)

    async def run(self, one: Planned) -> None:
        chooser = random.Random(f"{self.seed}/{one.details[0]}" if one.kind == "support" else f"{self.seed}/{one.number}")
        tenant = "" if one.kind in ("digest", "lab") else chooser.choices(list(TENANTS), list(TENANTS.values()))[0]
        self.world.begin(one.at_us, f"{self.seed}/{one.kind}/{one.number}", tenant)
        tags = {"tenant": tenant} if tenant else {}
        await getattr(self, f"_{one.kind}")(one, chooser, tags)

    async def _ask(self, agent: PlayedAgent, script: Script, prompt: str, *, stream: bool = False, **options: Any) -> AgentEnd:
        with self.world.playing(agent.name, script):
            async with aclosing(agent.events(prompt, stream=stream, **options)) as events:
                async for event in events:
                    end = event
        assert isinstance(end, AgentEnd)
        self.ledger.counts[f"run: {agent.name} {type(end.error).__name__ if end.error else 'ok'}"] += 1
        return end

    async def _support(self, one: Planned, chooser: random.Random, tags: dict[str, str]) -> None:
        world, order = self.world, chooser.randint(1000, 99_999)
        version = "v2" if world.day >= TWO_PROMPTS and chooser.random() < 0.5 else "v1"
        agent = self.cast.support[HAIKU if world.day >= CHEAPER else SONNET, version]
        prompt = world.dice.choice(QUESTIONS).format(order=order, shoe=chooser.choice(SHOES))
        script = support(world, version, order)
        tags = {**tags, "prompt_version": version}
        end = await self._ask(agent, script, prompt, stream=True, session_id=one.details[0], tags=tags)
        pleased = {"v1": 0.70, "v2": 0.80}[version] + (0.04 if world.day < CHEAPER else 0) + chooser.uniform(-0.15, 0.15)
        if end.error is None and world.chance(0.18):
            world.pass_s(60)
            helpful = world.chance(pleased)
            assert end.result.record is not None
            note = None if helpful else world.dice.choice((None, "That was not my question.", "Still no date."))
            said: dict[str, Any] = {"name": "helpful", "scorer": "customer", "value": float(helpful), "note": note}
            self.store.save_score(ScoreRecord(run_id=end.result.record.run.run_id, scored_at=world.now(), **said))
            self.ledger.counts[f"score: {version} {'helpful' if helpful else 'not'}"] += 1

    async def _triage(self, one: Planned, chooser: random.Random, tags: dict[str, str]) -> None:
        world, order = self.world, chooser.randint(1000, 99_999)
        model = QWEN if world.day in OWN_SERVER and chooser.random() < 0.5 else MINI
        prompt = world.dice.choice(QUESTIONS).format(order=order, shoe=chooser.choice(SHOES))
        await self._ask(self.cast.triage[model], triage(world, model, order), prompt, tags=tags)

    async def _research(self, one: Planned, chooser: random.Random, tags: dict[str, str]) -> None:
        script = research(self.world, *one.details)
        await self._ask(self.cast.research, script, f"What do buyers of {chooser.choice(SHOES)} complain about?", tags=tags)

    async def _digest(self, one: Planned, chooser: random.Random, tags: dict[str, str]) -> None:
        reviews = random.Random(f"{self.seed}/reviews/{one.details}")
        prompt = "\n".join(f"{shoe}: {prose(reviews, 30)}" for shoe in reviews.sample(SHOES, 4))
        await self._replayed(self.cast.digest, one_answer(self.world, 22), prompt)

    async def _lab(self, one: Planned, chooser: random.Random, tags: dict[str, str]) -> None:
        cell, session = one.details
        text = random.Random(f"{self.seed}/lab/{cell}")
        shoe, examples = text.choice(SHOES), prose(text, 400)
        draft = 1 + sum(text.random() < 0.12 for _ in range(session))  # a few cells are changed from week to week
        prompt = f"Draft {draft} of a mail to customers who have waited for their {shoe}. {examples}"
        self.place = Place(f"cell-{cell}", cell + 1, "prompt_lab.ipynb", f"cell-{cell}")
        await self._replayed(self.cast.lab, one_answer(self.world, 120), prompt)
        self.place = Place()

    async def _replayed(self, agent: PlayedAgent, script: Script, prompt: str) -> None:
        before = self.ledger.paid.get(prompt)
        if before is not None:
            self.ledger.saved += Decimal(before)
            self.ledger.counts["replayed"] += 1
        with replay("on"):
            await self._ask(agent, script, prompt)


def play(path: Path, runs: int, seed: int, session: int) -> None:
    """Makes the runs of one session."""
    bounds = [int(((day - 1) * 86_400 + hour * 3600) * 1e6) for day, hour in (*SESSIONS, (32, 0))]
    store, ledger = RunStore(path), Ledger(path.with_suffix(".json"))
    played = Play(store, ledger, seed)

    async def all_of_it() -> None:
        for one in plan(runs, seed):
            if bounds[session] <= one.at_us < bounds[session + 1]:
                await played.run(one)

    asyncio.run(all_of_it())
    ledger.save()
    store.close()


def make(file: Path, runs: int, seed: int) -> None:
    """Makes the month in a directory of its own; its file appears when it is whole."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f".{file.stem}-", dir=file.parent) as directory:
        made = Path(directory, "month.db")
        for session, (day, _) in enumerate(SESSIONS):
            options = ["--runs", str(runs), "--seed", str(seed), "--session", str(session)]
            subprocess.run([sys.executable, __file__, str(made), *options], check=True)
            end = f"{SESSIONS[session + 1][0]}" if session + 1 < len(SESSIONS) else "the end"
            print(f"October, from day {day} to {end}: {time.monotonic() - began:.0f} s", flush=True)
        os.replace(made, file)
        os.replace(made.with_suffix(".json"), file.with_suffix(".json"))
    print(f"{runs:,} runs in {file} ({file.stat().st_size / 1e6:.0f} MB, {file.stat().st_size / runs:,.0f} bytes a run)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--runs", type=int, default=50_000, help="default: 50,000")
    parser.add_argument("--seed", type=int, default=7, help="default: 7")
    parser.add_argument("--session", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    file = options.file.resolve()
    if options.session is not None:
        return play(file, options.runs, options.seed, options.session)
    if file.exists():
        parser.error(f"{file} exists; delete it, or give another name")
    if options.runs < 200:
        parser.error("--runs must be at least 200, so that everything happens")
    make(file, options.runs, options.seed)


if __name__ == "__main__":
    main()
