"""The form of `%agent edit` in JupyterLab and Notebook 7: what it shows, and the cell that it writes."""

from playwright.sync_api import Locator, Page, expect

from tests.browser.lab import Lab, NotebookPage, expect_soon, read_notebook
from tests.browser.test_history import SHOWN

SETUP = '''
%load_ext agentroute_ipython
from agentroute import tool
from textwrap import dedent

def order_status(order_id: str) -> str:
    """Where an order is."""
    return "shipped"

@tool
def refund(order_id: str) -> str:
    """Pay an order back."""
    return "done"

shop = "Acme"
'''
CELL = """
# the agent of the shop
%%agent support -m openai/gpt-4.1   --tools order_status --define
You answer for {shop}.
\\---
Be brief 😀 {{x}}.
"""
AFTER = """
# the agent of the shop
%%agent support -m openai/gpt-4.1   --tools order_status,refund --max-cost 0.25 --define
You answer for {shop}.
\\---
Be kind 😁 {{x}}.
"""
VARIANT = "%%agent support -m openai/gpt-4.1 --define\nAn experiment."
SAY_NO_TOOLS = """
() => {
    const cell = jupyterapp.shell.currentWidget.content.widgets[1].model.sharedModel;
    cell.setSource(cell.getSource().replace("   --tools order_status", ""));
}
"""
EDIT = "%agent edit support"
SHOW = "%agent show support"
HOSTILE = r"""
%load_ext agentroute_ipython
BAD = "<img src=x onerror='window.hit=1'><script>window.hit=1</script></textarea><svg onload=window.hit=1>"
def look(x: str) -> str:
    return x
look.__doc__ = BAD
other = look
get_ipython().run_cell_magic("agent", "support -m openai/gpt-4.1 --define", BAD)
"""
# The server has the new text of the second cell.
SAVED = """
async name => {
    const answer = await (await fetch(`/api/contents/${name}`)).json();
    return Boolean(answer.content?.cells[1].source.includes("Be kind"));
}
"""
# Somebody types into the second cell after the form has asked the kernel, and before the answer can be there.
TYPE_AFTER_ENTER = """
() => {
    const cell = jupyterapp.shell.currentWidget.content.widgets[1].model.sharedModel;
    const type = () => cell.setSource(cell.getSource().replace("the shop", "THE SHOP"));
    document.addEventListener("keydown", event => event.key === "Enter" && setTimeout(type, 0), {capture: true});
}
"""


def form(page: Page) -> Locator:
    return page.locator(".agr-form")


def field(page: Page, name: str) -> Locator:
    return form(page).locator(f"[name='{name}']")


def source(page: NotebookPage, index: int) -> str:
    return str(page.page.evaluate("index => jupyterapp.shell.currentWidget.content.widgets[index].model.sharedModel.getSource()", index))


def fill_in(page: Page) -> None:
    """Changes three settings and writes them by the keyboard alone."""
    expect(field(page, "model")).to_have_value("openai/gpt-4.1")
    field(page, "instructions").fill("You answer for {shop}.\n---\nBe kind 😁 {{x}}.")
    field(page, "tool refund").press("Space")
    field(page, "max_cost").fill("0.25")
    field(page, "max_cost").press("Enter")
    expect(form(page)).to_contain_text("was changed, and support with it. Nothing was run.")


def read_again(page: Page) -> None:
    """Presses the button, and waits until the form is drawn anew."""
    form(page).locator(".agr-title").evaluate("title => title.setAttribute('data-drawn', 'before')")
    form(page).get_by_role("button", name="Read the cell again").click()
    expect(form(page).locator(".agr-title:not([data-drawn])")).to_have_count(1)


def test_form_writes_the_cell_and_the_kernel_follows(lab: Lab) -> None:
    lab.write("edit.ipynb", [SETUP, CELL, EDIT, SHOW])
    with lab.open("edit.ipynb") as page:
        page.run_all()
        fill_in(page.page)
        assert source(page, 1) == AFTER.strip("\n")
        expect(field(page.page, "max_cost")).to_be_focused()
        expect_soon(lambda: page.page.evaluate("() => jupyterapp.shell.currentWidget.context.model.dirty"), True)
        page.run_cell(3)
        for text in ("Be kind 😁 {x}.", "order_status, refund", "0.25"):
            expect(page.cell_output(3)).to_contain_text(text)
        page.cell(1).locator(".cm-content").click()
        page.page.keyboard.press("Control+z")
        expect_soon(lambda: source(page, 1), CELL.strip("\n"))
        assert (page.console_errors, page.foreign_requests) == ([], [])


def test_cell_typed_into_while_the_kernel_thinks_loses_nothing(lab: Lab) -> None:
    lab.write("race.ipynb", [SETUP, CELL, EDIT])
    with lab.open("race.ipynb") as page:
        page.run_all()
        expect(field(page.page, "model")).to_have_value("openai/gpt-4.1")
        page.page.evaluate(TYPE_AFTER_ENTER)
        fill_in(page.page)
        assert source(page, 1) == AFTER.strip("\n").replace("the shop", "THE SHOP")


def test_mistake_stands_at_its_field_and_the_keys_of_the_notebook_do_nothing(lab: Lab) -> None:
    lab.write("mistake.ipynb", [SETUP, CELL, EDIT])
    with lab.open("mistake.ipynb") as page:
        page.run_all()
        cost, box = field(page.page, "max_cost"), field(page.page, "tool refund")
        for key in ("b", "d", "d", "x", "Enter"):
            box.press(key)
        cost.fill("abc")
        cost.press("Enter")
        problem = form(page.page).locator(f"#{cost.get_attribute('aria-describedby')}")
        expect(problem).to_have_text("--max-cost needs a number from 0, such as 0.25; got 'abc'")
        expect(cost).to_have_attribute("aria-invalid", "true")
        expect(cost).to_be_focused()
        expect(cost).to_have_value("abc")
        expect(form(page.page)).to_contain_text("Nothing was written.")
        assert [source(page, index) for index in range(3)] == [SETUP.strip("\n"), CELL.strip("\n"), EDIT]
        assert page.page.locator(".jp-Notebook .jp-Cell").count() == 3


def test_model_completes_with_its_price_beside_it(lab: Lab) -> None:
    lab.write("model.ipynb", [SETUP, CELL, EDIT])
    with lab.open("model.ipynb") as page:
        page.run_all()
        model = field(page.page, "model")
        model.fill("claude sonnet")
        options = form(page.page).get_by_role("option")
        expect(options.first).to_contain_text("per M")
        model.press("ArrowDown")
        chosen = options.first.locator("span").first.inner_text()
        model.press("Enter")
        expect(model).to_have_value(chosen)
        expect(options).to_have_count(0)
        model.fill("gpt")
        model.press("Escape")
        expect(options).to_have_count(0)
        expect(model).to_have_value("gpt")


def test_without_its_cell_the_text_is_shown_and_put_into_a_new_one(lab: Lab) -> None:
    lab.write("gone.ipynb", [SETUP, CELL, EDIT, SHOW])
    with lab.open("gone.ipynb") as page:
        page.run_all()
        expect(field(page.page, "model")).to_have_value("openai/gpt-4.1")
        page.page.evaluate("() => jupyterapp.shell.currentWidget.model.sharedModel.deleteCell(1)")
        field(page.page, "max_cost").fill("0.25")
        field(page.page, "max_cost").press("Enter")
        paste = form(page.page).locator(".agr-paste")
        expect(paste).to_contain_text("Until then support is as it was.")
        text = CELL.strip("\n").replace(" --define", " --max-cost 0.25 --define")
        expect(paste.get_by_label("text of the cell")).to_have_value(text)
        page.run_cell(2)
        expect(page.cell_output(2)).not_to_contain_text("0.25")
        paste.get_by_role("button", name="Insert as a new cell").click()
        expect(form(page.page)).to_contain_text("There is a new cell below; run it.")
        expect_soon(lambda: [source(page, index) for index in (1, 2, 3)], [EDIT, text, SHOW])


def test_cell_that_was_run_is_written_and_what_none_says_is_forgotten_by_a_click(lab: Lab) -> None:
    lab.write("variants.ipynb", [SETUP, CELL, EDIT, VARIANT])
    with lab.open("variants.ipynb") as page:
        for index in range(3):
            page.run_cell(index)
        expect(field(page.page, "model")).to_have_value("openai/gpt-4.1")
        page.page.evaluate(SAY_NO_TOOLS)
        page.run_cell(1)
        form(page.page).get_by_role("button", name="Read the cell again").click()
        expect(form(page.page).locator(".agr-kept")).to_contain_text("tools: order_status")
        field(page.page, "retries").fill("3")
        form(page.page).get_by_role("button", name="Forget tools").click()
        expect(form(page.page)).to_contain_text("support has forgotten its tools, which no cell says.")
        expect(form(page.page).locator(".agr-kept")).to_have_count(0)
        field(page.page, "retries").press("Enter")
        expect(form(page.page)).to_contain_text("was changed, and support with it. Nothing was run.")
        assert "-m openai/gpt-4.1 --retries 3 --define" in source(page, 1)
        assert source(page, 3) == VARIANT


def test_cell_that_was_not_run_is_written_after_a_second_click(lab: Lab) -> None:
    lab.write("unrun.ipynb", [SETUP, CELL, EDIT, VARIANT])
    with lab.open("unrun.ipynb") as page:
        for index in range(3):
            page.run_cell(index)
        expect(field(page.page, "model")).to_have_value("openai/gpt-4.1")
        page.page.evaluate("() => jupyterapp.shell.currentWidget.model.sharedModel.deleteCell(1)")
        form(page.page).get_by_role("button", name="Read the cell again").click()
        expect(form(page.page)).to_contain_text("It was not run as it stands")
        field(page.page, "retries").fill("3")
        field(page.page, "retries").press("Enter")
        confirm = form(page.page).get_by_role("button", name="Write all of it")
        expect(confirm).to_be_visible()
        expect(form(page.page)).to_contain_text("then An experiment.")
        assert source(page, 2) == VARIANT
        confirm.click()
        expect(form(page.page)).to_contain_text("was changed, and support with it. Nothing was run.")
        expect(confirm).to_have_count(0)
        assert source(page, 2) == VARIANT.replace(" --define", " --retries 3 --define")


def test_saved_notebook_shows_the_settings(lab: Lab) -> None:
    lab.write("saved.ipynb", [SETUP, CELL, EDIT])
    with lab.open("saved.ipynb") as page:
        page.run_all()
        settings = page.cell_output(2).locator(".agr-edit-settings")
        expect(settings).to_be_hidden()
        fill_in(page.page)
        page.reopen_untrusted()
        settings = page.cell_output(2).locator(".agr-edit-settings")
        expect(settings).to_be_visible()
        expect(settings).to_contain_text("Be kind 😁 {x}.")
        expect(page.cell_output(2)).to_contain_text("%agent edit support opens it again")


def test_form_closes_without_losing_changes_by_one_click(lab: Lab) -> None:
    path = lab.write("closed.ipynb", [SETUP, CELL, EDIT])
    with lab.open("closed.ipynb") as page:
        page.run_all()
        field(page.page, "retries").fill("3")
        read_again(page.page)
        expect(field(page.page, "retries")).to_have_value("3")
        form(page.page).get_by_role("button", name="Close").click()
        expect(form(page.page).get_by_role("button", name="Close and lose 1 change")).to_be_visible()
        read_again(page.page)
        field(page.page, "max_turns").fill("4")
        form(page.page).get_by_role("button", name="Close and lose 1 change").click()
        form(page.page).get_by_role("button", name="Close and lose 2 changes").click()
        expect(form(page.page)).to_have_count(0)
        expect(page.cell_output(2).locator(".agr-edit-settings")).to_be_visible()
        page.save()
        page.page.wait_for_function("() => !jupyterapp.shell.currentWidget.context.model.dirty")
        output = read_notebook(path).cells[2].outputs[1]
        assert output.data["text/plain"] == "nothing of support was changed here. %agent edit support opens the form again."
        assert set(output.data) == {"text/plain", "text/html"}


def test_text_of_tools_and_instructions_runs_nothing(lab: Lab) -> None:
    lab.write("hostile.ipynb", [HOSTILE, EDIT])
    with lab.open("hostile.ipynb") as page:
        page.run_all()
        expect(form(page.page)).to_contain_text("<img src=x onerror=")
        field(page.page, "max_cost").fill("<img src=x onerror='window.hit=1'>")
        field(page.page, "max_cost").press("Enter")
        expect(form(page.page)).to_contain_text("needs a number from 0")
        field(page.page, "max_cost").fill("1")
        field(page.page, "max_cost").press("Enter")
        expect(form(page.page).locator(".agr-paste")).to_be_visible()
        assert page.page.evaluate("() => window.hit") is None
        assert page.page.locator(".agr-form :is(img, script, svg)").count() == 0
        assert page.foreign_requests == []


def test_form_writes_the_cell_in_notebook_7(lab: Lab) -> None:
    path = lab.write("seven.ipynb", [SETUP, CELL, EDIT])
    with lab.open("seven.ipynb") as opened:
        page = opened.page
        page.goto(f"{lab.url}/notebooks/seven.ipynb")
        page.locator(".jp-Notebook .jp-Cell").first.locator(".cm-content").click()
        for _ in range(3):
            page.keyboard.press("Shift+Enter")
        fill_in(page)
        expect(page.locator(".jp-Notebook .jp-Cell").nth(1).locator(".cm-content")).to_contain_text("Be kind 😁 {{x}}.")
        field(page, "max_cost").press("Control+s")
        page.wait_for_function(SAVED, arg="seven.ipynb")
        assert read_notebook(path).cells[1].source == AFTER.strip("\n")


def test_opened_again_without_its_kernel_it_is_the_table_and_no_error(lab: Lab) -> None:
    lab.write("next-day.ipynb", [SETUP, CELL, EDIT])
    with lab.open("next-day.ipynb") as page:
        page.run_all()
        expect(field(page.page, "model")).to_have_value("openai/gpt-4.1")
        page.reopen_trusted()
        assert page.trusted
        output = page.cell_output(2)
        expect(output.locator(".agr-edit-settings")).to_contain_text("openai/gpt-4.1")
        lost = output.locator(".jp-OutputArea-output.jupyter-widgets")
        expect(lost).to_contain_text("model not found")  # of no size
        expect_soon(lambda: lost.evaluate(SHOWN)[:2], ["0px", '"(a form: run this cell to open it again)"'])
