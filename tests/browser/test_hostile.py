"""What a model, a tool or a provider says does nothing to the page of who reads it: no script runs, no request leaves."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from nbconvert import HTMLExporter
from playwright.sync_api import Locator, expect

from tests.browser.lab import Lab, NotebookPage, expect_soon
from tests.hostile import LIVE, NAVIGATES, Canary, hostile_texts, names_of

SETUP = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.hostile_runs import *
import agentroute_ipython
%load_ext agentroute_ipython
%config AgentMagics.replay = "off"
"""
# Tags and attributes that could run, fetch, cover or name anything; what a reader may find in an output of ours.
STRANGE = (
    "img,svg,math,iframe,frame,object,embed,script,link,meta,base,form,input,button,select,textarea,video,audio,source,track,"
    "template,slot,noscript,marquee,plaintext,xmp,dialog,canvas,area,map,applet,portal,fencedframe,mjx-container,.MathJax,"
    "[id],[name],[srcdoc],[srcset],[src],[action],[formaction],[ping],[background],[poster],[autofocus],[tabindex],[contenteditable]"
)
# Cards that the history table opens are in shadow trees. `own` are the elements that a live table or form is made of.
FOUND = f"""
(outputs, own) => outputs.flatMap(output => [output, ...[...output.querySelectorAll("*")].map(element => element.shadowRoot).filter(Boolean)]).flatMap(output => [
    ...[...output.querySelectorAll({STRANGE!r})].filter(element => !element.matches(own || "pre[tabindex='0']")).map(element => element.outerHTML.slice(0, 300)),
    ...[...output.querySelectorAll("*")].flatMap(element => [...element.attributes])
        .filter(({{name, value}}) => name.startsWith("on") || name.startsWith("data-") && !(own && OWN_DATA.includes(name))
            || name === "href" && !/^(https?:|mailto:)/.test(value) || name === "style" && /url|expression|position|@|image/i.test(value))
        .map(({{name, value}}) => `${{name}}=${{value}}`.slice(0, 300)),
    ...[...output.querySelectorAll("style")].filter(style => !/^[.](agr|jp-OutputArea-child:has[(][.]agr)/.test(style.textContent.trim())).map(style => style.outerHTML.slice(0, 300)),
])
""".replace("OWN_DATA", '["data-key", "data-lm-suppress-shortcuts"]')
OWN = (
    "button,input:not([src]),select,textarea,form.agr-form,pre[tabindex='0'],[id^=agr-]:not([src]),"
    ".jupyter-widgets:not([src]),.widget-inline-hbox *:not([src]),.jupyter-widgets *:not([src])"
)
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

    def harm(self, outputs: Locator, allowed: frozenset[str] = frozenset(), own: str = "") -> dict[str, Any]:
        """Everything wrong; empty when nothing is."""
        self.page.page.wait_for_timeout(300)  # what was begun may come now
        found = {
            "ran": self.ran(),
            "requests": sorted({*self.page.foreign_requests} - allowed)[:20],
            "dialogs": self.dialogs,
            "windows": self.windows,
            "elements": outputs.evaluate_all(FOUND, own)[:20],
            "covered": self.page.page.evaluate(COVERED),
            "hidden": sorted({character for text in outputs.all_inner_texts() for character in text if character in HIDDEN}),
        }
        return {what: harm for what, harm in found.items() if harm}


def outputs_of(page: NotebookPage) -> Locator:
    return page.page.locator(".jp-OutputArea-output")


def expect_outputs(page: NotebookPage, at_least: int) -> None:
    expect_soon(outputs_of(page).count, lambda count: count >= at_least)


def exported(notebook: Path) -> Path:
    """The notebook as nbconvert makes HTML of it."""
    html, _ = HTMLExporter().from_filename(str(notebook))  # type: ignore[no-untyped-call]
    path = notebook.with_suffix(".html")
    path.write_text(html, encoding="utf-8", errors="replace")
    return path


@pytest.fixture(scope="module")
def requests_of_nbconvert(lab: Lab) -> frozenset[str]:
    """What an exported page asks for that shows nothing of ours."""
    path = exported(lab.write("nothing.ipynb", ["1"]))
    with lab.empty_page() as page:
        page.page.goto(path.as_uri(), wait_until="load")
        return frozenset(page.foreign_requests)


class Opened:
    """A notebook whose cells have run in JupyterLab, and what its page does."""

    def __init__(self, page: NotebookPage, path: Path) -> None:
        self.page, self.path = page, path
        self.watch, self.title, self.url = Watch(page), page.page.title(), page.page.url

    def is_harmless(self, at_least: int, own: str = "") -> None:
        """Live: `own` as in FOUND."""
        page = self.page
        assert page.page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']").all_inner_texts() == []
        expect_outputs(page, at_least)
        assert self.watch.harm(outputs_of(page), own=own) == {}
        assert (page.page.title(), page.page.url) == (self.title, self.url)

    def is_harmless_when_saved(self, at_least: int, canary: Canary, own_requests: frozenset[str]) -> None:
        """In a notebook that is not trusted, and exported."""
        page = self.page
        page.reopen_untrusted()
        assert not page.trusted
        expect_outputs(page, at_least)
        assert self.watch.harm(outputs_of(page)) == {}
        exported_page = exported(self.path)
        page.page.goto(exported_page.as_uri(), wait_until="load")
        expect_outputs(page, at_least)
        assert self.watch.harm(outputs_of(page), own_requests | {exported_page.as_uri()}) == {}
        assert page.page.url == exported_page.as_uri()
        assert canary.asked == []


@contextmanager
def opened(lab: Lab, name: str, cells: list[str], canary: Canary) -> Iterator[Opened]:
    path = lab.write(name, [SETUP, *(cell.replace("{url!r}", repr(canary.url)) for cell in cells)])
    with lab.open(name) as page:
        yield Opened(page, path)


def test_the_same_texts_do_harm_where_nothing_guards(lab: Lab, canary: Canary) -> None:
    """Else the tests above could not fail."""
    names = {name for name, text in hostile_texts(canary.url).items() if name in LIVE - NAVIGATES and len(text) <= 400}
    lab.write("unguarded.ipynb", [SETUP, f"unguarded({canary.url!r}, {names!r})"])
    with lab.open("unguarded.ipynb") as page:
        watch = Watch(page)
        page.run_all()
        page.page.wait_for_function("() => new Set(window.hostile).size >= 30", timeout=60_000)
        expect_soon(lambda: len(canary.asked), lambda count: count >= 15)
        harm = watch.harm(outputs_of(page))
        assert len(harm["ran"]) >= 30
        assert {"elements", "requests"} <= set(harm)


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("name", "cells", "at_least"),
    [
        ("cards", ["await show_ends({url!r})", "assert await show_cards({url!r}) >= 300"], 25),
        ("tables", ["await record_runs({url!r})", "%agent runs 300", "%agent cost all agent", "%agent diff", "show_agents({url!r})", "agentroute_ipython.usage()"], 150),
        ("panels", ["await show_comparisons({url!r})", "show_questions({url!r})", "save_runs({url!r})", "one = joined({url!r})", "%agent show one",
                    "__vsc_ipynb_file__ = enter_project({url!r})", "%unload_ext agentroute_ipython\n%load_ext agentroute_ipython", "%agent doctor --offline"], 150),
    ],
)  # fmt: skip
def test_what_is_shown_of_hostile_texts_does_nothing(
    lab: Lab, name: str, cells: list[str], at_least: int, canary: Canary, requests_of_nbconvert: frozenset[str]
) -> None:
    with opened(lab, f"hostile-{name}.ipynb", cells, canary) as one:
        one.page.run_all(timeout=240)
        one.is_harmless(at_least)
        one.is_harmless_when_saved(at_least, canary, requests_of_nbconvert)


LIVE_CELLS = [
    "print(await run_groups({url!r}))",
    "save_runs({url!r})\nview = agentroute_ipython.history()\nview",
    "one = joined({url!r})\nglobals().update(tools_of_texts({url!r}) | model_names({url!r}))\n%config AgentMagics.model = 'local/\u202ex'\n%agent edit one",
    "risky_one = needs_approval({url!r})",
    "%%agent risky_one\nGo.",
    "1",
]
REASON = "<img src=x onerror=alert(1)> $\\href{javascript:alert(1)}{x}$"


@pytest.mark.timeout(400)
@pytest.mark.filterwarnings("ignore:Your element with mimetype")  # an output whose buttons were used is empty
def test_tables_forms_and_questions_with_hostile_texts_do_nothing(lab: Lab, canary: Canary, requests_of_nbconvert: frozenset[str]) -> None:
    with opened(lab, "hostile-live.ipynb", LIVE_CELLS, canary) as one:
        for index in range(5):
            one.page.run_cell(index, timeout=120)
        look_through_history(one)
        expect(one.page.page.locator(".agr-form [name=model]")).to_be_visible()
        deny_and_approve(one)
        complete(one)
        one.is_harmless(8, OWN)
        one.is_harmless_when_saved(4, canary, requests_of_nbconvert)


def look_through_history(one: Opened) -> None:
    """Every page of the table, and the cards of the runs that have several texts in them."""
    table = one.page.cell_output(2).locator(".agr-live")
    expect(table.locator("tbody tr")).to_have_count(50)
    for cards in (10, 2, 2, 2):
        for index in range(cards):
            table.locator(".agr-open").nth(index).click()
            expect(table.locator(".agr-card")).to_have_count(index + 1)
        one.is_harmless(3, OWN)
        table.get_by_role("button", name="Next").click()
        expect(table.locator(".agr-card")).to_have_count(0)


def deny_and_approve(one: Opened) -> None:
    one.page.run_cell(5, wait=False)
    output = one.page.cell_output(5)
    expect(output).to_contain_text("risky needs your approval")
    one.is_harmless(6, OWN)
    output.get_by_placeholder("reason, for a denial").first.fill(REASON)
    output.get_by_role("button", name=re.compile("^Deny ")).first.click()
    expect(output).to_contain_text(f"because {REASON}")
    output.get_by_role("button", name=re.compile("^Always for this run")).first.click()
    one.page.wait_idle()
    expect(output).to_contain_text("Done.")


def complete(one: Opened) -> None:
    """The list that Tab opens."""
    one.page.cell(6).locator(".cm-content").click()
    one.page.page.keyboard.press("Control+a")
    one.page.page.keyboard.type("%agent one --model model_")
    one.page.page.keyboard.press("Tab")
    completer = one.page.page.locator(".jp-Completer")
    expect(completer).to_be_visible()
    assert completer.locator("img,svg,script,style,iframe").all_inner_texts() == []
    assert not set("".join(completer.all_inner_texts())) & set(HIDDEN)
    one.page.page.keyboard.press("Escape")
