from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.ipython import kernels
from tests.ipython.versions import INSTALLED, MATRIX, KernelVersion

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
