"""The foreign servers, and what each of them can do."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agentroute import resolve_model
from agentroute.models import _local_server
from agentroute.models.base import Model
from agentroute.models.prompted_tools import ModelPromptedTools
from agentroute.models.weights import find
from tests.foreign import litellm_proxy

KEY = "sk-llama-of-the-tests"
CONTEXT = 1024
"""Tokens that llama.cpp has for a prompt and its answer."""
CAPITAL = r"""root ::= "{\"city\": \"" ("Paris" | "Rome") "\"}" """


@dataclass(frozen=True, kw_only=True)
class Can:
    """What a server can do. Where it cannot, a test of the suite says what a user gets instead."""

    take_tools: bool
    """Take tools as such. (llama.cpp leaves out, without a word, what the chat template of the model has no place for.)"""
    call_several_tools: bool
    """Ask for two tool calls in one answer."""
    refuse_unknown_models: bool
    report_costs: bool
    read_pictures: bool
    check_settings: bool
    """Refuse a setting of the wrong type."""
    keep_connections: bool
    """Take another request on a connection without closing it under the request now and then."""
    fail_on_demand: bool
    """Answer 429, 500 and 529 when asked to."""


CAN = {
    "llama.cpp": Can(
        take_tools=False,
        call_several_tools=False,
        refuse_unknown_models=False,
        report_costs=False,
        read_pictures=False,
        check_settings=True,
        keep_connections=False,
        fail_on_demand=False,
    ),
    "litellm": Can(
        take_tools=True,
        call_several_tools=True,
        refuse_unknown_models=True,
        report_costs=True,
        read_pictures=True,
        check_settings=False,  # made-up models look at none
        keep_connections=True,
        fail_on_demand=True,
    ),
}
_MARKS = {"llama.cpp": [pytest.mark.slow, pytest.mark.model], "litellm": [pytest.mark.slow]}


def where(**abilities: bool) -> pytest.MarkDecorator:
    """Runs a test on each server whose abilities are as given; `where()` on all."""
    names = [name for name, can in CAN.items() if all(getattr(can, ability) is value for ability, value in abilities.items())]
    assert names, f"no server is {abilities}"
    return pytest.mark.parametrize("server", [pytest.param(name, marks=_MARKS[name]) for name in names], indirect=True)


@dataclass(frozen=True)
class ForeignServer:
    """A server that runs.

    A scenario is what a test is about (`plain`, `tools`, `typed_native`, …). A made-up model of that name plays it; a real
    one is brought to it by `options` of the agent.
    """

    base_url: str
    key: str
    model_ids: Mapping[str, str] = field(default_factory=dict)
    """By scenario, where the id is not the scenario's name; "" for all others."""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of an agent, by scenario; "" for all others."""
    layers: Mapping[str, Callable[[Model], Model]] = field(default_factory=dict)
    """Around the model, by scenario."""

    def model_id(self, scenario: str) -> str:
        return self.model_ids.get(scenario) or self.model_ids.get("") or scenario

    def model(self, scenario: str) -> Model:
        model = resolve_model(f"{self.base_url}/{self.model_id(scenario)}", api_key=self.key)
        return self.layers.get(scenario, lambda model: model)(model)

    def settings(self, scenario: str) -> dict[str, Any]:
        """Arguments of an Agent."""
        return {"model": self.model(scenario), **self.options.get(scenario, self.options.get("", {}))}


@contextmanager
def llama_cpp(weights: Path) -> Iterator[ForeignServer]:
    """llama.cpp's own server with the small model; it ends with the block, and with this process."""
    command = [sys.executable, "-P", _local_server.__file__]
    settings = {"path": str(weights), "alias": "smollm2", "api_key": KEY, "n_ctx": CONTEXT, "n_parallel": 2, "threads": None}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(json.dumps(settings).encode() + b"\n")
            process.stdin.flush()  # and left open: its end tells the server that we are gone
            said = json.loads(process.stdout.readline())
            yield ForeignServer(f"http://127.0.0.1:{said['port']}/v1", KEY, {"": "smollm2"}, _llama_options(), _llama_layers())
        finally:
            process.kill()


def _llama_options() -> dict[str, dict[str, Any]]:
    short = {"temperature": 0.0, "max_tokens": 8, "extra": {"seed": 0}}
    in_json = {"temperature": 0.0, "max_tokens": 30, "extra": {"seed": 0}}
    in_grammar = {**in_json, "extra": {"seed": 0, "grammar": CAPITAL}}  # a model this small does not obey words
    return {
        "": short,
        "endless": {"extra": {"ignore_eos": True}},
        "cut": {},
        "tools": {"extra": {"top_p": 0.9, "seed": 0}},
        "typed_tool": {},
        "typed_native": in_json,
        "typed_prompted": in_grammar,
        "typed_text": in_grammar,
    }


def _llama_layers() -> dict[str, Callable[[Model], Model]]:
    """Tools and typed answers by tool are asked for in words, as `local/smollm2` does."""

    def in_words(model: Model) -> Model:
        return ModelPromptedTools(model, **find("smollm2").tool_settings)

    return {"tools": in_words, "typed_tool": in_words}


@contextmanager
def litellm(folder: Path) -> Iterator[ForeignServer]:
    """The LiteLLM proxy with made-up models; it ends with the block, and with this process. `folder` gets its log."""
    typed = {f"typed_{mode}": "typed" for mode in ("tool", "native", "prompted", "text")}
    with litellm_proxy.running(folder) as base_url:
        yield ForeignServer(base_url, litellm_proxy.KEY, typed, {"cut": {}})
