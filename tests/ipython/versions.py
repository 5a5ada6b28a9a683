"""Which ipykernel and IPython a test kernel runs, and where their files come from.

The installed versions need nothing. Any other version is a wheel from the package index, unpacked once into a cache
folder (`AGENTROUTE_TEST_CACHE`, else `~/.cache/agentroute-tests`) and put in front on the kernel's PYTHONPATH.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

NEST_ASYNCIO = "nest-asyncio==1.6.0"  # ipykernel before 7.3; later ones use nest-asyncio2, which is installed
DECORATOR = "decorator==5.2.1"  # IPython before 9

# What a wheel needs beyond the packages that come with the installed versions.
NEEDS = {
    "ipykernel==6.29.5": (NEST_ASYNCIO,),
    "ipykernel==6.31.0": (NEST_ASYNCIO,),
    "ipykernel==7.1.0": (NEST_ASYNCIO,),
    "ipykernel==7.3.0": (),
    "ipython==8.20.0": (DECORATOR,),
    "ipython==8.39.0": (DECORATOR,),
}


@dataclass(frozen=True)
class KernelVersion:
    """The versions of one kernel; None is the installed one."""

    ipykernel: str | None = None
    ipython: str | None = None

    def __str__(self) -> str:
        return f"ipykernel-{self.ipykernel or 'installed'}-ipython-{self.ipython or 'installed'}"

    @property
    def pins(self) -> tuple[str, ...]:
        """Every wheel to put in front, as `name==version`; empty for the installed versions."""
        chosen = [f"{name}=={version}" for name, version in vars(self).items() if version]
        return tuple(dict.fromkeys(pin for first in chosen for pin in (first, *NEEDS[first])))

    def python_path(self) -> str:
        """The kernel's PYTHONPATH. Downloads what the cache lacks, a few seconds a wheel."""
        return os.pathsep.join(str(unpacked_wheel(pin)) for pin in self.pins)


INSTALLED = KernelVersion()
OLDEST = KernelVersion("6.29.5", "8.20.0")  # the floor that pyproject.toml promises
MATRIX = (
    *(KernelVersion(k, i) for i in (None, "8.39.0") for k in (None, "7.3.0", "7.1.0", "6.31.0", "6.29.5")),
    OLDEST,
)
EACH_KERNEL = (INSTALLED, KernelVersion("7.3.0"), KernelVersion("7.1.0", "8.39.0"), KernelVersion("6.31.0"), OLDEST)
"""Every ipykernel once, for what does not depend on IPython."""


_CACHE = Path(os.environ.get("AGENTROUTE_TEST_CACHE") or Path.home() / ".cache" / "agentroute-tests")  # before a test has a home of its own


def cache_folder() -> Path:
    return _CACHE


def unpacked_wheel(pin: str) -> Path:
    """The folder that holds the unpacked wheel of `pin`, such as `ipykernel==6.31.0`.

    The folder appears with one rename, so test processes that start together see all of it or nothing.

    Raises:
        RuntimeError: the wheel is not in the cache and pip could not download it.
    """
    target = cache_folder() / pin
    if target.is_dir():
        return target
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="download-") as folder:
        download = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", folder, pin]
        finished = subprocess.run(download, capture_output=True, text=True)
        if finished.returncode != 0:
            raise RuntimeError(f"pip could not download {pin} for the kernel tests:\n{finished.stderr}")
        (wheel,) = Path(folder).glob("*.whl")
        fresh = Path(folder, "unpacked")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(fresh)
        try:
            fresh.rename(target)
        except OSError:  # another process was first; its copy is the same
            if not target.is_dir():
                raise
    return target
