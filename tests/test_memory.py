"""Memory: a conversation, and facts that are remembered and recalled."""

import asyncio
import os
import pickle
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentroute import Agent, Context, ErrorConfig, Memory, MemoryProto, MemorySQLite, Message, ToolCall
from agentroute.errors import ErrorStore
from agentroute.memory.recall import Fact, fold, query_words, ranked, words
from agentroute.memory.sqlite import MAX_CANDIDATES, _remember
from agentroute.testing import ModelScripted
from tests.test_history import QUESTION, exchange, plain
from tests.test_sqlite import forked


def go(awaitable):
    return asyncio.run(awaitable)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "memory.db"


def without_fts5(path, monkeypatch):
    monkeypatch.setattr("agentroute.memory.sqlite.has_fts5", lambda connection: False)
    return MemorySQLite(path)


@pytest.fixture(params=["ram", "file", "file in ram", "file without FTS5"])
def memory(request, path, monkeypatch):
    """Every kind of memory, which must all answer alike."""
    return {
        "ram": Memory,
        "file": lambda: MemorySQLite(path),
        "file in ram": lambda: MemorySQLite(":memory:"),
        "file without FTS5": lambda: without_fts5(path, monkeypatch),
    }[request.param]()


@pytest.fixture
def saved(path):
    memory = MemorySQLite(path)
    yield memory
    go(memory.close())


def remember(memory, **facts):
    for key, value in facts.items():
        go(memory.remember(key, value))
    return memory


# ---- the conversation -------------------------------------------------------------------------------------------


def test_it_keeps_the_protocol(memory):
    assert isinstance(memory, MemoryProto)
    assert isinstance(memory.session("a"), MemoryProto)


@pytest.mark.parametrize(
    "message",
    [
        Message("user", ""),
        Message("user", None),
        Message("user", "Zoë 日本 \u202e \uffff a\0b\r\n e\u0301 " + "x" * 10**6),
        Message("user", "half \ud83d character"),
        Message("user", [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "data:…"}}]),
        Message("assistant", None, tool_calls=[ToolCall("1", "add", '{"a": NaN,').to_wire()], extra={"reasoning": ["Ω"]}),
        Message("tool", "3", tool_call_id="1", name="add"),
    ],
    ids=["empty", "none", "text", "surrogate", "parts", "calls", "tool"],
)
def test_messages_come_back_as_they_were(memory, message):
    go(memory.add_messages([Message("user", "go"), Message("assistant", "wait"), message]))
    assert go(memory.get_messages())[2:3] == [message]


def test_messages_are_copies(memory):
    given_message = Message("user", [{"type": "text", "text": "a"}], extra={"x": [1]})
    go(memory.add_messages([given_message]))
    given_message.content[0]["text"] = "changed"
    returned = go(memory.get_messages())[0]
    returned.extra["x"].append(2)
    returned.role = "system"
    assert go(memory.get_messages()) == [Message("user", [{"type": "text", "text": "a"}], extra={"x": [1]})]


@pytest.mark.parametrize(("limit", "kept"), [(None, 6), (10, 6), (10**20, 6), (4, 4), (3, 2), (2, 2), (1, 0), (0, 0), (-1, 0)])
def test_the_limit_gives_the_last_messages(memory, limit, kept):
    go(memory.add_messages(plain(6)))
    assert go(memory.get_messages(limit)) == plain(6)[6 - kept :]


CALL, RESULT = exchange("1")


@pytest.mark.parametrize(
    ("messages", "first"),
    [
        ([RESULT, QUESTION], 1),
        ([*exchange("1", "2"), Message("assistant", "done"), QUESTION], 4),
        ([CALL, Message("user", "hurry"), RESULT, Message("assistant", "done"), QUESTION], 4),
        ([Message("user", "hurry"), RESULT, Message("assistant", "done"), QUESTION], 3),
        ([Message("assistant", "Hello!"), QUESTION], 1),
        ([QUESTION, *exchange("1"), Message("user", "a"), Message("user", "b")], 0),
        ([Message("assistant", "Hello!")], 1),
        ([], 0),
    ],
)
def test_what_is_given_begins_at_a_question_outside_a_tool_exchange(memory, messages, first):
    go(memory.add_messages([*plain(2), *messages]))
    assert go(memory.get_messages(len(messages))) == messages[first:]
    go(memory.session("whole").add_messages(messages))
    assert go(memory.session("whole").get_messages()) == messages[first:]


def test_leading_system_messages_are_given_too(memory):
    head = [Message("system", "Be brief."), Message("system", "Be kind.")]
    go(memory.add_messages([*head, Message("assistant", "Hello!"), QUESTION]))
    assert go(memory.get_messages()) == go(memory.get_messages(4)) == [*head, QUESTION]


NOT_RUN, NO_ANSWER = Message("tool", "(not run)", tool_call_id="1", name="work"), Message("assistant", "(no answer)")


@pytest.mark.parametrize(
    ("messages", "given"),
    [
        ([QUESTION, CALL], [QUESTION, CALL, NOT_RUN, NO_ANSWER]),
        ([QUESTION, CALL, QUESTION], [QUESTION, CALL, NOT_RUN, NO_ANSWER, QUESTION]),
        ([QUESTION, CALL, Message("assistant", "done")], [QUESTION, CALL, NOT_RUN, Message("assistant", "done")]),
        ([QUESTION, CALL, *exchange("2")], [QUESTION, CALL, NOT_RUN, *exchange("2")]),
        ([QUESTION, CALL, CALL, RESULT], [QUESTION, CALL, NOT_RUN, CALL, RESULT]),
        ([QUESTION, *exchange("2", "1")[:2], QUESTION], [QUESTION, *exchange("2", "1")[:2], NOT_RUN, NO_ANSWER, QUESTION]),
        ([QUESTION, CALL, RESULT, QUESTION], [QUESTION, CALL, RESULT, QUESTION]),
        ([QUESTION, Message("assistant", "wait"), CALL, QUESTION, RESULT], [QUESTION, Message("assistant", "wait"), CALL, QUESTION, RESULT]),
    ],
    ids=["at the end", "before a question", "before an answer", "before a call", "an id used again", "one of two", "answered", "answered late"],
)
def test_a_call_without_a_result_is_given_as_not_run(memory, messages, given):
    go(memory.add_messages([*plain(2), *messages]))
    assert go(memory.get_messages()) == [*plain(2), *given]
    go(memory.add_messages([QUESTION]))
    assert sum(message == NOT_RUN for message in go(memory.get_messages())) == given.count(NOT_RUN)


def test_what_was_not_run_may_still_get_its_result(memory):
    go(memory.add_messages([QUESTION, CALL]))
    go(memory.get_messages())
    go(memory.add_messages([RESULT]))
    assert go(memory.get_messages()) == [QUESTION, CALL, RESULT]


def test_clearing_forgets_the_conversation_and_keeps_the_facts(memory):
    remember(memory, colour="blue")
    go(memory.add_messages(plain(2)))
    go(memory.clear_messages())
    assert go(memory.get_messages()) == []
    assert go(memory.recall("")) == ["blue"]


@pytest.mark.parametrize("wrong", [{"role": "user"}, "text", None])
def test_only_messages_are_taken(memory, wrong):
    with pytest.raises(ErrorConfig, match="takes Message objects"):
        go(memory.add_messages([Message("user", "a"), wrong]))
    assert go(memory.get_messages()) == []


def test_adding_nothing_adds_nothing(memory):
    go(memory.add_messages([]))
    assert go(memory.get_messages()) == []


# ---- sessions ---------------------------------------------------------------------------------------------------


def test_sessions_keep_conversations_apart_and_share_facts(memory):
    go(memory.add_messages([Message("user", "nobody")]))
    go(memory.session("anna").add_messages([Message("user", "anna")]))
    go(memory.session("ben").add_messages([Message("user", "ben")]))
    remember(memory.session("anna"), colour="blue")
    assert [message.text for message in go(memory.session("anna").get_messages())] == ["anna"]
    assert [message.text for message in go(memory.session(None).get_messages())] == ["nobody"]
    assert go(memory.session("ben").recall("colour")) == ["blue"]


def test_clearing_a_session_leaves_the_others(memory):
    go(memory.session("anna").add_messages(plain(2)))
    go(memory.session("ben").add_messages(plain(4)))
    go(memory.session("anna").clear_messages())
    assert [len(go(memory.session(name).get_messages())) for name in ("anna", "ben")] == [0, 4]


def test_a_memory_without_sessions_keeps_the_protocol_too():
    methods = ["get_messages", "add_messages", "clear_messages", "remember", "recall", "forget"]
    plain_memory = type("MemoryOwn", (), dict.fromkeys(methods, Memory.forget))()
    assert isinstance(plain_memory, MemoryProto)
    assert "session(session_id: str | None) -> MemoryProto" in MemoryProto.__doc__


def test_a_session_of_a_session_is_a_session_of_the_memory(memory):
    go(memory.session("anna").session("ben").add_messages(plain(1)))
    assert len(go(memory.session("ben").get_messages())) == 1


@pytest.mark.parametrize("wrong", ["", 7, b"x"])
def test_an_empty_session_id_is_a_mistake(memory, wrong):
    with pytest.raises(ErrorConfig, match="session_id must be a str"):
        memory.session(wrong)


def test_half_a_character_is_no_session_id(memory):
    with pytest.raises(ErrorConfig, match="session_id with half a character"):
        memory.session("\ud800")
    with pytest.raises(ErrorConfig, match="session_id with half a character"):
        Agent("a", model=ModelScripted(["ok"]), memory=memory).run("go", session_id="\ud800")


def test_an_agent_continues_the_conversation_of_the_session(memory):
    model = ModelScripted(["Hello Anna", "Hello Ben", "You are Anna"])
    agent = Agent("a", model=model, memory=memory)
    agent.run("I am Anna", session_id="anna")
    agent.run("I am Ben", session_id="ben")
    agent.run("Who am I?", session_id="anna")
    assert [message.text for message in model.requests[-1].messages] == ["I am Anna", "Hello Anna", "Who am I?"]


def test_plain_and_async_tools_use_the_memory(memory):
    async def note(ctx: Context, text: str) -> str:
        """Keeps a note."""
        await ctx.memory.remember("note", text)
        return "kept"

    def look(ctx: Context) -> str:
        """Finds notes."""
        return ", ".join(ctx.memory.recall("note"))

    answers = [ToolCall("1", "note", {"text": "buy milk"}), ToolCall("2", "look", {}), "ok"]
    result = Agent("a", model=ModelScripted(answers), tools=[note, look], memory=memory).run("go")
    assert result.messages[-2]["content"] == "buy milk"


# ---- facts ------------------------------------------------------------------------------------------------------

FACTS = {
    "favourite_colour": "The user's favourite colour is blue",
    "pet": "The user has a dog named Rex, whose bowl is red",
    "language": "Writes C++ (and some Rust)",
    "mail": "a.b+c@example.org",
    "city": "東京に住んでいます",
    "drink": "Un café crème, s'il vous plaît",
    "discount": "100% on Mondays; code_x",
    "school": "다니는 학교는 서울에 있다",
    "greeting": "नमस्ते हिन्दी में",
}


@pytest.fixture
def facts(memory):
    return remember(memory, **FACTS)


@pytest.mark.parametrize(
    ("query", "key"),
    [
        ("what is my favourite colour?", "favourite_colour"), ("colour favourite", "favourite_colour"), ("blue", "favourite_colour"),
        ("blu", "favourite_colour"), ("FAVOURITE COLOUR", "favourite_colour"), ("favourite_colour", "favourite_colour"),
        ("What is my dog called?", "pet"), ("does the user have a dog or a cat", "pet"), ("Rex", "pet"), ("dog OR cat", "pet"),
        ("C++ (", "language"), ("c++", "language"), ("a.b+c@example.org", "mail"), ("example.org", "mail"),
        ("東京", "city"), ("住んで", "city"), ("東京はどこ", "city"), ("京", "city"), ("cafe creme", "drink"), ("CAFÉ", "drink"),
        ("cafe\u0301", "drink"), ("%", "discount"), ("100%", "discount"), ("code_x", "discount"), ("학교", "school"),
        ("हिन्दी", "greeting"), ("ite colo", "favourite_colour"), ("++", "language"),
    ],
)  # fmt: skip
def test_the_best_fact_comes_first(facts, query, key):
    assert go(facts.recall(query))[0] == FACTS[key]


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("What colours do I like?", "favourite_colour: teal"), ("what is my favorite color?", "favourite_colour: teal"),
        ("favourite colour", "my favorite color is teal"), ("color", "likes many colours"), ("COLORS", "The colour is teal"),
        ("dogs", "The dog is called Rex."), ("who is called Rex", "Call Rex often"), ("hobbies", "a hobby: chess"), ("hobby", "Hobbies: chess"),
        ("addresses", "Her address is secret"), ("neighbor", "the neighbours are loud"), ("Hunde", "der Hund"),
    ],
)  # fmt: skip
def test_other_forms_and_spellings_of_a_word_are_found(memory, query, value):
    remember(memory, other="Nothing at all", it=value, more="Something else")
    assert go(memory.recall(query)) == [value]


@pytest.mark.parametrize(
    ("query", "value"), [("they", "the end"), ("four", "for ever"), ("for", "four"), ("your", "yor"), ("2024", "202"), ("thesis", "the sis")]
)
def test_words_that_only_begin_alike_are_not_found(memory, query, value):
    remember(memory, it=value)
    assert go(memory.recall(query)) == []


def test_the_word_itself_comes_before_its_other_forms(memory):
    remember(memory, a="a dog", b="two dogs")
    assert go(memory.recall("dogs")) == ["two dogs", "a dog"]


@pytest.mark.parametrize(
    "query",
    [
        "nothing like it at", "zzz", "_", "%%", "*", "'; DROP TABLE facts; --", '"', '""', "'", "NEAR(", "key:zzz", "zzz*", "^zzz", "-zzz",
        "zzz NOT yyy", "AND", "OR", "NOT", "(", ")", "(" * 2000, "\\", "zzz\0", "\ud83d", "{zzz}", "+", "\u0301", "\u202e", "🎈",
    ],
)  # fmt: skip
def test_a_query_is_text_and_nothing_in_it_is_an_operator(facts, query):
    found = go(facts.recall(query))
    assert all(fold(query.strip()) in fold(f"{key}\n{value}") for key, value in FACTS.items() if value in found)


def test_a_page_of_text_is_a_query(facts):
    assert FACTS["pet"] in go(facts.recall("dog " + "word " * 10_000))


@pytest.mark.parametrize("query", ["", "  \n"])
def test_a_blank_query_gives_all_facts_in_their_order(facts, query):
    assert go(facts.recall(query)) == list(FACTS.values())
    assert go(facts.recall(query, limit=2)) == list(FACTS.values())[:2]


@pytest.mark.parametrize(("limit", "count"), [(0, 0), (-1, 0), (1, 1), (10**20, 2)])
def test_recall_gives_no_more_than_the_limit(facts, limit, count):
    assert len(go(facts.recall("user", limit=limit))) == count


def test_remembering_a_key_again_replaces_its_value_in_its_place(memory):
    remember(memory, colour="blue", pet="dog")
    remember(memory, colour="red")
    assert go(memory.recall("")) == ["red", "dog"]
    assert go(memory.recall("blue")) == []


def test_a_forgotten_fact_is_not_found(facts):
    go(facts.forget("pet"))
    go(facts.forget("no such key"))
    assert go(facts.recall("dog")) == []
    assert len(go(facts.recall(""))) == len(FACTS) - 1


@pytest.mark.parametrize(("key", "value"), [(1, "a"), ("a", 1), ("a", None), ("a", b"x"), (None, "a"), ("a", ["x"])])
def test_facts_are_texts(memory, key, value):
    with pytest.raises(ErrorConfig, match="remember\\(\\) takes a str as"):
        go(memory.remember(key, value))


def test_half_a_character_is_refused(memory):
    for wrong in (memory.remember("a", "\ud83d"), memory.remember("\ud83d", "a"), memory.forget("\ud83d")):
        with pytest.raises(ErrorConfig, match="half a character"):
            go(wrong)


@settings(max_examples=40, deadline=None)
@given(
    facts=st.dictionaries(st.text("abc .é日本語", max_size=5), st.text("acyours .é日本語", max_size=12), max_size=6),
    query=st.text('acyours .é日本語%"*', max_size=12),
)
def test_every_memory_recalls_the_same(facts, query):
    ram, file = Memory(), MemorySQLite(":memory:")
    for key, value in facts.items():
        go(ram.remember(key, value))
        go(file.remember(key, value))
    assert go(file.recall(query)) == go(ram.recall(query))


def test_rare_words_count_more_than_common_ones():
    facts = [Fact.of("1", "what is the time"), Fact.of("2", "what is the zebra"), Fact.of("3", "what is the point")]
    assert ranked("what is the zebra?", facts, 3)[0] == "what is the zebra"


def test_a_fact_among_many_is_found_through_the_index(saved, monkeypatch):
    def fill(connection):
        for number in range(3000):
            _remember(connection, f"key {number}", f"the user bought a thing with number n{number}")

    go(saved._write(fill))
    made = []
    monkeypatch.setattr(Fact, "of", lambda key, value, of=Fact.of: made.append(key) or of(key, value))
    assert go(saved.recall("what has number n1234?"))[0] == "the user bought a thing with number n1234"
    assert len(made) <= MAX_CANDIDATES


def test_words_are_folded_and_unspaced_scripts_come_in_pairs():
    assert words("Das Café, C3-PO") == ["das", "cafe", "c3", "po"]
    assert query_words("日本語 日本 x 猫") == ["日本", "本語", "x", "猫"]
    assert words("ＡＢＣ東京x") == ["abc", "東", "京", "東京", "x"]


# ---- MemorySQLite: threads, loops, processes --------------------------------------------------------------------


def test_eight_threads_with_loops_of_their_own_share_one_memory(saved):
    def work(number):
        async def main():
            view = saved.session(f"s{number}")
            for step in range(10):
                await asyncio.gather(view.add_messages(plain(2)), view.remember(f"{number}-{step}", "x"), view.recall("x"))

        go(main())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(go(saved.session(f"s{number}").get_messages())) for number in range(8)] == [20] * 8
    assert len(go(saved.recall("", limit=1000))) == 80


def test_runs_one_after_another_each_in_a_loop_of_its_own_share_one_memory(saved):
    agent = Agent("a", model=ModelScripted(["answer"] * 6), memory=saved)
    for _ in range(3):
        go(agent.arun("question"))
        agent.run("question")
    assert len(go(saved.get_messages())) == 12


def test_fifty_tasks_share_one_memory(saved):
    async def main():
        await asyncio.gather(*(saved.add_messages(plain(3)) for _ in range(50)))
        return await saved.get_messages()

    assert go(main()) == plain(3) * 50


def test_a_cancelled_write_is_whole_or_absent(saved):
    async def main():
        task = asyncio.create_task(saved.add_messages(plain(50)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await saved.add_messages(plain(1))

    for _ in range(20):
        go(main())
    count = len(go(saved.get_messages())) - 20
    assert count % 50 == 0


def test_processes_that_write_at_once_lose_nothing(saved, path):
    code = """
import asyncio, sys
from agentroute import MemorySQLite
from tests.test_history import plain
async def main():
    memory = MemorySQLite(sys.argv[1])
    memory._database._timeout_s = 60
    for number in range(50):
        await memory.add_messages(plain(2))
        await memory.remember(f"{sys.argv[2]} {number}", "x")
    await memory.close()
asyncio.run(main())
"""
    processes = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in "ab"]
    assert [process.wait() for process in processes] == [0, 0]
    assert go(saved.get_messages()) == plain(2) * 100
    assert len(go(saved.recall("", limit=1000))) == 100


def test_kill_9_loses_nothing_that_was_acknowledged(saved, path):
    code = """
import asyncio, sys
from agentroute import MemorySQLite
from tests.test_history import plain
async def main():
    memory = MemorySQLite(sys.argv[1])
    while True:
        await memory.add_messages(plain(3))
        print("kept", flush=True)
asyncio.run(main())
"""
    writer = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    for _ in range(100):
        writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    acknowledged = 100 + len(writer.communicate()[0].split())
    batches, rest = divmod(len(go(saved.get_messages())), 3)
    assert rest == 0
    assert acknowledged <= batches <= acknowledged + 1


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_uses_the_memory_too(saved):
    remember(saved, parent="a")
    assert forked(lambda: remember(saved, child="b")) == 0
    remember(saved, parent_again="c")
    assert go(saved.recall("")) == ["a", "b", "c"]


def test_a_used_memory_and_its_sessions_are_pickled_as_their_file(saved):
    remember(saved, a="b")
    go(saved.session("anna").add_messages([QUESTION]))
    same, anna = pickle.loads(pickle.dumps((saved, saved.session("anna"))))
    assert go(anna.get_messages()) == [QUESTION]
    go(same.forget("a"))
    assert go(saved.recall("")) == []
    go(same.close())


def test_a_memory_of_a_file_in_ram_is_not_pickled():
    with pytest.raises(ErrorConfig, match="a memory in RAM cannot be pickled or copied; give it a file"):
        pickle.dumps(MemorySQLite(":memory:"))


def test_a_forgotten_close_says_nothing_at_exit(path):
    code = "import sys, asyncio; from agentroute import MemorySQLite; asyncio.run(MemorySQLite(sys.argv[1]).remember('a', 'b'))"
    done = subprocess.run([sys.executable, "-X", "dev", "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_using_it_after_close_opens_the_file_again(saved):
    remember(saved, a="b")
    go(saved.close())
    go(saved.close())
    assert go(saved.recall("")) == ["b"]


def test_the_file_is_for_its_owner_only(saved, path):
    before = os.umask(0)
    try:
        remember(saved, a="b")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(file.stat().st_mode) for file in [*path.parent.iterdir()]} == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_it_loads_sqlite_only_when_it_is_used():
    code = "import sys; from agentroute import Memory, MemoryProto; Memory(); assert 'sqlite3' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- MemorySQLite: files ----------------------------------------------------------------------------------------


def make_old(path, extra=()):
    """A file of agentroute 1.1.0."""
    path.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(path)) as old:
        old.execute("PRAGMA journal_mode=WAL")
        old.execute(
            "CREATE TABLE messages (id INTEGER PRIMARY KEY AUTOINCREMENT, role TEXT NOT NULL, content TEXT, tool_calls TEXT,"
            " tool_call_id TEXT, name TEXT)"
        )
        old.execute("CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        old.execute("CREATE VIRTUAL TABLE facts_fts USING fts5(key, value)")
        old.execute("INSERT INTO facts VALUES ('favourite_colour', 'blue is it'), ('age', 42)")
        calls = '[{"id": "1", "type": "function", "function": {"name": "add", "arguments": "{}"}}]'
        rows = [
            ("user", "hi", None, None, None),
            ("assistant", None, calls, None, None),
            ("tool", "3", None, "1", "add"),
            ("assistant", "3", "{", None, None),
        ]
        old.executemany("INSERT INTO messages (role, content, tool_calls, tool_call_id, name) VALUES (?, ?, ?, ?, ?)", rows)
        for statement in extra:
            old.execute(statement)
        old.commit()


def test_a_call_that_the_first_version_left_unanswered_is_sent_as_not_run(saved, path):
    make_old(path, ["DELETE FROM messages WHERE id > 2"])
    model = ModelScripted(["ok"])
    Agent("a", model=model, memory=saved).run("again")
    sent = [(message.role, message.content, message.tool_call_id) for message in model.requests[0].messages]
    assert sent == [
        ("user", "hi", None), ("assistant", None, None), ("tool", "(not run)", "1"), ("assistant", "(no answer)", None), ("user", "again", None),
    ]  # fmt: skip


def test_a_file_of_the_first_version_is_converted(saved, path):
    make_old(path)
    call = ToolCall("1", "add", "{}").to_wire()
    assert go(saved.get_messages()) == [
        Message("user", "hi"), Message("assistant", tool_calls=[call]), Message("tool", "3", tool_call_id="1", name="add"), Message("assistant", "3"),
    ]  # fmt: skip
    assert go(saved.recall("what is my favourite colour?")) == ["blue is it"]
    assert go(saved.recall("")) == ["blue is it", "42"]
    go(saved.add_messages(plain(1)))
    assert len(go(saved.get_messages())) == 5
    assert go(saved.session("x").get_messages()) == []


@pytest.mark.parametrize(
    "extra", ["ALTER TABLE facts ADD COLUMN theirs", "DROP TABLE facts", "PRAGMA user_version=3", "PRAGMA application_id=9"]
)
def test_tables_of_the_same_name_but_not_ours_are_left_alone(saved, path, extra):
    make_old(path, [extra])
    before = path.read_bytes()
    with pytest.raises(ErrorStore, match=r"memory .*memory\.db belongs to another application"):
        go(saved.get_messages())
    assert path.read_bytes() == before


def test_a_newer_file_is_refused(saved, path):
    remember(saved, a="b")
    go(saved.close())
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA user_version=99")
    with pytest.raises(ErrorStore, match="newer agentroute"):
        go(saved.recall(""))


def test_a_run_history_is_no_memory(tmp_path):
    from agentroute import RunStore
    from tests.test_store import run_of

    with closing(RunStore(tmp_path / "runs.db")) as store:
        store.save(run_of())
        with pytest.raises(ErrorStore, match="belongs to another application"):
            go(MemorySQLite(store.path).get_messages())


def test_a_message_that_json_does_not_know_is_refused_before_the_write(saved):
    with pytest.raises(ErrorConfig, match="role 'user' cannot be kept"):
        go(saved.add_messages([Message("user", "a"), Message("user", "b", extra={"x": object()})]))
    assert go(saved.get_messages()) == []


def test_a_damaged_row_is_named(saved, path):
    go(saved.add_messages(plain(1)))
    with closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE messages SET message = '{'")
        other.commit()
    with pytest.raises(ErrorStore, match=r"memory\.db holds a message that cannot be read"):
        go(saved.get_messages())


def test_the_last_messages_of_a_long_conversation_come_fast(saved, path):
    go(saved.add_messages(plain(1)))
    with closing(sqlite3.connect(path)) as other:
        other.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)"
            """ INSERT INTO messages (session_id, message) SELECT CASE i % 2 WHEN 0 THEN 'a' ELSE '' END, '{"role": "user"}' FROM n"""
        )
        other.commit()
    began = time.process_time()  # reading them all takes half a second of the processor
    assert len(go(saved.session("a").get_messages(20))) == 20
    assert len(go(saved.session("no such").get_messages(20))) == 0
    assert time.process_time() - began < 0.15
