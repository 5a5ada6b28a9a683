"""What of a run's texts gets into the history's files: never a key; and no content where figures only are kept, or nothing."""

import json
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

import agentroute
from agentroute import Agent, ErrorConfig, ModelCloud, RunStore, ToolCall
from agentroute.config import Secret
from agentroute.errors import ErrorModelRequest
from agentroute.events import Event, TextDelta
from agentroute.keeping import without_credentials, word_of
from agentroute.message import LLMRequest, LLMResponse, Message
from agentroute.records import RunRecord, ScoreRecord, TurnRecord, columns, kind_of
from agentroute.result import Result
from agentroute.store import Answer
from agentroute.tables import TABLES, unpacked
from agentroute.testing import ModelScripted
from tests.server import ModelServer, Raw, chunks

KEY = "sk-or-v1-5d6b1f0c9ae8477abf"
HEADER = "7f3ab51c99d0e2d4c6"
LOGIN = "zoe:Ww4-hunter22-xyz"
BASIC = "em9lOld3NC1odW50ZXIyMi14eXo="  # LOGIN, as it is sent
CREDENTIALS = [KEY, HEADER, "hunter22", BASIC]
WORD = "Quitte"
LONG = "many words, so that they get a place of their own, " * 12
START = datetime(2026, 3, 1, tzinfo=UTC)

NAMES = {
    "runs": {"run_id", "status", "agent_name", "request_model", "cost_source", "error_type", "session_id", "parent_run_id", "tags", "notebook", "cell_id"},
    "turns": {"run_id", "request_model", "response_model", "base_url", "finish_reason", "cost_source", "replayed_from", "response_id", "error_type"},
    "tool_calls": {"run_id", "tool_call_id", "tool_name", "status", "error_type"},
    "messages": {"run_id", "role", "tool_name", "tool_call_id"},
    "scores": {"run_id", "name", "scorer"},
}
"""Texts that name something and are not what people, models or tools wrote: kept also where figures only are."""


def bytes_of(directory):
    """Every byte of every file below a directory, and of what is compressed in the history."""
    found = b"".join(path.read_bytes() for path in sorted(Path(directory).rglob("*")) if path.is_file())
    for path in Path(directory).rglob("*.db"):
        with closing(RunStore(path)) as store, store.transaction() as connection:
            packed = connection.execute("SELECT data FROM bodies UNION ALL SELECT rest FROM answers").fetchall()
        found += "".join(unpacked(data) for (data,) in packed).encode()
    return found


def found_in(directory, words):
    held = bytes_of(directory)
    return [word for word in words if word.encode() in held]


@pytest.fixture(params=["all", "metadata", "redact"])
def kept(request):
    """Each way of keeping texts."""
    return {"all": {}, "metadata": {"record_content": "metadata"}, "redact": {"redact": str.upper}}[request.param]


def texts_of(table):
    return {table.names[index] for index in table.texts}


def longs_of(table):
    return {table.names[index] for index in table.longs}


# ---- each column ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_every_text_is_known_to_be_content_or_a_name(table):
    assert texts_of(table) == NAMES[table.name] | longs_of(table), "say of a new column whether it is long, which is content, or a name"


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_what_is_content_is_in_the_group_of_content_or_of_errors(table):
    groups = {column.name: column.metadata["group"] for column in columns(table.kind)}
    assert {groups[name] for name in longs_of(table)} <= {"content", "error"}
    assert {name for name, group in groups.items() if group == "content"} <= longs_of(table) | {"role", "tool_name", "tool_call_id"}


def filled(kind, **texts):
    """A record of this class; `texts` by column, and something in each other one."""
    values = {}
    for column in columns(kind):
        name = kind_of(column)[0]
        values[column.name] = texts.get(column.name, {"str": "r1" if column.name == "run_id" else "x", "int": 1, "float": 0.5, "datetime": START}[name])
    return kind(**values)


def saved(directory, records, **options):
    """The history with these records of one run, closed."""
    with closing(RunStore(directory / "runs.db", **options)) as store:
        run = next((record for record in records if isinstance(record, RunRecord)), filled(RunRecord))
        parts = {name: [record for record in records if type(record) is table.kind] for table in TABLES.values() if (name := table.name) in ("turns", "tool_calls", "messages")}
        store.save(run, **parts)
        for record in records:
            if isinstance(record, ScoreRecord):
                store.save_score(record)
    return RunStore(directory / "runs.db")


@pytest.mark.parametrize("text", ["{}", f"{{}} {LONG}", f"{LONG} {{}}", '"authorization": "Bearer {}"'], ids=["alone", "first", "last", "header"])
@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_no_column_takes_a_key(table, text, kept, tmp_path):
    names = sorted(texts_of(table) - {"run_id"})
    store = saved(tmp_path, [filled(table.kind, **dict.fromkeys(names, text.format(KEY)))], **kept)
    (row,) = store.select(table.kind, columns=names)
    store.close()
    assert [name for name, told in zip(names, row, strict=True) if told and KEY.upper() in told.upper()] == []
    assert found_in(tmp_path, [KEY, KEY.upper()]) == []


@pytest.mark.parametrize("tail", ["", LONG], ids=["short", "long"])
@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_figures_only_are_kept_of_every_table(table, tail, tmp_path):
    record = filled(table.kind, **dict.fromkeys(longs_of(table), f"{WORD} {tail}"))
    store = saved(tmp_path, [record], record_content="metadata")
    assert found_in(tmp_path, [WORD]) == []
    (row,) = store.select(table.kind)
    default = {column.name: None if kind_of(column)[1] else "" for column in columns(table.kind)}
    assert table.decode(row) == replace(record, **{name: default[name] for name in longs_of(table)})
    store.close()


@pytest.mark.parametrize("tail", ["", LONG], ids=["short", "long"])
@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_what_redact_leaves_is_kept_of_every_table(table, tail, tmp_path):
    record = filled(table.kind, **dict.fromkeys(longs_of(table), f"{WORD} {tail}"))
    store = saved(tmp_path, [record], redact=lambda text: text.replace(WORD, "[fruit]"))
    assert found_in(tmp_path, [WORD]) == []
    (row,) = store.select(table.kind)
    assert table.decode(row) == replace(record, **dict.fromkeys(longs_of(table), f"[fruit] {tail}"))
    store.close()


def fails(text):
    raise RuntimeError(text)


@pytest.mark.parametrize("redact", [fails, lambda text: None, lambda text: text.encode()], ids=["fails", "None", "bytes"])
def test_where_redact_fails_nothing_of_the_text_is_kept(redact, tmp_path):
    store = saved(tmp_path, [filled(RunRecord, prompt_text=WORD, output_text=f"{WORD} {LONG}", error_text=WORD)], redact=redact)
    assert found_in(tmp_path, [WORD]) == []
    assert store.record("r1").run.prompt_text == "[not kept: redact failed]"
    store.close()


@pytest.mark.parametrize("wrong", [{"record_content": "some"}, {"record_content": None}, {"redact": "text"}], ids=str)
def test_another_way_of_keeping_is_refused(wrong):
    with pytest.raises(ErrorConfig, match=f"{next(iter(wrong))} must be"):
        RunStore(**wrong)


@pytest.mark.parametrize("options", [{"record_content": "metadata"}, {"redact": str.upper}], ids=str)
def test_nothing_is_kept_for_replay_where_texts_are_not_kept_as_they_are(options, tmp_path):
    with closing(RunStore(tmp_path / "runs.db", **options)) as store:
        store.keep_answer(b"key", Answer("session", "", 0, 1, "r1"), json.dumps({"content": WORD}))
        assert store.answers(b"key") == []
    assert found_in(tmp_path, [WORD, WORD.upper()]) == []


# ---- what a key looks like --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "the basic responsibilities of a manager", "basic authentication/authorization", "Basic troubleshooting.", "basic ----------------",
        "the bearer responsibilities-and-duties", "Bearer authentication/2024", "Authorization: basic authentication/authorization",
        "CREATE INDEX pk_orders_2024_customer_id", "pk-2024-annual-report-final", "sk-2024-annual-report-final-version", "rk_2024_summary_of_the_year",
        "hf_hub_download_of_2024_and_more", "a task-2024-11-21-with-a-long-name", "sk-learn-and-all-its-many-friends",
    ],
)  # fmt: skip
def test_words_that_only_begin_like_a_key_stay(text):
    assert without_credentials(text, []) == text


@pytest.mark.parametrize(
    "key",
    [
        KEY, "sk-proj-Ab3dEf6hIj9lMn2pQr5tUv8x", "sk-0123456789abcdef0123", "sk_live_AbCdEfGhIjKlMnOpQrSt", "pk_test_abcdefghijklmnop1234",
        "sk_5d6b1f0c9ae8477abf5d6b1f0c9ae8477abf5d6b1f0c9ae8", "sk-lf-5d6b1f0c-9ae8-477a-bf5d-6b1f0c9ae847", "hf_AbCdEfGhIjKlMnOpQrStUv",
        "ghp_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789", "AKIAIOSFODNN7EXAMPLE", "AIzaSyA1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q", "glpat-a1B2c3D4e5F6g7H8i9J0",
    ],
)  # fmt: skip
def test_keys_as_providers_make_them_are_struck_out(key):
    assert without_credentials(f"It is {key}, keep it.", []) == "It is [key], keep it."


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"Bearer {HEADER} it is", "Bearer [key] it is"),
        ("bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIx.abc", "bearer [key]"),
        (f"Basic {BASIC}", "Basic [key]"),
        ("Authorization: Bearer aBcdefghijklmnop", "Authorization: Bearer [key]"),
        ('"authorization": "abcdefgh1jklmnop"', '"authorization": "[key]"'),
    ],
)
def test_authorization_headers_are_struck_out(text, left):
    assert without_credentials(text, []) == left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ('{"a": "C:\\\\users\\\\u0041 held-key-abcdef"}', {"a": "C:\\usersA [key]"}),
        ('{"held-key-abcdef": ["\\ud83d", "held-key-abcdef", 1.0, null]}', {"[key]": ["\ud83d", "[key]", 1.0, None]}),
        (json.dumps([{"arguments": json.dumps({"path": "\\u0041", "key": "held-key-abcdef"})}]), [{"arguments": json.dumps({"path": "\\u0041", "key": "[key]"})}]),
        (json.dumps({"authorization": "abcdefgh1jklmnop", "x": "y"}), {"authorization": "[key]", "x": "y"}),
    ],
)
def test_what_was_json_is_json_without_its_keys(text, left):
    assert json.loads(without_credentials(text, ["held-key-abcdef"])) == left


@pytest.mark.parametrize("before", ["\n", "\t", "\r\n", "é", "\U0001f511", "\x1b", '"', "\\"])
def test_a_key_behind_a_character_that_is_written_as_an_escape_is_struck_out(before):
    for found, left in ((KEY, "[key]"), (f"Bearer {HEADER}", "Bearer [key]"), (f"authorization: {HEADER}", "authorization: [key]")):
        text, kept = f"see{before}{found}", f"see{before}{left}"
        assert json.loads(without_credentials(json.dumps({"a": text}), [])) == {"a": kept}
        assert json.loads(json.loads(without_credentials(json.dumps(json.dumps([text])), []))) == [kept]
        assert without_credentials(repr(text), []) == repr(kept)
        assert without_credentials(ascii(text), []) == ascii(kept)


SAID = f"It is\n{KEY}, keep it."


def test_no_repr_shows_a_key_and_every_value_keeps_it():
    call = ToolCall("1", "look", {"key": SAID})
    message = Message("assistant", SAID, tool_calls=[call.to_wire()])
    result = Result(SAID, messages=[message.to_dict()])
    nested = Result({"a": [SAID], SAID: Result(SAID)})
    values = [call, message, result, nested, LLMResponse(SAID), LLMRequest("m", [message]), TextDelta(SAID, 1), Event("x", {"a": SAID}), RunRecord(run_id="r", started_at=START, agent_name="a", request_model="m", prompt_text=SAID)]
    assert [value for value in values if KEY in repr(value) or KEY in f"{[value]}" or "[key]" not in repr(value)] == []
    assert str(result) == result.output == message.content == call.arguments["key"] == SAID
    assert repr(Result("x" * 1_230 + KEY)).count("sk-or") == repr(Result(" " * 235 + KEY)).count("sk-or") == 0


def test_a_tag_that_holds_a_key_keeps_no_run_from_being_read(tmp_path):
    secret = Secret("mysecretkey-abcdef-123456")
    with closing(RunStore(tmp_path / "runs.db")) as store:
        for tags in ({"path": f"C:\\users\\u0041 {secret.reveal()}"}, {"tenant": "b"}):
            Agent("a", model=ModelScripted(["Hi"]), store=store, tags=tags).run("Hello")
        assert len(agentroute.runs(store, tag="tenant=b")) == 1
        assert set(agentroute.runs(store)["tag_path"].dropna()) == {"C:\\usersA [key]"}


# ---- answers ----------------------------------------------------------------------------------------------------------

ASKED = Answer("session", "", 0, 1, "r1")


def test_an_answer_with_the_words_of_a_header_is_kept(tmp_path):
    with closing(RunStore(tmp_path / "runs.db")) as store:
        store.keep_answer(b"key", ASKED, json.dumps({"content": "The basic responsibilities of pk_orders_2024_customer_id"}))
        assert len(store.answers(b"key")) == 1


def keep_twice(store, body):
    for _ in range(2):
        store.keep_answer(b"key", ASKED, body)


def test_an_answer_that_holds_a_key_is_not_kept_and_that_is_told_once(tmp_path):
    with closing(RunStore(tmp_path / "runs.db")) as store:
        with pytest.warns(RuntimeWarning, match="answer of run r1 is not kept for replay, because it holds what looks like a key") as told:
            keep_twice(store, json.dumps({"content": f"It is {KEY}."}))
        assert store.answers(b"key") == []
    assert len(told) == 1


# ---- names that models make up ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"record_content": "metadata"}, {"redact": str.upper}], ids=str)
@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_of_a_name_that_a_model_has_made_up_no_prose_is_kept(table, options, tmp_path):
    names = [table.names[index] for index in table.words]
    told = dict.fromkeys(names, f"look_up-1.0:x the {WORD} of all")
    store = saved(tmp_path, [filled(table.kind, **told)], **options)
    assert found_in(tmp_path, [WORD, WORD.upper()]) == []
    (row,) = store.select(table.kind, columns=["run_id", *names])
    assert row[1:] == ("look_up-1.0:x",) * len(names)
    store.close()


def test_names_that_may_be_made_up_are_known():
    words = {f"{table.name}.{table.names[index]}" for table in TABLES.values() for index in table.words}
    made_up = {"turns.response_model", "turns.finish_reason", "turns.response_id", "tool_calls.tool_name", "messages.tool_name"}
    assert words == made_up


def test_a_name_is_kept_in_full_where_texts_are(tmp_path):
    store = saved(tmp_path, [filled(TurnRecord, finish_reason="the model was tired")])
    assert list(store.select(TurnRecord, columns=["finish_reason"])) == [("the model was tired",)]
    store.close()


@pytest.mark.parametrize("name", ["look_up", "gpt-4o:free", "vendor/model@2024", "claude-3.5", ""])
def test_a_name_without_prose_stays(name):
    assert word_of(name) == name


# ---- a whole run ------------------------------------------------------------------------------------------------------


def everything(text):
    """Answers in which the provider says `text` wherever it can."""

    def answer(body):
        if body["messages"][-1]["role"] == "user":
            return Raw.sse(*chunks([ToolCall("1", "look_up", {"what": text}), ToolCall("2", "look_up", {"what": f"fail {text}"})], {}))
        return Raw.sse(*chunks(f"It is {text}.", {"prompt_tokens": 3, "completion_tokens": 2, "cost": 0.01}))

    return answer


def look_up(what: str) -> str:
    """Looks something up."""
    if what.startswith("fail"):
        raise ValueError(what)
    return f"found {what}"


def agent_of(server, store, text, **settings):
    model = ModelCloud(
        model_id=f"vendor/{text[:200]}", base_url=server.base_url.replace("//", f"//{LOGIN}@"), headers={"X-Api-Key": HEADER}, kind="openai"
    )
    return Agent(
        "gardener", model=model, instructions=f"Be kind to {text}", tools=[look_up], store=store, tags={"tenant": text}, **settings
    )


HELD = f"{KEY} and Bearer {HEADER} and Basic {BASIC} and https://{LOGIN}@host/v1"
"""What a user, a model and a tool may have written down."""


@pytest.fixture(params=["stream", "run"])
def way(request):
    return request.param


def run_it(agent, prompt, way, **options):
    if way == "run":
        return agent.run(prompt, **options)
    stream = agent.stream(prompt, **options)
    for _ in stream:
        pass
    return stream.result


@pytest.mark.parametrize("tail", ["", LONG], ids=["short", "long"])
def test_no_credential_of_a_run_reaches_a_file(way, tail, kept, tmp_path):
    text = f"{HELD} {tail}"
    with ModelServer([everything(text)], repeat=True) as server, closing(RunStore(tmp_path / "runs.db", **kept)) as store, agentroute.replay("on"):
        agent = agent_of(server, store, text)  # while it is there its login is known for one
        result = run_it(agent, f"What of {text}?", way, session_id=KEY)
        assert server.headers[0]["x-api-key"] == HEADER
        assert server.headers[0]["authorization"] == f"Basic {BASIC}"
        agentroute.score(result, "helpful", 1, note=text, store=store)
        agentroute.messages(store)  # a copy of the rows beside the file
        assert found_in(tmp_path, CREDENTIALS) == []
    assert found_in(tmp_path, CREDENTIALS) == []
    assert KEY in result.record.run.prompt_text
    assert KEY in result.output


@pytest.mark.parametrize("status", [400, 401, 500])
def test_no_credential_in_a_refusal_reaches_a_file(status, way, kept, tmp_path):
    refusal = Raw(status, [json.dumps({"error": {"message": f"not with {HELD}"}}).encode()])
    with ModelServer([refusal], repeat=True) as server, closing(RunStore(tmp_path / "runs.db", **kept)) as store:
        with pytest.raises(agentroute.ErrorModel):
            run_it(agent_of(server, store, WORD, timeout=5), "Hello", way)
        assert found_in(tmp_path, CREDENTIALS) == []
    assert sum(1 for _ in store.select(RunRecord)) == 1
    store.close()


@pytest.mark.parametrize("tail", ["", LONG], ids=["short", "long"])
def test_figures_only_are_kept_of_a_run(way, tail, tmp_path):
    text = f"{WORD} {tail}"
    with ModelServer([everything(text)], repeat=True) as server, closing(RunStore(tmp_path / "runs.db", record_content="metadata")) as store:
        agent = agent_of(server, store, "model")
        agent.instructions = f"Be kind to {text}"
        with agentroute.replay("on"):
            result = run_it(agent, f"What of {text}?", way)
        assert found_in(tmp_path, [WORD]) == []
        record = store.record(result.run_id)
    assert found_in(tmp_path, [WORD]) == []
    assert (record.run.cost_usd, record.run.status, len(record.turns), len(record.tool_calls)) == (0.01, "ok", 2, 2)
    assert [call.error_type for call in record.tool_calls] == [None, "ValueError"]
    assert [message.role for message in record.messages] == [message.role for message in result.record.messages]
    assert WORD in result.output
    assert result.record.run.prompt_text == f"What of {text}?"
    assert all(WORD in call.arguments_text and WORD in call.result_text for call in result.record.tool_calls)


def test_the_message_of_a_failure_is_content(tmp_path):
    with ModelServer([Raw(400, [json.dumps({"error": {"message": f"no {WORD}"}}).encode()])]) as server, closing(RunStore(tmp_path / "runs.db", record_content="metadata")) as store:
        with pytest.raises(ErrorModelRequest, match=WORD) as raised:
            agent_of(server, store, "model").run("Hello")
        run = store.record(raised.value.result.run_id).run
        assert found_in(tmp_path, [WORD]) == []
    assert (run.error_type, run.error_text) == ("ErrorModelRequest", None)
    assert WORD in raised.value.result.record.run.error_text


def test_what_redact_leaves_is_kept_of_a_run(way, tmp_path):
    with ModelServer([everything(WORD)], repeat=True) as server, closing(RunStore(tmp_path / "runs.db", redact=lambda text: text.replace(WORD, "[fruit]"))) as store:
        result = run_it(agent_of(server, store, "model"), f"What of {WORD}?", way)
        record = store.record(result.run_id)
        assert found_in(tmp_path, [WORD]) == []
    assert (record.run.prompt_text, record.run.output_text) == ("What of [fruit]?", "It is [fruit].")
    assert (result.record.run.prompt_text, result.output) == (f"What of {WORD}?", f"It is {WORD}.")


@pytest.mark.parametrize("where", ["agent", "run", "outer run"])
def test_nothing_is_kept_of_a_run_that_is_not_to_be_recorded(where, way, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with ModelServer([everything(WORD)], repeat=True) as server, closing(RunStore(tmp_path / "runs.db")) as store, agentroute.replay("on"):
        agent = agent_of(server, store, WORD, record=where != "agent")

        def ask(what: str) -> str:
            return agent.run(what).output

        outer = Agent("outer", model=ModelScripted([[ToolCall("1", "ask", {"what": WORD})], "Done."], model_id="outer"), tools=[ask], store=store)
        asked = {"agent": agent, "run": agent, "outer run": outer}[where]
        options = {"agent": {}, "run": {"record": False}, "outer run": {"record": False}}[where]
        result = run_it(asked, f"What of {WORD}?", way, **options)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert result.record.run.prompt_text == f"What of {WORD}?"


@pytest.mark.parametrize("wrong", [None, 1, "no"], ids=repr)
def test_record_is_true_or_false(wrong):
    with pytest.raises(ErrorConfig, match="record must be True or False"):
        Agent("a", model=ModelScripted(["Hi"]), record=wrong)
