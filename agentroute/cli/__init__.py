"""The command line: `agentroute …`. What a command needs is imported when it runs.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted (Ctrl-C).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(args: Sequence[str] | None = None, prog_name: str | None = None) -> None:
    """Runs one command line (left out, the program's own) and ends the program with its exit code."""
    try:
        from .commands import commands

        commands(args, prog_name=prog_name)
    except KeyboardInterrupt:  # before there is anything to stop: a tenth of a second goes by until then
        print("Interrupted.", file=sys.stderr)
        raise SystemExit(130) from None
