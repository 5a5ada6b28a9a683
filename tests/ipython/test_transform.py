import ast
import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.async_helpers import _asyncio_runner
from IPython.core.inputtransformer2 import TransformerManager

from agentroute_ipython.transform import AWAITED, AgentLine, CellTransform


def manager(shell: Any) -> TransformerManager:
    """IPython's own transforms with ours, as `load` puts them in."""
    transforms = TransformerManager()
    transforms.cleanup_transforms.insert(0, CellTransform(shell))
    transforms.token_transformers.append(AgentLine)
    return transforms


TERMINAL = manager(SimpleNamespace())
KERNEL = manager(SimpleNamespace(kernel=True, autoawait=True, loop_runner=_asyncio_runner))


def in_terminal(source: str) -> str:
    return str(TERMINAL.transform_cell(source))


def in_kernel(source: str, transforms: TransformerManager = KERNEL) -> str:
    async def kernel() -> str:
        return str(transforms.transform_cell(source))

    return asyncio.run(kernel())


def arguments(code: str) -> list[Any]:
    """The texts that the one call in `code` is given."""
    call = next(node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call) and node.args)
    return [ast.literal_eval(argument) for argument in call.args]


BODIES = [
    "Where is it?\n",
    ">>> 1 + 1\n2\n",
    "In [1]: x\n",
    "   ...: y\n",
    '{"a": {{x}}}\n',
    "'\"\\\n",
    "%agent other\n%%agent third\n!ls\nwhat?\n",
    "  indented\n\n\n",
    "é\u2028ü\x0c\n",
]


@pytest.mark.parametrize("body", BODIES)
def test_body_arrives_letter_by_letter(body: str) -> None:
    assert arguments(in_kernel(f"%%agent bot -m x\n{body}")) == ["bot -m x", body]
    assert arguments(in_terminal(f"%%agent bot -m x\n{body}")) == ["agent", "bot -m x", body]


@given(st.text(alphabet=st.characters(exclude_characters="\r")))
def test_any_body_arrives_letter_by_letter(body: str) -> None:
    whole = f"x{body}\n"
    assert arguments(in_terminal(f"%%agent bot\n{whole}")) == ["agent", "bot", whole]


def test_cell_in_a_kernel_is_awaited_and_elsewhere_called() -> None:
    assert in_kernel("%%agent bot\nhi").startswith(f"{AWAITED}(")
    assert in_terminal("%%agent bot\nhi") == "get_ipython().run_cell_magic('agent', 'bot', 'hi\\n')\n"


@pytest.mark.parametrize(
    "shell",
    [
        SimpleNamespace(kernel=True, autoawait=False, loop_runner=_asyncio_runner),
        SimpleNamespace(kernel=True, autoawait=True, loop_runner="trio"),
        SimpleNamespace(autoawait=True, loop_runner=_asyncio_runner),
    ],
    ids=["autoawait off", "trio", "no kernel"],
)
def test_cell_is_not_awaited_where_the_kernel_would_not(shell: Any) -> None:
    assert in_kernel("%%agent bot\nhi", manager(shell)) == "get_ipython().run_cell_magic('agent', 'bot', 'hi\\n')\n"
    assert "run_cell_magic" in KERNEL.transform_cell("%%agent bot\nhi")


def test_cell_inside_another_cell_is_not_awaited() -> None:
    # A frame as IPython has on the stack while a cell runs.
    names: dict[str, Any] = {}
    exec(compile("def run_code(inner):\n    return inner()", "/x/interactiveshell.py", "exec"), names)

    async def kernel() -> str:
        return str(names["run_code"](lambda: KERNEL.transform_cell("%%agent bot\nhi")))

    assert asyncio.run(kernel()).startswith("get_ipython().run_cell_magic")


@pytest.mark.parametrize(
    ("source", "line", "body"),
    [
        ("\n\n%%agent bot\nhi\n", "bot", "hi\n"),
        ("  %%agent bot\n  hi\n    there\n", "bot", "hi\n  there\n"),
        ("%%agent\tbot\nhi\n", "bot", "hi\n"),
        ("%%agent   bot  -m  m  \nhi\n", "bot  -m  m", "hi\n"),
        ("%%agent\nhi\n", "", "hi\n"),
        ("%%agent bot\r\nhi\r\n", "bot", "hi\r\n"),
        ("%%agent bot", "bot", ""),
        ("%%agent what?\nhi\n", "what?", "hi\n"),
        ("# why\n\n  # not\n%%agent bot\n# x\nhi\n", "bot", "# x\nhi\n"),
    ],
)
def test_first_line_is_parted_from_the_body(source: str, line: str, body: str) -> None:
    assert arguments(in_kernel(source)) == [line, body]
    assert arguments(in_terminal(source)) == ["agent", line, body or "\n"]


@pytest.mark.parametrize(
    "source",
    ["%%agents bot\nhi\n", "%%agent?\n", "%%agent??", "%agent?", "%agents x", "x = 1\n%%agent bot\nhi\n", "1 + 1\n", "", "\n"],
)
def test_other_cells_are_left_to_ipython(source: str) -> None:
    assert in_kernel(source) == TransformerManager().transform_cell(source)
    assert in_terminal(source) == TransformerManager().transform_cell(source)


@pytest.mark.parametrize("prompt", ["Where is it?", "What's {x}??", "who is 4821?", 'say "hi"', "a # b"])
def test_prompt_on_a_line_arrives_letter_by_letter(prompt: str) -> None:
    assert arguments(in_kernel(f"%agent bot {prompt}")) == [f"bot {prompt}"]
    assert arguments(in_terminal(f"%agent bot {prompt}")) == ["agent", f"bot {prompt}"]


def test_line_inside_a_cell_is_called_where_it_stands() -> None:
    source = "for x in y:\n    %agent bot Is it {x}?\n    z?\nprint('''\n%agent no?\n''')\n"
    lines = in_kernel(source).splitlines()
    assert lines[1] == "    get_ipython().run_line_magic('agent', 'bot Is it {x}?')"
    assert lines[2] == "    get_ipython().run_line_magic('pinfo', 'z')"
    assert lines[4] == "%agent no?"


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("%%agent bot", "incomplete"),
        ("%%agent bot\nhi", "incomplete"),
        ("%%agent bot\nhi\n\n", "complete"),
        ("%agent bot hi?", "complete"),
        ("%agent list", "complete"),
    ],
)
def test_enter_ends_a_cell_where_it_does_for_any_magic(source: str, status: str) -> None:
    assert TERMINAL.check_complete(source)[0] == status
    assert KERNEL.check_complete(source)[0] == status
