"""docs/cli.md with the outputs of its commands as they are now: `python -m tests.cli.page` writes them anew.

A line `$ …` in a `console` block is run by bash in a terminal of 100 columns; what stands below it is its output. All
run one after another in one home. A server on loopback is OpenRouter, and what differs from machine to machine is made even.
"""

import os
import re
import shlex
import sys
import tempfile
from pathlib import Path

import pexpect

from tests.server import ModelServer, Raw, chunks

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
KEY = Raw(200, [b'{"data": {"limit_remaining": 12.5}}'])
_BLOCK = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.DOTALL | re.MULTILINE)
FIRST = "01M80J3V8BE7E"
"""In a command and in outputs: the beginning of the first run's id."""
_ID = "01[0-9A-HJKMNP-TV-Z]{11}"
_SAME = (
    (rf"\b{_ID}[0-9A-Z]{{13}}\b", f"{FIRST}1Q994345QEJCJ"),
    (rf"\b{_ID}\b", FIRST),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "2026-03-02 09:15:04"),
    (r"\d{4}-\d\d-\d\dT[\d:.+]+", "2026-03-02T08:15:04.120000+00:00"),
    (r" {2,}(\d+\.\d s|\d+ ms)\b", "  0.9 s"),
    (r"\b(\d+\.\d s|\d+ ms)\b", "0.9 s"),
    (r"(?m)^took +", "took     "),
    (r" +p50 +p95", "    p50    p95"),
    (r'"duration_s": [\d.e-]+', '"duration_s": 0.9'),
    (r"(?<=Python )\d+\.\d+\.\d+, \S+", "3.12.4, Linux-6.8-x86_64"),
    (r"(?m)^(  (?:\[\w+\] )?)[\w-]+ \d+\.\d\S*(?:, [\w-]+ \d+\.\d\S*)*$", r"\1…"),
    (r"\d+ kB", "41 kB"),
)


def answer(body):
    if body["model"] == "openai/gpt-none":
        return Raw(400, [b'{"error": {"message": "openai/gpt-none is not a valid model ID", "code": 400}}'])
    events = chunks("A doorstop, a bookend, a step for a short gardener.", {"prompt_tokens": 14, "completion_tokens": 12, "cost": 0.000222})
    return Raw.sse(*({**event, "model": body["model"]} for event in events))


def rendered(page: str) -> str:
    """The page with its outputs made anew."""
    with tempfile.TemporaryDirectory() as place, ModelServer([answer], repeat=True) as server:
        home, work = Path(place, "home"), Path(place, "work")
        (home / ".agentroute").mkdir(parents=True, mode=0o700)
        work.mkdir()
        config = home / ".agentroute" / "config"
        config.touch(mode=0o600)
        config.write_text(f"openrouter_base_url={server.base_url}\n")
        server.pages["/v1/key"] = KEY
        (work / "key.txt").write_text("sk-or-v1-secret\n")
        (work / "app.py").write_text(re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)[0])
        environment = {
            "HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "LANG": "C.UTF-8", "TERM": "dumb",
            "AGENTROUTE_CACHE": str(home / ".cache" / "agentroute"), "OLLAMA_HOST": "127.0.0.1:9", "SHELL": "/bin/bash",
        }  # fmt: skip
        names = {str(home): "/home/you", server.base_url.split("/")[2]: "openrouter.ai:443", "127.0.0.1:9": "localhost:11434"}

        def block(match: re.Match[str]) -> str:
            commands = re.findall(r"^\$ (.*)$", match[0], re.MULTILINE)
            return "".join(f"$ {command}\n{_output(command, work, environment, names)}" for command in commands)

        return _BLOCK.sub(block, page)


def _output(command: str, work: Path, environment: dict[str, str], names: dict[str, str]) -> str:
    for name, word in names.items():
        command = command.replace(word, name) if word == FIRST else command
    shown = pexpect.run(
        f"bash -c {shlex.quote(command)}", cwd=str(work), env=environment, timeout=100, encoding="utf-8", dimensions=(40, 100)
    ).replace("\r\n", "\n")
    if command.startswith("agentroute logs") and (ids := re.findall(rf"\b{_ID}", shown)):
        names.setdefault(ids[0], FIRST)
    for name, word in names.items():
        shown = shown.replace(name, word)
    for pattern, word in _SAME:
        shown = re.sub(pattern, word, shown)
    return shown


if __name__ == "__main__":
    PAGE.write_text(rendered(PAGE.read_text()))
