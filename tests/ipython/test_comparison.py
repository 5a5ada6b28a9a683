"""Several runs of one cell: how they run, what is kept, what is drawn."""

import asyncio
import copy
import pickle
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from pydantic import BaseModel

from agentroute import Agent, ErrorModelRequest, ErrorModelServer, LLMRequest, Result, ToolCall, tool
from agentroute.events import AgentEnd, Event, TextDelta, TurnStart
from agentroute.testing import ModelFunction, ModelScripted
from agentroute_ipython.card import Card
from agentroute_ipython.comparison import FRAME, Case, Comparison, ErrorComparison, Results
from agentroute_ipython.comparison_display import Cards, ComparisonView, to_html, to_text
from agentroute_ipython.comparison_style import COMPARISON_STYLE
from agentroute_ipython.money import money_words
from agentroute_ipython.running import Interrupted
from tests.ipython.sample_runs import LOOK, call, ended, order_status, says, turn
from tests.ipython.test_display import HOSTILE, Page, filled
from tests.ipython.test_running import on_this_loop, press_stop, stubborn
from tests.ipython.test_running import run_beside as beside

Way = Callable[[Any], None]
TODAY = "Order 4821 left today and arrives tomorrow."
TUESDAY = "Order 4821 left yesterday and arrives on Tuesday."


@pytest.fixture(params=[on_this_loop, beside])
def way(request: pytest.FixtureRequest) -> Way:
    return request.param  # type: ignore[no-any-return]


@tool(needs_approval=True)
def refund() -> str:
    """Pays back."""
    return "paid"


class Recorder:
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def show(self) -> None:
        self.seen.append("show")

    def update(self, event: tuple[int, Event]) -> None:
        self.seen.append((event[0], event[1].kind))

    def tick(self) -> None:
        pass

    def close(self) -> None:
        self.seen.append("close")


class Publisher:
    def __init__(self) -> None:
        self.bundles: list[dict[str, str]] = []
        self.display_ids: list[str] = []

    def publish(self, bundle: dict[str, str], metadata: Any, *, transient: dict[str, str], update: bool) -> None:
        self.bundles.append(bundle)
        self.display_ids.append(transient["display_id"])


class Kernel:
    kernel = True

    def __init__(self) -> None:
        self.display_pub = Publisher()


class Cell:
    """A comparison, its view, and the Results it was told to keep."""

    def __init__(self, *cases: Case, view: Any = None) -> None:
        self.view = view or Recorder()
        self.kept: list[Results] = []
        self.run = Comparison(cases, self.view, self.keep)

    def keep(self, results: Results) -> None:
        self.view.seen.append("keep")
        self.kept.append(results)


def case(label: str, *answers: Any, **options: Any) -> Case:
    return Case(label, partial(Agent(label, model=ModelScripted(answers, model_id=f"vendor/{label}", **options)).events, "hi"))


def asking(label: str, function: Callable[[LLMRequest], Any]) -> Case:
    return Case(label, partial(Agent(label, model=ModelFunction(function)).events, "hi"))


async def until(it_holds: Callable[[], bool]) -> None:
    """Waits, as a model that is asked would."""
    async with asyncio.timeout(30):
        while not it_holds():
            await asyncio.sleep(0.01)


# ---------------------------------------------------------------------------------------------------------------- running


def test_all_run_at_the_same_time(way: Way) -> None:
    waiting: list[str] = []
    together = asyncio.Event()

    def meeting(name: str) -> Callable[[LLMRequest], Any]:
        async def answer(request: LLMRequest) -> str:
            waiting.append(name)
            if len(waiting) == 3:
                together.set()
            await asyncio.wait_for(together.wait(), 20)
            return name

        return answer

    cell = Cell(*(asking(name, meeting(name)) for name in ("a", "b", "c")))
    way(cell.run)
    assert [result.output for result in cell.kept[0]] == ["a", "b", "c"]


def test_results_are_kept_in_order_before_the_view_closes(way: Way) -> None:
    async def one(request: LLMRequest) -> str:
        await until(lambda: (1, "agent_end") in cell.view.seen)
        return "one"

    cell = Cell(asking("a", one), case("b", "two"))
    way(cell.run)
    assert cell.view.seen[0] == "show" and cell.view.seen[-2:] == ["keep", "close"]
    assert len(cell.kept) == 1 and cell.kept[0].labels == ["a", "b"]
    assert [result.output for result in cell.kept[0]] == ["one", "two"]
    ends = [seen for seen in cell.view.seen if seen[1] == "agent_end"]
    assert ends == [(1, "agent_end"), (0, "agent_end")]


def test_one_that_fails_stops_no_other_and_fails_the_cell_at_the_end(way: Way) -> None:
    cell = Cell(case("a", ErrorModelServer("the provider failed", status=500)), case("b", "two", delay_s=0.1), case("c", "three"))
    with pytest.raises(ErrorComparison) as raised:
        way(cell.run)
    assert [result.output for result in cell.kept[0]] == [None, "two", "three"]
    assert cell.kept[0][0].record.run.status == "error"
    assert cell.view.seen[-2:] == ["keep", "close"]
    error = raised.value
    assert list(error.errors) == ["a"] and error.results == cell.kept[0]
    lines = error._render_traceback_()
    assert lines[0] == "ErrorComparison: 1 of 3 runs failed: a"
    assert lines[1].startswith("  a: ErrorModelServer: the provider failed")
    assert lines[2] == "(all results, whole and partial, are in _agent)"


def test_error_of_a_comparison_can_be_pickled() -> None:
    cell = Cell(case("a", ErrorModelServer("no", status=500)), case("b", "two"))
    with pytest.raises(ErrorComparison) as raised:
        on_this_loop(cell.run)
    again = pickle.loads(pickle.dumps(raised.value))
    assert again._render_traceback_() == raised.value._render_traceback_()


def test_error_before_the_first_event_is_one_of_that_run(way: Way) -> None:
    async def never() -> AsyncGenerator[Event, None]:
        raise ErrorModelServer("not even begun", status=500)
        yield TextDelta("")

    cell = Cell(Case("a", never), case("b", "two"))
    with pytest.raises(ErrorComparison, match="1 of 2 runs failed: a"):
        way(cell.run)
    assert cell.kept[0][1].output == "two"


def test_defect_is_raised_when_the_others_have_ended(way: Way) -> None:
    async def broken() -> AsyncGenerator[Event, None]:
        raise ZeroDivisionError("a defect")
        yield TextDelta("")

    cell = Cell(Case("a", broken), case("b", "two", delay_s=0.1))
    with pytest.raises(ZeroDivisionError, match="a defect"):
        way(cell.run)
    assert cell.kept[0][1].output == "two"
    assert cell.view.seen[-1] == "close"


def test_stop_ends_all_and_keeps_what_each_has_done(way: Way) -> None:
    async def stops(request: LLMRequest) -> str:
        await until(lambda: (2, "agent_end") in cell.view.seen)
        press_stop()
        await asyncio.sleep(30)
        return "never said"

    async def silent(request: LLMRequest) -> str:
        await asyncio.sleep(30)
        return "never said"

    cell = Cell(asking("a", stops), asking("b", silent), case("c", "done already"))
    with pytest.raises(Interrupted, match="the comparison was stopped; what its 3 runs did until then is in _agent"):
        way(cell.run)
    assert [result.output for result in cell.kept[0]] == [None, None, "done already"]
    assert [result.interrupted for result in cell.kept[0]] == [True, True, False]
    assert [result.record.run.status for result in cell.kept[0]] == ["interrupted", "interrupted", "ok"]


def test_stop_before_the_first_step_leaves_a_record_of_each(way: Way) -> None:
    cell = Cell(case("a", "x", delay_s=30), case("b", "y", delay_s=30))
    cell.view.show = press_stop
    with pytest.raises(Interrupted):
        way(cell.run)
    assert [result.record.run.status for result in cell.kept[0]] == ["interrupted", "interrupted"]


def test_second_stop_gives_stubborn_runs_up(way: Way) -> None:
    cell = Cell(Case("a", stubborn), case("b", "done perhaps"))
    with pytest.raises(Interrupted):
        way(cell.run)
    assert cell.kept[0][0].interrupted
    assert cell.kept[0][0].record.run.agent_name == "bot"
    before = list(cell.view.seen)
    cell.run.take((0, TextDelta("too late")))
    assert cell.view.seen == before


# ---------------------------------------------------------------------------------------------------------------- results


def compared(*answers: Any) -> Results:
    cell = Cell(*(case(chr(97 + index), answer) for index, answer in enumerate(answers)))
    on_this_loop(cell.run)
    return cell.kept[0]


def test_frame_has_a_row_for_each_run_and_says_what_is_unknown() -> None:
    results = Results([*compared(says("one", 0.01), "two"), Result(None, interrupted=True)], ["a", "b", "c"])
    frame = results.frame
    assert tuple(frame.columns) == FRAME
    assert frame["label"].tolist() == ["a", "b", "c"]
    assert frame["model"].tolist()[:2] == ["vendor/a", "vendor/b"]
    assert frame["output"].tolist()[:2] == ["one", "two"]
    assert frame["status"].tolist() == ["ok", "ok", "interrupted"]
    assert frame["cost_usd"].iloc[0] == 0.01
    assert frame.iloc[2].isna()[["agent", "cost_usd", "input_tokens", "run_id"]].all()
    assert str(frame["input_tokens"].dtype) == "Int64"


def test_frame_of_nothing_has_the_same_columns_and_types() -> None:
    empty, full = Results().frame, compared("one").frame
    assert list(empty.dtypes.items()) == list(full.dtypes.items()) and len(empty) == 0


def test_samples_are_counted_by_agent_and_model() -> None:
    agent = Agent("bot", model=ModelScripted(["one", "two"], model_id="vendor/a"))
    results = Results([agent.run("hi"), agent.run("hi"), *compared("three")], ["#1", "#2", "other"])
    assert results.frame["sample"].tolist() == [1, 2, 1]


@pytest.mark.parametrize("change", ["sort", "reverse", "append", "pop", "extend", "clear", "insert", "remove", "__setitem__", "__delitem__"])
def test_results_cannot_be_changed(change: str) -> None:
    assert isinstance(compared("one"), Sequence) and not hasattr(compared("one"), change)


def test_results_keep_their_labels_in_slices_and_copies() -> None:
    results = compared("one", "two", "three")
    results.labels.append("mine alone")
    assert results.labels == ["a", "b", "c"]
    assert (results[1:].labels, [one.output for one in results[1:]]) == (["b", "c"], ["two", "three"])
    assert results[::-1].frame[["label", "output"]].values.tolist() == [["c", "three"], ["b", "two"], ["a", "one"]]
    assert results[-1].output == "three" and results[0] in results and len(results[5:]) == 0
    assert copy.copy(results) == pickle.loads(pickle.dumps(results)) == results != results[:2]


def test_text_form_of_results_is_what_the_notebook_shows_as_text(plain_shell: InteractiveShell) -> None:
    results = compared("one", "two")
    formatter = plain_shell.display_formatter
    assert formatter is not None
    shown = formatter.format(results)[0]
    assert shown["text/plain"] == results._repr_mimebundle_()["text/plain"]
    assert "--- a" in shown["text/plain"] and "--- b" in shown["text/plain"]


def test_results_show_themselves_in_a_line_and_side_by_side() -> None:
    results = compared(says("one", 0.01), says("two", 0.02))
    assert repr(results) == "<Results: 2 runs: 2 done; $0.0300>"
    bundle = results._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain"}
    assert "no two the same" in bundle["text/plain"] and "no two the same" in Page(bundle["text/html"]).text
    assert repr(Results()) == "<Results: 0 runs>"


# ---------------------------------------------------------------------------------------------------------------- drawing


def cards(*answers: Any, labels: Sequence[str] | None = None, **fields: Any) -> Cards:
    """Cards of runs that are over, of one turn each."""
    made = [ended([turn(1, cost_usd=0.001 * (n + 1))], output=answer, **fields) for n, answer in enumerate(answers)]
    return Cards(labels or [chr(97 + n) for n in range(len(answers))], made)


def row(shown: Cards, label: str) -> str:
    found = re.search(rf'<tr><th scope="row"[^>]*>{label}</th>.*', to_html(shown))
    assert found is not None
    return Page(f"<section>{found[0]}</section>").text


def test_equal_answers_are_shown_once() -> None:
    html = to_html(cards(TODAY, TUESDAY, TODAY))
    assert html.count(f"{TODAY}</p>") == 1
    assert "Same answer as <b>a</b>" in html
    assert "same as a" in row(cards(TODAY, TUESDAY, TODAY), "c")
    assert "differs from a" in row(cards(TODAY, TUESDAY, TODAY), "b")


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (["x", "x"], "all 2 answers are the same"),
        (["x", "y"], "2 answers, no two the same"),
        (["x", "y", "x"], "2 different answers among 3: one 2 times (a and c), one once"),
        (["x", "y", "x", "z"], "3 different answers among 4: one 2 times (a and c), 2 once each"),
        (["x", "y", "x", "y"], "2 different answers among 4: one 2 times (a and c), one 2 times (b and d)"),
    ],
)
def test_different_answers_are_counted(answers: list[str], words: str) -> None:
    assert words in Page(to_html(cards(*answers))).text
    assert words in to_text(cards(*answers))


def test_difference_to_the_first_answer_is_folded_and_in_words() -> None:
    page = Page(to_html(cards(TODAY, TUESDAY)))
    assert "what differs from a" in page.texts["summary"]
    assert page.texts["del"] == ["[removed: today]", "[removed: tomorrow]"]
    assert page.texts["ins"] == ["[added: yesterday]", "[added: on Tuesday]"]


def test_answers_are_compared_with_the_first_there_is() -> None:
    shown = cards(TODAY, TUESDAY, TODAY)
    shown.cards[0] = ended([turn(1)], output=None, error=ErrorModelServer("down", status=500), status="error")
    assert "what differs from b" in Page(to_html(shown)).texts["summary"]


def test_cheapest_and_fastest_are_named_in_words() -> None:
    shown = cards(TODAY, TUESDAY)
    shown.cards[1].run.duration_s = 1.0  # type: ignore[union-attr]
    assert "cheapest" in row(shown, "a") and "fastest" not in row(shown, "a")
    assert "fastest" in row(shown, "b") and "cheapest" not in row(shown, "b")


def test_nothing_is_cheapest_where_all_cost_the_same_or_one_alone_is_known() -> None:
    same = Cards(["a", "b"], [ended([turn(1, cost_usd=0.01)]), ended([turn(1, cost_usd=0.01)])])
    unknown = Cards(["a", "b"], [ended([turn(1, cost_usd=0.01)]), ended([turn(1)])])
    assert "cheapest" not in to_html(same) + to_html(unknown)
    assert "unknown" in row(unknown, "b")
    assert "at least $0.0100 together" in to_text(unknown)


def test_run_that_failed_is_never_the_cheapest_or_the_fastest() -> None:
    down = ErrorModelServer("down", status=500)
    failed = ended([turn(1, cost_usd=0.0001)], output=None, error=down, status="error", duration_s=0.2)
    shown = Cards(["a", "b", "c"], [failed, ended([turn(1, cost_usd=0.01)]), ended([turn(1, cost_usd=0.02)], duration_s=5.0)])
    assert "cheapest" in row(shown, "b") and "cheapest" not in row(shown, "a")
    assert "fastest" in row(shown, "b") and "fastest" not in row(shown, "a")
    assert "3 runs, 1 failed, 2 done" in to_text(shown)


def test_replayed_runs_show_what_they_had_cost_and_no_seconds() -> None:
    def replayed(seconds: float) -> Cards:
        fields = {"cost_usd": 0.0, "cost_saved_usd": 0.01, "replayed_from": "r0"}
        made = [ended([turn(1, duration_s=seconds, **fields)], output=answer, duration_s=seconds) for answer in (TODAY, TUESDAY)]
        return Cards(["a", "b"], made)

    assert to_html(replayed(0.1)) == to_html(replayed(0.7))
    assert to_text(replayed(0.1)) == to_text(replayed(0.7))
    assert "$0.0100 (replayed)" in row(replayed(0.1), "a")


REPLAYED = {"cost_usd": 0.0, "cost_saved_usd": 0.01, "replayed_from": "r0"}


def refused() -> Card:
    """A run whose only request the provider refused."""
    error = ErrorModelRequest("no such model", status=400)
    return ended([turn(1, error_type="ErrorModelRequest")], output=None, error=error, status="error")


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ([{"cost_usd": 0.01}, {"cost_usd": 0.02}], "$0.0300 together"),
        ([REPLAYED, REPLAYED], "replayed, saved $0.0200 together"),
        ([REPLAYED, {"cost_usd": 0.02}], "$0.0200 paid, $0.0100 saved together"),
        ([{}, {"cost_usd": 0.02}], "at least $0.0200 together"),
        ([{}, {}], "cost unknown"),
        ([{**REPLAYED, "cost_saved_usd": None}] * 2, "same, replayed"),
    ],
)
def test_money_is_told_as_on_a_single_card(runs: list[dict[str, Any]], words: str) -> None:
    shown = Cards(["a", "b"], [ended([turn(1, **fields)], output="x") for fields in runs])
    assert to_text(shown).endswith(words)
    assert words in Page(to_html(shown)).text


def test_request_that_was_refused_cost_nothing() -> None:
    shown = Cards(["a", "b"], [refused(), ended([turn(1, cost_usd=0.01)])])
    assert to_text(shown).endswith("$0.0100 together") and "at least" not in to_text(shown)
    assert "unknown" not in row(shown, "a")
    assert to_text(Cards(["a", "b"], [refused(), refused()])).endswith("failed, 2 runs")


def test_run_that_was_left_while_it_was_answered_may_have_cost_something() -> None:
    shown = Cards(["a", "b"], [Card().apply(TurnStart(1)), ended([turn(1, cost_usd=0.01)])])
    shown.abandon("left")
    assert to_text(shown).endswith("at least $0.0100 together") and "unknown" in row(shown, "a")


def test_line_of_replayed_results_says_so() -> None:
    shown = [ended([turn(1, **REPLAYED)]), ended([turn(1, **REPLAYED)])]
    assert money_words(shown) == "replayed, saved $0.0200" and money_words([]) == ""


def test_cost_of_runs_inside_tools_counts() -> None:
    inside = ended([turn(1, cost_usd=0.01)], [call(1, 1, cost_usd=0.05)])
    assert "$0.0600" in row(Cards(["a", "b"], [inside, ended([turn(1, cost_usd=0.02)])]), "a")


class City(BaseModel):
    city: str
    days: int
    tags: list[str] = []


def test_structured_answers_are_compared_field_by_field() -> None:
    shown = cards(City(city="Bonn", days=2), City(city="Bonn", days=3, tags=["x"]))
    page = Page(to_html(shown))
    assert "Field" in page.texts["th"] and "days" in page.texts["th"] and "tags" in page.texts["th"]
    assert "The same in all: city" in page.text
    assert "what differs from" not in page.text
    equal = Page(to_html(cards(City(city="Bonn", days=2), City(city="Bonn", days=2))))
    assert "Field" not in equal.texts["th"] and "all 2 answers are the same" in equal.text


def test_fields_that_are_not_in_all_answers_are_told() -> None:
    assert "(not there)" in Page(to_html(cards({"a": 1}, {"a": 1, "b": 2}))).text


def test_tool_calls_are_folded_in_each_column() -> None:
    shown = Cards(["a"], [ended([turn(1)], [call(1, n) for n in range(1, 26)])])
    page = Page(to_html(shown))
    assert "25 tool calls" in page.texts["summary"]
    assert len(page.texts["li"]) == 21 and page.texts["li"][-1] == "5 more tool calls"


def test_ordinary_comparison_has_less_than_ten_kilobytes_besides_its_answers() -> None:
    calls = [call(1, n, arguments_text='{"order_id": "4821"}', result_text='{"status": "shipped", "carrier": "DHL"}') for n in (1, 2)]
    shown = Cards(["a", "b", "c"], [ended([turn(1), turn(2)], calls, output=answer) for answer in (TODAY, TUESDAY, TODAY)])
    assert len(to_html(shown)) + len(to_text(shown)) < 12_000
    assert len(to_html(shown)) - len(COMPARISON_STYLE) < 4_000


def test_page_holds_no_id_and_no_time_of_day() -> None:
    results = compared("one", "two")
    html = results._repr_mimebundle_()["text/html"]
    assert not any(result.run_id in html for result in results)
    assert not re.search(r"\d\d:\d\d|20\d\d-", Page(html).text)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_in_every_field_stays_text(text: str) -> None:
    shown = Cards([text, "b"], [filled(text), filled(text[::-1])])
    page = Page(to_html(shown))
    assert set(page.tags) <= {
        "section", "style", "p", "br", "wbr", "div", "details", "summary", "b", "i", "span", "code", "pre", "table", "caption", "thead",
        "tbody", "tr", "th", "td", "ul", "ol", "li", "del", "ins", "a", "em", "strong", "s", "blockquote", "hr",
        "h1", "h2", "h3", "h4", "h5", "h6",
    }  # fmt: skip
    assert not page.strange
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "srcset", "id")]


# ------------------------------------------------------------------------------------------------------------------- live


def test_live_view_is_one_output_and_ends_as_its_results_show() -> None:
    shell = Kernel()
    view = ComparisonView(shell=shell, labels=["a", "b"])
    kept: list[Results] = []
    slow = [case(name, f"{name} says so", delay_s=0.05) for name in ("a", "b")]
    on_this_loop(Comparison(slow, view, kept.append))
    published = shell.display_pub
    assert len(set(published.display_ids)) == 1
    assert "0 of 2 runs have ended" in published.bundles[0]["text/plain"]
    assert published.bundles[-1]["text/html"] == kept[0]._repr_mimebundle_()["text/html"]


@pytest.mark.parametrize(("labels", "redraws"), [("abc", 21), ("abcdef", 11), ("abcdefghijkl", 6)])
def test_all_columns_together_are_redrawn_ten_times_a_second_or_less(labels: str, redraws: int) -> None:
    now = [100.0]
    shell = Kernel()
    view = ComparisonView(shell=shell, labels=list(labels), clock=lambda: now[0])
    view.show()
    for step in range(600):
        now[0] += 1 / 300
        view.update((step % len(labels), TextDelta("word ")))
        view.tick()
    assert redraws - 3 <= len(shell.display_pub.bundles) <= redraws + 1


def test_answer_of_a_run_that_has_ended_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from agentroute_ipython import comparison_display

    made: list[Card] = []
    monkeypatch.setattr(comparison_display, "answer_html", lambda card: made.append(card) or card.answer)
    shown = Cards(["a", "b"], [ended([turn(1)], output="whole"), Card()])
    for _ in range(3):
        assert "whole" in to_html(shown)
        shown.apply((1, TextDelta("more ")))
    assert made.count(shown.cards[0]) == 1 and "more more" in to_html(shown)


def test_view_can_be_shown_again_and_goes_on_there() -> None:
    shell = Kernel()
    view = ComparisonView(shell=shell, labels=["a", "b"])
    view.show()
    view.update((0, TextDelta("so far")))
    view.show_again()
    first, *_, again = shell.display_pub.display_ids
    assert first != again and "so far" in shell.display_pub.bundles[-1]["text/html"]
    view.close()
    assert shell.display_pub.display_ids[-1] == again


def test_column_of_a_call_that_waits_for_approval_says_so() -> None:
    shell = Kernel()
    view = ComparisonView(shell=shell, labels=["a", "b"])
    during: list[str] = []

    async def approve(ctx: Any, call: Any) -> bool:
        during.append(to_html(view.card))
        return True

    def case_of(index: int, *answers: Any) -> Case:
        agent = Agent("bot", model=ModelScripted(answers), tools=[refund], approve=view.telling(approve, index))
        return Case("ab"[index], partial(agent.events, "hi"))

    on_this_loop(Comparison([case_of(0, "one"), case_of(1, ToolCall("1", "refund", {}), "two")], view, lambda results: None))
    (html,) = during
    first, second = html.split('<div class="agr-column">')[1:]
    assert "waits for your approval" in second.partition("</p>")[0] and "waits for your approval</code>" in second
    assert "waits" not in first and "1 waits for your approval" in Page(html).text
    assert "waits" not in shell.display_pub.bundles[-1]["text/html"]


def test_view_that_is_left_counts_as_interrupted() -> None:
    shell = Kernel()
    view = ComparisonView(shell=shell, labels=["a", "b"])
    view.update((0, AgentEnd(Result("done"))))
    view.close()
    assert "2 runs, 1 done, 1 interrupted" in shell.display_pub.bundles[-1]["text/plain"]


def test_terminal_prints_a_line_as_each_run_ends_and_the_answers_last(capsys: pytest.CaptureFixture[str]) -> None:
    view = ComparisonView(shell=object(), labels=["a", "b"])

    async def later(request: LLMRequest) -> str:
        await until(lambda: view.card.cards[0].ended)
        return TUESDAY

    on_this_loop(Comparison([case("a", TODAY), asking("b", later)], view, lambda results: None))
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "comparing a, b"
    assert printed[1].startswith("1 of 2: a: done, 1 model call") and printed[2].startswith("2 of 2: b: done")
    assert printed.count(TODAY) == printed.count(TUESDAY) == 1
    assert printed[-1].startswith("done, 2 runs, 2 answers, no two the same")


def test_render_off_draws_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    shell = Kernel()
    on_this_loop(Comparison([case("a", "x"), case("b", "y")], ComparisonView(shell=shell, labels=["a", "b"], render="off"), lambda results: None))
    assert shell.display_pub.bundles == [] and capsys.readouterr().out == ""


def test_cards_fold_events_of_real_runs() -> None:
    model = ModelScripted([LOOK, says(TODAY)], model_id="vendor/a")
    cell = Cell(Case("a", partial(Agent("a", model=model, tools=[order_status]).events, "hi")), case("b", TUESDAY))
    on_this_loop(cell.run)
    from_results = Cards(["a", "b"], [Card.from_result(result) for result in cell.kept[0]])
    assert "1 tool call" in Page(to_html(from_results)).texts["summary"]


def test_labels_are_visible_and_without_keys_in_the_text() -> None:
    label = "sk-proj-9Xb2Lq7Vn4Tz1Kc8Rm5Wd3Hy6Jf0Ps \u202e"
    made = [ended([turn(1)], [], output=answer) for answer in ("same", "same", "other")]
    for shown in (Cards([f"{n} {label}" for n in range(3)], made), Cards([label, "b", "c"])):
        text = to_text(shown) + to_html(shown)
        assert "\u202e" not in text and "sk-proj-9" not in text and "[key]" in text
