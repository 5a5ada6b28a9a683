"""Markdown of a model as HTML: what is drawn, what stays text, and that nothing is lost, fetched or without bounds."""

import re
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentroute_ipython import markdown
from agentroute_ipython.markdown import GROWTH, MarkdownStream, blocks
from tests.ipython.test_display import HOSTILE, TAGS, Page, hidden, strange


def drawn(text: str) -> str:
    return "".join(block.html for block in blocks(text))


def page(text: str) -> Page:
    return Page(f"<section>{drawn(text)}</section>")


def said(text: str) -> str:
    """What a reader sees, without line ends."""
    return page(text).text.replace("\n", "")


# ---------------------------------------------------------------------------------------------------------- structure


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("one\ntwo\n\nthree", '<p dir="auto">one<br>two</p>\n<p dir="auto">three</p>\n'),
        ("**b** *i* ~~s~~ `c`", '<p dir="auto"><b>b</b> <em>i</em> <s>s</s> <code>c</code></p>\n'),
        ("# A\n### B", '<p dir="auto" class="agr-h"><b>A</b></p>\n<p dir="auto"><b>B</b></p>\n'),
        ("- a\n- b", '<ul dir="auto">\n<li>a</li>\n<li>b</li>\n</ul>\n'),
        ("3. a\n4. b", '<ol dir="auto" start="3">\n<li>a</li>\n<li>b</li>\n</ol>\n'),
        ("> q", '<blockquote dir="auto"><p dir="auto">q</p>\n</blockquote>\n'),
        ("---", "<hr>\n"),
        ("```py\na < b\n  c\n```", '<pre style="white-space:pre-wrap;overflow-wrap:anywhere">a &lt; b\n  c</pre>\n'),
        ("", ""),
    ],
)
def test_block_becomes_its_tags(text: str, html: str) -> None:
    assert drawn(text) == html


def test_table_keeps_its_columns_and_alignment() -> None:
    shown = page("| Item | Price |\n|:--|--:|\n| Mug | 12 |")
    assert shown.texts["th"] == ["Item", "Price"] and shown.texts["td"] == ["Mug", "12"]
    assert [value for name, value in shown.attributes if name == "style"] == ["text-align:left", "text-align:right"] * 2


def test_headings_do_not_reach_the_outline_of_the_notebook() -> None:
    assert not re.search("<h[1-6]", drawn("# one\n\n## two\n\nthree\n====="))


def test_nested_list_is_a_list_in_an_item() -> None:
    assert drawn("1. a\n   - b") == '<ol dir="auto">\n<li>a<ul dir="auto">\n<li>b</li>\n</ul>\n</li>\n</ol>\n'


def test_html_in_the_text_is_text() -> None:
    assert said("a <b onclick=x>bold</b> <!-- c --> &lt;i&gt;") == "a <b onclick=x>bold</b> <!-- c --> <i>"
    assert said("<div>\n\n*x*\n\n</div>") == "<div>x</div>"


def test_words_after_the_language_of_code_are_shown() -> None:
    assert said("```py hidden words\nx\n```") == "py hidden wordsx"
    assert said("```c++\nx\n```") == "x"


def test_characters_that_hide_are_written_out_also_where_markdown_makes_them() -> None:
    assert said("a&#x202e;b &#8203;") == r"a\u202eb \u200b"
    assert said("`\u202e`") == r"\u202e"


@pytest.mark.parametrize("text", ["sk-proj-{}", "sk-**proj**-{}", "sk&#45;proj&#45;{}", "sk\\-proj\\-{}", "[x](https://a.test/?k=sk&#45;proj&#45;{})", "*sk*-`proj-{}`"])
def test_key_that_markdown_puts_together_is_struck_out(text: str) -> None:
    secret = "aB3dE5fG7hJ9kL1mN3pQ5rS7tU9vW1xY"
    assert secret not in drawn(text.format(secret))


# -------------------------------------------------------------------------------------------------------------- links


def links(text: str) -> list[str | None]:
    return [value for name, value in page(text).attributes if name == "href"]


@pytest.mark.parametrize("target", ["https://a.test/x?y=1&z=2", "http://a.test", "mailto:ada@a.test", "HTTPS://A.test/"])
def test_page_and_mail_address_are_links(target: str) -> None:
    assert [str(link).lower() for link in links(f"[here]({target})")] == [target.lower()]
    assert said(f"[here]({target})") == "here"
    assert ("rel", "noopener noreferrer") in page(f"[here]({target})").attributes


@pytest.mark.parametrize(
    "target",
    ["javascript:alert(1)", "JaVaScRiPt:alert(1)", "data:text/html,x", "data:image/png;base64,AAAA", "vbscript:x", "file:///etc/passwd",
     "ftp://a.test", "//a.test/x", "/lab/tree", "#top", "../x", "jav&#x09;ascript:x", "&#106;avascript:x", "blob:https://a.test/1",
     "tel:123", "https:", "https://", "http://[::1", "command:x", "https:a.test", "https://a&#37;b.test"],
)  # fmt: skip
def test_any_other_target_is_told_and_no_link(target: str) -> None:
    for text in (f"[here]({target})", f"![here]({target})", f"[here][r]\n\n[r]: {target}"):
        assert links(text) == []
        assert "here" in said(text)


@pytest.mark.parametrize(
    "text",
    ["paypal.com", "https://paypal.com/login", "www.paypal.com", "paypal\u3002com", "log in at paypal.com", "ada@paypal.com",
     "https://paypal.com@evil.test/", "`paypal.com`", "**paypal.com**", "paypal&#46;com", "http://evil.test.paypal.com"],
)  # fmt: skip
def test_text_that_reads_like_another_address_has_the_true_one_beside_it(text: str) -> None:
    assert said(f"[{text}](https://evil.test/x)").endswith(" (evil.test)")


@pytest.mark.parametrize("text", ["evil.test", "https://evil.test/other", "www.evil.test", "the page"])
def test_text_that_does_not_mislead_stands_alone(text: str) -> None:
    assert said(f"[{text}](https://evil.test/x)") == text


def test_host_in_other_letters_and_a_name_before_the_host_are_told() -> None:
    assert said("[bank](https://b\u0430nk.test/)") == "bank (xn--bnk-6cd.test)"
    assert said("[bank](https://bank.test@evil.test)") == "bank (bank.test@evil.test)"
    assert said("[write](mailto:ada@a.test) [ada@b.test](mailto:ada@a.test)") == "write ada@b.test (ada@a.test)"


def test_link_without_a_text_is_its_target() -> None:
    assert said("[](https://a.test/x)") == "https://a.test/x"


def test_picture_is_a_link_and_nothing_that_loads() -> None:
    assert drawn("![a chart](https://a.test/p.png)").count("<a ") == 1
    assert said("![a chart](https://a.test/p.png)") == "image: a chart"
    assert said("![](https://a.test/p.png)") == "image"
    assert drawn("[![logo](https://a.test/p.png)](https://b.test)").count("<a ") == 1


def test_bare_address_is_a_link_to_itself() -> None:
    assert links("See https://a.test/x_(y), or (https://b.test).") == ["https://a.test/x_(y)", "https://b.test"]
    assert said("See https://a.test/x.") == "See https://a.test/x."
    assert links("https://b\u0430nk.test/ `https://a.test` javascript://a.test") == []
    assert links("<https://a.test>") == ["https://a.test"]


@given(st.text(st.sampled_from("htps:/a.@#?()[]<>!\"'` \\&;xjv\u0430\u202e\n"), max_size=60))
@settings(max_examples=300, deadline=None)
def test_no_target_leaves_its_attribute(target: str) -> None:
    for text in (f"[x]({target})", f"[x](<{target}>)", f"<{target}>", f"https://{target}", f"![x]({target})"):
        shown = page(text)
        assert set(shown.tags) <= TAGS and strange(shown) == []


# ---------------------------------------------------------------------------------------------------------- bounds

DEEP = [
    "> " * 5000 + "end", "- " * 5000 + "end", "".join(" " * n + "- x\n" for n in range(0, 400, 2)) + " " * 400 + "- end", "[" * 20_000 + "end",
    "*a " * 5000 + "end", "a" + "`" * 9999 + "end", "![" * 9000 + "end", "**" * 9000 + "end", "<" * 20_000 + "end", "\\" * 20_001 + "end",
    "|a" * 5000 + "\n" + "|-" * 5000 + "\n" + "|b\n" * 4000 + "end", "|a" * 40 + "\n" + "|-" * 40 + "\n" + "|\n" * 3000 + "\nend",
    "[](" * 7000 + "end", "# " * 9000 + "end", "a\n" * 9000 + "end", "[a]: b\n" * 3000 + "\nend", "x" * 30_000 + " end", "&" * 20_000 + "end", "\n" * 20_000 + "end",
    "1. " * 6000 + "end", "> - " * 3000 + "end", "~~~\n" * 5001 + "end", "\t" * 9000 + "end",
]  # fmt: skip


@pytest.mark.parametrize("text", DEEP, ids=range(len(DEEP)))
def test_huge_and_nested_text_is_whole_and_bounded(text: str) -> None:
    html = drawn(text)
    assert "end" in Page(f"<section>{html}</section>").text
    assert len(html) < (GROWTH + 8) * len(text)


def test_words_with_more_brackets_than_links_have_are_text() -> None:
    words = "**one**\n<two>" + "[" * markdown.BRACKETS
    assert page(words).texts["b"] == ["one"]
    more = drawn(words + "[").replace("<wbr>", "")
    assert more == f'<p dir="auto">**one**<br>&lt;two&gt;{"[" * (markdown.BRACKETS + 1)}</p>\n'
    assert page(f"{words}[\n\n**three**").texts["b"] == ["three"]


def test_block_below_the_deepest_level_is_text_and_the_others_are_not() -> None:
    shown = page("**one**\n\n" + "> " * 30 + "deep\n\n**two**")
    assert shown.texts["b"] == ["one", "two"] and "blockquote" not in shown.tags
    assert "> > deep" in shown.text


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_harmless(text: str) -> None:
    for source in (text, f"# {text}", f"- {text}\n- b", f"```\n{text}\n```", f"|{text}|\n|-|\n|{text}|", f"[{text}](https://a.test/{text})"):
        shown = page(source)
        assert set(shown.tags) <= TAGS and strange(shown) == [] and hidden(drawn(source)) == ""


LETTERS = st.text(st.sampled_from("ab \n\n*_`~#>-+1.|:[]()!<&\\\t\r\x1b\u200d\u202e\ud800é"), max_size=120)


@given(LETTERS)
@settings(max_examples=400, deadline=None)
def test_whatever_the_text_the_html_is_closed_and_known_and_the_sizes_add_up(text: str) -> None:
    shown = page(text)
    assert set(shown.tags) <= TAGS and strange(shown) == []
    assert sum(block.size for block in blocks(text)) == len(text.replace("\r\n", "\n"))


def test_long_paragraph_is_several() -> None:
    words = "A sentence of some words. " * 400
    parts = blocks(words)
    assert len(parts) > 3 and max(part.size for part in parts) <= markdown.PIECE
    assert "".join(Page(f"<section>{part.html}</section>").text + " " for part in parts).split() == words.split()


def test_without_the_parser_the_text_stands_in_paragraphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "markdown_it", None)
    markdown._parser.cache_clear()
    try:
        assert drawn("**a**\nb\n\n<c>") == '<p dir="auto">**a**<br>b</p>\n<p dir="auto">&lt;c&gt;</p>\n'
        assert MarkdownStream(100).html("a\n\nb") == '<p dir="auto">a</p>\n<p dir="auto">b</p>\n'
    finally:
        markdown._parser.cache_clear()


# ---------------------------------------------------------------------------------------------------------- streaming

TEXT = (
    "# Title\n\nA **paragraph** with `code` and [a link](https://a.test).\n\n1. one\n2. two\n   - three\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n"
    "```python\nx = 1\n\ny = 2\n```\n\n> quote\n\nSetext\n---\n\nThe end.\n"
)


@pytest.mark.parametrize("step", [1, 3, 7, 50])
def test_text_that_grows_ends_as_the_whole_text(step: int) -> None:
    stream = MarkdownStream(5_000)
    shown = [stream.html(TEXT[:end]) for end in range(step, len(TEXT) + step, step)]
    assert shown[-1] == drawn(TEXT)
    assert all(strange(Page(f"<section>{html}</section>")) == [] for html in shown)


@given(LETTERS)
@settings(max_examples=150, deadline=None)
def test_every_text_that_grows_is_shown_whole(text: str) -> None:
    text = text.replace("]:", "")  # a reference may be used before it is there
    stream = MarkdownStream(5_000)
    for end in range(len(text)):
        stream.html(text[:end])
    shown = Page(f"<section>{stream.html(text)}</section>").text
    assert sorted(re.findall("[abé]", shown)) == sorted(re.findall("[abé]", said_of_whole(text)))


def said_of_whole(text: str) -> str:
    return page(text).text


@pytest.mark.parametrize(
    ("line", "tag"), [("x = 1  # é\n", "pre"), ("- item\n", "li"), ("| 1 | 2 |\n", "td"), ("word and ", "p"), ("a line\n", "p"), ("A par.\n\n", "p")]
)
def test_long_text_shows_its_end_and_is_bounded(line: str, tag: str) -> None:
    opening = {"pre": "```\n", "td": "| a | b |\n|---|---|\n"}.get(tag, "")
    stream, text = MarkdownStream(1_000), opening
    for _ in range(1_000):
        text += line
        html = stream.html(text)
    assert len(html) < 12_000
    assert tag in Page(f"<section>{html}</section>").tags
    assert "…" in html
    assert Page(f"<section>{stream.html(text + (chr(10) + '```' if tag == 'pre' else '') + chr(10) * 2 + '**end**')}</section>").texts["b"] == ["end"]


def test_whole_text_at_once_costs_no_more_than_its_end() -> None:
    assert len(MarkdownStream(1_000).html("word " * 100_000)) < 6_000


def test_other_text_begins_anew() -> None:
    stream = MarkdownStream(1_000)
    stream.html("one\n\ntwo\n\nthree")
    assert stream.html("four") == '<p dir="auto">four</p>\n'


def test_finished_blocks_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = markdown._Reader.blocks
    monkeypatch.setattr(markdown._Reader, "blocks", lambda self, text, **more: (read.append(len(text)), original(self, text, **more))[1])
    stream = MarkdownStream(100_000)
    text = ""
    for _ in range(100):
        text += "A paragraph of a few words.\n\n"
        stream.html(text)
    assert max(read) < 100
