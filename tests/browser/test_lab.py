"""The browser harness itself."""

from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Playwright, expect

from tests.browser import lab as lab_module
from tests.browser.lab import Lab, Theme, expect_soon, read_notebook, running_lab
from tests.ipython.versions import KernelVersion

CARD = """
from IPython.display import HTML, display
card = display(HTML("waiting"), display_id=True)
card.update(HTML(
    "<details open><summary>One turn</summary><table><caption>Usage</caption>"
    "<tr><th scope=col>tokens<th scope=col>cost</tr><tr><td>12<td>$0.004</tr></table></details>"
));
"""
TALL = "from IPython.display import HTML\nHTML(''.join(f'<p>line {n}</p>' for n in range(100)) + '<p>the end</p>')"
BUTTON = """
import ipywidgets
button = ipywidgets.Button(description="Allow")
button.on_click(lambda _: setattr(button, "description", "Allowed"))
button
"""
SCRIPT = """
from IPython.display import HTML
HTML("<img src='http://example.invalid/pixel.png' onerror='window.ran = true'><p>text</p>")
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_updated_display_is_shown_in_both_themes(lab: Lab, theme: Theme, tmp_path: Path) -> None:
    lab.write("card.ipynb", [CARD])
    with lab.open("card.ipynb", theme) as page:
        page.run_all()
        output = page.cell_output(0)
        expect(output).to_contain_text("One turn")
        expect(output.get_by_role("columnheader", name="cost")).to_be_visible()
        expect(output).not_to_contain_text("waiting")
        picture = page.screenshot(0, tmp_path / f"{theme}.png")
        assert page.foreign_requests == []
        assert page.console_errors == []
        assert any("/api/kernels/" in url for url in page.requests if url.startswith("ws:"))
    assert is_dark(picture) == (theme == "dark")


def test_screenshot_shows_a_cell_higher_than_the_window(lab: Lab, tmp_path: Path) -> None:
    lab.write("tall.ipynb", [TALL])
    with lab.open("tall.ipynb") as page:
        page.run_all()
        with Image.open(page.screenshot(0, tmp_path / "tall.png")) as picture:
            assert picture.height > 2 * lab_module.HEIGHT
        expect(page.cell_output(0)).to_contain_text("the end")


def test_interrupt_stops_run_all_and_restart_runs_all_again(lab: Lab) -> None:
    wait = "import os, time\nprint('started')\nif not os.path.exists('fast'): time.sleep(30)"
    lab.write("stop.ipynb", [wait, "print('reached')", "open('fast', 'w').close(); seen = 1; print('noted')"])
    with lab.open("stop.ipynb") as page:
        page.run_all(wait=False)
        expect(page.cell_output(0)).to_contain_text("started")
        page.interrupt()
        page.wait_idle(timeout=5)
        expect(page.cell_output(0)).to_contain_text("KeyboardInterrupt")
        assert page.cell_output(1).inner_text() == ""
        page.run_cell(2)
        page.restart_and_run_all()
        for n, words in enumerate(("started", "reached", "noted")):
            expect(page.cell_output(n)).to_have_text(words)
        expect(page.cell(0)).to_contain_text("[1]:")


def test_prompt_is_answered_and_button_is_clicked(lab: Lab) -> None:
    lab.write("ask.ipynb", ["print('answer:', input('go? '))", BUTTON])
    with lab.open("ask.ipynb") as page:
        page.run_cell(0, wait=False)
        page.answer("yes")
        page.wait_idle()
        expect(page.cell_output(0)).to_contain_text("answer: yes")
        page.run_cell(1)
        page.cell_output(1).get_by_role("button", name="Allow").click()
        expect(page.cell_output(1).get_by_role("button", name="Allowed")).to_be_visible()
        assert page.foreign_requests == []


def test_foreign_request_and_its_failure_are_noticed(lab: Lab) -> None:
    lab.write("fetch.ipynb", [SCRIPT])
    with lab.open("fetch.ipynb") as page:
        page.run_all()
        page.page.wait_for_function("() => window.ran")
        assert set(page.foreign_requests) == {"http://example.invalid/pixel.png"}
        expect_soon(page.errors_so_far, lambda errors: any("ERR_NAME_NOT_RESOLVED" in error for error in errors))


def test_saved_notebook_reopens_untrusted_with_its_outputs(lab: Lab) -> None:
    lab.write("trust.ipynb", [SCRIPT.replace("http://example.invalid/pixel.png", "data:,")])
    with lab.open("trust.ipynb") as page:
        page.run_all()
        assert page.trusted
        saved = read_notebook(page.save())
        assert "onerror" in saved.cells[0].outputs[0].data["text/html"]
        page.reopen_untrusted()
        assert not page.trusted
        expect(page.cell_output(0)).to_contain_text("text")
        assert "onerror" not in page.cell_output(0).inner_html()
        assert page.page.evaluate("() => window.ran") is None


@pytest.mark.slow
def test_kernels_can_be_of_another_version(playwright: Playwright, tmp_path: Path) -> None:
    with running_lab(tmp_path, playwright, KernelVersion("6.31.0")) as lab:
        lab.write("old.ipynb", ["import ipykernel; ipykernel.__version__"])
        with lab.open("old.ipynb") as page:
            page.run_all()
            expect(page.cell_output(0)).to_contain_text("6.31.0")


def test_missing_browser_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab_module, "CHROMIUM", tmp_path / "absent")
    with pytest.raises(RuntimeError, match="apt-get install chromium"):
        lab_module.chromium()


def is_dark(picture: Path) -> bool:
    with Image.open(picture) as image:
        pixels = image.convert("L").histogram()
    return sum(pixels[:128]) > sum(pixels[128:])
