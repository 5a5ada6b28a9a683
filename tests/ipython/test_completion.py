"""What Tab offers on the lines of the magic: in a shell of this process, and through the requests of real kernels."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from IPython.core.completer import provisionalcompleter, rectify_completions
from IPython.core.interactiveshell import InteractiveShell

from agentroute import Agent, HistorySlidingWindow, Memory, tool
from agentroute.models import catalogue
from agentroute.models.openrouter import kept_file
from agentroute.testing import ModelScripted
from agentroute_ipython import load_ipython_extension, unload_ipython_extension
from agentroute_ipython.arguments import FILTERS, OPTIONS, RESERVED
from agentroute_ipython.completion import IDENTIFIER
from agentroute_ipython.modes import APPROVALS, RENDERS
from tests.ipython import kernels
from tests.ipython.conftest import StartKernel
from tests.ipython.versions import INSTALLED, OLDEST, KernelVersion

LISTED = [
    {"id": "anthropic/claude-sonnet-4", "context_length": 200_000, "pricing": {"prompt": "0.000003", "completion": "0.000015"}},
    {"id": "anthropic/claude-haiku-3.5", "context_length": 200_000, "pricing": {"prompt": "0.0000008", "completion": "0.000004"}},
    {"id": "openai/gpt-4.1-mini", "context_length": 1_047_576, "pricing": {"prompt": "0.0000004", "completion": "0.0000016"}},
    {"id": "qwen/qwen3-8b:free", "context_length": 40_960, "pricing": {"prompt": "0", "completion": "0"}},
]


def order_status(order_id: str) -> str:
    return "shipped"


def refund(order_id: str) -> str:
    return "done"


@tool
def escalate(reason: str) -> str:
    """Ask a person."""
    return "done"


class Answer:
    order: str


class Trap:
    """An object that runs code of its own for whatever is asked of it."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"{name} was asked for")


class TrapType(type):
    def __getattribute__(cls, name: str) -> Any:
        raise AssertionError(f"{name} was asked for")


class Offered:
    """What the shell offers at `|`, or at the end: `texts` in order; `about` what stands beside each; `replaced` the part replaced."""

    def __init__(self, shell: InteractiveShell, text: str) -> None:
        before, _, after = text.partition("|")
        with provisionalcompleter():
            found = list(rectify_completions(before + after, shell.Completer.completions(before + after, len(before))))
        self.texts = [one.text for one in found]
        self.about = {one.text: one.type for one in found}
        self.replaced = {(before + after)[one.start : one.end] for one in found}


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    for remembered in (catalogue._kept, catalogue._listed, catalogue._table):
        remembered.cache_clear()
    path = kept_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"at": time.time(), "base_url": "https://openrouter.ai/api/v1", "models": LISTED}))
    shell = InteractiveShell.instance()
    load_ipython_extension(shell)
    shell.push({"order_status": order_status, "refund": refund, "escalate": escalate, "Answer": Answer})
    shell.push({"support": Agent("support", model=ModelScripted(["A"])), "customer_name": "Ann", "both": [refund, escalate]})
    shell.push({"cheap": ModelScripted(["A"]), "favourite": "openai/gpt-4.1-mini", "past": Memory(), "short": HistorySlidingWindow(3)})
    shell.run_cell("%%agent critic --model local/smollm2 --tag tenant=a --define\nYou are strict.").raise_error()
    yield shell
    unload_ipython_extension(shell)
    InteractiveShell.clear_instance()


def offered(shell: InteractiveShell, text: str) -> list[str]:
    return Offered(shell, text).texts


FLAGS = [option.flag for option in OPTIONS]


def flags_but(*given: str) -> list[str]:
    return [flag for flag in FLAGS if flag not in given]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%%agent ", ["critic", "support"]),
        ("%%agent sup", ["support"]),
        ("%%agent sup|port --model x", ["support"]),
        ("# a comment\n\n%%agent sup", ["support"]),
        ("%%capture out\n%%agent sup", ["support"]),
        ("%%agent support,", ["critic"]),
        ("%%agent support,cr", ["critic"]),
        ("%%agent support, cr", ["critic"]),
        ("%agent sup", ["support"]),
        ("x = 1\nfor i in range(3):\n    %agent sup", ["support"]),
        ("%agent ", ["critic", "support", *(word for word in RESERVED if word != "last")]),
        ("%agent sh", ["show"]),
        ("%agent show ", ["last", "critic", "support"]),
        ("%agent show s", ["support"]),
        ("%agent edit ", ["critic", "support"]),
        ("%agent budget o", ["off"]),
        ("%agent doctor -", ["--offline"]),
        ("%agent runs ", [option.flag for option in FILTERS]),
        ("%agent runs 50 --agent ", ["critic", "support"]),
        ("%agent runs --status e", ["error"]),
        ("%agent cost w", ["week"]),
        ("%agent cost week --ag", ["--agent"]),
    ],
)
def test_names_and_words(shell, text, expected):
    assert offered(shell, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%%agent support ", FLAGS),
        ("%%agent support --", FLAGS),
        ("%%agent support --mod", ["--model", "--models"]),
        ("%%agent support mod", ["--model", "--models"]),
        ("%%agent support --m|x --model a", ["--max-cost", "--max-turns", "--max-tokens", "--memory"]),
        ("%%agent support -m x ", flags_but("--model", "--models")),
        ("%%agent support --fresh --define --t", ["--tools", "--temperature", "--tag"]),
        ("%%agent support --tag a=b --tools refund --temperature 0 --t", ["--tools", "--tag"]),
        ("%%agent --fr", ["--fresh"]),
        ("%agent support --fr", ["--fresh"]),
        ("%agent support ", FLAGS),
    ],
)
def test_options_that_are_not_given_yet(shell, text, expected):
    assert offered(shell, text) == expected


IDS = sorted(model["id"] for model in LISTED)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%%agent support --model ", ["cheap", "favourite", "local/smollm2", "ollama/", *IDS]),
        ("%%agent support -m anthropic/claude-", ["anthropic/claude-haiku-3.5", "anthropic/claude-sonnet-4"]),
        ("%%agent support --model=anthropic/claude-s", ["anthropic/claude-sonnet-4"]),
        ('%%agent support --model "anthropic/claude-s', ["anthropic/claude-sonnet-4"]),
        ("%%agent support --model claude-s", ["anthropic/claude-sonnet-4"]),
        ("%%agent support --model qwen/qwen3-8b:f", ["qwen/qwen3-8b:free"]),
        ("%%agent support --models openai/gpt-4.1-mini,anthropic/claude-h", ["anthropic/claude-haiku-3.5"]),
        ("%%agent support --models openai/gpt-4.1-mini, anthropic/claude-h", ["anthropic/claude-haiku-3.5"]),
        ("%%agent support --models openai/gpt-4.1-mini,o", ["ollama/"]),
        ("%agent runs --model openai/", ["openai/gpt-4.1-mini"]),
        ("%%agent support --tools ", ["both", "escalate", "order_status", "refund"]),
        ("%%agent support --tools refund,", ["both", "escalate", "order_status"]),
        ("%%agent support --tools refund, esc", ["escalate"]),
        ("%%agent support -t refund ,esc", ["escalate"]),
        ("%%agent support --output ", ["Answer", "str", "int", "float", "bool"]),
        ("%%agent support --history ", ["window:", "truncate:", "short"]),
        ("%%agent support --replay o", ["on", "off", "only"]),
        ("%%agent support --approval ", list(APPROVALS)),
        ("%%agent support --tag te", ["tenant=a"]),
    ],
)
def test_values_of_options(shell, text, expected):
    assert offered(shell, text) == expected


def test_a_place_to_remember_may_be_a_file(shell, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raspberry.db").touch()
    assert offered(shell, "%%agent support --memory r") == ["ram", "raspberry.db"]
    assert offered(shell, "%%agent support --memory pa") == ["past"]


def test_beside_each_model_stand_its_price_and_context(shell):
    about = Offered(shell, "%%agent support --model ").about
    assert about["anthropic/claude-sonnet-4"] == "$3 in / $15 out per M, 200k"
    assert about["qwen/qwen3-8b:free"] == "free, 41k"
    assert about["cheap"] == "a Model of the notebook"
    assert Offered(shell, "%%agent support --max-c").about == {"--max-cost": "USD  most that one run may spend"}


@pytest.mark.parametrize(
    ("text", "expected", "replaced"),
    [
        ("%config AgentMagics.replay = ", ["'on'", "'off'", "'only'", "'fresh'"], {""}),
        ("%config AgentMagics.replay=o", ["'on'", "'off'", "'only'"], {"o"}),
        ("%config AgentMagics.approval = 'de", ["deny'"], {"de"}),
        ("%config AgentMagics.record = 'me|'", ["metadata"], {"me"}),
        ('%config AgentMagics.render = "|"', list(RENDERS), {""}),
        ("%config AgentMagics.record = zzz", [], set()),
    ],
)
def test_words_of_a_setting_are_offered_in_quotes(shell, text, expected, replaced):
    found = Offered(shell, text)
    assert (found.texts, found.replaced) == (expected, replaced)


@pytest.mark.parametrize("text", ["%config AgentMagics.max_cost = cust", "%config AgentMagics.model = cust", "%config Other.replay = cust"])
def test_other_values_of_settings_are_python_as_ever(shell, text):
    assert "customer_name" in offered(shell, text)


TEXTS = {
    "at_home": "http://user:hidden@127.0.0.1:8000/v1/m?key=hidden", "brand_new": "vendor/model-9:free", "weights": "local/my file.gguf",
    "sentence": "and/or what", "key": "wJalrXUtnFEMI/K7MDENG", "folder": "/data/x", "deep": "a/b/c", "lines": "http://x/\ny", "text": "hello",
}  # fmt: skip
"""What variables hold: three are models."""


def test_variables_that_name_a_model_are_offered_as_they_are_accepted(shell):
    shell.push(TEXTS)
    found = Offered(shell, "%%agent support --model ")
    assert [text for text in found.texts if text in TEXTS] == ["at_home", "brand_new", "weights"]
    assert found.about["brand_new"] == "vendor/model-9:free"
    assert found.about["at_home"] == "http://…@127.0.0.1:8000/v1/m?…"
    assert offered(shell, "%%agent support --models brand_new,at") == ["at_home"]


def test_runs_to_compare_are_offered_by_id_with_agent_and_prompt_beside(shell):
    agent = Agent("shop", model=ModelScripted(["A"] * 12))
    ids = [agent.run(f"prompt {number}").run_id for number in range(12)]
    found = Offered(shell, "%agent diff ")
    assert found.texts == ids[:1:-1] and set(found.about.values()) == {f"shop: prompt {n}" for n in range(2, 12)}
    assert ids[-1] not in offered(shell, f"%agent diff {ids[-1]} ") and len(offered(shell, f"%agent diff {ids[-1]} ")) == 9
    assert offered(shell, f"%agent diff {ids[0]} {ids[1]} ") == []


@pytest.mark.parametrize(
    ("text", "replaced"),
    [
        ("%%agent support --model qwen/qwen3-8b:f", "qwen/qwen3-8b:f"),
        ("%%agent support --model=claude-s", "claude-s"),
        ("%%agent support --models a/b, qwen/qwen3-", "qwen/qwen3-"),
        ("%%agent support --max-c", "--max-c"),
        ("%%agent support,cr", "cr"),
        ("%%agent sup|port", "sup"),
        ("%agent ", ""),
    ],
)
def test_the_whole_word_before_the_cursor_is_replaced(shell, text, replaced):
    assert Offered(shell, text).replaced == {replaced}


@pytest.mark.parametrize(
    "text",
    [
        "%%agent newcomer",
        "%%agent support --max-cost ",
        "%%agent support --model zzz",
        "%%agent support --as de",
        "%agent list ",
        "%agent show support f",
        "%%agent support --max-cost=i",
    ],
)
def test_where_nothing_is_known_no_python_is_offered_in_its_place(shell, text):
    assert offered(shell, text) == []


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("%%agent support\nDear {cust", "customer_name"),
        ("%%agent support\nprint(cust", "customer_name"),
        ("%%agent support --instructions {cust", "customer_name"),
        ("%%agent support --model {cust", "customer_name"),
        ("%agent support Dear {cust", "customer_name"),
        ("print(cust", "customer_name"),
        ("%%time\ncust", "customer_name"),
    ],
)
def test_elsewhere_python_names_are_completed_as_ever(shell, text, wanted):
    found = Offered(shell, text)
    assert wanted in found.texts
    assert not {"support", *FLAGS} & set(found.texts)


@pytest.mark.parametrize("text", ["%%agent support\n%agent sup", "%%agent support\n%%agent sup", "x = 1\n%%agent sup", "%%agents sup", "agent sup"])
def test_what_only_looks_like_the_magic_is_left_to_ipython(shell, text):
    assert Offered(shell, text).about.get("support") != "agent"


def test_completing_runs_no_code_of_the_notebook(shell):
    before = {text: offered(shell, text) for text in ("%%agent ", "%%agent a --model ", "%%agent a --tools ", "%%agent a --memory ")}
    types = {text: offered(shell, text) for text in ("%%agent a --output ", "%%agent a --history ")}
    shell.user_ns["trap"] = Trap()
    shell.user_ns["traps"] = [Trap()]
    shell.user_ns["TrapClass"] = TrapType("TrapClass", (), {})
    assert {text: offered(shell, text) for text in before} == before
    assert offered(shell, "%%agent a --output ") == ["Answer", "TrapClass", "str", "int", "float", "bool"]
    assert offered(shell, "%%agent a --history ") == types["%%agent a --history "]


ODD = ["%%agent 'a", '%%agent a --model="', "%%agent a --tools ,,", "%%agent ,", "%agent --", "%agent show  '", "%%agent a --=x", "%%agent a -m -m",
       "%%agent \x00\udcff", "%agent runs --since= --", "%%agent a --models ,"]  # fmt: skip


@pytest.mark.parametrize("text", ODD)
def test_nothing_half_written_is_an_error(shell, text, capsys):
    for end in range(len("%agent"), len(text) + 1):
        offered(shell, text[:end])
    assert capsys.readouterr() == ("", "")


def test_a_failure_of_our_own_leaves_ipython_its_say(shell, monkeypatch):
    monkeypatch.setattr("agentroute_ipython.half_written._asked", lambda *a, **k: 1 / 0)
    assert "customer_name" in offered(shell, "%agent support {cust")


def test_very_many_models_are_offered_by_vendor_first(shell, monkeypatch):
    entries = tuple(catalogue.ModelEntry(f"vendor{n % 3}/model-{n}", 1.0, 2.0, 1000) for n in range(900))
    monkeypatch.setattr(catalogue, "catalogue", lambda: catalogue.Catalogue(entries, "many"))
    found = Offered(shell, "%%agent a --model ")
    assert [text for text in found.texts if "vendor" in text] == ["vendor0/", "vendor1/", "vendor2/"]
    assert found.about["vendor1/"] == "300 models"
    assert len(offered(shell, "%%agent a --model vendor1/")) == 300


def test_unloading_takes_it_away(shell):
    unload_ipython_extension(shell)
    assert all(getattr(one, "matcher_identifier", None) != IDENTIFIER for one in shell.Completer.custom_matchers)
    assert "support" not in Offered(shell, "%%agent ").texts or Offered(shell, "%%agent ").about["support"] != "agent"
    load_ipython_extension(shell)
    load_ipython_extension(shell)
    assert sum(getattr(one, "matcher_identifier", None) == IDENTIFIER for one in shell.Completer.custom_matchers) == 1


# ---- kernels ----------------------------------------------------------------------------------------------------------

SETUP = """
%load_ext agentroute_ipython
from agentroute import Agent
from agentroute.testing import ModelScripted
import os, pathlib
support = Agent("support", model=ModelScripted(["A"]))
customer_name = "Ann"
def order_status(order_id: str) -> str: ...
"""


def completed(kernel: kernels.Session, code: str) -> tuple[list[str], str, dict[str, str]]:
    """Matches, the text that is replaced, and what stands beside each match."""
    before, _, after = code.partition("|")
    reply = kernel.request("complete", {"code": before + after, "cursor_pos": len(before)})
    about = {one["text"]: one["type"] for one in reply["metadata"]["_jupyter_types_experimental"]}
    return reply["matches"], (before + after)[reply["cursor_start"] : reply["cursor_end"]], about


@pytest.mark.parametrize("version", [INSTALLED, pytest.param(OLDEST, marks=pytest.mark.slow)], ids=str)
def test_a_kernel_completes_the_lines_of_the_magic(start_kernel: StartKernel, version: KernelVersion):
    kernel = start_kernel(version)
    listed = {"at": time.time(), "base_url": "https://openrouter.ai/api/v1", "models": LISTED}
    (kernel.folder / ".agentroute").mkdir()
    (kernel.folder / ".agentroute" / "openrouter-models.json").write_text(json.dumps(listed))
    kernel.run(SETUP)
    assert completed(kernel, "%%agent sup|port --fresh\nHello")[:2] == (["support"], "sup")
    assert completed(kernel, "%%agent support --model qwen/qwen3-8b:f|\nHello") == (
        ["qwen/qwen3-8b:free"], "qwen/qwen3-8b:f", {"qwen/qwen3-8b:free": "free,\u00a041k"},
    )  # fmt: skip
    assert completed(kernel, "é = 'ü😀'\n%agent support --models openai/gpt-4.1-mini,claude-s|")[:2] == (["anthropic/claude-sonnet-4"], "claude-s")
    assert completed(kernel, "%%agent support --max-cost |")[0] == []
    assert completed(kernel, "%%agent support --tools or|\nHello")[:2] == (["order_status"], "or")
    matches, replaced, _ = completed(kernel, "%%agent support\nDear {cust|}")
    assert ("customer_name" in matches, replaced) == (True, "cust")
    assert "--max-cost USD" in kernel.inspect("%%agent")
