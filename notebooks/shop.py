"""The shop of `month.py`: its models, which only play, its agents with their tools, and a second book of what they cost."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from agentroute import Agent, ErrorModelRateLimit, LLMChunk, LLMRequest, LLMResponse, Memory, Price, RunStore, ToolCall
from agentroute.models.base import fold
from agentroute.models.retry import ModelRetry

START = datetime(2026, 10, 1, tzinfo=UTC)
BAD_DAY, SLOW_WAREHOUSE = 13, (22, 23)

SONNET, HAIKU = "anthropic/claude-sonnet-4", "anthropic/claude-haiku-4.5"
MINI, FLASH, QWEN = "openai/gpt-5-mini", "google/gemini-2.5-flash", "qwen/qwen3-32b"
PRICES = {SONNET: Price(3, 15, 0.3), HAIKU: Price(1, 5, 0.1), MINI: Price(0.25, 2, 0.025), FLASH: Price(0.3, 2.5, 0.03)}
SPEED = {SONNET: (1.1, 60), HAIKU: (0.5, 140), MINI: (0.7, 110), FLASH: (0.4, 190), QWEN: (0.9, 35)}  # s to first text, tokens/s

SHOES = ("Alba", "Brio", "Corsa", "Duna", "Eira", "Fjell", "Gola", "Halo")
QUESTIONS = (
    "Where is order {order}? It should have come on Monday.",
    "The {shoe} from order {order} are too small. Can I have them in 43?",
    "One sole of my {shoe} came off after a week (order {order}). I would like my money back.",
    "I have paid twice for order {order}, please look.",
    "Can I still change the address of order {order}?",
    "My {shoe} squeak when it rains. Is that normal? Order {order}.",
)
RULES = (
    "You answer customers of a shop for running shoes, in two or three plain sentences.",
    "Look an order up before you say anything about it; never guess a date.",
    "Returns are free for 30 days after delivery, worn or not. After that, only what is broken is taken back.",
    "A refund goes to the card that paid, within five working days; never promise another way.",
    "Do not offer vouchers. Do not discuss other shops, politics or the weather.",
    "Give the order's number in every answer, so that the customer can find the mail again.",
)
MORE_RULES = (
    "When an order is late, say so first, then when it comes, then what you have done about it.",
    "If the number is missing, look it up with the customer's mail address instead of asking for it.",
    "When something is broken, refund it at once; do not ask for a picture.",
    "Example. Customer: Where is 4821? You: Order 4821 is two days late and arrives on Thursday. I have refunded the shipping.",
    "Example. Customer: The sole came off. You: I am sorry. Order 7310 is refunded to your card, and you may keep the shoes.",
    "Close with what happens next, and by when; never with a question.",
)
REVIEW = (
    "the cushion of this shoe keeps its shape after four hundred kilometres while the heel wears on wet stone and most "
    "runners in our survey would buy it again although a third of them found the sizes small and the colours dull"
)

Script = Generator[Any, LLMRequest, None]  # yields Answers, is sent requests


@dataclass
class Answer:
    """What a model says: a text or calls of tools, and how many tokens it has thought."""

    text: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    thought: int = 0


def call(name: str, **arguments: Any) -> Answer:
    return Answer(calls=[ToolCall(f"call_{name}", name, json.dumps(arguments))])


def tokens_in(text: str) -> int:
    return len(text) // 4 + 1


def prose(dice: random.Random, words: int) -> str:
    return " ".join(dice.choices(REVIEW.split(), k=words)).capitalize() + "."


# ---- the second book ------------------------------------------------------------------------------------------------


class Ledger:
    """What the models have charged and what has come of the runs, counted where it happens and not read from the history."""

    COLUMNS = (
        "day", "agent", "tenant", "model",
        "calls", "input_tokens", "output_tokens", "cached_input_tokens", "cost_usd", "unknown_cost_calls",
    )  # fmt: skip

    def __init__(self, path: Path) -> None:
        self.path = path
        nothing: dict[str, Any] = {"calls": [], "counts": {}, "paid": {}, "saved_usd": "0"}
        known = json.loads(path.read_text()) if path.exists() else nothing
        self.calls = {tuple(row[:4]): [*row[4:8], Decimal(row[8]), row[9]] for row in known["calls"]}
        self.counts: Counter[str] = Counter(known["counts"])
        self.paid: dict[str, str] = known["paid"]  # what an answer that will be replayed has cost, by prompt
        self.saved = Decimal(known["saved_usd"])

    def charge(self, key: tuple[str, str, str, str], tokens: tuple[int, int, int], cost: Decimal | None) -> None:
        row = self.calls.setdefault(key, [0, 0, 0, 0, Decimal(0), 0])
        for place, more in enumerate((1, *tokens, cost or 0, cost is None)):
            row[place] += more

    def save(self) -> None:
        rows = [[*key, *row[:4], str(row[4]), row[5]] for key, row in sorted(self.calls.items())]
        counts = dict(sorted(self.counts.items()))
        book = {"columns": self.COLUMNS, "calls": rows, "counts": counts, "paid": self.paid, "saved_usd": str(self.saved)}
        self.path.write_text(json.dumps(book))


# ---- the world ------------------------------------------------------------------------------------------------------


class World:
    """The clock, the dice and the scripts of the run that goes on right now."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.begin(0, "", "")

    def begin(self, at_us: int, seed: str, tenant: str) -> None:
        self.now_us, self.dice, self.tenant = at_us, random.Random(seed), tenant
        self.day, self.hour = at_us // 86_400_000_000 + 1, at_us // 3_600_000_000 % 24  # of the start
        self.scripts: list[tuple[str, Script]] = []  # the innermost run's is the last

    def now(self) -> datetime:
        return START + timedelta(microseconds=self.now_us)

    def monotonic(self) -> float:
        return self.now_us / 1_000_000

    def new_id(self) -> str:
        number = (int(START.timestamp() * 1000) + self.now_us // 1000) << 80 | self.dice.getrandbits(80)
        return "".join("0123456789ABCDEFGHJKMNPQRSTVWXYZ"[number >> shift & 31] for shift in range(125, -1, -5))

    def pass_s(self, seconds: float) -> None:
        self.now_us += int(seconds * 1_000_000)

    async def sleep(self, seconds: float) -> None:
        self.pass_s(seconds)

    def chance(self, share: float) -> bool:
        return self.dice.random() < share

    @contextmanager
    def playing(self, agent: str, script: Script) -> Iterator[None]:
        next(script)  # up to its first request
        self.scripts.append((agent, script))
        yield
        self.scripts.pop()[1].close()


class PlayedModel:
    """Says what the script of the run says, and charges for it. Where it has a price and `tells`, its answers tell their cost."""

    def __init__(self, world: World, model_id: str, *, tells: bool = True) -> None:
        self.world, self.model_id, self.tells = world, model_id, tells and model_id in PRICES
        self.base_url = "http://gpu.shoes.internal:8000/v1" if model_id == QWEN else "http://gateway.shoes.internal/v1"
        self.replay_identity = [self.base_url, model_id]
        if self.tells:
            self.price = PRICES[model_id]

    async def complete(self, request: LLMRequest) -> LLMResponse:
        return await fold(self, request)

    async def complete_stream(self, request: LLMRequest) -> AsyncIterator[LLMChunk]:
        world, (first_s, tokens_per_s) = self.world, SPEED[self.model_id]
        agent, script = world.scripts[-1]
        if agent in ("support", "triage") and world.day == BAD_DAY and 14 <= world.hour < 17 and world.chance(0.55):
            world.pass_s(0.2)
            raise ErrorModelRateLimit("429 Too Many Requests: more than 50 requests a minute", status=429, retry_after_s=6.0)
        answer = script.send(request)
        world.pass_s(first_s * world.dice.lognormvariate(0, 0.35))
        response = self._response(request, agent, answer)
        if answer.text:
            yield LLMChunk(delta=answer.text)
        world.pass_s(response.usage["completion_tokens"] / tokens_per_s)
        yield LLMChunk(done=True, response=response)

    async def close(self) -> None:
        """Nothing to close."""

    def _response(self, request: LLMRequest, agent: str, answer: Answer) -> LLMResponse:
        world, messages = self.world, request.messages
        prompt = sum(tokens_in(message.text) + 30 * len(message.tool_calls or ()) for message in messages)
        prompt += 110 * len(request.tools or ())
        output = tokens_in(answer.text) + sum(tokens_in(one.arguments_text) + 12 for one in answer.calls) + answer.thought
        went_on = any(message.role == "assistant" for message in messages)
        again = agent == "support" and went_on and world.chance(0.9)  # the provider knows the beginning
        cached = (prompt - tokens_in(messages[-1].text)) // 128 * 128 if again else 0
        usage: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": output}
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
        usage["completion_tokens_details"] = {"reasoning_tokens": answer.thought}
        cost = PRICES[self.model_id].cost(prompt, output, cached) if self.model_id in PRICES else None
        if self.tells and cost is not None:
            usage["cost"] = float(cost)
        world.ledger.charge((f"2026-10-{world.day:02}", agent, world.tenant, self.model_id), (prompt, output, cached), cost)
        if agent in ("lab", "digest"):
            world.ledger.paid.setdefault(request.messages[-1].text, str(cost))
        calls, name = [one.to_wire() for one in answer.calls], f"gen-{world.dice.getrandbits(40):010x}"
        return LLMResponse(answer.text or None, calls, usage, self.model_id, "tool_calls" if calls else "stop", id=name)


class PlayedAgent(Agent[Any]):
    """An agent whose runs happen in the world's time."""

    world: World

    def _spec(self, *given: Any, **options: Any) -> Any:
        world = self.world
        return replace(super()._spec(*given, **options), now=world.now, monotonic=world.monotonic, new_id=world.new_id)


# ---- the agents -----------------------------------------------------------------------------------------------------


@dataclass
class Ticket:
    """A customer's message, sorted."""

    topic: Literal["delivery", "refund", "size", "other"]
    urgent: bool
    order: int


class Cast:
    """The shop's agents, with their tools."""

    def __init__(self, world: World, store: RunStore) -> None:
        self.world = world
        dice = random.Random("the shop")
        self.pages = [prose(dice, dice.randint(700, 1300)) for _ in range(80)]
        memory = Memory()
        catalogue = f"The catalogue: {prose(dice, 900)}"
        rules = {"v1": " ".join([*RULES, catalogue]), "v2": " ".join([*RULES, *MORE_RULES, catalogue])}
        orders = [self.order_status, self.refund]
        self.support = {
            (model, version): self._agent("support", model, store, instructions=text, tools=orders, memory=memory, max_cost=0.5)
            for model in (SONNET, HAIKU)
            for version, text in rules.items()
        }
        sort = "Sort the customer's message: what it is about, whether it is urgent, and which order it names."
        self.triage = {
            model: self._agent("triage", model, store, instructions=sort, output=Ticket, output_mode="tool", retries=2)
            for model in (MINI, QWEN)
        }
        read = "Find out what the pages say about the question. Name the page for everything you say."
        pages = [self.search, self.fetch_page, self.ask_reader]
        self.research = self._agent("research", SONNET, store, instructions=read, tools=pages, max_turns=80, max_cost=4.0)
        self.reader = self._agent("reader", FLASH, store, instructions="Answer from this one page.", tools=[self.fetch_page])
        sum_up = "Sum up these reviews in one sentence for the buyers."
        night = {"price": PRICES[FLASH], "tags": {"job": "nightly"}}
        self.digest = self._agent("digest", FLASH, store, tells=False, instructions=sum_up, **night)
        self.lab = self._agent("lab", SONNET, store, instructions=rules["v2"])

    def _agent(self, name: str, model_id: str, store: RunStore, *, tells: bool = True, **settings: Any) -> PlayedAgent:
        world = self.world
        model = ModelRetry(PlayedModel(world, model_id, tells=tells), sleep=world.sleep, random=lambda: world.dice.random())
        agent = PlayedAgent(name, model=model, store=store, **settings)
        agent.world = world
        return agent

    async def order_status(self, order: int) -> str:
        """Looks up where an order is."""
        slow = self.world.day in SLOW_WAREHOUSE
        self.world.pass_s(self.world.dice.lognormvariate(0.9 if slow else -1.2, 0.4))
        if self.world.chance(0.3 if slow else 0.02):
            self.world.ledger.counts["tool error: order_status"] += 1
            raise TimeoutError("the warehouse did not answer within 5 s")
        return f"Order {order}: left the warehouse on Tuesday with DHL, arrives on Friday, 2 pairs, {40 + order % 90}.90 EUR."

    async def refund(self, order: int, amount: float) -> str:
        """Pays an order, or a part of it, back."""
        self.world.pass_s(0.3)
        return f"{amount:.2f} EUR of order {order} are refunded to the card that paid."

    async def search(self, query: str) -> str:
        """Finds pages."""
        self.world.pass_s(0.4)
        return "\n".join(f"page {self.world.dice.randrange(80)}: {prose(self.world.dice, 12)}" for _ in range(5))

    async def fetch_page(self, page: int) -> str:
        """Reads a page."""
        self.world.pass_s(self.world.dice.lognormvariate(0.2, 0.4))
        if self.world.chance(0.04):
            self.world.ledger.counts["tool error: fetch_page"] += 1
            raise ConnectionError("503 Service Unavailable")
        return self.pages[page]

    async def ask_reader(self, page: int, question: str) -> str:
        """Has a reader find the answer to a question in a page."""
        with self.world.playing("reader", reader(page)):
            return str((await self.reader.arun(f"Page {page}: {question}")).output)


# ---- what the models say --------------------------------------------------------------------------------------------


def failed(request: LLMRequest) -> bool:
    return request.messages[-1].text.startswith(("Error", "The arguments do not fit"))


def support(world: World, version: str, order: int) -> Script:
    request = yield None
    if world.chance(0.22 if version == "v1" else 0.06):
        yield Answer("I am glad to help. Could you please give me the number of the order, and the mail address you have used?")
        return
    if world.chance(0.85):
        for _ in range(3):
            request = yield call("order_status", order=order)
            if not failed(request):
                break
        if world.chance(0.25 if version == "v1" else 0.32):
            if world.chance(0.12):  # as the language of the customer has it
                world.ledger.counts["tool error: refund"] += 1
                request = yield call("refund", order=order, amount="19,90 EUR")
            yield call("refund", order=order, amount=19.9)
    yield Answer(f"Order {order} is on its way and arrives on Friday. {prose(world.dice, 25 if version == 'v1' else 20)}")


def triage(world: World, model: str, order: int) -> Script:
    yield None
    for _ in range(5):
        wrong = world.chance(0.2 if model == QWEN else 0.03)
        topic = "late parcel" if wrong else world.dice.choice(("delivery", "refund", "size", "other"))
        answer = call("final_answer", topic=topic, urgent=world.chance(0.2), order=order)
        yield replace(answer, thought=int(world.dice.expovariate(1 / 60)))


def research(world: World, readers: int, circles: bool) -> Script:
    request = yield None
    yield call("search", query=prose(world.dice, 5))
    for _ in range(readers):
        yield call("ask_reader", page=world.dice.randrange(80), question=prose(world.dice, 8))
    for _ in range(200 if circles else world.dice.randint(2, 11)):
        page = 13 if circles else world.dice.randrange(80)
        request = yield call("fetch_page", page=page)
        if failed(request):
            yield call("fetch_page", page=page)
    yield Answer(prose(world.dice, 180), thought=300)


def reader(page: int) -> Script:
    yield None
    yield call("fetch_page", page=page)
    yield Answer(f"Page {page} says that the sizes run small.")


def one_answer(world: World, words: int) -> Script:
    yield None
    yield Answer(prose(world.dice, words))
