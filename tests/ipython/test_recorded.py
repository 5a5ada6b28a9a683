"""`%agent runs` and `%agent cost`, from a run history made by hand."""

import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agentroute import ErrorConfig, RunStore
from agentroute.records import RunRecord, TurnRecord
from agentroute_ipython.recorded import RUNS, Sheet, cost_sheet, runs_sheet

NOW = datetime.now(UTC).replace(microsecond=0)
SONNET, LOCAL = "anthropic/claude-sonnet-4", "local/smollm2"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    with closing(RunStore(tmp_path / "runs.db")) as store:
        yield store


def save(store: RunStore, number: int, *, age: timedelta = timedelta(0), **fields: Any) -> None:
    """A run of one turn, `age` ago, plus some milliseconds for its number."""
    started = NOW - age + timedelta(milliseconds=number)
    known = {
        "agent_name": "support",
        "request_model": SONNET,
        "status": "ok",
        "duration_s": 3.1,
        "n_turns": 1,
        "cost_source": "provider",
    }
    known |= {"input_tokens": 1000, "output_tokens": 50, "cost_usd": 0.01, "prompt_text": f"Prompt {number}"}
    run = RunRecord(**{"run_id": f"01M80WG2YHYK10V230Y7K{number:05d}", "started_at": started, **known, **fields})
    shared = {
        name: getattr(run, name)
        for name in (
            "run_id",
            "started_at",
            "request_model",
            "input_tokens",
            "output_tokens",
            "cost_usd",
            "cost_source",
            "cost_saved_usd",
        )
    }
    store.save(run, turns=[TurnRecord(turn_index=1, replayed_from="x" if run.n_replayed else None, **shared)] * run.n_turns)


def sheet(shown: Sheet | str) -> Sheet:
    assert isinstance(shown, Sheet)
    return shown


def lines(shown: Sheet | str) -> list[list[str]]:
    """The rows as text, without title, heads and note."""
    return [list(row) for row in sheet(shown).text.rows]


# The runs


def test_the_last_runs_are_listed_newest_first(store: RunStore) -> None:
    for number in range(RUNS + 5):
        save(store, number)
    shown = runs_sheet("", store)
    assert repr(shown).startswith(f"The last {RUNS} runs\nstarted ")
    assert [line[3] for line in lines(shown)] == [f"Prompt {number}" for number in range(RUNS + 4, 4, -1)]
    assert [line[3] for line in lines(runs_sheet("2", store))] == ["Prompt 24", "Prompt 23"]
    assert sheet(runs_sheet("99", store)).title == "25 runs"


def test_run_is_a_row_of_figures_and_an_id_to_copy(store: RunStore) -> None:
    save(store, 7)
    local = f"{NOW.astimezone():%Y-%m-%d %H:%M}"
    run_id = "01M80WG2YHYK10V230Y7K00007"
    assert lines(runs_sheet("", store)) == [[local, "support", SONNET, "Prompt 7", "ok", "1", "1,000 / 50", "$0.0100", run_id]]
    html = sheet(runs_sheet("", store))._repr_html_()
    assert f'<code class="agr-id">{run_id}</code>' in html
    assert html.startswith('<section class="agr agr-sheet mathjax_ignore tex2jax_ignore"><style>')


@pytest.mark.parametrize(
    ("fields", "status", "cost"),
    [
        ({"status": "error", "error_type": "ErrorMaxTurns"}, "ErrorMaxTurns", "$0.0100"),
        ({"status": "interrupted"}, "interrupted", "$0.0100"),
        ({"status": "interrupted", "duration_s": None}, "running", "$0.0100"),
        ({"cost_usd": 0.0, "n_replayed": 1, "cost_saved_usd": 0.01}, "ok", "$0, saved $0.0100"),
        ({"cost_usd": 0.0, "n_replayed": 1}, "ok", "$0, replayed"),
        ({"cost_usd": None, "unknown_cost_calls": 1}, "ok", "unknown"),
        ({"unknown_cost_calls": 1}, "ok", "at least $0.0100"),
        ({"cost_usd": None, "n_turns": 0}, "ok", ""),
    ],
)
def test_status_and_cost_of_a_run_in_words(store: RunStore, fields: dict[str, Any], status: str, cost: str) -> None:
    save(store, 1, **fields)
    (line,) = lines(runs_sheet("", store))
    assert (line[4], line[7]) == (status, cost)


def test_filters_choose_the_runs(store: RunStore) -> None:
    save(store, 1, tags='{"tenant": "a"}', age=timedelta(days=9))
    save(store, 2, agent_name="reader", tags='{"tenant": "b"}')
    save(store, 3, request_model=LOCAL, status="error")
    save(store, 4, notebook="orders.ipynb")

    def chosen(line: str) -> list[str]:
        return [row[3][-1] for row in lines(runs_sheet(line, store))]

    assert chosen("--agent reader") == ["2"]
    assert chosen("--model local/smollm2") == ["3"]
    assert chosen("--status error") == ["3"]
    assert chosen("--tag tenant") == ["2", "1"]
    assert chosen("--tag tenant=a") == ["1"]
    assert chosen("--text 'PROMPT 2'") == ["2"]
    assert chosen("--notebook orders.ipynb") == ["4"]
    assert chosen("7d") == chosen("--since 7d") == ["4", "3", "2"]
    assert chosen("--until 7d") == ["1"]
    assert chosen("1 --agent support --since 7d") == ["4"]


@pytest.mark.parametrize("line", ["support", "0", "-3", "7d 8d", "7d --since 8d", "2 3", "2.5"])
def test_other_words_are_a_mistake_that_says_what_there_is(store: RunStore, line: str) -> None:
    with pytest.raises(ErrorConfig, match=re.escape("%agent runs takes a number of runs, a time such as 7d, and filters")):
        runs_sheet(line, store)


def test_mistaken_filter_says_so(store: RunStore) -> None:
    with pytest.raises(ErrorConfig, match="since must be a time such as '7d'"):
        runs_sheet("--since yesterdayish", store)
    with pytest.raises(ErrorConfig, match="unknown option --agnet; did you mean --agent"):
        runs_sheet("--agnet support", store)


def test_empty_history_says_how_to_get_one(store: RunStore) -> None:
    for show in (runs_sheet, cost_sheet):
        assert (
            show("", store)
            == f"no run is recorded in {store.path} yet; %%agent NAME records one, and so does agent.run(…) in a cell"
        )
    save(store, 1)
    assert runs_sheet("--agent nobody", store) == f"no such run in {store.path}; %agent runs without filters shows what there is"
    assert "%agent cost without filters" in str(cost_sheet("--agent nobody", store))


def test_text_of_others_is_escaped_and_visible(store: RunStore) -> None:
    strange = {"agent_name": "<x>", "request_model": "<x>", "status": "error", "error_type": "<x>"}
    save(store, 1, prompt_text="<x>\x1b[2J\u202e $5 or $6", **strange)
    for shown in (runs_sheet("", store), cost_sheet("model agent", store)):
        html = sheet(shown)._repr_html_()
        assert "&lt;x&gt;" in html
        assert "<x>" not in html
        assert not re.search("[\x1b\u202e]", html + repr(shown))


def test_saved_is_a_least_where_the_cost_of_some_replayed_answer_is_unknown(store: RunStore) -> None:
    run = RunRecord(run_id="r1", started_at=NOW, agent_name="support", request_model=SONNET, status="ok", n_turns=2, n_replayed=2, cost_usd=0.0, cost_source="provider", cost_saved_usd=0.01)
    turns = [
        TurnRecord(run_id="r1", turn_index=number, started_at=NOW, request_model=SONNET, replayed_from="r0", cost_usd=0.0, cost_source="provider", cost_saved_usd=saved)
        for number, saved in ((1, 0.01), (2, None))
    ]
    store.save(run, turns=turns)
    save(store, 1, cost_usd=0.0, n_replayed=1, cost_saved_usd=0.02, request_model=LOCAL)
    assert [line[7] for line in lines(runs_sheet("", store))] == ["$0, saved $0.0200", "$0, saved at least $0.0100"]
    assert "saved at least $0.0100" in sheet(runs_sheet("", store))._repr_html_()
    assert [line[-1] for line in lines(cost_sheet("model", store))] == ["at least $0.0100", "$0.0200", "at least $0.0300"]


# The cost


def test_cost_is_added_up_by_day_and_model(store: RunStore) -> None:
    for number in range(3):
        save(store, number)
    save(store, 3, request_model=LOCAL, cost_usd=0.0)
    save(store, 4, cost_usd=0.0, n_replayed=1, cost_saved_usd=0.02)
    save(store, 5, age=timedelta(days=40))
    day = f"{NOW.astimezone():%Y-%m-%d}"
    shown = sheet(cost_sheet("", store))
    assert shown.title == "Cost by day and model, the last 30 days"
    assert shown.text.heads == ("day", "model", "runs", "turns", "tokens in", "tokens out", "cost", "saved")
    assert lines(shown) == [
        [day, SONNET, "4", "4", "4,000", "200", "$0.0300", "$0.0200"],
        [day, LOCAL, "1", "1", "1,000", "50", "$0", ""],
        ["all", "", "5", "5", "5,000", "250", "$0.0300", "$0.0200"],
    ]


@pytest.mark.parametrize(
    ("line", "title", "rows"),
    [
        ("model", "Cost by model, the last 30 days", 2),
        ("agent model 12h", "Cost by agent and model, the last 12 hours", 2),
        ("1w week", "Cost by week, the last 1 week", 1),
        ("all month", "Cost by month", 2),
        ("model --since 2020-01-01", "Cost by model, since 2020-01-01", 2),
        ("2020-01-01 model --agent support", "Cost by model, since 2020-01-01", 1),
    ],
)
def test_words_choose_what_is_added_up(store: RunStore, line: str, title: str, rows: int) -> None:
    save(store, 1)
    save(store, 2, agent_name="reader", request_model=LOCAL)
    save(store, 3, age=timedelta(days=400))
    shown = cost_sheet(line, store)
    assert sheet(shown).title == title
    assert len(lines(shown)) == rows + 1


def test_unknown_cost_is_never_nothing(store: RunStore) -> None:
    save(store, 1, cost_usd=None, cost_source="unknown", unknown_cost_calls=1, request_model=LOCAL)
    save(store, 2)
    save(store, 3, cost_usd=None, cost_source="unknown", unknown_cost_calls=1)
    assert [line[5] for line in lines(cost_sheet("model", store))] == ["at least $0.0100", "unknown", "at least $0.0100"]


def test_only_the_newest_rows_are_shown_and_all_are_counted(store: RunStore) -> None:
    noon = NOW.astimezone().replace(hour=12)  # far from the hour that a change of the clock takes from a day
    for number in range(50):
        save(store, number, started_at=noon - timedelta(days=50 - number))
    shown = sheet(cost_sheet("day all", store))
    assert len(lines(shown)) == 41
    assert lines(shown)[-1][1] == "50"
    assert shown.note.startswith("10 earlier rows left out here, counted in the sums; ")


@pytest.mark.parametrize("line", ["modle", "7d 8d", "7d --since 8d", "20"])
def test_other_words_of_cost_are_a_mistake(store: RunStore, line: str) -> None:
    with pytest.raises(
        ErrorConfig, match=re.escape("%agent cost takes a time such as 7d, or all; day, week or month; model or agent")
    ):
        cost_sheet(line, store)
