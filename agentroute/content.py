"""Content parts of a prompt: text and pictures."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from typing import Any

from .errors import ErrorConfig
from .message import Content

__all__ = ["Prompt", "content_of", "image"]

Prompt = str | Sequence[str | Mapping[str, Any]]
"""A text, or texts and content parts."""

_KINDS = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF87a": "image/gif", b"GIF89a": "image/gif"}
_DETAILS = ("auto", "low", "high")
_URL = re.compile(r"(https?://\S+|data:image/[a-z.+-]+;base64,[A-Za-z0-9+/=\s]+)\Z", re.IGNORECASE)


def image(source: str | PathLike[str] | bytes, *, detail: str | None = None) -> dict[str, Any]:
    """A picture as part of a prompt: `agent.run(["What is this?", image("cat.png")])`.

    Args:
        source: an http(s) or data URL, which is passed on as it is (the provider fetches it); the path of a file; the
            bytes of one; or an object that can draw itself as PNG, such as a PIL image. PNG, JPEG, GIF or WebP.
        detail: how closely the model looks: auto, low or high; None leaves it to the provider.

    Raises:
        ErrorConfig: there is no such file, or it holds no picture of these kinds.
    """
    if detail is not None and detail not in _DETAILS:
        raise ErrorConfig(f"image(): detail must be one of {', '.join(_DETAILS)}; got {detail!r}")
    picture: dict[str, Any] = {"url": _url_of(source)}
    if detail is not None:
        picture["detail"] = detail
    return {"type": "image_url", "image_url": picture}


def _url_of(source: Any) -> str:
    draw = getattr(source, "_repr_png_", None)
    if isinstance(source, str) and _URL.match(source):
        return source
    if isinstance(source, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+:(//)?", source) and not source.lower().startswith("file:"):
        raise ErrorConfig(f"image(): expected an http(s) or data URL, a path or bytes; got {source!r:.80}")
    if isinstance(source, str | PathLike):
        data, what = _read(source), repr(fspath(source))
    elif isinstance(source, bytes | bytearray | memoryview):
        data, what = bytes(source), "the data given"
    elif callable(draw) and not isinstance(source, type):
        data, what = draw() or b"", f"what {type(source).__name__} draws"
    else:
        raise ErrorConfig(f"image(): expected a URL, a path or bytes, got {type(source).__name__}")
    kind = next((kind for start, kind in _KINDS.items() if data.startswith(start)), None)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kind = "image/webp"
    if kind is None:
        raise ErrorConfig(f"image(): {what} is {'no picture' if data else 'empty'}; give a PNG, JPEG, GIF or WebP")
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _read(path: str | PathLike[str]) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or "no usable path"
    raise ErrorConfig(f"image(): {fspath(path)!r:.200} cannot be read ({problem}); give a URL, the path of a picture, or its bytes")


def content_of(prompt: Any) -> Content:
    """A prompt as message content: a text, or content parts in which plain texts have become text parts.

    Raises:
        ErrorConfig: it is neither, or empty.
    """
    if isinstance(prompt, str):
        if not prompt.strip():
            raise ErrorConfig("the prompt is empty; give the model something to answer")
        return prompt
    if not isinstance(prompt, list | tuple):
        raise ErrorConfig(f"the prompt must be a text, or a list of texts and content parts such as image('cat.png'); got {prompt!r:.80}")
    parts: list[dict[str, Any]] = []
    for number, part in enumerate(prompt, 1):
        if isinstance(part, str):
            part = {"type": "text", "text": part}
        if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
            raise ErrorConfig(
                f"part {number} of the prompt must be a text, image(…) or a dictionary such as "
                f"{{'type': 'text', 'text': …}}; got {part!r:.80}"
            )
        parts.append(dict(part))
    if not any(part["type"] != "text" or str(part.get("text") or "").strip() for part in parts):
        raise ErrorConfig("the prompt is empty; give the model something to answer")
    return [part for part in parts if part["type"] != "text" or part.get("text")]
