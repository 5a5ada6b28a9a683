"""Foreign text as HTML: cut, made visible and escaped. What comes out stands between tags, never inside one."""

from __future__ import annotations

import html
import re

from .formats import cut, one_line, visible

__all__ = ["LEFT", "code", "escaped", "line", "paragraphs", "text_block"]

LEFT = 'style="text-align:left"'
"""Literal styles are what JupyterLab leaves in an untrusted notebook, where it aligns cells to the right otherwise."""
# Where a long word may be broken also without a style sheet. A null character stands for it until all is escaped.
_UNBROKEN = re.compile("([!-\u02ff]{60})(?=[!-\u02ff])")


def escaped(seen: str, *, breaks: bool = True) -> str:
    """Text that is visible already, as HTML; with `breaks`, no word is too long for a line."""
    if breaks:
        seen = _UNBROKEN.sub("\\1\0", seen)
    return html.escape(seen, quote=False).replace("\0", "<wbr>")


def line(text: str, limit: int) -> str:
    """Foreign text as one line of HTML."""
    return escaped(one_line(text, limit))


def text_block(text: str, limit: int, *, breaks: bool = True) -> str:
    """Foreign text as HTML with its line ends; a note stands where the middle was left out.

    `limit` is in characters of text; text that grows more than three-fold by being escaped gets fewer.
    """
    head, left_out, tail = cut(text, limit)
    head, tail = (escaped(visible(part), breaks=breaks) for part in (head, tail))
    if (size := len(head) + len(tail)) > 3 * limit:
        return text_block(text, 3 * limit * limit // size, breaks=breaks)
    return head + (_note(left_out) if left_out else "") + tail


def code(text: str, limit: int) -> str:
    """Text whose spaces count, in a `<pre>`: nothing is put between its characters, and it wraps without a style sheet too."""
    return f'<pre style="white-space:pre-wrap;overflow-wrap:anywhere">{text_block(text, limit, breaks=False)}</pre>'


def paragraphs(text: str, limit: int) -> str:
    """Paragraphs at blank lines, `<br>` at line ends, so that it reads the same without a style sheet."""
    parts = [part.strip("\n") for part in text_block(text, limit).split("\n\n")]
    return "".join(f'<p dir="auto">{part.replace(chr(10), "<br>")}</p>\n' for part in parts if part.strip())


def _note(left_out: int) -> str:
    return f"\n<i>… {left_out:,} characters left out here, whole in the result …</i>\n"
