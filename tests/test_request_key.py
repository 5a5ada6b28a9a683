"""What makes two requests the same."""

from __future__ import annotations

from dataclasses import fields

import pytest

from agentroute import LLMRequest, Message, ModelCloud
from agentroute.models.any_tools import ModelAnyTools
from agentroute.models.base import Layer
from agentroute.models.fallback import ModelFallback
from agentroute.models.local import ModelLocal
from agentroute.models.prompted_tools import ModelPromptedTools
from agentroute.models.retry import ModelRetry
from agentroute.request_key import COUNTS, NEUTRAL, NEUTRAL_EXTRA, request_key
from agentroute.testing import ModelScripted

MODEL = ModelCloud(model_id="m", base_url="http://127.0.0.1:1/v1")
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}


def request(**changes):
    given = {"model": "m", "messages": [Message("system", "Be brief."), Message("user", "Hi")], "tools": [TOOL], "temperature": 0.5}
    return LLMRequest(**{**given, **changes})


def test_every_field_of_a_request_is_said_to_count_or_not():
    """A new field of LLMRequest goes into COUNTS or NEUTRAL."""
    assert sorted([*COUNTS, *NEUTRAL]) == sorted(field.name for field in fields(LLMRequest))


CHANGES = {
    "model": {"model": "other"},
    "messages": {"messages": [Message("user", "Hi")]},
    "tools": {"tools": None},
    "temperature": {"temperature": None},
    "max_tokens": {"max_tokens": 5},
    "extra": {"extra": {"seed": 7}},
    "tool_choice": {"tool_choice": "none"},
    "response_format": {"response_format": {"type": "json_object"}},
}


def test_every_field_that_counts_is_tried():
    assert sorted(CHANGES) == sorted(COUNTS)


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_what_counts_changes_the_key(name):
    assert request_key(MODEL, request(**CHANGES[name])) != request_key(MODEL, request())


@pytest.mark.parametrize("changes", [{"timeout": 3.0}, {"failed_attempts": [{}]}, {"meter": object()}], ids=NEUTRAL)
def test_what_does_not_count_does_not(changes):
    assert request_key(MODEL, request(**changes)) == request_key(MODEL, request())


@pytest.mark.parametrize("name", sorted(NEUTRAL_EXTRA))
def test_neutral_fields_of_the_body_do_not_count(name):
    assert request_key(MODEL, request(extra={name: "x"})) == request_key(MODEL, request())


@pytest.mark.parametrize("name", ["seed", "top_p", "provider", "plugins", "reasoning", "stop", "n", "logit_bias", "service_tier", "models"])
def test_other_fields_of_the_body_count(name):
    assert request_key(MODEL, request(extra={name: "x"})) != request_key(MODEL, request())


def test_marks_for_caches_do_not_count():
    marked = [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]
    plain = [{"type": "text", "text": "Hi"}]
    keys = {request_key(MODEL, request(messages=[Message("user", parts)], tools=tools)) for parts in (marked, plain) for tools in ([TOOL], [{**TOOL, "cache_control": {}}])}
    assert len(keys) == 1


@pytest.mark.parametrize(
    "other",
    [
        Message("user", "hi"),
        Message("user", "Hi "),
        Message("assistant", "Hi"),
        Message("tool", "Hi", tool_call_id="1"),
        Message("user", "Hi", extra={"reasoning": "x"}),
        Message("user", [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]),
    ],
)
def test_any_other_message_is_another_request(other):
    assert request_key(MODEL, request(messages=[other])) != request_key(MODEL, request(messages=[Message("user", "Hi")]))


def test_neither_keys_nor_who_asks_count():
    headers = {"x-title": "t", "HTTP-Referer": "r", "Authorization": "Bearer b", "x-api-key": "k", "traceparent": "1"}
    other = ModelCloud(model_id="m", base_url="http://127.0.0.1:1/v1", api_key="k" * 20, headers=headers, timeout=3)
    with_login = ModelCloud(model_id="m", base_url="http://user:password@127.0.0.1:1/v1")
    assert request_key(other, request()) == request_key(with_login, request()) == request_key(MODEL, request())


def test_a_header_by_which_gateways_choose_counts():
    keys = {request_key(ModelCloud(model_id="m", base_url="http://127.0.0.1:1/v1", headers={"x-portkey-provider": name}), request()) for name in ("openai", "anthropic")}
    assert len(keys) == 2


def test_a_parameter_of_a_tool_counts_whatever_its_name():
    def tool(kind):
        parameters = {"type": "object", "properties": {"cache_control": {"type": kind}}}
        return {"type": "function", "function": {"name": "put", "description": "", "parameters": parameters}}

    assert request_key(MODEL, request(tools=[tool("string")])) != request_key(MODEL, request(tools=[tool("integer")]))


def test_the_order_of_a_schema_counts_as_models_answer_in_it():
    def shape(*names):
        return {"type": "json_schema", "json_schema": {"schema": {"properties": {name: {"type": "string"} for name in names}}}}

    assert request_key(MODEL, request(response_format=shape("a", "b"))) != request_key(MODEL, request(response_format=shape("b", "a")))


def test_the_order_of_settings_does_not_count_nor_how_a_number_is_written():
    assert request_key(MODEL, request(extra={"a": 1, "b": 2})) == request_key(MODEL, request(extra={"b": 2, "a": 1}))
    assert request_key(MODEL, request(temperature=0)) == request_key(MODEL, request(temperature=0.0))


def test_a_salt_counts():
    assert len({request_key(MODEL, request(), salt) for salt in ("", "1", "2")}) == 3


def test_another_file_of_the_same_name_is_another_model(tmp_path):
    path = tmp_path / "m.gguf"
    keys = set()
    for content in (b"one", b"other"):
        path.write_bytes(content)
        keys.add(request_key(ModelLocal(path), request()))
    assert len(keys) == 2


class French(Layer):
    def __init__(self, model):
        self.inner = model


def test_a_layer_has_no_key_of_its_own_until_it_says_what_it_is():
    class Named(French):
        replay_identity = "French"

    assert request_key(French(MODEL), request()) is None
    assert request_key(Named(MODEL), request()) not in (None, request_key(MODEL, request()))


def test_a_list_of_model_names_is_known_by_the_endpoints_they_stand_for(monkeypatch):
    keys = set()
    for port in (11434, 11435):
        monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{port}")
        keys.add(request_key(ModelFallback(["ollama/q", "ollama/r"]), request()))
    assert len(keys) == 2 and None not in keys


@pytest.mark.parametrize("other", [{"base_url": "http://127.0.0.1:2/v1"}, {"base_url": "http://127.0.0.1:1/v1", "kind": "ollama"}])
def test_the_endpoint_counts(other):
    assert request_key(ModelCloud(model_id="m", **other), request()) != request_key(MODEL, request())


def test_layers_that_do_not_change_the_request_do_not_count():
    assert request_key(ModelRetry(ModelAnyTools(MODEL)), request()) == request_key(MODEL, request())


def test_layers_that_change_it_do():
    keys = [request_key(model, request()) for model in (MODEL, ModelPromptedTools(MODEL), ModelPromptedTools(MODEL, temperature=0.7), ModelFallback([MODEL]))]
    assert None not in keys and len(set(keys)) == 4


def test_a_model_that_does_not_say_what_it_is_has_no_key():
    scripted = ModelScripted(["x"])
    assert [request_key(model, request()) for model in (scripted, ModelFallback([MODEL, scripted]), ModelPromptedTools(scripted))] == [None] * 3


@pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}])
def test_a_request_that_is_no_json_has_no_key(value):
    assert request_key(MODEL, request(extra={"seed": value})) is None


def test_the_key_of_a_request_stays_what_it_is():
    """When this fails, answers that people have paid for are no longer found: only for a reason, and with VERSION raised."""
    assert request_key(MODEL, request()).hex() == "eba06db12c2b09b7a366d86b92f36041"
