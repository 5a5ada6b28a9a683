"""What drawing a streamed run takes of one core: a card that is redrawn while an answer comes, a hundred deltas a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from agentroute.events import Event, TextDelta, TurnStart
from agentroute_ipython.card import Card
from agentroute_ipython.live import LiveView
from tests.benchmarks.measure import row

SECONDS, DELTAS_A_SECOND, CHARACTERS = 10, 100, 8_000
_PASSAGE = """## Where order {n} is

Order **{n}** is with *DHL* since Tuesday; the [tracking page](https://example.com/t/{n}) says `in transit`, and
it should be there by Thursday, two days later than we had said. I am sorry for the delay & the trouble it made.

| step | when | where |
|---|---|---|
| shipped | Monday | Leipzig |
| in transit | Tuesday | Köln |

- the shipping fee of $4.90 is paid back
- a second parcel with the <missing> part follows

```python
def refund(order_id: str, amount: float = 4.90) -> str:
    return f"refunded {{amount:.2f}} USD for {{order_id}}"
```

"""


class Publisher:
    """The shell of a kernel that keeps nothing but how often, and how much, it was given to send."""

    def __init__(self) -> None:
        self.kernel = self.display_pub = self
        self.times: list[float] = []
        self.sent = 0

    def publish(self, data: dict[str, str], metadata: dict[str, Any], *, transient: dict[str, str], update: bool) -> None:
        self.times.append(time.monotonic())
        self.sent += sum(map(len, data.values()))


def pieces() -> list[str]:
    """A Markdown answer as a model streams it."""
    text = "".join(_PASSAGE.format(n=n) for n in range(4821, 4850))[:CHARACTERS]
    size = len(text) // (SECONDS * DELTAS_A_SECOND)
    return [text[at : at + size] for at in range(0, len(text), size)]


def streamed(take: Callable[[Event], object]) -> float:
    """CPU seconds of this thread for a run of ten seconds whose events come by the clock."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        take(TurnStart(1))
        began = loop.time()
        for number, piece in enumerate(pieces()):
            await asyncio.sleep(began + number / DELTAS_A_SECOND - loop.time())
            take(TextDelta(piece, 1))

    began = time.thread_time()
    asyncio.run(run())
    return time.thread_time() - began


def drawing() -> None:
    """The floor folds the same events into a card that nobody sees."""
    floor = streamed(Card().apply)
    publisher = Publisher()
    view = LiveView(shell=publisher)
    view.show()
    value = streamed(view.update)
    seconds = [sum(start <= moment < start + 1 for moment in publisher.times) for start in publisher.times]
    share = (value - floor) / SECONDS * 100
    name = f"a streamed run at {DELTAS_A_SECOND} deltas a second, CPU a second"
    row(name, value / SECONDS * 1e3, floor / SECONDS * 1e3, f"drawing ≤ 2 % of a core; it is {share:.2f} %")
    row("its redraws in a second, at most", max(seconds), len(publisher.times) / SECONDS, "≤ 10", "")
    began = time.thread_time()
    view.close()
    row("its last redraw, CPU", (time.thread_time() - began) * 1e3, (value - floor) / len(publisher.times) * 1e3, "≤ 100 ms")


if __name__ == "__main__":
    drawing()
