import re
from pathlib import Path

import numpy
import pandas
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import SecretStr

from agentroute.config import Secret
from agentroute.errors import ErrorConfig
from agentroute_ipython.interpolation import MAX_CHARACTERS, interpolate

NAMES: dict[str, object] = {"customer": "Ann", "n": 3, "x": "X", "größe": "L", "_x1": "under"}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("Hello {customer}!", "Hello Ann!"),
        ("{customer}{n}", "Ann3"),
        ("{größe} and {_x1}", "L and under"),
        ('{"id": {n}}', '{"id": 3}'),
        ('{"a": {"b": {customer}}}', '{"a": {"b": Ann}}'),
        ("{{customer}}", "{customer}"),
        ("{{customer}} is {customer}", "{customer} is Ann"),
        ('{"a":{{customer}}}', '{"a":{customer}}'),
        ("{{unknown}}", "{unknown}"),
        ("${customer}", "$Ann"),
    ],
)
def test_plain_names_are_filled(text: str, filled: str) -> None:
    assert interpolate(text, NAMES) == filled


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "b": {"c": []}}',
        "{x.__class__}",
        "{x[0]}",
        "{x:{n.real}}",
        "{x:>10}",
        "{x!r}",
        "{x=}",
        "{ x }",
        "{x()}",
        "{0}",
        "{}",
        "{{}}",
        "{{",
        "}}",
        "%s %(x)s",
        "${HOME}",
        "{{7*7}}",
        "{{ x }}",
        "{%if x%}",
        "{customer_}",
        "{naem}",
        "{len}",
        r"\frac{1}{2}",
        "{²}",
        "{x\n}",
    ],
)
def test_everything_else_survives_letter_by_letter(text: str) -> None:
    assert interpolate(text, NAMES) == text


def test_what_was_filled_in_is_not_read_again() -> None:
    names = {"a": "{b}", "b": "{{a}}", "c": "{", "d": "d}"}
    assert interpolate("{a} {b} {c}a} {c}{d}", names) == "{b} {{a}} {a} {d}"


BRACED = st.lists(st.sampled_from(["{", "}", "{{", "}}", "x", "customer", "a b", ".y", '"k": ', ",", "\n", "é"])).map("".join)


@given(st.one_of(st.text(), BRACED, st.text(alphabet="{}xy_1 ")))
@example('{"x": {"y": "{z}"}}')
def test_text_without_a_known_name_comes_out_unchanged_but_for_doubled_names(text: str) -> None:
    expected = re.sub(r"\{(\{[^\W\d]\w*\})\}", lambda match: match[1] if match[1][1:-1].isidentifier() else match[0], text)
    assert interpolate(text, {}) == expected


@given(
    st.text(), st.text(alphabet=st.characters(exclude_characters="{}")), st.text(alphabet=st.characters(exclude_characters="{}"))
)
def test_any_value_is_put_in_as_it_is(value: str, before: str, after: str) -> None:
    assert interpolate(f"{before}{{value}}{after}", {"value": value}) == before + value + after


class Unprintable:
    def __str__(self) -> str:
        raise KeyError("sk-secret")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (SecretStr("sk-secret"), "holds a secret (SecretStr)"),
        (Secret("sk-secret"), "holds a secret (Secret)"),
        (re, "is a module"),
        (len, "is a builtin_function_or_method"),
        (pandas.DataFrame({"a": range(60_000), "b": 1}), "has 60,000 × 2 values, more than the 100,000 characters"),
        (pandas.DataFrame({"a": ["long" * 20] * 2_000}), "has 2,000 × 1 values, more than the 100,000 characters"),
        (pandas.Series(range(100_001)), "has 100,001 values, more than the 100,000 characters"),
        (numpy.zeros((400, 400)), "has 400 × 400 values, more than the 100,000 characters"),
        (interpolate, "is a function"),
        (Unprintable, "is a type"),
        (Unprintable(), "cannot be turned into text: str() raised KeyError"),
        ("a" * (MAX_CHARACTERS + 1), "is 100,001 characters long; at most 100,000 are filled in"),
    ],
)
def test_values_that_do_not_belong_in_a_prompt_are_refused(value: object, reason: str) -> None:
    with pytest.raises(ErrorConfig) as caught:
        interpolate("say {v}", {"v": value})
    assert f"{{v}} {reason}" in str(caught.value)
    assert "sk-secret" not in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


def test_refused_values_harm_nothing_while_they_are_not_named() -> None:
    assert interpolate("{{v}} and {w}", {"v": SecretStr("s")}) == "{v} and {w}"


def test_longest_value_is_filled_in() -> None:
    assert interpolate("{v}", {"v": "a" * MAX_CHARACTERS}) == "a" * MAX_CHARACTERS


def test_other_values_give_their_text() -> None:
    assert interpolate("{a} {b} {c}", {"a": [1, "x"], "b": None, "c": Path("p")}) == "[1, 'x'] None p"


def test_table_is_filled_in_whole() -> None:
    table = pandas.DataFrame({"city": [f"city{n}" for n in range(500)], "n": range(500)})
    filled = interpolate("{t}", {"t": table}).splitlines()
    assert (filled[0], filled[1], filled[-1], len(filled)) == ("city,n", "city0,0", "city499,499", 501)
    assert interpolate("{t}", {"t": table.set_index("city")[:1]}) == "city,n\ncity0,0"
    assert len(interpolate("{t}", {"t": table["n"]}).splitlines()) == 500


def test_array_is_filled_in_whole() -> None:
    filled = interpolate("{a}", {"a": numpy.arange(2_000)})
    assert "..." not in filled
    assert filled.split()[-1] == "1999]"


def test_refused_table_says_how_to_send_a_part() -> None:
    with pytest.raises(ErrorConfig, match=r"part = df\.head\(20\)\.to_csv\(\), then \{part\}"):
        interpolate("{df}", {"df": pandas.DataFrame({"a": range(200_000)})})


def test_odd_object_is_no_crash() -> None:
    class Odd:
        @property
        def __class__(self) -> type:
            raise RuntimeError("no class")

    assert "Odd object" in interpolate("{odd}", {"odd": Odd()})
