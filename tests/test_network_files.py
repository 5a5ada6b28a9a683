"""Files on network disks: told by their file system, used by one process at a time under a lock of our own."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

import agentroute._network_files as network_files
from agentroute._network_files import LockDirectory, file_system, locks_answer, on_network_disk
from agentroute._sqlite import Database
from agentroute.errors import ErrorStore
from tests.test_sqlite import FIRST, SECOND, older, rows_of, texts, write

# ---- which disk -------------------------------------------------------------------------------------------------

MOUNTS = r"""
1 0 254:0 / / rw,relatime - ext4 /dev/vda rw
2 1 0:21 / /proc rw,nosuid shared:5 - proc proc rw
3 1 0:50 / /home rw,relatime shared:9 master:1 - nfs4 server:/export/home rw,vers=4.2
4 3 0:51 / /home/local rw - xfs /dev/vdb rw
5 1 0:52 / /mnt/my\040share\134x rw - cifs //server/share rw
6 1 0:53 / /data rw - ext4 /dev/vdc rw
7 6 0:54 / /data rw - fuse.sshfs host: rw
8 1 0:55 / /homes rw - fuse.s3fs s3fs rw
not a line of a mount
9 1 0:56 / /cut
"""


@pytest.fixture
def mountinfo(tmp_path):
    (tmp_path / "mountinfo").write_text(MOUNTS)
    return str(tmp_path / "mountinfo")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/runs.db", "ext4"),
        ("/home/me/.agentroute/runs.db", "nfs4"),  # no such directories: it is about where they would be made
        ("/home/runs.db", "nfs4"),
        ("/home/local/runs.db", "xfs"),
        ("/home/localised/runs.db", "nfs4"),
        ("/homes/me/runs.db", "fuse.s3fs"),
        ("/mnt/my share\\x/runs.db", "cifs"),
        ("/data/runs.db", "fuse.sshfs"),
        ("/cut/runs.db", "ext4"),
    ],
)
def test_the_innermost_mount_tells_the_file_system(mountinfo, path, kind):
    assert file_system(Path(path), mountinfo) == kind


def test_a_link_to_a_network_disk_is_one(tmp_path, mountinfo):
    (tmp_path / "link").symlink_to("/home/me")
    assert file_system(tmp_path / "link" / "runs.db", mountinfo) == "nfs4"


def test_a_system_that_tells_no_mounts_has_local_disks(monkeypatch, tmp_path):
    assert file_system(tmp_path / "runs.db", "/no/such/mountinfo") == ""
    monkeypatch.setattr(network_files, "file_system", lambda path: "")
    assert not on_network_disk(tmp_path / "runs.db")


def test_this_machine_tells_its_mounts():
    assert file_system(Path("/proc/self/x")) == "proc"
    assert not on_network_disk(Path("/proc/self/x"))


NETWORK = ["nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "ceph", "glusterfs", "9p", "afs", "beegfs", "virtiofs"]
FUSE = ["fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.rclone", "fuse.gcsfuse", "fuse.juicefs", "fuse.grpcfuse"]


@pytest.mark.parametrize("kind", NETWORK + FUSE)
def test_file_systems_of_several_machines_are_known(monkeypatch, tmp_path, kind):
    monkeypatch.setattr(network_files, "file_system", lambda path: kind)
    assert on_network_disk(tmp_path / "runs.db")


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "overlay", "tmpfs", "fuseblk", "fuse.fuse-overlayfs", "apfs"])
def test_local_file_systems_are_known(monkeypatch, tmp_path, kind):
    monkeypatch.setattr(network_files, "file_system", lambda path: kind)
    assert not on_network_disk(tmp_path / "runs.db")


def test_locks_that_answer_are_told_from_those_that_keep_their_caller_waiting(monkeypatch, tmp_path):
    assert locks_answer(tmp_path)
    never = threading.Event()
    monkeypatch.setattr(network_files.fcntl, "lockf", lambda *arguments: never.wait())
    assert not locks_answer(tmp_path, timeout_s=0.01)
    never.set()


def test_locks_that_are_refused_do_not_answer(monkeypatch, tmp_path):
    def refused(*arguments):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(network_files.fcntl, "lockf", refused)
    assert not locks_answer(tmp_path)
    assert list(tmp_path.iterdir()) == []


# ---- the lock ---------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path):
    return tmp_path / "lock.d"


def lock(place, timeout_s=0.05):
    return LockDirectory(place, timeout_s=timeout_s)


def left_by(place, holder, age_s):
    """A lock that somebody took so long ago."""
    place.mkdir()
    (place / holder).touch()
    os.utime(place / holder, (time.time() - age_s,) * 2)


@pytest.fixture
def impatient(monkeypatch):
    """Ages are looked at from the start."""
    monkeypatch.setattr(network_files, "LOOK_AFTER_S", 0)


def test_a_lock_excludes_and_its_holder_is_named(place):
    with (
        lock(place).held(),
        pytest.raises(sqlite3.OperationalError, match=f"locked by process {os.getpid()} on "),
        lock(place).held(),
    ):
        pass
    with lock(place).held():
        pass


def test_nothing_is_left_of_a_lock(place):
    def fail():
        with lock(place).held():
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(place.parent.iterdir()) == []


@pytest.mark.parametrize("reaped", [True, False])
def test_the_lock_of_a_process_killed_on_this_machine_is_taken_over_at_once(place, reaped):
    code = """
import sys
from agentroute._network_files import LockDirectory
with LockDirectory(sys.argv[1], timeout_s=1).held():
    print("held", flush=True)
    sys.stdin.read()
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code, str(place)], **pipes) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(sqlite3.OperationalError), lock(place).held():
            pass
        holder.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, holder.pid, os.WEXITED | (0 if reaped else os.WNOWAIT))
        with lock(place).held():
            pass
    assert list(place.parent.iterdir()) == []


@pytest.mark.parametrize(("holder", "age_s"), [("elsewhere-00~1~aa", 130), ("not one of ours", 130)])
def test_a_lock_nobody_renews_is_taken_over(place, impatient, holder, age_s):
    left_by(place, holder, age_s)
    with lock(place).held():
        assert [name.split("~")[1] for name in os.listdir(place)] == [str(os.getpid())]
    assert list(place.parent.iterdir()) == []


@pytest.mark.parametrize(("holder", "age_s"), [("elsewhere-00~1~aa", 90), (f"elsewhere-00~{2**22 + 1}~aa", 90)])
def test_a_lock_that_may_still_be_held_is_respected(place, impatient, holder, age_s):
    left_by(place, holder, age_s)
    with pytest.raises(sqlite3.OperationalError, match="locked by"), lock(place).held():
        pass
    assert [file.name for file in place.parent.iterdir()] == ["lock.d"]


def test_the_age_is_told_by_the_clock_of_the_file_server(place, impatient, monkeypatch):
    left_by(place, "elsewhere-00~1~aa", 90)
    wrong = time.time() + 10_000
    monkeypatch.setattr(time, "time", lambda: wrong)
    with pytest.raises(sqlite3.OperationalError), lock(place).held():
        pass


def test_of_many_who_take_over_one_has_the_lock_at_a_time(place, impatient):
    inside, most, done = [], [], []

    def work():
        for _ in range(20):
            with lock(place, timeout_s=60).held():
                inside.append(1)
                most.append(len(inside))
                time.sleep(0)
                inside.pop()
                done.append(1)

    left_by(place, "elsewhere-00~1~aa", 130)
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(done), max(most)) == (160, 1)


def test_on_a_disk_that_moves_file_by_file_two_never_have_the_lock(place, monkeypatch):
    def merge(old, new):
        for name in os.listdir(old):
            rename(f"{old}/{name}", f"{new}/{name}")
        os.rmdir(old)

    rename = os.rename
    with lock(place).held():
        before = os.listdir(place)
        monkeypatch.setattr(os, "rename", merge)
        with pytest.raises(sqlite3.OperationalError), lock(place).held():
            pass
        assert os.listdir(place) == before
    assert list(place.parent.iterdir()) == []


def test_a_disk_that_moves_no_directory_onto_an_empty_one_works(place, monkeypatch):
    def strict(old, new):
        if os.path.exists(new):
            raise FileExistsError(17, "File exists")
        rename(old, new)

    rename = os.rename
    monkeypatch.setattr(os, "rename", strict)
    place.mkdir()
    with lock(place).held(), pytest.raises(sqlite3.OperationalError), lock(place).held():
        pass
    with lock(place).held():
        pass


def test_what_a_process_left_that_was_killed_while_it_waited_is_deleted(place):
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True).stdout.strip()
    alive = f"{network_files._machine()}~{os.getpid()}~aa"
    left_by(place.with_name(f"lock.d.{network_files._machine()}~{dead}~aa"), f"{network_files._machine()}~{dead}~aa", 0)
    left_by(place.with_name("lock.d.elsewhere-00~1~aa"), "elsewhere-00~1~aa", 130)
    left_by(place.with_name(f"lock.d.{alive}"), alive, 0)
    with lock(place).held():
        pass
    assert [file.name for file in place.parent.iterdir()] == [f"lock.d.{alive}"]


def taken_over(place):
    """Another machine takes the lock over, as it does from a process that was asleep for too long."""
    for name in os.listdir(place):
        (place / name).rename(place / "elsewhere-00~1~aa")


def test_who_has_lost_the_lock_is_told_and_does_not_give_it_back(place):
    with lock(place).held() as renew:
        renew()
        taken_over(place)
        with pytest.raises(ErrorStore, match=r"lock\.d was lost: .*nothing was written"):
            renew()
    assert os.listdir(place) == ["elsewhere-00~1~aa"]


def test_a_lock_that_is_held_is_renewed(place, monkeypatch):
    monkeypatch.setattr(network_files, "BEAT_S", 0.001)
    with lock(place).held():
        (holder,) = place.iterdir()
        os.utime(holder, (0, 0))
        while holder.stat().st_mtime == 0:  # the test's time limit ends it
            time.sleep(0.001)


def test_without_room_for_the_lock_nothing_is_left(place, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(network_files.os, "open", full)
    with pytest.raises(OSError, match="No space"), lock(place).held():
        pass
    assert list(place.parent.iterdir()) == []


# ---- a database on such a disk ----------------------------------------------------------------------------------


@pytest.fixture(params=[True, False], ids=["locks", "nolocks"])
def networked(request, monkeypatch):
    """Every disk is a network disk now; on one half of them SQLite's own locks do not answer."""
    monkeypatch.setattr("agentroute._sqlite.on_network_disk", lambda path: True)
    monkeypatch.setattr("agentroute._sqlite.locks_answer", lambda directory: request.param)
    return f"""
import sys
import agentroute._sqlite as sqlite
from tests.test_network_files import *
sqlite.on_network_disk = lambda path: True
sqlite.locks_answer = lambda directory: {request.param}
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "no?tes %41.db"


@pytest.fixture
def database(networked, path):
    with closing(Database(path, FIRST)) as database:
        yield database


def names(path):
    return sorted(file.name for file in path.parent.iterdir())


def test_there_is_no_log_and_nothing_beside_the_file_between_uses(path, database):
    write(database)
    write(database, "b")
    assert texts(database) == ["a", "b"]
    assert names(path) == [path.name]
    assert path.read_bytes()[18:20] == b"\1\1"
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_file_is_not_open_between_uses(path, database):
    write(database)
    opened = []
    for handle in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            opened.append(os.readlink(handle))
    assert str(path) not in opened


def test_a_write_that_fails_leaves_nothing(path, database):
    def fail():
        with database.write() as connection:
            connection.execute("DELETE FROM notes")
            raise KeyError

    write(database)
    with pytest.raises(KeyError):
        fail()
    assert texts(database) == ["a"]
    assert names(path) == [path.name]


def test_a_write_whose_lock_was_lost_writes_nothing(path, database):
    """Nothing before its end either, however much it is: the next holder reads and writes the same file."""

    def asleep():
        with database.write() as connection:
            connection.execute("UPDATE notes SET text = upper(text)")
            taken_over(place)
            seen.append(path.read_bytes() == before)

    place, seen = Path(f"{path}-lock.d"), []
    write(database)
    with database.write() as connection:
        connection.executemany("INSERT INTO notes (text) VALUES (?)", [("b" * 3000,)] * 2000)
    before = path.read_bytes()
    with pytest.raises(ErrorStore, match="was lost"):
        asleep()
    assert (seen, path.read_bytes() == before) == ([True], True)
    assert os.listdir(place) == ["elsewhere-00~1~aa"]


def test_an_upgrade_whose_lock_was_lost_changes_nothing(networked, path):
    def asleep(connection):
        connection.execute("DELETE FROM notes")
        taken_over(Path(f"{path}-lock.d"))

    older(path, "old")
    with (
        closing(Database(path, type(FIRST)("notebook", 77, (*FIRST.migrations, asleep)))) as database,
        pytest.raises(ErrorStore, match="lost"),
    ):
        write(database)
    assert rows_of_quoted(path) == ["old"]


def rows_of_quoted(path):
    """As `rows_of`, of a name that an URI would not take."""
    copy = path.with_name("copy.db")
    copy.write_bytes(path.read_bytes())
    return rows_of(copy)


def test_a_slow_reader_keeps_nobody_waiting_and_sees_one_state(path, database):
    write(database)
    with database.read(slow=True) as connection, closing(Database(path, FIRST, timeout_s=0.5)) as other:
        assert names(path) == [path.name]
        write(other, "later")
        assert connection.execute("SELECT text FROM notes").fetchall() == [("a",)]
    with database.read(slow=True) as connection:
        assert connection.execute("SELECT text FROM notes").fetchall() == [("a",), ("later",)]


def test_a_quick_reader_is_alone_with_the_file(path, database):
    write(database)
    with (
        closing(Database(path, FIRST, timeout_s=0.05)) as other,
        database.read(),
        pytest.raises(ErrorStore, match=r"locked by process \d+ on "),
    ):
        write(other)
    assert texts(database) == ["a"]


def test_a_file_nobody_wrote_to_is_copied_once(path, database):
    def copy():
        with database.read(slow=True) as connection:
            return connection

    write(database)
    first = copy()
    assert copy() is first
    with closing(Database(path, FIRST)) as other:
        write(other, "b")
    assert copy() is not first
    with database.read(slow=True) as connection:
        assert connection.execute("SELECT count(*) FROM notes").fetchone() == (2,)


def test_a_file_from_a_local_disk_is_taken_with_what_is_in_its_log(path, monkeypatch, networked):
    monkeypatch.setattr("agentroute._sqlite.on_network_disk", lambda path: False)
    local = """
import os, sys
from tests.test_sqlite import *
database = Database(sys.argv[1], FIRST)
write(database, "in the log")
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", local, str(path)], check=True)
    assert names(path)[-1].endswith("-wal")
    monkeypatch.setattr("agentroute._sqlite.on_network_disk", lambda path: True)
    with closing(Database(path, FIRST)) as database:
        assert texts(database) == ["in the log"]
        write(database, "b")
    assert [name for name in names(path) if name.endswith("-wal")] == []
    monkeypatch.setattr("agentroute._sqlite.on_network_disk", lambda path: False)
    with closing(Database(path, FIRST)) as database:
        write(database, "c")
        assert texts(database) == ["in the log", "b", "c"]
        assert path.read_bytes()[18:20] == b"\2\2"


@pytest.mark.parametrize("slow", [True, False])
def test_what_a_killed_process_had_half_written_is_undone(path, database, slow):
    with database.write() as connection:
        connection.executemany("INSERT INTO notes (text) VALUES (?)", [(f"{number} " * 200,) for number in range(200)])
    before = texts(database)
    killed = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size=1")
connection.execute("BEGIN")
connection.execute("UPDATE notes SET text = 'half written ' || text")
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", killed, str(path)], check=True)
    assert b"half written" in path.read_bytes()
    with database.read(slow=slow) as connection:
        assert [text for (text,) in connection.execute("SELECT text FROM notes ORDER BY rowid")] == before
    assert b"half written" not in path.read_bytes()
    assert names(path) == [path.name]


def test_an_older_file_is_upgraded_and_kept(path, monkeypatch, networked):
    older(path, "old")
    with closing(Database(path, SECOND)) as database:
        write(database, "new")
        assert texts(database) == ["old", "new"]
    kept = path.with_name(f"{path.name}.v1.bak")
    assert names(path) == [path.name, kept.name]
    assert rows_of_quoted(kept) == ["old"]


def test_backup_check_and_erase_work_there_too(path, database, tmp_path):
    write(database, "secret")
    database.backup(tmp_path / "copy.db")
    assert rows_of(tmp_path / "copy.db") == ["secret"]
    with database.write(erase=True) as connection:
        connection.execute("DELETE FROM notes")
    assert b"secret" not in path.read_bytes()
    assert database.check() == []
    assert database.compact()
    assert names(path) == [path.name]


def test_processes_that_write_at_once_lose_nothing(networked, path, database):
    code = f"{networked}\nd = Database(sys.argv[1], FIRST, timeout_s=60)\nfor n in range(200): write(d, sys.argv[2])"
    processes = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in "ab"]
    assert [process.wait() for process in processes] == [0, 0]
    assert sorted(texts(database)) == ["a"] * 200 + ["b"] * 200
    assert database.check() == []
    assert names(path) == [path.name]


@pytest.mark.parametrize("count", [1, 17, 60])
def test_what_was_acknowledged_survives_kill_9_and_others_go_on(networked, path, database, count):
    code = f"""{networked}
from itertools import count
database = Database(sys.argv[1], FIRST)
for number in count():
    write(database, str(number))
    print(number, flush=True)
"""
    writer = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    acknowledged = [writer.stdout.readline().strip() for _ in range(count)]
    writer.send_signal(signal.SIGKILL)
    acknowledged += writer.communicate()[0].split()
    write(database, "goes on")
    kept = texts(database)
    assert kept[: len(acknowledged)] == acknowledged
    assert kept[-1] == "goes on"
    assert len(kept) <= len(acknowledged) + 2
    assert database.check() == []


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_and_its_parent_go_on(database):
    from tests.test_sqlite import forked

    write(database, "parent")
    with database.read(slow=True):
        pass
    assert forked(lambda: write(database, "child")) == 0
    write(database, "parent again")
    assert texts(database) == ["parent", "child", "parent again"]
