"""What variables could be to an agent, seen without running any code of theirs: the same for Tab, the form and error hints."""

import functools
import math
import types
import typing
from typing import Any
from unittest.mock import MagicMock

import pytest

from agentroute import HistorySlidingWindow, Memory, Tool
from agentroute.testing import ModelScripted
from agentroute_ipython import looking

LOOKS = [looking.is_model, looking.is_memory, looking.is_policy, looking.is_tool, looking.is_type, looking.is_list_of_tools]
LOOKS += [looking.tool_kind, looking.module_of, looking.description_of, looking.function_of]


class Telling:
    """Notes whatever is asked of it."""

    def __init__(self) -> None:
        object.__setattr__(self, "asked", [])

    def __getattribute__(self, name: str) -> Any:
        object.__getattribute__(self, "asked").append(name)
        raise RuntimeError("working outside of request context")

    def __call__(self) -> None: ...

    def __bool__(self) -> bool:
        raise RuntimeError("no truth")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not to be compared")

    __hash__ = None  # type: ignore[assignment]


class TellingList(list[Any]):
    __iter__ = __len__ = __bool__ = __getitem__ = None  # type: ignore[assignment]


class Meta(type):
    def __getattribute__(cls, name: str) -> Any:
        raise RuntimeError("asked")

    def __instancecheck__(cls, instance: object) -> bool:
        raise RuntimeError("asked")


class OddClass(metaclass=Meta): ...


def own() -> None:
    """Does nothing."""


@pytest.mark.parametrize("look", LOOKS)
def test_nothing_of_a_variable_is_run_by_looking_at_it(look: Any) -> None:
    odd = Telling()
    for value in (odd, [odd], TellingList([odd]), OddClass, object.__new__(OddClass)):
        look(value)
    assert object.__getattribute__(odd, "asked") == []


@pytest.mark.parametrize(
    ("look", "those"),
    [
        (looking.is_model, [ModelScripted(["x"])]), (looking.is_memory, [Memory()]), (looking.is_policy, [HistorySlidingWindow()]),
        (looking.is_type, [int, OddClass, list[int], int | None, typing.Optional[int], typing.Literal["a"], typing.Annotated[int, 1], typing.List[int]]),  # noqa: UP006, UP045
        (looking.is_tool, [own, Tool.from_function(own), functools.partial(own), math.sqrt]),
        (looking.is_list_of_tools, [[own], (own, math.sqrt), TellingList([own])]),
    ],
)  # fmt: skip
def test_what_is_meant_is_known(look: Any, those: list[Any]) -> None:
    assert [value for value in those if not look(value)] == []
    assert [value for value in (None, "int", [], 3, [3], {}) if look(value)] == []


@pytest.mark.parametrize("look", [looking.is_model, looking.is_memory, looking.is_policy, looking.is_list_of_tools])
def test_a_class_and_what_answers_to_every_name_are_not_meant(look: Any) -> None:
    assert [value for value in (ModelScripted, Memory, HistorySlidingWindow, MagicMock()) if look(value)] == []


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (own, "function"), (Tool.from_function(own), "tool"), ([own, math.sqrt], "list of tools"), (MagicMock(), ""), (int, ""), ([], ""), ([int], ""),
    ],
)  # fmt: skip
def test_kinds_of_tools_are_what_is_meant_to_be_one(value: object, kind: str) -> None:
    assert looking.tool_kind(value) == kind


def test_what_is_named_is_asked_where_its_class_does_not_say() -> None:
    class Lazy:
        def __getattr__(self, name: str) -> Any:
            return own

    assert not looking.is_model(Lazy())
    assert looking.answers_to("complete_stream", Lazy())
    assert not looking.answers_to("complete_stream", Telling())
    assert not looking.answers_to("complete_stream", ModelScripted)


def test_module_and_words_of_functions_and_tools() -> None:
    made = Tool.from_function(own)
    assert [looking.description_of(value) for value in (own, made, MagicMock())] == ["Does nothing.", "Does nothing.", ""]
    assert [looking.module_of(value) for value in (own, types.MethodType(own, 1), Telling, 3)] == [__name__, __name__, __name__, None]
    assert (looking.function_of(made), looking.function_of(own)) == (own, None)
