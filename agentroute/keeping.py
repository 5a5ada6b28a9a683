"""What the run history keeps of the texts of a run: all, none, or what a function of the user's leaves of them; never a key."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from .errors import ErrorConfig
from .keys import without_credentials

__all__ = ["CONTENTS", "Keeping", "word_of", "without_credentials"]

CONTENTS = ("all", "metadata")
NOT_KEPT = "[not kept: redact failed]"


def word_of(text: str) -> str:
    """What is kept of a name that a model or a provider has made up, where contents are not: as much of it as is no prose."""
    return re.match(r"[\w.:/@+-]{0,128}", text)[0]  # type: ignore[index]


class Keeping:
    """What is kept of texts.

    Args:
        content: `all`, or `metadata` for figures only.
        redact: makes of each text what is kept of it; one that fails keeps nothing.

    Raises:
        ErrorConfig: an argument is something else.
    """

    def __init__(self, content: str = "all", redact: Callable[[str], str] | None = None) -> None:
        if content not in CONTENTS:
            raise ErrorConfig(f"record_content must be 'all' or 'metadata' (figures only), got {content!r:.80}")
        if redact is not None and not callable(redact):
            raise ErrorConfig(f"redact must be a function that takes a text and returns what is kept of it, got {type(redact).__name__}")
        self.content = content
        self.redact = redact

    @property
    def whole(self) -> bool:
        """Whether texts are kept as they are, keys apart."""
        return self.content == "all" and self.redact is None

    def of(self, text: str, keys: Iterable[str] | None = None) -> str | None:
        """What is kept of a text; None is nothing. `keys` as in `without_credentials`."""
        if self.content == "metadata":
            return None
        text = without_credentials(text, keys)  # first, while a key is still what it was
        if self.redact is not None:
            try:
                redacted = self.redact(text)
            except Exception:  # a user's function; its error may hold the text
                return NOT_KEPT
            text = redacted if isinstance(redacted, str) else NOT_KEPT
        return text
