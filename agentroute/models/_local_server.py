"""The child process that serves one GGUF file with llama.cpp. Run as a file, by `local.py`; imports nothing of ours.

Standard input: one line of JSON, the settings (`path`, `alias`, `api_key`, `n_ctx`, `n_parallel`, `threads`); then it
stays open, and its end means that the parent is gone. Standard output: one line of JSON, `{"port": …}` when requests can
be answered, or `{"error": …}`. Standard error: llama.cpp's log.

It never outlives its parent. Two things are watched, because each alone can fail: the end of standard input (another
child of the parent may hold the pipe open) and the parent's process id (while a model loads, no Python thread runs).
PR_SET_PDEATHSIG is not used: it fires when the *thread* that started the child ends.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time
from typing import Any

POLL_S = 0.5


def main() -> None:
    parent = os.getppid()
    for name in ("SIGINT", "SIGHUP"):  # Ctrl-C in the terminal or notebook is for the parent
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not mix with our one line
    line = sys.stdin.buffer.readline()
    if not line:
        return
    settings = json.loads(line)
    _die_with_stdin()
    try:
        _server, port = _serve(settings)  # kept referenced: it ends with its last reference
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=out, flush=True)
        sys.stderr.flush()
        os._exit(1)
    threading.Thread(target=_wait_for_end_of_input, daemon=True).start()
    print(json.dumps({"port": port}), file=out, flush=True)
    out.close()
    while sys.platform == "win32" or os.getppid() == parent:
        time.sleep(POLL_S)
    os._exit(0)


def _die_with_stdin() -> None:
    """Lets the kernel end this process when standard input ends: loading a model holds the GIL, so nothing else could."""
    try:
        import fcntl

        fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)  # SIGIO, whose default is to end
        if select.select([0], [], [], 0)[0]:  # it has ended already
            os._exit(0)
    except (ImportError, AttributeError, OSError):
        pass  # only Linux does this for pipes; elsewhere the end is noticed once the model is loaded


def _wait_for_end_of_input() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


def _serve(settings: dict[str, Any]) -> tuple[Any, int]:
    """The running server and its port."""
    # OpenMP's threads wait for each other thousands of times an answer. Waiting busily for long is twenty times slower
    # as soon as anything else wants the processors; not waiting busily at all costs the gain of the second thread.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    import xllamacpp

    threads = settings.get("threads") or usable_threads()
    params = xllamacpp.CommonParams()
    params.model.path = settings["path"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    options = {
        "model_alias": {settings["alias"]},
        "api_keys": [settings["api_key"]],
        "hostnames": ["127.0.0.1"],
        "hostname": "127.0.0.1",  # its name in older versions
        "port": 0,
        # Each request has all of its context to itself. Where they share one (`kv_unified`), those that together outgrow
        # it all fail in the middle of their answers.
        "n_ctx": settings["n_ctx"] * settings["n_parallel"],
        "n_parallel": settings["n_parallel"],
        "kv_unified": False,
        "cache_ram_mib": 0,  # by default up to 8 GB of old prompts
        "ui": False,
        "webui": False,  # its name in older versions
        "endpoint_slots": False,
        "warmup": False,
        "verbosity": 1,
    }
    for name, value in options.items():
        if hasattr(params, name):
            setattr(params, name, value)
    server = xllamacpp.Server(params)
    return server, int(server.listening_address.rpartition(":")[2])


def usable_threads() -> int:
    """Physical cores this process may use, at most 16: hyper-threads and a container's missing share only slow it down."""
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    if _first_word("/sys/devices/system/cpu/smt/active") == "1":
        cores /= 2
    quota, period = (_first_word("/sys/fs/cgroup/cpu.max"), _first_word("/sys/fs/cgroup/cpu.max", 1))
    if quota.isdigit() and period.isdigit() and int(period):
        cores = min(cores, int(quota) / int(period))
    return max(1, min(16, int(cores)))


def _first_word(path: str, index: int = 0) -> str:
    try:
        with open(path) as file:
            return file.read().split()[index]
    except (OSError, IndexError):
        return ""


if __name__ == "__main__":
    main()
