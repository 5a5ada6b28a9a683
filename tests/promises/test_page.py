"""docs/promises.md leads from every promise to its test, and says what the tests say."""

import re

import pytest

from tests.promises.page import DEFECTS, FILES, HERE, PAGE, SUBJECTS, WRONG_USES, groups, promises, with_tables
from tests.promises.test_wrong_uses import MANUAL


def test_the_page_is_made_of_the_tests():
    page = PAGE.read_text()
    assert with_tables(page) == page, "python -m tests.promises.page writes it anew"


@pytest.mark.parametrize("file", FILES.values())
def test_every_test_names_its_promise_and_stands_on_the_page(file):
    rows, page = promises(file), PAGE.read_text()
    assert [row.test for row in rows if not row.section or not row.sentence] == []
    assert [row.test for row in rows if f"| `{row.test}` |" not in page] == []


def test_every_test_of_the_page_exists():
    defined = {
        name for file in FILES.values() for name in re.findall(r"^def (test_\w+)\(", (HERE / file).read_text(), re.MULTILINE)
    }
    named = re.findall(r"`(test_\w+)` \|", PAGE.read_text())
    assert sorted(named) == sorted(defined)


def test_there_is_a_test_for_each_of_the_29_scenarios():
    assert sorted({int(row.section) for row in promises("test_scenarios.py")}) == list(range(1, 30))
    assert [row.test for row in promises("test_scenarios.py") if not row.test.startswith(f"test_{int(row.section):02}_")] == []


def test_every_test_file_of_the_promises_stands_on_the_page():
    known = {*FILES.values(), *DEFECTS, *SUBJECTS, WRONG_USES, "test_page.py"}
    assert {path.name for path in HERE.glob("test_*.py")} == known
    page = PAGE.read_text()
    assert [file for file in known - {"test_page.py"} if f"(../tests/promises/{file})" not in page] == []


def test_each_of_the_40_defects_has_a_line_and_tests_of_its_own():
    assert [int(number) for file in DEFECTS for number, _ in groups(file)] == list(range(1, 41))
    page = PAGE.read_text()
    for file in DEFECTS:
        tests = (HERE / file).read_text()
        assert [number for number, _ in groups(file) if f"\ndef test_{number}_" not in tests] == []
        assert [title for number, title in groups(file) if f"| {number} | {title} |" not in page] == []


def test_each_group_of_wrong_uses_has_a_line():
    page = PAGE.read_text()
    assert [group for group, rows in MANUAL.items() if f"| {group} | {rows[0].use} |" not in page] == []
