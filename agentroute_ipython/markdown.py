"""Markdown of a model as HTML: headings, lists, emphasis, code, tables, quotes, rules and links, and nothing else.

markdown-it-py finds the structure; the tags are written here, from a short list. HTML in the text stays text, and what no
reader could see is written out. A link leads to a web page or a mail address, or it is text; a picture is a link to it, so
that nothing is fetched before somebody clicks. Without markdown-it-py the text is shown in paragraphs.
"""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agentroute.keys import without_credentials
from agentroute.visible import visible

from .escaping import LEFT, code, escaped, line, paragraphs

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

__all__ = ["Block", "MarkdownStream", "blocks"]

DEPTH = 20
"""Levels of nesting, two for a list; a block that has more is shown as text."""
PIECE = 3_000
"""Characters of a paragraph that are read as one; of a longer one each part is a paragraph."""
COLUMNS = 60
"""A text with more bars in a line has no tables: a table costs its rows times its columns."""
BRACKETS = 200
"""Words with more opening brackets are shown as text: each may begin a link, and costs as much as `DEPTH` other characters."""
GROWTH = 20
"""How many times longer than its text the HTML of a block may be; one that grows more is shown as text."""

_TAGS = {
    "paragraph_open": '<p dir="auto">', "paragraph_close": "</p>\n", "heading_close": "</b></p>\n", "hr": "<hr>\n",
    "bullet_list_open": '<ul dir="auto">\n', "bullet_list_close": "</ul>\n", "ordered_list_close": "</ol>\n", "list_item_open": "<li>",
    "list_item_close": "</li>\n", "blockquote_open": '<blockquote dir="auto">', "blockquote_close": "</blockquote>\n",
    "table_open": '<div class="agr-table"><table>', "table_close": "</table></div>\n", "thead_open": "<thead>", "thead_close": "</thead>\n",
    "tbody_open": "<tbody>\n", "tbody_close": "</tbody>", "tr_open": "<tr>", "tr_close": "</tr>\n", "th_close": "</th>", "td_close": "</td>",
    "strong_open": "<b>", "strong_close": "</b>", "em_open": "<em>", "em_close": "</em>", "s_open": "<s>", "s_close": "</s>",
    "softbreak": "<br>", "hardbreak": "<br>",
}  # fmt: skip
_ALIGNED = {f"text-align:{side}": f'style="text-align:{side}"' for side in ("right", "center")}
_TEXT = ("text", "text_special")
_ADDRESS = re.compile(r"\bhttps?://[^\s<>\"'`]{1,2000}")
_AFTER_ADDRESS = ".,;:!?*_~)]}"
_LIKE_AN_ADDRESS = re.compile(r"[\w-]\s*[.\u3002\uff0e\uff61]\s*\w{2}|//|@|\bwww\b", re.IGNORECASE)
_TARGET = re.compile(r"(?:https?://|mailto:)[!-~]{1,2000}", re.IGNORECASE)
_HOST = re.compile(r"(?:[!-~]+@)?(?:[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_.])?|\[[0-9a-f:.]+\])(?::\d{1,5})?", re.IGNORECASE)
_LANGUAGE = re.compile(r"[\w+#.-]{0,20}")
_CUT_HERE = re.compile(r"\n(?=[-*+] |\d{1,9}[.)] |\n)")


@dataclass(frozen=True)
class Block:
    """One paragraph, list, table, … of a text: its HTML, and how many characters of the text it is."""

    html: str
    size: int


def blocks(text: str) -> list[Block]:
    """The Markdown of `text`, block by block; their sizes add up to the length of the text with `\\n` at its line ends. Never raises."""
    return _Reader().blocks(_with_plain_ends(text), split=True)


class MarkdownStream:
    """A text that grows, as HTML: what `blocks` makes of its end, with references to links only where they are near.

    Finished blocks are read once, so that it costs as much as the block that is being written. About `limit` characters of
    the end are shown.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._restart()

    def _restart(self) -> None:
        self._reader = _Reader()
        self._done: list[Block] = []
        self._before = ""
        """The text before the block that is being written."""
        self._opening = ""
        """The lines that a code block or a table begins with, when they have been left behind."""
        self._left_behind = False

    def html(self, text: str) -> str:
        """The HTML of the text so far, of which the last call was given the beginning. Never raises."""
        text = _with_plain_ends(text)
        if not text.startswith(self._before):
            self._restart()
        rest = text[len(self._before) :]
        if len(rest) > 4 * self._limit:
            self._leave(text, rest, "")
            rest = text[len(self._before) :]
        source = self._opening + rest
        found = self._reader.blocks(source)
        *finished, last = found
        if finished:
            size = sum(block.size for block in finished)
            self._before = text[: len(text) - len(source) + size]
            self._opening = ""
            self._done += finished
        elif len(rest) > self._limit:
            self._leave(text, rest, _opening(source))
        while self._done and sum(block.size for block in self._done) > self._limit:
            del self._done[0]
            self._left_behind = True
        start = "<p>…</p>\n" if self._left_behind else ""
        return start + "".join(block.html for block in self._done) + last.html

    def _leave(self, text: str, rest: str, opening: str) -> None:
        """Leaves all but the end of the block behind that is being written."""
        at = len(rest) - self._limit // 2
        found = _CUT_HERE.search(rest, at)
        end = found.start() if found else max(rest.find("\n", at), rest.find(" ", at) if "\n" not in rest else -1, at - 1)
        self._before = text[: len(text) - len(rest) + end + 1]
        self._opening, self._done, self._left_behind = opening, [], True


def _opening(source: str) -> str:
    """What a part of a code block or of a table needs before it to be read as such."""
    first, second, *_ = [*source.lstrip("\n").split("\n", 2), "", ""]
    if first.lstrip().startswith(("```", "~~~")):
        return first + "\n"
    if "|" in first and set(second) <= set("|-: ") and "-" in second:
        return f"{first}\n{second}\n"
    return ""


def _with_plain_ends(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


@functools.cache
def _parser(tables: bool) -> MarkdownIt | None:
    try:
        from markdown_it import MarkdownIt
    except ImportError:
        return None
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": DEPTH}).enable("strikethrough")
    return parser.enable("table") if tables else parser


class _Reader:
    """Reads one text; what a line of words becomes is remembered, as a text that grows is read again and again."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._env: dict[str, Any] = {}
        self._md: MarkdownIt | None = None

    def blocks(self, text: str, *, split: bool = False) -> list[Block]:
        """At least one block. With `split`, a long paragraph is several."""
        self._md = _parser(all(row.count("|") <= COLUMNS for row in text.split("\n")))
        if self._md is None:
            return list(_plain_blocks(text))
        tokens: list[Token] = []
        self._env = {}
        try:
            self._md.block.parse(text, self._md, self._env, tokens)
            if self._env:
                self._known = {}
            return list(self._rendered(text, tokens, split))
        except Exception:  # whatever the parser does with a hostile text, it is shown
            return list(_plain_blocks(text))

    def _rendered(self, text: str, tokens: Sequence[Token], split: bool) -> Iterator[Block]:
        offsets = [0]
        for row in text.split("\n"):
            offsets.append(offsets[-1] + len(row) + 1)
        groups = list(_groups(tokens))
        starts = [0, *(offsets[group[0].map[0]] if group[0].map else 0 for group in groups[1:]), len(text)]
        for group, start, end in zip(groups, starts, starts[1:], strict=False):
            source = text[start:end]
            if split and group[0].type == "paragraph_open" and end - start > PIECE:
                yield from self._pieces(group[1].content, end - start)
                continue
            deep = any(token.level >= DEPTH - 1 for token in group)  # below that, the parser leaves out what it finds
            drawn = "" if deep else self._block(group)
            if deep or len(drawn) > GROWTH * len(source) + 1_000:
                drawn = paragraphs(source, len(source))
            yield Block(drawn, end - start)
        if not groups:
            yield Block("", len(text))

    def _pieces(self, words: str, size: int) -> Iterator[Block]:
        while len(words) > PIECE:
            middle = PIECE // 2
            at = max(words.rfind(". ", middle, PIECE), words.rfind("\n", middle, PIECE)) + 1 or words.rfind(" ", middle, PIECE) + 1 or PIECE
            yield Block(f'<p dir="auto">{self._inline(words[:at])}</p>\n', at)
            words, size = words[at:], size - at
        yield Block(f'<p dir="auto">{self._inline(words)}</p>\n', size)

    def _block(self, tokens: Sequence[Token]) -> str:
        out = []
        for token in tokens:
            kind = token.type
            if kind == "inline":
                out.append(self._inline(token.content))
            elif token.hidden:  # a paragraph in a list whose items are no paragraphs
                continue
            elif kind == "heading_open":
                out.append('<p dir="auto" class="agr-h"><b>' if token.tag in ("h1", "h2") else '<p dir="auto"><b>')
            elif kind == "ordered_list_open":
                start = int(token.attrGet("start") or 1)
                out.append('<ol dir="auto">\n' if start == 1 else f'<ol dir="auto" start="{start}">\n')
            elif kind in ("th_open", "td_open"):
                scope = ' scope="col"' if kind == "th_open" else ""
                out.append(f"<{kind[:2]}{scope} {_ALIGNED.get(str(token.attrGet('style')), LEFT)}>")
            elif kind in ("fence", "code_block"):
                if not _LANGUAGE.fullmatch(token.info.strip()):  # more than a language, which nobody would see
                    out.append(f'<p dir="auto">{line(token.info, 300)}</p>\n')
                out.append(code(token.content.removesuffix("\n"), len(token.content)) + "\n")
            else:
                out.append(_TAGS.get(kind) or escaped(visible(token.content)))
        return "".join(out)

    def _inline(self, words: str) -> str:
        if (known := self._known.get(words)) is None:
            known = self._read(words) if words.count("[") <= BRACKETS else "<br>".join(escaped(visible(row)) for row in words.split("\n"))
            if len(self._known) > 500:
                self._known.clear()
            self._known[words] = known
        return known

    def _read(self, words: str) -> str:
        assert self._md is not None
        tokens: list[Token] = []
        self._md.inline.parse(words, self._md, self._env, tokens)
        said = _said(tokens) + "".join(f" {target}" for token in tokens for target in token.attrs.values())
        struck = without_credentials(said)  # a key that the marks of Markdown, or its escapes, have cut into pieces
        return _words(tokens) if struck == said else escaped(visible(struck))


def _groups(tokens: Sequence[Token]) -> Iterator[Sequence[Token]]:
    """The tokens of each block that is in no other block."""
    start = 0
    for position, token in enumerate(tokens):
        if token.level == 0 and token.nesting <= 0:
            yield tokens[start : position + 1]
            start = position + 1


def _plain_blocks(text: str) -> Iterator[Block]:
    parts = text.split("\n\n")
    for number, part in enumerate(parts, start=1):
        size = len(part) + (2 if number < len(parts) else 0)
        yield Block(paragraphs(part, len(part)), size)


# ------------------------------------------------------------------------------------------------------ words and links


def _words(tokens: Sequence[Token], *, in_link: bool = False) -> str:
    out: list[str] = []
    position = 0
    while position < len(tokens):
        token = tokens[position]
        position += 1
        if token.type in _TEXT:
            text = token.content
            while position < len(tokens) and tokens[position].type in _TEXT:
                text += tokens[position].content
                position += 1
            out.append(escaped(visible(text)) if in_link else _with_addresses(visible(text)))
        elif token.type == "link_open":
            end = next((n for n in range(position, len(tokens)) if tokens[n].type == "link_close"), len(tokens))
            inside = tokens[position:end]
            position = end + 1
            out.append(_link(str(token.attrGet("href") or ""), _words(inside, in_link=True), _said(inside)))
        elif token.type == "image":
            said = f"image: {token.content}" if token.content.strip() else "image"
            shown = line(said, 300)
            out.append(shown if in_link else _link(str(token.attrGet("src") or ""), shown, said))
        elif token.type == "code_inline":
            out.append(f"<code>{escaped(visible(token.content))}</code>")
        else:
            out.append(_TAGS.get(token.type) or escaped(visible(token.content)))
    return "".join(out)


def _said(tokens: Sequence[Token]) -> str:
    """What a reader of these words sees."""
    return "".join(" " if token.type in ("softbreak", "hardbreak") else token.content for token in tokens)


def _with_addresses(seen: str) -> str:
    """Text that is visible already, its web addresses as links to themselves."""
    if "://" not in seen:
        return escaped(seen)
    out, done = [], 0
    for match in _ADDRESS.finditer(seen):
        address = match[0].rstrip(_AFTER_ADDRESS)
        if match[0][len(address) :].startswith(")") and address.count("(") > address.count(")"):
            address += ")"
        out.append(escaped(seen[done : match.start()]))
        out.append(_link(address, escaped(address), address) if address.isascii() else escaped(address))
        done = match.start() + len(address)
    return "".join([*out, escaped(seen[done:])])


def _link(target: str, shown: str, said: str) -> str:
    """A link where it leads to a web page or a mail address, else its text and its target in words.

    `shown` is the HTML of what `said` says. Where that reads like an address and is another one, the true one stands beside it.
    """
    site = _site(target)
    if site is None:
        return f"{shown} ({line(target, 80)})" if target else shown
    name = shown if said.strip() else line(target, 200)
    beside = f" <i>({line(site, 200)})</i>" if said.strip() and _deceives(target, site, said) else ""
    return f'<a href="{html.escape(target)}" rel="noopener noreferrer">{name}</a>{beside}'


def _site(target: str) -> str | None:
    """The host with its port, or the mail address; None for what is no link to either."""
    if not _TARGET.fullmatch(target):
        return None
    try:
        parts = urlsplit(target)
    except ValueError:
        return None
    if parts.scheme == "mailto":
        return parts.path or None
    return parts.netloc if _HOST.fullmatch(parts.netloc) else None


def _deceives(target: str, site: str, said: str) -> bool:
    """Whether a reader may take the target for another one, or a name before the host for the host."""
    mail = target[:7].lower() == "mailto:"
    if re.search(r"(^|\.|@)xn--", site, re.IGNORECASE) or ("@" in site and not mail):
        return True
    if not _LIKE_AN_ADDRESS.search(said):
        return False
    host = re.split(r"[/?#]", said.strip().lower().partition("://")[2] or said.strip().lower().removeprefix("mailto:"), maxsplit=1)[0]
    return host.removeprefix("www.") != site.lower().removeprefix("www.")
