"""Content parts of a prompt: text and pictures."""

from __future__ import annotations

import base64
import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from typing import Any
from urllib.parse import urlsplit

from .errors import ErrorConfig
from .message import Content

__all__ = ["Prompt", "content_of", "image"]

Prompt = str | Sequence[str | Mapping[str, Any]]
"""A text, or texts and content parts."""

_KINDS = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF87a": "image/gif", b"GIF89a": "image/gif"}
_DETAILS = ("auto", "low", "high")
_MAX_BYTES = 20_000_000
"""Bytes of a picture. Ours: providers take 5 to 20 MB inside a request, so a bigger one is a mistake."""
_MAX_URL = _MAX_BYTES * 4 // 3 + 100  # the same in base64
_FIELDS = {"image_url": "url", "video_url": "url", "input_audio": "data"}
"""Kinds of parts whose field of the same name is a dictionary, and the text that it cannot do without."""
_URL = re.compile(r"(https?://\S+|data:image/[a-z.+-]+;base64,[A-Za-z0-9+/=\s]+)\Z", re.IGNORECASE)


def image(source: str | PathLike[str] | bytes, *, detail: str | None = None) -> dict[str, Any]:
    """A picture as part of a prompt: `agent.run(["What is this?", image("cat.png")])`.

    Args:
        source: an http(s) or data URL, which is passed on as it is (the provider fetches it); the path of a file, or its
            file: URL; the bytes of one; or an object that can draw itself as PNG, such as a PIL image. PNG, JPEG, GIF or
            WebP of at most 20 MB.
        detail: how closely the model looks: auto, low or high; None leaves it to the provider.

    Raises:
        ErrorConfig: there is no such file, or it holds no picture of these kinds, or one that is too large.
    """
    if detail is not None and detail not in _DETAILS:
        raise ErrorConfig(f"image(): detail must be one of {', '.join(_DETAILS)}; got {detail!r}")
    picture: dict[str, Any] = {"url": _url_of(source)}
    if detail is not None:
        picture["detail"] = detail
    return {"type": "image_url", "image_url": picture}


def _url_of(source: Any) -> str:
    if isinstance(source, str) and len(source) <= _MAX_URL and _URL.match(source):
        return source
    if isinstance(source, str) and source[:5].lower() == "file:":
        source = _path_of(source)
    elif isinstance(source, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+:(//)?", source):
        wrong = "a data URL of more than 20 MB" if len(source) > _MAX_URL else f"{source!r:.80}"
        raise ErrorConfig(f"image(): expected an http(s) or data URL, a path or bytes; got {wrong}")
    if isinstance(source, str | PathLike):
        data, what = _read(source), f"{fspath(source)!r:.200}"
    elif isinstance(source, bytes | bytearray | memoryview):
        data, what = bytes(source), "the data given"
    elif callable(getattr(source, "_repr_png_", None)) and not isinstance(source, type):
        data, what = _drawn(source), f"what {type(source).__name__} draws"
    else:
        raise ErrorConfig(f"image(): expected a URL, a path or bytes, got {type(source).__name__}")
    if len(data) > _MAX_BYTES:
        raise ErrorConfig(f"image(): {what} is larger than 20 MB; make the picture smaller, or give its URL")
    kind = next((kind for start, kind in _KINDS.items() if data.startswith(start)), None)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kind = "image/webp"
    if kind is None:
        raise ErrorConfig(f"image(): {what} is {'no picture' if data else 'empty'}; give a PNG, JPEG, GIF or WebP")
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _path_of(url: str) -> str:
    """The path a file: URL stands for."""
    from urllib.request import url2pathname  # brings http.client and email along

    try:
        parts = urlsplit(url)
        if parts.netloc.lower() in ("", "localhost"):
            return url2pathname(parts.path)
    except ValueError:
        pass
    raise ErrorConfig(f"image(): {url!r:.200} is no file of this machine; write one as file:///path, or give its path")


def _drawn(source: Any) -> bytes:
    """The PNG an object draws of itself. As IPython has it, that may also be base64 text, or a pair with metadata."""
    try:
        drawn = source._repr_png_()
        drawn = drawn[0] if isinstance(drawn, tuple) and drawn else drawn
        return base64.b64decode(drawn) if isinstance(drawn, str) else bytes(memoryview(drawn or b""))
    except Exception as error:
        name, problem = type(source).__name__, f"{type(error).__name__}: {error}"
        raise ErrorConfig(f"image(): {name} cannot draw itself as PNG ({problem}); give a path or bytes") from error


def _read(path: str | PathLike[str]) -> bytes:
    """The file's bytes, but not many more than are allowed."""
    try:
        mode = os.stat(path).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a pipe would be waited for, and a device may have no end
            raise ValueError("not a regular file")
        with open(path, "rb") as file:
            return file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or str(error)
    raise ErrorConfig(f"image(): {fspath(path)!r:.200} cannot be read ({problem}); give a URL, the path of a picture, or its bytes")


def content_of(prompt: Any) -> Content:
    """A prompt as message content: a text, or content parts in which plain texts have become text parts.

    Raises:
        ErrorConfig: it is neither, or empty, or has a part that no provider can read.
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
        if (problem := _part_problem(part)) is not None:
            raise ErrorConfig(f"part {number} of the prompt {problem}")
        parts.append(dict(part))
    if not any(part["type"] != "text" or part["text"].strip() for part in parts):
        raise ErrorConfig("the prompt is empty; give the model something to answer")
    return [part for part in parts if part["type"] != "text" or part["text"]]


def _part_problem(part: Mapping[str, Any]) -> str | None:
    """What is wrong with a part of a prompt, if anything. Kinds we do not know are the provider's to judge."""
    kind = part["type"]
    value = part.get(kind)
    if kind == "text" and not isinstance(value, str):
        return f"is of type 'text' and needs a text under 'text'; got {type(value).__name__}"
    if kind in _FIELDS and not (isinstance(value, Mapping) and isinstance(value.get(_FIELDS[kind]), str)):
        hint = "; image(…) makes one" if kind == "image_url" else ""
        return f"is of type {kind!r} and needs {{{_FIELDS[kind]!r}: …}} under {kind!r}{hint}; got {type(value).__name__}"
    try:
        json.dumps(dict(part), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        words = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        return f"cannot be written as JSON ({words}); it may hold only what JSON knows"
    return None
