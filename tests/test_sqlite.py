"""The SQLite file that run history and memory share."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing

import pytest

from agentroute._sqlite import Database, Schema, _needs_guard
from agentroute.errors import ErrorConfig, ErrorStore


def make_notes(connection):
    connection.execute("CREATE TABLE notes (text TEXT NOT NULL) STRICT")


def add_stars(connection):
    connection.execute("ALTER TABLE notes ADD COLUMN stars INTEGER NOT NULL DEFAULT 1")


FIRST = Schema("notebook", application_id=77, migrations=(make_notes,))
SECOND = Schema("notebook", application_id=77, migrations=(make_notes, add_stars))


def write(database, text="a"):
    with database.write() as connection:
        connection.execute("INSERT INTO notes (text) VALUES (?)", (text,))


def texts(database):
    with database.read() as connection:
        return [text for (text,) in connection.execute("SELECT text FROM notes ORDER BY rowid").fetchall()]


def python(code, *arguments):
    """Runs code in another process; its stdout."""
    command = [sys.executable, "-X", "dev", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "deep" / "notes.db"


@pytest.fixture
def database(path):
    with closing(Database(path, FIRST)) as database:
        yield database


def test_nothing_is_made_before_the_first_use(path):
    Database(path, FIRST)
    assert not path.parent.parent.exists()


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_only_the_owner_may_read_the_file_its_logs_and_new_directories(path, database, umask):
    before = os.umask(umask)
    try:
        write(database)
    finally:
        os.umask(before)
    files = sorted(path.parent.iterdir())
    assert {file.name for file in files} >= {"notes.db", "notes.db-wal", "notes.db-shm"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert {stat.S_IMODE(directory.stat().st_mode) for directory in (path.parent, path.parent.parent)} == {0o700}


def test_a_directory_that_is_there_keeps_its_mode(tmp_path):
    tmp_path.chmod(0o755)
    with closing(Database(tmp_path / "notes.db", FIRST)) as database:
        write(database)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_path_begins_at_the_directory_of_its_making(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    database = Database("notes.db", FIRST)
    monkeypatch.chdir("/")
    assert database.path == tmp_path / "notes.db"


@pytest.mark.parametrize("path", ["", "a\0b", b"notes.db"])
def test_a_path_that_is_no_file_name_is_refused(path):
    with pytest.raises(ErrorConfig, match="must be a file name"):
        Database(path, FIRST)


# ---- schema -----------------------------------------------------------------------------------------------------


def test_a_new_file_carries_its_owner_and_version(path, database):
    write(database)
    names = ("application_id", "user_version", "journal_mode")
    with closing(sqlite3.connect(path)) as other:
        assert [other.execute(f"PRAGMA {name}").fetchone()[0] for name in names] == [77, 1, "wal"]


def test_an_older_file_is_migrated_and_keeps_its_rows(path, database):
    write(database, "old")
    database.close()
    with closing(Database(path, SECOND)) as newer:
        write(newer, "new")
        with newer.read() as connection:
            assert connection.execute("SELECT * FROM notes").fetchall() == [("old", 1), ("new", 1)]
            assert connection.execute("PRAGMA user_version").fetchone() == (2,)


def test_a_migration_that_fails_leaves_the_file_as_it_was(path, database):
    def spoil(connection):
        connection.execute("DELETE FROM notes")
        connection.execute("SELECT no_such_function()")

    write(database, "old")
    database.close()
    spoiling = Schema("notebook", 77, (make_notes, spoil))
    with closing(Database(path, spoiling)) as broken, pytest.raises(ErrorStore, match="no_such_function"):
        write(broken)
    assert texts(database) == ["old"]


def test_a_newer_file_is_refused_and_not_changed(path):
    with closing(Database(path, SECOND)) as newer:
        write(newer)
    before = path.read_bytes()
    with closing(Database(path, FIRST)) as older:
        with pytest.raises(ErrorStore, match=r"notes\.db.*newer agentroute.*version 2.*upgrade"):
            write(older)
        with pytest.raises(ErrorStore, match="newer"):
            texts(older)
    assert path.read_bytes() == before


@pytest.mark.parametrize("pragma", ["application_id=5", "user_version=1", "user_version=0"])
def test_a_file_of_another_application_is_refused_and_not_changed(tmp_path, pragma):
    path = tmp_path / "theirs.db"
    with closing(sqlite3.connect(path)) as theirs:
        theirs.execute("CREATE TABLE notes (mine)")
        theirs.execute(f"PRAGMA {pragma}")
    before = path.read_bytes()
    with (
        closing(Database(path, FIRST)) as database,
        pytest.raises(ErrorStore, match=r"theirs\.db belongs to another application"),
    ):
        write(database)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["theirs.db"]


@pytest.mark.parametrize(
    "content",
    [b"x", b"no database at all\n" * 100, b"SQLite format 3\0", bytes(range(256)) * 32],
    ids=["byte", "text", "head", "noise"],
)
def test_a_file_that_is_no_database_is_named_and_not_changed(tmp_path, content):
    path = tmp_path / "garbage.db"
    path.write_bytes(content)
    with closing(Database(path, FIRST)) as database, pytest.raises(ErrorStore, match=r"garbage\.db cannot be written"):
        write(database)
    assert path.read_bytes() == content


def test_a_damaged_file_is_named(path, database):
    for _ in range(200):
        write(database, "a" * 100)
    database.close()
    content = path.read_bytes()
    path.write_bytes(content[:2000] + b"\xff" * (len(content) - 2000))
    with pytest.raises(ErrorStore, match=r"notes\.db cannot be read: .*malformed"):
        texts(database)


def test_an_empty_file_is_taken(tmp_path):
    path = tmp_path / "touched.db"
    path.touch()
    with closing(Database(path, FIRST)) as database:
        write(database)
        assert texts(database) == ["a"]


# ---- places that cannot be used ---------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["/proc/no/notes.db", "/dev/full", "/dev/null/notes.db", "/etc"])
def test_a_place_that_cannot_hold_the_file_is_named(place):
    with closing(Database(place, FIRST)) as database, pytest.raises(ErrorStore, match=place):
        write(database)


def test_a_pipe_is_refused_without_waiting_for_its_other_end(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with closing(Database(tmp_path / "pipe", FIRST)) as database, pytest.raises(ErrorStore, match="no regular file"):
        write(database)


def test_a_full_disk_costs_only_the_write_that_did_not_fit(path):
    code = """
import resource, sys
from tests.test_sqlite import *
database = Database(sys.argv[1], FIRST)
write(database, "before")
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    write(database, "x" * 200_000)
except ErrorStore as error:
    print("make room" in str(error), texts(database))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
write(database, "after")
print(texts(database))
"""
    assert python(code, path) == "True ['before']\n['before', 'after']\n"


# ---- transactions and locks -------------------------------------------------------------------------------------


def test_a_write_that_fails_leaves_nothing(database):
    def fail():
        with database.write() as connection:
            connection.execute("DELETE FROM notes")
            raise KeyError

    write(database)
    with pytest.raises(KeyError):
        fail()
    assert texts(database) == ["a"]


def test_a_read_sees_one_state_of_the_file(database):
    write(database)
    with database.read() as connection:
        connection.execute("SELECT * FROM notes").fetchall()
        write(database, "later")
        assert connection.execute("SELECT count(*) FROM notes").fetchone() == (1,)
    assert texts(database) == ["a", "later"]


def test_unfinished_reads_are_named_instead_of_waiting_for_ever(path):
    with closing(Database(path, FIRST, timeout_s=0.01)) as database:
        write(database)
        reads = [database.read() for _ in range(4)]
        for read in reads:
            read.__enter__()
        with pytest.raises(ErrorStore, match="close unfinished reads"):
            write(database)
        for read in reads:
            read.__exit__(None, None, None)
        write(database)


HOLD = """
import sqlite3, sys, fcntl, os
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE" if sys.argv[2] == "database" else "SELECT 1")
guard = os.open(sys.argv[1] + "-lock", os.O_RDWR | os.O_CREAT)
fcntl.flock(guard, fcntl.LOCK_EX if sys.argv[2] == "guard" else fcntl.LOCK_UN)
print("locked", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def lock(path):
    """Starts a process that locks the file until it is told to end."""
    holders = []

    def start(what):
        command = [sys.executable, "-c", HOLD, str(path), what]
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        holders.append(holder)
        assert holder.stdout.readline() == "locked\n"
        return lambda: holder.communicate("end\n")

    yield start
    for holder in holders:
        holder.communicate()


guarded = pytest.mark.skipif(not _needs_guard(sqlite3.sqlite_version_info), reason="this SQLite needs no guard")


@pytest.mark.parametrize("what", ["database", pytest.param("guard", marks=guarded)])
def test_a_lock_of_another_process_is_named_after_a_while(path, lock, what):
    with closing(Database(path, FIRST, timeout_s=0.1)) as database:
        write(database)
        release = lock(what)
        with pytest.raises(ErrorStore, match=r"notes\.db.*locked by another process for more than 0\.1 s"):
            write(database, "late")
        release()
        write(database, "b")
        assert texts(database) == ["a", "b"]


@pytest.mark.parametrize("what", ["database", pytest.param("guard", marks=guarded)])
def test_a_lock_of_another_process_is_waited_for(database, lock, what):
    write(database)
    release = lock(what)
    writer = threading.Thread(target=write, args=(database, "waited"))
    writer.start()
    release()
    writer.join()
    assert texts(database) == ["a", "waited"]


def test_eight_threads_write_to_one_file(database):
    threads = [threading.Thread(target=lambda: [write(database) for _ in range(25)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts(database) == ["a"] * 200


def test_processes_that_start_at_once_lose_nothing(path, database):
    code = "import sys; from tests.test_sqlite import *; d = Database(sys.argv[1], FIRST); [write(d) for _ in range(100)]"
    processes = [subprocess.Popen([sys.executable, "-c", code, str(path)]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert texts(database) == ["a"] * 300


def test_what_was_acknowledged_survives_kill_9(path, database):
    code = """
import sys, itertools
from tests.test_sqlite import *
database = Database(sys.argv[1], FIRST)
for number in itertools.count():
    write(database, str(number))
    print(number, flush=True)
"""
    writer = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    acknowledged = [writer.stdout.readline().strip() for _ in range(300)]
    writer.send_signal(signal.SIGKILL)
    acknowledged += writer.communicate()[0].split()
    kept = texts(database)
    assert kept[: len(acknowledged)] == acknowledged
    assert len(kept) <= len(acknowledged) + 1
    with database.read() as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_the_log_is_taken_into_the_file_now_and_then(path, database):
    for _ in range(6):
        write(database, "x" * 1_000_000)
    assert path.stat().st_size > 4_000_000
    assert path.with_name("notes.db-wal").stat().st_size < 6_000_000


@pytest.mark.parametrize(
    ("version", "needed"),
    [
        ((3, 40, 1), True), ((3, 44, 5), True), ((3, 44, 6), False), ((3, 45, 0), True), ((3, 50, 6), True),
        ((3, 50, 7), False), ((3, 51, 2), True), ((3, 51, 3), False), ((4, 0, 0), False),
    ],
)  # fmt: skip
def test_the_guard_is_held_where_sqlite_needs_it(version, needed):
    assert _needs_guard(version) is needed


@pytest.mark.parametrize("needed", [True, False])
def test_both_kinds_of_sqlite_share_a_file(path, monkeypatch, needed):
    with closing(Database(path, FIRST)) as first, closing(Database(path, FIRST)) as second:
        write(first)
        monkeypatch.setattr("agentroute._sqlite._needs_guard", lambda version: needed)
        write(second, "b")
        write(first, "c")
        assert texts(second) == ["a", "b", "c"]


# ---- lifetime ---------------------------------------------------------------------------------------------------


def forked(work):
    """Runs work in a forked child; its exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_opens_the_file_anew(database):
    write(database, "parent")
    assert forked(lambda: write(database, "child")) == 0
    write(database, "parent again")
    assert texts(database) == ["parent", "child", "parent again"]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_that_drops_the_database_leaves_the_parent_alone(path):
    code = """
import os, sys
from tests.test_sqlite import *
database = Database(sys.argv[1], FIRST)
write(database)
if os.fork() == 0:
    database.close()
    del database
    sys.exit()
os.wait()
write(database, "b")
print(texts(database))
"""
    assert python(code, path) == "['a', 'b']\n"


def test_a_deleted_file_is_made_anew(path, database):
    write(database, "lost")
    path.unlink()
    write(database, "new")
    assert texts(database) == ["new"]


def test_closing_twice_is_fine_and_using_it_later_opens_it_again(database):
    write(database)
    database.close()
    database.close()
    assert texts(database) == ["a"]


def test_a_forgotten_close_says_nothing_at_exit(path):
    assert python("import sys; from tests.test_sqlite import *; d = Database(sys.argv[1], FIRST); write(d)", path) == ""
    assert sorted(file.name for file in path.parent.iterdir() if file.suffix != ".db-lock") == ["notes.db"]


def test_a_database_in_ram_is_one_for_all_threads():
    database = Database(":memory:", FIRST)
    write(database)
    thread = threading.Thread(target=write, args=(database, "b"))
    thread.start()
    thread.join()
    with pytest.raises(ErrorStore, match="no such table"), database.write() as connection:
        connection.execute("SELECT * FROM absent")
    assert texts(database) == ["a", "b"]
