import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from agentroute import set_budget
from agentroute_ipython import load_ipython_extension, unload_ipython_extension
from tests.ipython import kernels
from tests.ipython.shells import ShellNotebook
from tests.ipython.versions import EACH_KERNEL, INSTALLED, MATRIX, KernelVersion

StartKernel = Callable[..., kernels.Session]


@pytest.fixture
def start_kernel(tmp_path: Path) -> Iterator[StartKernel]:
    """Starts kernels: `start_kernel(version=INSTALLED, env=None)`; each has its own home, all end with the test."""
    with ExitStack() as stack:

        def start(version: KernelVersion = INSTALLED, env: dict[str, str] | None = None) -> kernels.Session:
            folder = tmp_path / f"kernel-{len(list(tmp_path.glob('kernel-*')))}"
            folder.mkdir()
            return stack.enter_context(kernels.kernel(folder, version, env))

        yield start


@pytest.fixture
def kernel(start_kernel: StartKernel) -> kernels.Session:
    """A fresh kernel of the installed version."""
    return start_kernel()


@pytest.fixture(params=[pytest.param(v, id=str(v), marks=[] if v == INSTALLED else [pytest.mark.slow]) for v in MATRIX])
def any_kernel(request: pytest.FixtureRequest, start_kernel: StartKernel) -> kernels.Session:
    """A fresh kernel, once for each version of the matrix; all but the installed one are `slow`."""
    return start_kernel(request.param)


@pytest.fixture(params=[pytest.param(v, id=str(v), marks=[] if v == INSTALLED else [pytest.mark.slow]) for v in EACH_KERNEL])
def each_kernel(request: pytest.FixtureRequest, start_kernel: StartKernel) -> kernels.Session:
    """A fresh kernel, once for each version of ipykernel; all but the installed one are `slow`."""
    return start_kernel(request.param)


@pytest.fixture
def plain_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("AGENTROUTE_RUNS", str(tmp_path / "runs.db"))
    config = Config({"HistoryManager": {"hist_file": ":memory:", "connection_options": {"check_same_thread": False}}})
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(config=config, user_module=types.ModuleType("notebook"))
    yield shell
    unload_ipython_extension(shell)
    shell.history_manager.end_session()
    InteractiveShell.clear_instance()


@pytest.fixture
def shell_notebook(plain_shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> ShellNotebook:
    load_ipython_extension(plain_shell)
    return ShellNotebook(plain_shell, capsys)


@pytest.fixture
def no_budget_left_over() -> Iterator[None]:
    yield
    set_budget(None)
