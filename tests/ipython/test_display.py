import json
import math
import re
import unicodedata
from collections.abc import AsyncGenerator
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from agentroute import ErrorMaxTurns, LLMChunk, LLMRequest, Result, ToolCall
from agentroute.errors import ErrorInterrupted, ErrorModelConnection, ErrorModelServer
from agentroute.events import AgentEnd, ReasoningDelta, TextDelta, ToolCallEnd, ToolCallStart, TurnEnd, TurnStart
from agentroute.figures import cost_text, seconds_text
from agentroute.records import Record, TurnRecord
from agentroute.testing import ModelScripted
from agentroute_ipython import timeline
from agentroute_ipython.card import Card
from agentroute_ipython.comparison_style import COMPARISON_STYLE, DIFFERENCE_STYLE
from agentroute_ipython.display import to_html, to_text, usage_line
from agentroute_ipython.formats import one_line, visible
from agentroute_ipython.style import SHEET_STYLE, STYLE
from tests.ipython.sample_runs import ANSWER, LOOK, MODEL, START, STORY, asks, call, card, ended, events, says, turn

# Everything a card may consist of. Attributes have few values, all of them ours but for the target of a link.
TAGS = {
    "section", "style", "p", "br", "wbr", "div", "details", "summary", "b", "i", "em", "s", "span", "code", "pre", "a",
    "table", "caption", "thead", "tbody", "tr", "th", "td", "ul", "ol", "li", "blockquote", "hr",
}  # fmt: skip
ATTRIBUTES = {
    "class": {
        "agr-answer", "agr-answer agr-asking", "agr-error", "agr-run", "agr-steps", "agr-turn", "agr-output", "agr-state", "agr-dim", "agr-bad", "agr-busy",
        "agr-table", "agr-tree", "agr-h",
        *(f"agr agr-{state} mathjax_ignore tex2jax_ignore" for state in ("running", "done", "failed", "interrupted")),
    },
    "style": {
        "text-align:left", "text-align:right", "text-align:center", "text-align:left;font-weight:normal", "white-space:pre-wrap;overflow-wrap:anywhere",
        *(f"width:{number}%" for number in range(1, 101)),
    },
    "scope": {"row", "col"},
    "colspan": {str(number) for number in range(1, 13)},
    "start": {str(number) for number in range(1000)},
    "dir": {"auto"},
    "open": {None},
    "rel": {"noopener noreferrer"},
}  # fmt: skip
VOID = {"br", "wbr", "hr"}


def strange(parts: "Page") -> list[tuple[str, str | None]]:
    """The attributes that a card never has."""
    known = [pair for pair in parts.attributes if pair[0] != "href"]
    links = [pair for pair in parts.attributes if pair[0] == "href" and not re.fullmatch(r"(https?://|mailto:)[!-~]+", pair[1] or "", re.I)]
    return [pair for pair in known if pair[1] not in ATTRIBUTES.get(pair[0], ())] + links


class Page(HTMLParser):
    """A card taken apart: tags in order, attributes, and the texts of each tag without the style sheet."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: dict[str, list[str]] = {}
        self.strange: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == [], "every tag is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.texts.setdefault(tag, []).append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            for tag in set(self._open):
                self.texts[tag][-1] += data

    def handle_comment(self, data: str) -> None:
        self.strange.append(data)

    handle_decl = handle_pi = unknown_decl = handle_comment

    @property
    def text(self) -> str:
        return self.texts["section"][0].replace("\xa0", " ").strip()

    @property
    def summary(self) -> str:
        """The usage line; while the run goes on, nothing opens and it stands in a part of its own."""
        parts = [*self.texts.get("summary", ()), *self.texts.get("div", ())]
        return next(text for text in parts if text.startswith("support")).replace("\xa0", " ").partition("\n")[0]


def page(shown: Card) -> Page:
    return Page(to_html(shown))


# ---------------------------------------------------------------------------------------------------- what is shown


def test_answer_comes_first_and_usage_below_it() -> None:
    shown = page(card())
    assert shown.texts["p"] == ANSWER.split("\n\n")
    assert shown.text.index("refunded the $4.90") < shown.text.index("support · done")
    assert "done · 3 model calls · 2 tool calls · 1,400 tokens in / 180 out · $0.0070" in shown.summary
    assert shown.summary.endswith(MODEL)


def test_timeline_lists_turns_and_calls_in_order() -> None:
    rows = page(card()).texts["tr"]
    starts = ["Step", "Turn 1", 'order_status(order_id="4821")', "Turn 2", 'refund(order_id="4821", amount=4.9)', "Turn 3"]
    assert [row[: len(start)] for row, start in zip(rows, starts, strict=True)] == starts
    assert "tool callsLet me look." in rows[1] and "40050$0.0020" in rows[1]
    assert '→ {"status":"shipped","carrier":"DHL","days_late":2}' in rows[2]
    assert "→ refunded 4.90 USD" in rows[4]
    assert "answer" in rows[5] and "60080$0.0030" in rows[5]


def test_timeline_is_closed_when_done_and_open_when_failed() -> None:
    failed = ended([turn(1, error_type="ErrorModelServer")], error=ErrorModelServer("overloaded"), status="error")
    assert [("open", None) in page(shown).attributes for shown in (card(), failed)] == [False, True]


def test_nothing_opens_while_the_run_goes_on_as_a_redraw_would_close_it() -> None:
    shown = ended([turn(1), turn(2)], [call(1, 1, arguments_text=json.dumps({"q": "why " * 100}), result_text="two\nlines")])
    shown.apply(ReasoningDelta("hm " * 500, 1))
    assert page(shown).tags.count("details") == 4
    shown.state = "running"
    assert "details" not in page(shown).tags
    assert page(shown).texts["code"] == ['search(q="' + "why " * 14 + "why…", "two lines"]
    assert len(page(shown).texts["th"][5]) < 200


def test_running_call_is_there_as_it_starts() -> None:
    shown = page(card(until=lambda event: isinstance(event, ToolCallStart)))
    assert shown.texts["tr"][-1] == 'order_status(order_id="4821")running'
    assert "support · running · 1 model call · 1 tool call" in shown.summary
    assert shown.texts["p"] == ["Let me look."]


def test_streaming_answer_is_shown_as_far_as_it_came() -> None:
    answer = says("one two three four")
    shown = page(card([answer], until=lambda event: isinstance(event, TextDelta) and event.delta.endswith("two ")))
    assert shown.texts.get("p") in (None, ["one two"]) and "running" in shown.summary
    whole = page(card([answer], until=lambda event: isinstance(event, TurnEnd)))
    assert whole.texts["p"] == ["one two three four"]


def test_failure_shows_error_first_and_what_came_before_it() -> None:
    shown = card([LOOK, ErrorModelServer("the provider answered 502", status=502)])
    assert page(shown).texts["p"][0] == "ErrorModelServer the provider answered 502"
    assert "failed · 2 model calls · 1 tool call" in page(shown).summary
    assert page(shown).texts["tr"][-1].startswith("Turn 2 failed")
    assert page(shown).text.count("ErrorModelServer") == 1
    assert to_text(shown).splitlines()[-2] == "ErrorModelServer: the provider answered 502"


def test_failed_tool_call_says_so() -> None:
    shown = page(card([asks(ToolCall("1", "no_such_tool", {})), says("Sorry.")]))
    assert "error: UnknownTool" in shown.texts["tr"][2]
    assert "1 tool call (1 failed)" in shown.summary


def test_interruption_is_no_alarm_and_keeps_the_partial_answer() -> None:
    shown = card(STORY, until=lambda event: isinstance(event, ToolCallStart))
    shown.apply(
        AgentEnd(
            Result(None, interrupted=True, record=Record(shown.run, shown.turns, shown.tool_calls)), ErrorInterrupted("stopped")
        )
    )
    assert page(shown).texts["p"] == ["Interrupted stopped", "Let me look."]
    assert to_text(shown).splitlines()[-2] == "Interrupted: stopped"
    shown.calls[1, 1].error_type = shown.turns[-1].error_type = "ErrorInterrupted"
    assert "ErrorInterrupted" not in page(shown).text + to_text(shown)
    assert page(shown).texts["tr"][1].startswith("Turn 1 interrupted")
    assert "interrupted" in page(shown).texts["tr"][-1] and "running" not in page(shown).text


def test_reasoning_fills_the_card_until_text_comes_and_opens_afterwards() -> None:
    shown = Card().apply(TurnStart(1)).apply(ReasoningDelta("The user wants ", 1)).apply(ReasoningDelta("an order.", 1))
    assert page_text(shown).startswith("The user wants an order.")
    shown.apply(TextDelta("It is", 1))
    assert page_text(shown).startswith("It is")
    done = ended([turn(1, finish_reason="stop")])
    done._reasoning = shown._reasoning
    assert done.reasoning == "The user wants an order."
    assert "reasoningThe user wants an order." in page(done).texts["tr"][1]


def page_text(shown: Card) -> str:
    return Page(to_html(shown)).text


def test_structured_answer_is_a_table_of_its_fields() -> None:
    class Invoice(BaseModel):
        number: str
        total: float
        lines: list[dict[str, int]]

    @dataclass
    class Point:
        x: int

    shown = page(ended([turn(1)], output=Invoice(number="INV-42", total=199.0, lines=[{"n": 2}])))
    assert shown.texts["tr"][:3] == ["numberINV-42", "total199.0", 'lines[{"n": 2}]']
    assert page(ended([turn(1)], output=Point(3))).texts["tr"][0] == "x3"
    assert page(ended([turn(1)], output=[1, {"a": None}])).texts["tr"][:2] == ["01", '1{"a": null}']
    assert page(ended([turn(1)], output=[])).texts["p"] == ["[]"]
    assert page(ended([turn(1)], output=42)).texts["p"] == ["42"]
    assert page(ended([turn(1)], output=False)).texts["p"] == ["false"]


def test_output_that_cannot_be_read_is_drawn_all_the_same() -> None:
    class Bad:
        def model_dump(self, mode: str) -> Any:
            raise RuntimeError

        def __str__(self) -> str:
            raise RuntimeError

    loop: list[Any] = []
    loop.append(loop)
    assert "Bad" in page(ended([turn(1)], output=Bad())).text
    assert "[...]" in page(ended([turn(1)], output=loop)).text


def test_run_inside_a_tool_counts_towards_the_cost() -> None:
    shown = page(ended([turn(1, cost_usd=0.002)], [call(1, 1, cost_usd=0.003)], cost_usd=0.002))
    assert "$0.0050" in shown.summary
    assert shown.texts["tr"][2].endswith("$0.00300.2 s")


def test_answering_model_is_named_where_it_is_another() -> None:
    shown = page(ended([turn(1, response_model=MODEL), turn(2, response_model="other/model")]))
    assert "·" not in shown.texts["tr"][1]
    assert "· other/model" in shown.texts["tr"][2]


@pytest.mark.parametrize(
    ("finish", "words"),
    [("length", "done, cut off at the token limit"), ("content_filter", "done, stopped by the content filter"), ("stop", "done")],
)
def test_answer_that_is_not_whole_says_so_in_every_form(finish: str, words: str) -> None:
    shown = ended([turn(1, finish_reason="length"), turn(2, finish_reason=finish)], output="Half an ans")
    assert page(shown).summary.startswith(f"support · {words} · 2 model calls")
    assert usage_line(shown).startswith(f"{words}, 2 model calls")
    assert to_text(shown).splitlines()[-1].startswith(f"{words}, 2 model calls")
    assert ("agr-state" in page_classes(shown)) == (words == "done")


def test_empty_answer_says_so() -> None:
    for shown in (card([says("")]), ended([turn(1, finish_reason="stop")], output=" ")):
        assert page(shown).summary.startswith("support · done, empty answer · 1 model call")
        assert to_text(shown).startswith("done, empty answer, 1 model call")
    assert usage_line(ended([turn(1)], output=[])).startswith("done, 1 model call")


def test_cursor_stands_only_while_the_model_is_asked() -> None:
    states = {kind: card(until=lambda event, kind=kind: isinstance(event, kind)) for kind in (TextDelta, TurnEnd, ToolCallStart)}
    assert {kind: "agr-answer agr-asking" in page_classes(shown) for kind, shown in states.items()} == {
        TextDelta: True, TurnEnd: False, ToolCallStart: False,
    }  # fmt: skip
    assert "agr-answer agr-asking" not in page_classes(card())
    assert "agr-answer agr-asking" in page_classes(states[ToolCallStart].apply(TurnStart(2)))


def page_classes(shown: Card) -> list[str | None]:
    return [value for name, value in page(shown).attributes if name == "class"]


# ---------------------------------------------------------------------------------------------------------- figures


def test_unknown_cost_is_never_zero() -> None:
    shown = card([asks(ToolCall("1", "order_status", {"order_id": "1"}), cost=None), says("Done.", cost=None)])
    assert "cost unknown" in page(shown).summary and "$" not in page(shown).text
    assert "cost unknown" in usage_line(shown) and "$" not in to_text(shown)


def test_partly_known_cost_is_a_least_cost() -> None:
    shown = card([asks(ToolCall("1", "order_status", {"order_id": "1"}), cost=None), says("Done.", cost=0.003)])
    assert "at least $0.0030" in usage_line(shown)


def test_refused_request_leaves_the_cost_known() -> None:
    shown = ended([turn(1, cost_usd=0.002), turn(2, error_type="ErrorModelServer")], cost_usd=0.002, status="error")
    assert "$0.0020" in usage_line(shown) and "at least" not in usage_line(shown)


def test_free_run_costs_nothing() -> None:
    shown = ended([turn(1, cost_usd=0.0, input_tokens=10, output_tokens=5)], cost_usd=0.0, input_tokens=10, output_tokens=5)
    assert usage_line(shown) == f"done, 1 model call, 10 tokens in / 5 out, $0, 3.1 s, {MODEL}"


def replayed(index: int, saved: float | None = 0.004, **fields: Any) -> TurnRecord:
    paid = {"cost_usd": 0.0, "cost_saved_usd": saved, "replayed_from": "01", "duration_s": 0.7, "input_tokens": 400, "output_tokens": 50}
    return turn(index, **{**paid, **fields})


SECONDS = re.compile(r"\d (ms|s|min)\b")


def test_replayed_run_says_what_it_saved() -> None:
    known = {"cost_usd": 0.0, "input_tokens": 800, "output_tokens": 100, "duration_s": 3.1}
    card = ended([replayed(1), replayed(2)], **known)
    assert usage_line(card) == f"done, 2 model calls, 800 tokens in / 100 out, replayed, saved $0.0080, {MODEL}"
    card = ended([replayed(1), replayed(2, None)], **known)
    assert "replayed, saved at least $0.0040, " in usage_line(card)
    card = ended([replayed(1, None)], **known)
    assert ", replayed, anthropic" in usage_line(card)


def test_partly_replayed_run_says_how_much_of_it_was() -> None:
    paid = turn(2, cost_usd=0.01, duration_s=1.5)
    card = ended([replayed(1), paid], cost_usd=0.01, input_tokens=1, output_tokens=1)
    assert ", $0.0100, 1 of 2 replayed, saved $0.0040, 3.1 s, " in usage_line(card)
    assert to_html(card).count("· replayed") == 1
    assert "1.5 s" in to_html(card)
    assert "700 ms" not in to_html(card)  # how long it took to find an answer says nothing


def test_replayed_run_shows_no_seconds() -> None:
    card = ended([replayed(1, finish_reason="tool_calls"), replayed(2)], [call(1, 1, cost_usd=0.0)], cost_usd=0.0)
    assert not SECONDS.search(to_html(card).partition("</style>")[2])
    assert not SECONDS.search(to_text(card))
    paid = ended([turn(1, cost_usd=0.01), replayed(2)], [call(1, 1)], cost_usd=0.01)
    assert SECONDS.search(to_html(paid).partition("</style>")[2])
    assert "-> found, 0.2 s" in to_text(paid)


def test_what_was_paid_inside_a_tool_is_told_beside_what_was_saved() -> None:
    card = ended([replayed(1)], [call(1, 1, cost_usd=0.02)], cost_usd=0.0, input_tokens=1, output_tokens=1)
    assert ", $0.0200, replayed, saved $0.0040, " in usage_line(card)


def test_what_was_saved_inside_a_tool_is_told_with_the_rest() -> None:
    card = ended([replayed(1)], [call(1, 1, cost_usd=0.0, cost_saved_usd=0.02)], cost_usd=0.0, input_tokens=1, output_tokens=1)
    assert ", replayed, saved $0.0240, " in usage_line(card)
    asked = ended([turn(1, cost_usd=0.01)], [call(1, 1, cost_usd=0.0, cost_saved_usd=0.02)], cost_usd=0.01)
    assert ", $0.0100, saved $0.0200 inside tools, " in usage_line(asked)


def test_request_that_replay_refused_cost_nothing() -> None:
    card = ended([turn(1, error_type="ErrorReplay")], output=None, status="error", error_type="ErrorReplay")
    assert "cost unknown" not in usage_line(card)


@pytest.mark.parametrize(
    ("cost", "text"),
    [
        (None, "cost unknown"), (float("nan"), "cost unknown"), (-1.0, "cost unknown"), (0.0, "$0"), (0.000042, "$0.000042"),
        (0.00009999, "$0.00010"), (0.004, "$0.0040"), (0.25344, "$0.2534"), (1.0, "$1.00"), (1234.5, "$1,234.50"),
        (3e-7, "$0.00000030"), (1e-12, "under $0.000000001"),
    ],
)  # fmt: skip
def test_cost_keeps_its_significant_digits(cost: float | None, text: str) -> None:
    assert cost_text(cost) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0.0, "0 ms"),
        (0.087, "87 ms"),
        (0.212, "0.2 s"),
        (3.14, "3.1 s"),
        (99.96, "1 min 40 s"),
        (12000, "3 h 20 min"),
    ],
)
def test_duration_is_read_at_a_glance(seconds: float | None, text: str) -> None:
    assert seconds_text(seconds) == text


# --------------------------------------------------------------------------------------------------------------- bars


def at(seconds: float) -> dict[str, Any]:
    return {"started_at": START + timedelta(seconds=seconds)}


def bars(shown: Card) -> list[list[str]]:
    """The widths in each row that has any: of a bar, or of the space before one and of the bar."""
    rows = to_html(shown).partition("</style>")[2].split("<tr")[2:]
    return [widths for row in rows if (widths := re.findall(r"width:(\d+)%", row))]


def test_bars_tell_when_a_step_was_and_how_long_and_what_part_of_the_cost() -> None:
    turns = [turn(1, cost_usd=0.001, duration_s=2.0, **at(0)), turn(2, cost_usd=0.003, duration_s=5.0, **at(5))]
    shown = ended(turns, [call(1, 1, duration_s=3.0, **at(2))], duration_s=10.0, cost_usd=0.004)
    assert bars(shown) == [["25", "20"], ["20", "30"], ["75", "50", "50"]]


def test_calls_side_by_side_begin_together() -> None:
    calls = [call(1, n, duration_s=4.0, **at(1)) for n in (1, 2)]
    assert bars(ended([turn(1, duration_s=1.0, **at(0))], calls, duration_s=8.0)) == [["12"], ["12", "50"], ["12", "50"]]


def test_bar_stays_in_its_track_whatever_the_clocks_say() -> None:
    turns = [turn(1, duration_s=1e9, **at(-50)), turn(2, duration_s=1e-9, **at(1e9)), turn(3, duration_s=-5.0), turn(4, duration_s=math.nan)]
    for widths in bars(ended(turns, duration_s=0.0)):
        assert sum(map(int, widths)) <= 100 and min(map(int, widths)) >= 1


def test_one_step_has_nothing_to_be_compared_with() -> None:
    assert bars(ended([turn(1, duration_s=2.0, cost_usd=0.1)], cost_usd=0.1)) == []


def test_replayed_answer_has_no_bar_for_time_and_the_others_have() -> None:
    wholly = ended([replayed(1), replayed(2)], [call(1, 1), call(1, 2)], cost_usd=0.0)
    assert bars(wholly) == []
    partly = ended([replayed(1), turn(2, duration_s=1.0, **at(1))], [call(1, 1, duration_s=1.0, **at(0))], duration_s=2.0)
    assert bars(partly) == [["50"], ["50", "50"]]


def test_bar_is_nothing_without_the_style_sheet() -> None:
    html = to_html(ended([turn(1, duration_s=1.0), turn(2, duration_s=1.0, **at(1))], duration_s=2.0))
    assert '<div><i style="width:50%"></i><b style="width:50%"></b></div>' in html
    assert "background" not in html.partition("</style>")[2]


def test_table_of_steps_is_made_anew_only_when_a_step_begins_or_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    original = timeline._table
    monkeypatch.setattr(timeline, "_table", lambda card, rows: (made.append(len(rows)), original(card, rows))[1])
    shown, drawn = Card(), []
    for event in events(STORY):
        shown.apply(event)
        drawn += [to_html(shown) for _ in range(2) if not shown.ended]
    assert made == [1, 2, 2, 3, 4, 4, 4, 5]
    assert drawn[-1] == to_html(replace(shown, drawn={}, state="running"))


# ------------------------------------------------------------------------------------------------------------- size


def test_ordinary_run_is_small() -> None:
    html, text = to_html(card()), to_text(card())
    assert len(html.encode()) + len(text.encode()) < 6_500
    assert len(html.partition("</style>")[2].encode()) < 3_500


@pytest.mark.parametrize(("n_calls", "limit"), [(1, 10_000), (3, 10_000), (5, 10_000), (8, 10_500)])
def test_run_with_long_results_is_small(n_calls: int, limit: int) -> None:
    hits = json.dumps([{"title": f"Article {n}", "text": "How to send it back. " * 18} for n in range(5)])
    calls = [
        call(n, 1, arguments_text='{"query": "returns of parcels", "limit": 5}', result_text=hits) for n in range(1, n_calls + 1)
    ]
    figures = {"input_tokens": 1412, "output_tokens": 58, "cost_usd": 0.0021, "duration_s": 1.1}
    turns = [turn(n, finish_reason="tool_calls", **figures) for n in range(1, n_calls + 1)]
    shown = ended([*turns, turn(n_calls + 1, finish_reason="stop", **figures)], calls, output="You may send it back. " * 15)
    assert len(hits) > 2_000
    assert len(to_html(shown).encode()) + len(to_text(shown).encode()) < limit


def test_short_values_are_whole_and_long_ones_share_what_is_left() -> None:
    short, long = "s" * 150, "l" * 10_000
    shown = page(ended([turn(1)], [call(1, 1, result_text=short), *(call(1, n, result_text=long) for n in (2, 3, 4, 5))]))
    assert shown.texts["code"][1] == short
    assert len(set(map(len, shown.texts["pre"]))) == 1 and len(shown.texts["pre"]) == 4
    assert sum(map(len, shown.texts["code"] + shown.texts["pre"])) < 5_000


def test_changed_duration_changes_its_own_line_only() -> None:
    figures = {"finish_reason": "stop", "output_tokens": 5}
    before = to_html(
        ended([turn(1, duration_s=1.0, **figures), turn(2, **figures)], [call(1, 1)], error_text="x", error_type="E")
    )
    after = to_html(ended([turn(1, duration_s=2.0, **figures), turn(2, **figures)], [call(1, 1)], error_text="x", error_type="E"))
    pairs = list(zip(before.split("\n"), after.split("\n"), strict=True))
    assert [left for left, right in pairs if left != right] == [next(left for left, _ in pairs if "Turn 1" in left)]
    assert len(pairs) >= 10 and pairs[0][0].endswith("</style>")


def test_long_word_may_be_broken_without_a_style_sheet() -> None:
    html = to_html(ended([turn(1)], [call(1, 1, result_text="a&" * 500)], output="x" * 3000 + " " + "word " * 100))
    assert max(len(word) for word in re.findall(r"x+", html)) == 60
    assert "&<wbr>amp;" not in html and Page(html).texts["p"][0].startswith("x" * 3000)
    assert "word<wbr>" not in html and html.count("<wbr>") > 45


def test_code_holds_nothing_but_its_characters() -> None:
    long = "x" * 500
    html = to_html(ended([turn(1)], [call(1, 1, result_text=long)], output=f"```\n{long}\n```"))
    assert re.findall("<pre[^>]*>(.*?)</pre>", html, re.DOTALL) == [long, long]


def test_huge_values_are_cut_with_a_note_and_stay_whole_in_the_record() -> None:
    shown = ended([turn(1), turn(2)], [call(1, 1, result_text="x" * 10_000_000, arguments_text="&" * 10_000_000)])
    html = to_html(shown)
    assert len(html.encode()) < 25_000
    assert "characters left out here, whole in the result" in Page(html).text
    assert len(shown.tool_calls[0].result_text or "") == 10_000_000
    assert len(to_text(shown)) < 2_000


def test_everything_huge_is_still_a_small_card() -> None:
    huge = "<&>" * 3_000_000
    calls = [call(n, k, result_text=huge, arguments_text=huge, tool_name=huge) for n in range(1, 101) for k in (1, 2)]
    shown = ended([turn(n, finish_reason=huge) for n in range(1, 101)], calls, output=huge, error_text=huge, error_type=huge)
    assert len(to_html(shown).encode()) < 100_000
    assert len(to_text(shown).encode()) < 20_000


def test_long_answer_opens_and_streams_its_end() -> None:
    text = "\n\n".join(f"Paragraph {number}. " + "word " * 60 for number in range(60))
    done, running = page(ended([turn(1)], output=text)), Card().apply(TurnStart(1)).apply(TextDelta(text, 1))
    assert "more characters" in done.texts["summary"][0]
    assert "Paragraph 59." in done.text and done.text.count("Paragraph") == 60
    assert "Paragraph 59." in page_text(running) and "Paragraph 5." not in page_text(running)


def test_long_arguments_open_and_short_ones_stand_in_the_row() -> None:
    shown = page(ended([turn(1)], [call(1, 1, arguments_text=json.dumps({"q": "why " * 100}), result_text="two\nlines")]))
    assert shown.texts["summary"][1].startswith('search(q="why why') and shown.texts["summary"][1].endswith("…")
    assert len(shown.texts["li"][0]) > 400
    assert shown.texts["pre"] == ["two\nlines"]


def test_many_rows_keep_the_first_and_the_last() -> None:
    turns = [turn(number) for number in range(1, 1001)]
    rows = page(ended(turns)).texts["tr"]
    assert len(rows) == 82 and rows[1].startswith("Turn 1") and rows[-1].startswith("Turn 1000")
    assert "920 rows left out" in rows[21]
    running = ended(turns)
    running.state = "running"
    rows = page(running).texts["tr"]
    assert len(rows) == 14 and "988 rows left out" in rows[1] and rows[-1].startswith("Turn 1000")


# ----------------------------------------------------------------------------------------------------- foreign text

HOSTILE = [
    "<script>alert(1)</script>", "</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<svg onload=alert(1)>",
    "<svg/onload=alert(1)//", "<iframe srcdoc='<script>alert(1)</script>'>", "<body onload=alert(1)>", "<a href=javascript:alert(1)>x</a>",
    "<a href='https://evil.test' target=_blank>x</a>", "</style><script>alert(1)</script>", "</section></details></table><h1>out</h1>",
    "\"><script>alert(1)</script>", "' onmouseover='alert(1)", '" onfocus=alert(1) autofocus x="', "<p id=jp-main-dock-panel>", "<form name=body>",
    "<div data-commandlinker-command='x' data-commandlinker-args='{}'>", "<button data-jupyter-id=x>", "<!-- comment --><b>x</b>", "<![CDATA[ <b>x</b> ]]>",
    "<?xml version='1.0'?>", "&lt;script&gt;", "&#60;script&#62;", "&", "<", "$\\href{javascript:alert(1)}{x}$", "\\(x^2\\) $$y$$",
    "![i](http://evil.test/p.png)", "[x](javascript:alert(1))", "<link rel=stylesheet href=http://evil.test/a.css>",
    "<style>@import url(http://evil.test)</style>", "<math><mtext></table><img src onerror=alert(1)>", "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "\x00<scr\x00ipt>", "\x1b[31mred\x1b[0m\x1b]0;title\x07\x1b[2J", "a\u202egnp.exe\u202c", "\u2066x\u2069", "\u200b\u2060\ufeffx", "\U000e0041\U000e0042",
    "\ud800", "\r\rx\x85y\u2028z", "\x9b31m", "{{7*7}} ${7*7} <%= 7 %>", "z̸̡̢͉͙" * 30, "\u200d\u200c", "x" * 3000, "\n" * 500,
]  # fmt: skip


def filled(text: str) -> Card:
    """A failed run with `text` in every field of every record, and in the error."""

    def fill(record: Any) -> Any:
        skip = ("status", "started_at")
        return replace(record, **{f.name: text for f in fields(record) if "str" in f.type and f.name not in skip})

    shown = ended(
        [fill(turn(1)), fill(turn(2, duration_s=1.0))],
        [fill(call(1, 1)), fill(call(1, 2, status="error")), fill(call(2, 1, status=text))],
        output=text, cost_usd=0.1,
    )  # fmt: skip
    shown.run = fill(shown.run)
    shown.error_text = text
    for delta in (TextDelta(text, 1), ReasoningDelta(text, 1), TextDelta(text, 2)):
        shown.apply(delta)
    return shown


@pytest.mark.parametrize("text", HOSTILE)
def test_foreign_text_is_only_ever_text(text: str) -> None:
    assert len(HOSTILE) >= 30
    cards = [
        filled(text),
        replace(filled(text), state="running"),
        replace(filled(text), output={text: text, "list": [text, {text: text}]}),
    ]
    for shown in cards:
        html = to_html(shown)
        parts = Page(html)
        assert set(parts.tags) <= TAGS
        assert strange(parts) == []
        assert parts.tags.count("style") == 1 and parts.tags.count("section") == 1 and parts.strange == []
        assert hidden(html) == "" and hidden(to_text(shown)) == ""
        html.encode()


def hidden(text: str) -> str:
    """Characters a reader does not see, but for line ends."""
    return "".join(c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp"))


def test_joiners_in_a_row_hide_nothing() -> None:
    assert visible("é\u200d\u200c\u200dé") == r"é\u200d\u200c\u200dé"


def test_hostile_characters_are_written_out() -> None:
    assert visible("a\u202eb\x1b]0;c\x07\x00\ud800") == r"a\u202eb\x1b]0;c\x07\x00\ud800"
    assert visible("\x1b[1;31mred\x1b[0m") == "red"
    assert visible("a\r\nb\rc") == "a\nb\nc"
    assert visible("\U000e0041") == r"\U000e0041"


def test_scripts_and_emoji_that_need_joiners_keep_them() -> None:
    for text in ("سه‌شنبه", "👩‍👩‍👧 🏳️‍🌈", "क्‍ष", "naïve ± 日本語 שלום"):
        assert visible(text) == text
    assert visible("pass\u200dword") == r"pass\u200dword"


@pytest.mark.parametrize("text", ["❤️ 1️⃣ ☺︎ ©️ 🏳️‍🌈 ⛹🏻‍♂️", "葛\U000e0100飾", "神\ufe00", "∩\ufe00", "ᠠ\u180b"])
def test_one_selector_of_a_variant_stays(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize("hidden", ["\ufe00", "\ufe0f", "\U000e0100", "\U000e01ef", "\U000e0041", "\U000e0fff", "\u180b", "\u3164", "\u115f", "\u034f", "\ufff0"])
def test_data_in_characters_that_nobody_sees_is_written_out(hidden: str) -> None:
    code = f"\\u{ord(hidden):04x}" if ord(hidden) < 0x10000 else f"\\U{ord(hidden):08x}"
    assert visible(f"x{hidden}{hidden}y") == f"x{code}{code}y"
    assert visible(f"❤\ufe0f{hidden}é") == f"❤\ufe0f{code}é"
    assert visible(f"{hidden}é") == f"{code}é"


def test_selectors_in_a_row_hide_nothing() -> None:
    assert visible("❤\ufe0f\ufe0f葛\U000e0100\U000e0101") == "❤\ufe0f" + r"\ufe0f" + "葛\U000e0100" + r"\U000e0101"
    assert visible("x\ufe0f\u200dé") == r"x\ufe0f\u200d" + "é"


SEEMING = "❤1é葛\ufe0f\ufe0e\ufe00\U000e0100\u200d\u200c\u20e3\x80 x\u180b"


@given(st.text(st.sampled_from(SEEMING), max_size=8))
def test_what_is_visible_once_is_visible(text: str) -> None:
    assert visible(visible(text)) == visible(text)


@given(st.text(st.characters(), max_size=200))
def test_visible_text_holds_nothing_unseen_and_is_stable(text: str) -> None:
    shown = visible(text)
    unseen = [
        c
        for c in hidden(shown)
        if c not in "\u200c\u200d\t" and not 0x600 <= ord(c) <= 0x8E2 and ord(c) not in (0x110BD, 0x110CD)
    ]
    assert [c for c in unseen if not 0x13430 <= ord(c) <= 0x1343F] == []
    assert visible(shown) == shown
    assert "\n" not in one_line(text, 50) and len(one_line(text, 50)) <= 50


def test_dollar_signs_are_kept_from_mathjax() -> None:
    assert 'class="agr agr-done mathjax_ignore tex2jax_ignore"' in to_html(card())


# ------------------------------------------------------------------------------------------------------------ style


def test_style_has_no_colour_of_its_own_and_loads_nothing() -> None:
    assert re.findall(r"#[0-9a-f]{3,8}\b|rgba?\(|hsla?\(|url\(|@import|http|<", STYLE) == []
    assert STYLE.count("{") == STYLE.count("}")


def test_style_begins_every_rule_with_the_card() -> None:
    selectors = [
        part for rule in STYLE.split("}") if rule for part in rule.split("{")[0].split(",") if "(" not in rule.split("{")[0]
    ]
    assert selectors and all(selector.startswith(".agr.agr") for selector in selectors)


@pytest.mark.parametrize("sheet", [STYLE, SHEET_STYLE, DIFFERENCE_STYLE, COMPARISON_STYLE], ids=["card", "table", "differences", "comparison"])
def test_what_is_out_of_sight_costs_nothing_unless_it_runs(sheet: str) -> None:
    """Else each new card and each redraw styles all cards of the notebook again; a running one has a new size with each redraw."""
    hidden = [rule.split("{") for rule in sheet.split("}") if "content-visibility" in rule]
    assert hidden == [[".jp-OutputArea .agr:not(.agr-running,.agr-live)", "content-visibility:auto;contain-intrinsic-size:auto 16em"]]


def test_card_without_style_names_every_state_and_column() -> None:
    shown = page(card())
    assert shown.texts["th"][:5] == ["Step", "Tokens in", "Tokens out", "Cost", "Time"]
    assert shown.texts["caption"] == ["Turns and tool calls"]
    assert "done" in shown.summary


# ---------------------------------------------------------------------------------------------------- card and text


def test_card_of_a_result_is_the_card_of_its_events() -> None:
    live, story = Card(), events(STORY)
    for event in story:
        live.apply(event)
    result = story[-1].result
    assert to_html(Card.from_result(result)) == to_html(live)
    assert to_html(Card.from_result(result.record)) == to_html(live)
    assert Card.from_result(result).text(1) == "Let me look."


def test_card_of_a_failed_or_interrupted_run_is_made_from_its_record() -> None:
    result = events([LOOK, ErrorModelServer("overloaded")])[-1].result
    for shown in (Card.from_result(result), Card.from_result(result.record)):
        assert (shown.state, shown.error_type, shown.answer) == ("failed", "ErrorModelServer", "Let me look.")
    result.record.run.status = "interrupted"
    assert Card.from_result(result.record).state == "interrupted"


def test_card_keeps_the_text_of_a_turn_that_broke_off() -> None:
    pieces = [LLMChunk(delta="I have "), LLMChunk(delta="looked"), ErrorModelConnection("lost")]
    shown, story = Card(), events([], model=Breaking(pieces))
    for event in story:
        shown.apply(event)
    record = story[-1].result.record
    assert shown.answer == Card.from_result(record).answer == "I have looked"


def test_card_of_a_bare_result_shows_its_text() -> None:
    assert page_text(Card.from_result(Result("Hello."))).startswith("Hello.")
    assert to_text(Card.from_result(Result("Hello."))) == "Hello.\n\ndone"
    assert Card.from_result(Result(None, interrupted=True)).state == "interrupted"


def test_empty_card_is_a_line() -> None:
    assert page_text(Card()) == "running" and to_text(Card()) == "running"


def test_abandoned_run_is_interrupted_and_an_ended_one_stays() -> None:
    left, done = card(until=lambda event: isinstance(event, ToolCallStart)), card()
    left.abandon("left before its end")
    done.abandon("left before its end")
    assert (left.state, left.error_text, left.running) == ("interrupted", "left before its end", set())
    assert (done.state, done.error_text) == ("done", None)


def test_parallel_calls_end_in_any_order_and_stay_in_call_order() -> None:
    calls = [call(1, number, tool_name=f"t{number}", status="interrupted", result_text=None) for number in (1, 2, 3)]
    shown = Card().apply(TurnStart(1))
    for record in calls:
        shown.apply(ToolCallStart(record))
    shown.apply(ToolCallEnd(replace(calls[2], status="ok", result_text="third"), {}))
    assert [record.tool_name for record in shown.tool_calls] == ["t1", "t2", "t3"]
    assert [shown.is_running(record) for record in shown.tool_calls] == [True, True, False]


def test_text_form_reads_as_a_transcript() -> None:
    lines = to_text(card()).split("\n")
    assert lines[:4] == [*ANSWER.split("\n"), ""]
    assert lines[4].startswith('order_status(order_id="4821") -> {"status":"shipped"')
    assert lines[5].startswith('refund(order_id="4821", amount=4.9) -> refunded 4.90 USD, ')
    assert re.fullmatch(
        r"done, 3 model calls, 2 tool calls, 1,400 tokens in / 180 out, \$0\.0070, [\d.]+ m?s, anthropic/.*", lines[6]
    )


def test_text_form_says_what_it_leaves_out() -> None:
    text = to_text(ended([turn(1)], [call(1, number) for number in range(1, 31)], output="word " * 5000))
    assert "… 21,000 characters left out …" in text and "(10 more tool calls)" in text
    assert len(text) < 6000


def test_errors_of_the_run_itself_are_told_in_one_line() -> None:
    shown = ended([turn(1)], output=None, error=ErrorMaxTurns(turn=2, limit=1), status="error")
    assert to_text(shown).splitlines()[0].startswith("ErrorMaxTurns: turn 2 would pass max_turns=1")


class Breaking(ModelScripted):
    """Streams what it was given; the last item is an error that it raises."""

    def __init__(self, chunks: list[Any]) -> None:
        super().__init__([])
        self.chunks = chunks

    async def complete_stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
        for chunk in self.chunks[:-1]:
            yield chunk
        raise self.chunks[-1]
