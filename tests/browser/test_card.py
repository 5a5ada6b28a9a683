"""The card as a reader sees it: in JupyterLab, light and dark, trusted and not."""

from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.browser.lab import Lab, NotebookPage, Theme, expect_soon, read_notebook
from tests.browser.screenshots import ANSWER, CELL, SETUP, run_card, story
from tests.server import ModelServer

HOSTILE = r"""
from tests.ipython.test_display import HOSTILE, filled
from agentroute.events import AgentEnd, AgentStart, TextDelta, TurnStart
from agentroute.records import Record
from agentroute.result import Result
from agentroute_ipython.live import LiveView

for text in HOSTILE:
    card = filled(text)
    view = LiveView()
    view.show()
    view.card.__dict__.update(card.__dict__)
    view.close()

view = LiveView()
view.show()
for event in [TurnStart(1), *(TextDelta(text, 1) for text in HOSTILE)]:
    view.update(event)
view.close()
"""
LONG = r"""
from tests.ipython.sample_runs import call, ended, turn
from agentroute_ipython.live import LiveView

calls = [call(1, 1, arguments_text="z" * 150, result_text="y" * 1500)]
view = LiveView()
view.show()
view.card.__dict__.update(ended([turn(1)], calls, output="x" * 3000, error_text="w" * 500, error_type="E").__dict__)
view.close()
"""
# What of a colour is left after its transparency, and how far two colours are apart (WCAG 2.2, 1.4.3).
COLOUR = "element => getComputedStyle(element).color"
CONTRAST = """
element => {
    const context = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const paint = color => { context.fillStyle = color; context.fillRect(0, 0, 1, 1); };
    const luminance = () => {
        const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].slice(0, 3).map(value => {
            const part = value / 255;
            return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const layers = [];
    for (let node = element; node; node = node.parentElement) layers.unshift(getComputedStyle(node).backgroundColor);
    paint("white");
    layers.forEach(paint);
    const below = luminance();
    paint(getComputedStyle(element).color);
    const above = luminance();
    return (Math.max(below, above) + 0.05) / (Math.min(below, above) + 0.05);
}
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_card_streams_and_ends_in_both_themes(lab: Lab, theme: Theme, tmp_path: Path) -> None:
    run_card(lab, f"card-{theme}.ipynb", theme, tmp_path)  # expects the running state, then the end
    for name in (f"card-{theme}.png", f"card-running-{theme}.png"):
        with Image.open(tmp_path / name) as picture:
            pixels = picture.convert("L").histogram()
            assert picture.width > 1500
        assert (sum(pixels[:128]) > sum(pixels[128:])) == (theme == "dark")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_card_is_legible_and_loads_nothing(lab: Lab, theme: Theme) -> None:
    with ModelServer(story(pace=0.0)) as server:
        lab.write(f"legible-{theme}.ipynb", [SETUP.format(base_url=server.base_url), CELL])
        with lab.open(f"legible-{theme}.ipynb", theme) as page:
            page.run_all()
            card = page.cell_output(1).locator(".agr")
            expect(card.locator("p").first).to_have_text(ANSWER.split("\n\n")[0])
            card.locator(".agr-run > summary").click()
            expect(card.get_by_role("columnheader", name="Cost")).to_be_visible()
            expect(card.get_by_role("rowheader", name="Turn 3")).to_be_visible()
            for part in ("p", "summary", ".agr-state", "thead th", ".agr-dim", "code"):
                assert card.locator(part).first.evaluate(CONTRAST) >= 4.5, part
            state, name = card.locator(".agr-run > summary b", has_text="done"), card.locator("b", has_text="support")
            assert state.evaluate(COLOUR) != name.evaluate(COLOUR)  # done is green
            expect_soon(lambda: overflow(page), [])
            assert page.foreign_requests == []
            assert page.console_errors == []


def overflow(page: NotebookPage) -> list[str]:
    """Parts of cards that are wider than the card."""
    script = "cards => cards.flatMap(card => [...card.querySelectorAll('*')].filter(e => e.offsetWidth > card.clientWidth).map(e => e.outerHTML))"
    return list(page.page.locator(".agr").evaluate_all(script))


def test_card_fits_a_narrow_window(lab: Lab) -> None:
    with ModelServer(story(pace=0.0)) as server:
        lab.write("narrow.ipynb", [SETUP.format(base_url=server.base_url), CELL])
        with lab.open("narrow.ipynb") as page:
            page.page.set_viewport_size({"width": 600, "height": 1500})
            page.run_all()
            page.cell_output(1).locator(".agr-run > summary").click()
            expect(page.cell_output(1).locator(".agr-steps")).to_be_visible()
            widths = "card => [card.querySelector('.agr-steps').scrollWidth, card.clientWidth]"
            expect_soon(lambda: page.page.locator(".agr").evaluate(widths), lambda found: found[0] <= found[1] < 560)
            expect_soon(lambda: overflow(page), [])


def test_hostile_text_in_every_field_does_nothing(lab: Lab) -> None:
    lab.write("hostile.ipynb", [f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})", HOSTILE])
    dialogs: list[str] = []
    with lab.open("hostile.ipynb") as page:
        page.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        page.run_all()
        cards = page.cell_output(1).locator(".agr")
        expect(cards.first).to_contain_text("<script>alert(1)</script>")
        expect_soon(cards.count, lambda count: count > 30)
        strange = "cards => cards.flatMap(c => [...c.querySelectorAll('img,svg,iframe,script,a:not([href^=\"http\"]),form,button,math,link,mjx-container,[id],[onload]')])"
        assert cards.evaluate_all(strange + ".map(e => e.outerHTML)") == []
        assert page.foreign_requests == []
        assert page.console_errors == []
        assert dialogs == []


def test_card_reads_well_in_an_untrusted_notebook(lab: Lab) -> None:
    with ModelServer(story(pace=0.0)) as server:
        lab.write("strange.ipynb", [SETUP.format(base_url=server.base_url), CELL])
        with lab.open("strange.ipynb") as page:
            page.run_all()
            expect(page.cell_output(1)).to_contain_text("done")
            (output,) = read_notebook(page.save()).cells[1].outputs
            assert sum(len(part.encode()) for part in output.data.values()) < 10_000
            assert set(output.data) == {"text/html", "text/plain"}
            page.reopen_untrusted()
            assert not page.trusted
            shown = page.cell_output(1)
            expect(shown.locator("summary").first).to_contain_text("support · done")
            expect(shown.locator("style")).to_have_count(0)
            assert shown.locator("p").all_inner_texts() == ANSWER.split("\n\n")
            shown.locator("summary").first.click()
            expect(shown.locator("tr").first).to_be_visible()
            rows = shown.locator("tr").all_inner_texts()
            assert rows[1].split("\t")[0] == "Turn 1 tool calls" and 'order_status(order_id="4821")' in rows[2]
            assert shown.locator("td[colspan]").first.evaluate("cell => getComputedStyle(cell).textAlign") == "left"


def test_long_words_stay_inside_the_page_of_an_untrusted_notebook(lab: Lab) -> None:
    lab.write("long.ipynb", [f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})", LONG])
    with lab.open("long.ipynb") as page:
        page.run_all()
        page.save()
        page.reopen_untrusted()
        shown = page.cell_output(1)
        expect(shown.locator("section")).to_contain_text("x" * 3000)
        expect(shown.locator("style")).to_have_count(0)
        shown.locator("section").evaluate("card => card.querySelectorAll('details').forEach(part => { part.open = true; })")
        outside = "card => [...card.querySelectorAll('*')].filter(e => e.getBoundingClientRect().right > card.getBoundingClientRect().right + 1)"
        expect_soon(lambda: shown.locator("section").evaluate(outside + ".map(e => e.tagName)"), [])


def test_card_has_nothing_to_open_while_the_run_goes_on(lab: Lab) -> None:
    with ModelServer(story(pace=0.6)) as server:
        lab.write("running.ipynb", [SETUP.format(base_url=server.base_url), CELL])
        with lab.open("running.ipynb") as page:
            page.run_cell(0)
            page.run_cell(1, wait=False)
            card = page.cell_output(1).locator(".agr")
            expect(card).to_contain_text("Order 4821")
            assert card.locator("details").count() == 0
            assert card.locator(".agr-state").inner_text() == "running"
            page.wait_idle()
            expect(card.locator("details")).to_have_count(1)
