"""The report: what it says, that it is safe, and that it reads well without style, script or matplotlib."""

import base64
import re
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pandas as pd
import pytest

import agentroute
from agentroute import RunStore, plots
from agentroute.cost_report import ROWS, Report
from agentroute.drawings import DRAWINGS
from agentroute.errors import ErrorConfig
from agentroute.ledger import zone_of
from agentroute.records import RunRecord, ToolCallRecord, TurnRecord
from tests.test_plots import HOSTILE

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)  # a Saturday


@pytest.fixture
def store(tmp_path):
    with closing(RunStore(tmp_path / "runs.db")) as store:
        yield store


def save(store, run_id, *, cost=0.5, agent="support", model="a/b", ago=timedelta(0), tool="look", **changes):
    began = NOW - ago
    defaults = {"status": "ok", "duration_s": 2.0, "n_turns": 1, "input_tokens": 1000, "output_tokens": 50, "cost_usd": cost}
    run = RunRecord(**{"run_id": run_id, "started_at": began, "agent_name": agent, "request_model": model, "unknown_cost_calls": int(cost is None)} | defaults | changes)
    turn = TurnRecord(run_id=run_id, turn_index=1, started_at=began, request_model=model, input_tokens=1000, cached_input_tokens=400, output_tokens=50, cost_usd=cost)
    call = ToolCallRecord(run_id=run_id, turn_index=1, call_index=1, tool_name=tool, started_at=began, status="ok")
    store.save(run, turns=[turn], tool_calls=[call])


def report_of(store, tz=None, now=NOW):
    frames = (agentroute.runs(store), agentroute.turns(store), agentroute.tool_calls(store))
    return Report(*frames, zone=zone_of(tz), now=now)


def page_of(store):
    """The page without its pictures, which take a second."""
    shown = agentroute.report(store=store)
    shown.__dict__["pictures"] = []
    return shown.to_html()


class Reader(HTMLParser):
    """What of a page is an element and what is text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts, self.attributes, self.open = [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attributes)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        del self.open[len(self.open) - 1 - self.open[::-1].index(tag) :]

    def handle_data(self, data):
        self.texts += [data] * (self.open[-1:] not in (["style"], ["script"]) and bool(data.strip()))


def test_totals_are_those_of_the_history(store):
    save(store, "a", cost=0.25)
    save(store, "b", cost=0.5, ago=timedelta(days=3), status="error")
    save(store, "c", cost=1.0, ago=timedelta(days=7), status="interrupted")
    save(store, "d", cost=None)
    totals = report_of(store).totals
    assert totals == {
        "Runs": "4 (1 failed, 1 interrupted)",
        "Turns": "4",
        "Tokens in": "4,000 (1,600 from cache)",
        "Tokens out": "200",
        "Cost": "$1.75",
        "Cost unknown": "1 turn (25.0 %)",
        "Saved by replay": "nothing",
        "Today": "$0.2500",
        "This week": "$0.7500",
        "From, to": "2026-11-14 – 2026-11-21 (UTC)",
    }


def test_today_is_of_the_zone(store):
    save(store, "a", ago=timedelta(hours=13))  # 23:00 of the 20th in UTC
    assert "Today" not in report_of(store).totals
    assert report_of(store, "Europe/Berlin").totals["Today"] == "$0.5000"
    assert report_of(store, "Europe/Berlin").totals["From, to"] == "2026-11-21 (Europe/Berlin)"


def test_a_cost_that_is_unknown_today_is_not_nothing(store):
    save(store, "a", cost=None)
    assert report_of(store).totals["Today"] == "unknown"
    assert not {"Today", "This week"} & set(report_of(store, now=NOW + timedelta(days=30)).totals)


def test_the_table_is_by_agent_and_model_dearest_first(store):
    save(store, "a", cost=0.1)
    save(store, "b", cost=0.2, model="c/d")
    save(store, "c", cost=0.3, agent="triage")
    save(store, "d", cost=None, agent="unknown")
    table = report_of(store).table
    assert table[["agent", "model"]].to_numpy().tolist() == [["triage", "a/b"], ["support", "c/d"], ["support", "a/b"], ["unknown", "a/b"]]
    assert table.cost_usd.tolist()[:3] == [0.3, 0.2, 0.1]


def test_an_empty_history_says_so(store):
    shown = agentroute.report(store=store)._repr_mimebundle_()
    assert set(shown) == {"text/html", "text/plain"}
    assert "<table" not in shown["text/html"] and "<img" not in shown["text/html"]
    assert shown["text/plain"] == "Runs  none"
    assert not store.path.exists()


def test_the_page_has_the_plots_as_pictures_with_their_meaning_in_words(store):
    save(store, "a")
    reader = Reader(agentroute.report(store=store).to_html())
    images = [attributes for tag, attributes in reader.attributes if tag == "img"]
    assert len(images) == len(DRAWINGS)
    for image in images:
        kind, data = image["src"].split(",", 1)
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG")
        assert image["alt"].endswith(".")
    assert "Cumulative cost by model from 2026-11-21 to 2026-11-21: a/b $0.5000." in images[0]["alt"]


def test_the_page_loads_nothing(store):
    save(store, "a")
    page = agentroute.report(store=store).to_html()
    without_data = re.sub(r'src="data:image/png;base64,[A-Za-z0-9+/=]+"', "", page)
    assert not re.search(r"https?:|//|url\(|import|src=|href=|fetch", without_data)


def test_the_table_is_one_for_screen_readers(store):
    save(store, "a")
    reader = Reader(page_of(store))
    assert "caption" in reader.tags
    scopes = [attributes["scope"] for tag, attributes in reader.attributes if tag == "th"]
    assert scopes == ["col"] * 13 + ["row"]
    assert [attributes["aria-sort"] for tag, attributes in reader.attributes if "aria-sort" in attributes] == ["descending"]
    assert "button" not in reader.tags  # the script makes them, so that nothing looks pressable where it does not run


def test_foreign_text_is_text(store):
    texts = [*HOSTILE, '"><img src=x onerror=alert(1)>', "</style><script>alert(1)</script>", "' onload='x", "&lt;", "</script>"]
    for number in range(len(texts)):
        save(store, f"r{number}", agent=f"agent {number}", model=f"model {number}", tool="plain")
    expected = Reader(report_of(store).to_html()).tags
    for number, text in enumerate(texts):
        save(store, f"r{number}", agent=f"{text}{number}", model=f"{text}{number}", tool=text)
    reader = Reader(report_of(store).to_html())
    assert reader.tags == expected
    assert {name for _, attributes in reader.attributes for name in attributes} == {"class", "style", "scope", "aria-sort", "data-v", "width", "alt", "src"}
    assert r"turn\u202eed11" in reader.texts
    assert repr(report_of(store)).count("\n") == len(texts) + 11


def test_dollars_are_not_read_as_formulas(store):
    save(store, "a")
    assert 'class="agr-report mathjax_ignore tex2jax_ignore"' in page_of(store)


def test_a_long_table_is_cut_and_says_so(store):
    for number in range(ROWS + 5):
        save(store, f"r{number}", agent=f"agent {number}", cost=number + 1.0)
    shown = report_of(store)
    shown.__dict__["pictures"] = []
    page, text = shown.to_html(), repr(shown)
    assert len(shown.table) == ROWS + 5
    assert page.count("<tr>") == ROWS + 1
    assert "5 rows more in .table" in page and "5 rows more in .table" in text
    assert "agent 104" in text and "agent 4 " not in text


def test_what_is_unknown_has_no_order_in_the_table(store):
    save(store, "a", cost=None)
    page = page_of(store)
    assert '<td style="text-align:right">unknown</td>' in page
    assert '<td style="text-align:right" data-v="1000">1,000</td>' in page


def test_without_matplotlib_there_are_totals_a_table_and_how_to_get_plots(store, monkeypatch):
    save(store, "a")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    page = agentroute.report(store=store).to_html()
    assert "<img" not in page
    assert "<table" in page
    assert "No plots: a plot needs matplotlib: pip install &quot;agentroute[notebook]&quot;" in page


def test_pictures_are_drawn_when_they_are_shown_and_once(store):
    save(store, "a")
    shown = agentroute.report(store=store)
    assert "pictures" not in vars(shown)
    assert shown.to_html() == shown.to_html()
    assert shown.pictures is shown.pictures


def test_filters_choose_the_runs(store):
    save(store, "a", agent="a", cost=0.25)
    save(store, "b", agent="b", cost=0.5)
    shown = agentroute.report(store=store, agent="b")
    assert (shown.totals["Cost"], shown.table.agent.tolist()) == ("$0.5000", ["b"])


def test_a_frame_of_runs_is_reported_with_its_turns(store):
    save(store, "a", cost=0.25, tool="first")
    save(store, "b", cost=0.5, tool="second")
    runs = agentroute.runs(store)
    shown = agentroute.report(runs[runs.run_id == "a"], store=store)
    assert (shown.totals["Cost"], shown.totals["Turns"]) == ("$0.2500", "1")
    assert [sentence for _, sentence in shown.pictures if "Tools" in sentence] == ["Tools: first: 1 call."]


def test_a_frame_whose_turns_are_elsewhere_is_reported_by_its_own_figures(store, tmp_path):
    save(store, "a", cost=0.25)
    save(store, "b", cost=0.5)
    runs = agentroute.runs(store).convert_dtypes(dtype_backend="pyarrow")
    shown = agentroute.report(runs, store=tmp_path / "other.db")
    assert (shown.totals["Cost"], shown.totals["Runs"], shown.totals["Turns"]) == ("$0.7500", "2", "2")
    assert "$0.7500" in shown.pictures[0][1]


def test_another_frame_and_filters_beside_one_are_told(store):
    save(store, "a")
    with pytest.raises(ErrorConfig, match=r"report takes a frame of agentroute.runs\(\); the one given has no column run_id"):
        agentroute.report(agentroute.cost("agent", store=store))
    with pytest.raises(ErrorConfig, match="a frame or filters, not both"):
        agentroute.report(agentroute.runs(store), store=store, since="7d")


def test_the_plain_form_is_aligned_text(store):
    save(store, "a", cost=0.25)
    lines = repr(agentroute.report(store=store)).splitlines()
    assert lines[0] == "Runs             1"
    assert lines[-1].split() == ["support", "a/b", "1", "1", "1,000", "50", "$0.2500", "$0.2500", "2.0", "s", "2.0", "s", "0", "0", "%"]


def test_plots_and_totals_count_the_same_turns_as_unknown(store):
    save(store, "a", cost=0.25)
    save(store, "b", cost=None)
    refused = RunRecord(run_id="c", started_at=NOW, agent_name="x", request_model="a/b", status="error", n_turns=1)
    store.save(refused, turns=[TurnRecord(run_id="c", turn_index=1, started_at=NOW, request_model="a/b", error_type="ErrorModelRateLimit")])
    store.save(RunRecord(run_id="d", started_at=NOW, agent_name="x", request_model="a/b", status="error"))
    assert report_of(store).totals["Cost unknown"] == "1 turn (33.3 %)"
    for name in ("cumulative_cost", "savings", "cost_by_turn"):
        assert "cost unknown: 1 of 3 turns" in getattr(plots, f"plot_{name}")(store=store).get_xlabel()
    assert "cost unknown: 1 of 3 turns" in plots.plot_savings(agentroute.turns(store)).get_xlabel()
    assert "cost unknown: 1 of 3 turns" in plots.plot_savings(agentroute.runs(store)).get_xlabel()
    assert plots.plot_tokens(store=store).get_xlabel() == ""


def test_a_run_that_is_in_the_frame_twice_counts_once(store):
    save(store, "a", cost=0.25)
    runs = agentroute.runs(store)
    assert agentroute.report(pd.concat([runs, runs]), store=store).totals["Runs"] == "1"
    assert plots.plot_cost_per_run(pd.concat([runs, runs])).patches[0].get_data().values.sum() == 1


def test_the_seconds_and_cost_of_a_run_are_said_to_be_of_runs_that_asked(store):
    save(store, "a")
    for text in agentroute.report(store=store)._repr_mimebundle_().values():
        assert "A run, p50, p95: of the runs that asked the model." in text


def test_names_without_a_letter_can_be_told_apart(store):
    for number, agent in enumerate(["", "  "]):
        save(store, f"r{number}", agent=agent)
    page = agentroute.report(store=store).to_html()
    assert "&quot;&quot;" in page and "&quot;  &quot;" in page


def test_a_history_in_the_place_of_a_frame_is_told():
    with pytest.raises(ErrorConfig, match=r"a history is given as store='runs\.db'"):
        agentroute.report("runs.db")
