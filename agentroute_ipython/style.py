"""The card's style sheet. It is saved with every card, so it is short, and has only what the card needs; a card reads well without it.

Colours are the page's own: JupyterLab's variables, else VS Code's, else mixed from the colour of the text. `&` stands for
`.agr.agr`, which outweighs what JupyterLab says about tables in outputs; for code it takes one `.agr` more.

Each sheet that comes or goes makes the browser style all elements of the page anew that its rules may be about. Hence what is
out of sight in JupyterLab is neither styled nor laid out (`content-visibility`), and a card costs about as much in a long
notebook as in a short one. A running card is: each redraw is a new element, whose size nobody would know.
"""

from __future__ import annotations

import re

__all__ = ["SHEET_STYLE", "STYLE", "style_for"]

_LISTS = "& :is(ul, ol)[dir] { margin: 0 0 .7em; padding-inline-start: 1.6em; } & li > :is(ul, ol)[dir] { margin: 0; }"
_SOURCE = """
& {
  --agr-text: var(--jp-content-font-color1, var(--vscode-editor-foreground, currentColor));
  --agr-dim: var(--vscode-descriptionForeground, color-mix(in srgb, currentColor 68%, transparent));
  --agr-line: var(--jp-border-color2, var(--vscode-panel-border, color-mix(in srgb, currentColor 20%, transparent)));
  --agr-soft: color-mix(in srgb, currentColor 4%, transparent);
  --agr-bad: color-mix(in srgb, var(--jp-error-color1, var(--vscode-errorForeground, currentColor)) 80%, var(--agr-text));
  --agr-good: color-mix(in srgb, var(--jp-success-color1, var(--vscode-testing-iconPassed, currentColor)) 80%, var(--agr-text));
  --agr-busy: color-mix(in srgb, var(--jp-brand-color1, var(--vscode-progressBar-background, currentColor)) 80%, var(--agr-text));
  box-sizing: border-box; width: 100%; max-width: 58em; margin: 4px 0; overflow: hidden;
  border: 1px solid var(--agr-line); border-radius: 8px;
  color: var(--agr-text);
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; unicode-bidi: isolate;
}
.jp-OutputArea .agr:not(.agr-running, .agr-live) { content-visibility: auto; contain-intrinsic-size: auto 16em; }
&.agr-failed .agr-state { color: var(--agr-bad); }
&.agr-done .agr-state { color: var(--agr-good); }
&.agr-running .agr-state { color: var(--agr-busy); }
& .agr-dim { color: var(--agr-dim); }
& .agr-answer { overflow-x: auto; padding: 14px 18px 16px; font-size: 1.08em; line-height: 1.6; }
& .agr-answer p { margin: 0 0 .7em; text-align: start; }
& .agr-answer > :last-child { margin: 0; }
& .agr-answer summary { color: var(--agr-dim); margin-bottom: .7em; }
& .agr-run { font-size: .9em; }
& .agr-run > :first-child { padding: 8px 18px; color: var(--agr-dim); background: var(--agr-soft); line-height: 1.5; }
& .agr-run > :where(:first-child) b { color: var(--agr-text); }
& .agr-run > :first-child > span { white-space: nowrap; }
& summary { cursor: pointer; }
& b { font-weight: 600; }
& .agr-steps { overflow-x: auto; border-top: 1px solid var(--agr-line); padding: 4px 0 8px; }
& table { margin: 0; border: 0; border-collapse: collapse; table-layout: auto; font-size: inherit; color: inherit; }
& thead { border: 0; }
& table tr { background: none; }
& :is(th, td) { padding: 3px 7px; border: 0; text-align: end; vertical-align: top; white-space: nowrap; line-height: 1.5; font-weight: 400; }
& .agr-steps > table { width: 100%; }
& .agr-steps caption { display: none; }
& .agr-steps > table > * > tr > :first-child { padding-inline-start: 18px; text-align: start; white-space: normal; }
& .agr-steps > table > * > tr > :last-child { padding-inline-end: 18px; }
& .agr-steps > table > thead th { color: var(--agr-dim); font-size: .92em; }
& .agr-steps > table > * > tr > th:first-child { width: 99%; }
& .agr-steps .agr-turn > * { padding-top: 9px; }
& .agr-steps > table > * > tr > td[colspan] { padding-inline-start: 34px; }
&.agr :is(code, pre) { margin: 0; padding: 0; border: 0; background: none; color: inherit; font: .95em/1.5 var(--jp-code-font-family, var(--vscode-editor-font-family, ui-monospace, monospace)); white-space: pre-wrap; unicode-bidi: plaintext; }
"""
# What a card has only now and then, by what its HTML then holds.
_PARTS = {
    "agr-asking": '& .agr-asking > :is(p, pre):last-child::after, & .agr-asking > :last-child > li:last-child::after { content: "\\2009▍"; color: var(--agr-busy); }',
    "agr-error": """
& .agr-error { margin: 0; padding: 12px 18px; border-inline-start: 4px solid var(--agr-bad); background: var(--agr-soft); white-space: pre-wrap; }
&.agr-interrupted .agr-error { border-color: var(--agr-dim); }
""",
    "agr-h": "& .agr-h { font-size: 1.12em; }",
    "<ul d": _LISTS,
    "<ol d": _LISTS,
    "<blockquote": "& blockquote { margin: 0 0 .7em; padding: 0 0 0 12px; border: 0; border-inline-start: 3px solid var(--agr-line); color: var(--agr-dim); }",
    "<hr": "& hr { margin: 1em 0; border: 0; border-top: 1px solid var(--agr-line); }",
    "<pre": """
& pre { max-height: 24em; overflow: auto; }
&.agr .agr-answer pre { margin: 0 0 .8em; padding: 10px 14px; border-radius: 6px; background: var(--agr-soft); white-space: pre !important; }
""",
    "agr-table": """
& .agr-table { overflow: auto; max-height: 24em; margin: 0 0 .7em; }
& .agr-table :is(th, td) { padding: 3px 14px 3px 0; border-bottom: 1px solid var(--agr-line); white-space: pre-wrap; overflow-wrap: normal; }
& .agr-table th { font-weight: 600; }
& .agr-steps .agr-table { contain: inline-size; margin-inline-start: 1.2em; }
""",
    "agr-tree": """
& .agr-tree { margin: 0; padding-inline-start: 1.2em; list-style: none; }
& .agr-tree .agr-tree { margin-inline-start: .3em; padding-inline-start: .9em; border-inline-start: 1px solid var(--agr-line); }
""",
    "agr-output": """
& .agr-output > * > tr > * { padding: 2px 24px 2px 0; text-align: start; white-space: normal; }
& .agr-output > * > tr > th { color: var(--agr-dim); overflow-wrap: break-word; }
& td > .agr-tree { padding: 0; }
""",
    "b style": """
& td > :has(> b[style]) { display: flex; height: 4px; margin-top: 2px; border-radius: 2px; background: var(--agr-soft); }
& td b[style] { border-radius: 2px; background: var(--agr-dim); }
& .agr-turn b[style] { background: var(--agr-busy); }
& .agr-steps > table:has(b[style]) > * > tr > :last-child { min-width: 8em; }
""",
    "agr-busy": "& .agr-busy { color: var(--agr-busy); }",
    "agr-bad": "& .agr-bad { color: var(--agr-bad); } & tr:has(.agr-bad) b[style] { background: var(--agr-bad); }",
}


_SHEET_SOURCE = """
&.agr-sheet { max-width: none; }
&.agr-sheet .agr-steps :is(th, td):first-child { width: auto; white-space: nowrap; }
&.agr-sheet .agr-steps .agr-wide { width: 99%; white-space: normal; }
&.agr-sheet tfoot td { border-top: 1px solid var(--agr-line); }
&.agr-sheet p { margin: 0; padding: 0 18px 8px; color: var(--agr-dim); }
&.agr-sheet .agr-id { user-select: all; white-space: nowrap; }
"""


def minified(source: str) -> str:
    """A style sheet without what is there for its readers, and with `&` as `.agr.agr`."""
    css = re.sub(r"\s*\n\s*", " ", source).replace("&", ".agr.agr")
    return re.sub(r" ?([{};>]) ?|(?<=[:,]) ", lambda match: match[1] or "", css).replace(";}", "}").strip()


_BASE = minified(_SOURCE)
_SHORT = {mark: minified(part) for mark, part in _PARTS.items()}
STYLE = _BASE + "".join(dict.fromkeys(_SHORT.values()))
SHEET_STYLE = _BASE + _SHORT["agr-busy"] + _SHORT["agr-bad"] + minified(_SHEET_SOURCE)


def style_for(drawn: str) -> str:
    """So much of `STYLE` as this HTML needs."""
    return _BASE + "".join(dict.fromkeys(part for mark, part in _SHORT.items() if mark in drawn))
