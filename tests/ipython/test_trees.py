"""Values as nested parts and tables: whatever they hold, they are drawn, harmless and bounded."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentroute.result_text import result_text
from agentroute_ipython.trees import answer_table, container, tree
from tests.ipython.test_display import HOSTILE, TAGS, Page, hidden, strange


def page(html: str) -> Page:
    return Page(f"<section>{html}</section>")


def test_object_is_a_list_of_its_keys_and_what_is_long_in_it_opens() -> None:
    shown = page(tree({"id": "4821", "n": 2, "gone": None, "address": {"city": "London", "lines": ["12 Dorset Street" * 3, "Flat 4" * 3]}}, 2_000))
    assert [text.strip() for text in shown.texts["li"]][:3] == ['id: "4821"', "n: 2", "gone: null"]
    assert shown.texts["summary"] == ["address 2 keys", "lines 2 items"]
    assert shown.texts["code"][-1] == json.dumps("Flat 4" * 3)


def test_short_part_stands_on_the_line_of_its_key() -> None:
    shown = page(tree({"tags": ["a", "b"], "size": {"w": 1}}, 2_000))
    assert "details" not in shown.tags
    assert shown.texts["code"] == ['["a", "b"]', '{"w": 1}']


def test_long_part_is_closed_and_a_shorter_one_open() -> None:
    shown = page(tree({"long": ["x" * 100] * 9, "short": ["y" * 50] * 2}, 5_000))
    assert [pair for pair in shown.attributes if pair[0] == "open"] == [("open", None)]
    assert shown.texts["summary"] == ["long 9 items", "short 2 items"]


def test_list_of_objects_is_a_table() -> None:
    shown = page(tree([{"sku": "MUG", "n": 2, "gift": True}, {"sku": "TOWEL", "n": None, "note": "a\nb"}], 2_000))
    assert shown.texts["th"] == ["sku", "n", "gift", "note"]
    assert shown.texts["td"] == ["MUG", "2", "true", "", "TOWEL", "null", "", "ab"]
    assert [pair for pair in shown.attributes if pair == ("scope", "col")] == [("scope", "col")] * 4


@pytest.mark.parametrize("rows", [[{"a": 1}], [{"a": 1}, 2], [{"a": {"deep": "x" * 99}}, {"a": 1}], [{str(n): n} for n in range(20)]])
def test_list_that_would_be_no_good_table_is_a_list(rows: Any) -> None:
    assert "table" not in page(tree(rows, 2_000)).tags


def test_data_frame_model_and_dataclass_come_back_from_the_record_as_tables() -> None:
    import pandas as pd
    from pydantic import BaseModel

    class Line(BaseModel):
        sku: str
        n: int

    frame = pd.DataFrame({"sku": ["MUG", "TOWEL"], "n": [2, 1]})
    for value in (frame, [Line(sku="MUG", n=2), Line(sku="TOWEL", n=1)]):
        read = container(result_text(value))
        assert page(tree(read, 2_000)).texts["tr"] == ["skun", "MUG2", "TOWEL1"]


def test_text_of_several_lines_keeps_them() -> None:
    assert page(tree({"code": "a:\n  b\n"}, 2_000)).texts["pre"] == ["a:\n  b"]


def test_structured_answer_is_a_table_of_keys_rows_or_items() -> None:
    nested = {"lines": [{"sku": "MUG" * 9, "n": 2}, {"sku": "TOWEL" * 9, "n": 1}], "who": {"name": "Ada" * 9, "city": "London" * 9}, "total": 3.5}
    shown = page(answer_table(nested, 5_000))
    assert shown.texts["th"] == ["lines", "sku", "n", "who", "total"]
    assert shown.texts["li"][0].strip() == f'name: "{"Ada" * 9}"'
    assert page(answer_table([{"a": 1}, {"a": 2}], 5_000)).texts["tr"] == ["a", "1", "2"]
    assert page(answer_table(["x", 2, False], 5_000)).texts["tr"] == ["0x", "12", "2false"]


@pytest.mark.parametrize("text", ["", "x", "{", "[1", "12", '"a"', "[]", "{}", "{'a': 1}", "[" * 100_000, '{"a":' * 50_000, "[" + "9" * 5000 + "]", " " * 300_000])
def test_text_that_is_no_object_or_list_is_none(text: str) -> None:
    assert container(text) is None


def nested(depth: int, kind: str) -> Any:
    value: Any = "end"
    for _ in range(depth):
        value = {"k": value} if kind == "object" else [value]
    return value


@pytest.mark.parametrize("kind", ["object", "list"])
@pytest.mark.parametrize("depth", [7, 9, 500, 50_000])
def test_depth_is_bounded(kind: str, depth: int) -> None:
    for html in (tree(nested(depth, kind), 2_000), answer_table(nested(depth, kind), 2_000)):
        shown = page(html)
        assert shown.tags.count("details") <= 8 and len(html) < 12_000


@pytest.mark.parametrize(
    "value",
    [list(range(100_000)), {str(n): n for n in range(100_000)}, [{"a": "x" * 500, "b": n} for n in range(10_000)], ["x" * 10_000_000], {"k" * 10_000_000: 1},
     [[["y" * 99] * 99] * 99] * 9, [{f"k{n}": "z" * 99 for n in range(12)}] * 5_000, ["\n" * 9_000] * 9_000, [{}] * 100_000, [[]] * 100_000, ["&<>" * 99_999] * 9],
    ids=range(11),
)  # fmt: skip
def test_size_is_bounded_and_what_is_left_out_is_told(value: Any) -> None:
    for draw in (tree, answer_table):
        html = draw(value, 2_000)
        assert len(html) < 20_000
        assert "whole in the result" in html or "…" in html
        assert set(page(html).tags) <= TAGS


def test_value_that_is_hardly_longer_is_whole() -> None:
    assert "left out" not in tree({"a": "x" * 90, "b": "y" * 90}, 200)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_harmless_as_key_and_value(text: str) -> None:
    for value in ({text: text}, [text, {text: [text]}], [{text: text, "b": 1}, {text: text, "b": 2}], {text: {text: text * 20, "b": [text] * 30}}):
        for html in (tree(value, 2_000), answer_table(value, 2_000)):
            shown = page(html)
            assert set(shown.tags) <= TAGS and strange(shown) == [] and hidden(html) == ""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=10), inner, max_size=6),
    max_leaves=40,
)


@given(JSON, st.integers(0, 3_000))
@settings(max_examples=200, deadline=None)
def test_every_value_is_drawn_with_known_tags(value: Any, limit: int) -> None:
    shown = page(tree(value, limit))
    assert set(shown.tags) <= TAGS and strange(shown) == []
