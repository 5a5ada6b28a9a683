"""Values as HTML: JSON as nested parts that open, lists of objects as tables. Whatever the value, the HTML is bounded.

This is how DataFrames, models and dataclasses are shown that a tool returned: the record holds them as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

from agentroute.figures import plural

from .escaping import LEFT, code, escaped, line, text_block

__all__ = ["answer_table", "container", "tree"]

JSON = 200_000
"""A longer text is not read as JSON."""
DEPTH = 8
"""Levels that open; what is below is JSON on one line."""
SHORT = 60
"""JSON of so many characters stands on the line of its key."""
OPEN = 400
"""A part whose JSON is longer is closed at first."""
COLUMNS = 12
"""A list of objects with more keys is no table."""
LEAF = 24
"""What the tags of one value take of the characters there are."""
KEY = 80
FEW = 120
"""Characters that a value may have in any case. One of which no more is shown has no note about the rest, and stands on one line."""

Container = dict[str, Any] | list[Any]


def container(text: str) -> Container | None:
    """The object or list that `text` is the JSON of, with something in it; None for any other text."""
    if len(text) > JSON or text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value or None


def tree(value: Any, limit: int) -> str:
    """A value as lists that open, or a table; about `limit` characters of it, with a note where items are left out. Never raises."""
    return _Drawing(limit).tree(value)


def answer_table(value: Container, limit: int) -> str:
    """A structured answer as a table: of its keys, of its rows, or of its items."""
    return _Drawing(limit).outer(value)


class _Drawing:
    """Draws one value. `left` is how many characters of it may still be shown."""

    def __init__(self, limit: int) -> None:
        self.left = limit

    def tree(self, value: Any, depth: int = 0) -> str:
        if isinstance(value, dict | list) and value and depth < DEPTH:
            if isinstance(value, list) and len(value) > 1 and (names := _columns(value)):
                return self.rows(value, names)
            return f'<ul class="agr-tree">{"".join(self.items(value, depth))}</ul>'
        return self.leaf(value)

    def items(self, value: Container, depth: int) -> Iterator[str]:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for position, (key, item) in enumerate(pairs):
            if self.left <= 0:
                yield f"<li><i>… {plural(len(value) - position, 'more item')}, whole in the result …</i></li>"
                return
            name = line(str(key), KEY)
            self.left -= min(len(str(key)), KEY) + LEAF
            if _is_short(item, SHORT) or not isinstance(item, dict | list):
                yield f"<li>{name}: {self.leaf(item)}</li>\n"
                continue
            opened = " open" if _is_short(item, OPEN) else ""
            count = plural(len(item), "key" if isinstance(item, dict) else "item")
            yield f'<li><details{opened}><summary>{name} <span class="agr-dim">{count}</span></summary>{self.tree(item, depth + 1)}</details></li>\n'

    def rows(self, value: list[dict[str, Any]], names: list[str]) -> str:
        """Objects of plain values as a table."""
        numbers = {name for name in names if all(_is_number(row[name]) for row in islice(value, 100) if name in row)}
        heads = "".join(f'<th scope="col"{"" if name in numbers else " " + LEFT}>{line(name, KEY)}</th>' for name in names)
        body = []
        for position, row in enumerate(value):
            if self.left <= 0:
                note = f"… {plural(len(value) - position, 'more row')}, whole in the result …"
                body.append(f'<tr><td colspan="{len(names)}" {LEFT}><i>{note}</i></td></tr>\n')
                break
            cells = (f"<td{'' if name in numbers else ' ' + LEFT}>{self.cell(row, name)}</td>" for name in names)
            body.append(f"<tr>{''.join(cells)}</tr>\n")
        return f'<div class="agr-table"><table><thead><tr>{heads}</tr></thead>\n<tbody>\n{"".join(body)}</tbody></table></div>'

    def cell(self, row: dict[str, Any], name: str) -> str:
        self.left -= LEAF
        return self.text(row[name]) if name in row else ""

    def outer(self, value: Container) -> str:
        if isinstance(value, list) and len(value) > 1 and (names := _columns(value)):
            return self.rows(value, names)
        rows = []
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for position, (key, item) in enumerate(pairs):
            if self.left <= 0:
                note = f"… {plural(len(value) - position, 'more item')}, whole in the result …"
                rows.append(f'<tr><td colspan="2" {LEFT}><i>{note}</i></td></tr>\n')
                break
            self.left -= LEAF + min(len(str(key)), KEY)
            whole = isinstance(item, dict | list) and not _is_short(item, SHORT)
            cell = self.tree(item, 1) if whole else self.text(item)
            rows.append(f'<tr><th scope="row" {LEFT}>{line(str(key), KEY)}</th><td {LEFT}>{cell}</td></tr>\n')
        return f'<table class="agr-output"><tbody>\n{"".join(rows)}</tbody></table>'

    def text(self, item: Any) -> str:
        """A value as it is said: texts without quotes, numbers and the like as JSON."""
        if not isinstance(item, str):
            return self.leaf(item) if isinstance(item, dict | list) else escaped(_json(item))
        size = self.take(len(item))
        return line(item, size) if size <= FEW and size < len(item) else text_block(item, size).replace("\n", "<br>")

    def leaf(self, item: Any) -> str:
        """A value as JSON; a text of several lines as these lines."""
        if isinstance(item, str) and "\n" in item.strip():
            return code(item.rstrip("\n"), self.take(len(item)))
        text = _json(item)
        size = self.take(len(text))
        return f"<code>{line(text, size) if size <= FEW and size < len(text) else text_block(text, size)}</code>"

    def take(self, size: int) -> int:
        """So many characters of what is left; a text that is hardly longer is whole."""
        left = max(self.left, 0)
        size = size if size <= left + FEW else max(left, FEW)
        self.left -= size
        return size


def _columns(value: list[Any]) -> list[str]:
    """The keys of a list of objects whose values are plain and short enough for a table; empty for what is none."""
    names: dict[str, None] = {}
    for row in value:
        if not isinstance(row, dict) or not row or any(isinstance(item, dict | list) and not _is_short(item, SHORT) for item in row.values()):
            return []
        names.update(dict.fromkeys(row))
        if len(names) > COLUMNS:
            return []
    return list(names) if sum(len(row) for row in islice(value, 20)) * 2 >= len(names) * min(len(value), 20) else []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_short(value: Any, limit: int) -> bool:
    """Whether the JSON of a value has at most so many characters; looks at no more of it than that."""
    pending, size = [value], 0
    while pending:
        item = pending.pop()
        if isinstance(item, dict | list):
            size += 2 * len(item) + 2
            if size > limit:
                return False
            pending += [*item, *item.values()] if isinstance(item, dict) else item
        else:
            size += len(item) + 2 if isinstance(item, str) else len(_json(item))
        if size > limit:
            return False
    return True


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (ValueError, TypeError, RecursionError):
        return "…"
