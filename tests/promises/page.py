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
DEFECTS = ("test_defects_broken.py", "test_defects_tools.py", "test_defects_money.py", "test_defects_wire.py", "test_defects_memory.py", "test_defects_surface.py")
SUBJECTS = ("test_tools.py", "test_output.py")
WRONG_USES = "test_wrong_uses.py"
"""Files of many rows: the page has a line for each of their groups."""
_GROUP = re.compile(r"^# ---- (?:(\d+)\. )?(.+?)[ -]*$", re.MULTILINE)


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


def groups(file: str) -> list[tuple[str, str]]:
    """Number (empty where there is none) and title of each group of a file, which a comment line `# ---- 1. title` begins."""
    return _GROUP.findall((HERE / file).read_text())


def link(file: str) -> str:
    return f"[{file}](../tests/promises/{file})"


def defects_table() -> str:
    """A line for each number, with what its first test says was wrong."""
    rows = []
    for file in DEFECTS:
        first = {row.section: row.sentence for row in reversed(promises(file))}
        rows += [f"| {number} | {title} | {first[number]} | {link(file)}, `test_{number}_…` |" for number, title in groups(file)]
    return "\n".join(["| | about | what was wrong | tests |", "|---|---|---|---|", *rows])


def subjects_table() -> str:
    rows = []
    for file in SUBJECTS:
        about = (ast.get_docstring(ast.parse((HERE / file).read_text())) or "").split("\n")[0]
        rows.append(f"| {link(file)} | {about} | {'; '.join(title for _, title in groups(file))} |")
    return "\n".join(["| tests | what they show | groups |", "|---|---|---|", *rows])


def wrong_uses_table() -> str:
    from tests.promises.test_wrong_uses import MANUAL

    rows = [f"| {group} | {rows[0].use} | {rows[0].words[0]} |" for group, rows in MANUAL.items()]
    return "\n".join(["| group | such as | what is said |", "|---|---|---|", *rows])


def tables() -> dict[str, str]:
    """Every table of the page by its name there."""
    made = {name: table(file) for name, file in FILES.items()}
    return {**made, "defects": defects_table(), "subjects": subjects_table(), "wrong uses": wrong_uses_table()}


def with_tables(page: str) -> str:
    """The page with its tables made anew."""
    for name, made in tables().items():
        text = f"<!-- {name} -->\n{made}\n<!-- end -->"
        page = re.sub(rf"<!-- {name} -->.*?<!-- end -->", lambda _, text=text: text, page, flags=re.DOTALL)
    return page


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
