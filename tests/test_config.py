"""Keys and addresses: what is read, and that nothing secret is shown."""

import os
import pickle
import traceback
from pathlib import Path

import pytest
from pydantic import SecretBytes, SecretStr

from agentroute import Agent, ErrorConfig, ModelCloud, resolve_model
from agentroute.config import Config, Headers, Secret, checked_url, keys_in_use, without_keys, without_password

KEY = "sk-secret-0123456789"


def traced(error: BaseException) -> str:
    """The traceback as tools print it that show local variables, without the caller's own frame."""
    assert error.__traceback__ is not None
    trace = traceback.TracebackException(type(error), error, error.__traceback__.tb_next, capture_locals=True)
    return "".join(trace.format())


# ---- keys


def test_a_secret_shows_itself_only_when_asked():
    secret = Secret(f" {KEY}\n")
    assert secret.reveal() == KEY
    assert KEY not in f"{secret} {secret!r} {secret:>40} {[secret]}"
    with pytest.raises(TypeError):
        pickle.dumps(secret)


@pytest.mark.parametrize("make", [lambda key: Agent("a", model="claude-x", api_key=key)._resolve().inner.inner, lambda key: resolve_model("claude-x", api_key=key),
                                  lambda key: ModelCloud(model_id="m", base_url="http://h/v1", api_key=key)], ids=["Agent", "resolve_model", "ModelCloud"])  # fmt: skip
def test_a_key_may_come_in_a_secret_of_pydantic(make):
    model = make(SecretStr(f" {KEY}\n"))
    assert model._key.reveal() == KEY


@pytest.mark.parametrize("value", [SecretStr(f"{KEY} x"), SecretBytes(KEY.encode()), SecretStr])
def test_a_secret_of_pydantic_that_is_no_key_is_refused_unseen(value):
    with pytest.raises(ErrorConfig, match="api_key") as caught:
        Secret(value)
    assert "sk-secret" not in traced(caught.value)


@pytest.mark.parametrize("value", [f"{KEY} x", f"{KEY}\x00x", f"{KEY}é", KEY.encode(), [KEY]])
def test_a_bad_key_is_in_no_traceback(value):
    for make in (
        lambda: Secret(value),
        lambda: ModelCloud(model_id="m", base_url="http://h/v1", api_key=value),
        lambda: resolve_model("claude-x", api_key=value),
    ):
        with pytest.raises(ErrorConfig) as caught:
            make()
        caught.value.__traceback__ = caught.value.__traceback__.tb_next  # the lambda's frame is the caller's too
        assert "sk-secret" not in traced(caught.value)


@pytest.mark.parametrize(
    "options", [{"base_url": "ftp://h/v1"}, {"base_url": "http://h:port/v1"}, {"model": "http://[h/v1/m"}, {"model": "ollama/m", "base_url": "h"}]
)
def test_a_good_key_is_in_no_traceback_of_another_mistake(options):
    with pytest.raises(ErrorConfig, match="not a usable endpoint") as caught:
        resolve_model(**{"model": "m", **options}, api_key=KEY)
    assert "sk-secret" not in traced(caught.value)


def test_a_bad_key_of_the_environment_is_in_no_traceback(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AGENTROUTE_API_KEY", f"{KEY} x")
    with pytest.raises(ErrorConfig, match="not shown") as caught:
        resolve_model("claude-x")
    assert "sk-secret" not in traced(caught.value)


def test_a_mistake_beside_a_good_key_is_in_no_traceback():
    with pytest.raises(ErrorConfig, match="timeout") as caught:
        ModelCloud(model_id="m", base_url="http://h/v1", api_key=KEY, headers={"x-api-key": KEY}, timeout=0)
    assert "sk-secret" not in traced(caught.value)


# ---- headers


@pytest.mark.parametrize(
    "headers", [{"x-api-key": f"{KEY}\n"}, {"x-api-key": f" {KEY}"}, {"x-api-key": f"{KEY}é"}, {"x-api-key": KEY.encode()}, {KEY + ":": "x"}, [KEY]]
)
def test_a_header_no_request_can_carry_is_refused_unseen(headers):
    with pytest.raises(ErrorConfig, match="header") as caught:
        ModelCloud(model_id="m", base_url="http://h/v1", headers=headers)
    assert "sk-secret" not in traced(caught.value)


def test_header_names_know_no_case_and_values_are_not_shown():
    headers = Headers({"X-Title": "My App", "X-Api-Key": KEY})
    assert headers == {"x-title": "My App", "x-api-key": KEY}
    assert repr(headers) == "Headers(x-title, x-api-key)"


# ---- addresses


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:pass@host/v1/m", "https://…@host/v1/m"),
        ("https://user:p@ss@host/v1/m", "https://…@host/v1/m"),
        ("at https://a@b and http://c:d@e/f@g", "at https://…@b and http://…@e/f@g"),
        ("https://host/v1/a@b", "https://host/v1/a@b"),
        ("user@host", "user@host"),
    ],
)
def test_no_password_of_a_url_is_shown(text, shown):
    assert without_password(text) == shown


@pytest.mark.parametrize("url", ["", "host", "ftp://host", "http://", "http://h:x", "http://h:99999", "http://[h", "http://h/a b", None, 7])
def test_what_is_no_endpoint_is_refused(url):
    with pytest.raises(ErrorConfig, match=r"not a usable endpoint: .*; give one like"):
        checked_url(url)


def test_the_last_of_equal_settings_wins(tmp_path):
    (tmp_path / "config").write_text("# api_key = no\n\nopenai_api_key = a = b\nopenai_api_key=c\nopenai_base_url = http://h/v1\n")
    config = Config(tmp_path)
    assert (config.api_key(kind="openai"), config.base_url(kind="openai"), config.base_url()) == ("c", "http://h/v1", None)


def test_a_written_key_is_read_again_and_seen_by_nobody_else(tmp_path: Path) -> None:
    config = Config(tmp_path / "home" / ".agentroute")
    config.config_dir.mkdir(parents=True)
    config.config_file.write_text("# mine\napi_key = old\nopenrouter_base_url = http://127.0.0.1:1/v1\n")
    config.write_api_key(Secret("sk-new"))
    assert (config.api_key(), config.base_url()) == ("sk-new", "http://127.0.0.1:1/v1")
    assert "# mine" in config.config_file.read_text()
    assert config.config_file.stat().st_mode & 0o777 == 0o600


def test_a_query_of_a_url_is_never_shown() -> None:
    assert without_password("at https://host/v1/m?key=sk-1 and 'http://h/m#sk-2'") == "at https://host/v1/m?… and 'http://h/m?…'"


def test_found_keys_are_places_in_the_order_of_use_and_never_keys(monkeypatch, tmp_path):
    (tmp_path / "config").write_text("openai_api_key=sk-file\nopenrouter_api_key=sk with spaces\napi_key=sk-plain\n")
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-environment")
    found = Config(tmp_path).found_keys()
    assert [(key.kind, key.where.removeprefix(str(tmp_path)), key.usable) for key in found] == [
        ("openrouter", "OPENROUTER_API_KEY", True),
        ("openrouter", "/config (api_key)", True),
        ("openrouter", "/config (openrouter_api_key)", False),
        ("openai", "/config (openai_api_key)", True),
    ]
    assert "sk" not in repr(found).replace(str(tmp_path), "")


def test_found_keys_of_a_file_nobody_can_read_are_those_of_the_environment(monkeypatch, tmp_path):
    (tmp_path / "config").write_bytes(b"\xff\xfe")
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-environment")
    assert [key.where for key in Config(tmp_path).found_keys() if key.kind == "openrouter"] == ["OPENROUTER_API_KEY"]


@pytest.mark.parametrize("environment", [os.environ, dict(os.environ)], ids=["of the process", "a plain dictionary"])
def test_a_key_that_is_set_or_changed_later_is_in_use_at_once(monkeypatch, environment):
    monkeypatch.setattr(os, "environ", environment)
    assert not keys_in_use() & {"sk-later-0001", "sk-later-0002"}
    monkeypatch.setitem(os.environ, "GOOGLE_API_KEY", " sk-later-0001\n")
    assert "sk-later-0001" in keys_in_use()
    held = Secret("sk-later-0002")
    assert {"sk-later-0001", "sk-later-0002"} <= keys_in_use()
    monkeypatch.setitem(os.environ, "GOOGLE_API_KEY", "sk-later-0003")
    assert keys_in_use() & {"sk-later-0001", "sk-later-0003"} == {"sk-later-0003"}
    monkeypatch.delitem(os.environ, "GOOGLE_API_KEY")
    del held
    assert not keys_in_use() & {"sk-later-0001", "sk-later-0002", "sk-later-0003"}


def test_of_an_address_with_a_login_only_the_login_and_the_query_are_keys():
    address = Secret("https://user:p%40ssword-of-mine@models.example/v1?key=sk-of-the-query&x=1")
    keys = keys_in_use()
    assert {"p%40ssword-of-mine", "p@ssword-of-mine", "sk-of-the-query"} <= keys
    assert not [key for key in keys if "://" in key or "models.example" in key]
    assert without_keys("see https://models.example/v1", keys) == "see https://models.example/v1"
    assert address.reveal().startswith("https://user:")
