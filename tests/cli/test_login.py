"""`agentroute login`: the key is checked, goes into the user's file and is never shown."""

import os
import stat
import subprocess

import pexpect
import pytest

from agentroute.config import Config
from tests.cli.conftest import COMMAND, closed_port, configure, environment, run
from tests.server import ModelServer, Raw
from tests.terminals import press_ctrl_c

KEY = "sk-or-v1-secret"
GOOD = Raw(200, [b'{"data": {"label": "sk-or-v1-sec...ret", "limit_remaining": 12.5, "is_free_tier": false}}'])


@pytest.fixture
def openrouter():
    with ModelServer([]) as server:
        server.pages["/v1/key"] = GOOD
        configure(openrouter_base_url=server.base_url)
        yield server


@pytest.mark.parametrize(("arguments", "typed"), [(["login"], f"{KEY}\n"), (["login", "--api-key", KEY], "")])
def test_a_good_key_is_kept_and_not_shown(arguments, typed, openrouter):
    result = run(*arguments, input=typed)
    assert (result.exit_code, Config().api_key()) == (0, KEY)
    assert openrouter.paths == ["/v1/key"]
    assert openrouter.headers[0]["authorization"] == f"Bearer {KEY}"
    assert not {"content-type", "content-length"} & set(openrouter.headers[0])
    assert "accepts it; $12.50 may still be spent with it" in result.stdout
    assert str(Config().config_file) in result.stdout
    assert "sk-or" not in result.output


def test_the_file_is_readable_by_its_owner_only(openrouter):
    Config().config_file.chmod(0o644)
    run("login", "--api-key", KEY)
    assert stat.S_IMODE(Config().config_file.stat().st_mode) == 0o600


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_an_error_and_nothing_is_written(status, openrouter):
    openrouter.pages["/v1/key"] = Raw(status, [b'{"error":{"message":"User not found."}}'])
    before = Config().config_file.read_text()
    result = run("login", "--api-key", KEY)
    assert result.exit_code == 1
    assert f"refuses this key (status {status}), so nothing was written" in result.stderr
    assert "--no-check" in result.stderr
    assert Config().config_file.read_text() == before
    assert "sk-or" not in result.output


def test_no_check_writes_without_asking(openrouter):
    openrouter.pages["/v1/key"] = Raw(401)
    result = run("login", "--api-key", KEY, "--no-check")
    assert (result.exit_code, Config().api_key(), openrouter.paths) == (0, KEY, [])
    assert "It was not checked." in result.stderr


@pytest.mark.parametrize(
    "page",
    [Raw(404), Raw(500), Raw(429), Raw(302, headers={"location": "http://127.0.0.1:1/"}), Raw(200, [b"<html>Welcome to the hotel</html>"]), Raw(200, [b"[]"])],
    ids=["404", "500", "429", "redirect", "html", "no data"],
)
def test_an_answer_that_says_nothing_of_the_key_is_told_and_the_key_kept(page, openrouter):
    openrouter.pages["/v1/key"] = page
    result = run("login", "--api-key", KEY)
    assert (result.exit_code, Config().api_key()) == (0, KEY)
    assert "It was not checked: it answered" in result.stderr
    assert len(openrouter.paths) == 1


def test_where_nobody_answers_the_key_is_kept_and_that_is_said():
    configure(openrouter_base_url=f"http://{closed_port()}/v1")
    result = run("login", "--api-key", KEY)
    assert (result.exit_code, Config().api_key()) == (0, KEY)
    assert "It was not checked: 127.0.0.1:" in result.stderr
    assert "could not be reached" in result.stderr


def test_other_lines_of_the_file_stay(openrouter):
    run("login", "--api-key", KEY)
    assert Config().base_url() == openrouter.base_url


def test_a_file_that_cannot_be_read_is_written_anew():
    configure().write_bytes(b"\xff\xfe\x00")
    result = run("login", "--api-key", KEY, "--no-check")
    assert (result.exit_code, Config().api_key()) == (0, KEY)


def test_a_variable_that_comes_first_is_named(openrouter, monkeypatch):
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-other")
    result = run("login", "--api-key", KEY)
    assert "OPENROUTER_API_KEY is set, and is used in place of the file" in result.stderr
    assert "sk-other" not in result.output


@pytest.mark.parametrize(("key", "words", "code"), [("", "the key is empty", 2), ("sk é", "not shown here", 1)])
def test_what_is_no_key_is_refused(key, words, code):
    result = run("login", "--api-key", key)
    assert result.exit_code == code
    assert words in result.output
    assert not Config().config_file.exists()


@pytest.mark.parametrize("typed", [b"\xff\xfe\x00", b"\x89PNG\r\n"])
def test_bytes_that_are_no_text_are_no_key(typed):
    result = run("login", input=typed)
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert "not shown here" in result.stderr


def test_a_home_that_cannot_be_written_is_a_message():
    with open(os.environ["HOME"] + "/.agentroute", "w"):
        result = run("login", "--api-key", KEY, "--no-check")
    assert result.exit_code == 1
    assert "cannot be written" in result.output
    assert KEY not in result.output


def test_without_any_stdin_it_is_wrong_usage():
    done = subprocess.run(f"{' '.join(COMMAND)} login <&-", shell=True, env=environment(), capture_output=True, text=True)
    assert done.returncode == 2
    assert "the key is empty" in done.stderr


def test_at_a_terminal_what_is_typed_is_not_echoed(openrouter):
    with pexpect.spawn(COMMAND[0], [*COMMAND[1:], "login"], env=environment(), encoding="utf-8", timeout=100) as terminal:
        terminal.expect("OpenRouter API key: ")
        terminal.sendline(KEY)
        terminal.expect(pexpect.EOF)
        shown = terminal.before
    assert (terminal.exitstatus, Config().api_key()) == (0, KEY)
    assert "sk-or" not in shown


def test_ctrl_c_at_the_prompt_is_exit_code_130():
    with pexpect.spawn(COMMAND[0], [*COMMAND[1:], "login"], env=environment(), encoding="utf-8", timeout=100) as terminal:
        terminal.expect("OpenRouter API key: ")
        press_ctrl_c(terminal, pexpect.EOF)
        assert "Interrupted." in terminal.before
    assert terminal.exitstatus == 130
    assert not Config().config_file.exists()
