"""The tables of docs/promises.md, made of the docstrings of the tests. `python -m tests.promises.page` writes them anew.

A docstring is `section: sentence`, then what was decided where the sentence leaves it open, after the word `Decided:`.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "promises.md"
FILES = {"faq": "test_faq.py", "checklist": "test_checklist.py", "scenarios": "test_scenarios.py"}


class Promise(NamedTuple):
    """One test and what it says it keeps."""

    section: str
    sentence: str
    decided: str
    test: str


def promises(file: str) -> list[Promise]:
    """The promises of a test file, in its order; a test whose docstring names none has an empty section."""
    tree = ast.parse((HERE / file).read_text())
    tests = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    found = []
    for node in tests:
        said, _, decided = " ".join((ast.get_docstring(node) or "").split()).partition(" Decided: ")
        section, colon, sentence = said.partition(": ")
        found.append(Promise(section if colon else "", sentence, decided, node.name))
    return found


def table(file: str) -> str:
    """One table a section, for the scenarios one in all."""
    parts: list[str] = []
    section = None
    head = "| promise | decided | test |\n|---|---|---|"
    rows = promises(file)
    if all(row.section.isdigit() for row in rows):
        lines = [f"| {row.section} | {row.sentence} | `{row.test}` |" for row in rows]
        return "\n".join(["| | what the example does | test |\n|---|---|---|", *lines])
    for row in rows:
        if row.section != section:
            section = row.section
            parts.append(f"\n**{section}**\n\n{head}")
        parts.append(f"| {row.sentence} | {row.decided} | `{row.test}` |")
    return "\n".join(parts).strip()


def with_tables(page: str) -> str:
    """The page with its tables made anew."""
    for name, file in FILES.items():
        text = f"<!-- {name} -->\n{table(file)}\n<!-- end -->"
        page = re.sub(rf"<!-- {name} -->.*?<!-- end -->", lambda _, text=text: text, page, flags=re.DOTALL)
    return page


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
