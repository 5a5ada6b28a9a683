from agentroute import Agent, ErrorConfig, HistorySlidingWindow, Memory
from agentroute.testing import ModelScripted
from agentroute_ipython.tables import Table, agents_table, settings_table


def order_status(order_id: str) -> str:
    return "shipped"


class Loud:
    def __repr__(self) -> str:
        return "Loud(key='sk-secret')"

    async def compact(self, messages: list[object], token_budget: int | None = None) -> list[object]:
        return messages


def test_plain_table_is_aligned_and_keeps_lines_in_their_column() -> None:
    assert repr(Table([("a", "one\ntwo"), ("long", "")], ("x", "y"))) == "x     y\na     one\n      two\nlong"


def test_figures_stand_to_the_right() -> None:
    table = Table([("a", "1,000", "x", "9"), ("b", "5", "y", "10")], ("n", "tokens", "w", "c"), (1, 3))
    assert repr(table) == "n  tokens  w   c\na   1,000  x   9\nb       5  y  10"


def test_html_is_escaped() -> None:
    assert "<b>" not in Table([("<b>", "<b>")], ("<b>",))._repr_html_()
    assert "a<br>b" in Table([("x", "a\nb")])._repr_html_()


def test_dollar_signs_are_kept_from_mathjax() -> None:
    table = Table([("instructions", "Refund $5 at once, $50 when asked.")])
    assert table._repr_html_().startswith('<table class="mathjax_ignore tex2jax_ignore"><tbody>')


def test_settings_that_no_cell_says_any_more_are_named() -> None:
    rows = settings_table(Agent("bot", model="m", max_cost=0.5), "cell", ["max_cost"]).rows
    assert rows[-1] == ("kept", "max_cost: from an earlier run of the cell, which does not say so any more; not in a restarted notebook")


def test_agents_are_listed_with_model_tools_and_instructions() -> None:
    agents = {
        "bot": (Agent("bot", model="m", tools=[order_status], instructions="Be\nbrief."), "cell"),
        "gone": (ErrorConfig("no type called Invoice"), "cell"),
        "s": (Agent("s", model=ModelScripted([])), "variable"),
    }
    assert repr(agents_table(agents)).splitlines() == [
        "agent  model                     tools         instructions            defined by",
        "bot    m                         order_status  Be brief.               cell",
        "gone                                           no type called Invoice  cell",
        "s      scripted (ModelScripted)                                        variable",
    ]


def test_settings_are_those_that_are_set() -> None:
    agent = Agent(
        "bot", model="m", instructions="Be\nbrief.", tools=[order_status], output=int, max_cost=0.25, memory=Memory(),
        history=HistorySlidingWindow(5),
    )  # fmt: skip
    rows = dict(settings_table(agent, "cell").rows)
    assert rows.pop("memory").startswith("Memory")
    assert rows == {
        "agent": "bot", "defined by": "cell", "model": "m", "instructions": "Be\nbrief.", "tools": "order_status",
        "output": "int", "max_turns": "10", "max_cost": "0.25", "retries": "1", "history": "HistorySlidingWindow(window_size=5)",
    }  # fmt: skip


def test_no_key_is_shown() -> None:
    agent = Agent(
        "bot", model="https://me:sk-secret@host/v1/m", api_key="sk-secret", base_url="https://sk-secret@host/v1", history=Loud()
    )
    tables = (agents_table({"bot": (agent, "cell")}), settings_table(agent, "cell"))
    shown = "".join(repr(table) + table._repr_html_() for table in tables)
    assert "sk-secret" not in shown
    assert "https://…@host/v1/m" in shown


def test_text_that_cannot_be_seen_is_made_visible() -> None:
    agent = Agent("bot", model="m\x1b[2J", instructions="a\u202eb")
    shown = repr(settings_table(agent, "cell"))
    assert "\x1b" not in shown
    assert "\u202e" not in shown
