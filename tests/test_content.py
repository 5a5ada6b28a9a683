"""Prompts made of parts, and pictures among them."""

import base64

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
