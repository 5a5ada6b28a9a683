"""`agentroute doctor`: what is installed and set up, and whether a model can be run. No part of a key is ever shown."""

from __future__ import annotations

import os
import platform
import re
import stat
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any

import click

from .. import __version__
from ..config import Config, Secret
from ..errors import ErrorAgent, ErrorConfig
from ..figures import cost_text, plural
from .endpoints import Answer, ask_ollama, ask_openrouter
from .terminal import json_text, one_line

__all__ = ["Report", "doctor", "examine", "sections", "verdict"]

TIMEOUT_S = 5.0
EXTRAS = ("notebook", "local")
"""Extras whose packages are told; the others are made of these, or are for developers."""


@dataclass
class Package:
    name: str
    version: str | None
    """None: not installed."""
    extra: str | None
    """The extra that brings it; None: always there."""


@dataclass
class Key:
    provider: str
    where: str
    """A variable's name, or the file and the name in it."""
    used: bool
    """Whether it is the one that goes to OpenRouter."""
    problem: str = ""


@dataclass
class Report:
    """What doctor has found."""

    agentroute: str = __version__
    python: str = field(default_factory=platform.python_version)
    system: str = field(default_factory=platform.platform)
    packages: list[Package] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)
    config_file: str = ""
    config_problem: str = ""
    openrouter: Answer | None = None
    """None: not asked."""
    ollama: Answer | None = None
    local_models: dict[str, bool] = field(default_factory=dict)
    """By name; whether the weights are on this machine."""
    history_file: str = ""
    history_bytes: int | None = None
    history_runs: int | None = None
    history_problem: str = ""
    offline: bool = False
    ways: list[str] = field(default_factory=list)
    """Model strings that can be run."""
    advice: str = ""
    """The nearest way to one, when there is none."""


@click.command(short_help="Check the setup: packages, keys, endpoints, local models.")
@click.option("--offline", is_flag=True, help="Ask no endpoint.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(offline: bool, as_json: bool) -> None:
    """Check what is installed and set up, and whether a model can be run. Shows no part of any key.

    Asking the endpoints costs nothing. The exit code is 0 when at least one model can be run, else 1.

    \b
    Examples:
      agentroute doctor
      agentroute doctor --offline
      agentroute doctor --json | jq .ways
    """
    report = examine(offline=offline)
    click.echo(json_text({"ok": bool(report.ways), **asdict(report)}, indent=2) if as_json else _page(report))
    if not report.ways:
        raise click.exceptions.Exit(1)


# ---- looking ----------------------------------------------------------------------------------------------------------


def examine(*, offline: bool) -> Report:
    """All that doctor finds out; `offline` asks no endpoint, else they are waited for up to five seconds."""
    report = Report(offline=offline, packages=_packages())
    _look_at_keys(report)
    _look_at_local(report)
    _look_at_history(report)
    if not offline:
        _ask(report)
    _conclude(report)
    return report


def _packages() -> list[Package]:
    """What this distribution's own metadata asks for; httpx2 stands in for httpx where it is installed."""
    from importlib import metadata

    try:
        requirements = metadata.requires("agentroute") or []
    except metadata.PackageNotFoundError:
        return []
    found = []
    for requirement in requirements:
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", requirement)
        if name is None or (extra is not None and extra[1] not in EXTRAS):
            continue
        try:
            version = metadata.version(name[0])
        except metadata.PackageNotFoundError:
            version = None
        found.append(Package(name[0], version, extra[1] if extra else None))
    return found


def _look_at_keys(report: Report) -> None:
    config = Config()
    report.config_file = str(config.config_file)
    try:
        config.base_url()  # reads the file
        mode = stat.S_IMODE(config.config_file.stat().st_mode)
        if mode & 0o077 and os.name != "nt":
            report.config_problem = (
                f"others on this machine may read or change it (mode {mode:04o}): chmod 600 {config.config_file}"
            )
    except FileNotFoundError:
        pass
    except ErrorConfig as error:
        report.config_problem = str(error)
    for key in config.found_keys():
        used = key.kind == "openrouter" and not any(known.used for known in report.keys)
        problem = "" if key.usable else "holds spaces, control or non-ASCII characters; copy it again"
        report.keys.append(Key(key.kind, key.where, used, problem))


def _look_at_local(report: Report) -> None:
    from ..models.weights import CATALOGUE

    report.local_models = {weights.name: weights.here for weights in CATALOGUE.values()}


def _look_at_history(report: Report) -> None:
    from ..records import RunRecord
    from ..store import RunStore

    store = RunStore()
    with closing(store):
        report.history_file = str(store.path)
        try:
            if store.path.exists():
                report.history_bytes = store.path.stat().st_size
                report.history_runs = sum(1 for _ in store.select(RunRecord, columns=["run_id"]))
        except (ErrorAgent, OSError) as error:
            report.history_problem = one_line(str(error), 300)


def _ask(report: Report) -> None:
    import asyncio

    from .._portal import run_blocking

    good = any(key.used and not key.problem for key in report.keys)

    async def both() -> None:
        key = Secret(Config().api_key() or "") if good else None
        report.openrouter, report.ollama = await asyncio.gather(
            _answer("openrouter_base_url", ask_openrouter(key, timeout=TIMEOUT_S)),
            _answer("OLLAMA_HOST", ask_ollama(timeout=TIMEOUT_S)),
        )

    run_blocking(both)


async def _answer(setting: str, asking: Any) -> Answer:
    try:
        answer: Answer = await asking
    except ErrorConfig as error:
        return Answer(setting, reachable=False, detail=one_line(str(error), 300))
    return answer


# ---- concluding -------------------------------------------------------------------------------------------------------


def _conclude(report: Report) -> None:
    """Which models can be run; else what is nearest to one."""
    key = next((key for key in report.keys if key.used), None)
    usable = key is not None and not key.problem
    answer, ollama = report.openrouter, report.ollama
    if usable and (answer is None or (answer.reachable and answer.key != "refused")):
        report.ways.append(
            "any model at OpenRouter" + ("" if answer is not None and answer.key == "accepted" else " (key not checked)")
        )
    if ollama is not None and ollama.reachable:
        report.ways += [f"ollama/{model}" for model in ollama.models]
    has_llama = any(package.name == "xllamacpp" and package.version for package in report.packages)
    here = [name for name, present in report.local_models.items() if present]
    report.ways += [f"local/{name}" for name in here] if has_llama else []
    if report.ways:
        return
    if usable and answer is not None and not answer.reachable:
        report.advice = f"there is a key, but {answer.endpoint} cannot be reached: check the network and the proxy settings"
    elif key is not None and (key.problem or (answer is not None and answer.key == "refused")):
        report.advice = (
            f"replace the key in {key.where}: `agentroute login`"
            if "(" in key.where
            else f"replace the key in {key.where}, or unset it and run `agentroute login`"
        )
    elif ollama is not None and ollama.reachable:
        report.advice = "Ollama runs without a model: `ollama pull llama3.2`, then model='ollama/llama3.2'"
    elif here:
        report.advice = f'the weights of {here[0]} are here; `pip install "agentroute[local]"` brings what runs them'
    elif has_llama:
        report.advice = (
            "`agentroute local pull smollm2` fetches a small model for this machine; `agentroute login` keeps an OpenRouter key"
        )
    else:
        report.advice = "`agentroute login` keeps an OpenRouter key (https://openrouter.ai/keys makes one)"


# ---- telling ----------------------------------------------------------------------------------------------------------


def _page(report: Report) -> str:
    parts = [f"agentroute {report.agentroute}, Python {report.python}, {report.system}"]
    parts += ["\n".join([title, *(f"  {line}" for line in lines)]) for title, lines in sections(report).items()]
    return "\n\n".join([*parts, verdict(report)])


def sections(report: Report) -> dict[str, list[str]]:
    """The report in words: lines by title."""
    return {
        "Packages": _package_lines(report),
        "Keys": _key_lines(report),
        "Endpoints": _endpoint_lines(report),
        "Models on this machine": [
            f"local/{name}  " + ("is here" if here else f"not here: agentroute local pull {name}")
            for name, here in report.local_models.items()
        ],
        "Run history": [_history_line(report)],
    }


def _package_lines(report: Report) -> list[str]:
    if not report.packages:
        return ["unknown: agentroute runs from its source and is not installed"]
    lines = [", ".join(f"{package.name} {package.version or 'MISSING'}" for package in report.packages if package.extra is None)]
    for extra in EXTRAS:
        packages = [package for package in report.packages if package.extra == extra]
        missing = [package.name for package in packages if package.version is None]
        there = ", ".join(f"{package.name} {package.version}" for package in packages if package.version)
        lacks = f'not installed: {", ".join(missing)} (pip install "agentroute[{extra}]")' if missing else ""
        lines.append(f"[{extra}] " + "; ".join(part for part in (there, lacks) if part))
    return lines


def _key_lines(report: Report) -> list[str]:
    lines = []
    for key in report.keys:
        note = key.problem or (
            "used"
            if key.used
            else "not used, one above comes first"
            if key.provider == "openrouter"
            else "used only when given as api_key="
        )
        lines.append(f"{key.provider}: {key.where}: {note}")
    lines = lines or ["none found (AGENTROUTE_API_KEY, OPENROUTER_API_KEY, or `agentroute login`)"]
    return [*lines, *([f"Warning: {report.config_problem}"] if report.config_problem else [])]


def _endpoint_lines(report: Report) -> list[str]:
    if report.offline:
        return ["not asked (--offline)"]
    lines = []
    if (answer := report.openrouter) is not None:
        has_key = any(key.used and not key.problem for key in report.keys)
        said = {"accepted": "accepts the key", "refused": "refuses the key" if has_key else "answers; there is no key to show it"}
        left = "" if answer.credit_left_usd is None else f", {cost_text(answer.credit_left_usd)} may still be spent with it"
        words = said.get(answer.key, f"answers; the key is not checked: {answer.detail}") + left
        lines.append("OpenRouter: " + (f"{answer.endpoint} {words}" if answer.reachable else answer.detail))
    if (answer := report.ollama) is not None:
        models = ", ".join(answer.models[:10]) + (f" and {len(answer.models) - 10} more" if len(answer.models) > 10 else "")
        lines.append("Ollama: " + (f"{answer.endpoint} has {models or 'no model'}" if answer.reachable else answer.detail))
    return lines


def _history_line(report: Report) -> str:
    if report.history_problem:
        return f"Warning: {report.history_problem}"
    if report.history_runs is None:
        return f"{report.history_file}: not there yet"
    size = report.history_bytes or 0
    return f"{report.history_file}: {plural(report.history_runs, 'run')}, {f'{size / 1e6:.1f} MB' if size >= 1e6 else f'{size / 1e3:.0f} kB'}"


def verdict(report: Report) -> str:
    """Which models can be run, or what is nearest to one."""
    if not report.ways:
        return f"No model can be run. Nearest: {report.advice}."
    some = ", ".join(report.ways[:5]) + (" and more" if len(report.ways) > 5 else "")
    return f"Models can be run: {some}."
