"""`%%agent` and `%agent` in a shell of this process, which has no kernel: runs go to the background loop."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from pydantic import SecretStr

from agentroute import Agent, ErrorMaxTurns, LLMRequest, ToolCall
from agentroute.errors import ErrorModelKey
from agentroute.records import RunRecord
from agentroute.replays import replay_now, set_replay
from agentroute.store import default_store
from agentroute.testing import ModelScripted
from agentroute_ipython import load_ipython_extension, unload_ipython_extension
from agentroute_ipython.arguments import OPTIONS
from tests.ipython.shells import ShellNotebook, refund
from tests.server import ModelServer


@pytest.fixture
def shell(plain_shell: InteractiveShell) -> InteractiveShell:
    return plain_shell


@pytest.fixture
def notebook(shell_notebook: ShellNotebook) -> ShellNotebook:
    return shell_notebook


FIRST = """%%agent support --model scripted --tools order_status,refund --max-cost 0.25
You are a concise, accurate support agent.
---
Where is order 4821?
"""

# Defining and running


def test_first_example_defines_and_runs(notebook: ShellNotebook) -> None:
    assert "A1" in notebook.run(FIRST)
    assert notebook.asked == [("system", "You are a concise, accurate support agent."), ("user", "Where is order 4821?")]
    assert [tool["function"]["name"] for tool in notebook.request.tools] == ["order_status", "refund"]
    assert notebook["_agent"].output == "A1"


def test_defined_agent_runs_again_and_remembers_nothing(notebook: ShellNotebook) -> None:
    notebook.run(FIRST)
    notebook.run("%%agent support\nAnd 4822?")
    assert notebook.asked == [("system", "You are a concise, accurate support agent."), ("user", "And 4822?")]
    assert len(notebook.request.tools) == 2


def test_agent_of_a_variable_runs(notebook: ShellNotebook) -> None:
    notebook["bot"] = Agent("bot", model=notebook.model, instructions="Be brief.")
    notebook.run("%%agent bot\nhi")
    assert notebook.asked == [("system", "Be brief."), ("user", "hi")]


def test_line_with_a_model_needs_no_definition(notebook: ShellNotebook) -> None:
    notebook.run("%%agent quick --model scripted -i 'Be brief.'\nhi")
    assert notebook.asked == [("system", "Be brief."), ("user", "hi")]
    notebook.run("%agent quick again")
    assert notebook.asked == [("system", "Be brief."), ("user", "again")]


def test_configured_model_is_the_default(notebook: ShellNotebook) -> None:
    notebook.run("%config AgentMagics.model = 'scripted'")
    notebook.run("%%agent quick\nhi")
    assert notebook.asked == [("user", "hi")]


def test_model_string_goes_to_its_endpoint(notebook: ShellNotebook) -> None:
    with ModelServer(["Hello!"]) as server:
        notebook.run(f"%%agent quick --model {server.model} --max-tokens 7\nhi")
        assert server.requests[0]["max_tokens"] == 7
        assert notebook["_agent"].output == "Hello!"


def test_options_of_a_run_end_with_it(notebook: ShellNotebook) -> None:
    notebook.run(FIRST)
    notebook.run("%%agent support --temperature 0.5 --tools refund --instructions Other.\nhi")
    assert (notebook.request.temperature, notebook.asked[0]) == (0.5, ("system", "Other."))
    assert len(notebook.request.tools) == 1
    notebook.run("%%agent support\nhi")
    assert notebook.request.temperature is None
    assert len(notebook.request.tools) == 2


def test_options_beside_a_separator_belong_to_the_definition(notebook: ShellNotebook) -> None:
    notebook.run(FIRST)
    notebook.run("%%agent support --temperature 0.5 --tools refund\nBe brief.\n---\nhi")
    notebook.run("%%agent support\nhi")
    assert (notebook.request.temperature, notebook.asked[0]) == (0.5, ("system", "Be brief."))
    assert len(notebook.request.tools) == 1


def test_separator_in_a_pasted_prompt_drops_no_limit_and_no_tool(notebook: ShellNotebook) -> None:
    notebook.run(FIRST)
    notebook.run("%%agent support\nA mail:\n---\nSee below.")
    notebook.run("%%agent support\nhi")
    assert len(notebook.request.tools) == 2
    shown = notebook.run("%agent show support")
    assert "max_cost      0.25" in shown
    assert "tools         order_status, refund" in shown


def test_backslash_makes_a_separator_part_of_the_text(notebook: ShellNotebook) -> None:
    notebook.run("%%agent bot -m scripted\nOne.\n\\---\nTwo.\n\\\\---\nThree.\\---")
    assert notebook.asked == [("user", "One.\n---\nTwo.\n\\---\nThree.\\---")]
    notebook.run("%%agent bot -m scripted\nOne.\n\\---\n---\nTwo.\n\\---")
    assert notebook.asked == [("system", "One.\n---"), ("user", "Two.\n---")]
    notebook.run("%%agent bot -m scripted --define\nOne.\n\\---\nTwo.")
    notebook.run("%agent bot hi")
    assert notebook.asked == [("system", "One.\n---\nTwo."), ("user", "hi")]


def test_defining_an_agent_of_a_variable_changes_the_variable(notebook: ShellNotebook) -> None:
    notebook["bot"] = Agent("bot", model=notebook.model, tools=[refund])
    notebook.run("%%agent bot\nBe brief.\n---\nhi")
    assert notebook.asked == [("system", "Be brief."), ("user", "hi")]
    assert notebook["bot"].instructions == "Be brief."
    assert list(notebook["bot"].tools_map) == ["refund"]


def test_define_runs_nothing(notebook: ShellNotebook) -> None:
    said = notebook.run("%%agent support --model scripted --tools refund --define\nBe brief.\n---\nAlways.")
    assert said == "support is defined (model scripted (ModelFunction), tools refund); nothing was run\n"
    assert notebook.model.requests == []
    notebook.run("%agent support hi")
    assert notebook.asked == [("system", "Be brief.\n---\nAlways."), ("user", "hi")]
    notebook.run("%agent other --define --model scripted Be kind.")
    notebook.run("%agent other hi")
    assert notebook.asked[0] == ("system", "Be kind.")


@pytest.mark.parametrize("line", ["---", "---  ", "---\t"])
def test_first_separator_counts(notebook: ShellNotebook, line: str) -> None:
    notebook.run(f"%%agent bot -m scripted\nOne.\n{line}\nTwo.\n---\nThree.")
    assert notebook.asked == [("system", "One."), ("user", "Two.\n---\nThree.")]


@pytest.mark.parametrize("line", [" ---", "----", "--", "--- x", "- - -", "x\x0b---"])
def test_other_lines_are_no_separators(notebook: ShellNotebook, line: str) -> None:
    notebook.run(f"%%agent bot -m scripted\nOne.\n{line}\nTwo.")
    assert notebook.asked == [("user", f"One.\n{line}\nTwo.")]


def test_nothing_above_the_separator_keeps_the_instructions(notebook: ShellNotebook) -> None:
    notebook.run(FIRST)
    notebook.run("%%agent support --max-turns 2\n---\nhi")
    notebook.run("%agent support hi")
    assert notebook.asked == [("system", "You are a concise, accurate support agent."), ("user", "hi")]
    notebook.run("%%agent plain -m scripted\n---\nhi")
    assert notebook.asked == [("user", "hi")]


def test_comments_above_the_magic_are_skipped(notebook: ShellNotebook) -> None:
    notebook.run("# the first one\n\n%%agent bot -m scripted\n# not skipped\nhi")
    assert notebook.asked == [("user", "# not skipped\nhi")]


def test_empty_lines_around_the_text_are_left_out(notebook: ShellNotebook) -> None:
    notebook.run("%%agent bot -m scripted\n\n  One.\n\n---\n\n    indented\n  two\n\n\n")
    assert notebook.asked == [("system", "  One."), ("user", "    indented\n  two")]


def test_structured_answer_of_a_type_of_the_notebook(notebook: ShellNotebook) -> None:
    notebook.run("from pydantic import BaseModel\nclass Invoice(BaseModel):\n    total: float\n")
    notebook["scripted"] = ModelScripted([ToolCall("1", "final_answer", {"total": 2.5})])
    notebook.run("%%agent reader -m scripted -o Invoice --as invoice\nTotal: 2.5")
    assert notebook["invoice"].output.total == 2.5


def test_tool_edited_in_its_cell_is_the_new_one(notebook: ShellNotebook) -> None:
    notebook["scripted"] = ModelScripted([ToolCall("1", "look", {}), "done"] * 2)
    notebook.run("def look() -> str:\n    return 'old'")
    notebook.run("%%agent bot -m scripted -t look\nhi")
    notebook.run("def look() -> str:\n    return 'new'")
    notebook.run("%agent bot hi")
    assert notebook["_agent"].record.tool_calls[0].result_text == "new"


# Memory


def test_memory_in_ram_keeps_the_conversation_between_cells(notebook: ShellNotebook) -> None:
    notebook.run("%%agent chat -m scripted --memory ram\nI am Ann.")
    notebook.run("%%agent chat\nWho am I?")
    assert notebook.asked == [("user", "I am Ann."), ("assistant", "A1"), ("user", "Who am I?")]


def test_new_definition_forgets(notebook: ShellNotebook) -> None:
    notebook.run("%%agent chat -m scripted --memory ram\nBe brief.\n---\nI am Ann.")
    notebook.run("%%agent chat -m scripted --memory ram\nBe brief.\n---\nWho am I?")
    assert notebook.asked == [("system", "Be brief."), ("user", "Who am I?")]


def test_memory_in_a_file_is_there_for_the_next_notebook(notebook: ShellNotebook, tmp_path: Path) -> None:
    notebook.run(f"%%agent chat -m scripted --memory {tmp_path}/chat.db\nI am Ann.")
    unload_ipython_extension(notebook.shell)
    load_ipython_extension(notebook.shell)
    notebook.run(f"%%agent chat -m scripted --memory {tmp_path}/chat.db\nWho am I?")
    assert notebook.asked == [("user", "I am Ann."), ("assistant", "A1"), ("user", "Who am I?")]


def test_history_policy_chooses_what_is_sent(notebook: ShellNotebook) -> None:
    notebook.run("%%agent chat -m scripted --memory ram --history window:1\nI am Ann.")
    notebook.run("%%agent chat\nWho am I?")
    assert notebook.asked == [("user", "Who am I?")]


# Braces


def test_variables_fill_both_halves_and_the_line(notebook: ShellNotebook) -> None:
    notebook.shell.push({"customer": "Ann", "rules": "Be {kind}.", "kind": "rude", "which": "scripted", "n": 5})
    notebook.run("%%agent bot --model {which} --max-turns={n}\n{rules}\n---\nI am {customer}, not {{customer}}.")
    assert notebook.asked == [("system", "Be {kind}."), ("user", "I am Ann, not {customer}.")]
    notebook.run("%agent bot {customer}?")
    assert notebook.asked[-1] == ("user", "Ann?")


def test_instructions_are_filled_when_they_are_written_and_never_later(notebook: ShellNotebook) -> None:
    notebook["customer"] = "Ann"
    notebook["bot"] = Agent("bot", model=notebook.model, instructions="Speak to {customer}.")
    notebook.run("%agent bot hi")
    assert notebook.asked[0] == ("system", "Speak to {customer}.")
    notebook.run("%%agent made -m scripted\nSpeak to {customer}.\n---\nhi")
    notebook["customer"] = "Bob"
    notebook.run("%agent made hi")
    assert notebook.asked[0] == ("system", "Speak to Ann.")


def test_json_and_code_survive(notebook: ShellNotebook) -> None:
    body = 'Fix {"a": {"b": [1, 2]}, "c": "{x.y}"}\n>>> f"{a!r:>10}"\n$HOME ${HOME} %s %(x)s {{ jinja }} {exit} {In} {_} {len}'
    notebook.run(f"%%agent bot -m scripted\n{body}")
    assert notebook.asked == [("user", body)]


def test_last_result_can_be_filled_in(notebook: ShellNotebook) -> None:
    notebook.run("%agent bot -m scripted hi")
    notebook.run("%agent bot Is {_agent} right?")
    assert notebook.asked == [("user", "Is A1 right?")]


def test_secrets_and_agents_are_not_filled_in(notebook: ShellNotebook) -> None:
    notebook.run(FIRST)
    notebook.shell.push({"key": SecretStr("sk-secret"), "bot": Agent("bot"), "json": json})
    assert notebook.mistake("%agent support {key}").startswith("{key} holds a secret (SecretStr)")
    assert notebook.mistake("%agent support {bot}").startswith("{bot} is an agent")
    assert notebook.mistake("%agent support {json}").startswith("{json} is a module")


# Results


def test_result_is_bound_and_nothing_is_echoed(notebook: ShellNotebook) -> None:
    result = notebook.cell("%%agent bot -m scripted --as answer\nhi")
    assert result.result is None
    assert notebook["answer"] is notebook["_agent"]
    assert notebook["answer"].output == "A1"
    assert "_agent" not in notebook.run("%who")


def test_failed_run_binds_its_partial_result_and_fails_the_cell(notebook: ShellNotebook, capsys: pytest.CaptureFixture[str]) -> None:
    notebook["scripted"] = ModelScripted([ToolCall("1", "refund", {"order_id": "1"})] * 2)
    result = notebook.cell("%%agent bot -m scripted -t refund --max-turns 1 --as answer\nhi")
    assert isinstance(result.error_in_exec, ErrorMaxTurns)
    assert notebook["answer"] is notebook["_agent"] is result.error_in_exec.result
    assert [call.result_text for call in notebook["answer"].record.tool_calls] == ["done"]
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "ErrorMaxTurns: turn 2 would pass max_turns=1; raise max_turns, or see .result for the turns so far",
        "(what it did until then is in _agent; %tb Verbose shows the traceback)",
    ]


def test_failed_run_of_plain_python_is_shown_in_two_lines(notebook: ShellNotebook, capsys: pytest.CaptureFixture[str]) -> None:
    notebook["bot"] = Agent(
        "bot", model=ModelScripted([ToolCall("1", "refund", {"order_id": "1"})] * 2), tools=[refund], max_turns=1
    )
    result = notebook.cell("x = 1\nbot.run('hi')")
    assert isinstance(result.error_in_exec, ErrorMaxTurns)
    assert capsys.readouterr().out.splitlines() == [
        "ErrorMaxTurns: turn 2 would pass max_turns=1; raise max_turns, or see .result for the turns so far",
        "(line 2: bot.run('hi'); %tb shows the traceback)",
    ]
    assert "agentroute/loop.py" in notebook.run("%tb")


@pytest.mark.parametrize("code", ["diff('x', 'y')", "diff('x')", "history(agnt='x')"])
def test_mistake_in_a_call_of_the_notebook_package_is_shown_in_two_lines(
    notebook: ShellNotebook, capsys: pytest.CaptureFixture[str], code: str
) -> None:
    notebook.run("from agentroute_ipython import diff, history")
    notebook.cell(code)
    first, *_, last = lines = capsys.readouterr().out.splitlines()
    assert first.startswith("ErrorConfig: ") and last == f"(line 1: {code}; %tb shows the traceback)" and len(lines) == 2


def test_error_that_the_notebook_raises_itself_is_shown_as_ever(notebook: ShellNotebook, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.run("%colors nocolor")
    notebook.cell("from agentroute import ErrorAgent\nraise ErrorAgent('mine')")
    assert "----> 2 raise ErrorAgent('mine')" in capsys.readouterr().out


def test_traceback_of_a_failed_run_can_be_asked_for(notebook: ShellNotebook) -> None:
    def fail(request: LLMRequest) -> Exception:
        return ErrorModelKey("the key was refused", status=401)

    notebook["scripted"] = ModelScripted([fail])
    notebook.cell("%%agent bot -m scripted\nhi")
    assert notebook.run("%tb").splitlines()[0] == "ErrorModelKey: the key was refused"
    said = notebook.run("%tb Verbose")
    assert "agentroute/loop.py" in said
    assert "agentroute_ipython" not in said
    assert said.splitlines()[-1] == "agentroute.errors.ErrorModelKey: the key was refused"


def test_a_result_that_is_the_value_of_a_cell_is_shown_as_its_card(notebook: ShellNotebook) -> None:
    notebook.run("%%agent a --model scripted\nhi")
    bundle, _ = notebook.shell.display_formatter.format(notebook["_agent"])
    assert "<section" in bundle["text/html"] and "A1" in bundle["text/html"]
    assert bundle["text/plain"].startswith("A1") and "1 model call" in bundle["text/plain"]


def test_mistake_leaves_the_last_result_alone(notebook: ShellNotebook) -> None:
    notebook.run("%agent bot -m scripted hi")
    before = notebook["_agent"]
    notebook.mistake("%%agent bot --as other\n\n")
    assert notebook["_agent"] is before
    assert "other" not in notebook.shell.user_ns


def test_every_run_of_the_notebook_is_recorded(notebook: ShellNotebook) -> None:
    from agentroute import ErrorAgent
    from agentroute.records import RunRecord, columns

    notebook.run(FIRST)
    Agent("plain", model=notebook.model).run("hi")
    notebook["scripted"] = ModelScripted([ErrorAgent("broken")])
    notebook.cell("%%agent other -m scripted\nhi")
    place = [column.name for column in columns(RunRecord)]
    rows = [dict(zip(place, row, strict=True)) for row in default_store().select(RunRecord)]
    assert [(row["agent_name"], row["status"]) for row in rows] == [("support", "ok"), ("plain", "ok"), ("other", "error")]


# Mistakes

MISTAKES = [
    ("%%agent support --modle x\nhi", "unknown option --modle; did you mean --model?"),
    (
        "%%agent support --tools order_staus\nhi",
        "no function or Tool called order_staus in the notebook; did you mean order_status?",
    ),
    ("%%agent support --output Invoce\nhi", "no type called Invoce in the notebook; did you mean Invoice?"),
    ("%%agent suport\nhi", "no agent called suport; did you mean support?"),
    ("%%agent support --max-cost 1O\nhi", "--max-cost needs a number from 0, such as 0.25; got '1O'"),
    ("%%agent support --max-cost nan\nhi", "--max-cost needs a number from 0"),
    ("%%agent support --max-turns 0\nhi", "--max-turns needs a whole number from 1"),
    ("%%agent support --history windw:3\nhi", "--history needs window:N"),
    ("%%agent support --as 1x\nhi", "--as needs the name of a variable"),
    ("%%agent support\n\n  \n", "the prompt is empty; write below the first line what to ask"),
    ("%%agent support\n", "the prompt is empty"),
    (
        "%%agent support -m scripted\nBe brief.\n---\n\n",
        "the prompt is empty; write below the --- what to ask\nTo define the agent",
    ),
    ("%%agent support\n{empty}\n", "the prompt is empty"),
    ("%agent support", "the prompt is empty; write after the name what to ask"),
    ("%%agent\nhi", "which agent? %%agent NAME\nAgents of this notebook: held, support"),
    ("%%agent --model scripted\nhi", "which agent?"),
    ("%%agent list\nhi", "list is a word of %agent, so no agent can be called list"),
    ("%agent list all orders", "%agent list takes nothing more, got 'all orders'"),
    ("%agent show", "which agent? %agent show NAME, or %agent show last for the last run\nAgents of this notebook: held, support"),
    ("%agent show suport", "no agent called suport; did you mean support?"),
    ("%%agent support Where is it?\nhi", "unexpected 'Where is it?' after the name support"),
    ("%%agent support -i x -m scripted\nBe brief.\n---\nhi", "the instructions are given twice"),
    ("%%agent support --define --as x -m scripted\nBe brief.", "--as needs a run"),
    ("%%agent other -m scripted -t x\nBe brief.\n---\nhi", "no function or Tool called x"),
    ("%agent support hi --max-cost 1", "--max-cost comes after the prompt"),
    ("%agent support hi -t refund", "-t comes after the prompt"),
    ("%%agent support --as held\nhi", "--as held: the variable holds an Agent, which the Result would replace"),
    ("%%agent held --as held\nhi", "--as held: the variable holds an Agent"),
    ("%%agent support -m scriptde\nhi", "no variable called scriptde holds a Model; did you mean scripted?"),
    ("%%agent support -o NoSchema\nhi", "no JSON Schema can be made for"),
    ("%%agent 🙂\nhi", "'🙂' cannot be the name of an agent; a name is made of letters"),
]


@pytest.mark.parametrize(("source", "said"), MISTAKES, ids=[source.splitlines()[0] for source, _ in MISTAKES])
def test_mistake_is_a_usage_error_and_nothing_is_sent(notebook: ShellNotebook, source: str, said: str) -> None:
    notebook.run(FIRST)
    notebook.shell.push({"Invoice": int, "empty": " ", "held": Agent("held"), "NoSchema": type("NoSchema", (), {})})
    assert notebook.mistake(source).startswith(said)
    assert "support" in notebook.run("%agent list")


def test_mistake_defines_nothing(notebook: ShellNotebook) -> None:
    notebook.mistake("%%agent support -m scripted\nBe brief.\n---\n\n")
    assert notebook.mistake("%%agent support\nhi").startswith("no agent called support")


# The words of %agent


def test_list_and_show_say_what_there_is(notebook: ShellNotebook) -> None:
    assert notebook.run("%agent list").startswith("no agents yet")
    notebook.run(FIRST)
    notebook["bot"] = Agent("bot", model="m", api_key="sk-secret")
    listed = notebook.run("%agent list").splitlines()
    assert [line.split()[0] for line in listed] == ["agent", "bot", "support"]
    shown = notebook.run("%agent show support")
    assert "max_cost      0.25" in shown
    assert "tools         order_status, refund" in shown
    assert "sk-secret" not in notebook.run("%agent show bot")


@pytest.mark.parametrize("line", ["%agent", "%agent help", "%agent --help", "%agent -h", "%%agent --help\nhi"])
def test_help_names_every_option(notebook: ShellNotebook, line: str) -> None:
    said = notebook.run(line)
    assert all(option.flag in said and option.about in said for option in OPTIONS)
    assert said.startswith("Run an agent on the text of the cell.")
    assert said.strip() in notebook.shell.magics_manager.registry["AgentMagics"].agent.__doc__


# Coming and going


def test_loading_twice_is_loading_once(notebook: ShellNotebook) -> None:
    transforms, tokens = (
        len(notebook.shell.input_transformers_cleanup),
        len(notebook.shell.input_transformer_manager.token_transformers),
    )
    configurables, store = len(notebook.shell.configurables), default_store()
    load_ipython_extension(notebook.shell)
    assert len(notebook.shell.input_transformers_cleanup) == transforms
    assert len(notebook.shell.input_transformer_manager.token_transformers) == tokens
    assert len(notebook.shell.configurables) == configurables
    assert default_store() is store


def traces(shell: InteractiveShell) -> dict[str, Any]:
    """All that loading could change."""
    return {
        "magics": {kind: sorted(magics) for kind, magics in shell.magics_manager.magics.items()},
        "registry": sorted(shell.magics_manager.registry),
        "transforms": list(shell.input_transformers_cleanup),
        "tokens": list(shell.input_transformer_manager.token_transformers),
        "configurables": list(shell.configurables),
        "names": sorted(shell.user_ns),
        "store": default_store(),
        "errors": shell.custom_exceptions,
    }


def test_unloading_leaves_nothing_behind(shell: InteractiveShell) -> None:
    before = traces(shell)
    load_ipython_extension(shell)
    assert traces(shell) != before
    unload_ipython_extension(shell)
    assert traces(shell) == before
    unload_ipython_extension(shell)


def test_store_that_was_set_before_stays(shell: InteractiveShell, tmp_path: Path) -> None:
    from agentroute import RunStore
    from agentroute.store import set_default_store

    mine = RunStore(tmp_path / "mine.db")
    set_default_store(mine)
    load_ipython_extension(shell)
    assert default_store() is mine
    unload_ipython_extension(shell)
    assert default_store() is mine
    set_default_store(None)


def test_reloading_works(notebook: ShellNotebook) -> None:
    notebook.run("%load_ext agentroute_ipython")
    notebook.run("%reload_ext agentroute_ipython")
    notebook.run("%agent bot -m scripted hi")
    notebook.run("%unload_ext agentroute_ipython")
    assert isinstance(
        notebook.cell("%agent bot hi").error_before_exec or notebook.cell("%agent bot hi").error_in_exec, UsageError
    )


def test_model_can_be_set_in_the_configuration_file(shell: InteractiveShell) -> None:
    shell.config.AgentMagics.model = "local/smollm2"
    load_ipython_extension(shell)
    assert shell.magics_manager.registry["AgentMagics"].model == "local/smollm2"


@pytest.mark.usefixtures("no_budget_left_over")
def test_a_budget_holds_for_all_runs_of_the_kernel(notebook: ShellNotebook) -> None:
    notebook.model.cost_usd = 0.4
    assert notebook.run("%agent budget").startswith("no budget; %agent budget 5.00 lets")
    assert notebook.run("%agent budget $1.00") == "$1.00 left of $1.00 ($0 spent)\n"
    notebook.run("%%agent bot -m scripted\nhi")
    notebook.run("%agent bot hi")
    assert notebook.run("%agent budget") == "$0.2000 left of $1.00 ($0.8000 spent)\n"
    assert not notebook.cell("%agent bot hi again").success  # its price was not known beforehand; it has passed the limit
    asked = len(notebook.model.requests)
    stopped = notebook.cell("%agent bot hi once more")
    assert not stopped.success
    assert len(notebook.model.requests) == asked
    assert notebook.run("%agent budget off").startswith("no budget: runs of this notebook may spend")
    notebook.run("%agent bot hi at last")


@pytest.mark.parametrize("amount", ["much", "-1", "nan", "inf", "1e12", "5 6"])
def test_a_budget_that_is_no_amount_is_a_mistake(notebook: ShellNotebook, amount: str) -> None:
    assert "%agent budget needs an amount of USD, such as 5.00, or off; got" in notebook.mistake(f"%agent budget {amount}")


# Replay, tags and what is kept


def test_terminal_replays_nothing_unless_asked_to(notebook: ShellNotebook) -> None:
    assert (notebook.magics.replay, replay_now()) == ("off", "off")
    notebook.run("%config AgentMagics.replay = 'on'")
    assert (notebook.magics.replay, replay_now()) == ("on", "on")
    unload_ipython_extension(notebook.shell)
    assert replay_now() == "off"


@pytest.fixture
def set_replay_left_over() -> Iterator[None]:
    yield
    set_replay(None)


@pytest.mark.usefixtures("set_replay_left_over")
def test_setting_of_replay_always_counts_and_reads_as_what_holds(notebook: ShellNotebook) -> None:
    notebook.run("%config AgentMagics.replay = 'on'")
    set_replay("off")
    assert notebook.magics.replay == "off"
    assert "'off'" in notebook.run("%config AgentMagics.replay")
    for mode in ("on", "only", "on"):  # also what it was set to before
        notebook.run(f"%config AgentMagics.replay = {mode!r}")
        assert (notebook.magics.replay, replay_now()) == (mode, mode)
        set_replay("off")
    set_replay(None)
    assert (notebook.magics.replay, replay_now()) == ("on", "on")


@pytest.mark.usefixtures("set_replay_left_over")
def test_mode_that_was_set_before_loading_stays(shell: InteractiveShell) -> None:
    set_replay("only")
    load_ipython_extension(shell)
    assert shell.magics_manager.registry["AgentMagics"].replay == "only"
    unload_ipython_extension(shell)
    assert replay_now() == "only"


def test_replay_can_be_set_in_the_configuration_file(shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTROUTE_REPLAY", "off")
    shell.config.AgentMagics.replay = "fresh"
    load_ipython_extension(shell)
    assert (shell.magics_manager.registry["AgentMagics"].replay, replay_now()) == ("fresh", "fresh")


@pytest.mark.parametrize(
    ("trait", "value", "allowed"),
    [
        ("replay", "onyl", "on, off, only, fresh; got 'onyl'; did you mean only?"),
        ("record", "none", "all, metadata, off; got 'none'"),
    ],
)
def test_setting_that_is_none_is_told_and_changes_nothing(
    notebook: ShellNotebook, caplog: pytest.LogCaptureFixture, trait: str, value: str, allowed: str
) -> None:
    before = getattr(notebook.magics, trait)
    notebook.run(f"%config AgentMagics.{trait} = {value!r}")  # IPython's own: it logs, and the cell succeeds
    assert caplog.messages == [f"{trait} must be one of {allowed}"]
    assert getattr(notebook.magics, trait) == before
    assert notebook.magics.store.keeping.content == "all"


def test_environment_variable_that_is_none_is_told_and_nothing_is_loaded(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTROUTE_REPLAY", "maybe")
    with pytest.raises(UsageError, match="AGENTROUTE_REPLAY must be one of on, off, only, fresh; got 'maybe'"):
        load_ipython_extension(shell)
    assert "AgentMagics" not in shell.magics_manager.registry
    assert default_store() is None


def test_tags_of_a_cell_are_those_of_its_run(notebook: ShellNotebook) -> None:
    notebook["tenant"] = "a"
    notebook.run("%%agent bot -m scripted --tag tenant={tenant} --tag topic=x\nhi")
    notebook.run("%agent bot --tag topic=y again")
    notebook["other"] = Agent("other", model=notebook.model, tags={"tenant": "b", "team": "c"})
    notebook.run("%agent other --tag tenant=d hi")
    assert [json.loads(row[0]) for row in notebook.magics.store.select(RunRecord, columns=["tags"])] == [
        {"tenant": "a", "topic": "x"},
        {"tenant": "a", "topic": "y"},
        {"tenant": "d", "team": "c"},
    ]
    assert notebook["other"].tags == {"tenant": "b", "team": "c"}


def test_defining_an_agent_anew_keeps_tags_of_other_names(notebook: ShellNotebook) -> None:
    notebook.run("%%agent bot -m scripted --tag tenant=a --tag topic=x\nBe brief.\n---\nhi")
    notebook.run("%%agent bot --tag topic=y\n---\nhi")
    notebook.run("%agent bot hi")
    assert [row[0] for row in notebook.magics.store.select(RunRecord, columns=["tags"])][-1] == '{"tenant": "a", "topic": "y"}'
    assert "tags          tenant=a, topic=y" in notebook.run("%agent show bot")


def test_run_without_a_record_leaves_none(notebook: ShellNotebook) -> None:
    notebook.run("%%agent bot -m scripted --no-record\nhi")
    assert notebook["_agent"].output == "A1"
    notebook.run("%agent bot hi")
    assert len(list(notebook.magics.store.select(RunRecord))) == 1


@pytest.mark.parametrize("option", ["--as x", "--no-record", "--fresh", "--replay only"])
def test_options_of_a_run_are_refused_where_none_is(notebook: ShellNotebook, option: str) -> None:
    flag = option.split()[0]
    assert notebook.mistake(f"%%agent bot -m scripted --define {option}\nhi").startswith(f"{flag} needs a run, and --define")


def test_content_is_no_longer_kept_once_the_notebook_says_so(notebook: ShellNotebook) -> None:
    notebook.run("%agent bot -m scripted first")
    notebook.run("%config AgentMagics.record = 'metadata'")
    notebook.run("%agent bot second")
    assert [row[0] for row in notebook.magics.store.select(RunRecord, columns=["prompt_text"])] == ["first", ""]
    assert default_store() is notebook.magics.store
