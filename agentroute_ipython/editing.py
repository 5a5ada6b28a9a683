"""`%agent edit NAME`: a form of an agent's settings that changes the text of the cell which defines it.

The notebook stays the truth: the form reads the cell and writes the cell, and the kernel's agent follows what was written.
In a terminal the definition comes into the next prompt instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.display_functions import display, update_display

from agentroute.errors import ErrorConfig

from .arguments import Options
from .cell_source import Cell, cell_text
from .edit_fields import (
    FIELDS,
    Given,
    agent_values,
    model_choices,
    nameless_tools,
    placeholders,
    problems,
    tool_choices,
    type_choices,
)
from .formats import one_line
from .tables import Table, settings_table

if TYPE_CHECKING:
    from .magics import AgentMagics

__all__ = ["Form", "cell_text", "edit"]

_SCRIPT = Path(__file__).with_name("edit_form.js")
_NO_WIDGETS = 'the form needs ipywidgets and anywidget: pip install "agentroute[notebook]"'


def edit(name: str, magics: AgentMagics) -> None:
    """Shows the form of an agent; in a terminal puts its definition into the next prompt.

    Raises:
        ErrorConfig: there is no such agent.
    """
    form = Form(name, magics)
    if not hasattr(magics.shell, "kernel"):
        magics.shell.set_next_input(form.definition())
        print(f"the definition of {name} is in the next prompt; running it asks no model")
        return
    form.show()


@dataclass(frozen=True)
class _Place:
    """A cell that defines the agent, and where it stands: its id in the notebook, None where nobody can write it."""

    cell: Cell
    id: str | None = None
    words: str = ""
    """`cell [3]`"""


class Form:
    """One form. It keeps nothing of the fields: each message of the page says what was shown and what is wanted.

    Messages of the page: `open` (what does the form show?), `save` (these changes), `written` (the cell has them now),
    `close`. All but the last bring the notebook's `%%agent` cells, where the page can tell.
    """

    def __init__(self, name: str, magics: AgentMagics) -> None:
        if name not in magics.agents.known():
            raise ErrorConfig(f"no agent called {name}{magics.agents.listed()}")
        self.name, self._magics = name, magics
        self._widget: Any = None
        self._pending: tuple[Cell, Cell, str] | None = None  # the cell before and after, and where it is
        self._table_id = self._form_id = ""
        self._last_words = f"nothing of {name} was changed here"

    # What it shows

    def show(self) -> None:
        """The settings as a table, which stays in a saved notebook, and the form, which hides the table while it is there."""
        self._table_id = display(self._table(), display_id=True).display_id  # type: ignore[no-untyped-call]
        try:
            import anywidget
        except ImportError:
            print(f"{_NO_WIDGETS}\nOr change this text, and run it in a cell:\n\n{self.definition()}")
            return
        kind = type("EditForm", (anywidget.AnyWidget,), {"_esm": _SCRIPT})
        self._widget = kind()
        self._widget.on_msg(self._on_message)
        data, metadata = self._widget._repr_mimebundle_()
        again = f"The form of {self.name} was open here; %agent edit {self.name} opens it again."
        data |= {"text/html": f"<p>{again}</p>", "text/plain": again}
        self._form_id = display(data, metadata=metadata, raw=True, display_id=True).display_id  # type: ignore[no-untyped-call]

    def definition(self) -> str:
        """A cell that defines the agent as it is, and asks no model."""
        place = self._place(())
        cell = place.cell
        return (cell.only_definition() if self._given(cell).held is None else cell).source

    def _table(self) -> _Settings:
        agent, where = self._magics.agents.all().get(self.name, (ErrorConfig("there is no such agent any more"), ""))
        if isinstance(agent, ErrorConfig):
            return _Settings(Table([("agent", self.name), ("defined by", where), ("problem", str(agent))]))
        return _Settings(settings_table(agent, where))

    def _fields(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """All that the page needs to show the form."""
        place = self._place(content.get("cells") or ())
        given = self._given(place.cell)
        values = self._values(place, given)
        agent = self._magics.agents.all().get(self.name, (ErrorConfig(""), ""))[0]
        hints = placeholders(agent, values, given.names)
        chosen = _chosen(values.get("tools", ""), given)
        if given.held is not None and (nameless := nameless_tools(given.held, given.names)):
            hints["tools"] = f"It also has {', '.join(nameless)}, which no variable holds; a choice here replaces all its tools."
        elif "tools" not in values and not isinstance(agent, ErrorConfig) and agent.tools:
            hints["tools"] = f"From another cell: {', '.join(agent.tools_map)}. A choice here replaces them."
        return {
            "kind": "form", "name": self.name, "values": {**dict.fromkeys(FIELDS, ""), **values}, "hints": hints, "chosen": chosen,
            "tools": tool_choices(given.names, chosen), "models": model_choices(given.names, self._magics.model),
            "types": type_choices(given.names), "where": self._where(place, given), "writes": place.id is not None,
        }  # fmt: skip

    def _where(self, place: _Place, given: Given) -> str:
        if place.id is not None:
            return f"Changes are written to {place.words}, which begins “{one_line(place.cell.first_line, 60)}”."
        why = f"{self.name} is an Agent held by a variable" if given.held is not None else f"No cell that defines {self.name} can be written from here"
        return f"{why}, so the form makes the text of a cell for you to paste; nothing is changed before you run it."

    # What is asked of it

    def _on_message(self, widget: Any, content: Mapping[str, Any], buffers: object) -> None:
        answers = {"open": self._fields, "save": self._save, "written": self._written, "close": self._close}
        try:
            answer = answers[content["kind"]](content)
        except ErrorConfig as error:
            answer = {"kind": "problems", "errors": {"": str(error)}}
        if answer:
            self._widget.send({**answer, "view": content.get("view")})

    def _save(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """What the page is to do with changed fields: write the cell, show its text, or show what is wrong with them."""
        changes, shown = dict(content["changes"]), content["shown"]
        place = self._place(content.get("cells") or ())
        given = self._given(place.cell)
        now = self._values(place, given)
        moved = {name: now.get(name, "") for name, text in changes.items() if now.get(name, "") not in (shown[name], text)}
        if moved:
            words = "the cell says by now: {}. Write again to put yours in its place."
            return {"kind": "problems", "errors": {name: words.format(text or "nothing") for name, text in moved.items()}, "shown": moved}
        if given.held is not None and (kept := [name for name, text in changes.items() if not text.strip()]):
            words = f"{self.name} keeps what it has where a cell says nothing; take it out where the variable is made"
            return {"kind": "problems", "errors": dict.fromkeys(kept, words)}
        changed = place.cell.with_changes(changes)
        given = self._given(changed, removed_from=place.cell)
        if errors := problems(changed, given):
            return {"kind": "problems", "errors": errors}
        if place.id is None:
            return {"kind": "text", "text": changed.source, "words": self._how_to_paste(given)}
        if changed == place.cell:
            return {"kind": "done", "words": f"{place.words} says so already."}
        self._pending = place.cell, changed, place.words
        return {"kind": "write", "id": place.id, "before": place.cell.source, "after": changed.source}

    def _written(self, content: Mapping[str, Any]) -> dict[str, Any] | None:
        """The cell is changed; now the kernel's agent is."""
        if self._pending is None:
            return None
        (before, after, where), self._pending = self._pending, None
        given = self._given(after, removed_from=before)
        options = after.options(given.fill)
        gone = [name for name in before.values() if name not in after.values()]
        self._magics.agents.define(self.name, options, without=gone)
        update_display(self._table(), display_id=self._table_id)  # type: ignore[no-untyped-call]
        anew = "; its conversation begins anew" if options.over(given.base).memory == "ram" else ""
        self._last_words = f"{where} was changed, and {self.name} with it{anew}. Nothing was run."
        return {"kind": "done", "words": self._last_words[0].upper() + self._last_words[1:]}

    def _close(self, content: Mapping[str, Any]) -> None:
        again = f"{self._last_words.rstrip('.')}. %agent edit {self.name} opens the form again."
        update_display({"text/plain": again, "text/html": _Settings.words(again)}, raw=True, display_id=self._form_id)  # type: ignore[no-untyped-call]
        self._widget.close()

    def _how_to_paste(self, given: Given) -> str:
        if given.held is not None:
            return f"Paste it into a cell below the one that makes {self.name}, and run it: the variable then holds the changed agent."
        return f"Put it in place of the cell that defines {self.name}, and run it. Until then {self.name} is as it was."

    # Where the agent is defined

    def _place(self, cells: Sequence[Mapping[str, Any]]) -> _Place:
        """The last cell of the notebook that defines the agent, else the first that names it; else one that would."""
        held = self._magics.agents.held(self.name)
        if held is not None:
            return _Place(Cell("", "%%agent ", f"{self.name} --define", ""))
        named = [(one, cell) for one in cells if (cell := self._names_it(one["source"]))]
        found = next((pair for pair in reversed(named) if pair[1].defines), next(iter(named), None))
        if found is not None and found[0].get("writable", True):
            one, cell = found
            return _Place(cell, one["id"], f"cell [{one['count']}]" if one.get("count") else f"the cell at place {one['number']}")
        return _Place(found[1] if found is not None else self._as_run() or self._as_written())

    def _as_written(self) -> Cell:
        cell = Cell.read(cell_text(self.name, self._magics.agents.written(self.name) or Options()))
        assert cell is not None
        return cell

    def _as_run(self) -> Cell | None:
        """The cell that was run last to define the agent, where it says all there is to say."""
        history = self._magics.shell.history_manager
        for source in reversed(history.input_hist_raw if history is not None else []):
            cell = self._names_it(source)
            if cell is not None and cell.defines:
                try:
                    options = cell.options(self._given(cell).fill)
                except ErrorConfig:
                    return None
                return cell if options == self._magics.agents.written(self.name) else None
        return None

    def _names_it(self, source: str) -> Cell | None:
        """The cell, if it is about this agent alone."""
        cell = Cell.read(source)
        if cell is None:
            return None
        try:
            names = cell.parsed(self._given(cell).fill).names
        except ErrorConfig:  # a cell that is being written; were it the one, the form would not know it
            return None
        return cell if names == (self.name,) else None

    def _given(self, cell: Cell, removed_from: Cell | None = None) -> Given:
        """What the cell's settings are read against, without what it has taken out."""
        magics = self._magics
        gone = [name for name in removed_from.values() if name not in cell.values()] if removed_from is not None else []
        base = replace(magics.agents.written(self.name) or Options(), **dict.fromkeys(gone))
        return Given(self.name, magics._names(), base, magics.agents.held(self.name), magics.model)

    def _values(self, place: _Place, given: Given) -> dict[str, str]:
        values = place.cell.values() if given.held is None else agent_values(given.held, given.names)
        return {name: text for name, text in values.items() if name in FIELDS}


@dataclass(frozen=True)
class _Settings:
    """The table of settings, which the form hides in the page while it is open."""

    table: Table

    def __repr__(self) -> str:
        return repr(self.table)

    def _repr_html_(self) -> str:
        return f'<div class="agr-edit-settings">{self.table._repr_html_()}</div>'

    @staticmethod
    def words(text: str) -> str:
        """A sentence as HTML."""
        import html

        return f"<p>{html.escape(text, quote=False)}</p>"


def _chosen(names: str, given: Given) -> list[str]:
    """The names of a list of tools, filled where that is possible."""
    try:
        names = given.fill(names)
    except ErrorConfig:
        pass  # told when the cell is written
    return [name.strip() for name in names.split(",") if name.strip()]
