"""`agentroute run`: the answer on stdout, figures and failures on stderr."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agentroute import RunStore
from agentroute.cli.run import REPLAY_MODES
from agentroute.records import RunRecord
from agentroute.replays import MODES
from tests.cli.conftest import COMMAND, environment, run
from tests.server import ModelServer, Raw, chunks

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20
HALF = Raw.sse(*chunks("Once upon a time\n", {})[:7], done=False)
HALF.hold_s = 100.0


def recorded(path=None):
    return list(RunStore(path).select(RunRecord))


def start(*arguments, env=None):
    return subprocess.Popen([*COMMAND, *arguments], env=environment(**(env or {})), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_answer_goes_to_stdout_and_one_line_of_figures_to_stderr(server):
    result = run("run", server.model, "What are bricks for?")
    assert (result.exit_code, result.stdout) == (0, "Bricks build walls.\n")
    (line,) = result.stderr.splitlines()
    assert line.startswith("10 tokens in, 5 out, $0.0010, ")
    assert line.endswith("s, 1 call")
    assert server.requests[0]["messages"] == [{"role": "user", "content": "What are bricks for?"}]


def test_a_model_of_openrouter_is_asked_with_the_kept_key(openrouter):
    assert run("run", "claude-sonnet-4", "Hi").exit_code == 0
    assert openrouter.requests[0]["model"] == "anthropic/claude-sonnet-4"
    assert openrouter.headers[0]["authorization"] == "Bearer sk-or-v1-secret"


def test_quiet_leaves_the_figures_out(server):
    assert run("run", server.model, "Hi", "-q").stderr == ""


def test_an_unknown_cost_is_said_to_be_unknown():
    with ModelServer(["Hi"], usage={"prompt_tokens": 3, "completion_tokens": 1}) as server:
        assert "3 tokens in, 1 out, cost unknown, " in run("run", server.model, "Hi").stderr


@pytest.mark.parametrize("arguments", [["-"], []], ids=["dash", "left out"])
def test_the_prompt_comes_from_stdin(arguments, server):
    assert run("run", server.model, *arguments, input="\ufeffWas heißt das?\n").exit_code == 0
    assert server.requests[0]["messages"][0]["content"] == "Was heißt das?\n"


def test_a_prompt_that_is_given_leaves_stdin_unread(server):
    assert run("run", server.model, "given", input="piped").exit_code == 0
    assert server.requests[0]["messages"][0]["content"] == "given"


def test_stdin_that_is_no_text_is_refused(server):
    result = run("run", server.model, input=PNG)
    assert (result.exit_code, result.stderr) == (1, "Error: stdin is not UTF-8 text (byte 1); a picture goes with --image\n")
    assert server.requests == []


def test_the_settings_reach_the_model(server):
    run("run", server.model, "Hi", "-i", "Be brief.", "--max-tokens", "7", "--temperature", "0.5", "--max-cost", "1")
    body = server.requests[0]
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (body["max_tokens"], body["temperature"], body["stream"]) == (7, 0.5, True)


def test_a_custom_endpoint_gets_the_named_key_and_no_other(openrouter, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-mine")
    with ModelServer(["Hi"], repeat=True) as other:
        run("run", "vendor/model", "Hi", "--base-url", other.base_url)
        run("run", "vendor/model", "Hi", "--base-url", other.base_url, "--api-key-env", "MY_KEY")
    assert [headers.get("authorization") for headers in other.headers] == [None, "Bearer sk-mine"]
    assert other.requests[0]["model"] == "vendor/model"
    assert openrouter.requests == []


def test_a_key_variable_that_is_not_set_is_named(server):
    result = run("run", server.model, "Hi", "--api-key-env", "MY_KEY")
    assert (result.exit_code, server.requests) == (1, [])
    assert "the environment variable 'MY_KEY', named by --api-key-env, is not set" in result.stderr


def test_pictures_are_sent_along_in_order(server, tmp_path):
    picture = tmp_path / "cat.png"
    picture.write_bytes(PNG)
    assert run("run", server.model, "What?", "--image", picture, "--image", "https://example.org/dog.jpg").exit_code == 0
    text, cat, dog = server.requests[0]["messages"][0]["content"]
    assert text["text"] == "What?"
    assert cat["image_url"]["url"].startswith("data:image/png;base64,")
    assert dog["image_url"]["url"] == "https://example.org/dog.jpg"


def test_a_picture_that_is_not_there_is_an_error_before_any_request(server):
    result = run("run", server.model, "What?", "--image", "no.png")
    assert (result.exit_code, server.requests) == (1, [])
    assert result.stderr == "Error: --image: 'no.png' cannot be read (No such file or directory); give a URL or the path of a picture\n"


@pytest.mark.parametrize(("source", "words"), [("ftp://host/cat.png", "expected an http(s) or data URL or a path; got 'ftp"), ("notes.txt", "is no picture; give a PNG, JPEG")])
def test_what_is_no_picture_is_told_in_words_of_the_command_line(source, words, server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("milk")
    stderr = run("run", server.model, "What?", "--image", source).stderr
    assert stderr.startswith("Error: --image: ")
    assert words in stderr
    assert "image()" not in stderr


def test_json_is_one_object_with_output_usage_run_and_model(server):
    result = run("run", server.model, "Hi", "--json")
    value = json.loads(result.stdout)
    assert result.stderr == ""
    assert (value["output"], value["model"], value["response_model"]) == ("Bricks build walls.", server.model, "test/model-1")
    assert (value["usage"]["input_tokens"], value["usage"]["cost_usd"], value["usage"]["model_calls"]) == (10, 0.001, 1)
    assert value["run_id"] == recorded()[0][0]


def test_runs_are_recorded_where_logs_looks():
    with ModelServer(["Yes."]) as server:
        run("run", server.model, "Really?")
    shown = json.loads(run("logs", "--json").stdout)
    assert (shown["agent_name"], shown["prompt_text"], shown["output_text"]) == ("cli", "Really?", "Yes.")


def test_no_record_leaves_no_trace(server):
    assert run("run", server.model, "Hi", "--no-record").exit_code == 0
    assert not (Path.home() / ".agentroute").exists()


def test_a_history_that_cannot_be_written_costs_no_answer(server, tmp_path):
    process = start("run", server.model, "Hi", env={"AGENTROUTE_RUNS": str(tmp_path)})
    shown, said = process.communicate(timeout=100)
    assert (process.returncode, shown) == (0, "Bricks build walls.\n")
    warning, usage = said.splitlines()
    assert warning.startswith("Warning: runs are not recorded: ErrorStore: ")
    assert usage.endswith("1 call")


def test_terminal_escapes_of_a_model_are_not_passed_on():
    with ModelServer(["\x1b]0;owned\x07\x1b[2Jhello\x1b[31m\tworld\r\u202e"]) as server:
        assert run("run", server.model, "Hi").stdout == "hello\tworld\n"


def test_a_cut_answer_is_told():
    events = chunks("Once upon", {})
    events[-2]["choices"][0]["finish_reason"] = "length"
    with ModelServer([Raw.sse(*events)]) as server:
        result = run("run", server.model, "Hi", "--max-tokens", "2")
    assert (result.exit_code, result.stdout) == (0, "Once upon\n")
    assert result.stderr.endswith("Warning: the answer was cut off at max_tokens.\n")


# ---- failures ---------------------------------------------------------------------------------------------------------

FAILURES = {
    "400": (Raw(400, [b'{"error":{"message":"no such \\u001b[31mmodel"}}']), "no such model"),
    "401": (Raw(401, [b'{"error":{"message":"User not found."}}']), "User not found."),
    "402": (Raw(402, [b'{"error":{"message":"no credit"}}']), "no credit"),
    "html": (Raw(200, [b"<html>hello</html>"]), "not JSON"),
    "nothing": (Raw(200, [b""]), "empty body"),
    "broken": (Raw.sse(*chunks("Half an ans", {})[:4], done=False), "cut off"),
    "filter": (Raw.sse({"choices": [{"index": 0, "delta": {}, "finish_reason": "content_filter"}]}), "content filter"),
}


@pytest.mark.parametrize(("answer", "words"), FAILURES.values(), ids=FAILURES)
def test_a_failed_run_is_one_line_and_exit_code_1(answer, words):
    with ModelServer([answer], repeat=True) as server:
        result = run("run", server.model, "Hi")
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert words in line
    assert "Traceback" not in result.output
    assert "\x1b" not in result.output


def test_what_came_before_a_failure_stays():
    with ModelServer([FAILURES["broken"][0]], repeat=True) as server:
        result = run("run", server.model, "Hi")
    assert result.stdout == "Half an a\n"
    assert "1 call" in result.stderr


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("gpt-4o", "run `agentroute login`"),
        ("local/nothing", "no local model is called 'nothing'"),
        ("ollama/", "names no model"),
        ("http://127.0.0.1:9/v1/m", "could not be reached"),
        ("http://[bad/m", "not a usable endpoint"),
    ],
)
def test_a_model_that_cannot_be_asked_is_one_line(model, words):
    result = run("run", model, "Hi", "--timeout", "20")
    assert (result.exit_code, result.stdout) == (1, "")
    assert words in result.stderr.splitlines()[-1]


def test_a_run_over_its_budget_shows_the_answer_and_the_error():
    with ModelServer(["Dear."]) as server:
        result = run("run", server.model, "Hi", "--max-cost", "0.0001")
    assert (result.exit_code, result.stdout) == (1, "Dear.\n")
    assert "Error: spent $0.0010 of max_cost=$0.0001" in result.stderr


# ---- a real process ---------------------------------------------------------------------------------------------------


def test_ctrl_c_keeps_the_text_closes_the_connection_and_is_exit_code_130():
    with ModelServer([HALF]) as server:
        process = start("run", server.model, "Tell")
        shown = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        rest, said = process.communicate(timeout=100)
        assert server.closed_early.wait(30)
    assert process.returncode == 130
    assert time.monotonic() - began < 45
    assert shown + rest == "Once upon a time\n"
    assert said.startswith("Interrupted: tokens unknown, cost unknown, ")
    assert len(said.splitlines()) == 1
    assert dict(zip(RunRecord.__dataclass_fields__, recorded()[0], strict=True))["status"] == "interrupted"


def test_a_reader_that_leaves_ends_it_quietly():
    lines = "".join(f"line {number}\n" for number in range(20_000))
    with ModelServer([lines], repeat=True) as server:
        process = start("run", server.model, "Hi")
        assert process.stdout.readline() == "line 0\n"
        process.stdout.close()
        said = process.stderr.read()
        process.stderr.close()
        assert process.wait(100) == 1
    assert said == ""


def test_a_full_disk_is_one_line():
    with ModelServer(["Hi"]) as server, open("/dev/full", "w") as full:
        done = subprocess.run([*COMMAND, "run", server.model, "Hi"], env=environment(), stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "Error: the output cannot be used: No space left on device\n")


@pytest.mark.parametrize(
    "locale", [{"LANG": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}], ids=["coerced", "strict"]
)
def test_it_works_in_the_c_locale(locale):
    with ModelServer(["– é 漢 –"]) as server:
        command = [*COMMAND, "run", server.model, "ça va?", "-i", "schön"]
        bare = {name: value for name, value in environment().items() if not name.startswith(("LC_", "LANG"))}
        done = subprocess.run(command, env={**bare, **locale}, capture_output=True, timeout=100)
        sent = server.requests[0]["messages"]
    assert (done.returncode, done.stdout.decode()) == (0, "– é 漢 –\n")
    assert [message["content"] for message in sent] == ["schön", "ça va?"]


def test_a_terminal_without_the_characters_gets_their_numbers():
    with ModelServer(["naïve 漢"]) as server:
        done = subprocess.run([*COMMAND, "run", server.model, "Hi", "-q"], env=environment(PYTHONIOENCODING="latin-1"), capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"na\xefve \\u6f22\n")


def test_without_any_stdin_a_missing_prompt_is_wrong_usage(server):
    done = subprocess.run(f"{' '.join(COMMAND)} run {server.model} <&-", shell=True, env=environment(), capture_output=True, text=True)
    assert done.returncode == 2
    assert "there is no prompt" in done.stderr


def test_text_is_shown_before_the_answer_is_complete():
    with ModelServer([HALF]) as server:
        process = start("run", server.model, "Tell")
        assert process.stdout.readline() == "Once upon a time\n"
        assert process.poll() is None
        os.kill(process.pid, signal.SIGINT)
        process.communicate(timeout=100)


def test_a_model_on_this_machine_answers(smollm2):
    done = subprocess.run([*COMMAND, "run", "local/smollm2", "What is the capital of France?", "--max-tokens", "20"], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0
    assert len(done.stdout.split()) > 3
    assert " 20 out, $0, " in done.stderr


def test_all_that_a_local_model_lacks_is_told_at_once(monkeypatch, tmp_path):
    monkeypatch.setenv("AGENTROUTE_CACHE", str(tmp_path))
    weights = "run `agentroute local pull smollm2` (93 MB, once)"
    assert run("run", "local/smollm2", "Hi").stderr == f"Error: the weights of smollm2 are not on this machine: {weights}\n"
    monkeypatch.setitem(sys.modules, "xllamacpp", None)  # as where it is not installed
    package = 'a local model needs xllamacpp: pip install "agentroute[local]"'
    assert run("run", "local/smollm2", "Hi").stderr == f"Error: {package}; then {weights}, for its weights are not on this machine either\n"


# ---- tags and replay --------------------------------------------------------------------------------------------------


def in_a_process(*arguments, **env):
    """Each program is a session of its own, and replay serves what earlier ones were answered."""
    return subprocess.run([*COMMAND, "run", *arguments], env=environment(**env), capture_output=True, text=True)


def test_tags_get_into_the_history(server):
    run("run", server.model, "Hi", "--tag", "tenant=a", "--tag", " team = red = green ")
    (row,) = RunStore().select(RunRecord, columns=["tags"])
    assert json.loads(row[0]) == {"tenant": "a", "team": "red = green"}


@pytest.mark.parametrize("tag", ["tenant", "=a", ""])
def test_a_tag_has_a_name_and_a_value(tag, server):
    result = run("run", server.model, "Hi", "--tag", tag)
    assert (result.exit_code, server.requests) == (2, [])
    assert "--tag takes NAME=VALUE" in result.stderr


@pytest.mark.parametrize("asked", [(["--replay", "on"], {}), ([], {"AGENTROUTE_REPLAY": "on"})], ids=["option", "environment"])
def test_what_was_paid_for_is_served_again_where_that_is_asked_for(asked, server):
    arguments, env = asked
    first, second = (in_a_process(server.model, "Hi", *arguments, **env) for _ in range(2))
    assert first.stdout == second.stdout == "Bricks build walls.\n"
    assert len(server.requests) == 1
    assert "10 tokens in, 5 out, $0, replayed, saved $0.0010, " in second.stderr
    rows = list(RunStore().select(RunRecord, columns=["cost_usd", "cost_saved_usd", "n_replayed"]))
    assert rows == [(0.001, None, 0), (0.0, 0.001, 1)]


@pytest.mark.parametrize("asked", [([], {}), (["--replay", "off"], {"AGENTROUTE_REPLAY": "on"}), (["--fresh"], {}), (["--replay", "fresh"], {})], ids=str)
def test_else_the_model_is_asked(asked, server):
    in_a_process(server.model, "Hi", "--replay", "on")
    arguments, env = asked
    assert "replayed" not in in_a_process(server.model, "Hi", *arguments, **env).stderr
    assert len(server.requests) == 2


def test_only_replay_sends_nothing(server):
    done = in_a_process(server.model, "Hi", "--replay", "only")
    assert (done.returncode, done.stdout, server.requests) == (1, "", [])
    assert done.stderr.startswith("Error: ")
    in_a_process(server.model, "Hi", "--fresh")
    done = in_a_process(server.model, "Hi", "--replay", "only")
    assert (done.returncode, done.stdout, len(server.requests)) == (0, "Bricks build walls.\n", 1)


def test_a_wrong_mode_in_the_environment_is_told(server):
    done = in_a_process(server.model, "Hi", AGENTROUTE_REPLAY="maybe")
    assert (done.returncode, server.requests) == (1, [])
    assert "AGENTROUTE_REPLAY must be one of on, off, only, fresh" in done.stderr


@pytest.mark.parametrize("arguments", [["--fresh", "--replay", "only"], ["--replay", "on", "--no-record"], ["--fresh", "--no-record"], ["--replay", "maybe"]], ids=" ".join)
def test_options_of_replay_that_contradict_are_wrong_usage(arguments, server):
    assert (run("run", server.model, "Hi", *arguments).exit_code, server.requests) == (2, [])


def test_nothing_is_kept_for_replay_of_a_run_that_is_not_recorded(server):
    in_a_process(server.model, "Hi", "--no-record", AGENTROUTE_REPLAY="on")
    assert not RunStore().path.exists()


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_replay_can_be_asked_for(mode):
    assert mode in REPLAY_MODES


# ---- a key that is refused --------------------------------------------------------------------------------------------

REFUSED = Raw(401, [b'{"error": {"message": "no such user"}}'])


@pytest.mark.parametrize("model", ["ollama/llama3", "{base_url}/m", "m --base-url {base_url}"])
def test_an_endpoint_of_ones_own_that_wants_a_key_is_told_where_one_goes(model, monkeypatch):
    """Keys of the environment and of login never go there, so they are not named."""
    with ModelServer([REFUSED]) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.base_url.removesuffix("/v1"))
        name, *options = model.format(base_url=server.base_url).split()
        result = run("run", name, "Hi", *options)
    assert result.exit_code == 1
    assert result.stderr.endswith("no such user; check the API key: api_key=, or --api-key-env on the command line\n")
    assert "login" not in result.stderr


def test_a_key_that_openrouter_refuses_is_told_where_it_may_be(openrouter):
    openrouter.answers = [REFUSED]
    result = run("run", "claude-sonnet-4", "Hi")
    assert result.stderr.endswith("no such user; check the API key: AGENTROUTE_API_KEY, api_key=, or `agentroute login`\n")
