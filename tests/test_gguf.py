"""What a GGUF file says about itself."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentroute import ErrorConfig
from agentroute.models.gguf import context_length, metadata, template_knows_tools
from tests.gguf_files import write_gguf


def test_values_are_read_and_arrays_are_passed_over(tmp_path):
    pairs = metadata(write_gguf(tmp_path / "m.gguf", template="{{ messages }}", context=2048))
    assert pairs == {
        "general.architecture": "llama", "epsilon": 0.5, "flag": True, "llama.context_length": 2048, "tokenizer.chat_template": "{{ messages }}",
    }  # fmt: skip


@pytest.mark.parametrize(("template", "knows"), [("{% if tools %}…", True), ("{{ messages }}", False), (None, False)])
def test_a_template_that_names_tools_knows_them(tmp_path, template, knows):
    assert template_knows_tools(metadata(write_gguf(tmp_path / "m.gguf", template=template))) is knows


@pytest.mark.parametrize("context", [4096, None])
def test_the_context_the_model_was_trained_on(tmp_path, context):
    assert context_length(metadata(write_gguf(tmp_path / "m.gguf", context=context))) == context


@pytest.mark.slow
def test_the_real_file_can_be_read(smollm2):
    pairs = metadata(smollm2)
    assert (context_length(pairs), template_knows_tools(pairs), pairs["general.license"]) == (8192, False, "apache-2.0")


def test_another_file_is_named_as_such(tmp_path):
    (tmp_path / "m.gguf").write_text("hello")
    with pytest.raises(ErrorConfig, match=r"m\.gguf is not a GGUF file: it begins with b'hell'"):
        metadata(tmp_path / "m.gguf")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ErrorConfig, match=r"m\.gguf cannot be read as a GGUF file: No such file"):
        metadata(tmp_path / "m.gguf")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ErrorConfig, match="Is a directory"):
        metadata(tmp_path)


def test_a_version_nobody_knows_is_refused(tmp_path):
    with pytest.raises(ErrorConfig, match="damaged or incomplete"):
        metadata(write_gguf(tmp_path / "m.gguf", version=1))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_a_damaged_file_is_an_error_or_readable_and_nothing_else(tmp_path, data):
    whole = write_gguf(tmp_path / "m.gguf", template="{{ tools }}", context=1).read_bytes()
    cut = data.draw(st.integers(4, len(whole)))
    place, byte = data.draw(st.integers(4, len(whole) - 1)), data.draw(st.integers(0, 255))
    (tmp_path / "m.gguf").write_bytes((whole[:place] + bytes([byte]) + whole[place + 1 :])[:cut])
    try:
        metadata(tmp_path / "m.gguf")
    except ErrorConfig:
        pass
