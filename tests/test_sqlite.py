"""The SQLite file that run history and memory share."""

import fcntl
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from agentroute._connection_pool import Turns, create_file
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


# ---- copies before an upgrade -----------------------------------------------------------------------------------


def older(path, *rows):
    """A file of the first version, closed."""
    with closing(Database(path, FIRST)) as database:
        for row in rows:
            write(database, row)


def upgraded(path):
    """The rows after an upgrade."""
    with closing(Database(path, SECOND)) as newer:
        return texts(newer)


def copies(path):
    return sorted(file.name for file in path.parent.iterdir() if ".bak" in file.name or ".part" in file.name)


def rows_of(path):
    """Read by SQLite alone, of a file that is whole without logs and makes none."""
    assert path.read_bytes()[18:20] == b"\1\1"
    with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as connection:
        return [text for (text,) in connection.execute("SELECT text FROM notes ORDER BY rowid")]


def test_an_older_file_is_kept_as_it_was_before_it_changes(path):
    older(path, "one", "two")
    assert upgraded(path) == ["one", "two"]
    kept = path.with_name("notes.db.v1.bak")
    assert copies(path) == ["notes.db.v1.bak"]
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert rows_of(kept) == ["one", "two"]
    with closing(Database(kept, FIRST)) as database:
        write(database, "goes on")
        assert texts(database) == ["one", "two", "goes on"]


def test_a_copy_has_what_is_in_the_log_only(path):
    with closing(Database(path, FIRST)) as database:
        write(database, "in the log")
        assert upgraded(path) == ["in the log"]
    assert rows_of(path.with_name("notes.db.v1.bak")) == ["in the log"]


def test_a_new_file_and_one_of_today_are_not_copied(path):
    with closing(Database(path, SECOND)) as database:
        write(database)
    assert upgraded(path) == ["a"]
    assert copies(path) == []


def test_a_copy_that_is_there_is_not_overwritten(path):
    older(path, "first")
    upgraded(path)
    path.unlink()
    older(path, "second")
    upgraded(path)
    assert copies(path) == ["notes.db.v1.2.bak", "notes.db.v1.bak"]
    assert [rows_of(path.with_name(name)) for name in copies(path)] == [["second"], ["first"]]


def test_an_upgrade_that_fails_leaves_no_copy(path):
    def spoil(connection):
        connection.execute("DELETE FROM notes")
        connection.execute("SELECT no_such_function()")

    older(path, "old")
    with closing(Database(path, Schema("notebook", 77, (make_notes, spoil)))) as broken, pytest.raises(ErrorStore):
        write(broken)
    assert copies(path) == []
    assert upgraded(path) == ["old"]


def test_without_room_for_a_copy_nothing_is_upgraded(path):
    older(path, "x" * 200_000)
    code = """
import resource, sys
from tests.test_sqlite import *
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    upgraded(path := __import__("pathlib").Path(sys.argv[1]))
except ErrorStore as error:
    print(error, copies(path))
"""
    said = python(code, path)
    assert "older version and was left as it is" in said
    assert "make room beside it" in said
    assert said.endswith("[]\n")
    with closing(Database(path, FIRST)) as database:
        assert texts(database) == ["x" * 200_000]


def test_processes_that_upgrade_at_once_make_one_upgrade_and_one_copy(path):
    older(path, *["row"] * 50)
    code = "import sys; from tests.test_sqlite import *; d = Database(sys.argv[1], SECOND, timeout_s=60); write(d, 'new'); print(len(texts(d)))"
    processes = [subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.DEVNULL) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert copies(path) == ["notes.db.v1.bak"]
    assert rows_of(path.with_name("notes.db.v1.bak")) == ["row"] * 50
    assert upgraded(path) == ["row"] * 50 + ["new"] * 3


def test_who_comes_second_to_an_upgrade_finds_it_done(path):
    class Together(Schema):
        def is_old(self, connection, name):
            found = super().is_old(connection, name)
            both_found.wait()
            return found

    older(path, "old")
    both_found, read = threading.Barrier(2), []
    schema = Together("notebook", 77, SECOND.migrations)
    with closing(Database(path, schema)) as first, closing(Database(path, schema)) as second:
        threads = [
            threading.Thread(target=lambda database=database: read.extend(texts(database))) for database in (first, second)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert read == ["old", "old"]
    assert copies(path) == ["notes.db.v1.bak"]


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


# ---- backup, check, erase ---------------------------------------------------------------------------------------


def test_a_backup_is_whole_in_one_file_for_its_owner(path, database, tmp_path):
    write(database, "kept")
    with database.write() as connection:
        connection.execute("INSERT INTO notes (text) VALUES ('not committed')")
        with closing(Database(path, FIRST)) as other:
            other.backup(tmp_path / "copy.db")
    write(database, "later")
    assert [file.name for file in tmp_path.glob("copy*")] == ["copy.db"]
    assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == 0o600
    assert rows_of(tmp_path / "copy.db") == ["kept"]
    with closing(Database(tmp_path / "copy.db", FIRST)) as copy:
        assert (texts(copy), copy.check()) == (["kept"], [])


def test_a_database_in_ram_can_be_backed_up(tmp_path):
    database = Database(":memory:", FIRST)
    write(database)
    database.backup(str(tmp_path / "copy.db"))
    assert rows_of(tmp_path / "copy.db") == ["a"]


def test_a_backup_overwrites_nothing(database, tmp_path):
    write(database)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ErrorStore, match=r"mine\.txt exists already"):
        database.backup(tmp_path / "mine.txt")
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_there_is_no_backup_of_a_file_that_does_not_exist(path, database, tmp_path):
    with pytest.raises(ErrorStore, match="does not exist yet"):
        database.backup(tmp_path / "copy.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["/proc/copy.db", "/no/such/copy.db", "/dev/null/copy.db"])
def test_a_place_that_cannot_hold_the_backup_is_named(database, place):
    write(database)
    with pytest.raises(ErrorStore, match=f"cannot be copied to {place}"):
        database.backup(place)


def test_a_backup_that_does_not_fit_leaves_nothing(path):
    code = """
import resource, sys
from tests.test_sqlite import *
database = Database(sys.argv[1], FIRST)
write(database, "x" * 200_000)
database.close()
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    database.backup(sys.argv[1] + ".copy")
except ErrorStore as error:
    print("cannot be copied to" in str(error), "make room" in str(error))
"""
    assert python(code, path) == "True True\n"
    assert list(path.parent.glob("*.copy*")) == []


def test_a_sound_file_has_no_findings(database):
    write(database)
    assert database.check() == []


def test_a_file_that_does_not_exist_has_no_findings_and_is_not_made(path, database):
    assert database.check() == []
    assert not path.parent.exists()


@pytest.mark.parametrize("start", [2_000, 8_192], ids=["first page", "later page"])
def test_damage_is_found(path, start):
    older(path, *["a" * 100] * 400)
    content = path.read_bytes()
    path.write_bytes(content[:start] + b"\xff" * (len(content) - start))
    with closing(Database(path, FIRST)) as database:
        assert database.check() != []


def traces(path, text):
    """How often a text is in the file and its log."""
    files = [path, path.with_name(f"{path.name}-wal")]
    return sum(file.read_bytes().count(text.encode()) for file in files if file.exists())


@pytest.mark.parametrize("repeats", [1, 2_000], ids=["short", "long"])
def test_what_is_erased_leaves_no_trace(path, database, repeats):
    """Neither of the last state of a row nor of earlier ones, nor of what moved when pages were split."""
    for number in range(300):
        write(database, f"public{number}" * 20)
    write(database, "secret-one " * repeats)
    with database.write() as connection:
        connection.execute("UPDATE notes SET text = ? WHERE text LIKE 'secret%'", ("secret-two " * repeats,))
    write(database, "after")
    assert traces(path, "secret-") > 0
    with database.write(erase=True) as connection:
        connection.execute("DELETE FROM notes WHERE text LIKE 'secret%'")
    assert traces(path, "secret-") == 0
    assert len(texts(database)) == 301


def test_compacting_gives_room_back_and_leaves_no_trace(path, database, monkeypatch):
    """Also of what was deleted before `secure_delete` was on: other programs, and other builds of SQLite, leave it off."""
    monkeypatch.setattr("agentroute._sqlite.ERASE_WAIT_MS", 1)
    for number in range(300):
        write(database, f"secret{number}" * 20)
    database.close()
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("PRAGMA secure_delete=OFF")
        other.execute("DELETE FROM notes")
    before = path.stat().st_size
    assert traces(path, "secret") > 0
    with database.read() as reading:
        reading.execute("SELECT * FROM notes").fetchall()
        assert not database.compact()
    assert database.compact()
    assert traces(path, "secret") == 0
    assert path.stat().st_size < before / 2


def test_what_a_reader_keeps_from_being_erased_is_gone_after_the_next_write(path, database, monkeypatch):
    monkeypatch.setattr("agentroute._sqlite.ERASE_WAIT_MS", 1)
    write(database, "secret")
    with database.read() as reading:
        assert reading.execute("SELECT text FROM notes").fetchall() == [("secret",)]
        with database.write(erase=True) as connection:
            connection.execute("DELETE FROM notes")
        assert traces(path, "secret") > 0
    write(database, "next")
    assert traces(path, "secret") == 0


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


def test_writers_that_wait_for_each_other_keep_no_reader_waiting(path):
    with closing(Database(path, FIRST, timeout_s=30.0)) as database:
        write(database)
        inside, end = threading.Event(), threading.Event()

        def slow():
            with database.write() as connection:
                connection.execute("INSERT INTO notes (text) VALUES ('slow')")
                inside.set()
                end.wait()

        threads = [threading.Thread(target=slow)] + [threading.Thread(target=write, args=(database,)) for _ in range(8)]
        threads[0].start()
        inside.wait()
        for thread in threads[1:]:
            thread.start()
        while len(database._pool.writers._waiting) < 8:
            time.sleep(0.001)
        assert texts(database) == ["a"]
        end.set()
        for thread in threads:
            thread.join()
        assert texts(database) == ["a", "slow"] + ["a"] * 8


def test_a_writer_that_waits_too_long_is_told_of_the_other_thread(path):
    with closing(Database(path, FIRST, timeout_s=0.01)) as database:
        write(database)
        with database.write(), ThreadPoolExecutor(1) as pool:
            late = pool.submit(write, database)
            with pytest.raises(ErrorStore, match=r"notes\.db is locked by another thread for more than 0\.01 s"):
                late.result()
        write(database)


def test_turns_are_given_in_the_order_in_which_they_are_asked_for():
    turns, got = Turns(2), []
    assert turns.acquire(0) and turns.acquire(0)

    def ask(number):
        assert turns.acquire(30)
        got.append(number)
        turns.release()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for number, thread in enumerate(threads):
        thread.start()
        while len(turns._waiting) <= number:
            time.sleep(0.001)
    assert turns.acquire(0) is False
    turns.release()
    for thread in threads:
        thread.join()
    assert got == [0, 1, 2, 3, 4, 5]
    assert [turns.acquire(0) for _ in range(2)] == [True, False]
    turns.release()


def test_who_is_interrupted_while_he_waits_is_passed_over():
    turns = Turns()
    assert turns.acquire(0)

    def interrupt():
        while not turns._waiting:
            time.sleep(0.001)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        turns.acquire(30)
    thread.join()
    turns.release()
    assert turns.acquire(0)


def test_who_does_not_wait_any_longer_is_passed_over():
    turns = Turns()
    assert turns.acquire(0)
    assert turns.acquire(0.001) is False
    turns.release()
    assert turns.acquire(0)


def test_a_brief_write_waits_in_full_until_somebody_has_waited_in_vain(path, lock, monkeypatch):
    monkeypatch.setattr("agentroute._sqlite.BRIEF_S", 0.01)
    with closing(Database(path, FIRST, timeout_s=0.1)) as database:
        write(database)
        release = lock("database")
        waits = [failed_write(database, brief) for brief in (True, True, False, True)]
        assert waits == ["0.1", "0.01", "0.1", "0.01"]
        release()
        with database.write(brief=True) as connection:
            connection.execute("INSERT INTO notes (text) VALUES ('b')")
        release = lock("database")
        assert failed_write(database, True) == "0.1"
        release()


def failed_write(database, brief):
    """How long it has waited, as it says itself."""
    with pytest.raises(ErrorStore, match="locked by another process") as raised, database.write(brief=brief):
        pass
    return str(raised.value).partition("for more than ")[2].partition(" s")[0]


FROZEN = """
import os, sys
from tests.test_sqlite import *
if os.geteuid() == 0:
    os.setuid(65534)
with closing(Database(sys.argv[1], FIRST if sys.argv[2] == "first" else SECOND)) as database:
    try:
        print(texts(database), database.check())
        database.write().__enter__()
    except ErrorStore as error:
        print(error)
"""


def frozen(path):
    """A file of somebody else, whose directory is not ours either."""
    path.chmod(0o444)
    path.parent.chmod(0o555)
    for directory in path.parents:
        directory.chmod(directory.stat().st_mode | 0o055)


@pytest.mark.parametrize("network", [False, True])
def test_a_file_that_cannot_be_written_can_be_read(path, database, network):
    write(database)
    database.close()
    frozen(path)
    code = f"import agentroute._sqlite; agentroute._sqlite.on_network_disk = lambda path: {network}\n{FROZEN}"
    told = python(code, path, "first").splitlines()
    assert told[0] == "['a'] []"
    assert "cannot be written" in told[1]
    assert [file.name for file in path.parent.iterdir() if "wal" in file.name or "shm" in file.name] == []


def test_a_file_that_is_being_made_is_not_taken_for_one_that_cannot_be_written(tmp_path, monkeypatch):
    database = Database(tmp_path / "new" / "notes.db", FIRST)
    looked = os.access

    def look(place, mode):
        answer = looked(place, mode)
        create_file(database.path)  # what another thread does meanwhile
        return answer

    monkeypatch.setattr(os, "access", look)
    assert not database._is_frozen()
    with database.read() as connection:
        assert connection.execute("SELECT count(*) FROM notes").fetchone() == (0,)


def test_an_older_file_that_cannot_be_written_is_named(path, database):
    write(database)
    database.close()
    frozen(path)
    assert "is of an older version, and read-only" in python(FROZEN, path, "second")


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
    code = "import sys; from tests.test_sqlite import *; d = Database(sys.argv[1], FIRST, timeout_s=60); [write(d) for _ in range(100)]"
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


def guard_is_held(path):
    guard = os.open(f"{path}-lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(guard)
    return False


def test_commits_and_checkpoints_are_made_under_the_guard(path, database, monkeypatch):
    monkeypatch.setattr("agentroute._sqlite._needs_guard", lambda version: True)
    monkeypatch.setattr("agentroute._sqlite.WAL_LIMIT_BYTES", 0)
    write(database)
    seen = []
    for erase in (False, True):
        with database.write(erase=erase) as connection:
            connection.set_trace_callback(lambda sql: seen.append((sql, guard_is_held(path))))
            connection.execute("INSERT INTO notes (text) VALUES ('b')")
        connection.set_trace_callback(None)
    done = [sql for sql, _ in seen]
    assert {"COMMIT", "PRAGMA wal_checkpoint(PASSIVE)", "PRAGMA wal_checkpoint(TRUNCATE)"} <= set(done)
    assert {held for _, held in seen} == {True}
    assert not guard_is_held(path)


def test_an_upgrade_is_made_under_the_guard(path, monkeypatch):
    monkeypatch.setattr("agentroute._sqlite._needs_guard", lambda version: True)
    held = []
    older(path, "old")
    schema = Schema("notebook", 77, (make_notes, lambda connection: held.append(guard_is_held(path))))
    with closing(Database(path, schema)) as database:
        assert texts(database) == ["old"]
    assert held == [True]


def test_a_sqlite_without_the_bug_needs_no_guard(path, monkeypatch):
    monkeypatch.setattr("agentroute._sqlite._needs_guard", lambda version: False)
    older(path, "old")
    assert upgraded(path) == ["old"]
    assert not path.with_name("notes.db-lock").exists()


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
