"""The two HTTP libraries a request can go through; both come with the extra `test`."""

import sys
from collections.abc import Iterator

import pytest

from agentroute import _connections, _http

LIBRARIES = {"httpx": {"httpx2": None}, "httpx2": {}}
"""By name: the modules that are made to look as if they were not installed, so that this one is chosen."""


def with_library(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Body of a fixture: requests go through the library of that name, to any host: these tests name hosts that only a proxy
    of theirs, a mock or a patched resolver is ever asked for."""
    monkeypatch.setattr(_http, "allowed_hosts", None)
    caches = (_connections.library, _connections._way, _connections._tls)
    for cache in caches:
        cache.cache_clear()
    with monkeypatch.context() as patch:
        for module, value in LIBRARIES[name].items():
            patch.setitem(sys.modules, module, value)
        assert _connections.library().__name__ == name  # and it is remembered
    yield name
    for cache in caches:
        cache.cache_clear()
