"""Heads of GGUF files for tests: everything but the weights."""

import struct
from pathlib import Path


def write_gguf(path: Path, *, template: str | None = None, context: int | None = None, version: int = 3) -> Path:
    """A file that says about itself what is given, with a vocabulary and numbers of several types around it."""
    pairs = [_pair("general.architecture", 8, _text("llama")), _pair("tokens", 9, struct.pack("<IQ", 8, 2) + _text("a") + _text("é"))]
    pairs += [_pair("types", 9, struct.pack("<IQ", 5, 3) + bytes(12)), _pair("epsilon", 6, struct.pack("<f", 0.5)), _pair("flag", 7, b"\1")]
    if context is not None:
        pairs.append(_pair("llama.context_length", 4, struct.pack("<I", context)))
    if template is not None:
        pairs.append(_pair("tokenizer.chat_template", 8, _text(template)))
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", version, 0, len(pairs)) + b"".join(pairs))
    return path


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _pair(key: str, kind: int, value: bytes) -> bytes:
    return _text(key) + struct.pack("<I", kind) + value
