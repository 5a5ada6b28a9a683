"""The same cells in Notebook 7: they stream, stop, and are shown again."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Playwright, expect

from tests.browser.lab import Lab, expect_soon, read_notebook, running_lab
from tests.browser.screenshots import ANSWER, CELL, SETUP, story
from tests.browser.test_history import MAKE, SHOW, SHOWN
from tests.server import ModelServer


@pytest.fixture(scope="module")
def notebook7(playwright: Playwright, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("notebook7"), playwright, application="notebook") as running:
        yield running


def test_cell_streams_ends_and_is_shown_again_untrusted(notebook7: Lab) -> None:
    with ModelServer(story(pace=0.5)) as server:
        notebook7.write("card.ipynb", [SETUP.format(base_url=server.base_url), CELL])
        with notebook7.open("card.ipynb") as page:
            assert page.page.url.startswith(f"{notebook7.url}/notebooks/")
            page.run_all(wait=False)
            card = page.cell_output(1).locator(".agr")
            expect(card).to_contain_text("Order 4821")
            expect(card.locator(".agr-state")).to_have_text("running")
            page.wait_idle()
            expect(card.locator("p").first).to_have_text(ANSWER.split("\n\n")[0])
            expect(card.locator(".agr-state")).to_have_text("done")
            assert page.foreign_requests == []
            page.reopen_untrusted()
            assert not page.trusted
            shown = page.cell_output(1)
            expect(shown.locator("summary").first).to_contain_text("support · done")
            expect(shown.locator("style")).to_have_count(0)


def test_stop_ends_the_run_and_run_all(notebook7: Lab) -> None:
    with ModelServer(story(pace=10)) as server:
        notebook7.write("stop.ipynb", [SETUP.format(base_url=server.base_url), CELL, "print('reached')"])
        with notebook7.open("stop.ipynb") as page:
            page.run_all(wait=False)
            card = page.cell_output(1).locator(".agr")
            expect(card).to_contain_text("running")
            page.interrupt()
            page.wait_idle(timeout=10)
            expect(card.locator(".agr-state")).to_have_text("interrupted")
            expect(page.cell_output(1)).to_contain_text("Interrupted")
            assert page.cell_output(2).inner_text() == ""
            saved = read_notebook(page.save())
            assert {"text/html", "text/plain"} == set(saved.cells[1].outputs[0].data)


def test_live_table_opened_again_without_its_kernel_is_no_error(notebook7: Lab) -> None:
    notebook7.write("next-day.ipynb", [MAKE, SHOW, "%load_ext agentroute_ipython", "%agent edit newbie"])
    with notebook7.open("next-day.ipynb") as page:
        page.run_all()
        expect(page.cell_output(1).locator(".agr-live tbody tr")).to_have_count(50)
        page.reopen_trusted()
        assert page.trusted
        for index, words in ((1, "a live table: run this cell"), (3, "a form: run this cell")):
            lost = page.cell_output(index).locator(".jp-OutputArea-output.jupyter-widgets")
            expect(lost).to_contain_text("model not found")  # of no size
            expect_soon(lambda lost=lost: lost.evaluate(SHOWN)[0], "0px")
            assert words in lost.evaluate(SHOWN)[1]
