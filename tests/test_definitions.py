"""A tool defined again replaces the first; two different functions of one name are an error."""

import functools
import importlib
import linecache
import sys
import textwrap

import pytest

from agentroute import Agent, ErrorConfig, tool
from agentroute.definitions import innermost, layers


def plain(a: int = 1) -> int:
    return a


class Notebook:
    """Runs texts as a notebook runs cells: in one namespace, each text with a file name of its own, found in linecache."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names = {"__name__": "__main__", "agent": Agent("a"), "functools": functools, "tool": tool}
        self.sources: dict = {}
        monkeypatch.setattr(linecache, "cache", self.sources)
        monkeypatch.setattr(linecache, "checkcache", lambda filename=None: None)

    def run(self, cell: str) -> None:
        text = textwrap.dedent(cell)
        name = f"<cell {hash(text)}>"
        self.sources[name] = (len(text), None, text.splitlines(keepends=True), name)
        exec(compile(text, name, "exec"), self.names)


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Notebook:
    notebook = Notebook(monkeypatch)
    notebook.run("""
        class Shelf:
            def __init__(self, name): self.name = name
            def look(self, a: int) -> int: return VERSION
            def __call__(self, a: int) -> int: return VERSION

        def logged(times):
            def decorate(function):
                @functools.wraps(function)
                def wrapper(*args, **kwargs):
                    return [function(*args, **kwargs) for _ in range(times)][0]
                return wrapper
            return decorate
    """)
    return notebook


CELLS = {
    "function": "@agent.tool\ndef look(a: int) -> int:\n    return VERSION",
    "options": "@agent.tool(timeout=3)\ndef look(a: int) -> int:\n    return VERSION",
    "async": "@agent.tool\nasync def look(a: int) -> int:\n    return VERSION",
    "cache": "@agent.tool\n@functools.cache\ndef look(a: int) -> int:\n    return VERSION",
    "wraps": "@agent.tool\n@logged(2)\ndef look(a: int) -> int:\n    return VERSION",
    "Tool": "@agent.tool\n@tool(timeout=3)\ndef look(a: int) -> int:\n    return VERSION",
    "wraps over a Tool": "@agent.tool\n@logged(1)\n@tool(needs_approval=True)\ndef look(a: int) -> int:\n    return VERSION",
    "tool, then agent.tool": "@tool\ndef look(a: int) -> int:\n    return VERSION\nagent.tool(look)",
    "closure": "def make(n):\n    def look(a: int) -> int:\n        return n\n    return look\nagent.tool(make(VERSION))",
    "default": "def make(n):\n    def look(a: int, factor=n) -> int:\n        return n\n    return look\nagent.tool(make(VERSION))",
    "partial": "def look(n, a: int) -> int:\n    return n\nagent.tool(functools.partial(look, VERSION))",
    "method": "class Box:\n    def look(self, a: int) -> int:\n        return VERSION\nagent.tool(Box().look)",
    "callable object": "class Look:\n    def __call__(self, a: int) -> int:\n        return VERSION\nagent.tool(name='look')(Look())",
    "class method": "class Box:\n    @classmethod\n    def look(cls, a: int) -> int:\n        return VERSION\nagent.tool(Box.look)",
    "method of a class of another cell": "agent.tool(Shelf('north').look)",
    "object of a class of another cell": "agent.tool(name='look')(Shelf('north'))",
    "wrapper of a function of another module": "import textwrap\nagent.tool(name='look')(logged(1)(textwrap.dedent))",
    "lambda": "agent.tool(name='look')(lambda a: VERSION)",
    "built-in": "agent.tool(name='look')(len)",
}


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_a_cell_run_again_replaces_its_tool(notebook, cell):
    notebook.names["VERSION"] = 1
    notebook.run(cell)
    (first,) = notebook.names["agent"].tools
    notebook.names["VERSION"] = 2
    notebook.run(cell)
    (second,) = notebook.names["agent"].tools
    assert first.name == second.name == "look"
    assert first is not second


@pytest.mark.parametrize("version", ["def look(b: str) -> int:\n    return VERSION", "\n\ndef look(a: int) -> int:\n    # edited\n    return VERSION"])
@pytest.mark.parametrize("decorator", ["@agent.tool", "@agent.tool\n@functools.cache", "@agent.tool\n@logged(1)"])
def test_an_edited_cell_replaces_its_tool(notebook, decorator, version):
    notebook.names["VERSION"] = 1
    notebook.run(f"{decorator}\ndef look(a: int) -> int:\n    return 0")
    notebook.run(version.replace("def", f"{decorator}\ndef"))
    assert [made(5) for made in notebook.names["agent"].tools] == [1]


CLASHES = {
    "two functions": """
        @agent.tool
        def look(a: int): ...

        @agent.tool
        def look(b: str): ...
    """,
    "two decorated functions": """
        @agent.tool
        @functools.cache
        def look(a: int): ...

        @agent.tool
        @functools.cache
        def look(b: str): ...
    """,
    "two methods": """
        class Box:
            def look(self, a: int): ...
        agent.tool(Box().look)
        class Box:
            def look(self, a: str): ...
        agent.tool(Box().look)
    """,
    "two defaults": """
        def make(n):
            def look(a: int, factor=n): ...
            return look
        agent.tool(make(1))
        agent.tool(make(2))
    """,
    "two closures": """
        def make(n):
            def look(a: int): return n
            return look
        agent.tool(make(1))
        agent.tool(make(2))
    """,
    "two branches": """
        def make(n):
            if n:
                def look(a: int): ...
            else:
                def look(b: int): ...
            return look
        agent.tool(make(1))
        agent.tool(make(0))
    """,
    "a loop": """
        for word in ("a", "b"):
            @agent.tool
            def look(a: int, word=word): ...
    """,
    "two partials": """
        def look(n, a: int): ...
        agent.tool(functools.partial(look, 1))
        agent.tool(functools.partial(look, 2))
    """,
    "two objects": """
        class Shelf:
            def __init__(self, name): self.name = name
            def look(self, a: int): ...
        agent.tool(Shelf("north").look)
        agent.tool(Shelf("south").look)
    """,
    "two lambdas": """
        agent.tool(name="look")(lambda a: 1)
        agent.tool(name="look")(lambda a: 2)
    """,
    "two lambdas on a line": 'agent.tool(name="look")(lambda a: 1); agent.tool(name="look")(lambda a: 2)',
    "two built-in functions": 'agent.tool(name="look")(len); agent.tool(name="look")(repr)',
    "methods of two built-in objects": 'agent.tool(name="look")([].index); agent.tool(name="look")([1].index)',
    "values that cannot be compared": """
        import numpy
        def look(n, a: int): ...
        agent.tool(functools.partial(look, numpy.array([1, 2])))
        agent.tool(functools.partial(look, numpy.array([1, 2])))
    """,
}


@pytest.mark.parametrize("text", CLASHES.values(), ids=CLASHES)
def test_two_different_functions_of_one_name_are_an_error(notebook, text):
    with pytest.raises(ErrorConfig, match="another tool named 'look'; give one of them a name=…"):
        notebook.run(text)


def test_two_functions_of_one_name_in_one_script_are_an_error(tmp_path, monkeypatch):
    (tmp_path / "two_of_one_name.py").write_text(
        "from agentroute import Agent\nagent = Agent('a')\n\n@agent.tool\ndef g(a: int): ...\n\n@agent.tool\ndef g(b: str): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ErrorConfig, match="another tool named 'g'"):
        importlib.import_module("two_of_one_name")


def test_the_same_function_given_twice_is_one_tool():
    agent = Agent("a")
    for _ in range(2):
        agent.tool(plain)
        agent.tool(timeout=5)(agent.tool(plain))
    assert [made.timeout for made in agent.tools] == [5]


MODULE = "import registry\n{}\n@registry.agent.tool\ndef look(a: int) -> int:\n    return {}\n"


@pytest.mark.parametrize("before", ["", "\n\n# three lines were put in\n\n", "def other(): ...\n@registry.agent.tool\ndef another(): ...\n"])
def test_a_module_edited_and_loaded_again_replaces_its_tools(tmp_path, monkeypatch, before):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "registry.py").write_text("from agentroute import Agent\nagent = Agent('a')\n")
    (tmp_path / "edited.py").write_text(MODULE.format("", 1))
    registry, edited = importlib.import_module("registry"), importlib.import_module("edited")
    (tmp_path / "edited.py").write_text(MODULE.format(before, 2))
    importlib.invalidate_caches()
    importlib.reload(edited)
    del sys.modules["registry"], sys.modules["edited"]
    assert registry.agent.tools_map["look"](0) == 2


def test_layers_end_at_the_plain_function():
    @functools.wraps(plain)
    def wrapper(*args): ...

    class Thing:
        def __call__(self): ...

        def method(self): ...

    assert innermost(plain) is plain
    assert innermost(functools.partial(functools.cache(functools.partial(wrapper, 1)))) is plain
    assert innermost(tool(wrapper)) is plain
    assert innermost(Thing()) is Thing.__call__
    assert innermost(functools.partial(Thing().method)) is Thing.method
    wrapper.__wrapped__ = wrapper
    assert list(layers(wrapper)) == [wrapper]
