from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Playwright, expect, sync_playwright

from tests.browser.lab import Lab, running_lab

expect.set_options(timeout=20_000)  # milliseconds; the machine may be busy with other tests


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("browser")


@pytest.fixture(scope="package")
def playwright() -> Iterator[Playwright]:
    """Playwright, for this folder only.

    While it is open an event loop counts as running in this thread, so a session-wide one would break `asyncio.run` in
    every test that follows. A second one beside it is refused for the same reason.
    """
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="package")
def lab(playwright: Playwright, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One JupyterLab for the tests of this folder; each opens its own notebook and gets a fresh kernel."""
    with running_lab(tmp_path_factory.mktemp("lab"), playwright) as running:
        yield running
