"""docs/promises.md leads from every promise to its test, and says what the tests say."""

import re

import pytest

from tests.promises.page import FILES, HERE, PAGE, promises, with_tables


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
