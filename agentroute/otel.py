"""The names that OpenTelemetry's conventions for generative AI give to what the DataFrames hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._arrays import pandas
from .errors import ErrorConfig

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["OTEL_NAMES", "to_otel"]

PREFIX = "agentroute."

OTEL_NAMES = {
    "agent_name": "gen_ai.agent.name",
    "session_id": "gen_ai.conversation.id",
    "request_model": "gen_ai.request.model",
    "response_model": "gen_ai.response.model",
    "response_id": "gen_ai.response.id",
    "finish_reason": "gen_ai.response.finish_reasons",
    "time_to_first_chunk_s": "gen_ai.response.time_to_first_chunk",
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cached_input_tokens": "gen_ai.usage.cache_read.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
    "tool_name": "gen_ai.tool.name",
    "tool_call_id": "gen_ai.tool.call.id",
    "arguments_text": "gen_ai.tool.call.arguments",
    "result_text": "gen_ai.tool.call.result",
    "error_type": "error.type",
    "name": "gen_ai.evaluation.name",
    "value": "gen_ai.evaluation.score.value",
    "label": "gen_ai.evaluation.score.label",
    "note": "gen_ai.evaluation.explanation",
}
"""Column -> attribute (github.com/open-telemetry/semantic-conventions-genai, registry `gen-ai`, 2026-11). All of them are still
marked as in development there, so they are names to export under and not those of the columns."""


def to_otel(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame of `runs`, `turns`, `tool_calls`, `messages` or `scores` with OpenTelemetry's names for its columns.

    Rows, order and dtypes stay; the frame given is not changed. A column without an equivalent gets `agentroute.` before its
    name (`agentroute.cost_usd`). `gen_ai.response.finish_reasons`, a list there, holds lists of one text.

    Raises:
        ErrorConfig: it is no frame.
    """
    pandas()  # or an error that says what to install
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        raise ErrorConfig(f"to_otel takes a frame of agentroute.turns() or one of its siblings, got {type(frame).__name__}")
    renamed: pd.DataFrame = frame.rename(columns=lambda name: OTEL_NAMES.get(name, f"{PREFIX}{name}"))
    reasons = OTEL_NAMES["finish_reason"]
    if "finish_reason" in frame.columns:
        missing = frame["finish_reason"].isna()
        lists: list[Any] = [None if none else [reason] for reason, none in zip(frame["finish_reason"], missing, strict=True)]
        if isinstance(frame["finish_reason"].dtype, pd.ArrowDtype):
            import pyarrow as pa

            renamed[reasons] = pd.Series(lists, renamed.index, dtype=pd.ArrowDtype(pa.list_(pa.large_string())))
        else:
            renamed[reasons] = lists
    return renamed
