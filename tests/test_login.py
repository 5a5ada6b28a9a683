"""`agentroute login`: the key goes into the user's file and is never shown."""

import os

import pytest
from click.testing import CliRunner

from agentroute.cli import main
from agentroute.config import Config

KEY = "sk-or-v1-secret"


@pytest.mark.parametrize(("arguments", "typed"), [(["login"], f"{KEY}\n"), (["login", "--api-key", KEY], "")])
def test_the_key_is_kept_and_not_shown(arguments, typed):
    result = CliRunner().invoke(main, arguments, input=typed)
    assert (result.exit_code, Config().api_key()) == (0, KEY)
    assert KEY not in result.output
    assert str(Config().config_file) in result.output


@pytest.mark.parametrize(("key", "words"), [("", "the key is empty"), ("sk é", "not shown here")])
def test_what_is_no_key_is_refused(key, words):
    result = CliRunner().invoke(main, ["login", "--api-key", key])
    assert result.exit_code != 0
    assert words in result.output
    assert not Config().config_file.exists()


def test_a_home_that_cannot_be_written_is_a_message():
    with open(os.environ["HOME"] + "/.agentroute", "w"):
        result = CliRunner().invoke(main, ["login", "--api-key", KEY])
    assert result.exit_code == 1
    assert "cannot be written" in result.output
    assert KEY not in result.output
