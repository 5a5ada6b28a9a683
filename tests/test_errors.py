"""Errors and the text they show."""

import pickle
import re

import pytest

from agentroute import errors
from agentroute.errors import clean_text


@pytest.mark.parametrize("length", [4001, 16_000, 16_001, 100_000])
def test_what_is_left_out_is_counted(length):
    assert clean_text("x" * length) == "x" * 4000 + f" … ({length - 4000} more characters)"


def test_what_fits_is_shown_whole():
    assert clean_text("x" * 4000) == "x" * 4000
    assert clean_text("a\x1b[31mb\u202ec\ud800d\n\t") == "abcd\n\t"


def test_a_retry_carries_its_message_as_text():
    assert errors.Retry(ValueError("wrong day")).message == "wrong day"
    assert str(errors.Retry("wrong day")) == "wrong day"


def test_a_model_error_says_what_it_may_have_cost():
    error = errors.ErrorModelResponse("m", sent=True, usage={"cost": 1})
    assert (error.sent, error.usage) == (True, {"cost": 1})
    assert (errors.ErrorModel("m").sent, errors.ErrorModel("m").usage) == (False, {})
    again = pickle.loads(pickle.dumps(error))
    assert (again.sent, again.usage) == (True, {"cost": 1})


OTHERWISE_MADE = {
    "ErrorMaxTurns": lambda: errors.ErrorMaxTurns(turn=3, limit=2),
    "ErrorBudget": lambda: errors.ErrorBudget(spent=0.5, limit=0.4),
    "ErrorMissingPackage": lambda: errors.ErrorMissingPackage("pandas", "notebook", "a DataFrame"),
}


@pytest.mark.parametrize("kind", [name for name in errors.__all__ if name.startswith("Error")])
def test_every_error_pickles_and_is_short_and_clean(kind):
    error = OTHERWISE_MADE.get(kind, lambda: getattr(errors, kind)("\x1b[31mbad\u202e\x00 " + "x" * 50_000))()
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.__dict__) == (type(error), str(error), error.__dict__)
    assert len(str(error)) < 20_000
    assert not re.search("[\x00-\x08\x1b\u202a-\u202e]", str(error))


@pytest.mark.parametrize("kind", [name for name in errors.__all__ if name.startswith("Error") and name not in OTHERWISE_MADE])
@pytest.mark.parametrize("before", [0, 3_990])
def test_no_message_of_an_error_shows_a_key(kind, before, monkeypatch):
    monkeypatch.setenv("AGENTROUTE_API_KEY", key := "hunter2-secretword-xyzzy-plugh")
    for said in (key, f"{key[:12]}\u200b{key[12:]}", "Authorization: Bearer a1b2c3d4e5f6g7h8"):
        message = str(getattr(errors, kind)("x" * before + f" {said} was refused"))
        assert "hunter2-" not in message and "a1b2c3d4" not in message
    assert "[key]" in message or before
