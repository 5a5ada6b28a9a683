"""The words that a setting may be, where it is one of a few. (Those of `replay` are `agentroute.replays.MODES`.)"""

__all__ = ["APPROVALS", "RECORDS", "RENDERS"]

APPROVALS = ("auto", "button", "input", "deny", "allow")
"""Who approves of calls of tools that need it."""
RECORDS = ("all", "metadata", "off")
"""What the run history keeps."""
RENDERS = ("auto", "html", "text", "off")
"""How runs are drawn."""
