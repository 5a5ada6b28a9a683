"""Files on network disks, where neither shared memory nor file locks can be relied on.

Home directories of notebook servers often are on one. There a file is used by one process at a time, which holds a lock
directory beside it: `mkdir` and `unlink` are atomic on every file server. The file is opened after the lock was taken
and closed before it is given back, because a network disk promises to show others' writes only from close to open.
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
import re
import secrets
import socket
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from glob import escape
from pathlib import Path

from .errors import ErrorStore

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["LockDirectory", "file_state", "file_system", "is_write_ahead", "locks_answer", "on_network_disk"]

STALE_S = 120.0
"""A lock nobody has renewed for so long is taken over. Longer than a client may remember a file's time (60 s) and a beat."""
BEAT_S = 20.0

LOOK_AFTER_S = 1.0
"""How long a lock is waited for before its age is looked at, which costs three requests; then again as often."""

# fmt: off
_NETWORK = frozenset({
    "nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "ncpfs", "lustre", "gpfs", "mmfs", "ceph", "glusterfs", "9p", "virtiofs",
    "afs", "openafs", "coda", "beegfs", "fhgfs", "pvfs2", "orangefs", "panfs", "gfs2", "ocfs2", "davfs", "wekafs", "prl_fs",
    "vboxsf", "vmhgfs",
})
_NETWORK_FUSE = frozenset({
    "sshfs", "s3fs", "goofys", "gcsfuse", "blobfuse", "blobfuse2", "mount-s3", "rclone", "juicefs", "JuiceFS", "ceph",
    "ceph-fuse", "glusterfs", "davfs2", "smbnetfs", "grpcfuse", "osxfs", "vmhgfs-fuse", "beegfs", "alluxio-fuse", "lizardfs",
    "mfs", "moosefs",
})
# fmt: on


def on_network_disk(path: Path) -> bool:
    """Whether a file is, or would be made, on a disk that other machines may use too. Not known is no."""
    kind = file_system(path)
    return kind in _NETWORK or kind.removeprefix("fuse.") in _NETWORK_FUSE


def file_system(path: Path, mountinfo: str = "/proc/self/mountinfo") -> str:
    """The kind of file system a file's directory is on, as Linux names it; "" where nobody tells."""
    place = os.path.realpath(path.parent)
    try:
        lines = Path(mountinfo).read_bytes().splitlines()
    except OSError:
        return ""
    best, kind = "", ""
    for line in lines:  # id, parent, device, root, mount point, options, … - kind source options
        before, _, after = line.partition(b" - ")
        fields = before.split(b" ")
        if len(fields) < 5 or not after:
            continue
        mount = os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8) & 255]), fields[4]))
        inside = place == mount or place.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):  # of two at one place, the later lies on top
            best, kind = mount, os.fsdecode(after.split(b" ")[0])
    return kind


def locks_answer(directory: Path, timeout_s: float = 2.0) -> bool:
    """Whether file locks work there. A lock server that is broken may keep its caller waiting for minutes."""
    answered = threading.Event()

    def ask() -> None:
        with suppress(OSError), tempfile.TemporaryFile(dir=directory) as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            answered.set()

    if fcntl is None:
        return True
    asking = threading.Thread(target=ask, name="agentroute-locks", daemon=True)
    asking.start()
    asking.join(timeout_s)
    return answered.is_set()


def file_state(path: Path) -> tuple[int, int, bytes] | None:
    """What changes with every commit: the file, its size and its header, which counts commits. None while one is unfinished."""
    if os.path.exists(f"{path}-journal") or os.path.exists(f"{path}-wal"):
        return None
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        return status.st_ino, status.st_size, file.read(100)


def is_write_ahead(path: Path) -> bool:
    """Whether a file was left in write-ahead mode, which its header tells. Such a one was written on a local disk."""
    with open(path, "rb") as file:
        return file.read(20)[18:] == b"\2\2"


class LockDirectory:
    """A lock that all processes of all machines with this disk agree on.

    The directory holds one empty file whose name says who has the lock (machine, process, a word of its own) and whose
    time says when it was last renewed. It is made under another name and moved into place, which fails where there is one
    that is not empty: so there is never a lock without a holder. It is given back, and taken from the dead, by deleting
    the file *of this name*: of several that do so one succeeds, and nobody can delete the lock of who came next.
    """

    def __init__(self, path: str | os.PathLike[str], *, timeout_s: float) -> None:
        self._path = os.fspath(path)
        self._timeout_s = timeout_s
        self._swept = False

    @contextmanager
    def held(self, timeout_s: float | None = None) -> Iterator[Callable[[], None]]:
        """Holds the lock. Gives a function that renews it, to be called before what cannot be undone.

        `timeout_s` is how long to wait for it this time, where not as long as ever.

        Raises:
            sqlite3.OperationalError: others have it for longer than the timeout.
            ErrorStore: from the function, when the lock was taken over.
        """
        mine = self._take(self._timeout_s if timeout_s is None else timeout_s)
        done = threading.Event()

        def renew() -> None:
            try:
                os.utime(mine)  # at the server's clock; a file that is gone fails
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ESTALE):
                    raise
                why = f"this process did not renew it for {STALE_S:g} s, and another took it over"
                raise ErrorStore(f"the lock {self._path} was lost: {why}; nothing was written, try again") from error

        def beat() -> None:
            while not done.wait(BEAT_S):
                with suppress(OSError):
                    os.utime(mine)

        threading.Thread(target=beat, name="agentroute-lock", daemon=True).start()
        try:
            yield renew
        finally:
            done.set()
            _delete(mine)

    def _take(self, timeout_s: float) -> str:
        if not self._swept:
            self._sweep()
            self._swept = True
        name = f"{_machine()}~{os.getpid()}~{secrets.token_hex(4)}"
        made = f"{self._path}.{name}"
        try:
            _make(made, name)
            self._wait(made, name, timeout_s)
        except BaseException:
            _delete(f"{made}/{name}")
            raise
        return f"{self._path}/{name}"

    def _wait(self, made: str, name: str, timeout_s: float) -> None:
        begun = time.monotonic()
        pause_s, look_at = 0.001, begun + LOOK_AFTER_S
        while not self._place(made, name):
            now = time.monotonic()
            if by_age := now >= look_at:
                look_at = now + LOOK_AFTER_S
                os.utime(f"{made}/{name}")  # or it would be old when it gets its turn
            if self._delete_stale(by_age=by_age):
                continue
            if now > begun + timeout_s:
                raise sqlite3.OperationalError(f"database is locked by {self._holder()}")
            time.sleep(pause_s * random.uniform(0.5, 1.5))
            pause_s = min(pause_s * 1.5, 0.02)

    def _place(self, made: str, name: str) -> bool:
        mine = f"{self._path}/{name}"
        try:
            os.rename(made, self._path)
        except OSError as error:
            if not os.path.exists(mine):  # else the answer was lost, and asked for again
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST) or os.path.isdir(self._path):
                    return False
                raise
        if os.listdir(self._path) == [name]:
            return True
        _delete(mine)  # two directories became one: the disk moves file by file
        _make(made, name)
        return False

    def _delete_stale(self, *, by_age: bool) -> bool:
        """Whether there is no lock any more, or that of a dead process was taken from it."""
        try:
            names = os.listdir(self._path)
            if not names:  # not every disk moves a directory onto an empty one
                os.rmdir(self._path)
                return True
            return any(self._is_stale(f"{self._path}/{name}", by_age) and _delete(f"{self._path}/{name}") for name in names)
        except OSError as error:
            return error.errno == errno.ENOENT

    def _is_stale(self, holder: str, by_age: bool) -> bool:
        machine, pid, *_ = [*os.path.basename(holder).split("~"), ""]
        if machine == _machine() and pid.isdigit() and not _is_alive(int(pid)):
            return True
        return by_age and self._age_s(holder) > STALE_S

    def _sweep(self) -> None:
        """Deletes what processes left that were killed while they waited."""
        with suppress(OSError):
            for found in Path(self._path).parent.glob(f"{escape(os.path.basename(self._path))}.*~*~*"):
                for name in os.listdir(found):
                    if self._is_stale(f"{found}/{name}", True):
                        _delete(f"{found}/{name}")

    def _age_s(self, path: str) -> float:
        """By the file server's clock, which alone has set both times."""
        probe = f"{self._path}.{secrets.token_hex(4)}"
        handle = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            now = os.fstat(handle).st_mtime
        finally:
            os.close(handle)
            os.unlink(probe)
        if (age_s := now - os.stat(path).st_mtime) <= STALE_S:
            return age_s
        handle = os.open(path, os.O_RDONLY)  # asks the server: what is known here may be as old as the mount allows
        try:
            return now - os.fstat(handle).st_mtime
        finally:
            os.close(handle)

    def _holder(self) -> str:
        with suppress(OSError, ValueError, IndexError):
            machine, pid, _ = os.listdir(self._path)[0].split("~")
            return f"process {pid} on {machine.rpartition('-')[0]}"
        return "another process"


def _make(directory: str, name: str) -> None:
    os.mkdir(directory, 0o700)
    os.close(os.open(f"{directory}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600))


def _delete(holder: str) -> bool:
    """Whether it was this call that deleted it. Its directory goes too, unless it is the next holder's by now."""
    try:
        os.unlink(holder)
    except OSError:  # gone already; or the server is, and it grows stale
        deleted = False
    else:
        deleted = True
    with suppress(OSError):
        os.rmdir(os.path.dirname(holder))
    return deleted


@cache
def _machine() -> str:
    """Where a process number means the same process: this machine since it started, this namespace."""
    known = [socket.gethostname()]
    with suppress(OSError):
        known.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with suppress(OSError):
        known.append(os.readlink("/proc/self/ns/pid"))
    digest = hashlib.blake2b("\n".join(known).encode(), digest_size=4).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9.]', '-', known[0])[:60]}-{digest}"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to someone else
        return True
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return True
    return state not in (b"Z", b"X")  # dead, and nobody has asked how it ended
