"""Other legal values of settings: made from types and bounds, the method's own examples first."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bench.contract_check.place import Sandbox
from bench.contract_check.recipe import Keys
from bench.contract_check.subject import Subject
from bench.contract_check.values import choices, other_values, required
from bench.method import Builder, Method
from bench.spec import Edges
from bench.stage import Stage
from bench.suite.catalogue import discover


class Threshold(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    images: Annotated[float, Field(gt=0)]


class Every(Method):
    """One setting of each form."""

    name: ClassVar[str] = "every"
    on: bool = True
    word: Literal["a", "b", "c"] = "b"
    share: Annotated[float, Field(ge=0, le=1)] = 1.0
    count: Annotated[int, Field(ge=1)] = 1
    open_end: Annotated[float, Field(gt=0)] = float("inf")
    edges: Edges | None = None
    pair: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(gt=0)]] | None = (0.01, 5.0)
    either: Annotated[float, Field(gt=0)] | Threshold = 0.001
    near: Annotated[float, Field(ge=0.5, le=0.6, examples=[0.55])] = 0.5
    text: str = "x"

    def plan(self, b: Builder) -> Stage:
        return b.train()


@pytest.mark.parametrize("name", [n for n in Every.model_fields if n != "text"])
def test_values_are_legal_and_differ(name: str) -> None:
    values = other_values(Every, name, {})
    typed = [getattr(Every.model_validate({name: value}), name) for value in values]
    assert typed
    assert getattr(Every(), name) not in typed
    assert len({repr(value) for value in typed}) == len(typed)


def test_what_is_made_of_each_form() -> None:
    def made(name: str) -> list[Any]:
        return other_values(Every, name, {})

    assert made("on") == [False]
    assert made("word") == ["a", "c"]
    assert {0.0, 0.5} <= set(made("share"))
    assert min(made("count")) > 1
    assert [5, 10] in made("edges")
    assert None in made("pair")
    assert any(isinstance(value, list) for value in made("pair"))
    assert {type(value) for value in made("either")} == {float, dict}
    assert made("near")[0] == 0.55
    assert made("text") == []


def test_words_that_a_setting_lists() -> None:
    assert choices(Every, "word") == ["a", "b", "c"]
    assert choices(Every, "on") == [True, False]
    assert choices(Every, "share") == []


class Bare(Method):
    """Settings without defaults, legal only together."""

    name: ClassVar[str] = "bare"
    low: Annotated[int, Field(ge=0)]
    high: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _ordered(self) -> Bare:
        if not self.low < self.high:
            raise ValueError("low < high")
        return self

    def plan(self, b: Builder) -> Stage:
        return b.train()


class Named(Method):
    """A setting without a default of which no value can be made."""

    name: ClassVar[str] = "named"
    text: str

    def plan(self, b: Builder) -> Stage:
        return b.train()


def test_settings_without_a_default_get_legal_values_together() -> None:
    assert Bare.model_validate(required(Bare)).name == "bare"
    assert required(Every) == {}
    with pytest.raises(ValidationError):
        required(Named)


@pytest.mark.parametrize("kind", list(discover().values()), ids=list(discover()))
def test_every_setting_of_the_house_has_another_value(kind: type[Method], place: Sandbox) -> None:
    """So that no check passes because it had nothing to try."""
    keys = Keys(Subject(kind, place))
    for name in kind.model_fields:
        assert keys.options(name), name
