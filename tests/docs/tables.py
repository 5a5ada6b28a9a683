"""The tables of the pages that say what the code says. `python -m tests.docs.tables` writes them into the pages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from agentroute.records import MessageRecord, RunRecord, ScoreRecord, ToolCallRecord, TurnRecord, columns, kind_of
from agentroute_ipython.arguments import FILTERS, OPTIONS, Option
from agentroute_ipython.magics import AgentMagics
from agentroute_ipython.project_settings import SETTINGS

PAGE = Path(__file__).parents[2] / "docs" / "notebook.md"
DTYPES = {("datetime", False): "datetime64[us, UTC]", ("int", False): "int64", ("int", True): "Int64", ("float", True): "float64"}


def options_table(options: Sequence[Option] = OPTIONS) -> str:
    rows = [f"| {'filter' if options is FILTERS else 'option'} | value | what it does |", "|---|---|---|"]
    for option in options:
        flags = ", ".join(f"`{flag}`" for flag in ("--" + option.name, option.short and f"-{option.short.lstrip('-')}") if flag)
        rows.append(f"| {flags} | {f'`{option.value}`' if option.value else ''} | {option.about.replace('|', chr(92) + '|')} |")
    return "\n".join(rows)


def settings_table() -> str:
    traits = AgentMagics.class_traits()
    return "\n".join(["| setting | what it does |", "|---|---|", *(f"| `{name}` | {traits[name].help} |" for name in SETTINGS)])


def columns_tables() -> str:
    parts = []
    for name, record in (("runs", RunRecord), ("turns", TurnRecord), ("tool_calls", ToolCallRecord), ("messages", MessageRecord), ("scores", ScoreRecord)):
        rows = [f"**`agentroute.{name}()`**", "", "| column | dtype | unit | what it holds |", "|---|---|---|---|"]
        for column in columns(record):
            dtype = DTYPES.get(kind_of(column), "str")
            rows.append(f"| `{column.name}` | {dtype} | {column.metadata['unit']} | {column.metadata['about'].replace('|', chr(92) + '|')} |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts)


def with_tables(page: str) -> str:
    tables = {"options": options_table(), "filters": options_table(FILTERS), "settings": settings_table(), "columns": columns_tables()}
    for name, table in tables.items():
        replacement = f"<!-- {name} -->\n{table}\n<!-- end -->"
        page = re.sub(rf"<!-- {name} -->.*?<!-- end -->", lambda _, text=replacement: text, page, flags=re.DOTALL)
    return page


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
