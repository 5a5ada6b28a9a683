from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from agentroute import Agent, ErrorConfig, HistorySlidingWindow, HistoryTruncate, Memory, MemorySQLite, Tool, tool
from agentroute.testing import ModelScripted
from agentroute_ipython.agents import Agents
from agentroute_ipython.arguments import Options


class Invoice(BaseModel):
    total: float


def order_status(order_id: str) -> str:
    return "shipped"


def refund(order_id: str) -> str:
    return "done"


@tool
def weather(city: str) -> str:
    return "sun"


class Notebook:
    """Variables, a default model, and the agents that belong to them."""

    def __init__(self, **names: Any) -> None:
        self.names: dict[str, Any] = names
        self.model: str | None = None
        self.agents = Agents(lambda: self.names, self.names.__setitem__, lambda: self.model)

    def mistake(
        self, name: str = "bot", ask: Callable[[Agents], Callable[..., Any]] = lambda agents: agents.get, **options: Any
    ) -> str:
        with pytest.raises(ErrorConfig) as caught:
            ask(self.agents)(name, Options(**{"model": "m", **options}))
        assert len(str(caught.value).splitlines()) <= 3
        return str(caught.value)


@pytest.fixture
def notebook() -> Notebook:
    return Notebook(order_status=order_status, refund=refund, weather=weather, Invoice=Invoice, number=3)


def test_options_become_the_arguments_of_an_agent(notebook: Notebook) -> None:
    options = Options("m", ("order_status",), "Invoice", "Be brief.", 0.25, 3, 2, 0.5, 100, "ram", ("window", 20))
    agent = notebook.agents.define("bot", options)
    assert (agent.name, agent.model, agent.instructions, agent.output) == ("bot", "m", "Be brief.", Invoice)
    assert (agent.max_cost, agent.max_turns, agent.retries, agent.temperature, agent.max_tokens) == (0.25, 3, 2, 0.5, 100)
    assert list(agent.tools_map) == ["order_status"]
    assert isinstance(agent.memory, Memory)
    assert isinstance(agent.history, HistorySlidingWindow)
    assert agent.history.window_size == 20


def test_what_is_not_given_is_left_to_the_agent(notebook: Notebook) -> None:
    agent, plain = notebook.agents.define("bot", Options("m")), Agent("bot", model="m")
    assert {key: getattr(agent, key) for key in vars(plain)} == vars(plain)


def test_variable_comes_before_a_definition_and_a_definition_before_a_new_agent(notebook: Notebook) -> None:
    notebook.agents.define("bot", Options("defined"))
    assert notebook.agents.get("bot", Options()).model == "defined"
    held = notebook.names["bot"] = Agent("held", model="held")
    assert notebook.agents.get("bot", Options()) is held
    assert notebook.agents.get("new", Options("made")).model == "made"


def test_new_agent_is_defined_by_its_first_run(notebook: Notebook) -> None:
    notebook.agents.get("bot", Options("m", instructions="Be brief."))
    assert notebook.agents.get("bot", Options()).instructions == "Be brief."
    notebook.agents.get("bot", Options("other"))
    assert notebook.agents.get("bot", Options()).model == "m"


def test_options_of_one_run_change_neither_definition_nor_variable(notebook: Notebook) -> None:
    notebook.agents.define("bot", Options("m", ("order_status",), max_turns=3))
    held = notebook.names["held"] = Agent("held", model="m", tools=[order_status])
    for name in ("bot", "held"):
        once = notebook.agents.get(name, Options("other", ("refund",), max_turns=1))
        assert (once.model, list(once.tools_map), once.max_turns) == ("other", ["refund"], 1)
    again = notebook.agents.get("bot", Options())
    assert (again.model, list(again.tools_map), again.max_turns) == ("m", ["order_status"], 3)
    assert notebook.names["held"] is held
    assert (held.model, list(held.tools_map)) == ("m", ["order_status"])


def test_new_definition_keeps_what_it_does_not_mention(notebook: Notebook) -> None:
    notebook.agents.define("bot", Options("m", ("order_status",), instructions="Old.", max_cost=0.25, max_turns=3))
    notebook.agents.define("bot", Options(instructions="New.", max_turns=4))
    agent = notebook.agents.get("bot", Options())
    assert (agent.instructions, list(agent.tools_map)) == ("New.", ["order_status"])
    assert (agent.model, agent.max_cost, agent.max_turns) == ("m", 0.25, 4)


def test_what_a_cell_does_not_say_any_more_is_kept_and_named(notebook: Notebook) -> None:
    notebook.agents.get("bot", Options("m", max_cost=0.25, max_turns=3), cell="a")
    notebook.agents.define("bot", Options(retries=2), cell="b")
    assert notebook.agents.kept("bot") == []
    notebook.agents.define("bot", Options("m", instructions="New."), cell="a")
    notebook.agents.define("bot", Options(retries=2), cell="b")
    assert (notebook.agents.kept("bot"), notebook.agents.cell("bot")) == (["max_cost", "max_turns"], "b")
    notebook.agents.define("bot", Options(max_turns=3), cell="c")
    assert notebook.agents.kept("bot") == ["max_cost"]
    notebook.agents.define("bot", Options(), without=["max_cost"])
    assert notebook.agents.kept("bot") == []


def test_cells_that_nobody_tells_apart_keep_nothing_to_name(notebook: Notebook) -> None:
    notebook.agents.define("bot", Options("m", max_cost=0.25))
    notebook.agents.define("bot", Options("m"))
    assert (notebook.agents.kept("bot"), notebook.agents.cell("bot")) == ([], None)


def test_defining_a_variable_binds_it_to_a_changed_copy(notebook: Notebook) -> None:
    held = notebook.names["bot"] = Agent("held", model="m", tools=[order_status], instructions="Old.")
    notebook.agents.define("bot", Options(instructions="New.", max_turns=2))
    now = notebook.names["bot"]
    assert (now.name, now.instructions, now.max_turns, list(now.tools_map)) == ("held", "New.", 2, ["order_status"])
    assert held.instructions == "Old."
    assert notebook.agents.get("bot", Options()) is now


def test_tools_are_what_their_names_stand_for_now(notebook: Notebook) -> None:
    notebook.agents.define("bot", Options("m", ("order_status",)))

    def order_status(order_id: str) -> str:
        return "edited"

    notebook.names["order_status"] = order_status
    assert notebook.agents.get("bot", Options()).tools_map["order_status"].fn is order_status
    del notebook.names["order_status"]
    with pytest.raises(ErrorConfig, match="no function or Tool called order_status"):
        notebook.agents.get("bot", Options())


def test_tools_may_be_functions_tools_and_lists_of_them(notebook: Notebook) -> None:
    notebook.names["all_tools"] = [order_status, weather]
    agent = notebook.agents.get("bot", Options("m", ("all_tools", "weather", "refund")))
    assert list(agent.tools_map) == ["order_status", "weather", "refund"]
    assert agent.tools_map["weather"] is weather
    assert isinstance(agent.tools_map["refund"], Tool)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tools": ("order_staus",)}, "no function or Tool called order_staus in the notebook; did you mean order_status?"),
        ({"tools": ("numbr",)}, "no function or Tool called numbr in the notebook"),
        ({"tools": ("number",)}, "--tools number: expected a function, a Tool or a list of them; it is an int"),
        ({"tools": ("Invoice",)}, "--tools Invoice: expected a function, a Tool or a list of them; it is a ModelMetaclass"),
        ({"output": "Invoce"}, "no type called Invoce in the notebook; did you mean Invoice?"),
        ({"output": "boool"}, "no type called boool in the notebook; did you mean bool?"),
        ({"output": "number"}, "--output number: expected a type; it is an int"),
        (
            {"memory": "rma"},
            "no variable called rma holds a memory; did you mean ram?\nFor a file, write an ending or a folder: rma.db",
        ),
        ({"memory": "number"}, "--memory number: expected a memory, or the path of a file; it is an int"),
    ],
)
def test_what_is_not_there_is_answered_with_the_nearest(notebook: Notebook, options: dict[str, Any], said: str) -> None:
    assert notebook.mistake(**options) == said
    assert notebook.mistake(ask=lambda agents: agents.define, **options) == said
    assert notebook.agents.known() == []


def test_types_may_be_builtin_or_made_from_others(notebook: Notebook) -> None:
    notebook.names |= {"Invoices": list[Invoice], "Maybe": Invoice | None}
    kinds = {name: notebook.agents.get("bot", Options("m", output=name)).output for name in ("int", "str", "Invoices", "Maybe")}
    assert kinds == {"int": int, "str": str, "Invoices": list[Invoice], "Maybe": Invoice | None}


def test_unknown_agent_is_answered_with_the_nearest(notebook: Notebook) -> None:
    notebook.agents.define("support", Options("m"))
    assert notebook.mistake("suport", model=None).startswith(
        "no agent called suport; did you mean support?\nA new one needs --model"
    )
    assert notebook.agents.known() == ["support"]


@pytest.mark.parametrize(("name", "meant"), [("suport", "support"), ("supports", "support")])
def test_misspelt_name_is_no_new_agent_of_the_default_model(notebook: Notebook, name: str, meant: str) -> None:
    notebook.model = "m"
    notebook.agents.define("support", Options())
    said = f"no agent called {name}; did you mean {meant}? A new agent of that name needs --model"
    assert notebook.mistake(name, model=None) == said
    assert notebook.mistake(name, ask=lambda agents: agents.define, model=None) == said
    assert notebook.agents.known() == ["support"]
    assert notebook.agents.get("other", Options()).name == "other"
    assert notebook.agents.get(name, Options("m")).name == name
    assert notebook.agents.get(name, Options()).name == name


def test_default_model_is_the_one_of_the_moment(notebook: Notebook) -> None:
    notebook.model = "first"
    notebook.agents.define("bot", Options())
    notebook.model = "second"
    assert notebook.agents.get("bot", Options()).model == "second"
    notebook.model = None
    assert str(notebook.agents.all()["bot"][0]).startswith("agent bot needs a model: --model MODEL")


def test_model_may_be_a_variable_that_holds_one(notebook: Notebook) -> None:
    model = notebook.names["scripted"] = ModelScripted([])
    assert notebook.agents.get("bot", Options("scripted")).model is model
    notebook.model = "scripted"
    assert notebook.agents.get("other", Options()).model is model


def test_model_may_be_a_variable_that_holds_its_name(notebook: Notebook) -> None:
    notebook.names["which"] = "ollama/llama"
    assert notebook.agents.get("bot", Options("which")).model == "ollama/llama"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("ehco", "no variable called ehco holds a Model; did you mean echo?"),
        ("number", "--model number: expected a Model, or a text that names one; the variable holds an int"),
        ("order_status", "--model order_status: expected a Model, or a text that names one; the variable holds a function"),
        ("ModelScripted", "--model ModelScripted: expected a Model, or a text that names one; the variable holds a type"),
        ("nothing", "--model nothing: expected a Model, or a text that names one; the variable holds an empty text"),
    ],
)
def test_model_that_is_surely_not_meant_is_refused(notebook: Notebook, model: str, said: str) -> None:
    notebook.names |= {"echo": ModelScripted([]), "ModelScripted": ModelScripted, "nothing": ""}
    assert notebook.mistake(model=model) == said


@pytest.mark.parametrize("model", ["echo-2", "acme/ehco", "echo2", "gpt"])
def test_name_of_a_model_that_is_unlike_any_variable_is_taken_as_it_is(notebook: Notebook, model: str) -> None:
    notebook.names["echo"] = ModelScripted([])
    assert notebook.agents.get("bot", Options(model)).model == model


class Odd:
    """Raises whatever it is asked."""

    @property
    def __class__(self) -> type:
        raise RuntimeError("no class")

    def __getattr__(self, name: str) -> object:
        raise RuntimeError("no attribute")


def test_odd_object_in_the_notebook_breaks_nothing(notebook: Notebook) -> None:
    notebook.names |= {"odd": Odd(), "echo": ModelScripted([])}
    notebook.agents.define("bot", Options("echo"))
    assert list(notebook.agents.all()) == ["bot"]
    assert "did you mean echo?" in notebook.mistake(model="ehco")
    assert "did you mean order_status?" in notebook.mistake(tools=("order_staus",))
    assert "did you mean Invoice?" in notebook.mistake(output="Invoce")
    assert "did you mean ram?" in notebook.mistake(memory="rma")
    for options in ({"model": "odd"}, {"tools": ("odd",)}, {"output": "odd"}, {"memory": "odd"}):
        assert "an Odd" in notebook.mistake(**options)


class NoSchema:
    pass


def takes_no_schema(value: NoSchema) -> str:
    return ""


@pytest.mark.parametrize("options", [{"output": "NoSchema"}, {"tools": ("takes_no_schema",)}])
def test_type_without_a_schema_is_a_mistake_and_changes_nothing(notebook: Notebook, options: dict[str, Any]) -> None:
    notebook.names |= {"NoSchema": NoSchema, "takes_no_schema": takes_no_schema, "held": Agent("held", model="m")}
    held = notebook.names["held"]
    assert "NoSchema" in notebook.mistake("bot", **options)
    assert "NoSchema" in notebook.mistake("bot", ask=lambda agents: agents.define, **options)
    assert "NoSchema" in notebook.mistake("held", ask=lambda agents: agents.define, **options)
    assert notebook.names["held"] is held
    assert notebook.agents.known() == ["held"]


def test_memory_in_ram_stays_with_the_agent_until_it_is_defined_anew(notebook: Notebook) -> None:
    notebook.names["held"] = Agent("held", model="m")
    notebook.agents.define("bot", Options("m", memory="ram"))
    for name in ("bot", "held"):
        kept = notebook.agents.get(name, Options(memory="ram")).memory
        assert isinstance(kept, Memory)
        assert notebook.agents.get(name, Options(memory="ram", max_turns=1)).memory is kept
    first = notebook.agents.get("bot", Options()).memory
    assert first is notebook.agents.get("bot", Options()).memory
    assert first is not notebook.agents.get("held", Options(memory="ram")).memory
    assert notebook.agents.define("bot", Options("m", memory="ram")).memory is not first
    assert notebook.agents.get("held", Options()).memory is None


def test_memory_may_be_a_file_or_a_variable(notebook: Notebook, tmp_path: Path) -> None:
    notebook.names |= {"mine": Memory(), "where": tmp_path / "b.db"}
    assert notebook.agents.get("bot", Options("m", memory="mine")).memory is notebook.names["mine"]
    by_path = notebook.agents.get("bot", Options("m", memory=str(tmp_path / "a.db"))).memory
    by_name = notebook.agents.get("bot", Options("m", memory="where")).memory
    assert isinstance(by_path, MemorySQLite)
    assert isinstance(by_name, MemorySQLite)
    assert (by_path.path, by_name.path) == (tmp_path / "a.db", tmp_path / "b.db")
    assert notebook.agents.get("bot", Options("m", memory=f"{tmp_path}/./a.db")).memory is by_path


def test_history_is_a_policy(notebook: Notebook) -> None:
    policy = notebook.agents.get("bot", Options("m", history=("truncate", 800))).history
    assert isinstance(policy, HistoryTruncate)
    assert policy.max_tokens == 800


def test_history_is_a_policy_that_a_variable_holds(notebook: Notebook) -> None:
    policy = notebook.names["policy"] = HistoryTruncate(80)
    assert notebook.agents.get("bot", Options("m", history="policy")).history is policy


@pytest.mark.parametrize(("name", "words"), [("polcy", "did you mean policy"), ("number", "expected a history policy; it is")])
def test_a_variable_that_holds_no_policy_is_a_mistake(notebook: Notebook, name: str, words: str) -> None:
    notebook.names.update(policy=HistoryTruncate(80), number=3)
    with pytest.raises(ErrorConfig, match=words):
        notebook.agents.get("bot", Options("m", history=name))


def test_all_agents_are_listed_by_name(notebook: Notebook) -> None:
    notebook.agents.define("zoe", Options("m"))
    notebook.agents.define("bot", Options("m", ("order_status",)))
    notebook.names |= {"mid": Agent("other", model="x"), "_hidden": Agent("h")}
    del notebook.names["order_status"]
    found = notebook.agents.all()
    assert {name: where for name, (_, where) in found.items()} == {"bot": "cell", "mid": "variable", "zoe": "cell"}
    assert list(found) == ["bot", "mid", "zoe"]
    assert isinstance(found["bot"][0], ErrorConfig)


def test_limits_the_agent_refuses_are_mistakes_too(notebook: Notebook) -> None:
    def order_status_2(order_id: str) -> str:
        return ""

    order_status_2.__name__ = "order_status"
    notebook.names["order_status_2"] = order_status_2
    assert "another tool named 'order_status'" in notebook.mistake(tools=("order_status", "order_status_2"))
