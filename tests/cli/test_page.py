"""docs/cli.md tells the truth: its commands print what it shows, and it leaves out no command, option or exit code."""

import re

import click
import pytest

from agentroute.cli.commands import COMMANDS, commands
from tests.cli.page import PAGE, rendered

LOADED = {name: commands.get_command(click.Context(commands), name) for name in COMMANDS}


def test_the_outputs_are_what_the_commands_print():
    page = PAGE.read_text()
    assert rendered(page) == page, "python -m tests.cli.page writes them anew"


@pytest.mark.parametrize("name", LOADED)
def test_every_command_has_a_section_that_names_all_its_options(name):
    section = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    (text,) = [part for part in section if part.startswith(f"`agentroute {name}")]
    options = [word for parameter in LOADED[name].params for word in [*parameter.opts, *parameter.secondary_opts] if word.startswith("-")]
    assert [option for option in options if f"`{option}" not in text] == []


@pytest.mark.parametrize("code", [0, 1, 2, 130])
def test_the_exit_codes_are_told(code):
    assert f"\n| {code} | " in PAGE.read_text()
