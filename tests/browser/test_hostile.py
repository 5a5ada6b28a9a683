"""What a model, a tool or a provider says does nothing to the page of who reads it: no script runs, no request leaves."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nbconvert import HTMLExporter
from playwright.sync_api import Locator

from tests.browser.lab import Lab, NotebookPage
from tests.hostile import LIVE, NAVIGATES, Canary, hostile_texts, names_of

SETUP = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.hostile_runs import *
%load_ext agentroute_ipython
%config AgentMagics.replay = "off"
"""
BATCH = 56
"""Cards in one page; what a redraw costs the browser grows with the cards it shows."""
STARTS = range(0, len(hostile_texts()), BATCH)
# Tags and attributes that could run, fetch, cover or name anything; what a reader may find in an output of ours.
STRANGE = (
    "img,svg,math,iframe,frame,object,embed,script,link,meta,base,form,input,button,select,textarea,video,audio,source,track,"
    "template,slot,noscript,marquee,plaintext,xmp,dialog,canvas,area,map,applet,portal,fencedframe,mjx-container,.MathJax,"
    "[id],[name],[srcdoc],[srcset],[src],[action],[formaction],[ping],[background],[poster],[autofocus],[tabindex],[contenteditable]"
)
FOUND = f"""
outputs => outputs.flatMap(output => [
    ...[...output.querySelectorAll({STRANGE!r})].map(element => element.outerHTML.slice(0, 300)),
    ...[...output.querySelectorAll("*")].flatMap(element => [...element.attributes])
        .filter(({{name, value}}) => name.startsWith("on") || name.startsWith("data-") || name === "href" && !/^(https?:|mailto:)/.test(value)
            || name === "style" && /url|expression|position|@|image/i.test(value))
        .map(({{name, value}}) => `${{name}}=${{value}}`.slice(0, 300)),
    ...[...output.querySelectorAll("style")].filter(style => !style.textContent.trim().startsWith(".agr")).map(style => style.outerHTML.slice(0, 300)),
])
"""
# What lies at the edges and in the middle of the top of the page; the outputs there would be an overlay.
COVERED = """
() => [[2, 2], [innerWidth - 2, 2], [innerWidth / 2, 2], [2, innerHeight - 2], [innerWidth - 2, innerHeight - 2]]
    .map(([x, y]) => document.elementFromPoint(x, y)).filter(element => element?.closest(".jp-OutputArea-output, .jp-OutputArea-child"))
    .map(element => element.outerHTML.slice(0, 300))
"""
HIDDEN = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200b\u2060\ufeff\u061c\u200e\u200f\x1b\x00\x9b"


@pytest.fixture
def canary() -> Iterator[Canary]:
    with Canary() as canary:
        yield canary


class Watch:
    """What a page did that it should not."""

    def __init__(self, page: NotebookPage) -> None:
        self.page = page
        self.dialogs: list[str] = []
        self.windows: list[str] = []
        page.page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        page.page.context.on("page", lambda opened: self.windows.append(opened.url))

    def ran(self) -> list[str]:
        return names_of(self.page.page.evaluate("() => window.hostile ?? []"))

    def harm(self, outputs: Locator, allowed: frozenset[str] = frozenset()) -> dict[str, Any]:
        """Everything wrong; empty when nothing is."""
        self.page.page.wait_for_timeout(300)  # what was begun may come now
        found = {
            "ran": self.ran(),
            "requests": sorted({*self.page.foreign_requests} - allowed)[:20],
            "dialogs": self.dialogs,
            "windows": self.windows,
            "elements": outputs.evaluate_all(FOUND)[:20],
            "covered": self.page.page.evaluate(COVERED),
            "hidden": sorted({character for text in outputs.all_inner_texts() for character in text if character in HIDDEN}),
        }
        return {what: harm for what, harm in found.items() if harm}


def outputs_of(page: NotebookPage) -> Locator:
    return page.page.locator(".jp-OutputArea-output")


def exported(notebook: Path) -> Path:
    """The notebook as nbconvert makes HTML of it."""
    html, _ = HTMLExporter().from_filename(str(notebook))  # type: ignore[no-untyped-call]
    path = notebook.with_suffix(".html")
    path.write_text(html, encoding="utf-8", errors="replace")
    return path


@pytest.fixture(scope="module")
def requests_of_nbconvert(lab: Lab) -> frozenset[str]:
    """What an exported page asks for that shows nothing of ours."""
    lab.write("nothing.ipynb", ["1"])
    path = exported(lab.notebooks / "nothing.ipynb")
    with lab.open("nothing.ipynb") as page:
        page.page.goto(path.as_uri(), wait_until="load")
        return frozenset(page.foreign_requests)


def harmless(lab: Lab, name: str, cells: list[str], at_least: int, canary: Canary, own_requests: frozenset[str]) -> None:
    """Runs the cells in JupyterLab and looks at their outputs there, exported, and in a notebook that is not trusted."""
    path = lab.write(name, [SETUP, *(cell.replace("{url!r}", repr(canary.url)) for cell in cells)])
    with lab.open(name) as page:
        watch, title, url = Watch(page), page.page.title(), page.page.url
        page.run_all(timeout=180)
        assert page.page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']").all_inner_texts() == []
        assert outputs_of(page).count() >= at_least
        assert watch.harm(outputs_of(page)) == {}
        assert (page.page.title(), page.page.url) == (title, url)
        page.reopen_untrusted()
        assert not page.trusted
        assert outputs_of(page).count() >= at_least
        assert watch.harm(outputs_of(page)) == {}
        exported_page = exported(path)
        own = own_requests | {exported_page.as_uri()}
        page.page.goto(exported_page.as_uri(), wait_until="load")
        assert outputs_of(page).count() >= at_least
        assert watch.harm(outputs_of(page), own) == {}
        assert page.page.url == exported_page.as_uri()
    assert canary.asked == []


@pytest.mark.timeout(400)
@pytest.mark.parametrize("start", STARTS)
def test_cards_of_hostile_texts_do_nothing(lab: Lab, start: int, canary: Canary, requests_of_nbconvert: frozenset[str]) -> None:
    assert len(hostile_texts()) >= 80
    cards = min(BATCH, len(hostile_texts()) - start)
    cell = f"await show_cards({{url!r}}, {start}, {start + BATCH})"
    harmless(lab, f"hostile-{start}.ipynb", [cell], cards, canary, requests_of_nbconvert)


@pytest.mark.timeout(400)
def test_cards_of_hostile_values_and_errors_do_nothing(lab: Lab, canary: Canary, requests_of_nbconvert: frozenset[str]) -> None:
    harmless(lab, "hostile-ends.ipynb", ["await show_ends({url!r})"], 20, canary, requests_of_nbconvert)


@pytest.mark.timeout(400)
def test_tables_of_hostile_texts_do_nothing(lab: Lab, canary: Canary, requests_of_nbconvert: frozenset[str]) -> None:
    cells = ["await record_runs({url!r})", "%agent runs 300", "%agent cost all agent", "%agent diff", "show_agents({url!r})"]
    harmless(lab, "hostile-tables.ipynb", cells, 150, canary, requests_of_nbconvert)


def test_the_same_texts_do_harm_where_nothing_guards(lab: Lab, canary: Canary) -> None:
    """Else the tests above could not fail."""
    names = LIVE - NAVIGATES
    lab.write("unguarded.ipynb", [SETUP, f"unguarded({canary.url!r}, {set(names)!r})"])
    with lab.open("unguarded.ipynb") as page:
        watch = Watch(page)
        page.run_all()
        page.page.wait_for_timeout(1_500)
        harm = watch.harm(outputs_of(page))
        assert len(harm["ran"]) >= 30
        assert len(canary.asked) >= 15
        assert {"elements", "requests"} <= set(harm)
