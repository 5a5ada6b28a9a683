"""Where keys and endpoints come from: explicit argument, then environment, then ~/.agentroute/config."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from .errors import ErrorConfig
from .keys import VARIABLES, Secret, SecretLike, keys_in_use, without_keys

__all__ = ["Config", "FoundKey", "Headers", "ProviderKind", "Secret", "SecretLike", "checked_url", "keys_in_use", "without_keys", "without_password"]

ProviderKind = Literal["openrouter", "openai", "anthropic", "google"]

_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEADER_VALUE = re.compile(r"([!-~]([ \t!-~]*[!-~])?)?")


class Headers(dict[str, str]):
    """Request headers by lower-case name. Its repr shows the names only: any value may be a key.

    Raises:
        ErrorConfig: a name or value that no request can carry; the message does not show the value.
    """

    def __init__(self, headers: Mapping[str, str] | None = None) -> None:
        problem = _header_problem(headers or {})
        if problem is not None:
            headers = None  # tracebacks may show local variables
            raise ErrorConfig(problem)
        super().__init__({name.lower(): value for name, value in (headers or {}).items()})

    def __repr__(self) -> str:
        return f"Headers({', '.join(self)})"

    def __reduce__(self) -> Any:
        if self:
            raise TypeError("Headers are not pickled: any of them may be a key, and keys do not go into files")
        return Headers, ()


def _header_problem(headers: Any) -> str | None:
    if not isinstance(headers, Mapping):
        return f"headers must be a dict of str, not {type(headers).__name__}"
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            return "headers has a name that is no header name (not shown here); expected one such as X-Title"
        if not isinstance(value, str):
            return f"header {name} must be a str, not {type(value).__name__}"
        if not _HEADER_VALUE.fullmatch(value):
            return f"header {name} holds control or non-ASCII characters, or white space at its ends (not shown here)"
    return None


@dataclass(frozen=True)
class FoundKey:
    """Where a key is; never the key."""

    kind: str
    where: str
    """A variable's name, or the file and the name in it."""
    usable: bool
    """False when it holds characters that no request can carry."""


def _is_usable(key: str) -> bool:
    try:
        Secret(key)
    except ErrorConfig:
        return False
    return True


@dataclass
class Config:
    """Keys and base URLs from the environment and from `config_dir`/config.

    The file has one `key=value` a line; blank lines and lines that begin with `#` are skipped, the last of equal keys
    wins. Keys: `api_key`, `<kind>_api_key`, `<kind>_base_url`, with kind `openrouter`, `openai`, `anthropic`, `google`.
    """

    config_dir: Path = field(default_factory=lambda: Path.home() / ".agentroute")

    @property
    def config_file(self) -> Path:
        return self.config_dir / "config"

    def api_key(self, *, kind: str = "openrouter") -> str | None:
        """The key for a provider, or None. An empty environment variable counts as unset."""
        _check_kind(kind)
        return next((value for _, value in self._keys(kind)), None)

    def found_keys(self) -> list[FoundKey]:
        """Every key that is set, by provider; the first of a provider is the one `api_key` gives. Keys themselves are left out.

        A file that cannot be read counts as none; `base_url` raises then.
        """
        found = []
        for kind in VARIABLES:
            try:
                for where, value in self._keys(kind):
                    found.append(FoundKey(kind, where, usable=_is_usable(value)))
            except ErrorConfig:
                continue
        return found

    def _keys(self, kind: str) -> Iterator[tuple[str, str]]:
        """Where a key for a provider is and what it is, the first to be used first. The file is read when it is come to."""
        for variable in VARIABLES[kind]:
            if value := os.environ.get(variable, "").strip():
                yield variable, value
        settings = self._settings()
        for name in ("api_key", f"{kind}_api_key") if kind == "openrouter" else (f"{kind}_api_key",):
            if settings.get(name):
                yield f"{self.config_file} ({name})", settings[name]

    def base_url(self, *, kind: str = "openrouter") -> str | None:
        """The endpoint set for a provider in the config file, or None."""
        _check_kind(kind)
        return self._settings().get(f"{kind}_base_url") or None

    def write_api_key(self, key: Secret) -> None:
        """Puts the key into the file, whole or not at all, readable by its owner only; other lines stay.

        Raises:
            ErrorConfig: the file cannot be written.
        """
        import tempfile

        try:
            lines = self.config_file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, ValueError):  # none yet, or one that cannot be read and is written anew
            lines = []
        kept = [line for line in lines if line.partition("=")[0].strip() != "api_key"]
        problem = ""
        try:
            self.config_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, scratch = tempfile.mkstemp(prefix=".config-", dir=self.config_dir)  # made with mode 0600
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write("\n".join([*kept, f"api_key={key.reveal()}"]) + "\n")
            os.replace(scratch, self.config_file)
        except OSError as error:
            problem = error.strerror or type(error).__name__
        if problem:
            raise ErrorConfig(f"{self.config_file} cannot be written ({problem}); set AGENTROUTE_API_KEY in the environment instead")

    def _settings(self) -> dict[str, str]:
        try:
            text = self.config_file.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError, ValueError) as error:
            problem = getattr(error, "strerror", None) or type(error).__name__
        else:
            settings = {}
            for line in text.splitlines():
                name, equals, value = line.partition("=")
                if equals and not name.lstrip().startswith("#"):
                    settings[name.strip()] = value.strip()
            return settings
        raise ErrorConfig(f"{self.config_file} cannot be read ({problem}); mend it, or write it anew with `agentroute login`")


def without_password(text: str) -> str:
    """The text with user, password and query left out of every URL in it: any of them may hold a key."""
    text = re.sub(r"//[^/\s]+@", "//…@", text)  # up to the last @ of the host part: a password may hold one
    return re.sub(r"(://[^\s?#]*)[?#][^\s'\"]*", r"\1?…", text)


def checked_url(url: str) -> str:
    """A base URL without its trailing slash.

    Raises:
        ErrorConfig: it is not one; the message says why and does not show it.
    """
    problem = _url_problem(url)
    if problem is not None:
        raise ErrorConfig(f"not a usable endpoint: {problem}; give one like https://host/v1")
    return url.rstrip("/")


def _url_problem(url: Any) -> str | None:
    if not isinstance(url, str):
        return f"it must be a str, not {type(url).__name__}"
    try:
        parts = urlsplit(url)
    except ValueError:  # its words are not passed on: they may quote a part of a password
        return "its host is no name and no address"
    try:
        _ = parts.port
    except ValueError:
        return "its port is no number from 0 to 65535"
    if parts.scheme.lower() not in ("http", "https"):
        return "it must begin with http:// or https://"
    if not parts.hostname:
        return "it names no host"
    if "?" in url or "#" in url:
        return "it has a query or fragment (not shown here), and keys go into api_key= or AGENTROUTE_API_KEY"
    return "it holds white space" if any(character.isspace() for character in url) else None


def _check_kind(kind: str) -> None:
    if kind not in VARIABLES:
        raise ErrorConfig(f"unknown provider kind {kind!r}; known: {', '.join(VARIABLES)}")
