"""How long a provider asks to wait, and which of its words are which kind of error."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from agentroute import errors
from agentroute.models.wire_errors import asked_wait, error_of, error_of_payload


def error(status: int, body: object, headers: dict[str, str] | None = None) -> errors.ErrorModel:
    return error_of(status, headers or {}, json.dumps(body).encode(), model="m", place="host:1")


# ---- how long to wait ---------------------------------------------------------------------------------------------

AT = "Wed, 21 Oct 2026 07:28:00 GMT"


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after": "1"}, 1.0),
        ({"retry-after": " 2.5 "}, 2.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "500"}, 500.0),
        ({"retry-after": "7s"}, 7.0),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"date": AT, "retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}, 30.0),
        ({"date": AT, "retry-after": "Wednesday, 21-Oct-26 07:28:30 GMT"}, 30.0),
        ({"date": AT, "retry-after": "Wed, 21 Oct 2026 07:28:30 -0000"}, 30.0),
        ({"date": AT, "retry-after": "Wed, 21 Oct 2026 07:27:00 GMT"}, 0.0),
        *[({"retry-after": text}, None) for text in ("", "soon", "-1", "nan", "inf", "1e999", "Wed, 99 Foo 2026", "٣s9", "\x00", "9" * 400, "1_0", "٣", "0x10", "+5", ".")],
        ({"retry-after": "1e1"}, 10.0),
        ({"retry-after": ".5"}, 0.5),
        ({"retry-after-ms": "-1"}, None),
        ({}, None),
    ],
)
def test_headers_say_how_long_to_wait(headers, wait):
    assert asked_wait(headers) == wait
    assert error(429, {}, headers).retry_after_s == wait


def test_a_date_is_counted_from_now_where_the_answer_has_none():
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert asked_wait({"retry-after": later}) == pytest.approx(60, abs=2)
    assert asked_wait({"retry-after": later, "date": "never"}) == pytest.approx(60, abs=2)


RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "14.5s"}
HELP = {"@type": "type.googleapis.com/google.rpc.Help", "links": []}


@pytest.mark.parametrize(
    ("body", "wait"),
    [
        ({"error": {"message": "m", "availability": {"code": "capacity_exhausted", "retry_after": 7}}}, 7.0),
        ({"error": {"code": 429, "message": "m", "metadata": {"retry_after": "3"}}}, 3.0),
        ({"error": {"message": "m", "retry_after": 2}}, 2.0),
        ({"message": "m", "retry_after": 2}, 2.0),
        ([{"error": {"code": 429, "message": "m", "details": [HELP, RETRY_INFO]}}], 14.5),
        ({"error": {"code": 429, "message": "m", "details": [RETRY_INFO]}}, 14.5),
        ({"error": {"code": 429, "message": "m", "metadata": {"raw": json.dumps({"error": {"details": [RETRY_INFO]}})}}}, 14.5),
        *[({"error": {"message": "m", "retry_after": value}}, None) for value in (None, True, -1, [], {}, "soon", 10**400)],
        ({"error": {"message": "m", "details": "none", "metadata": [], "availability": 1}}, None),
        ({"error": {"message": "m", "metadata": {"raw": "not json"}}}, None),
        ({"error": "text"}, None),
        ([], None),
        (None, None),
        (42, None),
    ],
)
def test_bodies_say_how_long_to_wait(body, wait):
    assert error(429, body).retry_after_s == wait
    assert error(503, body).retry_after_s == wait


def test_a_header_goes_before_the_body():
    assert error(429, {"error": {"message": "m", "retry_after": 9}}, {"retry-after": "2"}).retry_after_s == 2.0


def test_an_error_inside_an_answer_says_how_long_to_wait():
    assert error_of_payload({"error": {"code": 429, "message": "m", "availability": {"retry_after": 4}}}).retry_after_s == 4.0


# ---- a quota is no rate limit -------------------------------------------------------------------------------------


def gemini(quota_id: str) -> list[object]:
    failure = {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": quota_id}]}
    return [{"error": {"code": 429, "message": "You exceeded your current quota", "status": "RESOURCE_EXHAUSTED", "details": [failure, RETRY_INFO]}}]


QUOTAS = [
    *[
        {"error": {"message": "m", "type": code, "code": None}}
        for code in (
            "insufficient_quota", "billing_hard_limit_reached", "credit_balance_exhausted", "project_spend_limit_exceeded",
            "organization_usage_limit_exceeded", "exceeded_current_quota_error",
        )
    ],
    *[{"error": {"message": "m", "code": code}} for code in ("1113", "1308", "1309", "1310", "1321")],
    gemini("GenerateRequestsPerDayPerProjectPerModel-FreeTier"),
]  # fmt: skip


@pytest.mark.parametrize("body", QUOTAS)
def test_a_quota_that_is_used_up_is_a_matter_of_credit(body):
    assert type(error(429, body)) is errors.ErrorModelCredit


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}},
        *[{"error": {"message": "m", "code": code}} for code in ("1302", "1305", "1307", "1322", "11133")],
        gemini("GenerateRequestsPerMinutePerProjectPerModel-FreeTier"),
    ],
)
def test_a_rate_limit_is_none(body):
    assert type(error(429, body)) is errors.ErrorModelRateLimit


# ---- what is no matter of the key ---


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"metadata": {"reasons": ["violence"], "flagged_input": "kill the proc…", "provider_name": "x"}}, errors.ErrorModelRequest),
        ({"metadata": {"patterns": ["ssn"]}}, errors.ErrorModelRequest),
        ({"availability": {"code": "region_restricted", "retryable": False}}, errors.ErrorModelRequest),
        ({}, errors.ErrorModelKey),
        ({"metadata": {"provider_name": "x"}}, errors.ErrorModelKey),
    ],
)
def test_a_prompt_that_is_refused_is_no_matter_of_the_key(fields, kind):
    assert type(error(403, {"error": {"code": 403, "message": "no", **fields}})) is kind


INNER = json.dumps({"error": {"message": "the words of the provider behind", "code": "context_length_exceeded"}})


@pytest.mark.parametrize("body", [{"detail": INNER}, {"error": {"message": INNER, "code": 400}}, {"error": {"message": json.dumps([json.loads(INNER)])}}, {"error": INNER}])
def test_what_another_provider_said_is_taken_out_of_its_wrapping(body):
    found = error(400, body)
    assert found.too_long
    assert "the words of the provider behind" in str(found)
    assert "{" not in str(found)


# ---- errors under status 200 --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "status", "kind"),
    [
        ({"code": 503}, 503, errors.ErrorModelServer),
        ({"code": "503"}, 503, errors.ErrorModelServer),
        ({"http_status": 429, "error_type": "rate_limit_exceeded"}, 429, errors.ErrorModelRateLimit),
        ({"code": "server_error", "metadata": {"error_type": "provider_overloaded"}}, 500, errors.ErrorModelServer),
        ({"code": "x", "metadata": {"error_type": "provider_overloaded"}}, 503, errors.ErrorModelServer),
        ({"type": "overloaded_error"}, 529, errors.ErrorModelServer),
        ({"code": "server_is_overloaded"}, 503, errors.ErrorModelServer),
        ({"status": "UNAVAILABLE"}, 503, errors.ErrorModelServer),
        ({"error_type": "timeout"}, 504, errors.ErrorModelTimeout),
        ({"code": "rate_limit_exceeded"}, 429, errors.ErrorModelRateLimit),
        ({"code": "insufficient_quota"}, 429, errors.ErrorModelCredit),
        ({"code": "1113"}, None, errors.ErrorModelCredit),
        ({"type": "invalid_request_error"}, 400, errors.ErrorModelRequest),
        ({"code": "context_length_exceeded"}, None, errors.ErrorModelRequest),
        ({"code": "something_new"}, None, errors.ErrorModelServer),
        ({"code": 1001}, None, errors.ErrorModelServer),
        ({"code": None}, None, errors.ErrorModelServer),
        ({"code": "9" * 5000}, None, errors.ErrorModelServer),
        ({"code": {"a": 1}}, None, errors.ErrorModelServer),
    ],
)
def test_an_error_inside_an_answer_has_the_status_it_names(fields, status, kind):
    found = error_of_payload({"error": {"message": "m", **fields}})
    assert (type(found), found.status) == (kind, status)


@pytest.mark.parametrize("status", [400, 413, 500])
@pytest.mark.parametrize(
    "fields",
    [
        {"code": "context_length_exceeded"},
        {"type": "exceed_context_size_error", "n_ctx": 4096},
        {"message": "This model's maximum context length is 8192 tokens."},
        {"message": "Please reduce the length of the messages."},
        {"message": "the request exceeds the available context size"},
        {"message": "The input token count (9) exceeds the maximum number of tokens allowed (8)."},
        {"message": "prompt is too long: 200001 tokens > 200000 maximum"},
    ],
)
def test_a_conversation_that_is_too_long_is_the_requests_fault_whatever_the_status(status, fields):
    found = error(status, {"error": {"message": "m", **fields}})
    assert (type(found), found.status) == (errors.ErrorModelRequest, status)
    assert "HistoryTruncate" in str(found)


@pytest.mark.parametrize(
    "body",
    [
        'data: {"error":{"message":"no such thing","code":"bad","param":"x"}}\n\n',
        'event: error\r\ndata: {"error":{"message":"no such thing","code":"bad","param":"x"}}\r\n\r\ndata: [DONE]\r\n\r\n',
        ': busy\n\nerror: {"error":{"message":"no such thing",\nerror: "code":"bad","param":"x"}}\n',
    ],
)
def test_an_error_that_comes_as_an_event_is_read(body):
    found = error_of(400, {}, body.encode(), model="m", place="host:1")
    assert str(found) == "host:1 answered 400: no such thing [bad]"
    assert json.loads(found.body)["error"]["param"] == "x"


@pytest.mark.parametrize("body", ["data: nothing", "error: it is down", "data: 5\n\n"])
def test_what_is_no_error_in_an_event_is_told_as_it_is(body):
    assert str(error_of(400, {}, body.encode(), model="m", place="host:1")) == f"host:1 answered 400: {body.strip()}"
