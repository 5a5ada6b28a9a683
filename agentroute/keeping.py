"""What the run history keeps of the texts of a run: all, none, or what a function of the user's leaves of them; never a key."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from .config import keys_in_use, without_keys
from .errors import ErrorConfig

__all__ = ["CONTENTS", "Keeping", "without_credentials"]

CONTENTS = ("all", "metadata")
NOT_KEPT = "[not kept: redact failed]"

_CREDENTIAL = (
    r"(?<![A-Za-z0-9])(?:sk|rk|pk|gsk|xai|pplx|hf|ghp|gho|glpat|AIza|AKIA)[-_A-Za-z0-9]{18,}"
    r"|(?i:\b(?:bearer|basic)\s+)[A-Za-z0-9+/=._~-]{16,}"
)
"""Keys as the large providers make them, and authorisation headers."""
_MAY_HOLD_ONE = r"sk[-_]|rk[-_]|pk[-_]|xai-|pplx-|hf_|gh[op]_|glpat-|AIza|AKIA|(?i:bearer|basic)\s"


def without_credentials(text: str, held: Iterable[str] | None = None) -> str:
    """The text with the keys this process holds, and whatever looks like a key or an authorisation header, struck out.

    `held`: those keys, where somebody has asked for them already.
    """
    keys = [key for key in (keys_in_use() if held is None else held) if key[:8] in text or "\\u" in text]
    if keys:
        text = without_keys(text, keys)
    return re.sub(_CREDENTIAL, _struck_out, text) if re.search(_MAY_HOLD_ONE, text) else text


def _struck_out(found: re.Match[str]) -> str:
    word = found[0].split(None, 1)
    return f"{word[0]} [key]" if len(word) > 1 else "[key]" if any(map(str.isdigit, found[0])) else found[0]


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
