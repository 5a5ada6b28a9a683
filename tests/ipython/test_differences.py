"""Differences of two texts, word by word, and of two recorded runs."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentroute import Agent, ErrorConfig, Result, RunStore, ToolCall
from agentroute.records import MessageRecord, Record, RunRecord, TurnRecord
from agentroute.testing import ModelScripted
from agentroute_ipython.comparison import Results
from agentroute_ipython.difference_sheet import diff_sheet
from agentroute_ipython.differences import RunDifferences, diff, diff_html, diff_text
from agentroute_ipython.word_differences import LONG, WORK, by_lines, word_diff
from tests.ipython.test_display import HOSTILE, Page

START = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
NOTEBOOK = "prompts.ipynb"
TEXTS = st.text(alphabet=st.sampled_from("ab c.\n日本ก็é'1,\u200d👩\r"), max_size=60) | st.text(max_size=40)


def first_of(pieces: list[tuple[Any, str]]) -> str:
    return "".join(text for kind, text in pieces if kind != "insert")


def second_of(pieces: list[tuple[Any, str]]) -> str:
    return "".join(text for kind, text in pieces if kind != "delete")


# ------------------------------------------------------------------------------------------------------------ two texts


@given(TEXTS, TEXTS)
def test_diff_holds_both_texts(a: str, b: str) -> None:
    pieces = word_diff(a, b)
    assert (first_of(pieces), second_of(pieces)) == (a, b)


@given(TEXTS, TEXTS)
def test_pieces_alternate_and_are_never_empty(a: str, b: str) -> None:
    pieces = word_diff(a, b)
    kinds = [kind for kind, _ in pieces]
    assert all(text for _, text in pieces)
    assert all(one != next_one for one, next_one in pairwise(kinds))
    assert ("insert", "delete") not in pairwise(kinds)


@given(TEXTS)
def test_text_that_did_not_change_is_equal(a: str) -> None:
    assert word_diff(a, a) == ([("equal", a)] if a else [])


@given(st.lists(st.sampled_from(["one", "two", "red", "blue"]), max_size=30), st.integers(0, 30))
def test_one_word_put_in_is_the_only_change(words: list[str], place: int) -> None:
    longer = [*words[:place], "NEW", *words[place:]]
    pieces = word_diff(" ".join(words), " ".join(longer))
    assert "".join(text for kind, text in pieces if kind == "insert").strip() == "NEW"
    assert [text for kind, text in pieces if kind == "delete"] == []


@pytest.mark.parametrize(
    ("a", "b", "pieces"),
    [
        ("", "", []),
        ("", "new", [("insert", "new")]),
        ("old", "", [("delete", "old")]),
        ("It costs $4.90.", "It costs $4.95.", [("equal", "It costs $"), ("delete", "4.90"), ("insert", "4.95"), ("equal", ".")]),
        ("I don't.", "I won't.", [("equal", "I "), ("delete", "don't"), ("insert", "won't"), ("equal", ".")]),
        ("a b c d", "a x y d", [("equal", "a "), ("delete", "b c"), ("insert", "x y"), ("equal", " d")]),
        ("今日は良い天気", "今日は悪い天気", [("equal", "今日は"), ("delete", "良"), ("insert", "悪"), ("equal", "い天気")]),
        ("ดีมาก", "ดีมาก ๆ", [("equal", "ดีมาก"), ("insert", " ๆ")]),
        ("👩\u200d👧 hi", "👩\u200d👦 hi", [("delete", "👩\u200d👧"), ("insert", "👩\u200d👦"), ("equal", " hi")]),
        ("cafe\u0301", "cafe", [("delete", "cafe\u0301"), ("insert", "cafe")]),
        ("한국어 문장", "한국어 단어", [("equal", "한국어 "), ("delete", "문장"), ("insert", "단어")]),
    ],
)
def test_pieces_are_words_or_characters_of_scripts_without_spaces(a: str, b: str, pieces: list[tuple[str, str]]) -> None:
    assert word_diff(a, b) == pieces


def test_shortest_way_is_found_where_words_repeat() -> None:
    assert word_diff("a b a b a b", "b a b a") == [("delete", "a "), ("equal", "b a b a"), ("delete", " b")]


def test_change_of_whole_lines_begins_where_a_line_begins() -> None:
    assert word_diff("- one\n- three\n", "- one\n- two\n- three\n") == [("equal", "- one\n"), ("insert", "- two\n"), ("equal", "- three\n")]


def test_long_texts_are_compared_by_line() -> None:
    lines = [f"line {number} of the text" for number in range(2000)]
    changed = [*lines[:1000], "line 1000 of another text", *lines[1001:]]
    a, b = "\n".join(lines), "\n".join(changed)
    assert by_lines(a, b) and not by_lines(a[:100], b[:100])
    assert [(kind, text) for kind, text in word_diff(a, b) if kind != "equal"] == [
        ("delete", lines[1000] + "\n"),
        ("insert", changed[1000] + "\n"),
    ]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("ha " * 30_000, "ho ha " * 15_000),
        ("a\n" * 50_000, "b\na\n" * 25_000),
        ("x" * 100_000, "y" * 100_000),
        ("ab" * 14_000, "ba " * 10_000),
    ],
    ids=["words", "lines", "one word", "short words"],
)
def test_work_is_bounded_for_texts_that_repeat(a: str, b: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spent: list[int] = []
    from agentroute_ipython import word_differences

    class Counting(word_differences._Work):
        def spend(self, steps: int) -> bool:
            spent.append(steps)
            return super().spend(steps)

    monkeypatch.setattr(word_differences, "_Work", Counting)
    pieces = word_diff(a, b)
    assert (first_of(pieces), second_of(pieces)) == (a, b)
    assert sum(spent) < WORK + len(a) + len(b)


def test_what_is_not_compared_when_the_work_is_spent_counts_as_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentroute_ipython.word_differences.WORK", 1)
    assert word_diff("a x b y c", "a q b z c") == [("equal", "a "), ("delete", "x b y"), ("insert", "q b z"), ("equal", " c")]


def test_html_names_changes_in_words_and_in_tags() -> None:
    html = diff_html("It is late.", "It left today.")
    page = Page(html)
    assert page.texts["del"] == ["[removed: is late]"]
    assert page.texts["ins"] == ["[added: left today]"]
    assert diff_text("It is late.", "It left today.") == "It [-is late-]{+left today+}."


def test_line_ends_that_changed_are_seen() -> None:
    assert "↵" in Page(diff_html("a b", "a\nb")).texts["ins"][0]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text: str) -> None:
    page = Page(diff_html(f"x {text} y", f"x {text[::-1]} z"))
    assert set(page.tags) <= {"p", "del", "ins", "i", "br", "wbr"}
    assert {value for _, value in page.attributes} <= {"agr-diff", "agr-word", "auto"}


def test_most_of_what_is_equal_is_left_out() -> None:
    same = "The same words again. " * 200
    html, text = diff_html(f"{same}old {same}", f"{same}new {same}"), diff_text(f"{same}old {same}", f"{same}new {same}")
    assert len(html) < 1200 and len(text) < 800
    assert "4,300 the same characters" in text and "[-old-]{+new+}" in text


def test_differences_without_end_are_cut() -> None:
    a, b = " ".join(f"a{n} same{n}" for n in range(4000)), " ".join(f"b{n} same{n}" for n in range(4000))
    assert len(a) + len(b) > LONG
    short_a, short_b = a[:25_000], b[:25_000]
    assert "more changes not shown" in diff_text(short_a, short_b)
    assert len(diff_html(short_a, short_b)) < 250_000


# ------------------------------------------------------------------------------------------------------------- two runs


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    with closing(RunStore(tmp_path / "runs.db")) as store:
        yield store


def lookup(order_id: str) -> str:
    """Where an order is."""
    return "shipped"


def refund(order_id: str) -> str:
    """Pays back."""
    return "paid"


def ran(answer: str = "It left today.", prompt: str = "Where is order 4821?", **options: Any) -> Result[Any]:
    model = ModelScripted([answer], model_id=options.pop("model_id", "vendor/small"))
    return Agent("support", model=model, **options).run(prompt)


def save(store: RunStore, number: int, **fields: Any) -> str:
    known = {"agent_name": "support", "request_model": "vendor/small", "status": "ok", "n_turns": 1, "notebook": NOTEBOOK}
    known |= {"prompt_text": f"Prompt {number}", "output_text": "Yes.", "duration_s": 1.0, "cost_usd": 0.01}
    run = RunRecord(**{"run_id": f"01M80WG2YHYK10V230Y7K{number:05d}", "started_at": START + timedelta(seconds=number), **known, **fields})
    store.save(run, turns=[TurnRecord(run_id=run.run_id, turn_index=1, started_at=START, request_model=run.request_model)])
    return run.run_id


def shown(differences: RunDifferences | str) -> RunDifferences:
    assert isinstance(differences, RunDifferences)
    return differences


def test_changed_prompt_instructions_model_and_answer_are_named() -> None:
    before = ran("It is late.", instructions="Be short.")
    after = ran("It left today.", "Where is order 4822?", instructions="Be kind.", model_id="vendor/large")
    found = diff(before, after)
    assert [name for name, _, _ in found.texts] == ["prompt", "instructions", "answer"]
    changed = {row[0]: row[1:3] for row in found.rows if row[3] == "changed"}
    assert changed["model"] == ("vendor/small", "vendor/large")
    assert "order [-4821-]{+4822+}" in repr(found) and "Be [-short-]{+kind+}." in repr(found)
    assert "agent" in found.same
    assert "unchanged: agent" in repr(found)


def test_tools_added_removed_and_defined_anew_are_named() -> None:
    def changed(order_id: str, note: str) -> str:
        """Where an order is."""
        return "shipped"

    changed.__name__ = "lookup"
    found = diff(ran(tools=[lookup, refund]), ran(tools=[changed]))
    assert ("tools", "lookup, refund", "lookup", "removed refund") in found.rows
    assert [name for name, _, _ in found.texts] == ["definition of lookup"]
    assert '{+        "note": {' in repr(found)


def test_tools_called_are_compared() -> None:
    model = ModelScripted([ToolCall("1", "lookup", {"order_id": "1"}), "It left today."], model_id="vendor/small")
    called = Agent("support", model=model, tools=[lookup]).run("Where is order 4821?")
    assert ("tools called", "none", "lookup", "changed") in diff(ran(tools=[lookup]), called).rows


def test_nothing_changed_is_said() -> None:
    found = diff(ran(instructions="Be short."), ran(instructions="Be short."))
    assert found.unchanged
    assert "nothing changed in prompt, instructions, tools, model or settings, and the answer is the same" in repr(found)
    assert "nothing changed" in Page(found._repr_html_()).text


def test_figures_are_compared_with_how_much_they_changed(store: RunStore) -> None:
    save(store, 1, cost_usd=0.01, duration_s=2.0, input_tokens=100, output_tokens=None)
    save(store, 2, cost_usd=0.005, duration_s=3.0, input_tokens=100, output_tokens=None)
    rows = {row[0]: row[1:] for row in shown(diff_sheet("", store, NOTEBOOK)).rows}
    assert rows["cost"] == ("$0.0100", "$0.0050", "−50 %")
    assert rows["time"] == ("2.0 s", "3.0 s", "+50 %")
    assert rows["tokens in"] == ("100", "100", "same")
    assert rows["tokens out"] == ("unknown", "unknown", "")


def test_replayed_run_shows_what_its_answer_had_cost_and_no_seconds(store: RunStore) -> None:
    save(store, 1)
    save(store, 2, cost_usd=0.0, cost_saved_usd=0.01, n_replayed=1, duration_s=0.002)
    rows = {row[0]: row[1:] for row in shown(diff_sheet("", store, NOTEBOOK)).rows}
    assert rows["cost"] == ("$0.0100", "$0.0100", "same")
    assert rows["time"] == ("1.0 s", "unknown", "")


def test_run_that_goes_on_is_running_and_has_no_answer_yet(store: RunStore) -> None:
    save(store, 1)
    save(store, 2, status="interrupted", duration_s=None, output_text=None)
    found = shown(diff_sheet("", store, NOTEBOOK))
    assert ("status", "ok", "running", "changed") in found.rows
    assert "the second run has no answer yet" in repr(found)
    ended = diff(save(store, 3, status="interrupted", output_text=None), save(store, 4), store=store)
    assert ("status", "interrupted", "ok", "changed") in ended.rows
    assert "the first run has no answer\n" in f"{ended!r}\n"


def test_last_two_runs_of_the_notebook_are_meant_and_none_that_a_tool_began(store: RunStore) -> None:
    save(store, 1)
    save(store, 2)
    save(store, 3, notebook="other.ipynb")
    save(store, 4, parent_run_id="01M80WG2YHYK10V230Y7K00002")
    save(store, 5, notebook=None)
    found = shown(diff_sheet("", store, NOTEBOOK))
    assert [found.before.run.prompt_text, found.after.run.prompt_text] == ["Prompt 1", "Prompt 2"]


def test_last_two_are_found_behind_many_of_tools(store: RunStore) -> None:
    save(store, 1)
    save(store, 2)
    for number in range(3, 130):
        save(store, number, parent_run_id="01M80WG2YHYK10V230Y7K00002")
    assert shown(diff_sheet("", store, NOTEBOOK)).after.run.prompt_text == "Prompt 2"


def test_too_few_runs_are_told_in_words(store: RunStore) -> None:
    assert str(diff_sheet("", store, NOTEBOOK)).startswith("no run of this notebook is recorded yet; ")
    save(store, 1)
    assert str(diff_sheet("", store, NOTEBOOK)).startswith("there is only one run of this notebook so far; ")


# ---------------------------------------------------------------------------------------------------------- comparisons


def compare(store: RunStore, comparison: str, numbers: Sequence[int], *fields: dict[str, Any]) -> list[str]:
    """Records runs of one comparison, whose ids and times need not be in the order of their positions."""
    tags = [json.dumps({"comparison": comparison, "position": str(position)}) for position in range(1, len(fields) + 1)]
    return [save(store, number, **{**one, "tags": tag}) for number, one, tag in zip(numbers, fields, tags, strict=True)]


def prompts(differences: RunDifferences | str) -> list[str]:
    return [shown(differences).before.run.prompt_text, shown(differences).after.run.prompt_text]


@pytest.mark.parametrize("numbers", [[5, 6, 7, 8], [6, 5, 8, 7]])
def test_comparison_is_one_step_and_compared_with_the_one_before_it(store: RunStore, numbers: list[int]) -> None:
    compare(store, "c1", numbers[:2], {"prompt_text": "one"}, {"prompt_text": "one", "output_text": "No."})
    compare(store, "c2", numbers[2:], {"prompt_text": "two"}, {"prompt_text": "two", "output_text": "No."})
    found = shown(diff_sheet("", store, NOTEBOOK))
    assert prompts(found) == ["one", "two"] and "answer" in found.same
    assert "compared: run 1 of 2 of the earlier cell, run 1 of 2 of the later one" in repr(found)
    assert "compared: run 1 of 2" in Page(found._repr_html_()).text
    assert "position" not in repr(found) and not [row for row in found.rows if row[0] == "tags"]


def test_run_is_compared_with_the_one_of_the_same_agent_and_model(store: RunStore) -> None:
    compare(store, "c1", [1, 2], {"agent_name": "a", "prompt_text": "a1"}, {"agent_name": "b", "prompt_text": "b1"})
    compare(store, "c2", [3, 4], {"agent_name": "b", "prompt_text": "b2"}, {"agent_name": "a", "prompt_text": "a2"})
    assert prompts(diff_sheet("", store, NOTEBOOK)) == ["b1", "b2"]
    save(store, 5, agent_name="a", prompt_text="a3")
    found = shown(diff_sheet("", store, NOTEBOOK))
    assert prompts(found) == ["a2", "a3"]
    assert "compared: run 2 of 2 of the earlier cell, the run of the later one" in repr(found)


def test_first_run_that_was_asked_otherwise_is_shown(store: RunStore) -> None:
    same = {"prompt_text": "hi"}
    compare(store, "c1", [1, 2], {**same, "request_model": "m1"}, {**same, "request_model": "m2"})
    compare(store, "c2", [3, 4], {**same, "request_model": "m1", "output_text": "No."}, {**same, "request_model": "m3"})
    found = shown(diff_sheet("", store, NOTEBOOK))
    assert ("model", "m2", "m3", "changed") in found.rows
    compare(store, "c3", [5, 6], {**same, "request_model": "m1"}, {**same, "request_model": "m3"})
    found = shown(diff_sheet("", store, NOTEBOOK))
    assert [name for name, *_ in found.texts] == ["answer"] and found.after.run.request_model == "m1"


def test_step_that_shares_no_agent_is_compared_by_its_first_run(store: RunStore) -> None:
    save(store, 1, agent_name="other", prompt_text="alone")
    compare(store, "c1", [3, 2], {"agent_name": "a", "prompt_text": "first"}, {"agent_name": "b", "prompt_text": "second"})
    assert prompts(diff_sheet("", store, NOTEBOOK)) == ["alone", "first"]


def test_only_comparison_so_far_is_compared_in_itself(store: RunStore) -> None:
    compare(store, "c1", [2, 1], {"prompt_text": "first"}, {"prompt_text": "second"})
    found = shown(diff_sheet("", store, NOTEBOOK))
    assert prompts(found) == ["first", "second"]
    assert found.title == "What differs between runs 1 and 2 of the 2 that the only cell so far has compared"


def test_tag_that_is_somebody_elses_is_a_setting(store: RunStore) -> None:
    save(store, 1, tags='{"comparison": "mine"}')
    save(store, 2, tags='{"comparison": "mine", "position": 7, "x": "1"}')
    save(store, 3, tags='{"position": "left"}')
    found = shown(diff_sheet("", store, NOTEBOOK))
    assert ("tags", "x=1", "position=left", "changed") in found.rows


def test_last_run_that_was_not_recorded_is_told(store: RunStore) -> None:
    later = START + timedelta(days=1)
    last = ran()
    assert last.record is not None
    last.record.run.started_at = later
    assert str(diff_sheet("", store, NOTEBOOK, last)).startswith("no run of this notebook is recorded yet; a later run of this")
    save(store, 1)
    save(store, 2)
    for last_one in (last, Results([last], ["a"])):
        found = shown(diff_sheet("", store, NOTEBOOK, last_one))
        assert found.title == "What changed from the recorded run before last to the last recorded run"
        assert "a later run of this notebook was not recorded here" in repr(found)
    last.record.run.started_at = START
    for last_one in (last, None, "text", Results(), Result("x")):
        assert "not recorded" not in repr(diff_sheet("", store, NOTEBOOK, last_one))


def test_results_of_two_runs_can_be_compared() -> None:
    both = Results([ran("one"), ran("two")], ["a", "b"])
    assert diff(both).texts == diff(both[0], both[1]).texts == [("answer", "one", "two")]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("x",), "diff compares two runs: diff(run, other); got 'x'"),
        ((Results([Result("x")] * 3),), "got 3 runs of a comparison; name two of them: diff(results[0], results[1])"),
        ((Results([Result("x")] * 2), "x"), "got 2 runs of a comparison; name two of them: diff(results[0], results[1])"),
        ((ran(),), "diff compares two runs: diff(run, other); got Result("),
    ],
)
def test_what_is_not_two_runs_is_told(given: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ErrorConfig, match=re.escape(message)):
        diff(*given)


def test_figures_only_are_told(store: RunStore) -> None:
    save(store, 1, prompt_text="", output_text=None)
    save(store, 2)
    found = shown(diff_sheet("", store, NOTEBOOK))
    assert "the run history keeps figures only of the first run" in repr(found)
    assert not found.texts and "the answer is the same" not in repr(found)


def test_figures_only_of_a_real_history(tmp_path: Path) -> None:
    with closing(RunStore(tmp_path / "runs.db", record_content="metadata")) as store:
        for answer in ("one", "two"):
            ran(answer, store=store)
        assert "figures only of either run" in repr(diff_sheet("", store))


def test_runs_are_named_by_id_or_its_beginning(store: RunStore) -> None:
    first, second = save(store, 1), save(store, 2)
    save(store, 3)
    found = shown(diff_sheet(f"{first} {second.lower()}", store))
    assert found.title == "What changed between the two runs"
    assert [found.before.run.run_id, found.after.run.run_id] == [first, second]
    assert diff(first, second, store=store).rows == found.rows


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("01M80WG2YHYK10V230Y7K00001", "compares the last two runs, or two run ids"),
        ("01M80WG2YHYK10V230Y7K00001 01M80WG2YHYK10V230Y7K00009", "no run has the id 01M80WG2YHYK10V230Y7K00009; did you mean 01M80WG2YHYK10V230Y7K0000"),
        ("01M8 01M80WG2YHYK10V230Y7K00001", "2 runs have an id that begins with 01M8; give more of it"),
        ("zz zz", "no run has the id zz\n%agent runs lists the runs and their ids"),
    ],
)
def test_run_that_is_not_there_is_told(store: RunStore, line: str, message: str) -> None:
    save(store, 1)
    save(store, 2)
    with pytest.raises(ErrorConfig, match=re.escape(message)):
        diff_sheet(line, store, NOTEBOOK)


def test_result_without_a_record_cannot_be_compared() -> None:
    with pytest.raises(ErrorConfig, match="Results of runs, or run ids"):
        diff(Result("x"), Result("y"))


def test_structured_answers_are_compared_by_line() -> None:
    def record(text: str) -> Record:
        known = {"run_id": "r", "started_at": START, "agent_name": "a", "request_model": "m", "n_turns": 1, "prompt_text": "p"}
        return Record(RunRecord(**known, output_text=text), [], [], [MessageRecord(run_id="r", message_index=0, role="user", content_text="p")])

    found = RunDifferences(record('{"city": "Bonn", "days": 2}'), record('{"days": 3, "city": "Bonn"}'))
    assert "\n" in found.texts[0][1]


def test_page_holds_no_id_and_no_time_of_day(store: RunStore) -> None:
    first, second = save(store, 1), save(store, 2)
    html = shown(diff_sheet(f"{first} {second}", store))._repr_html_()
    assert first not in html and second not in html and "2026" not in html and "09:00" not in html
    assert len(html) < 10_000


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_in_every_field_stays_text(text: str, store: RunStore) -> None:
    fields = {"agent_name": text, "request_model": text, "error_type": "E", "error_text": text, "tags": text, "session_id": text, "tools_text": text}
    save(store, 1)
    save(store, 2, prompt_text=text, output_text=text, **fields)
    page = Page(shown(diff_sheet("", store, NOTEBOOK))._repr_html_())
    allowed = {"section", "style", "div", "table", "thead", "tbody", "tr", "th", "td", "p", "b", "i", "del", "ins", "br", "wbr"}
    assert set(page.tags) <= allowed and not page.strange
