"""What somebody at a terminal does, for tests with pexpect."""

import pexpect


def press_ctrl_c(child: pexpect.spawn, until: object) -> None:
    """Press Ctrl-C until `until` is shown: like anybody at a terminal again where nothing comes of it.

    One that comes right before Python's `input` begins to read is noticed only when that has read a line.
    """
    for _ in range(6):
        child.sendintr()
        if child.expect([until, pexpect.TIMEOUT], timeout=10) == 0:
            return
    raise AssertionError(f"Ctrl-C has no effect; shown: {child.before!r}")
