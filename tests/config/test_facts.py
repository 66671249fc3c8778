"""What is read from source files: arguments through bases, aliases, re-exports and factories, and what cannot be."""

import sys
import textwrap

import pytest

from graft.config.facts import arguments, attribute
from graft.config.sources import NotThereError, UnreadableError

FILES = {
    "__init__.py": "from readable.parts import Made as Renamed\nfrom .deep import *\n",
    "parts.py": """
        import functools
        from collections.abc import Callable, Mapping, Sequence
        from dataclasses import dataclass
        from typing import Annotated, Any, Literal, Optional, Union

        from annotated_types import Ge, Interval, Lt, MinLen

        from graft.config.types import Count as Number, Given
        from readable import base
        from readable.base import WORDS, Base

        class Made(Base):
            own = True

            def __init__(self, size: Number, *, word: Literal[WORDS] = "a", given: Given = None, **settings: object):
                super().__init__("fixed", **settings)

        class Inherits(base.Base):
            '''No constructor of its own.'''

        @dataclass
        class Data(base.Plain):
            share: Annotated[float, Interval(ge=0, lt=1)]
            many: Annotated[Sequence[int], MinLen(2)] = (1, 2)

        def factory(depth: "Optional[int]", table: Mapping[str, int] | None = None, **rest: Any) -> Base:
            return Made(3, **rest)

        def hidden(**rest: Any):
            return globals()["factory"](**rest)

        def plain(size, call: Callable = None, both: Union[int, str] = 1, below: Annotated[float, Lt(2**3)] = 1): ...

        at_run_time = functools.partial(factory, 3)
        alias = Made

        class Dynamic(globals()["Base"]):
            pass

        class Broken(Base):
            def __init__(self, value: UNKNOWN = 1): ...
        """,
    "base.py": """
        from dataclasses import dataclass

        WORDS = ("a", *("b",))

        class Base:
            needs = ("x",)
            own = False

            def __init__(self, first: str, train: bool | None = None, path: "list[str] | str" = "auto"): ...

        @dataclass
        class Plain:
            name: str
        """,
    "deep/__init__.py": "from readable.deep.inner import Inner\n",
    "deep/inner.py": "class Inner:\n    def __init__(self, x: int = 1): ...\n",
}


@pytest.fixture(autouse=True)
def package(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.getbasetemp() / "packages"
    for name, text in FILES.items():
        file = folder / "readable" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(str(folder))
    yield
    assert "readable" not in sys.modules


def words(target):
    """What each argument may hold, in words."""
    return {name: one.rule and one.rule.words() for name, one in arguments(f"readable.{target}").known.items()}


MADE = {
    "train": "null or true or false",
    "path": "a list of texts or text",
    "size": "an integer >= 1",
    "word": "a or b",
    "given": "",
}


@pytest.mark.parametrize("target", ["parts.Made", "Renamed", "parts.alias"])
def test_settings_passed_on_to_a_base_of_another_module(target):
    found = words(target)
    assert found.pop("given") is None
    assert found == {name: text for name, text in MADE.items() if name != "given"}
    assert arguments(f"readable.{target}").known["given"].given
    assert arguments(f"readable.{target}").known["size"].required


def test_a_base_stands_in_for_a_class_without_constructor():
    assert list(words("parts.Inherits")) == ["first", "train", "path"]


def test_a_dataclass_has_its_fields_and_those_of_its_base():
    assert words("parts.Data") == {
        "name": "text",
        "share": "a number >= 0 and < 1",
        "many": "a list of integers (at least 2)",
    }


def test_a_factory_passes_on_to_what_it_calls():
    found = words("parts.factory")
    assert found["depth"] == "null or an integer"
    assert found["table"] == "null or a mapping"
    assert found["word"] == "a or b"
    assert "size" not in found


def test_annotations_in_other_forms():
    assert words("parts.plain") == {
        "size": None,
        "call": "a mapping with _target_",
        "both": "an integer or text",
        "below": "a number < 8",
    }


def test_a_star_import_is_followed():
    assert words("Inner") == {"x": "an integer"}


def test_what_cannot_be_read_is_said():
    assert "hidden" in arguments("readable.parts.hidden").unread
    for target in ("readable.parts.at_run_time", "readable.parts.Dynamic", "math.sqrt", "readable.parts.Made.own"):
        with pytest.raises(UnreadableError):
            arguments(target)
    assert arguments("readable.parts.Broken").known["value"].rule is None


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("readable.parts.Mde", "did you mean `readable.parts.Made`"),
        ("readable.part.Made", "did you mean `readable.parts`"),
        ("no_such_package.Made", "there is no package `no_such_package`"),
        ("Made", "there is no package `Made`"),
    ],
)
def test_what_is_not_there_is_told_apart(target, message):
    with pytest.raises(NotThereError, match=message):
        arguments(target)


def test_attributes_of_classes():
    assert attribute("readable.parts.Made", "own") is True
    assert attribute("readable.Renamed", "needs") == ("x",)
    assert attribute("readable.parts.factory", "own") is False, "of the class that it returns"
    assert attribute("readable.parts.Dynamic", "own", "default") == "default"
    assert attribute("graft.strategies.lora.LoRA", "freezes") is True
    assert attribute("graft.terms.regularization.bi_tuning.BiTuning", "needs_labels") is True


def test_parts_of_libraries_are_read():
    assert arguments("torch.optim.AdamW").known["eps"].rule.words() == "a number"
    for package in ("lightning.pytorch", "pytorch_lightning"):
        found = arguments(f"{package}.callbacks.LearningRateMonitor").known["logging_interval"].rule
        assert found.accepts("step")
        assert not found.accepts("steps")
