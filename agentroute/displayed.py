"""What the values a notebook shows have in common. The one file of the library that knows the notebook package."""

from __future__ import annotations

from collections.abc import Container

__all__ = ["Displayed"]


class Displayed:
    """Something that IPython shows as HTML or plain text, also where no extension is loaded; `repr` is one line of it."""

    def _repr_mimebundle_(self, include: Container[str] | None = None, exclude: Container[str] | None = None) -> dict[str, str]:
        """`text/html` and `text/plain`; IPython itself leaves out what it did not ask for. Never raises."""
        from agentroute_ipython.reprs import bundle

        return bundle(self)
