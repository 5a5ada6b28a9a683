"""What a GGUF file says about itself: context length, chat template. Reads the head of the file only, never the weights.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import ErrorConfig

__all__ = ["context_length", "metadata", "template_knows_tools"]

_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX = 1 << 26
"""No text or array in the head of a real file is longer."""


def metadata(path: Path) -> dict[str, Any]:
    """The file's key-value pairs; arrays (vocabularies, mostly) are left out.

    Raises:
        ErrorConfig: the file is not there, cannot be read, is no GGUF file, or ends too early.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(4)
            if magic != b"GGUF":
                raise ErrorConfig(f"{path} is not a GGUF file: it begins with {magic!r}, not with b'GGUF'")
            return {key: value for key, value in _pairs(file) if value is not None}
    except (OSError, ValueError, struct.error, MemoryError, RecursionError) as error:
        if isinstance(error, ErrorConfig):
            raise
        problem = error.strerror if isinstance(error, OSError) and error.strerror else "it is damaged or incomplete"
    raise ErrorConfig(f"{path} cannot be read as a GGUF file: {problem}")


def context_length(pairs: dict[str, Any]) -> int | None:
    """Tokens the model was trained to look back on; None when the file does not say."""
    length = pairs.get(f"{pairs.get('general.architecture')}.context_length")
    return length if isinstance(length, int) and length > 0 else None


def template_knows_tools(pairs: dict[str, Any]) -> bool:
    """Whether the chat template has a place for tools; llama.cpp ignores them silently where it has none."""
    return any("tools" in str(value) for key, value in pairs.items() if key.startswith("tokenizer.chat_template"))


def _pairs(file: BinaryIO) -> Iterator[tuple[str, Any]]:
    version, _tensors, count = _unpack(file, "IQQ")
    if not 2 <= version <= 3:
        raise ValueError(f"GGUF version {version}")
    for _ in range(count):
        key = _text(file)
        (kind,) = _unpack(file, "I")
        yield key, _value(file, kind)


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _text(file)
    if kind != _ARRAY:
        return _unpack(file, _format(kind))[0]
    kind, count = _unpack(file, "IQ")
    if count > _MAX:
        raise ValueError("an array too long to be true")
    if kind in (_STRING, _ARRAY):
        for _ in range(count):
            _value(file, kind)
    else:
        file.seek(count * struct.calcsize(_format(kind)), 1)
    return None


def _format(kind: int) -> str:
    if kind not in _FORMATS:
        raise ValueError(f"unknown value type {kind}")
    return _FORMATS[kind]


def _unpack(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    layout = "<" + layout
    return struct.unpack(layout, file.read(struct.calcsize(layout)))


def _text(file: BinaryIO) -> str:
    (length,) = _unpack(file, "Q")
    if length > _MAX or len(data := file.read(length)) < length:
        raise ValueError("a text that goes past the end of the file")
    return data.decode("utf-8", "replace")
