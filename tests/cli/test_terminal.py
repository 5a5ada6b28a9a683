"""Foreign text in a terminal: nothing in it is obeyed, however it is cut into pieces; figures in words."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentroute.cli.terminal import Harmless, argument_text, harmless, json_text, one_line, usage_words
from agentroute.figures import cost_text
from agentroute.message import Usage

HOSTILE = [
    ("\x1b[31mred\x1b[0m", "red"),
    ("\x1b]0;title\x07text", "text"),
    ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
    ("\x1b]52;c;cm0gLXJm\x07", ""),
    ("\x1bP+q544e\x1b\\done", "done"),
    ("\x9b2Jcleared", "cleared"),
    ("\x1bcreset", "reset"),
    ("safe\rover", "safe\nover"),
    ("one\r\ntwo\ttabbed\n", "one\ntwo\ttabbed\n"),
    ("a\x08\x08b\x00\x07\x7f", "ab"),
    ("user\u202etxt.exe\u2066", "usertxt.exe"),
    ("zero\u200bwidth\ufeff", "zerowidth"),
    ("family 👨\u200d👩\u200d👧, नमस्ते, é", "family 👨\u200d👩\u200d👧, नमस्ते, é"),
    ("\ud83d\ude00", "😀"),
    ("half \ud83d", "half \ufffd"),
    ("\x1b[ never ends", "ever ends"),
    ("\x1b]0;" + "x" * 2000, "]0;" + "x" * 2000),
]


@pytest.mark.parametrize(("text", "shown"), HOSTILE)
def test_what_a_terminal_would_obey_is_left_out(text, shown):
    assert harmless(text) == shown


@pytest.mark.parametrize(("text", "shown"), HOSTILE)
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_pieces_show_the_same_as_the_whole(text, shown, size):
    cleaner = Harmless()
    pieces = [cleaner.feed(text[start : start + size]) for start in range(0, len(text), size)]
    assert "".join([*pieces, cleaner.end()]) == shown


@given(st.lists(st.text(st.sampled_from("\x1b[]PX\\;0m\x07\x9b\r\nab é\u202e\ud83d\ude00\x9c"), max_size=12)))
def test_no_control_character_gets_through_wherever_a_text_is_cut(pieces):
    cleaner = Harmless()
    shown = "".join([*(cleaner.feed(piece) for piece in pieces), cleaner.end()])
    assert [c for c in shown if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs")] == []


def test_plain_text_is_not_kept_back():
    assert Harmless().feed("Paris") == "Paris"


@given(st.text(st.characters()))
def test_json_loses_nothing_and_holds_nothing_a_terminal_obeys(text):
    shown = json_text({"text": text})
    assert json.loads(shown) == {"text": text}
    assert [c for c in shown if unicodedata.category(c) in ("Cc", "Cs") or "\u202a" <= c <= "\u202e"] == []


def test_one_line_is_cut_to_size():
    assert one_line("a\n\n b\x1b[2J", 10) == "a b"
    assert one_line("x" * 50, 10) == "x" * 9 + "…"


def test_arguments_read_under_another_locale_are_utf_8():
    assert argument_text("caf\udcc3\udca9") == "café"
    assert argument_text("café") == "café"


@pytest.mark.parametrize(
    ("cost", "words"),
    [(None, "cost unknown"), (0.0, "$0"), (0.0000123, "$0.000012"), (0.0012, "$0.0012"), (1234.5, "$1,234.50")],
)
def test_costs_in_words(cost, words):
    assert cost_text(cost) == words


@pytest.mark.parametrize(
    ("usage", "line"),
    [
        (Usage(10, 5, 0.0012, 1), "10 tokens in, 5 out, $0.0012, 1.5 s, 1 call"),
        (Usage(1200, 5, 0.002, 3, unknown_cost_calls=1), "1,200 tokens in, 5 out, $0.0020 and 1 call of unknown cost, 1.5 s, 3 calls"),
        (Usage(0, 0, 0.0, 1, unknown_cost_calls=1, unknown_token_calls=1), "tokens unknown, cost unknown, 1.5 s, 1 call"),
    ],
)
def test_unknown_is_not_zero(usage, line):
    assert usage_words(usage, 1.5) == line
