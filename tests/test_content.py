"""Prompts made of parts, and pictures among them."""

import asyncio
import base64
import os
import re

import pytest

from agentroute import Agent, ErrorConfig, image
from agentroute.testing import ModelScripted

PNG = b"\x89PNG\r\n\x1a\nrest"
PICTURES = {
    "image/png": PNG,
    "image/jpeg": b"\xff\xd8\xff\xe0rest",
    "image/gif": b"GIF89arest",
    "image/webp": b"RIFF\x00\x00\x00\x00WEBPrest",
}


def data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


@pytest.mark.parametrize("kind", PICTURES)
def test_bytes_become_a_data_url_of_their_kind(kind):
    assert image(PICTURES[kind]) == {"type": "image_url", "image_url": {"url": data_url(kind, PICTURES[kind])}}


@pytest.mark.parametrize("name", ["cat.png", "no ending", "wrong.txt"])
def test_a_file_is_read_and_its_kind_comes_from_its_bytes(tmp_path, name):
    (tmp_path / name).write_bytes(PNG)
    assert image(tmp_path / name)["image_url"]["url"] == data_url("image/png", PNG)
    assert image(str(tmp_path / name)) == image(tmp_path / name)


@pytest.mark.parametrize("url", ["https://example.org/cat.png?x=1", "http://example.org/a", data_url("image/png", PNG)])
def test_a_url_is_passed_on_as_it_is(url):
    assert image(url, detail="low")["image_url"] == {"url": url, "detail": "low"}


def test_an_object_that_draws_itself_is_a_picture():
    class Drawing:
        def _repr_png_(self):
            return PNG

    assert image(Drawing()) == image(PNG)


def test_texts_in_a_list_become_text_parts_and_the_run_says_where_pictures_were():
    model = ModelScripted(["A cat."])
    result = Agent("a", model=model).run(["What is this?", image(PNG), {"type": "text", "text": "In one word."}])
    sent = model.requests[0].messages[-1].content
    assert [part["type"] for part in sent] == ["text", "image_url", "text"]
    assert sent[0] == {"type": "text", "text": "What is this?"}
    assert result.record.run.prompt_text == "What is this? [image] In one word."
    assert result.record.messages[0].content_text == "What is this? [image] In one word."


def test_a_picture_alone_is_a_prompt():
    model = ModelScripted(["A cat."])
    assert str(Agent("a", model=model).run([image(PNG)])) == "A cat."


def test_a_prompt_of_parts_is_not_changed_by_the_run():
    part = {"type": "text", "text": "hi"}
    prompt = ["a", part]
    Agent("a", model=ModelScripted(["b"])).run(prompt)
    assert prompt == ["a", {"type": "text", "text": "hi"}]


def test_a_local_model_says_that_it_reads_text_only():
    with pytest.raises(ErrorConfig, match="reads text only, and the prompt holds image_url"):
        Agent("a", model="local/smollm2").run(["What is this?", image(PNG)])


# ---- pictures that are none, or too much of one


def test_the_url_of_a_file_is_its_path(tmp_path):
    path = tmp_path / "my cat é.png"
    path.write_bytes(PNG)
    assert image(path.as_uri()) == image(path.as_uri().replace("file://", "FILE://localhost")) == image(PNG)


def test_a_file_of_another_machine_is_refused():
    with pytest.raises(ErrorConfig, match="is no file of this machine"):
        image("file://server/cat.png")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ErrorConfig, match="cannot be read \\(not a regular file\\)"):
        image(tmp_path / "pipe")


def test_a_device_without_an_end_is_not_read():
    with pytest.raises(ErrorConfig, match="cannot be read \\(not a regular file\\)"):
        image("/dev/zero")


@pytest.mark.parametrize("form", ["file", "bytes", "drawing", "data URL"])
def test_a_picture_larger_than_20_mb_is_refused(tmp_path, form):
    large = PNG + bytes(20_000_000 - len(PNG) + 1)
    (tmp_path / "large.png").write_bytes(large)
    sources = {"file": tmp_path / "large.png", "bytes": large, "drawing": Drawing(lambda: large), "data URL": data_url("image/png", large + bytes(99))}
    with pytest.raises(ErrorConfig, match=r"(more|larger) than 20 MB"):
        image(sources[form])


def test_a_picture_of_20_mb_is_not():
    largest = PNG + bytes(20_000_000 - len(PNG))
    assert image(data_url("image/png", largest)) == image(largest)


class Drawing:
    """Draws itself as IPython asks it to."""

    def __init__(self, draw):
        self._repr_png_ = draw


@pytest.mark.parametrize("drawn", [(PNG, {"width": 3}), base64.b64encode(PNG).decode(), (base64.b64encode(PNG).decode(), {}), bytearray(PNG)])
def test_a_drawing_may_be_base64_or_bring_metadata(drawn):
    assert image(Drawing(lambda: drawn)) == image(PNG)


@pytest.mark.parametrize(
    ("drawn", "words"),
    [(None, "what Drawing draws is empty"), (7, "Drawing cannot draw itself as PNG"), ((), "is empty"), ("no picture", "draw"), ({}, "is empty")],
)
def test_a_drawing_that_is_no_picture_is_an_error_of_the_configuration(drawn, words):
    with pytest.raises(ErrorConfig, match=words):
        image(Drawing(lambda: drawn))


def test_a_drawing_that_fails_says_why():
    with pytest.raises(ErrorConfig, match="cannot draw itself as PNG \\(ZeroDivisionError: division by zero\\)") as caught:
        image(Drawing(lambda: 1 / 0))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


# ---- prompts that are none


def circle():
    inside: dict = {}
    inside["inside"] = inside
    return inside


def depth():
    value: list = []
    for _ in range(100_000):
        value = [value]
    return value


PARTS = {
    "a picture without its URL": ({"type": "image_url"}, "needs {'url': …} under 'image_url'; image(…) makes one; got NoneType"),
    "a picture that is a number": ({"type": "image_url", "image_url": {"url": 5}}, "needs {'url': …}"),
    "a picture that is a text": ({"type": "image_url", "image_url": "https://h/c.png"}, "needs {'url': …} under 'image_url'; image(…) makes one; got str"),
    "a sound without data": ({"type": "input_audio", "input_audio": {"format": "wav"}}, "needs {'data': …} under 'input_audio'; got dict"),
    "a text that is a number": ({"type": "text", "text": 5}, "needs a text under 'text'; got int"),
    "a text that is not there": ({"type": "text"}, "needs a text under 'text'; got NoneType"),
    "a circle": ({"type": "x", "x": circle()}, "cannot be written as JSON (Circular reference detected)"),
    "a tower": ({"type": "x", "x": depth()}, "cannot be written as JSON (nested too deeply)"),
    "no number": ({"type": "x", "x": float("nan")}, "cannot be written as JSON (Out of range float values"),
    "a key that is none": ({"type": "x", "x": {(1, 2): 3}}, "cannot be written as JSON (keys must be str"),
    "bytes": ({"type": "x", "x": b"1"}, "cannot be written as JSON (Object of type bytes"),
}


@pytest.mark.parametrize(("part", "words"), PARTS.values(), ids=PARTS)
def test_a_part_no_provider_can_read_is_not_sent(part, words):
    model = ModelScripted(["hi"])
    with pytest.raises(ErrorConfig, match=re.escape(f"part 2 of the prompt {'is of type' if 'needs' in words else ''}")) as caught:
        Agent("a", model=model).run(["Look:", part])
    assert words in str(caught.value)
    assert model.requests == []


@pytest.mark.parametrize("part", [{"type": "file", "file": {"file_id": "f"}}, {"type": "x", "y": [1, None]}, image(PNG)])
def test_other_parts_are_sent_as_they_are(part):
    model = ModelScripted(["hi"])
    Agent("a", model=model).run([part])
    assert model.requests[0].messages[-1].content == [part]


PROMPTS = {"circle": circle(), "keys": {(1, 2): 3}, "object": object(), "None": None, "number": 5, "parts": ["a", {"type": "x", "x": circle()}], "empty": []}


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_a_run_with_a_prompt_that_is_none_is_told_to_its_end(prompt):
    async def run():
        return [event async for event in Agent("a", model=ModelScripted(["hi"])).events(prompt)]

    start, end = asyncio.run(run())
    assert (start.kind, end.kind) == ("agent_start", "agent_end")
    assert isinstance(end.error, ErrorConfig)
    assert (end.result.record.run.status, end.result.record.run.error_type) == ("error", "ErrorConfig")


@pytest.mark.parametrize("prompt", ["go", ["go"], ("go", image(PNG))])
def test_the_record_holds_the_prompt_before_the_model_is_asked(prompt):
    stream = Agent("a", model=ModelScripted(["hi"])).stream(prompt)
    assert next(iter(stream)).record.run.prompt_text.startswith("go")
    stream.close()
