"""docs/cli.md tells the truth: its commands print what it shows, and it leaves out no command, option or exit code."""

import re

import click
import pytest

from agentroute.cli.commands import COMMANDS, commands
from tests.cli.page import PAGE, rendered

LOADED = {name: commands.get_command(click.Context(commands), name) for name in COMMANDS}
INNER = {f"{name} {inner.name}": inner for name, command in LOADED.items() for inner in getattr(command, "commands", {}).values()}


@pytest.mark.timeout(600)  # some twenty processes, one after another
def test_the_outputs_are_what_the_commands_print():
    page = PAGE.read_text()
    assert rendered(page) == page, "python -m tests.cli.page writes them anew"


def options_of(command):
    return [word for parameter in command.params for word in [*parameter.opts, *parameter.secondary_opts] if word.startswith("-")]


def section(name):
    (text,) = [part for part in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE) if part.startswith(f"`agentroute {name}`")]
    return text


@pytest.mark.parametrize("name", LOADED)
def test_every_command_has_a_section_that_names_all_its_options(name):
    text = section(name)
    assert [option for option in options_of(LOADED[name]) if f"`{option}" not in text] == []


@pytest.mark.parametrize("name", INNER)
def test_a_command_within_a_command_is_told_in_its_section_with_all_its_options(name):
    text = section(name.split()[0])
    assert f"agentroute {name}" in text
    assert [option for option in options_of(INNER[name]) if f"`{option}" not in text] == []


@pytest.mark.parametrize("code", [0, 1, 2, 130])
def test_the_exit_codes_are_told(code):
    assert f"\n| {code} | " in PAGE.read_text()
