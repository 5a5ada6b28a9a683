"""From plain code into the loop, and out again: interrupts, forks, exits."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from agentroute._portal import portal, run_blocking
from agentroute._threads import run_in_thread


def test_a_coroutine_runs_to_its_value():
    async def value() -> int:
        await asyncio.sleep(0)
        return 7

    assert run_blocking(value) == 7


def test_an_error_comes_through():
    async def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        run_blocking(fail)


def test_there_is_one_portal():
    assert portal() is portal()


@pytest.mark.parametrize("error", [StopIteration("x"), KeyboardInterrupt(), SystemExit(3), ValueError("x")], ids=lambda e: type(e).__name__)
def test_whatever_a_thread_raises_reaches_the_loop(error):
    def fail() -> None:
        raise error

    async def main() -> BaseException | None:
        try:
            async with asyncio.timeout(5):
                await run_in_thread(fail)
        except BaseException as caught:
            return caught
        return None

    caught = asyncio.run(main())
    assert caught is error or caught.__cause__ is error


def script(text: str, *, interrupt_after: str | None = None, timeout: float = 100) -> tuple[int, str, float]:
    """Runs a program; sends Ctrl-C when it has printed the given line. Exit code, output, seconds since the Ctrl-C."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-W", "error", "-c", textwrap.dedent(text)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    output, began = "", time.monotonic()
    if interrupt_after is not None:
        while interrupt_after not in output:
            output += process.stdout.readline()
        time.sleep(0.1)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=timeout)
    return process.returncode, output + rest, time.monotonic() - began


PROGRAM = """
    import asyncio, time
    from agentroute import Agent, ToolCall, tool
    from agentroute.testing import ModelScripted
    @tool
    async def forever():
        print("began", flush=True)
        try:
            await asyncio.sleep(60)
        finally:
            print("cleaned", flush=True)
    @tool
    def block():
        print("began", flush=True)
        time.sleep(60)
    agent = Agent("a", model=ModelScripted([ToolCall("1", "NAME", {}), "x"]), tools=[forever, block])
    try:
        agent.run("go")
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.mark.parametrize(("name", "words"), [("forever", ["cleaned", "interrupted"]), ("block", ["interrupted"])])
def test_ctrl_c_ends_a_run_at_once_and_cleans_up(name, words):
    code, output, seconds = script(PROGRAM.replace("NAME", name), interrupt_after="began")
    assert (code, output.split()[1:]) == (0, words)
    assert seconds < 30


def test_a_program_that_ends_while_a_tool_hangs_still_exits():
    code, output, seconds = script(
        """
        import time
        from agentroute import Agent, ToolCall, tool
        from agentroute.testing import ModelScripted
        @tool(timeout=0.1)
        def hang():
            time.sleep(60)
        print(Agent("a", model=ModelScripted([ToolCall("1", "hang", {}), "went on"]), tools=[hang]).run("go"))
        """
    )
    assert (code, output.strip()) == (0, "went on")
    assert seconds < 45


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_child_gets_a_portal_of_its_own():
    code, output, _ = script(
        """
        import os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from agentroute import Agent
        from agentroute.testing import ModelScripted
        agent = Agent("a", model=ModelScripted(["one", "two"]))
        print(agent.run("go"), flush=True)
        pid = os.fork()
        if pid == 0:
            print(agent.run("go"), flush=True)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """
    )
    assert (code, output.split()) == (0, ["one", "two", "0"])


def test_a_loop_that_a_given_up_tool_blocks_is_replaced():
    code, output, _ = script(
        """
        import threading, time
        from agentroute import Agent, ToolCall, tool
        from agentroute._portal import portal
        from agentroute.testing import ModelScripted
        began = threading.Event()
        @tool
        async def block():
            began.set()
            time.sleep(90)
        agent = Agent("a", model=ModelScripted([ToolCall("1", "block", {}), "x"]), tools=[block])
        before = portal()
        handle = before.start(lambda: agent.arun("go"))
        began.wait()
        handle.cancel()
        time.sleep(0.5)
        asked_at = time.monotonic()
        print(Agent("b", model=ModelScripted(["served"])).run("go"), portal() is before, time.monotonic() - asked_at < 30)
        """
    )
    assert (code, output.split()) == (0, ["served", "False", "True"])
