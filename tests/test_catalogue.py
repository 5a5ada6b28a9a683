"""The models known without asking anybody, and when a model string is surely misspelt."""

import json
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from agentroute import Agent
from agentroute.models import catalogue as module
from agentroute.models import openrouter
from agentroute.models.catalogue import ModelEntry, catalogue, find, models, unknown_model_hint
from agentroute.models.openrouter import kept_file
from agentroute.models.routing import OPENROUTER
from tests.server import ModelServer, Raw

SONNET = {
    "id": "anthropic/claude-sonnet-4",
    "canonical_slug": "anthropic/claude-4-sonnet-20250522",
    "context_length": 200_000,
    "pricing": {"prompt": "0.000003", "completion": "0.000015"},
}
MINI = {"id": "openai/gpt-4.1-mini", "canonical_slug": "openai/gpt-4.1-mini-2025-04-14", "context_length": 1_047_576,
        "pricing": {"prompt": "0.0000004", "completion": "0.0000016"}}  # fmt: skip
FREE = {"id": "qwen/qwen3-8b:free", "canonical_slug": "qwen/qwen3-8b-04-28", "pricing": {"prompt": "0", "completion": "0"}}
ROUTER = {"id": "openrouter/auto", "canonical_slug": "openrouter/auto", "pricing": {"prompt": "-1", "completion": "-1"}}


def keep(*listed: Any, hours_ago: float = 1, base_url: str = OPENROUTER) -> Path:
    """A list on disk, as OpenRouter gave it."""
    path = kept_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"at": time.time() - hours_ago * 3600, "base_url": base_url, "models": list(listed)}))
    return path


@pytest.fixture(autouse=True)
def nothing_remembered() -> None:
    for remembered in (module._kept, module._listed, module._table):
        remembered.cache_clear()


def test_models_come_from_the_list_that_was_kept_with_its_date():
    keep(MINI, SONNET, hours_ago=24 * 40)
    known = catalogue()
    assert [entry.id for entry in known.entries] == ["anthropic/claude-sonnet-4", "openai/gpt-4.1-mini"]
    assert known.source == "openrouter.ai"
    assert known.at is not None and abs(time.time() - known.at.timestamp() - 24 * 40 * 3600) < 60
    assert models() == list(known.entries)


@pytest.mark.parametrize(
    ("model", "about"),
    [
        (SONNET, "$3 in / $15 out per M, 200k"),
        (MINI, "$0.4 in / $1.6 out per M, 1M"),
        (FREE, "free"),
        (ROUTER, ""),
        ({"id": "a/b", "context_length": 32_768}, "33k"),
        ({"id": "a/b", "context_length": True, "pricing": "odd"}, ""),
        ({"id": "a/b", "context_length": 512, "pricing": {"prompt": "0.0015", "completion": "0.0075"}}, "$1,500 in / $7,500 out per M, 512"),
    ],
)
def test_price_and_context_in_words(model, about):
    keep(model)
    assert models()[0].about == about


def test_a_newer_list_is_seen_without_a_restart():
    keep(SONNET)
    before = models()
    keep(SONNET, MINI)
    assert (len(before), len(models())) == (1, 2)


def test_a_variant_is_found_as_the_model_it_is_of():
    keep(SONNET)
    assert find("anthropic/claude-sonnet-4:nitro") == find("anthropic/claude-sonnet-4") == models()[0]
    assert find("anthropic/claude") is None


@pytest.mark.parametrize("name", ["a b", "x\u202ey", "a;b", "'a'", "", "a\nb", "x" * 300])
def test_an_id_that_is_no_word_is_not_offered(name):
    keep({"id": name}, SONNET)
    assert [entry.id for entry in models()] == ["anthropic/claude-sonnet-4"]


@pytest.mark.parametrize("text", ["", "null", "[]", '{"at": 1}', '{"at": "x", "base_url": "", "models": []}', "\udcff", '{"models": 3}', "[" * 100_000])
def test_a_list_that_cannot_be_read_is_no_list(text, monkeypatch):
    keep().write_bytes(text.encode("utf-8", "surrogateescape"))
    monkeypatch.setitem(sys.modules, "genai_prices.data", None)
    assert models() == []
    assert unknown_model_hint("anthropic/claude-sonet-4") is None


def test_without_a_list_the_price_table_is_read():
    known = catalogue()
    assert known.source.startswith("genai-prices ")
    assert known.at is None
    entry = find("anthropic/claude-3-haiku")
    assert entry == ModelEntry("anthropic/claude-3-haiku", 0.25, 1.25, 200_000)
    assert all("/" in entry.id for entry in known.entries)


def test_without_list_and_table_nothing_is_offered(monkeypatch):
    monkeypatch.setitem(sys.modules, "genai_prices.data", None)
    assert (models(), find("anthropic/claude-sonnet-4"), catalogue().source) == ([], None, "")


def test_a_table_of_another_shape_is_no_table(monkeypatch):
    table = ModuleType("genai_prices.data")
    table.providers = [SimpleNamespace(id="openrouter", models=[SimpleNamespace(id="a/b")])]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "genai_prices.data", table)
    assert models() == []


# ---- misspelt ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("anthropic/claude-sonet-4", "anthropic/claude-sonnet-4"),
        ("antropic/claude-sonnet-4", "anthropic/claude-sonnet-4"),
        ("claude-sonet-4", "anthropic/claude-sonnet-4"),
        ("openai/gpt-4.1-minii", "openai/gpt-4.1-mini"),
        ("gpt-4.1-mni", "openai/gpt-4.1-mini"),
        ("qwen3-8b", "qwen/qwen3-8b"),
    ],
)
def test_a_misspelt_model_is_refused_with_the_nearest(written, meant):
    keep(SONNET, MINI, FREE)
    hint = unknown_model_hint(written)
    assert hint is not None and f"did you mean {meant}?" in hint
    assert hint.startswith("openrouter.ai has no model ")
    assert str(kept_file()) in hint


def test_a_model_like_none_is_refused_without_a_guess():
    keep(SONNET)
    hint = unknown_model_hint("zzz/yyy")
    assert hint is not None and "did you mean" not in hint


@pytest.mark.parametrize(
    "written",
    [
        "anthropic/claude-sonnet-4",
        "Anthropic/Claude-Sonnet-4",
        "claude-sonnet-4",
        "anthropic/claude-sonnet-4:nitro",
        "qwen/qwen3-8b:free",
        "qwen/qwen3-8b",
        "anthropic/claude-4-sonnet-20250522",  # an alias
        "anthropic/claude-sonnet-4.5",  # a version the list does not have yet
        "anthropic/claude-sonnet-4-20250514",
        "openrouter/horizon",
        "@preset/mine",
        "~anthropic/latest",
        "local/smolm2",
        "ollama/lama",
        "https://host.example/v1/claude-sonet-4",
        "has space/claude",
        "",
    ],
)
def test_what_is_known_or_not_certain_is_let_through(written):
    keep(SONNET, MINI, FREE)
    assert unknown_model_hint(written) is None


def without_aliases() -> None:
    keep({key: value for key, value in SONNET.items() if key != "canonical_slug"})


@pytest.mark.parametrize(
    "kept",
    [
        lambda: None,
        lambda: keep(SONNET, hours_ago=24.1),
        lambda: keep(SONNET, hours_ago=-2),
        lambda: keep(SONNET, base_url="https://gateway.example/v1"),
        lambda: keep(),
        without_aliases,
    ],
    ids=["no list", "of yesterday", "of tomorrow", "of another endpoint", "empty", "without aliases"],
)
def test_without_a_list_of_today_from_the_endpoint_asked_nothing_is_judged(kept):
    kept()
    assert unknown_model_hint("anthropic/claude-sonet-4") is None


def test_another_endpoint_is_not_judged_by_openrouters_list():
    keep(SONNET)
    assert unknown_model_hint("anthropic/claude-sonet-4", base_url="http://127.0.0.1:9/v1") is None
    assert unknown_model_hint("anthropic/claude-sonet-4", base_url=OPENROUTER) is not None


def test_the_list_that_a_run_asks_for_is_the_one_that_judges(monkeypatch):
    monkeypatch.setattr(openrouter, "_lists", {})
    monkeypatch.setattr(openrouter, "HOST", "127.0.0.1")
    with ModelServer(["hi"], repeat=True, usage={"prompt_tokens": 9, "completion_tokens": 9}) as server:
        server.pages["/v1/models"] = Raw(200, [json.dumps({"data": [SONNET, MINI]}).encode()])
        assert unknown_model_hint("anthropic/claude-sonet-4", base_url=server.base_url) is None
        Agent("a", model="anthropic/claude-sonnet-4", base_url=server.base_url).run("go")
        hint = unknown_model_hint("anthropic/claude-sonet-4", base_url=server.base_url)
        assert hint is not None and "did you mean anthropic/claude-sonnet-4?" in hint
        assert len(server.requests) == 1
