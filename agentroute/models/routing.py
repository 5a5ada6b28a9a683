"""Which model string goes where."""

from __future__ import annotations

import os
from contextlib import suppress
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from ..config import Config, Secret, SecretLike, checked_url, without_password
from ..errors import ErrorConfig
from .base import Model
from .cloud import ModelCloud

__all__ = ["identity_of", "resolve_model", "stand_in"]

OPENROUTER = "https://openrouter.ai/api/v1"

VENDORS = {
    "claude": "anthropic",
    "gpt": "openai",
    "o1": "openai",
    "o3": "openai",
    "o4": "openai",
    "gemini": "google",
    "llama": "meta-llama",
    "deepseek": "deepseek",
    "mistral": "mistralai",
}
"""Vendor of a bare model name, by how the name begins."""


def resolve_model(model: str, *, api_key: str | Secret | SecretLike | None = None, base_url: str | None = None) -> Model:
    """The model a string stands for. First match wins:

    | string | goes to |
    |---|---|
    | `http://…`, `https://…` | that endpoint; the last path segment is the model id. With `base_url` that one is asked, for the same id |
    | `ollama/NAME` | Ollama at OLLAMA_HOST, read as Ollama reads it, or localhost:11434; no key |
    | `local/NAME`, `local/PATH.gguf` | llama.cpp on this machine, no key |
    | anything else with `base_url` | that endpoint, the string as the model id |
    | anything else | OpenRouter; a name without a vendor gets the one it begins like (`claude…` is anthropic) |

    The key for OpenRouter is `api_key`, else AGENTROUTE_API_KEY, OPENROUTER_API_KEY, ~/.agentroute/config. A key from
    the environment or that file goes nowhere else, but for one case, which is on purpose: `openrouter_base_url` in the
    file is where the user has set up OpenRouter to be (a gateway, say), so it gets OpenRouter's key.

    Raises:
        ErrorConfig: the string is empty or malformed, or OpenRouter has no key.
    """
    try:
        return _resolved(model, Secret(api_key) if api_key is not None else None, base_url)
    except ErrorConfig as error:
        problem = error.with_traceback(None)
    model = api_key = base_url = ""  # tracebacks may show local variables, and any of these may hold a key
    raise problem


NO_KEY = "none"
"""In place of a key, where nothing is to be sent."""


def stand_in(model: str, *, base_url: str | None = None) -> Model:
    """The model a string stands for, with no key to ask it by: for what can be known of it without asking.

    Raises:
        ErrorConfig: as `resolve_model`, but for a missing key.
    """
    return resolve_model(model, api_key=NO_KEY, base_url=base_url)


def identity_of(model: str | Model, *, base_url: str | None = None) -> Any:
    """What a model, or the model a string stands for, is to replay; None where it does not say."""
    try:
        made = stand_in(model, base_url=base_url) if isinstance(model, str) else model
    except ErrorConfig:
        return None
    identity = getattr(made, "replay_identity", None)
    return identity and [identity, getattr(made, "model_id", None)]


def _resolved(model: str, api_key: Secret | None, base_url: str | None) -> Model:
    if base_url is not None and not (isinstance(base_url, str) and base_url.strip()):
        raise ErrorConfig(f"base_url must be an endpoint such as https://host/v1, got {base_url!r:.80}; leave it out for the usual one")
    if not isinstance(model, str) or not model.strip():
        raise ErrorConfig(f"expected a model string such as 'anthropic/claude-sonnet-4', got {model!r}")
    model = model.strip()
    lowered = model.lower()
    if lowered.startswith(("http://", "https://")):
        endpoint, model_id = _split_url(model)
        return ModelCloud(model_id=model_id, base_url=base_url or endpoint, api_key=api_key)
    if lowered.startswith("ollama/"):
        name = model[len("ollama/") :]
        if not name:
            raise ErrorConfig("'ollama/' names no model; write ollama/NAME, such as ollama/llama3.1")
        base_url = base_url or _ollama()
        logs_in = "@" in base_url.partition("://")[2].partition("/")[0]
        key = api_key or (None if logs_in else Secret("ollama"))
        return ModelCloud(model_id=name, base_url=base_url, api_key=key, free=True, kind="ollama")
    if lowered.startswith("local/"):
        if base_url:
            raise ErrorConfig(f"{model!r} runs on this machine and base_url is an endpoint; leave one of them out")
        from .local import resolve_local

        return resolve_local(model)
    if base_url:
        return ModelCloud(model_id=model, base_url=base_url, api_key=api_key)
    if "://" in model:
        raise ErrorConfig(
            f"{without_password(model)!r:.200} is no model string: an endpoint begins with http:// or https://, "
            "a file on this machine is local/PATH.gguf"
        )
    if any(character.isspace() for character in model):
        raise ErrorConfig(f"the model string {model!r:.80} holds white space; write it such as 'anthropic/claude-sonnet-4'")
    key = api_key if api_key is not None else _configured_key()
    if not key:
        raise ErrorConfig(
            f"no API key for {model!r}: set AGENTROUTE_API_KEY (or OPENROUTER_API_KEY), run `agentroute login`, or pass "
            "api_key=; models that need none: ollama/NAME, local/smollm2"
        )
    return ModelCloud(model_id=_with_vendor(model), base_url=Config().base_url() or OPENROUTER, api_key=key, kind="openrouter")


def _configured_key() -> Secret:
    """The key of the environment or the config file; empty when there is none."""
    key: str | Secret = Config().api_key() or ""
    try:
        return Secret(key)
    except ErrorConfig as error:
        key, problem = "", str(error)  # tracebacks may show local variables
    raise ErrorConfig(f"the key from AGENTROUTE_API_KEY, OPENROUTER_API_KEY or {Config().config_file}: {problem}")


def _with_vendor(model: str) -> str:
    if "/" in model:
        return model
    vendor = next((vendor for prefix, vendor in VENDORS.items() if model.lower().startswith(prefix)), None)
    return f"{vendor}/{model}" if vendor else model


def _split_url(url: str) -> tuple[str, str]:
    checked_url(url)
    endpoint, _, model_id = url.rpartition("/")
    if endpoint.endswith(":/") or not model_id:
        raise ErrorConfig("a URL as model ends in the model id: https://host/v1/MODEL; an id with slashes goes with base_url=")
    return endpoint, model_id


def _ollama() -> str:
    """OLLAMA_HOST as Ollama reads it: a scheme brings its own port, no scheme is http at port 11434; a path is kept.

    Source: `Host` in https://github.com/ollama/ollama/blob/main/envconfig/config.go. A login, which Ollama's own client
    does not know, is left in the URL for ModelCloud to send.
    """
    host = os.environ.get("OLLAMA_HOST", "").strip().strip("\"'").strip()
    scheme, separator, place = host.partition("://")
    if not separator:
        scheme, place = "http", host
    place, slash, path = place.rstrip("/").partition("/")
    path = f"{slash}{path}".removesuffix("/v1")
    login, at, name = place.rpartition("@")
    with suppress(ValueError):  # an address may come without brackets
        name = f"[{ip_address(name)}]" if ip_address(name).version == 6 else name
    try:
        if scheme.lower() not in ("http", "https") or any(character in host for character in "?# "):
            raise ValueError
        parts = urlsplit(f"//{name}")
        port = parts.port
    except ValueError:
        host = place = path = login = name = ""  # tracebacks may show local variables
        raise ErrorConfig("OLLAMA_HOST in the environment is no address; write it like localhost:11434 or https://host/path") from None
    server = "localhost" if parts.hostname in ("0.0.0.0", "::", None) else parts.hostname
    server = f"[{server}]" if ":" in server else server
    if port is None and not separator:
        port = 11434
    return f"{scheme.lower()}://{login}{at}{server}{'' if port is None else f':{port}'}{path}/v1"
