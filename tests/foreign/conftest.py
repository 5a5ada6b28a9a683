from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.foreign import servers


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.ForeignServer]:
    """A server of `servers.CAN`, by name (see `servers.where`); started once for all tests that use it."""
    # Made before the first test that uses it has a home of its own and its requests forbidden.
    start = {
        "llama.cpp": lambda: servers.llama_cpp(request.getfixturevalue("smollm2")),
        "litellm": lambda: servers.litellm(tmp_path_factory.mktemp("litellm")),
    }
    with start[request.param]() as running:
        yield running
