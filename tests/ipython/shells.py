"""A notebook in a shell of this process, which has no kernel: its runs go to the background loop."""

from __future__ import annotations

from typing import Any

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import ExecutionResult, InteractiveShell

from agentroute import LLMRequest
from agentroute.testing import ModelFunction
from agentroute_ipython.magics import AgentMagics

__all__ = ["ShellNotebook", "order_status", "refund"]


def order_status(order_id: str) -> str:
    """Where an order is."""
    return "shipped"


def refund(order_id: str) -> str:
    return "done"


class ShellNotebook:
    """A shell with the extension loaded, and a model `scripted` that answers "A1", "A2", …"""

    def __init__(self, shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
        self.shell, self._capsys = shell, capsys
        self.model = ModelFunction(lambda request: f"A{len(self.model.requests)}", model_id="scripted")
        shell.push({"scripted": self.model, "order_status": order_status, "refund": refund})

    def __getitem__(self, name: str) -> Any:
        return self.shell.user_ns[name]

    def __setitem__(self, name: str, value: object) -> None:
        self.shell.user_ns[name] = value

    @property
    def magics(self) -> AgentMagics:
        magics: AgentMagics = self.shell.magics_manager.registry["AgentMagics"]
        return magics

    @property
    def request(self) -> LLMRequest:
        """What was asked last."""
        return self.model.requests[-1]

    @property
    def asked(self) -> list[tuple[str, str]]:
        return [(message.role, message.text) for message in self.request.messages]

    def cell(self, source: str) -> ExecutionResult:
        return self.shell.run_cell(source, store_history=True)

    def run(self, source: str) -> str:
        """What a cell prints; it must succeed."""
        self._capsys.readouterr()
        self.cell(source).raise_error()
        return self._capsys.readouterr().out

    def mistake(self, source: str) -> str:
        """The message of a cell that was refused before anything was sent."""
        before = len(self.model.requests)
        self._capsys.readouterr()
        error = self.cell(source).error_in_exec
        shown = self._capsys.readouterr()
        assert type(error) is UsageError
        assert (shown.out, shown.err) == ("", f"UsageError: {error}\n")
        assert 1 <= len(str(error).splitlines()) <= 3
        assert len(self.model.requests) == before
        return str(error)
