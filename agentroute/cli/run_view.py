"""One recorded run as a page of text: figures, prompt, turns with their tool calls, answer."""

from __future__ import annotations

import json

from ..figures import cost_text, plural, seconds_text
from ..records import MessageRecord, Record, RunRecord, ToolCallRecord, TurnRecord
from .terminal import date_words, harmless, one_line, token_words

__all__ = ["run_cost", "shown"]

RESULT_SHOWN = 2000
"""Characters of a tool's result that are shown; `--json` has all of it."""


def shown(record: Record) -> str:
    """The page; text of models, tools and users is made harmless."""
    run = record.run
    parts = [_figures(run, record.turns), f"Prompt\n{_indented(run.prompt_text)}"]
    texts = _texts(record)
    for turn in record.turns:
        calls = [call for call in record.tool_calls if call.turn_index == turn.turn_index]
        parts.append(_turn(turn, texts.get(turn.turn_index, "") if calls else "", calls))
    if run.output_text is not None:
        parts.append(f"Answer\n{_indented(run.output_text)}")
    if run.error_type:
        parts.append(f"Error\n{_indented(f'{run.error_type}: {run.error_text or str()}')}")
    return "\n\n".join(parts)


def run_cost(run: RunRecord) -> str:
    """What a run cost; one whose every request was refused cost nothing."""
    refused = run.cost_usd is None and run.status == "error" and not run.unknown_cost_calls
    return cost_text(0.0 if refused else run.cost_usd)


def _figures(run: RunRecord, turns: list[TurnRecord]) -> str:
    answered = sorted({turn.response_model for turn in turns if turn.response_model} - {run.request_model})
    cost = run_cost(run)
    if run.cost_usd is not None and run.unknown_cost_calls:
        cost += f" and {plural(run.unknown_cost_calls, 'call')} of unknown cost"
    if run.n_replayed:
        cost += f", {run.n_replayed} of {plural(run.n_turns, 'turn')} replayed, saved {cost_text(run.cost_saved_usd)}"
    lines = {
        "run": run.run_id,
        "agent": run.agent_name,
        "model": run.request_model + (f" (answered by {', '.join(answered)})" if answered else ""),
        "started": date_words(run.started_at),
        "status": run.status if run.duration_s is not None else "running, or killed before its end",
        "took": seconds_text(run.duration_s),
        "usage": f"{token_words(run.input_tokens, run.output_tokens)}, {cost}, {plural(run.n_turns, 'turn')}, {plural(run.n_tool_calls, 'tool call')}",
        "tags": _tags(run.tags),
        "notebook": " ".join(filter(None, (run.notebook, run.cell_id and f"(cell {run.cell_id})"))),
        "session": run.session_id,
        "part of": run.parent_run_id,
    }
    return "\n".join(f"{label:<8} {one_line(text, 300)}" for label, text in lines.items() if text)


def _tags(tags: str | None) -> str:
    return ", ".join(f"{name}={value}" for name, value in json.loads(tags).items()) if tags else ""


def _turn(turn: TurnRecord, text: str, calls: list[ToolCallRecord]) -> str:
    facts = [
        turn.error_type or turn.finish_reason or "unfinished",
        token_words(turn.input_tokens, turn.output_tokens),
        cost_text(turn.cost_usd),
        f"replayed from {turn.replayed_from}, saved {cost_text(turn.cost_saved_usd)}" if turn.replayed_from else "",
        seconds_text(turn.duration_s),
    ]
    lines = [f"Turn {turn.turn_index}  {', '.join(fact for fact in facts if fact)}"]
    lines += [_indented(text)] if text else []
    for call in calls:
        outcome = ", ".join(part for part in (call.error_type or call.status, seconds_text(call.duration_s)) if part)
        lines.append(f"  {one_line(call.tool_name, 64)}({one_line(call.arguments_text, 400)})  {outcome}")
        if call.result_text is not None:
            rest = len(call.result_text) - RESULT_SHOWN
            lines.append(
                _indented(call.result_text[:RESULT_SHOWN] + (f" … ({plural(rest, 'more character')})" if rest > 0 else ""), 4)
            )
    return "\n".join(lines)


def _texts(record: Record) -> dict[int, str]:
    """What the model said beside its tool calls, by turn: the run's own answers are its last assistant messages."""
    answered = [turn.turn_index for turn in record.turns if turn.error_type is None]
    messages: list[MessageRecord] = [message for message in record.messages if message.role == "assistant"]
    own = messages[len(messages) - len(answered) :] if 0 < len(answered) <= len(messages) else []
    return {index: message.content_text or "" for index, message in zip(answered, own, strict=False)}


def _indented(text: str, by: int = 2) -> str:
    return "\n".join(" " * by + line if line else line for line in harmless(text).strip("\n").split("\n"))
