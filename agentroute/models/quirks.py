"""How chat-completions endpoints differ, as data: one row for each kind of endpoint, and which address is which kind.

What is not known of an endpoint beforehand is learned from its refusals (`refusals.py`), as changes to its row.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Literal
from urllib.parse import urlsplit

from ..errors import ErrorConfig

__all__ = ["KINDS", "Quirks", "quirks_of", "quirks_of_kind"]

ECHO = ("reasoning_details", "reasoning_content", "reasoning", "extra_content")


@dataclass(frozen=True, kw_only=True)
class Quirks:
    """What one kind of endpoint takes and does. The defaults are those of an unknown endpoint, and the safe ones."""

    kind: str
    cap_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What bounds the answer, reasoning included. The other one is refused or, worse, ignored."""
    cap_known: bool = False
    """`cap_field` is certain: no refusal changes it."""
    least_cap: int = 1
    """The smallest cap that is taken."""
    free: bool = False
    """Nothing is charged, so an unreported cost is 0."""
    reports_cost: bool | None = None
    """Whether usage says what was charged; None: it depends."""
    cancel_stops_billing: bool | None = None
    """Whether closing the connection ends what is charged for; None: unknown, or up to the provider behind it."""
    streams: bool = True
    """Whether answers can be streamed; if not, they come whole."""
    usage_option: bool = True
    """Whether `stream_options` is sent: elsewhere usage comes without asking, or not at all."""
    schema_form: Literal["strict", "plain", "object", "words"] = "strict"
    """How an answer by schema is asked for: a JSON schema, the same without `strict`, any JSON object with the schema in
    words, or words alone."""
    schema_words: Literal["all", "few"] = "all"
    """Which words of JSON Schema are understood; `few` are those of Gemini, without references."""
    required_choice: str = "required"
    """How `tool_choice` says that a tool must be called; empty where that cannot be said."""
    call_id_length: int | None = None
    """Tool call ids must be that many letters and digits; None: any will do."""
    echo: tuple[str, ...] = ECHO
    """Fields of assistant messages, and of calls in them, that go back as they came; others are left out."""
    blank_reasoning: bool = False
    """Tool turns that came without `reasoning_content` need an empty one."""
    blank_signature: bool = False
    """Tool calls that came without a signature need a placeholder for one."""
    data_images: bool = False
    """Pictures are taken as data, not as addresses."""
    tool_parts: bool = False
    """Tool results may hold pictures; elsewhere those follow in a user message."""
    text_parts: bool = True
    """Text may come in parts; if not, it is joined."""
    one_system: bool = False
    """There may be one system message only, and it must come first."""
    drops_history: bool = False
    """A conversation that is too long loses its beginning without an error."""
    hidden_reasoning: bool = False
    """`completion_tokens` leaves out reasoning, which is charged for all the same; `total_tokens` has it."""
    refused: frozenset[str] = frozenset()
    """Fields that are never sent."""


_ROWS = (
    Quirks(kind="unknown"),
    Quirks(kind="openrouter", least_cap=16, reports_cost=True, tool_parts=True),
    Quirks(kind="openai", cap_field="max_completion_tokens", cap_known=True, least_cap=16, reports_cost=False, cancel_stops_billing=True, echo=()),
    Quirks(kind="azure", cap_field="max_completion_tokens", least_cap=16, reports_cost=False, cancel_stops_billing=True, echo=()),
    Quirks(kind="ollama", cap_known=True, free=True, data_images=True, drops_history=True, echo=("reasoning",)),
    Quirks(kind="vllm", echo=("reasoning", "reasoning_content")),
    Quirks(kind="llama_server", echo=("reasoning_content",)),
    Quirks(kind="lm_studio", cap_known=True, free=True, echo=("reasoning", "reasoning_content")),
    Quirks(kind="litellm"),
    Quirks(kind="groq", reports_cost=False, cancel_stops_billing=False, echo=("reasoning",)),
    Quirks(kind="deepseek", cap_known=True, schema_form="object", reports_cost=False, cancel_stops_billing=True, echo=("reasoning_content",), blank_reasoning=True),
    Quirks(kind="mistral", cap_known=True, usage_option=False, call_id_length=9, required_choice="any", reports_cost=False, cancel_stops_billing=False, echo=()),
    Quirks(kind="gemini", schema_words="few", hidden_reasoning=True, reports_cost=False, cancel_stops_billing=False, echo=("extra_content",)),
    Quirks(kind="xai", hidden_reasoning=True, reports_cost=True, cancel_stops_billing=True, echo=("reasoning_content",)),
    Quirks(kind="copilot", cap_field="max_completion_tokens", reports_cost=False),
)  # fmt: skip

KINDS = MappingProxyType({row.kind: row for row in _ROWS})

_HOSTS = {
    "openrouter.ai": "openrouter",
    "api.openai.com": "openai",
    "openai.azure.com": "azure",
    "services.ai.azure.com": "azure",
    "api.groq.com": "groq",
    "api.deepseek.com": "deepseek",
    "api.mistral.ai": "mistral",
    "generativelanguage.googleapis.com": "gemini",
    "api.x.ai": "xai",
    "api.githubcopilot.com": "copilot",
}
"""Kinds by host, subdomains included."""
_PORTS = {11434: "ollama", 1234: "lm_studio", 8000: "vllm", 8080: "llama_server", 9931: "llama_server", 4000: "litellm"}
"""Kinds by the port they listen on where nothing else is set: a guess, made for hosts of one's own network only."""


def quirks_of_kind(kind: str) -> Quirks:
    """The row of a kind.

    Raises:
        ErrorConfig: there is no such kind.
    """
    if not isinstance(kind, str) or kind not in KINDS:
        raise ErrorConfig(f"kind must be one of {', '.join(KINDS)}; got {kind!r:.80}")
    return KINDS[kind]


@lru_cache(maxsize=256)
def quirks_of(base_url: str) -> Quirks:
    """The row for an address: by its host, else by its port; that of an unknown endpoint for any other."""
    parts = urlsplit(base_url)
    host = (parts.hostname or "").rstrip(".")
    for name, kind in _HOSTS.items():
        if host == name or host.endswith(f".{name}"):
            return KINDS[kind]
    try:
        port = parts.port
    except ValueError:
        port = None
    return KINDS[_PORTS.get(port or 0, "unknown") if _is_near(host) else "unknown"]


def _is_near(host: str) -> bool:
    """Whether a host is on this machine or in its own network, as far as its name tells."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".localhost", ".internal", ".lan"))
