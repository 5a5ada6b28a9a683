"""No key is ever shown: none of the environment, and none that a model or a tool says, whole or in pieces."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentroute import ToolCall
from agentroute.events import ReasoningDelta, TextDelta
from agentroute_ipython.card import Card
from agentroute_ipython.display import to_html, to_text
from agentroute_ipython.formats import LONGEST_KEY, KeylessText, cut, one_line, unfinished, visible
from tests.hostile import FAKE_KEYS, KEYS
from tests.ipython.conftest import StartKernel
from tests.ipython.sample_runs import call, ended, turn
from tests.ipython.test_cells import Terminal
from tests.ipython.versions import INSTALLED
from tests.server import ModelServer, Raw

ALL_KEYS = [*FAKE_KEYS.values(), *KEYS.values()]
SAID = {
    **{f"{name}, given": f"the key is {key}, keep it" for name, key in FAKE_KEYS.items()},
    **{name: f"try {key} now" for name, key in KEYS.items()},
    "key in a header": f"Authorization: Bearer {KEYS['key in a header']} was sent",
    "keys in JSON": json.dumps({"api_key": KEYS["key of OpenAI"], KEYS["key of Groq"]: [FAKE_KEYS["OPENAI_API_KEY"]]}),
    "key in a link": f"[here](https://api.example/v1?key={KEYS['key of OpenAI']}) and `{KEYS['key of GitHub']}`",
    "key on a new line of JSON": json.dumps({"a": f"keys:\n{KEYS['key of OpenAI']}\t{KEYS['key of Groq']}é{KEYS['key of GitHub']}"}),
    "key in a word": f"OPENAI_API_KEY={FAKE_KEYS['OPENAI_API_KEY']};export X",
}
PART = 8
"""Characters of a key that nobody may see together."""


@pytest.fixture(autouse=True)
def keys_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, key in FAKE_KEYS.items():
        monkeypatch.setenv(name, key)


def seen(text: str) -> list[str]:
    """The parts of keys that a text shows, beyond the beginnings that say whose keys they are."""
    text = text.replace("<wbr>", "")
    parts = [key[at : at + PART] for key in ALL_KEYS for at in range(len(key) - PART + 1)]
    return sorted({part for part in parts if part in text and part not in "sk-proj- sk-or-v1 sk-or-v1- sk-ant-api03- sk_live_"})


def filled(text: str) -> Card:
    """The card of a run with the text in every field that a model or a tool fills."""
    fields = {"tool_name": text, "arguments_text": text, "result_text": text}
    calls = [call(1, 1, **fields), call(1, 2, status="error", error_type="E", **fields)]
    card = ended([turn(1, finish_reason=text), turn(2)], calls, output=text, error_type="E", error_text=text, agent_name=text)
    return card.apply(TextDelta(text, 1)).apply(ReasoningDelta(text, 1))


@pytest.mark.parametrize("text", SAID.values(), ids=SAID)
def test_card_shows_no_key(text: str) -> None:
    assert seen(text) != []
    for card in (filled(text), filled(f"{'word ' * 3_000}{text}{' word' * 3_000}")):
        assert seen(to_html(card)) == seen(to_text(card)) == []
        card.output = {text: text, "list": [text, {"deep": text}], "rows": [{text: text}] * 3}
        assert seen(to_html(card)) == seen(to_text(card)) == []
        card.state = "running"
        assert seen(to_html(card)) == seen(to_text(card)) == []


@pytest.mark.parametrize("kind", [TextDelta, ReasoningDelta])
@pytest.mark.parametrize("text", SAID.values(), ids=SAID)
def test_streamed_key_is_never_shown_in_part(text: str, kind: Any) -> None:
    card = Card()
    for character in text:
        card.apply(kind(character, 1))
        assert seen(to_html(card)) == seen(to_text(card)) == []
    card.abandon("left")
    assert seen(to_html(card)) == []
    assert "[key]" in card.text(1) + card.reasoning


@pytest.mark.timeout(600)  # it is all computing, and other work shares the machine
@given(st.lists(st.integers(1, 30), min_size=1, max_size=30), st.sampled_from(sorted(SAID)))
def test_pieces_read_the_same_as_the_whole(sizes: list[int], name: str) -> None:
    whole = "Some words of a model.\n" * 200 + SAID[name] + " and more words" * 300
    text, at = KeylessText(), 0
    for size in sizes * 300:
        text.add(whole[at : at + size])
        at += size
        if at % 7 == 0:
            assert seen(text.read()[-2 * LONGEST_KEY :]) == []
    text.add(whole[at:])
    text.whole = True
    assert text.read() == KeylessText(whole, whole=True).read()


@given(st.integers(0, 700), st.integers(1, 400), st.sampled_from(ALL_KEYS[:-1]))
def test_what_is_cut_shows_no_half_of_a_key(before: int, limit: int, key: str) -> None:
    text = "y " * before + key + " z" * 1_000
    head, left_out, tail = cut(text, limit)
    assert seen(head + " " + tail) == seen(one_line(text, limit)) == seen(one_line(text[::-1], limit)) == []
    assert left_out > 0
    assert len(head) <= limit and len(tail) <= limit


@pytest.mark.parametrize("after", [340, 380, 399])
@pytest.mark.parametrize("filler", ["a", '{"id":12345,"v":"x"},', "AbC9/+"])
@pytest.mark.parametrize("key", [*FAKE_KEYS.values(), KEYS["key of OpenRouter"], "Authorization: Basic dXNlcjpzM2NyZXQtcGFzc3dvcmQ="])
def test_no_part_of_a_key_is_shown_in_a_very_long_word(key: str, filler: str, after: int) -> None:
    secret = key.split()[-1]
    text = f'{filler * (17_000 // len(filler))}"key":"{key}"{(filler * after)[:after]}'
    streamed = KeylessText()
    for at in range(0, len(text), 1_999):
        streamed.add(text[at : at + 1_999])
        assert not shown_of(secret, streamed.read())
    streamed.whole = True
    assert streamed.read() == KeylessText(text, whole=True).read()
    assert "[key]" in streamed.read() and secret[-12:] not in streamed.read()


@pytest.mark.parametrize("after", [0, 30, 500, 2_000])
def test_no_part_of_a_key_longer_than_most_is_shown(after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    long = "eyJ" + "".join(f"{(n * 7919) % 100_003:05d}x" for n in range(150))
    monkeypatch.setenv("OPENAI_API_KEY", long)
    text = f"{'a' * 17_000}.{long}{'b' * after}"
    streamed = KeylessText()
    for at in range(0, len(text), 133):
        streamed.add(text[at : at + 133])
        assert not shown_of(long, streamed.read()[-1_500:])
    for limit in (20, 100, 1_000):
        head, _, tail = cut(text, limit)
        assert not shown_of(long, head) and not shown_of(long, tail) and not shown_of(long, one_line(text[17_000:], limit))


def shown_of(key: str, text: str) -> list[str]:
    return [part for n in range(len(key) - 11) if (part := key[n : n + 12]) in text]


def test_long_text_is_settled_in_parts_and_reads_as_it_was() -> None:
    for piece in ("word " * 10, "x" * 50, "a line\n" * 7, "Bearer of news, ask-a1 "):
        text = KeylessText()
        for _ in range(800):
            text.add(piece)
            text.read()
        assert len(text._open) < 17_000 < len(piece) * 800
        text.whole = True
        assert text.read() == piece * 800


def test_ordinary_text_is_shown_as_it_is() -> None:
    text = "A risk-free task: ask for sk-learn, basic authorization, hf_hub and a bearer of news, s"
    assert visible(text) == one_line(text, 200) == KeylessText(text, whole=True).read() == text
    assert unfinished("all is said.") == unfinished("ask") == unfinished("") == 0


KERNEL = """
%load_ext agentroute_ipython
%config AgentMagics.replay = "off"
import os
from agentroute import Agent, ToolCall, tool
from agentroute.testing import ModelFunction, ModelScripted
key, other = os.environ["OPENAI_API_KEY"], "{other}"

def leak(text: str) -> str:
    "Says keys."
    return f"{{os.environ['OPENROUTER_API_KEY']}} {{text}}"

def fail(text: str) -> str:
    "Fails with a key."
    raise RuntimeError(f"refused {{key}} {{other}}")

calls = [ToolCall("1", "leak", {{"text": other}}), ToolCall("2", "fail", {{"text": key}})]
leaky = Agent("leaky", model=ModelScripted([calls, f"It is {{key}} or {{other}}"] * 20), tools=[leak, fail], instructions=f"Use {{key}}", tags={{"key": other}})
broken = Agent("broken", model="{model}", api_key=os.environ["AGENTROUTE_API_KEY"])

def refuse(request):
    raise RuntimeError(f"auth failed for {{key}} {{other}}")

refused = Agent("refused", model=ModelFunction(refuse))
typed = Agent("typed", model=ModelFunction(lambda request: '{{"value": "' + key + '"}}'), output=int)
"""
KEY = FAKE_KEYS["OPENAI_API_KEY"]
CELLS = {
    "card": "%%agent leaky\nGo, {key}",
    "result": "_agent",
    "agent": "leaky",
    "tool": "leaky.tools_map['leak']",
    "agents": "%agent list",
    "settings": "%agent show leaky",
    "settings of the other": "%agent show broken",
    "runs": "%agent runs",
    "costs": "%agent cost",
    "doctor": "%agent doctor",
    "shown again": "%agent show last",
    "in another cell": "%%capture caught\n%agent leaky Go.",
    "caught": "caught.show()",
    "comparison": "%%agent leaky,leaky2 --model scripted\nGo.",
    "difference": "%agent diff",
    "edit": "%agent edit leaky",
    "error of the provider": "%%agent broken\nGo.",
    "result that failed": "_agent",
    "traceback": "%tb",
    "traceback with variables": "%tb Verbose",
    "plain call": "broken.run('Go.')",
    "plain call, traceback": "%tb Verbose",
    "error of a model of one's own": "%%agent refused\nGo.",
    "error of a model, traceback": "%tb",
    "error of a model, traceback with variables": "%xmode Verbose\n%tb",
    "mode as before": "%xmode Context",
    "error of a model, beside": "%%time\n%%agent refused\nGo.",
    "answer of no type": "%%agent typed\nGo.",
    "several that fail": "%%agent refused,typed\nGo.",
    "frame": "_agent.frame.to_dict()",
    "record": "_agent[1].record",
    "in a list": "[*_agent]",
    "no agent": f"%agent {KEY} hi",
    "no agent, cell": f"%%agent {KEY}\nhi",
    "no option": f"%%agent leaky --{KEY}\nhi",
    "no tools": f"%%agent leaky --tools {KEY}\nhi",
    "no amount": f"%%agent leaky --max-cost {KEY}\nhi",
    "no mode": f"%%agent leaky --approval {KEY}\nhi",
    "nothing to stop": f"%agent stop {KEY}",
    "nothing to show": f"%agent show {KEY}",
    "no setting": f"%config AgentMagics.approval = '{KEY}'",
    "no replay": f"%config AgentMagics.replay = '{KEY}'",
    "no budget": f"%config AgentMagics.budget = '{KEY}'",
    "no cost": f"%config AgentMagics.max_cost = '{KEY}'",
    "misspelt": "%%agent broken --model sk-proj-9Xb2Lq7Vn4Tz1Kc8Rm5Wd3Hy6Jf0Ps --tols x\nGo.",
}


def test_no_output_of_a_notebook_shows_a_key(start_kernel: StartKernel) -> None:
    echo = json.dumps({"error": {"message": f"bad key {FAKE_KEYS['AGENTROUTE_API_KEY']} and {KEYS['key of OpenAI']}"}}).encode()
    with ModelServer([Raw(401, [echo])], repeat=True) as server:
        server.pages["/v1/key"] = Raw(401, [echo])  # which the doctor asks, in the place of OpenRouter
        kernel = start_kernel(env=FAKE_KEYS)
        config = kernel.folder / ".agentroute" / "config"
        config.parent.mkdir()
        config.write_text(f"openrouter_base_url={server.base_url}\n")
        config.chmod(0o600)
        setup = KERNEL.format(other=KEYS["key of OpenAI"], model=server.model)
        assert kernel.run(setup + "\nleaky2, scripted = leaky, leaky.model").status == "ok"
        shown = {name: everything(kernel.run(cell, timeout=60)) for name, cell in CELLS.items()}
        assert len(server.requests) >= 2 and "/v1/key" in server.paths
    assert {name: seen(text) for name, text in shown.items() if seen(text)} == {}
    assert "[key]" in shown["card"] and "[key]" in shown["error of the provider"]


def everything(outcome: Any) -> str:
    """All that went to the frontend for a cell, also what was replaced later and the state of widgets."""
    sent = [{name: message["content"].get(name) for name in ("data", "text", "traceback", "evalue")} for message in outcome.messages if message["msg_type"] != "execute_input"]
    return outcome.text + json.dumps(sent, ensure_ascii=False, default=str)


def test_terminal_prints_no_key(tmp_path: Path) -> None:
    (tmp_path / "setup.py").write_text("")
    key = KEYS["key of OpenRouter"]
    with ModelServer([ToolCall("1", "nothing", {"key": key}), f"Well, {key} it is."]) as server:
        terminal = Terminal(tmp_path, INSTALLED)
        terminal.run("%load_ext agentroute_ipython")
        printed = terminal.run(f"%%agent bot -m {server.model}", "Go.", "", "")
        terminal.child.close(force=True)
    assert seen(printed) == []
    assert "Well, [key] it is." in printed
