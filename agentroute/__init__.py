"""Run LLM agents: tools, memory, structured output, turn and cost limits, any model; and know what they cost.

    from agentroute import Agent
    print(Agent("assistant", model="anthropic/claude-sonnet-4").run("Hello"))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .agent import Agent as Agent
    from .budgets import Budget as Budget
    from .budgets import budget as budget
    from .budgets import set_budget as set_budget
    from .content import image as image
    from .context import Context as Context
    from .cost_report import report as report
    from .costs import cost as cost
    from .costs import suggest_max_cost as suggest_max_cost
    from .errors import ErrorAgent as ErrorAgent
    from .errors import ErrorBudget as ErrorBudget
    from .errors import ErrorConfig as ErrorConfig
    from .errors import ErrorInterrupted as ErrorInterrupted
    from .errors import ErrorMaxTurns as ErrorMaxTurns
    from .errors import ErrorMissingPackage as ErrorMissingPackage
    from .errors import ErrorModel as ErrorModel
    from .errors import ErrorModelConnection as ErrorModelConnection
    from .errors import ErrorModelCredit as ErrorModelCredit
    from .errors import ErrorModelKey as ErrorModelKey
    from .errors import ErrorModelRateLimit as ErrorModelRateLimit
    from .errors import ErrorModelRequest as ErrorModelRequest
    from .errors import ErrorModelResponse as ErrorModelResponse
    from .errors import ErrorModelServer as ErrorModelServer
    from .errors import ErrorModelTimeout as ErrorModelTimeout
    from .errors import ErrorOutput as ErrorOutput
    from .errors import ErrorRefused as ErrorRefused
    from .errors import ErrorReplay as ErrorReplay
    from .errors import ErrorRun as ErrorRun
    from .errors import ErrorStore as ErrorStore
    from .errors import ErrorTool as ErrorTool
    from .errors import ErrorTruncated as ErrorTruncated
    from .errors import Retry as Retry
    from .events import Event as Event
    from .exports import snapshot as snapshot
    from .exports import to_parquet as to_parquet
    from .frames import messages as messages
    from .frames import runs as runs
    from .frames import scores as scores
    from .frames import tool_calls as tool_calls
    from .frames import turns as turns
    from .history import History as History
    from .history import HistorySlidingWindow as HistorySlidingWindow
    from .history import HistoryTruncate as HistoryTruncate
    from .memory import Memory as Memory
    from .memory import MemoryProto as MemoryProto
    from .memory import MemorySQLite as MemorySQLite
    from .message import LLMChunk as LLMChunk
    from .message import LLMRequest as LLMRequest
    from .message import LLMResponse as LLMResponse
    from .message import Message as Message
    from .message import ToolCall as ToolCall
    from .message import Usage as Usage
    from .models.base import Model as Model
    from .models.cloud import ModelCloud as ModelCloud
    from .models.fallback import ModelFallback as ModelFallback
    from .models.retry import ModelRetry as ModelRetry
    from .models.routing import resolve_model as resolve_model
    from .otel import to_otel as to_otel
    from .prices import Price as Price
    from .replays import replay as replay
    from .replays import set_replay as set_replay
    from .repricing import reprice as reprice
    from .result import Result as Result
    from .result import ResultDeploy as ResultDeploy
    from .store import RunStore as RunStore
    from .stream import RunStream as RunStream
    from .summarize import HistorySummarize as HistorySummarize
    from .tools import Deny as Deny
    from .tools import Tool as Tool
    from .tools import tool as tool
    from .upkeep import forget as forget
    from .upkeep import prune as prune
    from .upkeep import score as score

__version__ = "1.1.0"

_HOME = {
    "agent": ("Agent",),
    "budgets": ("Budget", "budget", "set_budget"),
    "content": ("image",),
    "context": ("Context",),
    "errors": (
        "ErrorAgent", "ErrorBudget", "ErrorConfig", "ErrorInterrupted", "ErrorMaxTurns", "ErrorMissingPackage",
        "ErrorModel", "ErrorModelConnection", "ErrorModelCredit", "ErrorModelKey", "ErrorModelRateLimit", "ErrorModelRequest",
        "ErrorModelResponse", "ErrorModelServer", "ErrorModelTimeout", "ErrorOutput", "ErrorRefused", "ErrorReplay", "ErrorRun", "ErrorStore",
        "ErrorTool", "ErrorTruncated", "Retry",
    ),
    "cost_report": ("report",),
    "costs": ("cost", "suggest_max_cost"),
    "events": ("Event",),
    "exports": ("snapshot", "to_parquet"),
    "frames": ("messages", "runs", "scores", "tool_calls", "turns"),
    "history": ("History", "HistorySlidingWindow", "HistoryTruncate"),
    "memory": ("Memory", "MemoryProto", "MemorySQLite"),
    "message": ("LLMChunk", "LLMRequest", "LLMResponse", "Message", "ToolCall", "Usage"),
    "models.base": ("Model",),
    "models.cloud": ("ModelCloud",),
    "models.fallback": ("ModelFallback",),
    "models.retry": ("ModelRetry",),
    "models.routing": ("resolve_model",),
    "otel": ("to_otel",),
    "prices": ("Price",),
    "repricing": ("reprice",),
    "replays": ("replay", "set_replay"),
    "result": ("Result", "ResultDeploy"),
    "store": ("RunStore",),
    "stream": ("RunStream",),
    "summarize": ("HistorySummarize",),
    "tools": ("Deny", "Tool", "tool"),
    "upkeep": ("forget", "prune", "score"),
}  # fmt: skip
_WHERE = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted([*_WHERE, "__version__"])  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    # Names load when first used: `import agentroute` costs next to nothing, and pandas comes only with a DataFrame.
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_WHERE[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
