"""The LiteLLM proxy as a process of its own, with a virtual environment of its own."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ipython.versions import cache_folder

VERSION = "1.104.0"
"""The newest that could be installed everywhere the tests run (2026-11: later ones need a certifi that mirrors lack)."""
KEY = "sk-master-key-of-the-tests"
CONFIG = Path(__file__).with_name("litellm_config.yaml")
START_S = 300.0
"""Five seconds on an idle machine."""
CLOSED = "http://127.0.0.1:9"
"""Nothing listens there, so a proxy at this address keeps the process from reaching any other machine."""


def environment() -> Path:
    """The Python of a virtual environment that has LiteLLM. Made when the cache has none: some 700 MB, a minute.

    The folder appears with one rename, so test processes that start together see all of it or nothing.

    Raises:
        RuntimeError: pip could not install it.
    """
    target = cache_folder() / f"litellm-{VERSION}"
    if not target.is_dir():
        cache_folder().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="litellm-", ignore_cleanup_errors=True) as folder:
            fresh = Path(folder, "environment")
            _install(fresh)
            try:
                fresh.rename(target)
            except OSError:  # another process was first; its copy is the same
                if not target.is_dir():
                    raise
    return target / "bin" / "python"


def _install(folder: Path) -> None:
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    for command in ([sys.executable, "-m", "venv", str(folder)], [*pip, f"litellm[proxy]=={VERSION}"]):
        finished = subprocess.run(command, capture_output=True, text=True)
        if finished.returncode != 0:
            raise RuntimeError(f"the environment of the LiteLLM tests could not be made ({' '.join(command)}):\n{finished.stderr[-2000:]}")


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """The proxy's base URL; it ends with the block, and with this process. Its log and home are in `folder`.

    Raises:
        RuntimeError: it did not start; the message ends with its log.
    """
    python, port, log = environment(), _free_port(), folder / "litellm.log"
    variables = {
        "PATH": os.defpath,
        "HOME": str(folder),
        "PYTHONUNBUFFERED": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MASTER_KEY": KEY,
        "LITELLM_LOG": "ERROR",
        **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), CLOSED),
    }
    command = [str(python), "-m", "litellm.proxy.proxy_cli", "--config", str(CONFIG), "--host", "127.0.0.1", "--port", str(port)]
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=output, env=variables, cwd=folder) as process,
    ):
        try:
            _wait_until_ready(process, port, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()  # it has nothing to put away


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while not _answers(port):
        if process.poll() is not None or time.monotonic() > deadline:
            state = "did not start" if process.returncode is None else f"ended with exit code {process.returncode}"
            raise RuntimeError(f"the LiteLLM proxy {state}; its log ends:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.1)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health/liveliness")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
