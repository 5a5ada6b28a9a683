"""Who may import whom: arrows point down only, and nothing heavy loads before it is needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import agentroute

ROOT = Path(agentroute.__file__).parent
LEVELS = [
    ["displayed", "errors", "keys", "message", "content", "figures", "visible", "records", "result_text", "events", "result"],
    ["_sse", "_decoding", "_threads", "config", "context", "definitions", "annotations", "problems", "prices", "budgets", "schema", "tools", "output", "calling", "history", "_sqlite", "_network_files", "_connection_pool", "_migrations", "keeping", "selection", "tables", "request_key",
     "memory.base", "memory.recall", "memory.ram", "memory.sqlite", "memory.tools", "memory", "models.base", "models.quirks", "models.refusals", "models.wire", "models.wire_request", "models.wire_errors"],
    ["_connections", "_http", "_portal", "models.cloud", "models.gguf", "models.weights", "models._local_server", "models.prompted_schema", "models.json_text", "models.prompted_tools",
     "models.local", "models.openrouter", "models.catalogue", "models.any_tools", "models.retry", "models.routing", "models.fallback", "models", "store"],
    ["metering", "replays", "replay_layer", "run_spec", "tally", "transcript", "loop", "recorder"],
    ["_arrays", "column_cache", "otel", "frames", "exports", "ledger", "costs", "repricing", "drawings", "plots", "cost_report", "upkeep", "settings", "stream", "agent", "summarize", "testing",
     "cli.terminal", "cli.endpoints", "cli.run", "cli.run_view", "cli.logs", "cli.listing", "cli.login", "cli.doctor", "cli.local", "cli.deploy", "cli.completion", "cli.choosing", "cli.cost_view", "cli.rows", "cli.runs", "cli.commands", "cli",
     "__main__", "__init__"],
]  # fmt: skip
LEVEL = {name: number for number, names in enumerate(LEVELS) for name in names}


def modules() -> dict[str, Path]:
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        found[name] = path
    return found


def imports(name: str, path: Path) -> set[str]:
    """Modules of the package a module imports, anywhere in it; imports for type checkers do not count."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for node in ast.walk(block)
    }
    package = name.split(".") if path.name == "__init__.py" and name != "__init__" else name.split(".")[:-1]
    found: set[str] = set()
    known = modules()
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or id(node) in typing_only or not node.level:
            continue
        base = package[: len(package) - node.level + 1]
        target = ".".join([*base, *(node.module or "").split(".")]).strip(".")
        names = {".".join([*base, alias.name]) for alias in node.names}
        found |= {target} if target else {name if name in known else "__init__" for name in names}
    return found


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_module_imports_only_from_its_own_level_and_below(name):
    assert name in LEVEL, f"{name} has no level; say in docs/architecture.md and here where it belongs"
    upward = {target for target in imports(name, modules()[name]) if LEVEL.get(target, 99) > LEVEL[name]}
    assert upward == set()


def test_only_displayed_knows_the_notebook_package():
    known = {
        (name, node.module)
        for name, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("agentroute_ipython")
    }
    assert known == {("displayed", "agentroute_ipython.reprs")}
    assert not [name for name, path in modules().items() if "import agentroute_ipython" in path.read_text()]


def test_only_one_file_speaks_http():
    speakers = [name for name, path in modules().items() if "import httpx" in path.read_text()]
    assert speakers == ["_connections"]


HEAVY = ["pandas", "numpy", "pyarrow", "matplotlib", "IPython", "ipywidgets", "httpx", "httpx2", "xllamacpp", "pydantic", "docstring_parser", "click", "sqlite3"]


@pytest.mark.parametrize("statement", ["import agentroute", "from agentroute import Agent", "from agentroute import Agent, tool, RunStore, Memory"])
def test_importing_loads_nothing_heavy(statement):
    program = f"import sys; {statement}; print([name for name in {HEAVY} if name in sys.modules])"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


def test_every_public_name_exists_and_is_in_its_modules_all():
    for name in agentroute.__all__:
        assert getattr(agentroute, name) is not None
    for module, names in agentroute._HOME.items():
        listed = set(__import__(f"agentroute.{module}", fromlist=["__all__"]).__all__)
        assert set(names) <= listed


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Agnet'"):
        _ = agentroute.Agnet
