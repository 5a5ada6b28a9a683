"""Server-sent events from bytes: the same events wherever the bytes are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentroute._sse import SSEDecoder
from agentroute.errors import ErrorModelResponse


def events(*pieces: bytes) -> list[str]:
    decoder = SSEDecoder()
    found = [event for piece in pieces for event in decoder.feed(piece)]
    return [event.data for event in [*found, *decoder.flush()]]


STREAM = (
    b"\xef\xbb\xbf: comment\r\n\r\ndata: {\"a\": \"caf\xc3\xa9 \xe2\x80\xa8 \xc2\x85\"}\r\n\r\n"
    b"event: ping\rdata:no space\r\rid: 7\nretry: 5\ndata: one\ndata: two\n\n: keep-alive\n\ndata: [DONE]"
)
EXPECTED = ['{"a": "café \u2028 \x85"}', "no space", "one\ntwo", "[DONE]"]


def test_a_whole_stream_is_read():
    assert events(STREAM) == EXPECTED


@pytest.mark.parametrize("cut", range(1, len(STREAM)))
def test_one_cut_anywhere_changes_nothing(cut):
    assert events(STREAM[:cut], STREAM[cut:]) == EXPECTED


def test_byte_by_byte_changes_nothing():
    assert events(*(STREAM[i : i + 1] for i in range(len(STREAM)))) == EXPECTED


@given(
    texts=st.lists(st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=["Cs"]), min_size=1), min_size=1),
    end=st.sampled_from(["\n", "\r", "\r\n"]),
    cuts=st.lists(st.integers(0, 500), max_size=8),
)
def test_any_text_in_any_pieces_comes_out_whole(texts, end, cuts):
    stream = "".join(f"data: {text}{end}{end}" for text in texts).encode()
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    assert events(*(stream[a:b] for a, b in pairwise(edges))) == texts


LINES = st.sampled_from(
    [b"", b"", b"data", b"data:", b"data: a", b"data:b ", b"data:  c:d", b"data: \xe2\x80\xa8\xc2\x85\xf0\x9f\xa6\x8a", b"data: \xff", b"event: error", b"event:",
     b": comment", b":", b"id: 7", b"retry: 5", b"unknown: x", b"nothing", b"error: {}", b"\xef\xbb\xbfdata: e", b"data: [DONE]"]
)  # fmt: skip
ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])


def told(*pieces: bytes) -> list[tuple[str, str]]:
    decoder = SSEDecoder()
    found = [event for piece in pieces for event in decoder.feed(piece)]
    return [*found, *decoder.flush()]


def ended(lines: list[bytes]) -> list[bytes]:
    """The lines with a blank one before and after each `data: [DONE]`."""
    return [part for line in lines for part in ([b"", line, b""] if line == b"data: [DONE]" else [line])]


def by_the_book(stream: bytes) -> list[tuple[str, str]]:
    """The standard's rules on a stream that is there in full, with the deviations `_sse.py` names; for `[DONE]` see `ended`."""
    found, data, kind = [], [], ""
    lines = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    for line in [*ended(lines), b""]:
        name, _, value = line.decode("utf-8", "replace").partition(":")
        data += [value.removeprefix(" ")] if name in ("data", "error") else []
        kind = value.removeprefix(" ") if name == "event" else "error" if name == "error" else kind
        found += [(kind or "message", "\n".join(data))] if not line and data else []
        data, kind = ([], "") if not line else (data, kind)
    return found


@given(
    lines=st.lists(st.tuples(LINES, ENDS), max_size=20), last=LINES, bom=st.sampled_from([b"", b"\xef\xbb\xbf"]), cuts=st.lists(st.integers(0, 600), max_size=12)
)
def test_the_events_are_the_standards_wherever_the_bytes_are_cut(lines, last, bom, cuts):
    stream = bom + b"".join(line + end for line, end in lines) + last
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    expected = by_the_book(stream)
    assert told(stream) == expected
    assert told(*(stream[a:b] for a, b in pairwise(edges))) == expected
    assert told(*(stream[i : i + 1] for i in range(len(stream)))) == expected


@given(sizes=st.lists(st.integers(0, 70), max_size=12), step=st.integers(1, 300))
def test_the_limit_is_that_of_one_event_wherever_the_bytes_are_cut(sizes, step):
    stream = b"".join(b"data:" + b"x" * size + b"\n\n" for size in sizes)
    decoder = SSEDecoder(limit=75)
    found = [event for start in range(0, len(stream), step) for event in decoder.feed(stream[start : start + step])]
    assert [len(event.data) for event in found] == sizes
    longer = b"data:" + b"x" * 71 + b"\n\n"
    with pytest.raises(ErrorModelResponse):
        [decoder.feed(longer[start : start + step]) for start in range(0, len(longer), step)]


def test_an_event_without_data_is_not_delivered():
    assert events(b"event: nothing\n\n: only a comment\n\n") == []


def test_an_endless_event_is_an_error():
    decoder = SSEDecoder(limit=1000)
    with pytest.raises(ErrorModelResponse, match="larger than 1000 bytes"):
        [decoder.feed(b"data: " + b"x" * 90) for _ in range(12)]


def test_the_beginning_of_an_event_counts_too():
    with pytest.raises(ErrorModelResponse):
        SSEDecoder(limit=1000).feed(b"data: x\n\ndata: " + b"x" * 2000)


def test_many_small_events_do_not_count_towards_the_limit_of_one():
    decoder = SSEDecoder(limit=1000)
    assert sum(len(decoder.feed(b"data: " + b"x" * 90 + b"\n\n")) for _ in range(100)) == 100


def test_the_event_type_is_kept():
    assert SSEDecoder().feed(b"event: error\ndata: x\n\n")[0] == ("error", "x")


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_done_is_told_at_the_end_of_its_line(end):
    decoder = SSEDecoder()
    assert decoder.feed(b"event: last" + end + b"data: {}" + end + b"data: [DONE]" + end) == [("last", "{}"), ("message", "[DONE]")]
    assert decoder.feed(end + b"data: x" + end + end) == [("message", "x")]
