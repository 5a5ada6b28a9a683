"""What comparisons and differences add to the card's style sheet. Both read well without it."""

from __future__ import annotations

from .style import SHEET_STYLE, STYLE, minified

__all__ = ["COMPARISON_STYLE", "DIFFERENCE_STYLE"]

_DIFFERENCE_SOURCE = """
& .agr-diff :is(ins, del) { border-radius: 3px; color: inherit; }
& .agr-diff ins { text-decoration: underline; background: color-mix(in srgb, var(--agr-good) 20%, transparent); }
& .agr-diff del { text-decoration: line-through; background: color-mix(in srgb, var(--agr-bad) 20%, transparent); }
& .agr-word { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
& .agr-diff { position: relative; margin: 0; color: var(--agr-text); line-height: 1.6; }
"""
_SHEET_SOURCE = """
&.agr-differences .agr-steps table { width: auto; }
&.agr-differences .agr-steps td { max-width: 26em; white-space: pre-wrap; }
&.agr-sheet .agr-text { padding: 4px 18px 10px; border-top: 1px solid var(--agr-line); }
&.agr-sheet .agr-text > p { margin: 4px 0 0; padding: 0; }
&.agr-sheet .agr-text > p.agr-diff { color: var(--agr-text); }
"""
_COMPARISON_SOURCE = """
&.agr-comparison { max-width: none; }
& .agr-columns { display: flex; flex-wrap: wrap; gap: 1px; background: var(--agr-line); border-bottom: 1px solid var(--agr-line); }
& .agr-column { display: flex; flex-direction: column; flex: 1 1 17em; min-width: 0; background: var(--jp-layout-color0, var(--vscode-editor-background, Canvas)); }
& .agr-label { margin: 0; padding: 8px 14px; background: var(--agr-soft); color: var(--agr-dim); font-size: .9em; line-height: 1.5; }
& .agr-label b { color: var(--agr-text); }
& .agr-column .agr-answer { flex: 1; padding: 10px 14px 12px; font-size: 1em; }
& .agr-column .agr-error { padding: 8px 14px; }
& .agr-column > details { padding: 5px 14px; border-top: 1px solid var(--agr-line); font-size: .9em; color: var(--agr-dim); }
& .agr-column ul { margin: 4px 0; padding-inline-start: 1.2em; }
& .agr-best { color: var(--agr-good); font-weight: 600; }
&.agr-comparison .agr-steps th:first-child { width: auto; white-space: nowrap; }
&.agr-comparison .agr-steps :is(th, td):last-child { width: 99%; white-space: normal; }
&.agr-comparison .agr-fields :is(th, td) { width: auto; white-space: pre-wrap; }
"""

DIFFERENCE_STYLE = SHEET_STYLE + minified(_DIFFERENCE_SOURCE + _SHEET_SOURCE)
COMPARISON_STYLE = STYLE + minified(_DIFFERENCE_SOURCE + _COMPARISON_SOURCE)
