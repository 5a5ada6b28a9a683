"""`%agent edit NAME`: a form of an agent's settings that changes the text of the cell which defines it.

The notebook stays the truth: the form reads the cell and writes the cell, and the kernel's agent follows what was written.
In a terminal the definition comes into the next prompt instead.
"""

from __future__ import annotations

import html
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.display_functions import DisplayHandle

from agentroute.errors import ErrorConfig

from .arguments import Options, closest, nearest, parse
from .cell_source import Cell, cell_text
from .edit_fields import (
    FIELDS,
    Given,
    agent_values,
    changed_too,
    in_words,
    model_choices,
    nameless_tools,
    placeholders,
    problems,
    tool_choices,
    type_choices,
)
from .formats import one_line
from .panels import close_widget, show_in_cell, stand_in
from .tables import Table, settings_table, shortened

if TYPE_CHECKING:
    from agentroute import Agent

    from .magics import AgentMagics

__all__ = ["Form", "cell_text", "edit"]

_FILES = {"_esm": Path(__file__).with_name("edit_form.js"), "_css": Path(__file__).with_name("edit_form.css")}
_LOST = "(a form: run this cell to open it again)"
_NO_WIDGETS = 'the form needs ipywidgets and anywidget: pip install "agentroute[notebook]"'


def edit(name: str, magics: AgentMagics) -> None:
    """Shows the form of an agent, or of one that is to be; in a terminal puts its definition into the next prompt.

    Raises:
        ErrorConfig: no agent can have this name, or it seems to be that of another one misspelt.
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


_FOUND = tuple[Mapping[str, Any], Cell]
"""A cell as the page tells of it, and its text taken apart."""


class Form:
    """One form. It keeps nothing of the fields: each message of the page says what was shown and what is wanted.

    Messages of the page: `open` (what does the form show?), `save` (these changes), `written` (the cell has them now),
    `forget` (a setting that no cell says), `close`. All but the last bring the notebook's `%%agent` cells, where the page can tell.
    """

    def __init__(self, name: str, magics: AgentMagics) -> None:
        known = magics.agents.known()
        if name not in known and (parse(name).names != (name,) or closest(name, known, 0.75)):
            raise ErrorConfig(f"no agent called {name[:40]}{nearest(name, known)}{magics.agents.listed()}")
        self.name, self._magics = name, magics
        self._widget: Any = None
        self._pending: dict[str, tuple[_Place, Cell]] = {}  # by view: the cell as it was, and as it is to be
        self._table_output: Any = DisplayHandle()  # type: ignore[no-untyped-call]
        self._form_output: Any = DisplayHandle()  # type: ignore[no-untyped-call]
        self._last_words = f"nothing of {name} was changed here"

    # What it shows

    def show(self) -> None:
        """The settings as a table, which stays in a saved notebook, and the form, which hides the table while it is there."""
        self._table_output.display(self._table())
        try:
            import anywidget
        except ImportError:
            print(f"{_NO_WIDGETS}\nOr change this text, and run it in a cell:\n\n{self.definition()}")
            return
        self._widget = type("EditForm", (anywidget.AnyWidget,), dict(_FILES))()
        show_in_cell(self, self._magics.shell)
        self._widget.on_msg(self._on_message)
        data, metadata = self._widget._repr_mimebundle_()
        again = f"The form of {self.name} was open here; %agent edit {self.name} opens it again."
        data |= {"text/plain": again, "text/html": _sentence(again)}
        self._form_output.display(data, metadata=metadata, raw=True)

    def close(self) -> None:
        """Ends the form; the table stays. So does a cell that is run again with the form it has opened before."""
        if self._widget is not None:
            close_widget(self._widget)
            self._widget = None

    def definition(self) -> str:
        """A cell that defines the agent as it is, and asks no model."""
        place = self._place(())
        return place.cell.only_definition().source

    def _table(self) -> _Settings:
        agent, where = self._magics.agents.all().get(self.name, (ErrorConfig("not defined yet"), "nothing yet"))
        if isinstance(agent, ErrorConfig):
            return _Settings(Table([("agent", self.name), ("defined by", where), ("problem", str(agent))]))
        return _Settings(settings_table(agent, where, self._magics.agents.kept(self.name)))

    def _fields(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """All that the page needs to show the form."""
        cells = content.get("cells") or ()
        place = self._place(cells)
        given = self._given(place.cell)
        values = self._values(place, given)
        kept = self._kept(cells, place, given)
        agent = self._agent()
        hints = placeholders(agent, values, given.names)
        chosen = _chosen(values.get("tools", ""), given)
        if given.held is not None and (nameless := nameless_tools(given.held, given.names)):
            hints["tools"] = f"It also has {', '.join(nameless)}, which no variable holds; a choice here replaces all its tools."
        elif "tools" not in values and agent.tools:
            whence = "Kept from an earlier run, not in the notebook" if "tools" in kept else "From another cell"
            hints["tools"] = f"{whence}: {one_line(', '.join(agent.tools_map), 400)}. A choice here replaces them."
        return {
            "kind": "form", "name": self.name, "values": {**dict.fromkeys(FIELDS, ""), **values}, "hints": hints, "chosen": chosen,
            "tools": tool_choices(given.names, chosen), "models": model_choices(given.names, self._magics.model),
            "types": type_choices(given.names), "where": self._where(place, given), "writes": place.id is not None,
            "cell": place.id, "kept": kept,
        }  # fmt: skip

    def _agent(self) -> Agent[Any]:
        """The agent as it is in the kernel; a plain one where there is none, or none can be made."""
        from agentroute import Agent

        agent = self._magics.agents.all().get(self.name, (None, ""))[0]
        return agent if isinstance(agent, Agent) else Agent(self.name)

    def _where(self, place: _Place, given: Given) -> str:
        if place.id is not None:
            where = f"Changes are written to {place.words}, which begins “{one_line(place.cell.first_line, 60)}”."
            also = self._changed_too(place.cell, given)
            return f"{where} It was not run as it stands; a change here defines {self.name} by all of it: {also}." if also else where
        if given.held is not None:
            why = f"{self.name} is an Agent held by a variable"
        elif self._magics.agents.written(self.name) is None:
            why = f"{self.name} is not defined yet"
        else:
            why = f"No cell that defines {self.name} can be written from here"
        return f"{why}, so the form makes the text of a cell; nothing is changed before you run it."

    # What is asked of it

    def _on_message(self, widget: Any, content: Mapping[str, Any], buffers: object) -> None:
        answers = {"open": self._fields, "save": self._save, "written": self._written, "forget": self._forget, "close": self._close}
        try:
            answer = answers[content["kind"]](content)
        except ErrorConfig as error:
            answer = {"kind": "problems", "errors": {"": str(error)}}
        except Exception as error:  # of a message that nobody foresaw, or an odd variable; without an answer the page waits for ever
            answer = {"kind": "problems", "errors": {"": f"the form failed: {type(error).__name__}: {error}"}}
        if answer and "errors" in answer:
            answer["errors"] = {name: shortened(text) for name, text in answer["errors"].items()}
        if answer and self._widget is not None:
            self._widget.send({**answer, "view": content.get("view")})

    def _save(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """What the page is to do with changed fields: write the cell, show its text, or show what is wrong with them."""
        changes, shown = dict(content["changes"]), content["shown"]
        place = self._place(content.get("cells") or ())
        given = self._given(place.cell)
        if place.id not in (None, content.get("cell", place.id)):
            raise ErrorConfig(f"{self.name} is defined by another cell by now, and nothing was written; read the cell again to see what it says")
        now = self._values(place, given)
        moved = {name: now.get(name, "") for name, text in changes.items() if now.get(name, "") not in (shown[name], text)}
        if moved:
            words = "the cell says by now: {}. Write again to put yours in its place."
            return {"kind": "problems", "errors": {name: words.format(text or "nothing") for name, text in moved.items()}, "shown": moved}
        said = place.cell.values()
        if given.held is not None and (kept := [name for name, text in changes.items() if not text.strip() and name not in said]):
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
        also = self._changed_too(changed, given, changes)
        if also and also != content.get("confirmed"):
            words = f"{place.words} was not run as it stands, and writing defines {self.name} by all of it. That changes in the kernel, too: {also}."
            return {"kind": "confirm", "words": words[0].upper() + words[1:], "confirmed": also}
        self._pending[content["view"]] = place, changed
        return {"kind": "write", "id": place.id, "before": place.cell.source, "after": changed.source}

    def _written(self, content: Mapping[str, Any]) -> dict[str, Any] | None:
        """The cell is changed; now the kernel's agent is."""
        if content["view"] not in self._pending:
            return None
        place, after = self._pending.pop(content["view"])
        given = self._given(after, removed_from=place.cell)
        try:
            options = after.options(given.fill)
            self._magics.agents.define(self.name, options, _gone(place.cell, after), place.id)
        except ErrorConfig as error:
            raise ErrorConfig(f"{place.words} was changed; {self.name} in the kernel was not: {error}") from None
        self._table_output.update(self._table())
        anew = "; its conversation begins anew" if options.over(given.base).memory == "ram" else ""
        self._last_words = f"{place.words} was changed, and {self.name} with it{anew}. Nothing was run."
        if given.held is not None and (gone := _gone(place.cell, after)):
            self._last_words += f" The variable keeps its {', '.join(gone)} until the cell that makes it is run again."
        return {"kind": "done", "words": self._last_words[0].upper() + self._last_words[1:]}

    def _forget(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Takes out of the kernel's agent what it has kept from an earlier run."""
        setting, cells = content["setting"], content.get("cells") or ()
        place = self._place(cells)
        if setting not in self._kept(cells, place, self._given(place.cell)):
            raise ErrorConfig(f"{one_line(setting, 40)} is not kept from an earlier run; a cell says it by now")
        self._magics.agents.define(self.name, Options(), without=[setting])
        self._table_output.update(self._table())
        written = self._magics.agents.written(self.name) or Options()
        anew = "; its conversation begins anew" if written.memory == "ram" else ""
        self._last_words = f"{self.name} has forgotten its {setting}, which no cell says{anew}"
        return {"kind": "done", "words": f"{self._last_words}."}

    def _close(self, content: Mapping[str, Any]) -> None:
        again = f"{self._last_words.rstrip('.')}. %agent edit {self.name} opens the form again."
        self._form_output.update({"text/plain": again, "text/html": _sentence(again)}, raw=True)
        self.close()

    def _how_to_paste(self, given: Given) -> str:
        if given.held is not None:
            return f"Put it into a cell below the one that makes {self.name}, and run it: the variable then holds the changed agent."
        if self._magics.agents.written(self.name) is None:
            return f"Put it into a cell and run it: that defines {self.name}, and asks no model."
        return f"Put it in place of the cell that defines {self.name}, and run it. Until then {self.name} is as it was."

    # Where the agent is defined

    def _place(self, cells: Sequence[Mapping[str, Any]]) -> _Place:
        """The cell of the notebook that defines the agent, else the first that names it; else one that would define it."""
        self._check_readable(cells)
        found = self._found(cells)
        if found is not None and found[0].get("writable", True):
            one, cell = found
            return _Place(cell, one["id"], f"cell [{one['count']}]" if one.get("count") else f"the cell at place {one['number']}")
        if self._magics.agents.held(self.name) is not None:
            return _Place(Cell("", "%%agent ", f"{self.name} --define", ""))
        return _Place(found[1] if found is not None else self._as_run() or self._as_written())

    def _found(self, cells: Sequence[Mapping[str, Any]]) -> _FOUND | None:
        """Of several that define it that which the kernel ran last, else the last one; a variable's agent is changed only by
        cells that define."""
        defining = self._defining(cells)
        by_id = [pair for pair in defining if pair[0]["id"] == self._magics.agents.cell(self.name)]
        run = self._run_last()
        by_text = [pair for pair in defining if run is not None and pair[0]["source"].rstrip("\n") == run.source]
        named = self._naming(cells) if self._magics.agents.held(self.name) is None else []
        return next((pairs[-1] for pairs in (by_id, by_text, defining, named[:1]) if pairs), None)

    def _naming(self, cells: Sequence[Mapping[str, Any]]) -> list[_FOUND]:
        return [(one, cell) for one in cells if (cell := self._names_it(one["source"]))]

    def _defining(self, cells: Sequence[Mapping[str, Any]]) -> list[_FOUND]:
        return [pair for pair in self._naming(cells) if pair[1].defines]

    def _kept(self, cells: Sequence[Mapping[str, Any]], place: _Place, given: Given) -> dict[str, str]:
        """Settings that hold in the kernel and that no cell of the notebook says, in words: a restarted notebook lacks them."""
        if given.held is not None:
            return {}
        said = {name for _, cell in (*self._naming(cells)[:1], *self._defining(cells)) for name in cell.values()} | {*place.cell.values()}
        return {name: one_line(in_words(getattr(given.base, name)), 60) for name in given.base.given if name not in said}

    def _changed_too(self, cell: Cell, given: Given, changes: Collection[str] = ()) -> str:
        """What else than `changes` would hold in the kernel by this cell, in words; empty where there is no agent yet."""
        if given.held is None and self._magics.agents.written(self.name) is None:
            return ""
        also = changed_too(cell, given, changes)
        return ", ".join(f"{name} (now {one_line(now, 60)}; then {one_line(then, 60)})" for name, (now, then) in also.items())

    def _as_written(self) -> Cell:
        cell = Cell.read(cell_text(self.name, self._magics.agents.written(self.name) or Options()))
        assert cell is not None
        return cell

    def _as_run(self) -> Cell | None:
        """The cell that was run last to define the agent, where it says all there is to say."""
        cell = self._run_last()
        if cell is None:
            return None
        try:
            options = cell.options(self._given(cell).fill)
        except ErrorConfig:
            return None
        return cell if options == self._magics.agents.written(self.name) else None

    def _run_last(self) -> Cell | None:
        """The cell that was run last to define the agent."""
        history = self._magics.shell.history_manager
        sources = reversed(history.input_hist_raw if history is not None else [])
        return next((cell for source in sources if (cell := self._names_it(source)) and cell.defines), None)

    def _names_it(self, source: str) -> Cell | None:
        """The cell, if it is about this agent alone."""
        cell = Cell.read(source)
        if cell is None:
            return None
        try:
            names = cell.parsed(self._given(cell).fill).names
        except ErrorConfig:
            return None
        return cell if names == (self.name,) else None

    def _check_readable(self, cells: Sequence[Mapping[str, Any]]) -> None:
        """Refuses to take another cell for the one that defines the agent, where that one cannot be read."""
        for cell in filter(None, (Cell.read(one["source"]) for one in cells)):
            defines = "--define" in cell.line.split() or "\n---" in cell.body
            if defines and cell.line.split()[:1] == [self.name]:
                try:
                    cell.parsed(self._given(cell).fill)
                except ErrorConfig as error:
                    raise ErrorConfig(f"the cell that begins “{one_line(cell.first_line, 60)}” has a mistake: {error}") from None

    def _given(self, cell: Cell, removed_from: Cell | None = None) -> Given:
        """What the cell's settings are read against, without what it has taken out."""
        magics = self._magics
        gone = _gone(removed_from, cell) if removed_from is not None else []
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
        return f'<div class="agr-edit-settings">{self.table._repr_html_()}</div>{stand_in("agr-edit-settings", _LOST)}'


def _sentence(text: str) -> str:
    return f"<p>{html.escape(text, quote=False)}</p>"


def _gone(before: Cell, after: Cell) -> list[str]:
    """Settings that a cell no longer gives."""
    return [name for name in before.values() if name not in after.values()]


def _chosen(names: str, given: Given) -> list[str]:
    """The names of a list of tools, filled where that is possible."""
    try:
        names = given.fill(names)
    except ErrorConfig:
        pass  # told when the cell is written
    return [name.strip() for name in names.split(",") if name.strip()]
