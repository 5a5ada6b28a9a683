"""Where keys and endpoints come from: explicit argument, then environment, then ~/.agentroute/config."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NoReturn

from .errors import ErrorConfig

__all__ = ["Config", "ProviderKind", "Secret", "without_password"]

ProviderKind = Literal["openrouter", "openai", "anthropic", "google"]

_ENVIRONMENT: dict[str, tuple[str, ...]] = {
    "openrouter": ("AGENTROUTE_API_KEY", "OPENROUTER_API_KEY"),
    "openai": ("OPENAI_API_KEY",),
    "anthropic": ("ANTHROPIC_API_KEY",),
    "google": ("GOOGLE_API_KEY",),
}


class Secret:
    """A key that shows itself only when asked by `reveal()`: not in repr, str, format, pickles or tracebacks.

    Raises:
        ErrorConfig: the key holds characters that no HTTP header may carry; the message does not show it.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str | Secret) -> None:
        text = value.reveal() if isinstance(value, Secret) else value
        if not isinstance(text, str):
            raise ErrorConfig(f"api_key must be a str, not {type(text).__name__}")
        text = text.strip()
        if any(not "!" <= character <= "~" for character in text):
            raise ErrorConfig("api_key holds spaces, control or non-ASCII characters (not shown here); copy it again")
        self._value = text

    def reveal(self) -> str:
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __repr__(self) -> str:
        return "Secret(set)" if self._value else "Secret(empty)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled: keys do not go into files")

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __copy__(self) -> Secret:
        return self


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
        for variable in _ENVIRONMENT[kind]:
            if value := os.environ.get(variable, "").strip():
                return value
        settings = self._settings()
        names = ("api_key", f"{kind}_api_key") if kind == "openrouter" else (f"{kind}_api_key",)
        return next((settings[name] for name in names if settings.get(name)), None)

    def base_url(self, *, kind: str = "openrouter") -> str | None:
        """The endpoint set for a provider in the config file, or None."""
        _check_kind(kind)
        return self._settings().get(f"{kind}_base_url") or None

    def _settings(self) -> dict[str, str]:
        try:
            text = self.config_file.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError, ValueError) as error:
            problem = type(error).__name__
        else:
            settings = {}
            for line in text.splitlines():
                name, equals, value = line.partition("=")
                if equals and not name.lstrip().startswith("#"):
                    settings[name.strip()] = value.strip()
            return settings
        raise ErrorConfig(f"{self.config_file} cannot be read ({problem}); mend it, or write it anew with `agentroute login`")


def without_password(text: str) -> str:
    """The text with user and password left out of every URL in it."""
    return re.sub(r"//[^/@\s]+@", "//…@", text)


def _check_kind(kind: str) -> None:
    if kind not in _ENVIRONMENT:
        raise ErrorConfig(f"unknown provider kind {kind!r}; known: {', '.join(_ENVIRONMENT)}")
