"""Tools in a real kernel: a cell run again replaces its tool, edited or not; two functions in one cell clash."""

from tests.ipython.kernels import Session

SETUP = """
import functools
from agentroute import Agent, tool
agent = Agent("a")
version = 1
def logged(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)
    return wrapper
def make(n):
    def product(a: int) -> int:
        return n
    return product
"""
CELLS = [
    "@agent.tool\ndef plain(a: int) -> int:\n    return version",
    "@agent.tool\n@functools.cache\ndef cached(a: int) -> int:\n    return version",
    "@agent.tool\n@logged\ndef wrapped(a: int) -> int:\n    return version",
    "@agent.tool\n@tool(timeout=3)\ndef already(a: int) -> int:\n    return version",
    "@agent.tool(timeout=5)\n@tool(needs_approval=True)\ndef guarded(a: int) -> int:\n    return version",
    "class Shelf:\n    def method(self, a: int) -> int:\n        return version\nagent.tool(Shelf().method)",
    "def make_local(n):\n    def local(a: int) -> int:\n        return n\n    return local\nagent.tool(make_local(version))",
    "agent.tool(name='nameless')(lambda a: version)",
]
NAMES = ["plain", "cached", "wrapped", "already", "guarded", "method", "local", "nameless"]


def answers(session: Session) -> dict[str, int]:
    answers: dict[str, int] = session.evaluate("{made.name: made(0) for made in agent.tools}")
    return answers


def test_a_cell_run_again_replaces_its_tool(kernel: Session) -> None:
    kernel.run(SETUP)
    outcomes = [kernel.run(cell) for _ in range(2) for cell in ["version = version + 1", *CELLS]]
    assert [outcome.evalue for outcome in outcomes if outcome.status != "ok"] == []
    assert answers(kernel) == dict.fromkeys(NAMES, 3)
    assert kernel.evaluate("[(made.timeout, made.needs_approval) for made in agent.tools[3:5]]") == [(3, False), (5, True)]

    edited = [kernel.run("# edited\n\n" + cell.replace("version", "version * 10")) for cell in CELLS]
    assert [outcome.evalue for outcome in edited if outcome.status != "ok"] == []
    assert answers(kernel) == dict.fromkeys(NAMES, 30)


def test_two_functions_of_one_name_in_one_cell_are_an_error(kernel: Session) -> None:
    kernel.run(SETUP)
    outcome = kernel.run("@agent.tool\ndef g(a: int): ...\n\n@agent.tool\ndef g(b: str): ...")
    assert outcome.ename == "ErrorConfig"
    assert "another tool named 'g'" in outcome.text
    products = kernel.run("agent.tool(make(1))\nagent.tool(make(2))")
    assert "another tool named 'product'" in products.text


def test_a_module_edited_and_loaded_again_replaces_its_tools(kernel: Session) -> None:
    kernel.run(SETUP + "import builtins, importlib, pathlib, sys\nsys.path.insert(0, '.')\nbuiltins.agent = agent")
    module = "@agent.tool\ndef look(a: int) -> int:\n    return {}\n"
    kernel.run(f"pathlib.Path('shop.py').write_text({module.format(1)!r}); import shop")
    outcome = kernel.run(f"pathlib.Path('shop.py').write_text({'# a line put in' + chr(10) + module.format(22)!r}); importlib.reload(shop)")
    assert outcome.status == "ok", outcome.text
    assert answers(kernel) == {"look": 22}
