"""What a kernel of the tests starts with, here and under JupyterLab: no key, no settings and no past of the user."""

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from traitlets.config import Config

from tests.ipython.versions import KernelVersion, cache_folder

ROOT = Path(__file__).parents[2]
PASSED_ON = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH")


def kernel_environment(folder: Path) -> dict[str, str]:
    """Environment variables of a process whose home is `folder`."""
    passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return passed_on | {
        "HOME": str(folder),
        "IPYTHONDIR": str(folder / ".ipython"),
        "JUPYTER_CONFIG_DIR": str(folder / ".jupyter" / "config"),
        "JUPYTER_DATA_DIR": str(folder / ".jupyter" / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / ".jupyter" / "runtime"),
        "JUPYTER_PLATFORM_DIRS": "1",
        "MPLCONFIGDIR": str(cache_folder() / "matplotlib"),  # shared: its list of fonts takes seconds to make
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # else the debugger warns in the first cell's output
        "AGENTROUTE_RUNS": str(folder / "runs.sqlite"),
        "PYTHONPATH": str(ROOT),  # this tree, whatever is installed
    }


@contextmanager
def unix_sockets() -> Iterator[Config]:
    """The configuration of a kernel manager that needs no ports: those that look for free ones at a time may find the same."""
    with tempfile.TemporaryDirectory(prefix="kernel-") as folder:  # their paths must be short
        yield Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/s"}})


def write_kernel_spec(folder: Path, version: KernelVersion) -> Path:
    """Describe a kernel of `version`, named `python3`, in `folder`/kernels; that folder."""
    spec = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "Python 3",
        "language": "python",
        "env": {"PYTHONPATH": os.pathsep.join(filter(None, (version.python_path(), str(ROOT))))},
        "metadata": {"debugger": False},
    }
    (folder / "kernels" / "python3").mkdir(parents=True)
    (folder / "kernels" / "python3" / "kernel.json").write_text(json.dumps(spec))
    return folder / "kernels"
